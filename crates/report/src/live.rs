//! The frame of a live view: what runs, how far it is, and what is left.

use phoenix_model::{Stage, Stamp, Verdict, VerdictKind};
use phoenix_schedule::remaining_seconds;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::{DerivationState, Style, Summary, clean, human_seconds};

/// The lines to show now, none wider than `width` columns and no more than `height`.
#[must_use]
pub fn frame(summary: &Summary, now: Stamp, width: usize, height: usize, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    let mut running: Vec<(&DerivationState, f64)> = summary
        .derivations
        .iter()
        .filter(|state| state.verdict.is_none())
        .filter_map(|state| Some((state, now.seconds_since(state.started?))))
        .collect();
    running.sort_by(|a, b| b.1.total_cmp(&a.1));
    let room = height.saturating_sub(1);
    let shown = if running.len() > room { room.saturating_sub(1) } else { running.len() };
    for (state, seconds) in &running[..shown] {
        lines.push(running_line(state, *seconds, width, style));
    }
    if running.len() > shown && room > 0 {
        lines.push(fit(&format!("  … and {} more", running.len() - shown), width));
    }
    lines.push(fit(&status_line(summary, now, running.len()), width));
    lines.truncate(height);
    lines
}

fn running_line(state: &DerivationState, seconds: f64, width: usize, style: Style) -> String {
    let phase = state.phase.as_ref().map(|phase| format!(" {}", clean(phase))).unwrap_or_default();
    let machine =
        if state.machine.is_empty() { String::new() } else { format!(" on {}", clean(&state.machine)) };
    let head = format!("  {:>6} ", human_seconds(seconds));
    let rest = format!("{phase}{machine}");
    let room = width.saturating_sub(head.width() + rest.width());
    let name = shorten(
        state.planned.drv_path.human_name(),
        room.max(width / 2).min(width.saturating_sub(head.width())),
    );
    let plain = fit(&format!("{head}{name}{rest}"), width);
    if style.colour && plain.len() > head.len() + name.len() {
        let (front, back) = plain.split_at(head.len() + name.len());
        return format!("{front}{}", style.dim(back));
    }
    plain
}

fn status_line(summary: &Summary, now: Stamp, running: usize) -> String {
    let elapsed = summary.started.map_or(0.0, |started| now.seconds_since(started));
    let head = human_seconds(elapsed);
    match summary.stage {
        Some((Stage::Evaluate, _)) => {
            let attr =
                summary.evaluating.as_ref().map(|(attr, left)| format!(" {} ({left} left)", clean(attr)));
            let failed = summary.target_counts().get(&VerdictKind::NotEvaluated).copied().unwrap_or(0);
            let failed = if failed > 0 { format!(", {failed} not evaluated") } else { String::new() };
            format!(
                "{head} evaluating: {} targets{failed}{}",
                summary.targets.len(),
                attr.unwrap_or_default()
            )
        }
        Some((Stage::Plan, _)) => {
            format!("{head} looking for what exists already: {} targets", summary.targets.len())
        }
        _ => {
            let of = |wanted: fn(&Verdict) -> bool| {
                summary.derivations.iter().filter(|state| state.verdict.as_ref().is_some_and(wanted)).count()
            };
            let done = of(|verdict| matches!(verdict, Verdict::Built | Verdict::Cached { .. }));
            let failed = of(|verdict| matches!(verdict, Verdict::Failed { .. }));
            let waiting =
                summary.derivations.iter().filter(|state| state.verdict.is_none()).count() - running;
            let mut parts =
                vec![format!("{done}/{} built", summary.derivations.len()), format!("{running} running")];
            if waiting > 0 {
                parts.push(format!("{waiting} waiting"));
            }
            if failed > 0 {
                parts.push(format!("{failed} failed"));
            }
            if summary.fetched > 0 {
                parts.push(format!("{} fetched", summary.fetched));
            }
            let left = left_on_critical_path(summary, now);
            if left >= 1.0 {
                parts.push(format!("about {} left on the critical path", human_seconds(left)));
            }
            format!("{head} {}", parts.join(", "))
        }
    }
}

/// The expected seconds of the longest chain of what is not done.
fn left_on_critical_path(summary: &Summary, now: Stamp) -> f64 {
    let left: Vec<f64> = summary
        .derivations
        .iter()
        .map(|state| match (&state.verdict, state.started) {
            (Some(_), _) => 0.0,
            (None, Some(started)) => (state.planned.estimate - now.seconds_since(started)).max(0.0),
            (None, None) => state.planned.estimate,
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn a_frame_keeps_to_its_size(width in 0_usize..120, height in 0_usize..8, seconds in 0_u64..100_000) {
            for summary in [halfway(), fixture::summary(), Summary::default()] {
                let lines = frame(&summary, now(seconds), width, height, Style::default());
                prop_assert!(lines.len() <= height);
                prop_assert!(lines.iter().all(|line| line.width() <= width), "{lines:?}");
            }
        }
    }
}
