//! `phoenix run` on real Nix: builds, verdicts, exit codes.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

mod common;

use std::time::{Duration, Instant};

use common::TestEnv;
use phoenix_testkit::Flake;

/// A flake whose builds leave a mark each time they run, outside the store.
fn counted(env: &TestEnv) -> Flake {
    let count = env.file("count").display().to_string();
    Flake::new(&format!(
        r#"let
          counted = name: d name "echo ${{name}} >> {count}; echo building ${{name}}; echo x > $out";
          shared = counted "shared" {{ }};
        in {{
          packages.${{system}} = rec {{
            a = counted "a" {{ inherit shared; }};
            b = counted "b" {{ inherit shared; }};
            c = counted "c" {{ inherit a b; }};
          }};
          checks.${{system}}.works = counted "works" {{ inherit shared; }};
        }}"#
    ))
}

fn marks(env: &TestEnv) -> Vec<String> {
    let text = std::fs::read_to_string(env.file("count")).unwrap_or_default();
    let mut marks: Vec<String> = text.lines().map(str::to_owned).collect();
    marks.sort();
    marks
}

#[test]
fn the_first_run_builds_each_derivation_once_and_the_second_nothing() {
    let env = TestEnv::new();
    let flake = counted(&env);
    let (ran, first) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0).says("building shared").says("4 built");
    assert_eq!((first.count("targets", "built"), first.count("derivations", "built")), (4, 5));
    assert_eq!(marks(&env), ["a", "b", "c", "shared", "works"]);
    assert!(
        first
            .field("packages.x.a".replace(".x.", &format!(".{}.", env.system())).as_str(), "seconds")
            .is_f64()
    );

    let (ran, second) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!(
        (second.count("targets", "cached"), second.0["derivations"].as_array().unwrap().len()),
        (4, 0)
    );
    assert!(second.0["summary"]["savedSeconds"].as_f64().unwrap() > 0.0);
    assert_eq!(marks(&env).len(), 5);
}

#[test]
fn a_daemon_gives_the_same() {
    let env = TestEnv::new().through_daemon();
    let _daemon = env.nix.daemon().unwrap();
    let flake = counted(&env);
    let (ran, first) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!(first.count("targets", "built"), 4);
    assert_eq!(marks(&env), ["a", "b", "c", "shared", "works"]);
    let (ran, second) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!(second.count("targets", "cached"), 4);

    flake.outputs(r#"{ packages.${system} = rec { bad = d "bad" "echo no; exit 3" { }; above = d "above" "" { inherit bad; }; }; }"#);
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(100);
    assert_eq!((report.count("targets", "failed"), report.count("targets", "blocked")), (1, 1));
}

#[test]
fn a_failure_names_its_log_and_blocks_what_needs_it() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = rec {
          good = ok "good";
          bad = d "bad" "echo first; echo last words >&2; exit 3" { };
          middle = d "middle" "echo x > $out" { inherit bad; };
          top = d "top" "echo x > $out" { inherit middle good; };
          wrong-hash = d "wrong-hash" "echo x > $out" {
            outputHashMode = "flat"; outputHashAlgo = "sha256";
            outputHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
          };
          killed = d "killed" "kill -9 $$" { };
          crashed = d "crashed" "kill -SEGV $$" { };
          forgetful = d "forgetful" "true" { };
        }; }"#,
    );
    let (ran, report) = env.report(&[&flake.reference()]);
    let ran = ran.ends_with(100 | 102).says("last words").says("whole log: less ").says("blocked: ");
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    for (name, verdict, class) in [
        ("good", "built", None),
        ("bad", "failed", Some("build")),
        ("middle", "blocked", None),
        ("top", "blocked", None),
        ("wrong-hash", "failed", Some("hashMismatch")),
        ("killed", "failed", Some("killed")),
        ("crashed", "failed", Some("build")),
        ("forgetful", "failed", Some("build")),
    ] {
        assert_eq!(report.verdict(&attr(name)), verdict, "{name}");
        assert_eq!(report.field(&attr(name), "class").as_str(), class, "{name}");
    }
    let blocked_by = report.field(&attr("top"), "blockedBy");
    assert_eq!(blocked_by.as_array().unwrap().len(), 1);
    assert!(blocked_by[0].as_str().unwrap().ends_with("-bad.drv"));
    // The log that is named has everything.
    let (_, rest) = ran.stderr.split_once("whole log: less ").unwrap();
    let log = std::fs::read_to_string(rest.lines().next().unwrap().trim()).unwrap();
    assert!(log.contains("first\nlast words") || !log.contains("first"), "{log}");
    assert!(ran.stderr.contains("exit code 3"), "{ran}");
}

