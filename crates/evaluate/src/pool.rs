//! Evaluator processes at work on a walk.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use phoenix_model::{AttrPath, NarHash, Severity, StorePath};
use phoenix_store::{Layout, Nix, NixError, TempRoots};

use crate::budget::Budget;
use crate::evaluator::Evaluator;
use crate::explore::Explore;
use crate::jobs::Jobs;
use crate::memory::Meter;
use crate::nix_eval_jobs::{self, EvaluatorKind, Event, NixEvalJobsError};
use crate::prepare::{Prepared, Unprepared, prepare};
use crate::said::Said;
use crate::through::Through;
use crate::walk::unended;
use crate::{
    Details, Ended, FlakeConfig, FoundTarget, Inspect, JobRoot, JobSource, KeepAnswers, Selection, Walk, crew,
};

/// Tells which attributes are targets, given a source as the user wrote it, and the root of a flake's sources as a
/// store path with the flake's directory in it (none for a file): it may hold a configuration. An error ends the
/// evaluation.
pub type Select<'a> = dyn Fn(&str, Option<&str>) -> Result<Selection, String> + 'a;

/// What to evaluate, and how.
pub struct Request<'a> {
    /// Nix, set to the store that derivations are written to.
    pub nix: Nix,
    /// Where that store lies, if this process may write it and there is no daemon: then evaluators write derivations
    /// through us, which takes a fraction of the time.
    pub write_to: Option<Layout>,
    /// What to look at, one after another.
    pub roots: Vec<Root>,
    /// Which attributes are targets.
    pub select: &'a Select<'a>,
    /// Systems this machine builds for besides those selected.
    pub extra_platforms: Vec<String>,
    /// Who evaluates.
    pub evaluator: EvaluatorKind,
    /// How many evaluator processes, at least 1.
    pub workers: usize,
    /// Whether files and the environment may be read.
    pub impure: bool,
    /// Whether errors come with their whole trace.
    pub show_trace: bool,
    /// Inputs of the flakes to replace, as `--override-input` takes them.
    pub override_inputs: Vec<(String, String)>,
    /// A lock file to read instead of the flakes' own.
    pub reference_lock_file: Option<PathBuf>,
    /// Whether settings that a flake asks for are used.
    pub accept_flake_config: bool,
    /// What is told of derivations besides the usual.
    pub details: Details,
    /// Whether derivations are written to the store.
    pub instantiate: bool,
    /// How many bytes of memory all evaluator processes may have together; nothing for a share of what is available.
    pub memory: Option<u64>,
    /// Where answers are kept between runs, if anywhere.
    pub answers: Option<&'a dyn KeepAnswers>,
    /// Protects a path from the garbage collector as long as this lasts; whether it is valid, as far as can be told.
    pub protect: &'a dyn Fn(&StorePath) -> bool,
    /// Where a path of the store that is evaluated in really is.
    pub real_path: &'a dyn Fn(&str) -> PathBuf,
    /// The paths of sources with these NAR hashes, those that are in the store or could be brought there without being
    /// fetched.
    pub sources: &'a dyn Fn(&[NarHash]) -> Vec<Option<StorePath>>,
    /// Nix's own cache.
    pub nix_cache: Option<PathBuf>,
    /// A hash of the settings of Nix that an evaluation depends on, or why it cannot be told what it depends on.
    pub settings: Result<String, String>,
}

/// A flake or a file, and what is asked for in it.
#[derive(Debug, Clone)]
pub struct Root {
    /// As the user wrote it.
    pub source: String,
    /// The file, for a root that is no flake.
    pub file: Option<PathBuf>,
    /// What is asked for: the first candidate that exists, and the outputs wanted of it.
    pub asked: Vec<(Vec<AttrPath>, Vec<String>)>,
    /// What is to be run: the first candidate that exists.
    pub programs: Vec<Vec<AttrPath>>,
    /// All jobs that are there, instead.
    pub jobs: Option<JobRoot>,
}

impl Root {
    /// Whether it is a flake, which is locked first.
    pub(crate) fn is_flake(&self) -> bool {
        match &self.jobs {
            Some(jobs) => matches!(jobs.source, JobSource::Flake(_)),
            None => self.file.is_none(),
        }
    }
}

