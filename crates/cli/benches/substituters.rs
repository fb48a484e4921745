//! Asking a binary cache for 10,000 paths, with 30 ms for each answer.
//!
//! `cargo bench --package phoenix-cli --bench substituters`. The server is on the loopback and waits before
//! it answers; with so many connections nobody can be faster than paths × 30 ms / connections.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use phoenix_model::{Status, StorePath};
use phoenix_store::Nix;
use phoenix_substituter::{DEFAULT_CONNECTIONS, Heard, Settings, ask};
use phoenix_testkit::binary_cache::BinaryCache;

const PATHS: usize = 10_000;
const LATENCY: Duration = Duration::from_millis(30);
const RUNS: usize = 5;

fn main() {
    let mut factors = Vec::new();
    for run in 0..RUNS {
        let cache = BinaryCache::start("/nix/store").expect("a server");
        cache.latency(LATENCY);
        let paths: Vec<StorePath> = (0..PATHS)
            .map(|number| StorePath::parse(&format!("/nix/store/{number:032}-p{number}")).expect("a path"))
            .collect();
        // Half of them are there.
        for path in paths.iter().step_by(2) {
            cache.add(
                &format!("/{}.narinfo", path.hash_part()),
                &format!(
                    "StorePath: {path}\nURL: nar/x.nar\nCompression: none\nNarHash: sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\nNarSize: 9\nReferences: \n"
                ),
            );
        }
        let settings = Settings {
            nix: Nix::find().expect("Nix is installed"),
            substituters: vec![cache.url().to_owned()],
            trusted_public_keys: vec![],
            require_sigs: false,
            store_dir: "/nix/store".to_owned(),
            netrc_file: None,
            ssl_cert_file: None,
            connections: DEFAULT_CONNECTIONS,
            timeout: Duration::from_secs(30),
        };
        let (mut present, mut absent) = (0, 0);
        let start = Instant::now();
        ask(&settings, &AtomicBool::new(false), paths, &mut |heard| {
            match heard {
                Heard::Answer { status: Status::Present(_), .. } => present += 1,
                Heard::Answer { status: Status::Absent, .. } => absent += 1,
                other => panic!("{other:?}"),
            }
            Vec::new()
        })
        .expect("answers");
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!((present, absent), (PATHS / 2, PATHS / 2));
        let requests = cache.requests().len() - 1;
        assert_eq!(requests, PATHS, "one request a path");
        let ideal = PATHS as f64 * LATENCY.as_secs_f64() / DEFAULT_CONNECTIONS as f64;
        println!(
            "run {}: {PATHS} paths in {seconds:.2} s, {requests} requests, {} at once; the limit is {ideal:.2} s",
            run + 1,
            cache.most_at_once()
        );
        factors.push(seconds / ideal);
    }
    factors.sort_by(f64::total_cmp);
    println!(
        "time / limit: {:.2} (median of {RUNS}; {:.2} to {:.2})",
        factors[RUNS / 2],
        factors[0],
        factors[RUNS - 1]
    );
}
