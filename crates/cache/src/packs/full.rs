//! A depot whose packs say more of their paths than there is memory for: which of them have the room, and what is known of
//! the others.

use std::collections::{BTreeSet, HashMap};

use phoenix_depot::Blob;
use phoenix_pack::{
    Beside, Catalog, Directory, Load, Newer, PackError, PackInfo, with_room, without_room_since,
};

use super::{LeftOut, Packs, info, newest_first, now};
use crate::Trouble;
use crate::directories::{Room, Tail, read_on, read_tail};

/// Who has the room, as far as that is decided.
#[derive(Debug, Default)]
struct Shares {
    /// The packs that somebody needs and that are to have room if there is any.
    needed: BTreeSet<String>,
    /// Those of them that have room.
    have: BTreeSet<String>,
    /// Those of which all is in others that have room.
    superfluous: BTreeSet<String>,
    /// What looked like it, and was not when others had its room.
    not_superfluous: BTreeSet<String>,
    /// Those that were replaced and have something that a live one misses.
    relied_on: BTreeSet<String>,
}

impl Shares {
    /// Gives the room to these packs, in their order; whether there is enough for all.
    fn give(&mut self, needed: &[String], loads: &HashMap<String, Load>) -> bool {
        let some: Vec<&String> = needed.iter().filter(|name| !self.superfluous.contains(*name)).collect();
        let room = with_room(&some.iter().map(|name| loads[*name]).collect::<Vec<Load>>());
        self.needed = needed.iter().cloned().collect();
        self.have =
            some.iter().zip(&room).filter(|(_, has)| **has).map(|(name, _)| (*name).clone()).collect();
        !room.contains(&false)
    }
}

impl Packs {
    /// How many packs are left out because there is no room for what they say of their paths.
    pub(crate) fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Those of them that may be let go of here; the others are for those who may write their scopes.
    pub(crate) fn own_left_out(&self) -> Vec<LeftOut> {
        self.left_out.iter().filter(|(name, _)| !self.is_foreign(name)).map(|(_, out)| out.clone()).collect()
    }

    /// Whether this pack is left out.
    pub(crate) fn is_left_out(&self, name: &str) -> bool {
        self.left_out.contains_key(name)
    }

    /// What there is beside the packs that were read.
    pub(crate) fn beside(&self) -> Beside {
        let superfluous = self.superfluous.iter().filter(|name| !self.is_foreign(name));
        let superfluous =
            superfluous.filter_map(|name| Some((name.clone(), info(self.blobs.get(name)?)))).collect();
        let mut relied_on = self.catalog.relied_on_by_unread();
        relied_on.extend(self.left_out.keys().cloned());
        // There may have been no room for them, and nobody who missed what is in them.
        relied_on.extend(self.catalog.relied_on().into_iter().map(|(name, _)| name.to_owned()));
        Beside { is_more: !self.left_out.is_empty(), superfluous, relied_on }
    }

    /// Whether each of these paths is in a pack that is left out.
    pub(crate) async fn in_left_out(&mut self, names: &[&str]) -> Vec<bool> {
        let mut found = vec![false; names.len()];
        if names.is_empty() {
            return found;
        }
        self.look_into_left_out(|directory, _| {
            found.iter_mut().zip(names).for_each(|(found, name)| *found |= directory.has(name));
        })
        .await;
        found
    }

    /// The paths that are in packs which are left out, and in none that was read; and those of the packs into which there
    /// was no look.
    pub(crate) async fn only_in_left_out(&mut self) -> (BTreeSet<String>, Vec<String>) {
        let mut names = BTreeSet::new();
        let closed = self
            .look_into_left_out(|directory, catalog| {
                let all =
                    (0..directory.paths()).filter_map(|at| std::str::from_utf8(directory.name_of(at)).ok());
                names.extend(all.filter(|name| !catalog.has_name(name)).map(str::to_owned));
            })
            .await;
        (names, closed)
    }

    /// Looks into one pack that is left out after another, and lets go of it again. Returns the names of those into which
    /// nobody can look, or whose directories are too large for that.
    async fn look_into_left_out(&mut self, mut look: impl FnMut(&Directory, &Catalog)) -> Vec<String> {
        let mut closed = Vec::new();
        self.catalog.forget_places();
        for (name, LeftOut { blob, .. }) in &self.left_out {
            match self.look_into(blob).await {
                Some(directory) => look(&directory, &self.catalog),
                None => closed.push(name.clone()),
            }
        }
        closed
    }

    /// The directory of a pack, if it is not too large to be in memory beside all others for a moment.
    async fn look_into(&self, blob: &Blob) -> Option<Directory> {
        let tail = read_tail(self.depot.as_ref(), blob).await.ok()?;
        if tail.is_too_large_beside_others() {
            return None;
        }
        tail.directory(self.depot.as_ref(), blob).await.ok()?.open().ok()
    }

