use std::collections::BTreeMap;

use super::*;
use crate::{
    Chunk, ChunkId, Compressor, Fold, Footer, FrameBuilder, HASH_LENGTH, LEVEL, PackBuilder, PathInfo, Use,
};

/// The parts from here on compress well.
const DENSE: u32 = 1000;

/// The bytes of a chunk, some more than a page: noise, so that a chunk is as large in its pack as it is, or else nearly nothing.
fn bytes(part: u32) -> Vec<u8> {
    if part >= DENSE { part.to_le_bytes().repeat(500 + part as usize % 25) } else { random_bytes(part) }
}

fn random_bytes(part: u32) -> Vec<u8> {
    let mut next = numbers(u64::from(part).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..2000 + part as usize % 100).map(|_| (next() >> 24) as u8).collect()
}

/// Numbers that look random, the same for a seed.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn chunk(part: u32) -> Chunk {
    let bytes = bytes(part);
    Chunk { id: ChunkId::of(&bytes), length: bytes.len() as u32 }
}

fn name(number: u32) -> String {
    format!("{number:0HASH_LENGTH$}-p")
}

fn path(number: u32, parts: &[u32], references: &[u32], saved: u64) -> PackedPath {
    let info = PathInfo {
        name: name(number),
        nar_hash: [number as u8; 32],
        nar_size: parts.iter().map(|&part| u64::from(chunk(part).length)).sum(),
        references: references.iter().map(|&number| name(number)).collect(),
        deriver: None,
        signatures: vec![],
        ca: None,
    };
    PackedPath { info, chunks: parts.iter().map(|&part| chunk(part)).collect(), patches: vec![], saved }
}

/// A depot in memory: packs by name, and when they were made.
#[derive(Default)]
struct World {
    packs: BTreeMap<String, (u64, Vec<u8>)>,
}

impl World {
    fn open(&self, name: &str) -> (PackInfo, crate::Directory) {
        let (created, pack) = &self.packs[name];
        let footer = Footer::parse(pack, pack.len() as u64).unwrap();
        let range = footer.directory.start as usize..footer.directory.end as usize;
        (PackInfo { size: pack.len() as u64, created: *created }, footer.open(&pack[range]).unwrap())
    }

    /// What somebody knows who sees all packs but those, and reads those that are live and those that these may
    /// rely on.
    fn catalog_without(&self, hidden: &[&str]) -> Catalog {
        let mut all = Catalog::default();
        let seen = || self.packs.keys().filter(|name| !hidden.contains(&name.as_str()));
        for name in seen() {
            let (info, directory) = self.open(name);
            all.add(name, info, directory).unwrap();
        }
        let mut catalog = Catalog::default();
        let read = |catalog: &mut Catalog, name: &str| {
            let (info, directory) = self.open(name);
            catalog.add(name, info, directory).unwrap();
        };
        for name in seen() {
            if all.is_replaced(name) {
                let known = [(name.clone(), self.open(name).0)].into();
                catalog.hear(Others { known, ..Others::default() });
            } else {
                read(&mut catalog, name);
            }
        }
        let relied_on = catalog.relied_on().into_iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        for name in relied_on.iter().filter(|name| self.packs.contains_key(*name)) {
            read(&mut catalog, name);
        }
        catalog
    }

    /// A goal with what this catalog knows to be replaced and did not read.
    fn aim(&self, catalog: &Catalog, goal: &Goal) -> Goal {
        let replaced =
            catalog.unread_replaced().into_iter().filter(|(name, _)| self.packs.contains_key(*name));
        Goal { replaced: replaced.map(|(name, info)| (name.to_owned(), info)).collect(), ..goal.clone() }
    }

    fn catalog(&self) -> Catalog {
        self.catalog_without(&[])
    }

    /// Saves paths by what somebody knows, who may have looked long ago.
    fn save(&mut self, catalog: &mut Catalog, name: &str, now: u64, paths: Vec<PackedPath>) {
        let paths: Vec<PackedPath> =
            paths.into_iter().filter(|path| !catalog.keeps(path.info.hash_part().unwrap())).collect();
        let (mut builder, head) = PackBuilder::new();
        let mut pack = head.to_vec();
        let (mut frame, mut compressor) = (FrameBuilder::default(), Compressor::new(LEVEL).unwrap());
        let mut new = BTreeSet::new();
        let known = catalog.chunks();
        for chunk in paths.iter().flat_map(|path| &path.chunks) {
            if !known.has(*chunk) && new.insert(chunk.id) {
                let part = (0..2 * DENSE).find(|&part| self::chunk(part).id == chunk.id).unwrap();
                frame.push(chunk.id, &bytes(part));
                if new.len() % 4 == 0 {
                    let sealed = frame.seal(&mut compressor).unwrap();
                    builder.add(&sealed);
                    pack.extend(sealed.bytes);
                }
            }
        }
        if !frame.is_empty() {
            let sealed = frame.seal(&mut compressor).unwrap();
            builder.add(&sealed);
            pack.extend(sealed.bytes);
        }
        pack.extend(builder.finish(paths, catalog.statement().encode()).unwrap());
        self.packs.insert(name.to_owned(), (now, pack));
    }

    /// Carries a plan out, up to the new pack.
    fn fold(&mut self, catalog: &Catalog, plan: &Collection, name: &str, now: u64) {
        if plan.sources.is_empty() {
            return;
        }
        let (mut fold, head) = Fold::new(LEVEL, plan.exact, plan.is_strict).unwrap();
        let mut pack = head.to_vec();
        for source in &plan.sources {
            let (name, directory) = catalog.pack(source.pack).unwrap();
            for number in 0..directory.frames() {
                let frame = directory.frame(number);
                if !directory.chunks_in(number).any(|chunk| plan.wants(source.pack, chunk)) {
                    continue;
                }
                let range = frame.offset as usize..frame.offset as usize + frame.stored as usize;
                let stored = &self.packs[name].1[range];
                let (out, problem) =
                    fold.take(directory, number, stored, |chunk| plan.wants(source.pack, chunk)).unwrap();
                assert_eq!(problem, None);
                pack.extend(out.concat());
            }
        }
        let folded = fold.finish(plan.paths(catalog), plan.statement(catalog, name).encode()).unwrap();
        assert!(folded.lost.is_empty());
        pack.extend(folded.end.concat());
        assert_eq!(pack.len() as u64, folded.size);
        self.packs.insert(name.to_owned(), (now, pack));
    }

