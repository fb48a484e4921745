//! From what workers write in a ledger to the verdicts of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use phoenix_model::{ActionId, Logged, Severity, StorePath};
use phoenix_schedule::Run;
use phoenix_schedule::farm::{Acted, Collector, FarmPlan, Limits, Outcome, Record, Slot, UnitId, action_of};
use phoenix_work::{Cursor, Ledger, LedgerError};
use tokio::runtime::Runtime;

use super::listed::Listed;
use super::unsaved::Unsaved;
use crate::error::CommandError;
use crate::ledgers::{self, PlanMark};
use crate::recorder::{Recorder, now};

/// Somebody who watches the ledger of a farm.
pub(crate) struct Collecting {
    runtime: Runtime,
    ledger: Box<dyn Ledger>,
    cursor: Cursor,
    collector: Collector,
    /// Who has begun to work, and who has ended.
    joined: BTreeSet<Slot>,
    left: BTreeSet<Slot>,
    /// Who left because the ledger took no more of it.
    spent: BTreeSet<Slot>,
    /// Who claimed what that was not given back, by unit and attempt; and what was given back.
    claims: BTreeMap<(u32, u32), Slot>,
    returned: BTreeSet<(u32, u32)>,
    /// Who gave units back because they were told to stop, and why.
    stopped: BTreeMap<UnitId, (Slot, String)>,
    /// The actions that somebody began, and how those ended that did.
    acting: BTreeSet<ActionId>,
    acted: Vec<(ActionId, Acted)>,
    /// Where derivations failed, and how their logs end.
    failed: BTreeMap<StorePath, (Slot, Vec<String>)>,
    /// How many bytes the outputs of derivations have.
    sizes: BTreeMap<StorePath, u64>,
    /// How often the ledger is to be looked at: at first, and when nothing happens for long.
    pace: (Duration, Duration),
    /// That it does not answer was said.
    told: bool,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// So many records that were new.
    New(usize),
    /// The ledger did not answer.
    NoAnswer,
}

/// Begins to watch.
pub(crate) fn collect(
    url: &str,
    mark: &PlanMark,
    plan: &Arc<FarmPlan>,
    limits: Limits,
) -> Result<Collecting, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CommandError::because("cannot start", &error))?;
    let ledger = runtime.block_on(ledgers::open(url, mark))?;
    let (shortest, longest) = limits.poll_seconds;
    Ok(Collecting {
        runtime,
        ledger,
        cursor: Cursor::default(),
        collector: Collector::new(plan, limits),
        joined: BTreeSet::new(),
        left: BTreeSet::new(),
        spent: BTreeSet::new(),
        claims: BTreeMap::new(),
        returned: BTreeSet::new(),
        stopped: BTreeMap::new(),
        acting: BTreeSet::new(),
        acted: Vec::new(),
        failed: BTreeMap::new(),
        sizes: BTreeMap::new(),
        pace: (Duration::from_secs_f64(shortest), Duration::from_secs_f64(longest)),
        told: false,
    })
}

impl Collecting {
    /// The same, of whose own claims this list tells.
    pub(crate) fn listed(mut self, list: Unsaved) -> Self {
        self.ledger = Box::new(Listed::new(self.ledger, list));
        self
    }

