//! From the records of a ledger to the verdicts of a run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use phoenix_model::{Event, Logged, Stamp, StorePath};

use super::board::{Board, Effect, Limits};
use super::plan::FarmPlan;
use super::record::{Built, Outcome, Record, Returned, Slot};
use crate::run::{BuilderEnd, Happening, Run};

/// Watches a ledger and tells a [`Run`] what the workers did, so that a farm's targets get their verdicts by
/// the rules of every run, and its reports are made from the same events. Of logs it tells nothing: they come otherwise.
#[derive(Debug)]
pub struct Collector {
    board: Board,
    built: HashSet<u32>,
    told: HashSet<u32>,
    /// What was built of units that were given back, and by whom.
    partly: HashMap<u32, (Built, Slot)>,
}

impl Collector {
    /// A collector that has seen nothing yet. The run is to be told the plan that `plan` was made from.
    #[must_use]
    pub fn new(plan: &Arc<FarmPlan>, limits: Limits) -> Self {
        let board = Board::new(plan, Vec::new(), limits);
        let told = board.failed().keys().copied().collect();
        Self { board, built: HashSet::new(), told, partly: HashMap::new() }
    }

    /// Whether everything has come to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.board.is_over() || self.board.is_tripped()
    }

    /// What it knows.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Takes in records that were seen now; returns the events that follow, each with the time that it happened at by the
    /// clock of who told of it, or now.
    pub fn news(&mut self, now: Stamp, records: &[Record], run: &mut Run) -> Vec<Logged> {
        let mut events = Vec::new();
        for record in records {
            let effect = self.board.apply(now, record);
            match record {
                Record::Outcome(outcome) if effect == Effect::Settled => {
                    self.outcome(now, outcome, run, &mut events);
                }
                Record::Returned(returned) => self.returned(returned),
                _ => {}
            }
            self.failures(now, run, &mut events);
        }
        events
    }

    /// Nothing more will come: whatever has no verdict gets one now. `why` says what happened to what nobody
    /// built, as in "no runner was left"; it is not read when all is well.
    pub fn close(&mut self, now: Stamp, why: &str, run: &mut Run) -> Vec<Logged> {
        let mut events = Vec::new();
        // Nobody took up what was begun.
        let mut partly: Vec<(Built, Slot)> = self.partly.values().copied().collect();
        partly.sort_unstable_by_key(|(built, _)| built.derivation);
        for (built, slot) in partly {
            self.was_built(now, built, slot, run, &mut events);
        }
        let in_vain = self.board.plan().in_vain();
        let all = (0..).zip(in_vain).all(|(position, in_vain)| in_vain || self.built.contains(&position));
        let end = BuilderEnd {
            signal: None,
            // There is no one Nix whose exit code could tell more.
            exit_code: all.then_some(0),
            valid: self.built.clone(),
            realised: HashSet::new(),
            hindered: BTreeMap::new(),
            last_words: why.to_owned(),
        };
        events.extend(at(now, run.apply(now, Happening::BuilderEnded(end))));
        events
    }

    fn returned(&mut self, returned: &Returned) {
        for built in &returned.built {
            let known = self.partly.entry(built.derivation).or_insert((*built, returned.slot));
            // Who found it there did not build it.
            if known.0.cached {
                *known = (*built, returned.slot);
            }
        }
    }

    fn was_built(&mut self, now: Stamp, built: Built, slot: Slot, run: &mut Run, events: &mut Vec<Logged>) {
        // What failed elsewhere by another account failed.
        if self.told.insert(built.derivation)
            && let Some(drv_path) = self.drv_path(built.derivation)
        {
            self.built.insert(built.derivation);
            let ended = then(built.ended, now);
            if !built.cached {
                events.extend(started(ended, &drv_path, built.seconds, slot, run));
            }
            events.extend(at(ended, run.apply(ended, Happening::Appeared { drv_path })));
        }
    }

    fn outcome(&mut self, now: Stamp, outcome: &Outcome, run: &mut Run, events: &mut Vec<Logged>) {
        for built in &outcome.built {
            let before = self.partly.get(&built.derivation).copied().filter(|(before, _)| !before.cached);
            let (built, slot) = before.unwrap_or((*built, outcome.slot));
            self.was_built(now, built, slot, run, events);
        }
        for failure in &outcome.failed {
            if !self.told.contains(&failure.derivation)
                && let Some(drv_path) = self.drv_path(failure.derivation)
            {
                let ended = then(failure.ended, now);
                events.extend(started(ended, &drv_path, failure.seconds, outcome.slot, run));
            }
        }
    }

    fn failures(&mut self, now: Stamp, run: &mut Run, events: &mut Vec<Logged>) {
        if self.board.failed().len() + self.built.len() == self.told.len() {
            return;
        }
        for failure in self.board.failed().values() {
            if self.told.insert(failure.derivation)
                && let Some(drv_path) = self.drv_path(failure.derivation)
            {
                let (class, message) = (failure.class, failure.message.clone());
                let ended = then(failure.ended, now);
                events
                    .extend(at(ended, run.apply(ended, Happening::BuildFailed { drv_path, class, message })));
            }
        }
    }

    fn drv_path(&self, derivation: u32) -> Option<StorePath> {
        Some(self.board.plan().derivations().get(derivation as usize)?.drv_path.clone())
    }
}

/// When something happened that is heard of now: clocks differ, and nothing that is known is yet to come.
fn then(told: Option<Stamp>, now: Stamp) -> Stamp {
    told.map_or(now, |told| told.min(now))
}

fn at(at: Stamp, events: Vec<Event>) -> impl Iterator<Item = Logged> {
    events.into_iter().map(move |event| Logged { at, event })
}

/// The events of a build that took so many seconds.
fn started(ended: Stamp, drv_path: &StorePath, seconds: f64, slot: Slot, run: &mut Run) -> Vec<Logged> {
    let begun = ended.before_seconds(seconds);
    let machine = format!("runner {}", slot.0);
    let happening = Happening::BuildStarted { drv_path: drv_path.clone(), machine };
    at(begun, run.apply(begun, happening)).collect()
}
