//! What is known of a run from the records of its ledger.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use phoenix_model::{FailureClass, Stamp};
use smallvec::SmallVec;

use super::bits::Bits;
use super::plan::FarmPlan;
use super::record::{Built, Failure, Outcome, Record, Returned, Slot, UnitId};
use crate::Hopeless;

/// How patient workers are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// A worker that was not heard of for so many seconds counts as dead, and its claim lapses.
    pub lapse_seconds: f64,
    /// A unit that was given back so often has failed.
    pub most_returned: usize,
    /// A unit over which so many workers were lost has failed: it may be what kills them.
    pub most_lost: usize,
    /// How often an idle worker looks at the ledger: at first, and when nothing happens for long.
    pub poll_seconds: (f64, f64),
    /// A worker that waits for others, of whom none was heard of for so many seconds, goes.
    pub stranded_seconds: f64,
    /// Whether the first failure ends everything.
    pub fail_fast: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lapse_seconds: 90.0,
            most_returned: 3,
            most_lost: 3,
            poll_seconds: (1.0, 15.0),
            stranded_seconds: 1800.0,
            fail_fast: false,
        }
    }
}

/// What a record changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing that ends anything.
    None,
    /// A unit ended as the record says.
    Settled,
    /// A unit was given back once too often.
    GivenUp,
}

/// What one worker knows of a run.
///
/// Records may be told in any order and more than once; boards that were told the same records agree on what
/// has ended and how, if each unit has one outcome (ledgers see to that).
#[derive(Debug, Clone)]
pub struct Board {
    plan: Arc<FarmPlan>,
    limits: Limits,
    missing: Missing,
    /// The units that have not ended.
    open: Bits,
    /// The classes of interest, and what is ready of them, by place; how much of them is open.
    takes: Vec<bool>,
    takes_all: bool,
    ready: Bits,
    open_of_mine: usize,
    claims: HashMap<u32, Claim, FixedState>,
    /// Of those units alone with which anything went wrong.
    tries: HashMap<u32, Tries, FixedState>,
    slots: Vec<SlotView>,
    /// What each of them is doing; every idle worker counts them each time.
    standing: Vec<Standing>,
    failed: BTreeMap<u32, Failure>,
    /// Derivations that failed or need one that did.
    hindered: Bits,
}

/// How many inputs of each unit are not settled, by the unit's place in the order of claiming: what happens at
/// one time happens at places near each other. Many boards in one memory, as in a simulation, are slow by what
/// they have to fetch, so that a count is one byte; the few that are more stand beside.
#[derive(Debug, Clone)]
struct Missing {
    counts: Vec<u8>,
    many: HashMap<u32, usize, FixedState>,
}

impl Missing {
    /// The count of this place stands beside.
    const MANY: u8 = u8::MAX;

    fn new(counts: impl Iterator<Item = usize>) -> Self {
        let mut many = HashMap::default();
        let counts = (0..).zip(counts).map(|(place, count)| {
            u8::try_from(count).ok().filter(|&count| count < Self::MANY).unwrap_or_else(|| {
                many.insert(place, count);
                Self::MANY
            })
        });
        Self { counts: counts.collect(), many }
    }

    fn of(&self, place: u32) -> usize {
        match self.counts[place as usize] {
            Self::MANY => self.many.get(&place).copied().unwrap_or(0),
            count => usize::from(count),
        }
    }

    /// One is there; whether it was the last.
    fn step(&mut self, place: u32) -> bool {
        let count = &mut self.counts[place as usize];
        if *count == Self::MANY {
            let many = self.many.entry(place).or_default();
            *many -= 1;
            if *many < usize::from(Self::MANY) {
                *count = u8::try_from(*many).unwrap_or(Self::MANY);
                self.many.remove(&place);
            }
            return false;
        }
        *count -= 1;
        *count == 0
    }
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    attempt: u32,
    /// Unknown when all that is known is that somebody has it.
    slot: Option<Slot>,
    since: Stamp,
}

#[derive(Debug, Clone, Default)]
struct Tries {
    /// The number of the last claim that ended without an outcome.
    attempt: u32,
    /// Who gave it back in which attempt, not counting those who were told to stop.
    returned: BTreeMap<u32, (Slot, String)>,
    lost: usize,
    /// Some of it failed by no fault of its own.
    given_up: bool,
    /// What was built of it before it was given back.
    built: Vec<Built>,
}

