//! Every ledger keeps the promises of all.

mod shelf;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phoenix_testkit::NatsServer;
use phoenix_work::testing::contract;
use phoenix_work::{ArtifactLedger, Cursor, Directory, InProcess, Ledger, Nats, Opener, open};
use shelf::Shelf;

#[tokio::test(flavor = "multi_thread")]
async fn in_process() {
    let ledgers: Mutex<HashMap<&str, InProcess>> = Mutex::default();
    contract(|name| {
        let ledger = ledgers.lock().unwrap().entry(name).or_default().clone();
        async move { Arc::new(ledger) as Arc<dyn Ledger> }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory() {
    let directory = tempfile::tempdir().unwrap();
    contract(|name| {
        let url = format!("dir:{}", directory.path().join(name).display());
        async move { Arc::from(open(&url).await.unwrap()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats() {
    let Some(server) = NatsServer::start() else { return };
    contract(|name| {
        let url = format!("{}/contract-{name}", server.url());
        async move { Arc::from(open(&url).await.unwrap()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_open_a_run_at_the_same_moment_all_get_in() {
    let Some(server) = NatsServer::start() else { return };
    for run in 0..100 {
        let url = format!("{}/run-{run}", server.url());
        let workers: Vec<_> = (0..8)
            .map(|_| {
                tokio::spawn({
                    let url = url.clone();
                    async move { open(&url).await }
                })
            })
            .collect();
        for worker in workers {
            worker.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts() {
    let shelf = Shelf::default();
    contract(|name| {
        let ledger = ArtifactLedger::new(shelf.of_job(500), "artifacts:", name).unwrap();
        let ledger = ledger.with_presence(Duration::from_millis(50));
        async move { Arc::new(ledger) as Arc<dyn Ledger> }
    })
    .await;
}

#[tokio::test]
async fn other_kinds_of_ledgers_can_be_opened_too() {
    let opener = Opener::default().also("shelf", "shelf:RUN", |run| {
        let ledger = ArtifactLedger::new(Shelf::default(), &format!("shelf:{run}"), run);
        Ok(Box::new(ledger.map_err(|error| error.problem)?))
    });
    assert_eq!(opener.open("shelf:run").await.unwrap().location(), "shelf:run");
    let error = opener.open("shelf:a/b").await.unwrap_err().to_string();
    assert!(
        error.contains("the ledger shelf:a/b failed while being opened: \"a/b\" names no run"),
        "{error}"
    );
    let error = opener.open("elsewhere:x").await.unwrap_err().to_string();
    assert!(error.contains("known are dir:PATH, nats://HOST:PORT/RUN and shelf:RUN"), "{error}");
}

#[tokio::test]
async fn a_file_that_holds_no_record_counts_as_none() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Directory::open(directory.path()).unwrap();
    let (unit, slot) = (phoenix_schedule::farm::UnitId(0), phoenix_schedule::farm::Slot(0));
    assert!(ledger.claim(unit, 1, slot).await.unwrap());
    std::fs::write(directory.path().join("log/0000000001"), "").unwrap();
    assert!(ledger.claim(unit, 2, slot).await.unwrap());
    assert_eq!(ledger.since(&mut Cursor::default()).await.unwrap().len(), 2);
    let other = Directory::open(directory.path()).unwrap();
    assert_eq!(other.since(&mut Cursor::default()).await.unwrap().len(), 2);
    assert_eq!(std::fs::read_dir(directory.path().join("drafts")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_directory_that_is_gone_is_an_error_and_no_silence() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let ledger = Directory::open(&path).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    let error = ledger.since(&mut Cursor::default()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("the ledger dir:{}", path.display())), "{error}");
    assert!(error.contains("looking at what is new"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_opened_is_told_without_secrets() {
    for (url, words) in [
        ("ftp://x", "no such kind of ledger is known; known are dir:PATH and nats://HOST:PORT/RUN"),
        ("dir:", "it names no directory"),
        ("/tmp/x", "no such kind of ledger"),
        ("nats://me:hunter22@127.0.0.1:1", "it does not name a run; write nats://HOST:PORT/RUN"),
        ("nats://me:hunter22@127.0.0.1:1/a b", "it does not name a run"),
        ("nats://me:hunter22@127.0.0.1:1/run", "the ledger nats://127.0.0.1:1/run failed while being opened"),
        ("nats://hunter22@127.0.0.1:1/run", "is a NATS server there"),
    ] {
        let error = open(url).await.map(|ledger| ledger.location().to_owned()).unwrap_err().to_string();
        assert!(error.contains(words), "{url}: {error}");
        assert!(!error.contains("hunter"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_password_gets_it() {
    let Some(server) = NatsServer::start_with(&["--user", "me", "--pass", "hunter22"]) else { return };
    let with = server.url().replace("nats://", "nats://me:hunter22@");
    let ledger = Nats::connect(&format!("{with}/run")).await.unwrap();
    assert!(!ledger.location().contains("hunter"), "{}", ledger.location());
    let error = Nats::connect(&format!("{}/run", server.url())).await.unwrap_err();
    assert!(error.to_string().contains("authorization"), "{error}");
}
