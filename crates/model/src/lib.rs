//! The words of Phoenix CI as types: store paths, derivations, attribute paths, targets, statuses,
//! verdicts and events.
//!
//! Everything else is built on these; they know nothing of processes, files or networks.

mod action;
mod attr_path;
mod content_path;
mod derivation;
mod event;
mod input_drvs;
mod nar_hash;
pub mod nix32;
mod redact;
mod secrets;
mod status;
mod store_path;
mod target;
mod valid_path_info;
mod verdict;

pub use action::{Action, ActionId, ActionVerdict, Does};
pub use attr_path::{AttrPath, AttrPathError};
pub use content_path::{hash_part, kind_of_path, source_path, text_path};
pub use derivation::{Derivation, DerivationError, Modulo, Output, OutputKind};
pub use event::{
    Event, Logged, PlannedDerivation, PlannedTarget, SCHEMA_VERSION, SettledDerivation, Severity, Stage,
    Stamp,
};
pub use input_drvs::{InputDrv, InputDrvs};
pub use nar_hash::{NarHash, NarHashError};
pub use redact::redact;
pub use secrets::Secrets;
pub use status::{Source, Status};
pub use store_path::{NIX32_ALPHABET, PathKey, StorePath, StorePathError, StorePathRef};
pub use target::{Target, TargetId, TargetKind};
pub use valid_path_info::ValidPathInfo;
pub use verdict::{FailureClass, Verdict, VerdictKind};
