//! A row for each thing that has work: what phoenix-ci v1 and std-action call hits.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::io::Write as _;
use std::process::Stdio;

use common::{TestEnv, end, start};
use fs_err as fs;
use phoenix_testkit::Flake;
use serde_json::{Value, json};

/// Ships a plan of hits; the hits, and how the plan is asked for.
fn plan(env: &TestEnv, format: &str, name: &str, installable: &str, code: i32) -> (Value, Vec<String>) {
    let depot = env.depot();
    let args = ["plan", "--actions", "run", "--runners", "auto", "--matrix", format, "--plan", name];
    let planned = env.phoenix(&[&args[..], &["--depot", &depot, installable]].concat()).ends_with(code);
    let ledger = format!("dir:{}", env.file("ledger").display());
    let places = ["--plan", name, "--depot", &depot, "--ledger", &ledger].map(str::to_owned);
    (serde_json::from_str(&planned.stdout).unwrap(), places.to_vec())
}

fn work(env: &TestEnv, places: &[String], slot: &Value) -> std::process::Child {
    let slot = slot.to_string();
    let mut args = vec!["work", "--slot", &slot];
    args.extend(places.iter().map(String::as_str));
    start(env, &args)
}

#[test]
fn flakes_of_v1_may_read_the_environment_and_files_as_they_did() {
    let env = TestEnv::new();
    let outside = env.file("outside");
    fs::write(&outside, "from outside").unwrap();
    let flake = Flake::new(&format!(
        r#"{{ work.${{system}}.unit = {{ type = "ci-work-unit"; findWork = ''
            core.info("${{builtins.getEnv "PHOENIX_TEST_WORD"}} ${{builtins.readFile {}}}")
            return {{ }}
          ''; }}; }}"#,
        outside.display()
    ));
    let installable = format!("{}#.work.{}", flake.reference(), env.system());
    let planned = |format: &str| {
        let mut command = env.command();
        command.args(["plan", "--runners", "auto", "--matrix", format, "--plan", format, "--depot"]);
        command.args([&env.depot(), &installable]).env("PHOENIX_TEST_WORD", "of the environment");
        common::Ran::from(command.output().unwrap())
    };
    let _ = planned("v1").ends_with(0).says("of the environment from outside");
    let _ = planned("github").ends_with(120);
}

#[test]
fn every_hit_of_v1_is_red_or_green_by_itself_and_what_they_share_is_built_once() {
    let env = TestEnv::new();
    let marks = env.file("marks").display().to_string();
    fs::create_dir_all(&marks).unwrap();
    let flake = Flake::new(&format!(
        r#"let
          m = name: text: attrs: d name "echo x >> {marks}/${{name}}; ${{text}}" attrs;
          shared = m "shared" "/bin/sleep 0.5; echo > $out" {{ }};
          unit = findWork: more: {{ type = "ci-work-unit"; inherit findWork; }} // more;
          build = "return {{ build: [self.attrPath + '.drv'] }}";
        in {{
          apps.${{system}}.hello = {{ type = "app"; program = "${{m "hello" "mkdir -p $out/bin; printf '#!/bin/sh\necho x >> {marks}/ran\n' > $out/bin/hello; chmod +x $out/bin/hello" {{ }}}}/bin/hello"; }};
          work.${{system}} = {{
            good = unit build {{ drv = m "good" "echo > $out" {{ inherit shared; }}; }};
            bad = unit build {{ drv = m "bad" "echo this is why; exit 1" {{ inherit shared; }}; }};
            runs = unit "return {{ run: ['hello'] }}" {{ }};
            idle = unit "return {{}}" {{ }};
            plain = m "plain" "echo > $out" {{ inherit shared; }};
          }};
        }}"#
    ));
    flake.write("phoenix.toml", "[[actions]]\nname = \"own\"\nrun = \"hello\"\nneeds = [\"**.plain\"]\n");
    let installable = format!("{}#.work.{}", flake.reference(), env.system());
    let (hits, places) = plan(&env, "v1", "p", &installable, 0);
    let attr = |name: &str| format!("work.{}.{name}", env.system());
    let find = |name: &str| {
        let mut hits = hits.as_array().unwrap().iter();
        hits.find(|hit| hit["attrPath"] == attr(name))
            .unwrap_or_else(|| panic!("{name} in {hits:#?}"))
            .clone()
    };
    assert_eq!(hits.as_array().unwrap().len(), 5, "{hits:#}");
    let own = hits.as_array().unwrap().iter().find(|hit| hit["attrPath"] == "phoenix.toml").unwrap();
    assert_eq!(find("good")["targets"], json!({"build": [attr("good.drv")], "run": []}));
    assert_eq!(find("runs")["targets"], json!({"build": [], "run": ["hello"]}));
    assert_eq!(find("plain")["targets"]["build"], json!([attr("plain")]));
    // What no unit asked for has a row, too.
    assert_eq!(own["targets"]["run"], json!(["own"]));
    // The runners have nothing of what the planner had, and no flake.
    drop(flake);
    let own = work(&env, &places, &own["slot"]);
    let jobs: Vec<_> = ["good", "bad", "runs", "plain"]
        .map(|name| (name, work(&env, &places, &find(name)["slot"])))
        .into_iter()
        .map(|(name, child)| (name, end(child)))
        .collect();
    for (name, ran) in jobs {
        if name == "bad" {
            let ran = ran.ends_with(1).says(&format!("{}: failed (build failed)", attr("bad.drv")));
            let _ = ran.says("on runner ").says("| this is why");
        } else {
            let _ = ran.ends_with(0);
        }
    }
    let count =
        |name: &str| fs::read_to_string(format!("{marks}/{name}")).unwrap_or_default().lines().count();
    let own = end(own);
    let _ = own.ends_with(0).says("own: done");
    // By the unit, and by the configuration.
    assert_eq!(["shared", "good", "plain", "ran"].map(count), [1, 1, 1, 2]);
}

