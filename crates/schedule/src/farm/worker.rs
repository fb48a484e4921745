//! What a worker does next.

use std::sync::Arc;

use phoenix_model::{FailureClass, Stamp};

use super::board::{Board, Limits};
use super::forecast::more_than;
use super::plan::FarmPlan;
use super::record::{Built, Ends, Failure, Outcome, Record, Returned, Slot, UnitId};

/// What a worker is told.
#[derive(Debug, Clone)]
pub enum Notice<'a> {
    /// It begins, or the time that [`Command::Wait`] named has come.
    Woken,
    /// The records of the ledger that it was not told before: the answer to [`Command::Look`], and welcome
    /// while it builds.
    News(&'a [Record]),
    /// The counters of all workers' heartbeats: the answer to [`Command::Listen`].
    Beats(&'a [(Slot, u64)]),
    /// The unit that it wanted is its own.
    Claimed,
    /// Somebody else has the unit that it wanted.
    Taken,
    /// All that its unit needs is here.
    Fetched,
    /// The derivations of its unit came to their end.
    Built {
        /// What was built.
        built: Vec<Built>,
        /// What failed by its own fault.
        failed: Vec<Failure>,
        /// Where others find the outputs.
        parcel: Option<String>,
    },
    /// Fetching or building was broken off by something that is not the unit's fault, or by
    /// [`Command::Abandon`].
    Interrupted {
        /// What.
        reason: String,
        /// What came of the unit all the same. A derivation that failed by the fault of the machine is among what
        /// failed ([`FailureClass::is_of_machine`]).
        ends: Ends,
    },
    /// The record of [`Command::Post`] is in the ledger; or, with `first` false, one that stands before it is.
    Posted {
        /// Whether it is the first of its kind.
        first: bool,
    },
    /// It is to end.
    Stop {
        /// Why: a signal's name, a time limit.
        reason: String,
    },
    /// The ledger takes no more claims of this worker: the unit that it wanted is not its own.
    Spent {
        /// Which limit it is, and what would help.
        reason: String,
    },
    /// The ledger cannot be reached any more.
    LedgerLost {
        /// What is wrong with it.
        reason: String,
    },
}

/// What a worker wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Read what is new in the ledger.
    Look,
    /// Read all workers' heartbeats.
    Listen,
    /// Write a record of which nobody waits for the answer.
    Tell(Record),
    /// Try to take a unit.
    Claim {
        /// The unit.
        unit: UnitId,
        /// How often it was taken, this time included.
        attempt: u32,
    },
    /// Bring what a unit needs.
    Fetch {
        /// The unit.
        unit: UnitId,
        /// The positions of the derivations that are to be built, inputs first.
        derivations: Vec<u32>,
    },
    /// Build them.
    Build {
        /// The unit.
        unit: UnitId,
        /// The positions of the derivations, inputs first.
        derivations: Vec<u32>,
    },
    /// Break off what is being fetched or built, put where others find it what is already built, and say
    /// [`Notice::Interrupted`].
    Abandon {
        /// The unit.
        unit: UnitId,
    },
    /// Write a record, and say whether it is the first of its kind.
    Post(Record),
    /// Nothing to do until then: say [`Notice::Woken`].
    Wait {
        /// When.
        until: Stamp,
    },
    /// There is nothing more to do here.
    Leave(Leaving),
}

/// Why a worker leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaving {
    /// All that it could build has ended.
    Done,
    /// All that it could build has ended, and something that it gave back was built by nobody. Why it could not.
    GivenUp(String),
    /// Others will do the rest without waiting for it.
    NotNeeded,
    /// A failure ended the run.
    FailFast,
    /// It was told to.
    Stopped(String),
    /// What it waits for does not come, and nobody is heard of.
    Stranded,
    /// It could not build anything, for reasons that are not the units'.
    Unfit(String),
    /// The ledger takes no more claims of it.
    Spent {
        /// Which limit it is, and what would help.
        reason: String,
        /// Whether another worker, which is red if it cannot either, may do the rest.
        others: bool,
    },
    /// The ledger cannot be reached.
    LedgerLost(String),
}

