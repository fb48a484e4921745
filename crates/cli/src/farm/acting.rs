//! Actions of a plan that several workers share: who has nothing left to build runs them, each one once.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use phoenix_depot::{BlobName, Depot};
use phoenix_model::{Action, ActionId, ActionVerdict, Event, Severity, StorePath, Target, TargetId, Verdict};
use phoenix_schedule::farm::{Acted, FarmPlan, Outcome, Record, Slot, UnitId, action_unit};
use phoenix_schedule::{Actions, Happening, Readiness, Run};
use phoenix_store::Validity;
use phoenix_work::{Hit, Shipment};

use super::collecting::Collecting;
use super::{collect, manner};
use crate::acting::{built, run_action};
use crate::blobs::{self, runtime};
use crate::error::CommandError;
use crate::kept::Kept;
use crate::ledgers::PlanMark;
use crate::recorder::{Recorder, now};
use crate::setup::Setup;

/// How long a worker waits for what others wrote to come into sight: whoever writes last sees it all.
const IN_SIGHT: Duration = Duration::from_secs(10);

/// How long an action waits for others to keep what they built: at their end, or after ten minutes at most.
const KEPT_SOON: Duration = Duration::from_secs(15 * 60);

/// How often it looks whether they did.
const AGAIN: Duration = Duration::from_secs(2);

/// Where it is kept that an action of a plan is done, so that it is not when the plan is worked on again.
const DONE: &str = "acted/";

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
    pub(crate) stop: &'s AtomicBool,
}

/// The targets that somebody has to wait for who answers for this.
fn own_targets(shipment: &Shipment, hit: &Hit) -> BTreeSet<TargetId> {
    let actions = shipment.actions.iter().filter(|(action, _)| hit.actions.contains(&action.id));
    hit.targets.iter().chain(actions.flat_map(|(action, _)| &action.builds)).copied().collect()
}

/// The units that somebody has to wait for who answers for this.
pub(crate) fn own_units(shipment: &Shipment, hit: &Hit) -> Vec<UnitId> {
    let own = own_targets(shipment, hit);
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
    /// What is for others to run.
    elsewhere: BTreeSet<ActionId>,
    kept: Option<Kept>,
    /// Whether all that it ran is green.
    well: bool,
    heart: Heart,
    waiting: Waiting,
    lapse_seconds: f64,
}

impl<'s> Acting<'s> {
    fn begin(stage: &'s Stage<'s>, hit: Option<&'s Hit>) -> Result<Self, CommandError> {
        let (shipment, slot, now) = (stage.shipment, stage.slot, Instant::now());
        let plan = Arc::new(shipment.farm.clone());
        let (settings, limits) = manner(stage.ledger);
        let is_own = |id: &ActionId| hit.is_none_or(|hit| hit.actions.contains(id));
        let ids = shipment.actions.iter().map(|(action, _)| action.id);
        Ok(Self {
            stage,
            hit,
            actions: Actions::new(shipment.actions.iter().cloned()),
            collecting: collect(stage.ledger, stage.mark, &plan, limits)?,
            plan,
            run: run_of(shipment),
            own: hit.map(|hit| own_units(shipment, hit)).unwrap_or_default(),
            closed: false,
            elsewhere: ids.filter(|id| !is_own(id)).collect(),
            kept: None,
            well: true,
            heart: Heart { slot, every: settings.beat, beaten: now, count: self::now().0 },
            waiting: Waiting { slot, news: now, beats: Vec::new(), listened: now },
            lapse_seconds: limits.lapse_seconds,
        })
    }

    /// Takes in what others did.
    fn take_in(&mut self, recorder: &mut Recorder) {
        self.collecting.look_quietly(&mut self.run, recorder);
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
        match next(&self.actions, self.stage.shipment, &self.run, &self.elsewhere) {
            Some((id, Readiness::Ended(verdict))) => {
                self.actions.ended(id, verdict);
                Ok(None)
            }
            Some((id, Readiness::Ready)) => self.run_one(id, recorder).map(|()| None),
            Some((_, Readiness::Waiting)) | None => Ok(self.wait(recorder)),
        }
    }

    /// Waits a little; whether it ended well, when nothing more is waited for.
    fn wait(&mut self, recorder: &mut Recorder) -> Option<bool> {
        let is_over = match self.hit {
            Some(hit) => self.closed && hit.actions.iter().all(|&id| self.actions.verdict(id).is_some()),
            None => self.actions.are_over() || self.waiting.news.elapsed() > IN_SIGHT,
        };
        if is_over {
            return Some(true);
        }
        if self.hit.is_some() && self.waiting.is_in_vain(&mut self.collecting, self.lapse_seconds, recorder) {
            recorder.say(Severity::Error, "nobody is heard of any more who would end what is waited for");
            return Some(false);
        }
        std::thread::sleep(self.collecting.pace().0.max(Duration::from_millis(50)));
        None
    }

