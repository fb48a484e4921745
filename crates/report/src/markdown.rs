//! The report as GitHub-flavoured Markdown, for job summaries.

use std::fmt::Write as _;

use phoenix_model::{Verdict, VerdictKind};

use crate::roots::plural;
use crate::{Root, Summary, TargetState, clean, human_seconds, root_failures};

/// How many bytes a job summary may have, with a margin: GitHub takes 1 MiB a step.
pub const MARKDOWN_LIMIT: usize = 1_000_000;

/// How many names of what a failure stopped are shown.
const BLOCKED_NAMES: usize = 10;

/// The report in at most `limit` bytes; what does not fit is left out, the longest lists first, and said.
#[must_use]
pub fn markdown(summary: &Summary, limit: usize) -> String {
    // First fewer targets, then shorter logs, then fewer failures.
    for (targets, tail, failures) in [
        (usize::MAX, 25, usize::MAX),
        (1000, 25, usize::MAX),
        (200, 15, 100),
        (50, 5, 20),
        (0, 0, 5),
        (0, 0, 0),
    ] {
        let page = page(summary, targets, tail, failures);
        if page.len() <= limit {
            return page;
        }
    }
    let mut head = page(summary, 0, 0, 0);
    let mut end = limit.min(head.len());
    while !head.is_char_boundary(end) {
        end -= 1;
    }
    head.truncate(end);
    head
}

fn page(summary: &Summary, targets: usize, tail: usize, failures: usize) -> String {
    let mut page = String::new();
    let mark = if summary.is_green() { "✅" } else { "❌" };
    let count = summary.targets.len();
    let counts = summary.target_counts();
    let parts: Vec<String> =
        VerdictKind::ALL.iter().filter_map(|kind| Some(format!("{} {kind}", counts.get(kind)?))).collect();
    let parts = if parts.is_empty() { "nothing to do".to_owned() } else { parts.join(", ") };
    let _ = writeln!(page, "## {mark} {count} {}: {parts}\n", plural(count, "target"));
    let built = summary.derivation_counts().get(&VerdictKind::Built).copied().unwrap_or(0);
    let _ =
        write!(page, "{} · {built} {} built", human_seconds(summary.seconds()), plural(built, "derivation"));
    if summary.saved_seconds >= 0.05 {
        let _ = write!(page, " · {} of building saved", human_seconds(summary.saved_seconds));
    }
    page.push_str("\n\n");
    let roots = root_failures(summary);
    for root in roots.iter().take(failures) {
        failure(&mut page, root, tail);
    }
    left_out(&mut page, roots.len(), failures, "failure");
    errors(&mut page, summary, failures, tail);
    table(&mut page, summary, targets);
    for (url, problem) in &summary.substituters_failed {
        let _ = writeln!(page, "- substituter {}: {}; its answers are unknown", code(url), escape(problem));
    }
    if summary.exit_code.is_none() {
        page.push_str("\nThe events end before the run does.\n");
    }
    page
}

fn failure(page: &mut String, root: &Root<'_>, tail: usize) {
    let name = root.derivation.planned.drv_path.human_name();
    let time = root
        .derivation
        .seconds
        .map(|seconds| format!(" after {}", human_seconds(seconds)))
        .unwrap_or_default();
    let _ =
        writeln!(page, "### {} failed{time}\n\n{}: {}\n", escape(name), root.class, escape(&root.reason()));
    let lines: Vec<_> = root.derivation.tail.iter().rev().take(tail).rev().map(|line| clean(line)).collect();
    if !lines.is_empty() {
        details(page, "Last lines of the log", &lines.join("\n"));
    }
    if let Some(blocked) = root.blocked_line(BLOCKED_NAMES) {
        let _ = writeln!(page, "Blocked: {}\n", escape(&blocked));
    }
}

