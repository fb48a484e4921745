//! Restoring: store paths out of packs.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use phoenix_depot::{BlobName, DepotError};
use phoenix_pack::{Catalog, Closure, Located, PathInfo, Piece, PutBack, Reference};
use tokio::runtime::Handle;

use crate::collect::MOST_PACKS;
use crate::frames::{Damage, Frames};
use crate::trouble::once;
use crate::{Cache, Trouble};

/// Why a path cannot be put together.
const GONE: &str = "a pack with a part of it is gone, or damaged there";

/// The same where packs are left out, in which it may be.
const LEFT_OUT: &str = "a part of it may be in a pack that there is no room for";

/// Why a path cannot be had that others are in the way of.
const REFERS_TO: &str = "it refers to ";

/// Why no store takes a path that refers to itself by way of others.
const CIRCLE: &str =
    "it is in a circle of references, which no store takes; its pack is not what a store would make";

/// Whether a path is said to be failed ([`Restored::failed`]) only because it refers to another one, which has a cause
/// of its own or is in no pack.
#[must_use]
pub fn is_consequence(why: &str) -> bool {
    why.starts_with(REFERS_TO)
}

/// How many bytes of memory the plan has of how paths are put together; what is beyond that is planned when these are done.
pub(crate) const PLAN: usize = 24 << 20;

/// About how many bytes a path takes that came in, until it is registered.
const TAKEN: usize = 320;

/// Which part of the room for reading ahead there is at least, however much is known of packs.
const LEAST_ROOM: u64 = 3;

/// Makes the archive of a path and hands it on in pieces.
pub type MakeArchive<'m> = dyn FnMut(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> + 'm;

/// Takes the archive of a path in, and is content only with one that has the registered hash.
pub type TakeArchive<'t> = dyn Fn(&PathInfo, &mut MakeArchive<'_>) -> io::Result<()> + Sync + 't;

/// The same, with the number of the path in the closure.
pub(crate) type TakeNumbered<'t> = dyn Fn(u32, &PathInfo, &mut MakeArchive<'_>) -> io::Result<()> + Sync + 't;

/// What came of restoring.
#[derive(Debug, Default)]
pub struct Restored {
    /// The names of the paths that were taken in, those that others refer to first. Each refers to nothing but these
    /// and what was there.
    pub paths: Vec<String>,
    /// How many bytes their archives have.
    pub archives: u64,
    /// What is wanted, or referred to, and in no pack.
    pub missing: Vec<String>,
    /// Paths that could not be taken in, and why.
    pub failed: Vec<(String, String)>,
    /// Those of them of which nothing is known but that the depot did not give all of it: they may be whole.
    pub unread: BTreeSet<String>,
    /// How many ranges were read.
    pub requests: usize,
    /// How many bytes these had.
    pub bytes: u64,
}

/// What becomes of the paths of a closure, by their numbers: there may be many, and what is known of them is as much
/// again as all that packs say.
#[derive(Debug)]
pub(crate) struct Outcome {
    bad: Vec<bool>,
    failed: Vec<(u32, String)>,
    /// Those of them that the depot did not give all of.
    unread: BTreeSet<u32>,
    damaged: Damage,
    requests: usize,
    bytes: u64,
}

impl Cache {
    /// Restores paths with all that they refer to, except for what `is_there` says is there.
    ///
    /// What goes wrong with a pack is told to `trouble`; the paths that need it are failed, and so are those
    /// that refer to them. What the caller has to do is register [`Restored::paths`].
    pub fn restore(
        &mut self,
        wanted: impl IntoIterator<Item = String>,
        is_there: impl FnMut(&str) -> bool,
        take: &TakeArchive<'_>,
        threads: usize,
        trouble: &(dyn Fn(Trouble) + Sync),
    ) -> Restored {
        let closure = self.packs.catalog().closure(wanted, is_there);
        let take = |_: u32, info: &PathInfo, make: &mut MakeArchive<'_>| take(info, make);
        self.restore_admitted(&closure, &|_| Ok(()), &take, threads, trouble).told(&closure)
    }

