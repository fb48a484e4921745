//! From installables to targets.
//!
//! What to look at is decided by a [`Walk`] over attribute paths, which is pure: it says what to inspect
//! next, is told what is there, and finds targets. What is there is told by evaluator processes, stock
//! `nix repl`s behind pipes: each keeps its heap from one attribute to the next, and an attribute that
//! throws, aborts or recurses costs one answer, not the process. Why it is done this way:
//! `docs/design/evaluation.md`.

mod across;
mod answers;
mod budget;
mod constituents;
mod crew;
mod details;
mod earlier;
mod evaluator;
mod explore;
mod expression;
mod flake;
mod glob;
mod guard;
mod installable;
mod jobs;
mod left;
mod memory;
mod mistakes;
mod names;
mod neighbours;
mod nix_eval_jobs;
mod pace;
mod pool;
mod prepare;
mod recording;
mod reply;
mod said;
mod selection;
mod source;
mod special;
mod spread;
mod through;
mod trace;
mod unavailable;
mod walk;
mod worker;

pub use answers::{Fingerprint, KeepAnswers};
pub use details::{Detailed, Details};
pub use evaluator::is_crash;
pub use expression::Expression;
pub use flake::{FlakeConfig, LockedFlake};
pub use glob::{Glob, GlobError};
pub use installable::{Installable, InstallableError};
pub use jobs::{JobRoot, JobSource};
pub use nix_eval_jobs::{EvaluatorKind, NixEvalJobsError};
pub use pool::{EvaluateError, Evaluators, Found, Heard, Progress, Request, Root, Select, evaluate};
pub use selection::{DEFAULT_INCLUDE, Selection, is_system};
pub use special::{Dependency, Needed, Program, Special, StdAction, StdParticulars, WorkUnit};
pub use unavailable::Unavailable;
pub use walk::{Ended, FoundDerivation, FoundTarget, Inspect, Walk};
