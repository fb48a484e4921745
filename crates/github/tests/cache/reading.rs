//! Reading ranges: URLs that end, bodies that are torn, blobs that go away.

use std::sync::Arc;
use std::time::Duration;

use phoenix_depot::testing::bytes;
use phoenix_depot::{Blob, Depot, Problem};
use phoenix_github::Settings;
use phoenix_testkit::github::{Fault, Permission, Request};

use super::{MAIN, cache, cache_with, have, name, settings, start};

#[tokio::test]
async fn many_reads_take_one_lookup() {
    let github = start();
    let content = bytes(1, 1 << 20);
    have(&cache(&github), "a", &content).await;
    let before = github.counts().of(Request::Lookup);
    let cache = Arc::new(cache(&github));
    let blob = Blob { name: name("a"), size: 1 << 20, created: None };
    let tasks: Vec<_> = (0..64_u64)
        .map(|n| {
            let (cache, blob) = (Arc::clone(&cache), blob.clone());
            tokio::spawn(async move { cache.read(&blob, n * 16384..(n + 1) * 16384).await.unwrap() })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), content.slice(n * 16384..(n + 1) * 16384));
    }
    assert_eq!(github.counts().of(Request::Lookup) - before, 1);
    assert_eq!(github.counts().bytes_out, 1 << 20);
}

#[tokio::test]
async fn a_url_that_ended_is_asked_for_anew_once() {
    let github = start();
    let cache = cache(&github);
    let content = bytes(1, 1000);
    let blob = have(&cache, "a", &content).await;
    github.advance(Duration::from_secs(11 * 60));
    let before = github.counts().of(Request::Lookup);
    assert_eq!(cache.read(&blob, 0..1000).await.unwrap(), content);
    assert_eq!(cache.read(&blob, 1..1000).await.unwrap(), content.slice(1..));
    assert_eq!(github.counts().of(Request::Lookup) - before, 1);
    // One that is refused whatever we do.
    github.fault(Request::GetBlob, Fault::Expired, 100);
    let error = cache.read(&blob, 0..10).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Denied(_)), "{error}");
}

#[tokio::test]
async fn a_url_is_given_up_before_it_ends() {
    let github = start();
    github.behave(|behaviour| behaviour.download_valid = Duration::from_secs(1));
    let cache = cache(&github);
    let blob = have(&cache, "a", &bytes(1, 1000)).await;
    // A second, and the five that it began to hold before it was made; nine tenths of that.
    github.behave(|behaviour| behaviour.download_valid = Duration::from_secs(600));
    tokio::time::sleep(Duration::from_millis(5500)).await;
    let before = github.counts();
    cache.read(&blob, 0..10).await.unwrap();
    let after = github.counts();
    assert_eq!(after.of(Request::Lookup) - before.of(Request::Lookup), 1);
    assert_eq!(after.of(Request::GetBlob) - before.of(Request::GetBlob), 1, "nothing was refused");
}

#[tokio::test]
async fn a_torn_body_is_gone_on_with_where_it_was_torn() {
    let github = start();
    let cache = cache(&github);
    let content = bytes(1, 1 << 20);
    let blob = have(&cache, "a", &content).await;
    let before = github.counts();
    // More often than a request is tried, for something is gained each time.
    github.fault(Request::GetBlob, Fault::Torn, 12);
    assert!(cache.read(&blob, 0..blob.size).await.unwrap() == content);
    let after = github.counts();
    assert_eq!(after.of(Request::GetBlob) - before.of(Request::GetBlob), 13);
    let said = after.bytes_out - before.bytes_out;
    assert!(said < 2 * blob.size + 1000, "{said} bytes were asked for");
    github.fault(Request::GetBlob, Fault::Slow, 1);
    assert!(cache.read(&blob, 5..blob.size).await.unwrap() == content.slice(5..));
}

#[tokio::test]
async fn bytes_that_stand_still_are_given_up_and_uploads_are_not() {
    let github = start();
    let settings = Settings { stall: Duration::from_millis(200), ..settings() };
    let cache = cache_with(&github, &[(MAIN, Permission::Both)], settings);
    github.behave(|behaviour| behaviour.latency = Duration::from_millis(600));
    let blob = have(&cache, "a", &bytes(1, 200_000)).await;
    let error = cache.read(&blob, 0..10).await.unwrap_err();
    assert!(matches!(&error.problem, Problem::Unreachable(words) if words.contains("in time")), "{error}");
    github.behave(|behaviour| behaviour.latency = Duration::ZERO);
    assert_eq!(cache.read(&blob, 0..10).await.unwrap(), bytes(1, 10));
}

#[tokio::test]
async fn what_went_wrong_on_the_way_is_for_the_reader_to_notice() {
    let github = start();
    let cache = cache(&github);
    let content = bytes(1, 1000);
    let blob = have(&cache, "a", &content).await;
    github.fault(Request::GetBlob, Fault::Flipped, 1);
    let got = cache.read(&blob, 0..1000).await.unwrap();
    assert!(got.len() == 1000 && got != content);
}

#[tokio::test]
async fn a_blob_that_is_evicted_is_gone_and_one_that_came_back_is_read_whole() {
    let github = start();
    let cache = cache(&github);
    let blob = have(&cache, "a", &bytes(1, 100_000)).await;
    assert_eq!(github.evict(|entry| entry.key.contains("/a#")), 1);
    let error = cache.read(&blob, 0..10).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Gone), "{error}");
    assert_eq!(error.doing, "reading a");
    // Another blob of that name takes its place while it is read.
    let other = bytes(2, 100_000);
    have(&cache, "a", &other).await;
    github.fault(Request::GetBlob, Fault::Torn, 1);
    github.fault(Request::GetBlob, Fault::Expired, 1);
    assert!(cache.read(&blob, 0..100_000).await.unwrap() == other);
}

#[tokio::test]
async fn a_blob_that_changes_in_the_middle_gives_no_mixture() {
    let github = start();
    let cache = Arc::new(cache(&github));
    for round in 0..10 {
        let called = format!("a/{round}");
        let (old, new) = (bytes(1, 400_000), bytes(2, 400_000));
        github.clear_faults();
        let blob = have(&cache, &called, &old).await;
        github.behave(|behaviour| behaviour.pause = Duration::from_millis(10));
        github.fault(Request::GetBlob, Fault::Torn, 6);
        let reading = {
            let (cache, blob) = (Arc::clone(&cache), blob.clone());
            tokio::spawn(async move { cache.read(&blob, 0..blob.size).await })
        };
        tokio::time::sleep(Duration::from_millis(15)).await;
        let key = format!("phoenix1/{called}#");
        github.evict(|entry| entry.key == key);
        have(&cache, &called, &new).await;
        match reading.await.unwrap() {
            Ok(got) => assert!(got == old || got == new, "a mixture"),
            Err(error) => assert!(matches!(error.problem, Problem::Gone), "{error}"),
        }
    }
}