/// What a slot has shown beside the run, by lines with a mark on them; `environment` is that of the job.
fn shown_beside(env: &TestEnv, places: &[String], slot: &Value, environment: &[(&str, &str)]) -> Vec<String> {
    const MARK: &str = "0123456789abcdef-mark";
    let mut command = env.command();
    command.args(["work", "--log-groups", "--slot", &slot.to_string()]).args(places);
    let mut child = command.envs(environment.iter().copied()).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{MARK}\n").as_bytes()).unwrap();
    let ran = end(child).ends_with(1);
    let lines = ran.stderr.lines().filter_map(|line| line.strip_prefix(&format!("{MARK} error ")));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_failed_of_a_row_is_shown_beside_the_run_with_the_end_of_its_log_wherever_it_was_built() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"let
          bad = d "bad" "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); done; echo ::error::evil 100% of hunter22-hunter22; exit 1" { };
          tool = d "tool" "mkdir -p $out/bin; printf '#!/bin/sh\necho no access; exit 3\n' > $out/bin/tool; chmod +x $out/bin/tool" { };
          build = drv: { type = "ci-work-unit"; findWork = "return { build: [self.attrPath + '.drv'] }"; inherit drv; };
        in {
          apps.${system}.tool = { type = "app"; program = "${tool}/bin/tool"; };
          work.${system} = {
            one = build bad;
            two = build (d "two" "echo > $out" { inherit bad; });
            runs = { type = "ci-work-unit"; findWork = "return { run: ['tool'] }"; };
          };
        }"#,
    );
    let installable = format!("{}#.work.{}", flake.reference(), env.system());
    let (hits, places) = plan(&env, "v1", "p", &installable, 0);
    let attr = |name: &str| format!("work.{}.{name}", env.system());
    let slot = |name: &str| {
        let mut hits = hits.as_array().unwrap().iter();
        hits.find(|hit| hit["attrPath"] == attr(name)).unwrap()["slot"].clone()
    };
    // The second hears of it from the first.
    let secret = [("DEPLOY_TOKEN", "hunter22-hunter22")];
    for (name, blocked) in [("one", ""), ("two", &*format!("%0Ablocked: {}", attr("two.drv")))] {
        let shown = shown_beside(&env, &places, &slot(name), &secret);
        assert_eq!(shown.len(), 1, "{shown:?}");
        let (title, text) = shown[0].split_once("::").unwrap();
        assert_eq!(title, "title=bad failed");
        let lines: Vec<&str> = text.split("%0A").collect();
        let said = (lines[0].starts_with("build failed"), text.contains(blocked), text.contains("line 20"));
        assert_eq!(said, (true, true, false), "{text}");
        assert_eq!(lines[lines.len() - 2..], ["line 29", "::error::evil 100%25 of ***"], "{text}");
    }
    let shown = shown_beside(&env, &places, &slot("runs"), &secret);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].contains("failed::") && shown[0].ends_with("%0Ano access"), "{shown:?}");
}