/// One worker of a farm: told what happens, it says what to do.
#[derive(Debug, Clone)]
pub struct Worker {
    slot: Slot,
    /// Of each slot whether its worker builds the same.
    alike: Vec<bool>,
    board: Board,
    doing: Doing,
    joined: bool,
    /// What is being written.
    posting: Option<Record>,
    /// Polls since anything was new.
    quiet: i32,
    /// When anything was new, or anybody was at work.
    last_life: Stamp,
    listened: Stamp,
    refused: u32,
    /// How often there were units, but fewer than idle workers before it.
    passed_over: usize,
    idle_since: Option<Stamp>,
    forecast_at: Stamp,
    forecast_gap: f64,
    /// How many units it gave back since it last built one.
    returned_in_row: u32,
    /// Since when it knows that it could not build what it took.
    unfit_since: Option<Stamp>,
    stopping: Option<String>,
    /// The units that it is there for, when it is not for all: it stays until they have ended.
    own: Vec<u32>,
    /// Those, and all that they need: of each unit whether it builds it. Empty when it builds all that it can.
    needed: Vec<bool>,
    /// Why it could not build what nobody else could, when it was the last to try.
    gave_up: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Looking,
    Listening,
    Claiming(u32, u32),
    Fetching(u32, u32),
    Building(u32, u32),
    Abandoning(u32, u32),
    Posting,
    Gone,
}

/// A worker that had to give back so many units one after another is itself what is wrong.
const UNFIT_AFTER: u32 = 2;

/// So many workers more than will be needed stay: one may die.
const SPARE: f64 = 1.0;

/// As long as there are so many units for each worker, there is no thought of leaving.
const PLENTY: usize = 100;

/// How many seconds are at most between two thoughts about leaving, when little is left.
const LONGEST_GAP: f64 = 600.0;

/// An idle worker waits longer by the shortest pause for each so many others who are before it.
const LINE_STEP: f64 = 4.0;

/// For how many seconds a worker is idle before it thinks about leaving.
const IDLE_SECONDS: f64 = 30.0;

impl Worker {
    /// The worker in a slot of a plan, before it begins.
    #[must_use]
    pub fn new(plan: &Arc<FarmPlan>, slot: Slot, limits: Limits) -> Self {
        let takes = plan.slots().get(slot.0 as usize).map(|slot| slot.takes.clone()).unwrap_or_default();
        let alike = plan.slots().iter().map(|other| other.takes == takes).collect();
        Self {
            slot,
            alike,
            board: Board::new(plan, takes, limits),
            doing: Doing::Nothing,
            joined: false,
            posting: None,
            quiet: 0,
            last_life: Stamp::default(),
            listened: Stamp::default(),
            refused: 0,
            passed_over: 0,
            idle_since: None,
            forecast_at: Stamp::default(),
            forecast_gap: 0.0,
            returned_in_row: 0,
            unfit_since: None,
            stopping: None,
            own: Vec::new(),
            needed: Vec::new(),
            gave_up: None,
        }
    }

    /// The same, there for these units: it builds them and what they need, stays until they have ended, whoever builds
    /// them, and no longer.
    #[must_use]
    pub fn for_units(mut self, units: impl IntoIterator<Item = UnitId>) -> Self {
        let all = self.board.plan().units();
        self.own = units.into_iter().map(|unit| unit.0).filter(|&unit| (unit as usize) < all.len()).collect();
        self.own.sort_unstable();
        self.own.dedup();
        self.needed = self.board.plan().needed(self.own.iter().copied());
        self
    }

    /// Whether the units that it is there for have ended, if it is there for some.
    fn has_its_own(&self) -> bool {
        let is_for_some = !self.needed.is_empty();
        is_for_some && self.own.iter().all(|&unit| self.board.is_settled(unit))
    }

    /// Its slot.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// What it knows.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// What it will likely build next, while it builds: what that needs may be fetched already.
    #[must_use]
    pub fn coming(&self, now: Stamp) -> Option<UnitId> {
        let Doing::Building(unit, _) = self.doing else { return None };
        self.board.after(self.slot, unit, &self.alike, now).map(UnitId)
    }

