//! Artifacts in the place of a cache that may not be used.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use phoenix_depot::testing::{Promises, body, bytes, contract};
use phoenix_depot::{Created, Depot};
use phoenix_github::{Artifacts, Cache, OfRun};
use phoenix_testkit::github::{Github, Permission, Request};

use super::{MAIN, access, have, name, rest, settings, start, whole};

/// What it said of its turning to artifacts.
type Said = Arc<Mutex<Vec<String>>>;

fn of_job(github: &Github, job: u32, scopes: &[(&str, Permission)]) -> (OfRun, Said) {
    let access = access(github, &github.token_of_job(job, scopes)).with_rest(rest(github));
    let said = Said::default();
    let says = Arc::clone(&said);
    let cache = Cache::new(access.clone(), settings()).unwrap();
    let artifacts = Artifacts::new(access, settings()).unwrap();
    (OfRun::new(cache, artifacts, move |why| says.lock().unwrap().push(why.to_owned())), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_is_kept_by_artifacts() {
    let doubles = Mutex::new(Vec::new());
    contract(&Promises { free_after_failure: false, grain: Duration::ZERO, ..Promises::default() }, || {
        let github = start();
        let depot = of_job(&github, 0, &[(MAIN, Permission::Read)]).0;
        doubles.lock().unwrap().push(github);
        Arc::new(depot)
    })
    .await;
    let creates: u64 = doubles.lock().unwrap().iter().map(|github| github.counts().of(Request::Create)).sum();
    assert_eq!(creates, 0, "the cache was asked");
}

#[tokio::test]
async fn jobs_that_may_not_write_the_cache_find_what_they_keep_and_what_was_in_it() {
    let github = start();
    let before = have(&whole(&github), "packs/before", &Bytes::from_static(b"before")).await;
    let read_only = [(MAIN, Permission::Read)];
    let (planner, said) = of_job(&github, 0, &read_only);
    let large = bytes(3, 300_000);
    assert_eq!(planner.create(&name("plans/a"), body(large.clone())).await.unwrap(), Created::New(300_000));
    assert_eq!(planner.create(&name("plans/a"), body(large.clone())).await.unwrap(), Created::Taken);
    assert_eq!(*said.lock().unwrap(), ["its token has no scope that it may write"]);
    assert_eq!(
        github.artifacts().iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
        ["phoenix-depot.plans~a"]
    );
    let (worker, _) = of_job(&github, 1, &read_only);
    let found = worker.find(&name("plans/a")).await.unwrap().unwrap();
    assert_eq!(worker.read(&found, 0..300_000).await.unwrap(), large);
    assert_eq!(worker.read(&found, 299_990..300_000).await.unwrap(), large[299_990..]);
    assert_eq!(worker.find(&name("packs/before")).await.unwrap(), Some(before.clone()));
    assert_eq!(&worker.read(&before, 0..6).await.unwrap()[..], b"before");
    assert_eq!(worker.find(&name("packs/after")).await.unwrap(), None);
}

#[tokio::test]
async fn who_is_refused_only_when_it_writes_loses_nothing_of_what_it_wrote() {
    let github = start();
    // The token says nothing of scopes.
    let (planner, said) = of_job(&github, 0, &[]);
    for (called, size) in [("plans/small", 10), ("plans/large", 1_000_000)] {
        let content = bytes(5, size);
        let made = planner.create(&name(called), body(content.clone())).await.unwrap();
        assert_eq!(made, Created::New(size as u64));
        // Another job knows nothing of that, and finds it.
        let (worker, told) = of_job(&github, 1, &[]);
        let found = worker.find(&name(called)).await.unwrap().unwrap();
        assert_eq!(worker.read(&found, 0..size as u64).await.unwrap(), content);
        assert_eq!(told.lock().unwrap().len(), 1);
    }
    assert!(said.lock().unwrap()[0].contains("cache write denied"), "{said:?}");
    assert_eq!(said.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn where_the_cache_may_be_written_there_are_no_artifacts() {
    let github = start();
    let (depot, said) = of_job(&github, 0, &[(MAIN, Permission::Both)]);
    let made = depot.create(&name("plans/a"), body(bytes(1, 10))).await.unwrap();
    assert_eq!((made, github.artifacts().len()), (Created::New(10), 0));
    assert!(depot.find(&name("plans/a")).await.unwrap().is_some());
    assert_eq!(depot.find(&name("plans/b")).await.unwrap(), None);
    assert!(said.lock().unwrap().is_empty());
}
