//! How every derivation and every target of a run ends.
//!
//! [`Run`] is told what happens, in whatever order it happens, and answers with the events that follow.
//! Each step of the plan and each target is settled exactly once: at the latest when the builder has
//! ended, from what is then in the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use phoenix_model::{
    Event, FailureClass, PlannedTarget, SettledDerivation, Severity, Source, Stamp, StorePath, Target,
    TargetId, Verdict, VerdictKind,
};

use crate::hindered::hindered;
use crate::plan::{Hopeless, Plan, Step, hopeless};

/// Something that happened, as the one who saw it tells it.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// A target was found; `ended` when it needs no building to have its verdict.
    Found {
        /// The target.
        target: Target,
        /// Its verdict, when it did not evaluate or is skipped.
        ended: Option<Verdict>,
    },
    /// What is to be done is known.
    Planned {
        /// The plan.
        plan: Plan,
        /// The target of each goal of the plan, in the order of the goals.
        targets: Vec<TargetId>,
        /// Seconds that earlier runs took for what is cached now.
        saved_seconds: f64,
    },
    /// Nix began to build a derivation.
    BuildStarted {
        /// Which.
        drv_path: StorePath,
        /// Where; empty for this machine.
        machine: String,
    },
    /// The builder of a derivation has ended, and what it should have made is not there: Nix tells why later.
    BuildEnded {
        /// Which.
        drv_path: StorePath,
    },
    /// Nix began to fetch a path.
    FetchStarted {
        /// What.
        path: StorePath,
        /// From where.
        from: String,
    },
    /// All outputs that are needed of a derivation are valid now.
    Appeared {
        /// Which.
        drv_path: StorePath,
    },
    /// Nix said that a derivation failed.
    BuildFailed {
        /// Which.
        drv_path: StorePath,
        /// How.
        class: FailureClass,
        /// In Nix's words.
        message: String,
    },
    /// A derivation failed for a reason that is not its own, and Nix is asked for it again.
    TriedAgain {
        /// Which.
        drv_path: StorePath,
    },
    /// The run is being stopped.
    Cancelled {
        /// Why: a signal's name.
        reason: String,
    },
    /// Nix has ended, or was never started because there was nothing to build.
    BuilderEnded(BuilderEnd),
}

/// How Nix ended, and what is in the store after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuilderEnd {
    /// Its exit code; `None` when a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The steps, by position, whose needed outputs are all valid now. A step with an output whose path
    /// comes about in the build counts as valid when Nix said so by its exit code.
    pub valid: HashSet<u32>,
    /// Which of [`Run::beside_plan`] are realised now.
    pub realised: HashSet<StorePath>,
    /// What is not there because something beside the plan failed that it needs: steps, and targets that a
    /// substituter was said to have; each with what failed.
    pub hindered: BTreeMap<StorePath, Vec<StorePath>>,
    /// What Nix said last that belongs to no derivation: the best guess at why something is missing.
    pub last_words: String,
}

/// One run, from the targets it finds to their verdicts.
#[derive(Debug, Default)]
pub struct Run {
    fail_fast: bool,
    targets: BTreeMap<TargetId, TargetState>,
    steps: Vec<Step>,
    states: Vec<StepState>,
    by_drv: HashMap<StorePath, u32>,
    by_output: HashMap<StorePath, u32>,
    /// What Nix builds that is not in the plan, and since when: what a substituter promised and did not
    /// give, or what somebody deleted meanwhile.
    beside: BTreeMap<StorePath, Stamp>,
    /// How what failed of that failed, which is why Nix then does not end well.
    beside_failed: Vec<Verdict>,
    /// The targets that a substituter is said to have, by derivation: it may break its promise.
    promised: BTreeMap<StorePath, Vec<TargetId>>,
    cancelled: bool,
    ended: bool,
    disagreed: bool,
}

#[derive(Debug, Default)]
struct TargetState {
    step: Option<u32>,
    verdict: Option<Verdict>,
}

