//! `phoenix cache`: store paths to a depot and back.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::HumanBytes;
use phoenix_cache::{ALIVE, Cache, Trouble};
use phoenix_depot::{DepotError, Problem};
use phoenix_model::StorePath;
use phoenix_store::{Layout, Nix, PathInfos, Settings, StoreEnv, initialise};
use phoenix_substituter::redacted;
use serde_json::json;

use crate::args::{CacheVerb, DepotArgs, SaveArgs, StoreArgs};
use crate::depots::{self, no_look};
use crate::error::{CommandError, hint_for};
use crate::setup::{self, pairs, store_env};
use crate::talk;
use crate::tidy;
use snapshot::Snapshot;

mod collector;
mod gc;
mod keys;
mod losses;
mod making_room;
mod push;
mod restore;
mod rewriting;
mod serve;
mod snapshot;
mod verify;

/// Runs the verb.
pub(crate) fn cache(verb: &CacheVerb) -> Result<ExitCode, CommandError> {
    match verb {
        CacheVerb::Save(args) => save(args),
        CacheVerb::Restore(args) => restore::restore(args),
        CacheVerb::Serve(args) => serve::serve(args),
        CacheVerb::Push(args) => push::push(args),
        CacheVerb::Ls(args) => ls(args),
        CacheVerb::Stat(args) => stat(args),
        CacheVerb::Verify(args) => verify::verify(args),
        CacheVerb::Gc(args) => gc::gc(args),
    }
}

fn say(text: impl AsRef<str>) {
    talk::stderr(&format!("{}\n", text.as_ref()));
}

fn warn(trouble: &Trouble) {
    say(format!("warning: {trouble}"));
}

fn threads(args: &DepotArgs) -> usize {
    args.threads.unwrap_or_else(depots::threads).max(1)
}

/// Reads a depot; and whether something was wrong with it, which is told.
fn open(args: &DepotArgs) -> Result<(Cache, bool), CommandError> {
    let depot = depots::open(args.depot.as_deref())?;
    let mut troubled = false;
    let cache = Cache::open(depot, &mut |trouble| {
        troubled = true;
        warn(&trouble);
    });
    Ok((cache.map_err(|error| CommandError::because("cannot start", &error))?, troubled))
}

