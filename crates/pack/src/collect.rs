//! Folding and collection: which packs are made into one, what is kept of them, and what is let go, as a plan
//! that can be shown before anything is done.
//!
//! What is kept comes first by rank: what the caller names, then what the last runs of branches that are alive
//! reached, newest first, then everything else, newest first; until the budget is used up. Packs are rewritten
//! when much of them is not kept, or when there are many small ones. Nothing is ever changed in place: a fold is
//! a new pack that says which ones it replaces, and these may be removed when nobody can rely on them any more.

mod choose;
mod costs;
mod fit;
mod keep;
mod losses;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{Catalog, Others, PackInfo, PackedPath};

/// What a collection is to reach.
#[derive(Debug, Clone)]
pub struct Goal {
    /// How many bytes all live packs may have together.
    pub budget: u64,
    /// How many bytes all packs may have together with those that were replaced: beyond this there is no time of
    /// grace for these.
    pub room: u64,
    /// What came of plans before.
    pub measured: Measured,
    /// What the time is, in seconds since 1970.
    pub now: u64,
    /// Store paths (`HASH-NAME`) that are kept before all others, with what they refer to.
    pub keep: BTreeSet<String>,
    /// For how many seconds after its last run a branch is alive.
    pub alive: u64,
    /// For how many seconds a pack stays after it was replaced: as long as a job may take that began before, and
    /// may make a pack that needs chunks of it.
    pub grace: u64,
    /// Small packs are folded when there are more packs than this; 0 when folding was asked for.
    pub packs: usize,
    /// Packs that are there and count, but cannot be read from here, such as those of another branch.
    pub outside: BTreeMap<String, PackInfo>,
    /// Packs that others have to see to: what is made here those could not read.
    pub foreign: BTreeSet<String>,
    /// Packs that were replaced and are there, and that were not read, for nobody relies on them.
    pub replaced: BTreeMap<String, PackInfo>,
    /// What is known to be damaged.
    pub damaged: Damaged,
    /// What there is beside the packs that were read.
    pub beside: Beside,
}

/// How often what was planned to be within the budget was not, when it was measured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// How often in all: ever less is planned to be kept of what nobody needs.
    pub over: u32,
    /// How often although something was let go of that somebody needs ([`Collection::is_strict`]): ever less of that is.
    pub strict: u32,
}

impl Measured {
    /// Takes note of a plan that came to more than the budget.
    pub fn note(&mut self, plan: &Collection) {
        self.over += 1;
        // Of what nobody needs nothing may be left.
        self.strict += u32::from(plan.is_strict || plan.dropped.is_empty());
    }

    /// Where little is measured, all that there seems to be too much goes at once.
    #[must_use]
    pub fn at_once() -> Self {
        Self { strict: fit::GENTLY, over: 0 }
    }
}

/// What there is beside the packs that were read, and what they need of these.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// Whether there are packs that are not read, so that what they need is not known: all that is in the others stays or
    /// is carried over, and what cannot be restored without them stays where it is.
    pub is_more: bool,
    /// Packs whose paths and chunks are in those that were read: they are replaced.
    pub superfluous: BTreeMap<String, PackInfo>,
    /// Packs that were replaced and that one may rely on which is not read: they stay.
    pub relied_on: BTreeSet<String>,
}

/// What is known to be damaged, so that it has to be saved anew.
#[derive(Debug, Clone, Default)]
pub struct Damaged {
    /// Paths (`HASH-NAME`) that do not come back as they were: they are let go.
    pub paths: BTreeSet<String>,
    /// Packs that hold something of them: they are rewritten.
    pub packs: BTreeSet<String>,
    /// Packs that hold something of them and are rewritten another time: they stay as they are, with what others need.
    pub later: BTreeSet<String>,
    /// Where packs are let go because there is no room for what they say: the paths that are in these alone, as far as that
    /// is known. What refers to one of them goes with it, for nobody else can be asked for it.
    pub gone: Option<BTreeSet<String>>,
}

impl Damaged {
    /// Shares the packs out, those that were made last first, so that those of each group can be made into one: what they
    /// say of their paths is not more than a pack may say. One that says as much alone is alone.
    #[must_use]
    pub fn groups(&self, catalog: &Catalog) -> Vec<BTreeSet<String>> {
        let mut groups: Vec<BTreeSet<String>> = Vec::new();
        let (mut bytes, mut directories) = (0, 0);
        for (_, name, directory) in catalog.packs().filter(|(_, name, _)| self.packs.contains(*name)) {
            bytes += catalog.others().known.get(name).map_or(0, |info| info.size);
            directories += directory.size() as u64;
            match groups.last_mut() {
                Some(group) if choose::fit_together(directories, bytes) => {
                    group.insert(name.to_owned());
                }
                _ => {
                    groups.push([name.to_owned()].into());
                    bytes = catalog.others().known.get(name).map_or(0, |info| info.size);
                    directories = directory.size() as u64;
                }
            }
        }
        groups
    }
}