#[test]
fn a_discovery_with_a_gate_that_cannot_answer_is_red_and_has_the_other_hits() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ ci.${system} = {
          bad = { type = "ci-work-unit"; findWork = "throw new Error('x')"; };
          good = ok "good";
        }; }"#,
    );
    let installable = format!("{}#.ci.{}", flake.reference(), env.system());
    let (hits, _) = plan(&env, "v1", "p", &installable, 1);
    assert_eq!(hits.as_array().unwrap().len(), 1, "{hits:#}");
    // What exists has no work.
    let _ = env.phoenix(&["run", "--depot", &env.depot(), &format!("{installable}.good")]).ends_with(0);
    let (hits, _) = plan(&env, "v1", "q", &installable, 1);
    assert_eq!(hits, json!([]));
}

#[test]
fn hits_of_std_are_by_block_and_action_and_their_actions_are_sourced_once() {
    let env = TestEnv::new();
    let ran = env.file("ran").display().to_string();
    let flake = Flake::new(&format!(
        r#"let
          action = name: block: action: proviso: script: {{
            inherit name block action proviso;
            cell = "app"; blockType = "x"; meta = null; targetDrv = null;
            actionDrv = (d "${{action}}-${{name}}" script {{ }}).drvPath;
          }};
        in {{ __std.ci.${{system}} = [
          (action "a" "packages" "build" null "echo > $out")
          (action "b" "images" "publish" null "echo 'echo \"$cell/$block/$target:$action $# $-\" >> {ran}' > $out")
          (action "d" "deployments" "apply" null "printf 'false\\necho deployed\\n' > $out")
          (action "e" "deployments" "apply" null "printf 'false | true\\necho deployed\\n' > $out")
          (action "c" "images" "publish" (builtins.toFile "no" "exit 1") "exit 1")
        ]; }}"#
    ));
    let installable = format!("{}#.__std.ci.{}", flake.reference(), env.system());
    let (hits, places) = plan(&env, "std", "p", &installable, 0);
    assert_eq!(hits["packages"]["build"][0]["name"], "a");
    assert_eq!(hits["images"]["publish"].as_array().unwrap().len(), 1, "{hits:#}");
    let publish = &hits["images"]["publish"][0];
    assert_eq!((&publish["jobName"], &publish["plan"]), (&json!("publish //app/images/b"), &json!("p")));
    env.forget_store();
    for hit in [publish, &hits["packages"]["build"][0]] {
        let _ = end(work(&env, &places, &hit["slot"])).ends_with(0);
    }
    let said = fs::read_to_string(&ran).unwrap();
    // Without arguments, and what fails in it ends it.
    let (name, flags) = said.trim().rsplit_once(' ').unwrap();
    assert!(name == "app/images/b:publish 0" && flags.contains('e'), "{said}");
    for hit in hits["deployments"]["apply"].as_array().unwrap() {
        let ran = end(work(&env, &places, &hit["slot"])).ends_with(1);
        assert!(!ran.stderr.contains("deployed"), "{ran}");
    }
    // All that is built exists now. A workflow counts on the matrix, so one row of it stays, whose job does nothing.
    let (hits, places) = plan(&env, "std", "q", &installable, 0);
    let blocks = hits.as_object().unwrap().keys().collect::<Vec<_>>();
    assert_eq!(blocks, ["deployments", "images", "packages"], "{hits:#}");
    env.forget_store();
    let _ = end(work(&env, &places, &hits["packages"]["build"][0]["slot"])).ends_with(0);
}

