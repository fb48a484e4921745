//! Which packs are rewritten, and which may go.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::costs::{Costs, RECORD};
use super::fit::Pains;
use super::keep::Keeping;
use super::losses::{beside, dropped};
use super::{Collection, Estimate, Goal, Next, Source, Unwanted, Why};
use crate::fold::KINDS;
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

/// How many times better than it seems what is made anew may compress, as versions of one file do together, or a text that lies
/// beside noise.
const BETTER: u64 = 1024;

/// Which part larger what is made anew may be than it seems.
const WORSE: u64 = 4;

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
    /// The same if what is made anew compresses as well as it may.
    at_least: u64,
    /// The same if that compresses badly.
    at_most: u64,
    /// How long its directory is, and as it is stored.
    directory: u64,
    stored: u64,
    /// Whether any chunk or record of it is kept.
    needed: bool,
    /// Whether each of them is.
    all: bool,
    /// How many of its frames are made anew.
    anew: usize,
    /// Whether it has neither chunks nor paths.
    is_bare: bool,
    /// Whether all that is in it could be carried over, if that is asked for.
    is_whole: bool,
    why: Option<Why>,
    /// Whether it is to be rewritten as well, but would say too much with the others in one.
    is_later: bool,
}

impl Pack {
    /// How many bytes a fold is rid of, with what the pack says of others.
    fn freed(&self) -> u64 {
        self.size.saturating_sub(self.wanted)
    }

    /// How many bytes a fold is rid of.
    fn dead(&self) -> u64 {
        self.worth.saturating_sub(self.wanted)
    }

    /// Whether at least such a part of it is dead.
    fn is_dead(&self, part: u64) -> bool {
        self.dead().saturating_mul(part) >= self.worth
    }
}

/// Whether a pack is not rewritten now, whatever is in it.
fn stays(goal: &Goal, pack: &Pack) -> bool {
    goal.foreign.contains(&pack.name) || goal.damaged.later.contains(&pack.name) || !pack.is_whole
}

/// Whether a pack may still be chosen to be rewritten.
fn may_go(goal: &Goal, pack: &Pack) -> bool {
    pack.live && pack.why.is_none() && !stays(goal, pack)
}

/// The packs with records that would be let go, where what these need may be in packs that are not read.
fn not_whole(catalog: &Catalog, goal: &Goal, keeping: &Keeping) -> BTreeSet<u32> {
    let mut packs = BTreeSet::new();
    if !goal.beside.is_more {
        return packs;
    }
    let lost: BTreeSet<&str> = keeping.dropped.iter().map(|(path, ..)| path.name.as_str()).collect();
    for (number, _, directory) in catalog.packs() {
        let is_dropped = |at| match directory.record(at) {
            Ok(record) => lost.contains(record.info.name.as_str()),
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
    pains: Pains,
) -> Collection {
    let exact = pains != Pains::Few;
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
    loop {
        let now = after(&packs);
        if now <= goal.budget {
            break;
        }
        let worst = if pains == Pains::All {
            improvable(&mut packs, goal, now, others)
        } else {
            let dead =
                packs.iter_mut().filter(|pack| may_go(goal, pack) && !pack.is_bare && pack.is_dead(DEAD));
            dead.max_by_key(|pack| pack.dead())
        };
        match worst {
            Some(worst) => worst.why = Some(Why::OverBudget),
            None => break,
        }
    }
    leave_for_later(&mut packs);
    if before > goal.budget {
        choose_bare(&mut packs, goal);
    }
    let most = if before > goal.budget { u64::MAX } else { goal.budget.saturating_sub(after(&packs)) };
    choose_small(&mut packs, goal, most);
    let after = after(&packs);
    let folded = || packs.iter().filter(|pack| pack.why.is_some());
    let sum = |bytes: fn(&Pack) -> u64| folded().map(bytes).sum::<u64>();
    let estimate = Estimate {
        made: if folded().next().is_some() { sum(|pack| pack.wanted) + others } else { 0 },
        at_least: after - sum(|pack| pack.wanted - pack.at_least),
        at_most: after + sum(|pack| pack.at_most - pack.wanted),
        used: keeping.used,
        named: keeping.named,
    };
    finish(catalog, goal, keeping, packs, Planned { before, after, exact, estimate })
}

/// The pack with most to be rid of where something goes otherwise that somebody needs, however little it is: what is dead; what
/// it says of others, if all go into one and it fits then; and small frames, which compress better together.
fn improvable<'p>(packs: &'p mut [Pack], goal: &Goal, after: u64, others: u64) -> Option<&'p mut Pack> {
    let all = || packs.iter().filter(|pack| may_go(goal, pack) || pack.why.is_some());
    let is_one = fit_together(all().map(|pack| pack.directory).sum(), all().map(|pack| pack.wanted).sum());
    let freed: u64 = packs.iter().filter(|pack| may_go(goal, pack)).map(Pack::freed).sum();
    let is_first = packs.iter().all(|pack| pack.why.is_none());
    // What one pack says alone it says again.
    let is_alone = all().count() == 1;
    let fits =
        is_one && !is_alone && after.saturating_sub(freed) + if is_first { others } else { 0 } <= goal.budget;
    let is_loose = is_one && all().map(|pack| pack.anew).sum::<usize>() > KINDS;
    let may_be = |pack: &Pack| {
        may_go(goal, pack)
            && (fits && pack.freed() > 0 || !pack.is_bare && !pack.all || is_loose && pack.anew > 0)
    };
    packs.iter_mut().filter(|pack| may_be(pack)).max_by_key(|pack| pack.freed())
}

