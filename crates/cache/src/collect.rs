//! Folding and collecting: what `pack` has planned, done to a depot.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use phoenix_depot::{Blob, BlobName, Created, DepotError, Problem};
use phoenix_pack::{Beside, Catalog, Collection, Damaged, Fold, Folded, Frame, Goal, LEVEL, PackError};
use tokio::sync::mpsc::Sender;

use crate::attempts::attempts_at;
use crate::frames::{LARGEST_GAP, LONGEST_RANGE};
use crate::name::scoped;
use crate::packs::{Packs, now};
use crate::save::{body, is_ours};
use crate::{Cache, Trouble};

/// How many packs there may be before a job that saves folds the small ones. A restore looks up every pack, and a
/// repository of GitHub has only so many lookups a minute for all its jobs.
pub const MOST_PACKS: usize = 4;

/// The same where a scope is read by others, too, who have packs of their own.
const MOST_IN_SCOPE: usize = 3;

/// How many packs there may be together with those of scopes that may be read and not written; at least two of the own
/// scope, or a large one would be copied for each small one.
const MOST_WITH_FOREIGN: usize = 5;

/// See [`MOST_WITH_FOREIGN`].
const FEWEST_IN_SCOPE: usize = 2;

/// For how many seconds a pack stays after it was replaced: a job on GitHub's runners ends after six hours, and so
/// does its token. One that began before may make a pack that needs chunks of what is being replaced.
pub const GRACE: u64 = 6 * 3600;

/// For how many seconds after its last run a branch is alive; two weeks.
pub const ALIVE: u64 = 14 * 24 * 3600;

/// How many ranges are on their way at once.
const READS_AT_ONCE: usize = 3;

/// What came of collecting.
#[derive(Debug, Default)]
pub struct Collected {
    /// The pack that was made; none when there was nothing to fold.
    pub pack: Option<BlobName>,
    /// How many bytes it has.
    pub size: u64,
    /// How many of these are frames that were copied as they are.
    pub copied: u64,
    /// The packs that were removed, and how many bytes they had.
    pub removed: Vec<(String, u64)>,
    /// Why packs were not removed that could have been; the depot's own eviction takes them, as nobody reads them.
    pub left: Option<String>,
    /// Paths that are lost because a part of them was damaged.
    pub lost: Vec<String>,
}

/// Why nothing was collected. Nothing is lost.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// What is not known of could be needed by what is not seen.
    #[error(
        "{depot}: it did not tell all that it has ({what}), and what cannot be seen could need what would be dropped"
    )]
    Unsure {
        /// The depot.
        depot: String,
        /// A pack that it gave no answer about.
        what: String,
    },
    /// What needs what is in a pack that is left out cannot be told.
    #[error(
        "{depot}: there is no room for {pack}, and no look into it, so that it cannot be told what needs it; if nobody does, \
         remove it from the depot by hand"
    )]
    Closed {
        /// The depot.
        depot: String,
        /// The pack.
        pack: String,
    },
    /// What is in packs that are left out, or needs something that is in them, would count as gone.
    #[error(
        "{depot}: {} left out for want of room, and what needs something in {} would be let go; `phoenix cache gc` makes \
         room", if *.packs == 1 { "a pack is".to_owned() } else { format!("{packs} packs are") },
        if *.packs == 1 { "it" } else { "them" }
    )]
    LeftOut {
        /// The depot.
        depot: String,
        /// How many packs.
        packs: usize,
    },
    /// Another job makes the pack that was to be made here.
    #[error("{depot}: another job said less than half an hour ago that it folds the same packs")]
    Claimed {
        /// The depot.
        depot: String,
    },
    /// The new pack could not be made.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

impl CollectError {
    /// Whether a pack went away in the middle: another collector was faster. Who looks again finds its work done.
    #[must_use]
    pub fn is_race(&self) -> bool {
        matches!(self, Self::Trouble(Trouble::Depot(DepotError { problem: Problem::Gone, .. })))
    }

    /// Whether what was to be in one pack is more than a pack may say of its paths.
    #[must_use]
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::Trouble(Trouble::Pack { problem: PackError::TooMuch, .. }))
    }
}

/// What makes room in a depot where packs are left out for want of it.
#[derive(Debug, Clone)]
pub struct MakingRoom {
    /// The packs that are let go, and how many bytes they have.
    pub packs: Vec<(String, u64)>,
    /// The paths of other packs that cannot be restored without them.
    pub lost: BTreeSet<String>,
    /// The packs that these are in, to be rewritten, and what is in the packs alone that are let go, as far as there was
    /// a look at it.
    pub damaged: Damaged,
}

