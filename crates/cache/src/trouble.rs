//! What went wrong without stopping anything.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use phoenix_depot::{DepotError, Problem};
use phoenix_pack::PackError;
use phoenix_substituter::NarInfoError;

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
    /// Packs that nothing is wrong with are not read: the directories of those that are newer take all the room.
    #[error(
        "{depot}: {} left out, for all that packs say of their paths is more than there is memory for, and the newest \
         come first; what is in {them} is not restored, and not saved anew, and nothing is let go of meanwhile. `phoenix cache \
         gc` makes room: it folds what is in others twice, and lets go of what there is no room for even then, when no save \
         relies on it any more; who needs that saves it anew. Many small paths are better kept in a depot of their own",
        named(.packs),
        them = if .packs.len() == 1 { "it" } else { "them" }
    )]
    LeftOut {
        /// The depot, as it names itself.
        depot: String,
        /// The blobs, by name.
        packs: Vec<String>,
    },
    /// A path that is whole cannot be told of to who asks a server for it.
    #[error(
        "{depot}: {path} is not served, for its narinfo cannot be sent ({why}); `phoenix cache restore` brings it"
    )]
    NotServed {
        /// The depot, as it names itself.
        depot: String,
        /// The path.
        path: String,
        /// What is wrong with its narinfo.
        why: NarInfoError,
    },
}

impl Trouble {
    /// The pack that is damaged, if one is.
    #[must_use]
    pub fn pack(&self) -> Option<&str> {
        match self {
            // What was not read, or is of a later version, may be whole.
            Self::Depot(_)
            | Self::NotServed { .. }
            | Self::LeftOut { .. }
            | Self::Pack { problem: PackError::Version(_) | PackError::NoRoom, .. } => None,
            Self::Pack { pack, .. } | Self::Frames { pack, .. } => Some(pack),
        }
    }
}

/// Some packs, with how many there are.
fn named(packs: &[String]) -> String {
    /// So many are named.
    const FEW: usize = 3;
    match packs {
        [pack] => format!("the pack {pack} is"),
        packs if packs.len() > FEW => format!("{} packs ({}, …) are", packs.len(), packs[..FEW].join(", ")),
        packs => format!("{} packs ({}) are", packs.len(), packs.join(", ")),
    }
}

/// How many messages are remembered.
const MESSAGES: usize = 1000;

/// What was told, so that nothing is told again: not that this pack and that one cannot be read because we may not.
#[derive(Debug, Default)]
pub struct Said(HashSet<String>);

/// Tells what it is told, each thing once.
pub(crate) fn once(tell: impl Fn(Trouble)) -> impl Fn(Trouble) {
    let said: Mutex<Said> = Mutex::default();
    move |trouble| {
        if said.lock().unwrap_or_else(PoisonError::into_inner).is_news(&trouble) {
            tell(trouble);
        }
    }
}

impl Said {
    /// Whether this was not told yet. What comes after a thousand things is none either.
    pub fn is_news(&mut self, trouble: &Trouble) -> bool {
        let what = match trouble {
            // It is about us, whatever the pack.
            Trouble::Depot(DepotError {
                problem: Problem::Denied(words) | Problem::Ended(words), ..
            }) => words.clone(),
            trouble => trouble.to_string(),
        };
        self.0.len() < MESSAGES && self.0.insert(what)
    }
}