#[test]
fn what_a_configuration_asks_for_runs_where_its_user_allows_it() {
    let env = TestEnv::new();
    let ran = env.file("ran");
    let flake = Flake::new(&format!(
        r#"let tool = d "tool" "mkdir -p $out/bin; printf '#!/bin/sh\necho >> {}\n' > $out/bin/tool; chmod +x $out/bin/tool" {{ }}; in {{
          apps.${{system}}.tool = {{ type = "app"; program = "${{tool}}/bin/tool"; }};
          ci.${{system}}.unit = {{ type = "ci-work-unit"; findWork = "return {{ run: ['tool'] }}"; }};
        }}"#,
        ran.display()
    ));
    let event = env.file("event.json");
    fs::write(&event, r#"{"repository":{"full_name":"o/r","default_branch":"main"}}"#).unwrap();
    let installable = format!("{}#.ci.{}", flake.reference(), env.system());
    let rows = |number: usize, branch: &str| {
        let name = format!("p{number}");
        let mut command = env.command();
        command.args(["plan", "--runners", "auto", "--matrix", "v1", "--plan", &name]);
        command.args(["--depot", &env.depot(), &installable]);
        command.env("GITHUB_ACTIONS", "true").env("GITHUB_REF_NAME", branch);
        command.env("GITHUB_REPOSITORY", "o/r").env("GITHUB_EVENT_PATH", &event);
        let ran = common::Ran::from(command.output().unwrap()).ends_with(0);
        let hits: Value = serde_json::from_str(&ran.stdout).unwrap();
        hits.as_array()
            .unwrap()
            .iter()
            .map(|hit| hit["attrPath"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let unit = format!("ci.{}.unit", env.system());
    // What a unit finds is run on any branch, as by phoenix-ci v1; what it does not know is not.
    let own = "[[actions]]\nname = \"own\"\nrun = \"tool\"\n";
    flake.write("phoenix.toml", own);
    assert_eq!(rows(0, "main"), [unit.clone(), "phoenix.toml".to_owned()]);
    assert_eq!(rows(1, "feature"), std::slice::from_ref(&unit));
    // What is said of branches holds for both.
    flake.write("phoenix.toml", &format!("refs = [\"main\"]\n{own}"));
    assert_eq!(rows(2, "main"), [unit.clone(), "phoenix.toml".to_owned()]);
    assert_eq!(rows(3, "feature"), [unit]);
    let ledger = format!("dir:{}", env.file("ledger").display());
    let places =
        |name: &str| ["--plan", name, "--depot", &env.depot(), "--ledger", &ledger].map(str::to_owned);
    // It builds what would be run.
    let _ = end(work(&env, &places("p3"), &json!(0))).ends_with(0);
    assert!(!ran.exists());
    let _ = end(work(&env, &places("p1"), &json!(0))).ends_with(0);
    assert!(ran.exists());
}

#[test]
fn all_that_a_row_builds_is_in_its_store_when_it_runs_whoever_built_it() {
    let env = TestEnv::new();
    let ran = env.file("ran").display().to_string();
    // The program knows the path and does not refer to it.
    let flake = Flake::new(&format!(
        r#"let
          site = ok "site";
          path = builtins.unsafeDiscardStringContext "${{site}}";
          unit = findWork: {{ type = "ci-work-unit"; inherit findWork; }};
        in {{
          packages.${{system}}.site = site;
          apps.${{system}}.deploy = {{ type = "app"; program = "${{d "deploy" "mkdir -p $out/bin; printf '#!/bin/sh\ncat ${{path}} >> {ran}\n' > $out/bin/deploy; chmod +x $out/bin/deploy" {{ }}}}/bin/deploy"; }};
          ci.${{system}} = {{
            builds = unit "return {{ build: ['site'] }}";
            runs = unit "return {{ build: ['site'], run: ['deploy'] }}";
          }};
        }}"#
    ));
    let installable = format!("{}#.ci.{}", flake.reference(), env.system());
    let (hits, places) = plan(&env, "v1", "p", &installable, 0);
    let slot = |name: &str| {
        let mut hits = hits.as_array().unwrap().iter();
        let attr = format!("ci.{}.{name}", env.system());
        hits.find(|hit| hit["attrPath"] == attr).unwrap_or_else(|| panic!("{name} in {hits:?}"))["slot"]
            .clone()
    };
    env.forget_store();
    let _ = end(work(&env, &places, &slot("builds"))).ends_with(0);
    env.forget_store();
    let ended = end(work(&env, &places, &slot("runs"))).ends_with(0);
    assert_eq!(fs::read_to_string(&ran).unwrap(), "site\n", "{ended}");
}

#[test]
fn a_matrix_of_std_for_a_flake_without_its_actions_is_an_error_that_says_so() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; empty = { }; __std.ci.none = [ ]; }"#);
    let depot = env.depot();
    let args = ["plan", "--runners", "auto", "--matrix", "std", "--plan", "p", "--depot", &depot];
    let ran = env.phoenix(&[&args[..], &[&flake.reference()]].concat()).ends_with(1);
    let ran = ran.says("there is no action of std").says("`ci.ACTION = true`");
    assert_eq!(ran.stdout, "");
    let empty = format!("{}#.__std.ci.none", flake.reference());
    let _ =
        env.phoenix(&[&args[..6], &["q", "--depot", &depot, &empty]].concat()).ends_with(120).says("opts in");
    let _ = env.phoenix(&["report", "--plan", "p", "--depot", &depot, "--ledger", "dir:/x"]).ends_with(1);
}
