//! What is known of an action.

use std::collections::VecDeque;

use phoenix_model::{Action, ActionVerdict, Stamp, VerdictKind};

use crate::clean::{clip, one_line};
use crate::{Summary, TAIL_LINES, human_seconds, plural};

/// How many characters of a line are kept; whoever wants more has the log.
const LINE_LENGTH: usize = 4096;

/// What is known of an action.
#[derive(Debug, Clone)]
pub struct ActionState {
    /// The action.
    pub action: Action,
    /// When it was started.
    pub started: Option<Stamp>,
    /// Its verdict, once it has one.
    pub verdict: Option<ActionVerdict>,
    /// How long it ran.
    pub seconds: Option<f64>,
    /// The file with what it printed.
    pub log: Option<String>,
    /// The last lines of that; dropped when it ends well.
    pub tail: VecDeque<String>,
}

impl ActionState {
    pub(crate) fn new(action: Action) -> Self {
        Self { action, started: None, verdict: None, seconds: None, log: None, tail: VecDeque::new() }
    }

    pub(crate) fn line(&mut self, line: &str) {
        if self.tail.len() >= TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(clip(line, LINE_LENGTH).into_owned());
    }

    /// Takes in how it ended. It ends once; where events disagree, what is red stands.
    pub(crate) fn settle(&mut self, verdict: &ActionVerdict, seconds: Option<f64>, log: Option<&String>) {
        if self.verdict.as_ref().is_some_and(|known| known.is_red() || !verdict.is_red()) {
            return;
        }
        self.verdict = Some(verdict.clone());
        self.seconds = seconds;
        self.log = log.cloned();
        if !verdict.is_red() {
            self.tail = VecDeque::new();
        }
    }

    /// Whether it makes the run red.
    #[must_use]
    pub fn is_red(&self) -> bool {
        self.verdict.as_ref().is_none_or(ActionVerdict::is_red)
    }

    /// Its verdict in a word.
    #[must_use]
    pub fn word(&self) -> String {
        self.verdict.as_ref().map_or_else(|| "no verdict".to_owned(), ToString::to_string)
    }

    /// What else there is to say of how it ended, on one line.
    #[must_use]
    pub fn particulars(&self) -> String {
        let why = self.verdict.as_ref().map(|verdict| one_line(&verdict.why())).unwrap_or_default();
        let took = self.seconds.map(|seconds| format!("in {}", human_seconds(seconds))).unwrap_or_default();
        if why.is_empty() { took } else { why }
    }

    /// After what time it ended, to follow a verdict: empty where that is unknown.
    pub(crate) fn after(&self) -> String {
        self.seconds.map(|seconds| format!(" after {}", human_seconds(seconds))).unwrap_or_default()
    }

    /// The last lines it printed, so many of those that are kept. Not yet clean.
    pub(crate) fn last_lines(&self, count: usize) -> impl Iterator<Item = &String> {
        self.tail.iter().skip(self.tail.len().saturating_sub(count))
    }
}

/// The verdict of a target that looks like that of an action.
pub(crate) fn kind_of(verdict: Option<&ActionVerdict>) -> VerdictKind {
    match verdict {
        Some(ActionVerdict::Done) => VerdictKind::Built,
        Some(ActionVerdict::Failed { .. }) | None => VerdictKind::Failed,
        Some(ActionVerdict::Blocked { .. }) => VerdictKind::Blocked,
        Some(ActionVerdict::Skipped { .. }) => VerdictKind::Skipped,
        Some(ActionVerdict::Cancelled) => VerdictKind::Cancelled,
    }
}

/// The actions that failed, in their order.
pub(crate) fn failed_actions(summary: &Summary) -> impl Iterator<Item = &ActionState> {
    summary.actions.values().filter(|state| matches!(state.verdict, Some(ActionVerdict::Failed { .. })))
}

/// How many actions there are, and how they ended, in words; nothing where there are none.
pub(crate) fn count_words(summary: &Summary) -> Option<String> {
    let count = summary.actions.len();
    if count == 0 {
        return None;
    }
    let mut counts: Vec<(String, usize)> = Vec::new();
    for state in summary.actions.values() {
        let word = state.word();
        match counts.iter_mut().find(|(other, _)| *other == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let parts: Vec<String> = counts.into_iter().map(|(word, count)| format!("{count} {word}")).collect();
    Some(format!("{count} {}: {}", plural(count, "action"), parts.join(", ")))
}