    /// Restores a closure; nothing is read for what `admit` does not let in by what is known of it.
    pub(crate) fn restore_admitted(
        &mut self,
        closure: &Closure,
        admit: &dyn Fn(&PathInfo) -> io::Result<()>,
        take: &TakeNumbered<'_>,
        threads: usize,
        trouble: &(dyn Fn(Trouble) + Sync),
    ) -> Outcome {
        let trouble: &(dyn Fn(Trouble) + Sync) = &once(trouble);
        let mut outcome = Outcome::of(closure);
        let (mut located, mut later, mut gone) = locate(self.packs.catalog(), closure);
        if !gone.is_empty() {
            // Whoever saved it may have relied on a pack that was being replaced, and is still there.
            self.runtime.block_on(self.packs.read_relied_on(false, &mut |problem| trouble(problem)));
            (located, later, gone) = locate(self.packs.catalog(), closure);
        }
        if !gone.is_empty() {
            // What nobody can tell is most likely in what was replaced last.
            self.runtime.block_on(self.packs.read_replaced(MOST_PACKS, &mut |problem| trouble(problem)));
            (located, later, gone) = locate(self.packs.catalog(), closure);
        }
        gone.into_iter().for_each(|number| outcome.lose(number, self.gone().to_owned()));
        for (number, path) in &located {
            if let Err(why) = admit(&path.info) {
                outcome.lose(*number, with_causes(&why));
            }
        }
        for &number in &later {
            if let Some(info) = closure.info(number)
                && let Err(why) = admit(&info)
            {
                outcome.lose(number, with_causes(&why));
            }
        }
        // Nothing is read of what refers to something that cannot come.
        let mut bad = outcome.bad.clone();
        drop(reached(closure, &mut bad));
        located.retain(|(number, _)| !bad[*number as usize]);
        later.retain(|&number| !bad[number as usize]);
        let mut later = later.into_iter();
        let (mut gone, mut gone_packs) = (BTreeSet::new(), Vec::new());
        while !located.is_empty() {
            let room = self.room_beside(closure);
            let (paths, packs) = self.take_in(located, room, take, threads, trouble, &mut outcome);
            gone.extend(paths);
            gone_packs.extend(packs);
            located = self.locate_some(closure, &mut later, &mut outcome);
        }
        if !gone.is_empty() {
            // What replaced the packs that went away may have it. If that goes away as well, so be it.
            self.runtime.block_on(self.packs.load_again(&mut |problem| trouble(problem)));
            outcome.find_again(&gone);
        }
        let mut again = gone.iter().copied();
        loop {
            let located = self.locate_some(closure, &mut again, &mut outcome);
            if located.is_empty() {
                break;
            }
            let room = self.room_beside(closure);
            let (_, packs) = self.take_in(located, room, take, threads, trouble, &mut outcome);
            gone_packs.extend(packs);
        }
        // Where all came from elsewhere, nobody misses them.
        if gone.iter().any(|&number| !outcome.is_whole(number)) {
            gone_packs.into_iter().for_each(|error| trouble(error.into()));
        }
        self.doubt(&outcome.damaged, trouble);
        // It may be in what the depot did not show, or there was no room for.
        let is_unsure = self.packs.unsure().next().is_some();
        let gone = outcome.failed.iter().filter(|(_, why)| why == LEFT_OUT || is_unsure && why == GONE);
        outcome.unread.extend(gone.map(|(number, _)| *number));
        outcome.settle(closure);
        outcome
    }

    /// Why a path cannot be put together.
    pub(crate) fn gone(&self) -> &'static str {
        if self.packs.left_out() > 0 { LEFT_OUT } else { GONE }
    }

    /// Where the next paths are, as many as are planned together.
    fn locate_some(
        &mut self,
        closure: &Closure,
        numbers: &mut impl Iterator<Item = u32>,
        outcome: &mut Outcome,
    ) -> Vec<(u32, Located)> {
        let (mut located, mut size) = (Vec::new(), 0);
        while size < PLAN
            && let Some(number) = numbers.next()
        {
            match locate_one(self.packs.catalog(), closure, number) {
                Some(path) => {
                    size += path.size();
                    located.push((number, path));
                }
                None => outcome.lose(number, self.gone().to_owned()),
            }
        }
        located
    }

    /// How many bytes are there for reading ahead: what is known of packs and paths takes its part of the memory.
    pub(crate) fn room_beside(&self, closure: &Closure) -> u64 {
        let known = self.packs.peek().size() + closure.size() + closure.len() * TAKEN;
        self.room.saturating_sub(known as u64).max(self.room / LEAST_ROOM)
    }

    /// Takes paths in that are planned together; those that could not be had because packs went away, and what the depot
    /// said of these packs.
    fn take_in(
        &self,
        mut located: Vec<(u32, Located)>,
        room: u64,
        take: &TakeNumbered<'_>,
        threads: usize,
        trouble: &(dyn Fn(Trouble) + Sync),
        outcome: &mut Outcome,
    ) -> (BTreeSet<u32>, Vec<DepotError>) {
        // As they stand in the packs, so that each frame is opened once and let go of.
        located.sort_by_key(|(_, path)| {
            path.pieces.first().map(|piece| (piece.pack, piece.frame, piece.offset))
        });
        let paths = located.iter().map(|(_, path)| path);
        let frames = Frames::plan(&self.packs, self.packs.peek(), paths, room);
        let restoring = Restoring {
            located,
            next: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            frames,
            runtime: self.runtime.handle().clone(),
            take,
            trouble,
            ended: Mutex::default(),
        };
        thread::scope(|scope| {
            let ahead = scope.spawn(|| restoring.frames.fetch_ahead(&restoring.runtime, trouble));
            let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(|| restoring.work())).collect();
            for worker in workers {
                drop(worker.join());
            }
            restoring.frames.end();
            drop(ahead.join());
        });
        let (requests, bytes) = restoring.frames.read();
        outcome.requests += requests;
        outcome.bytes += bytes;
        for (pack, frames) in restoring.frames.damaged() {
            outcome.damaged.entry(pack).or_default().extend(frames);
        }
        // Only what is known to be whole counts, whatever became of the thread that had it.
        let mut ended = restoring.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut gone = BTreeSet::new();
        for ((number, path), at) in restoring.located.iter().zip(0..) {
            let (why, is_unread) = match ended.remove(&at) {
                Some(Ok(())) => continue,
                Some(Err(NotTaken { why, is_unread })) => (why, is_unread),
                None => ("taking it in broke off".to_owned(), true),
            };
            outcome.lose(*number, why);
            if is_unread {
                outcome.unread.insert(*number);
            }
            if restoring.frames.is_gone(path) {
                gone.insert(*number);
            }
        }
        (gone, restoring.frames.gone())
    }
}