    /// Runs an action, if it is for this worker.
    fn run_one(&mut self, id: ActionId, recorder: &mut Recorder) -> Result<(), CommandError> {
        let Some(action) = self.actions.get(id).cloned() else { return Ok(()) };
        if !action.system.as_deref().is_none_or(|system| takes(self.stage.setup, system)) {
            self.elsewhere.insert(id);
            return Ok(());
        }
        self.actions.started(id);
        let (unit, slot) = (action_unit(&self.plan, id), self.stage.slot);
        let (runtime, ledger) = self.collecting.ledger();
        if !runtime.block_on(ledger.claim(unit, 1, slot)).map_err(|error| lost(&error))? {
            return Ok(());
        }
        let (collecting, heart, stop) = (&self.collecting, &mut self.heart, self.stage.stop);
        let mut go_on = |recorder: &mut Recorder| {
            recorder.tick();
            heart.beat(collecting);
            !stop.load(Ordering::Relaxed)
        };
        let acted = once(self.stage, &action, &self.run, &mut self.kept, recorder, &mut go_on)?;
        self.well &= !acted.verdict.is_red();
        self.actions.ended(id, acted.verdict.clone());
        let outcome = Outcome {
            unit,
            attempt: 1,
            slot,
            built: Vec::new(),
            failed: Vec::new(),
            parcel: None,
            action: Some(acted),
        };
        let (runtime, ledger) = self.collecting.ledger();
        runtime.block_on(ledger.post(&Record::Outcome(outcome))).map_err(|error| lost(&error))?;
        self.waiting.news = Instant::now();
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
        let kept = opened(&mut self.kept, self.stage, recorder)?;
        let there: Vec<StorePath> = green.into_iter().filter(|path| kept.has(path)).collect();
        kept.fetch(&there, self.stage.setup, recorder);
        Ok(well)
    }
}

impl Acting<'_> {
    /// Why a target is red, where, and how the log ends of what failed for it.
    fn why(&self, target: &Target, verdict: Option<&Verdict>) -> String {
        let Some(verdict) = verdict else { return "no verdict".to_owned() };
        let (mut text, culprit) = match verdict {
            Verdict::Failed { class, message } => {
                (format!("failed ({class}): {message}"), target.drv_path.as_ref())
            }
            Verdict::Blocked { by } => {
                let names: Vec<&str> = by.iter().map(StorePath::human_name).collect();
                (format!("blocked by {}", names.join(", ")), by.first())
            }
            other => (other.kind().to_string(), None),
        };
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

/// The depot as it is now.
fn opened<'k>(
    kept: &'k mut Option<Kept>,
    stage: &Stage<'_>,
    recorder: &mut Recorder,
) -> Result<&'k mut Kept, CommandError> {
    Ok(match kept {
        Some(kept) => {
            kept.look_again(recorder)?;
            kept
        }
        None => kept.insert(Kept::open(Arc::clone(stage.depot), u64::MAX, recorder)?),
    })
}

fn lost(error: &phoenix_work::LedgerError) -> CommandError {
    CommandError::because("whether an action is for this worker is unknown", error)
}

/// The next action that something can be told of, besides those that others have to run.
fn next(
    actions: &Actions,
    shipment: &Shipment,
    run: &Run,
    elsewhere: &BTreeSet<ActionId>,
) -> Option<(ActionId, Readiness)> {
    let mut actions = actions.clone();
    for &id in elsewhere {
        actions.started(id);
    }
    actions.next(|id| {
        let target = shipment.targets.iter().find(|(target, _)| target.id == id);
        (target.map(|(target, _)| target.attr()).unwrap_or_default(), run.verdict(id))
    })
}

fn takes(setup: &Setup, system: &str) -> bool {
    setup.settings.system == system || setup.settings.extra_platforms.iter().any(|other| other == system)
}

