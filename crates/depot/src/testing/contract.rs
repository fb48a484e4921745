//! What every depot promises, as test cases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};

use crate::testing::body::{body, bytes, failing_body, pieces};
use crate::{Blob, BlobName, Body, Created, Depot, LONGEST_NAME, LONGEST_SEGMENT, Problem};

/// More than any depot sends in one request.
const LARGE: usize = 20 << 20;

/// What a depot promises beyond what all do; by default everything.
#[derive(Debug, Clone)]
pub struct Promises {
    /// Of several who create one name at once, exactly one is answered [`Created::New`], however large it is.
    pub one_new: bool,
    /// A name whose creation failed or was given up can be created again at once.
    pub free_after_failure: bool,
    /// [`Depot::list`] answers.
    pub lists: bool,
    /// [`Depot::remove`] removes.
    pub removes: bool,
    /// How long a new blob may stay out of sight.
    pub lag: Duration,
    /// Blobs made further apart than this are told apart by [`Depot::newest`].
    pub grain: Duration,
    /// Cases that are left out, by name: what a double that stands for the depot in a test cannot do.
    pub except: &'static [&'static str],
}

impl Default for Promises {
    fn default() -> Self {
        Self {
            one_new: true,
            free_after_failure: true,
            lists: true,
            removes: true,
            lag: Duration::ZERO,
            grain: Duration::from_millis(1100),
            except: &[],
        }
    }
}

/// Runs every case of the contract, each on an empty depot that `make` makes; needs a Tokio runtime with its
/// clock. Each case prints its name before it begins.
///
/// # Panics
///
/// When a promise is not kept.
pub async fn contract(promises: &Promises, make: impl Fn() -> Arc<dyn Depot>) {
    macro_rules! cases {
        ($($case:ident),* $(,)?) => {$(
            if promises.except.contains(&stringify!($case)) {
                println!("contract: {} is left out", stringify!($case));
            } else {
                println!("contract: {}", stringify!($case));
                Case { depot: make(), promises: promises.clone() }.$case().await;
            }
        )*};
    }
    cases!(
        an_empty_depot_holds_nothing,
        what_is_created_is_found_and_read,
        blobs_of_no_and_of_one_byte_are_blobs,
        a_large_blob_comes_back_whole,
        ranges_are_exact_at_every_edge,
        nothing_is_overwritten,
        a_body_that_fails_leaves_nothing,
        a_creation_that_is_given_up_leaves_nothing,
        one_of_many_creates_a_name,
        names_that_begin_alike_are_apart,
        a_name_below_another_is_kept_or_refused,
        the_longest_names_are_kept,
        the_newest_is_the_one_made_last,
        listing_is_by_name,
        what_is_removed_is_gone,
        many_tasks_at_once_are_served,
    );
}

struct Case {
    depot: Arc<dyn Depot>,
    promises: Promises,
}

fn name(name: &str) -> BlobName {
    BlobName::new(name).expect("the contract's own names are names")
}

fn names(blobs: &[Blob]) -> Vec<&str> {
    blobs.iter().map(|blob| blob.name.as_str()).collect()
}

fn odd(seed: u64, bytes: Bytes) -> Body {
    stream::iter(pieces(seed, bytes).into_iter().map(Ok)).boxed()
}

impl Case {
    async fn create(&self, called: &str, bytes: &Bytes) -> Created {
        let created = self.depot.create(&name(called), odd(7, bytes.clone())).await;
        created.unwrap_or_else(|error| panic!("{called} was not created: {error}"))
    }

    /// Creates a blob that is not there, and waits until it is seen.
    async fn have(&self, called: &str, bytes: &Bytes) -> Blob {
        assert_eq!(self.create(called, bytes).await, Created::New(bytes.len() as u64), "{called}");
        self.see(called).await
    }

