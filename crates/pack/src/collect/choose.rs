//! Which packs are rewritten, and which may go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::costs::Costs;
use super::keep::Keeping;
use super::{Collection, Dropped, Goal, Lost, Source, Unwanted, Why};
use crate::{Catalog, Directory, longest_directories};

/// A pack is rewritten when less than half of it is wanted, and that is worth a request: more than this many
/// bytes.
const WORTH_IT: u64 = 1 << 20;

/// A pack is folded with the smaller ones when it is not this many times as large as they are together. So a byte
/// is copied once for each doubling of what it is copied with, and not at every fold.
const GEOMETRIC: u64 = 2;

/// The least part of a pack that has to be dead for it to be rewritten where there is too much. What is wanted is an
/// estimate; without this bound a pack would be rewritten again and again for the difference.
const DEAD: u64 = 16;

/// How many packs stay at most where there were too many: half as many as the limit that saving has, so that
/// the next ones have room.
const FEW: usize = 2;

/// Which part of the longest directory a fold has at most; those that are folded are in memory beside it.
const DIRECTORY: (u64, u64) = (3, 4);

/// Whether packs of so many bytes, with directories of so many, are made into one.
pub(super) fn fit_together(directories: u64, bytes: u64) -> bool {
    directories <= longest_directories(bytes) / DIRECTORY.1 * DIRECTORY.0
}

/// What is known of a pack that was read.
struct Pack {
    number: u32,
    name: String,
    size: u64,
    /// How many of them are for what is in it, and not for what it says of others.
    worth: u64,
    live: bool,
    /// How many bytes of it a fold would have.
    wanted: u64,
    /// How long its directory is.
    directory: u64,
    /// Whether any chunk or record of it is kept.
    needed: bool,
    /// Whether it has neither chunks nor paths.
    is_bare: bool,
    /// Whether all that is in it could be carried over, if that is asked for.
    is_whole: bool,
    why: Option<Why>,
    /// Whether it is to be rewritten as well, but would say too much with the others in one.
    is_later: bool,
}

/// Whether a pack is not rewritten now, whatever is in it.
fn stays(goal: &Goal, pack: &Pack) -> bool {
    goal.foreign.contains(&pack.name) || goal.damaged.later.contains(&pack.name) || !pack.is_whole
}

/// The packs with records that would be let go, where what these need may be in packs that are not read.
fn not_whole(catalog: &Catalog, goal: &Goal, keeping: &Keeping) -> BTreeSet<u32> {
    let mut packs = BTreeSet::new();
    if !goal.beside.is_more {
        return packs;
    }
    let dropped: BTreeSet<&str> = keeping.dropped.iter().map(|(path, ..)| path.name.as_str()).collect();
    for (number, _, directory) in catalog.packs() {
        let is_dropped = |at| match directory.record(at) {
            Ok(record) => dropped.contains(record.info.name.as_str()),
            Err(_) => true,
        };
        if (0..directory.paths()).any(is_dropped) {
            packs.insert(number);
        }
    }
    packs
}

pub(super) fn choose(
    catalog: &Catalog,
    goal: &Goal,
    keeping: Keeping,
    costs: &Costs,
    exact: bool,
) -> Collection {
    let mut packs = packs(catalog, &keeping, &not_whole(catalog, goal, &keeping), costs, exact);
    let before = super::bytes_in_use(catalog, goal);
    let outside: u64 = keeping.outside.values().sum();
    let others = costs.others();
    let after = |packs: &[Pack]| {
        let kept = packs.iter().map(|pack| match pack.why {
            Some(_) => pack.wanted,
            None if pack.is_later => pack.wanted,
            None if pack.live => pack.size,
            None => 0,
        });
        // What is made says what is known of others.
        let is_made = packs.iter().any(|pack| pack.why.is_some() || pack.is_later);
        outside + kept.sum::<u64>() + if is_made { others } else { 0 }
    };
    for pack in &mut packs {
        pack.why = match (pack.live, pack.needed) {
            // One that says only what it knows of others goes with the small ones.
            (true, false) if !pack.is_bare => Some(Why::Empty),
            (true, true) if pack.wanted + WORTH_IT < pack.worth && pack.wanted < pack.worth / 2 => {
                Some(Why::MostlyDead)
            }
            (false, true) => Some(Why::NeededAgain),
            _ => None,
        };
        if goal.damaged.packs.contains(&pack.name) {
            let is_gone = goal.damaged.gone.is_some();
            pack.why = Some(if is_gone { Why::NotWhole } else { Why::Damaged });
        }
        if stays(goal, pack) {
            pack.why = None;
        }
    }
    while after(&packs) > goal.budget {
        let dead = |pack: &&mut Pack| pack.worth.saturating_sub(pack.wanted);
        let stay = packs
            .iter_mut()
            .filter(|pack| pack.live && pack.why.is_none() && !pack.is_bare && !stays(goal, pack));
        let worst = stay.max_by_key(dead);
        match worst.filter(|pack| pack.worth.saturating_sub(pack.wanted) * DEAD >= pack.worth) {
            Some(worst) => worst.why = Some(Why::OverBudget),
            None => break,
        }
    }
    leave_for_later(&mut packs);
    choose_small(&mut packs, goal);
    Collection { exact, ..finish(catalog, goal, keeping, packs, before, after) }
}

