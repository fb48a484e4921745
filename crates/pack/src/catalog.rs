//! Which store path is in which packs, and how to put it together.
//!
//! A catalog is a set of packs, each with its directory. Every pack carries, beside its own paths, what was
//! known of other packs when it was made. Taking in packs, in any order and any number of times, gives the
//! same catalog: it is a union, and only grows. What is *live* follows from it: a pack that others replaced is
//! not looked at while one of those is there.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::{Arc, LazyLock};

use foldhash::fast::{FixedState, RandomState};
use hashbrown::HashTable;

use crate::closure::{Closure, Finding};
use crate::{
    Chunk, ChunkId, Directory, HASH_LENGTH, Others, OthersError, PackError, PackInfo, Patch, PathInfo,
    PathRecord, Use,
};

/// How many names and numbers all packs together may say of others.
const MOST_SAID: usize = 1 << 18;

/// How many pieces a path may have: what is put together of more is not worth the memory.
const MOST_PIECES: usize = 1 << 18;

/// All packs that are known, and the directories that were read.
#[derive(Debug, Default)]
pub struct Catalog {
    others: Others,
    read: BTreeMap<String, Arc<Directory>>,
    /// Packs that are there, without their directories, and what they say of others.
    heard: BTreeMap<String, Others>,
    /// How many names and numbers each of the packs that were read or heard of says of others.
    said: HashMap<String, usize>,
    index: HashTable<Place>,
    /// The packs that were read, by number: first those that are live, newest first, then those that were
    /// replaced, newest first.
    order: Vec<String>,
    /// How many are live.
    live: usize,
}

/// The chunks of all live packs.
#[derive(Debug, Clone, Copy)]
pub struct Chunks<'c>(&'c Catalog);

impl Chunks<'_> {
    /// Whether a live pack has this one, so that it need not be kept again.
    #[must_use]
    pub fn has(&self, wanted: Chunk) -> bool {
        self.0.place(wanted).is_some_and(|place| (place.pack as usize) < self.0.live)
    }
}

/// What is missed in the packs that were read.
#[derive(Debug, Default)]
pub struct Lack {
    chunks: HashSet<ChunkId>,
    paths: HashSet<[u8; HASH_LENGTH]>,
}

impl Lack {
    /// Whether a pack has some of it, which is then missed no more.
    pub fn is_helped_by(&mut self, directory: &Directory) -> bool {
        let before = self.chunks.len() + self.paths.len();
        for chunk in (0..directory.chunks() as u32).filter_map(|number| directory.chunk(number)) {
            self.chunks.remove(&chunk.id);
        }
        self.paths.retain(|hash_part| directory.find(hash_part).is_none());
        self.chunks.len() + self.paths.len() < before
    }
}

/// A chunk of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pack: u32,
    pub(crate) chunk: u32,
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

impl Located {
    /// About how many bytes it takes in memory, with what is kept of each frame while it is put together.
    #[must_use]
    pub fn size(&self) -> usize {
        const PIECE: usize = 256;
        self.info.size() + self.patches.len() * size_of::<Patch>() + self.pieces.len() * PIECE
    }
}

impl Catalog {
    /// Takes in a pack with its directory.
    ///
    /// # Errors
    /// When what it says of others is damaged; nothing of it is taken in then.
    pub fn add(&mut self, name: &str, info: PackInfo, directory: Directory) -> Result<(), OthersError> {
        self.add_all([(name.to_owned(), info, directory)])
            .into_iter()
            .next()
            .map_or(Ok(()), |_| Err(OthersError))
    }

    /// Takes in packs with their directories. Returns the names of those that say something damaged of others, or more
    /// than there is room for beside what all say ([`PackError::NoRoom`]); nothing of these is taken in.
    pub fn add_all(
        &mut self,
        packs: impl IntoIterator<Item = (String, PackInfo, Directory)>,
    ) -> Vec<(String, PackError)> {
        let mut refused = Vec::new();
        for (name, info, directory) in packs {
            match Others::decode(directory.others()) {
                Ok(others) if self.has_room_for(&name, &others) => {
                    self.take_in(&name, info, others);
                    self.heard.remove(&name);
                    self.read.insert(name, Arc::new(directory));
                }
                Ok(_) => refused.push((name, PackError::NoRoom)),
                Err(_) => {
                    let problem = PackError::Damaged("what it says of other packs is not readable");
                    refused.push((name, problem));
                }
            }
        }
        self.settle();
        refused
    }

