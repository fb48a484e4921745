//! What the page says in words and tables.

use std::collections::BTreeMap;

use phoenix_model::{ActionVerdict, Severity, Verdict, VerdictKind};

use crate::action_state::{failed_actions, kind_of};
use crate::clean::{clean_log, clip, one_line};
use crate::errors::evaluation_errors;
use crate::roots::{failed_alone, plural};
use crate::table::{count_words, groups, particulars};
use crate::timeline::Timeline;
use crate::{Summary, clean, human_seconds, root_failures};

use super::{Bounds, look};

/// How many characters of a line of a log are shown.
const LINE_LENGTH: usize = 500;
/// How many names of what a failure blocked are shown.
const BLOCKED_NAMES: usize = 12;
/// How many lines of an evaluation error are shown.
const ERROR_LINES: usize = 60;
/// How many messages are shown.
const REMARKS: usize = 200;

/// A figure.
#[derive(Debug)]
pub(super) struct Card {
    pub(super) figure: String,
    pub(super) words: String,
}

/// Something that is wrong, with what was printed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) class: &'static str,
    pub(super) mark: &'static str,
    pub(super) name: String,
    pub(super) about: String,
    pub(super) reason: String,
    pub(super) path: Option<String>,
    pub(super) log: Option<String>,
    pub(super) log_file: Option<String>,
    pub(super) blocked: Option<String>,
}

/// Where what there was came from.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) sentence: String,
    pub(super) shares: Vec<Share>,
}

/// One of them; horizontal measures are in hundredths of the width.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) class: String,
    pub(super) x: String,
    pub(super) width: String,
    pub(super) count: usize,
    pub(super) words: String,
}

/// A verdict that the table can be narrowed down to.
#[derive(Debug)]
pub(super) struct Chip {
    pub(super) class: &'static str,
    pub(super) mark: &'static str,
    pub(super) words: String,
    pub(super) count: usize,
}

/// A target.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) class: &'static str,
    pub(super) mark: &'static str,
    pub(super) verdict: String,
    pub(super) name: String,
    pub(super) system: String,
    pub(super) runner: String,
    pub(super) seconds: String,
    pub(super) sort: String,
    pub(super) more: String,
}

/// What belongs to no target.
#[derive(Debug)]
pub(super) struct Remark {
    pub(super) class: &'static str,
    pub(super) text: String,
}

pub(super) fn headline(summary: &Summary) -> String {
    let count = summary.targets.len();
    let parts: Vec<String> = count_words(summary).into_iter().map(|(_, words)| words).collect();
    let parts = if parts.is_empty() { "nothing to do".to_owned() } else { parts.join(", ") };
    format!("{count} {}: {parts}", plural(count, "target"))
}

pub(super) fn subtitle(summary: &Summary) -> String {
    let mut parts = Vec::new();
    let systems: Vec<_> = summary.systems.iter().map(|text| clean(text)).collect();
    if !systems.is_empty() {
        parts.push(format!("for {}", systems.join(", ")));
    }
    if let Some(reason) = &summary.cancelled {
        parts.push(format!("stopped ({})", one_line(reason)));
    }
    match summary.exit_code {
        Some(code) => parts.push(format!("exit code {code}")),
        None => parts.push("the events end before the run does".to_owned()),
    }
    parts.join(" · ")
}

pub(super) fn cards(summary: &Summary, timeline: &Timeline) -> Vec<Card> {
    let built = summary.derivation_counts().get(&VerdictKind::Built).copied().unwrap_or(0);
    let card = |figure: String, words: String| Card { figure, words };
    let mut cards = vec![
        card(human_seconds(summary.seconds()), "from beginning to end".to_owned()),
        card(built.to_string(), format!("{} built", plural(built, "derivation"))),
    ];
    let runners = timeline.rows.len();
    if runners > 0 {
        let words = format!(
            "on {runners} {}, {} of it building",
            plural(runners, "runner"),
            human_seconds(timeline.build_seconds())
        );
        cards.push(card(human_seconds(timeline.runner_seconds()), words));
    }
    if summary.saved_seconds >= 0.05 {
        cards.push(card(human_seconds(summary.saved_seconds), "of building saved".to_owned()));
    }
    cards
}

