//! The packs of a depot, and the catalog they make together.

mod full;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use phoenix_depot::{Blob, BlobName, Depot, DepotError, Problem};
use phoenix_pack::{
    Catalog, Directory, HEAD, Load, Others, PackBuilder, PackError, PackInfo, check_head,
    heaviest_directories,
};

use crate::attempts::attempts;
use crate::directories::{AT_ONCE, Room, fetched, may_be_damage, opened, read_directory};
use crate::name::{PACKS, is_part, is_readable, prefix};
use crate::{Said, Trouble};

/// How many damaged packs one after another are gone back over.
const MOST_BACK: usize = 4;

/// Which part of the room for directories a save leaves free: for packs that only say something, of which the newest are
/// read before all others.
const FREE: u64 = 16;

/// After how many seconds a pack that a depot does not show is one that is gone, and not one that it shows late.
/// GitHub's cache is late by minutes.
const LATE: u64 = 24 * 3600;

/// For how many seconds a pack has to be replaced before it is taken for evicted where that cannot be looked up
/// without keeping it from eviction: GitHub evicts what was not used for seven days.
const EVICTED: u64 = 14 * 24 * 3600;

/// A depot with the catalog of its packs.
#[derive(Debug)]
pub struct Packs {
    depot: Arc<dyn Depot>,
    catalog: Catalog,
    blobs: HashMap<String, Blob>,
    /// Whether the depot showed all that it has.
    listed: bool,
    /// Packs that are there and cannot be read from here, or cannot be used.
    outside: BTreeMap<String, PackInfo>,
    /// The newest that could not be read, whatever the reason.
    unread: BTreeMap<String, PackInfo>,
    /// Those of them that are damaged.
    unusable: BTreeSet<String>,
    /// Packs that nothing is wrong with, but for which there is no room beside those that are newer.
    left_out: BTreeMap<String, LeftOut>,
    /// Packs of which all is in those that were read, and that have no room for that.
    superfluous: BTreeSet<String>,
    /// How heavy each pack is whose directory was looked into.
    loads: HashMap<String, Load>,
    /// The first path of each pack that there was no room for: whoever does not have that does not have all of it.
    firsts: HashMap<String, String>,
    /// Packs for which there was no room when they were to be read.
    crowded: BTreeMap<String, Blob>,
    /// Packs of which the depot did not tell whether they are there, or what is in them.
    unsure: BTreeSet<String>,
}

/// A pack that there is no room for.
#[derive(Debug, Clone)]
pub(crate) struct LeftOut {
    pub(crate) blob: Blob,
    /// Since when, in seconds since 1970: whoever looked before that may rely on it.
    pub(crate) since: u64,
}

/// The time, in seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn info(blob: &Blob) -> PackInfo {
    PackInfo { size: blob.size, created: blob.created.unwrap_or_default() }
}

impl Packs {
    /// Of a depot that nothing is known of.
    pub(crate) fn empty(depot: Arc<dyn Depot>) -> Self {
        Self {
            depot,
            catalog: Catalog::default(),
            blobs: HashMap::new(),
            listed: true,
            outside: BTreeMap::new(),
            unread: BTreeMap::new(),
            unusable: BTreeSet::new(),
            left_out: BTreeMap::new(),
            superfluous: BTreeSet::new(),
            loads: HashMap::new(),
            firsts: HashMap::new(),
            crowded: BTreeMap::new(),
            unsure: BTreeSet::new(),
        }
    }

