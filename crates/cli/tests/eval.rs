//! `phoenix eval` gives what Nix itself gives.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

mod common;

use std::collections::BTreeMap;

use common::TestEnv;
use phoenix_testkit::{Around, Flake, PREAMBLE};
use serde_json::Value;

/// The `drvPath` of each attribute.
fn evaluated(env: &TestEnv, args: &[&str]) -> BTreeMap<String, Value> {
    let ran = env.phoenix(&[&["eval"], args].concat());
    assert!(matches!(ran.code, Some(0 | 120)), "{ran}");
    let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| (line["attr"].as_str().unwrap().to_owned(), line)).collect()
}

/// Asserts that an attribute has the derivation that `nix eval` gives it.
fn same_as_nix(env: &TestEnv, reference: &str, attr: &str, more: &[&str]) {
    let ours = evaluated(env, &[&[format!("{reference}#{attr}").as_str()], more].concat());
    let installable = format!("{reference}#{attr}.drvPath");
    let nix = env.nix.run("nix", &[&["eval", "--raw", "--no-write-lock-file", &installable], more].concat());
    assert_eq!(ours.values().next().unwrap()["drvPath"], nix, "{attr} of {reference}");
}

/// A flake in which a derivation knows everything that is known of its source.
fn curious() -> Flake {
    let flake = Flake::new("{ }");
    flake.write(
        "flake.nix",
        &format!(
            "{{ outputs = {{ self }}: let {PREAMBLE} in {{
              info = d \"info\" \"\" {{ info = builtins.toJSON (builtins.mapAttrs (_: toString) self.sourceInfo); }};
              source = d \"source\" \"\" {{ src = self; file = ./flake.nix; inherit (self) outPath; }};
              pure = d \"pure\" \"\" {{ home = builtins.getEnv \"HOME\"; }};
            }}; }}"
        ),
    );
    flake
}

#[test]
fn a_line_is_nix_eval_jobs_s() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          "with.dot" = d "dotted" "" { outputs = [ "out" "dev" ]; requiredSystemFeatures = [ "kvm" ]; };
          bad = throw "no";
        }; }"#,
    );
    let lines = evaluated(&env, &[&flake.reference()]);
    let good = &lines[&format!("packages.{}.\"with.dot\"", env.system())];
    assert_eq!(good["attrPath"], serde_json::json!(["packages", env.system(), "with.dot"]));
    assert_eq!(
        (good["name"].as_str(), good["system"].as_str()),
        (Some("dotted"), Some(env.system().as_str()))
    );
    assert!(good["drvPath"].as_str().unwrap().ends_with("-dotted.drv"));
    assert!(good["outputs"]["dev"].as_str().unwrap().ends_with("-dotted-dev"));
    assert_eq!(good["requiredSystemFeatures"], serde_json::json!(["kvm"]));
    let bad = &lines[&format!("packages.{}.bad", env.system())];
    assert_eq!(bad["error"], "no");
    assert!(bad.get("drvPath").is_none());
}

#[test]
fn a_path_a_clean_and_a_dirty_repository_have_nix_s_derivations() {
    let env = TestEnv::new();
    let flake = curious();
    for attr in ["info", "source", "pure"] {
        same_as_nix(&env, &flake.reference(), attr, &[]);
    }
    flake.commit();
    let reference = format!("git+file://{}", flake.path().display());
    for attr in ["info", "source"] {
        same_as_nix(&env, &reference, attr, &[]);
    }
    // A change that is not committed.
    let text = std::fs::read_to_string(flake.path().join("flake.nix")).unwrap();
    flake.write("flake.nix", &format!("{text}\n# changed"));
    for attr in ["info", "source"] {
        same_as_nix(&env, &reference, attr, &[]);
    }
}

#[test]
fn inputs_that_follow_are_overridden_or_no_flakes() {
    let env = TestEnv::new();
    let lib = |word: &str| {
        let flake = Flake::new("{ }");
        flake.write(
            "flake.nix",
            &format!("{{ outputs = {{ self }}: {{ word = \"{word}\"; root = ./.; }}; }}"),
        );
        flake
    };
    let (one, two) = (lib("one"), lib("two"));
    let plain = Flake::new("{ }");
    plain.write("data.txt", "data");
    let middle = Flake::new("{ }");
    middle.write(
        "flake.nix",
        &format!(
            "{{ inputs.lib.url = \"{}\"; outputs = {{ self, lib }}: {{ word = \"middle of ${{lib.word}}\"; }}; }}",
            one.reference()
        ),
    );
    let top = Flake::new("{ }");
    top.write(
        "sub/flake.nix",
        &format!(
            "{{
              inputs.lib.url = \"{}\";
              inputs.middle.url = \"{}\";
              inputs.middle.inputs.lib.follows = \"lib\";
              inputs.plain = {{ url = \"{}\"; flake = false; }};
              outputs = {{ self, lib, middle, plain }}: let {PREAMBLE} in {{
                all = d \"all\" \"\" {{ words = [ lib.word middle.word ]; data = builtins.readFile \"${{plain}}/data.txt\"; src = self; file = ./flake.nix; root = lib.root; }};
              }};
            }}",
            one.reference(),
            middle.reference(),
            plain.reference()
        ),
    );
    top.commit();
    let reference = format!("git+file://{}?dir=sub", top.path().display());
    same_as_nix(&env, &reference, "all", &[]);
    same_as_nix(&env, &reference, "all", &["--override-input", "lib", &two.reference()]);
    assert!(!top.path().join("sub/flake.lock").exists(), "the lock file is not written");
}

#[test]
fn evaluation_is_pure_unless_it_is_told_otherwise() {
    let env = TestEnv::new();
    let flake = Flake::new("{ }");
    flake.write(
        "flake.nix",
        &format!(
            "{{ outputs = {{ self }}: let {PREAMBLE} in {{ packages.${{system}} = {{
              env = d \"env-${{builtins.getEnv \"WORD\"}}x\" \"\" {{ }};
              file = d \"file\" \"\" {{ text = builtins.readFile /etc/hostname; }};
            }}; }}; }}"
        ),
    );
    let lines = evaluated(&env, &[&flake.reference()]);
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    assert_eq!(lines[&attr("env")]["name"], "env-x");
    assert!(lines[&attr("file")]["error"].is_string(), "{:?}", lines[&attr("file")]);
    let ran = common::Ran::from(
        env.command().args(["eval", "--impure", &flake.reference()]).env("WORD", "hello").output().unwrap(),
    );
    assert!(ran.stdout.contains("env-hellox"), "{ran}");
}

#[test]
fn import_from_derivation_works_and_is_seen() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system}.late = d (import (d "words" "echo '\"imported\"' > $out" { })) "" { }; }"#,
    );
    let ran = env.phoenix(&["eval", &flake.reference()]).ends_with(0);
    let ran = ran.says(&format!("evaluation of packages.{}.late waits for a build of ", env.system()));
    assert!(ran.stdout.contains("\"name\":\"imported\""), "{ran}");
}

#[test]
fn several_evaluators_find_the_same() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ hydraJobs = builtins.listToAttrs (builtins.genList (n: {
          name = "set${toString n}";
          value = { a = ok "a${toString n}"; bad = throw "bad ${toString n}"; };
        }) 30); }"#,
    );
    let one = evaluated(&env, &[&flake.reference()]);
    let three = evaluated(&env, &[&flake.reference(), "--eval-workers", "3"]);
    assert_eq!(one.len(), 60);
    assert_eq!(one, three);
}

