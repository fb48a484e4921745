//! `phoenix run --runners` on real Nix: several worker processes, each with a store of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::sixty::{each_once, marks, shared, wait_for_marks};
use common::{Ran, TestEnv, end, start};
use phoenix_testkit::github::{Github, Permission, Request};
use phoenix_testkit::{Flake, NatsServer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What all workers of all runs said.
fn worker_logs(env: &TestEnv) -> String {
    let runs = fs_err::read_dir(env.nix.path("home/.state/phoenix/runs")).unwrap();
    let logs = runs.flat_map(|run| (0..4).map(move |slot| (run.as_ref().unwrap().path(), slot)));
    let texts = logs.map(|(run, slot)| fs_err::read_to_string(run.join(format!("farm/{slot}/log"))));
    texts.map(Result::unwrap_or_default).collect()
}

fn signal(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
}

/// The process of one worker of a run.
fn worker(run: &Child, slot: usize) -> u32 {
    let children = fs_err::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap();
    let is_it = |id: &&str| {
        let line = fs_err::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let args: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        args.windows(2).any(|pair| pair == [b"--slot".as_slice(), slot.to_string().as_bytes()])
    };
    children.split_whitespace().find(is_it).unwrap().parse().unwrap()
}

#[test]
fn what_targets_share_is_built_once() {
    let env = TestEnv::new();
    let flake = shared(&env, "0.05");
    let (ran, report) = env.report(&["--runners", "4", "-v", &flake.reference()]);
    let _ = ran.ends_with(0).says("on runner 3");
    assert!(worker_logs(&env).contains("paths were fetched ahead"), "{}", worker_logs(&env));
    assert_eq!((report.count("targets", "built"), report.count("derivations", "built")), (20, 60));
    each_once(&env);
    // It is all here now, and sound.
    let (ran, report) = env.report(&["--runners", "4", &flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!((report.count("targets", "cached"), report.count("derivations", "built")), (20, 0));
    let out = report.field(&format!("packages.{}.top-7", env.system()), "outputs")["out"].clone();
    let _ = env.sound(out.as_str().unwrap());
    each_once(&env);
}

#[test]
fn what_an_output_refers_to_comes_with_it_whoever_built_that() {
    let env = TestEnv::new();
    drop(shared(&env, "0"));
    let place = env.nix.path("marks").display().to_string();
    // Four layers of eight, each of which keeps the paths of two below it.
    let flake = Flake::new(&format!(
        r#"let
          inherit (builtins) elemAt genList listToAttrs;
          node = name: deps: d name
            "sleep 0.2; echo built >> {place}/${{name}}; for i in $deps; do cat $i > /dev/null || exit 1; done; echo $deps > $out"
            {{ inherit deps; }};
          modulo = n: n - n / 8 * 8;
          layer = k: genList (n: node "l${{toString k}}-${{toString n}}" (if k == 0 then [ ] else
            [ (elemAt (layer (k - 1)) n) (elemAt (layer (k - 1)) (modulo (n * 3 + 1))) ])) 8;
        in {{ packages.${{system}} = listToAttrs (map (value: {{ inherit value; inherit (value) name; }}) (layer 3)); }}"#
    ));
    let (ran, report) = env.report(&["--runners", "4", &flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!(report.count("derivations", "built"), 32);
    let marks = marks(&env);
    assert!(marks.len() == 32 && marks.values().all(|count| *count == 1), "{marks:?}");
}

#[test]
fn a_failure_blocks_what_needs_it_and_nothing_else() {
    let env = TestEnv::new();
    let flake = shared(&env, "0.02");
    let marks = env.nix.path("marks");
    fs_err::write(marks.join(".broken"), "own-3\n").unwrap();
    let (ran, report) = env.report(&["--runners", "3", &flake.reference()]);
    let _ = ran.ends_with(100).says("own-3");
    assert_eq!((report.count("targets", "built"), report.count("targets", "blocked")), (19, 1));
    let attr = format!("packages.{}.top-3", env.system());
    assert_eq!(report.verdict(&attr), "blocked");
    assert!(report.field(&attr, "blockedBy").to_string().contains("own-3"));
    // What was built stays built.
    fs_err::remove_file(marks.join(".broken")).unwrap();
    let (ran, report) = env.report(&["--runners", "3", &flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!((report.count("targets", "built"), report.count("derivations", "built")), (1, 2));
}

#[test]
fn the_whole_log_of_a_build_is_here() {
    let env = TestEnv::new();
    drop(shared(&env, "0"));
    let flake = Flake::new(
        r#"{ packages.${system}.bad =
          d "bad" "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; exit 1" { }; }"#,
    );
    let (ran, report) = env.report(&["--runners", "2", "-L", &flake.reference()]);
    let ran = ran.ends_with(100).says("bad> line 3");
    let derivation = &report.0["derivations"][0];
    let log = fs_err::read_to_string(derivation["log"].as_str().unwrap()).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[99]), (100, "line 0", "line 99"), "{ran}");
}

#[test]
fn another_takes_what_a_killed_worker_had() {
    let env = TestEnv::new();
    let flake = shared(&env, "0.2");
    let run = start(&env, &["run", "--json", "--runners", "4", &flake.reference()]);
    wait_for_marks(&env, 8);
    signal(worker(&run, 1), Signal::KILL);
    let ran = end(run).ends_with(0).says("worker 1 was ended by signal 9");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["summary"]["targets"]["built"], 20);
    let marks = marks(&env);
    assert_eq!(marks.len(), 60);
    // It had one unit at a time, and units are small here.
    assert!(marks.values().sum::<usize>() <= 64, "{marks:?}");
}

#[test]
fn a_signal_ends_all_workers_and_keeps_what_was_built() {
    let env = TestEnv::new();
    let flake = shared(&env, "0.2");
    let depot = env.depot();
    let args = ["run", "--json", "--runners", "3", "--depot", &depot, &flake.reference()];
    let run = start(&env, &args);
    wait_for_marks(&env, 12);
    let workers: Vec<u32> = (0..3).map(|slot| worker(&run, slot)).collect();
    signal(run.id(), Signal::TERM);
    let ran = end(run);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let _ = ran.ends_with(130);
    assert!(report["summary"]["targets"]["cancelled"].as_u64().unwrap() > 0, "{report:#}");
    assert!(workers.iter().all(|id| !Path::new(&format!("/proc/{id}")).exists()));
    let built = report["summary"]["derivations"]["built"].as_u64().unwrap();
    assert!(built >= 8, "{report:#}");
    // A new machine with the same depot goes on from there.
    env.forget_store();
    let (ran, report) = env.report(&args[2..]);
    let _ = ran.ends_with(0);
    let rest = report.count("derivations", "built");
    assert!(rest <= 60 - built, "{rest} built after {built}");
}

/// A chain of four derivations, each of which needs the one before: one unit.
fn chain(env: &TestEnv, script: &str) -> Flake {
    // For the marks, and what builders need outside of their root.
    drop(shared(env, "0"));
    let marks = env.nix.path("marks").display().to_string();
    let script = script.replace("MARKS", &marks);
    Flake::new(&format!(
        r#"let
          link = n: deps: d "chain-${{toString n}}"
            "echo built >> {marks}/chain-${{toString n}}; {script}; for i in $deps; do cat $i; done > $out; echo $i >> $out"
            {{ inherit deps; n = toString n; }};
          one = link 1 [ ]; two = link 2 [ one ]; three = link 3 [ two ]; four = link 4 [ three ];
        in {{ packages.${{system}} = {{ inherit one two three four; }}; }}"#
    ))
}

/// How often each link of the chain was begun.
fn links(env: &TestEnv) -> [usize; 4] {
    let marks = marks(env);
    [1, 2, 3, 4].map(|n| marks.get(&format!("chain-{n}")).copied().unwrap_or_default())
}

/// The third link sleeps for long as long as there is this file.
const SLEEPS: &str = "if [ $n = 3 ] && [ -e MARKS/.sleeps ]; then sleep 60; fi";

#[test]
fn what_was_done_of_a_unit_when_the_run_was_stopped_is_here() {
    let env = TestEnv::new();
    let flake = chain(&env, SLEEPS);
    let sleeps = env.nix.path("marks/.sleeps");
    for (round, stop) in (1..).zip([Signal::INT, Signal::TERM]) {
        fs_err::write(&sleeps, "").unwrap();
        let run = start(&env, &["run", "--json", "--runners", "2", &flake.reference()]);
        wait_for_marks(&env, 3);
        while links(&env)[2] < 2 * round - 1 {
            std::thread::sleep(Duration::from_millis(20));
        }
        signal(run.id(), stop);
        let ran = end(run).ends_with(130);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(report["summary"]["derivations"]["built"], 2, "{ran}");
        fs_err::remove_file(&sleeps).unwrap();
        let (ran, report) = env.report(&["--runners", "2", &flake.reference()]);
        let _ = ran.ends_with(0);
        assert_eq!((report.count("targets", "cached"), report.count("targets", "built")), (2, 2));
        assert_eq!(links(&env), [round, round, 2 * round, round]);
        env.forget_store();
    }
}

#[test]
fn who_takes_a_unit_over_fetches_what_was_done_of_it() {
    let env = TestEnv::new();
    let flake = chain(&env, SLEEPS);
    fs_err::write(env.nix.path("marks/.sleeps"), "").unwrap();
    let (depot, ledger) = (env.depot(), format!("dir:{}", env.file("ledger").display()));
    let reference = flake.reference();
    let plan = ["plan", "--runners", "1", "--matrix", "json", "--plan", "p", "--depot", &depot, &reference];
    let _ = env.phoenix(&plan).ends_with(0);
    let places = ["--plan", "p", "--ledger", &ledger, "--depot", &depot];
    let worker = |store: &str| {
        let store = format!("local?root={}", env.nix.path(store).display());
        start(&env, &[&["work", "--json", "--slot", "0", "--store", &store], &places[..]].concat())
    };
    let first = worker("first");
    wait_for_marks(&env, 3);
    signal(first.id(), Signal::TERM);
    let _ = end(first).ends_with(130).says("it was stopped (SIGTERM)");
    // Nobody goes on: what is done is built, and what is not is cancelled.
    let reported = env.phoenix(&[&["report", "--patience", "0"], &places[..]].concat()).ends_with(130);
    let said = reported.stdout.contains("2 cancelled, 2 built");
    assert!(said && reported.stderr.contains("stopping (runner 0: SIGTERM)"), "{reported}");
    fs_err::remove_file(env.nix.path("marks/.sleeps")).unwrap();
    let second = end(worker("second")).ends_with(0).says("worker 0 built 2 derivations");
    let report: Value = serde_json::from_str(&second.stdout).unwrap();
    assert_eq!(report["summary"]["derivations"]["built"], 2);
    assert_eq!(links(&env), [1, 1, 2, 1]);
    let reported = env.phoenix(&[&["report"], &places[..]].concat()).ends_with(0);
    assert!(reported.stdout.contains("4 targets: 4 built"), "{reported}");
}

/// Kills the third link of the chain so many times, as the kernel does when memory runs out; it was begun so often
/// before. In its own namespace it is the first process, which cannot kill itself.
fn kill_the_third(env: &TestEnv, before: usize, times: usize) {
    let script = format!("{}/chain-3;", env.nix.path("marks").display());
    let mut killed = BTreeSet::new();
    let latest = Instant::now() + Duration::from_secs(60);
    while killed.len() < times {
        assert!(Instant::now() < latest, "killed {killed:?}");
        std::thread::sleep(Duration::from_millis(20));
        // It has left its mark when it is killed.
        if links(env)[2] <= before + killed.len() {
            continue;
        }
        let processes = fs_err::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        for id in processes.filter_map(|name| name.parse::<u32>().ok()) {
            let line = fs_err::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let status = fs_err::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let is_first = status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
            if is_first && String::from_utf8_lossy(&line).contains(&script) && killed.insert(id) {
                signal(id, Signal::KILL);
            }
        }
    }
}

#[test]
fn a_builder_that_was_killed_is_tried_elsewhere() {
    let env = TestEnv::new();
    let flake = chain(&env, SLEEPS);
    let sleeps = env.nix.path("marks/.sleeps");
    let depot = env.depot();
    let reference = flake.reference();
    let args = ["run", "--json", "--runners", "2", "--depot", &depot, &reference];
    let killed = |times: usize, code: i32| {
        fs_err::write(&sleeps, "").unwrap();
        let before = links(&env)[2];
        let run = start(&env, &args);
        kill_the_third(&env, before, times);
        fs_err::remove_file(&sleeps).unwrap();
        let ran = end(run).ends_with(code);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        (ran, report["summary"]["targets"].clone())
    };
    // Wherever it is tried: then it is what failed, and would perhaps not fail again.
    let (ran, targets) = killed(3, 100);
    let _ = ran.says("(builder killed): given up after 3 attempts; on runner");
    assert_eq!((&targets["built"], &targets["blocked"]), (&2.into(), &1.into()));
    assert_eq!(links(&env), [1, 1, 3, 0]);
    let (ran, targets) = killed(2, 0);
    let _ = ran.says("signal 9 (Killed)");
    assert_eq!((&targets["cached"], &targets["built"]), (&2.into(), &2.into()));
    assert_eq!(links(&env), [1, 1, 6, 1]);
}

#[test]
fn workers_meet_in_nats_too() {
    let Some(server) = NatsServer::start() else { return };
    let env = TestEnv::new();
    let flake = shared(&env, "0.05");
    let ledger = format!("{}/some-run", server.url());
    let (ran, report) = env.report(&["--runners", "4", "--ledger", &ledger, &flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!((report.count("targets", "built"), report.count("derivations", "built")), (20, 60));
    each_once(&env);
    // Without the server nothing is built, and it is said why.
    drop(server);
    let args = ["run", "--runners", "2", "--ledger", &ledger, &flake.reference()];
    env.forget_store();
    let _ = env.phoenix(&args).ends_with(1).says("is a NATS server there");
}

#[test]
fn workers_meet_in_githubs_artifacts_too() {
    let github = Github::start().unwrap();
    let token = github.token(&[("refs/heads/main", Permission::Both)]);
    let env = TestEnv::new();
    let flake = shared(&env, "0.05");
    let run = |token: &str| {
        let mut command = env.in_job(&github, token);
        command.args(["run", "--json", "--runners", "2", "--ledger", "github-artifacts:some-run"]);
        command.arg(flake.reference());
        Ran::from(command.output().unwrap())
    };
    let ran = run(&token).ends_with(0);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["summary"]["targets"]["built"], 20);
    each_once(&env);
    let units = github.counts().of(Request::PutBlob);
    assert!(units > 0, "the workers met somewhere else");
    let left: Vec<_> = github.artifacts().into_iter().map(|artifact| artifact.name).collect();
    assert_eq!(left, Vec::<String>::new(), "a run leaves nothing behind");
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains(token.split('.').nth(1).unwrap()), "{text}");
    }
    // Without what GitHub gives to actions it is said what is missing.
    env.forget_store();
    let _ = run("").ends_with(1).says("ACTIONS_RUNTIME_TOKEN is not set");
}

/// Where a job may not write the cache, may not read it, or neither, its pipeline is slower, and as red or green as any.
#[test]
fn without_the_cache_of_a_repository_runners_hand_over_what_they_make_as_artifacts() {
    let forbidden =
        [("read", Permission::Read), ("write-only", Permission::Both), ("none", Permission::Both)];
    for (mode, permission) in forbidden {
        let github = Github::start().unwrap();
        let env = TestEnv::new();
        let flake = chain(&env, "true");
        let job = |number: u32, args: &[&str]| {
            let token = github.token_of_job(number, &[("refs/heads/main", permission)]);
            let mut command = env.in_job(&github, &token);
            command.env("ACTIONS_CACHE_MODE", mode).args(args).args(["--plan", "p", "--depot", "github:"]);
            Ran::from(command.output().unwrap())
        };
        let plan = ["plan", "--runners", "1", "--matrix", "github", &flake.reference()];
        let _ =
            job(0, &plan).ends_with(0).says("may not use the cache").says("artifacts of this workflow run");
        env.forget_store();
        let ledger = ["--ledger", "github-artifacts:r"];
        let _ = job(1, &[&["work", "--slot", "0"], &ledger[..]].concat()).ends_with(0);
        let reported = job(2, &[&["report"], &ledger[..]].concat()).ends_with(0);
        assert!(reported.stdout.contains("4 targets: 4 built"), "{reported}");
        assert_eq!((links(&env), github.entries().len()), ([1, 1, 1, 1], 0), "{mode}");
    }
}

/// A forge that runs failed jobs again runs the worker that had the failure, in a store and with a ledger of its own.
#[test]
fn a_worker_whose_build_failed_is_red_and_builds_no_more_than_that_when_it_is_run_again() {
    let env = TestEnv::new();
    let flake = shared(&env, "0.01");
    let broken = env.nix.path("marks/.broken");
    fs_err::write(&broken, "dep-7\n").unwrap();
    let (depot, reference) = (env.depot(), flake.reference());
    let plan = ["plan", "--runners", "1", "--matrix", "json", "--plan", "p", "--depot", &depot, &reference];
    let _ = env.phoenix(&plan).ends_with(0);
    let attempt = |attempt: &str, exit_code: i32| {
        let ledger = format!("dir:{}", env.file(&format!("ledger-{attempt}")).display());
        let store = format!("local?root={}", env.nix.path(&format!("worker-{attempt}")).display());
        let places = ["--plan", "p", "--ledger", &ledger, "--depot", &depot];
        let _ = env
            .phoenix(&[&["work", "--slot", "0", "--store", &store], &places[..]].concat())
            .ends_with(exit_code);
        let _ = env.phoenix(&[&["report"], &places[..]].concat()).ends_with(exit_code);
    };
    attempt("1", 100);
    assert!(marks(&env).len() < 60, "what needs dep-7 was built");
    fs_err::remove_file(&broken).unwrap();
    attempt("2", 0);
    let mut built = marks(&env);
    assert_eq!(built.remove("dep-7"), Some(2));
    assert_eq!(built.len(), 59);
    assert!(built.values().all(|&times| times == 1), "{built:?}");
}

#[test]
fn builders_see_what_they_would_see_without_workers() {
    let env = TestEnv::new();
    let flake =
        Flake::new(r#"{ packages.${system}.x = d "x" "grep -q root /etc/passwd && ls / > $out" { }; }"#);
    let _ = env.phoenix(&["run", "--runners", "2", &flake.reference()]).ends_with(0);
    // With a sandbox they do not, which is no fault of theirs, and is said.
    env.forget_store();
    env.nix.configure("sandbox = true\nsandbox-paths =");
    let depot = env.depot();
    let ran = env.phoenix(&["run", "--runners", "2", "--depot", &depot, &flake.reference()]).ends_with(1);
    let _ = ran.says("could not be built").says("`sandbox-paths` in nix.conf puts it there");
    env.nix.configure("");
    let _ = env.phoenix(&["run", "--depot", &depot, &flake.reference()]).ends_with(0);
}

#[test]
fn a_ledger_that_is_none_is_told_before_anything_is_done() {
    let env = TestEnv::new();
    let flake = Flake::new("throw \"never evaluated\"");
    for (ledger, says) in [
        ("bogus", "the ledger bogus failed"),
        ("dir:", "it names no directory"),
        ("nats://127.0.0.1:14222", "the ledger nats://127.0.0.1:14222 failed"),
        ("nats://127.0.0.1:14222/", "write nats://HOST:PORT/RUN"),
    ] {
        let ran = env.phoenix(&["run", "--runners", "1", "--ledger", ledger, &flake.reference()]);
        let ran = ran.ends_with(1).says(says);
        assert!(!ran.stderr.contains("evaluat"), "{ran}");
    }
}

#[test]
fn what_nobody_can_build_ends_a_run_that_a_failure_ends() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = { fine = ok "fine"; odd = d "odd" ":" { requiredSystemFeatures = [ "no-such" ]; }; }; }"#,
    );
    for runners in [&[][..], &["--runners", "2"]] {
        let (ran, report) = env.report(&[&["--fail-fast"], runners, &[&flake.reference()]].concat());
        let _ = ran.ends_with(1);
        assert_eq!((report.count("targets", "failed"), report.count("targets", "cancelled")), (1, 1));
    }
}

