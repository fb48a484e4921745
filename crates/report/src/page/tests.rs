//! What holds of the page as a whole.

use std::fmt::Write as _;

use phoenix_model::{Event, Logged, PlannedDerivation, SettledDerivation, Stamp, TargetId, Verdict};

use super::*;
use crate::{DerivationState, fixture};

/// The tags of a page, without what is in scripts and styles.
fn tags(page: &str) -> Vec<&str> {
    page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or(rest)).collect()
}

/// The page without its script and style, which have `<` of their own.
fn markup(page: &str) -> String {
    page.replace(STYLE, "").replace(SCRIPT, "")
}

#[test]
fn the_page_tells_of_everything() {
    let page = html(&fixture::summary());
    for words in [
        "8 targets: 1 failed, 1 not evaluated, 1 blocked, 1 cancelled, 1 built, 2 cached, 1 skipped",
        "FAILED 2 + 2 = 5",
        "checks.x86_64-linux.uses-lib and 1 derivation on the way",
        "builder failed with exit code 1",
        "in https://cache.example",
        "1m15s",
        "it answers 503 Service Unavailable",
        "whole log: /runs/1/logs/lib-1.0.log",
    ] {
        assert!(page.contains(words), "{words}");
    }
    for part in ["failures", "timeline", "cache", "verdicts"] {
        assert!(page.contains(&format!("id=\"{part}\"")), "{part}");
    }
}

#[test]
fn the_browser_is_told_to_run_nothing_but_what_is_ours() {
    let page = html(&fixture::summary());
    let (_, rest) = page.split_once("http-equiv=\"Content-Security-Policy\" content=\"").unwrap();
    let (policy, _) = rest.split_once('"').unwrap();
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
            hash(STYLE),
            hash(SCRIPT)
        )
    );
    assert!(
        page.contains(&format!("<style>{STYLE}</style>"))
            && page.contains(&format!("<script>{SCRIPT}</script>"))
    );
    for tag in tags(&markup(&page)) {
        let unneeded = [" style=", " src=", " onclick=", " onload=", "http:", "https:"];
        assert!(!unneeded.iter().any(|part| tag.contains(part)), "{tag}");
    }
}

#[test]
fn a_hostile_flake_cannot_break_out() {
    let plain = html(&fixture::summary());
    let evil =
        "</script><script>alert(1)</script><!--\n\"'><img src=x onerror=alert(1)>\u{202e}gnp.exe{{ 7 * 7 }}";
    let mut events = fixture::events();
    for logged in &mut events {
        match &mut logged.event {
            Event::TargetFound { target } => target.attr_path.0 = vec![evil.to_owned()],
            Event::LogLine { line: text, .. }
            | Event::Message { text, .. }
            | Event::BuildStarted { machine: text, .. }
            | Event::Cancelling { reason: text }
            | Event::TargetSettled {
                verdict: Verdict::NotEvaluated { error: text } | Verdict::Skipped { reason: text },
                ..
            } => evil.clone_into(text),
            Event::SubstituterFailed { url, problem } => {
                evil.clone_into(url);
                evil.clone_into(problem);
            }
            Event::DerivationSettled { settled } => settled.log = Some(evil.to_owned()),
            Event::Planned { derivations, .. } => {
                for planned in derivations {
                    evil.clone_into(&mut planned.system);
                }
            }
            Event::RunStarted { phoenix, nix, systems, installables, .. } => {
                for text in systems.iter_mut().chain(installables).chain([phoenix, nix]) {
                    evil.clone_into(text);
                }
            }
            _ => {}
        }
    }
    let page = html(&fixture::fold(&events));
    assert!(!page.contains('\u{202e}') && page.contains("{{ 7 * 7 }}"));
    let (page, plain) = (markup(&page), markup(&plain));
    assert_eq!(page.matches("</script").count(), 2, "ours");
    let names = |page: &str| {
        tags(page)
            .iter()
            .map(|tag| tag.split([' ', '\n']).next().unwrap_or("").to_owned())
            .collect::<Vec<_>>()
    };
    let (mut hostile, mut tame) = (names(&page), names(&plain));
    hostile.sort();
    tame.sort();
    hostile.dedup();
    tame.dedup();
    assert_eq!(hostile, tame, "no tag that is not in the page of a tame flake");
}

/// A run of so many derivations in chains of eight, on four runners; some fail.
fn large(count: u32) -> Vec<Logged> {
    // Paths are told apart by their hashes: those of the fixture are all the same, and slow in numbers.
    let drv = |at: u32| {
        let path = format!(
            "/nix/store/{}-package-with-a-name-of-usual-length-{at}-1.2.3.drv",
            format!("{at:08}").repeat(4)
        );
        phoenix_model::StorePath::parse(&path).unwrap()
    };
    let mut events = fixture::events();
    events.truncate(1);
    let mut add = |at: u64, event: Event| events.push(Logged { at: Stamp(1_700_000_000_000 + at), event });
    for at in 0..count {
        let mut target = fixture::target(at, &format!("packages.x86_64-linux.package-{at}"), Some("package"));
        target.drv_path = Some(drv(at));
        add(10, Event::TargetFound { target });
    }
    let derivations = (0..count).map(|at| PlannedDerivation {
        system: "x86_64-linux".into(),
        inputs: if at % 8 == 0 { vec![] } else { vec![at - 1] },
        ..DerivationState::unplanned(drv(at)).planned
    });
    let derivations = derivations.collect();
    add(20, Event::Planned { derivations, targets: vec![], fetched: vec![], saved_seconds: 9.0 });
    for at in 0..count {
        let fails = at % 40 == 7;
        let machine = format!("runner {}", at % 4);
        let begun = u64::from(at) * 100;
        add(begun, Event::BuildStarted { drv_path: drv(at), machine });
        for line in 0..25 {
            let line = format!("cc -O2 -c some/directory/of/sources/file-{line}.c -o file-{line}.o");
            add(begun, Event::LogLine { drv_path: drv(at), line });
        }
        let message = format!("builder for '{}' failed with exit code 1", drv(at));
        let verdict = if fails {
            Verdict::Failed { class: phoenix_model::FailureClass::Build, message }
        } else {
            Verdict::Built
        };
        let settled =
            SettledDerivation { drv_path: drv(at), verdict: verdict.clone(), seconds: Some(0.4), log: None };
        add(begun + 400, Event::DerivationSettled { settled });
        add(begun + 400, Event::TargetSettled { target: TargetId(at), verdict });
    }
    events
}

#[test]
fn two_thousand_derivations_fit_with_nothing_left_out() {
    let page = html(&fixture::fold(&large(2000)));
    assert!(page.len() < PAGE_LIMIT, "{}", page.len());
    for words in ["are not drawn", "in the JSON report"] {
        assert!(!page.contains(words), "{words}");
    }
    assert_eq!(page.matches("role=\"option\"").count(), 2000);
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    let page = html(&fixture::fold(&large(15_000)));
    assert!(page.len() <= PAGE_LIMIT, "{}", page.len());
    let mut said = String::new();
    for words in [
        "shortest builds are not drawn",
        "more failures are in the JSON report",
        "more targets are in the JSON report",
    ] {
        let _ = writeln!(said, "{words}: {}", page.contains(words));
    }
    assert!(!said.contains("false"), "{said}");
}