/// Many neighbours, with all kinds of errors among them.
fn neighbours() -> Flake {
    let flake = Flake::new(
        r#"{ packages.${system} = builtins.listToAttrs (builtins.genList (n: {
          name = "p${toString (1000 + n)}";
          value = builtins.elemAt [
            (ok "good")
            (throw "no ${toString n}")
            (1 + "a")
            (builtins.trace "hello\nerror: none" (ok "said"))
            ({ }.missing)
            (import ./cut.nix)
            (assert n < 0; ok "asserted")
            (abort "enough")
            (builtins.foldl' (a: b: a + b) 0 (builtins.genList (x: if x == 100 then throw "deep ${toString n}" else x) 200))
            (let endless = x: 1 + endless (x + 1); in if n == 119 then endless 0 else ok "deep")
          ] (n - n / 10 * 10);
        }) 200); }"#,
    );
    flake.write("cut.nix", "{ a = 1; b = ");
    flake
}

#[test]
fn neighbours_are_answered_each_for_itself() {
    let env = TestEnv::new();
    let flake = neighbours();
    let all = evaluated(&env, &["--no-eval-cache", &flake.reference()]);
    assert_eq!(all.len(), 200);
    for at in (1110..1120).chain([1009]) {
        let attr = format!("packages.{}.p{at}", env.system());
        let alone = evaluated(&env, &["--no-eval-cache", &format!("{}#{attr}", flake.reference())]);
        assert_eq!(alone[&attr], all[&attr], "{attr}");
    }
    let two = evaluated(&env, &["--no-eval-cache", "--eval-workers", "2", &flake.reference()]);
    assert_eq!(two, all);
    let kept = evaluated(&env, &[&flake.reference()]);
    assert_eq!(kept, all);
    assert_eq!(evaluated(&env, &[&flake.reference()]), all);
}

#[test]
fn evaluators_that_cannot_be_started_are_done_without() {
    let env = TestEnv::new();
    // While one waits for a build another one pays.
    let set = r#"let
        one = name: derivation { inherit name; system = "x"; builder = "/bin/sh"; };
        built = derivation {
          name = "built";
          system = "SYSTEM";
          builder = "/bin/sh";
          args = [ "-c" "PATH=/bin:/usr/bin; sleep 2; echo 'x: x' > $out" ];
        };
      in { a = import built (one "a"); } // builtins.listToAttrs (builtins.genList (n: {
        name = "p${toString n}";
        value = one "p${toString n}";
      }) 59)"#
        .replace("SYSTEM", &env.system());
    let mut command = where_evaluators(&env, "rm -f \"$0\"");
    // Nor is there another one.
    let others = env.file("others");
    fs_err::create_dir_all(&others).unwrap();
    for directory in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name() != "nix" {
                let _ = std::os::unix::fs::symlink(entry.path(), others.join(entry.file_name()));
            }
        }
    }
    let own = env.file("another-evaluator");
    command.env("PATH", std::env::join_paths([own, others]).unwrap());
    command.args(["eval", "--eval-workers", "2", "--expr", &set]);
    let ran = common::Ran::from(command.output().unwrap()).ends_with(0);
    assert_eq!(ran.stdout.lines().count(), 60, "{ran}");
    let _ = ran.says("no more than 1 of the evaluators could be started");
}

#[test]
fn a_way_into_the_store_that_is_removed_ends_the_run() {
    let env = TestEnv::new();
    let temporary = env.file("temporary");
    fs_err::create_dir_all(&temporary).unwrap();
    let set = r#"builtins.listToAttrs (builtins.genList (n: {
        name = "p${toString n}";
        value = derivation { name = "p${toString n}"; system = "x"; builder = "/bin/sh"; };
      }) 60)"#;
    let mut command = where_evaluators(&env, "rm -rf \"$TMPDIR\"/phoenix-daemon-*");
    command.args(["eval", "--eval-workers", "2", "--expr", set]).env("TMPDIR", &temporary);
    let ran = common::Ran::from(command.output().unwrap());
    assert!(!ran.stdout.contains("connect"), "{ran}");
    let _ = ran.ends_with(1).says("the way into the store is gone");
}

#[test]
fn a_build_among_many_neighbours_holds_none_back() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = builtins.listToAttrs (builtins.genList (n: {
          name = "p${toString (1000 + n)}";
          value = if n == 100 then d (import (d "slow" "sleep 3; echo '\"imported\"' > $out" { })) "" { } else ok "a${toString n}";
        }) 150); }"#,
    );
    let ran = env.phoenix(&["eval", &flake.reference()]).ends_with(0);
    let order = order(&ran);
    assert_eq!((order.len(), order[149].as_str()), (150, "p1100"), "{ran}");
}

#[test]
fn nothing_but_data_is_on_stdout_and_a_closed_pipe_is_no_error() {
    let env = TestEnv::new();
    let flake =
        Flake::new(r#"{ packages.${system} = { a = builtins.trace "hello" (ok "a"); b = ok "b"; }; }"#);
    let ran = env.phoenix(&["eval", &flake.reference()]).ends_with(0).says("hello");
    assert!(ran.stdout.lines().all(|line| line.starts_with('{')), "{ran}");
    let mut child = env.command().args(["eval", &flake.reference()]).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&ended.stderr).contains("panicked"));
}

#[test]
fn a_file_that_ends_too_soon_is_an_error_of_what_imports_it() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          cut = import ./cut.nix;
          empty = (import ./empty.nix).x;
          good = d "good" "" { };
        }; }"#,
    );
    flake.write("cut.nix", "{ a = 1; b = ");
    flake.write("empty.nix", "# nothing\n");
    let lines = evaluated(&env, &[&flake.reference()]);
    let of = |name: &str| &lines[&format!("packages.{}.{name}", env.system())];
    for (name, place) in [("cut", "cut.nix:1:"), ("empty", "empty.nix:")] {
        let error = of(name)["error"].as_str().unwrap();
        assert!(error.contains("unexpected end of file") && error.contains(place), "{error}");
        assert!(
            !error.contains("«st") && !error.contains("phoenix-eval"),
            "what is ours is not shown: {error}"
        );
    }
    assert!(of("good")["drvPath"].as_str().unwrap().ends_with("-good.drv"));
    let file = env.file("cut.nix");
    std::fs::write(&file, "{ a = ").unwrap();
    let ran = env.phoenix(&["eval", "-f", file.to_str().unwrap()]).ends_with(120);
    assert!(ran.stdout.contains("unexpected end of file"), "{ran}");
}

#[test]
fn functions_of_a_file_that_need_nothing_are_called_as_nix_does_it() {
    let env = TestEnv::new();
    let file = env.file("default.nix");
    let text = format!(
        "{{ n ? 1 }}: let {PREAMBLE} in {{
          called = {{ m ? 2 }}: ok \"called-${{toString (n + m)}}\";
          set = {{ o ? 3 }}: {{ inner = ok \"inner-${{toString o}}\"; }};
          needs = {{ p }}: ok p;
          plain = name: ok name;
        }}"
    );
    fs_err::write(&file, text.replace("SYSTEM", &env.system())).unwrap();
    let file = file.display().to_string();
    for (attr, name) in [("called", "called-3"), ("set.inner", "inner-3")] {
        let ours = evaluated(&env, &["-f", &file, "-A", attr]);
        assert_eq!(ours[attr]["name"], name);
        assert_eq!(ours[attr]["drvPath"], env.nix.run("nix-instantiate", &[&file, "-A", attr]));
    }
    for attr in ["needs", "plain"] {
        let ours = evaluated(&env, &["-f", &file, "-A", attr]);
        assert_eq!(ours[attr]["error"], "it is a function, not a derivation");
    }
}

