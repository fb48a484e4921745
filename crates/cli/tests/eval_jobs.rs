//! `phoenix eval` as a stand-in for nix-eval-jobs.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

mod common;

use std::path::Path;

use common::{Ran, TestEnv};
use fs_err as fs;
use phoenix_testkit::binary_cache::BinaryCache;
use phoenix_testkit::{Flake, PREAMBLE};
use serde_json::{Value, json};

/// The lines that are printed, in their order.
fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn attrs(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["attr"].as_str().unwrap()).collect()
}

fn line<'l>(lines: &'l [Value], attr: &str) -> &'l Value {
    lines.iter().find(|line| line["attr"] == attr).unwrap_or_else(|| panic!("no {attr} in {lines:#?}"))
}

fn jobs(env: &TestEnv, args: &[&str]) -> Vec<Value> {
    lines(&env.phoenix(&[&["eval"], args].concat()).ends_with(0))
}

/// A file of the environment, with the preamble before it.
fn file(env: &TestEnv, name: &str, head: &str, body: &str) -> String {
    let file = env.file(name);
    let text = format!("{head} let {PREAMBLE} in {body}");
    fs::write(&file, text.replace("SYSTEM", &env.system())).unwrap();
    file.display().to_string()
}

fn sample() -> Flake {
    Flake::new(
        r#"{ hydraJobs = {
          b = d "b" "" { meta = 1; } // { meta = { description = "about b"; list = [ 1 2 ]; fun = x: x; drv = ok "no"; }; version = "7"; };
          "a.dot" = ok "a";
          skipped = { c = ok "c"; };
          within = { recurseForDerivations = true; d = ok "d"; text = "no job"; };
          bad = throw "it is bad";
        }; }"#,
    )
}

#[test]
fn jobs_of_a_flake_are_those_below_an_attribute() {
    let env = TestEnv::new();
    let sample = sample();
    let flake = format!("{}#hydraJobs", sample.reference());
    let ran = env.phoenix(&[
        "eval",
        "--flake",
        &flake,
        "--meta",
        "--apply",
        "drv: {\n version = drv.version or null; # none\n}",
    ]);
    let ran = ran.ends_with(0).says("error: bad: it is bad");
    let lines = lines(&ran);
    assert_eq!(attrs(&lines), ["\"a.dot\"", "b", "bad", "within.d"]);
    assert_eq!(lines[0]["attrPath"], json!(["a.dot"]));
    assert_eq!((&lines[0]["meta"], &lines[0]["extraValue"]), (&Value::Null, &json!({"version": null})));
    assert_eq!(lines[1]["meta"], json!({"description": "about b", "list": [1, 2]}));
    assert_eq!(lines[1]["extraValue"], json!({"version": "7"}));
    assert_eq!((lines[2]["error"].as_str(), lines[2].get("drvPath")), (Some("it is bad"), None));
    let nix = env.nix.run("nix", &["eval", "--raw", &format!("{flake}.within.d.drvPath")]);
    assert_eq!(lines[3]["drvPath"], nix);
    // With `--force-recurse` all sets are looked through, and `--select` chooses.
    let all =
        jobs(&env, &["--flake", &flake, "--force-recurse", "--select", "jobs: removeAttrs jobs [ \"bad\" ]"]);
    assert_eq!(attrs(&all), ["\"a.dot\"", "b", "skipped.c", "within.d"]);
    let whole = ["--flake", &sample.reference(), "--select", "flake: flake.outputs.hydraJobs.within"];
    assert_eq!(attrs(&jobs(&env, &whole)), ["d"]);
}

#[test]
fn what_is_no_root_is_an_error_of_the_whole() {
    let env = TestEnv::new();
    let sample = sample();
    let ran = env.phoenix(&["eval", "--flake", &format!("{}#nothing.here", sample.reference())]);
    assert!(ran.stdout.contains("does not provide attribute 'nothing.here'"), "{ran}");
    let _ = ran.ends_with(1);
    let _ = env
        .phoenix(&["eval", "--expr", "{ a = 1; }", "--select", "x: 3"])
        .ends_with(1)
        .says("must evaluate to an attrset");
    let ran = env.phoenix(&["eval", "--expr", "{ a = "]).ends_with(1).says("at «--expr»:1:");
    let _ = ran.says("error: syntax error, unexpected end of file");
    let _ = env
        .phoenix(&["eval", "--flake", ".", "--no-instantiate", "--constituents"])
        .ends_with(1)
        .says("cannot be used with");
}