    #[cfg(test)]
    pub(super) fn board_mut(&mut self) -> &mut Board {
        &mut self.board
    }

    /// Takes in what happened at a point in time; returns what is to be done.
    pub fn apply(&mut self, now: Stamp, notice: Notice<'_>) -> Vec<Command> {
        match (self.doing, notice) {
            (Doing::Gone, _) => Vec::new(),
            (Doing::Nothing, Notice::Woken) => self.woken(now),
            (_, Notice::News(records)) => self.news(now, records),
            (doing, Notice::Beats(beats)) => {
                self.board.beats(now, beats);
                if doing == Doing::Listening { self.choose(now) } else { Vec::new() }
            }
            (Doing::Claiming(unit, attempt), Notice::Claimed) => self.claimed(now, unit, attempt),
            (Doing::Claiming(unit, attempt), Notice::Taken) => self.taken(now, unit, attempt),
            (Doing::Fetching(unit, attempt), Notice::Fetched) => self.fetched(unit, attempt),
            (
                Doing::Building(unit, attempt) | Doing::Abandoning(unit, attempt),
                Notice::Built { built, failed, parcel },
            ) => {
                (self.returned_in_row, self.unfit_since) = (0, None);
                self.post_outcome(unit, attempt, Ends { built, failed, parcel })
            }
            (
                Doing::Fetching(unit, attempt)
                | Doing::Building(unit, attempt)
                | Doing::Abandoning(unit, attempt),
                Notice::Interrupted { reason, ends },
            ) => self.interrupted(now, unit, attempt, reason, ends),
            (Doing::Posting, Notice::Posted { first }) => {
                // One that stood before ours comes with the next look.
                if let Some(record) = self.posting.take().filter(|_| first) {
                    self.board.apply(now, &record);
                }
                self.look()
            }
            (_, Notice::Stop { reason }) => self.stop(reason),
            (Doing::Claiming(..), Notice::Spent { reason }) => {
                // Two that are spent at one moment must not each count on the other: the last of them is red, so that what
                // is left can be run again.
                let others = self.needed.is_empty() && self.board.has_lower_like(self.slot);
                self.leave(now, Leaving::Spent { reason, others })
            }
            (_, Notice::LedgerLost { reason }) => {
                self.doing = Doing::Gone;
                vec![Command::Leave(Leaving::LedgerLost(reason))]
            }
            // What comes too late changes nothing any more.
            _ => Vec::new(),
        }
    }

    fn woken(&mut self, now: Stamp) -> Vec<Command> {
        let mut commands = Vec::new();
        if !std::mem::replace(&mut self.joined, true) {
            self.last_life = now;
            self.listened = now;
            let joined = Record::Joined { slot: self.slot };
            self.board.apply(now, &joined);
            commands.push(Command::Tell(joined));
        }
        commands.extend(self.look());
        commands
    }

    fn look(&mut self) -> Vec<Command> {
        self.doing = Doing::Looking;
        vec![Command::Look]
    }

    fn news(&mut self, now: Stamp, records: &[Record]) -> Vec<Command> {
        self.board.read(now, records);
        let mut commands = self.let_go(now);
        if records.is_empty() {
            self.quiet += 1;
        } else {
            self.quiet = 0;
            self.last_life = now;
        }
        match self.doing {
            Doing::Looking => commands.extend(self.choose(now)),
            Doing::Fetching(unit, attempt) | Doing::Building(unit, attempt)
                if self.board.is_tripped() || self.board.is_settled(unit) =>
            {
                self.doing = Doing::Abandoning(unit, attempt);
                commands.push(Command::Abandon { unit: UnitId(unit) });
            }
            _ => {}
        }
        commands
    }

