//! The last page on a terminal: what failed and why, what that stopped, and how everything ended.

use std::fmt::Write as _;

use phoenix_model::{Severity, VerdictKind};

use crate::action_state::{count_words, kind_of};
use crate::clean::{clean_log, clip, one_line};
use crate::errors::evaluation_errors;
use crate::roots::{alike as alike_roots, failed_alone, names, plural};
use crate::table::{self, particulars};
use crate::{Root, Style, Summary, TargetState, clean, human_seconds, root_failures};

/// How many names of what a failure stopped are shown.
const BLOCKED_NAMES: usize = 5;
/// How many different evaluation errors are shown.
const ERRORS: usize = 20;
/// How many lines of an evaluation error are shown.
const ERROR_LINES: usize = 15;
/// How many characters of such a line are shown.
const LINE_LENGTH: usize = 500;
/// How many targets of a verdict are listed.
const LISTED: usize = 30;
/// The widest column of names; longer ones stand out.
const NAME_WIDTH: usize = 60;

/// The last page. Its lines are as long as they are: a terminal wraps them, and `grep` finds them whole.
#[must_use]
pub fn end(summary: &Summary, style: Style) -> String {
    let mut page = String::new();
    for same in alike_roots(&root_failures(summary)) {
        match same.as_slice() {
            [root] => failure(&mut page, summary, root, style),
            [first, ..] => {
                let head = failed(style, &names(&same), "");
                let _ = writeln!(page, "{head} ({}): {}\n", first.class, first.reason());
            }
            [] => {}
        }
    }
    let alone = failed_alone(summary);
    for (state, class, message) in alone.iter().take(LISTED) {
        let head = failed(style, &clean(&summary.shown(&state.target)), "");
        let _ = writeln!(page, "{head} ({class}): {}\n", one_line(message));
    }
    more(&mut page, alone.len(), LISTED, "failure");
    not_evaluated(&mut page, summary, style);
    failed_actions(&mut page, summary, style);
    targets(&mut page, summary, style);
    actions(&mut page, summary, style);
    totals(&mut page, summary, style);
    for (severity, text) in &summary.messages {
        if *severity == Severity::Error {
            let mut lines = text.lines().map(clean);
            let _ = writeln!(page, "error: {}", lines.next().unwrap_or_default());
            for line in lines {
                let _ = writeln!(page, "  {line}");
            }
        }
    }
    for (url, problem) in &summary.substituters_failed {
        let _ = writeln!(page, "substituter {}: {}; its answers are unknown", clean(url), one_line(problem));
    }
    if let Some(reason) = &summary.cancelled {
        let _ = writeln!(page, "the run was stopped ({}); what was built stays built", one_line(reason));
    }
    if summary.exit_code.is_none() {
        page.push_str("the events end before the run does\n");
    }
    if let Some(directory) = &summary.directory {
        let _ = writeln!(page, "{}", style.dim(&format!("logs and reports: {}", clean(directory))));
    }
    page
}

fn failed(style: Style, name: &str, after: &str) -> String {
    let mark = style.mark(VerdictKind::Failed);
    style.verdict(VerdictKind::Failed, &format!("{mark}FAILED {name}{after}"))
}

fn failure(page: &mut String, summary: &Summary, root: &Root<'_>, style: Style) {
    let state = root.derivation;
    let drv_path = &state.planned.drv_path;
    let head = failed(style, drv_path.human_name(), &state.after());
    let _ = writeln!(page, "{head} ({}): {}", root.class, root.reason());
    for line in &state.tail {
        let line = clean_log(line);
        let _ = writeln!(page, "  {} {}", style.dim("|"), clip(&line, LINE_LENGTH));
    }
    if let Some(log) = &state.log {
        let _ = writeln!(page, "  whole log: less {}", shell_word(&clean(log)));
    }
    if let Some(blocked) = root.blocked_line(summary, BLOCKED_NAMES) {
        let _ = writeln!(page, "  blocked: {blocked}");
    }
    page.push('\n');
}