/// What is heard while evaluating.
#[derive(Debug)]
pub enum Heard {
    /// An evaluator turned to an attribute; so many are known to be left.
    Evaluating {
        /// Which.
        attr: AttrPath,
        /// How many are left.
        left: usize,
    },
    /// How far it is.
    Progress(Progress),
    /// A target was found.
    Found(Box<Found>),
    /// Something Nix or the flake said.
    Said {
        /// How much it matters.
        severity: Severity,
        /// What.
        text: String,
    },
    /// Settings that a flake asks for and that are used from here on.
    Config(FlakeConfig),
    /// Nothing for a moment: evaluation goes on.
    Waiting,
}

/// How far the evaluation of a root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// How many attributes were looked at.
    pub done: usize,
    /// How many of them did not evaluate.
    pub failed: usize,
    /// How many are looked at now.
    pub in_work: usize,
    /// How many are known to be left.
    pub left: usize,
    /// How many bytes of memory the evaluators have.
    pub memory: u64,
    /// How many they may have.
    pub budget: u64,
}

/// A target and the root it comes from.
#[derive(Debug)]
pub struct Found {
    /// [`Root::source`].
    pub source: String,
    /// The target.
    pub target: FoundTarget,
}

/// Why nothing could be evaluated at all.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Nix could not be called.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// It cannot be told which attributes are targets.
    #[error("{0}")]
    Selection(String),
    /// An evaluator process could not be started.
    #[error("cannot start an evaluator (`nix repl`)")]
    Start(#[from] io::Error),
    /// What evaluators wrote is not in the store.
    #[error("derivations cannot be written to the store: {0}")]
    Write(String),
    /// nix-eval-jobs cannot be used.
    #[error(transparent)]
    NixEvalJobs(#[from] NixEvalJobsError),
    /// The evaluator does not speak as expected.
    #[error("`nix repl` of this version of Nix cannot be used as an evaluator: {0}")]
    Strange(String),
}

/// Evaluators that are kept because they protect what they instantiated from the garbage collector.
/// Drop it once something else protects that.
#[derive(Debug, Default)]
pub struct Evaluators {
    kept: Vec<Evaluator>,
    /// Whether some of what was found comes from processes that are gone, or from no process of this run.
    has_unprotected: bool,
    roots: Vec<TempRoots>,
    links: Vec<nix_eval_jobs::Kept>,
    /// Protects what was written through it.
    through: Vec<Arc<Through>>,
}

impl Evaluators {
    pub(crate) fn new(kept: Vec<Evaluator>, through: Option<Arc<Through>>, has_unprotected: bool) -> Self {
        Self { kept, through: through.into_iter().collect(), has_unprotected, ..Self::default() }
    }

    /// Keeps what others keep, too.
    pub fn extend(&mut self, others: Self) {
        self.kept.extend(others.kept);
        self.has_unprotected |= others.has_unprotected;
        self.roots.extend(others.roots);
        self.links.extend(others.links);
        self.through.extend(others.through);
    }

    /// Whether some derivations that were found are not protected.
    #[must_use]
    pub fn has_unprotected(&self) -> bool {
        self.has_unprotected
    }

    /// Keeps what protects what was known before.
    pub fn keep(&mut self, roots: Option<TempRoots>) {
        self.roots.extend(roots);
    }

    /// Protects what is protected by these, too.
    pub fn protect(&mut self, roots: TempRoots) {
        self.roots.push(roots);
        self.has_unprotected = false;
    }
}

/// Evaluates everything that is asked for; `hear` is told of targets as they are found.
///
/// A flake that cannot be fetched, locked or evaluated is a target of its own that did not evaluate, and
/// the others go on. When `stop` is set, what has not been looked at yet is left out.
///
/// # Errors
/// When Nix cannot be used at all.
pub fn evaluate(
    request: &Request<'_>,
    stop: &Arc<AtomicBool>,
    hear: &mut dyn FnMut(Heard),
) -> Result<Evaluators, EvaluateError> {
    let mut kept = Evaluators::default();
    let mut meter = Meter::new();
    let budget = Budget::new(request.memory, meter.available(), request.workers);
    for root in &request.roots {
        if stop.load(Ordering::Relaxed) {
            whole(root, None, hear);
            continue;
        }
        match prepare(request, root, stop, hear) {
            // Nix may have got the same signal, and says that it failed.
            Err(_) if stop.load(Ordering::Relaxed) => whole(root, None, hear),
            Ok(prepared) if request.evaluator == EvaluatorKind::NixEvalJobs => {
                kept.links.extend(walk_by_nix_eval_jobs(request, root, &prepared, stop, hear)?);
            }
            Ok(prepared) => {
                let evaluators = crew::walk(request, root, prepared, budget.clone(), &mut meter, stop, hear)?;
                kept.extend(evaluators);
            }
            Err(Unprepared::Nix(NixError::NotFound)) => return Err(NixError::NotFound.into()),
            Err(Unprepared::Nix(error)) if error.is_of_store() => return Err(error.into()),
            Err(Unprepared::Nix(error)) => {
                whole(root, Some(Ended::NotEvaluated(nix_message(error))), hear);
            }
            Err(Unprepared::Mistake(error)) => whole(root, Some(Ended::NotEvaluated(error)), hear),
            Err(Unprepared::Stopped) => whole(root, None, hear),
            Err(Unprepared::Evaluate(error)) => return Err(error),
        }
    }
    Ok(kept)
}

fn nix_message(error: NixError) -> String {
    match error {
        NixError::Failed { message, .. } => message,
        other => other.to_string(),
    }
}

/// A target for all of a root: it ended so, or was not reached.
fn whole(root: &Root, ended: Option<Ended>, hear: &mut dyn FnMut(Heard)) {
    let target = FoundTarget { ended, ..unended(AttrPath::default(), phoenix_model::TargetKind::Unknown) };
    tell_found(root, vec![target], hear);
}

/// Tells of targets that were found at a root.
pub(crate) fn tell_found(root: &Root, targets: Vec<FoundTarget>, hear: &mut dyn FnMut(Heard)) {
    for target in targets {
        hear(Heard::Found(Box::new(Found { source: root.source.clone(), target })));
    }
}

/// What to look for at a root.
pub(crate) fn explore(request: &Request<'_>, root: &Root, prepared: &Prepared) -> Box<dyn Explore> {
    if root.jobs.is_some() {
        return Box::new(Jobs::new(request.details.constituents));
    }
    let mut walk = Walk::new(prepared.selection.clone(), request.extra_platforms.clone());
    if root.file.is_none() {
        walk = walk.of_flake();
    }
    for (candidates, outputs) in &root.asked {
        walk.add(candidates.clone(), outputs.clone());
    }
    for candidates in &root.programs {
        walk.add_program(candidates.clone());
    }
    Box::new(walk)
}

/// Says what there is to say when everything was looked at, or the evaluation was stopped.
pub(crate) fn conclude(
    root: &Root,
    walk: &mut dyn Explore,
    in_work: Vec<Inspect>,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Heard),
) {
    let targets = if stop.load(Ordering::Relaxed) {
        walk.stopped(in_work)
    } else {
        let from_root = root.asked.iter().any(|(paths, _)| paths.contains(&AttrPath::default()));
        let idle = if from_root { walk.idle_patterns() } else { Vec::new() };
        for pattern in idle {
            let text = format!("the pattern `{pattern}` matches nothing in {}", root.source);
            hear(Heard::Said { severity: Severity::Warning, text });
        }
        walk.finish()
    };
    tell_found(root, targets, hear);
}

fn walk_by_nix_eval_jobs(
    request: &Request<'_>,
    root: &Root,
    prepared: &Prepared,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Heard),
) -> Result<Option<nix_eval_jobs::Kept>, EvaluateError> {
    let start = prepared.start_of_nix_eval_jobs(request);
    let mut walk = explore(request, root, prepared);
    let kept = nix_eval_jobs::explore(&start, &mut *walk, stop, &mut |walk, event| match event {
        Event::Answer(inspect, answer) => {
            hear(Heard::Evaluating { attr: inspect.path.clone(), left: walk.left() });
            let found = walk.answer(inspect.clone(), answer.as_deref().map_err(Clone::clone));
            tell_found(root, found, hear);
        }
        Event::Said(line) => {
            if let Some(Said { severity, text, .. }) = Said::read(line) {
                hear(Heard::Said { severity, text });
            }
        }
        Event::Waiting => hear(Heard::Waiting),
    })?;
    conclude(root, &mut *walk, Vec::new(), stop, hear);
    Ok(kept)
}
