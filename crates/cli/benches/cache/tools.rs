//! The tools that are compared, and how they are measured.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use phoenix_testkit::NixRoot;
use phoenix_testkit::binary_cache::BinaryCache;
use phoenix_testkit::github::{Github, Permission, Request};

use crate::corpus::{Corpus, Variant};

/// What a command took.
#[derive(Debug, Clone, Copy)]
struct Took {
    seconds: f64,
    /// Peak of resident memory in megabytes, as far as it was seen.
    memory: f64,
}

/// A store with the closure, and beside it what each tool keeps.
pub(crate) struct Bench {
    root: NixRoot,
    /// The path that refers to all others.
    top: String,
    closure: Vec<String>,
    bytes: u64,
    github: Github,
    token: String,
    saved: BTreeMap<&'static str, f64>,
}

impl Bench {
    pub(crate) fn new(corpus: &Corpus) -> Self {
        let base =
            std::env::var_os("PHOENIX_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
        let root = NixRoot::new(Path::new(&base));
        let top = corpus.build(&root, Variant::First);
        let closure: Vec<String> =
            root.run("nix-store", &["--query", "--requisites", &top]).lines().map(str::to_owned).collect();
        let sizes: Vec<&str> =
            ["--query", "--size"].into_iter().chain(closure.iter().map(String::as_str)).collect();
        let bytes = root.run("nix-store", &sizes).lines().filter_map(|line| line.parse::<u64>().ok()).sum();
        let github = Github::start().expect("a server");
        let token = github.token(&[("refs/heads/main", Permission::Both)]);
        Self { root, top, closure, bytes, github, token, saved: BTreeMap::new() }
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
        let mut table = Table::default();
        for _ in 0..rounds {
            for name in ["tar", "export", "copy-file", "dir", "github 0", "github 50"] {
                self.forget(name);
                settle();
                let took = self.save_with(name);
                table.add(name, took);
            }
        }
        for name in ["tar", "export", "copy-file", "dir", "github 0", "github 50"] {
            let kept = self.kept(name);
            self.saved.insert(name, kept);
            table.print(name, &format!("{kept:.0} MB kept"), Some("tar"));
        }
        println!("entries in GitHub's cache: {}", self.github.entries().len());
    }

    /// Every tool restores the closure into an empty store, in turn.
    pub(crate) fn restore(&mut self, rounds: usize) {
        println!("\nrestore into an empty store, seconds (median; range), peak megabytes of memory");
        let names = ["copy", "tar", "export", "copy-file", "copy-http", "dir", "github 0", "github 50"];
        let mut table = Table::default();
        let mut requests = String::new();
        let full = self.put_aside();
        for _ in 0..rounds {
            for name in names {
                let counts = self.github.counts();
                let took = self.restore_with(name, &self.top.clone(), &full);
                if name == "github 50" {
                    let now = self.github.counts();
                    let of = |request| now.of(request) - counts.of(request);
                    requests = format!(
                        "requests of a full restore: {} lookups, {} ranges",
                        of(Request::Lookup),
                        of(Request::GetBlob)
                    );
                }
                if name != "copy" {
                    self.check(&self.closure);
                }
                self.empty();
                table.add(name, took);
            }
        }
        self.put_back(&full);
        for name in names {
            table.print(name, "", Some("copy"));
        }
        println!("dir / tar: {}", table.ratio("dir", "tar"));
        println!("{requests}");
    }

    /// A tenth of the closure: paths that refer to few others.
    pub(crate) fn part_of_it(&mut self, rounds: usize) {
        let alone = |path: &&String| {
            self.root.run("nix-store", &["--query", "--requisites", path.as_str()]).lines().count() == 1
        };
        let some: Vec<String> = self.closure.iter().filter(alone).take(10).cloned().collect();
        let sizes: Vec<&str> =
            ["--query", "--size"].into_iter().chain(some.iter().map(String::as_str)).collect();
        let bytes: u64 =
            self.root.run("nix-store", &sizes).lines().filter_map(|line| line.parse::<u64>().ok()).sum();
        println!("\nrestore of {} paths alone, {:.1} MB of NARs", some.len(), megabytes(bytes));
        let mut table = Table::default();
        let full = self.put_aside();
        for _ in 0..rounds {
            for name in ["dir", "github 50"] {
                let mut command = self.phoenix(name, "restore");
                command.args(&some);
                table.add(name, measure(&mut command));
                self.check(&some);
                self.empty();
            }
        }
        self.put_back(&full);
        for name in ["dir", "github 50"] {
            table.print(name, "", None);
        }
    }

    /// Nix itself takes the closure from a substituter into an empty store, in turn: `phoenix cache serve`, and a
    /// plain server of the files that `nix copy` made.
    pub(crate) fn substituter(&mut self, rounds: usize) {
        println!("\nnix-store --realise into an empty store, seconds (median; range)");
        let mut table = Table::default();
        let full = self.put_aside();
        for _ in 0..rounds {
            let server = BinaryCache::start(&self.root.store_dir()).expect("a server");
            server.serve_directory(self.place("copy-file"));
            table.add("static", self.realise(server.url()));
            drop(server);
            let mut command = self.phoenix("dir", "serve");
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("phoenix");
            let mut url = String::new();
            let stdout = child.stdout.as_mut().expect("stdout");
            BufReader::new(stdout).read_line(&mut url).expect("a URL");
            let mut took = self.realise(url.trim());
            took.memory = peak(child.id());
            table.add("serve", took);
            child.kill().expect("to end it");
            let _ = child.wait();
        }
        self.put_back(&full);
        table.print("static", "", None);
        table.print("serve", "", Some("static"));
        let seconds = table.0["serve"].iter().map(|took| took.seconds).fold(f64::INFINITY, f64::min);
        println!(
            "serve, the best round: {:.0} MB/s, {:.0} paths/s",
            megabytes(self.bytes) / seconds,
            self.closure.len() as f64 / seconds
        );
    }

    fn realise(&self, url: &str) -> Took {
        let took = measure(self.root.command("nix-store").args([
            "--realise",
            &self.top,
            "--option",
            "substituters",
            url,
            "--option",
            "require-sigs",
            "false",
            "--option",
            "narinfo-cache-positive-ttl",
            "0",
            "-j0",
        ]));
        self.check(&self.closure);
        self.empty();
        took
    }

    /// Saves another variant beside what is kept.
    pub(crate) fn again(&mut self, corpus: &Corpus, variant: Variant, words: &str) {
        let top = corpus.build(&self.root, variant);
        let before = self.kept("dir");
        let mut command = self.phoenix("dir", "save");
        command.args(["--include-upstream", &top]);
        let took = measure(&mut command);
        let added = self.kept("dir") - before;
        println!(
            "\na second save {words}: {:.2} s, {added:.1} MB: {:.1} % of the first",
            took.seconds,
            100.0 * added / self.saved["dir"]
        );
    }

    fn phoenix(&self, name: &str, verb: &str) -> Command {
        let mut command = self.root.command(env!("CARGO_BIN_EXE_phoenix"));
        command.args(["cache", verb, "--depot"]);
        if name == "dir" {
            command.arg(format!("dir:{}", self.place(name).display()));
        } else {
            let latency = if name == "github 50" { 50 } else { 0 };
            self.github.behave(|behaviour| behaviour.latency = Duration::from_millis(latency));
            command.arg("github:");
            command.env("ACTIONS_RESULTS_URL", self.github.url()).env("ACTIONS_RUNTIME_TOKEN", &self.token);
        }
        command
    }

    fn place(&self, name: &str) -> PathBuf {
        self.root.path(&format!("kept-{}", name.replace(' ', "-")))
    }

    fn save_with(&self, name: &str) -> Took {
        let place = self.place(name);
        let shown = place.display();
        let root = self.root.path("");
        match name {
            "tar" => measure(self.shell(&format!(
                "tar -C {} -cf - store var/nix/db | zstd -q -3 -T0 -o {shown}",
                root.display()
            ))),
            "export" => {
                measure(self.shell(&format!("nix-store --export $(nix-store -qR {}) > {shown}", self.top)))
            }
            "copy-file" => measure(self.root.command("nix").args([
                "--extra-experimental-features",
                "nix-command",
                "copy",
                "--no-check-sigs",
                "--to",
                &format!("file://{shown}?compression=zstd&parallel-compression=true"),
                &self.top,
            ])),
            _ => measure(self.phoenix(name, "save").args(["--include-upstream", &self.top])),
        }
    }

    fn restore_with(&self, name: &str, top: &str, full: &Path) -> Took {
        let place = self.place(name);
        let shown = place.display();
        let root = self.root.path("");
        let copy = |url: &str| {
            measure(self.root.command("nix").args([
                "--extra-experimental-features",
                "nix-command",
                "copy",
                "--no-check-sigs",
                "--from",
                url,
                top,
            ]))
        };
        match name {
            "copy" => copy_files(&full.join("store"), &root.join("store")),
            "tar" => measure(self.shell(&format!("zstd -q -dc {shown} | tar -C {} -xf -", root.display()))),
            "export" => measure(self.shell(&format!("nix-store --import < {shown} > /dev/null"))),
            "copy-file" => copy(&format!("file://{shown}")),
            "copy-http" => {
                let server = BinaryCache::start(&self.root.store_dir()).expect("a server");
                server.serve_directory(self.place("copy-file"));
                copy(server.url())
            }
            _ => measure(self.phoenix(name, "restore").arg(top)),
        }
    }

    fn shell(&self, script: &str) -> &'static mut Command {
        // A benchmark ends soon.
        let command = Box::leak(Box::new(self.root.command("sh")));
        command.args(["-c", script])
    }