    async fn see(&self, called: &str) -> Blob {
        let begin = Instant::now();
        loop {
            if let Some(blob) = self.find(called).await
                && self.newest(called).await.is_some()
            {
                return blob;
            }
            assert!(begin.elapsed() <= self.promises.lag, "{called} was created and is not found");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn find(&self, called: &str) -> Option<Blob> {
        let found = self.depot.find(&name(called)).await;
        found.unwrap_or_else(|error| panic!("{called} was not looked for: {error}"))
    }

    async fn read(&self, blob: &Blob) -> Bytes {
        let read = self.depot.read(blob, 0..blob.size).await;
        read.unwrap_or_else(|error| panic!("{} was not read: {error}", blob.name))
    }

    async fn newest(&self, prefix: &str) -> Option<String> {
        let newest = self.depot.newest(prefix).await;
        let newest = newest.unwrap_or_else(|error| panic!("the newest of {prefix} was not told: {error}"));
        let name = newest.map(|blob| blob.name.to_string());
        let told = self.depot.newest_name(prefix).await.map(|name| name.map(|name| name.to_string()));
        assert_eq!(told.ok(), Some(name.clone()), "the name of the newest of {prefix} is another");
        name
    }

    /// What is listed, where the depot lists.
    async fn list(&self, prefix: &str) -> Option<Vec<Blob>> {
        match self.depot.list(prefix).await {
            Ok(blobs) => Some(blobs),
            Err(error) if !self.promises.lists && matches!(error.problem, Problem::Unsupported(_)) => None,
            Err(error) => panic!("{prefix} was not listed: {error}"),
        }
    }

    /// Nothing is seen of `called`, and it can be created.
    async fn is_free(&self, called: &str) {
        assert_eq!(self.find(called).await, None, "{called} is there");
        assert_eq!(self.newest(called).await, None, "{called} is there");
        if let Some(blobs) = self.list("").await {
            assert_eq!(names(&blobs), Vec::<&str>::new());
        }
        if self.promises.free_after_failure {
            let bytes = bytes(3, 1000);
            let blob = self.have(called, &bytes).await;
            assert_eq!(self.read(&blob).await, bytes);
        }
    }

    async fn an_empty_depot_holds_nothing(self) {
        assert_eq!(self.find("a/b").await, None);
        assert_eq!(self.newest("").await, None);
        assert_eq!(self.newest("a/b").await, None);
        if let Some(blobs) = self.list("").await {
            assert_eq!(blobs, []);
        }
        let blob = Blob { name: name("a/b"), size: 10, created: None };
        assert_eq!(self.depot.read(&blob, 3..3).await.expect("an empty range asks nobody"), Bytes::new());
        let error = self.depot.read(&blob, 0..10).await.expect_err("there is no such blob");
        assert!(matches!(error.problem, Problem::Gone), "{error}");
        assert_eq!(error.location, self.depot.location());
        assert!(error.doing.contains("a/b"), "{error}");
        if self.promises.removes {
            self.depot.remove(&name("a/b")).await.expect("removing nothing is no error");
        }
    }

    async fn what_is_created_is_found_and_read(self) {
        let bytes = bytes(1, 100_003);
        let blob = self.have("packs/main/0001-ab.pack", &bytes).await;
        assert_eq!((blob.name.as_str(), blob.size), ("packs/main/0001-ab.pack", 100_003));
        assert_eq!(self.read(&blob).await, bytes);
        if let Some(created) = blob.created {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("the clock is set").as_secs();
            assert!(created.abs_diff(now) < 600, "created at {created}, which is not now ({now})");
        }
        assert_eq!(self.newest("packs/").await.as_deref(), Some("packs/main/0001-ab.pack"));
        if let Some(blobs) = self.list("packs").await {
            assert_eq!(blobs, [blob]);
        }
    }

    async fn blobs_of_no_and_of_one_byte_are_blobs(self) {
        for (called, length) in [("none", 0), ("one", 1)] {
            let bytes = bytes(2, length);
            let blob = self.have(called, &bytes).await;
            assert_eq!(blob.size, length as u64);
            assert_eq!(self.read(&blob).await, bytes);
            assert_eq!(self.create(called, &bytes).await, Created::Taken, "{called}");
        }
    }

    async fn a_large_blob_comes_back_whole(self) {
        // Around the sizes that depots cut at, too.
        for (number, length) in [LARGE + 12_345, 8 << 20, (8 << 20) + 1, 16 << 20].into_iter().enumerate() {
            let bytes = bytes(3, length);
            let blob = self.have(&format!("large-{number}"), &bytes).await;
            assert_eq!(blob.size, length as u64);
            assert!(self.read(&blob).await == bytes, "{length} bytes did not come back as they were");
            let (from, to) = (length / 3, length / 3 * 2);
            let part = self.depot.read(&blob, from as u64..to as u64).await.expect("a part is read");
            assert!(part == bytes.slice(from..to), "a part of {length} bytes is not what it was");
        }
    }

    async fn ranges_are_exact_at_every_edge(self) {
        let bytes = bytes(4, 10);
        let blob = self.have("ten", &bytes).await;
        for from in 0..=10 {
            for to in from..=10 {
                let part = self.depot.read(&blob, from..to).await;
                let part = part.unwrap_or_else(|error| panic!("{from}..{to} was not read: {error}"));
                let (from, to) = (usize::try_from(from), usize::try_from(to));
                assert_eq!(part, bytes.slice(from.expect("small")..to.expect("small")));
            }
        }
        #[expect(clippy::reversed_empty_ranges, reason = "it must do no harm")]
        for empty in [11..11, 7..3, u64::MAX..u64::MAX] {
            assert_eq!(
                self.depot.read(&blob, empty).await.expect("an empty range asks nobody"),
                Bytes::new()
            );
        }
        // A blob that is shorter than it was seen to be is not read beyond its end either.
        let longer = Blob { size: 20, ..blob.clone() };
        for (blob, beyond) in [
            (&blob, 0..11),
            (&blob, 10..11),
            (&blob, 9..12),
            (&blob, 0..u64::MAX),
            (&longer, 5..15),
            (&longer, 10..11),
            (&longer, 15..20),
        ] {
            let error = self.depot.read(blob, beyond.clone()).await;
            let error = error.map(|got| got.len()).expect_err("there is nothing beyond the end");
            assert!(matches!(error.problem, Problem::Short(_)), "{beyond:?}: {error}");
        }
    }

    async fn nothing_is_overwritten(self) {
        for (called, length) in [("small", 1000), ("large", LARGE)] {
            let first = bytes(5, length);
            let blob = self.have(called, &first).await;
            for other in [bytes(6, length), bytes(6, 3), bytes(6, LARGE + 1), Bytes::new()] {
                assert_eq!(self.create(called, &other).await, Created::Taken, "{called}");
            }
            assert_eq!(self.find(called).await.map(|blob| blob.size), Some(blob.size));
            assert!(self.read(&blob).await == first, "{called} was overwritten");
        }
    }

    async fn a_body_that_fails_leaves_nothing(self) {
        for (called, length) in [("at-once", 0), ("soon", 1000), ("late", LARGE)] {
            // An empty depot for each, for `is_free` looks at all of it.
            if let (true, Some(blobs)) = (self.promises.removes, self.list("").await) {
                for blob in blobs {
                    self.depot.remove(&blob.name).await.expect("a blob is removed");
                }
            } else if called != "at-once" {
                break;
            }
            let error = self.depot.create(&name(called), failing_body(bytes(7, length))).await;
            let error = error.expect_err("the body failed");
            assert!(matches!(error.problem, Problem::Body(_)), "{error}");
            assert!(error.to_string().contains("the body failed"), "{error}");
            self.is_free(called).await;
        }
    }

    async fn a_creation_that_is_given_up_leaves_nothing(self) {
        let beginning = stream::iter(pieces(8, bytes(8, LARGE)).into_iter().map(Ok));
        let body: Body = beginning.chain(stream::pending()).boxed();
        let given_up = name("given-up");
        let create = self.depot.create(&given_up, body);
        match tokio::time::timeout(Duration::from_secs(1), create).await {
            Err(_) => {}
            Ok(Ok(created)) => panic!("a body that does not end was kept: {created:?}"),
            Ok(Err(error)) => panic!("the creation failed before it was given up: {error}"),
        }
        self.is_free("given-up").await;
    }

    async fn one_of_many_creates_a_name(self) {
        for (called, length, times) in [("small", 2000, 5), ("large", (9 << 20) + 1, 2)] {
            for time in 0..times {
                let called = format!("{called}-{time}");
                let contents: Vec<_> = (0..6).map(|task| bytes(100 + task, length)).collect();
                let tasks = contents.iter().enumerate().map(|(task, content)| {
                    let (depot, called) = (Arc::clone(&self.depot), name(&called));
                    let body = odd(task as u64, content.clone());
                    tokio::spawn(async move { depot.create(&called, body).await })
                });
                let created = join_all(tasks.collect::<Vec<_>>()).await.into_iter().map(|task| {
                    let created = task.expect("no task dies");
                    created.unwrap_or_else(|error| panic!("{called} was not created: {error}"))
                });
                let winners: Vec<_> = created
                    .enumerate()
                    .filter(|(_, created)| *created != Created::Taken)
                    .map(|(task, _)| task)
                    .collect();
                let blob = self.see(&called).await;
                let kept = self.read(&blob).await;
                assert!(!winners.is_empty(), "nobody created {called}");
                assert!(winners.iter().any(|task| contents[*task] == kept), "{called} is not a winner's");
                assert!(
                    !self.promises.one_new || winners.len() == 1,
                    "{called} has {} makers",
                    winners.len()
                );
            }
        }
    }

    async fn names_that_begin_alike_are_apart(self) {
        let all = ["a-b", "a.b/c", "a.b/cd", "a.bc", "ab", "abc", "ab.c/d", "A"];
        for (seed, called) in all.iter().enumerate() {
            self.have(called, &bytes(seed as u64, 50 + seed)).await;
        }
        for (seed, called) in all.iter().enumerate() {
            let blob = self.see(called).await;
            assert_eq!(blob.name.as_str(), *called);
            assert_eq!(self.read(&blob).await, bytes(seed as u64, 50 + seed), "{called}");
        }
        for absent in ["a", "a.b", "a.b/", "a.", "abcd", "a.b/c/d", "ab/c", "b"] {
            if let Ok(absent) = BlobName::new(absent) {
                assert_eq!(self.depot.find(&absent).await.expect("an answer"), None, "{absent}");
            }
        }
        for prefix in ["", "a", "ab", "ab.", "a.b", "a.b/", "a.b/c", "abc", "b", "A", "/", "a.b/c/"] {
            let mut under: Vec<_> = all.iter().copied().filter(|name| name.starts_with(prefix)).collect();
            under.sort_unstable();
            if let Some(blobs) = self.list(prefix).await {
                assert_eq!(names(&blobs), under, "{prefix:?}");
            }
            let newest = self.newest(prefix).await;
            assert_eq!(newest.is_some(), !under.is_empty(), "{prefix:?}");
            assert!(newest.is_none_or(|newest| under.contains(&newest.as_str())), "{prefix:?}");
        }
    }

    async fn a_name_below_another_is_kept_or_refused(self) {
        for (first, second) in [("a", "a/b"), ("c/d/e", "c/d"), ("f", "f/g/h")] {
            self.have(first, &bytes(1, 10)).await;
            match self.depot.create(&name(second), body(bytes(2, 20))).await {
                Ok(created) => {
                    assert_eq!(created, Created::New(20));
                    assert_eq!(self.see(second).await.size, 20);
                }
                Err(error) => {
                    assert!(matches!(error.problem, Problem::Unsupported(_)), "{error}");
                    assert_eq!(self.find(second).await, None);
                }
            }
            assert_eq!(self.see(first).await.size, 10);
        }
    }

    async fn the_longest_names_are_kept(self) {
        let segment = "s".repeat(LONGEST_SEGMENT);
        let deep = "d/".repeat(LONGEST_NAME / 2 - 1) + "dd";
        let long = format!("{segment}/{}", "t".repeat(LONGEST_NAME - LONGEST_SEGMENT - 1));
        let strange = "._+=-..a=+/...";
        for called in [segment.as_str(), &deep, &long, strange] {
            if called == long && segment.len() < long.len() && self.find(&segment).await.is_some() {
                // It is below the first; see the case before this one.
                continue;
            }
            let blob = self.have(called, &bytes(9, 9)).await;
            assert_eq!(self.read(&blob).await, bytes(9, 9));
            if let Some(blobs) = self.list(called).await {
                assert_eq!(names(&blobs), [called]);
            }
        }
    }

    async fn the_newest_is_the_one_made_last(self) {
        // The order of names is another than that of making.
        for called in ["x/3", "x/1", "x/2", "y/0"] {
            self.have(called, &bytes(1, 10)).await;
            let begin = Instant::now();
            let prefix = &called[..2];
            while self.newest(prefix).await.as_deref() != Some(called) {
                let newest = self.newest(prefix).await;
                assert!(begin.elapsed() <= self.promises.lag, "{newest:?} and not {called}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(self.promises.grain).await;
        }
        assert_eq!(self.newest("x/").await.as_deref(), Some("x/2"));
        assert_eq!(self.newest("").await.as_deref(), Some("y/0"));
        assert_eq!(self.newest("x/1").await.as_deref(), Some("x/1"));
        assert_eq!(self.newest("z").await, None);
    }

    async fn listing_is_by_name(self) {
        let mut all: Vec<_> = (0..25).map(|n| format!("l/{}", n * 7 % 25)).collect();
        all.extend(["l-x".to_owned(), "l.x/1".to_owned(), "k".to_owned(), "m/1".to_owned()]);
        for (size, called) in all.iter().enumerate() {
            self.have(called, &bytes(1, size)).await;
        }
        let Some(blobs) = self.list("l").await else { return };
        let mut expected: Vec<_> = all.iter().map(String::as_str).filter(|n| n.starts_with('l')).collect();
        expected.sort_unstable();
        assert_eq!(names(&blobs), expected);
        for blob in blobs {
            assert_eq!(all.iter().position(|name| *name == blob.name.as_str()), Some(usize_of(blob.size)));
        }
    }

    async fn what_is_removed_is_gone(self) {
        let blob = self.have("r/one", &bytes(1, 100)).await;
        if !self.promises.removes {
            if let Err(error) = self.depot.remove(&blob.name).await {
                assert!(matches!(error.problem, Problem::Unsupported(_)), "{error}");
            }
            return;
        }
        self.have("r/two", &bytes(2, 100)).await;
        for _ in 0..2 {
            self.depot.remove(&blob.name).await.expect("removing twice is no error");
            assert_eq!(self.find("r/one").await, None);
            let error = self.depot.read(&blob, 0..100).await.expect_err("it was removed");
            assert!(matches!(error.problem, Problem::Gone), "{error}");
            assert_eq!(self.newest("r/").await.as_deref(), Some("r/two"));
        }
        if let Some(blobs) = self.list("").await {
            assert_eq!(names(&blobs), ["r/two"]);
        }
        let again = self.have("r/one", &bytes(3, 50)).await;
        assert_eq!(self.read(&again).await, bytes(3, 50));
    }

    async fn many_tasks_at_once_are_served(self) {
        let tasks = (0..48_u64).map(|task| {
            let (depot, lag) = (Arc::clone(&self.depot), self.promises.lag);
            tokio::spawn(async move {
                let called = name(&format!("many/{}/{task}", task % 5));
                let content = bytes(task, 30_000 + usize_of(task));
                let created = depot.create(&called, odd(task, content.clone())).await;
                assert_eq!(created.expect("it is created"), Created::New(content.len() as u64));
                let begin = Instant::now();
                let blob = loop {
                    match depot.find(&called).await.expect("an answer") {
                        Some(blob) => break blob,
                        None => assert!(begin.elapsed() <= lag, "{called} is not found"),
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                };
                let read = depot.read(&blob, 0..blob.size).await.expect("it is read");
                assert_eq!(read, content);
                if task % 2 == 0 && depot.remove(&called).await.is_ok() {
                    assert_eq!(depot.find(&called).await.expect("an answer"), None);
                }
            })
        });
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            task.expect("no task fails");
        }
    }
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
