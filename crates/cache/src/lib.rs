//! Saves store paths to a depot in packs, restores them, and serves them as a binary cache.
//!
//! `pack` says how, `depot` where, `store` from where and to where. A cache can only make a run faster:
//! whatever goes wrong with a pack or a depot is a [`Trouble`] that is told once, and a miss.

mod attempts;
mod cache;
mod collect;
mod directories;
mod frames;
mod local;
mod name;
mod order;
mod outline;
mod packs;
mod restore;
mod save;
pub mod serve;
mod spill;
mod through_daemon;
mod trouble;
mod trust;
mod workshop;

pub use cache::Cache;
pub use collect::{ALIVE, CollectError, Collected, GRACE, MOST_PACKS, MakingRoom};
pub use local::{Destination, IntoStoreError};
pub use name::PACKS;
pub use packs::Packs;
pub use restore::{MakeArchive, Restored, TakeArchive, is_consequence};
pub use save::{ReadArchive, Saved};
pub use trouble::{Said, Trouble};
