//! The client against a cache service in front of Azurite, Microsoft's emulator of Azure's storage.
//!
//! `cargo xtask github-clients` starts both and runs this; see `tests/github-clients/azurite.mjs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use phoenix_depot::Depot;
use phoenix_depot::testing::{Promises, contract};
use phoenix_github::{Access, Budget, Cache, Settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers that `cargo xtask github-clients` starts"]
async fn the_contract_is_kept_where_bytes_are_kept_as_azure_does() {
    let url = std::env::var("PHOENIX_AZURITE_RESULTS_URL").expect("`cargo xtask github-clients` runs this");
    let repositories = AtomicU64::new(0);
    let promises = Promises {
        free_after_failure: false,
        lists: false,
        removes: false,
        grain: Duration::ZERO,
        ..Promises::default()
    };
    contract(&promises, || -> Arc<dyn Depot> {
        // Every token has a repository of its own there.
        let token = format!("repository-{}", repositories.fetch_add(1, Ordering::Relaxed));
        let access = Access::new(Some(&url), Some(&token), None).unwrap();
        let settings =
            Settings { budget: Budget { creates: 10_000, lookups: 10_000 }, ..Settings::default() };
        Arc::new(Cache::new(access, settings).unwrap())
    })
    .await;
}
