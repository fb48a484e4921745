//! The tools that are compared, and what is asked of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use phoenix_testkit::binary_cache::BinaryCache;

use crate::corpus::{Corpus, Variant};
use crate::double::{Doubles, requests};
use crate::measure::{Running, Table, Took, measure};
use crate::peers;
use crate::place::{Place, remove};

/// A store with the closure, and beside it what each tool keeps.
pub(crate) struct Bench {
    place: Place,
    /// The path that refers to all others.
    top: String,
    closure: Vec<String>,
    bytes: u64,
    doubles: Doubles,
    saved: BTreeMap<String, f64>,
}

impl Bench {
    pub(crate) fn new(corpus: &Corpus) -> Self {
        let place = Place::new();
        let start = Instant::now();
        let top = corpus.build(&place, Variant::First);
        let closure: Vec<String> =
            place.run("nix-store", &["--query", "--requisites", &top]).lines().map(str::to_owned).collect();
        let bytes = size(&place, &closure);
        let mut doubles = Doubles::default();
        for tool in ["github"].into_iter().chain(peers::tools()) {
            doubles.start(tool);
        }
        println!("made in {:.0} s", start.elapsed().as_secs_f64());
        Self { place, top, closure, bytes, doubles, saved: BTreeMap::new() }
    }

