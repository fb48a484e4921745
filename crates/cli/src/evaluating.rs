//! From what the user asked for to targets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use phoenix_evaluate::{
    Detailed, Details, Ended, Evaluators, Found, GlobError, Heard, Installable, KeepAnswers, Request, Root,
    Selection, Special, Unavailable, is_system,
};
use phoenix_model::{AttrPath, Event, NarHash, Severity, StorePath, Target, TargetId, Verdict, source_path};
use phoenix_schedule::RunnerKind;
use phoenix_store::{TempRoots, Way};

use crate::answers::{InDepot, KeptAnswers, Protected};
use crate::args::{NixArgs, Wanted};
use crate::config::Config;
use crate::error::CommandError;
use crate::recorder::Recorder;
use crate::setup::{Setup, cache_home, pairs, var};

/// Patterns to include, to exclude, and systems.
type MakeSelection = fn(&[String], &[String], &[String]) -> Result<Selection, GlobError>;

/// How many bytes an attribute that somebody names may have.
const LONGEST_NAME: usize = 16 << 10;

/// What is asked for, understood.
#[derive(Debug)]
pub(crate) struct Asked {
    roots: Vec<Root>,
    include: Vec<String>,
    exclude: Vec<String>,
    systems: Vec<String>,
    /// As the user wrote it, for reports.
    pub(crate) installables: Vec<String>,
    /// The number of the first target that is found.
    pub(crate) first: u32,
    /// What is told of derivations besides the usual.
    pub(crate) details: Details,
    /// Whether derivations are written to the store.
    pub(crate) instantiate: bool,
    /// A lock file to read instead of the flakes' own.
    pub(crate) reference_lock_file: Option<PathBuf>,
    /// How many MiB each evaluator process may take.
    pub(crate) max_memory: Option<u64>,
}

/// What was found at an attribute.
#[derive(Debug, Clone)]
pub(crate) struct FoundOne {
    pub(crate) target: Target,
    /// Its verdict, when it has one already.
    pub(crate) verdict: Option<Verdict>,
    /// What it is, when it is no plain derivation.
    pub(crate) special: Option<Special>,
    /// Why nixpkgs refuses it or something that it needs, if that is why it ended.
    pub(crate) unavailable: Option<Unavailable>,
    /// What was asked for besides.
    pub(crate) details: Detailed,
}

/// What was found and what else there is to know after evaluating.
#[derive(Debug, Default)]
pub(crate) struct Evaluated {
    /// Keeps derivations from being collected until something else protects them.
    pub(crate) evaluators: Evaluators,
    /// Settings of flakes that are used from here on.
    pub(crate) options: Vec<(String, String)>,
    /// Whether a flake's configuration asks to stop at the first failure.
    pub(crate) fail_fast: bool,
    /// Kinds of runners that flakes' configurations name.
    pub(crate) runners: Vec<RunnerKind>,
    /// The configurations of the flakes, by what the user calls the flake.
    pub(crate) configs: Vec<(String, Config)>,
    /// How many targets were found.
    pub(crate) count: u32,
}

/// Reads the installables, or the file and its attributes.
pub(crate) fn asked(wanted: &Wanted, system: &str) -> Result<Asked, CommandError> {
    let (roots, installables) = match &wanted.file {
        Some(file) => {
            let root = file_root(file, &wanted.attr)?;
            (vec![root], vec![file.display().to_string()])
        }
        None => flake_roots(&wanted.installables, system)?,
    };
    Ok(Asked {
        include: wanted.include.clone(),
        exclude: wanted.exclude.clone(),
        systems: wanted.systems.clone(),
        ..Asked::of(roots, installables)
    })
}

/// An attribute that somebody names beside what the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// The source that it is in, as the user calls it.
    pub(crate) source: String,
    /// As it is named.
    pub(crate) name: String,
    /// Where it may be, in the order of looking.
    pub(crate) candidates: Vec<AttrPath>,
    /// The outputs that are wanted; empty for all.
    pub(crate) outputs: Vec<String>,
    /// Whether it is to be run, and not only built.
    pub(crate) run: bool,
}

impl Asked {
    fn of(roots: Vec<Root>, installables: Vec<String>) -> Self {
        Self {
            roots,
            include: Vec::new(),
            exclude: Vec::new(),
            systems: Vec::new(),
            installables,
            first: 0,
            details: Details::default(),
            instantiate: true,
            reference_lock_file: None,
            max_memory: None,
        }
    }

    /// Asks for the jobs below a root.
    pub(crate) fn jobs(root: Root, shown: &str) -> Self {
        Self::of(vec![root], vec![shown.to_owned()])
    }

