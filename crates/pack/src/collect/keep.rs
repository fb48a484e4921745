//! What is kept: paths by rank, until the budget is used up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::costs::Costs;
use super::fit::Room;
use super::{Dropped, Goal, Lost};
use crate::catalog::Place;
use crate::{Catalog, PathRecord, Use};

/// What is kept and what is not.
pub(super) struct Keeping {
    /// For each pack, by number, which of its chunks are wanted.
    pub(super) wanted: Vec<Vec<bool>>,
    /// The records that are kept: numbers of packs, and of records in these.
    pub(super) records: Vec<(u32, usize)>,
    /// For each pack, by number, how many bytes of it these are worth.
    pub(super) taken: Vec<u64>,
    /// What is kept is worth so many bytes.
    pub(super) used: u64,
    /// And so many of them what is named.
    pub(super) named: u64,
    /// Whether there was no room for something that is named, or that a live branch needs.
    pub(super) is_strict: bool,
    /// Paths there is no room for, each with the numbers of its pack and record.
    pub(super) dropped: Vec<(Dropped, u32, usize)>,
    /// The packs outside that are kept, and their size.
    pub(super) outside: BTreeMap<String, u64>,
    /// The branches that are known, and whether they are alive.
    pub(super) branches: Vec<(String, bool)>,
    /// What is kept of what roots of a branch refer to that are let go themselves, by branch.
    pub(super) stand_ins: BTreeMap<String, BTreeSet<String>>,
}

/// When a path was saved, by its record or else by its pack.
pub(super) fn saved(catalog: &Catalog, pack: &str, saved: u64) -> u64 {
    if saved > 0 {
        return saved;
    }
    catalog.others().known.get(pack).map_or(0, |info| info.created.saturating_mul(1000))
}

/// A path, with the record of it that is kept if it is.
pub(super) struct Candidate<'c> {
    name: &'c str,
    /// The numbers of those that it refers to.
    references: Box<[u32]>,
    nar_size: u64,
    saved: u64,
    pack: u32,
    number: usize,
    /// Whether each of its chunks is somewhere.
    is_whole: bool,
}

#[derive(Clone, PartialEq, Eq)]
enum State {
    New,
    Entered,
    Kept,
    Dropped(Lost),
}

