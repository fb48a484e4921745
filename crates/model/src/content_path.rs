//! Store paths that follow from contents (nix `src/libstore/store-dir-config.cc`, `makeStorePath`, `makeTextPath`).

use sha2::{Digest as _, Sha256};

use crate::{NarHash, StorePath, nix32};

/// The path of a source whose NAR has this hash and that refers to nothing: `source` for flakes' inputs (nix
/// `src/libfetchers/fetchers.cc`, `computeStorePath`), the name of the file for what evaluation copies. Nothing if that is
/// no store directory, or no name.
#[must_use]
pub fn source_path(store_dir: &str, name: &str, nar_hash: NarHash) -> Option<StorePath> {
    of(&format!("source:sha256:{}", nar_hash.to_hex()), store_dir, name)
}

/// The path of a text whose bytes have this SHA-256 and that refers to these paths, sorted and each once: what
/// derivations and `builtins.toFile` have. Nothing if that is no store directory, or no name.
#[must_use]
pub fn text_path(
    store_dir: &str,
    name: &str,
    sha256: [u8; 32],
    references: &[StorePath],
) -> Option<StorePath> {
    let kind = kind_of_path("text", references.iter().map(StorePath::as_str), false);
    of(&format!("{kind}:sha256:{}", NarHash(sha256).to_hex()), store_dir, name)
}

fn of(fingerprint: &str, store_dir: &str, name: &str) -> Option<StorePath> {
    StorePath::parse(&path_of(fingerprint, store_dir, name)).ok()
}

/// The text of a path; see [`hash_part`].
pub(crate) fn path_of(fingerprint: &str, store_dir: &str, name: &str) -> String {
    format!("{store_dir}/{}-{name}", hash_part(fingerprint, store_dir, name))
}

/// The kind of a path with what it refers to: `text:REFERENCE:…`, `source:REFERENCE:…:self`.
#[must_use]
pub fn kind_of_path<'r>(
    kind: &str,
    references: impl IntoIterator<Item = &'r str>,
    refers_to_itself: bool,
) -> String {
    let mut text = kind.to_owned();
    for reference in references.into_iter().chain(refers_to_itself.then_some("self")) {
        text.push(':');
        text.push_str(reference);
    }
    text
}

/// The 32 digits of a path (`makeStorePath`): a SHA-256 folded to 20 bytes. The fingerprint is `KIND:sha256:HEX`.
#[must_use]
pub fn hash_part(fingerprint: &str, store_dir: &str, name: &str) -> String {
    let hash = Sha256::digest(format!("{fingerprint}:{store_dir}:{name}"));
    let mut folded = [0u8; 20];
    for (at, byte) in hash.iter().enumerate() {
        folded[at % 20] ^= byte;
    }
    nix32::encode(&folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_the_path_that_nix_gives_it() {
        // `nix store add-path --name source` of an empty directory.
        let hash =
            NarHash::from_hex("a50a5ab6d992f5598edd92105059fae9acfc192981e08bd88534c2167e92526a").unwrap();
        let path = source_path("/nix/store", "source", hash).unwrap();
        assert_eq!(path.as_str(), "/nix/store/0ccnxa25whszw7mgbgyzdm4nqc0zwnm8-source");
        assert_eq!(source_path("nowhere", "source", hash), None);
    }

    #[test]
    fn a_text_has_the_path_that_nix_gives_it() {
        // `builtins.toFile "t" "hello"` and `builtins.toFile "u" "${t}\n"`, with NIX_STORE_DIR=/nix/store.
        let text = |name: &str, text: &str, references: &[StorePath]| {
            text_path("/nix/store", name, Sha256::digest(text).into(), references)
        };
        let path = text("t", "hello", &[]).unwrap();
        assert_eq!(path.as_str(), "/nix/store/vqpn17r03lqabwk0wksgpbgy620zwfd4-t");
        let other = text("u", &format!("{path}\n"), std::slice::from_ref(&path)).unwrap();
        assert_eq!(other.as_str(), "/nix/store/wpv96d1lh34sq5mksidbk7v4c5i8byd5-u");
        assert_eq!(text("no name", "", &[]), None);
    }
}
