//! The frames that a restore needs: fetched in few large ranges, ahead of their use, each once.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use phoenix_depot::{Blob, Depot, DepotError, Problem};
use phoenix_pack::{Catalog, Frame, Located, PackError, Piece};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::attempts::attempts_at;
use crate::spill::Spill;
use crate::workshop::{OpenFrame, Workshop};
use crate::{Packs, Trouble};

/// The longest range that is read at once, in bytes.
pub(crate) const LONGEST_RANGE: u64 = 8 << 20;

/// Bytes that nobody needs but that are read along, because another request costs more than they do.
pub(crate) const LARGEST_GAP: u64 = 128 << 10;

/// How many ranges are on their way at once.
const AT_ONCE: usize = 6;

/// How many bytes are fetched ahead of their use.
pub(crate) const ROOM: u64 = 48 << 20;

/// Which part of as many is held for a later use; what is more than that is put away in a file.
const HELD: u64 = 2;

/// Which part of as many bytes of opened frames is held for a second use: the numerator, and the denominator.
const OPEN: (u64, u64) = (2, 3);

/// A frame: the numbers of its pack and of itself.
type Key = (u32, u32);

/// Damaged frames: the names of their packs, their numbers, and what is wrong with them.
pub(crate) type Damage = BTreeMap<String, BTreeMap<u32, PackError>>;

/// Frames that lie together in a pack and are read at once.
#[derive(Debug)]
struct Part {
    pack: u32,
    blob: Blob,
    range: Range<u64>,
}

/// All frames of a restore.
#[derive(Debug)]
pub(crate) struct Frames {
    depot: Arc<dyn Depot>,
    parts: Vec<Part>,
    /// For each frame where it is in its pack, and in which part.
    places: HashMap<Key, (Frame, usize)>,
    workshop: Arc<Workshop>,
    spill: Spill,
    /// How many bytes are fetched ahead; half as many are held, and two thirds as many of opened frames.
    limit: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// There is room for another part.
    room: Notify,
}

/// A part, the frames in it, and when the first of them is needed.
struct Planned {
    soonest: usize,
    part: Part,
    frames: Vec<(Key, Frame)>,
}

#[derive(Debug, Default)]
struct State {
    parts: Vec<Fetch>,
    /// How many frames of each part are still needed.
    needed: Vec<usize>,
    /// When each part was used last; 0 if it was not yet.
    touched: Vec<u64>,
    frames: HashMap<Key, Opened>,
    /// How many bytes of parts are on their way, or here and not used yet.
    ahead: u64,
    /// How many bytes of parts are held that were used and are needed again.
    held: u64,
    /// How many bytes of these are on their way into the file.
    leaving: u64,
    /// How many bytes of opened frames are held.
    open: usize,
    /// Counts uses, to find what was not used for long.
    clock: u64,
    requests: usize,
    bytes: u64,
    /// The packs that are not there any more, by number, with what the depot said of each.
    gone: BTreeMap<u32, DepotError>,
    /// Nobody needs anything any more.
    over: bool,
}

/// Whether a part is fetched ahead.
enum Ahead {
    Begins,
    NoRoom,
    NotNeeded,
}

#[derive(Debug, Clone)]
enum Fetch {
    No,
    OnItsWay,
    Here(Bytes),
    /// It is here, and on its way into the file.
    Leaving(Bytes),
    /// It is in the file from this place on.
    PutAway(u64),
    /// It was here, and could not be put away: what is needed of it again is read again.
    LetGo,
    Failed,
}

#[derive(Debug, Default)]
struct Opened {
    /// How many pieces are still to be taken out of it.
    uses: usize,
    opening: bool,
    bytes: Option<Arc<OpenFrame>>,
    used: u64,
    damaged: Option<PackError>,
}