    /// Reads a name as it stands in a source that was asked for.
    pub(crate) fn name(&self, source: &str, name: &str, run: bool, system: &str) -> Result<Named, String> {
        if name.len() > LONGEST_NAME {
            let start: String = name.chars().take(64).collect();
            return Err(format!("`{start}…` names no attribute: it has {} bytes", name.len()));
        }
        let no = |why: &str| format!("`{name}` names no attribute{why}");
        let installable = Installable::parse(&format!("{source}#{name}")).map_err(|error| {
            no(&std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default())
        })?;
        let attr = installable.attr.as_ref().ok_or_else(|| no(""))?;
        let file = self.roots.iter().find(|root| root.source == source).and_then(|root| root.file.as_ref());
        // In a file there is no place but the one that is named.
        let candidates = match file {
            Some(_) => vec![attr.clone()],
            None if run => installable.program_candidates(system),
            None => installable.candidates(system),
        };
        let outputs = installable.outputs.clone();
        Ok(Named { source: source.to_owned(), name: name.to_owned(), candidates, outputs, run })
    }

    /// Asks for what is named, and nothing else; the first target that is found has this number.
    pub(crate) fn for_named(&self, named: &[Named], first: u32) -> Self {
        let mut roots: Vec<Root> = Vec::new();
        for known in &self.roots {
            let mut root = Root { asked: Vec::new(), programs: Vec::new(), ..known.clone() };
            for named in named.iter().filter(|named| named.source == known.source) {
                if named.run {
                    root.programs.push(named.candidates.clone());
                } else {
                    root.asked.push((named.candidates.clone(), named.outputs.clone()));
                }
            }
            if !root.asked.is_empty() || !root.programs.is_empty() {
                roots.push(root);
            }
        }
        Self { systems: self.systems.clone(), first, ..Self::of(roots, Vec::new()) }
    }
}

fn file_root(file: &Path, attrs: &[String]) -> Result<Root, CommandError> {
    let absolute = fs_err::canonicalize(file).map_err(|error| {
        CommandError::because(format!("cannot evaluate {}", file.display()), &error)
            .hint("is the path right? `-f` takes a file, or a directory with a default.nix")
    })?;
    let mut asked = Vec::new();
    for attr in attrs {
        let path = AttrPath::parse(attr).map_err(|error| CommandError::because("cannot use -A", &error))?;
        asked.push((vec![path], Vec::new()));
    }
    if asked.is_empty() {
        asked.push((vec![AttrPath::default()], Vec::new()));
    }
    let source = file.display().to_string();
    Ok(Root { source, file: Some(absolute), asked, programs: Vec::new(), jobs: None })
}

/// One root for each flake, whatever number of its attributes is asked for.
fn flake_roots(texts: &[String], system: &str) -> Result<(Vec<Root>, Vec<String>), CommandError> {
    let dot = [".".to_owned()];
    let texts = if texts.is_empty() { &dot } else { texts };
    let mut roots: Vec<Root> = Vec::new();
    for text in texts {
        if text.starts_with('-') {
            // Nix would take it for a flag.
            return Err(CommandError::new(format!("`{text}` is not an installable")).hint(
                "flags come before `--`; a directory with such a name is `./{text}`".replace("{text}", text),
            ));
        }
        let installable = Installable::parse(text)
            .map_err(|error| CommandError::because("cannot understand what to build", &error))?;
        let asked = (installable.candidates(system), installable.outputs.clone());
        match roots.iter_mut().find(|root| root.source == installable.flake) {
            Some(root) => root.asked.push(asked),
            None => roots.push(Root {
                source: installable.flake,
                file: None,
                asked: vec![asked],
                programs: Vec::new(),
                jobs: None,
            }),
        }
    }
    Ok((roots, texts.to_vec()))
}

impl Asked {
    /// The systems to build for, as far as flags say.
    pub(crate) fn systems(&self, setup: &Setup) -> Vec<String> {
        if self.systems.is_empty() { vec![setup.settings.system.clone()] } else { self.systems.clone() }
    }

    fn selection(&self, setup: &Setup, config: &Config, make: MakeSelection) -> Result<Selection, String> {
        let or = |flags: &[String], config: &[String]| {
            if flags.is_empty() { config.to_vec() } else { flags.to_vec() }
        };
        let mut systems = or(&self.systems, &config.systems);
        let systems_asked = !systems.is_empty();
        if !systems_asked {
            systems.push(setup.settings.system.clone());
        }
        // A slip here would leave everything out, and be green.
        let known = |system: &str| is_system(system) || system == setup.settings.system;
        if let Some(unknown) = systems.iter().find(|system| !known(system)) {
            return Err(format!(
                "`{unknown}` is no system that Nix knows; one is `{}`",
                setup.settings.system
            ));
        }
        let mut exclude = config.exclude.clone();
        exclude.extend(self.exclude.iter().cloned());
        let selection = make(&or(&self.include, &config.include), &exclude, &systems)
            .map_err(|error| error.to_string())?;
        let own = self.include.is_empty() && !config.include.is_empty();
        let selection = if own { selection.of_the_flake() } else { selection };
        Ok(if systems_asked { selection.with_systems_asked() } else { selection })
    }
}

