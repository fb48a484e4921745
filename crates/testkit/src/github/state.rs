//! All that the double holds, behind one lock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::artifacts::Artifacts;
use super::behaviour::{Behaviour, Window};
use super::blob::Blobs;
use super::counts::Counts;
use super::entries::{Entries, Entry, Lag};
use super::fault::Troubles;
use super::sas::Signer;

/// What the server's tasks and the test share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The server's URL, with a slash at its end.
    pub(super) url: String,
    /// The token of the REST interface.
    pub(super) rest_token: String,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) behaviour: Behaviour,
    pub(super) entries: Entries,
    pub(super) artifacts: Artifacts,
    pub(super) blobs: Blobs,
    pub(super) creates: Window,
    pub(super) lookups: Window,
    pub(super) troubles: Troubles,
    pub(super) counts: Counts,
    pub(super) signer: Signer,
    /// How much further the double's clock is than the machine's, in milliseconds.
    pub(super) ahead: u64,
}

impl Shared {
    pub(super) fn new(url: String, key: &str) -> Self {
        let state = State {
            behaviour: Behaviour::default(),
            entries: Entries::default(),
            artifacts: Artifacts::default(),
            blobs: Blobs::default(),
            creates: Window::default(),
            lookups: Window::default(),
            troubles: Troubles::default(),
            counts: Counts::default(),
            signer: Signer::new(key),
            ahead: 0,
        };
        Self { url, rest_token: format!("ghs_test{key}"), state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Milliseconds since 1970, by the double's clock.
    pub(super) fn now(&self) -> u64 {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(real.as_millis()).unwrap_or(u64::MAX) + self.ahead
    }

    pub(super) fn lag(&self) -> Lag {
        let millis = u64::try_from(self.behaviour.lag.as_millis()).unwrap_or(u64::MAX);
        Lag { millis, lookups: self.behaviour.lag_lookups }
    }

    /// Removes entries with their bytes.
    pub(super) fn remove(&mut self, which: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let removed = self.entries.remove(which);
        for entry in &removed {
            self.blobs.remove(&entry.path());
        }
        removed
    }
}