    pub(crate) fn describe(&self) {
        let mut files = 0_u64;
        let mut stack: Vec<PathBuf> = self.closure.iter().map(PathBuf::from).collect();
        while let Some(path) = stack.pop() {
            let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
            if found.is_dir() {
                stack.extend(
                    std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()),
                );
            } else {
                files += 1;
            }
        }
        println!(
            "closure: {} paths, {:.0} MB of NARs, {files} files",
            self.closure.len(),
            megabytes(self.bytes)
        );
    }

    /// Every tool saves the closure, into nothing, in turn.
    pub(crate) fn save(&mut self, rounds: usize) {
        println!("\nsave, seconds (median; range), megabytes kept, peak megabytes of memory");
        let mut names = vec!["tar", "export", "copy-file", "dir", "github 0", "github 50"];
        names.extend(peers::tools());
        let mut table = Table::default();
        let mut asked = BTreeMap::new();
        for round in 0..rounds {
            for name in names.iter().filter(|name| is_due(name, round)) {
                self.forget(name);
                self.place.settle();
                let before = self.doubles.of(name).map(|double| double.github.counts());
                table.add(name, self.save_with(name));
                if let (Some(before), Some(double)) = (before, self.doubles.of(name)) {
                    let entries = double.github.entries().len();
                    let asked_now = requests(&before, &double.github.counts());
                    asked.insert(*name, format!("{entries} entries; {asked_now}"));
                }
                self.saved.insert(peers::family(name).to_owned(), self.kept(name));
            }
        }
        println!();
        for name in &names {
            let kept = self.saved[peers::family(name)];
            table.print(name, &format!("{kept:.0} MB kept"), Some("tar"));
        }
        for (name, asked) in asked {
            println!("{name}: {asked}");
        }
    }

    /// Every tool restores the closure into an empty store, in turn.
    pub(crate) fn restore(&mut self, rounds: usize) {
        println!("\nrestore into an empty store, seconds (median; range), peak megabytes of memory");
        let mut names =
            vec!["copy", "tar", "export", "copy-file", "copy-http", "dir", "github 0", "github 50"];
        names.extend(peers::tools());
        let mut table = Table::default();
        let mut asked = BTreeMap::new();
        let full = self.place.put_aside();
        for round in 0..rounds {
            for name in names.iter().filter(|name| is_due(name, round)) {
                let before = self.doubles.of(name).map(|double| double.github.counts());
                let took = self.restore_with(name, &self.top, &full);
                if let (Some(before), Some(double)) = (before, self.doubles.of(name)) {
                    asked.insert(*name, requests(&before, &double.github.counts()));
                }
                if *name != "copy" {
                    self.check(&self.closure);
                }
                if peers::is_peer(name) && round == 0 {
                    self.place.run("nix-store", &["--verify", "--check-contents"]);
                }
                self.place.empty();
                table.add(name, took);
            }
        }
        self.place.put_back(&full);
        println!();
        for name in &names {
            table.print(name, "", Some("copy"));
        }
        for other in ["tar"].into_iter().chain(peers::tools()) {
            let ours = if other.ends_with(" 50") { "github 50" } else { "github 0" };
            let ours = if other == "tar" { "dir" } else { ours };
            println!("{ours} / {other}: {}", table.ratio(ours, other));
        }
        for (name, asked) in asked {
            println!("{name}: {asked}");
        }
    }

    /// A tenth of the closure: paths that refer to few others.
    pub(crate) fn part_of_it(&mut self, rounds: usize) {
        let alone = |path: &&String| {
            self.place.run("nix-store", &["--query", "--requisites", path.as_str()]).lines().count() == 1
        };
        let some: Vec<String> = self.closure.iter().filter(alone).take(10).cloned().collect();
        let bytes = size(&self.place, &some);
        println!("\nrestore of {} paths alone, {:.1} MB of NARs", some.len(), megabytes(bytes));
        let mut table = Table::default();
        let full = self.place.put_aside();
        for _ in 0..rounds {
            for name in ["dir", "github 50"] {
                let mut command = self.phoenix(name, "restore");
                command.args(&some);
                let took = measure(&mut command);
                self.check(&some);
                self.place.empty();
                table.add(name, took);
            }
        }
        self.place.put_back(&full);
        println!();
        for name in ["dir", "github 50"] {
            table.print(name, "", None);
        }
    }

    /// Nix itself takes the closure from a substituter into an empty store, in turn: `phoenix cache serve`, a plain
    /// server of the files that `nix copy` made, and peers.
    pub(crate) fn substituter(&mut self, rounds: usize) {
        println!("\nnix-store --realise into an empty store, seconds (median; range)");
        let mut names = vec!["static", "dir", "github 0", "github 50"];
        names.extend(peers::substituters());
        let mut table = Table::default();
        let full = self.place.put_aside();
        for round in 0..rounds {
            for name in names.iter().filter(|name| is_due(name, round)) {
                let took = match (*name, self.doubles.of(name)) {
                    ("static", _) => {
                        let server = BinaryCache::start(&self.place.store_dir()).expect("a server");
                        server.serve_directory(self.kept_at("copy-file"));
                        measure(&mut peers::realise(&self.place, server.url(), &self.top))
                    }
                    (_, Some(double)) if peers::is_peer(name) => {
                        let (service, url) = peers::serve(&self.place, double, name);
                        let mut realise = peers::realise(&self.place, &format!("{url}?trusted=1"), &self.top);
                        service.took([measure(&mut realise)])
                    }
                    _ => {
                        let service = self.serve(name);
                        let mut realise = peers::realise(&self.place, &service.url, &self.top);
                        service.took([measure(&mut realise)])
                    }
                };
                self.check(&self.closure);
                self.place.empty();
                table.add(name, took);
            }
        }
        self.place.put_back(&full);
        println!();
        for name in &names {
            let seconds = table.seconds(name).into_iter().fold(f64::INFINITY, f64::min);
            let rate = format!(
                "best: {:.0} MB/s, {:.0} paths/s",
                megabytes(self.bytes) / seconds,
                self.closure.len() as f64 / seconds
            );
            table.print(name, &rate, Some("static"));
        }
        for other in peers::substituters() {
            let ours = if other.ends_with(" 50") { "github 50" } else { "github 0" };
            println!("{other} / {ours}: {}", table.ratio(other, ours));
        }
    }

    /// Starts `phoenix cache serve`.
    fn serve(&self, name: &str) -> Running {
        let mut command = self.phoenix(name, "serve");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("phoenix");
        let mut url = String::new();
        let stdout = child.stdout.as_mut().expect("stdout");
        BufReader::new(stdout).read_line(&mut url).expect("a URL");
        Running::of(child, url.trim().to_owned())
    }

    /// Saves another variant beside what is kept.
    pub(crate) fn again(&mut self, corpus: &Corpus, variant: Variant, words: &str) {
        println!("\na second save {words}");
        let top = corpus.build(&self.place, variant);
        // cache-nix-action saves everything whenever something is new.
        let substituters = peers::substituters().into_iter().filter(|name| name.ends_with(" 0"));
        for name in ["dir"].into_iter().chain(substituters) {
            let before = self.kept(name);
            let took = match self.doubles.of(name) {
                Some(double) => peers::save(&self.place, double, name, &top),
                None => measure(self.phoenix(name, "save").args(["--include-upstream", &top])),
            };
            let added = self.kept(name) - before;
            let first = self.saved[peers::family(name)];
            println!(
                "{name}: {:.2} s, {added:.1} MB: {:.1} % of the first",
                took.seconds,
                100.0 * added / first
            );
        }
    }

    fn phoenix(&self, name: &str, verb: &str) -> Command {
        let mut command = self.place.command(env!("CARGO_BIN_EXE_phoenix"));
        command.args(["cache", verb, "--depot"]);
        match self.doubles.of(name) {
            None => command.arg(format!("dir:{}", self.kept_at(name).display())),
            Some(double) => command
                .arg("github:")
                .env("ACTIONS_RESULTS_URL", double.github.url())
                .env("ACTIONS_RUNTIME_TOKEN", &double.token),
        };
        command
    }

    fn kept_at(&self, name: &str) -> PathBuf {
        self.place.path(&format!("kept-{name}"))
    }

    fn save_with(&self, name: &str) -> Took {
        let kept = self.kept_at(name);
        let shown = kept.display();
        match (name, self.doubles.of(name)) {
            ("tar", _) => measure(&mut self.shell(&format!(
                "tar -C {} -cf - store var/nix/db | zstd -q -3 -T0 -o {shown}",
                self.place.nix().display()
            ))),
            ("export", _) => measure(
                &mut self.shell(&format!("nix-store --export $(nix-store -qR {}) > {shown}", self.top)),
            ),
            ("copy-file", _) => measure(self.nix_copy().args([
                "--to",
                &format!("file://{shown}?compression=zstd&parallel-compression=true"),
                &self.top,
            ])),
            (_, Some(double)) if peers::is_peer(name) => peers::save(&self.place, double, name, &self.top),
            _ => measure(self.phoenix(name, "save").args(["--include-upstream", &self.top])),
        }
    }

    fn restore_with(&self, name: &str, top: &str, full: &Path) -> Took {
        let kept = self.kept_at(name);
        let shown = kept.display();
        let nix = self.place.nix();
        let copy = |url: &str| measure(self.nix_copy().args(["--from", url, top]));
        match (name, self.doubles.of(name)) {
            ("copy", _) => copy_files(&full.join("store"), &nix.join("store")),
            ("tar", _) => {
                measure(&mut self.shell(&format!("zstd -q -dc {shown} | tar -C {} -xf -", nix.display())))
            }
            ("export", _) => measure(&mut self.shell(&format!("nix-store --import < {shown} > /dev/null"))),
            ("copy-file", _) => copy(&format!("file://{shown}")),
            ("copy-http", _) => {
                let server = BinaryCache::start(&self.place.store_dir()).expect("a server");
                server.serve_directory(self.kept_at("copy-file"));
                copy(server.url())
            }
            (_, Some(double)) if peers::is_peer(name) => peers::restore(&self.place, double, name, top),
            _ => measure(self.phoenix(name, "restore").arg(top)),
        }
    }

    fn nix_copy(&self) -> Command {
        let mut command = self.place.command("nix");
        command.args(["--extra-experimental-features", "nix-command", "copy", "--no-check-sigs"]);
        command
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = self.place.command("sh");
        command.args(["-c", script]);
        command
    }

    /// How many megabytes a tool keeps.
    fn kept(&self, name: &str) -> f64 {
        if let Some(double) = self.doubles.of(name) {
            return megabytes(double.github.entries().iter().map(|entry| entry.size).sum());
        }
        let mut bytes = 0;
        let mut stack = vec![self.kept_at(name)];
        while let Some(path) = stack.pop() {
            let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
            if found.is_dir() {
                stack.extend(
                    std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()),
                );
            } else {
                bytes += found.len();
            }
        }
        megabytes(bytes)
    }

    fn forget(&self, name: &str) {
        if let Some(double) = self.doubles.of(name) {
            double.github.evict(|_| true);
        }
        remove(&self.kept_at(name));
    }

    fn check(&self, paths: &[String]) {
        let args: Vec<&str> =
            ["--check-validity"].into_iter().chain(paths.iter().map(String::as_str)).collect();
        self.place.run("nix-store", &args);
    }
}

