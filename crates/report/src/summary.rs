//! What is known of a run, from its events.

use std::collections::{BTreeMap, HashMap};

use phoenix_model::{
    ActionId, Event, Logged, PlannedDerivation, SettledDerivation, Severity, Source, Stage, Stamp, StorePath,
    Target, TargetId, Verdict, VerdictKind,
};

use crate::derivation_state::settle;
use crate::{ActionState, DerivationState, Progress};

/// How many messages of a severity are kept.
const MOST_MESSAGES: usize = 500;

/// How many beginnings of stages are kept.
const MOST_STAGES: usize = 16;

/// What is known of a run. It takes events in any order and of any number: an events file may be cut.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The version of phoenix.
    pub phoenix: String,
    /// The version of Nix.
    pub nix: String,
    /// The systems that are built for.
    pub systems: Vec<String>,
    /// What was asked for.
    pub installables: Vec<String>,
    /// The time of the first event.
    pub started: Option<Stamp>,
    /// The time of the last event.
    pub last: Option<Stamp>,
    /// The stage, and when it began.
    pub stage: Option<(Stage, Stamp)>,
    /// All stages so far, and when each began.
    pub stages: Vec<(Stage, Stamp)>,
    /// The attribute that is evaluated, and how many are left.
    pub evaluating: Option<(String, u64)>,
    /// How far the evaluation is: attributes that are done, those in work, and bytes of memory in use.
    pub evaluated: Option<(u64, u64, u64)>,
    /// The targets.
    pub targets: BTreeMap<TargetId, TargetState>,
    /// The derivations of the plan, inputs before what needs them.
    pub derivations: Vec<DerivationState>,
    /// What runs after builds.
    pub actions: BTreeMap<ActionId, ActionState>,
    /// What the builds need that is fetched.
    pub to_fetch: Vec<(StorePath, Source)>,
    /// How many fetches began.
    pub fetched: usize,
    /// Seconds that earlier runs took for what is cached now.
    pub saved_seconds: f64,
    /// Substituters that did not answer as they should, and why.
    pub substituters_failed: Vec<(String, String)>,
    /// Errors and warnings.
    pub messages: Vec<(Severity, String)>,
    /// Why the run was stopped, if it was.
    pub cancelled: Option<String>,
    /// The exit code, once the run is over.
    pub exit_code: Option<u8>,
    /// Where logs and reports are.
    pub directory: Option<String>,
    by_drv: HashMap<StorePath, u32>,
    /// What was heard of derivations that are in no plan yet, and have not ended.
    strays: HashMap<StorePath, DerivationState>,
    /// Verdicts of targets that are not found yet.
    early: HashMap<TargetId, Verdict>,
    /// The source of the first target, and whether another has another.
    source: Option<String>,
    several_sources: bool,
    /// The targets that the plan builds for.
    planned_targets: Vec<TargetId>,
}

/// What is known of a target.
#[derive(Debug, Clone)]
pub struct TargetState {
    /// The target.
    pub target: Target,
    /// Its verdict, once it has one.
    pub verdict: Option<Verdict>,
}

