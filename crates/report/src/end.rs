//! The last page on a terminal: what failed and why, what that stopped, and how everything ended.

use std::fmt::Write as _;

use phoenix_model::{Severity, Verdict, VerdictKind};

use crate::roots::plural;
use crate::{Root, Style, Summary, TargetState, clean, human_seconds, root_failures};

/// How many names of what a failure stopped are shown.
const BLOCKED_NAMES: usize = 5;
/// How many lines of an evaluation error are shown.
const ERROR_LINES: usize = 15;
/// How many targets of a kind that is not red are listed.
const LISTED: usize = 30;

/// The last page.
#[must_use]
pub fn end(summary: &Summary, style: Style) -> String {
    let mut page = String::new();
    for root in root_failures(summary) {
        failure(&mut page, &root, style);
    }
    not_evaluated(&mut page, summary, style);
    failed_without_a_build(&mut page, summary, style);
    table(&mut page, summary, style);
    for (severity, text) in &summary.messages {
        if *severity == Severity::Error {
            let _ = writeln!(page, "error: {}", clean(text));
        }
    }
    for (url, problem) in &summary.substituters_failed {
        let _ = writeln!(page, "substituter {}: {}; its answers are unknown", clean(url), clean(problem));
    }
    if summary.exit_code.is_none() {
        page.push_str("the events end before the run does\n");
    }
    if let Some(directory) = &summary.directory {
        let _ = writeln!(page, "{}", style.dim(&format!("logs and reports: {}", clean(directory))));
    }
    page
}

fn failure(page: &mut String, root: &Root<'_>, style: Style) {
    let drv_path = &root.derivation.planned.drv_path;
    let time = root
        .derivation
        .seconds
        .map(|seconds| format!(" after {}", human_seconds(seconds)))
        .unwrap_or_default();
    let head = format!("{} {}{time}", "FAILED", drv_path.human_name());
    let _ = writeln!(
        page,
        "{} ({}): {}",
        style.verdict(VerdictKind::Failed, &head),
        root.class,
        clean(&root.reason())
    );
    for line in &root.derivation.tail {
        let _ = writeln!(page, "  {} {}", style.dim("|"), clean(line));
    }
    if let Some(log) = &root.derivation.log {
        let _ = writeln!(page, "  whole log: less {}", clean(log));
        let _ = writeln!(page, "         or: nix-store --read-log {drv_path}");
    }
    if let Some(blocked) = root.blocked_line(BLOCKED_NAMES) {
        let _ = writeln!(page, "  blocked: {blocked}");
    }
    page.push('\n');
}

fn not_evaluated(page: &mut String, summary: &Summary, style: Style) {
    for state in summary.targets.values() {
        let Some(Verdict::NotEvaluated { error }) = &state.verdict else { continue };
        let name = clean(&summary.shown(&state.target)).into_owned();
        let _ =
            writeln!(page, "{}", style.verdict(VerdictKind::NotEvaluated, &format!("NOT EVALUATED {name}")));
        let lines: Vec<&str> = error.lines().collect();
        for line in lines.iter().take(ERROR_LINES) {
            let line = clean(line);
            let _ = if line.trim().is_empty() { writeln!(page) } else { writeln!(page, "  {line}") };
        }
        if lines.len() > ERROR_LINES {
            let _ = writeln!(page, "  … {} more lines in the report", lines.len() - ERROR_LINES);
        }
        page.push('\n');
    }
}

/// Targets that failed although no derivation of the plan did.
fn failed_without_a_build(page: &mut String, summary: &Summary, style: Style) {
    for state in summary.targets.values() {
        let Some(Verdict::Failed { message, .. }) = &state.verdict else { continue };
        let built =
            state.target.drv_path.as_ref().is_some_and(|drv_path| summary.of_derivation(drv_path).is_some());
        if !built {
            let name = clean(&summary.shown(&state.target)).into_owned();
            let head = style.verdict(VerdictKind::Failed, &format!("FAILED {name}"));
            let _ = writeln!(page, "{head}: {}\n", clean(message));
        }
    }
}