/// The attributes in the order in which they were told.
fn order(ran: &common::Ran) -> Vec<String> {
    let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|line| line["attrPath"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_waits_for_a_build_or_cannot_have_one_holds_nobody_back() {
    let env = TestEnv::new();
    let foreign = if env.system() == "riscv64-linux" { "x86_64-linux" } else { "riscv64-linux" };
    let flake = Flake::new(
        &r#"{ packages.${system} = {
          a = d (import (d "slow" "sleep 3; echo '\"imported\"' > $out" { })) "" { };
          b = import (d "foreign" "echo 1 > $out" { system = "FOREIGN"; });
          c = ok "c";
          d = ok "d";
        }; }"#
            .replace("FOREIGN", foreign),
    );
    let ran = env.phoenix(&["eval", &flake.reference()]).ends_with(120);
    assert_eq!(order(&ran)[3], "a", "{ran}");
    let lines = evaluated(&env, &[&flake.reference()]);
    let error = lines[&format!("packages.{}.b", env.system())]["error"].as_str().unwrap();
    assert!(error.contains(foreign) && error.contains("-foreign.drv"), "{error}");
}

#[test]
fn what_needs_more_memory_than_there_is_costs_only_itself() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          a = ok "a";
          big = builtins.foldl' (a: b: a + b) 0 (builtins.genList (x: x) 50000000);
          c = ok "c";
        }; }"#,
    );
    let ran = env.phoenix(&["eval", &flake.reference(), "--eval-memory", "200MiB"]).ends_with(120);
    assert_eq!(order(&ran), ["a", "c", "big"], "it goes again alone: {ran}");
    assert!(ran.stdout.contains("it needs more memory than evaluation may have"), "{ran}");
    assert!(ran.stdout.contains("alone, of 200 MiB"), "{ran}");
}

/// What a builder does that sends a signal to the evaluator which waits for it. Without a sandbox it can: both were started by
/// phoenix, the evaluator and the daemon that builds.
#[cfg(target_os = "linux")]
fn signals_evaluator(signal: &str) -> String {
    r#"
      sleep 0.5
      read -r _ _ _ phoenix _ < /proc/$PPID/stat
      for process in /proc/[0-9]*; do
        read -r id name _ parent _ < $process/stat || continue
        if [ "$parent $name" = "$phoenix (nix)" ]; then kill -SIGNAL $id; fi
      done
      sleep 1
    "#
    .replace("SIGNAL", signal)
}

#[test]
#[cfg(target_os = "linux")]
fn an_evaluator_that_is_killed_costs_one_attribute() {
    let env = TestEnv::new();
    let flake = Flake::new(
        &r#"{ packages.${system} = {
          a = ok "a";
          b = import (d "killer" ''KILLS'' { });
          c = ok "c";
        }; }"#
            .replace("KILLS", &signals_evaluator("9")),
    );
    let ran = env.phoenix(&["eval", &flake.reference(), "-v"]).ends_with(120);
    assert_eq!(order(&ran), ["a", "c", "b"], "{ran}");
    assert!(ran.stdout.contains("the evaluator was killed"), "{ran}");
    assert!(ran.stdout.contains("MiB when last seen") && !ran.stdout.contains("had 0 MiB"), "{ran}");
}

#[test]
fn a_daemon_that_is_killed_costs_one_attribute() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          a = ok "a";
          b = import (d "killer" "sleep 0.5; kill -9 $PPID; sleep 1" { });
          c = ok "c";
        }; }"#,
    );
    let ran = env.phoenix(&["eval", &flake.reference(), "-v"]).ends_with(120);
    assert_eq!(ran.stdout.lines().count(), 3, "{ran}");
    assert_eq!(ran.stdout.matches("drvPath").count(), 2, "{ran}");
    assert!(ran.stdout.contains("the process that builds for it ended"), "{ran}");
}

/// A signal that does not end an evaluator at once costs no more than one that does.
#[test]
#[cfg(target_os = "linux")]
fn an_evaluator_that_is_told_to_end_is_asked_again() {
    let env = TestEnv::new();
    let first = env.file("first");
    let tells = signals_evaluator("TERM");
    let tell = |nix: &str, once: &str| {
        format!(r#"import (d "{nix}" ''{once}{tells}'' {{ }}) (ok "{nix}-is-there")"#)
    };
    let once = format!("echo 'x: x' > $out; if [ -e {0} ]; then exit 0; fi; echo > {0}", first.display());
    let flake = Flake::new(&format!(
        "{{ packages.${{system}} = {{ a = ok \"a\"; b = {}; c = ok \"c\"; d = {}; }}; }}",
        tell("once", &once),
        tell("always", "")
    ));
    let ran = env.phoenix(&["eval", &flake.reference(), "-v"]).ends_with(120);
    let mut found = order(&ran);
    found.sort_unstable();
    assert_eq!(found, ["a", "b", "c", "d"], "{ran}");
    assert_eq!(ran.stdout.matches("drvPath").count(), 3, "{ran}");
    assert!(ran.stdout.contains("once-is-there") && first.exists(), "{ran}");
    assert!(ran.stdout.contains("the evaluator was interrupted by a signal"), "{ran}");
}

/// That nothing can be written is no fault of an attribute: it is told once, and the run ends.
#[test]
#[cfg(target_os = "linux")]
fn a_store_that_cannot_be_written_any_more_ends_the_run() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          a = import (d "taker" ''
            read -r _ _ _ phoenix _ < /proc/$PPID/stat
            prlimit --pid $phoenix --nofile=3
            echo 'x: x' > $out
          '' { }) (ok "a");
        } // builtins.listToAttrs (map (n: { name = "p${toString n}"; value = ok "p${toString n}"; }) [ 1 2 3 4 ]); }"#,
    );
    let ran = env.phoenix(&["eval", &flake.reference(), "--eval-workers", "1"]).ends_with(1);
    assert_eq!(ran.stderr.matches("derivations cannot be written to the store").count(), 1, "{ran}");
    assert!(ran.stderr.contains("Too many open files"), "{ran}");
    assert!(ran.stderr.matches("could be started").count() <= 1, "{ran}");
    assert!(ran.stderr.contains("hint: more files have to be open"), "{ran}");
    assert!(!ran.stdout.contains("error"), "{ran}");
}

/// What phoenix puts into a TMPDIR is in no source.
#[test]
fn a_source_with_a_directory_for_what_is_temporary_is_as_it_was() {
    let env = TestEnv::new();
    let project = env.file("project");
    fs_err::create_dir_all(project.join("tmp")).unwrap();
    let text = "{ a = derivation { name = \"a\"; system = \"x\"; builder = \"x\"; src = ./.; }; }";
    fs_err::write(project.join("default.nix"), text).unwrap();
    let plain = env.nix.run("nix-instantiate", &[project.join("default.nix").to_str().unwrap(), "-A", "a"]);
    let mut command = env.command();
    command.args(["eval", "./default.nix"]).current_dir(&project).env("TMPDIR", project.join("tmp"));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(plain.trim()), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// The processes that this one has started and that are there, of any name that begins so.
#[cfg(target_os = "linux")]
fn started_by(parent: u32, name: &str) -> Vec<u32> {
    let of = |entry: std::io::Result<std::fs::DirEntry>| {
        let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let text = fs_err::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (before, after) = text.rsplit_once(") ")?;
        let is_it =
            before.split_once('(')?.1.starts_with(name) && after.split(' ').nth(1)? == parent.to_string();
        is_it.then_some(id)
    };
    std::fs::read_dir("/proc").unwrap().filter_map(of).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn an_evaluator_does_not_outlive_who_is_killed() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system}.endless = builtins.genericClosure {
          startSet = [ { key = 0; } ]; operator = { key }: [ { key = key + 1; } ];
        }; }"#,
    );
    let mut command = env.command();
    command.args(["eval", &flake.reference()]).stdout(std::process::Stdio::null());
    let mut phoenix = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let later = |what: &mut dyn FnMut() -> bool| {
        let begun = std::time::Instant::now();
        while !what() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    let (mut evaluators, mut shells) = (Vec::new(), Vec::new());
    later(&mut || {
        shells = started_by(phoenix.id(), "sh");
        // Others of Nix end soon.
        let before = std::mem::replace(&mut evaluators, started_by(phoenix.id(), "nix"));
        !shells.is_empty() && !evaluators.is_empty() && evaluators == before
    });
    phoenix.kill().unwrap();
    phoenix.wait().unwrap();
    let is_over = |id: &u32| {
        let state = fs_err::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // What nobody waits for stays as a zombie where process 1 does not.
        state.rsplit_once(") ").is_none_or(|(_, after)| after.starts_with('Z'))
    };
    later(&mut || evaluators.iter().chain(&shells).all(is_over));
}

