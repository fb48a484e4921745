//! The report as GitHub-flavoured Markdown, for job summaries.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use phoenix_model::{Severity, VerdictKind};

use crate::action_state::failed_actions;
use crate::clean::{clean_log, one_line};
use crate::errors::evaluation_errors;
use crate::gantt::gantt;
use crate::markup::{code, details, escape};
use crate::roots::{alike, failed_alone, names, plural};
use crate::table::{count_words, groups, particulars};
use crate::timeline::Timeline;
use crate::{Root, Summary, human_seconds, root_failures};

/// How many bytes a job summary may have, with a margin: GitHub takes 1 MiB a step.
pub const MARKDOWN_LIMIT: usize = 1_000_000;

/// How many names of what a failure stopped are shown.
const BLOCKED_NAMES: usize = 10;

/// How much of each part is shown.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    targets: usize,
    lines: usize,
    failures: usize,
    bars: usize,
}

/// From everything to next to nothing: first fewer targets, then shorter logs, then fewer failures.
const BOUNDS: [Bounds; 7] = [
    Bounds { targets: usize::MAX, lines: 50, failures: usize::MAX, bars: 100 },
    Bounds { targets: 1000, lines: 50, failures: usize::MAX, bars: 100 },
    Bounds { targets: 200, lines: 25, failures: usize::MAX, bars: 100 },
    Bounds { targets: 200, lines: 15, failures: 100, bars: 60 },
    Bounds { targets: 50, lines: 5, failures: 20, bars: 30 },
    Bounds { targets: 0, lines: 2, failures: 5, bars: 0 },
    Bounds { targets: 0, lines: 0, failures: 0, bars: 0 },
];

/// The report in at most `limit` bytes; what does not fit is left out, the longest lists first, and said.
#[must_use]
pub fn markdown(summary: &Summary, limit: usize) -> String {
    let mut shortest = String::new();
    for bounds in BOUNDS {
        shortest = page(summary, bounds);
        if shortest.len() <= limit {
            return shortest;
        }
    }
    // Not even the figures fit: what is said first is said.
    let mut end = limit.min(shortest.len());
    while !shortest.is_char_boundary(end) {
        end -= 1;
    }
    shortest.truncate(end);
    shortest
}

fn page(summary: &Summary, bounds: Bounds) -> String {
    let mut page = String::new();
    let timeline = Timeline::of(summary);
    figures(&mut page, summary, &timeline);
    let roots = root_failures(summary);
    let groups = alike(&roots);
    for same in groups.iter().take(bounds.failures) {
        match same.as_slice() {
            [root] => failure(&mut page, summary, root, bounds.lines),
            [first, ..] => {
                let (names, reason) = (escape(&names(same)), escape(&first.reason()));
                let _ = writeln!(page, "### {names}\n\n{}: {reason}\n", first.class);
            }
            [] => {}
        }
    }
    left_out(&mut page, groups.len(), bounds.failures, "failure");
    let alone = failed_alone(summary);
    for (state, class, message) in alone.iter().take(bounds.failures) {
        let name = escape(&summary.shown(&state.target));
        let _ = writeln!(page, "### {name} failed\n\n{class}: {}\n", escape(&one_line(message)));
    }
    left_out(&mut page, alone.len(), bounds.failures, "failure");
    errors(&mut page, summary, bounds);
    actions(&mut page, summary, bounds);
    targets(&mut page, summary, bounds.targets);
    gantt(&mut page, summary, &timeline, bounds.bars);
    remarks(&mut page, summary, bounds.failures);
    page
}

/// The time of runners, in minutes as they are counted.
fn runner_minutes(seconds: f64) -> String {
    match (seconds / 60.0).round() {
        minutes if minutes < 1.0 => "less than a runner minute".to_owned(),
        1.0 => "1 runner minute".to_owned(),
        minutes => format!("{minutes:.0} runner minutes"),
    }
}

