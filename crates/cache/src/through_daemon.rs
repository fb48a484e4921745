//! Restoring through the daemon, where the store may not be written.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::{io, thread};

use phoenix_model::{StorePath, ValidPathInfo};
use phoenix_pack::{Closure, Located};
use phoenix_store::{AddError, Daemon, DaemonError, Layout, PathInfos, add_through_daemon};

use crate::frames::Frames;
use crate::local::{Destination, IntoStoreError, store_paths, unpacked};
use crate::restore::{Outcome, PLAN, locate_one, make};
use crate::trouble::once;
use crate::trust::{admit, compared};
use crate::{Cache, Restored, Trouble};

/// How many connections are opened: each is a thread and a process of the daemon.
const CONNECTIONS: usize = 4;

/// After so many paths that the daemon did not take, one at a time, the others are given up, too.
const ROUNDS: usize = 40;

/// A path that could not be put together, and why.
struct Lost {
    path: StorePath,
    why: String,
}

impl Cache {
    /// Hands paths to the daemon, with all that they refer to and that is not valid there. One that cannot be had
    /// or is not taken costs those that refer to it, and no others.
    pub(crate) fn restore_through_daemon(
        &mut self,
        wanted: &[StorePath],
        into: Destination<'_>,
        socket: &Path,
        threads: usize,
        trouble: &(dyn Fn(Trouble) + Sync),
    ) -> Result<Restored, IntoStoreError> {
        let trouble: &(dyn Fn(Trouble) + Sync) = &once(trouble);
        let store_dir = &into.layout.store_dir;
        let names: Vec<String> = wanted.iter().map(|path| path.base_name().to_owned()).collect();
        // It stays open, so that the database can be read beside it.
        let mut daemon = Daemon::connect(socket)?;
        let valid = {
            let closure = self.catalog().closure(names.clone(), |_| false);
            base_names(daemon.valid(&store_paths(&closure, store_dir))?)
        };
        let closure = self.catalog().closure(names, |name| valid.contains(name));
        let mut outcome = Outcome::of(&closure);
        for number in closure.numbers() {
            if let Err(why) = self.ready(&closure, number, into) {
                outcome.lose(number, why.to_string());
            }
        }
        outcome.settle(&closure);
        // The daemon would say of one at a time that it waits for itself.
        outcome.lose_circles(&closure);
        let mut handing = Handing { outcome, left: Vec::new(), came_in: 0, refused: HashSet::new() };
        let handed = self.hand_all(&closure, &mut handing, &mut daemon, into, socket, threads, trouble);
        let mut outcome = handing.outcome;
        if let Err(error) = handed {
            // Part of what was on its way may be there, if anybody can tell.
            let all = store_paths(&closure, store_dir);
            let came_in = valid_now(&all, into.layout, socket).map_or(handing.came_in, |valid| valid.len());
            return Err(IntoStoreError::from(error).after(came_in));
        }
        outcome.settle(&closure);
        Ok(outcome.told(&closure))
    }

    /// Hands over what is whole, as much as is planned together at a time, in the order of references.
    #[expect(clippy::too_many_arguments, reason = "it is a part of the one above")]
    fn hand_all(
        &mut self,
        closure: &Closure,
        handing: &mut Handing,
        daemon: &mut Daemon,
        into: Destination<'_>,
        socket: &Path,
        threads: usize,
        trouble: &(dyn Fn(Trouble) + Sync),
    ) -> Result<(), DaemonError> {
        let mut rounds = 0..ROUNDS;
        let mut next = closure.numbers();
        loop {
            handing.outcome.settle(closure);
            handing.left.retain(|ready| handing.outcome.is_whole(ready.number));
            if handing.left.is_empty() {
                let mut size = 0;
                while size < PLAN
                    && let Some(number) = next.next()
                {
                    if !handing.outcome.is_whole(number) {
                        continue;
                    }
                    match self.ready(closure, number, into) {
                        Ok(ready) => {
                            // What is known of it is held in two ways meanwhile.
                            size += 2 * ready.located.size();
                            handing.left.push(ready);
                        }
                        Err(why) => {
                            handing.outcome.lose(number, why.to_string());
                            handing.outcome.settle(closure);
                        }
                    }
                }
            }
            if handing.left.is_empty() {
                break;
            }
            if rounds.is_empty() {
                handing.lose_all("too many others were not taken");
                continue;
            }
            match self.hand_over(closure, handing, into, socket, threads, trouble) {
                Ok(()) => {
                    handing.came_in += handing.left.len();
                    handing.left.clear();
                    continue;
                }
                Err(AddError::Source(Lost { path, why })) => handing.lose(&path, &why),
                Err(AddError::Daemon(DaemonError::Refused(words))) => handing.refused(words)?,
                Err(AddError::Daemon(error)) => return Err(error),
                Err(AddError::Size { ref path, .. } | AddError::Cycle { ref path }) => {
                    handing.lose(path, "it is not what its pack says it is");
                }
            }
            rounds.next();
            // What came in before it broke off is there.
            let left: Vec<StorePath> = handing.left.iter().map(|ready| ready.info.path.clone()).collect();
            let there = base_names(daemon.valid(&left)?);
            handing.came_in += there.len();
            handing.left.retain(|ready| !there.contains(ready.info.path.base_name()));
        }
        Ok(())
    }

