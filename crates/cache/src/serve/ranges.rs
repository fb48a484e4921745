//! The bytes of frames as a depot has them: read in ranges that take along what will be wanted next.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use phoenix_depot::{Blob, Depot, Problem};
use phoenix_pack::HASH_LENGTH;
use tokio::sync::OnceCell;

use super::opened::{FramePlace, Lost, Tell};
use super::wanted::{Stretch, Wanted};

/// How many bytes of ranges are here or on their way, beyond which nothing is read along.
const ROOM: u64 = 20 << 20;

/// The longest range that is read at once, in bytes.
const LONGEST: u64 = 5 << 20;

/// How many ranges are fetched ahead of the one that is used.
const AHEAD: usize = 2;

/// How long a depot may take for one range.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a depot that did not answer is left alone; what is asked for meanwhile is a miss at once.
const PAUSE: Duration = Duration::from_secs(10);

type Cell = Arc<OnceCell<Result<Bytes, Lost>>>;

/// A depot that is read in ranges.
pub(super) struct Ranges {
    depot: Arc<dyn Depot>,
    tell: Arc<Tell>,
    state: Mutex<State>,
    /// When the depot may be asked again.
    paused_until: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    held: Vec<Held>,
    wanted: Wanted,
    clock: u64,
}

/// A range that is on its way or here.
struct Held {
    blob: Blob,
    range: Range<u64>,
    /// Its frames that were not taken out of it yet.
    left: HashSet<u32>,
    /// The last of its frames.
    last: u32,
    used: u64,
    bytes: Cell,
}

impl Held {
    fn has(&self, blob: &Blob, number: u32) -> bool {
        self.left.contains(&number) && self.blob.name == blob.name
    }

