//! Listing and removing over REST.

use std::time::Duration;

use phoenix_depot::testing::{body, bytes};
use phoenix_depot::{Depot, Problem};
use phoenix_github::{Cache, RestAccess};
use phoenix_testkit::github::{Fault, Permission, Request};

use super::{MAIN, access, cache, have, name, pull, rest, settings, start, whole};

#[tokio::test]
async fn without_a_token_neither_is_supported() {
    let github = start();
    let cache = cache(&github);
    for problem in
        [cache.list("").await.unwrap_err().problem, cache.remove(&name("a")).await.unwrap_err().problem]
    {
        assert!(matches!(problem, Problem::Unsupported(what) if what.contains("GITHUB_TOKEN")));
    }
}

#[tokio::test]
async fn all_pages_and_all_refs_are_listed_each_name_once() {
    let github = start();
    let (whole, pull) = (whole(&github), pull(&github));
    for n in 0..250 {
        whole.create(&name(&format!("p/{n:03}")), body(bytes(1, 1))).await.unwrap();
    }
    pull.create(&name("p/007"), body(bytes(1, 7))).await.unwrap();
    pull.create(&name("q/1"), body(bytes(1, 1))).await.unwrap();
    github.fault(Request::List, Fault::Status(502), 2);
    github.fault(Request::List, Fault::Strange, 1);
    let listed = whole.list("p/").await.unwrap();
    assert_eq!(listed.len(), 250);
    assert_eq!((listed[7].name.as_str(), listed[7].size), ("p/007", 7));
    assert!(listed.iter().all(|blob| blob.created.is_some()));
    assert_eq!(whole.list("").await.unwrap().len(), 251);
    assert_eq!(whole.list("a,b").await.unwrap(), []);
}

#[tokio::test]
async fn removing_is_from_all_refs_and_frees_the_name() {
    let github = start();
    let (whole, pull) = (whole(&github), pull(&github));
    have(&whole, "a", &bytes(1, 10)).await;
    have(&pull, "a", &bytes(1, 10)).await;
    have(&whole, "ab", &bytes(1, 10)).await;
    github.fault(Request::Delete, Fault::AnswerLost, 1);
    whole.remove(&name("a")).await.unwrap();
    assert_eq!(pull.find(&name("a")).await.unwrap(), None);
    assert_eq!(whole.list("").await.unwrap().len(), 1);
    have(&whole, "a", &bytes(2, 20)).await;
}

#[tokio::test]
async fn a_token_that_may_not_is_told_what_it_needs() {
    let github = start();
    let wrong = RestAccess::new(Some("wrong"), Some(github.repository()), Some(github.url()));
    let token = github.token(&[(MAIN, Permission::Both)]);
    let cache = Cache::new(access(&github, &token).with_rest(wrong), settings()).unwrap();
    let error = cache.remove(&name("a")).await.unwrap_err();
    assert!(matches!(&error.problem, Problem::Denied(words) if words.contains("actions: write")), "{error}");
    let other = RestAccess::new(Some(github.rest_token()), Some("some/other"), Some(github.url()));
    let cache = Cache::new(access(&github, &token).with_rest(other), settings()).unwrap();
    assert!(matches!(cache.list("").await.unwrap_err().problem, Problem::Denied(_)));
    assert_eq!(cache.location(), "github:some/other");
    assert!(rest(&github).is_some());
}

#[tokio::test]
async fn what_is_new_is_listed_late() {
    let github = start();
    github.behave(|behaviour| behaviour.lag = Duration::from_secs(60));
    let whole = whole(&github);
    whole.create(&name("a"), body(bytes(1, 10))).await.unwrap();
    assert_eq!(whole.list("").await.unwrap(), []);
    github.advance(Duration::from_secs(61));
    assert_eq!(whole.list("").await.unwrap().len(), 1);
}
