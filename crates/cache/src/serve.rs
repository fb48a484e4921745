//! A substituter over a depot: Nix's binary cache protocol, answered from the catalog.
//!
//! What a path is comes from the catalog, so a `.narinfo` costs the depot nothing. A NAR is put together of frames
//! that are fetched ahead, and hashed on its way out: its last bytes leave only when the hash is right, so a client
//! never gets the whole of something wrong. Whatever is in doubt is not there: 404.

mod answers;
mod archive;
mod frame_cache;

use std::collections::HashSet;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use phoenix_depot::Blob;
use phoenix_pack::{Frame, Located, PathInfo};
use tokio::sync::Semaphore;

use crate::{Cache, Packs, Trouble};
use frame_cache::FrameCache;

/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How long a depot that gave no answer is left alone, and all it has is not there.
const LEAVE_ALONE: Duration = Duration::from_secs(10);

/// How often the depot is asked for new packs, at most, when something is missing.
const LOOK_FOR_NEW: Duration = Duration::from_secs(15);

/// How many archives are made at once; each holds a few frames.
const ARCHIVES: usize = 16;

/// Signs what is said of a path: `NAME:BASE64`, or nothing.
pub type Sign = dyn Fn(&PathInfo) -> Option<String> + Send + Sync;

/// How to serve.
pub struct Serving {
    /// The store directory of the clients.
    pub store_dir: String,
    /// What `nix-cache-info` says; the lower, the sooner a client asks here. `cache.nixos.org` has 40.
    pub priority: u32,
    /// Adds a signature to those that paths have.
    pub sign: Option<Box<Sign>>,
}

/// What was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// Requests of any kind.
    pub requests: u64,
    /// Archives that left whole.
    pub archives: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// What all connections share.
struct State {
    serving: Serving,
    packs: Mutex<Packs>,
    frames: Arc<FrameCache>,
    /// Frames that are not what they should be, by pack and number.
    damaged: Mutex<HashSet<(String, u32)>>,
    /// Until when the depot is left alone.
    down: Mutex<Option<Instant>>,
    looked: Mutex<Instant>,
    archives_at_once: Arc<Semaphore>,
    trouble: Box<dyn Fn(Trouble) + Send + Sync>,
    requests: AtomicU64,
    archives: AtomicU64,
    bytes: AtomicU64,
}

/// A path that can be made, and where its frames are.
struct Found {
    path: Located,
    /// The frames in the order of their first use, with the blobs they are in.
    frames: Vec<(Key, Blob, Frame)>,
}

/// A frame: the number of its pack and its own.
type Key = (u32, u32);

impl Cache {
    /// Serves until `stop` is set. What goes wrong with the depot is told to `trouble` and makes paths be missing.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn serve(
        self,
        listener: TcpListener,
        serving: Serving,
        stop: &AtomicBool,
        trouble: Box<dyn Fn(Trouble) + Send + Sync>,
    ) -> io::Result<Served> {
        let Self { runtime, packs, .. } = self;
        listener.set_nonblocking(true)?;
        let frames = Arc::new(FrameCache::new(packs.depot().clone()));
        let state = Arc::new(State {
            serving,
            packs: Mutex::new(packs),
            frames,
            damaged: Mutex::default(),
            down: Mutex::default(),
            looked: Mutex::new(Instant::now()),
            archives_at_once: Arc::new(Semaphore::new(ARCHIVES)),
            trouble,
            requests: AtomicU64::new(0),
            archives: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        runtime.block_on(accept(listener, &state, stop))?;
        // An archive on its way to a client that does not read would hold everything up.
        runtime.shutdown_background();
        Ok(Served {
            requests: state.requests.load(Ordering::Relaxed),
            archives: state.archives.load(Ordering::Relaxed),
            bytes: state.bytes.load(Ordering::Relaxed),
        })
    }
}

async fn accept(listener: TcpListener, state: &Arc<State>, stop: &AtomicBool) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    while !stop.load(Ordering::Relaxed) {
        let Ok(accepted) = tokio::time::timeout(LOOK, listener.accept()).await else { continue };
        let Ok((stream, _)) = accepted else {
            // Too many open files, perhaps: others may be closed soon.
            tokio::time::sleep(LOOK).await;
            continue;
        };
        // Only the speed would suffer.
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(state);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let state = Arc::clone(&state);
                async move { answers::answer(&state, &request).await }
            });
            // A client that goes away is no concern of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
    Ok(())
}

impl State {
    /// A path by its hash part, if all that it is made of seems to be there.
    fn find(&self, hash_part: &[u8; 32]) -> Option<Found> {
        let mut packs = self.packs();
        let path = packs.catalog().locate(hash_part)?;
        let mut frames: Vec<(Key, Blob, Frame)> = Vec::new();
        let mut seen = HashSet::new();
        for piece in &path.pieces {
            let key = (piece.pack, piece.frame);
            if seen.insert(key) {
                let blob = packs.blob(piece.pack)?.clone();
                let frame = packs.peek().pack(piece.pack)?.1.frame(piece.frame as usize);
                frames.push((key, blob, frame));
            }
        }
        drop(packs);
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_whole = frames.iter().all(|((_, frame), blob, _)| {
            damaged.is_empty() || !damaged.contains(&(blob.name.to_string(), *frame))
        });
        is_whole.then_some(Found { path, frames })
    }

    /// Whether the depot gave no answer a moment ago.
    fn is_down(&self) -> bool {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.is_some_and(|until| Instant::now() < until)
    }

    fn packs(&self) -> MutexGuard<'_, Packs> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a frame that could not be had, and leaves it or the whole depot alone.
    fn lost(&self, blob: &Blob, frame: u32, problem: Trouble) {
        if matches!(problem, Trouble::Pack { .. }) {
            let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            damaged.insert((blob.name.to_string(), frame));
        } else {
            let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
            *down = Some(Instant::now() + LEAVE_ALONE);
        }
        (self.trouble)(problem);
    }

    /// Looks for new packs when it was not done for a while: somebody may have saved what is missing.
    fn look_for_new(self: &Arc<Self>) {
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.elapsed() < LOOK_FOR_NEW || self.is_down() {
                return;
            }
            *looked = Instant::now();
        }
        let state = Arc::clone(self);
        tokio::spawn(async move {
            let depot = state.packs().depot().clone();
            let mut troubles = 0;
            let packs = Packs::load(depot, &mut |_| troubles += 1).await;
            // What is known stays known while the depot does not say better.
            if troubles == 0 {
                *state.packs() = packs;
            }
        });
    }
}
