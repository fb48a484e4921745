//! Which paths nobody can restore any more, and why.

use std::collections::{BTreeMap, BTreeSet};

use super::keep::Keeping;
use super::{Dropped, Goal, Lost};
use crate::Catalog;

/// The paths that are lost when these packs are rewritten.
pub(super) fn dropped(
    catalog: &Catalog,
    goal: &Goal,
    keeping: &Keeping,
    rewritten: &BTreeSet<u32>,
) -> Vec<Dropped> {
    // A path whose pack stays is still there, if its chunks are.
    let is_lost = |pack: u32, number: usize| {
        // What is missing of it may be in a pack that is not read, and all that is there stays or is carried over.
        if goal.beside.is_more {
            return false;
        }
        if rewritten.contains(&pack) || !catalog.is_live(pack) {
            return true;
        }
        let record =
            catalog.pack(pack).and_then(|(_, directory)| Some((directory, directory.record(number).ok()?)));
        record.is_none_or(|(directory, record)| {
            let numbers = record.runs.iter().flat_map(|run| run.first..run.first.saturating_add(run.count));
            let mut foreign = numbers.filter(|&number| !directory.is_own(number));
            foreign.any(|number| {
                let place = directory.chunk(number).and_then(|chunk| catalog.place(chunk));
                place.is_none_or(|place| {
                    rewritten.contains(&place.pack)
                        && !keeping.wanted[place.pack as usize][place.chunk as usize]
                })
            })
        })
    };
    // It may be in another pack as well, which stays.
    let is_elsewhere = |name: &str| {
        let mut records = catalog.packs().filter_map(|(pack, _, directory)| {
            let number = directory.find(name.as_bytes().first_chunk()?)?;
            (directory.name_of(number) == name.as_bytes()).then_some((pack, number))
        });
        records.any(|(pack, number)| !is_lost(pack, number))
    };
    let is_gone =
        |(path, pack, number): &(Dropped, u32, usize)| is_lost(*pack, *number) && !is_elsewhere(&path.name);
    let lost = keeping.dropped.iter().map(is_gone).collect();
    let mut dropped = with_what_needs_them(catalog, &keeping.dropped, lost);
    name_causes(&mut dropped, keeping);
    dropped
}

/// What is dropped, each once, without what is dropped before.
pub(super) fn beside(before: &[Dropped], all: impl IntoIterator<Item = Dropped>) -> Vec<Dropped> {
    let mut seen: BTreeSet<String> = before.iter().map(|path| path.name.clone()).collect();
    all.into_iter().filter(|path| seen.insert(path.name.clone())).collect()
}

/// The paths that are lost, and those that stay where they are and refer to one that is, or to one that does: nobody can
/// restore these either.
fn with_what_needs_them(
    catalog: &Catalog,
    dropped: &[(Dropped, u32, usize)],
    mut lost: Vec<bool>,
) -> Vec<Dropped> {
    let mut numbers: Vec<u32> = (0..dropped.len() as u32).collect();
    let name = |number: u32| dropped[number as usize].0.name.as_str();
    numbers.sort_by_key(|&number| name(number));
    let find = |wanted: &str| {
        let at = numbers.binary_search_by(|&number| name(number).cmp(wanted)).ok()?;
        Some(numbers[at])
    };
    // What refers to what, as far as it is not lost itself.
    let mut needs: Vec<(u32, u32)> = Vec::new();
    for (at, (path, pack, number)) in dropped.iter().enumerate().filter(|(at, _)| !lost[*at]) {
        let record = catalog.pack(*pack).and_then(|(_, directory)| directory.record(*number).ok());
        let references = record.map(|record| record.info.references).unwrap_or_default();
        let others = references.iter().filter(|name| **name != path.name).filter_map(|name| find(name));
        needs.extend(others.map(|other| (other, at as u32)));
    }
    needs.sort_unstable();
    let mut why: BTreeMap<u32, u32> = BTreeMap::new();
    let mut open: Vec<u32> = (0..dropped.len() as u32).filter(|&at| lost[at as usize]).collect();
    while let Some(cause) = open.pop() {
        let first = needs.partition_point(|(other, _)| *other < cause);
        for &(_, at) in needs[first..].iter().take_while(|(other, _)| *other == cause) {
            if !std::mem::replace(&mut lost[at as usize], true) {
                why.insert(at, cause);
                open.push(at);
            }
        }
    }
    let all = dropped.iter().enumerate().filter(|(at, _)| lost[*at]);
    let told = all.map(|(at, (path, ..))| match why.get(&(at as u32)) {
        Some(&cause) => Dropped { why: Lost::RefersTo(name(cause).to_owned()), ..path.clone() },
        None => path.clone(),
    });
    told.collect()
}

/// Sees to it that what is said to be let go because of another path names one that is let go: what stays with its pack,
/// though it is not kept, is told with why it is not.
fn name_causes(dropped: &mut [Dropped], keeping: &Keeping) {
    let names: BTreeSet<String> = dropped.iter().map(|path| path.name.clone()).collect();
    let not_kept: BTreeMap<&str, &Lost> =
        keeping.dropped.iter().map(|(path, ..)| (path.name.as_str(), &path.why)).collect();
    for path in dropped {
        let Lost::RefersTo(name) = &path.why else { continue };
        if names.contains(name) {
            continue;
        }
        // References in a circle are settled one after another, so this ends; it ends all the same if they are not.
        let mut end = name;
        for _ in 0..not_kept.len() {
            match not_kept.get(end.as_str()) {
                Some(Lost::RefersTo(next)) => end = next,
                Some(why) => {
                    path.why = Lost::Needs(end.clone(), Box::new((*why).clone()));
                    break;
                }
                // It went with a pack that is let go.
                None => break,
            }
        }
    }
}