fn figures(page: &mut String, summary: &Summary, timeline: &Timeline) {
    let mark = if summary.is_green() { "✅" } else { "❌" };
    let count = summary.targets.len();
    let parts: Vec<String> = count_words(summary).into_iter().map(|(_, words)| words).collect();
    let parts = if parts.is_empty() { "nothing to do".to_owned() } else { parts.join(", ") };
    let _ = writeln!(page, "## {mark} {count} {}: {parts}\n", plural(count, "target"));
    let (targets, derivations) = (summary.target_counts(), summary.derivation_counts());
    let built = derivations.get(&VerdictKind::Built).copied().unwrap_or(0);
    let _ =
        write!(page, "{} · {built} {} built", human_seconds(summary.seconds()), plural(built, "derivation"));
    if timeline.rows.len() > 1 {
        let (runners, minutes) = (timeline.rows.len(), runner_minutes(timeline.runner_seconds()));
        let building = human_seconds(timeline.build_seconds());
        let _ = write!(page, ": {building} on {runners} runners, in {minutes}");
    }
    if summary.saved_seconds >= 0.05 {
        let _ = write!(page, " · {} of building saved", human_seconds(summary.saved_seconds));
    }
    if let Some(words) = crate::action_state::count_words(summary) {
        let _ = write!(page, " · {words}");
    }
    page.push_str("\n\n");
    if targets.is_empty() {
        return;
    }
    page.push_str("| verdict | targets | derivations |\n| --- | ---: | ---: |\n");
    let unsettled = summary.derivations.iter().filter(|state| state.verdict.is_none()).count();
    let rows = VerdictKind::ALL.map(|kind| {
        let of = |counts: &BTreeMap<_, _>| counts.get(&kind).copied().unwrap_or(0);
        (kind.to_string(), of(&targets), of(&derivations))
    });
    let without = ("no verdict".to_owned(), summary.without_verdict(), unsettled);
    for (words, targets, derivations) in std::iter::once(without).chain(rows) {
        if targets + derivations > 0 {
            let _ = writeln!(page, "| {words} | {targets} | {derivations} |");
        }
    }
    page.push('\n');
}

fn failure(page: &mut String, summary: &Summary, root: &Root<'_>, lines: usize) {
    let state = root.derivation;
    let name = state.planned.drv_path.human_name();
    let time = state.after();
    let _ =
        writeln!(page, "### {} failed{time}\n\n{}: {}\n", escape(name), root.class, escape(&root.reason()));
    let tail: Vec<_> = state.last_lines(lines).map(|line| clean_log(line)).collect();
    if !tail.is_empty() {
        details(page, "Last lines of the log", tail.iter().map(AsRef::as_ref));
    }
    if let Some(blocked) = root.blocked_line(summary, BLOCKED_NAMES) {
        let _ = writeln!(page, "Blocked: {}\n", escape(&blocked));
    }
}

fn errors(page: &mut String, summary: &Summary, bounds: Bounds) {
    let errors = evaluation_errors(summary);
    for error in errors.iter().take(bounds.failures) {
        let _ = writeln!(page, "### {} did not evaluate\n", escape(&error.names(summary, BLOCKED_NAMES)));
        let count = error.text.lines().count();
        let most = bounds.lines.max(1);
        let more = format!("… {} more lines in the JSON report", count.saturating_sub(most));
        let lines = error.text.lines().take(most).chain((count > most).then_some(more.as_str()));
        details(page, error.text.lines().next().unwrap_or("(no message)"), lines);
    }
    left_out(page, errors.len(), bounds.failures, "evaluation error");
}

fn actions(page: &mut String, summary: &Summary, bounds: Bounds) {
    for state in failed_actions(summary).take(bounds.failures) {
        let after = state.after();
        let name = escape(&one_line(&state.action.name));
        let _ = writeln!(page, "### {name} failed{after}\n\n{}\n", escape(&state.particulars()));
        let tail: Vec<_> = state.last_lines(bounds.lines).map(|line| clean_log(line)).collect();
        if !tail.is_empty() {
            details(page, "Last lines of its log", tail.iter().map(AsRef::as_ref));
        }
    }
    let most = bounds.targets.max(bounds.failures);
    if !summary.actions.is_empty() && most > 0 {
        page.push_str("| | action | |\n| --- | --- | --- |\n");
        for state in summary.actions.values().take(most) {
            let (name, more) = (code(&state.action.name), escape(&state.particulars()));
            let _ = writeln!(page, "| {} | {name} | {more} |", state.word());
        }
        page.push('\n');
    }
    left_out(page, summary.actions.len(), most, "action");
}