    fn remove(&mut self, plan: &Collection) {
        for unwanted in &plan.unwanted {
            self.packs.remove(&unwanted.name);
        }
    }

    /// Plans, folds and removes.
    fn collect(&mut self, goal: &Goal, name: &str) -> Collection {
        let mut catalog = self.catalog();
        let goal = self.aim(&catalog, goal);
        let plan = Collection::plan(&mut catalog, &goal);
        self.fold(&catalog, &plan, name, goal.now);
        self.remove(&plan);
        plan
    }

    /// Lets go of all that nobody needs, whatever there is room for.
    fn keep_needed(&mut self, goal: &Goal) {
        let mut catalog = self.catalog();
        catalog.build_index();
        let plan = {
            let (candidates, costs) = (keep::candidates(&catalog), costs::Costs::of(&catalog));
            let goal = Goal { budget: 0, ..goal.clone() };
            let room = fit::Room { named: u64::MAX, needed: u64::MAX, rest: 0 };
            let keeping = keep::keep(&catalog, &goal, &candidates, &costs, room);
            choose::choose(&catalog, &goal, keeping, &costs, fit::Pains::All)
        };
        self.fold(&catalog, &plan, "alone", goal.now);
    }

    /// Collects until what was made is within the budget, as `gc` does; the plans.
    fn settle(&mut self, goal: &Goal) -> Vec<Collection> {
        let mut goal = goal.clone();
        let mut plans = Vec::new();
        for round in 0..16 {
            let plan = self.collect(&goal, &format!("t{round}"));
            let is_end = self.size_of_live() <= goal.budget || plan.sources.is_empty();
            goal.measured.note(&plan);
            plans.push(plan);
            if is_end {
                return plans;
            }
        }
        panic!("no end: {plans:?}")
    }

    fn size_of_live(&self) -> u64 {
        self.catalog().packs().map(|(_, name, _)| self.packs[name].1.len() as u64).sum()
    }

    fn live(&self) -> Vec<String> {
        self.catalog().packs().map(|(_, name, _)| name.to_owned()).collect()
    }
}

/// The bytes of a path, as a restore makes them; none when it cannot be had.
fn restored(world: &World, catalog: &mut Catalog, number: u32) -> Option<Vec<u8>> {
    let located = catalog.locate(name(number).as_bytes().first_chunk().unwrap())?;
    let mut all = Vec::new();
    for piece in located.pieces {
        let (pack, directory) = catalog.pack(piece.pack).unwrap();
        let frame = directory.frame(piece.frame as usize);
        let range = frame.offset as usize..frame.offset as usize + frame.stored as usize;
        let frame = crate::open_frame(&frame, &world.packs[pack].1[range]).unwrap();
        all.extend(&frame[piece.offset as usize..(piece.offset + piece.length) as usize]);
    }
    Some(all)
}

fn parts(parts: &[u32]) -> Vec<u8> {
    parts.iter().flat_map(|&part| bytes(part)).collect()
}

fn goal(now: u64) -> Goal {
    Goal {
        budget: 1 << 30,
        measured: Measured::default(),
        room: u64::MAX,
        now,
        keep: BTreeSet::new(),
        alive: 1000,
        grace: 100,
        packs: 0,
        outside: BTreeMap::new(),
        foreign: BTreeSet::new(),
        replaced: BTreeMap::new(),
        damaged: Damaged::default(),
        beside: Beside::default(),
    }
}

fn dropped(plan: &Collection) -> Vec<(&str, &Lost)> {
    plan.dropped.iter().map(|dropped| (dropped.name.as_str(), &dropped.why)).collect()
}

#[test]
fn many_small_packs_become_one_and_all_paths_stay() {
    let mut world = World::default();
    for number in 0..10 {
        let mut catalog = world.catalog();
        let parts = [number, number + 1, 100 + number];
        world.save(
            &mut catalog,
            &format!("s{number}"),
            u64::from(number),
            vec![path(number, &parts, &[], 5)],
        );
    }
    let plan = world.collect(&goal(50), "f");
    assert_eq!((plan.sources.len(), plan.unwanted.len(), plan.dropped.len(), plan.kept), (10, 0, 0, 10));
    assert_eq!(world.live(), ["f"]);
    assert_eq!(world.packs.len(), 11, "nobody may rely on the old ones for a while yet");
    for number in 0..10 {
        let whole = parts(&[number, number + 1, 100 + number]);
        assert_eq!(restored(&world, &mut world.catalog(), number), Some(whole));
    }
    // When they were saved does not change.
    let catalog = world.catalog();
    let (_, _, directory) = catalog.packs().next().unwrap();
    assert!((0..10).all(|number| directory.record(number).unwrap().saved == 5));

    // Later they go, and then there is nothing to do.
    let plan = world.collect(&goal(149), "g");
    assert_eq!((plan.unwanted.len(), plan.waiting.0, plan.sources.len()), (0, 10, 0));
    let plan = world.collect(&goal(150), "g");
    assert_eq!((plan.unwanted.len(), plan.sources.len()), (10, 0));
    assert_eq!(world.packs.keys().collect::<Vec<_>>(), ["f"]);
    assert!(world.collect(&goal(1000), "g").is_nothing());
}

