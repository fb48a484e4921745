//! Artifacts in memory: the least that a forge can offer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use phoenix_work::{Artifact, ArtifactError, ArtifactStore};

/// Clones are the stores of jobs of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf {
    /// By name, with what was filled in.
    all: Arc<Mutex<BTreeMap<String, Option<Filled>>>>,
    made: Arc<AtomicI64>,
}

/// A number and a content.
type Filled = (i64, Bytes);

impl Shelf {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Option<Filled>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl ArtifactStore for Shelf {
    type Reservation = String;

    fn most_of_a_job(&self) -> usize {
        500
    }

    async fn reserve(&self, name: &str) -> Result<Option<String>, ArtifactError> {
        let mut all = self.all();
        if all.contains_key(name) {
            return Ok(None);
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