impl Cache {
    /// Takes note of frames that are damaged, so that what is in them is saved anew.
    pub(crate) fn doubt(&mut self, damaged: &Damage, trouble: &(dyn Fn(Trouble) + Sync)) {
        for (pack, frames) in damaged {
            let read = self.packs.peek().read_packs().find(|(_, name, _)| name == pack);
            let count = read.map_or(0, |(_, _, directory)| directory.frames());
            let depot = self.packs.depot().location().to_owned();
            let Some(problem) = frames.values().next().cloned() else { continue };
            trouble(Trouble::Frames {
                depot,
                pack: pack.clone(),
                problem,
                damaged: frames.len(),
                frames: count,
            });
            for &frame in frames.keys() {
                self.damage_is_news |= self.packs.catalog().doubt(pack, frame);
            }
        }
    }

    /// Tells others of the frames that were found to be damaged, by a pack without paths, if no pack did yet; whether
    /// there was anything to tell.
    ///
    /// # Errors
    /// When the depot does not take it.
    pub fn tell_damage(&mut self, name: &BlobName) -> Result<bool, Trouble> {
        let is_news = self.damage_is_news;
        if is_news {
            self.tell(name)?;
        }
        Ok(is_news)
    }
}

/// Where paths are, as many as are planned together; those that are left for later; and those that are nowhere.
fn locate(catalog: &mut Catalog, closure: &Closure) -> (Vec<(u32, Located)>, Vec<u32>, Vec<u32>) {
    let (mut located, mut later, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    let mut size = 0;
    for number in closure.numbers() {
        match locate_one(catalog, closure, number) {
            Some(path) if size < PLAN => {
                size += path.size();
                located.push((number, path));
            }
            Some(_) => later.push(number),
            None => gone.push(number),
        }
    }
    (located, later, gone)
}

/// Where a path is.
pub(crate) fn locate_one(catalog: &mut Catalog, closure: &Closure, number: u32) -> Option<Located> {
    catalog.locate(closure.name(number).as_bytes().first_chunk()?)
}

impl Outcome {
    /// All is well so far.
    pub(crate) fn of(closure: &Closure) -> Self {
        Self {
            bad: vec![false; closure.len()],
            failed: Vec::new(),
            unread: BTreeSet::new(),
            damaged: Damage::new(),
            requests: 0,
            bytes: 0,
        }
    }

    /// Takes note that a path cannot be had.
    pub(crate) fn lose(&mut self, number: u32, why: String) {
        self.bad[number as usize] = true;
        self.failed.push((number, why));
    }

    /// Takes note of what was read.
    pub(crate) fn has_read(&mut self, requests: usize, bytes: u64) {
        self.requests += requests;
        self.bytes += bytes;
    }

    /// Takes it back that these cannot be had.
    fn find_again(&mut self, again: &BTreeSet<u32>) {
        self.failed.retain(|(number, _)| !again.contains(number));
        self.unread.retain(|number| !again.contains(number));
        again.iter().for_each(|&number| self.bad[number as usize] = false);
    }

    /// Whether a path is there and all that it refers to.
    pub(crate) fn is_whole(&self, number: u32) -> bool {
        !self.bad[number as usize]
    }

    /// Sorts out what refers to itself by way of others, which no store takes, and what refers to that.
    pub(crate) fn lose_circles(&mut self, closure: &Closure) {
        let whole = || closure.numbers().filter(|&number| self.is_whole(number));
        let others = |number| {
            closure.references(number).filter_map(|reference| match reference {
                Reference::Path(other) => self.is_whole(other).then_some(other),
                Reference::Unknown(_) => None,
            })
        };
        // What all of whose references are clear is clear, until nothing changes.
        let mut clear = vec![false; closure.len()];
        let mut is_news = true;
        while std::mem::take(&mut is_news) {
            for number in whole() {
                if !clear[number as usize] && others(number).all(|other| clear[other as usize]) {
                    (clear[number as usize], is_news) = (true, true);
                }
            }
        }
        // Of the rest, what nothing refers to is in no circle, until each is referred to.
        let mut referred = vec![0_usize; closure.len()];
        let unclear: Vec<u32> = whole().filter(|&number| !clear[number as usize]).collect();
        for other in unclear.iter().flat_map(|&number| others(number)) {
            referred[other as usize] += 1;
        }
        let is_free = |number: &u32, referred: &[usize]| referred[*number as usize] == 0;
        let mut free: Vec<u32> =
            unclear.iter().copied().filter(|number| is_free(number, &referred)).collect();
        let mut above = vec![false; closure.len()];
        while let Some(number) = free.pop() {
            above[number as usize] = true;
            for other in others(number).filter(|&other| !clear[other as usize]) {
                referred[other as usize] -= 1;
                free.extend(Some(other).filter(|other| is_free(other, &referred)));
            }
        }
        for number in unclear.into_iter().filter(|&number| !above[number as usize]) {
            self.lose(number, CIRCLE.to_owned());
        }
        self.settle(closure);
    }

    /// Sorts out what refers to something that could not be had.
    pub(crate) fn settle(&mut self, closure: &Closure) {
        let reached = reached(closure, &mut self.bad);
        let text = |(number, other)| (number, format!("{REFERS_TO}{}", closure.name_of(other)));
        self.failed.extend(reached.into_iter().map(text));
    }

    /// The same with the names of the paths.
    pub(crate) fn told(self, closure: &Closure) -> Restored {
        let whole = || closure.numbers().filter(|&number| self.is_whole(number));
        let sizes = whole().filter_map(|number| closure.info(number)).map(|info| info.nar_size);
        Restored {
            archives: sizes.fold(0, u64::saturating_add),
            paths: whole().map(|number| closure.name(number).to_owned()).collect(),
            missing: closure.unknown().to_vec(),
            failed: self
                .failed
                .into_iter()
                .map(|(number, why)| (closure.name(number).to_owned(), why))
                .collect(),
            unread: self.unread.iter().map(|&number| closure.name(number).to_owned()).collect(),
            requests: self.requests,
            bytes: self.bytes,
        }
    }
}

/// Adds to what is bad all that refers to it, or to what is in no pack; each with what it refers to.
fn reached(closure: &Closure, bad: &mut [bool]) -> Vec<(u32, Reference)> {
    let mut reached = Vec::new();
    // References come first, but packs may lie and go in circles: until nothing changes.
    loop {
        let before = reached.len();
        for number in closure.numbers() {
            if bad[number as usize] {
                continue;
            }
            let is_bad = |reference: &Reference| match reference {
                Reference::Path(other) => bad[*other as usize],
                Reference::Unknown(_) => true,
            };
            if let Some(reference) = closure.references(number).find(is_bad) {
                bad[number as usize] = true;
                reached.push((number, reference));
            }
        }
        if reached.len() == before {
            return reached;
        }
    }
}

/// An error with what caused it: that a file cannot be written says nothing without the disk that is full.
fn with_causes(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Whether an error comes from a disk that takes no more.
fn is_full(error: &io::Error) -> bool {
    let is_full =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(is_full) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Why a path was not tried.
const FULL: &str = "it was not tried, for the disk is full";

struct Restoring<'r> {
    located: Vec<(u32, Located)>,
    next: AtomicUsize,
    /// The disk takes no more: what is left need not be read.
    full: AtomicBool,
    frames: Frames,
    runtime: Handle,
    take: &'r TakeNumbered<'r>,
    trouble: &'r (dyn Fn(Trouble) + Sync),
    /// How taking in each path ended.
    ended: Mutex<HashMap<usize, Result<(), NotTaken>>>,
}

/// Why a path was not taken in.
struct NotTaken {
    why: String,
    /// A part of it was not given, so that nothing is known of it.
    is_unread: bool,
}

/// A part of a path was not given by the depot.
#[derive(Debug, thiserror::Error)]
#[error("a part of it could not be read")]
struct Unread;

impl Restoring<'_> {
    /// Takes paths until none is left.
    fn work(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((in_closure, path)) = self.located.get(number) else { return };
            let mut pieces = path.pieces.iter();
            // Whoever takes it may put the error into words of its own.
            let is_unread = Cell::new(false);
            let mut archive = |emit: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
                make(path, &mut pieces, &self.frames, &self.runtime, self.trouble, emit).inspect_err(
                    |error| {
                        is_unread.set(matches!(error.get_ref(), Some(cause) if cause.is::<Unread>()));
                    },
                )
            };
            let taken = if self.full.load(Ordering::Relaxed) {
                Err(NotTaken { why: FULL.to_owned(), is_unread: true })
            } else {
                (self.take)(*in_closure, &path.info, &mut archive).map_err(|error| {
                    self.full.fetch_or(is_full(&error), Ordering::Relaxed);
                    NotTaken { why: with_causes(&error), is_unread: is_unread.get() }
                })
            };
            // What was not asked for need not be held for it.
            pieces.for_each(|piece| self.frames.skip(piece));
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(number, taken);
        }
    }
}