    /// Gives back what a worker that was in this slot before, and died, has claimed: its claims would never
    /// lapse, because this one is alive.
    fn let_go(&mut self, now: Stamp) -> Vec<Command> {
        let own = match (&self.doing, &self.posting) {
            (
                Doing::Claiming(unit, _)
                | Doing::Fetching(unit, _)
                | Doing::Building(unit, _)
                | Doing::Abandoning(unit, _),
                _,
            ) => Some(*unit),
            (_, Some(Record::Outcome(Outcome { unit, .. }) | Record::Returned(Returned { unit, .. }))) => {
                Some(unit.0)
            }
            _ => None,
        };
        let held = self.board.held_besides(self.slot, own);
        let given_back = held.into_iter().map(|(unit, attempt)| {
            // The unit may be what killed it.
            let reason = "its worker was lost, and started again".to_owned();
            Record::Returned(Returned {
                unit: UnitId(unit),
                attempt,
                slot: self.slot,
                reason,
                stopped: false,
                built: Vec::new(),
                parcel: None,
            })
        });
        let given_back: Vec<Record> = given_back.collect();
        for record in &given_back {
            self.board.apply(now, record);
        }
        given_back.into_iter().map(Command::Tell).collect()
    }

    /// Decides what to do when nothing is being done.
    fn choose(&mut self, now: Stamp) -> Vec<Command> {
        if let Some(reason) = self.stopping.clone() {
            return self.leave(now, Leaving::Stopped(reason));
        }
        if self.board.is_tripped() {
            return self.leave(now, Leaving::FailFast);
        }
        if self.has_its_own() {
            return self.leave(now, Leaving::Done);
        }
        if self.board.open_of_mine() == 0 {
            let why = self.gave_up.clone().or_else(|| self.board.given_up_by(self.slot));
            let why = why.map_or(Leaving::Done, Leaving::GivenUp);
            return self.leave(now, why);
        }
        if self.returned_in_row >= UNFIT_AFTER && self.board.has_others_like(self.slot) {
            let since = *self.unfit_since.get_or_insert(now);
            // What others write until then is seen by then, so that of several who would leave at once one stays.
            let settled = 2.0 * self.board.limits().poll_seconds.1;
            if now.seconds_since(since) < settled {
                return self.wait(now);
            }
            if self.board.is_dispensable(self.slot, UNFIT_AFTER) {
                let reason = format!("{UNFIT_AFTER} units in a row could not be built here");
                return self.leave(now, Leaving::Unfit(reason));
            }
        }
        if now.seconds_since(self.listened) >= self.board.limits().lapse_seconds / 2.0 {
            self.listened = now;
            self.doing = Doing::Listening;
            return vec![Command::Listen];
        }
        match self.candidate() {
            Some(unit) if self.board.lost_over(unit) >= self.board.limits().most_lost => self.give_up(unit),
            Some(unit) => {
                let attempt = self.board.next_attempt(unit);
                self.doing = Doing::Claiming(unit, attempt);
                vec![Command::Claim { unit: UnitId(unit), attempt }]
            }
            None => self.idle(now),
        }
    }

    /// The unit that it should try to take. Of several idle workers each tries another one, and those for
    /// whom there is none first wait whether the others get theirs.
    fn candidate(&mut self) -> Option<u32> {
        let (idle_before, _) = self.board.before(self.slot, &self.alike);
        let candidates = || {
            self.board
                .ready()
                .filter(|&unit| !self.board.is_for_others(self.slot, unit))
                .filter(|&unit| self.needed.get(unit as usize).is_none_or(|&needed| needed))
                .take(idle_before + 1)
        };
        let count = candidates().count();
        if count == 0 {
            return None;
        }
        if idle_before < count {
            return candidates().last();
        }
        // The further back, the longer it waits: those before it may be dead, but hardly all of them.
        let turn = self.passed_over + 1 > idle_before / count;
        let chosen = turn.then(|| candidates().nth(idle_before % count)).flatten();
        self.passed_over = if turn { 0 } else { self.passed_over + 1 };
        chosen
    }

    fn idle(&mut self, now: Stamp) -> Vec<Command> {
        let since = *self.idle_since.get_or_insert(now);
        let idle = now.seconds_since(since);
        if self.needed.is_empty() && idle >= IDLE_SECONDS && now >= self.forecast_at {
            return self.stay_or_leave(now);
        }
        self.wait(now)
    }