    /// Reads the directories of all packs that a depot shows and that are not replaced by others.
    ///
    /// What cannot be read is told to `trouble` and is as if it were not there. Where all of them would take more memory
    /// than there is, the newest have it, whichever is read first: whoever looks sees the same packs.
    pub async fn load(depot: Arc<dyn Depot>, trouble: &mut (dyn FnMut(Trouble) + Send)) -> Self {
        let mut packs = Self::empty(depot);
        let mut said = Said::default();
        let trouble: &mut (dyn FnMut(Trouble) + Send) = &mut |told| {
            if said.is_news(&told) {
                trouble(told);
            }
        };
        let seen = match packs.depot.list(PACKS).await {
            // Where nothing can be listed, the newest pack knows the others.
            Err(DepotError { problem: Problem::Unsupported(_) | Problem::Denied(_), .. }) => {
                packs.listed = false;
                newest(packs.depot.as_ref()).await
            }
            seen => seen,
        };
        match seen {
            Ok(seen) => {
                let newest = if packs.listed { Vec::new() } else { seen.clone() };
                packs.take_in(seen, trouble).await;
                for blob in newest {
                    packs.go_back(blob, trouble).await;
                }
            }
            Err(error) => {
                packs.listed = false;
                packs.unsure.insert(PACKS.to_owned());
                trouble(error.into());
            }
        }
        packs.tell_left_out(0, trouble);
        packs
    }

    /// Tells of the packs that were left out, once of all, if there are more than `before`.
    fn tell_left_out(&mut self, before: usize, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        if self.left_out.len() > before {
            trouble(Trouble::LeftOut {
                depot: self.depot.location().to_owned(),
                packs: self.left_out.keys().cloned().collect(),
            });
        }
    }

    /// How many bytes the packs have that were read, and how much their directories weigh.
    fn taken(&self) -> (u64, u64) {
        let read = self.catalog.read_packs();
        let read = read.map(|(_, name, directory)| {
            (self.blobs.get(name).map_or(0, |blob| blob.size), directory.weight())
        });
        read.fold((0, 0), |sum: (u64, u64), (pack, directory)| {
            (sum.0.saturating_add(pack), sum.1.saturating_add(directory))
        })
    }