#[test]
fn a_time_out_is_its_own_class() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = { slow = d "slow" "sleep 60" { }; silent = d "silent" "echo x; sleep 60" { }; }; }"#,
    );
    let (ran, report) = env.report(&[&flake.reference(), "--timeout", "1"]);
    let _ = ran.ends_with(101).says("timed out");
    assert_eq!(report.count("targets", "failed"), 2);
    let (ran, report) = env.report(&[&format!("{}#silent", flake.reference()), "--max-silent-time", "1"]);
    let _ = ran.ends_with(101);
    let silent = format!("packages.{}.silent", env.system());
    assert_eq!(report.field(&silent, "class"), "timedOut");
}

#[test]
fn a_time_out_among_other_failures_is_of_the_build_that_took_too_long() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          fails = d "fails" "sleep 1; exit 3" { };
          slow = d "slow" "sleep 60" { };
          wrong-hash = d "wrong-hash" "sleep 1; echo x > $out" {
            outputHashMode = "flat"; outputHashAlgo = "sha256";
            outputHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
          };
          good = d "good" "sleep 2; echo x > $out" { };
        }; }"#,
    );
    let (ran, report) = env.report(&[&flake.reference(), "--timeout", "4", "-j", "4"]);
    let ran = ran.ends_with(100 | 101 | 102);
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    for (name, class) in [("fails", "build"), ("slow", "timedOut"), ("wrong-hash", "hashMismatch")] {
        assert_eq!(report.field(&attr(name), "class"), class, "{name}");
    }
    assert_eq!(report.verdict(&attr("good")), "built");
    assert_eq!(ran.stderr.matches("building slow").count(), 1, "{ran}");
    // Since 2.30, Nix says in time that a builder has ended, and much later why.
    let version = report.0["nix"].as_str().unwrap();
    let minor: u32 = version.split('.').nth(1).unwrap().parse().unwrap();
    if minor >= 30 {
        let seconds = report.field(&attr("fails"), "seconds").as_f64().unwrap();
        assert!(seconds < 3.0, "{seconds}");
    }
}

#[test]
fn a_build_that_is_never_the_same_is_its_own_class() {
    let env = TestEnv::new();
    // The only way in which a run builds twice and compares; newer versions of Nix do so on `--check` alone.
    let settings = env.nix.output("nix", &["--experimental-features", "nix-command", "show-config"]);
    if !String::from_utf8_lossy(&settings.stdout).contains("\nrepeat = ") {
        return;
    }
    let flake = Flake::new(
        r#"{ packages.${system} = { same = ok "same"; other = d "other" "date +%s%N > $out" { }; }; }"#,
    );
    let (ran, report) = env.report(&[&flake.reference(), "--option", "repeat", "1"]);
    let ran = ran.ends_with(104).says("differs from previous round");
    assert_eq!(ran.stderr.matches("building other").count(), 1, "{ran}");
    let other = format!("packages.{}.other", env.system());
    assert_eq!(report.field(&other, "class"), "nonDeterministic");
    assert_eq!(report.verdict(&format!("packages.{}.same", env.system())), "built");
}

#[test]
fn attributes_that_do_not_evaluate_cost_only_themselves() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          good = ok "good";
          throws = throw "boom";
          aborts = abort "enough";
          recurses = let x = x; in x;
          overflows = let f = n: 1 + f n; in f 1;
          text = "not a derivation";
          missing = { }.nothing;
          asserts = assert false; ok "never";
        }; }"#,
    );
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(120).says("boom").says("enough").says("a string, not a derivation");
    assert_eq!((report.count("targets", "built"), report.count("targets", "notEvaluated")), (1, 7));
    let reason = |name: &str| {
        let attr = format!("packages.{}.{name}", env.system());
        report.field(&attr, "reason").as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(reason("throws"), "boom");
    assert!(reason("recurses").contains("infinite recursion"), "{}", reason("recurses"));
    assert!(reason("overflows").contains("overflow"), "{}", reason("overflows"));
    assert!(!reason("missing").contains("toJSON"), "no frames of ours: {}", reason("missing"));
}

