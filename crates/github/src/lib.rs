//! What GitHub's runners offer, as far as it is used: the cache service as a place that keeps blobs, and the
//! artifact service as one where the jobs of a run keep a ledger.
//!
//! [`Cache`] is a [`Depot`](phoenix_depot::Depot) over version 2 of the Actions cache service, [`Artifacts`] an
//! [`ArtifactStore`](phoenix_work::ArtifactStore) over version 4 of the artifact service. A job gets to them with what its environment holds ([`Access`]); nothing here reads the environment by itself. Retries, the
//! pace of requests and the lives of signed URLs are this crate's business; tokens and signed URLs never leave
//! it. What is known of the service and how the unknown is guarded is in `docs/design/github-cache.md`.
//!
//! What decides is in parts that know no network: the keys, what an answer means, how long to wait, the pace,
//! what a signed URL says.

mod access;
mod answer;
mod artifacts;
mod cache;
mod commands;
mod download;
mod http;
mod job;
mod key;
mod of_run;
mod pace;
mod pace_file;
mod patience;
mod rest;
mod said;
mod scopes;
mod secret;
mod service;
mod signed;
mod trigger;
mod twirp;
mod upload;
mod urls;

pub use access::{Access, AccessError, CacheMode, RestAccess, Settings};
pub use artifacts::{Artifacts, Reservation};
pub use cache::Cache;
pub use commands::{error, mask};
pub use of_run::OfRun;
pub use pace::Budget;
pub use secret::Secret;
pub use trigger::Trigger;