/// Runs an action, unless it is known to be done.
fn once(
    stage: &Stage<'_>,
    action: &Action,
    run: &Run,
    kept: &mut Option<Kept>,
    recorder: &mut Recorder,
    go_on: &mut dyn FnMut(&mut Recorder) -> bool,
) -> Result<Acted, CommandError> {
    let done = BlobName::new(format!("{DONE}{}/{}", stage.reference, action.id.0))
        .map_err(|error| CommandError::because("cannot remember what is done", &error))?;
    let depot = stage.depot.as_ref();
    match runtime()?.block_on(depot.find(&done)) {
        Ok(Some(_)) => {
            recorder.say(Severity::Notice, format!("{} was done before", action.name));
            return Ok(Acted { verdict: ActionVerdict::Done, seconds: None, log: Vec::new() });
        }
        Ok(None) => {}
        // To run it again might do harm.
        Err(error) => {
            let message = format!("whether it was done before is unknown: {error}");
            return Ok(Acted { verdict: ActionVerdict::Failed { message }, seconds: None, log: Vec::new() });
        }
    }
    recorder.record(Event::ActionFound { action: action.clone() });
    recorder.record(Event::ActionStarted { action: action.id });
    let begun = Instant::now();
    let targets = stage.shipment.targets.iter().map(|(target, _)| (target, run.verdict(target.id)));
    let built = built(run, targets);
    let paths = if action.paths.is_empty() { &built } else { &action.paths };
    let was_built: HashSet<&StorePath> = run.built_outputs().collect();
    // Who built it may not have kept it yet.
    let kept = loop {
        let kept = opened(kept, stage, recorder)?;
        let here = Validity::open(&stage.setup.nix, stage.setup.layout.as_ref())
            .valid(paths)
            .map_err(|error| CommandError::because("cannot look into the store", &error))?;
        let is_missing = |path: &&StorePath| was_built.contains(path) && !here.contains(*path);
        let missing: Vec<&StorePath> = paths.iter().filter(is_missing).collect();
        let all_kept = missing.into_iter().all(|path| kept.has(path));
        if all_kept || begun.elapsed() > KEPT_SOON || !go_on(recorder) {
            break kept;
        }
        std::thread::sleep(AGAIN);
    };
    let there: Vec<StorePath> = paths.iter().filter(|path| kept.has(path)).cloned().collect();
    kept.fetch(&there, stage.setup, recorder);
    // What was stopped is not begun.
    let verdict = if go_on(recorder) {
        run_action(action, stage.setup, &built, recorder, go_on)
    } else {
        ActionVerdict::Cancelled
    };
    let seconds = Some(begun.elapsed().as_secs_f64());
    recorder.record(Event::ActionSettled { action: action.id, verdict: verdict.clone(), seconds, log: None });
    if verdict == ActionVerdict::Done
        && let Err(error) = runtime()?.block_on(blobs::create(depot, &done, b"done".to_vec()))
    {
        let text = format!("{} is done, and it cannot be kept that it is: {error}", action.name);
        recorder.say(Severity::Warning, text);
    }
    let state = recorder.summary().actions.get(&action.id);
    let tail = state.map(|state| &state.tail).into_iter().flatten();
    let tail: Vec<String> = tail.cloned().collect();
    let log = tail[tail.len().saturating_sub(LINES)..].to_vec();
    Ok(Acted { verdict, seconds, log })
}

/// The actions of a plan, as whoever collects outcomes sees them.
pub(super) struct ActionsSeen {
    actions: Actions,
    told: BTreeSet<ActionId>,
}

impl ActionsSeen {
    pub(super) fn new(actions: Vec<(Action, Option<ActionVerdict>)>, recorder: &mut Recorder) -> Self {
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

    pub(super) fn are_over(&self) -> bool {
        self.actions.are_over()
    }

    /// Takes in what is known of them by now.
    pub(super) fn look(&mut self, collecting: &mut Collecting, run: &Run, recorder: &mut Recorder) {
        for &id in collecting.acting() {
            if self.told.insert(id) {
                self.actions.started(id);
                recorder.record(Event::ActionStarted { action: id });
            }
        }
        for (id, Acted { verdict, seconds, log }) in collecting.take_acted() {
            if self.actions.ended(id, verdict.clone()) {
                for line in log {
                    recorder.record(Event::ActionLine { action: id, line });
                }
                recorder.record(Event::ActionSettled { action: id, verdict, seconds, log: None });
            }
        }
        while let Some((id, Readiness::Ended(verdict))) = self.next(run, recorder) {
            self.actions.ended(id, verdict.clone());
            recorder.record(Event::ActionSettled { action: id, verdict, seconds: None, log: None });
        }
    }

    /// Nothing more will come; whether all went well.
    pub(super) fn close(&mut self, why: &str, run: &Run, recorder: &mut Recorder) -> bool {
        while let Some((id, Readiness::Ended(verdict))) = self.next(run, recorder) {
            self.actions.ended(id, verdict.clone());
            recorder.record(Event::ActionSettled { action: id, verdict, seconds: None, log: None });
        }
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