#[test]
fn fail_fast_leaves_the_rest() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = rec {
          a-bad = d "a-bad" "exit 1" { };
          z = d "z" "sleep 30; echo x > $out" { };
          zz = d "zz" "echo x > $out" { inherit z; };
        }; }"#,
    );
    let start = Instant::now();
    let (ran, report) = env.report(&[&flake.reference(), "--fail-fast", "-j", "1"]);
    let _ = ran.ends_with(100);
    assert!(start.elapsed() < Duration::from_secs(25));
    assert_eq!(
        (report.count("targets", "failed"), report.count("targets", "cancelled")),
        (1, 2),
        "{:#}",
        report.0
    );
}

#[test]
fn what_nix_cannot_build_here_says_why() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          foreign = derivation { name = "foreign"; system = "riscv64-linux"; builder = "/bin/sh"; };
          needs-kvm = d "needs-kvm" "echo x > $out" { requiredSystemFeatures = [ "no-such-feature" ]; };
          good = ok "good";
        }; }"#,
    );
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(1).says("no-such-feature");
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    for name in ["foreign", "needs-kvm"] {
        assert_eq!(report.verdict(&attr(name)), "failed", "{name}");
        assert_eq!(report.field(&attr(name), "class"), "other", "{name}");
    }
    assert_eq!(report.verdict(&attr("good")), "built");
}

#[test]
fn several_installables_with_and_without_attributes() {
    let env = TestEnv::new();
    let one = Flake::new(
        r#"{ packages.${system}.a = ok "a"; checks.${system}.b = ok "b"; other.deep.c = ok "c"; }"#,
    );
    let two = Flake::new(r#"{ packages.${system}.a = ok "a2"; }"#);
    let (ran, report) = env.report(&[
        &format!("{}#a", one.reference()),
        &format!("{}#other.deep.c", one.reference()),
        &two.reference(),
    ]);
    let _ = ran.ends_with(0);
    let a = format!("packages.{}.a", env.system());
    assert_eq!(report.attrs(), ["other.deep.c".to_owned(), a.clone(), a]);
}

#[test]
fn files_without_flakes() {
    let env = TestEnv::new();
    let flake = Flake::new("{ }");
    flake.write(
        "default.nix",
        &format!(
            "{{ suffix ? \"x\" }}: let {} in {{ a = ok \"a-${{suffix}}\"; inner = {{ recurseForDerivations = true; b = ok \"b\"; }}; }}",
            phoenix_testkit::PREAMBLE
        ),
    );
    let file = flake.path().display().to_string();
    let (ran, report) = env.report(&["-f", &file]);
    let _ = ran.ends_with(0);
    assert_eq!(report.attrs(), ["a", "inner.b"]);
    let (ran, report) = env.report(&["-f", &file, "-A", "inner.b"]);
    let _ = ran.ends_with(0);
    assert_eq!((report.attrs(), report.count("targets", "cached")), (vec!["inner.b".to_owned()], 1));
}

#[test]
fn include_exclude_and_systems() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{
          packages.${system} = { good = ok "good"; heavy-one = throw "must not be evaluated"; };
          hydraJobs.a.b = ok "ab";
          hydraJobs.a.riscv64-linux = throw "must not be evaluated";
          legacyPackages.${system}.x.y = ok "xy";
          nixosConfigurations.arm.config.system.build.toplevel =
            derivation { name = "arm"; system = "riscv64-linux"; builder = "/bin/sh"; };
        }"#,
    );
    let (ran, report) = env.report(&[&flake.reference(), "--exclude", "packages.*.heavy-*"]);
    let _ = ran.ends_with(0).says("it is for riscv64-linux");
    let good = format!("packages.{}.good", env.system());
    let host = "nixosConfigurations.arm.config.system.build.toplevel";
    assert_eq!(report.attrs(), ["hydraJobs.a.b", host, &good]);
    assert_eq!(report.verdict(host), "skipped");

    let (ran, report) = env.report(&[&flake.reference(), "--include", "legacyPackages.**"]);
    let _ = ran.ends_with(0);
    assert_eq!(report.attrs(), [format!("legacyPackages.{}.x.y", env.system())]);

    flake.write("phoenix.toml", "include = [\"hydraJobs.**\"]\nexclude = [\"hydraJobs.a.riscv64-linux\"]");
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!(report.attrs(), ["hydraJobs.a.b"]);
}

