//! `phoenix eval`: targets as JSON lines, in nix-eval-jobs' schema.

mod asked;
mod cache_status;
mod line;
mod printing;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use phoenix_evaluate::{Heard, JobSource, Special};
use phoenix_model::{Severity, Verdict, redact};
use phoenix_store::Roots;

use self::asked::Manner;
use self::line::{Fields, Line};
use self::printing::Printer;
use crate::answers::InDepot;
use crate::args::EvalArgs;
use crate::error::{CommandError, DAMAGED_LOCK, hint_for};
use crate::evaluating::FoundOne;
use crate::setup::{Setup, var};
use crate::{evaluating, setup, signals, talk};

/// How it went.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    /// Something did not evaluate.
    failed: bool,
    /// An evaluator crashed, or there is no root to begin at.
    fatal: bool,
}

/// Runs the verb.
pub(crate) fn eval(args: &EvalArgs) -> Result<ExitCode, CommandError> {
    let is_file = |path: &std::path::Path| fs_err::metadata(path).is_ok_and(|found| found.is_file());
    let manner = asked::manner(args, &is_file)?;
    let (search_paths, patterns) = asked::search_paths(args, &manner);
    let roots_directory = args.jobs.gc_roots_dir.as_deref().map(asked::roots_directory).transpose()?;
    let mut nix = args.nix.clone();
    nix.eval_workers = args.jobs.workers.unwrap_or(nix.eval_workers);
    let mut setup = setup::setup(&nix, None)?;
    look_in(&mut setup, search_paths);
    let mut asked = match &manner {
        Manner::Jobs(source, shown) => {
            evaluating::Asked::jobs(asked::root(args, source.clone(), shown)?, shown)
        }
        Manner::Targets => {
            let wanted = crate::args::Wanted { include: patterns, ..args.wanted.clone() };
            evaluating::asked(&wanted, &setup.settings.system)?
        }
    };
    asked.details = asked::details(&args.jobs);
    asked.instantiate = !args.jobs.no_instantiate;
    asked.reference_lock_file = lock_file(args)?;
    asked.max_memory = args.jobs.max_memory_size;
    let mut roots = match roots_directory.filter(|_| asked.instantiate) {
        Some(directory) => Some((directory, open_roots(&setup)?)),
        None => None,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let _signals = signals::listen(&stop)?;
    let fields = Fields { input_drvs: args.jobs.show_input_drvs, instantiated: asked.instantiate };
    let is_jobs = manner != Manner::Targets;
    let is_flake = match &manner {
        Manner::Jobs(source, _) => matches!(source, JobSource::Flake(_)),
        Manner::Targets => args.wanted.file.is_none(),
    };
    let mut outcome = Outcome::default();
    let mut unkept = None;
    let tell = |severity: Severity, text: &str| say(args, severity, text);
    let (way, lines) = printing::Way::new();
    let (evaluated, printed) = std::thread::scope(|scope| {
        let printer = scope
            .spawn(|| printing::print_all(&setup, fields, &lines, Printer::new(args.sorted), &stop, &tell));
        let evaluated = evaluating::evaluate(
            &setup,
            &asked,
            &nix,
            in_depot(args),
            &stop,
            &mut |one| {
                comment(args, &one, is_jobs, is_flake);
                let Some(found) = to_print(&one) else { return };
                outcome.failed |= matches!(one.verdict, Some(Verdict::NotEvaluated { .. }));
                let line = Line::of(&one);
                outcome.fatal |= line.is_fatal() || (found == Printed::Error && line.attr_path.is_empty());
                if let (Some((directory, roots)), Some(drv_path)) = (&mut roots, &one.target.drv_path)
                    && let Err(error) = roots.add(&directory.join(drv_path.base_name()), drv_path)
                {
                    unkept.get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
                let looked_up = args.jobs.check_cache_status && one.target.drv_path.is_some();
                way.send(line, looked_up.then_some(&one.target));
            },
            &mut |heard| {
                if let Heard::Said { severity, text } = heard {
                    say(args, severity, &text);
                }
            },
        );
        drop(way);
        (evaluated, printer.join())
    });
    // What was printed is protected until the end by whoever evaluated it.
    let _evaluated = evaluated?;
    let listening = printed.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    if let Some((_, roots)) = &roots {
        roots.settle();
    }
    if let Some(error) = unkept {
        return Err(CommandError::because("cannot keep derivations from the garbage collector", &error));
    }
    Ok(match (stop.load(Ordering::Relaxed) && listening, is_jobs, outcome) {
        (true, _, _) => {
            talk::stderr("error: stopped before everything was evaluated\n");
            ExitCode::from(130)
        }
        (false, true, Outcome { fatal: true, .. }) => ExitCode::from(1),
        (false, false, Outcome { failed: true, .. }) => ExitCode::from(120),
        _ => ExitCode::SUCCESS,
    })
}

/// The depot, if one is named; a variable that is empty names none. An unchanged flake is not to wait for it. What is kept
/// there are derivations, which may have to be written.
fn in_depot(args: &EvalArgs) -> InDepot<'static> {
    match args.depot.clone().filter(|url| !url.is_empty() && !args.jobs.no_instantiate) {
        Some(url) => InDepot::Later { url, budget: args.budget },
        None => InDepot::No,
    }
}

/// Has `<…>` be looked for in these places first.
fn look_in(setup: &mut Setup, mut places: Vec<String>) {
    if places.is_empty() {
        return;
    }
    places.extend(var("NIX_PATH"));
    setup.eval_nix.set_env("NIX_PATH", places.join(":"));
}

fn lock_file(args: &EvalArgs) -> Result<Option<std::path::PathBuf>, CommandError> {
    let Some(file) = &args.jobs.reference_lock_file else { return Ok(None) };
    let file = fs_err::canonicalize(file)
        .map_err(|error| CommandError::because("cannot use --reference-lock-file", &error))?;
    Ok(Some(file))
}

fn open_roots(setup: &Setup) -> Result<Roots, CommandError> {
    Roots::open(&setup.eval_layout, &setup.eval_way())
        .map_err(|error| CommandError::because("cannot keep derivations from the garbage collector", &error))
}

/// What is printed of something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Printed {
    Derivation,
    Error,
}

