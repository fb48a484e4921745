//! Actions of a plan that several workers share.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::process::Command;

use common::{Ran, TestEnv, end, start};
use fs_err as fs;
use phoenix_testkit::Flake;
use serde_json::Value;

/// Writes a line to a file whenever its program runs.
fn flake(env: &TestEnv) -> Flake {
    let ran = env.file("ran").display().to_string();
    let flake = Flake::new(&format!(
        r#"let tool = name: d name "mkdir -p $out/bin; printf '#!/bin/sh\necho ${{name}} >> {ran}; echo ${{name}} ran\n' > $out/bin/${{name}}; chmod +x $out/bin/${{name}}" {{ }};
        in {{ packages.${{system}} = {{ a = d "a" "/bin/sleep 0.3; echo > $out" {{ }}; b = ok "b"; first = tool "first"; second = tool "second"; }}; }}"#
    ));
    flake.write(
        "phoenix.toml",
        &format!(
            "push = [\"file://{}\"]\n[[actions]]\nname = \"second\"\nrun = \"second\"\nneeds = [\"first\"]\n\
             [[actions]]\nname = \"first\"\nrun = \"first\"\n",
            env.file("pushed").display()
        ),
    );
    flake
}

fn ran(env: &TestEnv) -> Vec<String> {
    let text = fs::read_to_string(env.file("ran")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Ships a plan; how it is asked for.
fn plan(env: &TestEnv, flake: &Flake, name: &str, runners: &str) -> (Vec<String>, usize) {
    let args = ["plan", "--actions", "run", "--runners", runners, "--matrix", "json", "--plan", name];
    let depot = env.depot();
    let planned = env.phoenix(&[&args[..], &["--depot", &depot, &flake.reference()]].concat()).ends_with(0);
    let rows: Value = serde_json::from_str(&planned.stdout).unwrap();
    let ledger = format!("dir:{}", env.file("ledger").display());
    let places = ["--plan", name, "--depot", &depot, "--ledger", &ledger].map(str::to_owned);
    (places.to_vec(), rows["slots"].as_array().unwrap().len())
}

fn report(env: &TestEnv, places: &[String], code: i32) -> Value {
    let mut report = Command::new(env!("CARGO_BIN_EXE_phoenix"));
    report
        .env_clear()
        .env("HOME", env.file("reporter"))
        .arg("report")
        .args(places)
        .args(["--format", "json"]);
    let ran = Ran::from(report.output().unwrap()).ends_with(code);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn verdicts(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let actions = report["actions"].as_array().unwrap().iter();
    actions.map(|action| (text(&action["name"]), text(&action["verdict"]))).collect()
}

#[test]
fn actions_run_once_after_all_they_need_whoever_built_it() {
    let env = TestEnv::new();
    let flake = flake(&env);
    let (places, slots) = plan(&env, &flake, "p", "2");
    assert_eq!(slots, 2);
    let workers = ["0", "1"].map(|slot| {
        let mut args = vec!["work", "--slot", slot];
        args.extend(places.iter().map(String::as_str));
        start(&env, &args)
    });
    let told = report(&env, &places, 0);
    for child in workers {
        let _ = end(child).ends_with(0);
    }
    assert_eq!(ran(&env), ["first", "second"]);
    assert_eq!(told["exitCode"], 0);
    for name in ["first", "second"] {
        assert!(verdicts(&told).contains(&(name.to_owned(), "done".to_owned())), "{told:#}");
    }
    let infos = fs::read_dir(env.file("pushed"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".narinfo"));
    assert_eq!(infos.count(), 4);
    // A worker that is started again finds all done, and so does one with a ledger that knows of nothing.
    let mut again: Vec<&str> = vec!["work", "--slot", "0"];
    again.extend(places.iter().map(String::as_str));
    let _ = env.phoenix(&again).ends_with(0);
    let other = format!("dir:{}", env.file("another-ledger").display());
    *again.last_mut().unwrap() = &other;
    let _ = env.phoenix(&again).ends_with(0).says("first was done before");
    assert_eq!(ran(&env), ["first", "second"]);
}

#[test]
fn without_anything_to_build_there_is_still_a_runner_for_what_is_to_run() {
    let env = TestEnv::new();
    let flake = flake(&env);
    let depot = env.depot();
    let _ = env.phoenix(&["run", "--depot", &depot, &flake.reference()]).ends_with(0);
    let (places, slots) = plan(&env, &flake, "q", "auto");
    assert_eq!(slots, 1);
    // The runner has nothing of what the planner had.
    env.forget_store();
    let mut args = vec!["work", "--slot", "0"];
    args.extend(places.iter().map(String::as_str));
    let _ = env.phoenix(&args).ends_with(0).says("first> first ran");
    let told = report(&env, &places, 0);
    assert_eq!(verdicts(&told).iter().filter(|(_, verdict)| verdict == "done").count(), 3, "{told:#}");
    assert_eq!(ran(&env), ["first", "second"]);
}

#[test]
fn an_action_that_fails_or_that_nobody_runs_is_red() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"let bad = d "bad" "mkdir -p $out/bin; printf '#!/bin/sh\necho no access; exit 3\n' > $out/bin/bad; chmod +x $out/bin/bad" { };
        in { packages.${system} = { inherit bad; }; }"#,
    );
    flake.write(
        "phoenix.toml",
        "[[actions]]\nname = \"bad\"\nrun = \"bad\"\n[[actions]]\nname = \"after\"\nrun = \"bad\"\nneeds = [\"bad\"]\n",
    );
    let (places, _) = plan(&env, &flake, "r", "1");
    let mut args = vec!["work", "--slot", "0"];
    args.extend(places.iter().map(String::as_str));
    let _ = env.phoenix(&args).ends_with(108).says("FAILED bad");
    let told = report(&env, &places, 1);
    let all: Vec<String> = verdicts(&told).into_iter().map(|(_, verdict)| verdict).collect();
    assert_eq!(all, ["failed", "blocked"], "{told:#}");
    assert_eq!(told["actions"][0]["logTail"], serde_json::json!(["no access"]));
    assert_eq!(told["targets"][0]["verdict"], "built", "what is built stays built: {told:#}");
    // Nobody works on this one.
    let (mut places, _) = plan(&env, &flake, "s", "1");
    places.extend(["--patience".to_owned(), "0".to_owned()]);
    let told = report(&env, &places, 1);
    assert_eq!(verdicts(&told)[0].1, "failed", "{told:#}");
    assert!(told["actions"][0]["reason"].as_str().unwrap().contains("no runner ran it"), "{told:#}");
}

/// A flake whose action takes a while, and one that needs nothing of it.
fn slow(seconds: u32) -> Flake {
    let tool = |name: &str, text: &str| {
        format!(
            r#"{name} = d "{name}" "mkdir -p $out/bin; printf '#!/bin/sh\n{text}\n' > $out/bin/{name}; chmod +x $out/bin/{name}" {{ }};"#
        )
    };
    let flake = Flake::new(&format!(
        "{{ packages.${{system}} = {{ {} {} }}; }}",
        tool("slow", &format!("echo begun; sleep {seconds}; echo slept")),
        tool("quick", "echo quick")
    ));
    flake.write(
        "phoenix.toml",
        "[[actions]]\nname = \"slow\"\nrun = \"slow\"\n[[actions]]\nname = \"quick\"\nrun = \"quick\"\n",
    );
    flake
}

#[test]
fn an_action_may_take_longer_than_a_heartbeat() {
    let env = TestEnv::new();
    let flake = slow(4);
    let (places, _) = plan(&env, &flake, "t", "1");
    let mut args = vec!["work", "--slot", "0"];
    args.extend(places.iter().map(String::as_str));
    let _ = env.phoenix(&args).ends_with(0).says("slow> slept").says("done quick");
    let told = report(&env, &places, 0);
    assert!(verdicts(&told).iter().all(|(_, verdict)| verdict == "done"), "{told:#}");
}

#[test]
fn an_action_whose_worker_is_lost_is_red_before_long_and_not_begun_again() {
    let env = TestEnv::new();
    let flake = slow(60);
    // As many as run at once, so that the last one is not begun.
    let slow = |number: u32| format!("[[actions]]\nname = \"slow{number}\"\nrun = \"slow\"\n");
    let quick = "[[actions]]\nname = \"quick\"\nrun = \"quick\"\n";
    flake.write("phoenix.toml", &format!("{}{quick}", (1..=4).map(slow).collect::<String>()));
    let (places, _) = plan(&env, &flake, "u", "1");
    let mut args = vec!["work", "--slot", "0"];
    args.extend(places.iter().map(String::as_str));
    let mut worker = start(&env, &args);
    until(&mut worker, "slow4> begun");
    worker.kill().unwrap();
    worker.wait().unwrap();
    let since = std::time::Instant::now();
    let told = report(&env, &places, 1);
    assert!(since.elapsed().as_secs() < 60, "{:?}", since.elapsed());
    assert_eq!(verdicts(&told)[0], ("slow1".to_owned(), "failed".to_owned()), "{told:#}");
    // Who comes after it leaves that alone, and does the rest.
    let ran = env.phoenix(&args).ends_with(0).says("done quick");
    assert!(!ran.stderr.contains("> begun"), "{ran}");
}

/// Reads what a worker says until it has said this.
fn until(worker: &mut std::process::Child, words: &str) {
    let mut stderr = std::io::BufReader::new(worker.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert_ne!(
            std::io::BufRead::read_line(&mut stderr, &mut line).unwrap(),
            0,
            "it ended before {words}"
        );
    }
    // Nobody reads on, and it may go on to speak.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
}

#[test]
fn a_worker_lost_in_a_build_and_one_in_an_action_keep_no_report_waiting() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          long = d "long" "/bin/sleep 3; echo > $out" { };
          slow = d "slow" "mkdir -p $out/bin; printf '#!/bin/sh\necho begun; sleep 60\n' > $out/bin/slow; chmod +x $out/bin/slow" { };
        }; }"#,
    );
    flake.write("phoenix.toml", "[[actions]]\nname = \"slow\"\nrun = \"slow\"\n");
    let (places, slots) = plan(&env, &flake, "v", "2");
    assert_eq!(slots, 2);
    for (slot, words) in [("0", "building long"), ("1", "slow> begun")] {
        let mut args = vec!["work", "--slot", slot];
        args.extend(places.iter().map(String::as_str));
        let mut worker = start(&env, &args);
        until(&mut worker, words);
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    let since = std::time::Instant::now();
    let told = report(&env, &places, 1);
    assert!(since.elapsed().as_secs() < 60, "{:?}", since.elapsed());
    assert_eq!(verdicts(&told), [("slow".to_owned(), "failed".to_owned())], "{told:#}");
    // The Nix of the first may have built on, so that the second found it there.
    let green = ["built", "cached"].map(|verdict| told["summary"]["targets"][verdict].as_u64().unwrap());
    assert_eq!(green.iter().sum::<u64>(), 2, "{told:#}");
}