#[test]
fn a_large_pack_is_not_copied_for_a_small_one() {
    let mut world = World::default();
    let large: Vec<u32> = (0..100).collect();
    world.save(&mut Catalog::default(), "large", 1, vec![path(1, &large, &[], 0)]);
    let mut catalog = world.catalog();
    world.save(&mut catalog, "small", 2, vec![path(2, &[200], &[], 0)]);
    assert!(world.collect(&goal(10), "f").is_nothing());
    // Saving folds only when there are too many, and then leaves a few.
    for number in 3..11 {
        let mut catalog = world.catalog();
        world.save(
            &mut catalog,
            &format!("s{number}"),
            number.into(),
            vec![path(number, &[200 + number], &[], 0)],
        );
    }
    let nine = Goal { packs: 10, ..goal(20) };
    assert!(world.collect(&nine, "f").is_nothing());
    let plan = world.collect(&Goal { packs: 8, ..goal(20) }, "f");
    assert_eq!(plan.sources.len(), 9);
    assert!(plan.sources.iter().all(|source| source.why == Why::Small && source.name != "large"));
    assert_eq!(world.live(), ["f", "large"]);
}

#[test]
fn packs_that_say_much_are_not_made_into_one_that_says_too_much() {
    let mut world = World::default();
    // Each of the first two says 26 MiB of its paths.
    for (number, count, size) in [(0, 26, 1 << 20), (1, 26, 1 << 20), (2, 1, 1), (3, 1, 1)] {
        let paths = (number * 100..number * 100 + count).map(|number| {
            let mut path = path(number, &[number], &[], 5);
            path.info.signatures = vec!["s".repeat(size)];
            path
        });
        let paths = paths.collect();
        world.save(&mut Catalog::default(), &format!("s{number}"), u64::from(number), paths);
    }
    let plan = world.collect(&goal(50), "f");
    assert_eq!(plan.sources.len(), 3, "{:?}", plan.sources);
    assert_eq!(world.live().len(), 2);
    assert!(world.collect(&goal(60), "g").is_nothing());
}

/// Nothing goes where all is within the budget, whatever it is made of.
#[test]
fn what_fits_stays() {
    // Many small paths, and few large ones; each in packs of its own.
    for (packs, paths, chunks) in [(6, 40, 0), (6, 40, 1), (5, 3, 12)] {
        let mut world = World::default();
        for pack in 0..packs {
            let mut catalog = world.catalog();
            let all = (0..paths).map(|at| {
                let number = pack * paths + at;
                let parts: Vec<u32> = (0..chunks).map(|chunk| (number * chunks + chunk) % 1000).collect();
                path(number, &parts, &[], u64::from(number + 1))
            });
            world.save(&mut catalog, &format!("s{pack}"), u64::from(pack), all.collect());
        }
        let size = world.size_of_live();
        for budget in [size, size + size / 100, size * 2] {
            let plan = Collection::plan(&mut world.catalog(), &Goal { budget, ..goal(100) });
            assert!(plan.dropped.is_empty(), "{budget} of {size}: {plan:?}");
            // What packs say of their paths may take more in one than in several, and then it would be too much.
            let may_be_too_much = budget == size || chunks == 0 && budget < size + size / 4;
            assert_eq!(plan.sources.len() > 1, !may_be_too_much, "{budget} of {size}: {plan:?}");
        }
        // With less than there is only what is missing goes, about.
        let budget = size - size / 10;
        let plan = Collection::plan(&mut world.catalog(), &Goal { budget, ..goal(100) });
        let (all, most) = ((packs * paths) as usize, (packs * paths) as usize / 4 + 2);
        assert!(plan.dropped.len() <= most && plan.after <= budget + budget / 32, "{all}: {plan:?}");
    }
}

/// What is dead lies evenly between what a branch needs: that goes, and nothing else.
#[test]
fn what_is_needed_stays_where_what_is_dead_lies_between() {
    let mut world = World::default();
    let mut catalog = Catalog::default();
    let paths = (0..200).map(|number| path(number, &[number], &[], 5)).collect();
    let needed: Vec<u32> = (0..200).filter(|number| number % 5 > 0).collect();
    let roots = needed.iter().map(|&number| name(number)).collect();
    catalog.note_use("main", Use { run: 1, at: 90, roots });
    world.save(&mut catalog, "s", 1, paths);
    let size = world.size_of_live();
    for part in [83, 86, 90, 94] {
        let mut world = World { packs: world.packs.clone() };
        let goal = Goal { budget: size * part / 100, grace: 0, ..goal(100) };
        let plan = world.collect(&goal, "f");
        assert!(plan.after <= goal.budget + goal.budget / 32, "{part}: {} of {size}", plan.after);
        let names = world.catalog().names();
        assert!(needed.iter().all(|&number| names.contains(&name(number))), "{part}: {}", names.len());
        assert!(names.len() < 200 && world.live() == ["f"], "{part}: {:?}", world.live());
        assert!(needed.iter().all(|&at| restored(&world, &mut world.catalog(), at) == Some(parts(&[at]))));
        assert!(world.collect(&goal, "g").sources.is_empty(), "{part}: it comes to rest");
    }
}

