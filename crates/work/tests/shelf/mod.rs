//! Artifacts in memory: the least that a forge can offer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use phoenix_work::{Artifact, ArtifactError, ArtifactStore, Room};

/// Clones are the stores of jobs of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf {
    /// By name, with what was filled in.
    all: Arc<Mutex<BTreeMap<String, Option<Filled>>>>,
    made: Arc<AtomicI64>,
    /// How many more the job may make, where there is a limit.
    left: Option<Arc<AtomicUsize>>,
}

/// A number and a content.
type Filled = (i64, Bytes);

impl Shelf {
    /// The store of a job that may make so many artifacts.
    pub(crate) fn of_job(&self, most: usize) -> Self {
        Self { left: Some(Arc::new(AtomicUsize::new(most))), ..self.clone() }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Option<Filled>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl ArtifactStore for Shelf {
    type Reservation = String;

    fn room(&self) -> Room {
        let left = self.left.as_ref().map_or(500, |left| left.load(Ordering::SeqCst));
        Room { most: 500, left }
    }

    async fn reserve(&self, name: &str) -> Result<Option<String>, ArtifactError> {
        let mut all = self.all();
        if all.contains_key(name) {
            return Ok(None);
        }
        if let Some(left) = &self.left {
            left.fetch_sub(1, Ordering::SeqCst);
        }
        all.insert(name.to_owned(), None);
        Ok(Some(name.to_owned()))
    }

    fn holds(&self, _: &String) -> bool {
        true
    }

    async fn fill(&self, name: &String, content: Bytes) -> Result<Artifact, ArtifactError> {
        let mut all = self.all();
        let number = self.made.fetch_add(1, Ordering::SeqCst) + 1;
        let size = content.len() as u64;
        all.insert(name.clone(), Some((number, content)));
        Ok(Artifact { name: name.clone(), number, size, maker: String::new() })
    }

    async fn list(&self) -> Result<Vec<Artifact>, ArtifactError> {
        let all = self.all();
        let whole = all.iter().filter_map(|(name, filled)| Some((name.clone(), filled.as_ref()?)));
        let artifact = |(name, (number, content)): (String, &(i64, Bytes))| {
            let size = content.len() as u64;
            Artifact { name, number: *number, size, maker: String::new() }
        };
        Ok(whole.map(artifact).collect())
    }

    async fn read(&self, artifact: &Artifact) -> Result<Bytes, ArtifactError> {
        let filled = self.all().get(&artifact.name).cloned().flatten();
        filled.map(|(_, content)| content).ok_or(ArtifactError::Gone)
    }

    async fn remove(&self, artifact: &Artifact) -> Result<(), ArtifactError> {
        self.all().remove(&artifact.name);
        Ok(())
    }
}