/// What is to be done. It is a plan for the catalog that it was made of, and no other.
#[derive(Debug, Clone, Default)]
pub struct Collection {
    /// How many bytes the packs have now that are not replaced, those outside among them.
    pub before: u64,
    /// How many they will have, about; those that are replaced and not removed yet not counted.
    pub after: u64,
    /// How many paths are kept.
    pub kept: usize,
    /// The branches that are known, each with whether it is alive.
    pub branches: Vec<(String, bool)>,
    /// The packs that are made into one; none when nothing is to be written.
    pub sources: Vec<Source>,
    /// What is to be seen to afterwards, by another plan; none when this is all.
    pub next: Option<Next>,
    /// Whether nothing that is not kept is carried along, for there would be too much.
    pub exact: bool,
    /// The packs that nobody needs and that can be removed at once.
    pub unwanted: Vec<Unwanted>,
    /// The packs that are replaced and wait until nobody can rely on them, and how many bytes they have.
    pub waiting: (usize, u64),
    /// Whether the sources may be removed as soon as the new pack is there, because nobody is given time.
    pub at_once: bool,
    /// The paths that nobody can restore any more afterwards.
    pub dropped: Vec<Dropped>,
    /// The paths that are let go [next](Self::next): those that will be, or those that may be.
    pub later: Vec<Dropped>,
    /// Whether something is let go of that is named, or that a live branch needs.
    pub is_strict: bool,
    /// What the new pack comes to.
    estimate: Estimate,
    /// What is kept of what roots of a branch refer to that are let go themselves, by branch: roots in their place.
    stand_ins: BTreeMap<String, BTreeSet<String>>,
    /// The records that go into the new pack: numbers of packs, and of records in these.
    records: Vec<(u32, usize)>,
    /// For each pack of the catalog, which of its chunks are wanted.
    wanted: Vec<Vec<bool>>,
}

/// Why another plan comes after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// More packs are to be rewritten, and all together would say more of their paths than a pack may.
    TooMuchInOne,
    /// How large a pack will be is an estimate, and by that there is no room for all that somebody needs: it goes only where
    /// there is none when everything else went.
    Measure,
}

/// A pack that is made into another one, with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its number in the catalog.
    pub pack: u32,
    /// Its name.
    pub name: String,
    /// How many bytes it has.
    pub size: u64,
    /// How many of them are carried over, about.
    pub wanted: u64,
    /// Why it is rewritten.
    pub why: Why,
}

/// Why a pack is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing of it is kept.
    Empty,
    /// Less than half of it is kept.
    MostlyDead,
    /// All that is in it is in others.
    Superfluous,
    /// It is small, and there are others.
    Small,
    /// Part of it is not kept, and there is too much.
    OverBudget,
    /// It was replaced, but something in it is needed again.
    NeededAgain,
    /// Something in it is damaged.
    Damaged,
    /// Something in it needs what is in packs that are let go for want of room.
    NotWhole,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "nothing of it is kept",
            Self::Superfluous => "all that is in it is in others",
            Self::MostlyDead => "less than half of it is kept",
            Self::Small => "it is small, and there are others",
            Self::OverBudget => "part of it is not kept, and there is too much",
            Self::NeededAgain => "it was replaced, but something in it is needed again",
            Self::Damaged => "something in it is damaged",
            Self::NotWhole => "something in it needs what is in a pack that there is no room for",
        })
    }
}

/// A pack that is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwanted {
    /// Its name.
    pub name: String,
    /// How many bytes it has.
    pub size: u64,
    /// Whether others replaced it; if not, there is no room for it.
    pub replaced: bool,
}

/// A path that is let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its name.
    pub name: String,
    /// The length of its archive, in bytes.
    pub nar_size: u64,
    /// When it was saved last, in milliseconds since 1970.
    pub saved: u64,
    /// Why.
    pub why: Lost,
}

