//! Everything that can go wrong, mixed, by seed: what comes is right, or an error says so.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use phoenix_depot::testing::{bytes, pieces};
use phoenix_depot::{Blob, Body, Created, Depot, Problem};
use phoenix_testkit::github::{Fault, Faults, Github};

use super::{name, start, whole};

/// How many seeds are run.
const SEEDS: u64 = 160;

/// How many of the seeds are run at once.
const AT_ONCE: u64 = 8;

/// What came of one run.
#[derive(Debug, Default)]
struct Tally {
    created: u64,
    taken: u64,
    read: u64,
    errors: HashMap<&'static str, u64>,
    faults: u64,
}

impl Tally {
    fn error(&mut self, problem: &Problem) {
        let kind = match problem {
            Problem::Gone => "gone",
            Problem::Denied(_) | Problem::Ended(_) => "denied",
            Problem::Busy(_) => "busy",
            Problem::Unreachable(_) => "unreachable",
            other => panic!("{other}"),
        };
        assert!(problem.to_string().len() > 10);
        *self.errors.entry(kind).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        self.created += other.created;
        self.taken += other.taken;
        self.read += other.read;
        self.faults += other.faults;
        for (kind, times) in other.errors {
            *self.errors.entry(kind).or_default() += times;
        }
    }
}

fn body(seed: u64, content: &Bytes) -> Body {
    use futures_util::{StreamExt, stream};
    stream::iter(pieces(seed, content.clone()).into_iter().map(Ok)).boxed()
}

/// The content of a name under a seed; sizes are around those of blocks.
fn content(seed: u64, n: u64) -> Bytes {
    let size = [0, 1, 5000, 65536, 65537, 200_000][usize::try_from((seed + n) % 6).unwrap()];
    bytes(seed * 1000 + n, size)
}

async fn run(github: &Github, seed: u64) -> Tally {
    let cache = whole(github);
    let mut tally = Tally::default();
    for n in 0..8 {
        let (called, content) = (name(&format!("b/{n}")), content(seed, n));
        match cache.create(&called, body(seed, &content)).await {
            Ok(Created::New(size)) => {
                assert_eq!(size, content.len() as u64);
                tally.created += 1;
            }
            Ok(Created::Taken) => tally.taken += 1,
            Err(error) => tally.error(&error.problem),
        }
    }
    let right = |blob: &Blob| {
        let n: u64 = blob.name.as_str().strip_prefix("b/").unwrap().parse().unwrap();
        let content = content(seed, n);
        assert_eq!(blob.size, content.len() as u64, "{}", blob.name);
        content
    };
    for n in 0..8 {
        let found = match n % 3 {
            0 => cache.newest("b/").await,
            _ => cache.find(&name(&format!("b/{n}"))).await,
        };
        let blob = match found {
            Ok(Some(blob)) => blob,
            Ok(None) => continue,
            Err(error) => {
                tally.error(&error.problem);
                continue;
            }
        };
        assert!(n % 3 == 0 || blob.name == name(&format!("b/{n}")));
        let content = right(&blob);
        let (from, to) = (blob.size / 3, blob.size);
        for range in [0..blob.size, from..to] {
            let cut = |at: u64| usize::try_from(at).unwrap();
            match cache.read(&blob, range.clone()).await {
                Ok(got) => {
                    assert!(got == content.slice(cut(range.start)..cut(range.end)), "{}: wrong", blob.name);
                    tally.read += 1;
                }
                Err(error) => tally.error(&error.problem),
            }
        }
    }
    match cache.list("b/").await {
        Ok(blobs) => {
            for blob in blobs {
                right(&blob);
            }
        }
        Err(error) => tally.error(&error.problem),
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_mixed_faults_bytes_are_right_or_an_error_is_clear() {
    let mut whole = Tally::default();
    for batch in 0..SEEDS / AT_ONCE {
        let runs = (batch * AT_ONCE..(batch + 1) * AT_ONCE).map(|seed| {
            tokio::spawn(async move {
                let github = start();
                github.behave(|behaviour| {
                    behaviour.faults =
                        Some(Faults { seed, one_in: 2 + seed % 7, kinds: Fault::NOTICEABLE.to_vec() });
                    behaviour.lag_lookups = seed % 3;
                    behaviour.ignores_key = seed % 2 == 1;
                    behaviour.pause = Duration::from_millis(1);
                });
                let mut tally = run(&github, seed).await;
                tally.faults = github.counts().faults.values().sum();
                tally
            })
        });
        for run in runs.collect::<Vec<_>>() {
            whole.add(run.await.unwrap());
        }
    }
    println!("{whole:?}");
    assert!(whole.created > SEEDS * 8 / 3 && whole.read > SEEDS, "{whole:?}");
    assert!(whole.faults > SEEDS * 10 && whole.errors.len() >= 3, "{whole:?}");
}