    /// Whether everything has come to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.collector.is_over()
    }

    /// Whether so many workers, which is all, have begun.
    pub(crate) fn have_all_begun(&self, workers: usize) -> bool {
        self.joined.len() >= workers
    }

    /// Whether so many workers, which is all, have begun and ended.
    pub(crate) fn have_all_left(&self, workers: usize) -> bool {
        self.joined.len() >= workers && self.have_left()
    }

    /// Whether all who began have ended. Records come in any order, so that a claim may come after the end of who made
    /// it; but who holds a unit that is open was started again.
    fn have_left(&self) -> bool {
        let open = self.claims.iter().filter(|((unit, _), _)| self.is_open(UnitId(*unit)));
        let at_work: BTreeSet<&Slot> = open.map(|(_, slot)| slot).collect();
        self.joined.iter().all(|slot| self.left.contains(slot) && !at_work.contains(slot))
    }

    /// Who was told to stop and left something that nobody has taken since, and why.
    pub(crate) fn stopped(&self) -> Option<String> {
        let is_taken = |unit: UnitId| self.claims.keys().any(|(claimed, _)| *claimed == unit.0);
        let mut left = self.stopped.iter().filter(|(unit, _)| self.is_open(**unit) && !is_taken(**unit));
        left.next().map(|(_, (slot, reason))| format!("runner {}: {reason}", slot.0))
    }

    /// How many workers left because the ledger took no more of them.
    pub(crate) fn spent(&self) -> usize {
        self.spent.len()
    }

    /// How often the ledger is to be looked at: at first, and when nothing happens for long.
    pub(crate) fn pace(&self) -> (Duration, Duration) {
        self.pace
    }

    /// How many bytes the outputs of derivations have, as far as workers told.
    pub(crate) fn sizes(&self) -> &BTreeMap<StorePath, u64> {
        &self.sizes
    }

    /// Takes in what is new.
    pub(crate) fn look(&mut self, run: &mut Run, recorder: &mut Recorder) -> Seen {
        self.look_after(run, recorder, &mut |_, _| {})
    }

    /// Takes in what is new without telling of it.
    pub(crate) fn look_quietly(&mut self, run: &mut Run, recorder: &mut Recorder) -> Seen {
        self.look_and(run, recorder, &mut |_, _| {}, &mut |_, _| {})
    }

    /// Takes in what is new, after something that has to be known before it.
    pub(crate) fn look_after(
        &mut self,
        run: &mut Run,
        recorder: &mut Recorder,
        before: &mut dyn FnMut(&mut Recorder, &[Record]),
    ) -> Seen {
        let mut tell = |recorder: &mut Recorder, events| recorder.take_in(events);
        self.look_and(run, recorder, before, &mut tell)
    }

    fn look_and(
        &mut self,
        run: &mut Run,
        recorder: &mut Recorder,
        before: &mut dyn FnMut(&mut Recorder, &[Record]),
        tell: &mut dyn FnMut(&mut Recorder, Vec<Logged>),
    ) -> Seen {
        let (ledger, cursor) = (&self.ledger, &mut self.cursor);
        match self.runtime.block_on(ledger.since(cursor)) {
            Ok(records) => {
                self.told = false;
                before(recorder, &records);
                for record in &records {
                    self.take_in(record);
                }
                let events = self.collector.news(now(), &records, run);
                tell(recorder, events);
                Seen::New(records.len())
            }
            Err(error) => {
                self.say(&error, recorder);
                Seen::NoAnswer
            }
        }
    }

    /// Takes in what a record says of workers and actions; what it says of builds, the collector does.
    fn take_in(&mut self, record: &Record) {
        let plan = self.collector.board().plan();
        let drv_path = |derivation: u32| {
            plan.derivations().get(derivation as usize).map(|derivation| derivation.drv_path.clone())
        };
        let sizes =
            record.built().iter().filter_map(|built| Some((drv_path(built.derivation)?, built.bytes?)));
        self.sizes.extend(sizes);
        match record {
            Record::Joined { slot } => {
                self.joined.insert(*slot);
            }
            Record::Left { slot, spent } => {
                self.left.insert(*slot);
                if *spent {
                    self.spent.insert(*slot);
                }
            }
            Record::Claim { unit, attempt, slot } => {
                self.joined.insert(*slot);
                let claim = (unit.0, *attempt);
                match action_of(plan, *unit) {
                    // Who claims an action has built what it can, and left the rest.
                    Some(action) => {
                        self.acting.insert(action);
                    }
                    None if self.returned.contains(&claim) => {}
                    None => {
                        self.claims.insert(claim, *slot);
                    }
                }
            }
            Record::Returned(returned) => {
                let claim = (returned.unit.0, returned.attempt);
                self.claims.remove(&claim);
                self.returned.insert(claim);
                if returned.stopped {
                    self.stopped.insert(returned.unit, (returned.slot, returned.reason.clone()));
                }
            }
            Record::Outcome(Outcome { unit, slot, failed, action, .. }) => {
                let failed = failed.iter();
                self.failed.extend(failed.filter_map(|failure| {
                    Some((drv_path(failure.derivation)?, (*slot, failure.log.clone())))
                }));
                self.acted.extend(action_of(plan, *unit).zip(action.clone()));
            }
        }
    }

    /// The ledger, and where it is asked.
    pub(crate) fn ledger(&self) -> (&Runtime, &dyn Ledger) {
        (&self.runtime, self.ledger.as_ref())
    }

    /// The actions that somebody began.
    pub(crate) fn acting(&self) -> &BTreeSet<ActionId> {
        &self.acting
    }

    /// Where a derivation failed, and how its log ends.
    pub(crate) fn failed_at(&self, drv_path: &StorePath) -> Option<&(Slot, Vec<String>)> {
        self.failed.get(drv_path)
    }

    /// How actions ended of which that is known since it was asked.
    pub(crate) fn take_acted(&mut self) -> Vec<(ActionId, Acted)> {
        std::mem::take(&mut self.acted)
    }

    /// The heartbeats of all workers; none when there is no answer.
    pub(crate) fn beats(&mut self, recorder: &mut Recorder) -> Vec<(Slot, u64)> {
        match self.runtime.block_on(self.ledger.beats()) {
            Ok(beats) => beats,
            Err(error) => {
                self.say(&error, recorder);
                Vec::new()
            }
        }
    }

    /// Removes what the ledger would leave behind, once nobody reads it any more. Workers who look at it now and
    /// then find that all is over and go; one that does not was lost.
    pub(crate) fn discard(&mut self, run: &mut Run, recorder: &mut Recorder) {
        if !self.ledger.leaves_something() {
            return;
        }
        let patience = self.pace.1 * 2;
        let begun = Instant::now();
        while !self.have_left() && begun.elapsed() < patience {
            std::thread::sleep(self.pace.0);
            self.look(run, recorder);
        }
        if let Err(error) = self.runtime.block_on(self.ledger.discard()) {
            recorder.say(Severity::Warning, format!("{error}; what is left goes by itself after a day"));
        }
    }

    fn say(&mut self, error: &LedgerError, recorder: &mut Recorder) {
        if !std::mem::replace(&mut self.told, true) {
            recorder.say(Severity::Warning, format!("{error}; it is asked again"));
        }
    }

    /// Whether a unit has not ended.
    pub(crate) fn is_open(&self, unit: UnitId) -> bool {
        let board = self.collector.board();
        !board.is_tripped() && !board.is_settled(unit.0)
    }

    /// Nothing more is waited for: gives what has no verdict one, without telling of it.
    pub(crate) fn close_quietly(&mut self, run: &mut Run) {
        drop(self.collector.close(now(), "it is not waited for", run));
    }

    /// Nothing more will come: gives what has no verdict one.
    pub(crate) fn close(&mut self, why: &str, run: &mut Run, recorder: &mut Recorder) {
        let events = self.collector.close(now(), why, run);
        recorder.take_in(events);
    }
}