    /// Whether what a pack says of others has room beside what all others say: it is kept together.
    fn has_room_for(&self, name: &str, others: &Others) -> bool {
        let said = self.said.iter().filter(|(other, _)| *other != name).map(|(_, count)| count);
        said.sum::<usize>() + others.count() <= MOST_SAID
    }

    fn take_in(&mut self, name: &str, info: PackInfo, mut others: Others) {
        self.said.insert(name.to_owned(), others.count());
        others.known.insert(name.to_owned(), info);
        self.others.merge(others);
    }

    /// Takes in a pack that is there, without its directory: what it replaced is replaced, as if it had been read.
    ///
    /// # Errors
    /// When what it says of others is damaged, or more than there is room for; nothing of it is taken in then.
    pub fn hear_of(&mut self, name: &str, info: PackInfo, directory: &Directory) -> Result<(), OthersError> {
        let others = Others::decode(directory.others())?;
        if !self.has_room_for(name, &others) {
            return Err(OthersError);
        }
        self.take_in(name, info, others.clone());
        self.heard.insert(name.to_owned(), others);
        self.settle();
        Ok(())
    }

    /// Takes in what is known of packs without their directories.
    pub fn hear(&mut self, others: Others) {
        self.others.merge(others);
        self.settle();
    }

    /// Takes note that a pack cannot be used now; others may find it again.
    pub fn lose(&mut self, name: &str) {
        self.others.known.remove(name);
        self.read.remove(name);
        self.heard.remove(name);
        self.said.remove(name);
        self.settle();
    }