/// The paths that are not whole, whatever room there is, with all that refer to them.
pub(super) fn not_whole(
    catalog: &Catalog,
    candidates: &[Candidate<'_>],
    gone: &BTreeSet<String>,
) -> BTreeSet<String> {
    let costs = Costs::of(catalog);
    let mut taking = Taking::new(catalog, candidates, &costs, Some(gone), u64::MAX);
    candidates.iter().for_each(|path| taking.take(path.name));
    let states = candidates.iter().zip(&taking.states);
    let lost = states.filter(|(_, state)| matches!(state, State::Dropped(_)));
    lost.map(|(path, _)| path.name.to_owned()).collect()
}

/// What is kept: what is named, and what live branches need, and of the rest what fits with it, as far as there is room for each.
pub(super) fn keep(
    catalog: &Catalog,
    goal: &Goal,
    candidates: &[Candidate<'_>],
    costs: &Costs,
    room: Room,
) -> Keeping {
    let mut taking = Taking::new(catalog, candidates, costs, goal.damaged.gone.as_ref(), room.named);
    taking.used = costs.others();
    for (at, path) in candidates.iter().enumerate() {
        if goal.damaged.paths.contains(path.name) {
            taking.states[at] = State::Dropped(Lost::Damaged);
        }
    }
    for name in &goal.keep {
        taking.take(name);
    }
    let named = taking.used;
    taking.target = room.needed;
    let saved = |root: &String| find(candidates, root).map_or(0, |at| candidates[at].saved);
    // Of branches that ran in the same second, that of which something was saved last.
    let newest = |used: &Use| used.roots.iter().map(saved).max();
    let mut branches: Vec<_> = catalog.others().branches.iter().collect();
    branches.sort_by_cached_key(|(name, used)| (Reverse((used.at, newest(used))), *name));
    let is_alive = |at: u64, roots: usize| roots > 0 && at.saturating_add(goal.alive) >= goal.now;
    for (_, used) in branches.iter().filter(|(_, used)| is_alive(used.at, used.roots.len())) {
        // Of what a branch needs, what was saved last is needed most surely.
        let mut roots: Vec<&String> = used.roots.iter().collect();
        roots.sort_by_cached_key(|root| (Reverse(saved(root)), *root));
        for root in roots {
            taking.take(root);
        }
    }
    let is_strict = taking.states.iter().any(|state| matches!(state, State::Dropped(Lost::NoRoom)));
    taking.target = room.rest;
    // Everything else, newest first; a pack from outside stands where it was made.
    let mut rest: Vec<(u64, &str, Option<u64>)> = candidates
        .iter()
        .filter(|path| catalog.is_live(path.pack))
        .map(|path| (path.saved, path.name, None))
        .chain(
            goal.outside
                .iter()
                .map(|(name, info)| (info.created.saturating_mul(1000), name.as_str(), Some(info.size))),
        )
        .collect();
    rest.sort_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
    let mut outside = BTreeMap::new();
    for (_, name, size) in rest {
        match size {
            None => taking.take(name),
            Some(size) if taking.used + size <= room.rest => {
                taking.used += size;
                outside.insert(name.to_owned(), size);
            }
            Some(_) => {}
        }
    }
    let mut stand_ins = BTreeMap::new();
    for (name, used) in &branches {
        let kept = taking.kept_below(&used.roots);
        if !kept.is_empty() {
            stand_ins.insert((*name).clone(), kept);
        }
    }
    if goal.beside.is_more {
        taking.want_all();
    }
    let branches =
        branches.iter().map(|(name, used)| ((*name).clone(), is_alive(used.at, used.roots.len()))).collect();
    let Taking { wanted, records, taken, states, used, .. } = taking;
    let dropped = candidates.iter().zip(states).filter_map(|(path, state)| {
        let State::Dropped(why) = state else { return None };
        let dropped = Dropped { name: path.name.to_owned(), nar_size: path.nar_size, saved: path.saved, why };
        Some((dropped, path.pack, path.number))
    });
    let mut dropped: Vec<_> = dropped.collect();
    dropped.sort_by(|(a, ..), (b, ..)| (b.saved, &a.name).cmp(&(a.saved, &b.name)));
    Keeping { wanted, records, taken, used, named, is_strict, dropped, outside, branches, stand_ins }
}

/// All paths by name, each once: with its newest record that is whole, of a live pack if there is one.
pub(super) fn candidates(catalog: &Catalog) -> Vec<Candidate<'_>> {
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    for (pack, pack_name, directory) in catalog.read_packs() {
        for number in 0..directory.paths() {
            let Ok(record) = directory.record(number) else { continue };
            let name = std::str::from_utf8(directory.name_of(number));
            let Some(name) = name.ok().filter(|name| *name == record.info.name) else { continue };
            candidates.push(Candidate {
                name,
                references: Box::default(),
                nar_size: record.info.nar_size,
                saved: saved(catalog, pack_name, record.saved),
                pack,
                number,
                is_whole: places(catalog, pack, &record).is_some(),
            });
        }
    }
    let rank = |path: &Candidate<'_>| (path.is_whole, catalog.is_live(path.pack), path.saved);
    // Of equals the first stays.
    candidates.sort_by(|a, b| a.name.cmp(b.name).then_with(|| rank(b).cmp(&rank(a))));
    candidates.dedup_by(|next, first| next.name == first.name);
    for at in 0..candidates.len() {
        let path = &candidates[at];
        let record = catalog.pack(path.pack).and_then(|(_, directory)| directory.record(path.number).ok());
        let references = record.map(|record| record.info.references).unwrap_or_default();
        let numbers = references.iter().filter_map(|name| find(&candidates, name));
        let numbers = numbers.filter_map(|number| u32::try_from(number).ok()).collect();
        candidates[at].references = numbers;
    }
    candidates
}

/// The number of the candidate of this name.
fn find(candidates: &[Candidate<'_>], name: &str) -> Option<usize> {
    candidates.binary_search_by(|path| path.name.cmp(name)).ok()
}

/// Where the chunks of a record are: for each the one place that is kept of all that have it.
fn places(catalog: &Catalog, pack: u32, record: &PathRecord) -> Option<Vec<Place>> {
    let (_, directory) = catalog.pack(pack)?;
    let chunks = record.runs.iter().flat_map(|run| run.first..run.first.saturating_add(run.count));
    let place = |number| {
        let indexed = catalog.place(directory.chunk(number)?);
        indexed.or_else(|| catalog.has_own(pack, number).then_some(Place { pack, chunk: number }))
    };
    chunks.map(place).collect()
}

struct Taking<'c> {
    catalog: &'c Catalog,
    candidates: &'c [Candidate<'c>],
    /// Paths that went with the packs that they were in.
    gone: Option<&'c BTreeSet<String>>,
    states: Vec<State>,
    costs: &'c Costs,
    wanted: Vec<Vec<bool>>,
    records: Vec<(u32, usize)>,
    /// What the records of each pack cost.
    taken: Vec<u64>,
    used: u64,
    target: u64,
}