/// What is needed shares parts with what is not, and some of it compresses well and some not at all, so that a path may be worth
/// much more or less than its part of a frame: where it fits all of it stays, and where it does not the budget is used.
#[test]
fn what_is_needed_goes_by_no_estimate() {
    let (mut folds, mut used) = (0, Vec::new());
    for seed in 1..16_u64 {
        let mut next = numbers(seed);
        let mut random = move |below: u32| (next() % u64::from(below)) as u32;
        let mut world = World::default();
        let mut needed: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let dense = random(4) + 1;
        for pack in 0..1 + random(4) {
            let mut catalog = world.catalog();
            let paths = (pack * 20..pack * 20 + 20).map(|number| {
                let of = |random: &mut dyn FnMut(u32) -> u32| match random(5) < dense {
                    true => DENSE + random(200),
                    false => random(200),
                };
                let parts: Vec<u32> = (0..1 + random(6)).map(|_| of(&mut random)).collect();
                if random(2) == 0 {
                    needed.insert(number, parts.clone());
                }
                path(number, &parts, &[], u64::from(number + 1))
            });
            let paths = paths.collect();
            let roots = needed.keys().map(|&number| name(number)).collect();
            catalog.note_use("main", Use { run: u64::from(pack), at: 90, roots });
            world.save(&mut catalog, &format!("s{pack}"), u64::from(pack), paths);
        }
        let mut collect = |budget: u64| {
            let mut world = World { packs: world.packs.clone() };
            let goal = Goal { budget, grace: 0, ..goal(100) };
            let plans = world.settle(&goal);
            folds += plans.iter().filter(|plan| plan.after > budget && !plan.sources.is_empty()).count();
            assert!(world.collect(&goal, "u").dropped.is_empty(), "seed {seed}: it comes to rest");
            world
        };
        let all = |world: &World| {
            let names = world.catalog().names();
            needed.keys().filter(|&&number| names.contains(&name(number))).count()
        };
        let mut alone = World { packs: world.packs.clone() };
        alone.keep_needed(&goal(100));
        assert_eq!((all(&alone), alone.catalog().names().len()), (needed.len(), needed.len()));
        for part in [101, 103, 105, 110, 120, 150] {
            let world = collect(alone.size_of_live() * part / 100);
            assert_eq!(all(&world), needed.len(), "seed {seed}, {part}");
        }
        // With less not all of it fits, and what does uses nearly all that there is.
        for part in [95, 80, 50] {
            let budget = alone.size_of_live() * part / 100;
            let world = collect(budget);
            let size = world.size_of_live();
            assert!(size <= budget, "seed {seed}, {part}: {size} of {budget}");
            used.push(size as f64 / budget as f64);
        }
    }
    assert!(folds > 5, "nothing was measured");
    let mean = used.iter().sum::<f64>() / used.len() as f64;
    assert!(mean > 0.8, "{mean} of the budget is used");
}

/// What compresses well has room where what is beside it in its frame has none, and versions of one thing take little together.
#[test]
fn what_takes_little_stays_where_what_takes_much_does_not_fit() {
    let mut world = World::default();
    let mut catalog = Catalog::default();
    catalog.note_use("main", Use { run: 1, at: 90, roots: (0..21).map(name).collect() });
    // The first is what was saved last.
    let mut paths = vec![path(0, &(0..100).collect::<Vec<_>>(), &[], 9)];
    paths.extend((1..21).map(|number| path(number, &[DENSE + number, DENSE + 100 + number], &[], 5)));
    world.save(&mut catalog, "s", 1, paths);
    let budget = world.size_of_live() * 9 / 10;
    let plans = world.settle(&Goal { budget, grace: 0, ..goal(100) });
    let left = world.catalog().names();
    assert!(!left.contains(&name(0)) && left.len() > 15, "{left:?}: {plans:?}");
}

/// Nothing is folded again that comes to the same.
#[test]
fn a_pack_is_not_rewritten_for_what_it_says_again() {
    let mut world = World::default();
    let mut catalog = Catalog::default();
    catalog.note_use("main", Use { run: 1, at: 90, roots: (0..300).map(name).collect() });
    let paths = (0..300).map(|number| path(number, &[], &[], 5)).collect();
    world.save(&mut catalog, "s", 1, paths);
    let size = world.size_of_live();
    for less in [1, 50, 500] {
        let mut world = World { packs: world.packs.clone() };
        let plans = world.settle(&Goal { budget: size - less, grace: 0, ..goal(100) });
        assert!(plans.len() <= 5, "{less}: {}", plans.len());
        assert!(world.catalog().names().len() >= 200, "{less}: {}", world.catalog().names().len());
    }
}

/// Of a large pack of which a little is dead, that goes before what is needed, however little it is.
#[test]
fn the_little_that_nobody_needs_goes_first() {
    let mut world = World::default();
    let mut catalog = Catalog::default();
    let roots = (0..990).map(name).collect();
    catalog.note_use("main", Use { run: 1, at: 90, roots });
    let mut paths: Vec<PackedPath> = (0..990).map(|number| path(number, &[number], &[], 5)).collect();
    paths.push(path(995, &[DENSE + 1, DENSE + 2, 995], &[], 5));
    world.save(&mut catalog, "s", 1, paths);
    let size = world.size_of_live();
    for less in [300, 1000, 2000] {
        let mut world = World { packs: world.packs.clone() };
        let goal = Goal { budget: size - less, grace: 0, ..goal(100) };
        world.settle(&goal);
        assert_eq!(world.catalog().names().len(), 990, "{less}");
        assert!(world.size_of_live() <= goal.budget, "{less}");
    }
}

/// What a branch needs that was saved last is kept of two that ran in the same second, whatever they are called.
#[test]
fn of_branches_that_ran_at_once_the_one_that_saved_last_comes_first() {
    for last in ["a", "b"] {
        let mut world = World::default();
        let mut catalog = Catalog::default();
        for (branch, root) in [("a", 1), ("b", 2)] {
            catalog.note_use(branch, Use { run: 1, at: 90, roots: [name(root)].into() });
        }
        let saved = |branch| if branch == last { 90_500 } else { 90_100 };
        let paths = vec![path(1, &[1, 2, 3], &[], saved("a")), path(2, &[4, 5, 6], &[], saved("b"))];
        world.save(&mut catalog, "s", 1, paths);
        world.settle(&Goal { budget: 7_500, grace: 0, ..goal(100) });
        assert_eq!(world.catalog().names(), [name(if last == "a" { 1 } else { 2 })].into());
    }
}