#[test]
fn what_is_content_addressed_comes_home_too() {
    let env = TestEnv::new();
    env.nix.configure("experimental-features = nix-command flakes ca-derivations");
    let flake = Flake::new(
        r#"let ca = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }; in {
          packages.${system} = rec {
            a = d "a" "echo a > $out" ca;
            b = d "b" "read x < $a; echo $x > $out" (ca // { inherit a; });
            plain = d "plain" "read x < $b; echo $x > $out" { inherit b; };
          };
        }"#,
    );
    let (ran, report) = env.report(&["--runners", "2", &flake.reference()]);
    let _ = ran.ends_with(0).says("3 derivations are content-addressed, or need what is");
    assert_eq!(report.count("targets", "built"), 3);
    let (ran, report) = env.report(&[&flake.reference()]);
    let ran = ran.ends_with(0);
    assert_eq!(report.count("targets", "cached"), 3, "{ran}");
}

/// What several machines do: each has its own store, and nothing of the others but a ledger and a depot.
#[test]
fn machines_work_on_a_plan_and_one_gives_the_verdicts() {
    let env = TestEnv::new();
    let flake = shared(&env, "0.05");
    let (depot, ledger) = (env.depot(), format!("dir:{}", env.file("ledger").display()));
    let reference = flake.reference();
    let plan = ["plan", "--runners", "2", "--matrix", "github", "--plan", "p", "--depot", &depot, &reference];
    let planned = env.phoenix(&plan).ends_with(0);
    let matrix: Value = serde_json::from_str(&planned.stdout).unwrap();
    let row = |slot: u32| serde_json::json!({ "slot": slot, "system": env.system(), "runs-on": matrix["include"][0]["runs-on"] });
    assert_eq!(matrix, serde_json::json!({ "include": [row(0), row(1)] }));
    // Nobody needs the flake any more.
    drop(flake);

    let places = ["--plan", "p", "--ledger", &ledger, "--depot", &depot];
    let worker = |slot: &str| {
        let store = format!("local?root={}", env.nix.path(&format!("worker-{slot}")).display());
        let mut args = vec!["work", "--slot", slot, "--store", &store];
        args.extend(places);
        start(&env, &args)
    };
    let workers = ["0", "1"].map(worker);
    // The machine that reports has no store at all.
    let mut report = Command::new(env!("CARGO_BIN_EXE_phoenix"));
    report.env_clear().env("HOME", env.file("reporter")).arg("report").args(places);
    let junit = env.file("junit.xml");
    let ran = Ran::from(report.output().unwrap()).ends_with(0);
    assert!(ran.stdout.contains("20 targets: 20 built"), "{ran}");
    for child in workers {
        let _ = end(child).ends_with(0).says("all that it can build is done");
    }
    each_once(&env);
    // The next plan knows how long everything takes, and how large it is.
    let history = fs_err::read_dir(env.file("depot").join("history")).unwrap().next().unwrap().unwrap();
    let json = zstd::decode_all(fs_err::File::open(history.path()).unwrap()).unwrap();
    let learned: Value = serde_json::from_slice(&json).unwrap();
    for what in ["byDerivation", "bytesByDerivation"] {
        assert_eq!(learned["estimates"][what].as_object().map(serde_json::Map::len), Some(60), "{what}");
    }
    // Once more, from what is in the ledger, in another format.
    let mut again = Command::new(env!("CARGO_BIN_EXE_phoenix"));
    again.env_clear().env("HOME", env.file("reporter")).arg("report").args(places);
    again.args(["--format", "junit", "--output"]).arg(&junit);
    let _ = Ran::from(again.output().unwrap()).ends_with(0);
    let junit = fs_err::read_to_string(junit).unwrap();
    assert!(junit.contains("tests=\"20\"") && junit.contains("failures=\"0\""), "{junit}");
}