/// Evaluates what is not known from before, here or in a depot; `found` gets everything that is found, `other` everything else that is heard.
pub(crate) fn evaluate(
    setup: &Setup,
    asked: &Asked,
    args: &NixArgs,
    depot: InDepot<'_>,
    stop: &Arc<AtomicBool>,
    found: &mut dyn FnMut(FoundOne),
    other: &mut dyn FnMut(Heard),
) -> Result<Evaluated, CommandError> {
    let fail_fast = std::cell::Cell::new(false);
    let configs = std::cell::RefCell::new(Vec::new());
    let select = |source: &str, root: Option<&str>| {
        // A file has no root that a configuration would belong to, and jobs know no patterns.
        let Some(root) = root.filter(|_| asked.roots.iter().all(|root| root.jobs.is_none())) else {
            return asked.selection(setup, &Config::default(), Selection::of_file);
        };
        let config = Config::load(&real_path(setup, root))?;
        fail_fast.set(fail_fast.get() || config.fail_fast);
        let selection = asked.selection(setup, &config, Selection::new);
        configs.borrow_mut().push((source.to_owned(), config));
        selection
    };
    let protected = Protected::new(setup);
    let answers = (!args.no_eval_cache).then(|| KeptAnswers::open(&protected, depot));
    let request = Request {
        nix: setup.eval_nix.clone(),
        write_to: (setup.eval_way() == Way::Direct).then(|| setup.eval_layout.clone()),
        roots: asked.roots.clone(),
        select: &select,
        extra_platforms: setup.settings.extra_platforms.clone(),
        evaluator: args.evaluator.into(),
        workers: args.eval_workers,
        impure: args.impure,
        show_trace: args.show_trace || setup.settings.show_trace,
        override_inputs: overrides(&args.override_input),
        reference_lock_file: asked.reference_lock_file.clone(),
        accept_flake_config: args.accept_flake_config || setup.settings.accept_flake_config,
        // A limit for each process is one for all of them together.
        memory: asked
            .max_memory
            .map(|each| (each << 20) * args.eval_workers.max(1) as u64)
            .or(args.eval_memory),
        answers: answers.as_ref().map(|kept| kept as &dyn KeepAnswers),
        protect: &|path| protected.valid([path]).map_or(true, |valid| valid.contains(path)),
        real_path: &|path| real_path(setup, path),
        sources: &|hashes| sources(&protected, answers.as_ref(), &setup.eval_layout.store_dir, hashes),
        nix_cache: nix_cache(),
        settings: match &setup.settings.impure {
            Some(name) => Err(format!("with the setting `{name}` it may read whatever there is")),
            None => Ok(setup.settings.evaluation.clone()),
        },
        details: asked.details.clone(),
        instantiate: asked.instantiate,
    };
    let mut options = Vec::new();
    let mut next = asked.first;
    let mut evaluators = phoenix_evaluate::evaluate(&request, stop, &mut |heard| match heard {
        Heard::Found(one) => {
            let one = target(setup, TargetId(next), *one);
            next += 1;
            found(one);
        }
        Heard::Config(config) => options.extend(config.0),
        heard => other(heard),
    })?;
    for (severity, text) in answers.iter().flat_map(KeptAnswers::said) {
        other(Heard::Said { severity, text });
    }
    drop(answers);
    evaluators.keep(protected.into_roots());
    let configs: Vec<(String, Config)> = configs.into_inner();
    let runners = configs.iter().flat_map(|(_, config)| config.runners.clone()).collect();
    Ok(Evaluated { evaluators, options, fail_fast: fail_fast.get(), runners, configs, count: next })
}

/// Protects derivations from the garbage collector that no evaluator protects any more.
pub(crate) fn protect<'p>(
    setup: &Setup,
    evaluators: &mut Evaluators,
    derivations: impl Iterator<Item = &'p StorePath> + Clone,
    recorder: &mut Recorder,
) {
    let roots = TempRoots::start(&setup.eval_nix, &setup.eval_layout, &setup.eval_way())
        .and_then(|mut roots| roots.add(derivations).map(|()| roots));
    match roots {
        Ok(roots) => evaluators.protect(roots),
        Err(error) => {
            let text = format!("derivations are not protected from the garbage collector: {error}");
            recorder.say(Severity::Detail, text);
        }
    }
}

