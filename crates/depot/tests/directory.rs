//! The directory keeps the contract, and what the real world does to it harms nothing.

use std::sync::Arc;

use phoenix_depot::testing::{Promises, contract};
use phoenix_depot::{Depot, Directory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_keeps_the_contract() {
    let all = tempfile::tempdir().unwrap();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let promises = Promises { grain: std::time::Duration::from_millis(2), ..Promises::default() };
    contract(&promises, || -> Arc<dyn Depot> {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(Directory::new(all.path().join(format!("not-there/{n}"))))
    })
    .await;
}
