//! What is said of a store path, by whomever.

use phoenix_model::{StorePath, ValidPathInfo};

/// What a substituter says of a store path, as far as it can be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The path it is about.
    pub store_path: StorePath,
    /// Hash of the NAR, in any of Nix's notations, as it stands.
    pub nar_hash: String,
    /// Bytes of the NAR.
    pub nar_size: u64,
    /// Base names of the paths it refers to.
    pub references: Vec<String>,
    /// Signatures, `NAME:BASE64`.
    pub signatures: Vec<String>,
    /// How the path follows from the contents, where it does: `fixed:r:sha256:…`, `text:sha256:…`.
    pub content_address: Option<String>,
}

impl PathInfo {
    /// What a store says of one of its paths.
    #[must_use]
    pub fn of_valid(info: &ValidPathInfo) -> Self {
        Self {
            store_path: info.path.clone(),
            nar_hash: info.nar_hash.to_string(),
            nar_size: info.nar_size,
            references: info.references.iter().map(|path| path.base_name().to_owned()).collect(),
            signatures: info.signatures.clone(),
            content_address: info.content_address.clone(),
        }
    }

    /// The references as full paths, sorted, each once, as Nix keeps them.
    pub(crate) fn sorted_references(&self) -> Vec<String> {
        let store_dir = self.store_path.store_dir();
        let mut references: Vec<String> =
            self.references.iter().map(|name| format!("{store_dir}/{name}")).collect();
        references.sort_unstable();
        references.dedup();
        references
    }
}