    /// Leaves if others will do without it.
    fn stay_or_leave(&mut self, now: Stamp) -> Vec<Command> {
        let (idle_before, busy) = self.board.before(self.slot, &self.alike);
        if self.board.open_of_mine() >= PLENTY * (idle_before + busy + 1) {
            self.forecast_at = later(now, LONGEST_GAP);
        } else {
            let before = (idle_before + busy) as f64;
            let Some(needed_in) = more_than(&self.board, now, before - SPARE) else {
                return self.leave(now, Leaving::NotNeeded);
            };
            // A forecast goes through all that is left: the more that is, and the oftener it was in vain, the
            // rarer.
            let least = (self.board.open_count() as f64 / 50.0).max(IDLE_SECONDS);
            self.forecast_gap = (self.forecast_gap * 2.0).clamp(least, (4.0 * least).max(LONGEST_GAP));
            self.forecast_at = later(now, self.forecast_gap.max(needed_in / 2.0));
        }
        self.wait(now)
    }

    fn wait(&mut self, now: Stamp) -> Vec<Command> {
        let limits = *self.board.limits();
        if self.board.somebody_works() {
            self.last_life = now;
        }
        if now.seconds_since(self.last_life) >= limits.stranded_seconds {
            return self.leave(now, Leaving::Stranded);
        }
        let (shortest, longest) = limits.poll_seconds;
        // What comes is for those before it first, so that it need not look as often as they do.
        let (idle_before, _) = self.board.before(self.slot, &self.alike);
        let turn = 1.0 + idle_before as f64 / LINE_STEP;
        let pause = (shortest * turn * 1.5_f64.powi(self.quiet.min(20))).min(longest);
        self.doing = Doing::Nothing;
        vec![Command::Wait { until: later(now, pause) }]
    }

    fn claimed(&mut self, now: Stamp, unit: u32, attempt: u32) -> Vec<Command> {
        self.refused = 0;
        self.passed_over = 0;
        self.idle_since = None;
        let claim = Record::Claim { unit: UnitId(unit), attempt, slot: self.slot };
        self.board.apply(now, &claim);
        if let Some(reason) = self.stopping.clone() {
            return self.give_back(now, unit, attempt, reason, true, Ends::default());
        }
        self.doing = Doing::Fetching(unit, attempt);
        vec![Command::Fetch { unit: UnitId(unit), derivations: self.board.to_build(unit) }]
    }

    fn taken(&mut self, now: Stamp, unit: u32, attempt: u32) -> Vec<Command> {
        self.board.taken(now, unit, attempt);
        self.refused += 1;
        // Whoever is refused often knows too little.
        if self.refused.is_multiple_of(3) { self.look() } else { self.choose(now) }
    }

    fn fetched(&mut self, unit: u32, attempt: u32) -> Vec<Command> {
        self.doing = Doing::Building(unit, attempt);
        vec![Command::Build { unit: UnitId(unit), derivations: self.board.to_build(unit) }]
    }

    fn post_outcome(&mut self, unit: u32, attempt: u32, ends: Ends) -> Vec<Command> {
        let Ends { built, failed, parcel } = self.with_others(unit, ends);
        let (unit, slot) = (UnitId(unit), self.slot);
        self.post(Record::Outcome(Outcome { unit, attempt, slot, built, failed, parcel, action: None }))
    }

    /// What this worker only fetched of a unit was built by those who had it before. Records are seen in any order,
    /// so that each tells all.
    fn with_others(&self, unit: u32, mut ends: Ends) -> Ends {
        for built in ends.built.iter_mut().filter(|built| built.cached) {
            *built = self.board.built_before(unit, built.derivation).unwrap_or(*built);
        }
        ends
    }

    fn post(&mut self, record: Record) -> Vec<Command> {
        self.doing = Doing::Posting;
        self.posting = Some(record.clone());
        vec![Command::Post(record)]
    }

    fn interrupted(
        &mut self,
        now: Stamp,
        unit: u32,
        attempt: u32,
        reason: String,
        ends: Ends,
    ) -> Vec<Command> {
        let told = matches!(self.doing, Doing::Abandoning(..));
        // That a builder was killed says more of the unit than of the machine.
        let was_killed = |failure: &Failure| failure.class == FailureClass::Killed;
        if !told && !ends.failed.iter().any(was_killed) {
            self.returned_in_row += 1;
        }
        if self.board.is_settled(unit) {
            return self.look();
        }
        if !told && self.board.is_last_try(unit) && self.tells_all(unit, &ends) {
            return self.give_up_some(unit, attempt, ends);
        }
        self.give_back(now, unit, attempt, reason, told, ends)
    }