impl Summary {
    /// Takes in an event.
    pub fn apply(&mut self, logged: &Logged) {
        let at = logged.at;
        self.started = Some(self.started.map_or(at, |started| started.min(at)));
        self.last = self.last.max(Some(at));
        match &logged.event {
            Event::RunStarted { phoenix, nix, systems, installables, .. } => {
                self.phoenix.clone_from(phoenix);
                self.nix.clone_from(nix);
                self.systems.clone_from(systems);
                self.installables.clone_from(installables);
            }
            Event::StageStarted { stage } => {
                self.stage = Some((*stage, at));
                // There are five; a file that says more is not from here.
                if self.stages.len() < MOST_STAGES {
                    self.stages.push((*stage, at));
                }
                self.evaluating = None;
                self.evaluated = None;
            }
            Event::Evaluating { attr, left } => self.evaluating = Some((attr.clone(), *left)),
            Event::EvaluationProgress { done, in_work, memory, .. } => {
                self.evaluated = Some((*done, *in_work, *memory));
            }
            Event::TargetFound { target } => self.found(target),
            Event::SubstituterFailed { url, problem } => {
                self.substituters_failed.push((url.clone(), problem.clone()));
            }
            Event::Planned { derivations, targets, fetched, saved_seconds } => {
                self.planned_targets = targets.iter().map(|planned| planned.target).collect();
                self.planned(derivations);
                self.to_fetch.clone_from(fetched);
                self.saved_seconds = *saved_seconds;
            }
            Event::BuildStarted { drv_path, machine } => {
                self.derivation(drv_path).start(at, machine);
            }
            Event::PhaseStarted { drv_path, phase } => {
                self.derivation(drv_path).phase = Some(phase.clone());
            }
            Event::BuildEnded { drv_path } => self.derivation(drv_path).end(),
            Event::LogLine { drv_path, line } => self.derivation(drv_path).log_line(line),
            Event::FetchStarted { .. } => self.fetched += 1,
            Event::DerivationSettled { settled } => self.settled(at, settled),
            Event::TargetSettled { target, verdict } => match self.targets.get_mut(target) {
                Some(state) => {
                    settle(&mut state.verdict, verdict);
                }
                None => {
                    let mut early = self.early.remove(target);
                    settle(&mut early, verdict);
                    self.early.extend(early.map(|verdict| (*target, verdict)));
                }
            },
            Event::ActionFound { action } => {
                self.actions.entry(action.id).or_insert_with(|| ActionState::new(action.clone()));
            }
            Event::ActionStarted { action } => {
                if let Some(state) = self.actions.get_mut(action) {
                    state.started.get_or_insert(at);
                }
            }
            Event::ActionLine { action, line } => {
                if let Some(state) = self.actions.get_mut(action) {
                    state.line(line);
                }
            }
            Event::ActionSettled { action, verdict, seconds, log } => {
                if let Some(state) = self.actions.get_mut(action) {
                    state.settle(verdict, *seconds, log.as_ref());
                }
            }
            Event::Message { severity, text } => self.message(*severity, text),
            Event::Cancelling { reason } => self.cancelled = Some(reason.clone()),
            Event::RunEnded { exit_code, directory } => {
                self.exit_code = Some(*exit_code);
                self.directory.clone_from(directory);
            }
        }
    }

    fn found(&mut self, target: &Target) {
        if self.targets.contains_key(&target.id) {
            return;
        }
        let first = self.source.get_or_insert_with(|| target.source.clone());
        self.several_sources |= *first != target.source;
        let verdict = self.early.remove(&target.id);
        self.targets.insert(target.id, TargetState { target: target.clone(), verdict });
    }

    /// Takes in the plan; what was heard of its derivations before is kept.
    fn planned(&mut self, derivations: &[PlannedDerivation]) {
        self.by_drv.clear();
        for mut state in std::mem::take(&mut self.derivations) {
            // Positions in the plan before mean nothing in this one.
            state.planned.inputs.clear();
            self.strays.insert(state.planned.drv_path.clone(), state);
        }
        for planned in derivations {
            let mut planned = planned.clone();
            planned.inputs.retain(|&input| (input as usize) < derivations.len());
            let state = match self.strays.remove(&planned.drv_path) {
                Some(stray) => DerivationState { planned, ..stray },
                None => DerivationState::new(planned),
            };
            self.add(state);
        }
        // What ended outside the plan counts too.
        let mut over: Vec<_> = self.strays.extract_if(|_, state| state.verdict.is_some()).collect();
        over.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (_, state) in over {
            self.add(state);
        }
    }

    fn add(&mut self, state: DerivationState) {
        if let Ok(position) = u32::try_from(self.derivations.len()) {
            self.by_drv.insert(state.planned.drv_path.clone(), position);
            self.derivations.push(state);
        }
    }

    /// The derivation of the plan, or the stray.
    fn derivation(&mut self, drv_path: &StorePath) -> &mut DerivationState {
        match self.by_drv.get(drv_path).and_then(|&position| self.derivations.get_mut(position as usize)) {
            Some(state) => state,
            None => self
                .strays
                .entry(drv_path.clone())
                .or_insert_with(|| DerivationState::unplanned(drv_path.clone())),
        }
    }

    /// Takes in the end of a derivation. One that is in no plan counts from now on, so that no failure is
    /// lost with the event that planned it.
    fn settled(&mut self, at: Stamp, settled: &SettledDerivation) {
        self.derivation(&settled.drv_path).settle(at, settled);
        if let Some(stray) = self.strays.remove(&settled.drv_path) {
            self.add(stray);
        }
    }

    fn message(&mut self, severity: Severity, text: &str) {
        let of_this = || self.messages.iter().filter(|(other, _)| *other == severity);
        let new = severity <= Severity::Warning
            && of_this().count() < MOST_MESSAGES
            && of_this().all(|(_, other)| other != text);
        if new {
            self.messages.push((severity, text.to_owned()));
        }
    }

