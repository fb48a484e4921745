//! What tests of ledgers and workers need: the contract as test cases, and an exchange that pretends.

mod contract;
mod pretend;

pub use contract::contract;
pub use pretend::Pretend;