/// A `nix` before the real one that evaluates nothing.
fn without_evaluator(env: &TestEnv) -> std::process::Command {
    where_evaluators(env, "exit 99")
}

/// A `nix` before the real one that does something before it evaluates.
fn where_evaluators(env: &TestEnv, what: &str) -> std::process::Command {
    use std::os::unix::fs::PermissionsExt;
    let directory = env.file("another-evaluator");
    fs_err::create_dir_all(&directory).unwrap();
    let path = std::env::var("PATH").unwrap();
    let real = std::env::split_paths(&path).map(|dir| dir.join("nix")).find(|file| file.exists()).unwrap();
    let script = format!(
        "#!/bin/sh\nfor word in \"$@\"; do [ \"$word\" != repl ] || {what}; done\nexec {} \"$@\"\n",
        real.display()
    );
    fs_err::write(directory.join("nix"), script).unwrap();
    fs_err::set_permissions(directory.join("nix"), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = env.command();
    command.env("PATH", format!("{}:{path}", directory.display()));
    command
}

/// Whether evaluation is pure in this version of Nix, so that what it gave can be kept.
fn is_pure(env: &TestEnv) -> bool {
    !env.nix.run("nix", &["--version"]).contains(" 2.8.")
}

#[test]
fn an_unchanged_flake_is_not_evaluated_again() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = { a = builtins.trace "hello" (ok "a"); bad = throw "no"; }; hydraJobs = {
          b = (builtins.warn or builtins.trace) "careful" (ok "b");
          missing = { }.x;
          added = 1 + "a";
          coerced = "${{ }}";
          called = ({ x }: x) { };
          endless = let x = x; in x;
          cut = import ./cut.nix;
          aborted = abort "enough";
        }; }"#,
    );
    flake.write("cut.nix", "{ a = 1; b = ");
    let first = env.phoenix(&["eval", &flake.reference(), "-v"]).ends_with(120);
    if !is_pure(&env) {
        let _ = first.says("is not kept: evaluation in this version of Nix is not pure");
        return;
    }
    let again = |args: &[&str]| {
        let mut command = without_evaluator(&env);
        common::Ran::from(command.args([&["eval"], args].concat()).output().unwrap())
    };
    let first = first.says("careful");
    let second = again(&[&flake.reference(), "-v"]).ends_with(120).says("answers about").says("hello");
    assert_eq!(second.stdout, first.stdout);
    let _ = again(&[&flake.reference()]).says("careful");
    // Whatever makes it another evaluation asks again, which cannot be done here.
    for other in
        [&["--no-eval-cache"][..], &["--impure"], &["--option", "max-call-depth", "5000"], &["--show-trace"]]
    {
        let ran = again(&[&[flake.reference().as_str()], other].concat());
        assert!(!ran.stdout.contains("-a.drv"), "{other:?}: {ran}");
    }
    // A derivation that is gone is made again, and nothing else.
    let lines = first.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut paths = lines.filter_map(|line| line["drvPath"].as_str().map(str::to_owned));
    let drv = &*paths.find(|path| path.ends_with("-a.drv")).unwrap();
    env.nix.run("nix-store", &["--delete", drv]);
    assert!(!again(&[&flake.reference()]).stdout.contains(drv));
    let third =
        env.phoenix(&["eval", &flake.reference(), "-v"]).ends_with(120).says("1 more whose derivations");
    assert_eq!(order(&third).len(), 10);
    assert!(env.nix.is_valid(drv));
    // What is damaged is evaluated.
    let kept = env.nix.path("home/.cache/phoenix/evaluations");
    for file in fs_err::read_dir(kept).unwrap() {
        fs_err::write(file.unwrap().path(), "nonsense").unwrap();
    }
    let ran = env.phoenix(&["eval", &flake.reference()]).ends_with(120);
    assert_eq!(evaluated(&env, &[&flake.reference()]).len(), order(&ran).len());
}

#[test]
fn a_build_that_failed_for_an_evaluation_is_tried_again() {
    let env = TestEnv::new();
    let file = env.file("there");
    // What it says is no error of the language.
    let flake = Flake::new(
        &r#"{ packages.${system}.late = import (d "late"
          "test -e FILE || { echo \"error: attribute 'x' missing\"; exit 1; }; echo '{ type = \"derivation\"; }' > $out" { }); }"#
            .replace("FILE", &file.display().to_string()),
    );
    let error = |line: &Value| line["error"].as_str().unwrap_or_default().to_owned();
    let attr = format!("packages.{}.late", env.system());
    let first = error(&evaluated(&env, &[&flake.reference()])[&attr]);
    assert!(first.contains("-late.drv"), "{first}");
    fs_err::write(&file, "").unwrap();
    let second = error(&evaluated(&env, &[&flake.reference()])[&attr]);
    assert!(second.contains("missing") && !second.contains("-late.drv"), "{second}");
}

