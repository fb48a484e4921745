//! `phoenix cache restore`: store paths out of a depot.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::HumanBytes;
use phoenix_cache::{Cache, Destination, Trouble};
use phoenix_evaluate::{Evaluators, Heard};
use phoenix_model::{Severity, StorePath, Target, Verdict};
use phoenix_report::plural;
use phoenix_store::Layout;

use super::{keys, losses, open, say, snapshot, store, store_path, threads, warn};
use crate::answers::InDepot;
use crate::args::{RestoreArgs, StoreArgs, Wanted};
use crate::depots::{self, no_look};
use crate::error::{CommandError, hint_for};
use crate::{evaluating, setup, signals, talk, tidy};

/// Exit code when something did not evaluate, as that of `run`.
const EXIT_NOT_EVALUATED: u8 = 120;

/// Runs the verb.
pub(super) fn restore(args: &RestoreArgs) -> Result<ExitCode, CommandError> {
    let trusted = keys::trusted(&args.trusted_key)?;
    let url = args.nix.store.clone();
    let (nix, layout) = store(&StoreArgs { store: url.clone(), options: args.nix.options.clone() })?;
    let (mut cache, troubled) = open(&args.depot)?;
    let valid = || depots::infos(&layout, url.as_deref())?.all_paths().map_err(|error| no_look(&error));
    let before = args.snapshot.as_ref().map(|_| valid()).transpose()?;
    let wanted = if args.latest {
        Asked { paths: latest(&mut cache, &layout, args.branch.as_deref()), ..Asked::default() }
    } else {
        asked(args, &layout)?
    };
    if wanted.stopped {
        return Ok(ExitCode::from(130));
    }
    depots::substitute(&mut cache, &wanted.paths, &layout, &nix);
    let way = depots::way_into(&layout, url.as_deref());
    let damaged = AtomicBool::new(false);
    let told = |trouble: Trouble| {
        damaged.fetch_or(trouble.pack().is_some(), Ordering::Relaxed);
        warn(&trouble);
    };
    let into = Destination { layout: &layout, way: &way, trusted: trusted.as_ref() };
    let restored =
        cache.restore_into_store(&wanted.paths, into, threads(&args.depot), &told).map_err(|error| {
            let failed = depots::not_restored("nothing was restored", &error);
            match hint_for(&failed.in_one_line()) {
                Some(hint) => failed.hint(hint),
                None => failed,
            }
        })?;
    losses::lines(&restored.failed).iter().for_each(say);
    if damaged.into_inner() {
        // Where that cannot be told, everybody has to find it anew.
        let told = cache.tell_damage(&depots::new_name()).unwrap_or(false);
        say(if told {
            "what is damaged is noted in the depot: whoever has it saves it anew"
        } else {
            "hint: `phoenix cache verify --repair` lets go of what is damaged, so that it is saved anew"
        });
    }
    say(format!(
        "restored {} of {} in {} {} for {}",
        talk::paths(restored.paths.len()),
        HumanBytes(restored.archives),
        restored.requests,
        plural(restored.requests, "request"),
        HumanBytes(restored.bytes),
    ));
    if !restored.missing.is_empty() {
        let missing: Vec<&str> = restored.missing.iter().map(String::as_str).collect();
        say(format!(
            "{} in no pack{}: {}",
            talk::paths_are(missing.len()),
            losses::or_left_out(cache.left_out()),
            losses::few(&missing)
        ));
    }
    let infos = depots::infos(&layout, url.as_deref())?;
    if let (Some(file), Some(before)) = (&args.snapshot, before) {
        snapshot::write(file, &before, &infos.all_paths().map_err(|error| no_look(&error))?)?;
    }
    let valid = infos.of(&wanted.paths).map_err(|error| no_look(&error))?.len();
    // What the last run needed is not known when the depot does not tell.
    let is_unknown = wanted.unknown || (args.latest && troubled && wanted.paths.is_empty());
    let all = valid == wanted.paths.len() && !is_unknown;
    Ok(match (wanted.failed, all) {
        (true, _) => ExitCode::from(EXIT_NOT_EVALUATED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

/// What the last run needed.
fn latest(cache: &mut Cache, layout: &Layout, branch: Option<&str>) -> Vec<StorePath> {
    let (names, gone) = cache.latest(&tidy::branches(branch));
    if !gone.is_empty() {
        let names: Vec<&str> = gone.iter().map(String::as_str).collect();
        // What was let go for want of room in the depot is something else.
        let why = match cache.left_out() {
            0 => "for want of room or because of damage".to_owned(),
            1 => "or in the pack that there was no room for".to_owned(),
            packs => format!("or in the {packs} packs that there was no room for"),
        };
        say(format!(
            "of what the last run needed {} in no pack any more, {why}: {}; what is left of it is restored",
            talk::paths_are(names.len()),
            losses::few(&names)
        ));
    }
    names
        .into_iter()
        .filter_map(|name| StorePath::parse(&format!("{}/{name}", layout.store_dir)).ok())
        .collect()
}

/// What is wanted, each path once.
#[derive(Debug, Default)]
struct Asked {
    paths: Vec<StorePath>,
    /// Something did not evaluate.
    failed: bool,
    /// Something comes about only in a build, and so cannot be looked for.
    unknown: bool,
    /// It was stopped by a signal.
    stopped: bool,
    /// Keeps what was evaluated from being collected.
    _evaluators: Evaluators,
}

/// Sorts out what are store paths, and evaluates the rest.
fn asked(args: &RestoreArgs, layout: &Layout) -> Result<Asked, CommandError> {
    let (mut paths, mut installables) = (Vec::new(), Vec::new());
    for text in &args.installables {
        // As `cache ls` prints it.
        let bare =
            StorePath::parse(&format!("{}/{text}", layout.store_dir)).ok().filter(|_| !text.contains('/'));
        let found = match bare {
            Some(path) if !Path::new(text).exists() => Ok(path),
            _ => store_path(Path::new(text), layout),
        };
        match found {
            Ok(path) if !text.contains('#') => paths.push(path),
            // What begins like a store path is none of anything else.
            Err(error) if text.starts_with(&layout.store_dir) && !text.contains('#') => return Err(error),
            Ok(_) | Err(_) => installables.push(text.clone()),
        }
    }
    let mut asked = if installables.is_empty() { Asked::default() } else { evaluated(args, installables)? };
    asked.paths.append(&mut paths);
    asked.paths.sort_unstable();
    asked.paths.dedup();
    Ok(asked)
}

/// The outputs of what these installables evaluate to.
fn evaluated(args: &RestoreArgs, installables: Vec<String>) -> Result<Asked, CommandError> {
    let wanted = Wanted {
        installables,
        file: None,
        attr: Vec::new(),
        systems: args.systems.clone(),
        include: Vec::new(),
        exclude: Vec::new(),
    };
    let setup = setup::setup(&args.nix, None)?;
    let wanted = evaluating::asked(&wanted, &setup.settings.system)?;
    let stop = Arc::new(AtomicBool::new(false));
    let _signals = signals::listen(&stop)?;
    let mut asked = Asked::default();
    let evaluated = evaluating::evaluate(
        &setup,
        &wanted,
        &args.nix,
        InDepot::No,
        &stop,
        &mut |one| asked.take(&one.target, one.verdict),
        &mut |heard| {
            if let Heard::Said { severity: Severity::Error | Severity::Warning, text } = heard {
                say(text);
            }
        },
    )?;
    asked.stopped = stop.load(Ordering::Relaxed);
    asked._evaluators = evaluated.evaluators;
    Ok(asked)
}

impl Asked {
    fn take(&mut self, target: &Target, verdict: Option<Verdict>) {
        let attr = if target.attr_path.names().is_empty() { target.source.clone() } else { target.attr() };
        match verdict {
            Some(Verdict::NotEvaluated { error }) => {
                self.failed = true;
                say(format!("error: {attr} does not evaluate: {error}"));
                if let Some(hint) = hint_for(&error) {
                    say(format!("hint: {hint}"));
                }
            }
            Some(Verdict::Skipped { reason }) => say(format!("skipped {attr}: {reason}")),
            Some(_) | None => {
                for (name, path) in &target.outputs {
                    if !target.wanted.is_empty() && !target.wanted.contains(name) {
                        continue;
                    }
                    match path {
                        Some(path) => self.paths.push(path.clone()),
                        None => {
                            self.unknown = true;
                            say(format!("the path of {attr}^{name} is known only after it is built"));
                        }
                    }
                }
            }
        }
    }
}
