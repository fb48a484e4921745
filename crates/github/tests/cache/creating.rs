//! Making blobs: what goes over the wire, what is refused, what is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use phoenix_depot::testing::{body, bytes, failing_body};
use phoenix_depot::{Created, Depot, Problem};
use phoenix_github::{Access, Budget, Cache, Settings};
use phoenix_testkit::github::{Fault, Permission, Request};

use super::{MAIN, access, cache, cache_with, have, name, pull, settings, start};

#[tokio::test]
async fn what_is_small_takes_three_requests_and_what_is_large_takes_blocks() {
    let github = start();
    let cache = cache(&github);
    cache.create(&name("small"), body(bytes(1, 1000))).await.unwrap();
    let counts = github.counts();
    assert_eq!([Request::Create, Request::PutBlob, Request::Finalize].map(|kind| counts.of(kind)), [1, 1, 1]);
    assert_eq!(counts.requests.values().sum::<u64>(), 3);
    // 64 KiB is a block here.
    cache.create(&name("large"), body(bytes(2, 10 * 65536 + 1))).await.unwrap();
    let counts = github.counts();
    let kinds = [Request::PutBlob, Request::PutBlock, Request::PutBlockList].map(|kind| counts.of(kind));
    assert_eq!(kinds, [1, 11, 1]);
    assert_eq!(counts.bytes_in, 1000 + 10 * 65536 + 1);
    cache.create(&name("one-block"), body(bytes(2, 65536))).await.unwrap();
    assert_eq!(github.counts().of(Request::PutBlob), 2);
}

#[tokio::test]
async fn keys_are_ours_and_the_version_is_a_hash() {
    let github = start();
    cache(&github).create(&name("a/b"), body(bytes(1, 10))).await.unwrap();
    let entry = &github.entries()[0];
    assert_eq!((entry.key.as_str(), entry.version.len(), entry.scope.as_str()), ("phoenix1/a/b#", 64, MAIN));
}

#[tokio::test]
async fn a_body_that_fails_early_reserves_nothing() {
    let github = start();
    let error = cache(&github).create(&name("a"), failing_body(bytes(1, 1000))).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Body(_)), "{error}");
    assert!(github.entries().is_empty());
}

#[tokio::test]
async fn a_token_that_may_not_write_is_asked_once() {
    let github = start();
    let cache = cache_with(&github, &[(MAIN, Permission::Read)], settings());
    assert_eq!(cache.write_denied(), None);
    for _ in 0..5 {
        let error = cache.create(&name("a"), body(bytes(1, 10))).await.unwrap_err();
        assert!(matches!(&error.problem, Problem::Denied(words) if words.contains("no writable scopes")));
    }
    assert_eq!(github.counts().of(Request::Create), 1);
    assert!(cache.write_denied().unwrap().starts_with("cache write denied"));
    assert_eq!(cache.find(&name("a")).await.unwrap(), None, "reading goes on");
}

#[tokio::test]
async fn what_the_environment_forbids_asks_nobody() {
    let github = start();
    let token = github.token(&[(MAIN, Permission::Both)]);
    let with = |mode| {
        let access = Access::new(Some(github.url()), Some(&token), Some(mode)).unwrap();
        Cache::new(access, settings()).unwrap()
    };
    let is_denied =
        |problem: &Problem| matches!(problem, Problem::Denied(words) if words.contains("ACTIONS_CACHE_MODE"));
    let error = with("read").create(&name("a"), body(bytes(1, 10))).await.unwrap_err();
    assert!(is_denied(&error.problem), "{error}");
    let error = with("write-only").find(&name("a")).await.unwrap_err();
    assert!(is_denied(&error.problem), "{error}");
    // Who is kept from it for another reason is told that.
    let access = Access::new(Some(github.url()), Some(&token), None).unwrap().read_only("it is for a fork");
    let kept = Cache::new(access, settings()).unwrap();
    let error = kept.create(&name("a"), body(bytes(1, 10))).await.unwrap_err();
    assert!(matches!(&error.problem, Problem::Denied(words) if words == "it is for a fork"), "{error}");
    assert_eq!(github.counts().requests.len(), 0);
    assert_eq!(kept.find(&name("a")).await.unwrap(), None, "reading goes on");
}

