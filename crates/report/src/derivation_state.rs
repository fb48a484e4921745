//! What is known of a derivation of the plan, and how far all of them are.

use std::collections::VecDeque;

use phoenix_model::{PlannedDerivation, SettledDerivation, Stamp, StorePath, Verdict};

use crate::clean::clip;
use crate::human_seconds;

/// How many of the last lines of a log are kept.
pub const TAIL_LINES: usize = 25;

/// How many characters of such a line are kept; whoever wants more has the log.
const LINE_LENGTH: usize = 4096;

/// What is known of a derivation of the plan.
#[derive(Debug, Clone)]
pub struct DerivationState {
    /// What was planned.
    pub planned: PlannedDerivation,
    /// When it was started.
    pub started: Option<Stamp>,
    /// Whether its builder has ended without Nix having said how.
    pub ended: bool,
    /// Where it runs; empty for this machine.
    pub machine: String,
    /// What it is doing.
    pub phase: Option<String>,
    /// Its verdict, once it has one.
    pub verdict: Option<Verdict>,
    /// When it was known how it ended.
    pub settled: Option<Stamp>,
    /// How long its builder ran.
    pub seconds: Option<f64>,
    /// The file with its log.
    pub log: Option<String>,
    /// The last lines of its log, as they were printed; dropped when it ends well.
    pub tail: VecDeque<String>,
}

/// How far the derivations of the plan are: each is counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Built, or fetched after all.
    pub done: usize,
    /// Failed themselves.
    pub failed: usize,
    /// Ended without being built, or is going to, because something it needs did: blocked, cancelled, skipped.
    pub stopped: usize,
    /// Started and not ended.
    pub running: usize,
    /// Neither started nor ended.
    pub waiting: usize,
}

impl DerivationState {
    pub(crate) fn new(planned: PlannedDerivation) -> Self {
        Self {
            planned,
            started: None,
            ended: false,
            machine: String::new(),
            phase: None,
            verdict: None,
            settled: None,
            seconds: None,
            log: None,
            tail: VecDeque::new(),
        }
    }

    /// One that no plan is known of: the plan is missing from the events, or comes later.
    pub(crate) fn unplanned(drv_path: StorePath) -> Self {
        Self::new(PlannedDerivation {
            drv_path,
            system: String::new(),
            inputs: Vec::new(),
            estimate: 0.0,
            unknown: false,
            fixed_output: false,
        })
    }

