//! A depot in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::depot::within;
use crate::{Blob, BlobName, Body, Created, Depot, DepotError, Problem};

/// Blobs in the memory of this process: a depot that keeps every promise, for tests of its users.
#[derive(Default)]
pub struct Memory {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    blobs: BTreeMap<BlobName, Entry>,
    /// How many blobs were made.
    made: u64,
}

struct Entry {
    bytes: Bytes,
    created: u64,
    /// Which of all blobs it is, by the order in which they were made.
    number: u64,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory({} blobs)", self.kept().blobs.len())
    }
}

impl Memory {
    /// An empty depot.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the bytes of a blob, as no depot should, or does so to none.
    pub fn tamper(&self, name: &BlobName, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(entry) = self.kept().blobs.get_mut(name) {
            let mut bytes = entry.bytes.to_vec();
            change(&mut bytes);
            entry.bytes = bytes.into();
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, doing: &str, name: &BlobName, problem: Problem) -> DepotError {
        DepotError { location: self.location().to_owned(), doing: format!("{doing} {name}"), problem }
    }
}

fn blob((name, entry): (&BlobName, &Entry)) -> Blob {
    Blob { name: name.clone(), size: entry.bytes.len() as u64, created: Some(entry.created) }
}

#[async_trait::async_trait]
impl Depot for Memory {
    fn location(&self) -> &'static str {
        "memory:"
    }

    async fn create(&self, name: &BlobName, mut body: Body) -> Result<Created, DepotError> {
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| self.error("creating", name, Problem::Body(error)))?;
            bytes.extend_from_slice(&piece);
        }
        let mut kept = self.kept();
        if kept.blobs.contains_key(name) {
            return Ok(Created::Taken);
        }
        kept.made += 1;
        let created = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let size = bytes.len() as u64;
        let entry = Entry { bytes: bytes.freeze(), created, number: kept.made };
        kept.blobs.insert(name.clone(), entry);
        Ok(Created::New(size))
    }

    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        Ok(self.kept().blobs.get_key_value(name).map(blob))
    }

    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        let kept = self.kept();
        let under = kept.blobs.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
        Ok(under.max_by_key(|(_, entry)| entry.number).map(blob))
    }

    async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let read = || {
            let bytes = self.kept().blobs.get(&blob.name).map(|entry| entry.bytes.clone());
            let bytes = bytes.ok_or(Problem::Gone)?;
            let length = within(&range, blob.size.min(bytes.len() as u64))?;
            let start = usize::try_from(range.start).unwrap_or(usize::MAX);
            Ok(bytes.slice(start..start + length))
        };
        read().map_err(|problem| self.error("reading", &blob.name, problem))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        let kept = self.kept();
        let under = kept.blobs.iter().filter(|(name, _)| name.as_str().starts_with(prefix));
        Ok(under.map(blob).collect())
    }

    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        self.kept().blobs.remove(name);
        Ok(())
    }
}
