//! Which depot, and what goes into it.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use phoenix_cache::{Cache, IntoStoreError, PACKS};
use phoenix_depot::{BlobName, Depot, Opener, default_url_of_environment};
use phoenix_github::{Access, Artifacts, OfRun, RestAccess, Settings};
use phoenix_model::{StorePath, ValidPathInfo};
use phoenix_store::{Layout, Nix, PathInfos, PathInfosError, Validity, Way};
use phoenix_substituter::PublicKeys;

use crate::error::{CommandError, hint_for};
use crate::handed;
use crate::setup::{trigger, var};
use crate::talk;

/// Opens the depot of a URL, or the one in the user's cache where none is named.
pub(crate) fn open(url: Option<&str>) -> Result<Arc<dyn Depot>, CommandError> {
    open_with(url, || Ok(Box::new(github()?)))
}

/// The same, for what the jobs of one pipeline hand to each other: where they may not write GitHub's cache, it goes by
/// artifacts of their workflow run. A cache can make a run faster, and does not decide whether there is one.
pub(crate) fn open_of_run(url: Option<&str>) -> Result<Arc<dyn Depot>, CommandError> {
    open_with(url, || {
        let cache = github()?;
        let (access, settings) = access()?;
        Ok(match Artifacts::new(access, settings) {
            Ok(artifacts) => Box::new(OfRun::new(cache, artifacts, tell_of_artifacts)),
            // A token that names no job has no artifacts.
            Err(_) => Box::new(cache) as Box<dyn Depot>,
        })
    })
}

fn tell_of_artifacts(why: &str) {
    talk::stderr(&format!(
        "warning: this job may not use the cache of the repository as it would ({why}): what its runners hand to each other \
         are artifacts of this workflow run, and nothing is kept for the next\n"
    ));
}

fn open_with(
    url: Option<&str>,
    github: fn() -> Result<Box<dyn Depot>, String>,
) -> Result<Arc<dyn Depot>, CommandError> {
    // A variable that is empty names none.
    let url = url.filter(|url| !url.is_empty()).map(str::to_owned);
    let url = url.or_else(default_url_of_environment).ok_or_else(|| {
        CommandError::new("there is no place for a depot: neither HOME nor XDG_CACHE_HOME is set")
            .hint("name one: --depot dir:PATH")
    })?;
    let opener = Opener::of_environment().also("github", "github:", move |url| match url {
        "github:" => github(),
        _ => Err("the cache is that of the repository the job runs in: write `github:`".to_owned()),
    });
    let depot = opener.open(&url).map_err(|error| CommandError::because("cannot use the depot", &error))?;
    Ok(Arc::from(depot))
}

/// The cache of the repository that this job runs in.
fn github() -> Result<phoenix_github::Cache, String> {
    let (access, settings) = access()?;
    phoenix_github::Cache::new(access, settings).map_err(|error| error.to_string())
}

/// What this job has of GitHub's services.
fn access() -> Result<(Access, Settings), String> {
    let [results_url, mode] = ["ACTIONS_RESULTS_URL", "ACTIONS_CACHE_MODE"].map(var);
    let [rest_token, repository, api] = ["GITHUB_TOKEN", "GITHUB_REPOSITORY", "GITHUB_API_URL"].map(var);
    let rest = RestAccess::new(rest_token.as_deref(), repository.as_deref(), api.as_deref());
    let token = handed::runtime_token();
    let access = Access::new(results_url.as_deref(), token.as_deref(), mode.as_deref())
        .map_err(|error| error.to_string())?
        .with_rest(rest);
    // All processes of a job share what the service allows.
    let budget_file = var("RUNNER_TEMP").map(|temp| std::path::Path::new(&temp).join("phoenix-ci-budget"));
    let settings = Settings { budget_file, ..Settings::default() };
    // What a stranger's code makes must not be found by those who trust the default branch. The cache of a pull request is
    // its own; what a workflow is set off for by others is in that of the branch.
    let is_apart = var("GITHUB_EVENT_NAME").is_some_and(|event| event == "pull_request");
    let access = match for_a_fork().filter(|_| !is_apart) {
        Some(why) => access.read_only(&why),
        None => access,
    };
    Ok((access, settings))
}

/// Why what this job makes is not for others, if it is not: it is for code from another repository, or that cannot be
/// known.
pub(crate) fn for_a_fork() -> Option<String> {
    match trigger() {
        Ok(trigger) => trigger
            .is_some_and(|trigger| trigger.is_fork)
            .then(|| "this job is for code from a fork, whose results others must not get".to_owned()),
        Err(why) => Some(format!("whether this job is for code from a fork cannot be known ({why})")),
    }
}

/// How many threads read, compress and write, where nobody says otherwise.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Which way paths come into the store of a URL, or the usual one.
pub(crate) fn way_into(layout: &Layout, url: Option<&str>) -> Way {
    let [remote, socket] = ["NIX_REMOTE", "NIX_DAEMON_SOCKET_PATH"].map(var);
    Way::into(layout, url, remote.as_deref(), socket.as_deref())
}

/// Reads what the store of a URL, or the usual one, knows of its paths.
pub(crate) fn infos(layout: &Layout, url: Option<&str>) -> Result<PathInfos, CommandError> {
    PathInfos::open_by(layout, &way_into(layout, url)).map_err(|error| no_look(&error))
}