fn targets(page: &mut String, summary: &Summary, most: usize) {
    let groups = groups(summary);
    let states: Vec<_> =
        groups.iter().flat_map(|(kind, states)| states.iter().map(move |state| (kind, state))).collect();
    if !states.is_empty() && most > 0 {
        page.push_str("| verdict | target | |\n| --- | --- | --- |\n");
        // What one failure blocks is one row, once it is many.
        let mut blocked: BTreeMap<String, usize> = BTreeMap::new();
        for (kind, state) in states.iter().take(most) {
            let word = kind.map_or_else(|| "no verdict".to_owned(), |kind| kind.to_string());
            let more = escape(&one_line(&particulars(summary, state)));
            if **kind == Some(VerdictKind::Blocked) {
                let count = blocked.entry(more.clone()).or_default();
                *count += 1;
                if *count > BLOCKED_NAMES {
                    continue;
                }
            }
            let name = code(&summary.shown(&state.target));
            let _ = writeln!(page, "| {word} | {name} | {more} |");
        }
        for (by, count) in blocked.into_iter().filter(|(_, count)| *count > BLOCKED_NAMES) {
            let rest = count - BLOCKED_NAMES;
            let _ = writeln!(page, "| blocked | … {rest} more {} | {by} |", plural(rest, "target"));
        }
        page.push('\n');
    }
    left_out(page, states.len(), most, "target");
}

/// What belongs to no target and no derivation.
fn remarks(page: &mut String, summary: &Summary, most: usize) {
    let errors = summary.messages.iter().filter(|(severity, _)| *severity == Severity::Error);
    for (_, text) in errors.take(most) {
        let _ = writeln!(page, "- error: {}", escape(&one_line(text)));
    }
    for (url, problem) in summary.substituters_failed.iter().take(most) {
        let problem = escape(&one_line(problem));
        let _ = writeln!(page, "- substituter {}: {problem}; its answers are unknown", code(url));
    }
    if let Some(reason) = &summary.cancelled {
        let _ = writeln!(
            page,
            "- the run was stopped ({}); what was built stays built",
            escape(&one_line(reason))
        );
    }
    if summary.exit_code.is_none() {
        page.push_str("- the events end before the run does\n");
    }
}

