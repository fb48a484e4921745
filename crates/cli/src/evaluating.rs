//! From what the user asked for to targets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use phoenix_evaluate::{
    Ended, Evaluators, Found, GlobError, Heard, Installable, Request, Root, Selection, is_system,
};
use phoenix_model::{AttrPath, Target, TargetId, Verdict};
use phoenix_schedule::RunnerKind;

use crate::args::{NixArgs, Wanted};
use crate::config::Config;
use crate::error::CommandError;
use crate::setup::{Setup, pairs};

/// Patterns to include, to exclude, and systems.
type MakeSelection = fn(&[String], &[String], &[String]) -> Result<Selection, GlobError>;

/// What is asked for, understood.
#[derive(Debug)]
pub(crate) struct Asked {
    roots: Vec<Root>,
    include: Vec<String>,
    exclude: Vec<String>,
    systems: Vec<String>,
    /// As the user wrote it, for reports.
    pub(crate) installables: Vec<String>,
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
        roots,
        include: wanted.include.clone(),
        exclude: wanted.exclude.clone(),
        systems: wanted.systems.clone(),
        installables,
    })
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
    Ok(Root { source: file.display().to_string(), file: Some(absolute), asked })
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
            None => roots.push(Root { source: installable.flake, file: None, asked: vec![asked] }),
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

/// Evaluates; `found` gets every target with its verdict if it has one already, `other` everything else
/// that is heard.
pub(crate) fn evaluate(
    setup: &Setup,
    asked: &Asked,
    args: &NixArgs,
    stop: &Arc<AtomicBool>,
    found: &mut dyn FnMut(Target, Option<Verdict>),
    other: &mut dyn FnMut(Heard),
) -> Result<Evaluated, CommandError> {
    let fail_fast = std::cell::Cell::new(false);
    let runners = std::cell::RefCell::new(Vec::new());
    let select = |root: Option<&str>| {
        // A file has no root that a configuration would belong to.
        let Some(root) = root else {
            return asked.selection(setup, &Config::default(), Selection::of_file);
        };
        let config = Config::load(&real_path(setup, root))?;
        fail_fast.set(fail_fast.get() || config.fail_fast);
        runners.borrow_mut().extend(config.runners.iter().cloned());
        asked.selection(setup, &config, Selection::new)
    };
    let request = Request {
        nix: setup.eval_nix.clone(),
        roots: asked.roots.clone(),
        select: &select,
        extra_platforms: setup.settings.extra_platforms.clone(),
        workers: args.eval_workers,
        impure: args.impure,
        show_trace: args.show_trace,
        override_inputs: owned_pairs(&args.override_input),
        accept_flake_config: args.accept_flake_config || setup.settings.accept_flake_config,
    };
    let mut options = Vec::new();
    let mut next = 0_u32;
    let evaluators = phoenix_evaluate::evaluate(&request, stop, &mut |heard| match heard {
        Heard::Found(one) => {
            let (target, verdict) = target(TargetId(next), one);
            next += 1;
            found(target, verdict);
        }
        Heard::Config(config) => options.extend(config.0),
        heard => other(heard),
    })?;
    let runners = runners.into_inner();
    Ok(Evaluated { evaluators, options, fail_fast: fail_fast.get(), runners })
}

/// Where a path in the evaluation store really is on this disk.
fn real_path(setup: &Setup, path: &str) -> PathBuf {
    match path.strip_prefix(setup.eval_layout.store_dir.as_str()) {
        Some(rest) => setup.eval_layout.real_dir.join(rest.trim_start_matches('/')),
        None => PathBuf::from(path),
    }
}

fn owned_pairs(values: &[String]) -> Vec<(String, String)> {
    pairs(values).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn target(id: TargetId, found: Found) -> (Target, Option<Verdict>) {
    let Found { source, target: found } = found;
    let verdict = found.ended.map(|ended| match ended {
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
    (target, verdict)
}
