//! The farm on real Nix: 60 derivations of half a second, of which 20 targets share 20, built by one worker, by two
//! and by four, and by a worker for each target that knows nothing of the others.
//!
//! `cargo bench --package phoenix-cli --bench runners`. Rounds run in turn. A builder leaves a line outside the store
//! each time it runs, which counts builds. Linux only, as `run --runners` is.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use phoenix_testkit::{Flake, NixRoot};

const ROUNDS: usize = 3;
const TARGETS: usize = 20;
const DERIVATIONS: usize = 3 * TARGETS;

fn main() {
    if !cfg!(target_os = "linux") {
        println!("skipped: several stores on one machine need Linux");
        return;
    }
    let (mut one, mut two, mut four, mut apart) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let seconds = [1, 2, 4].map(together);
        let (separate, builds) = separately();
        println!(
            "round {round}: 1 worker {:.1} s, 2 {:.1} s, 4 {:.1} s; a worker for each of {TARGETS} targets {separate:.1} s, {builds} builds",
            seconds[0], seconds[1], seconds[2]
        );
        one.push(seconds[0] / seconds[2]);
        two.push(seconds[1] / seconds[2]);
        four.push(seconds[2] / (DERIVATIONS as f64 * 0.5 / 4.0));
        apart.push(separate / seconds[2]);
    }
    println!("{DERIVATIONS} derivations of 0.5 s, each built once by the workers together");
    println!("1 worker / 4 workers: {}", shown(&mut one));
    println!("2 workers / 4 workers: {}", shown(&mut two));
    println!("4 workers / (the seconds of all builds / 4): {}", shown(&mut four));
    println!("a worker for each target / 4 workers: {}", shown(&mut apart));
}

fn shown(ratios: &mut [f64]) -> String {
    ratios.sort_by(f64::total_cmp);
    let (low, median, high) = (ratios[0], ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
    format!("{median:.2} (median of {}; {low:.2} to {high:.2})", ratios.len())
}

/// A store of its own.
fn root(marks: &Path) -> NixRoot {
    let root = NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let there = |path: &&str| Path::new(path).exists();
    let paths: Vec<&str> = ["/bin", "/usr", "/lib", "/lib64"].into_iter().filter(there).collect();
    root.configure(&format!("sandbox-paths = {} {}", paths.join(" "), marks.display()));
    root
}

fn flake(marks: &Path) -> Flake {
    Flake::new(&format!(
        r#"let
          inherit (builtins) elemAt genList listToAttrs;
          slow = name: attrs: d name "sleep 0.5; echo built >> {}/${{name}}; echo x > $out" attrs;
          deps = genList (n: slow "dep-${{toString n}}" {{ deps = if n < 5 then [ ] else [ (elemAt deps (n - 5)) ]; }}) {TARGETS};
          own = n: slow "own-${{toString n}}" {{ deps = [ (elemAt deps n) ]; }};
          top = n: slow "top-${{toString n}}" {{ deps = [ (own n) (elemAt deps ({TARGETS} - 1)) ]; }};
        in {{ packages.${{system}} = listToAttrs
          (genList (n: {{ name = "top-${{toString n}}"; value = top n; }}) {TARGETS}); }}"#,
        marks.display()
    ))
}

fn builds(marks: &Path) -> usize {
    let entries = std::fs::read_dir(marks).expect("marks").map(|entry| entry.expect("a mark").path());
    entries.map(|mark| std::fs::read_to_string(mark).expect("a mark").lines().count()).sum()
}

/// A directory that builders may write to.
fn marks() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn start(root: &NixRoot, args: &[&str]) -> Child {
    let mut command = root.command(env!("CARGO_BIN_EXE_phoenix"));
    command.arg("run").args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("phoenix")
}

fn together(workers: usize) -> f64 {
    let marks = marks();
    let (root, flake) = (root(marks.path()), flake(marks.path()));
    let begin = Instant::now();
    let status = start(&root, &["--runners", &workers.to_string(), &flake.reference()]).wait();
    let seconds = begin.elapsed().as_secs_f64();
    assert!(status.expect("phoenix").success(), "phoenix failed");
    assert_eq!(builds(marks.path()), DERIVATIONS, "each is built once");
    seconds
}

/// All at the same time, each with a store of its own.
fn separately() -> (f64, usize) {
    let marks = marks();
    let flake = flake(marks.path());
    let roots: Vec<NixRoot> = (0..TARGETS).map(|_| root(marks.path())).collect();
    let begin = Instant::now();
    let runs = roots.iter().enumerate();
    // As a runner for each target would: one build at a time.
    let runs: Vec<Child> =
        runs.map(|(n, root)| start(root, &["-j", "1", &format!("{}#top-{n}", flake.reference())])).collect();
    for mut run in runs {
        assert!(run.wait().expect("phoenix").success(), "phoenix failed");
    }
    (begin.elapsed().as_secs_f64(), builds(marks.path()))
}
