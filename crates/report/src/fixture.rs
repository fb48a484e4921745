//! A run that has everything, for tests.

use std::collections::BTreeMap;

use phoenix_model::{
    AttrPath, Event, FailureClass, Logged, PlannedDerivation, PlannedTarget, SettledDerivation, Severity,
    Source, Stage, Stamp, StorePath, Target, TargetId, TargetKind, Verdict,
};

use crate::Summary;

pub(crate) fn drv(name: &str) -> StorePath {
    StorePath::parse(&format!("/nix/store/{}-{name}.drv", "0".repeat(32))).unwrap()
}

pub(crate) fn target(id: u32, attr: &str, name: Option<&str>) -> Target {
    Target {
        id: TargetId(id),
        source: ".".into(),
        attr_path: AttrPath::parse(attr).unwrap(),
        kind: if name.is_some() { TargetKind::Derivation } else { TargetKind::Unknown },
        name: name.map(str::to_owned),
        system: name.map(|_| "x86_64-linux".into()),
        drv_path: name.map(drv),
        outputs: BTreeMap::default(),
        wanted: Vec::new(),
    }
}

/// A run in which every verdict occurs.
pub(crate) fn events() -> Vec<Logged> {
    let mut events = Vec::new();
    let mut add = |at: u64, event: Event| events.push(Logged { at: Stamp(1_700_000_000_000 + at), event });
    add(
        0,
        Event::RunStarted {
            schema: phoenix_model::SCHEMA_VERSION,
            phoenix: "0.1.0".into(),
            nix: "2.26.3".into(),
            systems: vec!["x86_64-linux".into()],
            installables: vec![".".into()],
        },
    );
    add(10, Event::StageStarted { stage: Stage::Evaluate });
    let attrs = [
        ("packages.x86_64-linux.hello", Some("hello-2.12")),
        ("packages.x86_64-linux.lib", Some("lib-1.0")),
        ("checks.x86_64-linux.uses-lib", Some("uses-lib")),
        ("packages.x86_64-linux.old", Some("old-1")),
        ("packages.x86_64-linux.far", Some("far-1")),
        ("nixosConfigurations.arm.config.system.build.toplevel", Some("nixos-arm")),
        ("packages.x86_64-linux.broken", None),
        ("packages.x86_64-linux.late", Some("late-1")),
    ];
    for (id, (attr, name)) in (0..).zip(attrs) {
        add(20, Event::Evaluating { attr: attr.into(), left: 3 });
        add(30, Event::TargetFound { target: target(id, attr, name) });
    }
    let settle = |id: u32, verdict: Verdict| Event::TargetSettled { target: TargetId(id), verdict };
    add(
        40,
        settle(
            5,
            Verdict::Skipped { reason: "it is for aarch64-linux, and this run is for x86_64-linux".into() },
        ),
    );
    add(
        40,
        settle(
            6,
            Verdict::NotEvaluated {
                error: "boom\n\nat /nix/store/x/flake.nix:3:4:\n\n  3| throw \"boom\"".into(),
            },
        ),
    );
    add(50, Event::StageStarted { stage: Stage::Plan });
    add(
        60,
        Event::SubstituterFailed {
            url: "https://down.example".into(),
            problem: "it answers 503 Service Unavailable".into(),
        },
    );
    let planned = |name: &str, inputs: &[u32]| PlannedDerivation {
        drv_path: drv(name),
        system: "x86_64-linux".into(),
        inputs: inputs.to_vec(),
        estimate: 10.0,
        unknown: false,
        fixed_output: false,
    };
    add(
        70,
        Event::Planned {
            derivations: vec![
                planned("hello-2.12", &[]),
                planned("lib-1.0", &[]),
                planned("glue", &[1]),
                planned("uses-lib", &[2]),
                planned("late-1", &[]),
            ],
            targets: [(0, 0), (1, 1), (2, 3), (7, 4)]
                .map(|(target, derivation)| PlannedTarget { target: TargetId(target), derivation })
                .to_vec(),
            fetched: vec![(drv("stdenv"), Source::Substituter("https://cache.example".into()))],
            saved_seconds: 75.0,
        },
    );
    add(70, settle(3, Verdict::Cached { from: Source::Store }));
    add(70, settle(4, Verdict::Cached { from: Source::Substituter("https://cache.example".into()) }));
    add(80, Event::StageStarted { stage: Stage::Build });
    add(100, Event::BuildStarted { drv_path: drv("hello-2.12"), machine: String::new() });
    add(100, Event::BuildStarted { drv_path: drv("lib-1.0"), machine: String::new() });
    add(200, Event::FetchStarted { path: drv("stdenv"), from: "https://cache.example".into() });
    add(300, Event::PhaseStarted { drv_path: drv("lib-1.0"), phase: "checkPhase".into() });
    for number in 1..=30 {
        add(400, Event::LogLine { drv_path: drv("lib-1.0"), line: format!("line {number}") });
    }
    add(400, Event::LogLine { drv_path: drv("lib-1.0"), line: "\u{1b}[31mFAILED\u{1b}[0m 2 + 2 = 5".into() });
    let settled = |name: &str, verdict: Verdict, seconds: Option<f64>| Event::DerivationSettled {
        settled: SettledDerivation {
            drv_path: drv(name),
            verdict,
            seconds,
            log: seconds.map(|_| format!("/runs/1/logs/{name}.log")),
        },
    };
    let failed = Verdict::Failed {
        class: FailureClass::Build,
        message: format!("builder for '{}' failed with exit code 1", drv("lib-1.0")),
    };
    add(2_100, settled("lib-1.0", failed.clone(), Some(2.0)));
    add(2_100, settle(1, failed));
    add(4_300, settled("hello-2.12", Verdict::Built, Some(4.2)));
    add(4_300, settle(0, Verdict::Built));
    add(5_000, Event::Cancelling { reason: "SIGINT".into() });
    let blocked = Verdict::Blocked { by: vec![drv("lib-1.0")] };
    add(5_100, settled("glue", blocked.clone(), None));
    add(5_100, settled("uses-lib", blocked.clone(), None));
    add(5_100, settle(2, blocked));
    add(5_100, settled("late-1", Verdict::Cancelled, None));
    add(5_100, settle(7, Verdict::Cancelled));
    add(5_200, Event::Message { severity: Severity::Warning, text: "Git tree '/x' is dirty".into() });
    add(5_300, Event::RunEnded { exit_code: 130, directory: Some("/runs/1".into()) });
    events
}

pub(crate) fn fold(events: &[Logged]) -> Summary {
    let mut summary = Summary::default();
    for event in events {
        summary.apply(event);
    }
    summary
}

pub(crate) fn summary() -> Summary {
    fold(&events())
}