fn packs(
    catalog: &Catalog,
    keeping: &Keeping,
    not_whole: &BTreeSet<u32>,
    costs: &Costs,
    exact: bool,
) -> Vec<Pack> {
    let with_records: BTreeSet<u32> = keeping.records.iter().map(|(pack, _)| *pack).collect();
    let pack = |(number, name, directory): (u32, &str, &Directory)| {
        let wanted = &keeping.wanted[number as usize];
        let size = catalog.others().known.get(name).map_or(0, |info| info.size);
        let records = keeping.taken[number as usize];
        let chunks: u64 =
            (0..directory.frames()).map(|frame| costs.frame(catalog, (number, frame), wanted, exact)).sum();
        Pack {
            number,
            name: name.to_owned(),
            size,
            worth: costs.size(number),
            live: catalog.is_live(number),
            wanted: (chunks + records).min(size),
            directory: directory.size() as u64,
            needed: with_records.contains(&number) || wanted.iter().any(|&wanted| wanted),
            is_bare: directory.chunks() == 0 && directory.paths() == 0,
            is_whole: !not_whole.contains(&number),
            why: None,
            is_later: false,
        }
    };
    catalog.read_packs().map(pack).collect()
}

/// Leaves those packs for another fold that would say too much with the others in one: what is needed again comes first,
/// for it goes otherwise, and then those of which most is dead. What is damaged was chosen by who asked for it.
fn leave_for_later(packs: &mut [Pack]) {
    let is_asked_for = |why: Option<Why>| matches!(why, Some(Why::Damaged | Why::NotWhole));
    let mut chosen: Vec<&mut Pack> =
        packs.iter_mut().filter(|pack| pack.why.is_some() && pack.needed).collect();
    chosen.sort_by_key(|pack| {
        let rank = if is_asked_for(pack.why) { 0 } else { 1 + u8::from(pack.why != Some(Why::NeededAgain)) };
        (rank, Reverse(pack.size.saturating_sub(pack.wanted)), pack.name.clone())
    });
    let (mut directories, mut bytes) = (0, 0);
    for pack in chosen {
        let together = (directories + pack.directory, bytes + pack.wanted);
        if directories == 0 || is_asked_for(pack.why) || fit_together(together.0, together.1) {
            (directories, bytes) = together;
        } else {
            (pack.why, pack.is_later) = (None, true);
        }
    }
}

/// Chooses the smallest packs if there are more than `most`: so many that those that stay are each larger than
/// all that are folded.
fn choose_small(packs: &mut [Pack], goal: &Goal) {
    let most = goal.packs;
    let chosen: u64 = packs.iter().filter(|pack| pack.why.is_some()).map(|pack| pack.wanted).sum();
    let any = packs.iter().any(|pack| pack.why.is_some());
    let others = packs.iter().filter(|pack| pack.why.is_some()).map(|pack| pack.directory).sum::<u64>();
    let mut stay: Vec<&mut Pack> = packs
        .iter_mut()
        .filter(|pack| pack.live && pack.why.is_none() && !pack.is_later && !stays(goal, pack))
        .collect();
    if stay.len() + usize::from(any) <= most.max(1) {
        return;
    }
    stay.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
    let (mut split, mut sum) = (0, chosen);
    // Packs that say much of small paths stay as they are.
    let mut directories = others;
    let mut fitting = 0;
    for (at, pack) in stay.iter().enumerate() {
        directories += pack.directory;
        if fit_together(directories, sum + pack.size) {
            fitting = at + 1;
            if sum > 0 && pack.size < GEOMETRIC * sum {
                split = at + 1;
            }
        }
        sum += pack.size;
    }
    let enough = (stay.len() + 1).saturating_sub(if most == 0 { FEW } else { FEW.min(most) });
    if enough <= fitting {
        split = split.max(enough);
    }
    if split + usize::from(any) < 2 {
        return;
    }
    for pack in &mut stay[..split] {
        pack.why = Some(Why::Small);
    }
}

