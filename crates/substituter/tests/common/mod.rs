//! What every test that asks a server sets up.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use phoenix_model::StorePath;
use phoenix_store::Nix;
use phoenix_substituter::Settings;

/// The store directory that caches and questions are about.
pub(crate) const STORE: &str = "/nix/store";

/// A path for each number.
pub(crate) fn path(number: usize) -> StorePath {
    StorePath::parse(&format!("{STORE}/{number:032}-p{number}")).unwrap()
}

/// The name of the file that tells of a path.
pub(crate) fn file(path: &StorePath) -> String {
    format!("/{}.narinfo", path.hash_part())
}

/// What the file says: the path refers to itself.
pub(crate) fn narinfo(path: &StorePath) -> String {
    format!(
        "StorePath: {path}\nURL: nar/x.nar\nCompression: none\nFileSize: 7\nNarHash: \
         sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\nNarSize: 9\nReferences: {}\n",
        path.base_name()
    )
}

/// These substituters, nothing signed, short patience.
pub(crate) fn settings(urls: &[&str]) -> Settings {
    Settings {
        nix: Nix::find().expect("Nix is installed"),
        substituters: urls.iter().map(|&url| url.to_owned()).collect(),
        trusted_public_keys: vec![],
        require_sigs: false,
        store_dir: STORE.to_owned(),
        netrc_file: None,
        ssl_cert_file: None,
        connections: 16,
        timeout: Duration::from_secs(2),
    }
}