    /// Learns what the packs say of others that there was no room for; whether there were any that it was not known of.
    pub(super) async fn hear_of_crowded(&mut self, trouble: &mut (dyn FnMut(Trouble) + Send)) -> bool {
        let unheard = self.crowded.values().filter(|blob| !self.loads.contains_key(blob.name.as_str()));
        let mut unheard: Vec<Blob> = unheard.cloned().collect();
        let is_news = !unheard.is_empty();
        newest_first(&mut unheard);
        self.hear_of(unheard, trouble).await;
        is_news
    }

    /// Learns what packs say of others, and how heavy they are, one after another.
    async fn hear_of(&mut self, blobs: Vec<Blob>, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let depot = self.depot.clone();
        self.catalog.forget_places();
        for blob in blobs {
            let name = blob.name.to_string();
            let tail = read_tail(depot.as_ref(), &blob).await;
            if tail.as_ref().is_ok_and(Tail::is_too_large_beside_others) {
                // All others are read anew when it is known which are to be.
                let read: Vec<String> =
                    self.catalog.read_packs().map(|(_, name, _)| name.to_owned()).collect();
                self.catalog.put_back(&read);
            }
            match read_on(depot.as_ref(), &blob, tail, &Room::beside(blob.size, 0)).await {
                Ok(directory) => {
                    self.loads.insert(name.clone(), Load { size: blob.size, weight: directory.weight() });
                    if let Some(first) = (directory.paths() > 0).then(|| directory.name_of(0)) {
                        self.firsts.insert(name.clone(), String::from_utf8_lossy(first).into_owned());
                    }
                    // One that says too much of others has no room, whatever it says of its paths.
                    let _ = self.catalog.hear_of(&name, info(&blob), &directory);
                    self.blobs.insert(name, blob);
                }
                Err(error) => {
                    let load = Load { size: blob.size, weight: u64::MAX };
                    self.loads.insert(name, load);
                    self.not_read(&blob, &error);
                    if !matches!(error, Trouble::Pack { problem: PackError::NoRoom, .. }) {
                        trouble(error);
                    }
                }
            }
        }
    }

    /// Decides which packs have the room that there is, now that it is known what each says of others, and reads these.
    ///
    /// That depends on what is in the depot alone, and not on what came in first: the packs that somebody needs have room in
    /// their order, the newest first, each with those that it may rely on. One of which all is in others that were read takes
    /// none. The rest is left out, and known still.
    pub(super) async fn share_room(&mut self, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let mut shares = Shares::default();
        while !self.share(&mut shares, trouble).await {}
        for name in shares.needed.difference(&shares.have) {
            if !shares.superfluous.contains(name)
                && !self.catalog.is_replaced(name)
                && self.is_covered(name).await
            {
                shares.superfluous.insert(name.clone());
            }
        }
        self.catalog.forget_places();
        let is_unheard = |name: &&String| !self.catalog.is_there(name) && !self.catalog.is_replaced(name);
        let unheard = self.crowded.keys().filter(is_unheard);
        let out = shares.needed.difference(&shares.have).filter(|name| !shares.superfluous.contains(*name));
        let out = out.chain(unheard).filter_map(|name| self.blobs.get(name));
        let left_out = out.map(|blob| {
            let since = self.without_room_since(blob, &shares.have);
            (blob.name.to_string(), LeftOut { blob: blob.clone(), since })
        });
        self.left_out = left_out.collect();
        self.superfluous = shares.superfluous;
    }

    /// Gives the room to packs as far as is known now who needs it, and reads these; whether that is all that has to be
    /// known.
    async fn share(&mut self, shares: &mut Shares, trouble: &mut (dyn FnMut(Trouble) + Send)) -> bool {
        self.hear_of_relied_on(trouble).await;
        let mut all = self.catalog.needed();
        all.retain(|name| self.blobs.contains_key(name) && self.loads.contains_key(name));
        let (needed, others): (Vec<String>, Vec<String>) = all
            .into_iter()
            .partition(|name| !self.catalog.is_replaced(name) || shares.relied_on.contains(name));
        let before = std::mem::take(&mut shares.have);
        let is_enough = shares.give(&needed, &self.loads);
        if !self.read_those_with_room(&shares.have, trouble).await {
            return false;
        }
        if !before.is_subset(&shares.have) && self.look_at_superfluous_again(shares).await {
            return false;
        }
        let found = if is_enough { Vec::new() } else { self.put_back_superfluous(shares, &needed) };
        if found.is_empty() {
            let more = self.of_help(others.iter()).await;
            if more.is_empty() {
                return true;
            }
            shares.relied_on.extend(more);
        }
        for name in found {
            shares.have.remove(&name);
            shares.superfluous.insert(name);
        }
        false
    }

