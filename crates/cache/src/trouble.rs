//! What went wrong without stopping anything.

use phoenix_depot::DepotError;
use phoenix_pack::PackError;

/// Something that made the cache less useful. Nothing is lost but speed.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The depot did not do what it was asked for.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// A pack cannot be used.
    #[error("{depot}: the pack {pack} cannot be used: {problem}")]
    Pack {
        /// The depot, as it names itself.
        depot: String,
        /// The blob.
        pack: String,
        /// What is wrong with it.
        problem: PackError,
    },
    /// Parts of a pack cannot be used.
    #[error("{depot}: a part of the pack {pack} cannot be used: {problem} ({damaged} of {frames} frames)")]
    Frames {
        /// The depot, as it names itself.
        depot: String,
        /// The blob.
        pack: String,
        /// What is wrong with one of them.
        problem: PackError,
        /// How many frames of it are damaged.
        damaged: usize,
        /// How many it has.
        frames: usize,
    },
}

impl Trouble {
    /// The pack that is damaged, if one is.
    #[must_use]
    pub fn pack(&self) -> Option<&str> {
        match self {
            Self::Depot(_) => None,
            Self::Pack { pack, .. } | Self::Frames { pack, .. } => Some(pack),
        }
    }
}