/// Packs of which little is kept, and which say more together than one may, are rewritten one after another.
#[test]
fn packs_that_would_say_too_much_in_one_are_rewritten_one_after_another() {
    let mut world = World::default();
    let noise = |number: u32| -> String {
        let bytes = (0..520).flat_map(|part| random_bytes(number * 1000 + part));
        bytes.map(|byte| char::from(b'0' + byte % 64)).collect()
    };
    let path = |number: u32| {
        let mut path = path(number, &[number], &[], 5);
        path.info.signatures = vec![noise(number)];
        path
    };
    // Each says 25 MiB of its paths.
    for first in [100, 200] {
        let paths = (first..first + 25).map(path).collect();
        world.save(&mut Catalog::default(), &format!("s{first}"), first.into(), paths);
    }
    let keep: BTreeSet<String> = (100..108).chain(200..208).map(name).collect();
    let goal = Goal { keep: keep.clone(), budget: 16 << 20, grace: 0, packs: 9, ..goal(500) };
    let rewritten = |plan: &Collection| -> Vec<(String, Why)> {
        plan.sources.iter().map(|source| (source.name.clone(), source.why)).collect()
    };
    let plan = world.collect(&goal, "f");
    assert_eq!(rewritten(&plan).len(), 1, "{:?}", plan.sources);
    assert!(plan.next == Some(Next::TooMuchInOne) && plan.after <= goal.budget, "{}", plan.after);
    assert!(world.catalog().names().len() >= 8 + 25, "nothing is dropped of the other yet");
    let names = world.catalog().names();
    assert!(names.is_superset(&keep) && names.len() < 50, "{names:?}");
    let second = world.collect(&goal, "g");
    assert_eq!(rewritten(&second).len(), 1, "{:?}", second.sources);
    assert!(second.next != Some(Next::TooMuchInOne) && rewritten(&plan) != rewritten(&second));
    let names = world.catalog().names();
    assert!(names.is_superset(&keep) && names.len() < 25, "{names:?}");
    for number in (100..108).chain(200..208) {
        assert_eq!(restored(&world, &mut world.catalog(), number), Some(parts(&[number])));
    }
    assert!(world.collect(&goal, "h").next != Some(Next::TooMuchInOne));
}

#[test]
fn what_live_branches_reach_stays_newest_first_and_the_rest_is_named() {
    let mut world = World::default();
    // Each path has five chunks, some ten thousand bytes.
    let five = |number: u32| (number * 5..number * 5 + 5).collect::<Vec<_>>();
    let mut catalog = Catalog::default();
    let used =
        |run, at, roots: &[u32]| Use { run, at, roots: roots.iter().map(|&number| name(number)).collect() };
    catalog.note_use("main", used(1, 900, &[2]));
    catalog.note_use("old", used(1, 10, &[3]));
    catalog.note_use("closed", used(1, 990, &[4]));
    catalog.note_use("closed", used(2, 995, &[]));
    let paths = vec![
        path(1, &five(1), &[], 1_000),
        path(2, &five(2), &[1], 2_000),
        path(3, &five(3), &[], 3_000),
        path(4, &five(4), &[], 4_000),
        path(5, &five(5), &[], 5_000),
        path(6, &five(6), &[3], 6_000),
    ];
    world.save(&mut catalog, "s", 1, paths);
    let now = Goal { alive: 500, ..goal(1200) };

    // For three of them: what main needs, and the newest that needs nothing else.
    let three = Goal { budget: 35_000, ..now.clone() };
    let plan = Collection::plan(&mut world.catalog(), &three);
    assert_eq!(
        plan.branches,
        [("closed".to_owned(), false), ("main".to_owned(), true), ("old".to_owned(), false)]
    );
    assert!(plan.after <= 35_000 && plan.before > 60_000, "{plan:?}");
    // The sixth comes before the fifth, but with what it refers to it does not fit.
    let no_room = |number| (name(number), Lost::NoRoom);
    let gone: Vec<_> = plan.dropped.iter().map(|gone| (gone.name.clone(), gone.why.clone())).collect();
    assert_eq!(gone.len(), 3, "{gone:?}");
    assert!(gone.contains(&no_room(4)) && gone.contains(&no_room(5)), "{gone:?}");

    // What main needs does not fit as a whole, which is seen when nothing else is left.
    let mut small = World { packs: world.packs.clone() };
    let plans = small.settle(&Goal { budget: 20_000, grace: 0, ..now.clone() });
    assert_eq!(plans[0].next, Some(Next::Measure));
    assert!(plans[0].later.iter().any(|gone| gone.name == name(2)) && plans[0].kept == 2, "{plans:?}");
    assert_eq!(dropped(plans.last().unwrap()), [(name(2).as_str(), &Lost::NoRoom)]);
    // And what is kept of it is what main needs from now on.
    assert_eq!(small.catalog().others().branches["main"], used(1, 900, &[1, 2]));

    // What is named comes before that.
    let keep = Goal { keep: [name(4)].into(), budget: 13_000, ..now.clone() };
    let plans = world.settle(&Goal { grace: 0, ..keep.clone() });
    assert_eq!((plans[0].kept, plans.last().unwrap().kept), (3, 1));
    assert!(plans.iter().all(|plan| plan.sources.len() == 1), "{plans:?}");
    assert!(matches!(plans[0].sources[0].why, Why::MostlyDead | Why::OverBudget), "{plans:?}");
    assert_eq!(world.live().len(), 1);
    assert!(world.size_of_live() <= 13_000, "{}", world.size_of_live());
    let mut catalog = world.catalog();
    assert_eq!(restored(&world, &mut catalog, 4), Some(parts(&five(4))));
    assert_eq!(restored(&world, &mut catalog, 2), None);
    // What branches said is not forgotten by it.
    assert!(catalog.others().branches["main"].roots.contains(&name(2)));
    // The same again does nothing, also when it has been replaced for long.
    let plan = world.collect(&keep, "g");
    assert!(plan.sources.is_empty(), "{plan:?}");
}