/// Frames that are read at once.
#[derive(Debug)]
struct Part {
    source: u32,
    blob: Blob,
    start: u64,
    end: u64,
    frames: Vec<usize>,
}

impl Cache {
    /// The packs that have to be rewritten for these paths to be let go, and those with records that cannot be read.
    pub fn packs_with(&mut self, paths: &BTreeSet<String>) -> BTreeSet<String> {
        let has = |directory: &phoenix_pack::Directory| {
            (0..directory.paths()).any(|number| {
                directory.record(number).map_or(true, |record| paths.contains(&record.info.name))
            })
        };
        let packs = self.packs.catalog().packs();
        packs.filter(|(_, _, directory)| has(directory)).map(|(_, name, _)| name.to_owned()).collect()
    }

    /// Removes the packs that are damaged so that nothing of them can be read and that `is_ours` knows by their names;
    /// those of a version that is not known stay. Returns their names, each with whether it went.
    pub fn remove_unusable(
        &mut self,
        is_ours: impl Fn(&str) -> bool,
    ) -> Vec<(String, Result<(), DepotError>)> {
        let names = self.packs.unusable();
        let removed = names.into_iter().filter(|name| is_ours(name)).map(|name| {
            let removed = self.runtime.block_on(self.packs.remove(&name));
            (name, removed)
        });
        removed.collect()
    }

    /// Whether there are so many packs, or so many bytes in them, that a job which has saved this many bytes
    /// should collect.
    #[must_use]
    pub fn is_crowded(&self, saved: u64, budget: u64) -> bool {
        let catalog = self.packs.peek();
        let foreign = self.packs.foreign();
        let own = catalog.packs().filter(|(_, name, _)| !foreign.contains(*name));
        let live = own.count() + usize::from(saved > 0);
        let most = self.most_packs();
        let known = &catalog.others().known;
        let size =
            catalog.packs().filter_map(|(_, name, _)| known.get(name)).map(|info| info.size).sum::<u64>();
        live > most || size + saved > budget
    }

    /// How many packs of its own scope a job that saves may leave before it folds the small ones.
    #[must_use]
    pub fn most_packs(&self) -> usize {
        if self.packs.depot().scopes().is_none() {
            return MOST_PACKS;
        }
        let beside = MOST_WITH_FOREIGN.saturating_sub(self.packs.foreign().len());
        beside.clamp(FEWEST_IN_SCOPE, MOST_IN_SCOPE)
    }

    /// Removes packs that were replaced longer than `grace` seconds ago and that nobody relies on, if we may, and
    /// returns how many these were, with how many bytes. It takes no other look at the depot, and none at these packs.
    pub fn remove_replaced(&mut self, grace: u64, trouble: &mut (dyn FnMut(Trouble) + Send)) -> (usize, u64) {
        let mut removed = (0, 0);
        // What is not shown may long be gone, and where nothing is shown nothing can be removed.
        // And what a pack relies on that is left out is not known.
        if !self.packs.is_listed() || self.packs.left_out() > 0 {
            return removed;
        }
        let catalog = self.packs.peek();
        let relied_on: BTreeSet<&str> = catalog.relied_on().into_iter().map(|(name, _)| name).collect();
        let is_over = |name: &str| {
            let since = catalog.replaced_since(name);
            !relied_on.contains(name) && since.is_some_and(|since| since.saturating_add(grace) <= now())
        };
        let old: Vec<_> = self.packs.replaced().into_iter().filter(|(name, _)| is_over(name)).collect();
        for (name, info) in old {
            match self.runtime.block_on(self.packs.remove(&name)) {
                Ok(()) => removed = (removed.0 + 1, removed.1 + info.size),
                // Its own eviction takes them.
                Err(DepotError { problem: Problem::Unsupported(_) | Problem::Denied(_), .. }) => break,
                Err(error) => {
                    trouble(error.into());
                    break;
                }
            }
        }
        removed
    }

    /// The packs that were replaced and are still there, as far as the depot shows what it has: how many, and with how
    /// many bytes.
    #[must_use]
    pub fn replaced(&self) -> (usize, u64) {
        if !self.packs.is_listed() {
            return (0, 0);
        }
        let replaced = self.packs.replaced();
        (replaced.len(), replaced.values().map(|info| info.size).sum())
    }

