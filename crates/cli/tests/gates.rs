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
          typo = unit "core.setOutptu('a', 1)";
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
        ("typo", "failed", "core.setOutptu does not exist"),
        ("bad-dep", "failed", "\n  > broken"),
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
      (action "f" "publish" (file "sleep 1000") "exit 1")
      (action "g" "publish" (file "cat /nowhere/x; exit 0") "exit 1")
      (throw "no action")
    ];
  }"#;

#[test]
fn actions_of_std_are_taken_dropped_or_red() {
    let env = TestEnv::new();
    let flake = Flake::new(STD);
    flake.write("phoenix.toml", "gate-time-out = 5\n");
    let (ran, report) = run(&env, &["--actions", "run", &flake.reference()], |_| {});
    let ran = ran.ends_with(120);
    let attr = |name: &str| format!("__std.ci.{}.{name}", env.system());
    for (name, verdict, words) in [
        ("//app/things/a:build", "built", ""),
        ("//app/things/b:publish", "built", ""),
        ("//app/things/c:publish", "skipped", "there already"),
        ("//app/things/d:publish", "failed", "exit code 5"),
        ("//app/things/e:deploy", "built", ""),
        ("//app/things/f:publish", "failed", "after 5 s"),
        ("//app/things/g:publish", "failed", "died of `cat /nowhere/x`"),
        ("7", "notEvaluated", "no action"),
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

/// A program that does something.
fn program(name: &str, script: &str) -> String {
    format!(
        r#"{name} = d "{name}" "mkdir -p $out/bin; printf '#!/bin/sh\n{script}\n' > $out/bin/{name}; chmod +x $out/bin/{name}" {{ }};"#
    )
}

#[test]
fn actions_that_do_not_need_each_other_run_at_the_same_time() {
    let env = TestEnv::new();
    // Each of the first two ends only when the other has begun.
    let meet = |own: &str, other: &str| {
        let (own, other) = (env.file(own).display().to_string(), env.file(other).display().to_string());
        format!(": > {own}; for i in $(seq 200); do test -e {other} && exit 0; sleep 0.1; done; exit 1")
    };
    let flake = Flake::new(&format!(
        "{{ packages.${{system}} = {{ {} {} {} }}; }}",
        program("left", &meet("l", "r")),
        program("right", &meet("r", "l")),
        program("last", &format!("echo > {}", env.file("last").display())),
    ));
    let action_of =
        |name: &str, more: &str| format!("[[actions]]\nname = \"{name}\"\nrun = \"{name}\"\n{more}");
    let actions =
        [action_of("last", "needs = [\"left\", \"right\"]\n"), action_of("left", ""), action_of("right", "")];
    flake.write("phoenix.toml", &actions.concat());
    let (ran, report) = run(&env, &["--actions", "run", &flake.reference()], |_| {});
    let ran = ran.ends_with(0);
    assert_eq!(["left", "right", "last"].map(|name| action(&report, name).0), ["done"; 3], "{ran}");
    let at = |words: &str| ran.stderr.find(words).unwrap();
    for ended in ["done left", "done right"] {
        assert!(at(ended) < at("started last"), "{ran}");
    }
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
fn what_the_user_says_of_branches_holds_whatever_the_flag() {
    let env = TestEnv::new();
    let flake = Flake::new(&format!(r#"let {TOOL} in {{ packages.${{system}} = {{ inherit tool; }}; }}"#));
    let action_with = |refs: &str| format!("[[actions]]\nname = \"deploy\"\nrun = \"tool\"\n{refs}");
    let event = env.file("event.json");
    fs::write(&event, r#"{"repository":{"full_name":"o/r","default_branch":"main"}}"#).unwrap();
    for (toml, verdict) in [
        (format!("refs = [\"release-*\"]\n{}", action_with("")), "skipped"),
        (action_with("refs = [\"main\"]\n"), "skipped"),
        (action_with("refs = [\"feature\"]\n"), "done"),
        (action_with(""), "done"),
    ] {
        flake.write("phoenix.toml", &toml);
        let (ran, report) = run(&env, &["--actions", "run", &flake.reference()], |command| {
            command.env("GITHUB_ACTIONS", "true").env("GITHUB_REF_NAME", "feature");
            command.env("GITHUB_REPOSITORY", "o/r").env("GITHUB_EVENT_PATH", &event);
        });
        assert_eq!(action(&report, "deploy").0, verdict, "{toml}: {ran}");
    }
}

#[test]
fn actions_of_one_name_that_do_different_things_all_run() {
    let env = TestEnv::new();
    let ran = env.file("ran").display().to_string();
    let flake = |name: &str| {
        let flake = Flake::new(&format!(
            r#"let tool = d "tool" "mkdir -p $out/bin; printf '#!/bin/sh\necho {name} >> {ran}\n' > $out/bin/tool; chmod +x $out/bin/tool" {{ }};
            in {{ packages.${{system}} = {{ inherit tool; }}; }}"#
        ));
        let own = "[[actions]]\nname = \"deploy\"\nrun = \"tool\"\n";
        let after = "[[actions]]\nname = \"after\"\nrun = \"tool\"\nneeds = [\"deploy\"]\n";
        flake.write("phoenix.toml", &format!("{own}{}", if name == "b" { after } else { "" }));
        flake
    };
    let (a, b) = (flake("a"), flake("b"));
    let (ran_both, report) = run(&env, &["--actions", "run", &a.reference(), &b.reference()], |_| {});
    let ran_both = ran_both.ends_with(0);
    let mut lines: Vec<_> = fs::read_to_string(&ran).unwrap().lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a", "b", "b"], "{ran_both}");
    let names = report.0["actions"].as_array().unwrap().iter().map(|action| action["name"].as_str().unwrap());
    let names: Vec<&str> = names.collect();
    assert!(names.contains(&"deploy") && names.iter().any(|name| name.starts_with("deploy (")), "{names:?}");
}

#[test]
fn secrets_are_in_no_record_whoever_prints_them() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"let
          tool = d "tool" "mkdir -p $out/bin; printf '#!/bin/sh\necho \"token $CACHIX_AUTH_TOKEN.\"; exit 3\n' > $out/bin/tool; chmod +x $out/bin/tool" { };
        in {
          packages.${system} = { inherit tool; };
          ci.${system}.unit = {
            type = "ci-work-unit";
            findWork = "throw new Error('with ' + (await execUtils.execSh('echo $CACHIX_AUTH_TOKEN')).stdout)";
          };
        }"#,
    );
    flake.write("phoenix.toml", "[[actions]]\nname = \"deploy\"\nrun = \"tool\"\n");
    let events = env.file("events.jsonl");
    let secret = "cachix-is-told-this";
    let mut places = Vec::new();
    for (exclude, words) in [("**.unit", "token ***."), ("**.tool", "with ***")] {
        let (depot, reference) = (env.depot(), flake.reference());
        let args = ["--actions", "run", "--events", events.to_str().unwrap(), "--depot", &depot];
        let args = [&args[..], &["--exclude", exclude, &reference]].concat();
        let (ran, _) = run(&env, &args, |command| {
            command.env("CACHIX_AUTH_TOKEN", secret);
        });
        let ran = ran.ends_with(1).says(words);
        let page = env.file("page.html");
        let args = ["report", events.to_str().unwrap(), "--html", page.to_str().unwrap()];
        let _ = env.phoenix(&args);
        assert!(fs::read_to_string(&page).unwrap().contains("***"));
        places.extend([ran.stdout, ran.stderr]);
    }
    // The logs and the records of the run, and what is kept for others.
    let mut directories = vec![env.file("")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => directories.push(entry.path()),
                kind if kind.is_file() => {
                    places.push(String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned());
                }
                _ => {}
            }
        }
    }
    assert!(places.iter().all(|text| !text.contains(secret)));
    assert!(places.iter().any(|text| text == "token ***.\n"), "the log of the action is kept");
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
    let flake = Flake::new(
        r#"{ ci.${system}.loop = { type = "ci-work-unit"; findWork = "console.log('begun'); for (;;) {}"; }; }"#,
    );
    let mut child = common::start(&env, &["run", "--json", &flake.reference()]);
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
    assert_eq!(report.verdict(&format!("ci.{}.loop", env.system())), "cancelled");
}

/// A registry on the loopback that wants a token, which `user` with `hunter2` gets; it has no image.
fn registry() -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let name = host.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head =
                lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n").to_lowercase();
            let wants = format!("www-authenticate: Bearer realm=\"http://{name}/token\",service=\"r\"\r\n");
            let (status, more, body) = if head.contains("bearer abc") {
                ("404 Not Found", String::new(), "")
            } else if head.starts_with("get /token") && head.contains("basic dxnlcjpodw50zxiy") {
                ("200 OK", String::new(), r#"{"token":"abc","access_token":"abc"}"#)
            } else {
                ("401 Unauthorized", wants, "")
            };
            let length = body.len();
            let reply = format!(
                "HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    host
}

#[test]
fn a_login_that_a_credential_helper_keeps_opens_a_registry_and_is_never_seen() {
    use std::os::unix::fs::PermissionsExt;
    let env = TestEnv::new();
    let host = registry();
    let flake = Flake::new(&format!(
        r#"{{ __std.ci.${{system}} = [{{
          name = "app"; cell = "app"; block = "images"; blockType = "containers"; action = "publish";
          meta.image = "{host}/owner/app:1"; targetDrv = null; proviso = null;
          actionDrv = (d "publish" "echo > $out" {{ }}).drvPath;
        }}]; }}"#
    ));
    let docker = env.file("docker");
    fs::create_dir_all(&docker).unwrap();
    let config = serde_json::json!({ "auths": { &host: {} }, "credHelpers": { &host: "test" } });
    fs::write(docker.join("config.json"), config.to_string()).unwrap();
    let helper = docker.join("docker-credential-test");
    let path = format!("{}:{}", docker.display(), std::env::var("PATH").unwrap());
    let args = ["--verbose", &flake.reference()];
    let with = |script: &str| {
        fs::write(&helper, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        run(&env, &args, |command| {
            command.env("PATH", &path).env("DOCKER_CONFIG", &docker);
        })
    };
    let asked = env.file("asked");
    let (ran, report) = with(&format!(
        r#"[ "$*" = get ] || exit 9; cat > {}; echo '{{"Username":"user","Secret":"hunter2"}}'"#,
        asked.display()
    ));
    let ran = ran.ends_with(0);
    assert_eq!(fs::read_to_string(&asked).unwrap(), host);
    assert_eq!(report.0["actions"][0]["verdict"], "skipped", "{ran}");
    let runs = String::from_utf8(
        std::process::Command::new("grep").args(["-r", "hunter2"]).arg(env.file("")).output().unwrap().stdout,
    );
    let runs = runs.unwrap().replace("docker/docker-credential-test", "");
    assert!(!ran.to_string().contains("hunter2") && !runs.contains(".state"), "{runs}");
    // One that does not say leaves it unknown, which is red.
    let (ran, report) = with("echo hunter2; exit 1");
    let ran = ran.ends_with(1);
    assert_eq!(report.verdict(report.attrs().first().unwrap()), "failed", "{ran}");
    let _ = ran.says("docker-credential-test does not say");
}