    pub(crate) fn start(&mut self, at: Stamp, machine: &str) {
        if self.started.is_some() {
            // The lines are those of the last attempt, as in Nix's own log.
            self.tail.clear();
        }
        self.started.get_or_insert(at);
        self.ended = false;
        machine.clone_into(&mut self.machine);
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn log_line(&mut self, line: &str) {
        if self.verdict.as_ref().is_some_and(|verdict| !verdict.is_red()) {
            return;
        }
        // The oldest line's memory serves the newest: a million lines are a million copies, no more.
        let full = self.tail.len() >= TAIL_LINES;
        let mut kept = if full { self.tail.pop_front() } else { None }.unwrap_or_default();
        kept.clear();
        kept.push_str(&clip(line, LINE_LENGTH));
        self.tail.push_back(kept);
    }

    /// Takes in how it ended. It ends once; where events disagree, what is red stands.
    pub(crate) fn settle(&mut self, at: Stamp, settled: &SettledDerivation) {
        if !settle(&mut self.verdict, &settled.verdict) {
            return;
        }
        self.settled = Some(at);
        self.seconds = settled.seconds;
        self.log.clone_from(&settled.log);
        if !settled.verdict.is_red() {
            self.tail = VecDeque::new();
        }
    }

    /// ` after 2.0s`, where it is known how long it took.
    pub(crate) fn after(&self) -> String {
        self.seconds.map(|seconds| format!(" after {}", human_seconds(seconds))).unwrap_or_default()
    }

    /// The last lines of its log, so many of those that are kept. Not yet clean.
    pub(crate) fn last_lines(&self, count: usize) -> impl Iterator<Item = &String> {
        self.tail.iter().skip(self.tail.len().saturating_sub(count))
    }

    /// How long it has been running, if it is.
    pub(crate) fn running_for(&self, now: Stamp) -> Option<f64> {
        if self.verdict.is_some() || self.ended {
            return None;
        }
        self.started.map(|started| now.seconds_since(started))
    }
}

/// Puts a verdict where there is none, a red one in the place of one that is not, or "built" in the place of what a
/// substituter promised. Says whether it did.
pub(crate) fn settle(slot: &mut Option<Verdict>, verdict: &Verdict) -> bool {
    let kept = |old: &Verdict| *verdict != Verdict::Built || !matches!(old, Verdict::Cached { .. });
    let new = slot.as_ref().is_none_or(|old| verdict.is_red() && !old.is_red() || !kept(old));
    if new {
        *slot = Some(verdict.clone());
    }
    new
}

/// Which derivations of a plan failed or need something that did. Inputs come before what needs them.
pub(crate) fn hindered(derivations: &[DerivationState]) -> Vec<bool> {
    let mut hindered = vec![false; derivations.len()];
    for (index, state) in derivations.iter().enumerate() {
        hindered[index] = match &state.verdict {
            Some(verdict) => verdict.is_red(),
            None => state.planned.inputs.iter().any(|&input| hindered[input as usize]),
        };
    }
    hindered
}

impl Progress {
    pub(crate) fn of(derivations: &[DerivationState]) -> Self {
        let mut progress = Self::default();
        for (state, hindered) in derivations.iter().zip(hindered(derivations)) {
            *match (&state.verdict, state.started) {
                (Some(Verdict::Built | Verdict::Cached { .. }), _) => &mut progress.done,
                (Some(Verdict::Failed { .. }), _) => &mut progress.failed,
                (Some(_), _) => &mut progress.stopped,
                (None, Some(_)) => &mut progress.running,
                (None, None) if hindered => &mut progress.stopped,
                (None, None) => &mut progress.waiting,
            } += 1;
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::drv;

    #[test]
    fn only_the_end_of_a_log_is_kept_and_only_the_beginning_of_a_line() {
        let mut state = DerivationState::unplanned(drv("a"));
        for number in 0..1000 {
            state.log_line(&format!("line {number}"));
        }
        state.log_line(&"é".repeat(1_000_000));
        assert_eq!(state.tail.len(), TAIL_LINES);
        assert_eq!((state.tail[0].as_str(), state.tail[23].as_str()), ("line 976", "line 999"));
        assert_eq!(state.tail[24].chars().count(), LINE_LENGTH + 1);
    }

    #[test]
    fn a_log_goes_when_its_build_ends_well_and_what_comes_late_is_not_kept() {
        let mut state = DerivationState::unplanned(drv("a"));
        state.log_line("line");
        let seconds = Some(1.0);
        let built = SettledDerivation { drv_path: drv("a"), verdict: Verdict::Built, seconds, log: None };
        state.settle(Stamp(1), &built);
        state.log_line("late");
        assert!(state.tail.is_empty());
    }

    #[test]
    fn a_log_is_that_of_the_last_attempt() {
        let mut state = DerivationState::unplanned(drv("a"));
        state.log_line("told before it was begun");
        for attempt in ["first", "second"] {
            state.start(Stamp(1), "");
            state.log_line(attempt);
        }
        assert_eq!(state.tail, ["second"]);
    }

    #[test]
    fn red_stands_where_events_disagree() {
        for order in [[Verdict::Built, Verdict::Cancelled], [Verdict::Cancelled, Verdict::Built]] {
            let mut slot = None;
            for verdict in order {
                settle(&mut slot, &verdict);
            }
            assert_eq!(slot, Some(Verdict::Cancelled));
        }
    }
}
