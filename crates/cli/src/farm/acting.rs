//! Actions of a plan that several workers share: who has nothing left to build runs them, each one once.

mod deed;
mod row;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use phoenix_depot::Depot;
use phoenix_model::{
    Action, ActionId, ActionVerdict, Event, Severity, Stage as RunStage, StorePath, Target, TargetId, Verdict,
};
use phoenix_schedule::farm::{Acted, FarmPlan, Outcome, Record, Slot, UnitId, action_unit};
use phoenix_schedule::{Actions, Happening, Readiness, Run};
use phoenix_work::{Hit, Shipment};

pub(super) use seen::ActionsSeen;

use deed::{Deed, Shelf};

use super::collecting::{Collecting, Seen};
use super::{Unsaved, collect, manner};
use crate::acting::{Crew, lost};
use crate::error::CommandError;
use crate::ledgers::PlanMark;
use crate::recorder::{Recorder, now};
use crate::setup::Setup;

/// How long a worker waits for what others wrote to come into sight: whoever writes last sees it all.
const IN_SIGHT: Duration = Duration::from_secs(10);

/// How often it looks whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// How many lines of what an action printed are told to others.
const LINES: usize = 25;

/// How many lines of the log of what failed are shown by who answers for it.
const SHOWN: usize = 10;

/// The place of a worker that runs actions.
pub(crate) struct Stage<'s> {
    pub(crate) shipment: &'s Arc<Shipment>,
    pub(crate) reference: &'s str,
    pub(crate) ledger: &'s str,
    pub(crate) mark: &'s PlanMark,
    pub(crate) slot: Slot,
    pub(crate) setup: &'s Setup,
    pub(crate) depot: &'s Arc<dyn Depot>,
    pub(crate) stop: &'s Arc<AtomicBool>,
    /// Tells of what it has claimed.
    pub(crate) list: &'s Unsaved,
}

/// The targets that somebody has to wait for who answers for this.
pub(super) fn own_targets<V>(actions: &[(Action, V)], hit: &Hit) -> BTreeSet<TargetId> {
    let actions = actions.iter().filter(|(action, _)| hit.actions.contains(&action.id));
    hit.targets.iter().chain(actions.flat_map(|(action, _)| &action.builds)).copied().collect()
}

/// The units that somebody has to wait for who answers for this.
pub(crate) fn own_units(shipment: &Shipment, hit: &Hit) -> Vec<UnitId> {
    let own = own_targets(&shipment.actions, hit);
    let goals = shipment.plan.goals.iter().zip(&shipment.goals).filter(|(_, target)| own.contains(target));
    goals.filter_map(|(goal, _)| goal.step).map(|step| UnitId(shipment.farm.unit_of(step))).collect()
}

/// What a worker knows of the others that it waits for.
struct Waiting {
    slot: Slot,
    news: Instant,
    beats: Vec<(Slot, u64)>,
    listened: Instant,
}

/// Shows that a worker is alive, from time to time.
struct Heart {
    slot: Slot,
    every: Duration,
    beaten: Instant,
    count: u64,
}

/// Runs the actions that are ready and that nobody else has begun, until none is left to wait for; where the slot answers
/// for something of its own, only what is of that, until it has ended. Whether all that it answers for, or ran, is green.
pub(crate) fn act(stage: &Stage<'_>, recorder: &mut Recorder) -> Result<bool, CommandError> {
    let hit = stage.shipment.hits.get(stage.slot.0 as usize);
    if hit.is_none() && stage.shipment.actions.iter().all(|(_, verdict)| verdict.is_some()) {
        return Ok(true);
    }
    let mut acting = Acting::begin(stage, hit)?;
    while !stage.stop.load(Ordering::Relaxed) {
        acting.take_in(recorder);
        if let Some(well) = acting.go_on(recorder)? {
            return match hit {
                Some(hit) if well => Ok(acting.answer(hit, recorder)? & acting.well),
                _ => Ok(well && acting.well),
            };
        }
    }
    // Others hear of what was broken off.
    while !acting.crew.is_idle() {
        acting.hear(TICK, recorder)?;
    }
    Ok(hit.is_none() && acting.well)
}