#[test]
fn an_error_of_syntax_is_told_as_nix_tells_it() {
    let env = TestEnv::new();
    let bad = "{\n  a = $x; }";
    let runs: [(&str, &[&str]); 3] = [
        ("--expr", &["--expr", bad]),
        ("--select", &["--expr", "{ }", "--select", bad]),
        ("--arg a", &["--expr", "{ a }: a", "--arg", "a", bad]),
    ];
    for (of, run) in runs {
        let ran =
            env.phoenix(&[&["eval"], run].concat()).ends_with(1).says("error: syntax error, unexpected ");
        let _ = ran.says(&format!("at «{of}»:2:7:")).says("2|   a = $x; }");
    }
    let job = "{ a = derivation { name = \"x\"; system = \"x\"; builder = \"x\"; }; }";
    let ran = env.phoenix(&["eval", "--expr", job, "--apply", bad]);
    let _ = ran.says("a: syntax error, unexpected ").says("at «--apply»:2:7:");
    for refused in ["{ ''a'' = 1; }", "1\u{a0}+ 1", "{ }\u{c}", "(1) + (2"] {
        let _ = env.phoenix(&["eval", "--expr", refused]).ends_with(1).says("syntax error");
    }
    let ran = env.phoenix(&["eval", "--expr", "{ a = builtins.fromJSON \"{\"; }"]).says("error: a: ");
    assert!(!ran.stderr.contains("flake.lock"), "{ran}");
}

#[test]
fn what_nix_takes_is_evaluated() {
    let env = TestEnv::new();
    let job = |value: &str| {
        format!("{{ a = derivation {{ name = \"x\"; system = \"x\"; builder = \"x\"; v = {value}; }}; }}")
    };
    let deep = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
    let texts = format!("{}a{}", "\"${".repeat(300), "}\"".repeat(300)).replacen("${a}", "a", 1);
    for value in ["let { body = \"1\"; }", "[ let { body = b; b = 1; } ]", &deep, &texts] {
        let job = job(value);
        let theirs = env.nix.run("nix-instantiate", &["--expr", &job]);
        assert_eq!(jobs(&env, &["--expr", &job])[0]["drvPath"], theirs.trim());
    }
}

#[test]
fn what_was_written_on_one_line_has_its_columns() {
    let env = TestEnv::new();
    let job = "{ a = derivation { name = \"x\"; system = \"x\"; builder = \"x\"; \
               v = (builtins.unsafeGetAttrPos \"c\" { /* here */ c = 1; }).column or 0 + __curPos.column or 0; }; }";
    let theirs = env.nix.run("nix-instantiate", &["--expr", job]);
    assert_eq!(jobs(&env, &["--expr", job])[0]["drvPath"], theirs.trim());
    assert_eq!(jobs(&env, &["--expr", "{ j }: j", "--arg", "j", job])[0]["drvPath"], theirs.trim());
    assert_eq!(jobs(&env, &["--expr", "{ }", "--select", &job.replacen("{ a", "_:{a", 1)]).len(), 1);
    let ran = env.phoenix(&["eval", "--expr", "{ a = toString (x: x); }"]);
    // Nix up to 2.20 or so does not say where, and a repl of 2.34 counts from the name that is defined.
    let begin =
        if env.nix.run("nix", &["--version"]).contains("2.34") { "phoenix'expression =".len() } else { 0 };
    if ran.stderr.contains("«string»:") {
        let _ = ran.says(&format!("«string»:1:{}", begin + 17));
    }
}

