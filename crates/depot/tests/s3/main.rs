//! An object store keeps the contract, spoken to over S3's own protocol.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use phoenix_depot::testing::{Promises, body, bytes, contract, failing_body};
use phoenix_depot::{Blob, BlobName, Created, Depot, Opener, Problem};

use crate::server::{BUCKET, KEY_ID, SECRET, Server};

const SLOW_DOWN: &str = "<Error><Code>SlowDown</Code><Message>Please reduce your rate</Message></Error>";
const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>No</Message>\
                      <StringToSign>hunter22-is-a-secret</StringToSign></Error>";

const NO_BUCKET: &str = "<Error><Code>NoSuchBucket</Code><Message>There is none</Message></Error>";

/// `s3s-fs` makes file names of the names of objects, with more in them, so that they get too long.
const TOO_LONG: &[&str] = &["the_longest_names_are_kept"];

/// A depot that gives up soon, for tests of what fails.
fn depot(server: &Server, more: &[(&str, &str)], prefix: &str) -> Arc<dyn Depot> {
    opened(&opener(server, more).with_patience(Duration::from_millis(700)), prefix)
}

fn opener(server: &Server, more: &[(&str, &str)]) -> Opener {
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Opener::new(server.variables().into_iter().chain(more))
}

fn opened(opener: &Opener, prefix: &str) -> Arc<dyn Depot> {
    Arc::from(opener.open(&format!("s3://{BUCKET}/{prefix}")).unwrap())
}

fn name(name: &str) -> BlobName {
    BlobName::new(name).unwrap()
}

async fn fresh(server: &Server, promises: &Promises, more: &[(&str, &str)]) {
    let next = AtomicUsize::new(0);
    let prefix = || format!("p/{}", next.fetch_add(1, Ordering::Relaxed));
    // With a user's patience: on a busy machine an answer may well take a second.
    contract(promises, || opened(&opener(server, more), &prefix())).await;
}