#[test]
fn what_is_kept_is_what_a_fresh_evaluation_gives_whatever_is_changed() {
    let env = TestEnv::new();
    if !is_pure(&env) {
        return;
    }
    let flake = Flake::new("{ }");
    let lib = |word: &str| {
        let lib = Flake::new("{ }");
        lib.write("flake.nix", &format!("{{ outputs = {{ self }}: {{ word = \"{word}\"; }}; }}"));
        lib
    };
    let (one, two) = (lib("one"), lib("two"));
    let outputs = |word: &str, extra: &str| {
        format!(
            "{{ inputs.lib.url = \"{}\"; outputs = {{ self, lib }}: let {PREAMBLE} in {{ packages.${{system}} = {{
              plain = ok \"plain\";
              word = d lib.word \"\" {{ }};
              source = d \"source\" \"\" {{ src = ./src; }};
              whole = d \"whole\" \"\" {{ src = self; }};
              names = d \"names\" \"\" {{ names = builtins.attrNames (builtins.readDir ./src); }};
              exists = if builtins.pathExists ./src/extra then ok \"with\" else ok \"without\";
              text = d \"text\" \"\" {{ text = builtins.readFile ./text; }};
              when = d \"when\" \"\" {{ when = toString self.lastModified; }};
              fails = if builtins.readFile ./text == \"b\" then throw \"it is b\" else ok \"no-b\";
              imported = ok (import (d \"imported\" \"echo '\\\"name\\\"' > $out\" {{ text = builtins.readFile ./text; }}));
              said = builtins.trace \"{word}\" (ok \"{word}\");
              place = d \"place\" \"\" {{ place = toString ./.; }};
              hashed = ok (builtins.hashString \"md5\" (toString ./src));
              short = ok (builtins.substring 0 5 (baseNameOf ./.));
              position = ok (builtins.hashString \"md5\" (builtins.unsafeGetAttrPos \"a\" {{ a = 1; }}).file);
              error = throw \"at ${{toString ./text}}\";
              dot = d \"dot\" \"\" {{ src = ./.; }};
              named = d \"named\" \"\" {{ src = builtins.path {{ path = ./.; name = \"whole\"; }}; }};
              filtered = d \"filtered\" \"\" {{ src = builtins.filterSource (path: type: baseNameOf path != \"README\") ./.; }};
              only = d \"only\" \"\" {{ src = builtins.path {{ path = ./src; name = \"only\"; filter = path: type: true; }}; }};
              through = import (self + \"/through.nix\") {{ inherit d; }};
              linked = d \"linked\" \"\" {{ text = builtins.readFile ./link; }};
              hash = d \"hash\" \"\" {{ hash = builtins.hashFile \"sha256\" ./text; }};
              revision = d \"revision\" \"\" {{ rev = self.rev or self.dirtyRev or \"none\"; }};
              which = import ./which.nix {{ inherit ok; }};
              {extra}
            }}; }}; }}",
            one.reference()
        )
    };
    flake.write("text", "a");
    flake.write("src/file", "1");
    flake.write("through.nix", "{ d }: d \"through\" \"\" { text = builtins.readFile ./text; }");
    flake.write(
        "which.nix",
        "{ ok }: ok (if builtins.readFile ./text == \"b\" then builtins.readFile ./one else \"no\")",
    );
    flake.write("one", "first");
    std::os::unix::fs::symlink("text", flake.path().join("link")).unwrap();
    flake.write("flake.nix", &outputs("w", ""));
    let path = flake.reference();
    let git = format!("git+file://{}", flake.path().display());
    let flake = &flake;
    type Edit<'e> = (&'e str, Box<dyn Fn() + 'e>);
    let edits: Vec<Edit<'_>> = vec![
        ("nothing", Box::new(|| ())),
        ("a README", Box::new(|| flake.write("README", "hello"))),
        ("a README once more", Box::new(|| flake.write("README", "hello!"))),
        ("a README a third time", Box::new(|| flake.write("README", "hello?"))),
        ("a file that is read", Box::new(|| flake.write("text", "b"))),
        ("what is read since then", Box::new(|| flake.write("one", "second"))),
        ("a README that is longer", Box::new(|| flake.write("README", "hello, hello"))),
        (
            "a link",
            Box::new(|| {
                fs_err::remove_file(flake.path().join("link")).unwrap();
                std::os::unix::fs::symlink("one", flake.path().join("link")).unwrap();
            }),
        ),
        ("a source", Box::new(|| flake.write("src/file", "2"))),
        ("a file that is only looked for", Box::new(|| flake.write("src/extra", ""))),
        ("back again", Box::new(|| flake.write("text", "a"))),
        ("a file less", Box::new(|| fs_err::remove_file(flake.path().join("src/extra")).unwrap())),
        ("a word", Box::new(|| flake.write("flake.nix", &outputs("v", "")))),
        ("an attribute", Box::new(|| flake.write("flake.nix", &outputs("v", "more = ok \"more\";")))),
        ("a repository", Box::new(|| flake.commit())),
        ("one that is not committed", Box::new(|| flake.write("text", "c"))),
        ("back to what is committed", Box::new(|| flake.write("text", "a"))),
        ("a commit of the same", Box::new(|| flake.write("README", "4"))),
        ("a commit", Box::new(|| flake.commit())),
    ];
    for (number, (edit, change)) in edits.into_iter().enumerate() {
        change();
        let references = if flake.path().join(".git").exists() { vec![&path, &git] } else { vec![&path] };
        for reference in references {
            let replaced = two.reference();
            let replaced = ["--override-input", "lib", replaced.as_str()];
            let more: &[&[&str]] =
                if number % 4 == 0 { &[&[], &replaced, &["--eval-workers", "3"]] } else { &[&[]] };
            for more in more {
                let args = [&[reference.as_str()], *more].concat();
                let kept = evaluated(&env, &args);
                let again = evaluated(&env, &args);
                let fresh = evaluated(&env, &[&args[..], &["--no-eval-cache"]].concat());
                assert!(fresh.len() >= 25, "{fresh:?}");
                assert_eq!(kept, fresh, "after {edit}, {args:?}");
                assert_eq!(again, fresh, "after {edit}, {args:?}");
            }
        }
    }
}

/// The answers that held for a source although it is another one, of how many.
fn held(ran: &common::Ran) -> Option<usize> {
    let line = ran.stderr.lines().find(|line| line.contains("answers about earlier sources hold"))?;
    line.split(' ').next()?.parse().ok()
}

#[test]
fn a_change_evaluates_only_what_may_have_read_it() {
    let env = TestEnv::new();
    let flake = Flake::new("{ }");
    let package = |number: usize| format!("p{number} = import ./pkgs/{number} {{ inherit d; }};");
    let packages: String = (10..30).map(package).collect();
    flake.outputs(&format!("{{ packages.${{system}} = {{ {packages} }}; }}"));
    for number in 10..30 {
        let text = format!("{{ d }}: d \"p{number}\" \"\" {{ src = ./source; }}");
        flake.write(&format!("pkgs/{number}/default.nix"), &text);
        flake.write(&format!("pkgs/{number}/source/file"), "1");
    }
    let reference = flake.reference();
    let around = Around::choose(&env.nix, flake.path(), "README");
    flake.write("README", around.texts()[0]);
    let eval = || env.phoenix(&["eval", "--sorted", "-v", &reference]).ends_with(0);
    // Nix remembers what it copied for others, and does not read it again.
    env.nix.run("nix", &["eval", &format!("{reference}#p12.drvPath")]);
    let first = eval();
    if !is_pure(&env) {
        return;
    }
    if !cfg!(target_os = "linux") {
        let _ = first.says("only Linux tells which files are read");
        return;
    }
    flake.write("README", around.texts()[1]);
    let second = eval().says("have come out the same only from sources whose paths all come before");
    assert_eq!(held(&second), Some(0));
    assert_eq!(first.stdout, second.stdout);
    // From now on no evaluator is started.
    around.change_between(&env.nix, flake.path(), "README");
    let mut command = without_evaluator(&env);
    let third = common::Ran::from(command.args(["eval", "--sorted", &reference]).output().unwrap());
    assert_eq!((third.code, &third.stdout), (Some(0), &first.stdout), "{third}");
    // A trace has the frames of whoever came first, which is not what it was.
    flake.write("README", "traced");
    let traced = env.phoenix(&["eval", "-v", "--option", "show-trace", "true", &reference]).ends_with(0);
    assert!(
        held(&traced).is_none() && !traced.stderr.contains("nothing is known about another source"),
        "{traced}"
    );
    // What one package is made of is of no other's concern, once those on both sides went in both directions.
    for text in &around.texts()[2..] {
        flake.write("README", text);
        assert_eq!(eval().stdout, first.stdout);
    }
    around.change_between(&env.nix, flake.path(), "pkgs/15/source/file");
    let fourth = eval().says("may have read pkgs/15/source/file, which has changed");
    let changed = first.stdout.lines().zip(fourth.stdout.lines()).filter(|(one, other)| one != other).count();
    assert_eq!(changed, 1);
    // The sets on the way to the packages, and all of these but one, and those that an evaluator had gone on to.
    assert!(held(&fourth).unwrap() >= 15, "{fourth}");
    // A file that is added may be looked for by any.
    flake.write("pkgs/15/source/other", "");
    assert_eq!(held(&eval().says("nothing is known about another source that has the same files")), None);
    // What all have read.
    flake.write("pkgs/16/default.nix", "{ d }: d \"p16\" \"\" { }");
    let _ = eval();
    let fresh = env.phoenix(&["eval", "--sorted", "--no-eval-cache", &reference]).ends_with(0);
    assert_eq!(eval().stdout, fresh.stdout);
}

