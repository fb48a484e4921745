//! `phoenix cache gc`: folds packs, and lets go of what there is no room for.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration};
use phoenix_cache::{Cache, CollectError, Collected, MakingRoom, Said, Trouble};
use phoenix_pack::{Collection, Damaged, Goal, Use};
use serde_json::{Value, json};

use super::{losses, rewriting};

use crate::args::GcArgs;
use crate::error::{CommandError, hint_for};
use crate::tidy::Claims;
use crate::{depots, talk, tidy};

/// How often the depot is looked at anew because another collector took what was to be folded.
const RACES: usize = 5;

/// Runs the verb.
pub(super) fn gc(args: &GcArgs) -> Result<ExitCode, CommandError> {
    let keep = args.keep.iter().map(|path| name(path)).collect::<Result<_, _>>()?;
    let grace = args.grace.saturating_mul(60);
    let goal = Goal { keep, grace, ..tidy::goal(args.budget) };
    let say = |text: &str| talk::stderr(&format!("{text}\n"));
    let mut claims = Claims::new(depots::open(args.depot.as_deref())?);
    for _ in 1..RACES {
        match once(args, &goal, &mut claims, &say)? {
            Err(error) if error.is_race() => {
                say(&format!("another collector was faster ({error}); looking again"));
            }
            ended => return done(ended),
        }
    }
    done(once(args, &goal, &mut claims, &say)?)
}