#[tokio::test]
async fn a_token_that_ended_is_denied_in_clear_words() {
    let github = start();
    let cache = Cache::new(access(&github, &github.token(&[(MAIN, Permission::Both)])), settings()).unwrap();
    github.advance(Duration::from_secs(7 * 3600));
    let error = cache.create(&name("a"), body(bytes(1, 10))).await.unwrap_err();
    assert!(matches!(&error.problem, Problem::Ended(words) if words.contains("six hours")), "{error}");
    assert!(matches!(cache.find(&name("a")).await.unwrap_err().problem, Problem::Ended(_)));
    assert_eq!(github.counts().of(Request::Create), 1, "asking again is of no use");
}

#[tokio::test]
async fn an_entry_that_is_not_found_at_first_is_finished_all_the_same() {
    let github = start();
    let cache = cache(&github);
    github.fault(Request::Finalize, Fault::NotFound, 4);
    have(&cache, "a", &bytes(1, 10)).await;
    github.fault(Request::Finalize, Fault::NotFound, 100);
    let error = cache.create(&name("b"), body(bytes(1, 10))).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn answers_that_are_lost_after_the_fact_make_no_wrong_claim() {
    let github = start();
    let cache = cache(&github);
    // Reserved by a request whose answer we never had: nobody has it, and it cannot be filled.
    github.fault(Request::Create, Fault::AnswerLost, 1);
    let error = cache.create(&name("a"), body(bytes(1, 10))).await.unwrap_err();
    assert!(matches!(&error.problem, Problem::Unreachable(words) if words.contains("for a day")), "{error}");
    assert_eq!(cache.create(&name("a"), body(bytes(1, 10))).await.unwrap(), Created::Taken);
    // Finished by such a request: asking again says so.
    github.fault(Request::Finalize, Fault::AnswerLost, 1);
    have(&cache, "b", &bytes(2, 10)).await;
    // However often the answer is lost: the entry is there, and a lookup shows it.
    github.fault(Request::Finalize, Fault::AnswerLost, 20);
    have(&cache, "c", &bytes(3, 10)).await;
    // Somebody else's entry, found after a lost answer.
    github.fault(Request::Create, Fault::Status(502), 1);
    assert_eq!(cache.create(&name("c"), body(bytes(1, 10))).await.unwrap(), Created::Taken);
}

#[tokio::test]
async fn bytes_are_put_again_when_the_storage_has_a_bad_moment() {
    let github = start();
    let cache = cache(&github);
    for fault in
        [Fault::Status(500), Fault::Broken, Fault::AnswerLost, Fault::TooMany(Some(0)), Fault::Expired]
    {
        for kind in [Request::PutBlob, Request::PutBlock, Request::PutBlockList] {
            github.fault(kind, fault, 1);
        }
        let content = bytes(1, 300_000);
        let called = format!("large-{fault:?}").replace(['(', ')'], "-");
        let blob = have(&cache, &called, &content).await;
        assert_eq!(cache.read(&blob, 0..blob.size).await.unwrap(), content);
        have(&cache, &format!("small-{called}"), &bytes(2, 100)).await;
    }
    github.fault(Request::PutBlob, Fault::Expired, 100);
    let error = cache.create(&name("x"), body(bytes(1, 10))).await.unwrap_err();
    assert!(
        matches!(&error.problem, Problem::Denied(words) if words.contains("AuthenticationFailed")),
        "{error}"
    );
}

#[tokio::test]
async fn an_upload_has_to_end_before_its_url_does() {
    let github = start();
    github.behave(|behaviour| behaviour.latency = Duration::from_millis(100));
    let settings = Settings { upload_within: Duration::from_millis(300), ..settings() };
    let cache = cache_with(&github, &[(MAIN, Permission::Both)], settings);
    let error = cache.create(&name("a"), body(bytes(1, 40 * 65536))).await.unwrap_err();
    assert!(matches!(&error.problem, Problem::Unreachable(words) if words.contains("upload")), "{error}");
}

#[tokio::test]
async fn the_service_s_wish_for_a_pause_is_kept_by_all() {
    let github = start();
    let cache = cache(&github);
    github.fault(Request::Create, Fault::TooMany(Some(1)), 1);
    let begin = std::time::Instant::now();
    have(&cache, "a", &bytes(1, 10)).await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
    // A minute's limit, and no patience for it.
    github.behave(|behaviour| behaviour.creates_per_minute = 0);
    let error = cache.create(&name("b"), body(bytes(1, 10))).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Busy(_)), "{error}");
    let asked = github.counts().of(Request::Create);
    let error = cache.create(&name("c"), body(bytes(1, 10))).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Busy(_)), "{error}");
    assert_eq!(github.counts().of(Request::Create), asked, "the pause is known");
    cache.find(&name("a")).await.unwrap();
}