/// The files of uploads that were neither completed nor aborted.
fn unfinished(server: &Server) -> Vec<String> {
    let names = std::fs::read_dir(server.directory()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // Files that the server did not finish, called `.tmp`, are its own business.
    names.filter(|name| name.contains("upload")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_keeps_the_contract() {
    let server = Server::start().await;
    fresh(&server, &Promises { except: TOO_LONG, ..Promises::default() }, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_without_conditions_keeps_the_rest_of_the_contract() {
    let server = Server::start().await;
    let promises = Promises { one_new: false, except: TOO_LONG, ..Promises::default() };
    fresh(&server, &promises, &[("AWS_CONDITIONAL_PUT", "disabled")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_and_given_up_uploads_are_aborted() {
    let server = Server::start().await;
    let depot = depot(&server, &[], "x");
    depot.create(&name("a"), failing_body(bytes(1, 30 << 20))).await.unwrap_err();
    assert_eq!(unfinished(&server), Vec::<String>::new());
    let endless = stream::iter([Ok(bytes(1, 30 << 20))]).chain(stream::pending()).boxed();
    let b = name("b");
    let create = depot.create(&b, endless);
    assert!(tokio::time::timeout(Duration::from_millis(800), create).await.is_err());
    // It is aborted in the background.
    let begin = Instant::now();
    while server.requests().get("DELETE uploadId") != Some(&2) {
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", server.requests());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_fails_for_good_aborts_the_upload() {
    let server = Server::start().await;
    let depot = depot(&server, &[], "x");
    server.fail(|asked| asked.starts_with("PUT partNumber=2").then_some((403, DENIED)));
    let error = depot.create(&name("a"), body(bytes(1, 30 << 20))).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Denied(_)), "{error}");
    assert_eq!(unfinished(&server), Vec::<String>::new());
    assert_eq!(depot.find(&name("a")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_of_a_body_is_taken_than_is_under_way() {
    let server = Server::start().await;
    let depot = depot(&server, &[], "x");
    server.fail(|asked| asked.starts_with("PUT partNumber").then_some((503, SLOW_DOWN)));
    let taken = Arc::new(AtomicUsize::new(0));
    let (count, piece) = (Arc::clone(&taken), bytes(1, 1 << 20));
    let body = stream::repeat_with(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(piece.clone())
    });
    let error = depot.create(&name("a"), body.take(1000).boxed()).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Busy(_)), "{error}");
    let taken = taken.load(Ordering::Relaxed);
    assert!((40..=48).contains(&taken), "{taken} MiB were taken while no part arrived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_few() {
    let server = Server::start().await;
    let depot = depot(&server, &[], "x");
    depot.create(&name("small"), body(bytes(1, 8 << 20))).await.unwrap();
    assert_eq!(server.requests().into_iter().collect::<Vec<_>>(), [("PUT ".to_owned(), 1)]);
    let blob = Blob { name: name("small"), size: 8 << 20, created: None };
    depot.read(&blob, 5..10).await.unwrap();
    let count = |kind: &str| server.requests().get(kind).copied().unwrap_or(0);
    assert_eq!(count("GET x-id") + count("GET "), 1, "{:?}", server.requests());
    depot.create(&name("large"), body(bytes(1, (24 << 20) + 1))).await.unwrap();
    let large = [count("POST uploads"), count("PUT partNumber"), count("POST uploadId"), count("HEAD ")];
    assert_eq!(large, [1, 4, 1, 2], "{:?}", server.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_tried_again() {
    let server = Server::start().await;
    let depot = depot(&server, &[], "x");
    let mut left =
        [("PUT ", 2_usize), ("POST uploads", 1), ("PUT partNumber", 2), ("POST uploadId", 1), ("GET ", 2)];
    server.fail(move |asked| {
        let (_, left) = left.iter_mut().rev().find(|(kind, _)| asked.starts_with(kind))?;
        *left = left.checked_sub(1)?;
        Some((503, SLOW_DOWN))
    });
    for (called, length) in [("a", 1000), ("b", 20 << 20)] {
        let created = depot.create(&name(called), body(bytes(1, length))).await.unwrap();
        assert_eq!(created, Created::New(length as u64));
        let blob = depot.find(&name(called)).await.unwrap().unwrap();
        assert!(depot.read(&blob, 0..blob.size).await.unwrap() == bytes(1, length));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stalls_is_asked_for_again_from_where_it_was() {
    let server = Server::start().await;
    let stall = Duration::from_secs(1);
    let depot = opened(&opener(&server, &[]).with_stall(stall), "x");
    depot.create(&name("a"), body(bytes(1, 3 << 20))).await.unwrap();
    let blob = depot.find(&name("a")).await.unwrap().unwrap();
    // Before the head, in the middle, and twice for one range.
    for (answers, after) in [(1, 0), (1, 1 << 20), (2, 500_000)] {
        server.stall(answers, after);
        let begun = Instant::now();
        assert!(depot.read(&blob, 100..blob.size).await.unwrap() == bytes(1, 3 << 20).slice(100..));
        let took = begun.elapsed();
        assert!(took >= stall * answers as u32 && took < stall * 8, "{took:?}");
    }
    server.stall(1, 0);
    assert!(depot.list("").await.unwrap().contains(&blob));
    // Not for ever.
    let depot = opened(&opener(&server, &[]).with_patience(Duration::ZERO).with_stall(stall / 5), "x");
    server.stall(100, 0);
    let error = depot.read(&blob, 0..10).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Unreachable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_pass_is_told_without_a_secret() {
    let server = Server::start().await;
    let depot = depot(&server, &[], "x");
    let blob = Blob { name: name("a"), size: 10, created: None };
    let problem = async |status, text| {
        server.fail(move |_| Some((status, text)));
        let errors = [
            depot.create(&blob.name, body(bytes(1, 10))).await.unwrap_err(),
            depot.create(&blob.name, body(bytes(1, 20 << 20))).await.unwrap_err(),
            depot.find(&blob.name).await.unwrap_err(),
            depot.newest("").await.unwrap_err(),
            depot.read(&blob, 0..5).await.unwrap_err(),
            depot.list("").await.unwrap_err(),
            depot.remove(&blob.name).await.unwrap_err(),
        ];
        for error in &errors {
            for text in [error.to_string(), format!("{error:?}"), format!("{depot:?}")] {
                assert!(!text.contains(SECRET) && !text.contains("Signature"), "{text}");
                assert!(text.contains(&format!("s3://{BUCKET}/x")), "{text}");
            }
        }
        errors.map(|error| error.problem)
    };
    for problem in problem(403, DENIED).await {
        assert!(matches!(problem, Problem::Denied(_)), "{problem}");
    }
    for problem in problem(503, SLOW_DOWN).await {
        assert!(matches!(problem, Problem::Busy(_)), "{problem}");
    }
    for problem in problem(500, "").await {
        assert!(matches!(problem, Problem::Unreachable(_)), "{problem}");
    }
    let full = "<Error><Code>QuotaExceeded</Code><Message>No room</Message></Error>";
    let problems = problem(400, full).await;
    assert!(matches!(&problems[0], Problem::Full(said) if said.contains("No room")), "{}", problems[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_an_absent_bucket_and_an_absent_server_are_told_apart() {
    let server = Server::start().await;
    let wrong = depot(&server, &[("AWS_SECRET_ACCESS_KEY", "another-secret")], "x");
    let error = wrong.newest("").await.unwrap_err();
    assert!(matches!(error.problem, Problem::Denied(_)), "{error}");
    let shown = format!("{error} {error:?} {wrong:?}");
    assert!(!shown.contains("another-secret") && !shown.contains(KEY_ID), "{shown}");

    let right = depot(&server, &[], "x");
    server.fail(|_| Some((404, NO_BUCKET)));
    for error in [
        right.newest("").await.unwrap_err(),
        right.create(&name("a"), body(bytes(1, 10))).await.unwrap_err(),
        right.create(&name("a"), body(bytes(1, 20 << 20))).await.unwrap_err(),
    ] {
        assert!(matches!(error.problem, Problem::Unreachable(_)), "{error}");
        assert!(
            error.to_string().contains("404 Not Found: NoSuchBucket: There is none; make the bucket first"),
            "{error}"
        );
    }

    let opener = opener(&server, &[]).with_patience(Duration::from_millis(300));
    let nobody = opener.open(&format!("s3://{BUCKET}/x?endpoint=http://127.0.0.1:1")).unwrap();
    let error = nobody.find(&name("a")).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("no answer: http://127.0.0.1:1: "), "{error}");
    println!("{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_others_are_not_blobs() {
    let server = Server::start().await;
    let depot = depot(&server, &[], "x");
    let bucket = server.directory().join(BUCKET);
    std::fs::create_dir_all(bucket.join("x/sub")).unwrap();
    for strange in ["x/a b", "x/sub/é", "x/sub/a@b", "y"] {
        std::fs::write(bucket.join(strange), "strange").unwrap();
    }
    depot.create(&name("sub/ours"), body(bytes(1, 10))).await.unwrap();
    let all: Vec<_> = depot.list("").await.unwrap().into_iter().map(|blob| blob.name.to_string()).collect();
    assert_eq!(all, ["sub/ours"]);
    assert_eq!(depot.newest("../").await.unwrap(), None);
    assert_eq!(depot.newest("a b").await.unwrap(), None);
}
