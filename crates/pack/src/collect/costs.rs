//! How many bytes of a pack the paths and chunks in it are worth.

use crate::fold::is_copied;
use crate::{Catalog, Directory};

/// What a chunk costs in a directory, in bytes: its id and length, which do not compress.
const CHUNK: u64 = 20;

/// What a record costs there at least: what it has of hashes, of its name and of its contents.
pub(super) const RECORD: u64 = 20 + 32;

/// What all in a pack is worth together is what the pack has, but for what it says of others.
#[derive(Debug)]
struct Cost {
    /// How long the directory is as it is stored, and as it is.
    directory: (u64, u64),
    /// How many bytes the pack has without what it says of others, and for that.
    size: u64,
    others: u64,
    /// How many it would have by the estimates of its parts.
    estimate: u64,
}

/// How many bytes what is wanted of a frame has in a new pack.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Folded {
    /// If it compresses as the whole frame does.
    pub(super) about: u64,
    /// If the rest of the frame is what compresses.
    pub(super) at_most: u64,
    /// Whether it is made anew, with what is in others: it may compress much better with that, as one version of a file does
    /// with another, or worse.
    pub(super) is_anew: bool,
}

/// What the parts of packs are worth.
#[derive(Debug)]
pub(super) struct Costs {
    /// By the number of the pack.
    packs: Vec<Cost>,
    /// How many bytes it takes to say what is said of others: each pack that is made says all that is known.
    others: u64,
}

impl Costs {
    pub(super) fn of(catalog: &Catalog) -> Self {
        let cost = |(_, name, directory): (u32, &str, &Directory)| {
            let size = catalog.others().known.get(name).map_or(0, |info| info.size);
            let frames = (0..directory.frames()).map(|frame| u64::from(directory.frame(frame).stored));
            let frames: u64 = frames.sum();
            let stored = (size.saturating_sub(frames), directory.size() as u64);
            let of_directory = |bytes: u64| part(stored.0, bytes, stored.1);
            let records = (0..directory.paths()).map(|number| directory.record_size(number) as u64);
            let others = of_directory(directory.others().len() as u64).min(size);
            Cost {
                directory: stored,
                size: size - others,
                others,
                estimate: frames + directory.chunks() as u64 * CHUNK + of_directory(records.sum()),
            }
        };
        let packs: Vec<Cost> = catalog.read_packs().map(cost).collect();
        // It compresses as it did where most of it was said.
        let (stored, length) =
            packs.iter().max_by_key(|cost| cost.others).map_or((1, 1), |cost| cost.directory);
        let others = part(stored, catalog.statement().encode().len() as u64, length);
        Self { packs, others }
    }

    /// How many bytes a pack has without what it says of others.
    pub(super) fn size(&self, pack: u32) -> u64 {
        self.packs.get(pack as usize).map_or(0, |cost| cost.size)
    }

    /// How long the directory of a pack is as it is stored.
    pub(super) fn directory(&self, pack: u32) -> u64 {
        self.packs.get(pack as usize).map_or(0, |cost| cost.directory.0)
    }

    /// How many bytes it takes to say what is said of others.
    pub(super) fn others(&self) -> u64 {
        self.others
    }

    /// How many bytes of its pack the record of this number is worth.
    pub(super) fn record(&self, catalog: &Catalog, pack: u32, number: usize) -> u64 {
        let (Some((_, directory)), Some(cost)) = (catalog.pack(pack), self.packs.get(pack as usize)) else {
            return 0;
        };
        let (stored, length) = cost.directory;
        cost.scaled(part(stored, directory.record_size(number) as u64, length))
    }

    /// How many bytes of its pack a chunk is worth.
    pub(super) fn chunk(&self, catalog: &Catalog, pack: u32, chunk: u32) -> u64 {
        let (Some((_, directory)), Some(cost)) = (catalog.pack(pack), self.packs.get(pack as usize)) else {
            return 0;
        };
        let (Some(frame), Some(chunk)) = (directory.frame_of(chunk), directory.chunk(chunk)) else {
            return 0;
        };
        let frame = directory.frame(frame);
        let stored = part(u64::from(frame.stored), u64::from(chunk.length), u64::from(frame.length));
        cost.scaled(stored + CHUNK)
    }

    /// How many bytes a fold has for a frame of a pack, of which these chunks are wanted.
    pub(super) fn frame(
        &self,
        catalog: &Catalog,
        (pack, number): (u32, usize),
        wanted: &[bool],
        exact: bool,
    ) -> Folded {
        let (Some((_, directory)), Some(cost)) = (catalog.pack(pack), self.packs.get(pack as usize)) else {
            return Folded::default();
        };
        let is_wanted = |chunk: &u32| wanted.get(*chunk as usize).copied().unwrap_or_default();
        let chunks = || directory.chunks_in(number).filter(is_wanted);
        let lengths =
            chunks().filter_map(|chunk| directory.chunk(chunk)).map(|chunk| u64::from(chunk.length));
        let length: u64 = lengths.sum();
        if length == 0 {
            return Folded::default();
        }
        let frame = directory.frame(number);
        let (stored, all) = (u64::from(frame.stored), u64::from(frame.length));
        let is_anew = !is_copied(length, all, exact);
        if length == all || !is_anew {
            let chunks = directory.chunks_in(number).count() as u64;
            let about = cost.scaled(stored + chunks * CHUNK);
            return Folded { about, at_most: about, is_anew };
        }
        let about = chunks().map(|chunk| self.chunk(catalog, pack, chunk)).sum();
        Folded { about, at_most: stored.min(length).max(about), is_anew }
    }
}

impl Cost {
    fn scaled(&self, bytes: u64) -> u64 {
        part(self.size, bytes, self.estimate)
    }
}

/// The part of a whole that so many of so many are, rounded.
fn part(whole: u64, some: u64, of: u64) -> u64 {
    let of = u128::from(of.max(1));
    u64::try_from((u128::from(whole) * u128::from(some) + of / 2) / of).unwrap_or(u64::MAX)
}