    /// A path with its pieces, if they are all there and it may come in.
    fn ready(&mut self, closure: &Closure, number: u32, into: Destination<'_>) -> io::Result<Ready> {
        let located = locate_one(self.catalog(), closure, number);
        let located = located.ok_or_else(|| io::Error::other(self.gone()))?;
        let info = unpacked(&located.info, &into.layout.store_dir)?;
        admit(&info, into.trusted)?;
        Ok(Ready { number, info, located })
    }

    fn hand_over(
        &mut self,
        closure: &Closure,
        handing: &mut Handing,
        into: Destination<'_>,
        socket: &Path,
        threads: usize,
        trouble: &(dyn Fn(Trouble) + Sync),
    ) -> Result<(), AddError<Lost>> {
        let infos: Vec<ValidPathInfo> = handing.left.iter().map(|ready| ready.info.clone()).collect();
        let located = handing.left.iter().map(|ready| &ready.located);
        let frames = Frames::plan(&self.packs, self.packs.peek(), located.clone(), self.room_beside(closure));
        let by_path: HashMap<&StorePath, &Located> =
            infos.iter().map(|info| &info.path).zip(located).collect();
        let runtime = &self.runtime.handle().clone();
        let nar = |info: &ValidPathInfo, take: &mut Take<'_>| {
            let lost =
                |error: io::Error| AddError::Source(Lost { path: info.path.clone(), why: error.to_string() });
            let located = by_path.get(&info.path).ok_or_else(|| lost(io::ErrorKind::NotFound.into()))?;
            let mut check = admit(info, into.trusted).map_err(lost)?;
            let mut pieces = located.pieces.iter();
            // What the daemon says is told as it is, not as an error of reading.
            let mut said = None;
            let made = make(located, &mut pieces, &frames, runtime, trouble, &mut |piece| {
                if let Some(check) = &mut check {
                    check.feed(piece);
                }
                take(piece).map_err(|error| {
                    said = Some(error);
                    io::Error::other("given up")
                })
            });
            pieces.for_each(|piece| frames.skip(piece));
            match said {
                Some(error) => Err(error),
                None => made.and_then(|()| compared(check)).map_err(lost),
            }
        };
        let result = thread::scope(|scope| {
            let ahead = scope.spawn(|| frames.fetch_ahead(runtime, trouble));
            let result = add_through_daemon(socket, threads.clamp(1, CONNECTIONS), false, &infos, nar);
            frames.end();
            drop(ahead.join());
            result
        });
        let (requests, bytes) = frames.read();
        handing.outcome.has_read(requests, bytes);
        self.doubt(&frames.damaged(), trouble);
        // Nobody looks for what replaced them here.
        frames.gone().into_iter().for_each(|error| trouble(error.into()));
        result
    }
}

/// Those of these paths that are valid: the daemon says so, or where it is gone the database of the store.
fn valid_now(paths: &[StorePath], layout: &Layout, socket: &Path) -> Option<HashSet<StorePath>> {
    if let Ok(valid) = Daemon::connect(socket).and_then(|mut daemon| daemon.valid(paths)) {
        return Some(valid);
    }
    let infos = PathInfos::open(layout).ok()?.of(paths).ok()?;
    Some(infos.into_iter().map(|info| info.path).collect())
}