/// The packs that were replaced and may go, and how many wait with how many bytes. There is no time of grace where
/// there is no room: who relies on what goes then builds again.
fn replaced(catalog: &Catalog, goal: &Goal, packs: &[Pack], after: u64) -> (Vec<Unwanted>, (usize, u64)) {
    let read = packs.iter().filter(|pack| !pack.live && pack.why.is_none());
    let read = read.map(|pack| (pack.name.as_str(), pack.size));
    let unread = goal.replaced.iter().map(|(name, info)| (name.as_str(), info.size));
    let is_later = |name: &str| {
        goal.damaged.later.contains(name) || packs.iter().any(|pack| pack.is_later && pack.name == name)
    };
    let since = |name| catalog.replaced_since(name).unwrap_or(u64::MAX);
    let mut all: Vec<(u64, &str, u64)> =
        read.chain(unread).map(|(name, size)| (since(name), name, size)).collect();
    all.sort_unstable();
    let folded: u64 = packs.iter().filter(|pack| pack.why.is_some()).map(|pack| pack.size).sum();
    let mut left: u64 = all.iter().map(|(.., size)| size).sum();
    let mut waiting = (0, 0);
    let mut unwanted = Vec::new();
    for (since, name, size) in all {
        if goal.beside.relied_on.contains(name) || is_later(name) {
            waiting = (waiting.0 + 1, waiting.1 + size);
            continue;
        }
        let is_over = since.saturating_add(goal.grace) <= goal.now;
        let is_too_much = after.saturating_add(folded).saturating_add(left) > goal.room;
        if is_over || is_too_much {
            left -= size;
            unwanted.push(Unwanted { name: name.to_owned(), size, replaced: true });
        } else {
            waiting = (waiting.0 + 1, waiting.1 + size);
        }
    }
    (unwanted, waiting)
}

fn finish(
    catalog: &Catalog,
    goal: &Goal,
    keeping: Keeping,
    packs: Vec<Pack>,
    before: u64,
    after: impl Fn(&[Pack]) -> u64,
) -> Collection {
    let after = after(&packs);
    let is_part = packs.iter().any(|pack| pack.is_later);
    let rewritten: BTreeSet<u32> =
        packs.iter().filter(|pack| pack.why.is_some()).map(|pack| pack.number).collect();
    let (mut unwanted, waiting) = replaced(catalog, goal, &packs, after);
    for (name, info) in goal.outside.iter().filter(|(name, _)| !keeping.outside.contains_key(*name)) {
        unwanted.push(Unwanted { name: name.clone(), size: info.size, replaced: false });
    }
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
    name_causes(&mut dropped, &keeping);
    let kept = keeping.records.len();
    let records = keeping.records.into_iter().filter(|(pack, _)| rewritten.contains(pack)).collect();
    let sources = packs.into_iter().filter_map(|pack| {
        let Pack { number, name, size, wanted, why, .. } = pack;
        Some(Source { pack: number, name, size, wanted, why: why? })
    });
    let superfluous = goal.beside.superfluous.iter().filter(|(name, _)| !goal.foreign.contains(*name));
    let superfluous = superfluous.map(|(name, info)| Source {
        // It is not read: nothing of it is carried over.
        pack: u32::MAX,
        name: name.clone(),
        size: info.size,
        wanted: 0,
        why: Why::Superfluous,
    });
    Collection {
        before,
        after,
        kept,
        branches: keeping.branches,
        stand_ins: keeping.stand_ins,
        sources: sources.chain(superfluous).collect(),
        is_part,
        exact: false,
        unwanted,
        waiting,
        at_once: goal.grace == 0 && !goal.beside.is_more,
        dropped,
        records,
        wanted: keeping.wanted,
    }
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
