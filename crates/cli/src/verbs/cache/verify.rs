//! `phoenix cache verify`: whether what a depot has comes back as it was.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use phoenix_cache::{Cache, CollectError, Collected, MakeArchive, Said, Trouble, is_consequence};
use phoenix_depot::{Depot, Problem};
use phoenix_model::StorePath;
use phoenix_pack::nar::{Parser, Writer};
use phoenix_pack::{Collection, Damaged, PackError, PathInfo};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::collector::{AGAIN, Troubled};
use super::rewriting::{self, Rewritten};
use super::{ended, losses, say, threads, warn};
use crate::args::VerifyArgs;
use crate::error::{CommandError, hint_for};
use crate::{depots, talk, tidy};

/// What was heard of the depot and its packs.
#[derive(Debug, Default)]
struct Heard {
    said: Said,
    /// The packs that are damaged.
    damaged: BTreeSet<String>,
    /// Something was not given, or there is no room for it.
    is_unread: bool,
    /// The depot did not give something.
    is_refused: bool,
}

impl Heard {
    fn hear(&mut self, trouble: &Trouble) {
        match trouble {
            // What was not read may be whole; what a later phoenix has written is for that one to look at.
            Trouble::LeftOut { .. }
            | Trouble::Pack { problem: PackError::NoRoom | PackError::Version(_), .. } => {
                self.is_unread = true;
            }
            Trouble::Depot(_) => (self.is_unread, self.is_refused) = (true, true),
            trouble => self.damaged.extend(trouble.pack().map(str::to_owned)),
        }
        if self.said.is_news(trouble) {
            warn(trouble);
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// How many paths there are.
    all: usize,
    /// How many records cannot be read.
    records: usize,
    /// Paths that were read and are not what they should be, and those a part of which is nowhere; with why.
    bad: Vec<(String, String)>,
    /// Paths of which nothing is known, for they were not read to their end; with why.
    unread: Vec<(String, String)>,
    /// The packs that are damaged.
    packs: BTreeSet<String>,
    /// What lies among the packs, has no name that a pack gets, and cannot be read as one: it is not ours.
    strange: BTreeSet<String>,
    /// Something was not given, whether a path needs it or not, or there is no room for it.
    is_unread: bool,
    /// The depot did not give something, or what it gave was not read to its end.
    is_refused: bool,
    /// How many packs are left out because there is no room for what they say.
    left_out: usize,
    /// What was told.
    said: Said,
}

impl Found {
    fn whole(&self) -> usize {
        self.all.saturating_sub(self.bad.len() + self.unread.len())
    }

    /// Whether something is known to be damaged.
    fn is_damaged(&self) -> bool {
        !self.bad.is_empty() || self.records > 0 || !self.packs.is_empty()
    }

    fn say(&self) {
        if self.records > 0 {
            say(format!("bad: {} records cannot be read", self.records));
        }
        losses::by_cause(&self.bad).into_iter().for_each(|line| say(format!("bad: {line}")));
        losses::by_cause(&self.unread).into_iter().for_each(|line| say(format!("not read: {line}")));
        for name in &self.strange {
            say(format!("{name} is nothing that phoenix made, and passed over"));
        }
        let known = if self.is_unread { " known to be" } else { "" };
        say(format!("{} of {}{known} whole", self.whole(), talk::paths_are(self.all)));
        if !self.unread.is_empty() {
            say(format!("{} could not be read, which is no damage", talk::paths(self.unread.len())));
        } else if self.is_unread {
            say("something of the depot could not be read, which is no damage");
        }
    }

    fn json(&self, repaired: Option<&Value>) -> Value {
        let named = |paths: &[(String, String)]| -> Vec<Value> {
            paths.iter().map(|(path, why)| json!({ "path": path, "why": why })).collect()
        };
        json!({
            "paths": self.all, "whole": self.whole(), "bad": named(&self.bad), "notRead": named(&self.unread),
            "badRecords": self.records, "badPacks": self.packs, "strange": self.strange, "notAllRead": self.is_unread, "repair": repaired,
        })
    }
}

/// Runs the verb.
pub(super) fn verify(args: &VerifyArgs) -> Result<ExitCode, CommandError> {
    let depot = depots::open(args.depot.depot.as_deref())?;
    Ok(ended(!is_well(depot, threads(&args.depot), args)?))
}

/// Looks at a depot, and repairs it if that is asked for; whether all is well then.
fn is_well(depot: Arc<dyn Depot>, threads: usize, args: &VerifyArgs) -> Result<bool, CommandError> {
    let (mut cache, mut found) = look(depot, threads)?;
    found.say();
    // What is missed may be in what is left out, and what that needs is not known.
    let has_room = found.left_out == 0;
    let repaired = (args.repair && found.is_damaged() && has_room).then(|| repair(&mut cache, &mut found));
    if args.json {
        let repaired = repaired.as_ref().and_then(|repaired| repaired.as_ref().ok());
        talk::stdout(&format!("{}\n", found.json(repaired)))?;
    }
    let is_repaired = repaired.transpose()?.is_some();
    if found.is_damaged() && !is_repaired && has_room {
        say("hint: `phoenix cache verify --repair` lets go of what is damaged, so that it is saved anew");
    }
    if args.repair && !has_room {
        let packs = found.left_out;
        return Err(CommandError::new(format!(
            "nothing is repaired: {packs} {} left out, for there is no room for all that packs say, and what is missed may \
             be there",
            if packs == 1 { "pack is" } else { "packs are" }
        ))
        .hint(NO_ROOM));
    }
    if found.is_unread && args.repair {
        return Err(CommandError::new(if is_repaired {
            "what could not be read is left as it is"
        } else {
            "nothing is repaired: what could not be read is not known to be damaged, and nothing is lost"
        })
        .hint(AGAIN));
    }
    if !has_room {
        say(format!("hint: {NO_ROOM}"));
    }
    if found.is_refused {
        say(format!("hint: {AGAIN}"));
    }
    Ok(!found.is_unread && (is_repaired || !found.is_damaged()))
}

/// What to do where there is no room for all that packs say.
const NO_ROOM: &str = "`phoenix cache gc` makes room: it folds what is in others twice, and lets go of what there is no room \
                       for even then; who needs that saves it anew";

/// What to do where what is whole of a pack is too much for one with what is to be said of others.
const TOO_MUCH: &str =
    "`phoenix cache restore` notes what is damaged, and a save by whoever has it brings it back";

/// Reads all of a depot.
fn look(depot: Arc<dyn Depot>, threads: usize) -> Result<(Cache, Found), CommandError> {
    let heard: Mutex<Heard> = Mutex::default();
    let trouble = |trouble: Trouble| heard.lock().unwrap_or_else(PoisonError::into_inner).hear(&trouble);
    let mut cache = Cache::open(depot, &mut |told| trouble(told))
        .map_err(|error| CommandError::because("cannot start", &error))?;
    cache.check_heads().into_iter().for_each(trouble);
    let names = cache.catalog().names();
    let mut found = Found { all: names.len(), records: unread_records(&mut cache), ..Found::default() };
    let left = Mutex::new(names);
    let take = |info: &PathInfo, make: &mut MakeArchive<'_>| {
        left.lock().unwrap_or_else(PoisonError::into_inner).remove(&info.name);
        check(info, make)
    };
    loop {
        // Only what refers to something that was lost is not read at once, and what there was no room for in the plan.
        let wanted = left.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let before = wanted.len();
        // Paths that only refer to what a substituter has are as good as any.
        let is_there = |name: &str| !wanted.contains(name);
        let mut restored = cache.restore(wanted.iter().cloned(), is_there, &take, threads, &trouble);
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, why) in restored.failed.drain(..).filter(|(_, why)| !is_consequence(why)) {
            left.remove(&name);
            let is_unread = restored.unread.contains(&name);
            if is_unread { &mut found.unread } else { &mut found.bad }.push((name, why));
        }
        if left.is_empty() || left.len() == before {
            break;
        }
    }
    for name in left.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let known = name.as_bytes().first_chunk().and_then(|hash_part| cache.catalog().locate(hash_part));
        if !is_name(&name) {
            let why = format!("{name:?} is not the name of a store path");
            found.bad.push((name, why));
        } else if known.is_some_and(|known| known.info.name != name) {
            found.bad.push((name, "another path has its hash".to_owned()));
        } else {
            found.unread.push((name, "there was no look at it".to_owned()));
        }
    }
    let heard = heard.into_inner().unwrap_or_else(PoisonError::into_inner);
    let known: BTreeSet<String> = cache.catalog().packs().map(|(_, name, _)| name.to_owned()).collect();
    let is_ours = |name: &String| known.contains(name) || depots::is_name(name);
    (found.packs, found.strange) = heard.damaged.into_iter().partition(is_ours);
    found.left_out = cache.left_out();
    found.is_unread = heard.is_unread || !found.unread.is_empty() || found.left_out > 0;
    found.is_refused = heard.is_refused || (!found.unread.is_empty() && found.left_out == 0);
    found.said = heard.said;
    Ok((cache, found))
}