/// A registry that has what is called `there`, has not what is called `absent`, and does not say of anything else.
fn plain_registry() -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = BufReader::new(&stream).lines().map_while(Result::ok);
            let head = head.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
            let status = if head.contains("/there/") {
                "200 OK"
            } else if head.contains("/absent/") {
                "404 Not Found"
            } else {
                "401 Unauthorized"
            };
            let reply = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    host
}

#[test]
fn what_publishes_an_image_asks_its_registry_whatever_its_proviso_could_not_see() {
    let env = TestEnv::new();
    let host = plain_registry();
    let flake = Flake::new(&format!(
        r#"let
          action = name: image: proviso: {{
            inherit name proviso; cell = "app"; block = "images"; blockType = "containers"; action = "publish";
            meta = {{ inherit image; }}; targetDrv = null;
            actionDrv = (d "publish-${{name}}" "echo > $out" {{ }}).drvPath;
          }};
          # As std has it: where skopeo cannot look, or is not there, it sees nothing.
          stds = builtins.toFile "containers-proviso.sh" ''
            if command skopeo-that-is-not-there skopeo inspect --insecure-policy "docker://$1" &>/dev/null; then
              exit 1
            fi
            exit 0
          '';
          own = answer: builtins.toFile "proviso.sh" "exit ${{toString answer}}";
        in {{ __std.ci.${{system}} = [
          (action "there" "{host}/there/a:1" null)
          (action "absent" "{host}/absent/a:1" null)
          (action "unknown" "{host}/secret/a:1" null)
          (action "number" 5 null)
          (action "std-there" "{host}/there/a:1" stds)
          (action "std-absent" "{host}/absent/a:1" stds)
          (action "std-unknown" "{host}/secret/a:1" stds)
          (action "own-there" "{host}/there/a:1" (own 0))
          (action "own-unknown" "{host}/secret/a:1" (own 0))
          (action "own-none" "{host}/secret/a:1" (own 1))
          (action "own-kind" "docker-daemon:a/b:1" (own 0))
        ]; }}"#
    ));
    let image = format!("{host}/there/a:1 exists");
    let ask = || {
        let (ran, report) = run(&env, &["--actions", "skip", &flake.reference()], |_| {});
        let of = |name: &str| {
            let attr = format!("__std.ci.{}.//app/images/{name}:publish", env.system());
            let reason = report.field(&attr, "reason").as_str().unwrap_or_default().to_owned();
            (report.verdict(&attr).to_owned(), reason)
        };
        let names = ["there", "absent", "unknown", "number"];
        let more = ["std-there", "std-absent", "std-unknown"];
        let own = ["own-there", "own-unknown", "own-none", "own-kind"];
        let all: std::collections::BTreeMap<&str, (String, String)> =
            [&names[..], &more, &own].concat().into_iter().map(|name| (name, of(name))).collect();
        (ran, all)
    };
    let (ran, all) = ask();
    for (name, verdict, words) in [
        ("there", "skipped", image.as_str()),
        ("absent", "built", ""),
        ("unknown", "failed", "docker login"),
        ("number", "failed", "`meta.image` has to name an image"),
        ("std-there", "skipped", "though its proviso does not see it"),
        ("std-absent", "built", ""),
        ("std-unknown", "failed", "unknown whether image"),
        ("own-there", "built", ""),
        ("own-unknown", "failed", "`unknown-images`"),
        ("own-none", "skipped", "its proviso says no"),
        ("own-kind", "built", ""),
    ] {
        let (is, reason) = &all[name];
        assert!(is == verdict && reason.contains(words), "{name}: {is}: {reason}\n{ran}");
    }
    let _ = ran.says("it is published nevertheless, as its proviso says");
    for (setting, verdict, words) in [("work", "built", ""), ("none", "skipped", "taken for there")] {
        flake.write("phoenix.toml", &format!("unknown-images = \"{setting}\"\n"));
        let (ran, all) = ask();
        for name in ["unknown", "std-unknown", "own-unknown"] {
            let (is, reason) = &all[name];
            assert!(
                (is == verdict || is == "cached" && verdict == "built") && reason.contains(words),
                "{setting}: {name}: {is}: {reason}\n{ran}"
            );
        }
        assert_eq!(all["std-there"].0, "skipped");
        if setting == "work" {
            let _ = ran.says("it is taken for absent (`unknown-images` of phoenix.toml)");
        }
    }
}

