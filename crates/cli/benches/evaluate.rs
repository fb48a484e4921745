//! Evaluating many attributes: wall time, processor time, peak memory and the time to the first line, with one and two
//! evaluators, beside one plain `nix-instantiate` over the same attributes, and nix-eval-jobs where it is on PATH.
//!
//! `cargo bench --package phoenix-cli --bench evaluate`. The synthetic flake has 2,000 packages of 20 inputs each, in
//! groups of 100 that build upon each other and on 100 that all share, and each of the last 100 has a source of its own;
//! with *errors* every tenth throws. A real nixpkgs is measured where `PHOENIX_BENCH_NIXPKGS` names its directory, as the
//! locked input of a flake. After the fresh run nothing is changed; then a README, twice, for an answer holds for sources
//! whose paths lie between those of two that gave it, as these are chosen to; then the source of one package. Each fresh run has a fresh store, in
//! `PHOENIX_BENCH_DIR` (a `tmpfs`, best) or the target directory; all take turns. Memory is what all processes of Nix
//! have together, looked at every 10 ms.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use phoenix_testkit::{Around, NixRoot};

const ROUNDS: usize = 3;

/// What is evaluated.
struct Subject {
    name: &'static str,
    flake: PathBuf,
    /// What `nix-instantiate` is given, once it is known which attributes evaluate.
    plain: Option<PathBuf>,
    /// The expression of the set.
    set: String,
    /// What a single package is made of.
    leaf: Option<&'static str>,
}

/// What a run took.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    wall: f64,
    cpu: f64,
    first: f64,
    peak: f64,
    lines: usize,
}

fn main() {
    let base = std::env::var_os("PHOENIX_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let directory = tempfile::tempdir().expect("a directory");
    let mut subjects = vec![
        synthetic(directory.path(), "synthetic", false),
        synthetic(directory.path(), "synthetic with errors", true),
    ];
    match std::env::var_os("PHOENIX_BENCH_NIXPKGS") {
        Some(nixpkgs) => subjects.push(real(directory.path(), Path::new(&nixpkgs))),
        None => println!("nixpkgs: not present (PHOENIX_BENCH_NIXPKGS), skipped"),
    }
    let only = std::env::var("PHOENIX_BENCH_ONLY").ok();
    for subject in subjects.iter_mut().filter(|subject| only.as_ref().is_none_or(|only| subject.name == only))
    {
        measure(&base, directory.path(), subject);
    }
}

fn system() -> String {
    let os = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    format!("{}-{os}", std::env::consts::ARCH)
}

/// 2,000 packages.
fn synthetic(directory: &Path, name: &'static str, errors: bool) -> Subject {
    let flake = directory.join(name.replace(' ', "-"));
    std::fs::create_dir_all(&flake).expect("a directory");
    let text = format!(
        r#"let
  count = 2000;
  mod = a: b: a - b * (a / b);
  # Ten of the hundred that all share, and ten of the group; the first hundred build on each other.
  input = number: k:
    let group = number / 100 * 100; before = number - group; drawn = number * 7919 + k * 104729;
    in if number < 100 then (if number == 0 then null else mod drawn number)
       else if k < 10 then mod drawn 100
       else if before == 0 then null else group + mod drawn before;
  package = number: derivation {{
    name = "package-${{toString number}}";
    system = "{system}";
    builder = "/bin/sh";
    args = [ "-c" "echo ${{toString number}} > $out" ];
    inputs = map (other: builtins.elemAt packages other)
      (builtins.filter (other: other != null) (builtins.genList (input number) 20));
    text = builtins.concatStringsSep "\n" (builtins.genList (line: "line ${{toString line}} of a configure phase") 20);
    src = if number < count - 100 then null else ./sources + "/${{toString number}}";
  }};
  packages = builtins.genList package count;
  isBroken = number: {errors} && mod number 10 == 5;
in builtins.listToAttrs (builtins.genList (number: {{
  name = "package-${{toString number}}";
  value = if isBroken number then throw "package-${{toString number}} is marked as broken" else builtins.elemAt packages number;
}}) count)
"#,
        system = system()
    );
    std::fs::write(flake.join("packages.nix"), text).expect("a file");
    std::fs::create_dir_all(flake.join("sources")).expect("a directory");
    for number in 1900..2000 {
        std::fs::write(flake.join(format!("sources/{number}")), "0").expect("a file");
    }
    std::fs::write(flake.join("README"), "0").expect("a file");
    std::fs::write(
        flake.join("flake.nix"),
        format!("{{ outputs = {{ self }}: {{ packages.{} = import ./packages.nix; }}; }}", system()),
    )
    .expect("a file");
    let set = format!("import {}", flake.join("packages.nix").display());
    Subject { name, flake, plain: None, set, leaf: Some("sources/1950") }
}

/// A nixpkgs of 2015, as the input of a flake.
fn real(directory: &Path, nixpkgs: &Path) -> Subject {
    let flake = directory.join("nixpkgs");
    std::fs::create_dir_all(&flake).expect("a directory");
    let call = format!("{{ config = {{ }}; system = \"{}\"; }}", system());
    let text = format!(
        "{{ inputs.nixpkgs = {{ url = \"path:{}\"; flake = false; }};
           outputs = {{ self, nixpkgs }}: {{ packages.{} = import nixpkgs {call}; }}; }}",
        nixpkgs.display(),
        system()
    );
    std::fs::write(flake.join("flake.nix"), text).expect("a file");
    std::fs::write(flake.join("README"), "0").expect("a file");
    let root = NixRoot::new(directory);
    root.run("nix", &["flake", "lock", &format!("path:{}", flake.display())]);
    let set = format!("import {} {call}", nixpkgs.display());
    Subject { name: "nixpkgs", flake, plain: None, set, leaf: None }
}

