//! The way from installables to a plan, which `run` and `plan` share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Receiver;
use phoenix_evaluate::Special;
use phoenix_model::{
    ActionVerdict, Event, SCHEMA_VERSION, Severity, Stage, StorePath, Target, TargetId, Verdict,
};
use phoenix_report::Summary;
use phoenix_schedule::farm::FarmPlan;
use phoenix_schedule::{Actions, Estimates, Failures, Happening, Plan, Run, RunnerKind, RunnerKinds};

use crate::args::{BuildArgs, NixArgs, TalkArgs, Wanted};
use crate::error::{CommandError, hint_for};
use crate::evaluating::{self, Evaluated, FoundOne};
use crate::farm::Gated;
use crate::gates::{Answered, Gates, Permission};
use crate::history::{self, History};
use crate::kept::Kept;
use crate::recorder::Recorder;
use crate::screen::Screen;
use crate::secrets::secrets;
use crate::setup::{self, Setup};
use crate::state::State;
use crate::status::{self, Searching};
use crate::{depots, signals};

/// A run that has its plan, or was stopped before.
pub(crate) struct Planned {
    pub(crate) setup: Setup,
    pub(crate) state: State,
    pub(crate) recorder: Recorder,
    pub(crate) run: Run,
    pub(crate) signals: Receiver<&'static str>,
    pub(crate) evaluated: Evaluated,
    pub(crate) targets: Vec<Target>,
    /// What Nix has to be asked to realise.
    pub(crate) to_realise: Vec<(StorePath, Vec<String>)>,
    /// Positions of the steps in the order of urgency.
    pub(crate) urgency: Vec<u32>,
    /// The expected seconds of the longest chain, and of everything.
    pub(crate) expected: (f64, f64),
    /// Substituters that Nix need not ask again.
    pub(crate) failed_substituters: Vec<String>,
    pub(crate) fail_fast: bool,
    /// The depot of the run, if it has one.
    pub(crate) kept: Option<Kept>,
    /// What runs after builds.
    pub(crate) actions: Actions,
    /// What has work by its gate.
    pub(crate) gated: Vec<Gated>,
    /// Whether there is any action of std, with work or without.
    pub(crate) has_std: bool,
    /// How many bytes the outputs of derivations have that were built, as far as that is known.
    pub(crate) sizes: BTreeMap<StorePath, u64>,
    /// What failed in earlier runs and is not tried again.
    failures: Failures,
    /// The plan for several workers, if one is wanted.
    pub(crate) farm: Option<Farm>,
    /// Why there is no plan, when there is none.
    pub(crate) trouble: Option<CommandError>,
}

/// Makes a plan for several workers: what nobody can build becomes hopeless in the plan. Told the runners that flakes
/// name.
pub(crate) type MakeFarm<'m> = dyn Fn(&Setup, &[RunnerKind], &mut Plan) -> (FarmPlan, RunnerKinds) + 'm;

/// What a plan is made for.
pub(crate) struct Purpose<'m> {
    /// What may run once all that it needs is built.
    pub(crate) permission: Permission,
    /// Shares the plan among several workers, where there are to be some.
    pub(crate) farm: Option<&'m MakeFarm<'m>>,
    /// Whether it is for other machines.
    pub(crate) ships: bool,
}

/// A plan for several workers.
pub(crate) struct Farm {
    /// What is to be built.
    pub(crate) plan: Plan,
    /// In which units.
    pub(crate) farm: FarmPlan,
    /// By whom.
    pub(crate) kinds: RunnerKinds,
    /// The target of each goal of the plan.
    pub(crate) goals: Vec<TargetId>,
    /// Seconds that earlier runs took for what is cached now.
    pub(crate) saved_seconds: f64,
}