/// A worker that has built what it can.
struct Acting<'s> {
    stage: &'s Stage<'s>,
    hit: Option<&'s Hit>,
    plan: Arc<FarmPlan>,
    actions: Actions,
    collecting: Collecting,
    run: Run,
    /// The units that it answers for, and whether all have ended.
    own: Vec<UnitId>,
    closed: bool,
    /// What its targets are called.
    names: BTreeMap<TargetId, String>,
    kept: Shelf,
    /// What it runs now.
    crew: Crew<Result<Acted, CommandError>>,
    /// Whether all that it ran is green.
    well: bool,
    heart: Heart,
    /// How long it waits for what is new: longer while nothing is.
    pause: Duration,
    waiting: Waiting,
    lapse_seconds: f64,
}

impl<'s> Acting<'s> {
    fn begin(stage: &'s Stage<'s>, hit: Option<&'s Hit>) -> Result<Self, CommandError> {
        let (shipment, slot, now) = (stage.shipment, stage.slot, Instant::now());
        let plan = Arc::new(shipment.farm.clone());
        let (settings, limits) = manner(stage.ledger);
        let mut actions = Actions::new(shipment.actions.iter().cloned());
        // What is for others to run is as good as begun.
        if let Some(hit) = hit {
            let ids = shipment.actions.iter().map(|(action, _)| action.id);
            ids.filter(|id| !hit.actions.contains(id)).for_each(|id| actions.started(id));
        }
        let collecting = collect(stage.ledger, stage.mark, &plan, limits)?.listed(stage.list.clone());
        Ok(Self {
            stage,
            hit,
            actions,
            pause: collecting.pace().0,
            collecting,
            plan,
            run: run_of(shipment),
            own: hit.map(|hit| own_units(shipment, hit)).unwrap_or_default(),
            closed: false,
            names: shipment.targets.iter().map(|(target, _)| (target.id, target.attr())).collect(),
            kept: Shelf::default(),
            crew: Crew::new(Arc::clone(stage.stop)),
            well: true,
            heart: Heart { slot, every: settings.beat, beaten: now, count: self::now().0 },
            waiting: Waiting { slot, news: now, beats: Vec::new(), listened: now },
            lapse_seconds: limits.lapse_seconds,
        })
    }

    /// Takes in what others did.
    fn take_in(&mut self, recorder: &mut Recorder) {
        let (shortest, longest) = self.collecting.pace();
        self.pause = match self.collecting.look_quietly(&mut self.run, recorder) {
            Seen::New(1..) => shortest,
            Seen::New(0) | Seen::NoAnswer => (self.pause * 2).min(longest),
        };
        for (id, acted) in self.collecting.take_acted() {
            if self.actions.ended(id, acted.verdict) {
                self.waiting.news = Instant::now();
            }
        }
        for &id in self.collecting.acting() {
            self.actions.started(id);
        }
        let has_ended = self.own.iter().all(|unit| !self.collecting.is_open(*unit));
        if self.hit.is_some() && !self.closed && has_ended {
            // What was not built of it is blocked, or failed.
            self.closed = true;
            self.collecting.close_quietly(&mut self.run);
        }
        self.heart.beat(&self.collecting);
    }

    /// Does what comes next; whether it ended well, when there is nothing more to do.
    fn go_on(&mut self, recorder: &mut Recorder) -> Result<Option<bool>, CommandError> {
        let told = |id: TargetId| (self.names.get(&id).cloned().unwrap_or_default(), self.run.verdict(id));
        match self.actions.next(told) {
            Some((id, Readiness::Ended(verdict))) => {
                self.actions.ended(id, verdict);
                Ok(None)
            }
            Some((id, Readiness::Ready)) if self.crew.has_room() => {
                self.begin_one(id, recorder).map(|()| None)
            }
            Some((_, Readiness::Ready | Readiness::Waiting)) | None => self.wait(recorder),
        }
    }

    /// Waits a little; whether it ended well, when nothing more is waited for.
    fn wait(&mut self, recorder: &mut Recorder) -> Result<Option<bool>, CommandError> {
        if self.crew.is_idle() {
            let is_over = match self.hit {
                Some(hit) => self.closed && hit.actions.iter().all(|&id| self.actions.verdict(id).is_some()),
                None => self.actions.are_over() || self.waiting.news.elapsed() > IN_SIGHT,
            };
            if is_over {
                return Ok(Some(true));
            }
            if self.hit.is_some()
                && self.waiting.is_in_vain(&mut self.collecting, self.lapse_seconds, recorder)
            {
                recorder.say(Severity::Error, "nobody is heard of any more who would end what is waited for");
                return Ok(Some(false));
            }
        }
        self.hear(self.pause.max(Duration::from_millis(50)), recorder).map(|()| None)
    }

