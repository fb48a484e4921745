//! Asks Nix's substituters which store paths they have.
//!
//! [`ask`] puts many questions at once and hands out each answer as it comes; the answer to one may lead
//! to more. A path is *present* when a substituter has it and its signature counts, *absent* when all
//! answered that they have it not, and *unknown* when one that might have it did not answer. Async stays
//! inside this crate.

mod ask;
mod http;
mod location;
mod narinfo;
mod netrc;
mod nix32;
mod other;
mod signature;

pub use ask::{AskError, DEFAULT_CONNECTIONS, Found, Heard, Settings, ask};
pub use location::Location;
pub use narinfo::{NarInfo, NarInfoError};
pub use netrc::{Credentials, Netrc};
pub use signature::{PublicKeys, fingerprint};