#[test]
fn an_expression_is_read_with_its_comments_and_from_where_it_is_asked() {
    let env = TestEnv::new();
    file(&env, "here.nix", "{ name }:", "ok name");
    let expression = "# jobs\n{ suffix ? \"none\", ... }@all: {\n  /* one\n  of them */ one = import ./here.nix { name = ''\n    a-${suffix}''; };\n  two = { given ? all.more or \"less\" }: import ./here.nix { name = given; };\n}\n";
    let run = |more: &[&str]| {
        let ran = Ran::from(
            env.command()
                .current_dir(env.file(""))
                .args(["eval", "-E", expression])
                .args(more)
                .output()
                .unwrap(),
        );
        lines(&ran.ends_with(0))
            .iter()
            .map(|line| line["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(&[]), ["a-none", "less"]);
    assert_eq!(run(&["--argstr", "suffix", "x-y"])[0], "a-x-y");
    assert_eq!(run(&["--arg", "suffix", "toString (1 + 1)", "--argstr", "more", "m"]), ["a-2", "m"]);
    assert_eq!(run(&["--argstr", "given", "g"]), ["a-none", "g"]);
    assert_eq!(run(&["--argstr", "suffix", "--meta"])[0], "a---meta", "a value may begin with anything");
    assert_eq!(run(&["--arg", "unused", "-1", "--argstr", "suffix", "y"])[0], "a-y");
}

#[test]
fn an_expression_sees_nothing_but_what_nix_shows_it() {
    let env = TestEnv::new();
    let names = [
        "root",
        "flake",
        "flakeSource",
        "selected",
        "value",
        "sources",
        "seen",
        "inspect",
        "inspectBy",
        "namesOf",
        "call",
        "finish",
        "next",
        "end",
        "at",
        "each",
        "names",
        "some",
        "L",
        "N",
        "E",
        "A",
        "M",
        "S",
        "given",
        "x",
    ];
    let made = "name: derivation { inherit name; system = \"x\"; builder = \"/bin/sh\"; }";
    let with = format!(
        "with builtins.listToAttrs (map (name: {{ inherit name; value = ({made}) name; }}) [ \"{}\" ]);",
        names.join("\" \"")
    );
    let set: String = names.iter().map(|name| format!("\"job-{name}\" = {name}; ")).collect();
    let set = format!("{with} {{ {set} }}");
    let sample = sample();
    let flake = sample.reference();
    let select = format!("_: {set}");
    let runs: [&[&str]; 4] = [
        &["--expr", &set],
        &["--expr", "{ }", "--select", &select],
        &["--flake", &flake, "--select", &select],
        &["--expr", "{ jobs }: jobs", "--arg", "jobs", &set],
    ];
    for run in runs {
        let lines = jobs(&env, run);
        assert_eq!(lines.len(), names.len(), "{lines:#?}");
        for job in &lines {
            assert_eq!(job["attr"], format!("job-{}", job["name"].as_str().unwrap()), "{run:?}");
        }
    }
    for name in names {
        let ran = env.phoenix(&["eval", "--expr", &format!("{{ a = {name}; }}")]).ends_with(1);
        assert!(ran.says("undefined variable").stderr.contains(&format!("'{name}'")), "{name}");
    }
}

#[test]
fn every_byte_of_an_expression_is_what_it_says() {
    let env = TestEnv::new();
    let bytes: String =
        (1..=127).map(char::from).filter(|char| !['"', '\\', '$', '\''].contains(char)).collect();
    let job = |string: &str| format!("derivation {{ name = \"x\"; system = \"x\"; builder = {string}; }}");
    for string in [format!("\"{bytes}\""), format!("''{bytes}''"), "'' a\n  b''\\n  c\n d''".to_owned()] {
        let theirs = env.nix.run("nix-instantiate", &["--expr", &job(&string)]);
        let set = format!("{{ \"named {}\" = {}; }}", bytes.replace('\u{7f}', ""), job(&string));
        for lines in [
            jobs(&env, &["--expr", &set]),
            jobs(&env, &["--expr", "{ }", "--select", &format!("_: {set}")]),
            jobs(
                &env,
                &[
                    "--expr",
                    "{ string }: { a = derivation { name = \"x\"; system = \"x\"; builder = string; }; }",
                    "--arg",
                    "string",
                    &string,
                ],
            ),
        ] {
            assert_eq!(lines[0]["drvPath"], theirs.trim(), "{string:?}: {lines:#?}");
        }
    }
}

#[test]
fn sets_in_sets_are_answered_each_for_itself() {
    let env = TestEnv::new();
    // Few and many attributes in turns, and some with an error that ends a question.
    let set = r#"let
        made = name: derivation { inherit name; system = "x"; builder = "/bin/sh"; };
        # So that not all of the outer set is asked for at once.
        slow = value: builtins.seq (builtins.foldl' (a: b: a + b) 0 (builtins.genList (i: i) 200000)) value;
        sizes = [ 3 12 1 9 2 30 4 8 1 17 5 40 ];
        leaves = prefix: n: builtins.listToAttrs (builtins.genList (i: {
          name = "a${toString i}";
          value = if (i + n) - (i + n) / 7 * 7 == 0 then { }.missing else made "${prefix}-a${toString i}";
        }) n);
        inner = prefix: n: leaves prefix n // {
          recurseForDerivations = true;
          deep = leaves "${prefix}-deep" (n / 2 + 1) // { recurseForDerivations = true; };
        };
      in builtins.listToAttrs (builtins.genList (s: {
        name = "s${toString s}";
        value = if s - s / 3 * 3 == 0 then slow (made "s${toString s}") else inner "s${toString s}" (builtins.elemAt sizes (s - s / 12 * 12));
      }) 60)"#;
    for workers in ["1", "3"] {
        let ran =
            env.phoenix(&["eval", "--no-eval-cache", "--eval-workers", workers, "--expr", set]).ends_with(0);
        let lines = lines(&ran);
        let (good, bad): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| line["name"].is_string());
        for line in &good {
            assert_eq!(line["attr"].as_str().unwrap().replace('.', "-"), line["name"].as_str().unwrap());
        }
        assert!(
            bad.iter().all(|line| line["error"].as_str().unwrap().starts_with("attribute 'missing' missing"))
        );
        let sizes = [3, 12, 1, 9, 2, 30, 4, 8, 1, 17, 5, 40];
        let sets = (0..60).filter(|s| s % 3 != 0).map(|s| sizes[s % 12]);
        let of_seven = |n: usize, all: usize| (0..all).filter(|i| (i + n).is_multiple_of(7)).count();
        let (mut all, mut wrong) = (20, 0);
        for n in sets {
            all += n + n / 2 + 1;
            wrong += of_seven(n, n) + of_seven(n / 2 + 1, n / 2 + 1);
        }
        assert_eq!((lines.len(), bad.len()), (all, wrong));
    }
}

#[test]
fn a_file_and_the_search_path_are_roots() {
    let env = TestEnv::new();
    let path =
        file(&env, "ci.nix", "{ n ? 1 }:", "{ job = ok \"job-${toString n}\"; none = { need }: ok need; }");
    let ran = env.phoenix(&["eval", &path, "--arg", "n", "2"]).ends_with(0);
    let found = lines(&ran);
    assert_eq!(attrs(&found), ["job", "none"]);
    assert_eq!(found[0]["name"], "job-2");
    assert!(found[1]["error"].as_str().unwrap().contains("argument without a value ('need')"), "{ran}");
    let place = format!("jobs={path}");
    for flags in [["-I", place.as_str()], ["--include", &place]] {
        let found =
            jobs(&env, &[&["<jobs>", "--select", "all: { inherit (all) job; }"][..], &flags].concat());
        assert_eq!(found[0]["name"], "job-1");
    }
    // Patterns still are patterns, and files that are named by `-f` still have them.
    let found = jobs(&env, &["-f", &path, "--include", "job"]);
    assert_eq!(attrs(&found), ["job"]);
}

#[test]
fn derivations_are_described_and_kept() {
    let env = TestEnv::new();
    let path = file(
        &env,
        "ci.nix",
        "",
        "{ top = d \"top\" \"\" { low = ok \"low\"; requiredSystemFeatures = [ \"kvm\" \"big\" ]; }; }",
    );
    let roots = env.file("roots");
    let found = jobs(&env, &[&path, "--show-input-drvs", "--gc-roots-dir", roots.to_str().unwrap()]);
    let drv_path = found[0]["drvPath"].as_str().unwrap();
    assert_eq!(found[0]["requiredSystemFeatures"], json!(["big", "kvm"]));
    let inputs = found[0]["inputDrvs"].as_object().unwrap();
    assert!(
        inputs.len() == 1
            && inputs.iter().all(|(drv, outs)| drv.ends_with("-low.drv") && *outs == json!(["out"]))
    );
    let link = roots.join(Path::new(drv_path).file_name().unwrap());
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(drv_path));
    env.nix.run("nix-store", &["--gc"]);
    assert!(env.nix.is_valid(drv_path), "the link keeps it");
    fs::remove_file(link).unwrap();
    env.nix.run("nix-store", &["--gc"]);
    assert!(!env.nix.is_valid(drv_path));
}

#[test]
fn the_daemon_is_told_of_what_is_kept() {
    let env = TestEnv::new().through_daemon();
    let _daemon = env.nix.daemon().unwrap();
    let path = file(&env, "ci.nix", "", "{ a = ok \"a\"; }");
    let roots = env.file("roots");
    let found = jobs(&env, &[&path, "--gc-roots-dir", roots.to_str().unwrap()]);
    env.nix.run("nix-store", &["--gc"]);
    assert!(env.nix.is_valid(found[0]["drvPath"].as_str().unwrap()), "the link keeps it");
    // Nix made the link to the link itself.
    let auto = env.nix.path("var/nix/gcroots/auto");
    let links: Vec<_> =
        fs::read_dir(auto).unwrap().map(|entry| fs::read_link(entry.unwrap().path()).unwrap()).collect();
    assert!(links.iter().all(|link| link.starts_with(&roots)) && links.len() == 1, "{links:?}");
}

#[test]
fn nothing_is_written_when_nothing_is_to_be() {
    let env = TestEnv::new();
    let sample = sample();
    let flake = format!("{}#hydraJobs", sample.reference());
    let found = jobs(&env, &["--flake", &flake, "--no-instantiate"]);
    assert_eq!(attrs(&found), ["\"a.dot\"", "b", "bad", "within.d"]);
    assert!(found[0].get("requiredSystemFeatures").is_none());
    assert_eq!(found[0]["system"], env.system().as_str());
    assert!(found[0]["outputs"]["out"].as_str().unwrap().ends_with("-a"));
    let drv_path = found[0]["drvPath"].as_str().unwrap().to_owned();
    assert!(!env.nix.is_valid(&drv_path));
    let written = jobs(&env, &["--flake", &flake]);
    assert_eq!(written[0]["drvPath"], drv_path);
    assert!(env.nix.is_valid(&drv_path));
}

#[test]
fn aggregates_need_the_jobs_that_they_name() {
    let env = TestEnv::new();
    let path = file(
        &env,
        "ci.nix",
        "",
        r#"let aggregate = name: constituents: d name "" { _hydraAggregate = true; inherit constituents; }; in {
          all = d "all" "" { _hydraAggregate = true; _hydraGlobConstituents = true; constituents = [ "t.*" ]; };
          bad = throw "no";
          direct = aggregate "direct" [ (ok "other") ];
          failing = aggregate "failing" [ "bad" "nobody" ];
          mixed = aggregate "mixed" [ "all" (ok "other") ];
          t = { recurseForDerivations = true; x = d "x" "" { outputs = [ "out" "bin" ]; }; y = ok "y"; };
        }"#,
    );
    let found = jobs(&env, &[&path, "--constituents"]);
    assert_eq!(attrs(&found), ["bad", "direct", "t.x", "t.y", "all", "failing", "mixed"]);
    let drv = |attr: &str| line(&found, attr)["drvPath"].as_str().unwrap().to_owned();
    let all = line(&found, "all");
    assert_eq!(
        (&all["constituents"], all.get("namedConstituents")),
        (&json!([drv("t.x"), drv("t.y")]), None)
    );
    assert_eq!(line(&found, "t.x")["namedConstituents"], json!([]));
    assert_eq!(line(&found, "failing")["error"], "bad: no\nnobody: does not exist\n");
    let mixed = line(&found, "mixed")["constituents"].as_array().unwrap().clone();
    assert_eq!((mixed.len(), mixed[1].as_str()), (2, Some(drv("all").as_str())));
    let inputs = env.nix.run("nix-store", &["--query", "--references", &drv("mixed")]);
    assert!(inputs.contains(&drv("all")), "{inputs}");
    // Of several outputs the first one by name is needed.
    let text = fs::read_to_string(drv("all")).unwrap();
    assert!(text.contains("\"bin\""), "{text}");
    let plain = jobs(&env, &[&path]);
    assert_ne!(line(&plain, "all")["drvPath"], line(&found, "all")["drvPath"]);
    assert_eq!(line(&plain, "direct")["drvPath"], line(&found, "direct")["drvPath"]);
}