#[test]
fn a_secret_of_a_script_is_hidden_by_the_runner_too() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ ci.${system}.u = { type = "ci-work-unit"; findWork = ''
            core.setSecret("hunter" + 2)
            core.info("it is hunter" + 2)
            return { }
          ''; }; }"#,
    );
    for (github, masks) in [("true", 1), ("", 0)] {
        let (ran, _) = run(&env, &[&flake.reference()], |command| {
            command.env("GITHUB_ACTIONS", github);
        });
        let ran = ran.ends_with(0).says("it is ***");
        assert_eq!(ran.stderr.matches("::add-mask::hunter2\n").count(), masks, "{ran}");
        assert_eq!(ran.to_string().matches("hunter2").count(), masks, "{ran}");
    }
}

#[test]
fn names_without_end_are_survived() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"let long = builtins.concatStringsSep "" (builtins.genList (_: builtins.concatStringsSep "" (builtins.genList (_: "0123456789") 1024)) 1024); in {
          packages.${system} = { "a${long}" = d "a" "echo > $out" { }; "b${long}" = throw "no ${long}"; };
          ci.${system} = {
            u = { type = "ci-work-unit"; findWork = "return { build: ['${long}'] }"; };
            e = { type = "ci-work-unit"; findWork = "throw new Error('${long}')"; };
          };
        }"#,
    );
    let since = std::time::Instant::now();
    let (ran, report) = run(&env, &[&flake.reference()], |_| {});
    assert!(since.elapsed().as_secs() < 120, "{:?}", since.elapsed());
    assert!(
        ran.stderr.len() < 100_000 && ran.stdout.len() < 200_000,
        "{} {}",
        ran.stderr.len(),
        ran.stdout.len()
    );
    let ran = ran.ends_with(120);
    let all = report.attrs();
    assert_eq!(all.len(), 4, "{ran}");
    assert!(
        all.iter().all(|attr| attr.len() < 200 && ["notEvaluated", "failed"].contains(&report.verdict(attr)))
    );
}

