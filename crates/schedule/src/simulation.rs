//! A farm on virtual time.
//!
//! [`simulate`] runs the very state machine that workers run ([`Worker`](crate::farm::Worker)), one for each
//! slot of a plan, against a ledger that is slow and late, with builds that take longer than expected, fail,
//! or are broken off, and with workers that die: all by a seed. [`Comparison`] is what `phoenix plan
//! --simulate` shows, and [`runners()`] decides how many runners a plan gets.

mod comparison;
mod ledger;
mod random;
mod runners;
mod story;
mod world;

pub use comparison::{Comparison, Row, Separate, compare, separate};
pub use runners::{Decision, runners, share};
pub use story::Story;
pub use world::{Conditions, Requests, Simulated, simulate};

#[cfg(test)]
mod tests;