/// Whether something is printed at all: what is left out on purpose is not, nor what was not reached.
fn to_print(one: &FoundOne) -> Option<Printed> {
    match &one.verdict {
        Some(Verdict::NotEvaluated { .. }) => Some(Printed::Error),
        // nixpkgs refuses it, which is an error for those who read the lines.
        Some(Verdict::Skipped { .. }) => one.unavailable.map(|_| Printed::Error),
        _ => one.target.drv_path.as_ref().map(|_| Printed::Derivation),
    }
}

/// Says of a target what does not belong to the data.
fn comment(args: &EvalArgs, one: &FoundOne, is_jobs: bool, is_flake: bool) {
    let attr = one.target.attr();
    match &one.verdict {
        Some(Verdict::Skipped { reason }) => {
            say(args, Severity::Notice, &format!("skipped {attr}: {reason}"));
        }
        Some(Verdict::NotEvaluated { error }) => {
            // For those who read no lines, as nix-eval-jobs does.
            if is_jobs {
                let recursion = may_be_recursion(error);
                let why = if recursion { " (possible infinite recursion)" } else { "" };
                let of = if attr.is_empty() { String::new() } else { format!("{attr}: ") };
                say(args, Severity::Error, &format!("{of}{error}{why}"));
            }
            // A lock file is read before any attribute; what else is no JSON is the expression's own.
            let may_be_lock = is_flake && attr.is_empty();
            if let Some(hint) = hint_for(error).filter(|&hint| may_be_lock || hint != DAMAGED_LOCK) {
                say(args, Severity::Notice, &format!("hint: {hint}"));
            }
        }
        None if matches!(one.special, Some(Special::WorkUnit(_))) => {
            say(
                args,
                Severity::Notice,
                &format!("{attr} is a work unit: `phoenix run` asks it what is to be built"),
            );
        }
        _ => {}
    }
}

/// Whether to add that an error may be an endless recursion: the evaluator crashed. One that ended by itself, or was ended, had
/// its reasons.
fn may_be_recursion(error: &str) -> bool {
    phoenix_evaluate::is_crash(error)
        && !error.contains("infinite recursion")
        && (error.contains("stack overflow") || error.contains("the evaluator crashed"))
}

fn say(args: &EvalArgs, severity: Severity, text: &str) {
    let shown = match severity {
        Severity::Error | Severity::Warning | Severity::Notice => !args.quiet,
        Severity::Detail => args.verbose > 0 || args.jobs.debug,
    };
    if shown {
        let head = match severity {
            Severity::Warning => "warning: ",
            Severity::Error => "error: ",
            Severity::Notice | Severity::Detail => "",
        };
        talk::stderr(&format!("{head}{}\n", redact(text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluator_that_ended_otherwise_had_another_reason_than_recursion() {
        assert!(may_be_recursion("stack overflow; max-call-depth exceeded"));
        assert!(!may_be_recursion("boom\n(the evaluator was ended by signal 15)"));
        assert!(!may_be_recursion(
            "it needs more memory than evaluation may have: the evaluator was stopped"
        ));
        assert!(!may_be_recursion(
            "remounting /nix/store writable: Invalid argument\n(the evaluator ended with exit code 1)"
        ));
    }
}
