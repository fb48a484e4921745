//! Runs actions: what follows builds.

mod crew;
mod deed;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use phoenix_model::{Action, ActionId, ActionVerdict, Event, Stage, StorePath, Target, TargetId, Verdict};
use phoenix_schedule::{Readiness, Run};

use crate::pipeline::Planned;

pub(crate) use crew::{Crew, Teller};
pub(crate) use deed::run_action;

/// How often it is looked whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// Runs the actions of a run on this machine, as far as what they need is green, those together that do not wait for each
/// other; whether that was not stopped.
pub(crate) fn act(planned: &mut Planned) -> bool {
    let mut crew = Crew::new(Arc::new(AtomicBool::new(false)));
    let mut stopped = planned.was_stopped();
    let was_stopped_before = stopped;
    loop {
        while let Ok(signal) = planned.signals.try_recv() {
            if !std::mem::replace(&mut stopped, true) {
                planned.recorder.record(Event::Cancelling { reason: signal.to_owned() });
            }
        }
        if stopped {
            crew.stop();
        } else {
            begin(planned, &mut crew);
        }
        if crew.is_idle() {
            break;
        }
        if let Some((id, ended)) = crew.hear(TICK, &mut planned.recorder) {
            let (verdict, seconds) = ended.unwrap_or_else(|| (lost(), None));
            settle(planned, id, verdict, seconds);
        }
    }
    // Only what was stopped is left.
    for (action, verdict) in planned.actions.close(&ActionVerdict::Cancelled) {
        planned.recorder.record(Event::ActionSettled { action, verdict, seconds: None, log: None });
    }
    !stopped || was_stopped_before
}

/// What became of an action, and how long it took.
type Ended = (ActionVerdict, Option<f64>);

/// Begins all that is ready, as far as there is room, and settles what will never run.
fn begin(planned: &mut Planned, crew: &mut Crew<Ended>) {
    loop {
        let summary = planned.recorder.summary();
        let told = |id| {
            let target = summary.targets.get(&id).map(|state| summary.shown(&state.target));
            (target.unwrap_or_default(), planned.run.verdict(id))
        };
        match planned.actions.next(told) {
            Some((id, Readiness::Ended(verdict))) => settle(planned, id, verdict, None),
            Some((id, Readiness::Ready)) if crew.has_room() => {
                let Some(action) = planned.actions.get(id).cloned() else { return };
                planned.actions.started(id);
                if crew.is_idle() && summary.stage.is_none_or(|(stage, _)| stage != Stage::Act) {
                    planned.recorder.record(Event::StageStarted { stage: Stage::Act });
                }
                planned.recorder.record(Event::ActionStarted { action: id });
                let targets = planned.recorder.summary().targets.values();
                let targets: Vec<_> = targets.map(|state| (&state.target, state.verdict.as_ref())).collect();
                let built = built(&planned.run, targets.iter().copied());
                let beside = beside(&action, targets.iter().copied());
                let setup = planned.setup.clone();
                crew.begin(id, move |teller| {
                    let since = Instant::now();
                    let verdict = run_action(&action, &beside, &setup, &built, teller);
                    (verdict, Some(since.elapsed().as_secs_f64()))
                });
            }
            _ => return,
        }
    }
}

fn settle(planned: &mut Planned, id: ActionId, verdict: ActionVerdict, seconds: Option<f64>) {
    planned.actions.ended(id, verdict.clone());
    planned.recorder.record(Event::ActionSettled { action: id, verdict, seconds, log: None });
}

/// The verdict of an action whose thread has failed.
pub(crate) fn lost() -> ActionVerdict {
    ActionVerdict::Failed { message: "what runs it has failed".to_owned() }
}

fn is_green(verdict: Option<&Verdict>) -> bool {
    matches!(verdict, Some(&Verdict::Built | &Verdict::Cached { .. }))
}

/// What a run has to give away: the outputs of what it built, and of its green targets; each once.
pub(crate) fn built<'a>(
    run: &'a Run,
    targets: impl Iterator<Item = (&'a Target, Option<&'a Verdict>)>,
) -> Vec<StorePath> {
    let green = targets.filter(|(_, verdict)| is_green(*verdict));
    let of_targets = green.flat_map(|(target, _)| target.outputs.values().flatten());
    let mut seen = HashSet::new();
    run.built_outputs().chain(of_targets).filter(|path| seen.insert(*path)).cloned().collect()
}

/// What has to be in the store beside what an action runs: all that its unit builds, as after the `nix build` of
/// phoenix-ci v1.
pub(crate) fn beside<'a>(
    action: &Action,
    targets: impl Iterator<Item = (&'a Target, Option<&'a Verdict>)>,
) -> Vec<StorePath> {
    if action.of.is_none() {
        return Vec::new();
    }
    let builds: HashSet<TargetId> = action.builds.iter().copied().collect();
    let own = targets.filter(|(target, verdict)| builds.contains(&target.id) && is_green(*verdict));
    own.flat_map(|(target, _)| {
        let is_wanted = |name: &String| target.wanted.is_empty() || target.wanted.contains(name);
        target.outputs.iter().filter(move |(name, _)| is_wanted(name)).filter_map(|(_, path)| path.clone())
    })
    .filter(|path| !action.paths.contains(path))
    .collect()
}
