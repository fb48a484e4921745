//! The bytes of frames as a depot has them: read in ranges that take along what will be wanted next.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use phoenix_depot::{Blob, Depot, DepotError, Problem};
use phoenix_pack::HASH_LENGTH;
use tokio::sync::watch;

use super::opened::{FramePlace, Key, Lost, Tell};
use super::pace::Pace;
use super::wanted::{Stretch, Wanted};

/// How many bytes of ranges are here or on their way, beyond which nothing is read along.
const ROOM: u64 = 20 << 20;

/// How many ranges are fetched ahead of the one that is used.
const AHEAD: usize = 2;

/// How long a depot may take for one range.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a range that is one frame is asked for while none of the requests ends.
const REQUESTS: u32 = 3;

/// How long a depot that did not answer is left alone; what is asked for meanwhile is a miss at once.
const PAUSE: Duration = Duration::from_secs(10);

/// What became of a range; none while it is on its way.
type Coming = watch::Receiver<Option<Result<Bytes, Lost>>>;

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
    /// What was taken out of its range, and is not open yet.
    opening: HashSet<Key>,
    clock: u64,
    pace: Pace,
}

/// A range that is on its way or here: it is given up before it is let go of.
struct Held {
    number: u64,
    blob: Blob,
    range: Range<u64>,
    /// Its frames that were not taken out of it yet.
    left: HashSet<u32>,
    /// The last of its frames.
    last: u32,
    used: u64,
    coming: Coming,
}

