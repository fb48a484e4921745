//! Which store path is in which packs, and how to put it together.
//!
//! A catalog is a set of packs, each with its directory. Every pack carries, beside its own paths, what was
//! known of other packs when it was made. Taking in packs, in any order and any number of times, gives the
//! same catalog: it is a union, and only grows. What is *live* follows from it: a pack that others replaced is
//! not looked at while one of those is there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::{Chunk, ChunkId, Directory, HASH_LENGTH, Patch, PathInfo, PathRecord};

/// What a pack says of other packs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// Packs that were there when it was made.
    pub known: BTreeMap<String, PackInfo>,
    /// Packs that were folded, each with the packs that hold what was live of it.
    pub replaced: BTreeMap<String, BTreeSet<String>>,
}

/// What is known of a pack without its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackInfo {
    /// How many bytes it has.
    pub size: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// Why what a pack says of others cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what it says of other packs is damaged")]
pub struct OthersError;

impl Others {
    /// The form that stands in a directory.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Writing to memory what has no maps with odd keys cannot fail.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Reads what [`Others::encode`] wrote; nothing at all is nothing known.
    ///
    /// # Errors
    /// When it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, OthersError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        postcard::from_bytes(bytes).map_err(|_| OthersError)
    }

    /// Takes in what somebody else knows.
    pub fn merge(&mut self, other: Self) {
        for (name, info) in other.known {
            let known = self.known.entry(name).or_insert(info);
            *known = info.max(*known);
        }
        for (name, by) in other.replaced {
            self.replaced.entry(name).or_default().extend(by);
        }
    }
}

/// All packs that are known, and the directories that were read.
#[derive(Debug, Default)]
pub struct Catalog {
    others: Others,
    read: BTreeMap<String, Directory>,
    index: HashMap<ChunkId, Place, foldhash::fast::FixedState>,
    /// The packs of the index, by number; those that are read and live, newest first.
    live: Vec<String>,
}

/// The chunks of all live packs.
#[derive(Debug, Clone, Copy)]
pub struct Chunks<'c>(&'c Catalog);

impl Chunks<'_> {
    /// Whether a live pack has this one, so that it need not be kept again.
    #[must_use]
    pub fn has(&self, wanted: Chunk) -> bool {
        self.0.place(wanted).is_some()
    }
}

/// A chunk of a live pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    pack: u32,
    chunk: u32,
}

/// A store path that can be put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// What is known of it.
    pub info: PathInfo,
    /// Where hash parts of its references have to be put back.
    pub patches: Vec<Patch>,
    /// Its archive: pieces of frames, in order.
    pub pieces: Vec<Piece>,
}

/// Part of a frame: one chunk, or several that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The number of the pack, as [`Catalog::pack`] knows it.
    pub pack: u32,
    /// The number of the frame in it.
    pub frame: u32,
    /// Where the piece begins in the frame, in bytes before compression.
    pub offset: u32,
    /// How many bytes it has.
    pub length: u32,
}

impl Catalog {
    /// Takes in a pack with its directory.
    ///
    /// # Errors
    /// When what it says of others is damaged; nothing of it is taken in then.
    pub fn add(&mut self, name: &str, info: PackInfo, directory: Directory) -> Result<(), OthersError> {
        let mut others = Others::decode(directory.others())?;
        others.known.insert(name.to_owned(), info);
        self.others.merge(others);
        self.read.insert(name.to_owned(), directory);
        self.settle();
        Ok(())
    }

    /// Takes in what is known of packs without their directories.
    pub fn hear(&mut self, others: Others) {
        self.others.merge(others);
        self.settle();
    }

    /// Takes note that a pack is not there any more, or cannot be used.
    pub fn lose(&mut self, name: &str) {
        self.others.known.remove(name);
        self.read.remove(name);
        self.settle();
    }

    /// Everything that is known of packs: what the next pack says of others.
    #[must_use]
    pub fn others(&self) -> &Others {
        &self.others
    }

    /// The packs that are known, not replaced by one that is read, and not read yet; newest first.
    #[must_use]
    pub fn unread(&self) -> Vec<(&str, PackInfo)> {
        let mut unread: Vec<(&str, PackInfo)> = self
            .others
            .known
            .iter()
            .filter(|(name, _)| !self.read.contains_key(*name) && !self.is_replaced(name))
            .map(|(name, &info)| (name.as_str(), info))
            .collect();
        unread.sort_by(|a, b| (b.1.created, b.0).cmp(&(a.1.created, a.0)));
        unread
    }

    /// The live packs, newest first, each with its number, name and directory.
    pub fn packs(&self) -> impl Iterator<Item = (u32, &str, &Directory)> {
        (0..).zip(&self.live).filter_map(|(number, name)| Some((number, name.as_str(), self.read.get(name)?)))
    }

    /// The name and directory of a live pack by its number.
    #[must_use]
    pub fn pack(&self, number: u32) -> Option<(&str, &Directory)> {
        let name = self.live.get(number as usize)?;
        Some((name, self.read.get(name)?))
    }

    fn is_replaced(&self, name: &str) -> bool {
        let mut by = self.others.replaced.get(name).into_iter().flatten();
        by.any(|by| by != name && self.read.contains_key(by))
    }

    fn settle(&mut self) {
        let mut live: Vec<String> =
            self.read.keys().filter(|name| !self.is_replaced(name)).cloned().collect();
        let created = |name: &String| self.others.known.get(name).map(|info| info.created);
        live.sort_by(|a, b| (created(b), b).cmp(&(created(a), a)));
        self.live = live;
        self.index.clear();
    }

