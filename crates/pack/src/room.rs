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

/// A pack that is newer than one that there is no room for, and has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newer {
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// How large and heavy it is.
    pub load: Load,
    /// When the last of the packs was made that it was made of, if these are all newer too, and how many bytes they had
    /// ([`crate::Catalog::made_of`]); else when it was made itself, and how large it is.
    pub made_of: (u64, u64),
}

/// Since when there is no room for a pack, in seconds since 1970: since one of those that are newer was made with which it
/// does not fit, and fits with none after that. A pack that was made of others takes the room that these had, since these had
/// it; but not where they brought room with them, for then there is none since it was made.
#[must_use]
pub fn without_room_since(pack: Load, made: u64, newer: &[Newer]) -> u64 {
    let before = newer.iter().map(|newer| {
        let (at, size) = newer.made_of;
        (at, Load { size: size.max(newer.load.size), ..newer.load })
    });
    let now = newer.iter().map(|newer| (newer.made, newer.load));
    let last = newer.iter().map(|newer| newer.made).max();
    let since = full_since(pack, before.collect()).or_else(|| full_since(pack, now.collect()));
    since.or(last).unwrap_or(made).max(made)
}

/// When the last of these was made with which all before it and this pack have no room together, if they have none.
fn full_since(pack: Load, mut newer: Vec<(u64, Load)>) -> Option<u64> {
    newer.sort_by_key(|(made, _)| *made);
    let mut taken = pack;
    let mut since = None;
    for (made, load) in newer {
        taken = taken.and(load);
        since = if taken.fits() { None } else { since.or(Some(made)) };
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

    fn newer(made: u64, load: Load) -> Newer {
        Newer { made, load, made_of: (made, load.size) }
    }

    #[test]
    fn a_pack_is_without_room_since_what_has_it_was_made() {
        let all = [newer(30, light(40)), newer(10, light(20)), newer(20, light(40))];
        assert_eq!(without_room_since(light(30), 5, &all), 30);
        assert_eq!(without_room_since(light(50), 5, &all), 20);
        assert_eq!(without_room_since(light(97), 5, &[]), 5);
    }

    #[test]
    fn what_was_made_of_newer_ones_takes_their_room_since_they_had_it() {
        // The first two of them were made into one.
        let folded = Newer { made_of: (20, 2 * MEBI), ..newer(90, light(60)) };
        assert_eq!(without_room_since(light(50), 5, &[folded, newer(15, light(2))]), 20);
        // There is no more room since something is there that is not of them.
        assert_eq!(without_room_since(light(30), 5, &[folded, newer(40, light(20))]), 40);
    }

    #[test]
    fn a_pack_is_without_room_since_what_brought_it_went() {
        // With the large pack there was room, until it was made into a smaller one.
        let smaller = Newer { made_of: (20, 10 << 30), ..newer(90, light(60)) };
        assert_eq!(without_room_since(light(50), 5, &[smaller]), 90);
        // There was none, then there was, and now there is none.
        let large = Load { size: 8 << 30, weight: 0 };
        let all = [newer(10, light(90)), newer(20, large), newer(30, light(60))];
        assert_eq!(without_room_since(light(30), 5, &all), 30);
    }
}
