//! What every depot can do.

use std::fmt::Debug;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::{Blob, BlobName, DepotError, Problem};

/// The bytes of a blob to be created, in pieces of any size. An error in it means the blob is not made.
pub type Body = BoxStream<'static, io::Result<Bytes>>;

/// How an attempt to create a blob ended that met no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The blob is there, whole, with this many bytes. Others may see it later than we do.
    New(u64),
    /// A blob of that name is there already, or somebody is about to make one; ours was not kept.
    Taken,
}

/// A place that keeps immutable blobs under names.
///
/// Every method may be called from many tasks at once. Retries, pacing and credentials are the depot's own
/// business: an error means that asking again at once is of no use. Nothing here ever shows a secret.
/// Futures may be dropped at any time, and are polled in a Tokio runtime with its clock and I/O enabled.
///
/// A name may not go on below another blob's (`a/b` beside `a`): some depots keep both, others know the
/// first of them only and answer [`Problem::Unsupported`] to the second.
#[async_trait::async_trait]
pub trait Depot: Debug + Send + Sync {
    /// Where it is, for messages: its URL without credentials.
    fn location(&self) -> &str;

    /// Whose blobs are seen from here, where that is not everybody's: see [`Scopes`]. None where all see all, or
    /// where it is not known.
    fn scopes(&self) -> Option<Scopes> {
        None
    }

    /// Makes a blob, whole or not at all; never overwrites one. Memory used does not grow with `body`.
    ///
    /// Of several who create one name at once, at most one is answered [`Created::New`], where the depot can
    /// promise that; where it cannot, its documentation says so, and the blob is whole all the same.
    ///
    /// # Errors
    ///
    /// When the depot may not be written, is full, cannot be reached, or `body` failed. Nothing of it is
    /// visible then.
    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError>;

    /// The blob of exactly this name, or none. A blob made a moment ago may not be found yet.
    ///
    /// # Errors
    ///
    /// When the depot did not give an answer. That is not the same as having none.
    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError>;

    /// The blob made last among those whose names begin with `prefix` (any text, no segment needs to end
    /// there). Later calls may answer an older blob than earlier ones did.
    ///
    /// # Errors
    ///
    /// When the depot did not give an answer.
    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError>;

    /// The name of what [`Depot::newest`] answers: one request less where the size of a blob has to be asked for.
    ///
    /// # Errors
    ///
    /// When the depot did not give an answer.
    async fn newest_name(&self, prefix: &str) -> Result<Option<BlobName>, DepotError> {
        Ok(self.newest(prefix).await?.map(|blob| blob.name))
    }

    /// The bytes of a range of a blob, all of them. An empty range gives no bytes and asks nobody, wherever
    /// it is. All of the range is in memory at once: whoever wants much asks for it in pieces.
    ///
    /// # Errors
    ///
    /// [`Problem::Gone`] when the blob is no more,
    /// [`Problem::Short`] when it ends before the range does, or no answer.
    async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError>;

    /// All blobs whose names begin with `prefix`, by name; where there are scopes, those of all scopes, also such
    /// as cannot be read from here.
    ///
    /// # Errors
    ///
    /// [`Problem::Unsupported`] where a depot cannot tell, or no answer.
    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError>;

    /// Removes a blob; one that is not there is not an error.
    ///
    /// # Errors
    ///
    /// [`Problem::Unsupported`] where a depot cannot, or may not be asked to.
    async fn remove(&self, name: &BlobName) -> Result<(), DepotError>;
}

/// The scopes of a depot in which who writes decides who can read, such as the refs of GitHub's cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes {
    /// The one that new blobs are made in, if any may be made.
    pub write: Option<String>,
    /// Those whose blobs can be found and read, in the order in which they are looked through.
    pub read: Vec<String>,
}

/// How many bytes a range has that lies within `size` bytes.
pub(crate) fn within(range: &Range<u64>, size: u64) -> Result<usize, Problem> {
    let length = range.end.saturating_sub(range.start);
    match usize::try_from(length) {
        Ok(length) if range.end <= size => Ok(length),
        _ => Err(Problem::Short(format!("bytes {} to {} of {size} were asked for", range.start, range.end))),
    }
}
