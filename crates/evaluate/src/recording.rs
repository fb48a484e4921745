//! What evaluators read of a source, while they read it.
//!
//! Files are watched by inotify, which tells of each that is opened; that needs no right, and costs next to nothing. What
//! it does not tell of (a name that is looked for, a link) is in the source's shape. What is told of the source itself (its
//! path, its revision, its times) is told by `builtins.trace` when it is asked for, see `nix/call-flake.nix`.
//!
//! Since 2.30 or so Nix remembers in a cache of its own what it copied to the store of which source, and does not read it
//! again. So evaluators that are recorded have a cache of their own, with everything of the user's but that.

mod fetchers;
#[cfg(target_os = "linux")]
mod watch;
#[cfg(not(target_os = "linux"))]
#[path = "recording/no_watch.rs"]
mod watch;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::fetchers::Fetchers;
use self::watch::Watch;
use crate::across::Item;
use crate::source::SourceTree;

/// What evaluators need to be recorded.
#[derive(Debug, Clone)]
pub(crate) struct Tracking {
    /// What is told of the source is put here by whoever hears that it was asked for.
    told: Arc<Mutex<Vec<String>>>,
    /// Where the directory `nix` of a cache is.
    cache: PathBuf,
    /// Whether that stands for all of the user's cache.
    is_whole: bool,
}

impl Tracking {
    /// Notes that this was asked for of the source.
    pub(crate) fn note(&self, name: &str) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    }

    /// Has a command of Nix use the cache of the recording (nix `src/libutil/users.cc`, `getCacheDir`).
    pub(crate) fn apply(&self, command: &mut Command) {
        command.env("NIX_CACHE_HOME", self.cache.join("nix"));
        if self.is_whole {
            command.env("XDG_CACHE_HOME", &self.cache);
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A source that is read.
#[derive(Debug)]
pub(crate) struct Recording {
    tracking: Tracking,
    watch: Watch,
    fetchers: Fetchers,
    order: Vec<Item>,
    seen: HashSet<Item>,
    /// Something may have been missed.
    is_blind: bool,
    /// How many evaluators were started.
    evaluators: usize,
}

/// A recording that evaluators are started for on several threads.
pub(crate) type Shared = Arc<Mutex<Recording>>;

/// Has it for a moment.
pub(crate) fn hold(recording: &Shared) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recording {
    /// Begins to record what is read of a source. It must lie where nothing changes it.
    ///
    /// # Errors
    /// When it cannot be watched here.
    pub(crate) fn start(tree: &SourceTree, user_cache: Option<&Path>) -> io::Result<Self> {
        let fetchers = Fetchers::start(user_cache)?;
        let (cache, is_whole) = (fetchers.home().to_owned(), fetchers.is_whole());
        let tracking = Tracking { told: Arc::default(), cache, is_whole };
        let watch = Watch::start(tree)?;
        let (order, seen) = (Vec::new(), HashSet::new());
        Ok(Self { tracking, watch, fetchers, order, seen, is_blind: false, evaluators: 0 })
    }

    /// What evaluators are to be started with.
    pub(crate) fn tracking(&self) -> &Tracking {
        &self.tracking
    }

    /// Notes that an evaluator is started.
    pub(crate) fn begins(&mut self) {
        self.evaluators += 1;
    }

    /// Forgets what was read by now, if nobody has but one evaluator, which had nothing to do but to take in the source.
    /// Some versions of Nix (2.26) read all of it for that, to see that it is what it should be; what comes of it is told by
    /// [`Tracking`] when it is asked for.
    pub(crate) fn has_taken_in(&mut self) {
        self.is_blind |= self.fetchers.forget_copies().is_err();
        if self.evaluators == 1 {
            self.look();
            self.order.clear();
            self.seen.clear();
        }
    }

    /// Takes in what was read by now; how much that is, or nothing if something may have been missed.
    pub(crate) fn look(&mut self) -> Option<u32> {
        let told = self.tracking.take().into_iter().map(Item::Told);
        let mut items: Vec<Item> = told.collect();
        self.is_blind |= self.watch.opened(&mut |path| items.push(Item::File(path))).is_err();
        for item in items {
            if self.seen.insert(item.clone()) {
                self.order.push(item);
            }
        }
        (!self.is_blind).then(|| u32::try_from(self.order.len()).ok()).flatten()
    }

    /// Whether it was seen that the flake itself is read, without which nothing can be believed.
    pub(crate) fn saw(&self, path: &[u8]) -> bool {
        self.seen.contains(&Item::File(path.to_vec()))
    }

    /// Notes that it cannot be told what is read.
    pub(crate) fn is_lost(&mut self) {
        self.is_blind = true;
    }

    /// Whether this was asked for of the source.
    pub(crate) fn was_told(&self, name: &str) -> bool {
        self.seen.contains(&Item::Told(name.to_owned()))
    }

    /// Ends; what was read, in its order.
    pub(crate) fn end(&mut self) -> Vec<Item> {
        self.fetchers.give_back();
        std::mem::take(&mut self.order)
    }
}