/// Whether an archive is what it should be, and one that a store would take.
fn check(info: &PathInfo, make: &mut MakeArchive<'_>) -> io::Result<()> {
    let mut hash = Sha256::new();
    let (mut parser, mut written) = (Parser::default(), Writer::default());
    let mut is_archive = true;
    make(&mut |piece| {
        hash.update(piece);
        is_archive = is_archive && parser.feed(piece, &mut written).is_ok();
        written.bytes.clear();
        Ok(())
    })?;
    if !is_archive || parser.finish::<Infallible>().is_err() {
        return Err(io::Error::other("it is no archive that a store would take"));
    }
    let names = std::iter::once(&info.name).chain(&info.references).chain(&info.deriver);
    if let Some(name) = names.into_iter().find(|name| !is_name(name)) {
        return Err(io::Error::other(format!("{name:?} is not the name of a store path")));
    }
    let hash: [u8; 32] = hash.finalize().into();
    if hash == info.nar_hash {
        Ok(())
    } else {
        Err(io::Error::other("it has another hash than it should have"))
    }
}

/// Whether a store path may have this base name.
fn is_name(name: &str) -> bool {
    StorePath::parse(&format!("/nix/store/{name}")).is_ok()
}

/// How many records of live packs cannot be read, which nobody misses otherwise.
fn unread_records(cache: &mut Cache) -> usize {
    let packs = cache.catalog().packs();
    packs
        .map(|(_, _, directory)| (0..directory.paths()).filter(|&at| directory.record(at).is_err()).count())
        .sum()
}