#[test]
fn what_is_sorted_by_the_path_of_the_source_is_never_stale() {
    let env = TestEnv::new();
    if !is_pure(&env) {
        return;
    }
    let (flake, other) = (Flake::new("{ }"), Flake::new("{ }"));
    flake.write(
        "flake.nix",
        &format!(
            r#"{{ inputs.other.url = "{}"; outputs = {{ self, other }}: let {PREAMBLE} in {{ packages.${{system}} = {{
              names = d "names" "" {{ v = builtins.attrValues (builtins.listToAttrs (map (place: {{
                name = builtins.unsafeDiscardStringContext (toString place); value = baseNameOf (dirOf place) == "x";
              }}) [ ./x/a (other + "/flake.nix") ])); }};
              sorted = d "sorted" "" {{ v = map (place: baseNameOf place == "a")
                (builtins.sort (one: two: "${{toString one}}" < "${{toString two}}") [ ./x/a (other + "/flake.nix") ]); }};
              chosen = d "chosen" "" {{ v = builtins.readFile (
                if toString ./. < "${{builtins.storeDir}}/g" then ./one else ./two); }};
            }}; }}; }}"#,
            other.reference()
        ),
    );
    flake.write("x/a", "");
    flake.write("one", "same");
    flake.write("two", "same");
    let reference = flake.reference();
    for round in 0..12 {
        flake.write("README", &round.to_string());
        if round > 5 {
            flake.write(if round % 2 == 0 { "one" } else { "two" }, &format!("of {round}"));
        }
        let kept = evaluated(&env, &[&reference]);
        assert_eq!(kept.len(), 3);
        assert_eq!(kept, evaluated(&env, &[&reference, "--no-eval-cache"]), "{round}");
    }
}

#[test]
fn a_file_of_the_source_that_nix_fetches_is_read() {
    let env = TestEnv::new();
    if !is_pure(&env) || !cfg!(target_os = "linux") {
        return;
    }
    let flake = Flake::new("{ }");
    flake.write("x", "1");
    let hash = env.nix.run("nix", &["hash", "path", &flake.path().join("x").display().to_string()]);
    flake.outputs(&format!(
        r#"{{ hydraJobs.a = d "a" "" {{ v = builtins.readFile (builtins.fetchTree {{ type = "file";
          url = "file://${{builtins.unsafeDiscardStringContext (toString ./x)}}"; narHash = "{hash}"; }}); }}; }}"#
    ));
    let reference = flake.reference();
    for round in ["1", "2", "3"] {
        flake.write("README", round);
        // Nix remembers what it fetched.
        let _ = evaluated(&env, &[&reference, "--show-trace"]);
        let _ = env.nix.output("nix", &["eval", &format!("{reference}#hydraJobs.a.drvPath")]);
        let line = &evaluated(&env, &[&reference])["hydraJobs.a"];
        assert!(line["drvPath"].is_string(), "{line}");
    }
    flake.write("x", "2");
    let line = &evaluated(&env, &[&reference])["hydraJobs.a"];
    assert!(line["error"].as_str().unwrap_or_default().contains("mismatch"), "{line}");
}

#[test]
fn what_was_copied_before_is_read_all_the_same() {
    let env = TestEnv::new();
    if !is_pure(&env) || !cfg!(target_os = "linux") {
        return;
    }
    let flake = Flake::new("{ }");
    let copies = r#"
        whole = d "whole" "" { v = builtins.readFile "${./.}/VERSION"; };
        path = d "path" "" { v = builtins.readFile (builtins.path { path = ./.; name = "w"; } + "/VERSION"); };
        hash = d "hash" "" { v = builtins.hashFile "sha256" "${./docs/..}/VERSION"; };
        imported = d "imported" "" { v = import "${./.}/i.nix"; };"#;
    // Its builder reads the source, which nobody asked for.
    let hidden = r#"built = d "built" "" { v = builtins.readFile (d "g" "cat $src/VERSION > $out" {
        src = builtins.appendContext (builtins.unsafeDiscardStringContext (toString ./.)) {
          "${builtins.unsafeDiscardStringContext (toString ./.)}" = { path = true; }; }; }); };"#;
    flake.write("docs/README", "0");
    flake.write("VERSION", "1");
    flake.write("i.nix", r#""1""#);
    for packages in [copies, hidden] {
        flake.outputs(&format!("{{ packages.${{system}} = {{ {packages} whatever = ok \"whatever\"; }}; }}"));
        flake.write("VERSION", "1");
        for round in 0..8 {
            match round {
                5 => flake.write("VERSION", "2"),
                6 => flake.write("i.nix", &format!(r#""{}""#, packages.len())),
                _ => flake.write("docs/README", &format!("{round} {}", packages.len())),
            }
            let reference = flake.reference();
            // Evaluations of this source that are not recorded, and one of another family.
            if round % 2 == 1 {
                let _ = evaluated(&env, &[&reference, "--no-eval-cache"]);
            }
            let _ = evaluated(
                &env,
                &[
                    &format!("{reference}#packages.{}.whatever", env.system()),
                    "--option",
                    "max-call-depth",
                    "9000",
                ],
            );
            let kept = evaluated(&env, &[&reference]);
            assert_eq!(kept, evaluated(&env, &[&reference, "--no-eval-cache"]), "{round} {packages}");
        }
    }
}

#[test]
fn an_input_that_is_no_flake_is_what_this_version_of_nix_makes_of_it() {
    let env = TestEnv::new();
    let plain = Flake::new("{ }");
    plain.write("data", "other");
    plain.write("sub/data", "sub");
    let flake = Flake::new("{ }");
    flake.write(
        "flake.nix",
        &format!(
            "{{ inputs.plain = {{ url = \"{0}\"; flake = false; }}; inputs.sub = {{ url = \"{0}{1}\"; flake = false; }};
              outputs = {{ self, plain, sub }}: let {PREAMBLE} in {{ packages.${{system}}.of = d \"of\" \"\" {{
                data = builtins.readFile \"${{sub}}/data\";
                names = map builtins.attrNames [ plain sub ];
                sources = map (input: (input.sourceInfo or {{ outPath = \"none\"; }}).outPath) [ plain sub ];
                paths = [ plain sub ];
              }}; }}; }}",
            plain.reference(),
            // 2.8 knows no directory of a path.
            if is_pure(&env) { "?dir=sub" } else { "" }
        ),
    );
    env.nix.run("nix", &["flake", "lock", &flake.reference()]);
    same_as_nix(&env, &flake.reference(), "of", &[]);
    let _ = fs_err::remove_dir_all(env.nix.path("home/.cache"));
    same_as_nix(&env, &flake.reference(), "of", &["--no-eval-cache"]);
}

/// A flake with an input from a server that is gone by the time it is locked, and whose source is in the store.
fn with_a_lost_input(env: &TestEnv) -> Flake {
    let lib = Flake::new("{ }");
    lib.write("lib/flake.nix", "{ outputs = { self }: { info = self.sourceInfo; file = ./lib.txt; }; }");
    lib.write("lib/lib.txt", "lib");
    let archive = lib.path().join("lib.tar.gz");
    let mut tar = std::process::Command::new("tar");
    tar.arg("-czf").arg(&archive).arg("-C").arg(lib.path()).arg("lib");
    assert!(tar.status().unwrap().success());
    let flake = Flake::new("{ }");
    flake.write("README", "0");
    flake.write(
        "flake.nix",
        &format!(
            "{{ inputs.lib.url = \"file://{}\"; outputs = {{ self, lib }}: let {PREAMBLE} in {{ packages.${{system}} = {{
              of = d \"of\" \"\" {{ info = builtins.toJSON lib.info; src = lib; inherit (lib) file; }};
              own = ok \"own\";
            }}; }}; }}",
            archive.display()
        ),
    );
    env.nix.run("nix", &["flake", "lock", &flake.reference()]);
    flake
}

#[test]
fn an_input_that_is_in_the_store_or_in_the_depot_is_not_fetched() {
    let env = TestEnv::new();
    let flake = with_a_lost_input(&env);
    // Its server goes with the directory.
    same_as_nix(&env, &flake.reference(), "of", &[]);
    let forget_fetched = || {
        let _ = fs_err::remove_dir_all(env.nix.path("home/.cache"));
    };
    forget_fetched();
    same_as_nix(&env, &flake.reference(), "of", &["--no-eval-cache"]);
    forget_fetched();
    let depot = env.depot();
    let plan = || env.phoenix(&["plan", "-v", "--depot", &depot, &flake.reference()]).ends_with(0);
    let first = plan();
    if !is_pure(&env) {
        return;
    }
    env.forget_store();
    forget_fetched();
    flake.write(
        "flake.nix",
        &fs_err::read_to_string(flake.path().join("flake.nix")).unwrap().replace("\"own\"", "\"other\""),
    );
    let second = plan();
    assert_ne!(first.stdout, second.stdout);
}