fn packs(
    catalog: &Catalog,
    keeping: &Keeping,
    not_whole: &BTreeSet<u32>,
    costs: &Costs,
    exact: bool,
) -> Vec<Pack> {
    let mut kept: Vec<usize> = vec![0; keeping.wanted.len()];
    for (pack, _) in &keeping.records {
        kept[*pack as usize] += 1;
    }
    let pack = |(number, name, directory): (u32, &str, &Directory)| {
        let wanted = &keeping.wanted[number as usize];
        let size = catalog.others().known.get(name).map_or(0, |info| info.size);
        let records = keeping.taken[number as usize];
        let kept = kept[number as usize];
        let (mut copied, mut made, mut most, mut anew) = (0, 0, 0, 0);
        for frame in 0..directory.frames() {
            let cost = costs.frame(catalog, (number, frame), wanted, exact);
            if cost.is_anew {
                (made, most, anew) = (made + cost.about, most + cost.at_most, anew + 1);
            } else {
                copied += cost.about;
            }
        }
        let least = if kept == directory.paths() { records } else { records.min(kept as u64 * RECORD) };
        Pack {
            number,
            name: name.to_owned(),
            size,
            worth: costs.size(number),
            live: catalog.is_live(number),
            wanted: (copied + made + records).min(size),
            at_least: (copied + made / BETTER + least).min(size),
            at_most: (copied + made + records).min(size) + (most - made) + (made + records) / WORSE,
            directory: directory.size() as u64,
            stored: costs.directory(number),
            needed: kept > 0 || wanted.iter().any(|&wanted| wanted),
            all: kept == directory.paths() && wanted.iter().all(|&wanted| wanted),
            anew,
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

/// Chooses the packs that only say something of others, if a pack is made that says all of it.
fn choose_bare(packs: &mut [Pack], goal: &Goal) {
    let is_bare = |pack: &Pack| pack.is_bare && may_go(goal, pack);
    let is_made = packs.iter().any(|pack| pack.why.is_some());
    if is_made || packs.iter().filter(|pack| is_bare(pack)).count() > 1 {
        packs.iter_mut().filter(|pack| is_bare(pack)).for_each(|pack| pack.why = Some(Why::Small));
    }
}

/// Chooses the smallest packs if there are more than there should be: so many that those that stay are each larger than
/// all that are folded. What they say of their paths may compress worse together, and be half as much again: no more than there
/// is room for.
fn choose_small(packs: &mut [Pack], goal: &Goal, most_more: u64) {
    let most = goal.packs;
    let chosen: u64 = packs.iter().filter(|pack| pack.why.is_some()).map(|pack| pack.wanted).sum();
    let any = packs.iter().any(|pack| pack.why.is_some());
    let others = packs.iter().filter(|pack| pack.why.is_some()).map(|pack| pack.directory).sum::<u64>();
    let rewritten_say = packs.iter().filter(|pack| pack.why.is_some()).map(|pack| pack.stored).sum::<u64>();
    let mut stay: Vec<&mut Pack> =
        packs.iter_mut().filter(|pack| may_go(goal, pack) && !pack.is_later).collect();
    if stay.len() + usize::from(any) <= most.max(1) {
        return;
    }
    stay.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
    let (mut split, mut sum) = (0, chosen);
    // Packs that say much of small paths stay as they are.
    let mut directories = others;
    let mut more = rewritten_say / 2;
    let mut fitting = 0;
    for (at, pack) in stay.iter().enumerate() {
        directories += pack.directory;
        more += pack.stored / 2;
        if fit_together(directories, sum + pack.size) && more <= most_more {
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

/// What is planned; see [`Collection`].
#[derive(Clone, Copy)]
struct Planned {
    before: u64,
    after: u64,
    exact: bool,
    estimate: Estimate,
}

fn finish(
    catalog: &Catalog,
    goal: &Goal,
    keeping: Keeping,
    packs: Vec<Pack>,
    planned: Planned,
) -> Collection {
    let Planned { before, after, exact, estimate } = planned;
    let rewritten: BTreeSet<u32> =
        packs.iter().filter(|pack| pack.why.is_some()).map(|pack| pack.number).collect();
    let (mut unwanted, waiting) = replaced(catalog, goal, &packs, after);
    for (name, info) in goal.outside.iter().filter(|(name, _)| !keeping.outside.contains_key(*name)) {
        unwanted.push(Unwanted { name: name.clone(), size: info.size, replaced: false });
    }
    let dropped = dropped(catalog, goal, &keeping, &rewritten);
    let mut all = rewritten.clone();
    all.extend(packs.iter().filter(|pack| pack.is_later).map(|pack| pack.number));
    let next = (all.len() > rewritten.len()).then_some(Next::TooMuchInOne);
    let later = match next {
        Some(_) => beside(&dropped, self::dropped(catalog, goal, &keeping, &all)),
        None => Vec::new(),
    };
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
        next,
        exact,
        is_strict: keeping.is_strict,
        estimate,
        unwanted,
        waiting,
        at_once: goal.grace == 0 && !goal.beside.is_more,
        dropped,
        later,
        records,
        wanted: keeping.wanted,
    }
}