/// What ends well only when nothing was wrong with the depot.
fn ended(troubled: bool) -> ExitCode {
    if troubled { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The store of the arguments: Nix set to it, and where it lies.
fn store(args: &StoreArgs) -> Result<(Nix, Layout), CommandError> {
    let mut nix = setup::nix()?;
    for (name, value) in pairs(&args.options) {
        nix.set_option(name, value);
    }
    let layout = layout(args.store.as_deref())?;
    if let Some(url) = &args.store {
        nix.set_env("NIX_REMOTE", url);
    }
    initialise(&nix, &layout).map_err(|error| CommandError::because("cannot make the store", &error))?;
    Ok((nix, layout))
}

/// Where the store of a URL lies, or the usual one.
fn layout(url: Option<&str>) -> Result<Layout, CommandError> {
    let env = StoreEnv { remote: None, ..store_env() };
    let url = url.unwrap_or("auto");
    Layout::of(url, &env).ok_or_else(|| {
        CommandError::new(format!("the store {} is not on this machine", redacted(url)))
            .hint("packs are made of files, and made into files again; name a local store")
    })
}

/// What is valid and was not when a snapshot was taken, or all; and what was restored then and still is valid.
fn valid_since(
    infos: &PathInfos,
    since: Option<&Path>,
) -> Result<(Vec<StorePath>, HashSet<String>), CommandError> {
    let since = since.map(Snapshot::read).transpose()?.unwrap_or_default();
    let mut all = infos.all_paths().map_err(|error| no_look(&error))?;
    let names = all.iter().map(StorePath::base_name).filter(|name| since.restored.contains(*name));
    let restored = names.map(str::to_owned).collect();
    all.retain(|path| !since.has(path.base_name()));
    Ok((all, restored))
}

fn save(args: &SaveArgs) -> Result<ExitCode, CommandError> {
    if args.check {
        return args.sign_key.as_deref().map(keys::secret).transpose().map(|_| ExitCode::SUCCESS);
    }
    if let Some(why) = depots::for_a_fork().filter(|_| args.unless_fork) {
        say(format!("nothing is saved: {why}"));
        return Ok(ExitCode::SUCCESS);
    }
    let (nix, layout) = store(&args.store)?;
    let infos = depots::infos(&layout, args.store.store.as_deref())?;
    let sign = args.sign_key.as_deref().map(keys::secret).transpose()?;
    let mut restored = HashSet::new();
    let mut paths = if args.all || args.since.is_some() {
        let (new, still) = valid_since(&infos, args.since.as_deref())?;
        restored = still;
        infos.of(&new).map_err(|error| no_look(&error))?
    } else {
        let roots = args.paths.iter().map(|path| store_path(path, &layout)).collect::<Result<Vec<_>, _>>()?;
        depots::closure(&infos, roots)?
    };
    let all = paths.len();
    if !args.include_upstream {
        let mut upstream = Settings::read(&nix)?.trusted_public_keys;
        // What we signed is nobody else's.
        upstream.retain(|key| sign.as_ref().is_none_or(|sign| *key != sign.public()));
        depots::leave_to_upstream(&mut paths, &upstream);
    }
    let upstream = all - paths.len();
    if let Some(key) = &sign {
        paths.iter_mut().for_each(|info| keys::sign(key, info));
    }
    let depot = depots::open(args.depot.depot.as_deref())?;
    let mut cache = Cache::open(depot.clone(), &mut |trouble| warn(&trouble))
        .map_err(|error| CommandError::because("cannot start", &error))?;
    tidy::set_branch(&mut cache, args.branch.as_deref());
    set_needs(&mut cache, restored);
    let saved = match cache.save_from_store(&depots::new_name(), &layout, &paths, threads(&args.depot)) {
        Ok(saved) => saved,
        Err(Trouble::Depot(error @ DepotError { problem: Problem::Denied(_), .. })) if args.unless_denied => {
            talk::stdout(&format!("nothing is saved: {error}\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            let failed = CommandError::because("nothing was saved", &error);
            return Err(match hint_for(&failed.in_one_line()) {
                Some(hint) => failed.hint(hint),
                None => failed,
            });
        }
    };
    for (name, why) in &saved.unreadable {
        say(format!("warning: {name} is not saved: {why}"));
    }
    let not_saved = tidy::not_saved(&saved);
    not_saved.iter().for_each(|line| say(format!("warning: {line}")));
    let left_to =
        if upstream == 0 { String::new() } else { format!(", {upstream} left to their substituters") };
    match &saved.pack {
        None if not_saved.is_empty() => {
            say(format!("nothing to save: {} in the depot{left_to}", talk::paths_are(saved.known)));
        }
        None => say(format!("nothing was saved; {} there{left_to}", talk::paths_are(saved.known))),
        Some(pack) => say(format!(
            "saved {} of {}, {} of that new, in {pack} ({}); {} were there{left_to}",
            talk::paths(saved.paths),
            HumanBytes(saved.archives),
            HumanBytes(saved.new),
            HumanBytes(saved.size),
            saved.known,
        )),
    }
    let tidied = tidy::after_save(&mut cache, &depot, saved.size, args.budget);
    for (warning, text) in &tidied.said {
        say(if *warning { format!("warning: {text}") } else { text.clone() });
    }
    let let_go = tidied.let_go(paths.iter().map(|info| info.path.base_name()), args.budget);
    let_go.iter().for_each(|line| say(format!("warning: {line}")));
    if let Some(error) = &saved.broken_off {
        let failed = CommandError::because(
            format!("not all was saved: {} came into the depot before", talk::paths(saved.paths)),
            error,
        );
        return Err(match hint_for(&failed.in_one_line()) {
            Some(hint) => failed.hint(hint),
            None => failed,
        });
    }
    Ok(ended(!saved.unreadable.is_empty() || !not_saved.is_empty() || let_go.is_some()))
}

/// Says that a run needs what it restored, unless nobody has saved it for so long that it may well be of no use any
/// more: what still is comes back by itself, and is saved anew then.
fn set_needs(cache: &mut Cache, mut restored: HashSet<String>) {
    let catalog = cache.catalog();
    let old = jiff::Timestamp::now().as_second().unsigned_abs().saturating_sub(ALIVE) * 1000;
    restored.retain(|name| catalog.saved_at(name).is_some_and(|at| at >= old));
    cache.set_needs(restored);
}

/// The store path that a file is, is in, or links to.
fn store_path(path: &Path, layout: &Layout) -> Result<StorePath, CommandError> {
    let no = || CommandError::new(format!("{} is not in the store {}", path.display(), layout.store_dir));
    let name = |real: &Path, dir: &Path| {
        real.strip_prefix(dir).ok()?.components().next()?.as_os_str().to_str().map(str::to_owned)
    };
    let real_dir = fs_err::canonicalize(&layout.real_dir).unwrap_or_else(|_| layout.real_dir.clone());
    let store_dir = Path::new(&layout.store_dir);
    let found = name(path, store_dir).or_else(|| {
        // What is to be restored is not there yet: the link says what it was.
        let real = fs_err::canonicalize(path).ok().or_else(|| link_end(path))?;
        name(&real, &real_dir).or_else(|| name(&real, store_dir))
    });
    StorePath::parse(&format!("{}/{}", layout.store_dir, found.ok_or_else(no)?)).map_err(|_| no())
}

/// Where a link leads that may lead nowhere.
fn link_end(path: &Path) -> Option<PathBuf> {
    const MOST_LINKS: usize = 40;
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(&at) {
            Ok(target) => at = at.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return (at != path).then_some(at),
        }
    }
    None
}

/// Says that a directory is not there, which is as good as empty and may be a slip.
fn say_if_absent(args: &DepotArgs) {
    let directory = args.depot.as_deref().and_then(|url| url.strip_prefix("dir:"));
    if let Some(directory) = directory.filter(|directory| !Path::new(directory).exists()) {
        say(format!("dir:{directory}: there is no such directory yet"));
    }
}

fn ls(args: &DepotArgs) -> Result<ExitCode, CommandError> {
    say_if_absent(args);
    let (mut cache, troubled) = open(args)?;
    let catalog = cache.catalog();
    for name in catalog.names() {
        let Some(located) = name.as_bytes().first_chunk().and_then(|hash_part| catalog.locate(hash_part))
        else {
            continue;
        };
        let line = json!({
            "path": located.info.name, "narSize": located.info.nar_size, "references": located.info.references,
        });
        if !talk::stdout(&format!("{line}\n"))? {
            break;
        }
    }
    Ok(ended(troubled))
}

fn stat(args: &DepotArgs) -> Result<ExitCode, CommandError> {
    say_if_absent(args);
    let (mut cache, troubled) = open(args)?;
    let catalog = cache.catalog();
    let known = catalog.others().known.clone();
    let live: BTreeSet<&str> = catalog.packs().map(|(_, name, _)| name).collect();
    let bytes: u64 =
        known.iter().filter(|(name, _)| live.contains(name.as_str())).map(|(_, info)| info.size).sum();
    let chunks: usize = catalog.packs().map(|(_, _, directory)| directory.chunks()).sum();
    let (packs, paths) = (live.len(), catalog.names().len());
    let (replaced_packs, replaced_bytes) = cache.replaced();
    let report = json!({
        "packs": packs, "bytes": bytes, "paths": paths, "chunks": chunks,
        "replacedPacks": replaced_packs, "replacedBytes": replaced_bytes,
    });
    talk::stdout(&format!("{report}\n"))?;
    Ok(ended(troubled))
}