#[test]
fn one_worker_runs_at_once_what_does_not_need_each_other() {
    let env = TestEnv::new();
    // Each ends only when the other has begun.
    let meet = |name: &str, other: &str| {
        let (own, other) = (env.file(name).display().to_string(), env.file(other).display().to_string());
        format!(
            r#"{name} = d "{name}" "mkdir -p $out/bin; printf '#!/bin/sh\n: > {own}; for i in $(seq 200); do test -e {other} && exit 0; sleep 0.1; done; exit 1\n' > $out/bin/{name}; chmod +x $out/bin/{name}" {{ }};"#
        )
    };
    let flake =
        Flake::new(&format!("{{ packages.${{system}} = {{ {} {} }}; }}", meet("l", "r"), meet("r", "l")));
    flake.write(
        "phoenix.toml",
        "[[actions]]\nname = \"l\"\nrun = \"l\"\n[[actions]]\nname = \"r\"\nrun = \"r\"\n",
    );
    let (places, _) = plan(&env, &flake, "w", "1");
    let mut args = vec!["work", "--slot", "0"];
    args.extend(places.iter().map(String::as_str));
    let _ = env.phoenix(&args).ends_with(0).says("done l").says("done r");
    let told = report(&env, &places, 0);
    assert!(verdicts(&told).iter().all(|(_, verdict)| verdict == "done"), "{told:#}");
}

