//! Frames, fetched and opened once for all who ask for them at the same time, and kept for a while.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use phoenix_depot::{Blob, Depot};
use phoenix_pack::{Frame, PackError};
use tokio::sync::{OnceCell, Semaphore};

use super::ranges::Ranges;
use crate::Trouble;
use crate::attempts::attempts_at;
use crate::workshop::{OpenFrame, Workshop};

/// How many bytes of opened frames are kept.
const KEPT: usize = 56 << 20;

/// How many opened frames are kept, at most: they may be small.
const KEPT_FRAMES: usize = 1024;

/// How many KiB of frames are on their way or being opened at once.
const UNDER_WAY: u32 = 24 << 10;

/// Where a frame is.
#[derive(Debug, Clone)]
pub(super) struct FramePlace {
    pub(super) blob: Blob,
    pub(super) number: u32,
    pub(super) frame: Frame,
}

impl FramePlace {
    /// What tells it from all others.
    pub(super) fn key(&self) -> Key {
        (self.blob.name.to_string(), self.number)
    }

    /// Its bytes in the pack.
    pub(super) fn range(&self) -> Range<u64> {
        self.frame.offset..self.frame.offset + u64::from(self.frame.stored)
    }
}

/// Why a frame cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its pack is not there any more.
    Gone,
    /// It is not what was written.
    Damaged,
    /// The depot does not answer; it may later.
    Unreachable,
}

/// The pack of a frame, and its number there.
pub(super) type Key = (String, u32);
type Cell = Arc<OnceCell<Result<Arc<OpenFrame>, Lost>>>;

/// Tells of what went wrong.
pub(super) type Tell = dyn Fn(Trouble) + Send + Sync;

/// The frames that were opened.
pub(super) struct Opened {
    pub(super) ranges: Arc<Ranges>,
    tell: Arc<Tell>,
    frames: Mutex<Frames>,
    room: Semaphore,
    workshop: Arc<Workshop>,
    /// How many archives are being made of them.
    under_way: AtomicUsize,
}

/// An archive that is being made.
pub(super) struct UnderWay<'o>(&'o AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Frames {
    cells: HashMap<Key, (Cell, u64)>,
    /// Counts uses, to find what was not used for long.
    clock: u64,
}

impl Opened {
    pub(super) fn new(depot: Arc<dyn Depot>, tell: Arc<Tell>) -> Self {
        let room = Semaphore::new(UNDER_WAY as usize);
        let (frames, workshop, under_way) = (Mutex::default(), Arc::default(), AtomicUsize::new(0));
        let ranges = Arc::new(Ranges::new(depot, tell.clone()));
        Self { ranges, tell, frames, room, workshop, under_way }
    }

    /// Counts an archive that is being made, until what this returns is dropped.
    pub(super) fn one_more(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.under_way)
    }

    /// How many archives are being made.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether a frame is here or on its way.
    pub(super) fn knows(&self, place: &FramePlace) -> bool {
        self.lock().cells.contains_key(&place.key())
    }

    /// The bytes of a frame.
    pub(super) async fn get(&self, place: &FramePlace) -> Result<Arc<OpenFrame>, Lost> {
        let key = place.key();
        let cell = {
            let mut frames = self.lock();
            frames.clock += 1;
            let clock = frames.clock;
            let (cell, used) = frames.cells.entry(key.clone()).or_default();
            *used = clock;
            cell.clone()
        };
        let mut read_here = false;
        let result = cell
            .get_or_init(|| {
                read_here = true;
                self.read(place)
            })
            .await
            .clone();
        if read_here {
            let is_wanted = |(pack, number): &Key| self.ranges.is_wanted(pack, *number);
            self.lock().settle(&key, result.is_ok(), &is_wanted);
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, place: &FramePlace) -> Result<Arc<OpenFrame>, Lost> {
        let FramePlace { blob, frame, .. } = place;
        let size = (u64::from(frame.stored) + u64::from(frame.length)) >> 10;
        let permits = u32::try_from(size).unwrap_or(u32::MAX).clamp(1, UNDER_WAY);
        // It is never closed.
        let Ok(_room) = self.room.acquire_many(permits).await else { return Err(Lost::Unreachable) };
        let pack = blob.name.to_string();
        let open = || self.lock().open_in(&pack);
        let taken = self.ranges.take(place, &open).await;
        let _opening = Opening(&self.ranges, place);
        let stored = taken?;
        let again = || self.ranges.take_alone(place);
        let opened = attempts_at(Some(stored), again, |stored| self.open(frame, stored));
        opened.await?.map(Arc::new).map_err(|problem| {
            let depot = self.ranges.location().to_owned();
            (self.tell)(Trouble::Pack { depot, pack, problem });
            Lost::Damaged
        })
    }

    async fn open(&self, frame: &Frame, stored: Bytes) -> Result<Result<OpenFrame, PackError>, Lost> {
        let (frame, workshop) = (*frame, self.workshop.clone());
        let opening = tokio::task::spawn_blocking(move || workshop.open(&frame, &stored));
        opening.await.map_err(|_| Lost::Unreachable)
    }
}

/// A frame that was taken, until it is open or is not.
struct Opening<'o>(&'o Ranges, &'o FramePlace);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opened(self.1);
    }
}

impl Frames {
    /// The frames of a pack that are open.
    fn open_in(&self, pack: &str) -> HashSet<u32> {
        let open = self.cells.iter().filter(|((of, _), (cell, _))| of == pack && cell.initialized());
        open.map(|((_, number), _)| *number).collect()
    }

    /// Keeps a frame that was read, and lets go of what nobody asked about and was not sent yet, and of what was not
    /// used for the longest time. One that could not be read is tried anew by who comes next.
    fn settle(&mut self, key: &Key, is_read: bool, is_wanted: &dyn Fn(&Key) -> bool) {
        if !is_read {
            self.cells.remove(key);
            return;
        }
        let size = |cell: &Cell| match cell.get() {
            Some(Ok(bytes)) => bytes.len(),
            Some(Err(_)) | None => 0,
        };
        let mut kept: usize = self.cells.values().map(|(cell, _)| size(cell)).sum();
        while kept > KEPT || self.cells.len() > KEPT_FRAMES {
            let old = self.cells.iter().filter(|(other, (cell, _))| *other != key && cell.initialized());
            let oldest = old.min_by_key(|(other, (_, used))| (is_wanted(other), *used));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            kept -= self.cells.remove(&oldest).map_or(0, |(cell, _)| size(&cell));
        }
    }
}