fn table(page: &mut String, summary: &Summary, style: Style) {
    let counts = summary.target_counts();
    for kind in VerdictKind::ALL {
        let states: Vec<&TargetState> = summary
            .targets
            .values()
            .filter(|state| state.verdict.as_ref().is_some_and(|verdict| verdict.kind() == kind))
            .collect();
        let most = match kind {
            // One line with a count says as much as two hundred.
            VerdictKind::Blocked | VerdictKind::Cancelled => BLOCKED_NAMES,
            _ => LISTED,
        };
        for state in states.iter().take(most) {
            let mark = style.verdict(kind, &format!("{:<13}", kind.to_string()));
            let _ = writeln!(
                page,
                "{mark} {}{}",
                clean(&summary.shown(&state.target)),
                particulars(summary, state)
            );
        }
        if states.len() > most {
            let mark = style.verdict(kind, &format!("{:<13}", kind.to_string()));
            let _ = writeln!(page, "{mark} … and {} more", states.len() - most);
        }
    }
    for state in summary.targets.values().filter(|state| state.verdict.is_none()) {
        let _ = writeln!(page, "{:<13} {}", "NO VERDICT", clean(&summary.shown(&state.target)));
    }
    if !summary.targets.is_empty() {
        page.push('\n');
    }
    let mut parts: Vec<String> = VerdictKind::ALL
        .iter()
        .filter_map(|kind| Some(style.verdict(*kind, &format!("{} {kind}", counts.get(kind)?))))
        .collect();
    if parts.is_empty() {
        parts.push("nothing to do".to_owned());
    }
    let count = summary.targets.len();
    let built = summary.derivation_counts().get(&VerdictKind::Built).copied().unwrap_or(0);
    let head = style.bold(&format!("{count} {}", plural(count, "target")));
    let _ = write!(page, "{head}: {} in {}", parts.join(", "), human_seconds(summary.seconds()));
    if built > 0 {
        let _ = write!(page, "; {built} {} built", plural(built, "derivation"));
    }
    if summary.saved_seconds >= 0.05 {
        let _ = write!(page, "; {} of building saved", human_seconds(summary.saved_seconds));
    }
    page.push('\n');
}

/// What there is to say of a target besides its verdict, with a space before it.
fn particulars(summary: &Summary, state: &TargetState) -> String {
    let words = match &state.verdict {
        Some(Verdict::Cached { from }) => format!("in {from}"),
        Some(Verdict::Blocked { by }) => {
            let more = if by.len() > 1 { format!(" and {} more", by.len() - 1) } else { String::new() };
            format!("by {}{more}", by.first().map(phoenix_model::StorePath::human_name).unwrap_or_default())
        }
        Some(Verdict::Skipped { reason }) => reason.clone(),
        Some(Verdict::Built | Verdict::Failed { .. }) => {
            let drv_path = state.target.drv_path.as_ref();
            let seconds =
                drv_path.and_then(|path| summary.of_derivation(path)).and_then(|state| state.seconds);
            seconds.map(human_seconds).unwrap_or_default()
        }
        _ => String::new(),
    };
    if words.is_empty() { String::new() } else { format!("  {}", clean(&words)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use phoenix_model::{Event, Logged, Stamp, TargetId};

    #[test]
    fn the_whole_page() {
        let page = end(&fixture::summary(), Style::default());
        let (head, tail) = page.split_once("  | line 7\n").unwrap();
        insta::assert_snapshot!(head, @"FAILED lib-1.0 after 2.0s (build failed): builder failed with exit code 1");
        insta::assert_snapshot!(tail.split_once("  | line 30\n").unwrap().1, @r#"
          | FAILED 2 + 2 = 5
          whole log: less /runs/1/logs/lib-1.0.log
                 or: nix-store --read-log /nix/store/00000000000000000000000000000000-lib-1.0.drv
          blocked: checks.x86_64-linux.uses-lib and 1 derivation on the way

        NOT EVALUATED packages.x86_64-linux.broken
          boom

          at /nix/store/x/flake.nix:3:4:

            3| throw "boom"

        failed        packages.x86_64-linux.lib  2.0s
        not evaluated packages.x86_64-linux.broken
        blocked       checks.x86_64-linux.uses-lib  by lib-1.0
        cancelled     packages.x86_64-linux.late
        built         packages.x86_64-linux.hello  4.2s
        cached        packages.x86_64-linux.old  in the store
        cached        packages.x86_64-linux.far  in https://cache.example
        skipped       nixosConfigurations.arm.config.system.build.toplevel  it is for aarch64-linux, and this run is for x86_64-linux

        8 targets: 1 failed, 1 not evaluated, 1 blocked, 1 cancelled, 1 built, 2 cached, 1 skipped in 5.3s; 1 derivation built; 1m15s of building saved
        substituter https://down.example: it answers 503 Service Unavailable; its answers are unknown
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
        assert!(page.contains("and 196 more targets"), "{page}");
        assert!(page.contains("blocked       … and 196 more"), "{page}");
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
}