/// A range that has to be read.
struct ToRead {
    number: u64,
    blob: Blob,
    range: Range<u64>,
    /// Whether it is more than one frame.
    is_long: bool,
    came: watch::Sender<Option<Result<Bytes, Lost>>>,
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
    pub(super) fn expect<'f>(
        &self,
        path: [u8; HASH_LENGTH],
        frames: impl IntoIterator<Item = &'f FramePlace>,
    ) {
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

    /// Whether the depot answered nothing since then.
    pub(super) fn is_silent_since(&self, begun: Instant) -> bool {
        self.lock().pace.is_silent_since(begun)
    }

    /// The stored bytes of a frame. `open` tells which frames of its pack are open, for which nobody will ask.
    pub(super) async fn take(
        self: &Arc<Self>,
        place: &FramePlace,
        open: &(dyn Fn() -> HashSet<u32> + Sync),
    ) -> Result<Bytes, Lost> {
        let now_open = open();
        let (number, range, mut coming) = {
            let mut state = self.lock();
            let found = state.find(place).unwrap_or_else(|| {
                self.begin(state.begin(place, &now_open));
                state.held.len() - 1
            });
            let held = &state.held[found];
            (held.number, held.range.clone(), held.coming.clone())
        };
        let alone = range == place.range();
        let came = coming.wait_for(Option::is_some).await.ok().and_then(|came| came.clone());
        let read = came.unwrap_or_else(|| {
            // Whoever read it broke off.
            self.lock().let_go(number);
            Err(Lost::Unreachable)
        });
        // Others have been opened while this one came.
        let now_open = open();
        let ahead = {
            let mut state = self.lock();
            state.taken(number, place);
            match &read {
                // Not before it is here: the others would take its share of the way.
                Ok(_) => state.begin_ahead(place, &now_open),
                Err(_) => Vec::new(),
            }
        };
        ahead.into_iter().for_each(|to_read| self.begin(to_read));
        match read {
            Ok(read) => {
                let start =
                    place.frame.offset.checked_sub(range.start).and_then(|at| usize::try_from(at).ok());
                let frame = start.and_then(|start| read.get(start..start + place.frame.stored as usize));
                match frame.map(|frame| read.slice_ref(frame)) {
                    Some(frame) => Ok(frame),
                    None => self.take_alone(place).await,
                }
            }
            // What is wrong with a long range is not wrong with this.
            Err(_) if !alone => self.take_alone(place).await,
            Err(lost) => Err(lost),
        }
    }

    /// Says that a frame which was taken is open, or will not be.
    pub(super) fn opened(&self, place: &FramePlace) {
        self.lock().opening.remove(&place.key());
    }

    /// The stored bytes of a frame, read anew.
    pub(super) async fn take_alone(&self, place: &FramePlace) -> Result<Bytes, Lost> {
        self.read(&place.blob, place.range(), false).await
    }

    /// Begins to read a range, whoever waits for it.
    fn begin(self: &Arc<Self>, to_read: ToRead) {
        let this = self.clone();
        tokio::spawn(async move {
            let ToRead { number, blob, range, is_long, came } = to_read;
            let read = this.read(&blob, range, is_long).await;
            if read.is_err() {
                // Whoever needs it next tries anew.
                this.lock().let_go(number);
            }
            came.send_replace(Some(read));
        });
    }

    /// Reads a range. One request may hang where others do not: a long range is given up then, for its frames alone
    /// or with fewer others may come, and a frame is asked for again.
    async fn read(&self, blob: &Blob, range: Range<u64>, is_long: bool) -> Result<Bytes, Lost> {
        if self.is_paused() {
            return Err(Lost::Unreachable);
        }
        let (begun, length) = (Instant::now(), range.end - range.start);
        let doubt = self.lock().pace.doubt(length).min(PATIENCE);
        let mut asked = FuturesUnordered::new();
        asked.push(self.ask(blob, range.clone()));
        let (mut wait, mut left) = (doubt, REQUESTS - 1);
        let again = tokio::time::sleep(wait);
        tokio::pin!(again);
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        let error = loop {
            tokio::select! {
                Some(answer) = asked.next() => match answer {
                    Ok(stored) => return Ok(stored),
                    // What is still on its way may come.
                    Err(error) if !is_answer(&error) && !asked.is_empty() => {}
                    Err(error) => break error,
                },
                () = &mut again, if left > 0 => {
                    if is_long {
                        self.lock().pace.hung(length, Instant::now());
                        return Err(Lost::Unreachable);
                    }
                    asked.push(self.ask(blob, range.clone()));
                    (wait, left) = (2 * wait, left - 1);
                    again.as_mut().reset(tokio::time::Instant::now() + wait);
                }
                () = &mut patience => break self.silent(PATIENCE),
            }
        };
        let lost = match error.problem {
            Problem::Gone => Lost::Gone,
            Problem::Short(_) => Lost::Damaged,
            _ => Lost::Unreachable,
        };
        if lost == Lost::Unreachable && self.lock().pace.is_silent(begun, Instant::now()) {
            self.pause();
        }
        (self.tell)(error.into());
        Err(lost)
    }

    /// Asks for a range once, and takes note of the answer.
    async fn ask(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError> {
        let (begun, length) = (Instant::now(), range.end - range.start);
        let read = self.depot.read(blob, range).await;
        let now = Instant::now();
        let mut state = self.lock();
        match &read {
            Ok(_) => state.pace.came(length, now.duration_since(begun), now),
            Err(error) if is_answer(error) => state.pace.answered(now),
            Err(_) => {}
        }
        drop(state);
        read
    }

    fn silent(&self, patience: Duration) -> DepotError {
        let problem = Problem::Unreachable(format!("nothing came for {} seconds", patience.as_secs()));
        DepotError { location: self.depot.location().to_owned(), doing: "reading packs".to_owned(), problem }
    }

    /// Leaves the depot alone for a while, which said nothing for so long.
    pub(super) fn give_up(&self, patience: Duration) {
        self.pause();
        (self.tell)(self.silent(patience).into());
    }

    fn pause(&self) {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
    }

    fn is_paused(&self) -> bool {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// Whether an error is an answer of a depot that is there.
fn is_answer(error: &DepotError) -> bool {
    matches!(error.problem, Problem::Gone | Problem::Short(_))
}

impl State {
    fn find(&self, place: &FramePlace) -> Option<usize> {
        self.held.iter().position(|held| held.has(&place.blob, place.number))
    }

    /// Whether a frame is in a range, or was taken out of one and is being opened.
    fn is_coming(&self, blob: &Blob, number: u32) -> bool {
        self.opening.contains(&(blob.name.to_string(), number))
            || self.held.iter().any(|held| held.has(blob, number))
    }

    /// Plans a range for a frame that is needed now; it is the last of those that are held.
    fn begin(&mut self, place: &FramePlace, open: &HashSet<u32>) -> ToRead {
        let longest = self.pace.longest(Instant::now());
        let free = self.make_room(longest.max(u64::from(place.frame.stored)));
        let is_here = |number| open.contains(&number) || self.is_coming(&place.blob, number);
        let stretch = self.wanted.stretch(place, longest.min(free), &is_here);
        self.hold(&place.blob, stretch)
    }

    /// Plans the ranges that follow the one that this frame was taken out of, while there is room for them.
    fn begin_ahead(&mut self, place: &FramePlace, open: &HashSet<u32>) -> Vec<ToRead> {
        let mut begun = Vec::new();
        let (blob, mut last) = (&place.blob, place.number);
        let longest = self.pace.longest(Instant::now());
        let mut seen = 0;
        while seen < AHEAD {
            let pack = blob.name.as_str();
            let is_here =
                |number| open.contains(&number) || self.opening.contains(&(pack.to_owned(), number));
            let Some(next) = self.wanted.after(pack, last, longest, &is_here) else { break };
            let first = next.frames[0];
            if let Some(held) = self.held.iter().find(|held| held.has(blob, first)) {
                // The rest of the one that is used does not count.
                seen += usize::from(!held.range.contains(&place.frame.offset));
                last = held.last.max(first);
                continue;
            }
            let is_here = |number| open.contains(&number) || self.is_coming(blob, number);
            let Some(next) = self.wanted.after(pack, last, longest, &is_here) else { break };
            let length = next.range.end - next.range.start;
            if self.make_room(length) < length {
                break;
            }
            last = next.frames.last().copied().unwrap_or(last);
            begun.push(self.hold(blob, next));
            seen += 1;
        }
        begun
    }

    fn hold(&mut self, blob: &Blob, stretch: Stretch) -> ToRead {
        self.clock += 1;
        let (came, coming) = watch::channel(None);
        let last = stretch.frames.last().copied().unwrap_or_default();
        let is_long = stretch.frames.len() > 1;
        let (range, left) = (stretch.range, stretch.frames.into_iter().collect());
        let (number, used, blob) = (self.clock, self.clock, blob.clone());
        let to_read = ToRead { number, blob: blob.clone(), range: range.clone(), is_long, came };
        self.held.push(Held { number, blob, range, left, last, used, coming });
        to_read
    }

    /// Lets go of ranges that were not used for the longest time, until so much is free or none is left that could go;
    /// how much is free.
    fn make_room(&mut self, wanted: u64) -> u64 {
        loop {
            let free = ROOM.saturating_sub(self.held.iter().map(Held::length).sum());
            if free >= wanted {
                return free;
            }
            let here = self.held.iter().enumerate().filter(|(_, held)| held.coming.borrow().is_some());
            let Some((oldest, _)) = here.min_by_key(|(_, held)| held.used) else { return free };
            self.held.swap_remove(oldest);
        }
    }

    fn let_go(&mut self, number: u64) {
        self.held.retain(|held| held.number != number);
    }

    /// A frame was taken out of a range, which goes when nothing is left in it.
    fn taken(&mut self, number: u64, place: &FramePlace) {
        self.clock += 1;
        self.opening.insert(place.key());
        let Some(at) = self.held.iter().position(|held| held.number == number) else { return };
        let held = &mut self.held[at];
        held.used = self.clock;
        held.left.remove(&place.number);
        if held.left.is_empty() {
            self.held.swap_remove(at);
        }
    }
}