/// Ships a plan for one worker; how it is asked for.
fn plan_for_one<'a>(env: &TestEnv, flake: &Flake, name: &'a str, place: &'a [String; 2]) -> [&'a str; 6] {
    let [depot, ledger] = place;
    let plan =
        ["plan", "--runners", "1", "--matrix", "json", "--plan", name, "--depot", depot, &flake.reference()];
    let _ = env.phoenix(&plan).ends_with(0);
    ["--plan", name, "--depot", depot, "--ledger", ledger]
}

fn log_of_bad(report: &Value) -> &str {
    let derivations = report["derivations"].as_array().unwrap();
    derivations.iter().find(|one| one["name"] == "bad").unwrap()["log"].as_str().unwrap()
}

#[test]
fn a_report_has_the_whole_log_of_what_failed_and_without_it_names_no_file() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = { good = d "good" "echo well done; echo >$out" { }; bad =
          d "bad" "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; echo last words; exit 1" { }; }; }"#,
    );
    let place = [env.depot(), format!("dir:{}", env.file("ledger").display())];
    let places = plan_for_one(&env, &flake, "p", &place);
    let _ = env.phoenix(&[&["work", "--slot", "0"], &places[..]].concat()).ends_with(100);
    let ran = env.phoenix(&[&["report", "--format", "json"], &places[..]].concat()).ends_with(100);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let log = fs_err::read_to_string(log_of_bad(&report)).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[100]), (101, "line 0", "last words"), "{ran}");
    // So has its directory the log of what was built.
    let directory = Path::new(log_of_bad(&report)).parent().unwrap();
    let mut logs = fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let good = logs.find(|path| path.to_string_lossy().contains("-good.drv")).unwrap();
    assert_eq!(fs_err::read_to_string(good).unwrap(), "well done\n");
    // Where it is not kept, its end is told.
    fs_err::remove_dir_all(env.file("depot/logs")).unwrap();
    let ran = env.phoenix(&[&["report"], &places[..]].concat()).ends_with(100);
    for says in ["last words", "the whole log is with runner 0"] {
        assert!(ran.stdout.contains(says), "{ran}");
    }
    assert!(!ran.stdout.contains("whole log: less"), "{ran}");
}