    /// What is known of a derivation of the plan.
    #[must_use]
    pub fn of_derivation(&self, drv_path: &StorePath) -> Option<&DerivationState> {
        self.derivations.get(*self.by_drv.get(drv_path)? as usize)
    }

    /// The targets as they are listed: by their attributes, whatever order they were found in, and those of an earlier
    /// source first.
    #[must_use]
    pub fn in_order(&self) -> Vec<&TargetState> {
        let mut sources: HashMap<&str, TargetId> = HashMap::new();
        for (id, state) in &self.targets {
            sources.entry(&state.target.source).or_insert(*id);
        }
        let mut targets: Vec<&TargetState> = self.targets.values().collect();
        targets.sort_by_key(|state| (sources.get(&*state.target.source), &state.target.attr_path));
        targets
    }

    /// How many targets ended in each way.
    #[must_use]
    pub fn target_counts(&self) -> BTreeMap<VerdictKind, usize> {
        count(self.targets.values().map(|state| state.verdict.as_ref()))
    }

    /// How many derivations of the plan ended in each way.
    #[must_use]
    pub fn derivation_counts(&self) -> BTreeMap<VerdictKind, usize> {
        count(self.derivations.iter().map(|state| state.verdict.as_ref()))
    }

    /// How far the derivations of the plan are.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress::of(&self.derivations)
    }

    /// How many targets have no verdict. In a run that is over there are none.
    #[must_use]
    pub fn without_verdict(&self) -> usize {
        self.targets.values().filter(|state| state.verdict.is_none()).count()
    }

    /// Whether the run is over and everything ended well, by its exit code and by everything that is known of it:
    /// events may be lost.
    #[must_use]
    pub fn is_green(&self) -> bool {
        self.exit_code == Some(0)
            && self.without_verdict() == 0
            && self.early.is_empty()
            && self.planned_targets.iter().all(|target| self.targets.contains_key(target))
            && !self.derivation_counts().keys().any(|kind| kind.is_red())
            && !self.target_counts().keys().any(|kind| kind.is_red())
            && !self.actions.values().any(ActionState::is_red)
    }

    /// The seconds from the first event to the last.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        match (self.started, self.last) {
            (Some(started), Some(last)) => last.seconds_since(started),
            _ => 0.0,
        }
    }

    /// The name of a target as it is shown: its attribute, with where it comes from when that is not
    /// clear. Not yet clean.
    #[must_use]
    pub fn shown(&self, target: &Target) -> String {
        match (self.several_sources, target.attr_path.names().is_empty()) {
            (_, true) => target.source.clone(),
            (true, false) => format!("{}#{}", target.source, target.attr()),
            (false, false) => target.attr(),
        }
    }
}

