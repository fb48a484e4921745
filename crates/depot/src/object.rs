//! Depots in object stores.

mod connect;
mod problem;
mod requests;
mod upload;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::depot::within;
use crate::object::problem::Secrets;
use crate::{Blob, BlobName, Body, Created, Depot, DepotError, Problem};

pub(crate) use crate::object::connect::{Settings, connect};

/// Blobs as objects of a bucket or a container: S3 and what speaks like it, Google Cloud Storage, Azure.
///
/// Requests are tried again with growing waits, about a minute long, when the store fails or asks for patience.
/// A body of more than 8 MiB is uploaded in parts, a few at once. At most 48 MiB of them are in memory, and 128
/// where the body is longer than 15 GiB: stores take 10,000 parts, so that they have to grow. Parts of a process
/// that was killed are never visible; a rule of the bucket about unfinished uploads removes them.
///
/// That of several who create one name exactly one is answered [`Created::New`] holds
///
/// - in S3 where it knows `If-None-Match` for objects and for the end of multipart uploads, as AWS does. A store
///   that refuses that needs `AWS_CONDITIONAL_PUT=disabled` in the environment, and then loses the promise;
/// - in Azure, except for bodies of more than 8 MiB when an account key signs requests, for such a signature
///   covers the condition;
/// - in Google Cloud Storage for bodies of up to 8 MiB.
///
/// Elsewhere the name is looked up before the upload and again before it ends: if somebody else ends one in
/// between, the later one replaces the earlier.
///
/// Where the answer to a creation got lost, the next attempt finds the name [`Created::Taken`] by the first.
///
/// Times are those of the store. [`newest`](Depot::newest) and [`list`](Depot::list) list the folder that the
/// prefix is in, a request for each thousand objects below it.
pub struct ObjectDepot {
    store: Arc<dyn ObjectStore>,
    /// What the names of all objects begin with.
    root: Path,
    location: String,
    secrets: Secrets,
    /// Whether a small object can be put on the condition that there is none.
    conditional: bool,
}

impl fmt::Debug for ObjectDepot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectDepot({})", self.location)
    }
}

impl ObjectDepot {
    fn path(&self, name: &BlobName) -> Path {
        self.root.parts().chain(name.as_str().split('/').map(Into::into)).collect()
    }

    fn error(&self, doing: impl Into<String>, problem: Problem) -> DepotError {
        DepotError { location: self.location.clone(), doing: doing.into(), problem }
    }

    fn problem(&self, error: &Error) -> Problem {
        problem::problem(error, &self.secrets)
    }

    /// The blob that an object is; none if it is not one of ours.
    fn blob(&self, object: &ObjectMeta) -> Option<Blob> {
        let mut parts = object.location.prefix_match(&self.root)?;
        let first = parts.next()?.as_ref().to_owned();
        let name = parts.fold(first, |name, part| name + "/" + part.as_ref());
        Some(blob(BlobName::new(name).ok()?, object))
    }

    async fn found(&self, name: &BlobName) -> Result<Option<Blob>, Problem> {
        match self.store.head(&self.path(name)).await {
            Ok(object) => Ok(Some(blob(name.clone(), &object))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.problem(&error)),
        }
    }

    /// All blobs of a prefix, in no order, with their times.
    async fn under(&self, prefix: &str) -> Result<Vec<(Blob, i64)>, Problem> {
        let folders = prefix.rsplit_once('/').map_or("", |(folders, _)| folders);
        // What is no part of any name is no prefix of one.
        let names = |segment: &str| BlobName::new(segment).is_ok();
        if !folders.is_empty() && !folders.split('/').all(names) || prefix.starts_with('/') {
            return Ok(Vec::new());
        }
        let segments = folders.split('/').filter(|segment| !segment.is_empty());
        let folder: Path = self.root.parts().chain(segments.map(Into::into)).collect();
        let mut objects = self.store.list(Some(&folder));
        let mut blobs = Vec::new();
        loop {
            match objects.try_next().await {
                Ok(Some(object)) => blobs.extend(
                    self.blob(&object)
                        .filter(|blob| blob.name.as_str().starts_with(prefix))
                        .map(|blob| (blob, object.last_modified.timestamp_micros())),
                ),
                Ok(None) => return Ok(blobs),
                // A folder that is not there has nothing in it; a bucket that is not there is another thing.
                Err(error) => return Err(self.problem(&error)),
            }
        }
    }

    async fn get(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, Problem> {
        let length = within(&range, blob.size)?;
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let got = async { self.store.get_opts(&self.path(&blob.name), options).await?.bytes().await };
        match got.await {
            Ok(bytes) if bytes.len() == length => Ok(bytes),
            Ok(bytes) => Err(Problem::Short(format!("{} bytes came for {length}", bytes.len()))),
            Err(Error::NotFound { .. }) => Err(Problem::Gone),
            Err(error) => {
                // Stores and this library say in many ways that a range is not there; the size says it in one.
                match self.found(&blob.name).await {
                    Ok(None) => Err(Problem::Gone),
                    Ok(Some(now)) => Err(within(&range, now.size).err().unwrap_or(self.problem(&error))),
                    Err(_) => Err(self.problem(&error)),
                }
            }
        }
    }
}

fn blob(name: BlobName, object: &ObjectMeta) -> Blob {
    Blob { name, size: object.size, created: u64::try_from(object.last_modified.timestamp()).ok() }
}

#[async_trait::async_trait]
impl Depot for ObjectDepot {
    fn location(&self) -> &str {
        &self.location
    }

    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        self.upload(name, body).await.map_err(|problem| self.error(format!("creating {name}"), problem))
    }

    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        self.found(name).await.map_err(|problem| self.error(format!("looking for {name}"), problem))
    }

    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        let blobs = self
            .under(prefix)
            .await
            .map_err(|problem| self.error(format!("looking for the newest of {prefix}"), problem))?;
        let newest = blobs.into_iter().max_by(|(a, at), (b, bt)| (at, &a.name).cmp(&(bt, &b.name)));
        Ok(newest.map(|(blob, _)| blob))
    }

    async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let got = self.get(blob, range).await;
        got.map_err(|problem| self.error(format!("reading {}", blob.name), problem))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        let blobs = self.under(prefix).await;
        let blobs = blobs.map_err(|problem| self.error(format!("listing {prefix}"), problem))?;
        let mut blobs: Vec<Blob> = blobs.into_iter().map(|(blob, _)| blob).collect();
        blobs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(blobs)
    }

    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(format!("removing {name}"), self.problem(&error))),
        }
    }
}
