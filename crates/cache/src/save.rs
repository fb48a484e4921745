//! Saving: store paths into one pack.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, thread};

use bytes::Bytes;
use crossbeam_channel::{Sender, bounded};
use futures_util::{StreamExt, stream};
use phoenix_depot::{BlobName, Body, Created, Depot, DepotError, Problem};
use phoenix_pack::{
    Catalog, Chunk, ChunkId, ChunkSizes, Chunks, Compressor, Cutter, FrameBuilder, LEVEL, Others,
    PackBuilder, PackError, PackInfo, PackedPath, Patch, PathInfo, References, SealedFrame, Use,
};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::name::{part, scoped};
use crate::order::order;
use crate::outline::{Outline, Paths};
use crate::packs::{newest_of, now};
use crate::{Cache, Trouble};

/// What was saved longer ago than this, in milliseconds, is written down again when it is saved: it is still of
/// use, which nobody would know otherwise. A week.
const STALE: u64 = 7 * 24 * 3600 * 1000;

/// What a branch needs is said again after so many seconds, though it is the same: a day.
const SAY_AGAIN: u64 = 24 * 3600;

/// How often after a save others are met that do not know of it, where packs are found by the newest.
const MEET: usize = 5;

/// How long it is waited for a pack to be seen, in units of the first pause; depots may be late by minutes, which is
/// too long for a job to wait at its end.
const LATEST: u32 = 20;

/// How many times as long as a save was blind for others it waits for them once it is seen: they were blind for about as
/// long, on the same service.
const BLIND: f64 = 1.5;

/// Which part of [`Cache::set_meeting`]'s time is waited at least.
const SHORTEST: u32 = 20;

/// How many finished frames wait to be sent, at most; each has some megabytes.
const FRAMES_WAITING: usize = 4;

/// How many bytes all that is known of the paths of a pack may take in its directory, about, without their chunks. What is
/// more than that goes into another pack: whoever reads or writes one has all of it in memory.
const RECORDS: usize = 24 << 20;

/// How many times as long as a pack archives may be, when it is estimated how much is to be known of it.
const DENSEST: u64 = 8;

