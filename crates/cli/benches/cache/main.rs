//! Saving a closure and restoring it: `phoenix cache` beside what else moves store paths, in one run.
//!
//! `cargo xtask bench cache [LARGE]`. The closure is made of the files of Debian packages that are installed
//! on this machine, so it needs a Debian or Ubuntu; Nix, `tar` and `zstd` too. Every tool restores into an
//! empty store of its own; all of them run in turn, several rounds, and the ratios are those of each round.
//!
//! All is written to a new directory below `target/`, or below `PHOENIX_BENCH_DIR`: on a machine whose disk is
//! slow or shared, a `tmpfs` shows what the tools themselves take.
//!
//! - *copy*: the same files copied by as many threads as there are processors, with modes, neither compressed
//!   nor verified: the floor.
//! - *tar*: `tar | zstd -3 -T0` of the whole store and its database, as whole-store caches do it.
//! - *export*: `nix-store --export`, `--import`; *copy-file* and *copy-http*: `nix copy` (zstd) to a directory, and
//!   from it directly or over HTTP.
//! - *dir*, *github 0*, *github 50*: `phoenix cache` over a directory, and over a double of GitHub's cache service
//!   that waits 0 or 50 ms before it answers a request.

mod corpus;
mod tools;

use corpus::{Corpus, Size, Variant};
use tools::Bench;

const ROUNDS: usize = 3;

fn main() {
    let large =
        std::env::args().any(|arg| arg == "--large") || std::env::var_os("PHOENIX_BENCH_LARGE").is_some();
    let size = if large {
        Size { paths: 500, bytes: 1_500_000_000 }
    } else {
        Size { paths: 300, bytes: 467_000_000 }
    };
    let Some(corpus) = Corpus::choose(size) else {
        println!("skipped: this is no Debian, so there are no packages to make a closure of");
        return;
    };
    let mut bench = Bench::new(&corpus);
    bench.describe();
    bench.save(ROUNDS);
    bench.restore(ROUNDS);
    bench.part_of_it(ROUNDS);
    bench.substituter(ROUNDS);
    bench.again(&corpus, Variant::Changed, "after 5 % of the paths changed");
    bench.again(&corpus, Variant::OtherHashes, "after a rebuild that changed only hashes");
}