/// Takes the next bytes of a NAR.
type Take<'t> = dyn FnMut(&[u8]) -> Result<(), AddError<Lost>> + 't;

/// A path that can be handed over.
struct Ready {
    number: u32,
    info: ValidPathInfo,
    located: Located,
}

/// What is being handed over, and what became of the rest.
struct Handing {
    outcome: Outcome,
    /// In the order of references.
    left: Vec<Ready>,
    /// How many are in the store now.
    came_in: usize,
    /// The names of the keys that signed what the daemon did not take for want of a signature.
    refused: HashSet<BTreeSet<String>>,
}

impl Handing {
    fn lose(&mut self, path: &StorePath, why: &str) {
        let lost = self.left.iter().filter(|ready| ready.info.path == *path);
        lost.for_each(|ready| self.outcome.lose(ready.number, why.to_owned()));
    }

    fn lose_all(&mut self, why: &str) {
        self.left.drain(..).for_each(|ready| self.outcome.lose(ready.number, why.to_owned()));
    }

    /// Takes note of what the daemon does not take. The error is that it does not say what.
    fn refused(&mut self, words: String) -> Result<(), DaemonError> {
        let at = |ready: &Ready| words.find(ready.info.path.as_str());
        let named = self.left.iter().filter_map(|ready| Some((at(ready)?, &ready.info.path))).min();
        let Some((_, named)) = named else { return Err(DaemonError::Refused(words)) };
        let named = named.clone();
        if words.contains("lacks a") && words.contains("signature") {
            // It will say the same of each that nobody signed, in words about this one. One that was signed may have a
            // wrong signature; of the keys of a second one it is clear that it does not know them.
            let why = "the Nix daemon takes only what a key in its trusted-public-keys signed, and does not trust this user";
            let keys = self.left.iter().find(|ready| ready.info.path == named).map(|ready| keys(&ready.info));
            let keys = keys.filter(|keys| !self.refused.insert(keys.clone())).unwrap_or_default();
            let unsigned =
                |info: &ValidPathInfo| info.content_address.is_none() && self::keys(info).is_subset(&keys);
            let (refused, left): (Vec<Ready>, Vec<Ready>) = std::mem::take(&mut self.left)
                .into_iter()
                .partition(|ready| ready.info.path == named || unsigned(&ready.info));
            self.left = left;
            refused.iter().for_each(|ready| self.outcome.lose(ready.number, why.to_owned()));
        } else {
            self.lose(&named, &format!("the Nix daemon says: {words}"));
        }
        Ok(())
    }
}

/// The names of the keys that signed something.
fn keys(info: &ValidPathInfo) -> BTreeSet<String> {
    info.signatures.iter().filter_map(|signature| Some(signature.split_once(':')?.0.to_owned())).collect()
}

fn base_names(paths: HashSet<StorePath>) -> HashSet<String> {
    paths.into_iter().map(|path| path.base_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use phoenix_store::StoreEnv;
    use phoenix_testkit::NixRoot;

    use super::*;

    #[test]
    fn what_came_in_is_known_when_the_daemon_is_gone() {
        let nix = NixRoot::new(&std::env::temp_dir());
        let file = nix.path("some");
        std::fs::write(&file, "some").unwrap();
        let added = nix.run("nix-store", &["--add", file.to_str().unwrap()]);
        let there = StorePath::parse(added.trim()).unwrap();
        let other = StorePath::parse(&format!("{there}-other")).unwrap();
        let environment = nix.env();
        let value = |wanted: &str| {
            let (_, value) = environment.iter().find(|(name, _)| *name == wanted).unwrap();
            Some(value.clone().into_string().unwrap())
        };
        let (store_dir, state_dir) = (value("NIX_STORE_DIR"), value("NIX_STATE_DIR"));
        let env = StoreEnv { store_dir, state_dir, log_dir: value("NIX_LOG_DIR"), remote: None };
        let layout = Layout::of("", &env).unwrap();
        let valid = valid_now(&[other, there.clone()], &layout, &nix.path("no-socket"));
        assert_eq!(valid, Some(HashSet::from([there])));
    }
}