/// Whether a tool has its turn in a round: the one that asks twice for each path takes minutes when each request waits,
/// and has one.
fn is_due(name: &str, round: usize) -> bool {
    round == 0 || name != "magic-nix-cache 50"
}

/// The size of paths' NARs.
fn size(place: &Place, paths: &[String]) -> u64 {
    let args: Vec<&str> = ["--query", "--size"].into_iter().chain(paths.iter().map(String::as_str)).collect();
    place.run("nix-store", &args).lines().filter_map(|line| line.parse::<u64>().ok()).sum()
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Copies a tree, its files by as many threads as there are processors.
fn copy_files(from: &Path, to: &Path) -> Took {
    let start = Instant::now();
    let tops: Vec<PathBuf> =
        std::fs::read_dir(from).expect("a store").flatten().map(|entry| entry.path()).collect();
    std::fs::create_dir_all(to).expect("a directory");
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(path) = tops.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(name) = path.file_name().filter(|name| *name != OsStr::new(".links")) {
                        copy(path, &to.join(name));
                    }
                }
            });
        }
    });
    Took { seconds: start.elapsed().as_secs_f64(), memory: 0.0 }
}

fn copy(from: &Path, to: &Path) {
    let found = std::fs::symlink_metadata(from).expect("a file");
    if found.is_dir() {
        std::fs::create_dir(to).expect("a directory");
        for entry in std::fs::read_dir(from).expect("a directory").flatten() {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else if found.is_symlink() {
        std::os::unix::fs::symlink(std::fs::read_link(from).expect("a link"), to).expect("a link");
    } else {
        // Not `fs::copy`, which on some file systems shares the blocks instead of writing them.
        let bytes = std::fs::read(from).expect("a file");
        std::fs::write(to, bytes).expect("a file");
        std::fs::set_permissions(to, found.permissions()).expect("its mode");
    }
}