#[test]
fn out_links_are_made_and_protect_what_they_point_to() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system} = { a = ok "a"; b = ok "b"; }; }"#);
    let link = env.file("result");
    let name = link.display().to_string();
    let _ = env.phoenix(&["run", &format!("{}#a", flake.reference()), "-o", &name]).ends_with(0);
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "a\n");
    let _ = env.phoenix(&["run", &flake.reference(), "-o", &name]).ends_with(0);
    let second = env.file(&format!("result-packages.{}.b", env.system()));
    assert_eq!(std::fs::read_to_string(&second).unwrap(), "b\n");
    env.nix.run("nix-store", &["--gc"]);
    assert_eq!(std::fs::read_to_string(&second).unwrap(), "b\n");
}

/// An output's link has the output's name behind the target's.
#[test]
fn links_that_meet_are_an_error_and_the_first_stands() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ hydraJobs = {
          x = d "x" "echo x > $out; echo dev > $dev" { outputs = [ "out" "dev" ]; };
          x-dev = ok "x-dev";
        }; }"#,
    );
    let name = env.file("result").display().to_string();
    let both = format!("{}#hydraJobs.x^*", flake.reference());
    let dev = format!("{}#hydraJobs.x-dev", flake.reference());
    for (order, kept) in [([&both, &dev], "dev\n"), ([&dev, &both], "x-dev\n")] {
        let ran = env.phoenix(&["run", order[0], order[1], "-o", &name]).ends_with(1).says("has no link");
        let link = env.file("result-hydraJobs.x-dev");
        assert_eq!(fs_err::read_to_string(&link).unwrap(), kept, "{ran}");
        fs_err::remove_file(&link).unwrap();
    }
}

#[test]
fn a_dry_run_builds_nothing() {
    let env = TestEnv::new();
    let flake = counted(&env);
    let ran = env.phoenix(&["run", &flake.reference(), "--dry-run"]).ends_with(0);
    assert!(ran.stdout.contains("5 to build"), "{ran}");
    assert_eq!(marks(&env), [""; 0]);
}

#[test]
fn two_runs_at_once_build_each_derivation_once() {
    let env = TestEnv::new();
    let flake = counted(&env);
    let start = || env.command().args(["run", &flake.reference()]).spawn().unwrap();
    let runs = [start(), start(), start()];
    for run in runs {
        let ran = common::Ran::from(run.wait_with_output().unwrap());
        let _ = ran.ends_with(0);
    }
    assert_eq!(marks(&env), ["a", "b", "c", "shared", "works"]);
}

#[test]
fn a_flake_s_settings_are_used_only_when_accepted() {
    let env = TestEnv::new();
    let flake = Flake::new("{ }");
    flake.write(
        "flake.nix",
        &format!(
            "{{ nixConfig.extra-substituters = \"http://127.0.0.1:1\"; outputs = {{ self }}: let {} in {{ packages.${{system}}.a = ok \"a\"; }}; }}",
            phoenix_testkit::PREAMBLE
        ),
    );
    let _ = env
        .phoenix(&["plan", &flake.reference()])
        .ends_with(0)
        .says("extra-substituters; `--accept-flake-config`");
    let ran = env.phoenix(&["run", &flake.reference(), "--accept-flake-config"]).ends_with(0);
    let ran = ran.says("substituter http://127.0.0.1:1").says("its answers are unknown");
    assert!(ran.stderr.contains("1 built"), "{ran}");
}

/// Floating content-addressed derivations have no path before they are built.
#[test]
fn content_addressed_derivations() {
    let env = TestEnv::new();
    env.nix.configure("experimental-features = nix-command flakes ca-derivations");
    let flake = Flake::new(
        r#"let ca = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }; in {
          packages.${system} = rec {
            a = d "a" "echo a > $out" ca;
            b = d "b" "read x < $a; echo $x > $out" (ca // { inherit a; });
            bad = d "bad" "exit 1" ca;
          };
        }"#,
    );
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(100);
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    assert_eq!(
        (report.verdict(&attr("a")), report.verdict(&attr("b"))),
        ("built", "built"),
        "{:#}",
        report.0
    );
    assert_eq!(report.verdict(&attr("bad")), "failed");
    let (ran, report) = env.report(&[&format!("{}#b", flake.reference())]);
    let _ = ran.ends_with(0);
    assert_eq!(report.verdict(&attr("b")), "cached", "{:#}", report.0);
}