#[test]
fn it_is_told_what_there_is_already() {
    let env = TestEnv::new();
    let path = file(
        &env,
        "ci.nix",
        "",
        r#"rec { low = ok "low"; top = d "top" "echo $low > $out" { inherit low; }; over = d "over" "" { inherit top; }; }"#,
    );
    let status = || {
        let found = jobs(&env, &[&path, "--check-cache-status", "--sorted"]);
        let drv = |attr: &str| line(&found, attr)["drvPath"].as_str().unwrap().to_owned();
        let drvs = [drv("low"), drv("top"), drv("over")];
        let of = |attr: &str| {
            let line = line(&found, attr);
            (
                line["cacheStatus"].as_str().unwrap().to_owned(),
                line["isCached"].clone(),
                line["neededBuilds"].clone(),
                line["neededSubstitutes"].clone(),
            )
        };
        (of("low"), of("over"), drvs, found.clone())
    };
    let (low, over, [low_drv, top_drv, _], _) = status();
    assert_eq!(low, ("notBuilt".to_owned(), json!(false), json!([]), json!([])));
    assert_eq!(over, ("notBuilt".to_owned(), json!(false), json!([low_drv, top_drv]), json!([])));
    let low_path = env.nix.run("nix-store", &["--realise", &low_drv]);
    let (low, over, _, _) = status();
    assert_eq!(low, ("local".to_owned(), json!(true), json!([]), json!([])));
    assert_eq!(over.2, json!([top_drv]));
    // `top` refers to `low`: who fetches the one fetches both.
    let cache = BinaryCache::start(&env.nix.store_dir()).unwrap();
    let served = env.file("served");
    let top_path = env.nix.run("nix-store", &["--realise", &top_drv]);
    env.nix.run("nix", &["copy", "--to", &format!("file://{}", served.display()), &top_path]);
    cache.serve_directory(&served);
    env.nix.configure(&format!("substituters = {}\nrequire-sigs = false", cache.url()));
    env.nix.run("nix-store", &["--delete", &top_path]);
    env.nix.run("nix-store", &["--delete", &low_path]);
    let (low, over, _, found) = status();
    assert_eq!(low, ("cached".to_owned(), json!(true), json!([]), json!([low_path])));
    assert_eq!(over, ("notBuilt".to_owned(), json!(false), json!([]), json!([low_path, top_path])));
    assert_eq!(line(&found, "top")["neededSubstitutes"], json!([low_path, top_path]));
}

