//! Work units, actions of std and actions of phoenix.toml, from the gate to what runs.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use common::{Ran, Report, TestEnv};
use fs_err as fs;
use phoenix_testkit::Flake;
use serde_json::Value;

/// A program that says what it was given, and fails when there is a file `fail` beside the flake.
const TOOL: &str = r#"
  tool = d "tool" ''
    mkdir -p $out/bin
    printf '#!/bin/sh\necho "tool ran $1"; test ! -e "$PHOENIX_TEST_FAIL"\n' > $out/bin/tool
    chmod +x $out/bin/tool
  '' { };
"#;

/// The verdict and the reason of an action.
fn action(report: &Report, name: &str) -> (String, String) {
    let actions = report.0["actions"].as_array().unwrap();
    let found: Vec<&Value> = actions.iter().filter(|action| action["name"] == name).collect();
    assert_eq!(found.len(), 1, "{name} in {actions:#?}");
    let text = |field: &str| found[0][field].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("reason"))
}

fn run(env: &TestEnv, args: &[&str], change: impl FnOnce(&mut std::process::Command)) -> (Ran, Report) {
    let mut command = env.command();
    command.args([&["run", "--json"], args].concat());
    change(&mut command);
    let ran = Ran::from(command.output().unwrap());
    let json = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    (ran, Report(json))
}

#[test]
fn a_work_unit_says_what_is_built_and_run_for_it() {
    let env = TestEnv::new();
    let flake = Flake::new(&format!(
        r#"let {TOOL} in {{
          apps.${{system}}.deploy = {{ type = "app"; program = "${{tool}}/bin/tool"; }};
          ci.${{system}} = {{
            unit = {{
              type = "ci-work-unit";
              findWorkDeps.tool = tool;
              image = d "image" "echo > $out" {{ }};
              never = d "never" "exit 1" {{ }};
              findWork = ''
                const said = await execUtils.execCommand(self.findWorkDeps.tool.path + "/bin/tool", ["in the gate"])
                core.info(said.stdout.trim())
                return {{ build: [self.attrPath + ".image"], run: ["deploy"] }}
              '';
            }};
            idle = {{ type = "ci-work-unit"; findWork = "return {{}}"; }};
          }};
        }}"#
    ));
    let (ran, report) = run(&env, &["--actions", "run", &flake.reference()], |_| {});
    let ran = ran.ends_with(0);
    let attr = |name: &str| format!("ci.{}.{name}", env.system());
    let _ = ran.says(&format!("{}: tool ran in the gate", attr("unit"))).says("run deploy> tool ran");
    assert_eq!(report.verdict(&attr("unit.image")), "built");
    assert_eq!(report.verdict(&attr("idle")), "skipped");
    assert_eq!(action(&report, "run deploy").0, "done");
    assert!(!report.attrs().contains(&attr("unit.never")), "only what is asked for: {:?}", report.attrs());
    // On a laptop nothing is deployed unless it is asked for.
    let (ran, report) = run(&env, &[&flake.reference()], |_| {});
    let _ = ran.ends_with(0);
    let (verdict, reason) = action(&report, "run deploy");
    assert!(verdict == "skipped" && reason.contains("--actions run"), "{reason}");
}

#[test]
fn a_gate_that_cannot_answer_is_red_alone_and_with_its_own_words() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ ci.${system} = let unit = findWork: { type = "ci-work-unit"; inherit findWork; }; in {
          throws = unit "\n\nthrow new Error('no network')";
          shape = unit "return { builds: [] }";
          nothing = unit "return { build: ['no.such'] }";
          slow = unit "for (;;) {}";
          bad-dep = unit "return {}" // { findWorkDeps.x = d "fails" "echo broken >&2; exit 1" { }; };
          eval = unit (throw "does not evaluate");
          without = { type = "ci-work-unit"; };
          fine = unit "return { build: [self.attrPath + '.it'] }" // { it = d "it" "echo > $out" { }; };
        }; }"#,
    );
    flake.write("phoenix.toml", "gate-time-out = 3\n");
    let (ran, report) = env.report(&[&flake.reference()]);
    let ran = ran.ends_with(120);
    let attr = |name: &str| format!("ci.{}.{name}", env.system());
    for (name, verdict, words) in [
        ("throws", "failed", "no network (line 3)"),
        ("shape", "failed", "builds"),
        ("slow", "failed", "after 3 s"),
        ("bad-dep", "failed", "failed with exit code 1"),
        ("eval", "notEvaluated", "does not evaluate"),
        ("without", "notEvaluated", "no `findWork`"),
        ("fine.it", "built", ""),
    ] {
        assert_eq!(report.verdict(&attr(name)), verdict, "{name}: {:#}", report.0);
        let reason = report.field(&attr(name), "reason").as_str().unwrap_or_default();
        assert!(reason.contains(words), "{name}: {reason}");
    }
    assert_eq!(report.verdict("no.such"), "notEvaluated", "{ran}");
}