/// Nix says why a target failed when all of it ends; that it has, and when, is known before.
#[test]
fn a_failed_target_is_told_when_its_builder_ends() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = {
          bad = d "bad" "echo so it goes; exit 1" { };
          slow = d "slow" "sleep 4; echo x > $out" { };
        }; }"#,
    );
    let (ran, report) = env.report(&["-j", "2", &flake.reference()]);
    let ran = ran.ends_with(100);
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    let seconds = |name: &str| report.field(&attr(name), "seconds").as_f64().unwrap();
    assert!(seconds("bad") < 3.0 && seconds("slow") > 3.0, "{:#}", report.0);
    let at = |words: &str| ran.stderr.find(words).unwrap_or_else(|| panic!("no {words} in {ran}"));
    assert!(at("bad failed after") < at("built slow"), "{ran}");
}

#[test]
fn a_builder_that_was_killed_is_tried_once_more() {
    let env = TestEnv::new();
    let marks = env.file("marks").display().to_string();
    fs_err::create_dir_all(&marks).unwrap();
    let flake = Flake::new(&format!(
        r#"let killed = name: times: attrs: d name
            "echo x >> {marks}/${{name}}; test $(grep -c x {marks}/${{name}}) -gt ${{toString times}} || kill -9 $$; echo x > $out"
            attrs;
          once = killed "once" 1 {{ }};
        in {{ packages.${{system}} = rec {{
          inherit once;
          above = d "above" "echo x > $out" {{ inherit once; }};
          twice = killed "twice" 9 {{ }};
          blocked = d "blocked" "echo x > $out" {{ inherit twice; }};
        }}; }}"#
    ));
    let depot = env.depot();
    let (ran, report) = env.report(&["--depot", &depot, &flake.reference()]);
    let ran = ran.ends_with(100).says("once: ").says("out of memory? It is tried once more");
    let _ = ran.says("FAILED twice").says("(builder killed)");
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    let verdicts = ["once", "above", "twice", "blocked"].map(|name| report.verdict(&attr(name)).to_owned());
    assert_eq!(verdicts, ["built", "built", "failed", "blocked"]);
    assert_eq!(report.field(&attr("twice"), "class"), "killed");
    let begun = |name: &str| fs_err::read_to_string(format!("{marks}/{name}")).unwrap().lines().count();
    assert_eq!((begun("once"), begun("twice")), (2, 2));
    // It is not remembered as something that would fail again.
    let (ran, _) = env.report(&["--depot", &depot, &flake.reference()]);
    let _ = ran.ends_with(100);
    assert_eq!(begun("twice"), 4);
    // Nor does it end a run that the first failure ends.
    fs_err::remove_file(format!("{marks}/once")).unwrap();
    env.forget_store();
    let above = format!("{}#{}", flake.reference(), attr("above"));
    let _ = env.phoenix(&["run", "--fail-fast", &above]).ends_with(0).says("It is tried once more");
}

#[test]
fn a_builder_that_was_killed_and_then_well_is_no_alarm_beside_a_failure() {
    let env = TestEnv::new();
    let mark = env.file("mark").display().to_string();
    let flake = Flake::new(&format!(
        r#"let killed = d "killed" "test -e {mark} || {{ echo x > {mark}; kill -9 $$; }}; echo x > $out" {{ }};
        in {{ packages.${{system}} = {{
          inherit killed;
          user = d "user" "echo x > $out" {{ inherit killed; }};
          bad = d "bad" "exit 1" {{ }};
        }}; }}"#
    ));
    let (ran, report) = env.report(&[&flake.reference()]);
    let ran = ran.ends_with(100).says("It is tried once more");
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    for (name, verdict) in [("killed", "built"), ("user", "built"), ("bad", "failed")] {
        assert_eq!(report.verdict(&attr(name)), verdict, "{name}: {ran}");
    }
    assert!(!ran.stderr.contains("Nix ended with"), "{ran}");
}
