//! What a depot remembers of earlier runs: how long builds took, and what failed.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

mod common;

use common::TestEnv;
use phoenix_testkit::Flake;
use serde_json::Value;

/// `fails` fails as long as there is a file that says so; `slow` takes too long then.
fn flake(env: &TestEnv) -> Flake {
    let broken = env.file("broken");
    fs_err::write(&broken, "").unwrap();
    Flake::new(&format!(
        r#"let broken = "{}"; in {{ packages.${{system}} = rec {{
          good = d "good" "sleep 0.3; echo x > $out" {{ }};
          fails = d "fails" "if [ -e ${{broken}} ]; then echo last words; exit 7; fi; echo x > $out" {{ }};
          needs = d "needs" "echo x > $out" {{ inherit fails; }};
        }}; }}"#,
        broken.display()
    ))
}

#[test]
fn what_failed_is_not_tried_again_on_any_machine_until_somebody_says_so() {
    let env = TestEnv::new();
    let flake = flake(&env);
    let (depot, reference) = (env.depot(), flake.reference());
    let args = ["--depot", &depot, &reference];
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    let (ran, first) = env.report(&args);
    let _ = ran.ends_with(100);
    assert!(first.field(&attr("fails"), "seconds").is_f64());

    // Another machine, where it would not fail.
    env.forget_store();
    fs_err::remove_dir_all(env.nix.path("home/.state")).unwrap();
    fs_err::remove_file(env.file("broken")).unwrap();
    let workers: &[&str] = if cfg!(target_os = "linux") { &["--runners", "2"] } else { &[] };
    for runners in [&[][..], workers] {
        let (ran, again) = env.report(&[&args[..], runners].concat());
        let _ = ran.ends_with(100).says("it failed ").says("--retry-failed does").says("  | last words");
        assert_eq!(again.verdict(&attr("fails")), "failed");
        assert_eq!(again.verdict(&attr("needs")), "blocked");
        assert!(again.field(&attr("fails"), "seconds").is_null(), "it was not begun");
        assert_eq!(again.count("derivations", "built"), 0);
    }
    // It stays a failure of then: its age is not that of the last run that left it out.
    let plan = env.phoenix(&["plan", "--json", "--depot", &depot, &reference]);
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    let target = |name: &str| {
        let targets = plan["targets"].as_array().unwrap();
        targets.iter().find(|target| target["attr"] == attr(name)).unwrap().clone()
    };
    assert_eq!(target("fails")["status"], "failed");
    assert!(target("fails")["reason"].as_str().unwrap().contains("in an earlier run"), "{plan:#}");
    // Without the depot nobody remembers.
    let (ran, _) = env.report(&[&format!("{reference}#fails")]);
    let _ = ran.ends_with(0);

    env.forget_store();
    let (ran, retried) = env.report(&[&args[..], &["--retry-failed"]].concat());
    let _ = ran.ends_with(0);
    assert_eq!(retried.count("derivations", "built"), 2);
    // And now it is known that it does not fail.
    env.forget_store();
    let mut command = env.command();
    command.args(["run", "--json"]).args(args);
    let ran = common::Ran::from(command.output().unwrap()).ends_with(0);
    assert!(ran.stdout.contains("\"cached\": 3"), "{ran}");
}

#[test]
fn github_runs_a_job_again_because_it_failed() {
    let env = TestEnv::new();
    let flake = flake(&env);
    let (depot, reference) = (env.depot(), flake.reference());
    let _ = env.phoenix(&["run", "--depot", &depot, &reference]).ends_with(100);
    fs_err::remove_file(env.file("broken")).unwrap();
    for (attempt, code) in [("1", 100), ("2", 0)] {
        let mut command = env.command();
        command.args(["run", "--depot", &depot, &reference]).env("GITHUB_RUN_ATTEMPT", attempt);
        let _ = common::Ran::from(command.output().unwrap()).ends_with(code);
    }
}

#[test]
fn another_machine_knows_how_long_builds_take() {
    let env = TestEnv::new();
    let flake = flake(&env);
    let (depot, reference) = (env.depot(), format!("{}#good", flake.reference()));
    let _ = env.phoenix(&["run", "--depot", &depot, &reference]).ends_with(0);
    fs_err::remove_dir_all(env.nix.path("home/.state")).unwrap();
    env.forget_store();
    // What is kept is not built again; something of the same name is.
    fs_err::remove_dir_all(env.file("depot").join("packs")).unwrap();
    let plan = env.phoenix(&["plan", "--json", "--depot", &depot, &reference]).ends_with(0);
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    let seconds = plan["build"][0]["estimatedSeconds"].as_f64().unwrap();
    assert!((0.2..5.0).contains(&seconds), "{plan:#}");
    // One that cannot be read is as none.
    for entry in fs_err::read_dir(env.file("depot").join("history")).unwrap() {
        fs_err::write(entry.unwrap().path(), "damaged").unwrap();
    }
    let ran = env.phoenix(&["run", "--depot", &depot, &reference]).ends_with(0);
    let _ = ran.says("cannot read what earlier runs left");
    let ran = env.phoenix(&["run", "--depot", &depot, &reference]).ends_with(0);
    assert!(!ran.stderr.contains("cannot read"), "{ran}");
}
