//! What packs are called.
//!
//! `packs/LEAF`, or `packs/=SCOPE/LEAF` where a depot has scopes. GitHub's cache answers a lookup by prefix with
//! the newest of the first scope that has any; with the scope in the name, a job asks each scope that it may read
//! for its newest, and a pull request that has packs of its own still finds those of the default branch.

use phoenix_depot::{BlobName, Scopes};
use phoenix_pack::ChunkId;

/// What the names of packs begin with.
pub const PACKS: &str = "packs/";

/// The longest scope that stands in a name as it is; of a longer one there is a hash.
const LONGEST_SCOPE: usize = 120;

/// What the names of the packs of a scope begin with.
pub(crate) fn prefix(scope: &str) -> String {
    let mut name = String::with_capacity(scope.len() + 8);
    for byte in scope.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("+{byte:02X}"));
        }
    }
    if name.len() > LONGEST_SCOPE {
        name = format!("={:?}", ChunkId::of(scope.as_bytes()));
    }
    format!("{PACKS}={name}/")
}

/// The name of a new pack: `leaf` is `packs/LEAF`, and the scope that may be written comes between.
pub(crate) fn scoped(leaf: &BlobName, scopes: Option<&Scopes>) -> BlobName {
    let scope = scopes.and_then(|scopes| scopes.write.as_deref());
    let scoped = scope.zip(leaf.as_str().strip_prefix(PACKS)).map(|(scope, leaf)| prefix(scope) + leaf);
    scoped.and_then(|name| BlobName::new(name).ok()).unwrap_or_else(|| leaf.clone())
}

/// The name of one of several packs that are made at once: later than those before it, and earlier than what brings it
/// together with others (`Packs::meet`).
pub(crate) fn part(name: &BlobName, number: usize) -> BlobName {
    let later = (number > 0).then(|| BlobName::new(format!("{name}++{number:03}")));
    later.and_then(Result::ok).unwrap_or_else(|| name.clone())
}

/// Whether these are packs that were made at once.
pub(crate) fn is_part(name: &str, other: &str) -> bool {
    let first = |name: &str| name.split_once("++").map_or(name.len(), |(first, _)| first.len());
    name != other && name[..first(name)] == other[..first(other)]
}

/// Whether a pack of this name can be read by who may read these scopes.
pub(crate) fn is_readable(name: &str, scopes: Option<&Scopes>) -> bool {
    let Some(scopes) = scopes else { return true };
    let of_a_scope = name.strip_prefix(PACKS).is_some_and(|rest| rest.starts_with('='));
    !of_a_scope || scopes.read.iter().any(|scope| name.starts_with(&prefix(scope)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes() -> Scopes {
        Scopes {
            write: Some("refs/pull/7/merge".to_owned()),
            read: vec!["refs/pull/7/merge".to_owned(), "refs/heads/main".to_owned()],
        }
    }

    #[test]
    fn a_name_says_its_scope_and_who_may_read_it() {
        let leaf = BlobName::new("packs/1-2").unwrap();
        let name = scoped(&leaf, Some(&scopes()));
        assert_eq!(name.as_str(), "packs/=refs+2Fpull+2F7+2Fmerge/1-2");
        assert_eq!(scoped(&leaf, None), leaf);
        assert_eq!(scoped(&leaf, Some(&Scopes::default())), leaf);
        for (name, readable) in [
            (name.as_str(), true),
            ("packs/1-2", true),
            ("packs/=refs+2Fheads+2Fmain/1", true),
            ("packs/=refs+2Fheads+2Fmain2/1", false),
            ("packs/=refs+2Fpull+2F8+2Fmerge/1", false),
        ] {
            assert_eq!(is_readable(name, Some(&scopes())), readable, "{name}");
            assert!(is_readable(name, None));
        }
    }

    #[test]
    fn every_scope_makes_a_name_and_no_two_the_same() {
        let long = "refs/heads/".to_owned() + &"ü,".repeat(300);
        let odd =
            ["refs/heads/a b", "refs/heads/a+20b", "..", ".", "", "a/../b", &long, &(long.clone() + "x")];
        let names: std::collections::BTreeSet<String> = odd.iter().map(|scope| prefix(scope)).collect();
        assert_eq!(names.len(), odd.len());
        for name in names {
            BlobName::new(format!("{name}{}", "1".repeat(40))).unwrap();
        }
    }
}
