//! From installables to targets.
//!
//! What to look at is decided by a [`Walk`] over attribute paths, which is pure: it says what to inspect
//! next, is told what is there, and finds targets. What is there is told by evaluator processes, stock
//! `nix repl`s behind pipes: each keeps its heap from one attribute to the next, and an attribute that
//! throws, aborts or recurses costs one answer, not the process. Why it is done this way:
//! `docs/design/evaluation.md`.

mod answers;
mod budget;
mod crew;
mod evaluator;
mod flake;
mod glob;
mod installable;
mod memory;
mod pool;
mod prepare;
mod reply;
mod said;
mod selection;
mod special;
mod spread;
mod trace;
mod walk;
mod worker;

pub use answers::{Fingerprint, KeepAnswers};
pub use flake::{FlakeConfig, LockedFlake};
pub use glob::{Glob, GlobError};
pub use installable::{Installable, InstallableError};
pub use pool::{EvaluateError, Evaluators, Found, Heard, Progress, Request, Root, Select, evaluate};
pub use selection::{DEFAULT_INCLUDE, Selection, is_system};
pub use special::{Dependency, Needed, Program, Special, StdAction, StdParticulars, WorkUnit};
pub use walk::{Ended, FoundDerivation, FoundTarget, Inspect, Walk};
