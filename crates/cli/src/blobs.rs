//! Small blobs of a depot that are no packs.

use std::sync::Arc;

use futures_util::StreamExt;
use phoenix_depot::{Blob, BlobName, Created, Depot, DepotError};
use tokio::runtime::Runtime;

use crate::error::CommandError;

/// How many bytes are read at once.
const PART: u64 = 8 << 20;

/// Where depots are asked.
pub(crate) fn runtime() -> Result<Runtime, CommandError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::because("cannot start", &error))
}

/// Makes a blob.
pub(crate) async fn create(
    depot: &dyn Depot,
    name: &BlobName,
    bytes: Vec<u8>,
) -> Result<Created, DepotError> {
    depot.create(name, futures_util::stream::iter([Ok(bytes.into())]).boxed()).await
}

/// All bytes of a blob.
pub(crate) async fn read(depot: &dyn Depot, blob: &Blob) -> Result<Vec<u8>, DepotError> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < blob.size {
        let from = bytes.len() as u64;
        bytes.extend(depot.read(blob, from..blob.size.min(from + PART)).await?);
    }
    Ok(bytes)
}

/// Lets go of blobs that nobody needs any more. Whether that succeeds is of no matter.
pub(crate) async fn forget(depot: &Arc<dyn Depot>, blobs: impl Iterator<Item = Blob>) {
    for blob in blobs {
        let _ = depot.remove(&blob.name).await;
    }
}
