//! What holds of every document, whatever the events.

use phoenix_model::{
    Event, FailureClass, Logged, PlannedDerivation, PlannedTarget, SettledDerivation, Severity, Source,
    Stage, Stamp, TargetId, Verdict,
};
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use crate::fixture::{drv, fold, target};
use crate::{
    Detail, Groups, Lines, PAGE_LIMIT, Shown, Style, Summary, end, frame, html, json, junit, markdown,
};

/// Text that people write, and text that is out to do harm.
fn text() -> impl Strategy<Value = String> {
    let harm = prop::sample::select(vec![
        "\u{1b}[2J",
        "\u{1b}]8;;http://x\u{1b}\\link",
        "\u{1b}",
        "\u{9b}31m",
        "\n# a\n",
        "\r",
        "````",
        "|",
        "]]>",
        "</details>",
        "\u{202e}",
        "\u{0}",
        "\u{ffff}",
        "⚠\u{fe0f}",
        "日本語",
        "@all",
    ]);
    prop::collection::vec(prop_oneof![harm.prop_map(str::to_owned), "[a-z .:]{0,12}", any::<String>()], 0..4)
        .prop_map(|parts| parts.concat())
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![0.0..100.0_f64, Just(0.0), Just(-1.0), Just(1e300), Just(f64::NAN), Just(f64::INFINITY)]
}

fn drv_path() -> impl Strategy<Value = phoenix_model::StorePath> {
    let names =
        vec!["a", "lib-1.0", "a-very-long-name-of-a-derivation-that-does-not-fit-anywhere-1.2.3", "z"];
    prop::sample::select(names).prop_map(drv)
}

fn verdict() -> impl Strategy<Value = Verdict> {
    use FailureClass::{Build, HashMismatch, Killed, NonDeterministic, Other, TimedOut};
    let class = prop::sample::select(vec![Build, Killed, TimedOut, HashMismatch, NonDeterministic, Other]);
    prop_oneof![
        Just(Verdict::Built),
        Just(Verdict::Cancelled),
        Just(Verdict::Cached { from: Source::Store }),
        text().prop_map(|url| Verdict::Cached { from: Source::Substituter(url) }),
        (class, text()).prop_map(|(class, message)| Verdict::Failed { class, message }),
        prop::collection::vec(drv_path(), 0..3).prop_map(|by| Verdict::Blocked { by }),
        text().prop_map(|reason| Verdict::Skipped { reason }),
        text().prop_map(|error| Verdict::NotEvaluated { error }),
    ]
}

fn planned() -> impl Strategy<Value = PlannedDerivation> {
    (drv_path(), text(), prop::collection::vec(0_u32..9, 0..4), number(), any::<bool>()).prop_map(
        |(drv_path, system, inputs, estimate, unknown)| PlannedDerivation {
            drv_path,
            system,
            inputs,
            estimate,
            unknown,
            fixed_output: false,
        },
    )
}

fn of_a_target() -> impl Strategy<Value = Event> {
    let id = || (0_u32..5).prop_map(TargetId);
    let found = (0_u32..5, text(), prop::collection::vec(text(), 0..3), any::<bool>()).prop_map(found_target);
    prop_oneof![
        found,
        (id(), verdict()).prop_map(|(target, verdict)| Event::TargetSettled { target, verdict })
    ]
}

fn found_target((id, source, names, is_derivation): (u32, String, Vec<String>, bool)) -> Event {
    let mut target = target(id, "a", is_derivation.then_some("a"));
    target.source = source;
    target.attr_path.0 = names;
    Event::TargetFound { target }
}

fn of_a_derivation() -> impl Strategy<Value = Event> {
    let settled =
        (drv_path(), verdict(), prop::option::of(number()), prop::option::of(text())).prop_map(|parts| {
            let (drv_path, verdict, seconds, log) = parts;
            Event::DerivationSettled { settled: SettledDerivation { drv_path, verdict, seconds, log } }
        });
    prop_oneof![
        (drv_path(), text()).prop_map(|(drv_path, machine)| Event::BuildStarted { drv_path, machine }),
        (drv_path(), text()).prop_map(|(drv_path, phase)| Event::PhaseStarted { drv_path, phase }),
        (drv_path(), text()).prop_map(|(drv_path, line)| Event::LogLine { drv_path, line }),
        drv_path().prop_map(|drv_path| Event::BuildEnded { drv_path }),
        (drv_path(), text()).prop_map(|(path, from)| Event::FetchStarted { path, from }),
        settled,
    ]
}