/// Rewrites the packs that hold what is damaged without it; those that cannot be read at all are removed. What could not
/// be read stays. Returns what was done, to be read by machines.
fn repair(cache: &mut Cache, found: &mut Found) -> Result<Value, CommandError> {
    let paths: BTreeSet<String> = found.bad.iter().map(|(name, _)| name.clone()).collect();
    let mut packs = cache.packs_with(&paths);
    let known: BTreeSet<String> = cache.catalog().packs().map(|(_, name, _)| name.to_owned()).collect();
    packs.extend(found.packs.intersection(&known).cloned());
    let damaged = Damaged { paths, packs, ..Damaged::default() };
    let said = &mut found.said;
    let mut trouble = |trouble: Trouble| {
        if said.is_news(&trouble) {
            warn(&trouble);
        }
    };
    let mut tell = |plan: &Collection, collected: &Collected| {
        tidy::plan_lines(plan).iter().for_each(say);
        if let Some(pack) = &collected.pack {
            say(format!("what is whole is in {pack}; what was not will be saved anew by whoever has it"));
        }
    };
    // What was replaced stays for a while: somebody may be saving who relies on it.
    let goal = tidy::goal(u64::MAX);
    // A fold too many loses nothing.
    let mut collect = |cache: &mut Cache, plan: &Collection, trouble: &mut Troubled<'_>| {
        cache.collect(&depots::new_name(), plan, trouble)
    };
    let (mut rewritten, ended) =
        rewriting::rewrite(cache, &damaged, &goal, &mut collect, &mut tell, &mut trouble);
    ended.map_err(|error| not_all(&rewritten, &error))?;
    let mut stays = None;
    for (name, removed) in cache.remove_unusable(depots::is_name) {
        match removed {
            Ok(()) => {
                say(format!("removed {name}, of which nothing can be read"));
                rewritten.done.push(json!({ "removed": name }));
            }
            Err(error) => stays = stays.or(Some((name, error))),
        }
    }
    match stays {
        Some((name, error)) => Err(CommandError::because(
            format!(
                "{}: {name}, of which nothing can be read, stays, and is passed over",
                subject(&rewritten)
            ),
            &error,
        )
        .hint("run it by who may remove packs from the depot")),
        None => repaired(rewritten),
    }
}

/// That the rest cannot be repaired now.
fn not_all(rewritten: &Rewritten, error: &CollectError) -> CommandError {
    let failed = CommandError::because(format!("{}, and nothing is lost", subject(rewritten)), error);
    let hint = match error {
        CollectError::LeftOut { .. } => Some(NO_ROOM),
        // What is wrong here is wrong the next time.
        error => hint_for(&failed.in_one_line()).or(is_of_the_moment(error).then_some(AGAIN)),
    };
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

/// Whether a depot may do another time what it did not.
fn is_of_the_moment(error: &CollectError) -> bool {
    match error {
        CollectError::Unsure { .. } => true,
        CollectError::Trouble(Trouble::Depot(error)) => {
            match &error.problem {
                Problem::Full(_) | Problem::Denied(_) | Problem::Unsupported(_) => false,
                // It says itself what is in the way.
                Problem::Unreachable(said) => !said.contains("move it away"),
                _ => true,
            }
        }
        CollectError::LeftOut { .. }
        | CollectError::Closed { .. }
        | CollectError::Claimed { .. }
        | CollectError::Trouble(_) => false,
    }
}

fn subject(rewritten: &Rewritten) -> &'static str {
    if rewritten.done.is_empty() { "the depot is not repaired" } else { "not all of the depot is repaired" }
}

/// What was done, if that is all there was to do.
fn repaired(rewritten: Rewritten) -> Result<Value, CommandError> {
    if let Some(stay) = &rewritten.stay {
        say(format!("warning: packs that were replaced stay: {stay}"));
    }
    let subject = subject(&rewritten);
    if let Some(pack) = rewritten.too_large.first() {
        return Err(CommandError::new(format!(
            "{subject}, and nothing is lost: what is whole of {pack} would say more than a pack may"
        ))
        .hint(TOO_MUCH));
    }
    if let Some(pack) = rewritten.left.first() {
        return Err(CommandError::new(format!(
            "{subject}: what is damaged is in {pack} of another branch, which this job may not rewrite"
        ))
        .hint("repair it in a job of that branch"));
    }
    if rewritten.done.is_empty() {
        say("what is damaged is in no pack that could be rewritten or removed");
    }
    Ok(Value::Array(rewritten.done))
}

#[cfg(test)]
mod tests;