    /// Reads the packs that have room, and no others; whether all of them are there.
    async fn read_those_with_room(
        &mut self,
        have: &BTreeSet<String>,
        trouble: &mut (dyn FnMut(Trouble) + Send),
    ) -> bool {
        let read = self.catalog.read_packs().map(|(_, name, _)| name.to_owned());
        let other: Vec<String> = read.filter(|name| !have.contains(name)).collect();
        self.catalog.put_back(&other);
        let blobs = have.iter().filter(|name| !self.catalog.is_read(name));
        let blobs: Vec<Blob> = blobs.filter_map(|name| self.blobs.get(name).cloned()).collect();
        self.read(blobs, trouble).await;
        // They went away meanwhile, or were not given.
        let missed: Vec<&String> = have.iter().filter(|name| !self.catalog.is_read(name)).collect();
        for name in &missed {
            self.blobs.remove(*name);
        }
        missed.is_empty()
    }

    /// Looks whether all that is in packs that were taken for superfluous is in others still, where these are not the same as
    /// before. If it is not, room is given anew, and they are not taken for that again.
    async fn look_at_superfluous_again(&mut self, shares: &mut Shares) -> bool {
        let before = shares.not_superfluous.len();
        for name in &shares.superfluous {
            if !self.is_covered(name).await {
                shares.not_superfluous.insert(name.clone());
            }
        }
        let is_news = shares.not_superfluous.len() > before;
        if is_news {
            shares.superfluous.clear();
            shares.have.clear();
        }
        is_news
    }

    /// Lets go of the directories of packs of which all is in others that were read, beginning with the oldest of those that
    /// are needed, and returns their names.
    fn put_back_superfluous(&mut self, shares: &Shares, needed: &[String]) -> Vec<String> {
        let mut found = Vec::new();
        let names = needed.iter().rev();
        for name in
            names.filter(|name| shares.have.contains(*name) && !shares.not_superfluous.contains(*name))
        {
            if self.catalog.is_superfluous(name) {
                self.catalog.put_back([name]);
                found.push(name.clone());
            }
        }
        found
    }

    /// Since when there is no room for a pack beside those that have it.
    fn without_room_since(&self, blob: &Blob, have: &BTreeSet<String>) -> u64 {
        let Some(load) = self.loads.get(blob.name.as_str()) else { return now() };
        let made = |name: &str| self.blobs.get(name).and_then(|blob| blob.created).unwrap_or_default();
        let own = (made(blob.name.as_str()), blob.name.as_str());
        let newer = have.iter().filter(|name| (made(name), name.as_str()) > own);
        let newer = newer.map(|name| Newer {
            made: made(name),
            load: self.loads[name],
            made_of: self.catalog.made_of(name, own),
        });
        without_room_since(*load, own.0, &newer.collect::<Vec<Newer>>())
    }

    /// Those of these packs that have something which live ones that were read miss.
    async fn of_help(&mut self, names: impl Iterator<Item = &String>) -> Vec<String> {
        let blobs: Vec<Blob> = names.filter_map(|name| self.blobs.get(name).cloned()).collect();
        let mut help = Vec::new();
        if blobs.is_empty() {
            return help;
        }
        self.catalog.forget_places();
        let mut lack = self.catalog.lack();
        for blob in blobs {
            // One that nobody can look into may be of help.
            let directory = self.look_into(&blob).await;
            if directory.is_none_or(|directory| lack.is_helped_by(&directory)) {
                help.push(blob.name.to_string());
            }
        }
        help
    }

    /// Whether all of a pack that was not read is in those that were.
    async fn is_covered(&mut self, name: &str) -> bool {
        let Some(blob) = self.blobs.get(name).cloned() else { return false };
        let first = self.firsts.get(name).and_then(|first| first.as_bytes().first_chunk());
        if first.is_some_and(|hash_part| !self.catalog.has(hash_part)) {
            return false;
        }
        self.catalog.forget_places();
        let directory = self.look_into(&blob).await;
        directory.is_some_and(|directory| {
            directory.paths() + directory.chunks() > 0 && self.catalog.covers(name, &directory)
        })
    }

    /// Learns how heavy the packs are that were replaced and that a live one may rely on.
    async fn hear_of_relied_on(&mut self, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        loop {
            let needed = self.catalog.needed();
            let unheard = needed.iter().filter(|name| !self.loads.contains_key(*name));
            let known = &self.catalog.others().known;
            let unheard: Vec<(String, PackInfo)> =
                unheard.filter_map(|name| Some((name.clone(), *known.get(name)?))).collect();
            let blobs = self.find(unheard, trouble).await;
            if blobs.is_empty() {
                return;
            }
            self.hear_of(blobs, trouble).await;
        }
    }
}