/// Makes the archive of a path of its pieces.
pub(crate) fn make(
    path: &Located,
    pieces: &mut std::slice::Iter<'_, Piece>,
    frames: &Frames,
    runtime: &Handle,
    trouble: &(dyn Fn(Trouble) + Sync),
    emit: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut put_back = PutBack::new(path);
    for piece in pieces {
        let Some(frame) = frames.get(piece, runtime, trouble) else {
            frames.skip(piece);
            return Err(if frames.is_damaged(piece) {
                io::Error::other("a part of it is damaged")
            } else {
                io::Error::other(Unread)
            });
        };
        let bytes = frame.get(piece.offset as usize..(piece.offset + piece.length) as usize);
        let bytes = bytes.ok_or_else(|| io::Error::other("a frame is shorter than its chunks"))?;
        put_back.piece(bytes, &mut |part: &[u8]| emit(part))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use phoenix_pack::{Contents, Directory, PackInfo, PathRecord};

    use super::*;

    /// What these paths, each a letter, refer to.
    fn closure(references: &[(&str, &str)]) -> Closure {
        let name = |letter: char| format!("{}-{letter}", letter.to_string().repeat(32));
        let path = |(path, others): &(&str, &str)| {
            let info = PathInfo {
                name: path.chars().map(name).collect(),
                nar_hash: [0; 32],
                nar_size: 0,
                references: others.chars().map(name).collect(),
                deriver: None,
                signatures: vec![],
                ca: None,
            };
            PathRecord { info, runs: vec![], patches: vec![], saved: 1 }
        };
        let paths = references.iter().map(path).collect();
        let bytes = Contents { paths, ..Contents::default() }.encode().unwrap();
        let mut catalog = Catalog::default();
        catalog.add("pack", PackInfo { size: 0, created: 0 }, Directory::parse(bytes).unwrap()).unwrap();
        catalog.closure(references.iter().flat_map(|(path, _)| path.chars().map(name)), |_| false)
    }

    #[test]
    fn a_circle_is_a_cause_and_what_refers_to_it_is_not() {
        // Two circles, and what lies between them; what refers to one, and to that; and two with nothing to do with it.
        let closure = closure(&[
            ("a", "b"),
            ("b", "ac"),
            ("c", "d"),
            ("d", "e"),
            ("e", "df"),
            ("f", ""),
            ("g", "ag"),
            ("h", "gf"),
            ("i", "fi"),
        ]);
        let mut outcome = Outcome::of(&closure);
        outcome.lose_circles(&closure);
        let told = outcome.told(&closure);
        let last = |name: &String| name.chars().last().unwrap();
        let some = |wanted: bool| {
            let failed = told.failed.iter().filter(|(_, why)| is_consequence(why) == wanted);
            let mut letters: Vec<char> = failed.map(|(name, _)| last(name)).collect();
            letters.sort_unstable();
            String::from_iter(letters)
        };
        assert_eq!((some(false).as_str(), some(true).as_str()), ("abcde", "gh"));
        let mut whole: Vec<char> = told.paths.iter().map(last).collect();
        whole.sort_unstable();
        assert_eq!(whole, ['f', 'i']);
    }
}