#[derive(Debug, Default)]
struct StepState {
    started: Option<Stamp>,
    /// When its builder ended, if Nix said so before it said how.
    ended: Option<Stamp>,
    fetched_from: Option<String>,
    verdict: Option<Verdict>,
    seconds: Option<f64>,
    targets: Vec<TargetId>,
}

impl Run {
    /// A run that has found nothing yet. With `fail_fast`, Nix stops at the first failure, and what it
    /// then leaves undone is cancelled.
    #[must_use]
    pub fn new(fail_fast: bool) -> Self {
        Self { fail_fast, ..Self::default() }
    }

    /// Says whether Nix stops at the first failure, where that is known only after evaluating.
    pub fn set_fail_fast(&mut self, fail_fast: bool) {
        self.fail_fast = fail_fast;
    }

    /// Takes in what happened at a point in time; returns the events that follow, the happening's own
    /// among them.
    pub fn apply(&mut self, at: Stamp, happening: Happening) -> Vec<Event> {
        let mut events = Vec::new();
        match happening {
            Happening::Found { target, ended } => self.found(target, ended, &mut events),
            Happening::Planned { plan, targets, saved_seconds } => {
                self.planned(at, plan, &targets, saved_seconds, &mut events);
            }
            Happening::BuildStarted { drv_path, machine } => {
                let drv_path = match self.step_of(&drv_path) {
                    Some(step) => {
                        let state = &mut self.states[step as usize];
                        // Nix says it again for every round of a build that it repeats.
                        if state.started.is_some() && state.ended.take().is_none() {
                            return events;
                        }
                        if state.verdict.is_none() {
                            state.started.get_or_insert(at);
                        }
                        self.steps[step as usize].drv_path.clone()
                    }
                    None => {
                        self.beside.entry(drv_path.clone()).or_insert(at);
                        drv_path
                    }
                };
                events.push(Event::BuildStarted { drv_path, machine });
            }
            Happening::BuildEnded { drv_path } => {
                if let Some(&step) = self.by_drv.get(&drv_path)
                    && let state = &mut self.states[step as usize]
                    && state.started.is_some()
                    && state.verdict.is_none()
                    && state.ended.is_none()
                {
                    state.ended = Some(at);
                    events.push(Event::BuildEnded { drv_path: self.steps[step as usize].drv_path.clone() });
                }
            }
            Happening::FetchStarted { path, from } => {
                if let Some(&step) = self.by_output.get(&path) {
                    self.states[step as usize].fetched_from = Some(from.clone());
                }
                events.push(Event::FetchStarted { path, from });
            }
            Happening::Appeared { drv_path } => {
                if let Some(&step) = self.by_drv.get(&drv_path) {
                    let verdict = self.present_verdict(step);
                    self.settle(at, step, &verdict, &mut events);
                } else if let Some(started) = self.beside.remove(&drv_path) {
                    self.settle_one_beside(at, drv_path, started, &Verdict::Built, &mut events);
                }
            }
            Happening::BuildFailed { drv_path, class, message } => {
                if let Some(&step) = self.by_drv.get(&drv_path) {
                    self.settle(at, step, &Verdict::Failed { class, message }, &mut events);
                } else if let Some(started) = self.beside.remove(&drv_path) {
                    let verdict = Verdict::Failed { class, message };
                    self.settle_one_beside(at, drv_path, started, &verdict, &mut events);
                }
            }
            Happening::TriedAgain { drv_path } => {
                if let Some(&step) = self.by_drv.get(&drv_path) {
                    let state = &mut self.states[step as usize];
                    (state.started, state.ended) = (None, None);
                }
            }
            Happening::Cancelled { reason } => {
                if !self.ended && !std::mem::replace(&mut self.cancelled, true) {
                    events.push(Event::Cancelling { reason });
                }
            }
            Happening::BuilderEnded(end) => self.builder_ended(at, &end, &mut events),
        }
        events
    }

    /// Whether the run was told to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// The steps that were started and of which it is not known how they ended, by position.
    #[must_use]
    pub fn begun(&self) -> Vec<u32> {
        (0..)
            .zip(&self.states)
            .filter(|(_, state)| state.started.is_some() && state.verdict.is_none())
            .map(|(position, _)| position)
            .collect()
    }