#[test]
fn a_crash_is_the_error_of_one_attribute_and_of_the_whole() {
    let env = TestEnv::new();
    let path = file(
        &env,
        "ci.nix",
        "",
        "{ a = ok \"a\"; deep = let again = [ again ]; in d \"deep\" \"\" { inherit again; }; z = ok \"z\"; }",
    );
    let ran = env.phoenix(&["eval", &path]);
    let found = lines(&ran);
    assert_eq!(attrs(&found), ["a", "deep", "z"]);
    let error = found[1]["error"].as_str().unwrap();
    assert!(error.contains("stack overflow") || error.contains("infinite recursion"), "{error}");
    // Where Nix itself does not survive it, the run is no success.
    let fatal = found[1]["fatal"] == true;
    let _ = ran.ends_with(i32::from(fatal)).says("deep: ");
}

#[test]
fn what_nixpkgs_refuses_is_told_from_real_errors() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"let
          refuse = name: why: let message = "Package ‘${name}-1’ in /x.nix:3 ${why}, refusing to evaluate.\n\na) advice"; in
            { type = "derivation"; inherit name; pname = name; version = "1"; meta = { name = "${name}-1"; };
              inherit system; outPath = throw message; drvPath = throw message; };
        in { packages.${system} = rec {
          broken = refuse "broken" "is marked as broken";
          unfree = refuse "unfree" "has an unfree license (‘unfree’)";
          insecure = refuse "insecure" "is marked as insecure";
          elsewhere = refuse "elsewhere" "is not available on the requested hostPlatform:\n  system = x";
          needs = d "needs" "" { inherit broken; };
          good = ok "good";
        }; }"#,
    );
    let (ran, report) = env.report(&[&flake.reference()]);
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    for (name, reason) in [
        ("broken", "broken: broken-1 is marked as broken"),
        ("unfree", "unfree: unfree-1 has an unfree license (‘unfree’)"),
        ("insecure", "insecure: insecure-1 is marked as insecure"),
        ("elsewhere", "unsupported: elsewhere-1 is not available on the requested hostPlatform"),
    ] {
        assert_eq!(report.verdict(&attr(name)), "skipped", "{ran}");
        assert_eq!(report.field(&attr(name), "reason"), reason);
    }
    // Nobody said that what needs it is not wanted.
    assert_eq!((report.verdict(&attr("needs")), report.verdict(&attr("good"))), ("notEvaluated", "built"));
    let _ = ran.ends_with(120);
    // Who names it wants it.
    let (ran, report) = env.report(&[&format!("{}#broken", flake.reference())]);
    assert_eq!(report.verdict(&attr("broken")), "notEvaluated");
    let _ = ran.ends_with(120);
    let found = jobs(&env, &["--flake", &format!("{}#packages.{}", flake.reference(), env.system())]);
    let class = |attr: &str| line(&found, attr)["errorClass"].clone();
    assert_eq!(class("broken"), "broken");
    assert_eq!((class("unfree"), class("needs")), (json!("unfree"), json!("broken")));
    assert!(line(&found, "elsewhere")["error"].as_str().unwrap().contains("advice"), "errors are whole");
}