fn count<'a>(verdicts: impl Iterator<Item = Option<&'a Verdict>>) -> BTreeMap<VerdictKind, usize> {
    let mut counts = BTreeMap::new();
    for verdict in verdicts.flatten() {
        *counts.entry(verdict.kind()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TAIL_LINES, fixture};

    fn apply(summary: &mut Summary, event: Event) {
        summary.apply(&Logged { at: Stamp(0), event });
    }

    #[test]
    fn a_verdict_that_comes_before_its_target_waits_for_it() {
        let mut summary = Summary::default();
        apply(&mut summary, Event::TargetSettled { target: TargetId(0), verdict: Verdict::Cancelled });
        assert_eq!(summary.targets.len(), 0);
        apply(&mut summary, Event::TargetFound { target: fixture::target(0, "a", None) });
        assert_eq!(summary.targets[&TargetId(0)].verdict, Some(Verdict::Cancelled));
    }

    #[test]
    fn a_run_of_which_events_are_lost_is_not_green() {
        let target = fixture::target(0, "a", Some("a"));
        let planned = DerivationState::unplanned(fixture::drv("a")).planned;
        let settled = SettledDerivation {
            drv_path: fixture::drv("a"),
            verdict: Verdict::Built,
            seconds: None,
            log: None,
        };
        let events = [
            Event::TargetFound { target },
            Event::Planned {
                derivations: vec![planned],
                targets: vec![phoenix_model::PlannedTarget { target: TargetId(0), derivation: 0 }],
                fetched: Vec::new(),
                saved_seconds: 0.0,
            },
            Event::DerivationSettled { settled: settled.clone() },
            Event::TargetSettled { target: TargetId(0), verdict: Verdict::Built },
            Event::RunEnded { exit_code: 0, directory: None },
        ];
        let green = |lost: &[usize], more: Option<Event>| {
            let mut summary = Summary::default();
            let kept = (0..).zip(&events).filter(|(at, _)| !lost.contains(at));
            for event in kept.map(|(_, event)| event.clone()).chain(more) {
                apply(&mut summary, event);
            }
            summary.is_green()
        };
        assert!(green(&[], None));
        for lost in [vec![0], vec![3], vec![0, 3], vec![4], vec![0, 1]] {
            assert!(!green(&lost, None), "{lost:?}");
        }
        let class = phoenix_model::FailureClass::Build;
        let verdict = Verdict::Failed { class, message: String::new() };
        let failed = Event::DerivationSettled { settled: SettledDerivation { verdict, ..settled } };
        assert!(!green(&[], Some(failed)));
    }

    #[test]
    fn a_plan_that_comes_late_or_never_loses_no_failure() {
        let mut events = fixture::events();
        let planned = events.iter().position(|logged| matches!(logged.event, Event::Planned { .. })).unwrap();
        let plan = events.remove(planned);
        let mut summary = fixture::fold(&events);
        let tail = |summary: &Summary| summary.of_derivation(&fixture::drv("lib-1.0")).unwrap().tail.clone();
        assert_eq!((summary.progress().failed, tail(&summary).len()), (1, TAIL_LINES));
        summary.apply(&plan);
        let (late, whole) = (summary, fixture::summary());
        assert_eq!(late.progress(), whole.progress());
        assert_eq!(tail(&late), tail(&whole));
        assert_eq!(late.derivations.len(), whole.derivations.len());
    }

    #[test]
    fn a_plan_that_points_nowhere_is_mended() {
        let mut summary = Summary::default();
        let mut planned = DerivationState::unplanned(fixture::drv("a")).planned;
        planned.inputs = vec![0, 7];
        let (targets, fetched) = (Vec::new(), Vec::new());
        apply(
            &mut summary,
            Event::Planned { derivations: vec![planned], targets, fetched, saved_seconds: 0.0 },
        );
        assert_eq!(summary.derivations[0].planned.inputs, [0]);
    }

    #[test]
    fn what_ended_in_an_earlier_plan_points_at_nothing_in_the_next() {
        let planned = |name: &str, inputs: Vec<u32>| PlannedDerivation {
            inputs,
            ..DerivationState::unplanned(fixture::drv(name)).planned
        };
        let plan = |derivations| Event::Planned {
            derivations,
            targets: Vec::new(),
            fetched: Vec::new(),
            saved_seconds: 0.0,
        };
        let mut summary = Summary::default();
        apply(&mut summary, plan(vec![planned("a", vec![]), planned("b", vec![0])]));
        let settled = SettledDerivation {
            drv_path: fixture::drv("b"),
            verdict: Verdict::Built,
            seconds: None,
            log: None,
        };
        for order in [true, false] {
            let mut summary = summary.clone();
            let settled = Event::DerivationSettled { settled: settled.clone() };
            let next = plan(Vec::new());
            for event in if order { [settled, next] } else { [next, settled] } {
                apply(&mut summary, event);
            }
            let [state] = summary.derivations.as_slice() else { panic!("{:?}", summary.derivations) };
            assert_eq!((state.planned.drv_path.human_name(), state.planned.inputs.len()), ("b", 0));
        }
    }

    #[test]
    fn an_error_is_kept_after_any_number_of_warnings_and_nothing_is_kept_twice() {
        let mut summary = Summary::default();
        for number in 0..600 {
            let text = format!("warning {}", number / 2 * 2);
            apply(&mut summary, Event::Message { severity: Severity::Warning, text });
        }
        assert_eq!(summary.messages.len(), 300);
        for number in 0..MOST_MESSAGES {
            apply(&mut summary, Event::Message { severity: Severity::Warning, text: number.to_string() });
        }
        apply(&mut summary, Event::Message { severity: Severity::Error, text: "disk full".into() });
        assert_eq!(summary.messages.len(), MOST_MESSAGES + 1);
    }

    #[test]
    fn a_target_is_shown_with_its_source_when_there_are_several() {
        let mut summary = Summary::default();
        apply(&mut summary, Event::TargetFound { target: fixture::target(0, "a.b", None) });
        let shown = |summary: &Summary| summary.shown(&summary.targets[&TargetId(0)].target);
        assert_eq!(shown(&summary), "a.b");
        let other = Target { source: "./other".into(), ..fixture::target(1, "a.b", None) };
        apply(&mut summary, Event::TargetFound { target: other });
        assert_eq!(shown(&summary), ".#a.b");
    }
}
