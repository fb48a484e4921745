//! Decides what is missing, what to build first, and how every target ends.
//!
//! Nothing here runs, reads or waits for anything. [`Search`] says which derivations to read and which
//! paths to ask for, and is told the answers; it ends in a [`Plan`]. [`Run`] is told what happens and
//! answers with the events that follow from it, so that a whole run can be replayed in a unit test. For several
//! runners, [`Units`] groups the steps of a plan, [`farm`] says what each worker does next, and [`simulation`]
//! what that would take.

mod actions;
mod builders;
mod critical_path;
mod estimates;
mod failures;
pub mod farm;
mod hindered;
mod labels;
mod order;
mod plan;
mod run;
mod search;
pub mod simulation;
mod units;

pub use actions::{Actions, Readiness};
pub use builders::{Builders, Machine};
pub use critical_path::{longest_paths, remaining_seconds};
pub use estimates::{DEFAULT_BYTES, DEFAULT_SECONDS, Estimates, package_name};
pub use failures::Failures;
pub use labels::{RunnerKind, RunnerKinds};
pub use order::order;
pub use plan::{Goal, Hopeless, Plan, Step};
pub use run::{BuilderEnd, Happening, Run, signal_name};
pub use search::{Question, Search};
pub use units::{Class, Grain, Unit, Units};