#[test]
fn by_its_name_it_is_nix_eval_jobs() {
    let env = TestEnv::new();
    let path = file(&env, "ci.nix", "", "{ b = ok \"b\"; a = ok \"a\"; }");
    let program = env.file("nix-eval-jobs");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_phoenix"), &program).unwrap();
    let run = |args: &[&str]| {
        let command = env.command();
        let mut other = std::process::Command::new(&program);
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).args(args);
        Ran::from(other.output().unwrap())
    };
    // Settings are flags, as for all programs of Nix.
    let ran = run(&[
        "--extra-experimental-features",
        "nix-command flakes",
        "--workers",
        "2",
        "--max-memory-size",
        "2048",
        "--log-format",
        "raw",
        "--no-allow-import-from-derivation",
        "--sorted",
        &path,
    ]);
    assert_eq!(attrs(&lines(&ran.ends_with(0))), ["a", "b"]);
    let _ = run(&["--no-such-setting", &path]).ends_with(1).says("--no-such-setting");
    let _ = run(&[]).ends_with(1).says("nothing to evaluate");
}

#[test]
fn another_lock_file_counts_where_nix_knows_of_it() {
    let env = TestEnv::new();
    let (one, two) = (Flake::new("{ word = \"one\"; }"), Flake::new("{ word = \"two\"; }"));
    let top = Flake::new("{ }");
    top.write(
        "flake.nix",
        &format!(
            "{{ inputs.word.url = \"{}\"; outputs = {{ self, word }}: let {PREAMBLE} in {{ jobs.job = ok word.word; }}; }}",
            one.reference()
        ),
    );
    let flake = format!("{}#jobs", top.reference());
    assert_eq!(jobs(&env, &["--flake", &flake])[0]["name"], "one");
    assert_eq!(
        jobs(&env, &["--flake", &flake, "--override-input", "word", &two.reference()])[0]["name"],
        "two"
    );
    env.nix.run("nix", &["flake", "lock", "--override-input", "word", &two.reference(), &top.reference()]);
    let lock = env.file("other.lock");
    fs::rename(top.path().join("flake.lock"), &lock).unwrap();
    let ran = env.phoenix(&["eval", "--flake", &flake, "--reference-lock-file", lock.to_str().unwrap()]);
    if ran.stderr.contains("unrecognised flag") || ran.stdout.contains("unrecognised flag") {
        assert!(env.nix.run("nix", &["--version"]).contains("2.8"), "{ran}");
        let _ = ran.ends_with(1);
        return;
    }
    assert_eq!(lines(&ran.ends_with(0))[0]["name"], "two");
}