    /// Those whose builders are running, as far as Nix says.
    #[must_use]
    pub fn running(&self) -> Vec<u32> {
        let mut running = self.begun();
        running.retain(|&step| self.states[step as usize].ended.is_none());
        running
    }

    /// When a step was started, if it was.
    #[must_use]
    pub fn started(&self, step: u32) -> Option<Stamp> {
        self.states.get(step as usize)?.started
    }

    /// The step that ran out of time, when Nix does not say which: of those whose builders ended for a reason that
    /// is not told, the one that ran longest since it was started, or since it printed its last line.
    ///
    /// `last_line` gives the time of that line, where silence is what was limited.
    pub fn timed_out(
        &self,
        now: Stamp,
        last_line: impl Fn(&StorePath) -> Option<Stamp>,
    ) -> Option<&StorePath> {
        let of = |step: u32| &self.states[step as usize];
        let mut begun = self.begun();
        if begun.iter().any(|&step| of(step).ended.is_some()) {
            begun.retain(|&step| of(step).ended.is_some());
        }
        let quiet = |&step: &u32| {
            let since = of(step).started.max(last_line(&self.steps[step as usize].drv_path));
            of(step).ended.unwrap_or(now).0.saturating_sub(since.unwrap_or_default().0)
        };
        // The first of those that are equal.
        let longest = begun.into_iter().rev().max_by_key(quiet)?;
        Some(&self.steps[longest as usize].drv_path)
    }

    /// The derivation of the plan that a path is, or is an output of.
    #[must_use]
    pub fn derivation_of(&self, path: &StorePath) -> Option<StorePath> {
        let step = *self.by_drv.get(path).or_else(|| self.by_output.get(path))?;
        Some(self.steps[step as usize].drv_path.clone())
    }

    /// The steps, by position, that have not ended although nothing they need has failed: after Nix has
    /// ended, those it left undone for a reason that is not theirs.
    #[must_use]
    pub fn unexplained(&self) -> HashSet<u32> {
        let has_failed =
            |position: usize, _: &Step| matches!(self.states[position].verdict, Some(Verdict::Failed { .. }));
        let hindered = hindered(&self.steps, |step| &step.inputs, has_failed);
        let open = (0..).zip(&self.states).zip(hindered);
        let open = open.filter(|((_, state), hindered)| state.verdict.is_none() && !hindered);
        open.map(|((position, _), _)| position).collect()
    }

    /// What Nix has begun to build that is not in the plan.
    pub fn beside_plan(&self) -> impl Iterator<Item = &StorePath> {
        self.beside.keys()
    }

    /// The position of the step that a derivation of the plan is.
    #[must_use]
    pub fn position(&self, drv_path: &StorePath) -> Option<u32> {
        self.by_drv.get(drv_path).copied()
    }

    /// How a derivation of the plan ended, once it has, and how long it took if it was begun.
    #[must_use]
    pub fn end_of(&self, drv_path: &StorePath) -> Option<(&Verdict, Option<f64>)> {
        let state = &self.states[self.position(drv_path)? as usize];
        Some((state.verdict.as_ref()?, state.seconds))
    }

    /// The steps of the plan.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The outputs of the steps that were built, as far as their paths are known.
    pub fn built_outputs(&self) -> impl Iterator<Item = &StorePath> {
        let steps = self.steps.iter().zip(&self.states);
        let built = steps.filter(|(_, state)| state.verdict == Some(Verdict::Built));
        built.flat_map(|(step, _)| step.outputs.iter().flatten())
    }

    /// The verdict of a target, once it has one.
    #[must_use]
    pub fn verdict(&self, target: TargetId) -> Option<&Verdict> {
        self.targets.get(&target)?.verdict.as_ref()
    }

