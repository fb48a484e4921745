//! In which order paths go into a pack.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use phoenix_pack::{HASH_LENGTH, PathInfo};

/// Archives from here on are read first, so that no thread is left alone with one at the end; in bytes.
const LARGE: u64 = 16 << 20;

/// Puts paths into the order in which Nix asks a substituter for them: each after all that it refers to, and of those
/// that can come the first by name, by what follows the hash (nix `src/libstore/build/goal.hh`, `CompareGoalPtrs`).
/// Then a frame is opened once, and what has like names is often alike. Large ones come before all others.
pub(crate) fn order(mut paths: Vec<PathInfo>) -> Vec<PathInfo> {
    let key = |path: &PathInfo| (path.name.get(HASH_LENGTH..).map(str::to_owned), path.name.clone());
    paths.sort_by_cached_key(key);
    let numbers: HashMap<&str, usize> =
        paths.iter().enumerate().map(|(number, path)| (path.name.as_str(), number)).collect();
    let mut waits = vec![0_usize; paths.len()];
    let mut referrers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, path) in paths.iter().enumerate() {
        let references: BTreeSet<usize> =
            path.references.iter().filter_map(|name| numbers.get(name.as_str()).copied()).collect();
        for reference in references.into_iter().filter(|&reference| reference != number) {
            waits[number] += 1;
            referrers.entry(reference).or_default().push(number);
        }
    }
    let mut ready: BTreeSet<usize> = (0..paths.len()).filter(|&number| waits[number] == 0).collect();
    // What is in a circle, which no store has, stays where its name says, at the end.
    let mut places: Vec<usize> = (0..paths.len()).map(|number| paths.len() + number).collect();
    let mut place = 0;
    while let Some(number) = ready.pop_first() {
        places[number] = place;
        place += 1;
        for &referrer in referrers.get(&number).into_iter().flatten() {
            waits[referrer] -= 1;
            if waits[referrer] == 0 {
                ready.insert(referrer);
            }
        }
    }
    let large = |path: &PathInfo| Reverse(Some(path.nar_size).filter(|&size| size >= LARGE));
    let mut placed: Vec<(usize, PathInfo)> = places.into_iter().zip(paths).collect();
    placed.sort_by_key(|(place, path)| (large(path), *place));
    placed.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str, nar_size: u64, references: &[&str]) -> PathInfo {
        let full = |name: &str| format!("{:0<HASH_LENGTH$}-{}", name.len(), name);
        PathInfo {
            name: full(name),
            nar_hash: [0; 32],
            nar_size,
            references: references.iter().map(|name| full(name)).collect(),
            deriver: None,
            signatures: vec![],
            ca: None,
        }
    }

    fn names(paths: Vec<PathInfo>) -> Vec<String> {
        order(paths).iter().map(|path| path.name[HASH_LENGTH + 1..].to_owned()).collect()
    }

    #[test]
    fn what_is_referred_to_comes_first_and_then_names_decide() {
        let paths = vec![
            path("app", 10, &["lib", "app", "absent"]),
            path("zlib", 10, &[]),
            path("lib", 10, &["zlib"]),
            path("bash", 10, &["bash"]),
            path("cc", 10, &["bash"]),
        ];
        assert_eq!(names(paths), ["bash", "cc", "zlib", "lib", "app"]);
    }

    #[test]
    fn large_ones_come_first_and_circles_lose_nothing() {
        let paths = vec![
            path("small", 10, &[]),
            path("large", LARGE, &["small"]),
            path("larger", LARGE + 1, &[]),
            path("a", 10, &["b"]),
            path("b", 10, &["a"]),
        ];
        assert_eq!(names(paths), ["larger", "large", "small", "a", "b"]);
    }
}
