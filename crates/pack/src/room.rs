//! Which packs have the room that there is for what packs say of their paths.

use crate::heaviest_directories;

/// How large a pack is, and how heavy its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// How many bytes the pack has.
    pub size: u64,
    /// How much its directory weighs ([`crate::Directory::weight`]).
    pub weight: u64,
}

impl Load {
    fn and(self, more: Self) -> Self {
        Self { size: self.size.saturating_add(more.size), weight: self.weight.saturating_add(more.weight) }
    }

    fn fits(self) -> bool {
        self.weight <= heaviest_directories(self.size)
    }
}

const NOTHING: Load = Load { size: 0, weight: 0 };

/// Which of these packs have room together: all if there is room for all; else each in turn that there is still room for,
/// and those again that were passed over, for large packs bring room with them.
#[must_use]
pub fn with_room(packs: &[Load]) -> Vec<bool> {
    if packs.iter().copied().fold(NOTHING, Load::and).fits() {
        return vec![true; packs.len()];
    }
    let mut have = vec![false; packs.len()];
    let mut taken = NOTHING;
    loop {
        let before = taken;
        for (has, &pack) in have.iter_mut().zip(packs) {
            if !*has && taken.and(pack).fits() {
                (*has, taken) = (true, taken.and(pack));
            }
        }
        if taken == before {
            return have;
        }
    }
}

/// Since when there is no room for a pack, in seconds since 1970: since the first of those that are newer was made with
/// which it does not fit. These are told with when they were made.
#[must_use]
pub fn without_room_since(pack: Load, made: u64, newer: &[(u64, Load)]) -> u64 {
    let mut newer = newer.to_vec();
    newer.sort_by_key(|(made, _)| *made);
    let mut taken = pack;
    let mut since = made;
    for (at, load) in newer {
        taken = taken.and(load);
        since = at.max(made);
        if !taken.fits() {
            break;
        }
    }
    since
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBI: u64 = 1 << 20;

    fn light(weight: u64) -> Load {
        Load { size: MEBI, weight: weight * MEBI }
    }

    #[test]
    fn those_that_come_first_have_the_room() {
        assert_eq!(with_room(&[]), [false; 0]);
        assert_eq!(with_room(&[light(40), light(50)]), [true, true]);
        // What is smaller may have what is left.
        assert_eq!(with_room(&[light(60), light(50), light(30), light(10)]), [true, false, true, false]);
    }

    #[test]
    fn large_packs_bring_room_and_take_it_away_when_they_are_left_out() {
        let large = Load { size: 8 << 30, weight: 30 * MEBI };
        // There is room for all, whichever comes first.
        assert_eq!(with_room(&[light(80), light(80), large, large]), [true; 4]);
        // What has room has it without those that are left out.
        let packs = [light(57), light(56), light(55), light(54), large, large];
        let have = with_room(&packs);
        let those: Vec<Load> =
            packs.iter().zip(&have).filter(|(_, has)| **has).map(|(pack, _)| *pack).collect();
        assert!(those.iter().copied().fold(NOTHING, Load::and).fits());
        assert_eq!(have, [true, true, true, false, true, true]);
        // And nothing changes when they go.
        assert!(with_room(&those).iter().all(|has| *has));
    }

    #[test]
    fn a_pack_is_without_room_since_what_has_it_was_made() {
        let newer = [(30, light(40)), (10, light(20)), (20, light(40))];
        assert_eq!(without_room_since(light(30), 5, &newer), 30);
        assert_eq!(without_room_since(light(50), 5, &newer), 20);
        assert_eq!(without_room_since(light(97), 5, &[]), 5);
    }
}