    fn length(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl Ranges {
    pub(super) fn new(depot: Arc<dyn Depot>, tell: Arc<Tell>) -> Self {
        Self { depot, tell, state: Mutex::default(), paused_until: Mutex::default() }
    }

    pub(super) fn location(&self) -> &str {
        self.depot.location()
    }

    /// Remembers that a path will be wanted, which is in these frames.
    pub(super) fn expect(&self, path: [u8; HASH_LENGTH], frames: &[&FramePlace]) {
        self.lock().wanted.expect(path, frames);
    }

    /// Forgets a path: it was sent, or nobody waits for it any more.
    pub(super) fn forget(&self, path: &[u8; HASH_LENGTH]) {
        self.lock().wanted.forget(path);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a path that is in this frame was asked about and not sent yet.
    pub(super) fn is_wanted(&self, pack: &str, number: u32) -> bool {
        self.lock().wanted.has(pack, number)
    }

    /// The next so many frames of a pack after this one that are wanted.
    pub(super) fn next(&self, place: &FramePlace, count: usize) -> Vec<FramePlace> {
        self.lock().wanted.next(place, count)
    }

    /// The stored bytes of a frame, and whether it was read alone. Nobody will ask for those frames of its pack that are
    /// open.
    pub(super) async fn take(
        self: &Arc<Self>,
        place: &FramePlace,
        open: &HashSet<u32>,
    ) -> Result<(Bytes, bool), Lost> {
        let (range, bytes, ahead) = {
            let mut state = self.lock();
            let found = match state.find(place) {
                Some(found) => found,
                None => state.begin(place, open),
            };
            let (range, last, bytes) = {
                let held = &state.held[found];
                (held.range.clone(), held.last, held.bytes.clone())
            };
            (range, bytes, state.begin_ahead(place, last, open))
        };
        for (range, bytes) in ahead {
            let (this, blob) = (self.clone(), place.blob.clone());
            tokio::spawn(async move {
                if bytes.get_or_init(|| this.read(&blob, range)).await.is_err() {
                    // Whoever needs it tries anew.
                    this.lock().let_go(&bytes);
                }
            });
        }
        let alone = range == place.range();
        let read = bytes.get_or_init(|| self.read(&place.blob, range.clone())).await.clone();
        self.lock().taken(place, &bytes);
        match read {
            Ok(read) => {
                let start = usize::try_from(place.frame.offset - range.start).unwrap_or(usize::MAX);
                let end = start.saturating_add(place.frame.stored as usize);
                let frame = read.get(start..end).map(|frame| read.slice_ref(frame));
                frame.map(|frame| (frame, alone)).ok_or(Lost::Damaged)
            }
            // What is wrong with a neighbour is not wrong with this.
            Err(Lost::Gone | Lost::Damaged) if !alone => Ok((self.take_alone(place).await?, true)),
            Err(lost) => Err(lost),
        }
    }

    /// The stored bytes of a frame, read anew.
    pub(super) async fn take_alone(&self, place: &FramePlace) -> Result<Bytes, Lost> {
        self.read(&place.blob, place.range()).await
    }

    async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, Lost> {
        if self.is_paused() {
            return Err(Lost::Unreachable);
        }
        match tokio::time::timeout(PATIENCE, self.depot.read(blob, range)).await {
            Ok(Ok(stored)) => Ok(stored),
            Ok(Err(error)) => {
                let lost = match error.problem {
                    Problem::Gone => Lost::Gone,
                    Problem::Short(_) => Lost::Damaged,
                    _ => Lost::Unreachable,
                };
                if lost == Lost::Unreachable {
                    self.pause();
                }
                (self.tell)(error.into());
                Err(lost)
            }
            Err(_) => {
                self.pause();
                Err(Lost::Unreachable)
            }
        }
    }

    /// Leaves the depot alone for a while.
    pub(super) fn pause(&self) {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
    }

    fn is_paused(&self) -> bool {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

impl State {
    fn find(&self, place: &FramePlace) -> Option<usize> {
        self.held.iter().position(|held| held.has(&place.blob, place.number))
    }

    /// Plans a range for a frame that is needed now.
    fn begin(&mut self, place: &FramePlace, open: &HashSet<u32>) -> usize {
        let length = u64::from(place.frame.stored);
        // Makes room, as far as others are not on their way.
        let free = self.make_room(LONGEST.max(length));
        let is_here =
            |number| open.contains(&number) || self.held.iter().any(|held| held.has(&place.blob, number));
        let stretch = self.wanted.stretch(place, LONGEST.min(free), &is_here);
        self.hold(&place.blob, stretch)
    }

    /// Plans the ranges that follow the one that is used, while there is room that nobody uses.
    fn begin_ahead(&mut self, place: &FramePlace, last: u32, open: &HashSet<u32>) -> Vec<(Range<u64>, Cell)> {
        let mut begun = Vec::new();
        let (blob, mut last) = (&place.blob, last);
        for _ in 0..AHEAD {
            if let Some(next) =
                self.held.iter().find(|held| held.blob.name == blob.name && held.left.contains(&(last + 1)))
            {
                last = next.last;
                continue;
            }
            let free = ROOM.saturating_sub(self.held.iter().map(Held::length).sum());
            let is_here =
                |number| open.contains(&number) || self.held.iter().any(|held| held.has(blob, number));
            let next = self.wanted.after(blob.name.as_str(), last, LONGEST, &is_here);
            let Some(next) = next.filter(|next| next.range.end - next.range.start <= free) else { break };
            let at = self.hold(blob, next);
            let held = &self.held[at];
            last = held.last;
            begun.push((held.range.clone(), held.bytes.clone()));
        }
        begun
    }

    fn hold(&mut self, blob: &Blob, stretch: Stretch) -> usize {
        self.clock += 1;
        let last = stretch.frames.last().copied().unwrap_or_default();
        let (range, left) = (stretch.range, stretch.frames.into_iter().collect());
        self.held.push(Held {
            blob: blob.clone(),
            range,
            left,
            last,
            used: self.clock,
            bytes: Arc::default(),
        });
        self.held.len() - 1
    }

    /// Lets go of ranges that were not used for the longest time, until so much is free or none is left that could go;
    /// how much is free.
    fn make_room(&mut self, wanted: u64) -> u64 {
        loop {
            let free = ROOM.saturating_sub(self.held.iter().map(Held::length).sum());
            if free >= wanted {
                return free;
            }
            let here = self.held.iter().enumerate().filter(|(_, held)| held.bytes.initialized());
            let Some((oldest, _)) = here.min_by_key(|(_, held)| held.used) else { return free };
            self.held.swap_remove(oldest);
        }
    }

    fn let_go(&mut self, bytes: &Cell) {
        self.held.retain(|held| !Arc::ptr_eq(&held.bytes, bytes));
    }

    /// A frame was taken out of a range, which goes when nothing is left in it or it could not be read.
    fn taken(&mut self, place: &FramePlace, bytes: &Cell) {
        self.clock += 1;
        let Some(at) = self.held.iter().position(|held| Arc::ptr_eq(&held.bytes, bytes)) else { return };
        let held = &mut self.held[at];
        held.used = self.clock;
        held.left.remove(&place.number);
        if held.left.is_empty() || matches!(bytes.get(), Some(Err(_))) {
            self.held.swap_remove(at);
        }
    }
}
