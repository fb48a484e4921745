//! `phoenix eval` gives what Nix itself gives.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

mod common;

use std::collections::BTreeMap;

use common::TestEnv;
use phoenix_testkit::{Flake, PREAMBLE};
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
    let ran = env.phoenix(&["eval", &flake.reference()]).ends_with(0).says("building '");
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