#[test]
fn what_is_uncached_is_asked_of_the_depot_too() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"let it = d "it" "echo > $out" { }; in {
          packages.${system}.it = it;
          ci.${system}.publish = {
            type = "ci-work-unit";
            drv = it.drvPath;
            findWork = "return await nix.isUncachedDrv(self.drv) ? { build: ['it'] } : {}";
          };
        }"#,
    );
    let depot = env.depot();
    let publish = format!("ci.{}.publish", env.system());
    let (ran, report) = env.report(&["--depot", &depot, &flake.reference()]);
    let _ = ran.ends_with(0);
    assert!(!report.attrs().contains(&publish), "it has work: {:?}", report.attrs());
    env.forget_store();
    let (ran, report) = env.report(&["--depot", &depot, &flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!(report.verdict(&publish), "skipped");
}

const STD: &str = r#"let
    action = name: action: proviso: script: {
      inherit name action proviso;
      cell = "app"; block = "things"; blockType = "things"; meta = null; targetDrv = null;
      actionDrv = (d "${action}-${name}" script { }).drvPath;
    };
    file = builtins.toFile "proviso";
  in {
    __std.ci.${system} = [
      (action "a" "build" null "echo > $out")
      (action "b" "publish" (file "test \"$(echo \"$1\" | grep -o jobName)\" = jobName")
        "echo 'echo \"publishing //$cell/$block/$target:$action in $PRJ_ROOT\"' > $out")
      (action "c" "publish" (file "echo there already >&2; exit 1") "exit 1")
      (action "d" "publish" (file "echo \"jq: cannot index\" >&2; exit 5") "exit 1")
      (action "e" "deploy" null "echo 'exit 4' > $out")
      (throw "no action")
    ];
  }"#;

#[test]
fn actions_of_std_are_taken_dropped_or_red() {
    let env = TestEnv::new();
    let flake = Flake::new(STD);
    let (ran, report) = run(&env, &["--actions", "run", &flake.reference()], |_| {});
    let ran = ran.ends_with(120);
    let attr = |name: &str| format!("__std.ci.{}.{name}", env.system());
    for (name, verdict, words) in [
        ("//app/things/a:build", "built", ""),
        ("//app/things/b:publish", "built", ""),
        ("//app/things/c:publish", "skipped", "there already"),
        ("//app/things/d:publish", "failed", "exit code 5"),
        ("//app/things/e:deploy", "built", ""),
        ("5", "notEvaluated", "no action"),
    ] {
        assert_eq!(report.verdict(&attr(name)), verdict, "{name}: {:#}", report.0);
        let reason = report.field(&attr(name), "reason").as_str().unwrap_or_default();
        assert!(reason.contains(words), "{name}: {reason}");
    }
    let _ = ran.says("publishing //app/things/b:publish in /");
    assert_eq!(action(&report, "publish //app/things/b").0, "done");
    let (verdict, reason) = action(&report, "deploy //app/things/e");
    assert!(verdict == "failed" && reason.contains("exit code 4"), "{reason}");
    assert_eq!(
        report.0["actions"].as_array().unwrap().len(),
        2,
        "what is only built is no action: {:#}",
        report.0
    );
}

#[test]
fn actions_of_a_configuration_run_in_the_order_of_their_needs() {
    let env = TestEnv::new();
    let flake = Flake::new(&format!(
        r#"let {TOOL} in {{
          packages.${{system}} = {{ inherit tool; bad = d "bad" "exit 1" {{ }}; good = d "good" "echo > $out" {{ }}; }};
        }}"#
    ));
    let pushed = env.file("pushed");
    flake.write(
        "phoenix.toml",
        &format!(
            r#"push = ["file://{}"]
            [[actions]]
            name = "second"
            run = "tool"
            needs = ["first"]
            [[actions]]
            name = "first"
            run = "tool"
            needs = ["packages.*.good", "push"]
            [[actions]]
            name = "all"
            run = "tool"
            [[actions]]
            name = "lost"
            run = "tool"
            needs = ["frist"]
            "#,
            pushed.display()
        ),
    );
    let (ran, report) = run(&env, &["--actions", "run", &flake.reference()], |_| {});
    let ran = ran.ends_with(100);
    assert_eq!(action(&report, "first").0, "done", "{ran}");
    assert_eq!(action(&report, "second").0, "done");
    let (verdict, reason) = action(&report, "all");
    assert!(verdict == "blocked" && reason.contains("bad"), "{reason}");
    let (verdict, reason) = action(&report, "lost");
    assert!(verdict == "failed" && reason.contains("`frist`"), "{reason}");
    assert!(ran.stderr.find("done first").unwrap() < ran.stderr.find("started second").unwrap());
    let infos = fs::read_dir(&pushed)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".narinfo"));
    assert_eq!(infos.count(), 2, "what is green is pushed, whatever else failed");
    // A build's failure and an action's are two things: without the former, the latter is 1.
    let (ran, report) =
        run(&env, &["--actions", "run", &flake.reference(), "--exclude", "**.bad"], |command| {
            command.env("PHOENIX_TEST_FAIL", "/");
        });
    let ran = ran.ends_with(1);
    let (verdict, reason) = action(&report, "first");
    assert!(verdict == "failed" && reason.contains("exit code 1"), "{reason}");
    assert_eq!(action(&report, "second"), ("blocked".to_owned(), "by first".to_owned()));
    let _ = ran.says("FAILED first").says("  | tool ran");
    let log =
        report.0["actions"].as_array().unwrap().iter().find(|action| action["name"] == "first").unwrap();
    assert_eq!(fs::read_to_string(log["log"].as_str().unwrap()).unwrap(), "tool ran \n");
}