#[test]
fn a_pack_of_another_branch_counts_and_goes_by_its_age() {
    let mut world = World::default();
    world.save(&mut Catalog::default(), "s", 10, vec![path(1, &[1, 2, 3, 4, 5], &[], 10_000)]);
    let outside = |created| BTreeMap::from([("other".to_owned(), PackInfo { size: 10_000, created })]);
    let plan = |budget, created| {
        Collection::plan(&mut world.catalog(), &Goal { budget, outside: outside(created), ..goal(50) })
    };
    assert!(plan(30_000, 1).is_nothing());
    let older = plan(15_000, 1);
    assert_eq!(older.unwanted, [Unwanted { name: "other".to_owned(), size: 10_000, replaced: false }]);
    assert!(dropped(&older).is_empty());
    let newer = plan(15_000, 20);
    assert_eq!(dropped(&newer), [(name(1).as_str(), &Lost::NoRoom)]);
    assert!(newer.unwanted.is_empty());
}

#[test]
fn a_depot_of_nothing_needs_nothing() {
    assert!(Collection::plan(&mut Catalog::default(), &goal(0)).is_nothing());
    // Nothing fits: everything goes, and that is an end.
    let mut world = World::default();
    world.save(&mut Catalog::default(), "s", 1, vec![path(1, &[1], &[], 0)]);
    let none = |now| Goal { budget: 0, ..goal(now) };
    assert_eq!(world.collect(&none(10), "f").sources[0].why, Why::Empty);
    assert_eq!(world.collect(&none(200), "g").unwanted.len(), 1);
    assert!(world.collect(&none(300), "h").is_nothing());
}

/// For how long replaced packs stay in the test below, where nobody takes longer than 80.
const GRACE: u64 = 100;

/// Jobs that looked at the depot at some time and save later, collectors that do the same, packs that are
/// removed when they are replaced: what was saved, and not let go by a plan, can be restored at any time.
#[test]
fn savers_and_collectors_at_once_lose_nothing() {
    for seed in 1..25_u64 {
        let mut next = numbers(seed);
        let mut random = move |below: u64| next() % below;
        let mut world = World::default();
        let mut saved: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut savers: Vec<(u64, Catalog)> = Vec::new();
        let mut collectors: Vec<(u64, Catalog, Collection)> = Vec::new();
        for now in (0..400).step_by(5) {
            let names: Vec<String> = world.packs.keys().cloned().collect();
            // A new pack may not be seen for a while.
            let is_new = |name: &&String| world.packs[*name].0 + 40 > now;
            let newest = names.last().filter(|name| random(3) == 0 && is_new(name));
            let hidden: Vec<&str> = newest.map(String::as_str).into_iter().collect();
            match random(4) {
                0 => savers.push((now, world.catalog_without(&hidden))),
                1 => {
                    let mut catalog = world.catalog_without(&hidden);
                    let budget = if random(2) == 0 { 30_000 } else { 1 << 30 };
                    let goal = world.aim(&catalog, &Goal { budget, grace: GRACE, ..goal(now) });
                    let plan = Collection::plan(&mut catalog, &goal);
                    collectors.push((now, catalog, plan));
                }
                2 if !savers.is_empty() => {
                    let (_, mut catalog) = savers.remove(random(savers.len() as u64) as usize);
                    let number = now as u32;
                    let parts: Vec<u32> = (0..4).map(|_| random(20) as u32).collect();
                    world.save(
                        &mut catalog,
                        &format!("{now:03}s"),
                        now,
                        vec![path(number, &parts, &[], now)],
                    );
                    saved.insert(number, parts);
                }
                _ if !collectors.is_empty() => {
                    let (_, catalog, plan) = collectors.remove(random(collectors.len() as u64) as usize);
                    // What it read may be gone by now: then it fails, and nothing of it is seen.
                    if plan.sources.iter().all(|source| world.packs.contains_key(&source.name)) {
                        world.fold(&catalog, &plan, &format!("{now:03}f"), now);
                        world.remove(&plan);
                        saved.retain(|&number, _| plan.dropped.iter().all(|gone| gone.name != name(number)));
                    }
                }
                _ => {}
            }
            // Nobody takes longer than the time of grace.
            savers.retain(|(began, _)| now - began < 80);
            collectors.retain(|(began, ..)| now - began < 80);
            if world.packs.keys().eq(&names) {
                continue;
            }
            let mut catalog = world.catalog();
            for (&number, wanted) in &saved {
                let whole = restored(&world, &mut catalog, number);
                assert!(whole == Some(parts(wanted)), "seed {seed} at {now}: {number} of {names:?}");
            }
        }
    }
}

/// What is there altogether stays bounded, however often packs are rewritten within the time of grace; and beyond
/// that, what was replaced last stays.
#[test]
fn what_was_replaced_and_waits_has_its_bounds() {
    let mut world = World::default();
    let mut most = 0;
    let mut waited = 0;
    for number in 1..30_u32 {
        let now = u64::from(number) * 10;
        let mut catalog = world.catalog();
        let parts: Vec<u32> = (number * 5..number * 5 + 5).collect();
        world.save(&mut catalog, &format!("{number:03}s"), now, vec![path(number, &parts, &[], now * 1000)]);
        let goal = Goal { budget: 50_000, room: 100_000, grace: 10_000, ..goal(now + 1) };
        let plan = world.collect(&goal, &format!("{number:03}t"));
        waited += plan.waiting.0;
        most = most.max(world.packs.values().map(|(_, pack)| pack.len()).sum::<usize>());
    }
    assert!(waited > 0, "nothing was given time");
    assert!(most <= 100_000 + 50_000 + 12_000, "{most} bytes");
    assert!(world.size_of_live() <= 50_000);
    let mut catalog = world.catalog();
    assert!(restored(&world, &mut catalog, 29).is_some());
}