/// A store that cannot be read.
pub(crate) fn no_look(error: &PathInfosError) -> CommandError {
    let told = CommandError::because("cannot look into the store", error);
    match hint_for(&told.in_one_line()) {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// That a restore ended before its end: what came in before, or else this, and why.
pub(crate) fn not_restored(nothing: &str, error: &IntoStoreError) -> CommandError {
    match error {
        IntoStoreError::BrokenOff { came_in, source } => CommandError::because(
            format!("not all was restored: {} came in before it broke off, and stay", talk::paths(*came_in)),
            source,
        )
        .hint("what came in is whole, with all that it refers to; the same again brings the rest"),
        error => CommandError::because(nothing, error),
    }
}

/// A name that no other pack has: when it was made, in milliseconds, and a number drawn by lot. Of packs that were
/// made in one second, which is all that depots tell, the later comes later by its name.
pub(crate) fn new_name() -> BlobName {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let lot = RandomState::new().build_hasher().finish();
    BlobName::new(format!("{PACKS}{now:013}-{lot:016x}")).expect("digits make a name")
}

/// Whether a blob has a name as packs have them, with a scope or without: what is called otherwise is somebody else's.
pub(crate) fn is_name(name: &str) -> bool {
    let leaf = name.rsplit('/').next().unwrap_or_default().split('+').next().unwrap_or_default();
    let digits = |text: &str, length: usize, digit: fn(&u8) -> bool| {
        text.len() == length && text.as_bytes().iter().all(digit)
    };
    leaf.split_once('-').is_some_and(|(made, lot)| {
        digits(made, 13, u8::is_ascii_digit) && digits(lot, 16, u8::is_ascii_hexdigit)
    })
}

/// The paths with all that they refer to.
pub(crate) fn closure(infos: &PathInfos, roots: Vec<StorePath>) -> Result<Vec<ValidPathInfo>, CommandError> {
    let mut seen: HashSet<StorePath> = roots.iter().cloned().collect();
    let (mut next, mut found) = (roots, Vec::new());
    let mut first = true;
    while !next.is_empty() {
        let some = infos.of(&next).map_err(|error| no_look(&error))?;
        if first && some.len() < next.len() {
            let valid: HashSet<&StorePath> = some.iter().map(|info| &info.path).collect();
            let lost = next.iter().find(|path| !valid.contains(path)).map(ToString::to_string);
            return Err(CommandError::new(format!("{} is not valid", lost.unwrap_or_default()))
                .hint("build it first; `nix-store --realise` does"));
        }
        first = false;
        next = some
            .iter()
            .flat_map(|info| &info.references)
            .filter(|path| seen.insert((*path).clone()))
            .cloned()
            .collect();
        found.extend(some);
    }
    Ok(found)
}

/// Has Nix fetch what paths of a depot refer to and no pack has, because it was left to a substituter: nothing that
/// refers to it could come in without. What does not come is told by whoever misses it.
pub(crate) fn substitute(cache: &mut Cache, wanted: &[StorePath], layout: &Layout, nix: &Nix) {
    let names: Vec<String> = wanted.iter().map(|path| path.base_name().to_owned()).collect();
    let missing = cache.catalog().closure(names, |_| false).unknown().to_vec();
    let asked: HashSet<&str> = wanted.iter().map(StorePath::base_name).collect();
    // What is wanted itself and in no pack is not the depot's.
    let missing: Vec<StorePath> = missing
        .into_iter()
        .filter(|name| !asked.contains(name.as_str()))
        .filter_map(|name| StorePath::parse(&format!("{}/{name}", layout.store_dir)).ok())
        .collect();
    let valid = Validity::open(nix, Some(layout)).valid(&missing).unwrap_or_default();
    let missing: Vec<&StorePath> = missing.iter().filter(|path| !valid.contains(*path)).collect();
    let mut nix = nix.clone();
    // It is not to be built here, if it could be.
    nix.set_option("max-jobs", "0");
    nix.set_option("builders", "");
    for some in missing.chunks(PATHS_A_CALL) {
        let mut command = nix.nix_store("--realise");
        command.arg("--keep-going").args(some.iter().map(|path| path.as_str()));
        // Its words are about each that no substituter has, which is told later.
        let _ = nix.run(&mut command, "nix-store --realise");
    }
}

/// How many paths one call of Nix is given.
const PATHS_A_CALL: usize = 2000;

/// Takes out what a trusted key signed and this store did not build: a substituter has it.
pub(crate) fn leave_to_upstream(paths: &mut Vec<ValidPathInfo>, trusted_public_keys: &[String]) {
    let keys = PublicKeys::parse(trusted_public_keys.iter().map(String::as_str));
    paths.retain(|info| info.ultimate || !keys.signed(&phoenix_substituter::PathInfo::of_valid(info)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_known_by_their_names() {
        let name = new_name();
        assert!(is_name(name.as_str()) && is_name(&format!("{name}+2")));
        assert!(is_name("packs/=main/1795821690963-1dd3da24c22379cf"));
        for other in ["packs/notes.txt", "packs/1795821690963", "packs/x-1dd3da24c22379cf", ""] {
            assert!(!is_name(other), "{other}");
        }
    }
}
