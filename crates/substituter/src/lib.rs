//! Asks Nix's substituters which store paths they have.
//!
//! [`ask()`] puts many questions at once and hands out each answer as it comes; the answer to one may lead
//! to more. A path is *present* when a substituter has it and Nix would take it, *absent* when all
//! answered that they have it not, and *unknown* when one that might have it did not answer. Async stays
//! inside this crate.
//!
//! What decides is in parts that know no network: [`NarInfo`] and [`PublicKeys`] read and judge what is
//! served, [`SecretKey`] signs, [`ContentCheck`] compares contents with the address they claim to have, the
//! routing says who is asked next, the pace and the retries how fast and how often.

mod ask;
mod asking;
mod cache_info;
mod content_address;
mod content_check;
mod directory;
mod hash;
mod heard;
mod http;
mod location;
mod narinfo;
mod netrc;
mod nix_store;
mod pace;
mod path_info;
mod retry;
mod routing;
mod secret_key;
mod settings;
mod signature;
mod store;
mod trust;

pub use ask::{AskError, ask};
pub use content_address::is_content_addressed;
pub use content_check::ContentCheck;
pub use heard::{Found, Heard};
pub use location::{Location, redacted};
pub use narinfo::{LARGEST_NARINFO, NarInfo, NarInfoError};
pub use netrc::{Credentials, Netrc};
pub use path_info::PathInfo;
pub use phoenix_model::nix32;
pub use secret_key::{SecretKey, SecretKeyError};
pub use settings::{DEFAULT_CONNECTIONS, Settings};
pub use signature::{PublicKeyError, PublicKeys, fingerprint, is_signature};
