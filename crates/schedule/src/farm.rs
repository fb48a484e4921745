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
pub use record::{Acted, Built, Ends, Failure, Outcome, Record, Returned, Slot, UnitId};
pub use report::Collector;
pub use worker::{Command, Leaving, Notice, Worker};

/// The unit by which the ledger of a plan calls an action: those after all that is built, which boards pass over.
#[must_use]
pub fn action_unit(plan: &FarmPlan, action: phoenix_model::ActionId) -> UnitId {
    UnitId(u32::try_from(plan.units().len()).unwrap_or(u32::MAX).saturating_add(action.0))
}

/// The action that a unit is, if it is one.
#[must_use]
pub fn action_of(plan: &FarmPlan, unit: UnitId) -> Option<phoenix_model::ActionId> {
    let units = u32::try_from(plan.units().len()).ok()?;
    unit.0.checked_sub(units).map(phoenix_model::ActionId)
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
