//! Evaluator processes at work on a walk.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use phoenix_model::{AttrPath, Severity};
use phoenix_store::{Nix, NixError};

use crate::evaluator::{Answer, Evaluator, Purity, Talk, quote};
use crate::explore::Explore;
use crate::flake::{LockOptions, one_line, parse_config};
use crate::jobs::Jobs;
use crate::nix_eval_jobs::{self, EvaluatorKind, Event, NixEvalJobsError, Start};
use crate::walk::{Inspect, unended};
use crate::{Details, Ended, FlakeConfig, FoundTarget, JobRoot, JobSource, LockedFlake, Selection, Walk};

/// What `nix-build` does to functions it meets in a file: those that need no argument are called
/// (nix `src/libexpr/eval.cc`, `autoCallFunction`). One without any named argument cannot be told from `x: …`.
const AUTO_CALL: &str = "value: if builtins.isFunction value && builtins.functionArgs value != { } \
    && builtins.all (name: (builtins.functionArgs value).${name}) (builtins.attrNames (builtins.functionArgs value)) \
    then value { } else value";

/// In a flake functions are functions.
const NO_CALL: &str = "value: value";

const INSPECT: &str = include_str!("nix/inspect.nix");

/// How often [`Heard::Waiting`] is told.
const TICK: Duration = Duration::from_millis(100);

/// How long an evaluator may take to answer that it is one. It has nothing to evaluate for that.
const PROBE: Duration = Duration::from_secs(60);

/// How many lines are kept of what somebody says who does not answer.
const MOST_SAID: usize = 5;

/// Settings of a `nixConfig` that Nix takes without asking (nix `src/libflake/config.cc`).
const HARMLESS: &[&str] = &[
    "bash-prompt",
    "bash-prompt-prefix",
    "bash-prompt-suffix",
    "flake-registry",
    "commit-lock-file-summary",
    "commit-lockfile-summary",
];

/// Tells which attributes are targets, given a source as the user wrote it, and the root of a flake's sources as a
/// store path with the flake's directory in it (none for a file): it may hold a configuration. An error ends the
/// evaluation.
pub type Select<'a> = dyn Fn(&str, Option<&str>) -> Result<Selection, String> + 'a;

/// What to evaluate, and how.
pub struct Request<'a> {
    /// Nix, set to the store that derivations are written to.
    pub nix: Nix,
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
    /// How many MiB each of them may take.
    pub max_memory: Option<u64>,
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
    fn is_flake(&self) -> bool {
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
    roots: Vec<nix_eval_jobs::Kept>,
}