fn left_out(page: &mut String, count: usize, most: usize, noun: &str) {
    if count > most {
        let rest = count - most;
        let _ = writeln!(page, "… {rest} more {} in the JSON report.\n", plural(rest, noun));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use phoenix_model::{Event, Logged, Stamp, TargetId, Verdict};

    #[test]
    fn minutes_are_counted() {
        let minutes = [5.0, 61.0, 600.0].map(runner_minutes);
        assert_eq!(minutes, ["less than a runner minute", "1 runner minute", "10 runner minutes"]);
    }

    #[test]
    fn the_whole_page() {
        let page = markdown(&fixture::summary(), MARKDOWN_LIMIT);
        let (head, rest) = page.split_once("line 7\n").unwrap();
        insta::assert_snapshot!(head, @r"
        ## ❌ 8 targets: 1 failed, 1 not evaluated, 1 blocked, 1 cancelled, 1 built, 2 cached, 1 skipped

        5.3s · 1 derivation built · 1m15s of building saved

        | verdict | targets | derivations |
        | --- | ---: | ---: |
        | failed | 1 | 1 |
        | not evaluated | 1 | 0 |
        | blocked | 1 | 2 |
        | cancelled | 1 | 1 |
        | built | 1 | 1 |
        | cached | 2 | 0 |
        | skipped | 1 | 0 |

        ### lib-1.0 failed after 2.0s

        build failed: builder failed with exit code 1

        <details><summary>Last lines of the log</summary>

        ```text
        ");
        insta::assert_snapshot!(rest.split_once("line 30\n").unwrap().1, @r#"
        FAILED 2 + 2 = 5
        ```

        </details>

        Blocked: checks.x86\_64-linux.uses-lib and 1 derivation on the way

        ### packages.x86\_64-linux.broken did not evaluate

        <details><summary>boom</summary>

        ```text
        boom

        at /nix/store/x/flake.nix:3:4:

          3| throw "boom"
        ```

        </details>

        | verdict | target | |
        | --- | --- | --- |
        | failed | <code>packages.x86\_64-linux.lib</code> | 2.0s |
        | not evaluated | <code>packages.x86\_64-linux.broken</code> |  |
        | blocked | <code>checks.x86\_64-linux.uses-lib</code> | by lib-1.0 |
        | cancelled | <code>packages.x86\_64-linux.late</code> |  |
        | built | <code>packages.x86\_64-linux.hello</code> | 4.2s |
        | cached | <code>packages.x86\_64-linux.far</code> | in https://cache.example |
        | cached | <code>packages.x86\_64-linux.old</code> | in the store |
        | skipped | <code>nixosConfigurations.arm.config.system.build.toplevel</code> | it is for aarch64-linux, and this run is for x86\_64-linux |

        <details><summary>When, and on which runner</summary>

        ```mermaid
        gantt
            dateFormat YYYY-MM-DD HH:mm:ss.SSS
            axisFormat %H:%M:%S
            section this machine
            hello-2.12 :done, d0, 1970-01-01 00:00:00.100, 1970-01-01 00:00:04.300
            lib-1.0 :crit, d1, 1970-01-01 00:00:00.100, 1970-01-01 00:00:02.100
        ```

        </details>

        - substituter <code>https://down.example</code>: it answers 503 Service Unavailable; its answers are unknown
        - the run was stopped (SIGINT); what was built stays built
        "#);
    }

    #[test]
    fn what_one_failure_blocks_is_a_row_with_a_count() {
        let mut events = fixture::events();
        let uses_lib = fixture::summary().targets.values().find_map(|state| match &state.verdict {
            Some(verdict @ Verdict::Blocked { .. }) => Some(verdict.clone()),
            _ => None,
        });
        for id in 100..300 {
            let target = fixture::target(id, &format!("checks.t{id}"), Some("uses-lib"));
            let settled = Event::TargetSettled { target: TargetId(id), verdict: uses_lib.clone().unwrap() };
            events
                .extend([Event::TargetFound { target }, settled].map(|event| Logged { at: Stamp(0), event }));
        }
        let page = markdown(&fixture::fold(&events), MARKDOWN_LIMIT);
        assert_eq!(page.lines().filter(|line| line.starts_with("| blocked | <code>")).count(), BLOCKED_NAMES);
        assert!(page.contains("| blocked | … 191 more targets | by lib-1.0 |"), "{page}");
    }

    #[test]
    fn a_hostile_flake_cannot_break_out() {
        let mut events = fixture::events();
        let mut target = fixture::target(50, "a", None);
        target.attr_path.0 = vec!["x|`<script>\n## owned @everyone".into()];
        let verdict = Verdict::NotEvaluated { error: "````\n</details><script>".into() };
        for event in [Event::TargetFound { target }, Event::TargetSettled { target: TargetId(50), verdict }] {
            events.push(Logged { at: Stamp(0), event });
        }
        let page = markdown(&fixture::fold(&events), MARKDOWN_LIMIT);
        assert!(!page.lines().any(|line| line.starts_with("## owned")));
        assert!(!page.contains("@everyone") && !page.contains("<code>x|"), "{page}");
        assert!(
            page.contains("`````text\n````\n</details><script>\n`````"),
            "the fence is longer than what is in it"
        );
    }

    #[test]
    fn a_limit_is_kept_whatever_the_size() {
        let mut events = fixture::events();
        for id in 100..3000 {
            let found = Event::TargetFound {
                target: fixture::target(id, &format!("checks.t{id}"), Some("uses-lib")),
            };
            let settled = Event::TargetSettled { target: TargetId(id), verdict: Verdict::Built };
            events.extend([found, settled].map(|event| Logged { at: Stamp(1_700_000_005_000), event }));
        }
        let summary = fixture::fold(&events);
        for limit in [200_000, 60_000, 10_000, 2_000, 100, 0] {
            let page = markdown(&summary, limit);
            assert!(page.len() <= limit, "{limit}");
        }
        assert!(markdown(&summary, 60_000).contains("more targets in the JSON report"));
        let short = markdown(&summary, 60_000);
        assert!(short.contains("### lib-1.0 failed") && short.contains("did not evaluate"), "failures stay");
    }
}