#[tokio::test]
async fn the_budget_holds_back_before_the_service_does() {
    let github = start();
    let budget = Budget { creates: 20, lookups: 20 };
    let settings = Settings { budget, patience: Duration::from_millis(500), ..settings() };
    let cache = cache_with(&github, &[(MAIN, Permission::Both)], settings);
    let mut made = 0;
    for n in 0..40 {
        match cache.create(&name(&format!("a/{n}")), body(bytes(1, 10))).await {
            Ok(_) => made += 1,
            Err(error) => assert!(matches!(error.problem, Problem::Busy(_)), "{error}"),
        }
    }
    assert_eq!((made, github.counts().of(Request::Create)), (10, 10));
}

#[tokio::test]
async fn processes_of_a_job_share_a_budget_by_a_file() {
    let github = start();
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        budget: Budget { creates: 20, lookups: 20 },
        budget_file: Some(directory.path().join("pace")),
        patience: Duration::from_millis(300),
        ..settings()
    };
    let caches = [0, 1].map(|_| cache_with(&github, &[(MAIN, Permission::Both)], settings.clone()));
    for n in 0..24 {
        // Those beyond the budget are told to wait too long.
        let _ = caches[n % 2].create(&name(&format!("a/{n}")), body(bytes(1, 10))).await;
    }
    assert_eq!(github.counts().of(Request::Create), 10);
}

#[tokio::test]
async fn a_large_body_is_never_in_memory_as_a_whole() {
    let github = Arc::new(start());
    github.behave(|behaviour| behaviour.latency = Duration::from_millis(5));
    let cache = cache(&github);
    let (produced, ahead) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stream = {
        let (github, produced, ahead) = (Arc::clone(&github), Arc::clone(&produced), Arc::clone(&ahead));
        stream::iter(0..1000_u64).map(move |n| {
            let piece = bytes(n, 10_000);
            let total = produced.fetch_add(10_000, Ordering::Relaxed) + 10_000;
            ahead.fetch_max(total - github.counts().bytes_in, Ordering::Relaxed);
            Ok(piece)
        })
    };
    assert_eq!(cache.create(&name("a"), stream.boxed()).await.unwrap(), Created::New(10_000_000));
    let (ahead, block) = (ahead.load(Ordering::Relaxed), settings().block as u64);
    let most = (settings().uploads as u64 + 2) * block;
    assert!(ahead <= most, "{ahead} bytes were taken and not kept, more than {most}");
}

#[tokio::test]
async fn a_pull_request_writes_to_its_own_ref() {
    let github = start();
    let (main, pull) = (cache(&github), pull(&github));
    have(&main, "a", &bytes(1, 10)).await;
    assert_eq!(pull.create(&name("a"), body(bytes(2, 20))).await.unwrap(), Created::New(20));
    assert_eq!(main.find(&name("a")).await.unwrap().unwrap().size, 10);
    assert_eq!(pull.find(&name("a")).await.unwrap().unwrap().size, 20);
}
