//! The depot of a run: what it has is cached, what is built is kept there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::HumanBytes;
use phoenix_cache::{Cache, Destination, IntoStoreError, Restored, Saved, Trouble};
use phoenix_depot::{BlobName, Depot};
use phoenix_model::{Severity, Source, StorePath, ValidPathInfo};
use phoenix_store::{Layout, Nix};

use crate::error::CommandError;
use crate::recorder::{Hear, Recorder};
use crate::setup::Setup;
use crate::{depots, talk, tidy};

/// The depot of a run.
pub(crate) struct Kept {
    cache: Cache,
    depot: Arc<dyn Depot>,
    location: String,
    budget: u64,
    /// The names of what was saved last.
    saved: Vec<String>,
}

impl Kept {
    /// Reads what a depot has. What it cannot tell is told once, and as if it were not there. All packs together
    /// are to have no more than `budget` bytes.
    pub(crate) fn open(
        depot: Arc<dyn Depot>,
        budget: u64,
        hearer: &mut dyn Hear,
    ) -> Result<Self, CommandError> {
        let location = depot.location().to_owned();
        let mut troubles = Vec::new();
        let mut cache =
            Cache::open(depot.clone(), &mut |trouble: Trouble| troubles.push(trouble.to_string()))
                .map_err(|error| CommandError::because("cannot use the depot", &error))?;
        for trouble in troubles {
            hearer.hear(Severity::Warning, trouble);
        }
        tidy::set_branch(&mut cache, None);
        Ok(Self { cache, depot, location, budget, saved: Vec::new() })
    }

    /// Reads anew what the depot has.
    pub(crate) fn look_again(&mut self, hearer: &mut dyn Hear) -> Result<(), CommandError> {
        *self = Self::open(self.depot.clone(), self.budget, hearer)?;
        Ok(())
    }

    /// The depot.
    pub(crate) fn depot(&self) -> &Arc<dyn Depot> {
        &self.depot
    }

    /// Takes in a pack that somebody made since the depot was read; whether it is there.
    pub(crate) fn see(&mut self, pack: &str) -> Result<bool, CommandError> {
        let wrong = |error: &dyn std::error::Error| {
            CommandError::because(format!("cannot read the pack {pack} of {}", self.location), error)
        };
        let name = BlobName::new(pack).map_err(|error| wrong(&error))?;
        self.cache.see(&name).map_err(|error| wrong(&error))
    }

    /// Says which paths this run needs besides what it saves.
    pub(crate) fn set_needs(&mut self, paths: impl IntoIterator<Item = StorePath>) {
        self.cache.set_needs(paths.into_iter().map(|path| path.base_name().to_owned()));
    }

    /// Saves paths of a store on this machine; the name of the pack that was made, if something was new.
    pub(crate) fn save(
        &mut self,
        layout: &Layout,
        paths: &[ValidPathInfo],
        hearer: &mut dyn Hear,
    ) -> Result<Saved, CommandError> {
        let saved = self
            .cache
            .save_from_store(&depots::new_name(), layout, paths, depots::threads())
            .map_err(|error| CommandError::because("the depot keeps nothing", &error))?;
        self.saved = paths.iter().map(|info| info.path.base_name().to_owned()).collect();
        for (name, why) in &saved.unreadable {
            hearer.hear(Severity::Warning, format!("{name} is not kept: {why}"));
        }
        for line in tidy::not_saved(&saved) {
            hearer.hear(Severity::Warning, line);
        }
        if let Some(error) = &saved.broken_off {
            let count = talk::paths(saved.paths);
            return Err(CommandError::because(format!("the depot keeps {count}, and no more"), error));
        }
        Ok(saved)
    }

    /// Folds packs and keeps the budget, now that a pack of this size was saved.
    pub(crate) fn tidy(&mut self, size: u64, hearer: &mut dyn Hear) {
        let tidied = tidy::after_save(&mut self.cache, &self.depot, size, self.budget);
        for (warning, text) in &tidied.said {
            hearer.hear(if *warning { Severity::Warning } else { Severity::Notice }, text.clone());
        }
        let saved = self.saved.iter().map(String::as_str);
        if let Some(line) = tidied.let_go(saved, self.budget) {
            hearer.hear(Severity::Warning, line);
        }
    }

    /// What a path is cached in that it has.
    pub(crate) fn source(&self) -> Source {
        Source::Substituter(self.location.clone())
    }

    /// Whether all parts of a path are there.
    pub(crate) fn has(&mut self, path: &StorePath) -> bool {
        let hash_part = path.base_name().as_bytes().first_chunk();
        hash_part.is_some_and(|hash_part| self.cache.catalog().locate(hash_part).is_some())
    }