/// Reads the archive of a path and hands it on in pieces, of which none may be kept.
pub type ReadArchive<'r> =
    dyn Fn(&PathInfo, &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> + Sync + 'r;

/// What came of saving.
#[derive(Debug, Default)]
pub struct Saved {
    /// The pack that was made, the last if there are several; none when there was nothing to save.
    pub pack: Option<BlobName>,
    /// How many paths are in it, and in the others.
    pub paths: usize,
    /// How many were in live packs already.
    pub known: usize,
    /// How many bytes the archives of these paths have.
    pub archives: u64,
    /// How many bytes of these no pack had.
    pub new: u64,
    /// How many bytes the packs have.
    pub size: u64,
    /// Paths that could not be read, and why. They are not in the pack.
    pub unreadable: Vec<(String, io::Error)>,
    /// Paths that are in packs which are left out for want of room, and are not saved anew: they would take room from others.
    pub left_out: Vec<String>,
    /// Paths that are in no pack, for what is known of all of them together is more than readers have room for; and what
    /// refers to these.
    pub no_room: Vec<String>,
    /// Why no more packs were made, though there is more to save. What is said above was saved before.
    pub broken_off: Option<Trouble>,
}

impl Cache {
    /// Saves paths in a new pack: those that no live pack can give, or not with all their signatures, and of these the
    /// chunks that no live pack has. The pack has this name, in the scope of the depot that may be written. Where more
    /// is known of the paths than one directory should hold, there are several, with names that follow this one. What
    /// readers would have no room for is not saved, or they would leave out what is older instead.
    ///
    /// # Errors
    /// When a pack cannot be made; nothing is in the depot then. Where others were made before it, that is
    /// [`Saved::broken_off`].
    pub fn save(
        &mut self,
        name: &BlobName,
        paths: &[PathInfo],
        read: &ReadArchive<'_>,
        threads: usize,
    ) -> Result<Saved, Trouble> {
        self.save_some(name, &paths, read, threads)
    }

    /// The same of paths that are told one at a time.
    pub(crate) fn save_some(
        &mut self,
        name: &BlobName,
        paths: &dyn Paths,
        read: &ReadArchive<'_>,
        threads: usize,
    ) -> Result<Saved, Trouble> {
        let depot = self.packs.depot().clone();
        let name = &scoped(name, depot.scopes().as_ref());
        let outline = Outline::of(paths);
        let (branch, is_news) = self.note_use(&outline);
        let old = (now() * 1000).saturating_sub(STALE);
        let catalog = self.packs.catalog();
        let mut signatures = HashMap::new();
        let mut numbers: Vec<u32> = Vec::new();
        // Those that are there, and are to be written down again.
        let mut again: HashSet<u32> = HashSet::new();
        for number in 0..outline.len() as u32 {
            match to_save(catalog, paths.info(number)) {
                Some(Wanted::WithSignatures(all)) => {
                    signatures.insert(number, all);
                    again.insert(number);
                }
                Some(Wanted::AsItIs) => {}
                None if catalog.saved_at(outline.name(number)).is_some_and(|at| at < old) => {
                    again.insert(number);
                }
                None => continue,
            }
            numbers.push(number);
        }
        let left_out = self.take_left_out(&outline, &mut numbers, &again);
        let ordered = order(&outline, numbers);
        let (numbers, no_room) = with_room(&outline, &ordered, &again, |more| self.packs.room_beside(more));
        let no_room: Vec<String> =
            no_room.into_iter().map(|number| outline.name(number).to_owned()).collect();
        let known = outline.len() - numbers.len() - left_out.len() - no_room.len();
        let mut all = Saved { known, left_out, no_room, ..Saved::default() };
        let groups = groups(&outline, numbers);
        drop(outline);
        let mut saving = Saving {
            paths,
            signatures,
            read,
            threads: threads.max(1),
            saved: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
            made: HashSet::new(),
        };
        let count = groups.len();
        // Whether the pack that says what the branch needs was made, and for how long others were not seen then.
        let (mut is_said, mut end) = (false, Duration::MAX);
        for (number, group) in groups.into_iter().enumerate() {
            let is_last = number + 1 == count;
            // What the branch needs is there when all of them are.
            let not_yet = branch.as_deref().filter(|_| !is_last);
            let (saved, blind) = match self.save_group(&part(name, number), group, not_yet, &mut saving) {
                Ok(saved) => saved,
                Err(error) if all.pack.is_none() => return Err(error),
                Err(error) => {
                    all.broken_off = Some(error);
                    break;
                }
            };
            // Each of them tells of damage.
            self.damage_is_news &= saved.pack.is_none();
            is_said = is_last && saved.pack.is_some();
            if !is_last && let Some(pack) = &saved.pack {
                // The next one says that it is there.
                let made = PackInfo { size: saved.size, created: now() };
                let known = [(pack.to_string(), made)].into();
                self.packs.catalog().hear(Others { known, ..Others::default() });
            }
            all.add(saved);
            end = blind;
        }
        if !is_said && (is_news || self.damage_is_news) {
            // Nothing of the last could be read, or there is none: what the branch needs is said all the same.
            let told = self.tell_scoped(&part(name, count));
            match told {
                Err(error) if all.pack.is_none() => return Err(error),
                Err(error) => all.broken_off = all.broken_off.or(Some(error)),
                Ok(()) => return Ok(all),
            }
        }
        if let Some(name) = &all.pack {
            self.meet(name, end);
        }
        Ok(all)
    }

    /// Takes those out of these that are in packs which are left out for want of room, and in no others; their names.
    fn take_left_out(
        &mut self,
        outline: &Outline,
        numbers: &mut Vec<u32>,
        there: &HashSet<u32>,
    ) -> Vec<String> {
        let missed: Vec<u32> = numbers.iter().copied().filter(|number| !there.contains(number)).collect();
        let names: Vec<&str> = missed.iter().map(|&number| outline.name(number)).collect();
        let found = self.runtime.block_on(self.packs.in_left_out(&names));
        let found: HashSet<u32> =
            missed.iter().zip(found).filter_map(|(&number, found)| found.then_some(number)).collect();
        let (taken, left) = std::mem::take(numbers).into_iter().partition(|number| found.contains(number));
        *numbers = left;
        let taken: Vec<u32> = taken;
        taken.into_iter().map(|number| outline.name(number).to_owned()).collect()
    }

    /// Saves paths in one pack; and for how long it was not known what others did.
    fn save_group(
        &mut self,
        name: &BlobName,
        group: Vec<u32>,
        not_yet: Option<&str>,
        saving: &mut Saving<'_>,
    ) -> Result<(Saved, Duration), Trouble> {
        let depot = self.packs.depot().clone();
        let listed = self.packs.is_listed();
        let mut statement = self.packs.statement();
        if let Some(branch) = not_yet {
            statement.branches.remove(branch);
        }
        let catalog = self.packs.catalog();
        let reading = Reading {
            saving,
            group,
            next: AtomicUsize::new(0),
            known: catalog.chunks(),
            new: Mutex::default(),
        };
        let (to_depot, body) = body();
        let creation = {
            let (depot, name) = (depot.clone(), name.clone());
            self.runtime.spawn(async move { depot.create(&name, body).await })
        };
        // What others have made meanwhile is said too.
        let newest = Newest { depot: depot.clone(), listed, runtime: self.runtime.handle() };
        let asked = OnceLock::new();
        let others = || {
            asked.get_or_init(Instant::now);
            newest.merged(statement).encode()
        };
        let written = write(&reading, others, &to_depot);
        let given_up = match &written {
            Err(error) => Some(error.to_string()),
            Ok(saved) if saved.paths == 0 => Some("nothing could be read".to_owned()),
            Ok(_) => None,
        };
        if let Some(why) = given_up {
            // The depot keeps nothing of a body that fails.
            drop(to_depot.blocking_send(Err(io::Error::other(why))));
        }
        drop(to_depot);
        let new = reading.new.into_inner().unwrap_or_else(PoisonError::into_inner);
        let created = self.runtime.block_on(creation);
        let blind = asked.get().map_or(Duration::MAX, Instant::elapsed);
        let damaged =
            |problem| Trouble::Pack { depot: depot.location().to_owned(), pack: name.to_string(), problem };
        // When the depot took no more, it says why.
        let (mut saved, created) = match (written, created) {
            (Err(_), Ok(Err(error))) if !is_ours(&error) => return Err(error.into()),
            (Err(error), _) => return Err(damaged(error)),
            (Ok(saved), created) => (saved, created),
        };
        if saved.paths == 0 {
            return Ok((saved, blind));
        }
        match created {
            Ok(Ok(Created::New(size))) => {
                saved.size = size;
                saved.pack = Some(name.clone());
                saving.made.extend(new);
                Ok((saved, blind))
            }
            Ok(Ok(Created::Taken)) => Err(damaged(PackError::Damaged("another pack has this name"))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(damaged(PackError::Damaged("sending it broke off"))),
        }
    }
}

impl Saved {
    /// Adds what came of one more pack.
    fn add(&mut self, more: Self) {
        let Self { pack, paths, known, archives, new, size, unreadable, .. } = more;
        self.pack = pack.or(self.pack.take());
        self.paths += paths;
        self.known += known;
        self.archives += archives;
        self.new += new;
        self.size += size;
        self.unreadable.extend(unreadable);
    }
}

/// Those of these paths for which readers have room, with all that they refer to among them; and the others, less those
/// that are there already. How much may be known of packs is told by how many bytes they get.
fn with_room(
    outline: &Outline,
    ordered: &[u32],
    there: &HashSet<u32>,
    room: impl Fn(u64) -> u64,
) -> (Vec<u32>, Vec<u32>) {
    let (mut weight, mut bytes) = (0_u64, 0_u64);
    let (mut fits, mut has_none) = (vec![false; outline.len()], vec![false; outline.len()]);
    let reaches =
        |number, has_none: &[bool]| outline.references(number).iter().any(|&other| has_none[other as usize]);
    for &number in ordered {
        let more = (outline.weight(number), outline.nar_size(number) / DENSEST);
        if !reaches(number, &has_none) && weight + more.0 <= room(bytes + more.1) {
            fits[number as usize] = true;
            (weight, bytes) = (weight + more.0, bytes + more.1);
        } else {
            has_none[number as usize] = !there.contains(&number);
        }
    }
    // Large ones come before what they refer to: until nothing changes.
    let mut is_news = true;
    while std::mem::take(&mut is_news) {
        for &number in ordered {
            if fits[number as usize] && reaches(number, &has_none) {
                fits[number as usize] = false;
                has_none[number as usize] = !there.contains(&number);
                is_news = true;
            }
        }
    }
    let some = |which: &[bool]| ordered.iter().copied().filter(|&number| which[number as usize]).collect();
    (some(&fits), some(&has_none))
}

/// Shares paths out to packs, in their order.
fn groups(outline: &Outline, ordered: Vec<u32>) -> Vec<Vec<u32>> {
    let (mut groups, mut size) = (Vec::new(), 0);
    for number in ordered {
        let more = outline.record_size(number);
        if groups.is_empty() || size > 0 && size + more > RECORDS {
            groups.push(Vec::new());
            size = 0;
        }
        size += more;
        if let Some(group) = groups.last_mut() {
            group.push(number);
        }
    }
    groups
}

impl Cache {
    /// Makes a pack without paths, which says what is known: what branches need, and which packs there are.
    ///
    /// # Errors
    /// When the depot does not take it.
    pub fn tell(&mut self, name: &BlobName) -> Result<(), Trouble> {
        self.tell_scoped(&scoped(name, self.packs.depot().scopes().as_ref()))
    }

    fn tell_scoped(&mut self, name: &BlobName) -> Result<(), Trouble> {
        let statement = self.packs.statement();
        // What it says was read when the packs were.
        self.runtime.block_on(self.packs.say(name, &statement))?;
        self.damage_is_news = false;
        self.meet(name, Duration::MAX);
        Ok(())
    }

    /// Takes note of what the run of a branch needs that is to be saved or was restored; the branch, and whether that
    /// is news.
    fn note_use(&mut self, outline: &Outline) -> (Option<String>, bool) {
        let Some((branch, run)) = self.branch.clone() else { return (None, false) };
        let catalog = self.packs.catalog();
        let mut needs = outline.roots();
        if !self.needs.is_empty() {
            needs.extend(self.needs.intersection(&catalog.names()).cloned());
        }
        let before = catalog.others().branches.get(&branch);
        let is_same = before.is_some_and(|before| {
            // What other jobs of this run need is beside it.
            let same = if before.run == run { needs.is_subset(&before.roots) } else { before.roots == needs };
            same && before.at + SAY_AGAIN > now()
        });
        let is_news = !needs.is_empty() && !is_same;
        catalog.note_use(&branch, Use { run, at: now(), roots: needs });
        (Some(branch), is_news)
    }

    /// Sees to it that a pack is found where only the newest can be asked for: when another was made in the same
    /// moment, which does not know it, one is made that knows both. That this may fail costs a rebuild. For so long
    /// it was `blind`: from when it asked for others until it could be seen itself.
    fn meet(&mut self, name: &BlobName, blind: Duration) {
        if self.packs.is_listed() {
            return;
        }
        let mut name = name.clone();
        // Who asked just before this one could be seen is seen after as long a time as it takes to save.
        let later =
            blind.min(self.meet_after).mul_f64(BLIND).clamp(self.meet_after / SHORTEST, self.meet_after);
        for round in 0..MEET {
            let begun = Instant::now();
            let late = self.meet_after * LATEST;
            let mut pause = self.meet_after / SHORTEST;
            // Until the depot shows it; when it was asked last.
            let mut hidden = Duration::ZERO;
            loop {
                match self.runtime.block_on(self.packs.is_seen(&name)) {
                    Ok(true) => break,
                    Ok(false) if begun.elapsed() >= late => break,
                    Ok(false) => thread::sleep(pause.min(late.saturating_sub(begun.elapsed()))),
                    Err(_) => return,
                }
                hidden = begun.elapsed();
                pause *= 2;
            }
            // The others are shown as late as this one, and of several who meet there, each is to be at another time.
            let lot = ChunkId::of(name.as_str().as_bytes()).0[0] % 8;
            let wait = later + hidden;
            let spread = wait.mul_f64(f64::from(lot) / 8.0 * round as f64);
            let until = hidden + (wait + spread).min(late);
            thread::sleep(until.saturating_sub(begun.elapsed()));
            let statement = self.packs.statement();
            match self.runtime.block_on(self.packs.meet(&name, statement, round)) {
                Ok(Some(both)) => name = both,
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// Whether an error of a depot is only that what it was sent broke off here.
pub(crate) fn is_ours(error: &DepotError) -> bool {
    matches!(&error.problem, Problem::Body(_))
}

/// Asks for the newest pack at the end of a save, where only that can be asked for.
struct Newest<'n> {
    depot: Arc<dyn Depot>,
    listed: bool,
    runtime: &'n Handle,
}

impl Newest<'_> {
    /// A statement with what the newest pack knows, if that can be had.
    fn merged(&self, mut statement: Others) -> Others {
        if !self.listed {
            let newest = self.runtime.block_on(newest_of(self.depot.as_ref(), &statement, None));
            for (name, info, others) in newest {
                statement.merge_later(others);
                statement.known.insert(name, info);
            }
        }
        statement
    }
}

/// How a path is to be saved.
enum Wanted {
    AsItIs,
    /// With those that packs know, too.
    WithSignatures(Vec<String>),
}

/// Whether a path is to be saved: not when live packs give it, with the same signatures at least. Another record with
/// all signatures costs next to nothing, for no chunk of it is new.
fn to_save(catalog: &mut Catalog, path: PathInfo) -> Option<Wanted> {
    let kept = path.hash_part().filter(|hash_part| catalog.keeps(hash_part));
    let Some(known) = kept.and_then(|hash_part| catalog.locate(hash_part)) else {
        return Some(Wanted::AsItIs);
    };
    let known = known.info;
    let new_signature = path.signatures.iter().any(|signature| !known.signatures.contains(signature));
    // Of two contents for one path the first stays.
    if known.nar_hash != path.nar_hash || !new_signature {
        return None;
    }
    let mut signatures = path.signatures;
    signatures.extend(known.signatures);
    signatures.sort_unstable();
    signatures.dedup();
    Some(Wanted::WithSignatures(signatures))
}

/// What a depot is sent, and where to put it in. A pack that is given up must say so, or the depot would take
/// its end for the pack's.
pub(crate) fn body() -> (mpsc::Sender<io::Result<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
    let body = stream::unfold(receiver, |mut receiver| async move {
        let next = receiver.recv().await?;
        Some((next, receiver))
    });
    (sender, body.fuse().boxed())
}

/// What is saved, in one pack or several.
struct Saving<'s> {
    paths: &'s dyn Paths,
    /// Those that paths are saved with instead of their own.
    signatures: HashMap<u32, Vec<String>>,
    read: &'s ReadArchive<'s>,
    threads: usize,
    /// When that is, in milliseconds since 1970.
    saved: u64,
    /// The chunks that are in the packs that were made.
    made: HashSet<ChunkId>,
}

impl Saving<'_> {
    /// A path as it is saved.
    fn info(&self, number: u32) -> PathInfo {
        let mut info = self.paths.info(number);
        if let Some(signatures) = self.signatures.get(&number) {
            info.signatures.clone_from(signatures);
        }
        info
    }
}

/// What the threads that read archives share.
struct Reading<'s> {
    saving: &'s Saving<'s>,
    group: Vec<u32>,
    next: AtomicUsize,
    known: Chunks<'s>,
    /// The chunks that this pack gets.
    new: Mutex<HashSet<ChunkId>>,
}

/// A path that was read; what else is known of it is told again when the pack ends.
struct Done {
    number: u32,
    chunks: Vec<Chunk>,
    patches: Vec<Patch>,
}

/// What a thread tells the one that writes.
enum Part {
    Frame(SealedFrame),
    Path(Done, u64),
    Unreadable(String, io::Error),
    Broken(PackError),
}

/// Reads, cuts and compresses in several threads, and sends the pack in this one.
fn write(
    reading: &Reading<'_>,
    others: impl FnOnce() -> Vec<u8>,
    to_depot: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<Saved, PackError> {
    let (mut builder, head) = PackBuilder::new();
    let mut saved = Saved::default();
    // When the depot wants no more, it has an error of its own to tell.
    let gone = PackError::Damaged("the depot took no more of it");
    let send = |bytes: Bytes| to_depot.blocking_send(Ok(bytes)).map_err(|_| gone.clone());
    send(Bytes::from_static(head))?;
    let (parts, from_threads) = bounded(reading.saving.threads);
    let mut paths = Vec::new();
    thread::scope(|scope| {
        for _ in 0..reading.saving.threads {
            let parts = parts.clone();
            scope.spawn(move || {
                if let Err(error) = reading.work(&parts) {
                    drop(parts.send(Part::Broken(error)));
                }
            });
        }
        drop(parts);
        // An early end drops the channel, and with it the threads' will to go on.
        let from_threads = from_threads;
        for part in &from_threads {
            match part {
                Part::Frame(frame) => {
                    builder.add(&frame);
                    send(frame.bytes.into())?;
                }
                Part::Path(done, nar_size) => {
                    saved.paths += 1;
                    saved.archives += nar_size;
                    paths.push(done);
                }
                Part::Unreadable(name, error) => saved.unreadable.push((name, error)),
                Part::Broken(error) => return Err(error),
            }
        }
        Ok(())
    })?;
    if saved.paths == 0 {
        return Ok(saved);
    }
    saved.new = builder.chunk_bytes();
    // The same paths give the same directory, whichever thread was faster.
    let saving = reading.saving;
    paths.sort_by_cached_key(|done| saving.info(done.number).name);
    let paths = paths.into_iter().map(|Done { number, chunks, patches }| PackedPath {
        info: saving.info(number),
        chunks,
        patches,
        saved: saving.saved,
    });
    builder.finish_in_parts(paths, others())?.into_iter().try_for_each(|part| send(part.into()))?;
    Ok(saved)
}

impl Reading<'_> {
    /// Takes paths until none is left.
    fn work(&self, parts: &Sender<Part>) -> Result<(), PackError> {
        let mut compressor = Compressor::new(LEVEL)?;
        let mut frame = FrameBuilder::default();
        while let Some(&number) = self.group.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let path = self.saving.info(number);
            let part = match self.pack(&path, &mut frame, &mut compressor, parts) {
                Ok((chunks, patches)) => Part::Path(Done { number, chunks, patches }, path.nar_size),
                Err(Stop::Unreadable(error)) => Part::Unreadable(path.name, error),
                Err(Stop::Broken(error)) => return Err(error),
            };
            if parts.send(part).is_err() {
                return Ok(());
            }
        }
        if !frame.is_empty() {
            // Nobody listens any more after an error, which is told already.
            drop(parts.send(Part::Frame(frame.seal(&mut compressor)?)));
        }
        Ok(())
    }

    /// Cuts one archive; its new chunks go into the frame, and full frames to the one who writes.
    fn pack(
        &self,
        path: &PathInfo,
        frame: &mut FrameBuilder,
        compressor: &mut Compressor,
        parts: &Sender<Part>,
    ) -> Result<(Vec<Chunk>, Vec<Patch>), Stop> {
        // A name too short for a hash part stands nowhere, but has its number.
        let hash_parts = path.references.iter().map(|name| name.as_bytes().first_chunk().unwrap_or(&[0; 32]));
        let references = References::new(hash_parts);
        let mut cutter = Cutter::new(&references, ChunkSizes::default());
        let mut chunks = Vec::new();
        let mut size = 0_u64;
        let mut hash = Sha256::new();
        let mut emit = |bytes: &[u8]| {
            let chunk = Chunk { id: ChunkId::of(bytes), length: bytes.len() as u32 };
            chunks.push(chunk);
            let is_new = !self.known.has(chunk)
                && !self.saving.made.contains(&chunk.id)
                && self.new.lock().unwrap_or_else(PoisonError::into_inner).insert(chunk.id);
            if is_new {
                frame.push(chunk.id, bytes);
                if frame.is_full() {
                    let sealed = frame.seal(compressor).map_err(Stop::Broken)?;
                    parts.send(Part::Frame(sealed)).map_err(|_| Stop::Broken(ENDED))?;
                }
            }
            Ok(())
        };
        let mut stop = None;
        let read = (self.saving.read)(path, &mut |piece| {
            size += piece.len() as u64;
            hash.update(piece);
            cutter.push(piece, &mut emit).map_err(|error| {
                stop = Some(error);
                io::Error::other("given up")
            })
        });
        if let Some(stop) = stop {
            return Err(stop);
        }
        read.map_err(Stop::Unreadable)?;
        let patches = cutter.finish(&mut emit)?;
        if size != path.nar_size {
            let text = format!("its archive has {size} bytes, but {} are registered", path.nar_size);
            return Err(Stop::Unreadable(io::Error::other(text)));
        }
        if <[u8; 32]>::from(hash.finalize()) != path.nar_hash {
            let text = "its contents are not those that are registered; `nix-store --verify --check-contents \
                        --repair` tells more";
            return Err(Stop::Unreadable(io::Error::other(text)));
        }
        chunks.shrink_to_fit();
        Ok((chunks, patches))
    }
}

/// Why an archive was not read to its end.
enum Stop {
    Unreadable(io::Error),
    Broken(PackError),
}

const ENDED: PackError = PackError::Damaged("writing it has ended");
