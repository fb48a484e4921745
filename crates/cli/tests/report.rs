//! Reports: five of them, from one stream of events.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

mod common;

use common::TestEnv;
use phoenix_testkit::Flake;
use serde_json::Value;

fn flake() -> Flake {
    Flake::new(
        r#"{ packages.${system} = rec {
          good = ok "good";
          bad = d "bad" "echo it is bad; exit 7" { };
          above = d "above" "" { inherit bad; };
          broken = throw "boom";
        }; }"#,
    )
}

#[test]
fn every_format_can_be_made_again_from_the_events() {
    let env = TestEnv::new();
    let name = |name: &str| env.file(name).display().to_string();
    let events = name("events.jsonl");
    let files = ["report.json", "report.xml", "report.md", "report.txt", "report.html"].map(name);
    let mut args = vec!["run", "--json", "--events", &events];
    let kept = flake();
    let reference = kept.reference();
    args.push(&reference);
    for file in &files {
        args.extend(["--result-file", file]);
    }
    let ran = env.phoenix(&args).ends_with(100);
    let read = |file: &str| std::fs::read_to_string(file).unwrap();
    assert_eq!(ran.stdout, read(&files[0]), "--json is the JSON report");
    for (file, format) in files.iter().zip(["json", "junit", "markdown", "terminal", "html"]) {
        let again = env.phoenix(&["report", &events, "--format", format]).ends_with(100);
        assert_eq!(again.stdout, read(file), "{format}");
    }
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((json["schema"].as_u64(), json["exitCode"].as_u64()), (Some(1), Some(100)));
    for verdict in ["built", "failed", "blocked", "notEvaluated"] {
        assert_eq!(json["summary"]["targets"][verdict], 1, "{verdict}");
    }
    assert!(read(&files[1]).contains("<testsuite name=") && read(&files[1]).contains("it is bad"));
    assert!(read(&files[2]).contains("### bad failed"));
    assert!(read(&files[4]).starts_with("<!doctype html>") && read(&files[4]).contains("it is bad"));
    let page = name("page.html");
    let report = env.phoenix(&["report", &events, "--html", &page]).ends_with(100);
    assert_eq!((read(&page), report.stdout), (read(&files[4]), read(&files[3])), "the page comes besides");
    // The run's own directory has them as well.
    let (_, directory) = ran.stderr.rsplit_once("logs and reports: ").unwrap();
    for file in ["report.json", "report.xml", "report.md", "report.html", "events.jsonl"] {
        assert!(std::path::Path::new(directory.lines().next().unwrap()).join(file).exists(), "{file}");
    }
}

#[test]
fn what_is_no_events_file_is_told() {
    let env = TestEnv::new();
    let file = env.file("x");
    std::fs::write(&file, "<html>").unwrap();
    let name = file.display().to_string();
    let _ = env
        .phoenix(&["report", &name])
        .ends_with(1)
        .says("is no events file (line 1)")
        .says("hint: `phoenix run --events");
    let _ = env.phoenix(&["report", "/no/such"]).ends_with(1).says("cannot read /no/such");
    std::fs::write(
        &file,
        r#"{"at":1,"event":"runStarted","schema":99,"phoenix":"9","nix":"3","systems":[],"installables":[]}"#,
    )
    .unwrap();
    let _ = env.phoenix(&["report", &name]).ends_with(1).says("version 99 of the events");
}

#[test]
fn a_stream_that_breaks_off_is_red() {
    let env = TestEnv::new();
    let events = env.file("events").display().to_string();
    let kept = flake();
    let _ = env.phoenix(&["run", "--events", &events, &kept.reference()]).ends_with(100);
    let text = std::fs::read_to_string(&events).unwrap();
    std::fs::write(&events, &text[..text.len() * 2 / 3]).unwrap();
    let ran = env.phoenix(&["report", &events]).ends_with(1);
    assert!(ran.stdout.contains("the events end before the run does"), "{ran}");
}

#[test]
fn events_that_lost_a_verdict_are_red() {
    let env = TestEnv::new();
    let events = env.file("events").display().to_string();
    let kept = Flake::new(r#"{ packages.${system}.good = ok "good"; }"#);
    let _ = env.phoenix(&["run", "--events", &events, &kept.reference()]).ends_with(0);
    let _ = env.phoenix(&["report", &events]).ends_with(0);
    let text = std::fs::read_to_string(&events).unwrap();
    for lost in ["targetSettled", "targetFound"] {
        let left: String =
            text.lines().filter(|line| !line.contains(lost)).map(|line| format!("{line}\n")).collect();
        std::fs::write(&events, left).unwrap();
        let _ = env.phoenix(&["report", &events]).ends_with(1).says("some are lost");
    }
}

#[test]
fn plan_says_what_would_be_done_and_in_which_order() {
    let env = TestEnv::new();
    let kept = Flake::new(
        r#"{ packages.${system} = rec { base = ok "base"; app = d "app" "echo x > $out" { inherit base; }; }; }"#,
    );
    let ran = env.phoenix(&["plan", &kept.reference()]).ends_with(0);
    assert!(ran.stdout.contains("2 to build: about 20s of work, 20s on the critical path"), "{ran}");
    let order: Vec<usize> = ["-base.drv", "-app.drv"].map(|name| ran.stdout.find(name).unwrap()).to_vec();
    assert!(order[0] < order[1], "{ran}");
    let ran = env.phoenix(&["plan", "--json", &kept.reference()]).ends_with(0);
    let plan: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(plan["build"].as_array().unwrap().len(), 2);
    assert_eq!(plan["build"][1]["inputs"][0], plan["build"][0]["drvPath"]);
    assert!(plan["targets"].as_array().unwrap().iter().all(|target| target["status"] == "build"));
    let _ = env.phoenix(&["run", "--quiet", &kept.reference()]).ends_with(0);
    let ran = env.phoenix(&["plan", &kept.reference()]).ends_with(0);
    assert!(ran.stdout.contains("nothing to build"), "{ran}");
    let broken = flake();
    let _ = env.phoenix(&["plan", &broken.reference()]).ends_with(120);
}