impl<'c> Taking<'c> {
    fn new(
        catalog: &'c Catalog,
        candidates: &'c [Candidate<'c>],
        costs: &'c Costs,
        gone: Option<&'c BTreeSet<String>>,
        target: u64,
    ) -> Self {
        let wanted: Vec<_> =
            catalog.read_packs().map(|(_, _, directory)| vec![false; directory.chunks()]).collect();
        let taken = vec![0; wanted.len()];
        let states = vec![State::New; candidates.len()];
        Self { catalog, candidates, gone, states, costs, wanted, records: Vec::new(), taken, used: 0, target }
    }

    /// Keeps a path with what it refers to, as far as there is room; those that are referred to first.
    fn take(&mut self, name: &str) {
        let Some(root) = find(self.candidates, name) else { return };
        let mut stack = vec![root];
        while let Some(&at) = stack.last() {
            match self.states[at] {
                State::New => {
                    self.states[at] = State::Entered;
                    let candidates = self.candidates;
                    let references = candidates[at].references.iter().map(|&other| other as usize);
                    stack.extend(references.filter(|&other| self.states[other] == State::New));
                }
                State::Entered => {
                    self.states[at] = self.settle(at);
                    stack.pop();
                }
                State::Kept | State::Dropped(_) => {
                    stack.pop();
                }
            }
        }
    }

    /// Keeps all chunks of live packs, each once, for what is not known may need them.
    fn want_all(&mut self) {
        for (pack, _, directory) in self.catalog.packs() {
            for number in 0..directory.chunks() as u32 {
                let place = directory.chunk(number).and_then(|chunk| self.catalog.place(chunk));
                let Some(place) = place
                    .or_else(|| self.catalog.has_own(pack, number).then_some(Place { pack, chunk: number }))
                else {
                    continue;
                };
                if let Some(slot) = self
                    .wanted
                    .get_mut(place.pack as usize)
                    .and_then(|wanted| wanted.get_mut(place.chunk as usize))
                {
                    *slot = true;
                }
            }
        }
    }

    /// What is kept of what those of these refer to that are let go.
    fn kept_below(&self, roots: &BTreeSet<String>) -> BTreeSet<String> {
        let number = |name: &String| find(self.candidates, name);
        let is_dropped = |at: &usize| matches!(self.states[*at], State::Dropped(_));
        let mut open: Vec<usize> = roots.iter().filter_map(number).filter(is_dropped).collect();
        let mut seen: BTreeSet<usize> = open.iter().copied().collect();
        let mut kept = BTreeSet::new();
        while let Some(at) = open.pop() {
            for other in self.candidates[at].references.iter().map(|&other| other as usize) {
                if self.states[other] == State::Kept {
                    kept.insert(self.candidates[other].name.to_owned());
                } else if is_dropped(&other) && seen.insert(other) {
                    open.push(other);
                }
            }
        }
        kept
    }

    fn settle(&mut self, at: usize) -> State {
        let path = &self.candidates[at];
        let lost = path.references.iter().find(|&&other| {
            // What is damaged is had from elsewhere, or built.
            matches!(&self.states[other as usize], State::Dropped(why) if *why != Lost::Damaged)
        });
        if let Some(&lost) = lost {
            return State::Dropped(Lost::RefersTo(self.candidates[lost as usize].name.to_owned()));
        }
        let record =
            self.catalog.pack(path.pack).and_then(|(_, directory)| directory.record(path.number).ok());
        let references = || record.iter().flat_map(|record| &record.info.references);
        if let Some(gone) = self.gone
            && let Some(lost) = references().find(|name| gone.contains(*name))
        {
            return State::Dropped(Lost::RefersTo(lost.clone()));
        }
        let Some(places) = record.and_then(|record| places(self.catalog, path.pack, &record)) else {
            return State::Dropped(Lost::Incomplete);
        };
        let record = self.costs.record(self.catalog, path.pack, path.number);
        let mut cost = record;
        let mut new = Vec::new();
        for place in places {
            let slot =
                self.wanted.get_mut(place.pack as usize).and_then(|pack| pack.get_mut(place.chunk as usize));
            if let Some(slot) = slot.filter(|slot| !**slot) {
                *slot = true;
                cost += self.costs.chunk(self.catalog, place.pack, place.chunk);
                new.push(place);
            }
        }
        if self.used.saturating_add(cost) > self.target {
            for place in new {
                self.wanted[place.pack as usize][place.chunk as usize] = false;
            }
            return State::Dropped(Lost::NoRoom);
        }
        self.used += cost;
        self.taken[path.pack as usize] += record;
        self.records.push((path.pack, path.number));
        State::Kept
    }
}