#[test]
fn what_an_attribute_may_have_read_is_known_on_another_machine_too() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system} = { a = ok "a"; b = d "b" "" { src = ./src; }; }; }"#);
    flake.write("src/file", "1");
    flake.write("README", "0");
    let args = ["plan", "-v", "--depot", &env.depot(), &flake.reference()];
    let mut last = None;
    if !is_pure(&env) || !cfg!(target_os = "linux") {
        return;
    }
    let around = Around::choose(&env.nix, flake.path(), "README");
    for text in &around.texts()[..2] {
        flake.write("README", text);
        last = Some(env.phoenix(&args).ends_with(0));
    }
    env.forget_store();
    let _ = fs_err::remove_dir_all(env.nix.path("home/.cache"));
    around.change_between(&env.nix, flake.path(), "README");
    let there = common::Ran::from(without_evaluator(&env).args(args).output().unwrap());
    assert_eq!(there.code, Some(0), "{there}");
    assert_eq!(there.stdout, last.unwrap().stdout);
}

#[test]
fn what_one_machine_evaluated_another_has_from_the_depot() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          a = d "a" "echo > $out" { src = ./src; before = ok "before"; };
          bad = throw "no";
        }; }"#,
    );
    flake.write("src/file", "1");
    let args = ["plan", "-v", "--depot", &env.depot(), &flake.reference()];
    let first = env.phoenix(&args);
    assert!(matches!(first.code, Some(0 | 120)), "{first}");
    if !is_pure(&env) {
        let _ = first.says("is not kept");
        return;
    }
    let forget = || {
        env.forget_store();
        // There may be none: what comes from the depot is not kept twice.
        let removed = fs_err::remove_dir_all(env.nix.path("home/.cache"));
        assert!(removed.is_ok() || !env.nix.path("home/.cache").exists());
    };
    forget();
    let again = common::Ran::from(without_evaluator(&env).args(args).output().unwrap());
    assert_eq!(again.code, first.code, "{again}");
    let again = again.says("derivations and sources are from the depot");
    assert_eq!(again.stdout, first.stdout);
    // And it is built from there.
    let args = ["run", "--depot", &env.depot(), &format!("{}#a", flake.reference())];
    let ran = common::Ran::from(without_evaluator(&env).args(args).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran}");
    // Where the depot has lost it, it is evaluated.
    forget();
    fs_err::remove_dir_all(env.file("depot/packs")).unwrap();
    let lost = env.phoenix(&["run", "--depot", &env.depot(), &format!("{}#a", flake.reference())]);
    let _ = lost.ends_with(0);
}

#[test]
fn what_a_build_for_the_evaluation_reads_of_the_source_is_not_kept_for_others() {
    let env = TestEnv::new();
    if !is_pure(&env) {
        return;
    }
    // By its path, with a context that makes it an input of the build.
    let flake = |context: &str, args: &str, more: &str| {
        Flake::new(&format!(
            r#"let b = builtins; s = {context}; in {{ packages.${{system}} = {{
              b1 = d "b1" "" {{ v = b.readFile (derivation {{
                name = "read"; inherit system; builder = "/bin/sh"; inherit s; args = {args};
              }}); }};
              other = ok "other"; {more}
            }}; }}"#
        ))
    };
    let by_path = "b.appendContext (toString ./b) { ${toString ./.} = { path = true; }; }";
    let in_text = r#"b.toFile "script" (b.appendContext "read x < ${toString ./b}; echo $x > $out" { ${toString ./.} = { path = true; }; })"#;
    let says = "nothing is kept for other sources, for something is built from this one by its path";
    for (context, args, more) in [
        (by_path, r#"[ "-c" "read x < $s; echo $x > $out" ]"#, ""),
        (by_path, r#"[ "-c" "read x < $s; echo $x > $out" ]"#, r#"z = d "z" "" { v = "${self}/b"; };"#),
        (in_text, "[ s ]", ""),
    ] {
        let flake = flake(context, args, more);
        fs_err::write(flake.path().join("b"), "1\n").unwrap();
        // The second of the same: what is built is there already.
        for meta in [&[][..], &["--meta"]] {
            let ran = env.phoenix(&[&["eval", "-v", &flake.reference()], meta].concat()).ends_with(0);
            assert!(ran.stderr.contains(says), "{ran}");
        }
    }
    // That somebody asks for the path, and builds are made of other things, is no matter.
    let flake = flake(
        r#"b.toFile "x" "1\n""#,
        r#"[ "-c" "read x < $s; echo $x > $out" ]"#,
        r#"z = d "z" "" { v = "${self}/b"; };"#,
    );
    let ran = env.phoenix(&["eval", "-v", &flake.reference()]).ends_with(0);
    assert!(!ran.stderr.contains(says), "{ran}");
}

#[test]
fn what_is_told_of_is_there_whoever_collects_garbage_meanwhile() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = builtins.listToAttrs (builtins.genList (n: {
          name = "a${toString n}"; value = ok "a${toString n}-${builtins.readFile ./v}";
        }) 60); }"#,
    );
    fs_err::write(flake.path().join("v"), "0").unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let runs = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = env.nix.output("nix-store", &["--gc"]);
                std::thread::sleep(std::time::Duration::from_millis(30));
            }
        });
        let mut runs = Vec::new();
        for number in 0..8 {
            fs_err::write(flake.path().join("README"), format!("{}", number / 2)).unwrap();
            let links = tempfile::tempdir().unwrap();
            let directory = links.path().to_str().unwrap();
            let ran = env.phoenix(&["eval", &flake.reference(), "--gc-roots-dir", directory]);
            let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let is_there = |line: &Value| {
                line["drvPath"].as_str().is_some_and(|drv_path| std::path::Path::new(drv_path).exists())
            };
            let count = lines.filter(is_there).count();
            runs.push((count, ran));
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        runs
    });
    for (count, ran) in runs {
        assert_eq!(count, 60, "{ran}");
    }
}

#[test]
fn an_evaluation_that_is_killed_leaves_a_sound_store() {
    let env = TestEnv::new();
    let flake = |salt: u64| {
        Flake::new(&format!(
            r#"{{ packages.${{system}} = builtins.listToAttrs (builtins.genList (n: {{
              name = "a${{toString n}}";
              value = d "a" "" {{ inherit n; text = builtins.toFile "t" "{salt} ${{toString n}}"; }};
            }}) 300); }}"#
        ))
    };
    for seed in 0..12 {
        let flake = flake(seed);
        let mut command = env.command();
        command.args(["eval", &flake.reference(), "--eval-workers", "2"]);
        let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(60 + seed * 37 % 400));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let said = env.nix.output("nix-store", &["--verify", "--check-contents"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.contains("error"), "{said}");
    // What was written and not registered is in nobody's way.
    for seed in [0, 5, 11] {
        let ran = env.phoenix(&["eval", &flake(seed).reference()]).ends_with(0);
        let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut check = vec!["--check-validity"];
        check.extend(lines.iter().map(|line| line["drvPath"].as_str().unwrap()));
        assert!(check.len() == 301 && env.nix.output("nix-store", &check).status.success(), "{ran}");
    }
}