    /// How many megabytes a tool keeps.
    fn kept(&self, name: &str) -> f64 {
        if name.starts_with("github") {
            return megabytes(self.github.entries().iter().map(|entry| entry.size).sum());
        }
        let mut bytes = 0;
        let mut stack = vec![self.place(name)];
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
        if name.starts_with("github") {
            self.github.evict(|_| true);
        }
        remove(&self.place(name));
    }

    /// Moves the full store out of the way.
    fn put_aside(&self) -> PathBuf {
        let full = self.root.path("full");
        std::fs::create_dir_all(&full).expect("a directory");
        std::fs::rename(self.root.path("store"), full.join("store")).expect("to move the store");
        std::fs::rename(self.root.path("var"), full.join("var")).expect("to move the store");
        self.empty();
        full
    }

    fn put_back(&self, full: &Path) {
        remove(&self.root.path("store"));
        remove(&self.root.path("var"));
        std::fs::rename(full.join("store"), self.root.path("store")).expect("to move the store");
        std::fs::rename(full.join("var"), self.root.path("var")).expect("to move the store");
    }

    /// Makes the store an empty one.
    fn empty(&self) {
        remove(&self.root.path("store"));
        remove(&self.root.path("var"));
        std::fs::create_dir_all(self.root.path("var/nix")).expect("a directory");
        self.root.run("nix-store", &["--init"]);
        settle();
    }