impl Frames {
    /// What these paths need, to be used in their order, with room for so many bytes ahead and half as many for later.
    /// Paths that need a pack without a blob get nothing of it.
    pub(crate) fn plan<'l>(
        packs: &Packs,
        catalog: &Catalog,
        located: impl IntoIterator<Item = &'l Located>,
        limit: u64,
    ) -> Self {
        let mut first_use: HashMap<Key, usize> = HashMap::new();
        let mut frames: HashMap<Key, Opened> = HashMap::new();
        for (number, piece) in located.into_iter().flat_map(|path| &path.pieces).enumerate() {
            let key = (piece.pack, piece.frame);
            first_use.entry(key).or_insert(number);
            frames.entry(key).or_default().uses += 1;
        }
        let mut keys: Vec<Key> = first_use.keys().copied().collect();
        keys.sort_unstable();
        let mut parts: Vec<Planned> = Vec::new();
        for key in keys {
            let (Some(blob), Some((_, directory))) = (packs.blob(key.0), catalog.pack(key.0)) else {
                continue;
            };
            let frame = directory.frame(key.1 as usize);
            let end = frame.offset + u64::from(frame.stored);
            let first = first_use[&key];
            match parts.last_mut() {
                Some(Planned { soonest, part, frames })
                    if part.blob == *blob
                        && frame.offset >= part.range.end
                        && frame.offset - part.range.end <= LARGEST_GAP
                        && end - part.range.start <= LONGEST_RANGE =>
                {
                    part.range.end = end;
                    *soonest = first.min(*soonest);
                    frames.push((key, frame));
                }
                _ => parts.push(Planned {
                    soonest: first,
                    part: Part { pack: key.0, blob: blob.clone(), range: frame.offset..end },
                    frames: vec![(key, frame)],
                }),
            }
        }
        parts.sort_by_key(|planned| planned.soonest);
        let mut places = HashMap::new();
        let needed = parts.iter().map(|planned| planned.frames.len()).collect();
        let mut ordered = Vec::new();
        for Planned { part, frames, .. } in parts {
            places.extend(frames.into_iter().map(|(key, frame)| (key, (frame, ordered.len()))));
            ordered.push(part);
        }
        let parts = vec![Fetch::No; ordered.len()];
        let state = State { touched: vec![0; parts.len()], parts, needed, frames, ..State::default() };
        Self {
            depot: packs.depot().clone(),
            parts: ordered,
            places,
            workshop: Arc::default(),
            spill: Spill::default(),
            limit,
            state: Mutex::new(state),
            changed: Condvar::new(),
            room: Notify::new(),
        }
    }

    /// How many requests were made, and for how many bytes.
    pub(crate) fn read(&self) -> (usize, u64) {
        let state = self.lock();
        (state.requests, state.bytes)
    }

    /// Whether a path needs a pack that was found to be gone.
    pub(crate) fn is_gone(&self, path: &Located) -> bool {
        let state = self.lock();
        path.pieces.iter().any(|piece| state.gone.contains_key(&piece.pack))
    }

    /// What the depot said of the packs that were found to be gone: what was in them may come from others.
    pub(crate) fn gone(&self) -> Vec<DepotError> {
        std::mem::take(&mut self.lock().gone).into_values().collect()
    }

    /// Takes note that the depot did not give a part of a pack. That the pack is gone is not told yet.
    fn missed(&self, state: &mut State, pack: u32, error: DepotError, trouble: &(dyn Fn(Trouble) + Sync)) {
        if matches!(error.problem, Problem::Gone) {
            state.gone.entry(pack).or_insert(error);
        } else {
            trouble(error.into());
        }
    }

    /// The frames that were found to be damaged.
    pub(crate) fn damaged(&self) -> Damage {
        let state = self.lock();
        let mut damaged = Damage::new();
        for (key, opened) in &state.frames {
            if let (Some(problem), Some(&(_, part))) = (&opened.damaged, self.places.get(key)) {
                let pack = damaged.entry(self.parts[part].blob.name.to_string()).or_default();
                pack.insert(key.1, problem.clone());
            }
        }
        damaged
    }

    /// Whether the frame of a piece was read, and is damaged.
    pub(crate) fn is_damaged(&self, piece: &Piece) -> bool {
        let state = self.lock();
        state.frames.get(&(piece.pack, piece.frame)).is_some_and(|opened| opened.damaged.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that nothing more is needed, so that fetching ahead ends.
    pub(crate) fn end(&self) {
        self.lock().over = true;
        self.room.notify_waiters();
    }

    /// Fetches ahead in the order of use, until all is fetched or nothing more is needed. Needs a thread.
    pub(crate) fn fetch_ahead(&self, runtime: &Handle, trouble: &(dyn Fn(Trouble) + Sync)) {
        let numbers = stream::iter(0..self.parts.len());
        let fetching = numbers
            .map(|number| async move {
                loop {
                    let mut room = pin!(self.room.notified());
                    // From here on nothing that is said is missed.
                    room.as_mut().enable();
                    match self.begin_ahead(number) {
                        Ahead::Begins => return self.fetch(number, trouble).await,
                        Ahead::NotNeeded => return,
                        Ahead::NoRoom => room.await,
                    }
                }
            })
            .buffer_unordered(AT_ONCE)
            .for_each(|()| async {});
        runtime.block_on(fetching);
    }

    /// Marks a part as on its way, if nobody has begun it and there is room.
    fn begin_ahead(&self, number: usize) -> Ahead {
        let mut state = self.lock();
        if state.over || state.needed[number] == 0 || !matches!(state.parts[number], Fetch::No) {
            return Ahead::NotNeeded;
        }
        if state.ahead > 0 && state.ahead + self.length(number) > self.limit {
            return Ahead::NoRoom;
        }
        state.parts[number] = Fetch::OnItsWay;
        state.ahead += self.length(number);
        Ahead::Begins
    }

    fn length(&self, number: usize) -> u64 {
        let range = &self.parts[number].range;
        range.end - range.start
    }

    /// Reads a part that is marked as on its way.
    async fn fetch(&self, number: usize, trouble: &(dyn Fn(Trouble) + Sync)) {
        let part = &self.parts[number];
        let read = self.depot.read(&part.blob, part.range.clone()).await;
        let mut state = self.lock();
        state.requests += 1;
        state.parts[number] = match read {
            Ok(bytes) => {
                state.bytes += bytes.len() as u64;
                if state.needed[number] > 0 {
                    Fetch::Here(bytes)
                } else {
                    // Those who wanted it have given up.
                    state.ahead -= self.length(number);
                    self.room.notify_waiters();
                    Fetch::No
                }
            }
            Err(error) => {
                state.ahead -= self.length(number);
                self.room.notify_waiters();
                self.missed(&mut state, part.pack, error, trouble);
                Fetch::Failed
            }
        };
        self.changed.notify_all();
    }

    /// The bytes of a frame; none when they cannot be had, which was told. Each piece asks once.
    pub(crate) fn get(
        &self,
        piece: &Piece,
        runtime: &Handle,
        trouble: &(dyn Fn(Trouble) + Sync),
    ) -> Option<Arc<OpenFrame>> {
        let key = (piece.pack, piece.frame);
        let &(frame, part) = self.places.get(&key)?;
        let mut state = self.lock();
        loop {
            state.clock += 1;
            let clock = state.clock;
            let opened = state.frames.entry(key).or_default();
            opened.used = clock;
            if opened.damaged.is_some() {
                return None;
            }
            if let Some(bytes) = opened.bytes.clone() {
                self.used(&mut state, key, part);
                let leaving = self.leaving(&mut state);
                drop(state);
                self.put_away(leaving);
                return Some(bytes);
            }
            if opened.opening {
                state = self.wait(state);
                continue;
            }
            let fetched = state.parts[part].clone();
            match &fetched {
                Fetch::Failed => return None,
                Fetch::OnItsWay => state = self.wait(state),
                Fetch::No => {
                    // Nobody fetches it yet, and somebody needs it: room or not.
                    state.parts[part] = Fetch::OnItsWay;
                    state.ahead += self.length(part);
                    drop(state);
                    runtime.block_on(self.fetch(part, trouble));
                    state = self.lock();
                }
                Fetch::Here(_) | Fetch::Leaving(_) | Fetch::PutAway(_) | Fetch::LetGo => {
                    state.frames.entry(key).or_default().opening = true;
                    drop(state);
                    let opened = self.open(&frame, part, &fetched, runtime);
                    state = self.lock();
                    let entry = state.frames.entry(key).or_default();
                    entry.opening = false;
                    match opened {
                        Ok(bytes) => {
                            entry.bytes = Some(Arc::new(bytes));
                            state.open += frame.length as usize;
                        }
                        // All that are damaged are told together.
                        Err(Trouble::Pack { problem, .. }) => entry.damaged = Some(problem),
                        Err(problem) => {
                            match problem {
                                Trouble::Depot(error) => self.missed(&mut state, key.0, error, trouble),
                                problem => trouble(problem),
                            }
                            self.changed.notify_all();
                            return None;
                        }
                    }
                    self.changed.notify_all();
                }
            }
        }
    }

    /// Opens a frame of a part that was fetched. What is damaged may have been so on its way: it is read again before
    /// that is believed.
    fn open(
        &self,
        frame: &Frame,
        part: usize,
        fetched: &Fetch,
        runtime: &Handle,
    ) -> Result<OpenFrame, Trouble> {
        let Part { blob, range, .. } = &self.parts[part];
        let start = usize::try_from(frame.offset - range.start).unwrap_or(usize::MAX);
        let length = frame.stored as usize;
        let stored = match fetched {
            Fetch::Here(stored) | Fetch::Leaving(stored) => {
                stored.get(start..start.saturating_add(length)).map(|frame| stored.slice_ref(frame))
            }
            Fetch::PutAway(at) => self.spill.take(at + start as u64, length).ok().map(Bytes::from),
            Fetch::No | Fetch::OnItsWay | Fetch::LetGo | Fetch::Failed => None,
        };
        let again = || async {
            let read = self.depot.read(blob, frame.offset..frame.offset + u64::from(frame.stored)).await?;
            let mut state = self.lock();
            state.requests += 1;
            state.bytes += read.len() as u64;
            Ok::<Bytes, Trouble>(read)
        };
        let open = async |stored: Bytes| Ok::<_, Trouble>(self.workshop.open(frame, &stored));
        let opened = runtime.block_on(attempts_at(stored, again, open));
        opened?.map_err(|problem| {
            let (depot, pack) = (self.depot.location().to_owned(), blob.name.to_string());
            Trouble::Pack { depot, pack, problem }
        })
    }

    /// Says that a piece will not be taken out of its frame.
    pub(crate) fn skip(&self, piece: &Piece) {
        let key = (piece.pack, piece.frame);
        if let Some(&(_, part)) = self.places.get(&key) {
            self.used(&mut self.lock(), key, part);
        }
    }

    /// One piece less is to be taken out of a frame; what nobody needs any more is let go of.
    fn used(&self, state: &mut State, key: Key, part: usize) {
        if let Some(opened) = state.frames.get_mut(&key)
            && opened.uses > 0
        {
            opened.uses -= 1;
            if opened.uses == 0 {
                state.open -= opened.bytes.take().map_or(0, |bytes| bytes.len());
                state.needed[part] -= 1;
            }
        }
        while state.open as u64 > self.limit * OPEN.0 / OPEN.1 {
            let open = state.frames.iter().filter(|(other, opened)| **other != key && opened.bytes.is_some());
            let oldest = open.min_by_key(|(_, opened)| opened.used).map(|(key, _)| *key);
            let Some(opened) = oldest.and_then(|oldest| state.frames.get_mut(&oldest)) else { break };
            state.open -= opened.bytes.take().map_or(0, |bytes| bytes.len());
        }
        let is_here = matches!(state.parts[part], Fetch::Here(_) | Fetch::Leaving(_));
        if is_here && state.touched[part] == 0 {
            // From now on it is held, and there is room for another one.
            state.ahead -= self.length(part);
            state.held += self.length(part);
            self.room.notify_waiters();
        }
        if is_here {
            state.touched[part] = state.clock.max(1);
        }
        if state.needed[part] == 0 && !matches!(state.parts[part], Fetch::OnItsWay) {
            if matches!(state.parts[part], Fetch::Leaving(_)) {
                state.leaving -= self.length(part);
            }
            state.parts[part] = Fetch::No;
            if is_here {
                state.held -= self.length(part);
            }
        }
    }

    /// The parts that there is no room for any more, those first that were not used for long.
    fn leaving(&self, state: &mut State) -> Vec<(usize, Bytes)> {
        let mut leaving = Vec::new();
        while state.held - state.leaving > self.limit / HELD {
            let here = state.parts.iter().enumerate().filter_map(|(number, fetch)| match fetch {
                Fetch::Here(bytes) if state.touched[number] > 0 => {
                    Some((state.touched[number], number, bytes.clone()))
                }
                _ => None,
            });
            let Some((_, number, bytes)) = here.min_by_key(|&(touched, ..)| touched) else { break };
            state.parts[number] = Fetch::Leaving(bytes.clone());
            state.leaving += self.length(number);
            leaving.push((number, bytes));
        }
        leaving
    }

    fn put_away(&self, leaving: Vec<(usize, Bytes)>) {
        for (number, bytes) in leaving {
            let at = self.spill.put(&bytes);
            let mut state = self.lock();
            // Nobody may need it any more by now.
            if matches!(state.parts[number], Fetch::Leaving(_)) {
                state.parts[number] = at.map_or(Fetch::LetGo, Fetch::PutAway);
                state.held -= self.length(number);
                state.leaving -= self.length(number);
            }
        }
    }
}
