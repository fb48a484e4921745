//! The farm: several workers on one plan, without anybody who tells them what to do.
//!
//! Workers share a [`FarmPlan`] and a ledger, in which they write [`Record`]s: I took this unit; this is how
//! it ended. Each has a [`Board`], which says what follows from the records it has seen, and is a [`Worker`],
//! which says what to do next. Both are state machines that are told what happened and when. They run, read
//! and wait for nothing: the crate `work` does that for real, and [`simulation`](crate::simulation) on virtual
//! time.

mod bits;
mod board;
mod forecast;
mod plan;
mod record;
mod report;
mod worker;

pub use board::{Board, Limits};
pub use plan::{FarmDerivation, FarmPlan, PlanError, SlotPlan};
pub use record::{Built, Failure, Outcome, Record, Returned, Slot, UnitId};
pub use report::Collector;
pub use worker::{Command, Leaving, Notice, Worker};

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
