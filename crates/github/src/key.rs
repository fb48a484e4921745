//! Names of blobs as keys of the cache, and back.

use data_encoding::HEXLOWER;
use phoenix_depot::{BlobName, LONGEST_NAME};
use sha2::{Digest, Sha256};

/// What all our keys begin with: a repository's cache is shared with other tools.
pub(crate) const PREFIX: &str = "phoenix1/";

/// What all our keys end with, and no name holds.
///
/// The service takes a key for a prefix, too, and looks through the scopes one after the other: without an
/// end, a longer key in the first scope would hide the asked one in the second. `#` stands in keys of other
/// tools, so it is known to be taken.
const END: char = '#';

/// What the version of all our entries is made of; the service wants 64 hexadecimal digits and compares them.
const FORMAT: &str = "phoenix-ci depot 1";

/// The version of all our entries.
pub(crate) fn version() -> String {
    HEXLOWER.encode(&Sha256::digest(FORMAT))
}

/// The key of a blob.
pub(crate) fn key(name: &BlobName) -> String {
    format!("{PREFIX}{name}{END}")
}

/// The text that the keys of all names begin with that begin with `prefix`; none when no name does.
pub(crate) fn prefix(prefix: &str) -> Option<String> {
    let character = |c: char| c.is_ascii_alphanumeric() || "._+=-/".contains(c);
    (prefix.len() <= LONGEST_NAME && prefix.chars().all(character)).then(|| format!("{PREFIX}{prefix}"))
}

/// The name of which a key is the key.
pub(crate) fn name(key: &str) -> Option<BlobName> {
    BlobName::new(key.strip_prefix(PREFIX)?.strip_suffix(END)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_as_names() {
        for text in ["a", "packs/main/0001-ab.pack", "a+b=c_d"] {
            let blob = BlobName::new(text).unwrap();
            assert_eq!(name(&key(&blob)), Some(blob));
        }
        for other in ["", "phoenix1/", "phoenix1/a", "a#", "phoenix1/#", "phoenix1/a,b#", "other/a#"] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn no_key_begins_with_another_and_all_fit() {
        let keys = ["a", "a-b", "a.b", "a/b", "ab"].map(|text| key(&BlobName::new(text).unwrap()));
        for one in &keys {
            assert_eq!(keys.iter().filter(|other| other.starts_with(one)).count(), 1);
            assert!(one.starts_with(&prefix("a").unwrap()));
        }
        assert!(PREFIX.len() + LONGEST_NAME + END.len_utf8() <= 512);
    }

    #[test]
    fn what_begins_no_name_is_no_prefix() {
        assert_eq!(prefix("").as_deref(), Some("phoenix1/"));
        for bad in ["a,b", "a b", "#", "é", &"a".repeat(LONGEST_NAME + 1)] {
            assert_eq!(prefix(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_version_is_a_sha256() {
        assert_eq!(version().len(), 64);
        assert!(version().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
