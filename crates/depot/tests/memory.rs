//! The depot in memory keeps the contract, and so does one that is wrapped and not faulty.

use std::sync::Arc;
use std::time::Duration;

use phoenix_depot::Depot;
use phoenix_depot::testing::{Faults, Faulty, Memory, Promises, contract};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    let promises = Promises { grain: Duration::ZERO, ..Promises::default() };
    contract(&promises, || -> Arc<dyn Depot> {
        let behind: Box<dyn Depot> = Box::new(Arc::new(Memory::new()));
        Arc::new(Faulty::new(behind, Faults::any(1, 0)))
    })
    .await;
}