#[test]
fn a_ledger_that_was_used_before_says_nothing_of_another_plan() {
    let env = TestEnv::new();
    let place = [env.depot(), format!("dir:{}", env.file("ledger").display())];
    for (round, (name, seconds)) in (1..).zip([("p", "0"), ("q", "0.01")]) {
        let flake = shared(&env, seconds);
        let places = plan_for_one(&env, &flake, name, &place);
        let _ = env.phoenix(&[&["work", "--slot", "0"], &places[..]].concat()).ends_with(0).says("built 60");
        let reported = env.phoenix(&[&["report"], &places[..]].concat()).ends_with(0);
        assert!(reported.stdout.contains("60 derivations built"), "{reported}");
        assert!(marks(&env).values().all(|count| *count == round), "{:?}", marks(&env));
    }
}

#[test]
fn a_worker_that_is_started_again_in_its_slot_goes_on() {
    let env = TestEnv::new();
    let flake = shared(&env, "0.1");
    let place = [env.depot(), format!("dir:{}", env.file("ledger").display())];
    let places = plan_for_one(&env, &flake, "p", &place);
    let work = [&["work", "--slot", "0"], &places[..]].concat();
    let mut first = start(&env, &work);
    wait_for_marks(&env, 10);
    signal(first.id(), Signal::KILL);
    let _ = first.wait().unwrap();
    let _ = env.phoenix(&work).ends_with(0).says("all that it can build is done");
    let reported = env.phoenix(&[&["report"], &places[..]].concat()).ends_with(0);
    assert!(reported.stdout.contains("20 targets: 20 built"), "{reported}");
    assert_eq!(marks(&env).len(), 60);
}