fn of_the_run() -> impl Strategy<Value = Event> {
    let severities = vec![Severity::Error, Severity::Warning, Severity::Notice, Severity::Detail];
    let plan = (prop::collection::vec(planned(), 0..5), number()).prop_map(|(derivations, saved_seconds)| {
        let targets = vec![PlannedTarget { target: TargetId(0), derivation: 7 }];
        let fetched = vec![(drv("z"), Source::Store)];
        Event::Planned { derivations, targets, fetched, saved_seconds }
    });
    let started = (text(), prop::collection::vec(text(), 0..3)).prop_map(|(nix, installables)| {
        let systems = installables.clone();
        Event::RunStarted { schema: 1, phoenix: nix.clone(), nix, systems, installables }
    });
    prop_oneof![
        plan,
        started,
        prop::sample::select(vec![Stage::Evaluate, Stage::Gate, Stage::Plan, Stage::Build, Stage::Act])
            .prop_map(|stage| Event::StageStarted { stage }),
        (text(), any::<u64>()).prop_map(|(attr, left)| Event::Evaluating { attr, left }),
        (any::<u64>(), any::<u64>()).prop_map(|(done, memory)| Event::EvaluationProgress {
            done,
            failed: 0,
            in_work: 1,
            left: 2,
            memory,
            budget: memory,
        }),
        (text(), text()).prop_map(|(url, problem)| Event::SubstituterFailed { url, problem }),
        (prop::sample::select(severities), text())
            .prop_map(|(severity, text)| Event::Message { severity, text }),
        text().prop_map(|reason| Event::Cancelling { reason }),
        (any::<u8>(), prop::option::of(text()))
            .prop_map(|(exit_code, directory)| Event::RunEnded { exit_code, directory }),
    ]
}

fn stamp() -> impl Strategy<Value = Stamp> {
    prop_oneof![4 => 0_u64..200_000, 1 => any::<u64>()].prop_map(Stamp)
}

/// Events in any order, of anything.
pub(crate) fn events() -> impl Strategy<Value = Vec<Logged>> {
    let event = prop_oneof![2 => of_a_target(), 3 => of_a_derivation(), 1 => of_the_run()];
    prop::collection::vec((stamp(), event).prop_map(|(at, event)| Logged { at, event }), 0..60)
}

/// Whether a terminal shows the line as it is, on one line, in the direction of writing.
fn is_tame(line: &str, style: Style) -> bool {
    let plain = if style.colour { without_our_colours(line) } else { line.to_owned() };
    !plain.chars().any(|char| char.is_control() || ('\u{202a}'..='\u{202e}').contains(&char))
}

/// The line without what [`Style`] paints; what others wrote cannot have such a sequence, or the
/// uncoloured line would have it too.
fn without_our_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}

