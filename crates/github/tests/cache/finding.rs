//! Finding blobs: what is matched and what only looks so.

use phoenix_depot::testing::bytes;
use phoenix_depot::{BlobName, Depot, Problem};
use phoenix_testkit::github::{Fault, Github, Permission, Request};
use phoenix_testkit::http::request;
use serde_json::{Value, json};

use super::{MAIN, access, cache, have, name, pull, settings, shared, start};

#[tokio::test]
async fn a_name_is_one_request_also_behind_a_pointer() {
    let github = start();
    let cache = cache(&github);
    have(&cache, "packs/1", &bytes(1, 10)).await;
    let cache = shared(cache);
    let before = github.counts();
    // As a function sees it that takes any depot.
    async fn newest(depot: impl Depot) -> Option<BlobName> {
        depot.newest_name("packs/").await.unwrap()
    }
    assert_eq!(newest(cache.clone()).await, Some(name("packs/1")));
    assert_eq!(newest(Box::new(cache)).await, Some(name("packs/1")));
    let after = github.counts();
    assert_eq!(after.of(Request::HeadBlob), before.of(Request::HeadBlob));
    assert_eq!(after.of(Request::Lookup) - before.of(Request::Lookup), 2);
}

#[tokio::test]
async fn a_longer_name_on_our_own_ref_hides_nothing_of_the_base() {
    for ignores_key in [false, true] {
        let github = start();
        github.behave(|behaviour| behaviour.ignores_key = ignores_key);
        let (main, pull) = (cache(&github), pull(&github));
        let blob = have(&main, "a", &bytes(1, 10)).await;
        have(&pull, "ab", &bytes(2, 20)).await;
        have(&pull, "a-b", &bytes(2, 20)).await;
        assert_eq!(pull.find(&name("a")).await.unwrap(), Some(blob));
        assert_eq!(main.find(&name("ab")).await.unwrap(), None, "nobody reads what a pull request wrote");
        assert_eq!(pull.newest("a").await.unwrap().unwrap().name, name("a-b"));
        assert_eq!(main.newest("a").await.unwrap().unwrap().name, name("a"));
    }
}

#[tokio::test]
async fn what_others_keep_is_not_ours() {
    let github = start();
    let cache = cache(&github);
    have(&cache, "a", &bytes(1, 10)).await;
    let version = github.entries()[0].version.clone();
    for key in ["phoenix1/strange", "phoenix1/a b#", "phoenix1/b,c#", "phoenix1/#", "other#"] {
        make(&github, key, &version);
    }
    assert_eq!(github.entries().len(), 5, "one has a comma");
    assert_eq!(
        cache.newest("").await.unwrap(),
        None,
        "the newest is not ours, so it is as if there were none"
    );
    assert_eq!(cache.newest("a").await.unwrap(), None);
    assert_eq!(cache.find(&name("a")).await.unwrap().unwrap().size, 10);
    assert_eq!(cache.newest("a,b").await.unwrap(), None);
}

/// Makes an entry of three bytes as another tool might.
fn make(github: &Github, key: &str, version: &str) {
    let url = github.url();
    let token = format!("Authorization: Bearer {}", github.token(&[(MAIN, Permission::Both)]));
    let call = |method: &str, body: Value| {
        let path = format!("{url}twirp/github.actions.results.api.v1.CacheService/{method}");
        let headers = [token.as_str(), "Content-Type: application/json"];
        request("POST", &path, &headers, body.to_string().as_bytes())
    };
    let created = call("CreateCacheEntry", json!({ "key": key, "version": version }));
    let Ok(created) = serde_json::from_slice::<Value>(&created.body) else { return };
    let Some(upload) = created["signed_upload_url"].as_str() else { return };
    assert_eq!(request("PUT", upload, &["x-ms-blob-type: BlockBlob"], b"abc").status, 201);
    let finalized =
        call("FinalizeCacheEntryUpload", json!({ "key": key, "version": version, "size_bytes": 3 }));
    assert_eq!(finalized.status, 200);
}

#[tokio::test]
async fn what_is_gone_between_the_lookup_and_the_size_is_not_there() {
    let github = start();
    let cache = cache(&github);
    have(&cache, "a", &bytes(1, 10)).await;
    github.fault(Request::Lookup, Fault::Evicted, 1);
    assert_eq!(cache.find(&name("a")).await.unwrap(), None);
}

#[tokio::test]
async fn lookups_may_go_backwards() {
    let github = start();
    let cache = cache(&github);
    have(&cache, "a/1", &bytes(1, 10)).await;
    have(&cache, "a/2", &bytes(2, 20)).await;
    github.fault(Request::Lookup, Fault::Backwards, 2);
    assert_eq!(cache.newest("a/").await.unwrap().unwrap().name, name("a/1"));
    assert_eq!(cache.find(&name("a/2")).await.unwrap(), None);
    assert_eq!(cache.newest("a/").await.unwrap().unwrap().name, name("a/2"));
}

#[tokio::test]
async fn an_answer_that_is_not_had_is_not_taken_for_none() {
    let github = start();
    let cache = cache(&github);
    have(&cache, "a", &bytes(1, 10)).await;
    for (fault, times) in
        [(Fault::Status(502), 2), (Fault::Broken, 2), (Fault::Strange, 2), (Fault::TooMany(None), 3)]
    {
        github.fault(Request::Lookup, fault, times);
        assert!(cache.find(&name("a")).await.unwrap().is_some(), "{fault:?}");
        github.fault(Request::HeadBlob, if fault == Fault::Strange { Fault::Expired } else { fault }, 1);
        assert!(cache.find(&name("a")).await.unwrap().is_some(), "{fault:?}");
    }
    github.fault(Request::Lookup, Fault::Status(502), 5);
    let error = cache.find(&name("a")).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Unreachable(_)), "{error}");
    assert_eq!(error.to_string(), "github:: looking for a: no answer: it answers 502");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_said_to_be_so_soon() {
    let github = start();
    let access = access(&github, "token");
    drop(github);
    let cache = phoenix_github::Cache::new(access, settings()).unwrap();
    let error = cache.find(&name("a")).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Unreachable(_)), "{error}");
}
