//! In which order paths go into a pack.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use phoenix_pack::HASH_LENGTH;

use crate::outline::Outline;

/// Archives from here on are read first, so that no thread is left alone with one at the end; in bytes.
const LARGE: u64 = 16 << 20;

/// Puts the numbers of paths into the order in which Nix asks a substituter for them: each after all that it refers to,
/// and of those that can come the first by name, by what follows the hash (nix `src/libstore/build/goal.hh`,
/// `CompareGoalPtrs`). Then a frame is opened once, and what has like names is often alike. Large ones come before all
/// others.
pub(crate) fn order(outline: &Outline, numbers: Vec<u32>) -> Vec<u32> {
    let mut paths = numbers;
    let key = |number: &u32| {
        let name = outline.name(*number);
        (name.get(HASH_LENGTH..), name)
    };
    paths.sort_by(|a, b| key(a).cmp(&key(b)));
    // By their numbers, where they stand among these.
    let mut at: Vec<Option<u32>> = vec![None; outline.len()];
    for (&number, place) in paths.iter().zip(0..) {
        at[number as usize] = Some(place);
    }
    let mut waits = vec![0_usize; paths.len()];
    let mut referrers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (&number, place) in paths.iter().zip(0_u32..) {
        for reference in outline.references(number).iter().filter_map(|&other| at[other as usize]) {
            waits[place as usize] += 1;
            referrers.entry(reference).or_default().push(place);
        }
    }
    let mut ready: BTreeSet<u32> =
        (0..paths.len() as u32).filter(|&place| waits[place as usize] == 0).collect();
    // What is in a circle, which no store has, stays where its name says, at the end.
    let mut places: Vec<usize> = (0..paths.len()).map(|number| paths.len() + number).collect();
    let mut place = 0;
    while let Some(number) = ready.pop_first() {
        places[number as usize] = place;
        place += 1;
        for &referrer in referrers.get(&number).into_iter().flatten() {
            waits[referrer as usize] -= 1;
            if waits[referrer as usize] == 0 {
                ready.insert(referrer);
            }
        }
    }
    let large = |number: u32| Reverse(Some(outline.nar_size(number)).filter(|&size| size >= LARGE));
    let mut placed: Vec<(usize, u32)> = places.into_iter().zip(paths).collect();
    placed.sort_by_key(|&(place, number)| (large(number), place));
    placed.into_iter().map(|(_, number)| number).collect()
}

#[cfg(test)]
mod tests {
    use phoenix_pack::PathInfo;

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

    fn names(paths: &[PathInfo]) -> Vec<String> {
        let outline = Outline::of(&paths);
        let ordered = order(&outline, (0..paths.len() as u32).collect());
        ordered.iter().map(|&number| outline.name(number)[HASH_LENGTH + 1..].to_owned()).collect()
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
        assert_eq!(names(&paths), ["bash", "cc", "zlib", "lib", "app"]);
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
        assert_eq!(names(&paths), ["larger", "large", "small", "a", "b"]);
    }
}