fn failed_actions(page: &mut String, summary: &Summary, style: Style) {
    for state in crate::action_state::failed_actions(summary) {
        let head = failed(style, &clean(&state.action.name), &state.after());
        let _ = writeln!(page, "{head}: {}", state.particulars());
        for line in &state.tail {
            let line = clean_log(line);
            let _ = writeln!(page, "  {} {}", style.dim("|"), clip(&line, LINE_LENGTH));
        }
        if let Some(log) = &state.log {
            let _ = writeln!(page, "  whole log: less {}", shell_word(&clean(log)));
        }
        page.push('\n');
    }
}

/// The actions, in their order.
fn actions(page: &mut String, summary: &Summary, style: Style) {
    for state in summary.actions.values() {
        let kind = kind_of(state.verdict.as_ref());
        let word = style.verdict(kind, &format!("{}{:<13}", style.mark(kind), state.word()));
        let more = state.particulars();
        let gap = if more.is_empty() { "" } else { "  " };
        let _ = writeln!(page, "{word} {}{gap}{more}", clean(&state.action.name));
    }
    if !summary.actions.is_empty() {
        page.push('\n');
    }
}

/// A text as one word of a shell.
fn shell_word(text: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+=:,@%".contains(char);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn not_evaluated(page: &mut String, summary: &Summary, style: Style) {
    let errors = evaluation_errors(summary);
    for error in errors.iter().take(ERRORS) {
        let mark = style.mark(VerdictKind::NotEvaluated);
        let names = error.names(summary, BLOCKED_NAMES);
        let head = style.verdict(VerdictKind::NotEvaluated, &format!("{mark}NOT EVALUATED {names}"));
        let _ = writeln!(page, "{head}");
        for line in error.text.lines().take(ERROR_LINES) {
            let line = clean(line);
            let line = clip(&line, LINE_LENGTH);
            let _ = if line.trim().is_empty() { writeln!(page) } else { writeln!(page, "  {line}") };
        }
        let more = error.text.lines().count().saturating_sub(ERROR_LINES);
        if more > 0 {
            let _ = writeln!(page, "  … {more} more {} in the report", plural(more, "line"));
        }
        page.push('\n');
    }
    more(page, errors.len(), ERRORS, "evaluation error");
}

/// Says how many were left out, if any.
fn more(page: &mut String, count: usize, most: usize, noun: &str) {
    let more = count.saturating_sub(most);
    if more > 0 {
        let _ = writeln!(page, "… {more} more {} in the report\n", plural(more, noun));
    }
}

/// The targets, worst first: verdict, name, and what else there is to say, in columns.
fn targets(page: &mut String, summary: &Summary, style: Style) {
    let groups = table::groups(summary);
    let mut rows = Vec::new();
    for (kind, states) in &groups {
        if matches!(kind, Some(VerdictKind::Blocked | VerdictKind::Cancelled)) {
            rows.extend(alike(summary, states).into_iter().map(|(name, more)| (*kind, name, more)));
            continue;
        }
        let most = states.len().min(LISTED);
        for state in &states[..most] {
            let name = clean(&summary.shown(&state.target)).into_owned();
            rows.push((*kind, name, one_line(&particulars(summary, state))));
        }
        if states.len() > most {
            rows.push((*kind, format!("… and {} more", states.len() - most), String::new()));
        }
    }
    let widths = rows.iter().filter(|row| !row.2.is_empty()).map(|row| table::width(&row.1));
    let width = widths.filter(|width| *width <= NAME_WIDTH).max().unwrap_or(0);
    for (kind, name, more) in &rows {
        let word = format!("{:<13}", kind.map_or_else(|| "NO VERDICT".to_owned(), |kind| kind.to_string()));
        let kind = kind.unwrap_or(VerdictKind::Failed);
        let word = style.verdict(kind, &format!("{}{word}", style.mark(kind)));
        let gap = if more.is_empty() { 0 } else { width.saturating_sub(table::width(name)) + 2 };
        let _ = writeln!(page, "{word} {name}{}{more}", " ".repeat(gap));
    }
    if !rows.is_empty() {
        page.push('\n');
    }
}