    /// Takes in what its own actions do, until one has ended, or so much time has passed.
    fn hear(&mut self, most: Duration, recorder: &mut Recorder) -> Result<(), CommandError> {
        let until = Instant::now() + most;
        loop {
            if let Some((id, ended)) = self.crew.hear(TICK.min(most), recorder) {
                let verdict = match ended {
                    Some(Ok(acted)) => return self.settle(id, acted, recorder),
                    Some(Err(error)) => ActionVerdict::Failed { message: error.in_one_line() },
                    None => lost(),
                };
                let settled =
                    Event::ActionSettled { action: id, verdict: verdict.clone(), seconds: None, log: None };
                recorder.record(settled);
                return self.settle(
                    id,
                    Acted { verdict, seconds: None, log: Vec::new(), ended: None },
                    recorder,
                );
            }
            if self.stage.stop.load(Ordering::Relaxed) || Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Takes in how an action of its own ended, and tells others.
    fn settle(
        &mut self,
        id: ActionId,
        mut acted: Acted,
        recorder: &mut Recorder,
    ) -> Result<(), CommandError> {
        let state = recorder.summary().actions.get(&id);
        let tail: Vec<String> = state.map(|state| &state.tail).into_iter().flatten().cloned().collect();
        acted.ended = Some(now());
        acted.log = tail[tail.len().saturating_sub(LINES)..].to_vec();
        self.well &= !acted.verdict.is_red();
        self.actions.ended(id, acted.verdict.clone());
        let outcome = Outcome {
            unit: action_unit(&self.plan, id),
            attempt: 1,
            slot: self.stage.slot,
            built: Vec::new(),
            failed: Vec::new(),
            parcel: None,
            action: Some(acted),
        };
        let (runtime, ledger) = self.collecting.ledger();
        runtime.block_on(ledger.post(&Record::Outcome(outcome))).map_err(|error| unknown(&error))?;
        self.waiting.news = Instant::now();
        Ok(())
    }

    /// Begins an action, if it is for this worker.
    fn begin_one(&mut self, id: ActionId, recorder: &mut Recorder) -> Result<(), CommandError> {
        self.actions.started(id);
        let Some(action) = self.actions.get(id).cloned() else { return Ok(()) };
        let Stage { setup, slot, .. } = *self.stage;
        if !action.system.as_deref().is_none_or(|system| takes(setup, system)) {
            return Ok(());
        }
        let (runtime, ledger) = self.collecting.ledger();
        let claim = ledger.claim(action_unit(&self.plan, id), 1, slot);
        if !runtime.block_on(claim).map_err(|error| unknown(&error))? {
            return Ok(());
        }
        if recorder.summary().stage.is_none_or(|(stage, _)| stage != RunStage::Act) {
            recorder.record(Event::StageStarted { stage: RunStage::Act });
        }
        let deed = Deed::of(self.stage, action, &self.run, self.kept.clone())?;
        self.crew.begin(id, move |teller| deed.once(teller));
        Ok(())
    }

    /// Tells how what a slot answers for ended, and brings what is green of it into the store, for steps that follow;
    /// whether all is green.
    fn answer(&mut self, hit: &Hit, recorder: &mut Recorder) -> Result<bool, CommandError> {
        let mut well = true;
        let mut green = Vec::new();
        let targets = self.stage.shipment.targets.iter().map(|(target, _)| target);
        for target in targets.filter(|target| hit.targets.contains(&target.id)) {
            let verdict = self.run.verdict(target.id);
            let is_red = verdict.is_none_or(Verdict::is_red);
            well &= !is_red;
            if is_red {
                recorder.say(Severity::Error, format!("{}: {}", target.attr(), self.why(target, verdict)));
            } else {
                let word = verdict.map(|verdict| verdict.kind().to_string()).unwrap_or_default();
                recorder.say(Severity::Notice, format!("{}: {word}", target.attr()));
                green.extend(target.outputs.values().flatten().cloned());
            }
        }
        for id in &hit.actions {
            let (Some(action), Some(verdict)) = (self.actions.get(*id), self.actions.verdict(*id)) else {
                continue;
            };
            well &= !verdict.is_red();
            let severity = if verdict.is_red() { Severity::Error } else { Severity::Notice };
            let why = verdict.why();
            let more = if why.is_empty() { String::new() } else { format!(": {why}") };
            recorder.say(severity, format!("{}: {verdict}{more}", action.name));
        }
        let own = own_targets(&self.stage.shipment.actions, hit);
        let targets = self.stage.shipment.targets.iter().map(|(target, _)| target);
        let targets = targets.filter(|target| own.contains(&target.id));
        let targets: Vec<row::Ended<'_>> =
            targets.map(|target| (target, self.run.verdict(target.id))).collect();
        let log = |drv_path: &_| self.collecting.failed_at(drv_path).map_or(&[][..], |(_, log)| log);
        let mut events = row::of_targets(&targets, &self.run, log);
        for action in hit.actions.iter().filter_map(|id| self.actions.get(*id)) {
            events.extend(row::of_action(action, recorder.summary().actions.get(&action.id)));
        }
        recorder.annotate(events);
        self.kept.bring(&green, self.stage.depot, self.stage.setup, recorder)?;
        Ok(well)
    }
}

impl Acting<'_> {
    /// Why a target is red, where, and how the log ends of what failed for it.
    fn why(&self, target: &Target, verdict: Option<&Verdict>) -> String {
        let Some(verdict) = verdict else { return "no verdict".to_owned() };
        let mut text = match verdict {
            Verdict::Failed { class, message } => format!("failed ({class}): {message}"),
            Verdict::Blocked { by } => {
                let names: Vec<&str> = by.iter().map(StorePath::human_name).collect();
                format!("blocked by {}", names.join(", "))
            }
            other => other.kind().to_string(),
        };
        let culprit = row::culprits((target, Some(verdict))).first();
        if let Some((slot, log)) = culprit.and_then(|drv_path| self.collecting.failed_at(drv_path)) {
            text.push_str(&format!("\non runner {}, where the log ends so:", slot.0));
            for line in &log[log.len().saturating_sub(SHOWN)..] {
                text.push_str("\n| ");
                text.push_str(line);
            }
        }
        text
    }
}

impl Heart {
    /// Shows it, if it is time. A beat that is missed is made up for by the next.
    fn beat(&mut self, collecting: &Collecting) {
        if self.beaten.elapsed() > self.every {
            self.beaten = Instant::now();
            self.count += 1;
            let (runtime, ledger) = collecting.ledger();
            let _ = runtime.block_on(ledger.beat(self.slot, self.count));
        }
    }
}

impl Waiting {
    /// Whether nothing is heard of anybody for long.
    fn is_in_vain(
        &mut self,
        collecting: &mut Collecting,
        lapse_seconds: f64,
        recorder: &mut Recorder,
    ) -> bool {
        let lapse = Duration::from_secs_f64(lapse_seconds);
        if self.listened.elapsed() > lapse / 2 {
            self.listened = Instant::now();
            let mut beats = collecting.beats(recorder);
            beats.retain(|(slot, _)| *slot != self.slot);
            if beats != self.beats {
                (self.beats, self.news) = (beats, Instant::now());
            }
        }
        self.news.elapsed() > lapse * 3
    }
}

/// The run of a plan, as whoever only looks on knows it.
fn run_of(shipment: &Shipment) -> Run {
    let mut run = Run::new(shipment.fail_fast);
    let found = shipment.targets.iter();
    let found =
        found.map(|(target, ended)| Happening::Found { target: target.clone(), ended: ended.clone() });
    let planned = Happening::Planned {
        plan: shipment.plan.clone(),
        targets: shipment.goals.clone(),
        saved_seconds: 0.0,
    };
    for happening in found.chain([planned]) {
        // Whoever collects tells all of it.
        drop(run.apply(now(), happening));
    }
    run
}

fn unknown(error: &phoenix_work::LedgerError) -> CommandError {
    CommandError::because("whether an action is for this worker is unknown", error)
}

fn takes(setup: &Setup, system: &str) -> bool {
    setup.settings.system == system || setup.settings.extra_platforms.iter().any(|other| other == system)
}