/// What packs say of each other stays small, however often what replaced them is replaced.
#[test]
fn a_pack_that_was_replaced_many_times_is_said_to_be_so_twice() {
    let mut world = World::default();
    for number in 1..40_u32 {
        let now = u64::from(number);
        let mut catalog = world.catalog();
        let paths = vec![path(number, &[number * 2, number * 2 + 1], &[], now)];
        world.save(&mut catalog, &format!("{number:03}s"), now, paths);
        world.collect(&Goal { packs: 1, grace: 10_000, ..goal(now) }, &format!("{number:03}t"));
    }
    let mut catalog = world.catalog();
    let most = catalog.others().replaced.values().map(BTreeSet::len).max();
    assert!(most <= Some(3), "{most:?}");
    assert_eq!(catalog.replaced_since("001s"), Some(2), "the first fold of all");
    for number in 1..40 {
        assert!(restored(&world, &mut catalog, number).is_some());
    }
}

/// Who folds reads nothing that was replaced and that nobody relies on, and so knows all the same since when it was:
/// a fold that was folded in its turn is not read any more either.
#[test]
fn what_was_replaced_goes_by_its_age_though_nobody_reads_it() {
    let mut world = World::default();
    for (round, now) in [(0_u32, 10_u64), (1, 60), (2, 109)] {
        for number in 0..2 {
            let number = round * 2 + number;
            let mut catalog = world.catalog();
            let paths = vec![path(number, &[number * 3, number * 3 + 1], &[], now)];
            world.save(&mut catalog, &format!("{round}s{number}"), now, paths);
        }
        let plan = world.collect(&goal(now), &format!("{round}t"));
        assert!(plan.sources.len() >= 2 && plan.unwanted.is_empty(), "{plan:?}");
    }
    let catalog = world.catalog();
    assert_eq!(catalog.read_packs().count(), 1, "what was replaced is read");
    assert!(catalog.relied_on().is_empty());
    // The first fold was a hundred seconds ago, whatever came after it.
    let plan = world.collect(&goal(110), "g");
    let gone: Vec<_> = plan.unwanted.iter().map(|unwanted| unwanted.name.as_str()).collect();
    assert_eq!(gone, ["0s0", "0s1"]);
    assert_eq!(world.collect(&goal(160), "g").unwanted.len(), 3);
}

#[test]
fn a_frame_that_is_damaged_costs_the_paths_that_need_it() {
    let mut world = World::default();
    let paths = vec![path(1, &[1, 2, 3, 4], &[], 0), path(2, &[5, 6, 7, 8], &[], 0)];
    world.save(&mut Catalog::default(), "s", 1, paths);
    let mut catalog = world.catalog();
    let plan = Collection::plan(&mut catalog, &goal(10));
    assert!(plan.is_nothing());
    let (_, directory) = catalog.pack(0).unwrap();
    let (mut fold, _) = Fold::new(LEVEL, false, false).unwrap();
    let mut copied = 0;
    for number in 0..2 {
        let frame = directory.frame(number);
        let mut stored = world.packs["s"].1[frame.offset as usize..][..frame.stored as usize].to_vec();
        stored[9] ^= u8::from(number == 1);
        let (out, problem) = fold.take(directory, number, &stored, |_| true).unwrap();
        copied += out.concat().len() as u64;
        assert_eq!(problem.is_some(), number == 1);
    }
    let paths = vec![path(1, &[1, 2, 3, 4], &[], 0), path(2, &[5, 6, 7, 8], &[], 0)];
    let folded = fold.finish(paths, vec![]).unwrap();
    assert_eq!(folded.lost, [name(2)]);
    assert_eq!(folded.copied, copied);
}

/// What needs a part of a pack that is rewritten later has it before and afterwards.
#[test]
fn what_is_damaged_is_let_go_a_pack_at_a_time_and_nothing_else_with_it() {
    let mut world = World::default();
    let damaged: BTreeSet<String> = [1, 11, 21].map(name).into();
    // The parts of the first are needed by one of the next, and so on; of the last nothing is whole.
    for (pack, paths) in [
        ("a", vec![path(1, &[1, 2], &[], 1), path(2, &[3, 4], &[], 1)]),
        ("b", vec![path(11, &[5, 6], &[], 2), path(12, &[7, 4, 2], &[], 2)]),
        ("c", vec![path(21, &[8, 7], &[], 3)]),
    ] {
        let mut catalog = world.catalog();
        let now = paths[0].saved;
        world.save(&mut catalog, pack, now, paths);
    }
    let packs: BTreeSet<String> = ["a", "b", "c"].map(str::to_owned).into();
    let all = Damaged { paths: damaged.clone(), packs, ..Damaged::default() };
    assert_eq!(all.groups(&world.catalog()).len(), 1, "small ones go together");
    for (round, (pack, later)) in [("a", vec!["b", "c"]), ("c", vec!["b"]), ("b", vec![])].iter().enumerate()
    {
        let now = Damaged {
            packs: [(*pack).to_owned()].into(),
            later: later.iter().map(|&name| name.to_owned()).collect(),
            ..all.clone()
        };
        let goal = Goal { packs: usize::MAX, damaged: now, ..goal(10 + round as u64) };
        let plan = world.collect(&goal, &format!("f{round}"));
        let sources: Vec<&str> = plan.sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(sources, [*pack], "{round}");
        let mut catalog = world.catalog();
        assert_eq!(restored(&world, &mut catalog, 2), Some(parts(&[3, 4])), "{round}");
        assert_eq!(restored(&world, &mut catalog, 12), Some(parts(&[7, 4, 2])), "{round}");
    }
    // The last of them need not be there for anybody.
    assert!(damaged.iter().all(|name| !world.catalog().has(name.as_bytes().first_chunk().unwrap())));
}