#[test]
fn a_mistake_in_what_is_given_is_told_in_nix_s_words() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ hydraJobs = { a = ok "a"; b = ok "b"; }; }"#);
    let jobs = format!("{}#hydraJobs", flake.reference());
    let undefined = "undefined variable 'nope'";
    for (args, words, place) in [
        (&["--flake", &jobs, "--select", "nope"][..], undefined, "at «--select»:1:1:"),
        (&["--flake", &jobs, "--select", "jobs:\n{ x = nope; }"], undefined, "at «--select»:2:7:"),
        (&["--flake", &jobs, "--arg", "x", "nope"], undefined, "at «--arg x»:1:1:"),
        (&["-E", "{ a = nope; }"], undefined, "at «--expr»:1:7:"),
        (
            &["-E", "let a = 1; a = 2; in a"],
            "attribute 'a' already defined at «--expr»:1:5",
            "at «--expr»:1:12:",
        ),
        (&["-E", "{ x, x }: 1"], "duplicate formal function argument 'x'", "at «--expr»:1:6:"),
    ] {
        let ran = env.phoenix(&[&["eval"], args].concat()).ends_with(1).says(&format!("error: {words}\n"));
        let line: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
        let error = line["error"].as_str().unwrap();
        assert_eq!(line["attr"], "", "{ran}");
        assert!(error.starts_with(words) && error.contains(place), "{ran}");
    }
    // It is the derivations of which it cannot be told.
    for more in [&[][..], &["--no-instantiate"]] {
        let args = [&["eval", "--sorted", "--flake", &jobs, "--apply", "d: nope"], more].concat();
        for _ in 0..2 {
            let ran = env.phoenix(&args).ends_with(0).says("error: a: undefined variable 'nope'");
            assert_eq!(order(&ran), ["a", "b"]);
            assert!(ran.stdout.lines().all(|line| line.contains("at «--apply»:1:4:")), "{ran}");
        }
    }
}

#[test]
fn an_error_that_prints_a_value_is_the_same_whatever_was_asked_before() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"(let x = { a = 1 + 1; b = builtins.readFile ./v; }; in { hydraJobs = {
          forces = builtins.trace "hello" (ok "n${toString x.a}${x.b}");
          coerced = builtins.substring 0 9 x;
          listed = ok (toString (map (y: y + 1) [ x ]));
          called = x "y";
          asserted = assert x == { b = 1; c = 2; }; ok "no";
          then_forces = builtins.seq x.b (builtins.substring 0 9 x);
          missing = x.q;
        }; })"#,
    );
    flake.write("v", "1");
    let all = |more: &[&str]| evaluated(&env, &[&[flake.reference().as_str()], more].concat());
    let first = all(&[]);
    let error = |name: &str| first[&format!("hydraJobs.{name}")]["error"].as_str().unwrap_or_default();
    for name in ["coerced", "listed", "called", "asserted", "then_forces", "missing"] {
        let alone = evaluated(&env, &["--no-eval-cache", &format!("{}#hydraJobs.{name}", flake.reference())]);
        assert_eq!(alone.values().next().unwrap()["error"], error(name), "{name}");
    }
    assert_eq!(all(&["--no-eval-cache", "--eval-workers", "3"]), first);
    if !is_pure(&env) {
        return;
    }
    assert!(error("coerced").contains("{ a = «thunk»; b = «thunk»; }"), "{first:#?}");
    for round in 0..6 {
        flake.write("README", &round.to_string());
        assert_eq!(all(&[]), all(&["--no-eval-cache"]), "{round}");
    }
    let mut command = without_evaluator(&env);
    let again = common::Ran::from(command.args(["eval", &flake.reference()]).output().unwrap());
    assert_eq!((again.code, again.stdout.lines().count()), (Some(120), 7), "{again}");
    assert_eq!(again.stderr.matches("hello").count(), 1, "{again}");
}

#[test]
fn jobs_of_one_machine_another_has_from_the_depot() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ hydraJobs = { a = d "a" "" { src = ./src; }; bad = throw "no"; }; }"#);
    flake.write("src/file", "1");
    let jobs = format!("{}#hydraJobs", flake.reference());
    let (depot, nowhere) = (env.depot(), "s3://nowhere/at/all?endpoint=http://127.0.0.1:1");
    let eval = |mut command: std::process::Command, depot: &str| {
        let command = command.env("PHOENIX_DEPOT", depot).args(["eval", "-v", "--sorted", "--flake", &jobs]);
        common::Ran::from(command.output().unwrap())
    };
    // Without a depot that can be read everything is evaluated.
    let plain = eval(env.command(), "").ends_with(0);
    let forget = || {
        env.forget_store();
        let _ = fs_err::remove_dir_all(env.nix.path("home/.cache"));
    };
    forget();
    let first = eval(env.command(), &depot).ends_with(0);
    assert_eq!(first.stdout, plain.stdout);
    if !is_pure(&env) {
        return;
    }
    // What is known here needs none.
    let known = eval(without_evaluator(&env), nowhere).ends_with(0);
    assert_eq!(known.stdout, first.stdout);
    assert!(!known.stderr.contains("nowhere") && !known.stderr.contains("warning"), "{known}");
    // Elsewhere it is from the depot.
    forget();
    let there = eval(without_evaluator(&env), &depot).ends_with(0);
    assert_eq!(there.says("derivations and sources are from the depot").stdout, first.stdout);
    forget();
    let none = eval(env.command(), "nowhere:x").ends_with(0).says("evaluating without it");
    assert_eq!(none.stdout, first.stdout);
    forget();
    let flag = env.phoenix(&["eval", "-v", "--sorted", "--depot", &depot, "--flake", &jobs]).ends_with(0);
    assert_eq!(flag.says("are from the depot").stdout, first.stdout);
}

#[test]
fn deep_sets_are_looked_into_and_a_set_without_end_is_the_same_each_time() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"(let
          nest = n: if n == 0 then ok "deep" else { recurseForDerivations = true; x = nest (n - 1); };
          inner = { b = inner; d = ok "d"; a = outer; };
          outer = { b = inner; c = ok "c"; };
        in { hydraJobs = { n20 = nest 20; n63 = nest 62; n70 = nest 70; }; loops = { inherit inner outer; z = ok "z"; }; })"#,
    );
    let eval = |args: &[&str]| env.phoenix(&[&["eval", "--sorted", "--flake"], args].concat()).ends_with(0);
    let deep = eval(&[&format!("{}#hydraJobs", flake.reference())]);
    let attrs: Vec<Value> = deep.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| attrs.iter().find(|line| line["attrPath"][0] == name).unwrap();
    assert_eq!((&of("n20")["name"], &of("n63")["name"]), (&Value::from("deep"), &Value::from("deep")));
    assert_eq!(of("n70")["attr"], "n70");
    let error = of("n70")["error"].as_str().unwrap();
    assert!(error.contains("nested more than 64 levels deep") && error.contains("--select"), "{error}");
    let loops = format!("{}#loops", flake.reference());
    let run = |workers: &str| {
        let ran = eval(&["--no-eval-cache", "--force-recurse", "--workers", workers, &loops]);
        assert!(ran.stdout.lines().count() < 20, "{ran}");
        ran.stdout
    };
    let first = run("1");
    assert!(first.contains("\"attr\":\"z\""), "{first}");
    for workers in ["1", "3", "4"] {
        assert_eq!(run(workers), first);
    }
}

#[test]
fn what_is_said_of_the_path_of_the_source_is_never_stale() {
    let env = TestEnv::new();
    if !is_pure(&env) {
        return;
    }
    let flake = Flake::new(
        r#"{ hydraJobs.a = builtins.trace (
          if toString ./. < "${builtins.storeDir}/g" then "LOW" else "HIGH") (ok "a"); }"#,
    );
    let said = |more: &[&str]| {
        let ran = env.phoenix(&[&["eval", "--flake", &flake.reference()], more].concat()).ends_with(0);
        ["LOW", "HIGH"].map(|word| ran.stderr.contains(word))
    };
    for round in 0..14 {
        flake.write("README", &round.to_string());
        assert_eq!(said(&["--force-recurse"]), said(&["--force-recurse", "--no-eval-cache"]), "{round}");
    }
}
