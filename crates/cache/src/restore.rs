//! Restoring: store paths out of packs.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use phoenix_depot::{BlobName, DepotError};
use phoenix_pack::{Catalog, Located, PathInfo, Piece, PutBack};
use tokio::runtime::Handle;

use crate::collect::MOST_PACKS;
use crate::frames::{Damage, Frames};
use crate::trouble::Said;
use crate::{Cache, Trouble};

/// Why a path cannot be put together.
pub(crate) const GONE: &str = "a pack with a part of it is gone, or damaged there";

/// How many bytes of memory the plan has of how paths are put together; what is beyond that is planned when these are done.
const PLAN: usize = 24 << 20;

/// Which part of the room for reading ahead there is at least, however much is known of packs.
const LEAST_ROOM: u64 = 3;

/// Makes the archive of a path and hands it on in pieces.
pub type MakeArchive<'m> = dyn FnMut(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> + 'm;

/// Takes the archive of a path in, and is content only with one that has the registered hash.
pub type TakeArchive<'t> = dyn Fn(&PathInfo, &mut MakeArchive<'_>) -> io::Result<()> + Sync + 't;

/// What came of restoring.
#[derive(Debug, Default)]
pub struct Restored {
    /// The paths that were taken in, those that others refer to first. Each refers to nothing but these and
    /// what was there.
    pub paths: Vec<PathInfo>,
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
        self.restore_admitted(wanted, is_there, &|_| Ok(()), take, threads, trouble)
    }

    /// The same, and nothing is read for what `admit` does not let in by what is known of it.
    pub(crate) fn restore_admitted(
        &mut self,
        wanted: impl IntoIterator<Item = String>,
        is_there: impl FnMut(&str) -> bool,
        admit: &dyn Fn(&PathInfo) -> io::Result<()>,
        take: &TakeArchive<'_>,
        threads: usize,
        trouble: &(dyn Fn(Trouble) + Sync),
    ) -> Restored {
        let said = Mutex::new(Said::default());
        let trouble: &(dyn Fn(Trouble) + Sync) = &|told| {
            if said.lock().unwrap_or_else(PoisonError::into_inner).is_news(&told) {
                trouble(told);
            }
        };
        let (closure, missing) = self.packs.catalog().closure(wanted, is_there);
        let (mut located, mut later, mut gone) = locate(self.packs.catalog(), &closure);
        if !gone.is_empty() {
            // Whoever saved it may have relied on a pack that was being replaced, and is still there.
            self.runtime.block_on(self.packs.read_relied_on(false, &mut |problem| trouble(problem)));
            (located, later, gone) = locate(self.packs.catalog(), &closure);
        }
        if !gone.is_empty() {
            // What nobody can tell is most likely in what was replaced last.
            self.runtime.block_on(self.packs.read_replaced(MOST_PACKS, &mut |problem| trouble(problem)));
            (located, later, gone) = locate(self.packs.catalog(), &closure);
        }
        for info in located.iter().map(|path| &path.info).chain(later.iter().copied()) {
            if let Err(why) = admit(info) {
                gone.push((info.name.clone(), with_causes(&why)));
            }
        }
        // Nothing is read of what refers to something that cannot come.
        let mut bad: HashSet<String> = missing.iter().cloned().collect();
        bad.extend(gone.iter().map(|(name, _)| name.clone()));
        drop(reached(&closure, &mut bad));
        located.retain(|path| !bad.contains(&path.info.name));
        later.retain(|info| !bad.contains(&info.name));
        let mut restored = Restored { missing, failed: gone, ..Restored::default() };
        let mut damaged = Damage::new();
        let mut later = later.into_iter();
        let (mut gone, mut gone_packs) = (HashMap::new(), Vec::new());
        while !located.is_empty() {
            let (paths, packs) = self.take_in(located, take, threads, trouble, &mut restored, &mut damaged);
            gone.extend(paths);
            gone_packs.extend(packs);
            located = locate_some(self.packs.catalog(), &mut later, &mut restored.failed);
        }
        if !gone.is_empty() {
            // What replaced the packs that went away may have it. If that goes away as well, so be it.
            self.runtime.block_on(self.packs.load_again(&mut |problem| trouble(problem)));
            restored.failed.retain(|(name, _)| !gone.contains_key(name));
            restored.unread.retain(|name| !gone.contains_key(name));
        }
        let mut again = gone.values();
        while again.len() > 0 {
            let mut located = locate_some(self.packs.catalog(), &mut again, &mut restored.failed);
            for path in &mut located {
                // It has to be what was let in.
                path.info.clone_from(&gone[&path.info.name]);
            }
            let (_, packs) = self.take_in(located, take, threads, trouble, &mut restored, &mut damaged);
            gone_packs.extend(packs);
        }
        // Where all came from elsewhere, nobody misses them.
        if restored.failed.iter().any(|(name, _)| gone.contains_key(name)) {
            gone_packs.into_iter().for_each(|error| trouble(error.into()));
        }
        self.doubt(&damaged, trouble);
        if self.packs.unsure().next().is_some() {
            // It may be in what the depot did not show.
            let gone = restored.failed.iter().filter(|(_, why)| why == GONE);
            restored.unread.extend(gone.map(|(name, _)| name.clone()));
        }
        restored.settle(closure);
        restored
    }

    /// Takes paths in that are planned together; those that could not be had because packs went away, and what the depot
    /// said of these packs.
    fn take_in(
        &self,
        mut located: Vec<Located>,
        take: &TakeArchive<'_>,
        threads: usize,
        trouble: &(dyn Fn(Trouble) + Sync),
        restored: &mut Restored,
        damaged: &mut Damage,
    ) -> (HashMap<String, PathInfo>, Vec<DepotError>) {
        // As they stand in the packs, so that each frame is opened once and let go of.
        located.sort_by_key(|path| path.pieces.first().map(|piece| (piece.pack, piece.frame, piece.offset)));
        // What the catalog takes is not there for reading ahead.
        let room = self.room.saturating_sub(self.packs.peek().size() as u64).max(self.room / LEAST_ROOM);
        let frames = Frames::plan(&self.packs, self.packs.peek(), &located, room);
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
        restored.requests += requests;
        restored.bytes += bytes;
        for (pack, frames) in restoring.frames.damaged() {
            damaged.entry(pack).or_default().extend(frames);
        }
        // Only what is known to be whole counts, whatever became of the thread that had it.
        let ended = restoring.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut gone = HashMap::new();
        for (path, number) in restoring.located.iter().zip(0..) {
            let (why, is_unread) = match ended.get(&number) {
                Some(Ok(())) => continue,
                Some(Err(NotTaken { why, is_unread })) => (why.clone(), *is_unread),
                None => ("taking it in broke off".to_owned(), true),
            };
            if is_unread {
                restored.unread.insert(path.info.name.clone());
            }
            restored.failed.push((path.info.name.clone(), why));
            if restoring.frames.is_gone(path) {
                gone.insert(path.info.name.clone(), path.info.clone());
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

/// Where paths are, as many as are planned together; those that are left for later; and those that are nowhere, with why.
fn locate<'c>(
    catalog: &mut Catalog,
    closure: impl IntoIterator<Item = &'c PathInfo>,
) -> (Vec<Located>, Vec<&'c PathInfo>, Vec<(String, String)>) {
    let (mut later, mut gone) = (Vec::new(), Vec::new());
    let mut closure = closure.into_iter();
    let located = locate_some(catalog, &mut closure, &mut gone);
    for info in closure {
        match info.hash_part().and_then(|hash_part| catalog.locate(hash_part)) {
            Some(_) => later.push(info),
            None => gone.push((info.name.clone(), GONE.to_owned())),
        }
    }
    (located, later, gone)
}

/// Where the next paths are, as many as are planned together.
fn locate_some<'c>(
    catalog: &mut Catalog,
    paths: &mut impl Iterator<Item = &'c PathInfo>,
    gone: &mut Vec<(String, String)>,
) -> Vec<Located> {
    let (mut located, mut size) = (Vec::new(), 0);
    while size < PLAN
        && let Some(info) = paths.next()
    {
        match info.hash_part().and_then(|hash_part| catalog.locate(hash_part)) {
            Some(path) => {
                size += path.size();
                located.push(path);
            }
            None => gone.push((info.name.clone(), GONE.to_owned())),
        }
    }
    located
}

impl Restored {
    /// Sorts out what refers to itself by way of others, which no store takes.
    pub(crate) fn lose_circles(&mut self) {
        let by_name: HashMap<&str, &PathInfo> =
            self.paths.iter().map(|info| (info.name.as_str(), info)).collect();
        // What all of whose references are clear is clear, until nothing changes.
        let mut clear: HashSet<&str> = HashSet::new();
        loop {
            let before = clear.len();
            for info in &self.paths {
                let is_clear = |name: &String| {
                    *name == info.name
                        || !by_name.contains_key(name.as_str())
                        || clear.contains(name.as_str())
                };
                if info.references.iter().all(is_clear) {
                    clear.insert(&info.name);
                }
            }
            if clear.len() == before {
                break;
            }
        }
        let circular = self.paths.iter().map(|info| &info.name).filter(|name| !clear.contains(name.as_str()));
        let why = "it refers to itself by way of others, or to what does";
        let circular: HashSet<String> = circular.cloned().collect();
        self.paths.retain(|info| !circular.contains(&info.name));
        self.failed.extend(circular.into_iter().map(|name| (name, why.to_owned())));
    }

    /// Sorts out what refers to something that could not be had.
    pub(crate) fn settle(&mut self, closure: Vec<PathInfo>) {
        let mut bad: HashSet<String> = self.missing.iter().cloned().collect();
        bad.extend(self.failed.iter().map(|(name, _)| name.clone()));
        let reached = reached(&closure, &mut bad);
        self.failed.extend(reached.into_iter().map(|(name, other)| (name, format!("it refers to {other}"))));
        self.paths = closure.into_iter().filter(|info| !bad.contains(&info.name)).collect();
    }
}

/// Adds to what is bad all that refers to it; each with what it refers to.
fn reached(closure: &[PathInfo], bad: &mut HashSet<String>) -> Vec<(String, String)> {
    let mut reached = Vec::new();
    // References come first, but packs may lie and go in circles: until nothing changes.
    loop {
        let before = bad.len();
        for info in closure {
            if let Some(reference) = info.references.iter().find(|name| bad.contains(*name)).cloned()
                && bad.insert(info.name.clone())
            {
                reached.push((info.name.clone(), reference));
            }
        }
        if bad.len() == before {
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
    located: Vec<Located>,
    next: AtomicUsize,
    /// The disk takes no more: what is left need not be read.
    full: AtomicBool,
    frames: Frames,
    runtime: Handle,
    take: &'r TakeArchive<'r>,
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
            let Some(path) = self.located.get(number) else { return };
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
                (self.take)(&path.info, &mut archive).map_err(|error| {
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
