//! `az:` keeps the contract, spoken to over Azure's own protocol: against Azurite, Microsoft's emulator.
//!
//! `cargo xtask github-clients` starts it and runs this; see `tests/github-clients/azurite.mjs`.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use phoenix_depot::testing::{Promises, contract};
use phoenix_depot::{Depot, Opener};

/// Variables of the environment that say where Azurite is and who we are there.
const PREFIX: &str = "PHOENIX_AZURITE_DEPOT_";

/// Azurite 3.35 takes a blob of which only parts were put for one that is there, when one is put whole on the
/// condition that there is none (`createBlob` in its `LokiBlobMetadataStore` does not look at `isCommitted`, where
/// `commitBlockList` does).
fn azurite() -> Promises {
    Promises { free_after_failure: false, ..Promises::default() }
}

async fn keeps(promises: &Promises, credentials: &[&str]) {
    let variable = |name: &str| {
        let value = std::env::var(format!("{PREFIX}{name}")).expect("`cargo xtask github-clients` runs this");
        (format!("AZURE_STORAGE_{name}"), value)
    };
    let variables: Vec<(String, String)> =
        ["ENDPOINT", "ACCOUNT_NAME"].iter().chain(credentials).map(|name| variable(name)).collect();
    let next = AtomicUsize::new(0);
    contract(promises, || -> Arc<dyn Depot> {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let url = format!("az://depot/{}/{number}", credentials.join("-"));
        Arc::from(Opener::new(variables.clone()).open(&url).unwrap())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the server that `cargo xtask github-clients` starts"]
async fn azure_keeps_the_contract_with_a_signed_url() {
    keeps(&azurite(), &["SAS_TOKEN"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the server that `cargo xtask github-clients` starts"]
async fn azure_keeps_the_contract_with_the_key_of_the_account() {
    // The key signs the header that makes the end of an upload conditional.
    keeps(&Promises { one_new: false, ..azurite() }, &["ACCOUNT_KEY"]).await;
}