fn measure(base: &Path, directory: &Path, subject: &mut Subject) {
    let has_jobs =
        Command::new("nix-eval-jobs").arg("--version").output().is_ok_and(|ran| ran.status.success());
    let mut all: Vec<(String, Vec<Taken>)> = Vec::new();
    let mut note = |what: String, taken: Taken| {
        eprintln!("{what}: {taken:.2?}");
        match all.iter_mut().find(|(known, _)| *known == what) {
            Some((_, runs)) => runs.push(taken),
            None => all.push((what, vec![taken])),
        }
    };
    for _ in 0..ROUNDS {
        for workers in ["1", "2"] {
            let root = NixRoot::new(base);
            let readme = subject.flake.join("README");
            let write = |text: &str| std::fs::write(&readme, text).expect("a file");
            let around = Around::choose(&root, &subject.flake, "README");
            write(around.texts()[0]);
            let mut good = Vec::new();
            note(format!("phoenix, {workers} workers"), phoenix(&root, subject, workers, &mut good));
            if subject.plain.is_none() {
                subject.plain = Some(plain_file(directory, subject, &good));
            }
            if workers == "1" {
                let mut again = |what: &str| {
                    note(format!("phoenix, {what}"), phoenix(&root, subject, workers, &mut Vec::new()));
                };
                again("unchanged");
                write(around.texts()[1]);
                again("a README changed, for the first time");
                around.change_between(&root, &subject.flake, "README");
                again("a README changed");
                if let Some(leaf) = subject.leaf {
                    for text in &around.texts()[2..] {
                        write(text);
                        phoenix(&root, subject, workers, &mut Vec::new());
                    }
                    around.change_between(&root, &subject.flake, leaf);
                    again("a leaf's source changed");
                }
            }
            if has_jobs {
                let root = NixRoot::new(base);
                let mut command = root.command("nix-eval-jobs");
                command.args(["--flake", &format!("{}#packages.{}", reference(subject), system())]);
                command.args(["--workers", workers]);
                note(format!("nix-eval-jobs, {workers} workers"), run(command, &mut |_| {}));
            }
        }
        let root = NixRoot::new(base);
        let mut command = root.command("nix-instantiate");
        command.arg(subject.plain.as_ref().expect("a file"));
        note("nix-instantiate".to_owned(), run(command, &mut |_| {}));
    }
    let plain = all.iter().find(|(what, _)| what == "nix-instantiate").map(|(_, runs)| runs.clone());
    let plain = plain.expect("a run of nix-instantiate");
    println!("\n{}", subject.name);
    for (what, runs) in &all {
        let of = |part: fn(&Taken) -> f64| shown(&mut runs.iter().map(part).collect::<Vec<_>>());
        let beside = |part: fn(&Taken) -> f64| {
            shown(
                &mut runs.iter().zip(&plain).map(|(one, plain)| part(one) / part(plain)).collect::<Vec<_>>(),
            )
        };
        println!(
            "{what}: wall {} s, {} of plain; processor {} s, {} of plain; first line {} s; peak {} MiB; {} lines",
            of(|taken| taken.wall),
            beside(|taken| taken.wall),
            of(|taken| taken.cpu),
            beside(|taken| taken.cpu),
            of(|taken| taken.first),
            of(|taken| taken.peak),
            runs[0].lines
        );
    }
}

