//! Frames that several archives need, fetched and opened once while they are remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phoenix_depot::{Blob, Depot};
use phoenix_pack::Frame;
use tokio::sync::OnceCell;

use crate::Trouble;
use crate::workshop::{OpenFrame, Workshop};

/// How many bytes of opened frames are remembered.
const REMEMBERED: u64 = 112 << 20;

type Cell = Arc<OnceCell<Arc<OpenFrame>>>;

/// Frames by the name of their pack and their number.
pub(super) struct FrameCache {
    depot: Arc<dyn Depot>,
    workshop: Arc<Workshop>,
    frames: Mutex<Frames>,
}

#[derive(Default)]
struct Frames {
    cells: HashMap<(String, u32), Remembered>,
    bytes: u64,
    /// Counts uses, to find what was not used for long.
    clock: u64,
}

struct Remembered {
    cell: Cell,
    bytes: u64,
    used: u64,
}

impl FrameCache {
    pub(super) fn new(depot: Arc<dyn Depot>) -> Self {
        Self { depot, workshop: Arc::default(), frames: Mutex::default() }
    }

    /// A frame; whoever asks for one that is on its way waits for it.
    ///
    /// # Errors
    /// When the depot does not give it, or it is damaged. It is forgotten then, and may be asked for again.
    pub(super) async fn get(
        &self,
        blob: &Blob,
        number: u32,
        frame: Frame,
    ) -> Result<Arc<OpenFrame>, Trouble> {
        let key = (blob.name.to_string(), number);
        let cell = self.cell(&key, frame);
        let got = cell.get_or_try_init(|| self.fetch(blob, frame)).await.cloned();
        if got.is_err() {
            self.forget(&key);
        }
        got
    }

    fn lock(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell(&self, key: &(String, u32), frame: Frame) -> Cell {
        let mut frames = self.lock();
        frames.clock += 1;
        let used = frames.clock;
        if let Some(remembered) = frames.cells.get_mut(key) {
            remembered.used = used;
            return Arc::clone(&remembered.cell);
        }
        let bytes = u64::from(frame.length);
        while frames.bytes + bytes > REMEMBERED {
            let oldest = frames.cells.iter().min_by_key(|(_, remembered)| remembered.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            frames.bytes -= frames.cells.remove(&oldest).map_or(0, |remembered| remembered.bytes);
        }
        let cell = Cell::default();
        frames.bytes += bytes;
        frames.cells.insert(key.clone(), Remembered { cell: Arc::clone(&cell), bytes, used });
        cell
    }

    fn forget(&self, key: &(String, u32)) {
        let mut frames = self.lock();
        frames.bytes -= frames.cells.remove(key).map_or(0, |remembered| remembered.bytes);
    }

    async fn fetch(&self, blob: &Blob, frame: Frame) -> Result<Arc<OpenFrame>, Trouble> {
        let stored = self.depot.read(blob, frame.offset..frame.offset + u64::from(frame.stored)).await?;
        let workshop = Arc::clone(&self.workshop);
        let opened = tokio::task::spawn_blocking(move || workshop.open(&frame, &stored)).await;
        let broken = phoenix_pack::PackError::Damaged("opening a frame broke off");
        opened.unwrap_or(Err(broken)).map(Arc::new).map_err(|problem| Trouble::Pack {
            depot: self.depot.location().to_owned(),
            pack: blob.name.to_string(),
            problem,
        })
    }
}