/// The protocol between `--evaluator nix-eval-jobs` and that program, with ourselves by its name.
#[test]
fn nix_eval_jobs_in_the_place_of_our_evaluators_finds_the_same() {
    let env = TestEnv::new();
    let bin = env.file("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_phoenix"), bin.join("nix-eval-jobs")).unwrap();
    let flake = Flake::new(
        r#"{
          packages.${system} = { good = ok "good"; bad = throw "boom"; text = "no derivation"; two = d "two" "" { outputs = [ "out" "dev" ]; }; };
          hydraJobs = { deep = { deeper = ok "deeper"; }; none = null; };
          checks.${system}.deep = let again = [ again ]; in d "deep" "" { inherit again; };
          ci.unit = { type = "ci-work-unit"; findWork = "return {}"; };
        }"#,
    );
    let run = |more: &[&str], with: &[&str]| {
        let path = std::env::var_os("PATH").unwrap();
        let path =
            std::env::join_paths(std::iter::once(bin.clone()).chain(std::env::split_paths(&path))).unwrap();
        let mut command = env.command();
        command.args(["eval", "--sorted"]).args(more).args(with).env("PATH", path);
        Ran::from(command.output().unwrap())
    };
    let both = |more: &[&str]| {
        let (own, other) = (run(more, &[]), run(more, &["--evaluator", "nix-eval-jobs"]));
        let cut = |ran: &Ran| {
            let mut lines = lines(ran);
            for line in &mut lines {
                // How a crash is told is another matter.
                if line["fatal"] == true {
                    line["error"] = Value::Null;
                }
            }
            lines
        };
        assert_eq!(own.code, other.code, "{own}\n{other}");
        assert_eq!(cut(&own), cut(&other), "{own}\n{other}");
        lines(&own)
    };
    let found = both(&[&flake.reference()]);
    assert_eq!(found.len(), 6, "{found:#?}");
    both(&["--flake", &format!("{}#hydraJobs", flake.reference()), "--force-recurse", "--meta"]);
    let path = file(
        &env,
        "ci.nix",
        "",
        "rec { one = ok \"one\"; all = d \"all\" \"\" { _hydraAggregate = true; constituents = [ \"one\" ]; }; }",
    );
    both(&[&path, "--constituents"]);
    // Pipelines use it as well.
    let mut command = env.command();
    let ran = Ran::from(
        command
            .args(["plan", "--evaluator", "nix-eval-jobs", &flake.reference()])
            .env("PATH", "/nowhere")
            .output()
            .unwrap(),
    );
    assert_ne!(ran.code, Some(0));
    let without = env.phoenix(&["eval", "--evaluator", "nix-eval-jobs", &flake.reference()]);
    if !without.stderr.contains("no `nix-eval-jobs` on PATH") {
        assert!(which("nix-eval-jobs"), "{without}");
    }
}

fn which(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .any(|directory| directory.join(program).is_file())
}