#[test]
fn what_a_worker_had_built_when_it_was_killed_can_be_kept_after_it() {
    let env = TestEnv::new();
    let flake = chain(&env, SLEEPS);
    let sleeps = env.nix.path("marks/.sleeps");
    fs_err::write(&sleeps, "").unwrap();
    let place = [env.depot(), format!("dir:{}", env.file("ledger").display())];
    let places = plan_for_one(&env, &flake, "p", &place);
    let list = env.file("unsaved").display().to_string();
    let work = [&["work", "--slot", "0", "--unsaved", &list], &places[..]].concat();
    // There is nothing to keep before anything is built.
    let keep = [&work[..], &["--keep-unsaved"]].concat();
    assert_eq!(env.phoenix(&keep).ends_with(0).stderr, "");
    let mut worker = start(&env, &work);
    wait_for_marks(&env, 3);
    signal(worker.id(), Signal::KILL);
    let _ = worker.wait().unwrap();
    let packs = || fs_err::read_dir(env.file("depot/packs")).unwrap().count();
    let before = packs();
    let _ = env.phoenix(&keep).ends_with(0).says("kept what was built and not kept yet: 2 paths");
    assert_eq!(packs(), before + 1);
    // What it was at is given back as by one that was told to stop.
    let report = [&["report"], &places[..]].concat();
    let _ = env.phoenix(&report).ends_with(130);
    // The next run goes on from there, on a machine that has nothing.
    fs_err::remove_file(&sleeps).unwrap();
    env.forget_store();
    let places = plan_for_one(&env, &flake, "q", &place);
    let _ = env.phoenix(&[&["work", "--slot", "0", "--unsaved", &list], &places[..]].concat()).ends_with(0);
    assert_eq!(links(&env), [1, 1, 2, 1]);
    // All is kept now.
    assert_eq!(fs_err::read_to_string(&list).unwrap(), "");
    assert_eq!(env.phoenix(&keep).ends_with(0).stderr, "");
}