impl Evaluators {
    /// Keeps what others keep, too.
    pub fn extend(&mut self, others: Self) {
        self.kept.extend(others.kept);
        self.roots.extend(others.roots);
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
    for root in &request.roots {
        if stop.load(Ordering::Relaxed) {
            whole(root, None, hear);
            continue;
        }
        match prepare(request, root, stop, hear) {
            // Nix may have got the same signal, and says that it failed.
            Err(_) if stop.load(Ordering::Relaxed) => whole(root, None, hear),
            Ok(prepared) if request.evaluator == EvaluatorKind::NixEvalJobs => {
                kept.roots.extend(walk_by_nix_eval_jobs(request, root, &prepared, stop, hear)?);
            }
            Ok(prepared) => kept.kept.extend(walk(request, root, &prepared, stop, hear)?),
            Err(Unprepared::Nix(NixError::NotFound)) => return Err(NixError::NotFound.into()),
            Err(Unprepared::Nix(error)) if error.is_of_store() => return Err(error.into()),
            Err(Unprepared::Nix(error)) => {
                whole(root, Some(Ended::NotEvaluated(nix_message(error))), hear);
            }
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
    hear(Heard::Found(Box::new(Found { source: root.source.clone(), target })));
}

/// Everything it takes to start an evaluator on a root.
#[derive(Debug)]
struct Prepared {
    nix: Nix,
    purity: Purity,
    definitions: Vec<String>,
    /// A function of Nix from one that makes an answer to `inspect`.
    inspect: String,
    show_trace: bool,
    instantiate: bool,
    selection: Selection,
}

enum Unprepared {
    Nix(NixError),
    Evaluate(EvaluateError),
    Stopped,
}

impl From<EvaluateError> for Unprepared {
    fn from(error: EvaluateError) -> Self {
        Self::Evaluate(error)
    }
}

fn prepare(
    request: &Request<'_>,
    root: &Root,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Heard),
) -> Result<Prepared, Unprepared> {
    let select = |root_path: Option<&str>| {
        (request.select)(&root.source, root_path)
            .map_err(|error| Unprepared::from(EvaluateError::Selection(error)))
    };
    let inspect = |call: &str| {
        format!("(finish: ({}) finish {} ({call}) root)", one_line(INSPECT), request.details.function())
    };
    let (show_trace, instantiate) = (request.show_trace, request.instantiate);
    if !root.is_flake() {
        let (definitions, inspect) = match (&root.jobs, &root.file) {
            (Some(jobs), _) => (jobs.definitions(&root.source), jobs.inspect(&request.details)),
            (None, Some(file)) => {
                let file = quote(&file.to_string_lossy());
                // An absolute path is needed: the repl has another idea of what is relative.
                let definition = format!(
                    "root = let value = import (/. + {file}); in if builtins.isFunction value then value {{ }} else value"
                );
                (vec![definition], inspect(AUTO_CALL))
            }
            (None, None) => (Vec::new(), String::new()),
        };
        let (nix, purity) = (request.nix.clone(), Purity::Impure);
        let selection = select(None)?;
        return Ok(Prepared { nix, purity, definitions, inspect, show_trace, instantiate, selection });
    }
    let options = LockOptions {
        override_inputs: &request.override_inputs,
        reference_lock_file: request.reference_lock_file.as_deref(),
        impure: request.impure,
    };
    let mut go_on = || {
        hear(Heard::Waiting);
        !stop.load(Ordering::Relaxed)
    };
    let locked = LockedFlake::lock(&request.nix, &root.source, &options, &mut go_on);
    let (flake, said) = locked.map_err(Unprepared::Nix)?.ok_or(Unprepared::Stopped)?;
    for line in said.lines() {
        say(line, hear);
    }
    let (name, inspect) = match &root.jobs {
        Some(jobs) => ("flake", jobs.inspect(&request.details)),
        None => ("root", inspect(NO_CALL)),
    };
    let mut definitions = flake.definitions(name);
    definitions.extend(root.jobs.iter().flat_map(|jobs| jobs.definitions(&root.source)));
    let mut prepared = Prepared {
        nix: request.nix.clone(),
        purity: if request.impure { Purity::Impure } else { Purity::Pure },
        definitions,
        inspect,
        show_trace,
        instantiate,
        selection: select(Some(&flake.root()))?,
    };
    let mut evaluator = prepared.start_and_probe(PROBE, stop, hear)?;
    let expression =
        format!("{} + builtins.toJSON ({})", quote(evaluator.mark()), flake.config_expression(name));
    let mut wait = |_: Talk<'_>| hear(Heard::Waiting);
    let config = match evaluator.ask(&expression, stop, &mut wait) {
        Answer::Text(json) => parse_config(&json),
        Answer::Stopped => return Err(Unprepared::Stopped),
        // The flake's own error comes again, with its place, when its outputs are looked at.
        Answer::Error(_) | Answer::Died(_) | Answer::Silent => FlakeConfig::default(),
    };
    apply_config(request, config, &mut prepared, hear);
    Ok(prepared)
}

fn apply_config(
    request: &Request<'_>,
    mut config: FlakeConfig,
    prepared: &mut Prepared,
    hear: &mut dyn FnMut(Heard),
) {
    config.0.retain(|name, _| !HARMLESS.contains(&name.as_str()));
    if config.0.is_empty() {
        return;
    }
    let names = config.0.keys().cloned().collect::<Vec<_>>().join(", ");
    if !request.accept_flake_config {
        let text = format!(
            "the flake asks for Nix settings that are not used: {names}; `--accept-flake-config` uses them"
        );
        hear(Heard::Said { severity: Severity::Warning, text });
        return;
    }
    for (name, value) in &config.0 {
        prepared.nix.set_option(name, value);
    }
    hear(Heard::Config(config));
}

impl Prepared {
    fn start(&self) -> io::Result<Evaluator> {
        let flags: &[&str] = if self.show_trace { &["--show-trace"] } else { &[] };
        let mut evaluator = Evaluator::start(&self.nix, self.purity, flags, &self.definitions)?;
        if !self.instantiate {
            evaluator.write_nothing();
        }
        let finish = format!("(value: reply: {} + builtins.toJSON reply)", quote(evaluator.mark()));
        evaluator.define(&format!("inspect = {} {finish}", self.inspect))?;
        Ok(evaluator)
    }

    /// Starts an evaluator and sees that it answers, and is as pure as it should be.
    fn start_and_probe(
        &mut self,
        limit: Duration,
        stop: &AtomicBool,
        hear: &mut dyn FnMut(Heard),
    ) -> Result<Evaluator, Unprepared> {
        loop {
            let mut evaluator = self.start().map_err(EvaluateError::Start)?;
            let probe = format!("{} + builtins.toJSON (builtins ? currentSystem)", quote(evaluator.mark()));
            let mut said = Vec::new();
            let mut listen = |talk: Talk<'_>| match talk {
                Talk::Line(line) if said.len() < MOST_SAID => said.push(line.to_owned()),
                Talk::Line(_) => {}
                Talk::Nothing => hear(Heard::Waiting),
            };
            match evaluator.ask_within(Some(limit), &probe, stop, &mut listen) {
                Answer::Text(text) if text == "true" && self.purity == Purity::Pure => {
                    self.purity = Purity::Restricted;
                }
                Answer::Text(text) if text == "true" || text == "false" => return Ok(evaluator),
                Answer::Stopped => return Err(Unprepared::Stopped),
                Answer::Silent => {
                    let mut text = format!("it did not answer within {} seconds", limit.as_secs());
                    for line in &said {
                        text.push_str("\nit said: ");
                        text.push_str(line);
                    }
                    return Err(EvaluateError::Strange(text).into());
                }
                Answer::Text(text) | Answer::Error(text) | Answer::Died(text) => {
                    return Err(EvaluateError::Strange(text).into());
                }
            }
        }
    }
}

/// What a worker tells.
enum Told {
    Said(String),
    Answered { worker: usize, inspect: Inspect, answer: Result<String, String> },
    Stopped,
    Lost(io::Error),
}

/// What to look for at a root.
fn explore(request: &Request<'_>, root: &Root, prepared: &Prepared) -> Box<dyn Explore> {
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

fn walk(
    request: &Request<'_>,
    root: &Root,
    prepared: &Prepared,
    stop: &Arc<AtomicBool>,
    hear: &mut dyn FnMut(Heard),
) -> Result<Vec<Evaluator>, EvaluateError> {
    let mut walk = explore(request, root, prepared);
    std::thread::scope(|scope| {
        let (told, tell) = unbounded::<Told>();
        let mut jobs: Vec<Sender<Inspect>> = Vec::new();
        let mut workers = Vec::new();
        let mut idle = Vec::new();
        let mut in_work: HashMap<usize, Inspect> = HashMap::new();
        // How many of them will not answer any more.
        let mut stopped = 0;
        let mut lost = None;
        loop {
            while !stop.load(Ordering::Relaxed)
                && lost.is_none()
                && (!idle.is_empty() || jobs.len() < request.workers.max(1))
                && let Some(inspect) = walk.take_next()
            {
                hear(Heard::Evaluating { attr: inspect.path.clone(), left: walk.left() });
                let worker = idle.pop().unwrap_or_else(|| {
                    // A process is started only when there is work for it.
                    let (job, todo) = unbounded();
                    let told = told.clone();
                    let number = jobs.len();
                    jobs.push(job);
                    workers.push(scope.spawn(move || work(number, prepared, &todo, &told, stop)));
                    number
                });
                in_work.insert(worker, inspect.clone());
                // A worker that is gone has said so already.
                let _ = jobs[worker].send(inspect);
            }
            if in_work.len() == stopped {
                break;
            }
            let heard = match tell.recv_timeout(TICK) {
                Ok(heard) => heard,
                Err(RecvTimeoutError::Timeout) => {
                    hear(Heard::Waiting);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match heard {
                Told::Said(line) => say(&line, hear),
                Told::Stopped => stopped += 1,
                Told::Lost(error) => {
                    stopped += 1;
                    lost = Some(error);
                }
                Told::Answered { worker, inspect, answer } => {
                    in_work.remove(&worker);
                    idle.push(worker);
                    for target in walk.answer(inspect, answer.as_deref().map_err(Clone::clone)) {
                        hear(Heard::Found(Box::new(Found { source: root.source.clone(), target })));
                    }
                }
            }
        }
        conclude(root, &mut *walk, in_work.into_values().collect(), stop, hear);
        drop(jobs);
        let evaluators = workers.into_iter().filter_map(|worker| worker.join().ok().flatten()).collect();
        match lost {
            Some(error) => Err(EvaluateError::Start(error)),
            None => Ok(evaluators),
        }
    })
}

/// Says what there is to say when everything was looked at, or the evaluation was stopped.
fn conclude(
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
    for target in targets {
        hear(Heard::Found(Box::new(Found { source: root.source.clone(), target })));
    }
}

fn walk_by_nix_eval_jobs(
    request: &Request<'_>,
    root: &Root,
    prepared: &Prepared,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Heard),
) -> Result<Option<nix_eval_jobs::Kept>, EvaluateError> {
    let start = Start {
        nix: &prepared.nix,
        definitions: &prepared.definitions,
        inspect: &prepared.inspect,
        pure: prepared.purity != Purity::Impure,
        show_trace: prepared.show_trace,
        instantiate: prepared.instantiate,
        workers: request.workers,
        memory: request.max_memory,
    };
    let mut walk = explore(request, root, prepared);
    let kept = nix_eval_jobs::explore(&start, &mut *walk, stop, &mut |walk, event| match event {
        Event::Answer(inspect, answer) => {
            hear(Heard::Evaluating { attr: inspect.path.clone(), left: walk.left() });
            for target in walk.answer(inspect.clone(), answer.as_deref().map_err(Clone::clone)) {
                hear(Heard::Found(Box::new(Found { source: root.source.clone(), target })));
            }
        }
        Event::Said(line) => say(line, hear),
        Event::Waiting => hear(Heard::Waiting),
    })?;
    conclude(root, &mut *walk, Vec::new(), stop, hear);
    Ok(kept)
}

/// Answers one attribute after another; a process that dies over one is replaced.
fn work(
    worker: usize,
    prepared: &Prepared,
    todo: &Receiver<Inspect>,
    told: &Sender<Told>,
    stop: &AtomicBool,
) -> Option<Evaluator> {
    let mut evaluator = None;
    for inspect in todo {
        let current = match evaluator.as_mut() {
            Some(current) => current,
            None => match prepared.start() {
                Ok(started) => evaluator.insert(started),
                Err(error) => {
                    let _ = told.send(Told::Lost(error));
                    return None;
                }
            },
        };
        let mut talk = |talk: Talk<'_>| {
            if let Talk::Line(line) = talk {
                let _ = told.send(Told::Said(line.to_owned()));
            }
        };
        let answer = match current.ask(&inspect.question(), stop, &mut talk) {
            Answer::Text(text) => Ok(text),
            Answer::Error(error) => Err(error),
            Answer::Died(error) => {
                evaluator = None;
                Err(error)
            }
            // It has all the time it wants.
            Answer::Stopped | Answer::Silent => {
                let _ = told.send(Told::Stopped);
                return None;
            }
        };
        let _ = told.send(Told::Answered { worker, inspect, answer });
    }
    evaluator
}

/// Passes on a line that is neither answer nor error.
fn say(line: &str, hear: &mut dyn FnMut(Heard)) {
    let line = line.trim_end();
    // The repl's greeting.
    if line.is_empty()
        || line.starts_with("Welcome to Nix")
        || line == "Type :? for help."
        || line.starts_with("Nix 2.")
        || line.starts_with("Lix ")
    {
        return;
    }
    let (severity, text) = if let Some(text) = line.strip_prefix("warning:") {
        // What comes after a colon is on lines of its own, which are details.
        (Severity::Warning, text.trim().trim_end_matches(':'))
    } else if let Some(text) = line.strip_prefix("trace:") {
        (Severity::Notice, text.trim())
    } else if line.starts_with("building '") {
        (Severity::Notice, line)
    } else {
        (Severity::Detail, line)
    };
    hear(Heard::Said { severity, text: text.to_owned() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_repl_that_talks_nonsense_is_no_evaluator() {
        let directory = tempfile::tempdir().unwrap();
        let fake = directory.path().join("nix");
        fs::write(&fake, "#!/bin/sh\nwhile read -r line; do echo what; done\n").unwrap();
        fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut nix = Nix::find().unwrap();
        nix.set_env("PATH", format!("{}:/usr/bin:/bin", directory.path().display()));
        let mut prepared = Prepared {
            nix,
            purity: Purity::Pure,
            definitions: vec!["root = 1".to_owned()],
            inspect: "(finish: path: wanted: finish null 1)".to_owned(),
            show_trace: false,
            instantiate: true,
            selection: Selection::new(&[], &[], &["x".to_owned()]).unwrap(),
        };
        let mut waited = 0;
        let mut hear = |_: Heard| waited += 1;
        let probed = prepared.start_and_probe(Duration::from_secs(1), &AtomicBool::new(false), &mut hear);
        let Err(Unprepared::Evaluate(error)) = probed else { panic!("it was taken for an evaluator") };
        let said = error.to_string();
        assert!(said.contains("did not answer within 1 second") && said.contains("it said: what"), "{said}");
        assert!(waited > 2);
    }
}