/// Evaluates and plans.
pub(crate) fn plan(
    wanted: &Wanted,
    nix: &NixArgs,
    build: &BuildArgs,
    talk: &TalkArgs,
    purpose: Purpose<'_>,
) -> Result<Planned, CommandError> {
    let mut setup = setup::setup(nix, Some(&build.builder))?;
    let open = if purpose.ships { depots::open_of_run } else { depots::open };
    let depot = build.depot().map(|url| open(Some(url))).transpose()?;
    let asked = evaluating::asked(wanted, &setup.settings.system)?;
    let mut state = State::open();
    let directory = state.new_run()?;
    let mut recorder = Recorder::new(directory, talk.events.as_deref(), Screen::new(talk))?;
    let stop = Arc::new(AtomicBool::new(false));
    let signals = signals::listen(&stop)?;
    recorder.record(Event::RunStarted {
        schema: SCHEMA_VERSION,
        phoenix: env!("CARGO_PKG_VERSION").to_owned(),
        nix: setup.nix.version().to_owned(),
        systems: asked.systems(&setup),
        installables: asked.installables.clone(),
    });
    recorder.record(Event::StageStarted { stage: Stage::Evaluate });
    let mut kept = depot.map(|depot| Kept::open(depot, build.budget, &mut recorder)).transpose()?;
    let mut run = Run::default();
    let mut targets = Vec::new();
    // What has a gate is a target once that is asked.
    let mut gated = Vec::new();
    let mut evaluated = {
        let recorder = std::cell::RefCell::new(&mut recorder);
        evaluating::evaluate(
            &setup,
            &asked,
            nix,
            kept.as_mut().into(),
            &stop,
            &mut |one| {
                if one.special.is_some() && one.verdict.is_none() {
                    gated.push(one);
                    return;
                }
                let FoundOne { target, verdict: ended, .. } = one;
                if ended.is_none() {
                    targets.push(target.clone());
                }
                recorder.borrow_mut().apply(&mut run, Happening::Found { target, ended });
            },
            &mut |heard| evaluating::tell(&mut recorder.borrow_mut(), heard),
        )?
    };
    if evaluated.evaluators.has_unprotected() && !stop.load(Ordering::Relaxed) {
        let derivations = targets.iter().chain(gated.iter().map(|one: &FoundOne| &one.target));
        let derivations = derivations.filter_map(|target| target.drv_path.as_ref());
        evaluating::protect(&setup, &mut evaluated.evaluators, derivations, &mut recorder);
    }
    let fail_fast = build.fail_fast || (evaluated.fail_fast && !build.keep_going);
    run.set_fail_fast(fail_fast);
    for (name, value) in &evaluated.options {
        setup.nix.set_option(name, value);
    }
    if !evaluated.options.is_empty() {
        setup.settings = phoenix_store::Settings::read(&setup.nix)?;
    }
    let has_actions =
        evaluated.configs.iter().any(|(_, config)| !config.actions.is_empty() || !config.push.is_empty());
    let has_std = gated.iter().any(|one| matches!(one.special, Some(Special::StdAction(_))));
    let mut answered = Answered::default();
    if (!gated.is_empty() || has_actions) && !stop.load(Ordering::Relaxed) {
        recorder.record(Event::StageStarted { stage: Stage::Gate });
        let gates = Gates {
            setup: &setup,
            recorder: &mut recorder,
            kept: kept.as_mut(),
            asked: &asked,
            nix,
            stop: &stop,
            permission: purpose.permission,
            configs: &evaluated.configs,
            known: &targets,
            next: evaluated.count,
        };
        answered = gates.ask(gated)?;
    } else {
        answered.targets.extend(gated.into_iter().map(|one| (one.target, None)));
    }
    for (target, ended) in answered.targets {
        if ended.is_none() {
            targets.push(target.clone());
        }
        recorder.apply(&mut run, Happening::Found { target, ended });
    }
    evaluated.evaluators.extend(answered.evaluators);
    for (_, verdict) in &mut answered.actions {
        if let Some(ActionVerdict::Failed { message: text } | ActionVerdict::Skipped { reason: text }) =
            verdict
        {
            secrets().hide_in(text);
        }
    }
    for (action, verdict) in &answered.actions {
        recorder.record(Event::ActionFound { action: action.clone() });
        if let Some(verdict) = verdict.clone() {
            recorder.record(Event::ActionSettled { action: action.id, verdict, seconds: None, log: None });
        }
    }
    if targets.is_empty() && run.exit_code() == 0 && !stop.load(Ordering::Relaxed) {
        recorder.say(Severity::Notice, "no targets: nothing that was asked for can be built");
    }
    let mut planned = Planned {
        setup,
        state,
        recorder,
        run,
        signals,
        evaluated,
        targets,
        to_realise: Vec::new(),
        urgency: Vec::new(),
        expected: (0.0, 0.0),
        failed_substituters: Vec::new(),
        fail_fast,
        kept,
        actions: Actions::new(answered.actions),
        gated: answered.gated,
        has_std,
        sizes: BTreeMap::new(),
        failures: Failures::default(),
        farm: None,
        trouble: None,
    };
    if !planned.was_stopped() {
        planned.trouble =
            planned.search(&stop, build.retry_failed || history::is_another_attempt(), purpose.farm).err();
        planned.was_stopped();
    }
    Ok(planned)
}

