//! Making room in a depot whose packs say more of their paths than readers have memory for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration};
use phoenix_cache::{Cache, CollectError, Collected, MakingRoom};
use phoenix_pack::{Collection, Damaged, Goal};
use serde_json::{Value, json};

use super::collector::{Collector, LATER, Troubled, not_collected, report, say};
use super::{losses, rewriting};
use crate::error::{CommandError, hint_for};
use crate::{depots, talk, tidy};

/// How room was made, or would be.
pub(super) struct Made {
    room: MakingRoom,
    /// What was rewritten without what cannot be restored, to be read by machines.
    rewritten: Vec<Value>,
}

impl Made {
    /// What is planned without from then on, and what is still to be rewritten.
    pub(super) fn damaged(&self, is_planned: bool, before: Damaged) -> Damaged {
        let all = Damaged { later: before.later, ..self.room.damaged.clone() };
        if is_planned { all } else { Damaged { packs: BTreeSet::new(), ..all } }
    }

    pub(super) fn json(&self) -> Value {
        let packs: Vec<Value> =
            self.room.packs.iter().map(|(name, size)| json!({ "pack": name, "size": size })).collect();
        json!({
            "packs": packs, "paths": self.room.damaged.gone, "without": self.room.lost, "rewritten": self.rewritten,
        })
    }
}

/// Makes room where packs are left out for want of it. First all is folded that can be, for there may be room then. What is
/// left out still goes, but not while a save may rely on it; and before that, what cannot be restored without it, so that
/// whatever ends this in between, the next one does the rest.
pub(super) fn make_room(
    collector: &mut Collector<'_>,
    cache: &mut Cache,
    trouble: &mut Troubled<'_>,
) -> Result<Result<Option<Made>, CollectError>, CommandError> {
    let args = collector.args;
    // What is made here is newer than what took the room.
    let since = cache.left_out_since();
    loop {
        let plan = cache.plan_beside_left_out(&collector.goal, trouble);
        let Some(plan) = plan.map_err(|error| not_collected(&error))? else { return Ok(Ok(None)) };
        if plan.is_nothing() || collector.has_folded(&plan) {
            break;
        }
        if args.dry_run {
            tidy::plan_lines(&plan).iter().for_each(|line| say(line));
            say("after that it is seen whether there is room");
            break;
        }
        match collector.fold(cache, &plan, trouble) {
            Ok(collected) => collector.was_done(report(&plan, Some(&collected))),
            Err(error @ CollectError::Claimed { .. }) => {
                return Err(
                    CommandError::because("nothing is collected, and there is no room", &error).hint(LATER)
                );
            }
            Err(error) => return Ok(Err(error)),
        }
        cache.look_again(trouble);
        if plan.next.is_none() {
            break;
        }
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
    may_go(&room, &since, &cache.left_out_since(), &collector.goal)?;
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
        removed_lines("remove", &room, &packs);
        let gone = room.damaged.gone.as_ref().map_or(0, BTreeSet::len);
        say(&format!("{} in no other pack, and {}", talk::paths_are(gone), without()));
        return Ok(Ok(Some(Made { room, rewritten: Vec::new() })));
    }
    let mut rewritten = Vec::new();
    if !room.damaged.packs.is_empty() {
        say(&without());
        let mut tell = |plan: &Collection, collected: &Collected| {
            tidy::folded_line(plan, collected).iter().for_each(|line| say(line));
        };
        let goal = Goal { budget: u64::MAX, room: u64::MAX, ..collector.goal.clone() };
        let claims = &mut collector.claims;
        let mut collect = |cache: &mut Cache, plan: &Collection, trouble: &mut Troubled<'_>| {
            claims.collect(cache, plan, trouble)
        };
        let (done, ended) = rewriting::rewrite(cache, &room.damaged, &goal, &mut collect, &mut tell, trouble);
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
        rewritten = done.done;
        // There may be room now.
        cache.look_again(trouble);
    }
    remove(cache, room, rewritten, trouble).map(Some).map(Ok)
}

/// Removes the packs that there is still no room for.
fn remove(
    cache: &mut Cache,
    mut room: MakingRoom,
    rewritten: Vec<Value>,
    trouble: &mut Troubled<'_>,
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
    removed_lines("removed", &room, &gone);
    if went.len() < room.packs.len() {
        let packs = tidy::packs(room.packs.len() - went.len());
        say(&format!("there is room now for {packs} that had none"));
    }
    // The rest is planned of what is there now, and in its memory.
    cache.look_again(trouble);
    if let Some(gone) = &mut room.damaged.gone {
        gone.retain(|name| !cache.catalog().has_name(name));
        if !gone.is_empty() {
            let paths = talk::paths_are(gone.len());
            say(&format!("{paths} in no other pack: who needs them saves them anew{}", tidy::NAMED));
        }
    }
    room.packs.retain(|(name, _)| went.contains(name));
    Ok(Made { room, rewritten })
}

/// Says which packs go for want of room.
fn removed_lines(verb: &str, room: &MakingRoom, went: &[&str]) {
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
