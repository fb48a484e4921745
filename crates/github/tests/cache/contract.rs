//! The promises of every depot.

use std::sync::Mutex;
use std::time::Duration;

use phoenix_depot::testing::{Promises, contract};

use super::{Settings, cache, settings, shared, start, whole};

fn promises() -> Promises {
    Promises { free_after_failure: false, grain: Duration::ZERO, ..Promises::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_is_kept() {
    let doubles = Mutex::new(Vec::new());
    contract(&promises(), || {
        let github = start();
        // Removals are a second apart, and that would take long.
        let cache = whole(&github);
        doubles.lock().unwrap().push(github);
        shared(cache)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_is_kept_without_a_rest_token_where_new_blobs_are_late_and_the_key_is_not_looked_at() {
    let doubles = Mutex::new(Vec::new());
    let promises = Promises { lists: false, removes: false, lag: Duration::from_secs(10), ..promises() };
    contract(&promises, || {
        let github = start();
        github.behave(|behaviour| {
            behaviour.lag = Duration::from_millis(30);
            behaviour.lag_lookups = 1;
            behaviour.ignores_key = true;
        });
        let cache = cache(&github);
        doubles.lock().unwrap().push(github);
        shared(cache)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_is_kept_with_the_usual_settings() {
    let doubles = Mutex::new(Vec::new());
    let promises = Promises { lists: false, removes: false, ..promises() };
    contract(&promises, || {
        let github = start();
        let settings = Settings { budget: settings().budget, ..Settings::default() };
        let scopes = [(super::MAIN, phoenix_testkit::github::Permission::Both)];
        let cache = super::cache_with(&github, &scopes, settings);
        doubles.lock().unwrap().push(github);
        shared(cache)
    })
    .await;
}