/// On artifacts others hear of a claim when it is a minute old; a forge that cancels a job leaves it ten seconds.
#[test]
fn what_a_worker_was_at_that_was_cut_off_in_its_first_minute_is_cancelled_on_artifacts_too() {
    let github = Github::start().unwrap();
    let env = TestEnv::new();
    let flake = chain(&env, SLEEPS);
    fs_err::write(env.nix.path("marks/.sleeps"), "").unwrap();
    let place = [env.depot(), "github-artifacts:r".to_owned()];
    let places = plan_for_one(&env, &flake, "p", &place);
    let list = env.file("unsaved").display().to_string();
    let job = |number: u32, args: &[&str]| {
        let token = github.token_of_job(number, &[("refs/heads/main", Permission::Both)]);
        let mut command = env.in_job(&github, &token);
        command.args(args).args(places).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let work = ["work", "--slot", "0", "--unsaved", &list];
    let mut worker = job(1, &work);
    wait_for_marks(&env, 3);
    // So slow that nothing is said before the end.
    github.behave(|behaviour| behaviour.latency = Duration::from_secs(3));
    signal(worker.id(), Signal::INT);
    std::thread::sleep(Duration::from_secs(2));
    signal(worker.id(), Signal::KILL);
    let _ = worker.wait().unwrap();
    github.behave(|behaviour| behaviour.latency = Duration::ZERO);
    let artifacts = github.artifacts();
    let unit = artifacts.iter().find(|artifact| artifact.name.contains(".unit.")).unwrap();
    assert_eq!(unit.size, 0, "the claim was seen: {artifacts:?}");
    let _ = end(job(1, &[&work[..], &["--keep-unsaved"]].concat())).ends_with(0);
    let since = Instant::now();
    let reported = end(job(2, &["report", "--format", "json"])).ends_with(130);
    assert!(since.elapsed().as_secs() < 60, "{:?}", since.elapsed());
    let reported = reported.says("stopping (runner 0: the worker was ended)");
    let report: Value = serde_json::from_str(&reported.stdout).unwrap();
    assert_eq!(report["summary"]["targets"]["cancelled"], 4, "{report:#}");
}

#[test]
fn what_workers_left_that_were_told_to_stop_before_they_began_is_cancelled() {
    let env = TestEnv::new();
    let flake = chain(&env, "true");
    let place = [env.depot(), format!("dir:{}", env.file("ledger").display())];
    let places = plan_for_one(&env, &flake, "p", &place);
    let report = [&["report", "--cancelled"], &places[..]].concat();
    let since = Instant::now();
    let reported = env.phoenix(&report).ends_with(130).says("stopping (the runners were told to stop)");
    assert!(reported.stdout.contains("4 targets: 4 cancelled"), "{reported}");
    assert!(since.elapsed().as_secs() < 60, "{:?}", since.elapsed());
    // What is done all the same is what it is.
    let _ = env.phoenix(&[&["work", "--slot", "0"], &places[..]].concat()).ends_with(0);
    let reported = env.phoenix(&report).ends_with(0);
    assert!(reported.stdout.contains("4 targets: 4 built"), "{reported}");
}

#[test]
fn a_worker_that_is_told_nonsense_says_so() {
    let env = TestEnv::new();
    let flake = shared(&env, "0");
    let (depot, ledger) = (env.depot(), format!("dir:{}", env.file("ledger").display()));
    let work = |args: &[&str]| env.phoenix(&[&["work", "--depot", &depot], args].concat()).ends_with(1);
    let _ = work(&["--plan", "p", "--slot", "0", "--ledger", &ledger]).says("there is no plan p in dir:");
    let reference = flake.reference();
    let plan = ["plan", "--runners", "2", "--matrix", "json", "--plan", "p", "--depot", &depot, &reference];
    let _ = env.phoenix(&plan).ends_with(0);
    let _ = work(&["--plan", "p", "--slot", "2", "--ledger", &ledger]).says("the plan p has no slot 2");
    let _ = work(&["--plan", "p", "--slot", "0"]).says("a worker needs a ledger");
    let _ = work(&["--plan", "p", "--slot", "0", "--ledger", "x:y"]).says("no such kind of ledger");
    let _ = work(&["--plan", "../p", "--slot", "0", "--ledger", &ledger]).says("../p");
    let mut elsewhere = env.command();
    elsewhere.args(["work", "--plan", "p", "--slot", "0", "--ledger", &ledger, "--depot", &depot]);
    elsewhere.env("NIX_STORE_DIR", "/elsewhere/store");
    let _ = Ran::from(elsewhere.output().unwrap()).ends_with(1).says("the plan is for stores in");
    // A plan that was cut off.
    let file = env.file("depot").join("plans/p");
    let text = fs_err::read(&file).unwrap();
    fs_err::write(&file, &text[..text.len() / 2]).unwrap();
    let damaged = work(&["--plan", "p", "--slot", "0", "--ledger", &ledger]).says("the plan p");
    let damaged = damaged.says("plan again");
    assert_eq!(damaged.stderr.matches("caused by").count(), 2, "{damaged}");
    assert_eq!(marks(&env).len(), 0);
}

#[test]
fn a_simulation_tells_what_runners_would_bring() {
    let env = TestEnv::new();
    let flake = shared(&env, "0");
    let ran = env.phoenix(&["plan", "--json", "--simulate", "--runners", "auto", &flake.reference()]);
    let plan: Value = serde_json::from_str(&ran.ends_with(0).stdout).unwrap();
    let rows = plan["simulation"]["rows"].as_array().unwrap();
    let counts: Vec<u64> = rows.iter().map(|row| row["runners"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
    let times: Vec<f64> = rows.iter().map(|row| row["makespanSeconds"].as_f64().unwrap()).collect();
    let bounds: Vec<f64> = rows.iter().map(|row| row["lowerBoundSeconds"].as_f64().unwrap()).collect();
    assert!(times.iter().zip(&bounds).all(|(time, bound)| time >= bound), "{times:?} {bounds:?}");
    assert!(times[0] > times[2], "{times:?}");
    let builds = |row: &Value| row["builds"].as_u64().unwrap();
    assert_eq!(builds(&rows[3]), 60);
    assert!(builds(&plan["simulation"]["separate"]) > 60);
}

#[test]
fn a_worker_with_little_room_lets_go_of_what_nothing_needs_any_more() {
    let env = TestEnv::new();
    let paths: Vec<&str> =
        ["/bin", "/usr", "/lib", "/lib64"].into_iter().filter(|path| Path::new(path).exists()).collect();
    env.nix.configure(&format!("sandbox-paths = {}", paths.join(" ")));
    // `last` needs what was built first.
    let flake = Flake::new(
        r#"let
          big = name: attrs: d name "head -c 12000000 /dev/zero > $out; for i in $deps; do test -s $i || exit 1; done" attrs;
          many = builtins.genList (n: big "big-${toString n}" { }) 12;
          tops = builtins.genList (n: big "top-${toString n}" { deps = [ (builtins.elemAt many n) ]; }) 12;
        in { packages.${system} = builtins.listToAttrs (map (value: { inherit value; inherit (value) name; })
          (tops ++ [ (big "last" { deps = many; }) ])); }"#,
    );
    let ledger = format!("dir:{}", env.file("ledger").display());
    let (depot, reference) = (env.depot(), flake.reference());
    let plan = ["plan", "--runners", "1", "--matrix", "json", "--plan", "p", "--depot", &depot, &reference];
    let _ = env.phoenix(&plan).ends_with(0);
    let store = format!("local?root={}", env.nix.path("worker").display());
    let own = env.file("own");
    fs_err::write(&own, "the user's").unwrap();
    let own = env.nix.run("nix-store", &["--store", &store, "--add", own.to_str().unwrap()]);
    let places = ["--plan", "p", "--ledger", &ledger, "--depot", &depot];
    let work = ["work", "--slot", "0", "--store", &store, "--min-free", "1000000G"];
    let _ = env.phoenix(&[&work, &places[..]].concat()).ends_with(0).says("were deleted");
    let ran = env.phoenix(&[&["report"], &places[..]].concat()).ends_with(0);
    assert!(ran.stdout.contains("13 targets: 13 built"), "{ran}");
    let left = |name: &str| {
        let names = fs_err::read_dir(env.nix.path("worker/nix/store"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        names.filter(|file| file.to_string_lossy().contains(name)).count()
    };
    let derivations = 12;
    assert!(left("-top-") < 12 + derivations, "nothing was deleted");
    assert_eq!(
        left(Path::new(own.trim()).file_name().unwrap().to_str().unwrap()),
        1,
        "it was not the worker's"
    );
    let sound = env.nix.run("nix-store", &["--store", &store, "--verify", "--check-contents"]);
    assert!(!sound.contains("error"), "{sound}");
    // Everything is in the depot all the same.
    let (ran, report) = env.report(&["--depot", &depot, &reference]);
    let _ = ran.ends_with(0);
    assert_eq!(report.count("targets", "cached"), 13);
}