/// Records what is heard while evaluating.
pub(crate) fn tell(recorder: &mut Recorder, heard: Heard) {
    match heard {
        Heard::Evaluating { attr, left } => {
            recorder.record(Event::Evaluating { attr: attr.to_string(), left: number(left) });
        }
        Heard::Said { severity, text } => recorder.say(severity, text),
        Heard::Config(config) => {
            let names: Vec<String> = config.0.into_keys().collect();
            recorder.say(Severity::Notice, format!("using the flake's settings: {}", names.join(", ")));
        }
        Heard::Progress(progress) => {
            recorder.record(Event::EvaluationProgress {
                done: number(progress.done),
                failed: number(progress.failed),
                in_work: number(progress.in_work),
                left: number(progress.left),
                memory: progress.memory,
                budget: progress.budget,
            });
            recorder.tick();
        }
        Heard::Waiting => recorder.tick(),
        Heard::Found(found) => {
            // Found targets are told on their own.
            debug_assert!(false, "{found:?}");
        }
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Where a path in the evaluation store really is on this disk.
pub(crate) fn real_path(setup: &Setup, path: &str) -> PathBuf {
    match path.strip_prefix(setup.eval_layout.store_dir.as_str()) {
        Some(rest) => setup.eval_layout.real_dir.join(rest.trim_start_matches('/')),
        None => PathBuf::from(path),
    }
}

/// The paths of sources that are in the store or in the depot.
fn sources(
    protected: &Protected<'_>,
    answers: Option<&KeptAnswers<'_>>,
    store_dir: &str,
    hashes: &[NarHash],
) -> Vec<Option<StorePath>> {
    let paths: Vec<Option<StorePath>> =
        hashes.iter().map(|&hash| source_path(store_dir, "source", hash)).collect();
    let all: BTreeSet<StorePath> = paths.iter().flatten().cloned().collect();
    let there = match answers {
        Some(answers) => answers.present(&all),
        // What cannot be told is fetched.
        None => protected.valid(&all).unwrap_or_default(),
    };
    paths.into_iter().map(|path| path.filter(|path| there.contains(path))).collect()
}

/// Where Nix has its cache (nix `src/libutil/users.cc`, `getCacheDir`).
fn nix_cache() -> Option<PathBuf> {
    var("NIX_CACHE_HOME").map(PathBuf::from).or_else(|| Some(cache_home()?.join("nix")))
}

/// Inputs and what replaces them. A relative `path:` is meant from here, and not from the flake.
fn overrides(values: &[String]) -> Vec<(String, String)> {
    let here = std::env::current_dir().ok();
    let absolute = |value: &str| {
        let relative = value.strip_prefix("path:").filter(|path| !path.starts_with('/'));
        match (relative, &here) {
            (Some(path), Some(here)) => format!("path:{}", here.join(path).display()),
            _ => value.to_owned(),
        }
    };
    pairs(values).map(|(name, value)| (name.to_owned(), absolute(value))).collect()
}

fn target(setup: &Setup, id: TargetId, found: Found) -> FoundOne {
    let Found { source, target: found } = found;
    let mut verdict = found.ended.map(|ended| match ended {
        Ended::NotEvaluated(error) => Verdict::NotEvaluated { error },
        Ended::Skipped(reason) => Verdict::Skipped { reason },
    });
    let mut target = Target {
        id,
        source,
        attr_path: found.path,
        kind: found.kind,
        name: None,
        system: None,
        drv_path: None,
        outputs: std::collections::BTreeMap::new(),
        wanted: found.wanted,
    };
    if let Some(derivation) = found.derivation {
        target.name = Some(derivation.name);
        target.system = Some(derivation.system);
        target.drv_path = Some(derivation.drv_path);
        target.outputs = derivation.outputs;
    }
    if let Some(Special::StdAction(action)) = &found.special
        && let Err(error) = fill(setup, &mut target, &action.particulars.action_drv)
    {
        verdict = Some(Verdict::NotEvaluated { error });
    }
    FoundOne {
        target,
        verdict,
        special: found.special,
        unavailable: found.unavailable,
        details: found.details,
    }
}

/// Says of a target what its derivation says.
pub(crate) fn fill(setup: &Setup, target: &mut Target, drv_path: &StorePath) -> Result<(), String> {
    let read = phoenix_store::read_derivations(&setup.eval_layout, std::slice::from_ref(drv_path));
    let derivation = read
        .into_iter()
        .next()
        .unwrap_or_else(|| Err("it is not there".to_owned()))
        .map_err(|error| format!("its derivation {drv_path} cannot be read: {error}"))?;
    target.name = Some(drv_path.human_name().to_owned());
    target.system = Some(derivation.system.to_string());
    target.outputs =
        derivation.outputs.iter().map(|output| (output.name.to_string(), output.path.clone())).collect();
    target.drv_path = Some(drv_path.clone());
    Ok(())
}
