//! From a root to everything it takes to start evaluators on it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use phoenix_model::{NarHash, Severity, StorePath};
use phoenix_store::{Nix, NixError};

use crate::answers::{Answers, Fingerprint};
use crate::earlier::Earlier;
use crate::evaluator::{Answer, Evaluator, Purity, Talk, quote};
use crate::flake::{LockOptions, LockedInput, one_line, parse_config, source_name, sources};
use crate::mistakes::{self, Mistake};
use crate::names::{FLAKE, INSPECT, INSPECT_BY, NAMES_OF, ROOT};
use crate::nix_eval_jobs::{EvaluatorKind, Start};
use crate::pool::{EvaluateError, Heard, Request, Root};
use crate::recording::{Shared, hold};
use crate::said::Said;
use crate::through::Writing;
use crate::trace::Fault;
use crate::{Details, Expression, FlakeConfig, JobRoot, LockedFlake, Selection};

/// What `nix-build` does to functions it meets in a file: those that need no argument are called
/// (nix `src/libexpr/eval.cc`, `autoCallFunction`). One without any named argument cannot be told from `x: …`.
const AUTO_CALL: &str = "value: if builtins.isFunction value && builtins.functionArgs value != { } \
    && builtins.all (name: (builtins.functionArgs value).${name}) (builtins.attrNames (builtins.functionArgs value)) \
    then value { } else value";

/// In a flake functions are functions.
const NO_CALL: &str = "value: value";

const INSPECT_NIX: &str = include_str!("nix/inspect.nix");

/// Makes the text of an answer.
const FINISH_NIX: &str = include_str!("nix/finish.nix");

/// How long an evaluator may take to answer that it is one. It has nothing to evaluate for that.
const PROBE: Duration = Duration::from_secs(60);

/// How many lines are kept of what somebody says who does not answer.
const MOST_SAID: usize = 5;

/// How often a source is fetched anew because it was collected before it was protected.
const MOST_COLLECTED: usize = 5;

/// Settings of a `nixConfig` that Nix takes without asking (nix `src/libflake/config.cc`).
const HARMLESS: &[&str] = &[
    "bash-prompt",
    "bash-prompt-prefix",
    "bash-prompt-suffix",
    "flake-registry",
    "commit-lock-file-summary",
    "commit-lockfile-summary",
];

/// Everything it takes to start an evaluator on a root.
#[derive(Debug)]
pub(crate) struct Prepared {
    nix: Nix,
    /// How evaluators write derivations.
    pub(crate) writing: Writing,
    purity: Purity,
    definitions: Vec<String>,
    /// A function of Nix from one that makes an answer to `inspect`.
    inspect: String,
    show_trace: bool,
    instantiate: bool,
    pub(crate) selection: Selection,
    /// What answers may be kept under.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// What was answered before.
    pub(crate) answers: Answers,
    /// What was answered about earlier sources, where nothing was about this one.
    pub(crate) earlier: Option<Earlier>,
    /// What evaluators read is recorded here, if it is.
    recording: Option<Shared>,
    /// What the source of the flake is called among the definitions.
    source: String,
    /// Its inputs, which may be in the store already.
    inputs: Vec<LockedInput>,
    /// The definition of those that are, once it was looked.
    sources: OnceLock<String>,
    /// An evaluator that has been started already.
    started: Mutex<Option<Evaluator>>,
}

/// Why there is nothing to evaluate.
pub(crate) enum Unprepared {
    Nix(NixError),
    Evaluate(EvaluateError),
    /// What the user gave for the root is no expression: Nix's error.
    Mistake(String),
    Stopped,
}

impl From<EvaluateError> for Unprepared {
    fn from(error: EvaluateError) -> Self {
        Self::Evaluate(error)
    }
}

