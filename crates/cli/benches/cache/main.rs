//! Saving a closure and restoring it: `phoenix cache` beside what else moves store paths, in one run.
//!
//! `cargo xtask bench cache`. The closure is made of the files of Debian packages that are installed
//! on this machine, so it needs a Debian or Ubuntu; Nix, `tar` and `zstd` too. Every tool restores into an
//! empty store of its own; all of them run in turn, several rounds, and the ratios are those of each round.
//!
//! - *copy*: the same files copied by as many threads as there are processors, with modes, neither compressed
//!   nor verified: the floor.
//! - *tar*: `tar | zstd -3 -T0` of the whole store and its database, as whole-store caches do it.
//! - *export*: `nix-store --export`, `--import`; *copy-file* and *copy-http*: `nix copy` (zstd) to a directory, and
//!   from it directly or over HTTP.
//! - *dir*, *github 0*, *github 50*: `phoenix cache` over a directory, and over a double of GitHub's cache service
//!   that waits 0 or 50 ms before it answers a request.
//!
//! What is set in the environment:
//!
//! - `PHOENIX_BENCH_DIR`: everything is written to a new directory below it instead of below `target/`. On a machine
//!   whose disk is slow or shared, a `tmpfs` shows what the tools themselves take: about 3 GB are needed there, 8 GB
//!   for the large closure, and the doubles keep in memory what they are given.
//! - `PHOENIX_BENCH_LARGE`: a closure of 1.5 GB, 500 paths, 30,000 files instead of 470 MB, 300 paths, 14,000 files.
//! - `PHOENIX_BENCH_MB`: a closure of so many megabytes, to see whether everything works.
//! - `PHOENIX_BENCH_ROUNDS`: how many rounds; 3.
//! - `PHOENIX_BENCH_PARTS`: which parts, of `save,restore,part,substituter,again`; all. There has to be something to
//!   restore, so one round of saving there is always.
//!
//! Other caches are taken where they are given, and said to be skipped where not. They get a double each, of the same
//! service, and run in the same rounds. They know no store but `/nix/store`: with any of them the benchmark runs once more
//! inside of `unshare --mount` with a directory of its own at `/nix`, which has to exist; the machine's own is not touched.
//! Only Linux has that.
//!
//! - `PHOENIX_BENCH_CACHE_NIX_ACTION`: the directory of `nix-community/cache-nix-action`, with its `dist`. It needs
//!   `node` and `sqlite3`. It saves and restores all of `/nix`.
//! - `PHOENIX_BENCH_HESTIA`: the program `hestia` of `Mic92/hestia`. It restores in bulk, through `curl` and
//!   `nix-store --import`, and is a substituter.
//! - `PHOENIX_BENCH_MAGIC_NIX_CACHE`: the program `magic-nix-cache` of `DeterminateSystems/magic-nix-cache`. It restores
//!   as a substituter. The double does not limit it to 200 entries a minute as GitHub does.

mod corpus;
mod double;
mod measure;
mod peers;
mod place;
mod tools;

use std::process::ExitCode;

use corpus::{Corpus, Size, Variant};
use tools::Bench;

fn main() -> ExitCode {
    if peers::any()
        && let Some(code) = place::with_a_nix_of_its_own()
    {
        return code;
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let large = std::env::args().any(|arg| arg == "--large") || variable("PHOENIX_BENCH_LARGE").is_some();
    let size = match variable("PHOENIX_BENCH_MB").map(|text| text.parse::<u64>().expect("megabytes")) {
        Some(megabytes) => Size {
            paths: usize::try_from(megabytes * 3 / 5).unwrap_or(0).max(20),
            bytes: megabytes * 1_000_000,
        },
        None if large => Size { paths: 500, bytes: 1_500_000_000 },
        None => Size { paths: 300, bytes: 467_000_000 },
    };
    let rounds = variable("PHOENIX_BENCH_ROUNDS").map_or(3, |text| text.parse().expect("a number of rounds"));
    let parts = variable("PHOENIX_BENCH_PARTS");
    let is_wanted =
        |part: &str| parts.as_ref().is_none_or(|parts| parts.split(',').any(|one| one.trim() == part));
    peers::say_what_is_absent();
    let Some(corpus) = Corpus::choose(size) else {
        println!("skipped: this is no Debian, so there are no packages to make a closure of");
        return ExitCode::SUCCESS;
    };
    let mut bench = Bench::new(&corpus);
    bench.describe();
    bench.save(if is_wanted("save") { rounds } else { 1 });
    if is_wanted("restore") {
        bench.restore(rounds);
    }
    if is_wanted("part") {
        bench.part_of_it(rounds);
    }
    if is_wanted("substituter") {
        bench.substituter(rounds);
    }
    if is_wanted("again") {
        bench.again(&corpus, Variant::Changed, "after 5 % of the paths changed");
        bench.again(&corpus, Variant::OtherHashes, "after a rebuild that changed only hashes");
    }
    ExitCode::SUCCESS
}
