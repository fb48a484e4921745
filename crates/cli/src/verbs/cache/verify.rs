//! `phoenix cache verify`: whether what a depot has comes back as it was.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use phoenix_cache::{Cache, MakeArchive, Trouble};
use phoenix_model::StorePath;
use phoenix_pack::nar::{Parser, Writer};
use phoenix_pack::{Damaged, Goal, PackError, PathInfo};
use sha2::{Digest, Sha256};

use super::{ended, say, threads, warn};
use crate::args::VerifyArgs;
use crate::error::CommandError;
use crate::{depots, talk, tidy};

/// Runs the verb.
pub(super) fn verify(args: &VerifyArgs) -> Result<ExitCode, CommandError> {
    let packs: Mutex<BTreeSet<String>> = Mutex::default();
    let troubled = AtomicBool::new(false);
    let trouble = |trouble: Trouble| {
        // What a later phoenix has written is no damage, and for that one to look at.
        if !matches!(trouble, Trouble::Pack { problem: PackError::Version(_), .. }) {
            troubled.store(true, Ordering::Relaxed);
        }
        if let Some(pack) = trouble.pack() {
            packs.lock().unwrap_or_else(PoisonError::into_inner).insert(pack.to_owned());
        }
        warn(&trouble);
    };
    let depot = depots::open(args.depot.depot.as_deref())?;
    let mut cache = Cache::open(depot, &mut |told| trouble(told))
        .map_err(|error| CommandError::because("cannot start", &error))?;
    cache.check_heads().into_iter().for_each(trouble);
    let names = cache.catalog().names();
    let all = names.len();
    let unread = unread_records(&mut cache);
    if unread > 0 {
        say(format!("bad: {unread} records cannot be read"));
    }
    let take = |info: &PathInfo, make: &mut MakeArchive<'_>| {
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
    };
    // Paths that only refer to what a substituter has are as good as any.
    let is_there = |name: &str| !names.contains(name);
    let restored = cache.restore(names.clone(), is_there, &take, threads(&args.depot), &trouble);
    let bad: Vec<_> = restored.failed.iter().filter(|(_, why)| !why.starts_with("it refers to ")).collect();
    for (name, why) in &bad {
        say(format!("bad: {name}: {why}"));
    }
    say(format!("{} of {} whole", all - bad.len(), talk::paths_are(all)));
    let paths: BTreeSet<String> = bad.iter().map(|(name, _)| name.clone()).collect();
    let packs = packs.into_inner().unwrap_or_else(PoisonError::into_inner);
    let is_bad = !paths.is_empty() || unread > 0 || troubled.into_inner();
    if args.repair && is_bad {
        return repair(&mut cache, paths, &packs);
    }
    if is_bad {
        say("hint: `phoenix cache verify --repair` lets go of what is damaged, so that it is saved anew");
    }
    Ok(ended(is_bad))
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

/// Rewrites the packs that hold what is damaged without it; those that cannot be read at all are removed.
fn repair(
    cache: &mut Cache,
    paths: BTreeSet<String>,
    packs: &BTreeSet<String>,
) -> Result<ExitCode, CommandError> {
    let not_repaired =
        |error: &dyn std::error::Error| CommandError::because("the depot is not repaired", error);
    let mut rewritten = cache.packs_with(&paths);
    let known: BTreeSet<String> = cache.catalog().packs().map(|(_, name, _)| name.to_owned()).collect();
    rewritten.extend(packs.intersection(&known).cloned());
    let to_rewrite = rewritten.clone();
    let damaged = Damaged { paths, packs: rewritten };
    // What was replaced stays for a while: somebody may be saving who relies on it.
    let goal = Goal { packs: usize::MAX, damaged, ..tidy::goal(u64::MAX) };
    let mut trouble = |trouble: Trouble| warn(&trouble);
    let plan = cache.plan_collection(&goal, &mut trouble).map_err(|error| not_repaired(&error))?;
    tidy::plan_lines(&plan).iter().for_each(say);
    let collected =
        cache.collect(&depots::new_name(), &plan, &mut trouble).map_err(|error| not_repaired(&error))?;
    for (name, removed) in cache.remove_unusable(depots::is_name) {
        match removed {
            Ok(()) => say(format!("removed {name}, of which nothing can be read")),
            Err(error) => say(format!(
                "warning: {name}, of which nothing can be read, stays ({error}); it is passed over"
            )),
        }
    }
    if collected.pack.is_none() && !to_rewrite.is_empty() {
        return Err(CommandError::new(format!(
            "the depot is not repaired: what is damaged is in {} of another branch, which this job may not rewrite",
            to_rewrite.into_iter().next().unwrap_or_default()
        ))
        .hint("repair it in a job of that branch"));
    }
    say(match &collected.pack {
        Some(pack) => {
            format!("what is whole is in {pack}; what was not will be saved anew by whoever has it")
        }
        None => "what is left is whole; what was not will be saved anew by whoever has it".to_owned(),
    });
    if let Some(left) = collected.left {
        say(format!("warning: packs that were replaced stay: {left}"));
    }
    Ok(ExitCode::SUCCESS)
}