#[test]
fn on_github_actions_run_on_the_default_branch_and_never_for_forks() {
    let env = TestEnv::new();
    let flake = Flake::new(&format!(r#"let {TOOL} in {{ packages.${{system}} = {{ inherit tool; }}; }}"#));
    flake.write("phoenix.toml", "[[actions]]\nname = \"deploy\"\nrun = \"tool\"\n");
    let event = env.file("event.json");
    let fork = r#","pull_request":{"head":{"repo":{"full_name":"x/r"}}}"#;
    for (ref_name, more, args, verdict, words) in [
        ("main", "", &[] as &[&str], "done", ""),
        ("feature", "", &[], "skipped", "default branch main"),
        ("feature", "", &["--actions", "run"], "done", ""),
        ("main", "", &["--actions", "skip"], "skipped", "--actions skip"),
        ("main", fork, &[], "skipped", "fork"),
        ("main", fork, &["--actions", "run"], "skipped", "fork"),
    ] {
        let payload = format!(r#"{{"repository":{{"full_name":"o/r","default_branch":"main"}}{more}}}"#);
        fs::write(&event, payload).unwrap();
        let (ran, report) = run(&env, &[args, &[&flake.reference()]].concat(), |command| {
            command.env("GITHUB_ACTIONS", "true").env("GITHUB_REF_NAME", ref_name);
            command.env("GITHUB_REPOSITORY", "o/r").env("GITHUB_EVENT_PATH", &event);
        });
        let _ = ran.ends_with(0);
        let (told, reason) = action(&report, "deploy");
        assert!(told == verdict && reason.contains(words), "{ref_name} {args:?}: {told}: {reason}");
    }
}

#[test]
fn a_signal_ends_an_action_with_all_it_started() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"let slow = d "slow" "mkdir -p $out/bin; printf '#!/bin/sh\necho begun; sleep 600 & wait\n' > $out/bin/slow; chmod +x $out/bin/slow" { };
        in { packages.${system} = { inherit slow; }; }"#,
    );
    flake.write("phoenix.toml", "[[actions]]\nname = \"slow\"\nrun = \"slow\"\n");
    let mut child = common::start(&env, &["run", "--json", "--actions", "run", &flake.reference()]);
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("begun") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut stderr, &mut line).unwrap(), 0, "it ended");
    }
    let since = std::time::Instant::now();
    let _ = env.nix.run("kill", &["-TERM", &child.id().to_string()]);
    let ran = common::end(child).ends_with(130);
    assert!(since.elapsed().as_secs() < 20);
    let report = Report(serde_json::from_str(&ran.stdout).unwrap());
    assert_eq!(action(&report, "slow").0, "cancelled");
}

#[test]
fn a_signal_ends_a_gate_that_computes() {
    let env = TestEnv::new();
    let flake =
        Flake::new(r#"{ ci.${system}.loop = { type = "ci-work-unit"; findWork = "for (;;) {}"; }; }"#);
    let child = common::start(&env, &["run", "--json", &flake.reference()]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let since = std::time::Instant::now();
    let _ = env.nix.run("kill", &["-TERM", &child.id().to_string()]);
    let ran = common::end(child).ends_with(130);
    assert!(since.elapsed().as_secs() < 20);
    let report = Report(serde_json::from_str(&ran.stdout).unwrap());
    assert_eq!(report.verdict(&format!("ci.{}.loop", env.system())), "cancelled");
}
