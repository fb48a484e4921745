//! The frame of a live view: what runs, how far it is, and what is left.

use phoenix_model::{Stage, Stamp, VerdictKind};
use phoenix_schedule::remaining_seconds;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::derivation_state::hindered;
use crate::roots::plural;
use crate::{ActionState, DerivationState, Style, Summary, clean, human_seconds};

/// The width of the column for the time a build has been running, with the space after it.
const TIME_WIDTH: usize = 9;

/// The lines to show now, none wider than `width` columns and no more than `height`.
#[must_use]
pub fn frame(summary: &Summary, now: Stamp, width: usize, height: usize, style: Style) -> Vec<String> {
    let running = running(summary, now);
    let room = height.saturating_sub(1);
    let shown = if running.len() > room { room.saturating_sub(1) } else { running.len() };
    let mut lines: Vec<String> = running
        .iter()
        .take(shown)
        .map(|(state, seconds)| running_line(state, *seconds, width, style))
        .collect();
    if running.len() > shown && room > 0 {
        lines.push(fit(&format!("  … and {} more", running.len() - shown), width));
    }
    lines.push(status_line(summary, now, width));
    lines.truncate(height);
    lines
}

/// What runs and for how many seconds, the longest first.
pub(crate) fn running(summary: &Summary, now: Stamp) -> Vec<(&DerivationState, f64)> {
    let mut running: Vec<_> =
        summary.derivations.iter().filter_map(|state| Some((state, state.running_for(now)?))).collect();
    running.sort_by(|a, b| b.1.total_cmp(&a.1));
    running
}

/// Time, name, phase and machine. The phase gives way before half of the line is left for the name, and the
/// name loses its middle.
fn running_line(state: &DerivationState, seconds: f64, width: usize, style: Style) -> String {
    let head = fit(&format!("  {:>6} ", human_seconds(seconds)), width);
    let phase = state.phase.as_ref().map(|phase| format!(" {}", clean(phase))).unwrap_or_default();
    let machine =
        if state.machine.is_empty() { String::new() } else { format!(" on {}", clean(&state.machine)) };
    let rest = format!("{phase}{machine}");
    let room = width.saturating_sub(head.width());
    let for_name = room.saturating_sub(rest.width()).max(width / 2).min(room);
    let name = shorten(state.planned.drv_path.human_name(), for_name);
    let rest = fit(&rest, room.saturating_sub(name.width()));
    format!("{head}{name}{}", if rest.is_empty() { rest } else { style.dim(&rest) })
}

fn status_line(summary: &Summary, now: Stamp, width: usize) -> String {
    let elapsed = summary.started.map_or(0.0, |started| now.seconds_since(started));
    let stopping = if summary.cancelled.is_some() { "stopping: " } else { "" };
    let head = format!("{} {stopping}", human_seconds(elapsed));
    let line = match summary.stage {
        Some((Stage::Evaluate, _)) => return evaluating(summary, &head, width),
        Some((Stage::Gate, _)) => format!("{head}asking gates: {}", count_targets(summary)),
        Some((Stage::Act, _)) => {
            let runs = |state: &&ActionState| state.started.is_some() && state.verdict.is_none();
            let running = summary.actions.values().filter(runs).map(|state| clean(&state.action.name));
            format!("{head}running {}", running.collect::<Vec<_>>().join(", "))
        }
        Some((Stage::Plan, _)) => {
            format!("{head}looking for what exists already: {}", count_targets(summary))
        }
        _ => format!("{head}{}", building(summary, now)),
    };
    fit(&line, width)
}

fn evaluating(summary: &Summary, head: &str, width: usize) -> String {
    let failed = summary.target_counts().get(&VerdictKind::NotEvaluated).copied().unwrap_or(0);
    let failed = if failed > 0 { format!(", {failed} not evaluated") } else { String::new() };
    let progress = summary.evaluated.filter(|(done, ..)| *done > 0).map(|(done, in_work, memory)| {
        let attributes = plural(usize::try_from(done).unwrap_or(usize::MAX), "attribute");
        format!(", {done} {attributes} done, {in_work} in work, {} MiB", memory >> 20)
    });
    let progress = progress.unwrap_or_default();
    let found = format!("{head}evaluating: {}{failed}{progress}", count_targets(summary));
    let Some((attr, left)) = &summary.evaluating else { return fit(&found, width) };
    if attr.is_empty() {
        // The outputs themselves.
        return fit(&found, width);
    }
    let left = format!(" ({left} left)");
    // An attribute path says most at its beginning and its end.
    let room = width.saturating_sub(found.width() + 1 + left.width());
    fit(&format!("{found} {}{left}", shorten(&clean(attr), room.max(TIME_WIDTH))), width)
}

fn count_targets(summary: &Summary) -> String {
    let count = summary.targets.len();
    format!("{count} {}", plural(count, "target"))
}

