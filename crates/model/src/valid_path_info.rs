//! What a store knows of a valid path.

use crate::{NarHash, StorePath};

/// What a store knows of a valid path: the row of its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidPathInfo {
    /// The path.
    pub path: StorePath,
    /// The hash of its NAR.
    pub nar_hash: NarHash,
    /// Bytes of its NAR; 0 where a very old Nix did not note them.
    pub nar_size: u64,
    /// The paths it refers to, sorted, each once; itself too, if it does.
    pub references: Vec<StorePath>,
    /// The derivation it was built by, where that is known; it need not be valid.
    pub deriver: Option<StorePath>,
    /// Signatures, `NAME:BASE64`, sorted, each once.
    pub signatures: Vec<String>,
    /// How the path follows from the contents, where it does: `fixed:r:sha256:…`, `text:sha256:…`.
    pub content_address: Option<String>,
    /// When it was registered, in seconds since 1970; 0 for "when it comes in".
    pub registration_time: i64,
    /// Whether this very store built it.
    pub ultimate: bool,
}

impl ValidPathInfo {
    /// What is to be known of a path at least; the rest is empty.
    #[must_use]
    pub fn new(path: StorePath, nar_hash: NarHash, nar_size: u64) -> Self {
        Self {
            path,
            nar_hash,
            nar_size,
            references: Vec::new(),
            deriver: None,
            signatures: Vec::new(),
            content_address: None,
            registration_time: 0,
            ultimate: false,
        }
    }
}
