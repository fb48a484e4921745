//! The client of GitHub's cache, against the double.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]
mod contract;
mod creating;
mod faults;
mod finding;
mod listing;
mod of_run;
mod reading;
mod secrets;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use phoenix_depot::testing::body;
use phoenix_depot::{Blob, BlobName, Created, Depot};
use phoenix_github::{Access, Budget, Cache, RestAccess, Settings};
use phoenix_testkit::github::{Github, Permission};

const MAIN: &str = "refs/heads/main";
const PULL: &str = "refs/pull/7/merge";

/// Settings for tests: short waits, small blocks, no budget to speak of.
fn settings() -> Settings {
    Settings {
        budget: Budget { creates: 100_000, lookups: 100_000 },
        patience: Duration::from_secs(20),
        answer_within: Duration::from_secs(5),
        stall: Duration::from_secs(5),
        block: 64 << 10,
        first_wait: Duration::from_millis(4),
        ..Settings::default()
    }
}

fn start() -> Github {
    let github = Github::start().unwrap();
    github.behave(|behaviour| {
        behaviour.creates_per_minute = u64::MAX;
        behaviour.lookups_per_minute = u64::MAX;
    });
    github
}

fn access(github: &Github, token: &str) -> Access {
    Access::new(Some(github.url()), Some(token), None).unwrap()
}

fn cache_with(github: &Github, scopes: &[(&str, Permission)], settings: Settings) -> Cache {
    Cache::new(access(github, &github.token(scopes)), settings).unwrap()
}

/// A cache on the main branch.
fn cache(github: &Github) -> Cache {
    cache_with(github, &[(MAIN, Permission::Both)], settings())
}

/// A cache on a pull request, which reads the main branch, too.
fn pull(github: &Github) -> Cache {
    cache_with(github, &[(PULL, Permission::Both), (MAIN, Permission::Read)], settings())
}

fn rest(github: &Github) -> Option<RestAccess> {
    let url = github.url().to_owned();
    RestAccess::new(Some(github.rest_token()), Some(github.repository()), Some(&url))
}

/// A cache that can list and remove.
fn whole(github: &Github) -> Cache {
    let access = access(github, &github.token(&[(MAIN, Permission::Both)])).with_rest(rest(github));
    Cache::new(access, settings()).unwrap()
}

fn name(name: &str) -> BlobName {
    BlobName::new(name).unwrap()
}

async fn have(cache: &Cache, called: &str, bytes: &Bytes) -> Blob {
    let created = cache.create(&name(called), body(bytes.clone())).await.unwrap();
    assert_eq!(created, Created::New(bytes.len() as u64));
    cache.find(&name(called)).await.unwrap().unwrap()
}

fn shared(cache: Cache) -> Arc<dyn Depot> {
    Arc::new(cache)
}
