//! `phoenix cache gc`: folds packs, and lets go of what there is no room for.

use std::process::ExitCode;

use indicatif::HumanBytes;
use phoenix_cache::{Cache, CollectError, Collected, Trouble};
use phoenix_pack::{Collection, Goal, Use};
use serde_json::json;

use crate::args::GcArgs;
use crate::error::CommandError;
use crate::{depots, talk, tidy};

/// How often the depot is looked at anew because another collector took what was to be folded.
const RACES: usize = 5;

/// Runs the verb.
pub(super) fn gc(args: &GcArgs) -> Result<ExitCode, CommandError> {
    let keep = args.keep.iter().map(|path| name(path)).collect::<Result<_, _>>()?;
    let grace = args.grace.saturating_mul(60);
    let goal = Goal { keep, grace, ..tidy::goal(args.budget) };
    let say = |text: &str| talk::stderr(&format!("{text}\n"));
    for _ in 1..RACES {
        match once(args, &goal, &say)? {
            Err(error) if error.is_race() => {
                say(&format!("another collector was faster ({error}); looking again"));
            }
            ended => return done(ended),
        }
    }
    done(once(args, &goal, &say)?)
}

fn done(ended: Result<(), CollectError>) -> Result<ExitCode, CommandError> {
    let cause = |error| CommandError::because("nothing is collected, and nothing is lost", &error);
    ended.map(|()| ExitCode::SUCCESS).map_err(cause)
}

/// Looks at the depot, and does what is to be done.
fn once(
    args: &GcArgs,
    goal: &Goal,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Result<(), CollectError>, CommandError> {
    let mut trouble = |trouble: Trouble| say(&format!("warning: {trouble}"));
    let depot = depots::open(args.depot.as_deref())?;
    let mut cache =
        Cache::open(depot, &mut trouble).map_err(|error| CommandError::because("cannot start", &error))?;
    let mut is_news = false;
    for branch in &args.gone {
        let known: Vec<(String, u64, bool)> = (cache.catalog().others().branches.iter())
            .filter(|(name, _)| tidy::is_of(name, branch))
            .map(|(name, used)| (name.clone(), used.run, used.roots.is_empty()))
            .collect();
        for (name, run, is_gone) in known {
            is_news |= !is_gone;
            // A run of the branch that is later than those that are known, and needs nothing.
            let used = Use { run: run.saturating_add(1), at: goal.now, ..Use::default() };
            cache.catalog().note_use(&name, used);
        }
    }
    let plan = cache.plan_collection(goal, &mut trouble).map_err(|error| {
        CommandError::because("nothing is collected", &error).hint("run it again when the depot answers")
    })?;
    let size = format!("{} now, {} then", HumanBytes(plan.before), HumanBytes(plan.after));
    if plan.is_nothing() && is_news && !args.dry_run {
        // Nothing is rewritten that would say it.
        let told = cache.tell(&depots::new_name());
        told.map_err(|error| CommandError::because("that a branch is gone cannot be noted", &error))?;
    }
    if plan.is_nothing() {
        say(&format!("nothing to do: {} in all", HumanBytes(plan.before)));
        tidy::waiting_line(&plan).iter().for_each(|line| say(line));
    }
    if args.dry_run || plan.is_nothing() {
        if !plan.is_nothing() {
            tidy::plan_lines(&plan).iter().for_each(|line| say(line));
            say(&format!("{size}; nothing was done"));
        }
        if args.json {
            talk::stdout(&format!("{}\n", report(&plan, None)))?;
        }
        return Ok(Ok(()));
    }
    let collected = match cache.collect(&depots::new_name(), &plan, &mut trouble) {
        Ok(collected) => collected,
        Err(error) => return Ok(Err(error)),
    };
    tidy::done_lines(&plan, &collected, tidy::NAMED).iter().for_each(|line| say(line));
    say(&size);
    if args.json {
        talk::stdout(&format!("{}\n", report(&plan, Some(&collected))))?;
    }
    Ok(Ok(()))
}

/// The base name of a store path, of whatever store.
fn name(path: &str) -> Result<String, CommandError> {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let is_name = name.len() > 33 && name.as_bytes()[32] == b'-';
    is_name.then(|| name.to_owned()).ok_or_else(|| {
        CommandError::new(format!("{path} is no store path"))
            .hint("--keep takes /nix/store/HASH-NAME, or HASH-NAME alone")
    })
}

/// What is to be done, and what was done, to be read by machines.
pub(super) fn report(plan: &Collection, collected: Option<&Collected>) -> serde_json::Value {
    let sources: Vec<_> = plan.sources.iter().map(|source| {
        json!({ "pack": source.name, "size": source.size, "kept": source.wanted, "why": source.why.to_string() })
    }).collect();
    let unwanted: Vec<_> = plan
        .unwanted
        .iter()
        .map(
            |unwanted| json!({ "pack": unwanted.name, "size": unwanted.size, "replaced": unwanted.replaced }),
        )
        .collect();
    let dropped: Vec<_> = plan.dropped.iter().map(|dropped| {
        json!({ "path": dropped.name, "narSize": dropped.nar_size, "why": dropped.why.to_string() })
    }).collect();
    let branches: serde_json::Map<_, _> =
        plan.branches.iter().map(|(name, alive)| (name.clone(), json!(alive))).collect();
    let done = collected.map(|done| {
        json!({
            "pack": done.pack.as_ref().map(ToString::to_string),
            "size": done.size,
            "copied": done.copied,
            "removed": done.removed.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "notRemoved": done.left,
            "lost": done.lost,
        })
    });
    json!({
        "bytesBefore": plan.before, "bytesAfter": plan.after, "pathsKept": plan.kept, "branchesAlive": branches,
        "fold": sources, "remove": unwanted, "drop": dropped,
        "waiting": { "packs": plan.waiting.0, "bytes": plan.waiting.1 }, "done": done,
    })
}