    /// Whether of every derivation of a unit it is known that it is built, or that it, or something that it needs,
    /// has failed.
    fn tells_all(&self, unit: u32, ends: &Ends) -> bool {
        let derivations = self.board.plan().derivations();
        let mut failed: Vec<u32> = ends.failed.iter().map(|failure| failure.derivation).collect();
        self.board.to_build(unit).into_iter().all(|derivation| {
            let inputs = &derivations[derivation as usize].inputs;
            if inputs.iter().any(|input| failed.contains(input)) {
                failed.push(derivation);
            }
            failed.contains(&derivation) || ends.built.iter().any(|built| built.derivation == derivation)
        })
    }

    /// What could not be built here nor elsewhere has failed; the rest of the unit has not.
    fn give_up_some(&mut self, unit: u32, attempt: u32, mut ends: Ends) -> Vec<Command> {
        for failure in ends.failed.iter_mut().filter(|failure| failure.class.is_of_machine()) {
            failure.message = self.board.given_up_words(unit, (self.slot, failure.message.clone()));
            self.gave_up.get_or_insert_with(|| failure.message.clone());
        }
        self.post_outcome(unit, attempt, ends)
    }

    fn give_back(
        &mut self,
        now: Stamp,
        unit: u32,
        attempt: u32,
        reason: String,
        stopped: bool,
        ends: Ends,
    ) -> Vec<Command> {
        let Ends { built, parcel, .. } = self.with_others(unit, ends);
        let (unit, slot) = (UnitId(unit), self.slot);
        let record = Record::Returned(Returned { unit, attempt, slot, reason, stopped, built, parcel });
        self.board.apply(now, &record);
        self.post(record)
    }

    /// Nobody survived this unit.
    fn give_up(&mut self, unit: u32) -> Vec<Command> {
        let lost = self.board.lost_over(unit);
        let message = format!("given up: {lost} runners were lost while they built it");
        let failed = self.board.to_build(unit).into_iter().map(|derivation| Failure {
            derivation,
            class: FailureClass::Other,
            message: message.clone(),
            seconds: 0.0,
            log: Vec::new(),
            ended: None,
        });
        let outcome = Outcome {
            unit: UnitId(unit),
            attempt: self.board.next_attempt(unit),
            slot: self.slot,
            built: Vec::new(),
            failed: failed.collect(),
            parcel: None,
            action: None,
        };
        self.post(Record::Outcome(outcome))
    }

    fn stop(&mut self, reason: String) -> Vec<Command> {
        self.stopping = Some(reason.clone());
        match self.doing {
            Doing::Fetching(unit, attempt) | Doing::Building(unit, attempt) => {
                self.doing = Doing::Abandoning(unit, attempt);
                vec![Command::Abandon { unit: UnitId(unit) }]
            }
            // A claim that may be ours, and a record that is under way, are waited for.
            Doing::Claiming(..) | Doing::Posting | Doing::Abandoning(..) => Vec::new(),
            Doing::Nothing | Doing::Looking | Doing::Listening | Doing::Gone => {
                self.doing = Doing::Gone;
                vec![
                    Command::Tell(Record::Left { slot: self.slot, spent: false }),
                    Command::Leave(Leaving::Stopped(reason)),
                ]
            }
        }
    }

    fn leave(&mut self, now: Stamp, why: Leaving) -> Vec<Command> {
        self.doing = Doing::Gone;
        let left = Record::Left { slot: self.slot, spent: matches!(why, Leaving::Spent { .. }) };
        self.board.apply(now, &left);
        vec![Command::Tell(left), Command::Leave(why)]
    }
}

fn later(now: Stamp, seconds: f64) -> Stamp {
    // Whole milliseconds, at least one: waiting always comes to an end later.
    Stamp(now.0 + std::time::Duration::from_secs_f64(seconds.clamp(0.001, 1e9)).as_millis() as u64)
}