    /// Whether packs say so much of their paths that there may be no room for all of it when some are removed.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.taken().1 > heaviest_directories(0) / 2
    }

    /// How much more may be known of packs, if these have so many bytes, before readers leave some out.
    pub(crate) fn room_beside(&self, more: u64) -> u64 {
        let (packs, taken) = self.taken();
        let most = heaviest_directories(packs.saturating_add(more));
        (most - most / FREE).saturating_sub(taken)
    }

    /// Reads anew what a depot shows. Others may use what is known meanwhile, and it stays known where the depot
    /// does not say better.
    pub(crate) async fn look_again(packs: &Mutex<Self>, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let depot = packs.lock().unwrap_or_else(PoisonError::into_inner).depot.clone();
        let read = Self::load(depot, trouble).await;
        if read.unsure.is_empty() {
            *packs.lock().unwrap_or_else(PoisonError::into_inner) = read;
        }
    }

    /// Reads anew what a depot shows, if it does tell.
    pub(crate) async fn load_again(&mut self, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let read = Self::load(self.depot.clone(), trouble).await;
        if read.unsure.is_empty() {
            *self = read;
        }
    }

    /// Whether the depot shows all that it has.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Makes a pack without paths, which only says what is known of others.
    pub(crate) async fn say(&mut self, name: &BlobName, statement: &Others) -> Result<(), Trouble> {
        let damaged = |problem| Trouble::Pack {
            depot: self.depot.location().to_owned(),
            pack: name.to_string(),
            problem,
        };
        let (builder, head) = PackBuilder::new();
        let tail = builder.finish(Vec::new(), statement.encode()).map_err(damaged)?;
        let parts = [Ok(Bytes::from_static(head)), Ok(Bytes::from(tail))];
        self.depot.create(name, stream::iter(parts).boxed()).await?;
        Ok(())
    }

    /// Looks whether the newest pack knows this one, and if not makes one that knows both; whether it did, so
    /// that it is to be looked again.
    pub(crate) async fn meet(
        &mut self,
        name: &BlobName,
        mut statement: Others,
        round: usize,
    ) -> Result<Option<BlobName>, Trouble> {
        let others = newest_of(self.depot.as_ref(), &statement, Some(name)).await;
        let (scope, leaf) = scope_and_leaf(name.as_str());
        let strangers = others.into_iter().filter(|(other, _, said)| {
            scope_and_leaf(other).0 == scope && !said.known.contains_key(name.as_str())
        });
        let strangers: Vec<_> = strangers.collect();
        if strangers.is_empty() {
            return Ok(None);
        }
        statement.known.insert(name.to_string(), PackInfo { size: 0, created: now() });
        for (other, info, said) in strangers {
            statement.merge(said);
            statement.known.insert(other, info);
        }
        // Of the same scope, and later by its name too.
        let plain = leaf.split('+').next().unwrap_or_default();
        let both = BlobName::new(format!("{scope}{plain}+{round}"));
        let both = both.map_err(|_| Trouble::Pack {
            depot: self.depot.location().to_owned(),
            pack: name.to_string(),
            problem: PackError::Damaged("its name cannot be longer"),
        })?;
        self.say(&both, &statement).await?;
        self.catalog.hear(statement);
        Ok(Some(both))
    }

    /// Whether a pack that was made here can be seen: it is the newest of its scope, or the newest knows it.
    pub(crate) async fn is_seen(&self, name: &BlobName) -> Result<bool, DepotError> {
        let (scope, _) = scope_and_leaf(name.as_str());
        let Some(newest) = self.depot.newest_name(scope).await? else { return Ok(false) };
        // One that is known is older: ours is still to come.
        Ok(newest == *name || !self.catalog.others().known.contains_key(newest.as_str()))
    }

    /// What the next pack says: what is known, and which packs there are that could not be read.
    pub(crate) fn statement(&self) -> Others {
        let mut statement = self.catalog.statement();
        statement.known.extend(self.unread.clone());
        // There may be room for them later.
        let left_out = self.left_out.iter();
        statement.known.extend(left_out.map(|(name, out)| (name.clone(), info(&out.blob))));
        statement
    }

    /// What is wrong with the beginnings of the live packs, which nobody else looks at.
    pub(crate) async fn check_heads(&self) -> Vec<Trouble> {
        let depot = &self.depot;
        let check = |blob: Blob| async move {
            let damaged = |problem| Trouble::Pack {
                depot: depot.location().to_owned(),
                pack: blob.name.to_string(),
                problem,
            };
            let check = || async { Ok(check_head(&depot.read(&blob, 0..HEAD as u64).await?)) };
            match attempts(check).await {
                Ok(checked) => checked.map_err(damaged).err(),
                Err(error) => Some(DepotError::into(error)),
            }
        };
        let blobs = self.catalog.packs().filter_map(|(_, name, _)| self.blobs.get(name).cloned());
        let blobs: Vec<Blob> = blobs.collect();
        let checked = stream::iter(blobs).map(check).buffer_unordered(AT_ONCE);
        checked.filter_map(async |checked| checked).collect().await
    }

    /// How many packs were read.
    pub(crate) fn count(&self) -> usize {
        self.blobs.len()
    }

    /// Takes note that a pack is not there any more.
    pub(crate) fn lose(&mut self, name: &str) {
        self.catalog.lose(name);
        self.blobs.remove(name);
        self.crowded.remove(name);
    }

    /// The depot.
    #[must_use]
    pub fn depot(&self) -> &Arc<dyn Depot> {
        &self.depot
    }

    /// What the packs say together.
    pub fn catalog(&mut self) -> &mut Catalog {
        &mut self.catalog
    }

    /// What the packs say together, to look at.
    #[must_use]
    pub fn peek(&self) -> &Catalog {
        &self.catalog
    }

    /// The blob of a live pack by its number in the catalog.
    #[must_use]
    pub fn blob(&self, pack: u32) -> Option<&Blob> {
        self.catalog.pack(pack).and_then(|(name, _)| self.blobs.get(name))
    }

    /// The packs that are there and cannot be read from here, or cannot be used.
    pub(crate) fn outside(&self) -> &BTreeMap<String, PackInfo> {
        &self.outside
    }

    /// The packs that are there, and damaged so that nothing of them can be read.
    pub(crate) fn unusable(&self) -> Vec<String> {
        self.unusable.iter().cloned().collect()
    }

    /// The packs that were read of scopes that may be read and not written.
    pub(crate) fn all_foreign(&self) -> BTreeSet<String> {
        let names = self.catalog.read_packs().map(|(_, name, _)| name);
        names.filter(|name| self.is_foreign(name)).map(str::to_owned).collect()
    }

    /// The live packs of scopes that may be read and not written.
    pub(crate) fn foreign(&self) -> BTreeSet<String> {
        let names = self.catalog.packs().map(|(_, name, _)| name);
        names.filter(|name| self.is_foreign(name)).map(str::to_owned).collect()
    }

    /// Whether a pack is of a scope that may be read and not written.
    fn is_foreign(&self, name: &str) -> bool {
        let own = self.depot.scopes().and_then(|scopes| scopes.write).map(|scope| prefix(&scope));
        let of_a_scope = name.strip_prefix(PACKS).is_some_and(|rest| rest.starts_with('='));
        own.is_some_and(|own| of_a_scope && !name.starts_with(&own))
    }

    /// What the depot gave no answer about, so that it may be there with all that it needs.
    pub(crate) fn unsure(&self) -> impl Iterator<Item = &str> {
        self.unsure.iter().map(String::as_str)
    }

    /// Reads the newest of these packs, then those that it does not say are replaced, and then those they know
    /// of, until nobody knows of another.
    async fn take_in(&mut self, seen: Vec<Blob>, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let scopes = self.depot.scopes();
        let (mut waiting, outside): (Vec<Blob>, Vec<Blob>) =
            seen.into_iter().partition(|blob| is_readable(blob.name.as_str(), scopes.as_ref()));
        self.outside = outside.iter().map(|blob| (blob.name.to_string(), info(blob))).collect();
        newest_first(&mut waiting);
        // What was replaced is not touched, unless what replaced it is not there: nobody needs it, and to be read is
        // what keeps it from eviction.
        let rest = waiting.split_off(waiting.len().min(1));
        let mut tried: BTreeSet<String> = waiting.iter().map(|blob| blob.name.to_string()).collect();
        self.read(waiting, trouble).await;
        let (replaced, rest): (Vec<Blob>, Vec<Blob>) = rest
            .into_iter()
            .partition(|blob| self.catalog.others().replaced.contains_key(blob.name.as_str()));
        let known = replaced.iter().map(|blob| (blob.name.to_string(), info(blob))).collect();
        self.catalog.hear(Others { known, ..Others::default() });
        self.blobs.extend(replaced.into_iter().map(|blob| (blob.name.to_string(), blob)));
        tried.extend(rest.iter().map(|blob| blob.name.to_string()));
        let mut blobs = rest;
        loop {
            self.read(blobs, trouble).await;
            // Those that there is no room for know of others, too, and replace some.
            let is_news = self.hear_of_crowded(trouble).await;
            // Among them what was replaced by what is not there any more, or cannot be read.
            let unread = self.catalog.unread_but(|name| tried.contains(name)).into_iter();
            let unread: Vec<_> = unread.map(|(name, info)| (name.to_owned(), info)).collect();
            if unread.is_empty() && !is_news {
                break;
            }
            tried.extend(unread.iter().map(|(name, _)| name.clone()));
            blobs = self.find(unread, trouble).await;
        }
        if !self.crowded.is_empty() {
            self.share_room(trouble).await;
        }
    }

    /// Reads the packs that were replaced and that a live one may rely on, for what is in them and nowhere else: all of
    /// them, or those that are not for others to see to. The rest is left alone: to be read is what keeps it from
    /// eviction.
    pub(crate) async fn read_relied_on(&mut self, own: bool, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let relied_on = self.catalog.relied_on().into_iter();
        let relied_on = relied_on.filter(|(name, _)| !own || !self.is_foreign(name));
        // Where there is not enough room, those of them that are of help were read with the others.
        let relied_on =
            relied_on.filter(|(name, _)| self.crowded.is_empty() || !self.loads.contains_key(*name));
        let relied_on: Vec<_> = relied_on.map(|(name, info)| (name.to_owned(), info)).collect();
        let before = self.crowded.len();
        self.find_and_read(relied_on, trouble).await;
        if self.crowded.len() > before {
            // They come before what is older than those that rely on them.
            let left_out = self.left_out.len();
            self.hear_of_crowded(trouble).await;
            self.share_room(trouble).await;
            self.tell_left_out(left_out, trouble);
        }
    }

    /// Reads some of the packs that were replaced and are still there, those first that were replaced last, as far as there
    /// is room: nobody needs those, as far as is known.
    pub(crate) async fn read_replaced(&mut self, most: usize, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let replaced = self.catalog.unread_replaced().into_iter();
        let replaced = replaced.filter(|(name, _)| !self.left_out.contains_key(*name)).take(most);
        let replaced: Vec<_> = replaced.map(|(name, info)| (name.to_owned(), info)).collect();
        let before = self.crowded.clone();
        self.find_and_read(replaced, trouble).await;
        self.crowded = before;
    }

    async fn find_and_read(
        &mut self,
        wanted: Vec<(String, PackInfo)>,
        trouble: &mut (dyn FnMut(Trouble) + Send),
    ) {
        let blobs = self.find(wanted, trouble).await;
        self.read(blobs, trouble).await;
    }

    /// The packs that were replaced, are there as far as can be known without a look at them, and are not read; those
    /// that others have to see to left out.
    pub(crate) fn replaced(&self) -> BTreeMap<String, PackInfo> {
        let unread = self.catalog.unread_replaced().into_iter();
        let there = unread.filter(|(name, _)| !self.listed || self.blobs.contains_key(*name));
        let own = there.filter(|(name, _)| !self.is_foreign(name));
        own.map(|(name, info)| (name.to_owned(), info)).collect()
    }

    /// Takes note that packs are gone that were replaced and are not shown any more; where nothing is listed, those
    /// that were replaced so long ago that what is not used has been evicted.
    pub(crate) fn forget_replaced(&mut self) {
        let (late, evicted) = (now().saturating_sub(LATE), now().saturating_sub(EVICTED));
        let is_gone = |&(name, info): &(&str, PackInfo)| match self.listed {
            true => !self.blobs.contains_key(name) && info.created < late,
            false => self.catalog.replaced_since(name).is_some_and(|since| since < evicted),
        };
        let gone = self.catalog.unread_replaced().into_iter().filter(is_gone);
        let gone: Vec<String> = gone.map(|(name, _)| name.to_owned()).collect();
        gone.iter().for_each(|name| self.catalog.forget(name));
    }

    /// Reads packs, several at once; there is room for the newest of them first, and not for those that come first.
    async fn read(&mut self, mut blobs: Vec<Blob>, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        newest_first(&mut blobs);
        let depot = &self.depot.clone();
        let (packs, taken) = self.taken();
        let packs = blobs.iter().fold(packs, |sum, blob| sum.saturating_add(blob.size));
        let room = &Arc::new(Room::beside(packs, taken));
        let mut stored = fetched(depot.clone(), blobs, room.clone());
        let mut read: Vec<(Blob, Result<Directory, Trouble>)> = Vec::new();
        while let Some((blob, stored)) = stored.next().await {
            let opened = opened(depot.as_ref(), &blob, stored, room).await;
            read.push((blob, opened));
        }
        let mut add = Vec::new();
        for (blob, read) in read {
            match read {
                Ok(directory) => {
                    let load = Load { size: blob.size, weight: directory.weight() };
                    self.loads.insert(blob.name.to_string(), load);
                    add.push((blob.name.to_string(), info(&blob), directory));
                    self.blobs.insert(blob.name.to_string(), blob);
                }
                Err(error) => {
                    self.not_read(&blob, &error);
                    // Of those that there is no room for it is told once of all.
                    if !matches!(error, Trouble::Pack { problem: PackError::NoRoom, .. }) {
                        trouble(error);
                    }
                }
            }
        }
        for (name, problem) in self.catalog.add_all(add) {
            let Some(blob) = self.blobs.get(&name).cloned() else { continue };
            let is_told = !matches!(problem, PackError::NoRoom);
            let error = Trouble::Pack { depot: self.depot.location().to_owned(), pack: name, problem };
            self.not_read(&blob, &error);
            if is_told {
                trouble(error);
            }
        }
    }

    fn not_read(&mut self, blob: &Blob, error: &Trouble) {
        let name = blob.name.as_str();
        match error {
            Trouble::Depot(DepotError { problem: Problem::Gone, .. })
            | Trouble::Frames { .. }
            | Trouble::LeftOut { .. }
            | Trouble::NotServed { .. } => {}
            Trouble::Depot(_) => {
                self.unsure.insert(name.to_owned());
            }
            // It is known, and so is what replaced it: there may be room for it later.
            Trouble::Pack { problem: PackError::NoRoom, .. } => {
                let known = [(name.to_owned(), info(blob))].into();
                self.catalog.hear(Others { known, ..Others::default() });
                self.blobs.insert(name.to_owned(), blob.clone());
                self.crowded.insert(name.to_owned(), blob.clone());
                return;
            }
            // It counts, and a later phoenix may know what to do with it.
            Trouble::Pack { problem, .. } => {
                self.outside.insert(name.to_owned(), info(blob));
                if may_be_damage(problem) {
                    self.unusable.insert(name.to_owned());
                }
            }
        }
        self.crowded.remove(name);
        self.catalog.lose(name);
    }

    /// Those of these packs that are there.
    async fn find(
        &mut self,
        wanted: Vec<(String, PackInfo)>,
        trouble: &mut (dyn FnMut(Trouble) + Send),
    ) -> Vec<Blob> {
        let late = now().saturating_sub(LATE);
        let mut blobs = Vec::new();
        let mut ask = Vec::new();
        for (name, info) in wanted {
            match self.blobs.get(&name) {
                Some(blob) => blobs.push(blob.clone()),
                // All that is there was shown.
                None if self.listed && info.created < late => self.catalog.forget(&name),
                None => ask.extend(BlobName::new(name).ok().map(|name| (name, info))),
            }
        }
        let depot = &self.depot;
        let found: Vec<(BlobName, PackInfo, Result<Option<Blob>, DepotError>)> = stream::iter(ask)
            .map(|(name, info)| async move {
                let found = depot.find(&name).await;
                (name, info, found)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (name, info, found) in found {
            match found {
                Ok(Some(blob)) => blobs.push(blob),
                // Evicted: a miss, and nothing to talk about.
                Ok(None) if info.created < late => self.catalog.forget(name.as_str()),
                Ok(None) => {
                    // A lookup may go backwards. A pack that was replaced is not missed.
                    if !self.listed && !self.catalog.is_replaced(name.as_str()) {
                        self.unsure.insert(name.to_string());
                    }
                    self.catalog.lose(name.as_str());
                }
                Err(error) => {
                    self.unsure.insert(name.to_string());
                    self.catalog.lose(name.as_str());
                    trouble(error.into());
                }
            }
        }
        blobs
    }

    /// Finds the pack that was made before one that cannot be read, which would know the others: names begin with
    /// a time, so that what is not of its time can be asked for digit by digit.
    async fn go_back(&mut self, newest: Blob, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let mut blob = newest;
        for _ in 0..MOST_BACK {
            if self.blobs.contains_key(blob.name.as_str()) {
                return;
            }
            // Whoever can read it later shall find it.
            self.unread.insert(blob.name.to_string(), info(&blob));
            let Some(before) = self.before(blob.name.as_str()).await else { return };
            blob = before;
            self.take_in(vec![blob.clone()], trouble).await;
        }
    }

    /// The newest pack whose name is less, where names are as long and begin with digits.
    async fn before(&self, name: &str) -> Option<Blob> {
        let (scope, leaf) = scope_and_leaf(name);
        let start = scope.len();
        let digits = leaf.bytes().take_while(u8::is_ascii_digit).count();
        for at in (start..start + digits).rev() {
            let digit = name.as_bytes()[at] - b'0';
            for less in (0..digit).rev() {
                let prefix = format!("{}{less}", &name[..at]);
                match self.depot.newest(&prefix).await {
                    Ok(Some(blob)) if blob.name.as_str().starts_with(&prefix) => return Some(blob),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        }
        None
    }

    /// Takes in a pack that was just made, as anybody would who reads it, with those that were made with it at once, and
    /// returns whether it can be seen.
    pub(crate) async fn see(&mut self, name: &BlobName) -> Result<bool, Trouble> {
        if !self.see_one(name).await? {
            return Ok(false);
        }
        let parts = self.catalog.unread().into_iter().map(|(other, _)| other);
        let parts = parts.filter(|other| is_part(other, name.as_str()));
        let parts: Vec<BlobName> = parts.filter_map(|part| BlobName::new(part).ok()).collect();
        for part in parts {
            if !self.see_one(&part).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn see_one(&mut self, name: &BlobName) -> Result<bool, Trouble> {
        let Some(blob) = self.depot.find(name).await? else { return Ok(false) };
        let directory = read_directory(self.depot.as_ref(), &blob).await?;
        let refused = self.catalog.add_all([(name.to_string(), info(&blob), directory)]);
        self.blobs.insert(name.to_string(), blob);
        Ok(refused.is_empty())
    }

    /// Removes a pack.
    pub(crate) async fn remove(&mut self, name: &str) -> Result<(), DepotError> {
        if let Ok(blob) = BlobName::new(name) {
            self.depot.remove(&blob).await?;
        }
        self.give_up(name);
        Ok(())
    }

    /// Takes a pack for gone from now on, which the next pack says.
    pub(crate) fn give_up(&mut self, name: &str) {
        self.blobs.remove(name);
        self.outside.remove(name);
        self.unusable.remove(name);
        self.left_out.remove(name);
        self.superfluous.remove(name);
        self.crowded.remove(name);
        self.catalog.forget(name);
    }
}

/// What the names of all packs of a scope begin with, and what is left of this one.
fn scope_and_leaf(name: &str) -> (&str, &str) {
    name.split_at(name.rfind('/').map_or(0, |at| at + 1))
}

/// What the names of the packs of each scope begin with that may be read.
fn prefixes(depot: &dyn Depot) -> Vec<String> {
    match depot.scopes().filter(|scopes| !scopes.read.is_empty()) {
        Some(scopes) => scopes.read.iter().map(|scope| prefix(scope)).collect(),
        None => vec![PACKS.to_owned()],
    }
}

/// The newest pack of each scope that may be read.
async fn newest(depot: &dyn Depot) -> Result<Vec<Blob>, DepotError> {
    let asking = stream::iter(prefixes(depot)).map(|prefix| async move { depot.newest(&prefix).await });
    let found: Vec<Result<Option<Blob>, DepotError>> = asking.buffer_unordered(AT_ONCE).collect().await;
    found.into_iter().filter_map(Result::transpose).collect()
}

/// The newest packs that a statement does not know, other than this one, with what they say of others, as far as that
/// can be had.
pub(crate) async fn newest_of(
    depot: &dyn Depot,
    statement: &Others,
    own: Option<&BlobName>,
) -> Vec<(String, PackInfo, Others)> {
    let read = |prefix: String| async move {
        let name = depot.newest_name(&prefix).await.ok()??;
        if Some(&name) == own || statement.known.contains_key(name.as_str()) {
            return None;
        }
        let blob = depot.find(&name).await.ok()??;
        let said = Others::decode(read_directory(depot, &blob).await.ok()?.others()).ok()?;
        Some((blob.name.to_string(), info(&blob), said))
    };
    let found = stream::iter(prefixes(depot)).map(read).buffer_unordered(AT_ONCE);
    found.filter_map(async |found| found).collect().await
}

/// Puts the packs first that were made last.
fn newest_first(blobs: &mut [Blob]) {
    blobs.sort_by(|a, b| (b.created, &b.name).cmp(&(a.created, &a.name)));
}
