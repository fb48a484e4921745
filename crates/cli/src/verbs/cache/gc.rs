//! `phoenix cache gc`: folds packs, and lets go of what there is no room for.

use std::collections::BTreeSet;
use std::process::ExitCode;

use indicatif::HumanBytes;
use phoenix_cache::{Cache, CollectError, Collected, Said, Trouble};
use phoenix_pack::{Collection, Goal, Next, Use};
use serde_json::{Value, json};

use super::collector::{Collector, LATER, Troubled, not_collected, report, say};
use super::making_room::make_room;
use crate::args::GcArgs;
use crate::error::CommandError;
use crate::tidy::Claims;
use crate::{depots, talk, tidy};

/// How often the depot is looked at anew because another collector took what was to be folded.
const RACES: usize = 5;

/// Runs the verb.
pub(super) fn gc(args: &GcArgs) -> Result<ExitCode, CommandError> {
    let keep = args.keep.iter().map(|path| name(path)).collect::<Result<_, _>>()?;
    let grace = args.grace.saturating_mul(60);
    let goal = Goal { keep, grace, ..tidy::goal(args.budget) };
    let claims = Claims::new(depots::open(args.depot.as_deref())?);
    let mut collector =
        Collector { args, goal, claims, said: Said::default(), earlier: Vec::new(), folded: BTreeSet::new() };
    let ended = collect(&mut collector);
    if args.json && !collector.earlier.is_empty() {
        // It ended before its end.
        print(json!({}), collector.earlier)?;
    }
    ended
}

/// Collects until all is done.
fn collect(collector: &mut Collector<'_>) -> Result<ExitCode, CommandError> {
    let mut races = 0;
    loop {
        let later = collector.goal.damaged.later.len();
        match pass(collector)? {
            Ok(Pass::Part) => {}
            Ok(Pass::All) => return Ok(ExitCode::SUCCESS),
            Err(error) if error.is_race() && races + 1 < RACES => {
                races += 1;
                say(&format!("another collector was faster ({error}); looking again"));
            }
            // Without what cannot be rewritten.
            Err(_) if collector.goal.damaged.later.len() > later => {}
            Err(error) => {
                return Err(CommandError::because("nothing is collected, and nothing is lost", &error));
            }
        }
    }
}

/// Whether there is more to do.
enum Pass {
    All,
    /// What was to be rewritten would have said too much in one pack, or it is to be seen whether there is room now.
    Part,
}

/// Looks at the depot, and does what is to be done, or as much of it as goes into one pack.
fn pass(collector: &mut Collector<'_>) -> Result<Result<Pass, CollectError>, CommandError> {
    let mut said = std::mem::take(&mut collector.said);
    let mut trouble = |trouble: Trouble| {
        if said.is_news(&trouble) {
            say(&format!("warning: {trouble}"));
        }
    };
    let passed = look_and_collect(collector, &mut trouble);
    collector.said = said;
    passed
}