fn done(ended: Result<(), CollectError>) -> Result<ExitCode, CommandError> {
    if let Err(error @ CollectError::Claimed { .. }) = &ended {
        talk::stderr(&format!("nothing is collected: {error}; {LATER}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let cause = |error| CommandError::because("nothing is collected, and nothing is lost", &error);
    ended.map(|()| ExitCode::SUCCESS).map_err(cause)
}

/// Looks at the depot, and does what is to be done.
fn once(
    args: &GcArgs,
    goal: &Goal,
    claims: &mut Claims,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Result<(), CollectError>, CommandError> {
    let mut said = Said::default();
    // The depot is looked at several times.
    let mut trouble = |trouble: Trouble| {
        if said.is_news(&trouble) {
            say(&format!("warning: {trouble}"));
        }
    };
    let depot = depots::open(args.depot.as_deref())?;
    let mut cache =
        Cache::open(depot, &mut trouble).map_err(|error| CommandError::because("cannot start", &error))?;
    let mut is_news = false;
    let made = match make_room(&mut cache, args, goal, claims, say, &mut trouble)? {
        Ok(made) => made,
        Err(error) => return Ok(Err(error)),
    };
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
    let plan = cache.plan_collection(goal, &mut trouble).map_err(|error| not_collected(&error))?;
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
    if let Err(error) = claims.take(&plan) {
        return Ok(Err(error));
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
    if cache.is_nearly_full() {
        // The packs that went may have brought the room that others have.
        cache.look_again(&mut trouble);
        if cache.left_out() > 0 {
            let packs = tidy::packs(cache.left_out());
            return Err(CommandError::new(format!("without what was removed there is no room for {packs}"))
                .hint("run it again: it makes room"));
        }
    }
    Ok(Ok(()))
}

/// When another job folds.
const LATER: &str = "if it does not come to that, run it again in half an hour";

fn not_collected(error: &CollectError) -> CommandError {
    let failed = CommandError::because("nothing is collected", error);
    match error {
        CollectError::Unsure { .. } => failed.hint("run it again when the depot answers"),
        CollectError::LeftOut { .. } => failed.hint("run it again: it makes room"),
        CollectError::Claimed { .. } | CollectError::Closed { .. } | CollectError::Trouble(_) => failed,
    }
}

/// How room was made, or would be.
struct Made {
    room: MakingRoom,
    /// What was folded and rewritten for it, to be read by machines.
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

/// Makes room where packs are left out for want of it. First all is folded that can be, for there may be room then. What is
/// left out still goes, but not while a save may rely on it; and before that, what cannot be restored without it, so that
/// whatever ends this in between, the next one does the rest.
fn make_room(
    cache: &mut Cache,
    args: &GcArgs,
    goal: &Goal,
    claims: &mut Claims,
    say: &(dyn Fn(&str) + Sync),
    trouble: &mut (dyn FnMut(Trouble) + Send),
) -> Result<Result<Option<Made>, CollectError>, CommandError> {
    let Some(plan) = cache.plan_beside_left_out(goal, trouble).map_err(|error| not_collected(&error))? else {
        return Ok(Ok(None));
    };
    // What is made here is newer than what took the room.
    let since = cache.left_out_since();
    let mut rewritten = Vec::new();
    if args.dry_run && !plan.is_nothing() {
        tidy::plan_lines(&plan).iter().for_each(|line| say(line));
        say("after that it is seen whether there is room");
    } else if !plan.is_nothing() {
        if let Err(error) = claims.take(&plan) {
            return Err(
                CommandError::because("nothing is collected, and there is no room", &error).hint(LATER)
            );
        }
        let collected = match cache.collect(&depots::new_name(), &plan, trouble) {
            Ok(collected) => collected,
            Err(error) => return Ok(Err(error)),
        };
        tidy::done_lines(&plan, &collected, tidy::NAMED).iter().for_each(|line| say(line));
        rewritten.push(report(&plan, Some(&collected)));
        cache.look_again(trouble);
    }
    let room = cache.plan_room(trouble).map_err(|error| not_collected(&error))?;
    if cache.left_out_of_others() > 0 {
        return Err(CommandError::new(format!(
            "nothing is collected: {} of another branch are left out for want of room, which this job may not remove, and \
             what needs them would be let go",
            tidy::packs(cache.left_out_of_others())
        ))
        .hint("run it in a job of that branch"));
    }
    let Some(room) = room else { return Ok(Ok(None)) };
    may_go(&room, &since, &cache.left_out_since(), goal)?;
    let lost: Vec<&str> = room.lost.iter().map(String::as_str).collect();
    let without = || {
        format!(
            "{} in other packs cannot be restored without {}{}: who needs them saves them anew{}",
            talk::paths(lost.len()),
            if room.packs.len() == 1 { "it" } else { "them" },
            if lost.is_empty() { String::new() } else { format!(" ({})", losses::few(&lost)) },
            tidy::NAMED
        )
    };
    if args.dry_run {
        let packs: Vec<&str> = room.packs.iter().map(|(name, _)| name.as_str()).collect();
        removed_lines("remove", &room, &packs, say);
        let gone = room.damaged.gone.as_ref().map_or(0, BTreeSet::len);
        say(&format!("{} in no other pack, and {}", talk::paths_are(gone), without()));
        return Ok(Ok(Some(Made { room, rewritten })));
    }
    if !room.damaged.packs.is_empty() {
        say(&without());
        let mut tell = |plan: &Collection, collected: &Collected| {
            tidy::folded_line(plan, collected).iter().for_each(|line| say(line));
        };
        let goal = Goal { budget: u64::MAX, room: u64::MAX, ..goal.clone() };
        let mut may = |plan: &Collection| claims.take(plan);
        let (done, ended) = rewriting::rewrite(cache, &room.damaged, &goal, &mut may, &mut tell, trouble);
        ended.map_err(|error| {
            let failed = CommandError::because(
                "the packs that there is no room for stay, for what cannot be restored without them is still named in others",
                &error,
            );
            let hint = match error {
                CollectError::Claimed { .. } => LATER,
                _ => hint_for(&failed.in_one_line()).unwrap_or("run it again when the depot takes packs: it goes on"),
            };
            failed.hint(hint)
        })?;
        if let Some(pack) = done.left.first() {
            say(&format!(
                "warning: what cannot be restored is still named in {} ({pack}{}), of another branch or with too much in it \
                 to be rewritten; whoever has it saves it anew",
                tidy::packs(done.left.len()),
                if done.left.len() == 1 { "" } else { ", …" },
            ));
        }
        rewritten.extend(done.done);
        // There may be room now.
        cache.look_again(trouble);
    }
    remove(cache, room, rewritten, say, trouble).map(Some).map(Ok)
}

/// Removes the packs that there is still no room for.
fn remove(
    cache: &mut Cache,
    mut room: MakingRoom,
    rewritten: Vec<Value>,
    say: &(dyn Fn(&str) + Sync),
    trouble: &mut (dyn FnMut(Trouble) + Send),
) -> Result<Made, CommandError> {
    let (went, stays) = cache.make_room(&room).map_err(|error| {
        CommandError::because("there is no room for all that packs say, and none is made", &error)
            .hint("run it by who may remove packs from the depot")
    })?;
    if stays {
        let told = cache.tell(&depots::new_name());
        told.map_err(|error| CommandError::because("that packs are gone cannot be noted", &error))?;
    }
    let gone: Vec<&str> = went.iter().map(String::as_str).collect();
    removed_lines("removed", &room, &gone, say);
    if went.len() < room.packs.len() {
        let packs = tidy::packs(room.packs.len() - went.len());
        say(&format!("there is room now for {packs} that had none"));
    }
    // The rest is planned of what is there now, and in its memory.
    cache.look_again(trouble);
    if let Some(gone) = &mut room.damaged.gone {
        let mut has = |name: &String| {
            name.as_bytes().first_chunk().is_some_and(|hash_part| cache.catalog().has(hash_part))
        };
        gone.retain(|name| !has(name));
        if !gone.is_empty() {
            let paths = talk::paths_are(gone.len());
            say(&format!("{paths} in no other pack: who needs them saves them anew{}", tidy::NAMED));
        }
    }
    room.packs.retain(|(name, _)| went.contains(name));
    Ok(Made { room, rewritten })
}

/// Says which packs go for want of room.
fn removed_lines(verb: &str, room: &MakingRoom, went: &[&str], say: &(dyn Fn(&str) + Sync)) {
    let went: Vec<&(String, u64)> =
        room.packs.iter().filter(|(name, _)| went.contains(&name.as_str())).collect();
    for (name, size) in went.iter().take(tidy::FEW) {
        say(&format!(
            "{verb} {name} ({}): there is no room for what it says of its paths",
            HumanBytes(*size)
        ));
    }
    if let Some(more) = went.len().checked_sub(tidy::FEW).filter(|&more| more > 0) {
        say(&format!("{verb} {more} more packs for the same reason{}", tidy::NAMED));
    }
}

/// Sees to it that nobody may rely on what goes, and that nothing goes that is to be kept.
fn may_go(
    room: &MakingRoom,
    before: &BTreeMap<String, u64>,
    now: &BTreeMap<String, u64>,
    goal: &Goal,
) -> Result<(), CommandError> {
    let all = room.lost.iter().chain(room.damaged.gone.iter().flatten());
    let kept: Vec<&str> = all.filter(|name| goal.keep.contains(*name)).map(String::as_str).collect();
    if let Some(first) = kept.first() {
        return Err(CommandError::new(format!(
            "nothing is let go of: {first}, which is to be kept, is in {} that there is no room for, or needs what is there",
            if room.packs.len() == 1 { "a pack" } else { "packs" }
        ))
        .hint("who has it can save it to a depot of its own; without --keep it is let go"));
    }
    let since = room.packs.iter().filter_map(|(name, _)| before.get(name).or(now.get(name))).max();
    let wait = since.map_or(0, |since| since.saturating_add(goal.grace).saturating_sub(goal.now));
    if wait > 0 {
        return Err(CommandError::new(format!(
            "there is no room for {} yet: whoever began to save before there was none may rely on {}, so nothing is let go of",
            tidy::packs(room.packs.len()),
            if room.packs.len() == 1 { "it" } else { "them" },
        ))
        .hint(format!(
            "run it again in {}; or with `--grace 0`, when nothing is being saved",
            HumanDuration(Duration::from_secs(wait))
        )));
    }
    Ok(())
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