    /// Whether any live pack says that it has a path.
    #[must_use]
    pub fn has(&self, hash_part: &[u8; HASH_LENGTH]) -> bool {
        self.packs().any(|(_, _, directory)| directory.find(hash_part).is_some())
    }

    /// What is known of a path, without a look at where its chunks are.
    #[must_use]
    pub fn info(&self, hash_part: &[u8; HASH_LENGTH]) -> Option<PathInfo> {
        self.records(hash_part).next().map(|(_, record)| record.info)
    }

    /// The records of a path in all live packs, newest first; damaged ones are passed over.
    fn records(&self, hash_part: &[u8; HASH_LENGTH]) -> impl Iterator<Item = (u32, PathRecord)> {
        self.packs().filter_map(move |(number, _, directory)| {
            Some((number, directory.record(directory.find(hash_part)?).ok()?))
        })
    }

    /// The names of all paths that any live pack says it has, sorted, each once.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        let records = |directory: &Directory| -> Vec<String> {
            let records = (0..directory.paths()).filter_map(|number| directory.record(number).ok());
            records.map(|record| record.info.name).collect()
        };
        self.packs().flat_map(|(_, _, directory)| records(directory)).collect()
    }

    /// How a path is put together, if all of its chunks are in live packs.
    pub fn locate(&mut self, hash_part: &[u8; HASH_LENGTH]) -> Option<Located> {
        let records: Vec<_> = self.records(hash_part).collect();
        records.into_iter().find_map(|(pack, record)| {
            let pieces = self.pieces(pack, &record)?;
            Some(Located { info: record.info, patches: record.patches, pieces })
        })
    }

    fn pieces(&mut self, pack: u32, record: &PathRecord) -> Option<Vec<Piece>> {
        let mut pieces: Vec<Piece> = Vec::new();
        for run in &record.runs {
            for number in run.first..run.first.checked_add(run.count)? {
                let (_, directory) = self.pack(pack)?;
                let wanted = directory.chunk(number)?;
                let place = if directory.is_own(number) {
                    Place { pack, chunk: number }
                } else {
                    self.build_index();
                    self.place(wanted)?
                };
                let piece = self.piece(place)?;
                match pieces.last_mut() {
                    Some(last)
                        if (last.pack, last.frame) == (piece.pack, piece.frame)
                            && last.offset + last.length == piece.offset =>
                    {
                        last.length += piece.length;
                    }
                    _ => pieces.push(piece),
                }
            }
        }
        Some(pieces)
    }

    /// Where a chunk is in its frame.
    fn piece(&self, place: Place) -> Option<Piece> {
        let (_, directory) = self.pack(place.pack)?;
        let number = directory.frame_of(place.chunk)?;
        let frame = directory.frame(number);
        let before = (frame.first..place.chunk).filter_map(|chunk| directory.chunk(chunk));
        let offset = before.map(|chunk| u64::from(chunk.length)).sum::<u64>();
        let length = directory.chunk(place.chunk)?.length;
        if offset + u64::from(length) > u64::from(frame.length) {
            return None;
        }
        Some(Piece { pack: place.pack, frame: u32::try_from(number).ok()?, offset: offset as u32, length })
    }

    /// Where a live pack has a chunk, if the index is built.
    fn place(&self, wanted: Chunk) -> Option<Place> {
        let place = *self.index.get(&wanted.id)?;
        let (_, directory) = self.pack(place.pack)?;
        (directory.chunk(place.chunk)? == wanted).then_some(place)
    }

    /// The chunks of all live packs, to be asked from several threads.
    pub fn chunks(&mut self) -> Chunks<'_> {
        self.build_index();
        Chunks(self)
    }

    fn build_index(&mut self) {
        if !self.index.is_empty() {
            return;
        }
        let mut index = std::mem::take(&mut self.index);
        index.reserve(self.packs().map(|(_, _, directory)| directory.chunks()).sum());
        for (pack, _, directory) in self.packs() {
            for number in 0..directory.chunks() as u32 {
                if let Some(chunk) = directory.chunk(number) {
                    index.entry(chunk.id).or_insert(Place { pack, chunk: number });
                }
            }
        }
        self.index = index;
    }

    /// Everything that has to come with these paths, as far as references go: what `is_there` says is in the
    /// store already is left out with all below it. Inputs before what refers to them.
    ///
    /// Returns the paths that the catalog knows, and the names of those it does not.
    pub fn closure(
        &self,
        wanted: impl IntoIterator<Item = String>,
        mut is_there: impl FnMut(&str) -> bool,
    ) -> (Vec<PathInfo>, Vec<String>) {
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        let mut seen: HashSet<String> = HashSet::new();
        let mut stack: Vec<(String, Option<PathInfo>)> =
            wanted.into_iter().map(|name| (name, None)).collect();
        stack.reverse();
        while let Some((name, info)) = stack.pop() {
            if let Some(info) = info {
                found.push(info);
                continue;
            }
            if !seen.insert(name.clone()) || is_there(&name) {
                continue;
            }
            let info = name.as_bytes().first_chunk().and_then(|hash_part| self.info(hash_part));
            match info.filter(|info| info.name == name) {
                None => unknown.push(name),
                Some(info) => {
                    let references: Vec<String> =
                        info.references.iter().filter(|other| !seen.contains(*other)).cloned().collect();
                    stack.push((name, Some(info)));
                    stack.extend(references.into_iter().rev().map(|name| (name, None)));
                }
            }
        }
        (found, unknown)
    }
}

#[cfg(test)]
mod tests;
