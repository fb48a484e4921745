//! Which paths can come in at the same time.

use std::collections::HashMap;

use phoenix_model::{StorePath, ValidPathInfo};

use crate::import::by_references;

/// The positions of the paths by level: those of a level refer only to earlier levels, themselves and what is
/// not among them. `Err` is a path that refers to itself by way of others.
pub(super) fn levels(infos: &[ValidPathInfo]) -> Result<Vec<Vec<usize>>, StorePath> {
    let order = by_references(&infos.iter().collect::<Vec<_>>())?;
    let mut level_of: HashMap<&StorePath, usize> = HashMap::new();
    let mut levels: Vec<Vec<usize>> = Vec::new();
    for at in order {
        let info = &infos[at];
        let others = info.references.iter().filter(|reference| **reference != info.path);
        let level = others.filter_map(|other| level_of.get(other)).max().map_or(0, |below| below + 1);
        level_of.insert(&info.path, level);
        if levels.len() <= level {
            levels.resize_with(level + 1, Vec::new);
        }
        levels[level].push(at);
    }
    Ok(levels)
}

/// Shares positions out so that all shares have about as many bytes; the largest go first.
pub(super) fn shares(positions: &[usize], infos: &[ValidPathInfo], count: usize) -> Vec<Vec<usize>> {
    let mut sorted = positions.to_vec();
    sorted.sort_by_key(|&at| std::cmp::Reverse(infos[at].nar_size));
    let mut shares = vec![(0_u64, Vec::new()); count.clamp(1, positions.len().max(1))];
    for at in sorted {
        if let Some((bytes, share)) = shares.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            // A path costs something, however small it is.
            *bytes = bytes.saturating_add(infos[at].nar_size).saturating_add(1 << 16);
            share.push(at);
        }
    }
    shares.into_iter().map(|(_, share)| share).filter(|share| !share.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use phoenix_model::NarHash;

    fn infos(references: &[&[usize]]) -> Vec<ValidPathInfo> {
        let path = |number: usize| StorePath::parse(&format!("/nix/store/{number:032}-x")).unwrap();
        let info = |(number, references): (usize, &&[usize])| ValidPathInfo {
            references: references.iter().map(|&reference| path(reference)).collect(),
            ..ValidPathInfo::new(path(number), NarHash([0; 32]), 1 << (20 + number))
        };
        references.iter().enumerate().map(info).collect()
    }

    #[test]
    fn a_path_comes_after_what_it_refers_to() {
        let infos = infos(&[&[3, 0], &[0, 9], &[], &[]]);
        let mut levels = levels(&infos).unwrap();
        levels.iter_mut().for_each(|level| level.sort_unstable());
        assert_eq!(levels, [vec![2, 3], vec![0], vec![1]]);
    }

    #[test]
    fn shares_weigh_about_the_same() {
        let infos = infos(&[&[], &[], &[], &[]]);
        assert_eq!(shares(&[0, 1, 2, 3], &infos, 2), [vec![3], vec![2, 1, 0]]);
        assert_eq!(shares(&[0], &infos, 4), [vec![0]]);
        assert_eq!(shares(&[], &infos, 4), Vec::<Vec<usize>>::new());
    }
}