    fn check(&self, paths: &[String]) {
        let args: Vec<&str> =
            ["--check-validity"].into_iter().chain(paths.iter().map(String::as_str)).collect();
        self.root.run("nix-store", &args);
    }
}

/// Times of several tools over several rounds.
#[derive(Debug, Default)]
struct Table(BTreeMap<&'static str, Vec<Took>>);

impl Table {
    fn add(&mut self, name: &'static str, took: Took) {
        self.0.entry(name).or_default().push(took);
    }

    fn print(&self, name: &'static str, more: &str, beside: Option<&'static str>) {
        let all = &self.0[name];
        let seconds: Vec<f64> = all.iter().map(|took| took.seconds).collect();
        let memory = all.iter().map(|took| took.memory).fold(0.0, f64::max);
        let ratio =
            beside.map(|other| format!("  {} times {other}", self.ratio(name, other))).unwrap_or_default();
        println!("{name:<10} {}{ratio}  {more}  {memory:.0} MB", shown(seconds));
    }

    /// The ratios of two tools, round by round.
    fn ratio(&self, name: &str, other: &str) -> String {
        shown(self.0[name].iter().zip(&self.0[other]).map(|(a, b)| a.seconds / b.seconds).collect())
    }
}

fn shown(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Runs a command to its end; it has to end well.
fn measure(command: &mut Command) -> Took {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the command");
    let mut memory = 0.0_f64;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the command") {
            break status;
        }
        memory = memory.max(peak(child.id()));
        std::thread::sleep(Duration::from_millis(5));
    };
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        let mut said = String::new();
        let _ = std::io::Read::read_to_string(&mut child.stderr.take().expect("stderr"), &mut said);
        panic!("{command:?}: {status}: {said}");
    }
    Took { seconds, memory }
}

/// Lets what was written before reach the disk, so that the next does not wait for it.
fn settle() {
    rustix::fs::sync();
}

/// The peak of resident memory of a process so far, where the system tells.
fn peak(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
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

/// Removes a file, or a tree although its directories are read-only.
fn remove(path: &Path) {
    let Ok(found) = std::fs::symlink_metadata(path) else { return };
    if !found.is_dir() {
        std::fs::remove_file(path).expect("to remove a file");
        return;
    }
    let mut stack = vec![path.to_path_buf()];
    while let Some(directory) = stack.pop() {
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        for entry in std::fs::read_dir(&directory).expect("a directory").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                stack.push(entry.path());
            }
        }
    }
    std::fs::remove_dir_all(path).expect("to remove a tree");
}