/// Fetches and locks a flake, and finds out what it asks for.
pub(crate) fn prepare(
    request: &Request<'_>,
    root: &Root,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Heard),
) -> Result<Prepared, Unprepared> {
    let select = |root_path: Option<&str>| {
        (request.select)(&root.source, root_path)
            .map_err(|error| Unprepared::from(EvaluateError::Selection(error)))
    };
    let inspect = |details: &Details| match &root.jobs {
        Some(jobs) => jobs.inspect(details),
        None => {
            let call = if root.is_flake() { NO_CALL } else { AUTO_CALL };
            format!("(finish: ({}) finish {} ({call}) {ROOT})", one_line(INSPECT_NIX), details.function())
        }
    };
    let blank = |purity: Purity, definitions: Vec<String>, selection: Selection| Prepared {
        nix: request.nix.clone(),
        writing: Writing::to(request.write_to.clone().filter(|_| request.instantiate)),
        purity,
        definitions,
        inspect: inspect(&request.details),
        show_trace: request.show_trace,
        instantiate: request.instantiate,
        selection,
        fingerprint: None,
        answers: Answers::default(),
        earlier: None,
        recording: None,
        source: String::new(),
        inputs: Vec::new(),
        sources: OnceLock::new(),
        started: Mutex::default(),
    };
    if !root.is_flake() {
        let definitions = match (&root.jobs, &root.file) {
            (Some(jobs), _) => jobs.definitions(&root.source),
            (None, Some(file)) => {
                let file = quote(&file.to_string_lossy());
                // An absolute path is needed: the repl has another idea of what is relative.
                let definition = format!(
                    "{ROOT} = let value = import (/. + {file}); in if builtins.isFunction value then value {{ }} else value"
                );
                vec![definition]
            }
            (None, None) => Vec::new(),
        };
        not_kept(request, root, "what is no flake may read whatever there is", hear);
        let mut prepared = blank(Purity::Impure, definitions, select(None)?);
        if let Some(details) = without_mistakes(request, root)? {
            prepared.inspect = inspect(&details);
        }
        return Ok(prepared);
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
    let mut lock = || {
        let locked = LockedFlake::lock(&request.nix, &root.source, &options, &mut go_on);
        locked.map_err(Unprepared::Nix)?.ok_or(Unprepared::Stopped)
    };
    let (mut flake, mut said) = lock()?;
    let is_there = |flake: &LockedFlake| {
        StorePath::parse(flake.source()).map_or(true, |source| (request.protect)(&source))
    };
    for _ in 0..MOST_COLLECTED {
        if is_there(&flake) {
            break;
        }
        // It was collected as soon as Nix had it there.
        (flake, said) = lock()?;
    }
    for Said { severity, text, .. } in said.lines().filter_map(Said::read) {
        hear(Heard::Said { severity, text });
    }
    let name = if root.jobs.is_some() { FLAKE } else { ROOT };
    let mut definitions = flake.definitions(name);
    definitions.extend(root.jobs.iter().flat_map(|jobs| jobs.definitions(&root.source)));
    let purity = if request.impure { Purity::Impure } else { Purity::Pure };
    let mut prepared = blank(purity, definitions, select(Some(&flake.root()))?);
    prepared.source = source_name(name);
    prepared.inputs = flake.inputs(&request.nix);
    match prepared.fingerprint(request, &flake) {
        Ok(fingerprint) => {
            prepared.recall(request, root, fingerprint, hear);
            prepared.recall_earlier(request, root, &flake, hear);
        }
        Err(why) => not_kept(request, root, &why, hear),
    }
    if let Some(config) = prepared.answers.config() {
        // Nix has read all expressions by then.
        apply_config(request, config, &mut prepared, hear);
        return Ok(prepared);
    }
    if let Some(details) = without_mistakes(request, root)? {
        prepared.inspect = inspect(&details);
        (prepared.fingerprint, prepared.earlier, prepared.recording) = (None, None, None);
        not_kept(request, root, "there is a mistake in --apply", hear);
    }
    prepared.find_sources(request);
    let mut evaluator = prepared.start_and_probe(PROBE, stop, hear)?;
    prepared.take_in(&mut evaluator, stop);
    if prepared.purity == Purity::Restricted && prepared.fingerprint.take().is_some() {
        prepared.earlier = None;
        not_kept(request, root, "evaluation in this version of Nix is not pure: it knows the time", hear);
    }
    let expression =
        format!("{} + builtins.toJSON ({})", quote(evaluator.mark()), flake.config_expression(name));
    let mut wait = |_: Talk<'_>| hear(Heard::Waiting);
    let config = match evaluator.ask(&expression, stop, &mut wait) {
        Answer::Text(json) => {
            let config = parse_config(&json);
            prepared.answers.set_config(&config);
            if let Some(earlier) = &mut prepared.earlier {
                earlier.asks_for(&config);
            }
            config
        }
        Answer::Stopped => return Err(Unprepared::Stopped),
        Answer::Died(_) => return Ok(prepared),
        // The flake's own error comes again, with its place, when its outputs are looked at.
        Answer::Error(_) | Answer::Silent => FlakeConfig::default(),
    };
    if !apply_config(request, config, &mut prepared, hear) {
        prepared.started = Mutex::new(Some(evaluator));
    }
    Ok(prepared)
}

/// Sees that Nix can read what the user gave. What is wrong with a function for derivations is an error of each of them, as
/// for nix-eval-jobs: then what to ask of them instead is returned.
fn without_mistakes(request: &Request<'_>, root: &Root) -> Result<Option<Details>, Unprepared> {
    let mut expressions = root.jobs.as_ref().map(JobRoot::expressions).unwrap_or_default();
    expressions.extend(request.details.apply.iter().map(|apply| (mistakes::APPLY.to_owned(), apply)));
    match mistakes::find(&request.nix, &expressions) {
        None => Ok(None),
        Some(Mistake { of, error }) if of == mistakes::APPLY => {
            Ok(Some(Details { apply: Some(Expression::throwing(&error)), ..request.details.clone() }))
        }
        Some(Mistake { error, .. }) => Err(Unprepared::Mistake(error)),
    }
}

/// Says why what is answered for a root is not kept.
fn not_kept(request: &Request<'_>, root: &Root, why: &str, hear: &mut dyn FnMut(Heard)) {
    if request.answers.is_some() {
        let text = format!("the evaluation of {} is not kept: {why}", root.source);
        hear(Heard::Said { severity: Severity::Detail, text });
    }
}

/// Uses what a flake asks for as far as it may; whether evaluators have to be started anew for it.
fn apply_config(
    request: &Request<'_>,
    mut config: FlakeConfig,
    prepared: &mut Prepared,
    hear: &mut dyn FnMut(Heard),
) -> bool {
    config.0.retain(|name, _| !HARMLESS.contains(&name.as_str()));
    if config.0.is_empty() {
        return false;
    }
    let names = config.0.keys().cloned().collect::<Vec<_>>().join(", ");
    if !request.accept_flake_config {
        let text = format!(
            "the flake asks for Nix settings that are not used: {names}; `--accept-flake-config` uses them"
        );
        hear(Heard::Said { severity: Severity::Warning, text });
        return false;
    }
    for (name, value) in &config.0 {
        prepared.nix.set_option(name, value);
    }
    hear(Heard::Config(config));
    true
}

impl Prepared {
    /// What an evaluation of this is a function of, or why that cannot be told.
    fn fingerprint(&self, request: &Request<'_>, flake: &LockedFlake) -> Result<Fingerprint, String> {
        if request.answers.is_none() {
            return Err("it is to be kept nowhere".to_owned());
        }
        if request.evaluator == EvaluatorKind::NixEvalJobs {
            return Err("nix-eval-jobs evaluates it".to_owned());
        }
        if request.impure {
            return Err("with --impure it may read whatever there is".to_owned());
        }
        if let Some(input) = flake.unlocked_input() {
            return Err(format!("the input `{input}` has no hash in the lock file"));
        }
        let (flags, settings) = (self.flags(request), request.settings.as_ref().map_err(Clone::clone)?);
        let parts = self.parts(request, settings, &flags).into_iter();
        Ok(Fingerprint::of(parts.chain(self.definitions.iter().map(String::as_str))))
    }

    /// What an evaluation depends on besides the definitions.
    fn parts<'p>(&'p self, request: &'p Request<'_>, settings: &'p str, flags: &'p str) -> [&'p str; 5] {
        [&self.inspect, FINISH_NIX, request.nix.version(), settings, flags]
    }

    /// The flags that an evaluation depends on. What writes nothing evaluates otherwise: purely, also where a repl is not
    /// pure.
    fn flags(&self, request: &Request<'_>) -> String {
        format!("{} {} {}", self.show_trace, request.accept_flake_config, self.instantiate)
    }

    /// Takes in what was answered before and can be used.
    fn recall(
        &mut self,
        request: &Request<'_>,
        root: &Root,
        fingerprint: Fingerprint,
        hear: &mut dyn FnMut(Heard),
    ) {
        let recalled = request.answers.and_then(|kept| Some((kept, kept.recall(&fingerprint)?)));
        self.fingerprint = Some(fingerprint);
        let Some((kept, mut answers)) =
            recalled.and_then(|(kept, bytes)| Some((kept, Answers::from_bytes(&bytes)?)))
        else {
            return;
        };
        let lost = answers.retain_with(&kept.present(&answers.needs()));
        let mut text = format!("{} answers about {} are known", answers.len(), root.source);
        if lost > 0 {
            text.push_str(&format!(", and {lost} more whose derivations are not in the store any more"));
        }
        hear(Heard::Said { severity: Severity::Detail, text });
        self.answers = answers;
    }

    /// Takes in what was answered about earlier sources and holds for this one, and begins to record what is read of it.
    fn recall_earlier(
        &mut self,
        request: &Request<'_>,
        root: &Root,
        flake: &LockedFlake,
        hear: &mut dyn FnMut(Heard),
    ) {
        let (Some(kept), Ok(settings)) = (request.answers, &request.settings) else { return };
        // The frames of a trace depend on who came first, and that depends on the direction.
        if self.answers.len() > 0 || self.show_trace {
            return;
        }
        let mut say = |text: String| hear(Heard::Said { severity: Severity::Detail, text });
        let flags = self.flags(request);
        let jobs = root.jobs.iter().flat_map(|jobs| jobs.definitions(&root.source)).collect::<Vec<_>>();
        let mut parts = self.parts(request, settings, &flags).to_vec();
        parts.extend(jobs.iter().map(String::as_str));
        let source = (request.real_path)(flake.source());
        let recalled = Earlier::recall(flake, &source, &parts, kept).and_then(|mut earlier| {
            let (hold, config, words) = earlier.hold();
            for (question, known) in hold {
                self.answers.insert(question, known);
            }
            if let Some(config) = config {
                self.answers.set_config(&config);
            }
            let lost = self.answers.retain_with(&kept.present(&self.answers.needs()));
            say(match lost {
                0 => words,
                lost => format!("{words}; the derivations of {lost} are not in the store any more"),
            });
            earlier.record(request.nix_cache.as_deref())?;
            self.recording = earlier.recording().cloned();
            self.earlier = Some(earlier);
            Ok(())
        });
        if let Err(why) = recalled {
            say(format!("whatever changes in {} evaluates it all again: {why}", root.source));
        }
    }

    /// Whether each attribute has a process of its own.
    pub(crate) fn asks_alone(&self) -> bool {
        !self.instantiate
    }

    /// Looks which inputs need not be fetched. To be done before the first evaluator starts.
    pub(crate) fn find_sources(&self, request: &Request<'_>) {
        self.sources.get_or_init(|| {
            let hashes: Vec<NarHash> = self.inputs.iter().map(|input| input.nar_hash).collect();
            sources(&self.inputs, &(request.sources)(&hashes))
        });
    }

    /// The inputs that are in the store by now.
    pub(crate) fn inputs_there(&self, request: &Request<'_>) -> impl Iterator<Item = StorePath> {
        let hashes: Vec<NarHash> = self.inputs.iter().map(|input| input.nar_hash).collect();
        (request.sources)(&hashes).into_iter().flatten()
    }

    /// Starts an evaluator, or takes the one that has been started already.
    pub(crate) fn evaluator(&self, stop: &AtomicBool) -> io::Result<Evaluator> {
        if let Some(started) = self.started.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(started);
        }
        let mut evaluator = self.start()?;
        self.take_in(&mut evaluator, stop);
        Ok(evaluator)
    }

    /// Has an evaluator that was just started take in the source of the flake, before what it reads is recorded.
    fn take_in(&self, evaluator: &mut Evaluator, stop: &AtomicBool) {
        let Some(recording) = &self.recording else { return };
        let expression = format!("builtins.seq {}.outPath {}", self.source, quote(evaluator.mark()));
        match evaluator.ask(&expression, stop, &mut |_| {}) {
            Answer::Text(_) => hold(recording).has_taken_in(),
            _ => hold(recording).is_lost(),
        }
    }

    fn start(&self) -> io::Result<Evaluator> {
        let flags: &[&str] = if self.show_trace { &["--show-trace"] } else { &[] };
        let tracking = self.recording.as_ref().map(|recording| {
            let mut recording = hold(recording);
            recording.begins();
            recording.tracking().clone()
        });
        let mut definitions = vec![self.sources()];
        definitions.extend(self.definitions.iter().cloned());
        let nix = self.writing.nix(&self.nix);
        let mut evaluator = Evaluator::start(&nix, self.purity, flags, &definitions, tracking.as_ref())?;
        if !self.instantiate {
            evaluator.write_nothing();
        }
        let finish = format!("({}) {}", one_line(FINISH_NIX), quote(evaluator.mark()));
        evaluator.define(&format!("{INSPECT_BY} = {}", self.inspect))?;
        evaluator.define(&format!("{INSPECT} = {INSPECT_BY} ({finish})"))?;
        let names = format!("path: {INSPECT_BY} (value: reply: reply.names or [ ]) path null");
        evaluator.define(&format!("{NAMES_OF} = {names}"))?;
        Ok(evaluator)
    }

    fn sources(&self) -> String {
        self.sources.get().cloned().unwrap_or_else(|| sources(&[], &[]))
    }

    /// What nix-eval-jobs is started with, to answer instead.
    pub(crate) fn start_of_nix_eval_jobs<'p>(&'p self, request: &Request<'_>) -> Start<'p> {
        self.find_sources(request);
        Start {
            nix: &self.nix,
            sources: self.sources(),
            definitions: &self.definitions,
            inspect: &self.inspect,
            pure: self.purity != Purity::Impure,
            show_trace: self.show_trace,
            instantiate: self.instantiate,
            workers: request.workers,
            // Each of them has a share, in MiB.
            memory: request.memory.map(|bytes| (bytes >> 20) / request.workers.max(1) as u64),
        }
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
            match evaluator.ask_within(Some(limit), &probe, &probe, stop, &mut listen) {
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
                Answer::Text(text) | Answer::Error(Fault { text, .. }) => {
                    return Err(EvaluateError::Strange(text).into());
                }
                Answer::Died(death) => return Err(EvaluateError::Strange(death.words).into()),
            }
        }
    }
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
            writing: Writing::default(),
            purity: Purity::Pure,
            definitions: vec!["root = 1".to_owned()],
            inspect: "(finish: root)".to_owned(),
            show_trace: false,
            instantiate: true,
            selection: Selection::new(&[], &[], &["x".to_owned()]).unwrap(),
            fingerprint: None,
            answers: Answers::default(),
            earlier: None,
            recording: None,
            source: String::new(),
            inputs: Vec::new(),
            sources: OnceLock::new(),
            started: Mutex::default(),
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
