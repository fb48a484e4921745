//! A depot that has what it does not give.

use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::testing::Memory;
use crate::{Blob, BlobName, Body, Created, Depot, DepotError, Problem};

type Refuses = dyn Fn(&Blob, &Range<u64>) -> Option<Problem> + Send + Sync;

/// A depot in memory that refuses to give what it is told to refuse.
#[derive(Default)]
pub struct Refusing {
    /// What it has.
    pub memory: Memory,
    refuses: Mutex<Option<Box<Refuses>>>,
}

impl fmt::Debug for Refusing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusing").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl Refusing {
    /// From now on, what is read of a blob is refused where this says why.
    pub fn refuse(&self, refuses: impl Fn(&Blob, &Range<u64>) -> Option<Problem> + Send + Sync + 'static) {
        *self.refuses.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(refuses));
    }

    /// From now on, all is given.
    pub fn give(&self) {
        *self.refuses.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[async_trait::async_trait]
impl Depot for Refusing {
    fn location(&self) -> &str {
        self.memory.location()
    }

    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        self.memory.create(name, body).await
    }

    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        self.memory.find(name).await
    }

    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        self.memory.newest(prefix).await
    }

    async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError> {
        let refused = {
            let refuses = self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
            refuses.as_ref().and_then(|refuses| refuses(blob, &range))
        };
        match refused {
            Some(problem) => Err(DepotError {
                location: self.location().to_owned(),
                doing: format!("reading {}", blob.name),
                problem,
            }),
            None => self.memory.read(blob, range).await,
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        self.memory.list(prefix).await
    }

    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        self.memory.remove(name).await
    }
}