#[test]
fn a_report_that_comes_late_knows_when_everything_was() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          first = d "first" "/bin/sleep 1; echo > $out" { };
          act = d "act" "mkdir -p $out/bin; printf '#!/bin/sh\nsleep 1\n' > $out/bin/act; chmod +x $out/bin/act" { };
        }; }"#,
    );
    flake.write("phoenix.toml", "[[actions]]\nname = \"act\"\nrun = \"act\"\n");
    let (places, _) = plan(&env, &flake, "x", "1");
    let mut args = vec!["work", "--slot", "0"];
    args.extend(places.iter().map(String::as_str));
    let _ = env.phoenix(&args).ends_with(0);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let told = report(&env, &places, 0);
    let time = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} in {told:#}"));
    let (began, ended) = (time(&told["startedAt"]), time(&told["endedAt"]));
    // The build and the action, and what came after them.
    assert!(ended - began >= 4000, "{told:#}");
}

#[test]
fn what_workers_left_that_were_told_to_stop_is_cancelled_and_the_report_says_so_before_long() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = rec {
          quick = d "quick" "echo > $out" { };
          slow = d "slow" "/bin/sleep 60; echo > $out" { inherit quick; };
        }; }"#,
    );
    flake.write("phoenix.toml", "[[actions]]\nname = \"after\"\nrun = \"slow\"\n");
    let (places, _) = plan(&env, &flake, "y", "1");
    let mut args = vec!["work", "--slot", "0"];
    args.extend(places.iter().map(String::as_str));
    let mut worker = start(&env, &args);
    until(&mut worker, "building slow");
    env.nix.run("kill", &["-INT", &worker.id().to_string()]);
    assert_eq!(worker.wait().unwrap().code(), Some(130));
    let since = std::time::Instant::now();
    let told = report(&env, &places, 130);
    assert!(since.elapsed().as_secs() < 40, "{:?}", since.elapsed());
    let target = |name: &str| {
        let attr = format!("packages.{}.{name}", env.system());
        let mut targets = told["targets"].as_array().unwrap().iter();
        targets.find(|target| target["attr"] == attr).unwrap()["verdict"].clone()
    };
    assert_eq!((target("quick"), target("slow")), ("built".into(), "cancelled".into()), "{told:#}");
    assert_eq!(verdicts(&told), [("after".to_owned(), "blocked".to_owned())], "{told:#}");
}

#[test]
fn an_action_whose_worker_was_cut_off_is_cancelled_and_not_begun_again() {
    let env = TestEnv::new();
    let flake = slow(60);
    let (places, _) = plan(&env, &flake, "z", "1");
    let list = env.file("unsaved").display().to_string();
    let mut args = vec!["work", "--slot", "0", "--unsaved", &list];
    args.extend(places.iter().map(String::as_str));
    let mut worker = start(&env, &args);
    until(&mut worker, "slow> begun");
    env.nix.run("kill", &["-KILL", &worker.id().to_string()]);
    let _ = worker.wait().unwrap();
    let _ = env.phoenix(&[&args[..], &["--keep-unsaved"]].concat()).ends_with(0);
    let told = report(&env, &places, 130);
    let slow = |told: &Value| verdicts(told).into_iter().find(|(name, _)| name == "slow").unwrap().1;
    assert_eq!(slow(&told), "cancelled", "{told:#}");
    let _ = env.phoenix(&args).ends_with(0);
    assert_eq!(slow(&report(&env, &places, 130)), "cancelled");
}