    /// Reads anew what the depot has, and lets go first of what was read: both together take twice as much memory.
    pub fn look_again(&mut self, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let depot = self.packs.depot().clone();
        self.packs = Packs::empty(depot.clone());
        self.packs = self.runtime.block_on(Packs::load(depot, trouble));
    }

    /// Reads what the plans of a collector need beside what was read.
    ///
    /// # Errors
    /// When the depot did not tell all that it has.
    fn read_all(&mut self, trouble: &mut (dyn FnMut(Trouble) + Send)) -> Result<(), CollectError> {
        self.runtime.block_on(self.packs.read_relied_on(true, trouble));
        match self.packs.unsure().next() {
            Some(what) => {
                let depot = self.packs.depot().location().to_owned();
                Err(CollectError::Unsure { depot, what: what.to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Plans what to fold where packs are left out for want of room, so that there may be room for them: nothing that they
    /// may need is let go, and nothing that cannot be restored without them. None where no pack is left out.
    ///
    /// # Errors
    /// When the depot did not tell all that it has.
    pub fn plan_beside_left_out(
        &mut self,
        goal: &Goal,
        trouble: &mut (dyn FnMut(Trouble) + Send),
    ) -> Result<Option<Collection>, CollectError> {
        self.packs.forget_replaced();
        self.read_all(trouble)?;
        if self.packs.left_out() == 0 {
            return Ok(None);
        }
        let damaged = Damaged { later: goal.damaged.later.clone(), ..Damaged::default() };
        let goal = Goal { budget: u64::MAX, room: u64::MAX, damaged, ..goal.clone() };
        Ok(Some(self.plan(&goal)))
    }

    fn plan(&mut self, goal: &Goal) -> Collection {
        let (mut outside, replaced) = (self.packs.outside().clone(), self.packs.replaced());
        // What can be restored comes before what nobody can read.
        for name in self.packs.unusable() {
            outside.entry(name).and_modify(|info| info.created = 0);
        }
        let beside = self.packs.beside();
        // Where those that are left out are let go, nothing waits for them.
        let beside = Beside { is_more: beside.is_more && goal.damaged.gone.is_none(), ..beside };
        let foreign = self.packs.all_foreign();
        let goal = Goal { outside, foreign, replaced, beside, ..goal.clone() };
        Collection::plan(self.packs.catalog(), &goal)
    }

    /// Plans to make room, where packs are left out for want of it: which of them are let go, what is in them alone, and what
    /// of the others cannot be restored without them. None where no pack is left out that may be let go of here.
    ///
    /// # Errors
    /// When the depot did not tell all that it has, or it cannot be told what needs what is let go.
    pub fn plan_room(
        &mut self,
        trouble: &mut (dyn FnMut(Trouble) + Send),
    ) -> Result<Option<MakingRoom>, CollectError> {
        self.read_all(trouble)?;
        let own = self.packs.own_left_out();
        if own.is_empty() {
            return Ok(None);
        }
        let (gone, closed) = self.runtime.block_on(self.packs.only_in_left_out());
        if let Some(pack) = closed.into_iter().next() {
            let depot = self.packs.depot().location().to_owned();
            return Err(CollectError::Closed { depot, pack });
        }
        let lost = Collection::not_whole(self.packs.catalog(), &gone);
        let damaged = Damaged { packs: self.packs_with(&lost), gone: Some(gone), ..Damaged::default() };
        let packs = own.iter().map(|out| (out.blob.name.to_string(), out.blob.size)).collect();
        Ok(Some(MakingRoom { packs, lost, damaged }))
    }

    /// Since when each of the packs has no room that are left out and may be let go of here, in seconds since 1970.
    #[must_use]
    pub fn left_out_since(&self) -> BTreeMap<String, u64> {
        self.packs.own_left_out().into_iter().map(|out| (out.blob.name.to_string(), out.since)).collect()
    }

    /// How many packs are left out that may not be let go of here.
    #[must_use]
    pub fn left_out_of_others(&self) -> usize {
        self.packs.left_out() - self.packs.own_left_out().len()
    }

    /// Lets go of the packs that there is no room for, as was planned, when all else is done and the depot was looked at
    /// anew: those for which there is room now stay. Returns those that went, and whether one stays where it is, so that the
    /// next pack has to say that it is gone: where nobody lists what there is, that is as good.
    ///
    /// # Errors
    /// When one of them cannot be removed, and whoever looks would see it again.
    pub fn make_room(&mut self, room: &MakingRoom) -> Result<(Vec<String>, bool), DepotError> {
        let (mut went, mut stays) = (Vec::new(), false);
        let names = room.packs.iter().map(|(name, _)| name).filter(|name| self.packs.is_left_out(name));
        for name in names.cloned().collect::<Vec<String>>() {
            match self.runtime.block_on(self.packs.remove(&name)) {
                Ok(()) => {}
                // Nobody lists it, and the next pack says that it is gone.
                Err(DepotError { problem: Problem::Unsupported(_) | Problem::Denied(_), .. })
                    if !self.packs.is_listed() =>
                {
                    self.packs.give_up(&name);
                    stays = true;
                }
                Err(error) => return Err(error),
            }
            went.push(name);
        }
        Ok((went, stays))
    }

    /// Whether packs say so much of their paths that it has to be seen whether there is room for all of it still, when some
    /// were removed.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.packs.is_nearly_full()
    }

    /// Plans what to fold and what to let go; [`Goal::outside`] and the like are filled in here. Of the packs that were
    /// replaced it reads those that a live one may rely on, for something in them may be needed again.
    ///
    /// # Errors
    /// When the depot did not tell all that it has, or there is no room for all that its packs say.
    pub fn plan_collection(
        &mut self,
        goal: &Goal,
        trouble: &mut (dyn FnMut(Trouble) + Send),
    ) -> Result<Collection, CollectError> {
        self.packs.forget_replaced();
        self.read_all(trouble)?;
        if self.packs.left_out() > 0 && goal.damaged.gone.is_none() {
            let depot = self.packs.depot().location().to_owned();
            return Err(CollectError::LeftOut { depot, packs: self.packs.left_out() });
        }
        Ok(self.plan(goal))
    }

    /// Does what was planned: makes the new pack, under this name in the scope that may be written, and removes
    /// what may go, if we may.
    ///
    /// # Errors
    /// When the new pack cannot be made; nothing is removed then.
    pub fn collect(
        &mut self,
        name: &BlobName,
        plan: &Collection,
        trouble: &mut (dyn FnMut(Trouble) + Send),
    ) -> Result<Collected, CollectError> {
        let name = scoped(name, self.packs.depot().scopes().as_ref());
        let mut collected = Collected::default();
        let mut removable: Vec<(String, u64)> =
            plan.unwanted.iter().map(|unwanted| (unwanted.name.clone(), unwanted.size)).collect();
        if !plan.sources.is_empty() {
            let folded = self.runtime.block_on(fold(&self.packs, &name, plan, trouble))?;
            collected =
                Collected { size: folded.size, copied: folded.copied, lost: folded.lost, ..collected };
            let seen = self.runtime.block_on(self.packs.see(&name));
            // What was replaced just now goes only when what replaces it was seen to be whole.
            match seen {
                Ok(true) if plan.at_once => {
                    removable.extend(plan.sources.iter().map(|source| (source.name.clone(), source.size)));
                }
                Ok(_) => {}
                Err(error) => trouble(error),
            }
            collected.pack = Some(name);
        }
        for (name, size) in removable {
            match self.runtime.block_on(self.packs.remove(&name)) {
                Ok(()) => collected.removed.push((name, size)),
                Err(error @ DepotError { problem: Problem::Unsupported(_) | Problem::Denied(_), .. }) => {
                    collected.left = Some(error.to_string());
                    break;
                }
                Err(error) => trouble(error.into()),
            }
        }
        Ok(collected)
    }
}

/// Makes the new pack.
async fn fold(
    packs: &Packs,
    name: &BlobName,
    plan: &Collection,
    trouble: &mut (dyn FnMut(Trouble) + Send),
) -> Result<Folded, Trouble> {
    let depot = packs.depot();
    let (to_depot, body) = body();
    let creation = {
        let (depot, name) = (depot.clone(), name.clone());
        tokio::spawn(async move { depot.create(&name, body).await })
    };
    let written = write(packs, name, plan, &to_depot, trouble).await;
    if let Err(error) = &written {
        // The depot keeps nothing of a body that fails.
        drop(to_depot.send(Err(std::io::Error::other(error.to_string()))).await);
    }
    drop(to_depot);
    let created = creation.await;
    // When the depot took no more, it says why.
    let (folded, created) = match (written, created) {
        (Err(_), Ok(Err(error))) if !is_ours(&error) => return Err(error.into()),
        (Err(error), _) => return Err(error),
        (Ok(folded), created) => (folded, created),
    };
    match created {
        Ok(Ok(Created::New(_))) => Ok(folded),
        Ok(Ok(Created::Taken)) => Err(damaged(packs, name, PackError::Damaged("another pack has this name"))),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(damaged(packs, name, PackError::Damaged("sending it broke off"))),
    }
}

fn damaged(packs: &Packs, pack: &BlobName, problem: PackError) -> Trouble {
    Trouble::Pack { depot: packs.depot().location().to_owned(), pack: pack.to_string(), problem }
}

/// Reads the frames of the sources, a few ranges ahead, and sends what the new pack is made of.
async fn write(
    packs: &Packs,
    name: &BlobName,
    plan: &Collection,
    to_depot: &Sender<std::io::Result<Bytes>>,
    trouble: &mut (dyn FnMut(Trouble) + Send),
) -> Result<Folded, Trouble> {
    let catalog = packs.peek();
    let broken = |problem| damaged(packs, name, problem);
    // When the depot wants no more, it has an error of its own to tell.
    let gone = || broken(PackError::Damaged("the depot took no more of it"));
    let (mut fold, head) = Fold::new(LEVEL, plan.exact, plan.is_strict).map_err(broken)?;
    to_depot.send(Ok(Bytes::from_static(head))).await.map_err(|_| gone())?;
    let reading = stream::iter(parts(packs, catalog, plan)).map(|part| {
        let depot = packs.depot().clone();
        // As a task of its own, so that it goes on while frames are opened here.
        tokio::spawn(async move {
            let read = depot.read(&part.blob, part.start..part.end).await;
            (part, read)
        })
    });
    let mut reading = std::pin::pin!(reading.buffered(READS_AT_ONCE));
    let mut told = BTreeSet::new();
    while let Some(read) = reading.next().await {
        let (part, read) = read.map_err(|_| broken(PackError::Damaged("reading broke off")))?;
        // A pack that cannot be read now is not to be replaced.
        let bytes = read?;
        let Some((_, directory)) = catalog.pack(part.source) else { continue };
        for &number in &part.frames {
            let frame = directory.frame(number);
            let here = bytes.slice_ref(slice(&bytes, &frame, part.start));
            let range = frame.offset..frame.offset + u64::from(frame.stored);
            let again = async || Ok::<_, Trouble>(packs.depot().read(&part.blob, range.clone()).await?);
            let check =
                async |stored: Bytes| Ok(if frame.is_whole(&stored) { Ok(stored) } else { Err(stored) });
            let (Ok(stored) | Err(stored)) = attempts_at(Some(here), again, check).await?;
            let wants = |chunk| plan.wants(part.source, chunk);
            let (out, problem) = fold.take(directory, number, &stored, wants).map_err(broken)?;
            // Of one pack the first is told; there may be thousands.
            if let Some(problem) = problem
                && told.insert(part.source)
            {
                trouble(damaged(packs, &part.blob.name, problem));
            }
            for bytes in out {
                to_depot.send(Ok(bytes.into())).await.map_err(|_| gone())?;
            }
        }
    }
    let others = plan.statement(catalog, name.as_str()).encode();
    let mut folded = fold.finish(plan.paths(catalog), others).map_err(broken)?;
    for bytes in std::mem::take(&mut folded.end) {
        to_depot.send(Ok(bytes.into())).await.map_err(|_| gone())?;
    }
    Ok(folded)
}

fn slice<'b>(bytes: &'b Bytes, frame: &Frame, start: u64) -> &'b [u8] {
    let from = usize::try_from(frame.offset - start).unwrap_or(usize::MAX);
    bytes.get(from..from.saturating_add(frame.stored as usize)).unwrap_or_default()
}

/// What has to be read, oldest packs first, so that what was saved together stays together.
fn parts(packs: &Packs, catalog: &Catalog, plan: &Collection) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for source in plan.sources.iter().rev() {
        let (Some(blob), Some((_, directory))) = (packs.blob(source.pack), catalog.pack(source.pack)) else {
            continue;
        };
        for number in 0..directory.frames() {
            if !directory.chunks_in(number).any(|chunk| plan.wants(source.pack, chunk)) {
                continue;
            }
            let frame = directory.frame(number);
            let end = frame.offset + u64::from(frame.stored);
            match parts.last_mut() {
                Some(part)
                    if part.source == source.pack
                        && frame.offset >= part.end
                        && frame.offset - part.end <= LARGEST_GAP
                        && end - part.start <= LONGEST_RANGE =>
                {
                    part.end = end;
                    part.frames.push(number);
                }
                _ => parts.push(Part {
                    source: source.pack,
                    blob: blob.clone(),
                    start: frame.offset,
                    end,
                    frames: vec![number],
                }),
            }
        }
    }
    parts
}
