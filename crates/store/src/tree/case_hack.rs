//! Names that differ by case only, on file systems that cannot tell them apart.
//!
//! Nix on macOS keeps the second of `README` and `readme` as `readme~nix~case~hack~1`, and takes the suffix
//! away when it reads the tree (nix `src/libutil/archive.cc`, `caseHackSuffix`, `use-case-hack`).

use std::collections::HashMap;

/// What Nix puts between a name and its number.
const SUFFIX: &[u8] = b"~nix~case~hack~";

/// The name in the NAR of a file with this name on disk.
#[must_use]
pub(crate) fn name_in_nar(on_disk: &[u8]) -> &[u8] {
    match on_disk.windows(SUFFIX.len()).position(|window| window == SUFFIX) {
        Some(at) => &on_disk[..at],
        None => on_disk,
    }
}

/// The names of one directory on disk, given out one by one.
#[derive(Debug, Default)]
pub(crate) struct NamesOnDisk {
    /// How many more there are of each, without case.
    taken: HashMap<Vec<u8>, u32>,
}

impl NamesOnDisk {
    /// The name on disk for the next entry of the NAR; `None` when the NAR has it in a way that cannot be kept.
    #[must_use]
    pub(crate) fn name_on_disk(&mut self, in_nar: &[u8]) -> Option<Vec<u8>> {
        // As `strcasecmp` in the C locale.
        let Some(more) = self.taken.get_mut(&in_nar.to_ascii_lowercase()) else {
            self.taken.insert(in_nar.to_ascii_lowercase(), 0);
            return Some(in_nar.to_vec());
        };
        *more += 1;
        let mut name = in_nar.to_vec();
        name.extend_from_slice(SUFFIX);
        name.extend_from_slice(more.to_string().as_bytes());
        self.taken.insert(name.to_ascii_lowercase(), 0).is_none().then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on_disk(names: &[&str]) -> Vec<Option<String>> {
        let mut directory = NamesOnDisk::default();
        let name = |name: &&str| directory.name_on_disk(name.as_bytes());
        names.iter().map(name).map(|name| name.map(|name| String::from_utf8(name).unwrap())).collect()
    }

    fn some(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|&name| Some(name.to_owned())).collect()
    }

    #[test]
    fn only_names_that_clash_are_changed() {
        assert_eq!(
            on_disk(&["README", "ReadMe", "readme", "x"]),
            some(&["README", "ReadMe~nix~case~hack~1", "readme~nix~case~hack~2", "x"])
        );
    }

    #[test]
    fn a_name_that_would_take_the_place_of_a_changed_one_is_refused() {
        let names = on_disk(&["A", "a~nix~case~hack~1", "a"]);
        assert_eq!(names, [Some("A".into()), Some("a~nix~case~hack~1".into()), None]);
    }

    #[test]
    fn the_suffix_goes_wherever_it_is() {
        assert_eq!(name_in_nar(b"readme~nix~case~hack~12"), b"readme");
        assert_eq!(name_in_nar(b"~nix~case~hack~"), b"");
        assert_eq!(name_in_nar(b"~nix~case~hack"), b"~nix~case~hack");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(names in prop::collection::btree_set("[aAbB]{1,3}", 0..20)) {
            let mut directory = NamesOnDisk::default();
            let mut seen = std::collections::HashSet::new();
            for name in &names {
                let on_disk = directory.name_on_disk(name.as_bytes()).unwrap();
                prop_assert_eq!(name_in_nar(&on_disk), name.as_bytes());
                prop_assert!(seen.insert(on_disk.to_ascii_lowercase()), "clashes");
            }
        }
    }
}
