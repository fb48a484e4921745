//! What tests need: a throw-away Nix store, fixture flakes, a NATS server, and servers that misbehave on demand:
//! a binary cache, and a double of GitHub's cache service.
//!
//! Nothing here touches the user's own store, and servers listen on the loopback only.

pub mod binary_cache;
mod flake;
pub mod github;
pub mod http;
mod nats_server;
mod nix_root;
mod sources;

pub use flake::{Flake, PREAMBLE};
pub use nats_server::NatsServer;
pub use nix_root::{Daemon, NixRoot};
pub use sources::Around;