    /// The exit code of the process, by what is settled now.
    ///
    /// 130 when cancelled; else the failures' classes as Nix's exit codes, OR-ed; else 120 when a target
    /// did not evaluate; else 1 when something could not be built for a reason that is not its own, when
    /// Nix and the store disagree, or when a target has no verdict; else 0.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.cancelled {
            return 130;
        }
        let steps = self.states.iter().filter_map(|state| state.verdict.as_ref());
        let targets = self.targets.values().filter_map(|target| target.verdict.as_ref());
        let failed = Verdict::failure_code(steps.chain(targets).chain(&self.beside_failed));
        if failed != 0 {
            return failed;
        }
        let kinds: HashSet<Option<VerdictKind>> =
            self.targets.values().map(|target| target.verdict.as_ref().map(Verdict::kind)).collect();
        if kinds.contains(&Some(VerdictKind::NotEvaluated)) {
            return 120;
        }
        let unsettled = kinds.iter().any(|kind| kind.is_none_or(VerdictKind::is_red));
        u8::from(self.disagreed || unsettled)
    }

    /// The step that a derivation is.
    ///
    /// Once its content-addressed inputs are built, Nix builds a derivation under another path, in which
    /// they are resolved. It keeps its name, and only such a derivation has outputs without a path.
    fn step_of(&mut self, drv_path: &StorePath) -> Option<u32> {
        if let Some(&step) = self.by_drv.get(drv_path) {
            return Some(step);
        }
        let resolved = |step: &Step, state: &StepState| {
            step.outputs.iter().any(Option::is_none)
                && step.drv_path.name() == drv_path.name()
                && state.started.is_none()
                && state.verdict.is_none()
        };
        let found = self.steps.iter().zip(&self.states).position(|(step, state)| resolved(step, state))?;
        let step = u32::try_from(found).ok()?;
        self.by_drv.insert(drv_path.clone(), step);
        Some(step)
    }

    fn found(&mut self, target: Target, ended: Option<Verdict>, events: &mut Vec<Event>) {
        if self.targets.contains_key(&target.id) {
            return;
        }
        let id = target.id;
        self.targets.insert(id, TargetState::default());
        events.push(Event::TargetFound { target });
        if let Some(verdict) = ended {
            self.settle_target(id, verdict, events);
        }
    }

    fn planned(
        &mut self,
        at: Stamp,
        plan: Plan,
        targets: &[TargetId],
        saved_seconds: f64,
        events: &mut Vec<Event>,
    ) {
        if !self.steps.is_empty() || self.ended {
            return;
        }
        self.states.resize_with(plan.steps.len(), StepState::default);
        let mut planned = Vec::new();
        let mut cached = Vec::new();
        for (goal, &target) in plan.goals.iter().zip(targets) {
            match goal.step {
                Some(derivation) => {
                    planned.push(PlannedTarget { target, derivation });
                    self.states[derivation as usize].targets.push(target);
                    if let Some(state) = self.targets.get_mut(&target) {
                        state.step = Some(derivation);
                    }
                }
                None => {
                    let from = plan.found.get(&goal.drv_path).cloned().unwrap_or(Source::Store);
                    if from != Source::Store {
                        self.promised.entry(goal.drv_path.clone()).or_default().push(target);
                    }
                    cached.push((target, Verdict::Cached { from }));
                }
            }
        }
        events.push(Event::Planned {
            derivations: plan.derivations(),
            targets: planned,
            fetched: plan.fetched.clone(),
            saved_seconds,
        });
        for (target, verdict) in cached {
            self.settle_target(target, verdict, events);
        }
        self.steps = plan.steps;
        for (position, step) in (0..).zip(&self.steps) {
            self.by_drv.insert(step.drv_path.clone(), position);
            for path in step.outputs.iter().flatten() {
                self.by_output.insert(path.clone(), position);
            }
        }
        for position in (0..).take(self.steps.len()) {
            let step = &self.steps[position as usize];
            if let Some(Hopeless { class, message, log }) = step.hopeless.clone() {
                let drv_path = &step.drv_path;
                events
                    .extend(log.into_iter().map(|line| Event::LogLine { drv_path: drv_path.clone(), line }));
                self.settle(at, position, &Verdict::Failed { class, message }, events);
            }
        }
    }

    /// Everything that is not settled yet is settled now.
    fn builder_ended(&mut self, at: Stamp, end: &BuilderEnd, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.settle_beside(at, end, events);
        self.settle_hindered(end, events);
        let failed_before =
            self.states.iter().any(|state| matches!(state.verdict, Some(Verdict::Failed { .. })));
        let mut roots: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); self.steps.len()];
        let mut beside: Vec<BTreeSet<StorePath>> = vec![BTreeSet::new(); self.steps.len()];
        for position in (0..).take(self.steps.len()) {
            let index = position as usize;
            if self.states[index].verdict.is_none() {
                let blocked_by: BTreeSet<u32> = self.steps[index]
                    .inputs
                    .iter()
                    .flat_map(|&input| roots[input as usize].clone())
                    .collect();
                let needs = self.steps[index].inputs.iter().flat_map(|&input| &beside[input as usize]);
                let own = end.hindered.get(&self.steps[index].drv_path).into_iter().flatten();
                let blocked_beside: BTreeSet<StorePath> = needs.chain(own).cloned().collect();
                let verdict = if end.valid.contains(&position) {
                    self.present_verdict(position)
                } else if !blocked_by.is_empty() || !blocked_beside.is_empty() {
                    let by = blocked_by.iter().map(|&root| self.steps[root as usize].drv_path.clone());
                    let by: BTreeSet<StorePath> = by.chain(blocked_beside.iter().cloned()).collect();
                    Verdict::Blocked { by: by.into_iter().collect() }
                } else if self.states[index].ended.is_some() {
                    // Its builder had failed before Nix was stopped.
                    let message = "its builder failed; Nix ended before it said why".to_owned();
                    Verdict::Failed { class: FailureClass::Build, message }
                } else if self.cancelled || (self.fail_fast && failed_before) {
                    Verdict::Cancelled
                } else {
                    Verdict::Failed { class: FailureClass::Other, message: unexplained(end) }
                };
                if matches!(verdict, Verdict::Blocked { .. }) {
                    roots[index] = blocked_by;
                    beside[index] = blocked_beside;
                }
                self.settle(at, position, &verdict, events);
            }
            if matches!(self.states[index].verdict, Some(Verdict::Failed { .. })) {
                roots[index].insert(position);
            }
        }
        let unsettled: Vec<TargetId> =
            self.targets.iter().filter(|(_, target)| target.verdict.is_none()).map(|(&id, _)| id).collect();
        for id in unsettled {
            // Only a run that was stopped before there was a plan leaves these.
            let verdict = if self.cancelled {
                Verdict::Cancelled
            } else {
                let words = if end.last_words.is_empty() { "it was never planned" } else { &end.last_words };
                Verdict::Failed { class: FailureClass::Other, message: words.to_owned() }
            };
            self.settle_target(id, verdict, events);
        }
        self.compare(end, events);
    }

    /// What was built beside the plan ends as the store says. A target that was to come from a substituter, and did
    /// not, ends so too: this is the one verdict that may change.
    fn settle_beside(&mut self, at: Stamp, end: &BuilderEnd, events: &mut Vec<Event>) {
        for (drv_path, started) in std::mem::take(&mut self.beside) {
            let verdict = if end.realised.contains(&drv_path) {
                Verdict::Built
            } else if self.cancelled {
                Verdict::Cancelled
            } else {
                Verdict::Failed { class: FailureClass::Other, message: unexplained(end) }
            };
            self.settle_one_beside(at, drv_path, started, &verdict, events);
        }
    }

    /// A target that was to come from a substituter, and had to be built instead, is blocked by what failed there.
    fn settle_hindered(&mut self, end: &BuilderEnd, events: &mut Vec<Event>) {
        for (drv_path, by) in &end.hindered {
            self.break_promise(drv_path, &Verdict::Blocked { by: by.clone() }, events);
        }
    }

    /// The targets that a substituter was said to have end in another way.
    fn break_promise(&mut self, drv_path: &StorePath, verdict: &Verdict, events: &mut Vec<Event>) {
        for target in self.promised.remove(drv_path).unwrap_or_default() {
            if let Some(state) = self.targets.get_mut(&target) {
                state.verdict = None;
            }
            self.settle_target(target, verdict.clone(), events);
        }
    }

    fn settle_one_beside(
        &mut self,
        at: Stamp,
        drv_path: StorePath,
        started: Stamp,
        verdict: &Verdict,
        events: &mut Vec<Event>,
    ) {
        self.break_promise(&drv_path, verdict, events);
        self.beside_failed.extend(matches!(verdict, Verdict::Failed { .. }).then(|| verdict.clone()));
        let seconds = Some(at.seconds_since(started));
        let settled = SettledDerivation { drv_path, verdict: verdict.clone(), seconds, log: None };
        events.push(Event::DerivationSettled { settled });
    }

    /// Exit codes are read, and have to agree with what was seen.
    fn compare(&mut self, end: &BuilderEnd, events: &mut Vec<Event>) {
        // Nix was never asked for what no builder can build, nor for what needs that.
        let all_done = self.states.iter().zip(hopeless(&self.steps)).all(|(state, not_asked_for)| {
            not_asked_for || matches!(state.verdict, Some(Verdict::Built | Verdict::Cached { .. }))
        });
        let text = match end.exit_code {
            Some(0) if !all_done && !self.cancelled => {
                "Nix ended with exit code 0, but not everything was built: the run is red"
            }
            Some(0) => return,
            // What is beside the plan tells why itself.
            _ if all_done && !self.beside_failed.is_empty() && !self.cancelled => {
                self.disagreed = true;
                return;
            }
            _ if all_done && !self.states.is_empty() && !self.cancelled => {
                "everything is there, but Nix did not end with exit code 0: the run is red"
            }
            _ => return,
        };
        self.disagreed = true;
        let words = if end.last_words.is_empty() { String::new() } else { format!("\n{}", end.last_words) };
        events.push(Event::Message {
            severity: Severity::Error,
            text: format!("{text} ({}){words}", ending(end)),
        });
    }

    fn present_verdict(&self, step: u32) -> Verdict {
        let state = &self.states[step as usize];
        if state.started.is_some() {
            return Verdict::Built;
        }
        let from = state.fetched_from.clone().map_or(Source::Store, Source::Substituter);
        Verdict::Cached { from }
    }

    fn settle(&mut self, at: Stamp, step: u32, verdict: &Verdict, events: &mut Vec<Event>) {
        let state = &mut self.states[step as usize];
        if state.verdict.is_some() {
            return;
        }
        state.verdict = Some(verdict.clone());
        let drv_path = self.steps[step as usize].drv_path.clone();
        let seconds = state.started.map(|started| state.ended.unwrap_or(at).seconds_since(started));
        state.seconds = seconds;
        let targets = state.targets.clone();
        let settled = SettledDerivation { drv_path, verdict: verdict.clone(), seconds, log: None };
        events.push(Event::DerivationSettled { settled });
        for target in targets {
            self.settle_target(target, verdict.clone(), events);
        }
    }

    fn settle_target(&mut self, id: TargetId, verdict: Verdict, events: &mut Vec<Event>) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        if target.verdict.is_none() {
            target.verdict = Some(verdict.clone());
            events.push(Event::TargetSettled { target: id, verdict });
        }
    }
}

fn unexplained(end: &BuilderEnd) -> String {
    if end.last_words.is_empty() {
        format!("Nix did not build it and did not say why ({})", ending(end))
    } else if end.exit_code.is_none() && end.signal.is_none() {
        // It was not Nix that ended, or it was never started.
        end.last_words.clone()
    } else {
        format!("Nix did not build it ({}): {}", ending(end), end.last_words)
    }
}

fn ending(end: &BuilderEnd) -> String {
    match (end.exit_code, end.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("it was ended by {}", signal_name(signal)),
        (None, None) => "it did not come to its end".to_owned(),
    }
}

/// A signal in words: `signal 9 (SIGKILL)`. The numbers are those that Linux and macOS share.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal} ({name})")
}

#[cfg(test)]
mod tests;