/// Everything that is wrong by itself, in the order of reports.
pub(super) fn failures(summary: &Summary, bounds: Bounds) -> Vec<Failure> {
    let (class, mark) = look(Some(VerdictKind::Failed));
    let roots = root_failures(summary);
    let of_roots = roots.iter().map(|root| {
        let state = root.derivation;
        let lines = state.last_lines(bounds.lines);
        let lines: Vec<_> = lines.map(|line| clip(&clean_log(line), LINE_LENGTH).into_owned()).collect();
        let on = Some(state.machine.as_str()).filter(|machine| !machine.is_empty());
        let on = on.map(|machine| format!(" on {}", one_line(machine)));
        Failure {
            class,
            mark,
            name: clean(state.planned.drv_path.human_name()).into_owned(),
            about: format!("{}{}{}", root.class, state.after(), on.unwrap_or_default()),
            reason: root.reason(),
            path: Some(clean(state.planned.drv_path.as_str()).into_owned()),
            log: (!lines.is_empty()).then(|| lines.join("\n")),
            log_file: state.log.as_deref().map(|file| clean(file).into_owned()),
            blocked: root.blocked_line(summary, BLOCKED_NAMES),
        }
    });
    let alone = failed_alone(summary);
    let alone = alone.iter().map(|(state, kind, message)| Failure {
        class,
        mark,
        name: clean(&summary.shown(&state.target)).into_owned(),
        about: kind.to_string(),
        reason: clip(&one_line(message), LINE_LENGTH).into_owned(),
        path: None,
        log: None,
        log_file: None,
        blocked: None,
    });
    let errors = evaluation_errors(summary);
    let (class, mark) = look(Some(VerdictKind::NotEvaluated));
    let errors = errors.iter().map(|error| {
        let lines = error.text.lines().take(ERROR_LINES);
        let lines: Vec<_> = lines.map(|line| clip(&clean(line), LINE_LENGTH).into_owned()).collect();
        Failure {
            class,
            mark,
            name: error.names(summary, BLOCKED_NAMES),
            about: "did not evaluate".to_owned(),
            reason: lines.first().cloned().unwrap_or_default(),
            path: None,
            log: (lines.len() > 1).then(|| lines.join("\n")),
            log_file: None,
            blocked: None,
        }
    });
    let (class, mark) = look(Some(VerdictKind::Failed));
    let of_actions = failed_actions(summary).map(|state| {
        let lines: Vec<_> = state
            .last_lines(bounds.lines)
            .map(|line| clip(&clean_log(line), LINE_LENGTH).into_owned())
            .collect();
        Failure {
            class,
            mark,
            name: clean(&state.action.name).into_owned(),
            about: format!("action failed{}", state.after()),
            reason: clip(&state.particulars(), LINE_LENGTH).into_owned(),
            path: None,
            log: (!lines.is_empty()).then(|| lines.join("\n")),
            log_file: state.log.as_deref().map(|file| clean(file).into_owned()),
            blocked: None,
        }
    });
    of_roots.chain(alone).chain(errors).chain(of_actions).collect()
}

/// Where the targets came from: this run, the store, or a substituter.
pub(super) fn saved(summary: &Summary) -> Saved {
    let mut counts: BTreeMap<(u8, String), usize> = BTreeMap::new();
    for state in summary.targets.values() {
        let key = match &state.verdict {
            Some(Verdict::Built) => (0, "built in this run".to_owned()),
            Some(Verdict::Cached { from }) => (1, format!("in {}", one_line(&from.to_string()))),
            _ => continue,
        };
        *counts.entry(key).or_default() += 1;
    }
    let all: usize = counts.values().sum();
    let cached: usize = counts.iter().filter(|((kind, _), _)| *kind == 1).map(|(_, count)| count).sum();
    let mut x = 0.0;
    let mut number = 0;
    let mut shares = Vec::new();
    for ((kind, words), count) in counts {
        let width = as_f64(count) / as_f64(all) * 100.0;
        let class = if kind == 0 { "built".to_owned() } else { format!("from{}", number % 4) };
        number += usize::from(kind == 1);
        shares.push(Share { class, x: format!("{x:.2}"), width: format!("{width:.2}"), count, words });
        x += width;
    }
    let sentence = if all == 0 {
        "Nothing came to a good end.".to_owned()
    } else {
        let fetched = summary.to_fetch.len();
        let saved = if summary.saved_seconds >= 0.05 {
            format!(
                " That saved {} of building, by what earlier runs took.",
                human_seconds(summary.saved_seconds)
            )
        } else {
            String::new()
        };
        let inputs = if fetched > 0 {
            format!(
                " For the builds, {fetched} {} fetched instead of built.",
                if fetched == 1 { "path was" } else { "paths were" }
            )
        } else {
            String::new()
        };
        format!("{cached} of {all} good {} existed already.{saved}{inputs}", plural(all, "target"))
    };
    Saved { sentence, shares }
}