/// Names and particulars of targets that ended for a reason outside of them: many with the same reason are
/// a line with a count, which says as much as two hundred.
fn alike(summary: &Summary, states: &[&TargetState]) -> Vec<(String, String)> {
    let mut by_reason: Vec<(String, Vec<&TargetState>)> = Vec::new();
    for state in states {
        let reason = one_line(&particulars(summary, state));
        match by_reason.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, same)) => same.push(state),
            None => by_reason.push((reason, vec![state])),
        }
    }
    let mut rows = Vec::new();
    let count = by_reason.len();
    for (reason, same) in by_reason.into_iter().take(LISTED) {
        if same.len() > BLOCKED_NAMES {
            rows.push((format!("{} targets", same.len()), reason));
        } else {
            let names = same.iter().map(|state| clean(&summary.shown(&state.target)).into_owned());
            rows.extend(names.map(|name| (name, reason.clone())));
        }
    }
    if count > LISTED {
        rows.push((format!("… for {} more reasons", count - LISTED), String::new()));
    }
    rows
}

/// One line: how many targets ended in which way, in what time, and what was spared.
fn totals(page: &mut String, summary: &Summary, style: Style) {
    let count = summary.targets.len();
    let head = style.bold(&format!("{count} {}", plural(count, "target")));
    let parts = table::count_words(summary).into_iter();
    let parts: Vec<String> =
        parts.map(|(kind, words)| style.verdict(kind.unwrap_or(VerdictKind::Failed), &words)).collect();
    let parts = if parts.is_empty() { "nothing to do".to_owned() } else { parts.join(", ") };
    let _ = write!(page, "{head}: {parts} in {}", human_seconds(summary.seconds()));
    let derivations = summary.derivation_counts();
    let of = |kind| derivations.get(&kind).copied().unwrap_or(0);
    let (built, failed) = (of(VerdictKind::Built), of(VerdictKind::Failed));
    // Failures that are no targets are told: they are why the targets are blocked.
    let beside = failed > summary.target_counts().get(&VerdictKind::Failed).copied().unwrap_or(0);
    match (built > 0, beside) {
        (true, true) => {
            let _ = write!(page, "; {built} {} built, {failed} failed", plural(built, "derivation"));
        }
        (true, false) => {
            let _ = write!(page, "; {built} {} built", plural(built, "derivation"));
        }
        (false, true) => {
            let _ = write!(page, "; {failed} {} failed", plural(failed, "derivation"));
        }
        (false, false) => {}
    }
    if summary.saved_seconds >= 0.05 {
        let _ = write!(page, "; {} of building saved", human_seconds(summary.saved_seconds));
    }
    if let Some(words) = count_words(summary) {
        let _ = write!(page, "; {words}");
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use phoenix_model::{Event, Logged, Stamp, TargetId, Verdict};

    #[test]
    fn the_whole_page() {
        let page = end(&fixture::summary(), Style::default());
        let (head, tail) = page.split_once("  | line 7\n").unwrap();
        insta::assert_snapshot!(head, @"FAILED lib-1.0 after 2.0s (build failed): builder failed with exit code 1");
        insta::assert_snapshot!(tail.split_once("  | line 30\n").unwrap().1, @r#"
          | FAILED 2 + 2 = 5
          whole log: less /runs/1/logs/lib-1.0.log
          blocked: checks.x86_64-linux.uses-lib and 1 derivation on the way

        NOT EVALUATED packages.x86_64-linux.broken
          boom

          at /nix/store/x/flake.nix:3:4:

            3| throw "boom"

        failed        packages.x86_64-linux.lib                             2.0s
        not evaluated packages.x86_64-linux.broken
        blocked       checks.x86_64-linux.uses-lib                          by lib-1.0
        cancelled     packages.x86_64-linux.late
        built         packages.x86_64-linux.hello                           4.2s
        cached        packages.x86_64-linux.far                             in https://cache.example
        cached        packages.x86_64-linux.old                             in the store
        skipped       nixosConfigurations.arm.config.system.build.toplevel  it is for aarch64-linux, and this run is for x86_64-linux

        8 targets: 1 failed, 1 not evaluated, 1 blocked, 1 cancelled, 1 built, 2 cached, 1 skipped in 5.3s; 1 derivation built; 1m15s of building saved
        substituter https://down.example: it answers 503 Service Unavailable; its answers are unknown
        the run was stopped (SIGINT); what was built stays built
        logs and reports: /runs/1
        "#);
    }

    #[test]
    fn two_hundred_blocked_targets_are_a_line_with_a_count() {
        let mut events = fixture::events();
        for id in 100..300 {
            let attr = format!("checks.x86_64-linux.t{id}");
            let found = Event::TargetFound { target: fixture::target(id, &attr, Some("uses-lib")) };
            let verdict = Verdict::Blocked { by: vec![fixture::drv("lib-1.0")] };
            let settled = Event::TargetSettled { target: TargetId(id), verdict };
            events.extend([found, settled].map(|event| Logged { at: Stamp(1_700_000_005_000), event }));
        }
        let page = end(&fixture::fold(&events), Style::default());
        assert!(page.contains("t103, 196 more targets and 1 derivation on the way"), "{page}");
        assert!(page.contains("\nblocked       201 targets "), "{page}");
        assert!(page.lines().filter(|line| line.contains("checks.x86_64-linux.t")).count() < 12, "{page}");
    }

    #[test]
    fn a_run_with_nothing_to_do() {
        let events =
            [Event::RunEnded { exit_code: 0, directory: None }].map(|event| Logged { at: Stamp(0), event });
        assert_eq!(end(&fixture::fold(&events), Style::default()), "0 targets: nothing to do in 0.0s\n");
    }

    #[test]
    fn a_cut_stream_says_so_and_what_has_no_verdict_is_listed() {
        let events = fixture::events();
        let page = end(&fixture::fold(&events[..events.len() - 8]), Style::default());
        assert!(page.contains("NO VERDICT    packages.x86_64-linux.late"), "{page}");
        assert!(page.contains("the events end before the run does"));
    }

    #[test]
    fn every_target_is_counted_with_a_verdict_or_without() {
        let events = fixture::events();
        let page = end(&fixture::fold(&events[..events.len() - 3]), Style::default());
        assert!(page.contains("8 targets: 1 without a verdict, 1 failed, 1 not evaluated"), "{page}");
    }

    #[test]
    fn one_error_of_many_targets_is_told_once() {
        let mut events = fixture::events();
        for id in 100..300 {
            let error = (1..=20).map(|number| format!("line {number}")).collect::<Vec<_>>().join("\n");
            let found = Event::TargetFound { target: fixture::target(id, &format!("t{id}"), None) };
            let verdict = Verdict::NotEvaluated { error };
            let settled = Event::TargetSettled { target: TargetId(id), verdict };
            events.extend([found, settled].map(|event| Logged { at: Stamp(1_700_000_005_000), event }));
        }
        let page = end(&fixture::fold(&events), Style::default());
        assert!(
            page.contains("NOT EVALUATED t100, t101, t102, t103, t104 and 195 more targets\n  line 1\n"),
            "{page}"
        );
        assert!(page.contains("  line 15\n  … 5 more lines in the report\n"), "{page}");
        assert_eq!(page.matches("\n  line 15\n").count(), 1);
    }

    #[test]
    fn what_failed_without_a_build_has_its_words_on_the_page() {
        let mut events = fixture::events();
        let class = phoenix_model::FailureClass::Other;
        let verdict = Verdict::Failed { class, message: "its .drv\nis damaged".into() };
        let found = Event::TargetFound { target: fixture::target(50, "odd", Some("odd")) };
        let settled = Event::TargetSettled { target: TargetId(50), verdict };
        let error = Event::Message { severity: Severity::Error, text: "the disk\nis full".into() };
        events.extend([found, settled, error].map(|event| Logged { at: Stamp(1_700_000_005_000), event }));
        let page = end(&fixture::fold(&events), Style::default());
        assert!(page.contains("\nFAILED odd (could not be built): its .drv is damaged\n"), "{page}");
        assert!(page.contains("\nerror: the disk\n  is full\n"), "{page}");
    }

    #[test]
    fn marks_come_with_colours_only() {
        assert!(!end(&fixture::summary(), Style::default()).contains(['✗', '✓', '\u{1b}']));
        let painted = end(&fixture::summary(), Style { colour: true });
        assert!(painted.contains("✗ FAILED lib-1.0") && painted.contains("✓ built"), "{painted}");
    }

    #[test]
    fn a_command_can_be_pasted() {
        assert_eq!(shell_word("/runs/1/a.log"), "/runs/1/a.log");
        assert_eq!(shell_word("/my runs/it's"), r"'/my runs/it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