impl Planned {
    /// Takes in signals that came meanwhile; whether the run was stopped.
    pub(crate) fn was_stopped(&mut self) -> bool {
        while let Ok(signal) = self.signals.try_recv() {
            self.apply(Happening::Cancelled { reason: signal.to_owned() });
        }
        self.run.is_cancelled()
    }

    /// Has the run take in what happens, and records what follows.
    pub(crate) fn apply(&mut self, happening: Happening) {
        self.recorder.apply(&mut self.run, happening);
    }

    /// How long builds took in earlier runs, on this machine and on those that share the depot, which also knows what
    /// failed.
    fn estimates(&mut self, retry_failed: bool) -> Estimates {
        let mut estimates = self.state.estimates();
        if let Some(kept) = &self.kept {
            match History::read(kept.depot().as_ref()) {
                Ok(history) => {
                    estimates.merge(history.estimates);
                    if !retry_failed {
                        self.failures = history.failures;
                    }
                }
                Err(error) => self.recorder.say(Severity::Warning, error.in_one_line()),
            }
        }
        estimates
    }

    fn search(
        &mut self,
        stop: &AtomicBool,
        retry_failed: bool,
        farm: Option<&MakeFarm<'_>>,
    ) -> Result<(), CommandError> {
        self.recorder.record(Event::StageStarted { stage: Stage::Plan });
        let estimates = self.estimates(retry_failed);
        let recorder = &mut self.recorder;
        let found =
            status::search(&self.setup, &self.targets, &estimates, self.kept.as_mut(), stop, &mut |heard| {
                match heard {
                    Searching::Trouble { url, problem } => recorder.record(Event::SubstituterFailed {
                        url: url.to_owned(),
                        problem: problem.to_owned(),
                    }),
                    Searching::Waiting => recorder.tick(),
                }
            })?;
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let status::Found { mut plan, targets, saved_seconds, failed } = found;
        plan.remember(&self.failures, history::now());
        match farm {
            Some(make) => {
                let (farm, kinds) = make(&self.setup, &self.evaluated.runners, &mut plan);
                let (plan, goals) = (plan.clone(), targets.clone());
                self.farm = Some(Farm { plan, farm, kinds, goals, saved_seconds });
            }
            None => plan.refuse(&self.setup.builders()),
        }
        self.to_realise = plan.to_realise();
        self.urgency = plan.by_urgency();
        self.expected = (plan.critical_seconds(), plan.total_seconds());
        self.failed_substituters = failed;
        self.apply(Happening::Planned { plan, targets, saved_seconds });
        Ok(())
    }
}

/// What to do about what went wrong, where that is known; each hint once.
pub(crate) fn hints(summary: &Summary) -> Vec<String> {
    let targets = summary.targets.values().filter_map(|state| match &state.verdict {
        Some(Verdict::NotEvaluated { error }) => Some(error),
        Some(Verdict::Failed { message, .. }) => Some(message),
        _ => None,
    });
    let failed = summary.derivations.iter().filter_map(|state| match &state.verdict {
        Some(Verdict::Failed { message, .. }) => Some((message, &state.tail)),
        _ => None,
    });
    let logs = failed.flat_map(|(message, tail)| std::iter::once(message).chain(tail));
    // What went well needs no advice, whatever builders say.
    let is_green = summary.is_green() && summary.exit_code.is_none_or(|code| code == 0);
    // A warning may be the words of a builder.
    let errors = summary.messages.iter().filter(|(severity, _)| *severity == Severity::Error);
    let of_flake = |text: &&String| hint_for(text).is_some_and(|hint| hint.contains("flake.lock"));
    let messages = errors.map(|(_, text)| text).filter(|text| !is_green && !of_flake(text));
    let known = targets.chain(logs).chain(messages).filter_map(|text| hint_for(text)).map(str::to_owned);
    let mut hints: Vec<String> = Vec::new();
    for hint in known.chain(meant_directories(summary)) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints
}

/// A reference without `./` is a name in Nix's registry, even where there is such a directory.
fn meant_directories(summary: &Summary) -> impl Iterator<Item = String> + '_ {
    summary.targets.values().filter_map(|state| {
        let source = state.target.source.as_str();
        let is_name = !source.contains(':') && !source.starts_with(['.', '/', '~']);
        let failed = matches!(state.verdict, Some(Verdict::NotEvaluated { .. }));
        let whole = state.target.attr_path.names().is_empty();
        let unknown = matches!(&state.verdict, Some(Verdict::NotEvaluated { error })
            if error.contains("flake:") || error.contains("registry") || error.contains("registries"));
        (failed && unknown && whole && is_name && std::path::Path::new(source).is_dir())
            .then(|| format!("`{source}` is looked up in Nix's registry; did you mean ./{source}?"))
    })
}
