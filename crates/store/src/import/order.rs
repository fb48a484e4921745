//! The order in which paths are registered.

use std::collections::HashMap;

use phoenix_model::{StorePath, ValidPathInfo};

/// The positions of the paths, so that each comes after those it refers to; a path that is there twice counts
/// once. `Err` is a path that refers to itself by way of others.
pub(crate) fn by_references(infos: &[&ValidPathInfo]) -> Result<Vec<usize>, StorePath> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut position = HashMap::with_capacity(infos.len());
    for (at, info) in infos.iter().enumerate() {
        position.entry(&info.path).or_insert(at);
    }
    let mut marks = vec![Mark::New; infos.len()];
    let mut order = Vec::with_capacity(infos.len());
    // Depth first, without recursion: chains of references may be long.
    for (start, info) in infos.iter().enumerate() {
        if position.get(&info.path) != Some(&start) || marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::Open;
        let mut open = vec![(start, 0)];
        while let Some((at, next)) = open.last_mut() {
            let at = *at;
            let Some(reference) = infos[at].references.get(*next) else {
                marks[at] = Mark::Done;
                order.push(at);
                open.pop();
                continue;
            };
            *next += 1;
            match position.get(reference) {
                Some(&other) if other != at => match marks[other] {
                    Mark::New => {
                        marks[other] = Mark::Open;
                        open.push((other, 0));
                    }
                    Mark::Open => return Err(infos[at].path.clone()),
                    Mark::Done => {}
                },
                _ => {}
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use phoenix_model::NarHash;
    use proptest::prelude::*;

    fn path(number: usize) -> StorePath {
        StorePath::parse(&format!("/nix/store/{number:032}-x")).unwrap()
    }

    fn infos(references: &[Vec<usize>]) -> Vec<ValidPathInfo> {
        let info = |(number, references): (usize, &Vec<usize>)| ValidPathInfo {
            references: references.iter().map(|&reference| path(reference)).collect(),
            ..ValidPathInfo::new(path(number), NarHash([0; 32]), 1)
        };
        references.iter().enumerate().map(info).collect()
    }

    fn order(infos: &[ValidPathInfo]) -> Result<Vec<usize>, StorePath> {
        by_references(&infos.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_path_may_refer_to_itself_but_not_by_way_of_others() {
        assert_eq!(order(&infos(&[vec![0, 7]])), Ok(vec![0]));
        assert!(order(&infos(&[vec![1], vec![2], vec![0]])).is_err());
    }

    #[test]
    fn what_is_there_twice_counts_once() {
        let mut twice = infos(&[vec![1], vec![]]);
        twice.extend(twice.clone());
        assert_eq!(order(&twice), Ok(vec![1, 0]));
    }

    proptest! {
        #[test]
        fn references_come_first(edges in prop::collection::vec((0_usize..30, 0_usize..30), 0..200)) {
            // From the larger number to the smaller: no cycle. Shuffled by taking the numbers backwards.
            let mut references = vec![Vec::new(); 30];
            for (one, two) in edges {
                references[one.max(two)].push(one.min(two));
            }
            let mut infos = infos(&references);
            infos.reverse();
            let order = order(&infos).unwrap();
            prop_assert_eq!(order.len(), 30);
            let at = |wanted: &StorePath| order.iter().position(|&at| infos[at].path == *wanted).unwrap();
            for info in &infos {
                for reference in &info.references {
                    prop_assert!(at(reference) <= at(&info.path));
                }
            }
        }
    }
}
