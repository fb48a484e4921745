//! `phoenix cache gc`: folds packs, and lets go of what there is no room for.

use std::collections::BTreeSet;
use std::process::ExitCode;

use indicatif::HumanBytes;
use phoenix_cache::{Cache, CollectError, Collected, MakingRoom, Trouble};
use phoenix_pack::{Collection, Damaged, Goal, Use};
use serde_json::{Value, json};

use super::{losses, rewriting};

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
    let made = make_room(&mut cache, args, goal, say, &mut trouble)?;
    let damaged = made.as_ref().map(|made| made.damaged(args.dry_run)).unwrap_or_default();
    let goal = &Goal { damaged, ..goal.clone() };
    let room = made.as_ref().map(Made::json);
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
            talk::stdout(&format!("{}\n", with_room(report(&plan, None), room)))?;
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
        talk::stdout(&format!("{}\n", with_room(report(&plan, Some(&collected)), room)))?;
    }
    Ok(Ok(()))
}

/// How room was made, or would be.
struct Made {
    room: MakingRoom,
    /// What was rewritten for it, to be read by machines.
    rewritten: Vec<Value>,
}

impl Made {
    /// What is planned without from then on, and what is still to be rewritten.
    fn damaged(&self, is_planned: bool) -> Damaged {
        let all = self.room.damaged.clone();
        if is_planned { all } else { Damaged { packs: BTreeSet::new(), ..all } }
    }

    fn json(&self) -> Value {
        let packs: Vec<Value> =
            self.room.packs.iter().map(|(name, size)| json!({ "pack": name, "size": size })).collect();
        json!({
            "packs": packs, "paths": self.room.damaged.gone, "without": self.room.lost, "rewritten": self.rewritten,
        })
    }
}

/// A report with how room was made, if it was.
fn with_room(mut report: Value, room: Option<Value>) -> Value {
    if let (Some(report), Some(room)) = (report.as_object_mut(), room) {
        report.insert("room".to_owned(), room);
    }
    report
}

/// Makes room where packs are left out for want of it: these go, and what of the others cannot be restored without them.
fn make_room(
    cache: &mut Cache,
    args: &GcArgs,
    goal: &Goal,
    say: &(dyn Fn(&str) + Sync),
    trouble: &mut (dyn FnMut(Trouble) + Send),
) -> Result<Option<Made>, CommandError> {
    let room = cache.plan_room(trouble).map_err(|error| {
        CommandError::because("nothing is collected", &error).hint("run it again when the depot answers")
    })?;
    if cache.left_out() > 0 {
        return Err(CommandError::new(format!(
            "nothing is collected: {} of another branch are left out for want of room, which this job may not remove, and \
             what needs them would be let go",
            tidy::packs(cache.left_out())
        ))
        .hint("run it in a job of that branch"));
    }
    let Some(room) = room else { return Ok(None) };
    let verb = if args.dry_run { "remove" } else { "removed" };
    let stays = match args.dry_run {
        true => false,
        false => cache.make_room(&room).map_err(|error| {
            CommandError::because("there is no room for all that packs say, and none is made", &error)
                .hint("run it by who may remove packs from the depot")
        })?,
    };
    for (name, size) in room.packs.iter().take(tidy::FEW) {
        say(&format!(
            "{verb} {name} ({}): there is no room for what it says of its paths",
            HumanBytes(*size)
        ));
    }
    if let Some(more) = room.packs.len().checked_sub(tidy::FEW).filter(|&more| more > 0) {
        say(&format!("{verb} {more} more packs for the same reason{}", tidy::NAMED));
    }
    let lost: Vec<&str> = room.lost.iter().map(String::as_str).collect();
    say(&format!(
        "{} in no other pack, and {} in others cannot be restored without {}{}: who needs them saves them anew{}",
        talk::paths_are(room.damaged.gone.as_ref().map_or(0, BTreeSet::len)),
        talk::paths(lost.len()),
        if room.packs.len() == 1 { "it" } else { "them" },
        if lost.is_empty() { String::new() } else { format!(" ({})", losses::few(&lost)) },
        tidy::NAMED
    ));
    let mut made = Made { room, rewritten: Vec::new() };
    if args.dry_run {
        return Ok(Some(made));
    }
    if made.room.damaged.packs.is_empty() {
        if stays {
            let told = cache.tell(&depots::new_name());
            told.map_err(|error| CommandError::because("that packs are gone cannot be noted", &error))?;
        }
        return Ok(Some(made));
    }
    let mut tell = |plan: &Collection, collected: &Collected| {
        tidy::folded_line(plan, collected).iter().for_each(|line| say(line));
    };
    let goal = Goal { budget: u64::MAX, room: u64::MAX, ..goal.clone() };
    let (rewritten, ended) = rewriting::rewrite(cache, &made.room.damaged, &goal, &mut tell, trouble);
    ended.map_err(|error| {
        CommandError::because("there is room, but packs still name what cannot be restored any more", &error)
            .hint("`phoenix cache verify --repair` lets go of that")
    })?;
    if let Some(pack) = rewritten.left.first() {
        say(&format!(
            "warning: what cannot be restored is still named in {} ({pack}{}), of another branch or with too much in it to \
             be rewritten; whoever has it saves it anew",
            tidy::packs(rewritten.left.len()),
            if rewritten.left.len() == 1 { "" } else { ", …" },
        ));
    }
    made.rewritten = rewritten.done;
    // The rest is planned of what is there now, and in its memory.
    cache.look_again(trouble);
    Ok(Some(made))
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
pub(super) fn report(plan: &Collection, collected: Option<&Collected>) -> Value {
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