fn reference(subject: &Subject) -> String {
    format!("path:{}", subject.flake.display())
}

fn phoenix(root: &NixRoot, subject: &Subject, workers: &str, good: &mut Vec<String>) -> Taken {
    let mut command = root.command(env!("CARGO_BIN_EXE_phoenix"));
    command.args([
        "eval",
        "--eval-workers",
        workers,
        "--include",
        "packages.{system}.*",
        &reference(subject),
    ]);
    run(command, &mut |line| {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if value["drvPath"].is_string() {
            good.push(value["attrPath"][2].as_str().expect("a name").to_owned());
        }
    })
}

/// A file of all attributes that evaluate.
fn plain_file(directory: &Path, subject: &Subject, good: &[String]) -> PathBuf {
    let names: Vec<String> =
        good.iter().map(|name| serde_json::Value::from(name.as_str()).to_string()).collect();
    let file = directory.join(format!("{}.nix", subject.name.replace(' ', "-")));
    let text = format!("let set = {}; in map (name: set.${{name}}) [ {} ]", subject.set, names.join(" "));
    std::fs::write(&file, text).expect("a file");
    file
}

fn run(mut command: Command, line: &mut dyn FnMut(&str)) -> Taken {
    let before = processor();
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a process");
    let (peak, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let watch = {
        let (peak, over, id) = (peak.clone(), over.clone(), child.id());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(memory_of_nix(id), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        })
    };
    let (mut first, mut lines) = (0.0, 0);
    for text in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        if lines == 0 {
            first = begin.elapsed().as_secs_f64();
        }
        lines += 1;
        line(&text.expect("text"));
    }
    let status = child.wait().expect("an end");
    let wall = begin.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    watch.join().expect("a thread");
    assert!(matches!(status.code(), Some(0 | 120)), "{command:?}: {status}");
    #[expect(clippy::cast_precision_loss, reason = "it is shown in MiB")]
    let peak = peak.load(Ordering::Relaxed) as f64 / f64::from(1 << 20);
    Taken { wall, cpu: processor() - before, first, peak, lines }
}

/// The processor time of all processes that were waited for.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    // `cutime` and `cstime`, in hundredths of a second (proc(5)).
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(13) + ticks(14)) / 100.0
}

/// What a process, if it is Nix, and all below it that are, have in memory.
fn memory_of_nix(top: u32) -> u64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(text) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = text.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(id);
    }
    let (mut all, mut open) = (0, vec![top]);
    while let Some(id) = open.pop() {
        open.extend(children.get(&id).into_iter().flatten());
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_default();
        if read("comm").starts_with("nix") {
            let pages = read("statm").split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
            all += pages.unwrap_or(0) * 4096;
        }
    }
    all
}

fn shown(figures: &mut [f64]) -> String {
    figures.sort_by(f64::total_cmp);
    let (low, median, high) = (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
    format!("{median:.2} ({low:.2} to {high:.2})")
}
