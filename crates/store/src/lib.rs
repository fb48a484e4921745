//! The Nix that is installed here: its commands and settings, what its store holds, its builds and
//! what they say.
//!
//! [`Nix`] makes commands, [`Settings`] says how Nix is configured, [`Layout`] where a store lies on
//! disk, [`Validity`] what is in it, [`read_derivations`] reads `.drv` files, and [`Build`] is a running
//! `nix-store --realise` whose log becomes [`BuildEvent`]s.

mod build;
mod build_log;
mod daemon;
mod derivations;
mod failure;
mod group;
mod import;
mod layout;
mod machines;
mod nix;
mod path_infos;
mod roots;
mod settings;
mod temp_roots;
mod text;
mod tree;
mod validity;
mod way;

pub use build::{Build, BuildExit, Realise, RealiseError};
pub use build_log::{BuildEvent, BuildLog, Counts};
pub use daemon::{AddError, Daemon, DaemonError, DaemonProxy, ProxyError, add_through_daemon};
pub use derivations::{ReadAhead, read_derivations};
pub use failure::{Failure, failure_of};
pub use import::{
    Import, ImportError, InitialiseError, Receive, ReceiveError, Received, RegisterError, Registered, Whole,
    initialise,
};
pub use layout::{Layout, StoreEnv};
pub use machines::RemoteBuilder;
pub use nix::{Nix, NixError};
pub use path_infos::{PathInfos, PathInfosError};
pub use roots::{RootError, Roots};
pub use settings::Settings;
pub use temp_roots::{TempRoots, TempRootsError};
pub use text::{error_text, strip_ansi, with_causes};
pub use tree::{DumpError, UnpackError, dump};
pub use validity::{Validity, ValidityError, is_realised};
pub use way::Way;