/// Whether XML 1.0 allows the character.
fn is_xml(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// The lines of Markdown that are in no fence; `None` when the last one is not closed.
fn outside_fences(page: &str) -> Option<Vec<&str>> {
    let mut lines = Vec::new();
    let mut fence = None;
    for line in page.lines() {
        match fence {
            Some(open) if line == open => fence = None,
            Some(_) => {}
            None => match line.strip_suffix("text") {
                Some(open) if open.len() > 2 && open.bytes().all(|byte| byte == b'`') => fence = Some(open),
                _ => lines.push(line),
            },
        }
    }
    fence.is_none().then_some(lines)
}

const STYLES: [Style; 2] = [Style { colour: false }, Style { colour: true }];

proptest! {
    #[test]
    fn counts_add_up(events in events()) {
        let summary = fold(&events);
        let settled: usize = summary.target_counts().values().sum();
        prop_assert_eq!(settled + summary.without_verdict(), summary.targets.len());
        let progress = summary.progress();
        prop_assert_eq!(
            progress.done + progress.failed + progress.stopped + progress.running + progress.waiting,
            summary.derivations.len()
        );
        let report = json(&summary);
        prop_assert_eq!(report.summary.targets.values().sum::<usize>() + report.summary.without_verdict, report.targets.len());
        prop_assert!(summary.derivations.iter().all(|state| state.tail.len() <= crate::TAIL_LINES));
    }

    #[test]
    fn a_red_verdict_is_never_lost(events in events()) {
        let summary = fold(&events);
        for logged in &events {
            if let Event::TargetSettled { target, verdict } = &logged.event
                && verdict.is_red()
                && let Some(state) = summary.targets.get(target)
            {
                prop_assert!(state.verdict.as_ref().is_some_and(Verdict::is_red));
                prop_assert!(!summary.is_green());
            }
        }
    }

    #[test]
    fn a_frame_keeps_to_its_size_and_is_tame(
        events in events(),
        now in stamp(),
        width in 0_usize..120,
        height in 0_usize..8,
    ) {
        let summary = fold(&events);
        let plain = frame(&summary, now, width, height, STYLES[0]);
        prop_assert!(plain.len() <= height);
        for line in &plain {
            prop_assert!(line.width() <= width, "{line:?}");
            prop_assert!(is_tame(line, STYLES[0]), "{line:?}");
        }
        let painted: Vec<_> = frame(&summary, now, width, height, STYLES[1]).iter().map(|line| without_our_colours(line)).collect();
        prop_assert_eq!(painted, plain);
    }

    #[test]
    fn every_line_is_one_line_and_tame(events in events(), print_logs in any::<bool>(), now in stamp()) {
        for style in STYLES {
            for detail in [Detail::Quiet, Detail::Normal, Detail::Verbose] {
                let mut summary = Summary::default();
                let mut lines = Lines::new(detail, print_logs, style);
                let mut groups = Groups::new(lines.clone());
                let mut open = false;
                for logged in &events {
                    summary.apply(logged);
                    for shown in groups.shown(&summary, logged) {
                        match shown {
                            Shown::Line(line) => prop_assert!(is_tame(&line, style), "{line:?}"),
                            Shown::Begin(line) => {
                                prop_assert!(is_tame(&line, style) && !open, "{line:?}");
                                open = true;
                            }
                            Shown::End => prop_assert!(std::mem::take(&mut open)),
                        }
                    }
                    prop_assert!(!open, "a group ends with what begins it");
                    for line in lines.lines(&summary, logged) {
                        prop_assert!(is_tame(&line, style), "{line:?}");
                    }
                }
                if let Some(line) = lines.heartbeat(&summary, now) {
                    prop_assert!(is_tame(&line, style), "{line:?}");
                }
            }
        }
    }

    #[test]
    fn the_last_page_is_tame(events in events()) {
        let summary = fold(&events);
        for style in STYLES {
            for line in end(&summary, style).lines() {
                prop_assert!(is_tame(line, style), "{line:?}");
            }
        }
    }

    #[test]
    fn junit_is_well_formed_and_has_a_case_a_target(events in events()) {
        let summary = fold(&events);
        let xml = junit(&summary).unwrap();
        prop_assert!(xml.chars().all(is_xml));
        let report = quick_junit::Report::deserialize_from_str(&xml).unwrap();
        prop_assert_eq!(report.tests, summary.targets.len());
        let red = summary.targets.values().filter(|state| state.verdict.as_ref().is_none_or(Verdict::is_red));
        prop_assert_eq!(report.failures, red.count());
    }

    #[test]
    fn markdown_keeps_to_its_limit_and_nothing_breaks_out(events in events(), limit in 0_usize..5_000) {
        let summary = fold(&events);
        prop_assert!(markdown(&summary, limit).len() <= limit);
        let page = markdown(&summary, usize::MAX);
        let outside = outside_fences(&page);
        prop_assert!(outside.is_some(), "a fence is open at the end: {}", page);
        for line in outside.unwrap_or_default() {
            let ours = ["<details><summary>", "</summary>", "</details>", "<code>", "</code>"];
            let rest = ours.iter().fold(line.to_owned(), |line, tag| line.replace(tag, ""));
            prop_assert!(!rest.contains(['<', '>', '@']) && is_tame(&rest, STYLES[0]), "{line:?}");
            let bars = line.replace("\\|", "").matches('|').count();
            prop_assert!(bars == 4 || !line.starts_with("| "), "{line:?}");
            prop_assert!(!line.starts_with("# "), "{line:?}");
        }
    }

    #[test]
    fn a_page_is_whole_and_has_no_more_scripts_than_ours(events in events()) {
        let page = html(&fold(&events));
        prop_assert!(page.len() <= PAGE_LIMIT && page.trim_end().ends_with("</html>"));
        prop_assert_eq!(page.to_lowercase().matches("</script").count(), 2);
        let is_tame = !page.contains("<!--") && !page.contains(['\u{202e}', '\u{0}']);
        prop_assert!(is_tame);
        let (_, rest) = page.split_once("id=\"data\">").unwrap_or_default();
        let (data, _) = rest.split_once("</script>").unwrap_or_default();
        prop_assert!(serde_json::from_str::<serde_json::Value>(data).is_ok_and(|data| data.is_object()), "{data}");
    }

    #[test]
    fn json_can_be_written_and_read(events in events()) {
        let written = serde_json::to_string(&json(&fold(&events))).unwrap();
        prop_assert!(serde_json::from_str::<serde_json::Value>(&written).is_ok());
    }
}