#[test]
fn nothing_of_a_flake_sees_the_token_of_the_job() {
    let env = TestEnv::new();
    let ran = env.file("ran").display().to_string();
    let flake = Flake::new(&format!(
        r#"let
          say = d "say" "mkdir -p $out/bin; printf '#!/bin/sh\necho action:$ACTIONS_RUNTIME_TOKEN:$OTHER >> {ran}\n' > $out/bin/say; chmod +x $out/bin/say" {{ }};
          fetched = d "fetched" "echo built:$ACTIONS_RUNTIME_TOKEN:$OTHER >> {ran}; printf x > $out" {{
            impureEnvVars = [ "ACTIONS_RUNTIME_TOKEN" "OTHER" ];
            outputHashMode = "flat"; outputHashAlgo = "sha256";
            outputHash = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
          }};
        in {{
          packages.${{system}} = {{ inherit say fetched; }};
          ci.${{system}}.gate = {{ type = "ci-work-unit"; findWork = ''
            await execUtils.execSh("echo gate:$ACTIONS_RUNTIME_TOKEN:$OTHER >> {ran}")
            return {{ }}
          ''; }};
          __std.ci.${{system}} = [{{
            name = "n"; cell = "c"; block = "b"; blockType = "x"; action = "run"; meta = null; targetDrv = null;
            proviso = builtins.toFile "proviso" "echo proviso:\${{ACTIONS_RUNTIME_TOKEN:-}}:$OTHER >> {ran}; exit 1";
            actionDrv = say.drvPath;
          }}];
        }}"#
    ));
    flake.write("phoenix.toml", "[[actions]]\nname = \"say\"\nrun = \"say\"\n");
    let (ran_as, _) = run(&env, &["--actions", "run", &flake.reference()], |command| {
        command.env("ACTIONS_RUNTIME_TOKEN", "secret-token").env("OTHER", "seen");
    });
    let _ = ran_as.ends_with(0);
    let text = fs::read_to_string(&ran).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["action::seen", "built::seen", "gate::seen", "proviso::seen"]);
}