/// Why a path is let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// The budget was used up by what comes before it.
    NoRoom,
    /// It refers to a path that is let go.
    RefersTo(String),
    /// It reaches a path that is not kept, but stays where it is, for its pack is not rewritten; and why that is not kept.
    Needs(String, Box<Self>),
    /// A chunk of it is in no pack.
    Incomplete,
    /// It does not come back as it was.
    Damaged,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("there is no room for it"),
            Self::RefersTo(name) => write!(f, "it refers to {name}"),
            Self::Needs(name, why) => match **why {
                Self::Incomplete => write!(f, "it needs {name}, a part of which is in no pack any more"),
                Self::Damaged => write!(f, "it needs {name}, which is damaged"),
                _ => write!(f, "it needs {name}, and there is no room for both"),
            },
            Self::Incomplete => f.write_str("a part of it is in no pack any more"),
            Self::Damaged => f.write_str("it is damaged"),
        }
    }
}

/// How many bytes the packs have that are in use, with those that are not read.
fn bytes_in_use(catalog: &Catalog, goal: &Goal) -> u64 {
    let beside = goal.outside.values().chain(goal.beside.superfluous.values());
    let live = catalog.packs().filter_map(|(_, name, _)| catalog.others().known.get(name));
    beside.chain(live).map(|info| info.size).sum()
}

/// What a new pack comes to, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Estimate {
    /// How many it has.
    made: u64,
    /// How many all packs have with it, if what is made anew compresses as well as it can.
    at_least: u64,
    /// And if it compresses badly.
    at_most: u64,
    /// What is kept is worth so many, and so many of these what is named.
    used: u64,
    named: u64,
}

impl Collection {
    /// Makes a plan. All packs that are there should have been read, those that were replaced too if somebody may
    /// rely on them ([`Catalog::relied_on`]): what is not known of cannot be kept.
    pub fn plan(catalog: &mut Catalog, goal: &Goal) -> Self {
        catalog.build_index();
        let plan = fit::fit(catalog, goal);
        // Who carries it out needs the memory.
        catalog.forget_places();
        plan
    }

    /// The paths that cannot be put together of the packs that were read, with all that refer to these, and to what is
    /// [`Damaged::gone`].
    #[must_use]
    pub fn not_whole(catalog: &mut Catalog, gone: &BTreeSet<String>) -> BTreeSet<String> {
        catalog.build_index();
        let names = {
            let candidates = keep::candidates(catalog);
            keep::not_whole(catalog, &candidates, gone)
        };
        catalog.forget_places();
        names
    }

    /// How many bytes the packs have that are not replaced, when the new one has so many.
    #[must_use]
    pub fn with_made(&self, made: u64) -> u64 {
        self.after.saturating_sub(self.estimate.made).saturating_add(made)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.sources.is_empty() && self.unwanted.is_empty()
    }

    /// Whether a chunk of a source is carried over, by the number of the pack and its own there.
    #[must_use]
    pub fn wants(&self, pack: u32, chunk: u32) -> bool {
        let chunks = self.wanted.get(pack as usize);
        chunks.and_then(|chunks| chunks.get(chunk as usize)).copied().unwrap_or_default()
    }

    /// The paths of the new pack, one after another: together with their chunks they may be large.
    pub fn paths<'p>(&'p self, catalog: &'p Catalog) -> impl Iterator<Item = PackedPath> + 'p {
        let path = move |&(pack, number): &(u32, usize)| {
            let (name, directory) = catalog.pack(pack)?;
            let record = directory.record(number).ok()?;
            let chunks = record.runs.iter().flat_map(|run| run.first..run.first + run.count);
            Some(PackedPath {
                chunks: chunks.filter_map(|number| directory.chunk(number)).collect(),
                saved: keep::saved(catalog, name, record.saved),
                info: record.info,
                patches: record.patches,
            })
        };
        self.records.iter().filter_map(path)
    }

    /// What the new pack of this name says of others: what is known, and what it replaces.
    #[must_use]
    pub fn statement(&self, catalog: &Catalog, name: &str) -> Others {
        let mut others = catalog.statement();
        for (branch, names) in &self.stand_ins {
            if let Some(used) = others.branches.get_mut(branch) {
                used.roots.extend(names.iter().cloned());
            }
        }
        let sources: BTreeSet<&str> = self.sources.iter().map(|source| source.name.as_str()).collect();
        for by in others.replaced.values_mut() {
            if by.iter().any(|by| sources.contains(by.as_str())) {
                // Of those that were replaced in their turn the first tells since when; the new one stands for the
                // others, or there would be ever more.
                let made = |by: &&String| others.known.get(*by).map(|info| info.created);
                let first = by.iter().filter(|by| made(by).is_some()).min_by_key(made).cloned();
                by.retain(|by| !sources.contains(by.as_str()) || Some(by) == first.as_ref());
                by.insert(name.to_owned());
            }
        }
        for source in &self.sources {
            others.replaced.entry(source.name.clone()).or_default().insert(name.to_owned());
        }
        others
    }
}

#[cfg(test)]
mod tests;
