//! Trees of files as Nix keeps them in a store: read as a NAR, written from one, removed.
//!
//! Everything below the top is reached through directories that are open, never through a symlink.

mod case_hack;
mod dump;
mod remove;
mod unpack;

pub use dump::{DumpError, dump};
pub(crate) use remove::remove;
pub use unpack::UnpackError;
pub(crate) use unpack::{Top, Unpacker};