    /// Whether a path is there with all that it refers to: each in packs, or, by its name, `elsewhere`, which is told
    /// whether a pack knows of it. `whole` keeps what was found out.
    pub(crate) fn offers(
        &mut self,
        path: &StorePath,
        whole: &mut HashMap<String, bool>,
        elsewhere: &mut dyn FnMut(&str, bool) -> bool,
    ) -> bool {
        if !self.has(path) {
            return false;
        }
        let catalog = self.cache.catalog();
        let mut stack = vec![(path.base_name().to_owned(), None::<Vec<String>>)];
        while let Some((name, references)) = stack.pop() {
            if let Some(references) = references {
                let is_whole = references.iter().all(|other| whole.get(other) == Some(&true));
                whole.insert(name, is_whole);
                continue;
            }
            if whole.contains_key(&name) {
                continue;
            }
            let info = name.as_bytes().first_chunk().and_then(|hash_part| {
                let is_there = catalog.locate(hash_part).is_some();
                catalog.info(hash_part).map(|info| (info, is_there))
            });
            match info {
                Some((info, true)) => {
                    let others = info.references.into_iter().filter(|other| *other != name);
                    let others: Vec<String> = others.collect();
                    let open = others.iter().filter(|other| !whole.contains_key(*other));
                    let open: Vec<_> = open.map(|other| (other.clone(), None)).collect();
                    // What refers to what refers to it is never whole.
                    whole.insert(name.clone(), false);
                    stack.push((name, Some(others)));
                    stack.extend(open);
                }
                other => {
                    let is_elsewhere = elsewhere(&name, other.is_some());
                    whole.insert(name, is_elsewhere);
                }
            }
        }
        whole.get(path.base_name()) == Some(&true)
    }

    /// Of these paths and all that they refer to, the names of those that no pack is known to have; and whether
    /// parts of others are in packs that are not known.
    pub(crate) fn lacking(&mut self, paths: &[StorePath]) -> (Vec<String>, bool) {
        let names = paths.iter().map(|path| path.base_name().to_owned());
        let closure = self.cache.catalog().closure(names, |_| false);
        let mut hash_parts = closure.names().filter_map(|name| name.as_bytes().first_chunk());
        let in_parts = hash_parts.any(|hash_part| self.cache.catalog().locate(hash_part).is_none());
        (closure.unknown().to_vec(), in_parts)
    }

    /// Brings paths into a store on this machine, with all they refer to, as far as packs and substituters have them.
    pub(crate) fn restore(
        &mut self,
        paths: &[StorePath],
        layout: &Layout,
        store: &str,
        nix: &Nix,
        hearer: &mut dyn Hear,
    ) -> Result<Restored, IntoStoreError> {
        depots::substitute(&mut self.cache, paths, layout, nix);
        let troubles = Mutex::new(Vec::new());
        let tell = |trouble: Trouble| {
            troubles.lock().unwrap_or_else(PoisonError::into_inner).push(trouble.to_string());
        };
        let way = depots::way_into(layout, Some(store));
        let into = Destination { layout, way: &way, trusted: None };
        let restored = self.cache.restore_into_store(paths, into, depots::threads(), &tell);
        for trouble in troubles.into_inner().unwrap_or_else(PoisonError::into_inner) {
            hearer.hear(Severity::Warning, trouble);
        }
        restored
    }

    /// Brings paths into the store that is built in, with all they refer to, as far as they are there.
    pub(crate) fn fetch(&mut self, paths: &[StorePath], setup: &Setup, hearer: &mut dyn Hear) {
        let Some(layout) = setup.layout.as_ref().filter(|_| !paths.is_empty()) else { return };
        match self.restore(paths, layout, &setup.store, &setup.nix, hearer) {
            Ok(restored) => {
                let (count, size) = (restored.paths.len(), HumanBytes(restored.archives));
                if count > 0 {
                    let text = format!("{} of {size} came from {}", talk::paths(count), self.location);
                    hearer.hear(Severity::Notice, text);
                }
                if let Some((name, why)) = restored.failed.first() {
                    let count = restored.failed.len();
                    let text =
                        format!("{count} paths of {} cannot be had, such as {name}: {why}", self.location);
                    hearer.hear(Severity::Warning, text);
                }
            }
            Err(error) => {
                let error = depots::not_restored("nothing can be had from the depot", &error);
                hearer.hear(Severity::Warning, error.in_one_line());
            }
        }
    }

    /// Keeps outputs that were built, with all they refer to, less what a substituter has.
    pub(crate) fn keep(&mut self, outputs: Vec<StorePath>, setup: &Setup, recorder: &mut Recorder) {
        let Some(layout) = setup.layout.as_ref() else { return };
        let saved = depots::infos(layout, Some(&setup.store))
            .and_then(|infos| depots::closure(&infos, outputs))
            .and_then(|mut paths| {
                depots::leave_to_upstream(&mut paths, &setup.settings.trusted_public_keys);
                self.save(layout, &paths, recorder)
            });
        match saved {
            Ok(saved) => {
                if saved.pack.is_some() {
                    let (count, size, place) = (saved.paths, HumanBytes(saved.size), &self.location);
                    recorder.say(
                        Severity::Notice,
                        format!("{} kept in {place}, in {size}", talk::paths_are(count)),
                    );
                    self.tidy(saved.size, recorder);
                }
            }
            Err(error) => recorder.say(Severity::Warning, error.in_one_line()),
        }
    }
}
