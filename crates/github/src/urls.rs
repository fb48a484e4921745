//! Signed URLs of blobs, kept while they hold: every one costs a lookup.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use phoenix_depot::Problem;
use tokio::sync::Mutex as AsyncMutex;

use crate::service::Service;
use crate::signed::Signed;

/// How many URLs are kept before those are dropped that hold no more.
const MANY: usize = 1000;

type Slot = Arc<AsyncMutex<Option<Signed>>>;

/// The download URLs of entries, by key.
#[derive(Debug, Default)]
pub(crate) struct Urls {
    slots: Mutex<HashMap<String, Slot>>,
}

impl Urls {
    /// The URL of the entry with exactly this key; none when there is none. Many who ask at once share one
    /// lookup. With `stale`, another URL than that one.
    pub(crate) async fn get(
        &self,
        service: &Service,
        key: &str,
        stale: Option<&Signed>,
    ) -> Result<Option<Signed>, Problem> {
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        if let Some(signed) = held.as_ref()
            && signed.holds(Instant::now())
            && stale.is_none_or(|stale| stale.url() != signed.url())
        {
            return Ok(Some(signed.clone()));
        }
        *held = None;
        let matched = service.look_up(key).await?.filter(|matched| matched.key == key);
        held.clone_from(&matched.map(|matched| matched.url));
        Ok(held.clone())
    }

    /// Keeps a URL that came otherwise.
    pub(crate) fn put(&self, key: &str, signed: Signed) {
        self.lock().insert(key.to_owned(), Arc::new(AsyncMutex::new(Some(signed))));
    }

    /// Drops the URL of an entry.
    pub(crate) fn forget(&self, key: &str) {
        self.lock().remove(key);
    }

    fn slot(&self, key: &str) -> Slot {
        let mut slots = self.lock();
        if slots.len() >= MANY && !slots.contains_key(key) {
            let now = Instant::now();
            // Those that are being asked for are in other hands, too, and stay.
            slots.retain(|_, slot| {
                slot.try_lock().map_or(true, |held| held.as_ref().is_some_and(|signed| signed.holds(now)))
            });
        }
        Arc::clone(slots.entry(key.to_owned()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