#[derive(Debug, Clone, Default)]
struct SlotView {
    joined: bool,
    left: bool,
    lapsed: bool,
    /// How many units it has claimed that have not ended.
    holds: u32,
    beat: Option<u64>,
    /// How often another one was seen since it left.
    beats_since_left: u8,
    seen: Stamp,
    /// How many units it gave back since it last built one, as far as that was seen.
    returned_in_row: u32,
}

/// So many heartbeats may be seen of a worker that has left.
const LAST_BEATS: u8 = 1;

impl SlotView {
    fn alive(&self) -> bool {
        self.joined && !self.left && !self.lapsed
    }

    fn standing(&self) -> Standing {
        match (self.alive(), self.holds) {
            (false, _) => Standing::Away,
            (true, 0) => Standing::Idle,
            (true, _) => Standing::Busy,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Away,
    Idle,
    Busy,
}

impl Board {
    /// A board on which nothing has happened yet; `takes` says for each class whether it is of interest.
    #[must_use]
    pub fn new(plan: &Arc<FarmPlan>, takes: Vec<bool>, limits: Limits) -> Self {
        let units = plan.units().len();
        let mut board = Self {
            missing: Missing::new(
                (0..).take(units).map(|place| plan.units()[plan.at_place(place) as usize].inputs.len()),
            ),
            open: Bits::new(units),
            ready: Bits::new(units),
            open_of_mine: 0,
            claims: HashMap::default(),
            tries: HashMap::default(),
            slots: vec![SlotView::default(); plan.slots().len()],
            standing: vec![Standing::Away; plan.slots().len()],
            failed: BTreeMap::new(),
            hindered: Bits::new(plan.derivations().len()),
            takes_all: takes.len() == plan.classes().len() && takes.iter().all(|&takes| takes),
            takes,
            limits,
            plan: Arc::clone(plan),
        };
        for unit in (0..).take(units) {
            board.open.insert(unit);
            board.open_of_mine += usize::from(board.is_mine(unit));
            board.offer(unit);
        }
        for (position, derivation) in (0..).zip(plan.derivations()) {
            if let Some(Hopeless { class, message, log }) = derivation.hopeless.clone() {
                board.fail(Failure { derivation: position, class, message, seconds: 0.0, log, ended: None });
            }
        }
        board
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Arc<FarmPlan> {
        &self.plan
    }

    /// Takes in records that were seen now.
    pub fn read(&mut self, now: Stamp, records: &[Record]) {
        // What has ended need not be claimed first.
        for ends in [true, false] {
            for record in records.iter().filter(|record| matches!(record, Record::Outcome(_)) == ends) {
                self.apply(now, record);
            }
        }
    }

    /// Takes in a record that was seen now.
    pub(crate) fn apply(&mut self, now: Stamp, record: &Record) -> Effect {
        match record {
            Record::Joined { slot } => self.with_slot(*slot, now, |slot| slot.joined = true),
            Record::Claim { unit, attempt, slot } => {
                if self.exists(*unit) {
                    self.claimed(now, unit.0, *attempt, Some(*slot));
                }
            }
            Record::Outcome(outcome) => return self.ended(now, outcome),
            Record::Returned(returned) => return self.returned(now, returned),
            // What it still seems to hold has ended, or was given back: that record is on its way.
            Record::Left { slot, .. } => self.with_slot(*slot, now, |slot| slot.left = true),
        }
        Effect::None
    }

    /// Takes in the counters of workers' heartbeats, and lets lapse the claims of those who have none.
    pub(crate) fn beats(&mut self, now: Stamp, beats: &[(Slot, u64)]) {
        for &(slot, count) in beats {
            if let Some(view) = self.slots.get_mut(slot.0 as usize)
                && view.beat != Some(count)
            {
                view.beat = Some(count);
                view.seen = now;
                view.lapsed = false;
                // Its last beat may be seen after it has left; if more come, it was started again.
                view.beats_since_left += u8::from(view.left);
                if view.beats_since_left > LAST_BEATS {
                    (view.left, view.beats_since_left) = (false, 0);
                }
            }
        }
        let lapse = self.limits.lapse_seconds;
        for (view, standing) in self.slots.iter_mut().zip(&mut self.standing) {
            let expected = (view.joined && !view.left) || view.holds > 0;
            view.lapsed |= expected && now.seconds_since(view.seen) > lapse;
            *standing = view.standing();
        }
        let lapsed = |claim: &Claim| match claim.slot {
            Some(slot) => self.slots[slot.0 as usize].lapsed,
            None => now.seconds_since(claim.since) > lapse,
        };
        let mut lost: Vec<u32> =
            self.claims.iter().filter(|(_, claim)| lapsed(claim)).map(|(&unit, _)| unit).collect();
        lost.sort_unstable();
        for unit in lost {
            self.free(unit);
            self.tries.entry(unit).or_default().lost += 1;
        }
    }

    /// Somebody was faster with a claim; who, a record will say.
    pub(crate) fn taken(&mut self, now: Stamp, unit: u32, attempt: u32) {
        self.claimed(now, unit, attempt, None);
    }

    fn exists(&self, unit: UnitId) -> bool {
        (unit.0 as usize) < self.plan.units().len()
    }

    /// Whether a unit has not ended, and nobody has it.
    fn is_unclaimed(&self, unit: u32) -> bool {
        self.open.contains(unit) && !self.claims.contains_key(&unit)
    }

    fn is_mine(&self, unit: u32) -> bool {
        if self.takes_all {
            return true;
        }
        let class = self.plan.units()[unit as usize].class;
        self.takes.get(class as usize).copied().unwrap_or(false)
    }

    fn with_slot(&mut self, slot: Slot, now: Stamp, change: impl FnOnce(&mut SlotView)) {
        if let Some(view) = self.slots.get_mut(slot.0 as usize) {
            view.seen = view.seen.max(now);
            view.lapsed = false;
            change(view);
            self.standing[slot.0 as usize] = view.standing();
        }
    }

    fn claimed(&mut self, now: Stamp, unit: u32, attempt: u32, slot: Option<Slot>) {
        if !self.open.contains(unit) {
            return;
        }
        let names_holder = slot.is_some()
            && self.claims.get(&unit).is_some_and(|claim| claim.attempt == attempt && claim.slot.is_none());
        if attempt <= self.attempt(unit) && !names_holder {
            return;
        }
        self.ready.remove(self.plan.place(unit));
        self.end_claim(unit);
        let slot = slot.filter(|slot| (slot.0 as usize) < self.slots.len());
        self.claims.insert(unit, Claim { attempt, slot, since: now });
        if let Some(slot) = slot {
            self.with_slot(slot, now, |view| {
                view.joined = true;
                view.holds += 1;
            });
        }
    }

    /// Nobody holds a unit any more.
    fn end_claim(&mut self, unit: u32) {
        if let Some(slot) = self.claims.remove(&unit).and_then(|claim| claim.slot) {
            let view = &mut self.slots[slot.0 as usize];
            view.holds -= 1;
            self.standing[slot.0 as usize] = view.standing();
        }
    }

    /// A unit can be claimed again.
    fn free(&mut self, unit: u32) {
        let attempt = self.attempt(unit);
        self.end_claim(unit);
        self.tries.entry(unit).or_default().attempt = attempt;
        self.offer(unit);
    }

    fn offer(&mut self, unit: u32) {
        let place = self.plan.place(unit);
        if self.missing.of(place) == 0 && self.is_unclaimed(unit) && self.is_mine(unit) {
            self.ready.insert(place);
        }
    }

    fn returned(&mut self, now: Stamp, returned: &Returned) -> Effect {
        let unit = returned.unit.0;
        if !self.exists(returned.unit) {
            return Effect::None;
        }
        self.with_slot(returned.slot, now, |view| view.joined = true);
        if !self.open.contains(unit) {
            return Effect::None;
        }
        let tries = self.tries.entry(unit).or_default();
        if !returned.stopped {
            let before = tries.returned.insert(returned.attempt, (returned.slot, returned.reason.clone()));
            if let Some(view) = self.slots.get_mut(returned.slot.0 as usize) {
                view.returned_in_row += u32::from(before.is_none());
            }
        }
        tries.built.extend(returned.built.iter().filter(|built| !built.cached));
        let given_up = tries.returned.len() >= self.limits.most_returned;
        if returned.attempt >= self.attempt(unit) {
            self.free(unit);
            self.tries.entry(unit).or_default().attempt = returned.attempt;
        }
        if !given_up {
            return Effect::None;
        }
        let message = given_up_words(&self.returns(unit));
        self.settle(unit);
        for derivation in self.to_build(unit) {
            self.fail(Failure {
                derivation,
                class: FailureClass::Other,
                message: message.clone(),
                seconds: 0.0,
                log: Vec::new(),
                ended: None,
            });
        }
        Effect::GivenUp
    }

    fn ended(&mut self, now: Stamp, outcome: &Outcome) -> Effect {
        let unit = outcome.unit.0;
        if !self.exists(outcome.unit) {
            return Effect::None;
        }
        self.with_slot(outcome.slot, now, |view| view.joined = true);
        if !self.open.contains(unit) {
            return Effect::None;
        }
        self.with_slot(outcome.slot, now, |view| view.returned_in_row = 0);
        let members = self.plan.size(unit);
        let plain = outcome.failed.is_empty() && outcome.built.len() == members;
        let tried = if plain { Vec::new() } else { self.to_build(unit) };
        self.settle(unit);
        if !plain {
            if outcome.failed.iter().any(|failure| failure.class.is_of_machine()) {
                self.tries.entry(unit).or_default().given_up = true;
            }
            for failure in &outcome.failed {
                if self.plan.units()[unit as usize].members.contains(&failure.derivation) {
                    self.fail(failure.clone());
                }
            }
            // What it did not try needs something that failed. The record that says so may come later; if
            // none does, the run finds that nobody can say why it was not built.
            for derivation in tried {
                if !outcome.built.iter().any(|built| built.derivation == derivation) {
                    self.hinder(derivation);
                }
            }
        }
        Effect::Settled
    }

    /// A unit is at its end, and what waits for it may begin.
    fn settle(&mut self, unit: u32) {
        let mut ending: SmallVec<[u32; 8]> = smallvec::smallvec![unit];
        let plan = Arc::clone(&self.plan);
        while let Some(unit) = ending.pop() {
            if !self.open.remove(unit) {
                continue;
            }
            self.open_of_mine -= usize::from(self.is_mine(unit));
            self.ready.remove(plan.place(unit));
            self.end_claim(unit);
            for &user in plan.users(unit) {
                if self.missing.step(plan.place(user)) && self.is_unclaimed(user) {
                    if self.is_hindered(user) {
                        ending.push(user);
                    } else {
                        self.offer(user);
                    }
                }
            }
        }
    }

    /// A derivation failed by itself; nothing that needs it will be tried.
    fn fail(&mut self, failure: Failure) {
        let derivation = failure.derivation;
        self.failed.entry(derivation).or_insert(failure);
        self.hinder(derivation);
    }

    /// A derivation was not built, and nothing that needs it will be tried.
    fn hinder(&mut self, derivation: u32) {
        let mut reached = vec![derivation];
        let plan = Arc::clone(&self.plan);
        let mut units = Vec::new();
        while let Some(derivation) = reached.pop() {
            if self.hindered.insert(derivation) {
                units.push(plan.unit_of(derivation));
                reached.extend(plan.dependents(derivation));
            }
        }
        units.sort_unstable();
        units.dedup();
        for unit in units {
            if self.is_unclaimed(unit) && self.is_hindered(unit) {
                self.settle(unit);
            }
        }
    }

    /// Whether there is nothing in a unit that can still be tried.
    fn is_hindered(&self, unit: u32) -> bool {
        if self.hindered.len() == 0 {
            return false;
        }
        self.plan.units()[unit as usize].members.iter().all(|&member| self.hindered.contains(member))
    }

    /// The derivations of a unit that are to be tried, inputs first.
    #[must_use]
    pub fn to_build(&self, unit: u32) -> Vec<u32> {
        let members = self.plan.units()[unit as usize].members.iter().copied();
        members.filter(|&member| !self.hindered.contains(member)).collect()
    }

    /// Whether a unit has come to its end, or never will be tried.
    #[must_use]
    pub fn is_settled(&self, unit: u32) -> bool {
        self.exists(UnitId(unit)) && !self.open.contains(unit)
    }

    /// Whether every unit has come to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.open.len() == 0
    }

    /// What failed by itself, by position in the plan.
    #[must_use]
    pub fn failed(&self) -> &BTreeMap<u32, Failure> {
        &self.failed
    }

    /// Whether the first failure ended everything.
    #[must_use]
    pub fn is_tripped(&self) -> bool {
        let real = || self.failed.keys().any(|&failed| !self.was_hopeless(failed));
        self.limits.fail_fast && !self.failed.is_empty() && real()
    }

    fn was_hopeless(&self, derivation: u32) -> bool {
        self.plan.derivations()[derivation as usize].hopeless.is_some()
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn open_of_mine(&self) -> usize {
        self.open_of_mine
    }

    /// The units of interest that can be claimed, the first in order first.
    pub(super) fn ready(&self) -> impl Iterator<Item = u32> {
        self.ready.iter().map(|place| self.plan.at_place(place))
    }

    /// Which unit a worker will likely take after the one that it builds: of those that can be claimed by then,
    /// the first that is left by the workers who are done before it.
    pub(super) fn after(&self, me: Slot, unit: u32, alike: &[bool], now: Stamp) -> Option<u32> {
        let left = |unit: u32, claim: &Claim| {
            self.plan.units()[unit as usize].seconds - now.seconds_since(claim.since)
        };
        let mine = left(unit, self.claims.get(&unit)?);
        let is_rival = |slot: Option<Slot>| {
            slot.is_some_and(|slot| slot != me && alike.get(slot.0 as usize) == Some(&true))
        };
        let before = self
            .claims
            .iter()
            .filter(|(other, claim)| **other != unit && is_rival(claim.slot) && left(**other, claim) < mine);
        let (idle, _) = self.before(me, alike);
        let opens = |user: u32| {
            self.missing.of(self.plan.place(user)) == 1 && self.is_unclaimed(user) && self.is_mine(user)
        };
        let opened = self.plan.users(unit).iter().copied().filter(|&user| opens(user));
        let mut places: Vec<u32> =
            self.ready.iter().chain(opened.map(|user| self.plan.place(user))).collect();
        places.sort_unstable();
        let units = places.into_iter().map(|place| self.plan.at_place(place));
        units.filter(|&unit| !self.is_for_others(me, unit)).nth(before.count() + idle)
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// All units that have not ended, inputs first.
    pub(super) fn open(&self) -> impl Iterator<Item = u32> {
        self.open.iter()
    }

    pub(super) fn is_of_interest(&self, unit: u32) -> bool {
        self.is_mine(unit)
    }

    /// Since when a unit is worked on, if it is.
    pub(super) fn claimed_since(&self, unit: u32) -> Option<Stamp> {
        self.claims.get(&unit).map(|claim| claim.since)
    }

    /// The number of the next claim of a unit.
    pub(super) fn next_attempt(&self, unit: u32) -> u32 {
        self.attempt(unit).saturating_add(1)
    }

    /// How often a unit was claimed, as far as is known.
    pub(crate) fn attempt(&self, unit: u32) -> u32 {
        let ended = || self.tries.get(&unit).map_or(0, |tries| tries.attempt);
        self.claims.get(&unit).map_or_else(ended, |claim| claim.attempt)
    }

    /// Whether a worker gave a unit back before, and there is another who did not and can build it.
    pub(super) fn is_for_others(&self, me: Slot, unit: u32) -> bool {
        let Some(tries) = self.tries.get(&unit) else { return false };
        let gave_back = |slot: Slot| tries.returned.values().any(|(by, _)| *by == slot);
        let class = self.plan.units()[unit as usize].class as usize;
        let able = |slot: Slot| self.plan.slots()[slot.0 as usize].takes[class];
        gave_back(me) && self.others(me).any(|(slot, _)| able(slot) && !gave_back(slot))
    }

    /// Why a worker gave back what nobody then built, if there is such a thing.
    pub(super) fn given_up_by(&self, me: Slot) -> Option<String> {
        let given_up = self
            .tries
            .values()
            .filter(|tries| tries.given_up || tries.returned.len() >= self.limits.most_returned);
        let reasons = given_up.flat_map(|tries| tries.returned.values());
        reasons.filter(|(by, _)| *by == me).map(|(_, reason)| reason.clone()).min()
    }

    /// Who gave a unit back, and why, not counting those who were told to stop.
    fn returns(&self, unit: u32) -> Vec<(Slot, String)> {
        self.tries.get(&unit).map(|tries| tries.returned.values().cloned().collect()).unwrap_or_default()
    }

    /// Whether a unit that is given back once more has failed.
    pub(super) fn is_last_try(&self, unit: u32) -> bool {
        self.returns(unit).len() + 1 >= self.limits.most_returned
    }

    /// How a derivation of a unit was built before the unit was given back.
    pub(super) fn built_before(&self, unit: u32, derivation: u32) -> Option<Built> {
        self.tries.get(&unit)?.built.iter().find(|built| built.derivation == derivation).copied()
    }

    /// Why something of a unit is given up, after one more try.
    pub(super) fn given_up_words(&self, unit: u32, last: (Slot, String)) -> String {
        let mut returned = self.returns(unit);
        returned.push(last);
        given_up_words(&returned)
    }

    /// How many workers were lost over a unit.
    pub(super) fn lost_over(&self, unit: u32) -> usize {
        self.tries.get(&unit).map_or(0, |tries| tries.lost)
    }

    /// How many of these workers are idle and come before one of them; and how many others are at work.
    pub(super) fn before(&self, me: Slot, alike: &[bool]) -> (usize, usize) {
        let me = (me.0 as usize).min(self.standing.len());
        let count = |slots: std::ops::Range<usize>, wanted: Standing| {
            let alike = alike.get(slots.clone()).unwrap_or_default();
            let all = self.standing[slots].iter().zip(alike);
            all.filter(|(standing, alike)| (**standing == wanted) & **alike).count()
        };
        let idle = count(0..me, Standing::Idle);
        let busy = count(0..me, Standing::Busy)
            + count((me + 1).min(self.standing.len())..self.standing.len(), Standing::Busy);
        (idle, busy)
    }

    /// What a worker holds, as far as the ledger says, besides one unit.
    pub(super) fn held_besides(&self, me: Slot, unit: Option<u32>) -> Vec<(u32, u32)> {
        let own = unit.is_some_and(|unit| self.claims.get(&unit).is_some_and(|claim| claim.slot == Some(me)));
        let held = self.slots.get(me.0 as usize).map_or(0, |view| view.holds);
        if held == u32::from(own) {
            return Vec::new();
        }
        let mut besides: Vec<(u32, u32)> = self
            .claims
            .iter()
            .filter(|(other, claim)| claim.slot == Some(me) && Some(**other) != unit)
            .map(|(&unit, claim)| (unit, claim.attempt))
            .collect();
        besides.sort_unstable();
        besides
    }

    fn workers(&self) -> impl Iterator<Item = (Slot, &SlotView)> {
        (0..).map(Slot).zip(&self.slots)
    }

    /// Whether there is another worker that builds the same, with a smaller slot number or one that did not give back
    /// so many units in a row.
    pub(super) fn is_dispensable(&self, me: Slot, most: u32) -> bool {
        let own = &self.plan.slots()[me.0 as usize].takes;
        let mut others = self.others(me).filter(|(slot, _)| self.plan.slots()[slot.0 as usize].takes == *own);
        others.any(|(slot, view)| slot < me || view.returned_in_row < most)
    }

    /// Whether there is another worker that builds the same.
    pub(super) fn has_others_like(&self, me: Slot) -> bool {
        let own = &self.plan.slots()[me.0 as usize].takes;
        self.others(me).any(|(slot, _)| self.plan.slots()[slot.0 as usize].takes == *own)
    }

    /// Whether there is another worker that builds the same, with a smaller slot number.
    pub(super) fn has_lower_like(&self, me: Slot) -> bool {
        let own = &self.plan.slots()[me.0 as usize].takes;
        self.others(me).any(|(slot, _)| slot < me && self.plan.slots()[slot.0 as usize].takes == *own)
    }

    /// Whether anybody is at work, as far as is known.
    pub(super) fn somebody_works(&self) -> bool {
        !self.claims.is_empty()
    }

    fn others(&self, me: Slot) -> impl Iterator<Item = (Slot, &SlotView)> {
        self.workers().filter(move |(slot, view)| *slot != me && view.alive())
    }
}

fn given_up_words(returned: &[(Slot, String)]) -> String {
    let mut by_reason: Vec<(&str, Vec<u32>)> = Vec::new();
    for (slot, reason) in returned {
        match by_reason.iter_mut().find(|(known, _)| known == reason) {
            Some((_, slots)) => slots.push(slot.0),
            None => by_reason.push((reason, vec![slot.0])),
        }
    }
    let reasons = by_reason.into_iter().map(|(reason, mut slots)| {
        slots.sort_unstable();
        slots.dedup();
        let slots: Vec<String> = slots.iter().map(u32::to_string).collect();
        let runners = if slots.len() == 1 { "runner" } else { "runners" };
        format!("on {runners} {}: {reason}", slots.join(", "))
    });
    format!("given up after {} attempts; {}", returned.len(), reasons.collect::<Vec<_>>().join("; "))
}