fn errors(page: &mut String, summary: &Summary, most: usize, lines: usize) {
    let failed: Vec<_> = summary
        .targets
        .values()
        .filter_map(|state| match &state.verdict {
            Some(Verdict::NotEvaluated { error }) => Some((state, error)),
            _ => None,
        })
        .collect();
    for (state, error) in failed.iter().take(most) {
        let _ = writeln!(page, "### {} did not evaluate\n", escape(&summary.shown(&state.target)));
        let text: Vec<_> = error.lines().take(lines.max(1)).map(clean).collect();
        details(page, &escape(text.first().map(AsRef::as_ref).unwrap_or_default()), &text.join("\n"));
    }
    left_out(page, failed.len(), most, "evaluation error");
}

/// A block that can be opened, in a fence longer than any in it.
fn details(page: &mut String, title: &str, text: &str) {
    let longest = text.split(|char| char != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ =
        writeln!(page, "<details><summary>{title}</summary>\n\n{fence}text\n{text}\n{fence}\n\n</details>\n");
}

fn table(page: &mut String, summary: &Summary, most: usize) {
    if summary.targets.is_empty() || most == 0 {
        return left_out(page, summary.targets.len(), most, "target");
    }
    page.push_str("| verdict | target | |\n| --- | --- | --- |\n");
    let mut states: Vec<&TargetState> = summary.targets.values().collect();
    states.sort_by_key(|state| state.verdict.as_ref().map(Verdict::kind));
    for state in states.iter().take(most) {
        let verdict = state
            .verdict
            .as_ref()
            .map_or_else(|| "no verdict".to_owned(), |verdict| verdict.kind().to_string());
        let _ = writeln!(
            page,
            "| {verdict} | {} | {} |",
            code(&summary.shown(&state.target)),
            escape(&particulars(summary, state))
        );
    }
    page.push('\n');
    left_out(page, states.len(), most, "target");
}

fn particulars(summary: &Summary, state: &TargetState) -> String {
    match &state.verdict {
        Some(Verdict::Cached { from }) => format!("in {from}"),
        Some(Verdict::Blocked { by }) => {
            by.iter().take(3).map(phoenix_model::StorePath::human_name).collect::<Vec<_>>().join(", ")
        }
        Some(Verdict::Skipped { reason }) => reason.clone(),
        Some(Verdict::Failed { class, .. }) => class.to_string(),
        Some(Verdict::Built) => {
            let drv_path = state.target.drv_path.as_ref();
            let seconds =
                drv_path.and_then(|path| summary.of_derivation(path)).and_then(|state| state.seconds);
            seconds.map(human_seconds).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn left_out(page: &mut String, count: usize, most: usize, noun: &str) {
    if count > most {
        let rest = count - most;
        let _ = writeln!(page, "… {rest} more {} in the JSON report.\n", plural(rest, noun));
    }
}

/// Text in which nothing is markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in clean(text).chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '!' => escaped.extend(['\\', char]),
            // No mention, no reference to another issue.
            '@' => escaped.push_str("&#64;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Text as code, in a table too: HTML, since backquotes cannot hold every text.
fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use phoenix_model::{Event, Logged, Stamp, TargetId};

    #[test]
    fn the_whole_page() {
        let page = markdown(&fixture::summary(), MARKDOWN_LIMIT);
        let (head, rest) = page.split_once("line 7\n").unwrap();
        insta::assert_snapshot!(head, @r"
        ## ❌ 8 targets: 1 failed, 1 not evaluated, 1 blocked, 1 cancelled, 1 built, 2 cached, 1 skipped

        5.3s · 1 derivation built · 1m15s of building saved

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
        | failed | <code>packages.x86\_64-linux.lib</code> | build failed |
        | not evaluated | <code>packages.x86\_64-linux.broken</code> |  |
        | blocked | <code>checks.x86\_64-linux.uses-lib</code> | lib-1.0 |
        | cancelled | <code>packages.x86\_64-linux.late</code> |  |
        | built | <code>packages.x86\_64-linux.hello</code> | 4.2s |
        | cached | <code>packages.x86\_64-linux.old</code> | in the store |
        | cached | <code>packages.x86\_64-linux.far</code> | in https://cache.example |
        | skipped | <code>nixosConfigurations.arm.config.system.build.toplevel</code> | it is for aarch64-linux, and this run is for x86\_64-linux |

        - substituter <code>https://down.example</code>: it answers 503 Service Unavailable; its answers are unknown
        "#);
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
    }
}
