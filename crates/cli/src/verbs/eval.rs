//! `phoenix eval`: targets as JSON lines, in nix-eval-jobs' schema.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use phoenix_evaluate::{Heard, Special};
use phoenix_model::{Severity, StorePath, Target, Verdict, redact};
use serde::Serialize;

use crate::args::EvalArgs;
use crate::error::{CommandError, hint_for};
use crate::evaluating::FoundOne;
use crate::{evaluating, setup, signals, talk};

/// One line; the names are nix-eval-jobs'.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    attr: String,
    attr_path: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drv_path: Option<&'a StorePath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<&'a BTreeMap<String, Option<StorePath>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_system_features: Option<Vec<String>>,
}

/// Runs the verb.
pub(crate) fn eval(args: &EvalArgs) -> Result<ExitCode, CommandError> {
    let setup = setup::setup(&args.nix, None)?;
    let asked = evaluating::asked(&args.wanted, &setup.settings.system)?;
    let stop = Arc::new(AtomicBool::new(false));
    let _signals = signals::listen(&stop)?;
    let mut failed = false;
    let mut unwritten = None;
    let listening = std::cell::Cell::new(true);
    evaluating::evaluate(
        &setup,
        &asked,
        &args.nix,
        None,
        &stop,
        &mut |FoundOne { target, verdict, special }| {
            failed |= matches!(verdict, Some(Verdict::NotEvaluated { .. }));
            if let Some(Verdict::Skipped { reason }) = &verdict {
                say(args, Severity::Notice, &format!("skipped {}: {reason}", target.attr()));
                return;
            }
            if let Some(Verdict::NotEvaluated { error }) = &verdict
                && let Some(hint) = hint_for(error)
            {
                say(args, Severity::Notice, &format!("hint: {hint}"));
            }
            if let (Some(Special::WorkUnit(_)), None) = (special, &verdict) {
                let text =
                    format!("{} is a work unit: `phoenix run` asks it what is to be built", target.attr());
                say(args, Severity::Notice, &text);
            }
            // The evaluation was stopped before it.
            if verdict.is_none() && target.drv_path.is_none() {
                return;
            }
            let printed = print(&setup, &target, verdict.as_ref());
            if !matches!(printed, Ok(true)) {
                listening.set(false);
                stop.store(true, Ordering::Relaxed);
            }
            if let Err(error) = printed {
                unwritten.get_or_insert(error);
            }
        },
        &mut |heard| {
            if let Heard::Said { severity, text } = heard {
                say(args, severity, &text);
            }
        },
    )?;
    if let Some(error) = unwritten {
        return Err(error);
    }
    Ok(match (stop.load(Ordering::Relaxed) && listening.get(), failed) {
        (true, _) => {
            talk::stderr("error: stopped before everything was evaluated\n");
            ExitCode::from(130)
        }
        (false, true) => ExitCode::from(120),
        (false, false) => ExitCode::SUCCESS,
    })
}

fn print(setup: &setup::Setup, target: &Target, verdict: Option<&Verdict>) -> Result<bool, CommandError> {
    let error = match verdict {
        Some(Verdict::NotEvaluated { error }) => Some(redact(error)),
        _ => None,
    };
    let features = target.drv_path.as_ref().and_then(|drv_path| {
        let read = phoenix_store::read_derivations(&setup.eval_layout, std::slice::from_ref(drv_path));
        read.into_iter().next()?.ok().map(|derivation| derivation.required_features)
    });
    let line = Line {
        attr: target.attr(),
        attr_path: target.attr_path.names(),
        error: error.as_deref(),
        name: target.name.as_deref(),
        system: target.system.as_deref(),
        drv_path: target.drv_path.as_ref(),
        outputs: target.drv_path.is_some().then_some(&target.outputs),
        required_system_features: features,
    };
    match serde_json::to_string(&line) {
        Ok(json) => talk::stdout(&format!("{json}\n")),
        Err(error) => Err(CommandError::because("cannot write a target as JSON", &error)),
    }
}

fn say(args: &EvalArgs, severity: Severity, text: &str) {
    let shown = match severity {
        Severity::Error | Severity::Warning | Severity::Notice => !args.quiet,
        Severity::Detail => args.verbose > 0,
    };
    if shown {
        let head = if severity == Severity::Warning { "warning: " } else { "" };
        talk::stderr(&format!("{head}{}\n", redact(text)));
    }
}