fn building(summary: &Summary, now: Stamp) -> String {
    let progress = summary.progress();
    let mut parts = vec![
        format!("{}/{} built", progress.done, summary.derivations.len()),
        format!("{} running", progress.running),
    ];
    for (count, word) in [
        (progress.waiting, "waiting"),
        (progress.failed, "failed"),
        (progress.stopped, "not to be built"),
        (summary.fetched, "fetched"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    let left = left_on_critical_path(summary, now);
    if left >= 1.0 {
        parts.push(format!("about {} left on the critical path", human_seconds(left)));
    }
    parts.join(", ")
}

/// The expected seconds of the longest chain of what is not done.
fn left_on_critical_path(summary: &Summary, now: Stamp) -> f64 {
    let left: Vec<f64> = summary
        .derivations
        .iter()
        .zip(hindered(&summary.derivations))
        .map(|(state, hindered)| match (&state.verdict, state.running_for(now)) {
            (Some(_), _) => 0.0,
            (None, None) if hindered => 0.0,
            // `max` also turns what is no number into 0.
            (None, running) => (state.planned.estimate - running.unwrap_or(0.0)).max(0.0),
        })
        .collect();
    remaining_seconds(&left, |position| &summary.derivations[position].planned.inputs)
}

/// A name with its middle left out where it is wider than `width`.
fn shorten(name: &str, width: usize) -> String {
    if name.width() <= width {
        return name.to_owned();
    }
    let half = width.saturating_sub(1) / 2;
    let back: Vec<char> = take_width(name.chars().rev(), half);
    let front: String = take_width(name.chars(), width.saturating_sub(1 + half)).into_iter().collect();
    if width == 0 {
        String::new()
    } else {
        format!("{front}…{}", back.into_iter().rev().collect::<String>())
    }
}

/// A line with its end left out where it is wider than `width`.
fn fit(line: &str, width: usize) -> String {
    if line.width() <= width {
        return line.to_owned();
    }
    if width == 0 {
        return String::new();
    }
    let mut front: String = take_width(line.chars(), width - 1).into_iter().collect();
    front.push('…');
    front
}

fn take_width(chars: impl Iterator<Item = char>, width: usize) -> Vec<char> {
    let mut used = 0;
    chars
        .take_while(|char| {
            used += char.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use phoenix_model::{Event, Logged};

    fn halfway() -> Summary {
        let events: Vec<Logged> = fixture::events()
            .into_iter()
            .take_while(|event| !matches!(event.event, Event::DerivationSettled { .. }))
            .collect();
        fixture::fold(&events)
    }

    fn now(seconds: u64) -> Stamp {
        Stamp(1_700_000_000_100 + seconds * 1000)
    }

    #[test]
    fn what_runs_how_far_it_is_and_what_is_left() {
        insta::assert_snapshot!(frame(&halfway(), now(3), 100, 10, Style::default()).join("\n"), @r"
            3.0s hello-2.12
            3.0s lib-1.0 checkPhase
        3.1s 0/5 built, 2 running, 3 waiting, 1 fetched, about 27s left on the critical path
        ");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        insta::assert_snapshot!(frame(&halfway(), now(3), 30, 2, Style::default()).join("\n"), @r"
          … and 2 more
        3.1s 0/5 built, 2 running, 3 …
        ");
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shorten("abcdefghij", 7), "abc…hij");
        assert_eq!(shorten("abc", 7), "abc");
        assert_eq!(shorten("日本語の名前", 7), "日…前");
        assert_eq!(shorten("abc", 0), "");
    }

    #[test]
    fn a_narrow_terminal_shows_what_fits_in_any_style() {
        let summary = halfway();
        for width in 0..40 {
            let plain = frame(&summary, now(3), width, 10, Style { colour: false });
            let painted = frame(&summary, now(3), width, 10, Style { colour: true });
            for (plain, painted) in plain.iter().zip(painted) {
                assert!(plain.width() <= width, "{plain}");
                assert_eq!(painted.replace("\u{1b}[2m", "").replace("\u{1b}[0m", ""), *plain);
            }
        }
        insta::assert_snapshot!(frame(&summary, now(3), 21, 10, Style::default()).join("\n"), @r"
            3.0s hello-2.12
            3.0s lib-1.0 che…
        3.1s 0/5 built, 2 ru…
        ");
    }

    #[test]
    fn evaluation_is_shown_as_far_as_it_is() {
        let events = fixture::events();
        let mut summary = fixture::fold(&events[..15]);
        summary.evaluating = Some(("packages.x86_64-linux.\u{1b}[2Ja-rather-long-name".into(), 12));
        insta::assert_snapshot!(frame(&summary, now(3), 70, 10, Style::default()).join("\n"), @"3.1s evaluating: 6 targets packages.x86_64-…rather-long-name (12 left)");
        summary.evaluated = Some((30, 2, 412 << 20));
        insta::assert_snapshot!(frame(&summary, now(3), 140, 10, Style::default()).join("\n"), @"3.1s evaluating: 6 targets, 30 attributes done, 2 in work, 412 MiB packages.x86_64-linux.a-rather-long-name (12 left)");
        summary.evaluated = None;
    }

    #[test]
    fn an_attribute_cannot_draw_on_the_terminal() {
        let mut summary = fixture::fold(&fixture::events()[..15]);
        summary.evaluating = Some(("packages.\u{1b}[2Jx\ny\u{202e}".into(), 1));
        let lines = frame(&summary, now(3), 200, 10, Style::default());
        assert_eq!(lines, ["3.1s evaluating: 6 targets packages.x\u{fffd}y\u{fffd} (1 left)"]);
    }

    #[test]
    fn a_run_that_is_being_stopped_says_so() {
        let mut summary = halfway();
        summary.cancelled = Some("SIGINT".into());
        let line = frame(&summary, now(3), 100, 10, Style::default()).pop().unwrap();
        assert!(line.starts_with("3.1s stopping: 0/5 built"), "{line}");
    }
}