    /// Lets go of the directories of packs, which are there still, as is what they say of others.
    pub fn put_back<'n>(&mut self, names: impl IntoIterator<Item = &'n String>) {
        for name in names {
            if let Some(directory) = self.read.remove(name) {
                self.heard.insert(name.clone(), Others::decode(directory.others()).unwrap_or_default());
            }
        }
        self.settle();
    }

    /// Whether a pack is there and it is known what it says of others, with or without its directory.
    #[must_use]
    pub fn is_there(&self, name: &str) -> bool {
        self.read.contains_key(name) || self.heard.contains_key(name)
    }

    /// Whether the directory of a pack was read and is kept.
    #[must_use]
    pub fn is_read(&self, name: &str) -> bool {
        self.read.contains_key(name)
    }

    /// The packs that somebody needs: the live ones, newest first, whether their directories were read or not, and with
    /// each of them those that were replaced and that it may rely on.
    #[must_use]
    pub fn needed(&self) -> Vec<String> {
        let created = |name: &str| self.others.known.get(name).map(|info| info.created);
        let newest_first = |names: &mut Vec<&str>| names.sort_by_key(|name| Reverse((created(name), *name)));
        let there = self.read.keys().chain(self.heard.keys()).map(String::as_str);
        let mut live: Vec<&str> = there.filter(|name| !self.is_replaced(name)).collect();
        newest_first(&mut live);
        let said = self.all_said();
        let mut needed: Vec<&str> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        for live in live {
            needed.push(live);
            let mut relied: Vec<&str> = self.relied_on_by(live, &said).into_iter().collect();
            newest_first(&mut relied);
            relied.retain(|name| !self.others.gone.contains(*name));
            needed.extend(relied.into_iter().filter(|name| seen.insert(name)));
        }
        needed.into_iter().map(str::to_owned).collect()
    }

    /// What live packs need that were read, or branches, and none of them has.
    #[must_use]
    pub fn lack(&self) -> Lack {
        let mut lack = Lack::default();
        for (_, _, directory) in self.packs() {
            let foreign = (directory.chunks() as u32..).map_while(|number| directory.chunk(number));
            lack.chunks.extend(foreign.map(|chunk| chunk.id));
            for number in 0..directory.paths() {
                let mut last: &[u8] = &[];
                for (at, length) in directory.references_of(number) {
                    let name = directory.record_text(at as usize, length as usize);
                    if std::mem::replace(&mut last, name) == name {
                        continue;
                    }
                    if let Some(hash_part) = name.first_chunk()
                        && !lack.paths.contains(hash_part)
                        && !self.has(hash_part)
                    {
                        lack.paths.insert(*hash_part);
                    }
                }
            }
        }
        for (_, name, directory) in self.packs() {
            if lack.chunks.is_empty() {
                break;
            }
            for chunk in self.whole(name, directory) {
                lack.chunks.remove(&chunk.id);
            }
        }
        let roots = self.others.branches.values().flat_map(|used| &used.roots);
        let roots = roots.filter_map(|root| root.as_bytes().first_chunk());
        lack.paths.extend(roots.filter(|root| !self.has(root)));
        lack
    }

    /// Whether a pack that was read is one that nobody needs beside the other live ones ([`Catalog::covers`]).
    #[must_use]
    pub fn is_superfluous(&self, name: &str) -> bool {
        let directory = self.read.get(name).filter(|read| read.paths() + read.chunks() > 0);
        directory.is_some_and(|directory| !self.is_replaced(name) && self.covers(name, directory))
    }

    /// Whether all paths of a pack, and all chunks that it has itself, are in other live packs that were read: nobody needs
    /// it beside them.
    #[must_use]
    pub fn covers(&self, name: &str, directory: &Directory) -> bool {
        let others = || self.packs().filter(|(_, other, _)| *other != name);
        let ids = |directory: &Directory, record: &PathRecord| -> Vec<Option<Chunk>> {
            let numbers = record.runs.iter().flat_map(|run| run.first..run.first.saturating_add(run.count));
            numbers.map(|number| directory.chunk(number)).collect()
        };
        let is_same = |record: &PathRecord, other: &Directory| {
            let number = record.info.hash_part().and_then(|hash_part| other.find(hash_part));
            let Some(found) = number.and_then(|number| other.record(number).ok()) else { return false };
            let signed = record.info.signatures.iter().all(|sign| found.info.signatures.contains(sign));
            let signatures = found.info.signatures.clone();
            signed
                && found.patches == record.patches
                && found.info == PathInfo { signatures, ..record.info.clone() }
                && ids(other, &found) == ids(directory, record)
        };
        let has_path = |number| {
            let Ok(record) = directory.record(number) else { return false };
            others().any(|(_, _, other)| is_same(&record, other))
        };
        if !(0..directory.paths()).all(has_path) {
            return false;
        }
        let mut missed: HashSet<ChunkId> = self.whole(name, directory).map(|chunk| chunk.id).collect();
        for (_, other, directory) in others() {
            if missed.is_empty() {
                break;
            }
            for chunk in self.whole(other, directory) {
                missed.remove(&chunk.id);
            }
        }
        missed.is_empty()
    }

    /// Takes note that a pack is not there any more, and will not be; the next pack tells others.
    pub fn forget(&mut self, name: &str) {
        self.others.gone.insert(name.to_owned());
        self.lose(name);
    }

    /// Takes note that a frame of a pack is damaged: nothing in it counts as there, and the next pack tells others.
    /// Whether that is news.
    pub fn doubt(&mut self, name: &str, frame: u32) -> bool {
        let is_news = self.others.damaged.entry(name.to_owned()).or_default().insert(frame);
        if is_news {
            self.index.clear();
        }
        is_news
    }

    /// The chunks of a pack that are in frames which are known to be damaged.
    fn damaged(&self, name: &str, directory: &Directory) -> Vec<std::ops::Range<u32>> {
        let frames = self.others.damaged.get(name).into_iter().flatten();
        let frames = frames.map(|&frame| frame as usize).filter(|&frame| frame < directory.frames());
        frames.map(|frame| directory.chunks_in(frame)).collect()
    }

    /// The chunks that a pack has itself, in frames of which nothing bad is known.
    fn whole<'d>(&self, name: &str, directory: &'d Directory) -> impl Iterator<Item = Chunk> + use<'d> {
        let damaged = self.damaged(name, directory);
        let numbers = 0..directory.chunks() as u32;
        let whole = numbers.filter(move |number| !damaged.iter().any(|chunks| chunks.contains(number)));
        whole.filter_map(|number| directory.chunk(number))
    }

    /// Whether a pack has this chunk itself, in a frame of which nothing bad is known.
    pub(crate) fn has_own(&self, pack: u32, chunk: u32) -> bool {
        self.pack(pack).is_some_and(|(name, directory)| {
            let is_damaged = |frames: &BTreeSet<u32>| {
                let frame = directory.frame_of(chunk).and_then(|frame| u32::try_from(frame).ok());
                frame.is_some_and(|frame| frames.contains(&frame))
            };
            directory.is_own(chunk) && !self.others.damaged.get(name).is_some_and(is_damaged)
        })
    }

    /// Takes note of what a branch needs; the next pack tells others.
    pub fn note_use(&mut self, branch: &str, used: Use) {
        self.others.branches.entry(branch.to_owned()).or_default().merge(used);
    }

    /// Everything that is known of packs and branches.
    #[must_use]
    pub fn others(&self) -> &Others {
        &self.others
    }

    /// What the next pack says of others: what is known, less what is of no use to anybody. That a pack is gone
    /// has to be said as long as another one knows it.
    #[must_use]
    pub fn statement(&self) -> Others {
        let mut said = self.others.clone();
        said.known.retain(|name, _| self.is_there(name) || !self.others.gone.contains(name));
        said.replaced.retain(|name, _| said.known.contains_key(name));
        said.damaged.retain(|name, _| said.known.contains_key(name));
        said.gone.retain(|name| !said.known.contains_key(name));
        let mut heard = BTreeSet::new();
        // One after another: together they may be large.
        let read = self.read.values().filter_map(|read| Others::decode(read.others()).ok()).map(Cow::Owned);
        for others in read.chain(self.heard.values().map(Cow::Borrowed)) {
            heard.extend(said.gone.iter().filter(|name| others.known.contains_key(*name)).cloned());
        }
        said.gone = heard;
        said.shorten();
        said
    }

    /// The packs that are known, not replaced by one that is read, and not read yet; newest first. Those that
    /// any pack says are replaced come only when there are no others: what replaced them may be found first.
    #[must_use]
    pub fn unread(&self) -> Vec<(&str, PackInfo)> {
        self.unread_but(|_| false)
    }

    /// The same without those that cannot be read, as is known by now.
    #[must_use]
    pub fn unread_but(&self, cannot: impl Fn(&str) -> bool) -> Vec<(&str, PackInfo)> {
        let first = self.unread_that(|name| !self.others.replaced.contains_key(name) && !cannot(name));
        if first.is_empty() {
            return self.unread_that(|name| !self.is_replaced(name) && !cannot(name));
        }
        first
    }

    /// The packs that are known, replaced by one that is read, and not read; those first that were replaced last.
    #[must_use]
    pub fn unread_replaced(&self) -> Vec<(&str, PackInfo)> {
        let mut unread = self.unread_that(|name| self.is_replaced(name));
        unread.sort_by_key(|(name, _)| Reverse(self.replaced_since(name)));
        unread
    }

    /// Those of [`Catalog::unread_replaced`] that somebody may rely on: who made a live pack took them for live, or what
    /// they replaced, and who replaced them did not know of that pack. Nobody needs the others.
    #[must_use]
    pub fn relied_on(&self) -> Vec<(&str, PackInfo)> {
        let mut unread = self.unread_replaced();
        if unread.is_empty() {
            return unread;
        }
        let said = self.all_said();
        let live = self.packs().map(|(_, live, _)| live);
        let relied: HashSet<&str> = live.flat_map(|live| self.relied_on_by(live, &said)).collect();
        unread.retain(|(name, _)| relied.contains(name));
        unread
    }

    /// Those packs that a pack may rely on whose directory there is no room for: it is live, and they were replaced.
    #[must_use]
    pub fn relied_on_by_unread(&self) -> BTreeSet<String> {
        if self.heard.is_empty() {
            return BTreeSet::new();
        }
        let said = self.all_said();
        let live = self.heard.keys().filter(|name| !self.is_replaced(name));
        live.flat_map(|live| self.relied_on_by(live, &said)).map(str::to_owned).collect()
    }

    /// What each pack says that is there.
    fn all_said(&self) -> BTreeMap<&str, Cow<'_, Others>> {
        let read = self.read.iter().filter_map(|(name, directory)| {
            Some((name.as_str(), Cow::Owned(Others::decode(directory.others()).ok()?)))
        });
        read.chain(self.heard.iter().map(|(name, others)| (name.as_str(), Cow::Borrowed(others)))).collect()
    }

    /// The packs that a live one may rely on.
    fn relied_on_by<'c>(&'c self, live: &str, said: &BTreeMap<&str, Cow<'_, Others>>) -> HashSet<&'c str> {
        let mut relied = HashSet::new();
        let Some(maker) = said.get(live) else { return relied };
        // By their names here, which outlive what was said.
        let known = maker.known.keys().filter(|name| maker.takes_for_live(name));
        let mut next: Vec<&str> =
            known.filter_map(|name| Some(self.others.known.get_key_value(name)?.0.as_str())).collect();
        let mut seen: HashSet<&str> = next.iter().copied().collect();
        while let Some(name) = next.pop() {
            let by = self.replacers(name);
            let knew = |by: &&str| said.get(by).is_some_and(|said| said.known.contains_key(live));
            if by.is_empty() || by.contains(live) || by.iter().any(knew) {
                continue;
            }
            relied.insert(name);
            let by = self.others.replaced.get(name).into_iter().flatten().map(String::as_str);
            next.extend(by.filter(|by| seen.insert(by)));
        }
        relied
    }

    fn unread_that(&self, wanted: impl Fn(&str) -> bool) -> Vec<(&str, PackInfo)> {
        let mut unread: Vec<(&str, PackInfo)> = self
            .others
            .known
            .iter()
            .filter(|(name, _)| !self.read.contains_key(*name) && !self.others.gone.contains(*name))
            .filter(|(name, _)| wanted(name))
            .map(|(name, &info)| (name.as_str(), info))
            .collect();
        unread.sort_by(|a, b| (b.1.created, b.0).cmp(&(a.1.created, a.0)));
        unread
    }

    /// The live packs, newest first, each with its number, name and directory.
    pub fn packs(&self) -> impl Iterator<Item = (u32, &str, &Directory)> {
        self.read_packs().take(self.live)
    }

    /// The packs that were read: the live ones, and then those that were replaced and read all the same.
    pub fn read_packs(&self) -> impl Iterator<Item = (u32, &str, &Directory)> {
        (0..)
            .zip(&self.order)
            .filter_map(|(number, name)| Some((number, name.as_str(), self.read.get(name)?.as_ref())))
    }

    /// Whether the pack of this number is live.
    #[must_use]
    pub fn is_live(&self, pack: u32) -> bool {
        (pack as usize) < self.live
    }

    /// The name and directory of a pack that was read, by its number.
    #[must_use]
    pub fn pack(&self, number: u32) -> Option<(&str, &Directory)> {
        let name = self.order.get(number as usize)?;
        Some((name, self.read.get(name)?.as_ref()))
    }

    /// Whether a pack that is there holds what was live of this one, or one that was itself replaced by such.
    #[must_use]
    pub fn is_replaced(&self, name: &str) -> bool {
        !self.replacers(name).is_empty()
    }

    /// The packs that were read and hold what was live of this one, or of one that replaced it.
    fn replacers(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::from([name]);
        let mut next = vec![name];
        let mut found = BTreeSet::new();
        while let Some(name) = next.pop() {
            for by in self.others.replaced.get(name).into_iter().flatten() {
                if seen.insert(by) {
                    if self.is_there(by) {
                        found.insert(by.as_str());
                    }
                    next.push(by);
                }
            }
        }
        found
    }

    /// Since when a pack is replaced: when the first of those was made that replaced it, in seconds since 1970. One
    /// of those that was itself replaced need not be read to count.
    #[must_use]
    pub fn replaced_since(&self, name: &str) -> Option<u64> {
        let by = self.others.replaced.get(name).into_iter().flatten();
        let there = by.filter(|by| *by != name && (self.is_there(by) || self.is_replaced(by)));
        there.filter_map(|by| self.others.known.get(by)).map(|info| info.created).min()
    }

    /// When the last of the packs was made that this one was made of, in seconds since 1970, and how many bytes they had, if
    /// these are all newer than another, told with when that was made; else when it was made itself, and how large it is.
    #[must_use]
    pub fn made_of(&self, name: &str, other: (u64, &str)) -> (u64, u64) {
        let made = |name: &str| self.others.known.get(name).map(|info| info.created);
        let own = self.others.known.get(name).map_or((0, 0), |info| (info.created, info.size));
        let is_between = |source: &&str| {
            made(source).is_some_and(|made| (made, *source) > other && (made, *source) < (own.0, name))
        };
        let sources = self.others.replaced.iter().filter(|(_, by)| by.contains(name));
        let sources: Vec<&str> = sources.map(|(source, _)| source.as_str()).collect();
        if sources.is_empty() || !sources.iter().all(is_between) {
            return own;
        }
        let made_of = sources.iter().map(|source| self.made_of(source, other));
        made_of.fold((0, 0), |all, source| (all.0.max(source.0), all.1.saturating_add(source.1)))
    }

    fn settle(&mut self) {
        let (mut order, mut spare): (Vec<String>, Vec<String>) =
            self.read.keys().cloned().partition(|name| !self.is_replaced(name));
        let created = |name: &String| self.others.known.get(name).map(|info| info.created);
        for names in [&mut order, &mut spare] {
            names.sort_by(|a, b| (created(b), b).cmp(&(created(a), a)));
        }
        self.live = order.len();
        order.extend(spare);
        self.order = order;
        self.index.clear();
    }

    /// Whether any live pack says that it has a path.
    #[must_use]
    pub fn has(&self, hash_part: &[u8; HASH_LENGTH]) -> bool {
        self.packs().any(|(_, _, directory)| directory.find(hash_part).is_some())
    }

    /// The same of a path by its name (`HASH-NAME`), whatever follows the hash.
    #[must_use]
    pub fn has_name(&self, name: &str) -> bool {
        name.as_bytes().first_chunk().is_some_and(|hash_part| self.has(hash_part))
    }

    /// What is known of a path, without a look at where its chunks are.
    #[must_use]
    pub fn info(&self, hash_part: &[u8; HASH_LENGTH]) -> Option<PathInfo> {
        self.records(hash_part).next().map(|(_, record)| record.info)
    }

    /// When a path (`HASH-NAME`) was saved last, in milliseconds since 1970, as far as live packs tell.
    #[must_use]
    pub fn saved_at(&self, name: &str) -> Option<u64> {
        let records = self.records(name.as_bytes().first_chunk()?);
        records.filter(|(_, record)| record.info.name == name).map(|(_, record)| record.saved).max()
    }

    /// The records of a path in all live packs, newest first; damaged ones are passed over.
    fn records(&self, hash_part: &[u8; HASH_LENGTH]) -> impl Iterator<Item = (u32, PathRecord)> {
        self.packs().filter_map(move |(number, _, directory)| {
            Some((number, directory.record(directory.find(hash_part)?).ok()?))
        })
    }

    /// About how many bytes all that was read takes in memory, with where each chunk is.
    #[must_use]
    pub fn size(&self) -> usize {
        /// What a name takes, and what a chunk takes at most in the index.
        const EACH: (usize, usize) = (128, 20);
        let said = self.others.count() * EACH.0;
        self.read.values().map(|read| read.size() + read.chunks() * EACH.1).sum::<usize>() + said
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

    /// The names of the paths that were saved last, all together, sorted; by when they were saved, for a pack that
    /// was made later may be one that others were folded into.
    #[must_use]
    pub fn latest(&self) -> BTreeSet<String> {
        let mut latest = (0, BTreeSet::new());
        for (_, _, directory) in self.packs() {
            for record in (0..directory.paths()).filter_map(|number| directory.record(number).ok()) {
                if record.saved > latest.0 {
                    latest = (record.saved, BTreeSet::new());
                }
                if record.saved == latest.0 {
                    latest.1.insert(record.info.name);
                }
            }
        }
        latest.1
    }

    /// How a path is put together, if all of its chunks are in packs that were read; in live ones, if it can be.
    pub fn locate(&mut self, hash_part: &[u8; HASH_LENGTH]) -> Option<Located> {
        let records: Vec<_> = self.records(hash_part).collect();
        let mut spare = None;
        for (pack, record) in records {
            let Some(pieces) = self.pieces(pack, &record) else { continue };
            let live = pieces.iter().all(|piece| self.is_live(piece.pack));
            let located = Located { info: record.info, patches: record.patches, pieces };
            if live {
                return Some(located);
            }
            spare.get_or_insert(located);
        }
        spare
    }

    /// Whether live packs alone can give a path, so that it need not be kept again.
    pub fn keeps(&mut self, hash_part: &[u8; HASH_LENGTH]) -> bool {
        let located = self.locate(hash_part);
        located.is_some_and(|located| located.pieces.iter().all(|piece| self.is_live(piece.pack)))
    }

    fn pieces(&mut self, pack: u32, record: &PathRecord) -> Option<Vec<Piece>> {
        let mut pieces: Vec<Piece> = Vec::new();
        for run in &record.runs {
            for number in run.first..run.first.checked_add(run.count)? {
                let (_, directory) = self.pack(pack)?;
                let wanted = directory.chunk(number)?;
                let place = if self.has_own(pack, number) {
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
                if pieces.len() > MOST_PIECES {
                    return None;
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

    /// Where a pack has a chunk, if the index is built.
    pub(crate) fn place(&self, wanted: Chunk) -> Option<Place> {
        let chunk = |place: &Place| self.pack(place.pack)?.1.chunk(place.chunk);
        let is_it = |place: &Place| chunk(place).is_some_and(|chunk| chunk.id == wanted.id);
        let place = *self.index.find(hash(wanted.id), is_it)?;
        (chunk(&place)? == wanted).then_some(place)
    }

    /// The chunks of all live packs, to be asked from several threads.
    pub fn chunks(&mut self) -> Chunks<'_> {
        self.build_index();
        Chunks(self)
    }

    pub(crate) fn build_index(&mut self) {
        if !self.index.is_empty() {
            return;
        }
        let mut index = std::mem::take(&mut self.index);
        let directories: Vec<&Directory> = self.read_packs().map(|(_, _, directory)| directory).collect();
        // The ids stand in the directories, and need not stand here again.
        let id = |place: &Place| {
            let chunk =
                directories.get(place.pack as usize).and_then(|directory| directory.chunk(place.chunk));
            chunk.map_or(ChunkId([0; 16]), |chunk| chunk.id)
        };
        let hash_of = |place: &Place| hash(id(place));
        index.reserve(directories.iter().map(|directory| directory.chunks()).sum(), hash_of);
        for (pack, name, directory) in self.read_packs() {
            let damaged = self.damaged(name, directory);
            for number in 0..directory.chunks() as u32 {
                if damaged.iter().any(|chunks| chunks.contains(&number)) {
                    continue;
                }
                if let Some(chunk) = directory.chunk(number) {
                    let entry = index.entry(hash(chunk.id), |place| id(place) == chunk.id, hash_of);
                    entry.or_insert(Place { pack, chunk: number });
                }
            }
        }
        self.index = index;
    }

    /// Lets go of where each chunk is, which takes as much again as half of the directories; it is found anew when it is
    /// asked for.
    pub fn forget_places(&mut self) {
        self.index = HashTable::new();
    }

    /// Everything that has to come with these paths, as far as references go: what `is_there` says is in the
    /// store already is left out with all below it. Inputs before what refers to them.
    pub fn closure(
        &self,
        wanted: impl IntoIterator<Item = String>,
        is_there: impl FnMut(&str) -> bool,
    ) -> Closure {
        Finding::new(self, wanted.into_iter().collect(), is_there).find()
    }

    /// The directories of the live packs, by number.
    pub(crate) fn live_directories(&self) -> impl Iterator<Item = &Arc<Directory>> {
        self.order.iter().take(self.live).filter_map(|name| self.read.get(name))
    }

    /// Where the newest record of a path is that can be read: its pack, and its number there.
    pub(crate) fn record_of(&self, hash_part: &[u8; HASH_LENGTH]) -> Option<(u32, u32)> {
        self.packs().find_map(|(pack, _, directory)| {
            let number = directory.find(hash_part)?;
            directory.record(number).ok()?;
            Some((pack, u32::try_from(number).ok()?))
        })
    }
}

/// Where a chunk is in the index. Who makes a pack chooses the ids that stand in it.
pub(crate) fn hash(id: ChunkId) -> u64 {
    FixedState::default().hash_one(id)
}

/// Where a name is among others. Packs choose them, too, and this number is drawn by lot.
pub(crate) fn hash_of_name(name: &[u8]) -> u64 {
    static LOT: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    LOT.hash_one(name)
}

#[cfg(test)]
mod tests;