#[expect(clippy::cast_precision_loss, reason = "counts of what is in memory are far below 2^52")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

pub(super) fn chips(summary: &Summary) -> Vec<Chip> {
    let groups = groups(summary);
    let chips = groups.into_iter().map(|(kind, states)| {
        let (class, mark) = look(kind);
        let words = kind.map_or_else(|| "no verdict".to_owned(), |kind| kind.to_string());
        Chip { class, mark, words, count: states.len() }
    });
    chips.collect()
}

/// The table, worst first.
pub(super) fn rows(summary: &Summary) -> Vec<Row> {
    let groups = groups(summary);
    let states = groups.iter().flat_map(|(kind, states)| states.iter().map(move |state| (*kind, *state)));
    let rows = states.map(|(kind, state)| {
        let (class, mark) = look(kind);
        let own = state.target.drv_path.as_ref().and_then(|drv_path| summary.of_derivation(drv_path));
        let seconds = own.and_then(|own| own.seconds);
        // The time has a column of its own.
        let timed = matches!(kind, Some(VerdictKind::Built | VerdictKind::Failed));
        let more = if timed { String::new() } else { particulars(summary, state) };
        Row {
            class,
            mark,
            verdict: kind.map_or_else(|| "no verdict".to_owned(), |kind| kind.to_string()),
            name: clean(&summary.shown(&state.target)).into_owned(),
            system: state.target.system.as_deref().map(|text| clean(text).into_owned()).unwrap_or_default(),
            runner: own.map(|own| one_line(&own.machine)).unwrap_or_default(),
            seconds: seconds.map(human_seconds).unwrap_or_default(),
            sort: seconds.map(|seconds| format!("{seconds:.3}")).unwrap_or_default(),
            more: clip(&one_line(&more), LINE_LENGTH).into_owned(),
        }
    });
    rows.collect()
}

/// What ran after builds.
pub(super) fn actions(summary: &Summary) -> Vec<Row> {
    let rows = summary.actions.values().map(|state| {
        let (class, mark) = look(Some(kind_of(state.verdict.as_ref())));
        let why = state.verdict.as_ref().map(ActionVerdict::why).unwrap_or_default();
        Row {
            class,
            mark,
            verdict: state.word(),
            name: clean(&state.action.name).into_owned(),
            system: String::new(),
            runner: String::new(),
            seconds: state.seconds.map(human_seconds).unwrap_or_default(),
            sort: String::new(),
            more: clip(&one_line(&why), LINE_LENGTH).into_owned(),
        }
    });
    rows.collect()
}

/// Errors, warnings, and what else was not as it should be.
pub(super) fn remarks(summary: &Summary) -> Vec<Remark> {
    let mut remarks: Vec<Remark> = Vec::new();
    let mut add = |class, text: String| remarks.push(Remark { class, text: clip(&text, 2000).into_owned() });
    let mut messages: Vec<_> = summary.messages.iter().collect();
    messages.sort_by_key(|(severity, _)| *severity);
    for (severity, text) in messages.into_iter().take(REMARKS) {
        add(if *severity == Severity::Error { "error" } else { "warning" }, one_line(text));
    }
    for (url, problem) in summary.substituters_failed.iter().take(REMARKS) {
        let text = format!("substituter {}: {}; its answers are unknown", one_line(url), one_line(problem));
        add("warning", text);
    }
    remarks
}
