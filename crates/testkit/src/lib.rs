//! What tests need: a throw-away Nix store, fixture flakes, and a binary cache that misbehaves on demand.
//!
//! Nothing here touches the user's own store, and servers listen on the loopback only.

pub mod binary_cache;
mod flake;
mod nix_root;

pub use flake::{Flake, PREAMBLE};
pub use nix_root::{Daemon, NixRoot};
