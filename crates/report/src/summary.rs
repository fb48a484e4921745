//! What is known of a run, from its events.

use std::collections::{BTreeMap, HashMap, VecDeque};

use phoenix_model::{
    Event, Logged, PlannedDerivation, Severity, Source, Stage, Stamp, StorePath, Target, TargetId, Verdict,
    VerdictKind,
};

/// How many of the last lines of a log are kept.
pub const TAIL_LINES: usize = 25;

/// How many messages are kept.
const MOST_MESSAGES: usize = 500;

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
    /// The attribute that is evaluated, and how many are left.
    pub evaluating: Option<(String, u64)>,
    /// The targets.
    pub targets: BTreeMap<TargetId, TargetState>,
    /// The derivations of the plan, inputs before what needs them.
    pub derivations: Vec<DerivationState>,
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
}

/// What is known of a target.
#[derive(Debug, Clone)]
pub struct TargetState {
    /// The target.
    pub target: Target,
    /// Its verdict, once it has one.
    pub verdict: Option<Verdict>,
}

/// What is known of a derivation of the plan.
#[derive(Debug, Clone)]
pub struct DerivationState {
    /// What was planned.
    pub planned: PlannedDerivation,
    /// When it was started.
    pub started: Option<Stamp>,
    /// Where it runs; empty for this machine.
    pub machine: String,
    /// What it is doing.
    pub phase: Option<String>,
    /// Its verdict, once it has one.
    pub verdict: Option<Verdict>,
    /// How long its builder ran.
    pub seconds: Option<f64>,
    /// The file with its log.
    pub log: Option<String>,
    /// The last lines of its log; dropped when it ends well.
    pub tail: VecDeque<String>,
}

impl Summary {
    /// Takes in an event.
    pub fn apply(&mut self, logged: &Logged) {
        let at = logged.at;
        self.started.get_or_insert(at);
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
                self.evaluating = None;
            }
            Event::Evaluating { attr, left } => self.evaluating = Some((attr.clone(), *left)),
            Event::TargetFound { target } => {
                let state = TargetState { target: target.clone(), verdict: None };
                self.targets.entry(target.id).or_insert(state);
            }
            Event::SubstituterFailed { url, problem } => {
                self.substituters_failed.push((url.clone(), problem.clone()));
            }
            Event::Planned { derivations, fetched, saved_seconds, .. } => {
                self.planned(derivations);
                self.to_fetch.clone_from(fetched);
                self.saved_seconds = *saved_seconds;
            }
            Event::BuildStarted { drv_path, machine } => {
                if let Some(state) = self.derivation(drv_path) {
                    state.started.get_or_insert(at);
                    state.machine.clone_from(machine);
                }
            }
            Event::PhaseStarted { drv_path, phase } => {
                if let Some(state) = self.derivation(drv_path) {
                    state.phase = Some(phase.clone());
                }
            }
            Event::LogLine { drv_path, line } => {
                if let Some(state) = self.derivation(drv_path) {
                    if state.tail.len() == TAIL_LINES {
                        state.tail.pop_front();
                    }
                    state.tail.push_back(line.clone());
                }
            }
            Event::FetchStarted { .. } => self.fetched += 1,
            Event::DerivationSettled { settled } => {
                if let Some(state) = self.derivation(&settled.drv_path) {
                    state.verdict = Some(settled.verdict.clone());
                    state.seconds = settled.seconds;
                    state.log.clone_from(&settled.log);
                    if !settled.verdict.is_red() {
                        state.tail = VecDeque::new();
                    }
                }
            }
            Event::TargetSettled { target, verdict } => {
                if let Some(state) = self.targets.get_mut(target) {
                    state.verdict.get_or_insert_with(|| verdict.clone());
                }
            }
            Event::Message { severity, text } => {
                let new = (*severity, text.clone());
                let kept = *severity <= Severity::Warning && self.messages.len() < MOST_MESSAGES;
                if kept && !self.messages.contains(&new) {
                    self.messages.push(new);
                }
            }
            Event::Cancelling { reason } => self.cancelled = Some(reason.clone()),
            Event::RunEnded { exit_code, directory } => {
                self.exit_code = Some(*exit_code);
                self.directory.clone_from(directory);
            }
        }
    }

    fn planned(&mut self, derivations: &[PlannedDerivation]) {
        self.by_drv.clear();
        self.derivations = derivations
            .iter()
            .map(|planned| DerivationState {
                planned: planned.clone(),
                started: None,
                machine: String::new(),
                phase: None,
                verdict: None,
                seconds: None,
                log: None,
                tail: VecDeque::new(),
            })
            .collect();
        for (position, planned) in (0..).zip(derivations) {
            self.by_drv.insert(planned.drv_path.clone(), position);
        }
    }

    fn derivation(&mut self, drv_path: &StorePath) -> Option<&mut DerivationState> {
        let position = *self.by_drv.get(drv_path)?;
        self.derivations.get_mut(position as usize)
    }

    /// What is known of a derivation of the plan.
    #[must_use]
    pub fn of_derivation(&self, drv_path: &StorePath) -> Option<&DerivationState> {
        self.derivations.get(*self.by_drv.get(drv_path)? as usize)
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

    /// How many targets have no verdict. In a run that is over there are none.
    #[must_use]
    pub fn without_verdict(&self) -> usize {
        self.targets.values().filter(|state| state.verdict.is_none()).count()
    }

    /// Whether the run is over and everything ended well.
    #[must_use]
    pub fn is_green(&self) -> bool {
        self.exit_code == Some(0)
            && self.without_verdict() == 0
            && !self.target_counts().keys().any(|kind| kind.is_red())
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
        let several = self.targets.values().any(|other| other.target.source != target.source);
        match (several, target.attr_path.names().is_empty()) {
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