#[test]
fn packs_are_shared_out_by_what_one_can_say_together() {
    let mut catalog = Catalog::default();
    let pack = |foreign: usize| {
        let chunk = Chunk { id: ChunkId([7; 16]), length: 1 };
        crate::Contents { foreign: vec![chunk; foreign], ..crate::Contents::default() }.encode().unwrap()
    };
    // Twenty bytes each: two of 20 MB go together, and what is longer than that is alone.
    let sizes = [1_000_000, 1_000_000, 1_000_000, 3_000_000, 10];
    for (number, foreign) in (0_u64..).zip(sizes) {
        let directory = crate::Directory::parse(pack(foreign)).unwrap();
        catalog.add(&format!("p{number}"), PackInfo { size: 0, created: number }, directory).unwrap();
    }
    let damaged = |packs: &[&str]| Damaged {
        packs: packs.iter().map(|&name| name.to_owned()).collect(),
        ..Damaged::default()
    };
    let groups = |packs: &[&str]| -> Vec<String> {
        let groups = damaged(packs).groups(&catalog);
        groups.into_iter().map(|group| group.into_iter().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(groups(&["p0", "p1", "p2", "p3", "p4"]), ["p4", "p3", "p1 p2", "p0"]);
    assert_eq!(groups(&["p0", "p4", "p2"]), ["p0 p2 p4"]);
    assert!(groups(&[]).is_empty());
}

/// What is said to go because of another path names one that goes; of one that stays with its pack it is said why.
#[test]
fn why_a_path_goes_is_true_also_where_what_it_needs_stays() {
    let mut world = World::default();
    // One pack is of another branch and stays as it is; what refers to a path of it is in a pack of its own.
    let mut many: Vec<PackedPath> =
        (0..40).map(|at| path(at, &[at * 4, at * 4 + 1, at * 4 + 2], &[], 5_000)).collect();
    many.push(path(90, &[900], &[], 1));
    world.save(&mut Catalog::default(), "a", 1, many);
    let mut catalog = world.catalog();
    world.save(&mut catalog, "b", 2, vec![path(91, &[901, 902, 903], &[90], 2)]);
    let size = world.size_of_live();
    let foreign = ["a".to_owned()].into();
    let goal = Goal { budget: size - 7_000, packs: 9, foreign, ..goal(10) };
    let plan = Collection::plan(&mut world.catalog(), &goal);
    let sources: Vec<&str> = plan.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(sources, ["b"], "{plan:?}");
    let needs = Lost::Needs(name(90), Box::new(Lost::NoRoom));
    assert_eq!(dropped(&plan), [(name(91).as_str(), &needs)]);
    assert!(needs.to_string().contains("there is no room for both"), "{needs}");
    assert!(world.catalog().has(name(90).as_bytes().first_chunk().unwrap()));
}

/// What stays with its pack and refers to something that goes is told, too: nobody can restore it.
#[test]
fn what_stays_and_needs_what_goes_is_told() {
    let mut world = World::default();
    world.save(&mut Catalog::default(), "a", 1, vec![path(1, &(0..60).collect::<Vec<_>>(), &[], 1)]);
    let mut catalog = world.catalog();
    let many = [path(2, &[100], &[1], 1), path(3, &[101], &[2], 1), path(4, &[102], &[], 9)];
    world.save(&mut catalog, "b", 2, many.into());
    let plan = Collection::plan(&mut world.catalog(), &Goal { budget: 12_000, packs: 9, ..goal(10) });
    let sources: Vec<&str> = plan.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(sources, ["a"], "{plan:?}");
    let refers = |number| Lost::RefersTo(name(number));
    let mut told = dropped(&plan);
    told.sort_unstable_by_key(|(name, _)| *name);
    let (one, two) = (refers(1), refers(2));
    let names = [1, 2, 3].map(name);
    assert_eq!(told, [(names[0].as_str(), &Lost::NoRoom), (&names[1], &one), (&names[2], &two)]);
}

/// What was in a pack that is let go for want of room takes with it what is put together of it, and what refers to it.
#[test]
fn what_cannot_be_had_without_a_pack_that_is_let_go_goes_with_it() {
    let mut world = World::default();
    world.save(&mut Catalog::default(), "a", 1, vec![path(1, &[1, 2], &[], 1)]);
    let paths = vec![
        path(2, &[1, 2, 3], &[], 2),
        path(3, &[4], &[1], 2),
        path(4, &[5], &[3], 2),
        path(5, &[6], &[77], 2),
    ];
    let mut catalog = world.catalog();
    world.save(&mut catalog, "b", 2, paths);
    let mut catalog = world.catalog();
    world.save(&mut catalog, "c", 3, vec![path(6, &[7], &[], 3)]);
    world.packs.remove("a");
    // Of the others nothing is known, and they are had from elsewhere.
    let gone: BTreeSet<String> = [name(1)].into();
    let lost = Collection::not_whole(&mut world.catalog(), &gone);
    assert_eq!(lost, [2, 3, 4].map(name).into());
    let damaged = Damaged { packs: ["b".to_owned()].into(), gone: Some(gone), ..Damaged::default() };
    let plan = world.collect(&Goal { packs: usize::MAX, damaged, ..goal(10) }, "f");
    let sources: Vec<(&str, Why)> =
        plan.sources.iter().map(|source| (source.name.as_str(), source.why)).collect();
    assert_eq!(sources, [("b", Why::NotWhole)]);
    let why =
        [(name(2), Lost::Incomplete), (name(3), Lost::RefersTo(name(1))), (name(4), Lost::RefersTo(name(3)))];
    assert_eq!(dropped(&plan), why.each_ref().map(|(name, why)| (name.as_str(), why)));
    let left = world.catalog().names();
    assert_eq!(left, [5, 6].map(name).into());
    assert!(Collection::not_whole(&mut world.catalog(), &BTreeSet::new()).is_empty());
}
