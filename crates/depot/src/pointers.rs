//! A pointer to a depot is a depot.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Blob, BlobName, Body, Created, Depot, DepotError, Scopes};

macro_rules! depot_behind {
    ($pointer:ident) => {
        #[async_trait::async_trait]
        impl<D: Depot + ?Sized> Depot for $pointer<D> {
            fn location(&self) -> &str {
                (**self).location()
            }

            fn scopes(&self) -> Option<Scopes> {
                (**self).scopes()
            }

            async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
                (**self).create(name, body).await
            }

            async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
                (**self).find(name).await
            }

            async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
                (**self).newest(prefix).await
            }

            async fn newest_name(&self, prefix: &str) -> Result<Option<BlobName>, DepotError> {
                (**self).newest_name(prefix).await
            }

            async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError> {
                (**self).read(blob, range).await
            }

            async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
                (**self).list(prefix).await
            }

            async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
                (**self).remove(name).await
            }
        }
    };
}

depot_behind!(Arc);
depot_behind!(Box);
