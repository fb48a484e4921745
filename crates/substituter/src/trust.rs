//! What of a substituter's paths Nix would take.

use crate::content_address::is_content_addressed;
use crate::{PathInfo, PublicKeys};

/// Decides whether Nix would take a path (nix `src/libstore/path-info.cc`, `checkSignatures`).
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    /// Whether a substituter needs no signatures.
    pub(crate) blind: bool,
    /// The keys that count.
    pub(crate) keys: PublicKeys,
}

impl Trust {
    /// Whether it would: signed by a trusted key, or content-addressed, or nobody asks.
    pub(crate) fn takes(&self, info: &PathInfo) -> bool {
        self.blind || is_content_addressed(info) || self.keys.signed(info)
    }
}