fn look_and_collect(
    collector: &mut Collector<'_>,
    trouble: &mut Troubled<'_>,
) -> Result<Result<Pass, CollectError>, CommandError> {
    let args = collector.args;
    let depot = depots::open(args.depot.as_deref())?;
    let mut cache =
        Cache::open(depot, trouble).map_err(|error| CommandError::because("cannot start", &error))?;
    let made = match make_room(collector, &mut cache, trouble)? {
        Ok(made) => made,
        Err(error) => return Ok(Err(error)),
    };
    let mut goal = collector.goal.clone();
    if let Some(made) = &made {
        goal.damaged = made.damaged(args.dry_run, goal.damaged);
    }
    for name in collector.goal.keep.iter().filter(|name| !cache.catalog().has_name(name)) {
        say(&format!("warning: {name}, which is to be kept, is in no pack"));
    }
    let is_news = note_gone(&mut cache, &args.gone, goal.now);
    let plan = cache.plan_collection(&goal, trouble).map_err(|error| not_collected(&error))?;
    let size = |after| format!("{} now, {} then", HumanBytes(plan.before), HumanBytes(after));
    if plan.is_nothing() && is_news && !args.dry_run {
        // Nothing is rewritten that would say it.
        let told = cache.tell(&depots::new_name());
        told.map_err(|error| CommandError::because("that a branch is gone cannot be noted", &error))?;
    }
    for dropped in plan.dropped.iter().filter(|dropped| goal.keep.contains(&dropped.name)) {
        say(&format!("warning: {}, which is to be kept, is let go of: {}", dropped.name, dropped.why));
    }
    let mut collected = None;
    let mut is_claimed = false;
    if plan.is_nothing() {
        say(&format!("nothing to do: {} in all", HumanBytes(plan.before)));
        tidy::waiting_line(&plan).iter().for_each(|line| say(line));
    } else if args.dry_run {
        tidy::plan_lines(&plan).iter().for_each(|line| say(line));
        say(&format!("{}; nothing was done", size(plan.after)));
    } else if collector.has_folded(&plan) {
        say("the depot does not show yet what was folded; a later run does the rest");
    } else {
        match collector.fold(&mut cache, &plan, trouble) {
            Ok(done) => {
                say(&size(tidy::after(&plan, &done)));
                collected = Some(done);
            }
            Err(error @ CollectError::Claimed { .. }) => {
                say(&format!("nothing is collected: {error}; {LATER}"));
                is_claimed = true;
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    let left = collected.as_ref().map_or(plan.before, |done| tidy::after(&plan, done));
    let mut report = report(&plan, collected.as_ref());
    if let Some(made) = made {
        report["room"] = made.json();
    }
    if collected.as_ref().is_some_and(|done| is_more(&mut collector.goal, &plan, done)) {
        collector.was_done(report);
        return Ok(Ok(Pass::Part));
    }
    if left > goal.budget && !args.dry_run && !is_claimed {
        say(&format!(
            "warning: that is {} more than the budget: the rest is not for this job to let go of, or is what packs say of each \
             other",
            HumanBytes(left - goal.budget)
        ));
    }
    if args.json {
        if is_claimed {
            report["bytesAfter"] = plan.before.into();
        }
        report["claimed"] = Value::Bool(is_claimed);
        print(report, std::mem::take(&mut collector.earlier))?;
    }
    if collected.is_some() && cache.is_nearly_full() {
        // The packs that went may have brought the room that others have.
        cache.look_again(trouble);
        if cache.left_out() > 0 {
            let packs = tidy::packs(cache.left_out());
            return Err(CommandError::new(format!("without what was removed there is no room for {packs}"))
                .hint("run it again: it makes room"));
        }
    }
    Ok(Ok(Pass::All))
}

/// Whether more is to be done after what was: there is more to rewrite, or what was made is larger than it seemed.
fn is_more(goal: &mut Goal, plan: &Collection, done: &Collected) -> bool {
    let is_less = plan.sources.len() > 1 || tidy::after(plan, done) < plan.before;
    plan.next == Some(Next::TooMuchInOne) && is_less || tidy::is_too_much(goal, plan, done)
}

/// Notes that branches are gone; whether that is news.
fn note_gone(cache: &mut Cache, gone: &[String], now: u64) -> bool {
    let mut is_news = false;
    for branch in gone {
        let known: Vec<(String, u64, bool)> = (cache.catalog().others().branches.iter())
            .filter(|(name, _)| tidy::is_of(name, branch))
            .map(|(name, used)| (name.clone(), used.run, used.roots.is_empty()))
            .collect();
        if known.is_empty() {
            say(&format!("warning: nothing is known of a branch {branch}"));
        }
        for (name, run, is_gone) in known {
            is_news |= !is_gone;
            // A run of the branch that is later than those that are known, and needs nothing.
            let used = Use { run: run.saturating_add(1), at: now, ..Use::default() };
            cache.catalog().note_use(&name, used);
        }
    }
    is_news
}

/// Prints a report, with what was done before if anything was.
fn print(mut report: Value, earlier: Vec<Value>) -> Result<(), CommandError> {
    if !earlier.is_empty() {
        report["earlier"] = Value::Array(earlier);
    }
    talk::stdout(&format!("{report}\n")).map(drop)
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
