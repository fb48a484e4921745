//! Actions as whoever collects outcomes sees them.

use std::collections::BTreeSet;

use phoenix_model::{Action, ActionId, ActionVerdict, Event};
use phoenix_schedule::farm::Acted;
use phoenix_schedule::{Actions, Readiness, Run};

use super::super::collecting::Collecting;
use crate::recorder::{Recorder, now};

/// The actions of a plan, as whoever collects outcomes sees them.
pub(crate) struct ActionsSeen {
    actions: Actions,
    told: BTreeSet<ActionId>,
}

impl ActionsSeen {
    pub(crate) fn new(actions: Vec<(Action, Option<ActionVerdict>)>, recorder: &mut Recorder) -> Self {
        for (action, verdict) in &actions {
            recorder.record(Event::ActionFound { action: action.clone() });
            if let Some(verdict) = verdict.clone() {
                recorder.record(Event::ActionSettled {
                    action: action.id,
                    verdict,
                    seconds: None,
                    log: None,
                });
            }
        }
        Self { actions: Actions::new(actions), told: BTreeSet::new() }
    }

    pub(crate) fn are_over(&self) -> bool {
        self.actions.are_over()
    }

    /// Takes in what is known of them by now.
    pub(crate) fn look(&mut self, collecting: &mut Collecting, run: &Run, recorder: &mut Recorder) {
        for (id, Acted { verdict, seconds, log, ended }) in collecting.take_acted() {
            // Clocks differ, and nothing that is known is yet to come.
            let ended = ended.map_or_else(now, |ended| ended.min(now()));
            if let Some(seconds) = seconds
                && self.told.insert(id)
            {
                recorder.record_at(ended.before_seconds(seconds), Event::ActionStarted { action: id });
            }
            if self.actions.ended(id, verdict.clone()) {
                for line in log {
                    recorder.record_at(ended, Event::ActionLine { action: id, line });
                }
                recorder.record_at(ended, Event::ActionSettled { action: id, verdict, seconds, log: None });
            }
        }
        for &id in collecting.acting() {
            self.actions.started(id);
            if self.actions.verdict(id).is_none() && self.told.insert(id) {
                recorder.record(Event::ActionStarted { action: id });
            }
        }
        self.settle_unrun(run, recorder);
    }

    /// Gives those that will never run their verdicts.
    fn settle_unrun(&mut self, run: &Run, recorder: &mut Recorder) {
        while let Some((id, Readiness::Ended(verdict))) = self.next(run, recorder) {
            self.actions.ended(id, verdict.clone());
            recorder.record(Event::ActionSettled { action: id, verdict, seconds: None, log: None });
        }
    }

    /// Nothing more will come; whether all went well.
    pub(crate) fn close(&mut self, why: &str, run: &Run, recorder: &mut Recorder) -> bool {
        self.settle_unrun(run, recorder);
        let verdict = if run.is_cancelled() {
            ActionVerdict::Cancelled
        } else {
            let why = why.strip_suffix(", and it is not built").unwrap_or(why);
            ActionVerdict::Failed {
                message: format!(
                    "no runner ran it to its end ({why}); `phoenix work` in a slot runs what was not begun"
                ),
            }
        };
        for (action, verdict) in self.actions.close(&verdict) {
            recorder.record(Event::ActionSettled { action, verdict, seconds: None, log: None });
        }
        !self.actions.any_red()
    }

    fn next(&self, run: &Run, recorder: &Recorder) -> Option<(ActionId, Readiness)> {
        let summary = recorder.summary();
        self.actions.next(|id| {
            let name = summary.targets.get(&id).map(|state| summary.shown(&state.target));
            (name.unwrap_or_default(), run.verdict(id))
        })
    }
}
