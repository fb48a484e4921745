//! What is known of packs takes no more memory than there is, and who looks sees the same packs as anybody else.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod stores;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use phoenix_cache::{Cache, CollectError};
use phoenix_depot::testing::{Memory, body};
use phoenix_depot::{Blob, BlobName, Body, Created, Depot, DepotError};
use phoenix_pack::{
    Beside, Chunk, ChunkId, Compressor, Damaged, FrameBuilder, Goal, LEVEL, Measured, Others, PackBuilder,
    PackInfo, PackedPath, PathInfo,
};
use sha2::{Digest, Sha256};
use stores::{Store, check, names, open, restore, save};

/// A path of which as much is known as a record may hold, about: it refers to itself.
fn heavy(number: usize) -> (PathInfo, Vec<u8>) {
    let name = format!("{number:032}-{}", "a-name-that-is-as-long-as-the-longest-are".repeat(2));
    let archive = format!("archive {number}").into_bytes();
    let info = PathInfo {
        nar_hash: Sha256::digest(&archive).into(),
        nar_size: archive.len() as u64,
        references: vec![name.clone(); 33_000],
        name,
        deriver: None,
        signatures: vec![],
        ca: None,
    };
    (info, archive)
}

fn heavy_store(numbers: std::ops::Range<usize>) -> Store {
    let paths = numbers.map(heavy).map(|(info, archive)| (info.name.clone(), (info, archive)));
    paths.collect()
}

fn pack(store: &Store) -> Vec<u8> {
    pack_that_says(store, &Others::default(), &[])
}

/// A pack that says this of others, and does not have the chunks of these paths itself.
fn pack_that_says(store: &Store, others: &Others, foreign: &[&str]) -> Vec<u8> {
    let (mut builder, head) = PackBuilder::new();
    let mut pack = head.to_vec();
    let mut frame = FrameBuilder::default();
    let mut paths = Vec::new();
    for (info, archive) in store.values() {
        let chunk = Chunk { id: ChunkId::of(archive), length: archive.len() as u32 };
        if !foreign.contains(&info.name.as_str()) {
            frame.push(chunk.id, archive);
        }
        paths.push(PackedPath { info: info.clone(), chunks: vec![chunk], patches: vec![], saved: 1 });
    }
    let sealed = frame.seal(&mut Compressor::new(LEVEL).unwrap()).unwrap();
    builder.add(&sealed);
    pack.extend(sealed.bytes);
    pack.extend(builder.finish(paths, others.encode()).unwrap());
    pack
}

/// How many paths each of the packs has that are made here, of which four have room.
const EACH: usize = 6;

/// A depot in which what was made last is told first, or last.
#[derive(Debug, Default)]
struct Slow {
    memory: Memory,
    newest: bool,
}

#[async_trait::async_trait]
impl Depot for Slow {
    fn location(&self) -> &str {
        self.memory.location()
    }
    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        self.memory.create(name, body).await
    }
    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        self.memory.find(name).await
    }
    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        self.memory.newest(prefix).await
    }
    async fn read(&self, blob: &Blob, range: std::ops::Range<u64>) -> Result<Bytes, DepotError> {
        let number = u64::from(blob.name.as_str().bytes().last().unwrap_or(b'0').saturating_sub(b'0'));
        let turns = if self.newest { number } else { 9_u64.saturating_sub(number) };
        tokio::time::sleep(Duration::from_millis(turns * 20)).await;
        self.memory.read(blob, range).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        self.memory.list(prefix).await
    }
    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        self.memory.remove(name).await
    }
}

/// Makes packs of so many paths each, of which not all have room.
fn fill(depot: &dyn Depot, packs: std::ops::Range<usize>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for number in packs {
        let name = BlobName::new(format!("packs/{number}")).unwrap();
        let pack = pack(&heavy_store(number * EACH..(number + 1) * EACH));
        runtime.block_on(depot.create(&name, body(pack.into()))).unwrap();
    }
}

fn put(depot: &dyn Depot, name: &str, pack: Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let name = BlobName::new(name).unwrap();
    runtime.block_on(depot.create(&name, body(pack.into()))).unwrap();
}

fn live(cache: &mut Cache) -> Vec<String> {
    cache.catalog().packs().map(|(_, name, _)| name.to_owned()).collect()
}

fn blobs(depot: &dyn Depot) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(depot.list("packs/")).unwrap().len()
}

#[test]
fn the_newest_packs_have_the_room_whichever_is_read_first() {
    for newest in [true, false] {
        let depot: Arc<dyn Depot> = Arc::new(Slow { newest, ..Slow::default() });
        fill(depot.as_ref(), 1..7);
        let (mut cache, troubles) = open(&depot);
        assert_eq!(live(&mut cache), ["packs/6", "packs/5", "packs/4", "packs/3"]);
        // What is left out is told once, and what to do.
        let [told] = troubles.as_slice() else { panic!("{troubles:?}") };
        assert!(told.contains("2 packs (packs/1, packs/2) are left out"), "{told}");
        assert!(told.contains("`phoenix cache gc` makes room"), "{told}");
        assert_eq!(cache.left_out(), 2);
        // What is seen need not be written down again to be there, though it was saved long ago.
        let seen = heavy_store(6 * EACH..7 * EACH);
        let saved = save(&mut cache, "7", &seen).unwrap();
        assert_eq!((saved.known, saved.left_out.len(), saved.no_room.len()), (EACH, 0, 0));
        assert_eq!(saved.pack, None);
    }
}

#[test]
fn what_is_in_packs_that_are_left_out_is_not_saved_anew() {
    let depot: Arc<dyn Depot> = Arc::new(Memory::new());
    fill(depot.as_ref(), 1..6);
    let lost = heavy_store(EACH..2 * EACH);
    let mut wanted = lost.clone();
    let (mut small, archive) = heavy(999);
    small.references.truncate(1);
    wanted.insert(small.name.clone(), (small.clone(), archive));
    let (mut cache, _) = open(&depot);
    assert_eq!(cache.left_out(), 1);
    let saved = save(&mut cache, "6", &wanted).unwrap();
    assert_eq!((saved.paths, saved.left_out.len(), saved.no_room.len()), (1, EACH, 0));
    assert_eq!(saved.left_out, names(&lost));
    // What was there is seen as before, and the depot has settled.
    let (mut cache, _) = open(&depot);
    assert_eq!(live(&mut cache), ["packs/6", "packs/5", "packs/4", "packs/3", "packs/2"]);
    let again = save(&mut cache, "7", &wanted).unwrap();
    assert_eq!((again.pack, again.known, again.left_out.len()), (None, 1, EACH));
    assert_eq!(blobs(depot.as_ref()), 6);
    // The next pack knows of the one that is left out, or nobody would find it where nothing is listed.
    let known = |cache: &mut Cache| cache.catalog().others().known.contains_key("packs/1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for number in 2..6 {
        runtime.block_on(depot.remove(&BlobName::new(format!("packs/{number}")).unwrap())).unwrap();
    }
    let (mut cache, troubles) = open(&depot);
    assert!(known(&mut cache) && troubles.is_empty(), "{troubles:?}");
    let (restored, taken) = restore(&mut cache, &names(&wanted));
    assert_eq!(restored.paths.len(), EACH + 1);
    check(&restored, &taken, &wanted);
}

#[test]
fn a_save_makes_no_packs_that_readers_have_no_room_for() {
    let depot: Arc<dyn Depot> = Arc::new(Memory::new());
    let mut store = heavy_store(0..44);
    // One that refers to all others.
    let others = names(&store);
    let (mut top, archive) = heavy(999);
    top.references = others;
    store.insert(top.name.clone(), (top.clone(), archive));
    let saved = save(&mut open(&depot).0, "1", &store).unwrap();
    assert!(saved.paths > 20 && saved.no_room.len() > 1, "{} {}", saved.paths, saved.no_room.len());
    assert_eq!((saved.paths + saved.no_room.len(), saved.broken_off.is_none()), (45, true));
    assert!(saved.no_room.contains(&top.name), "what it refers to is not there");
    // All of that is seen, and comes back; and the next save makes no more of it.
    let (mut cache, troubles) = open(&depot);
    assert_eq!((cache.left_out(), troubles), (0, vec![]));
    let (restored, taken) = restore(&mut cache, &names(&store));
    assert_eq!(restored.paths.len(), saved.paths);
    check(&restored, &taken, &store);
    let packs = blobs(depot.as_ref());
    let again = save(&mut cache, "2", &store).unwrap();
    assert_eq!((again.pack, again.known, again.no_room), (None, saved.paths, saved.no_room));
    assert_eq!(blobs(depot.as_ref()), packs);
}

/// Where the depot takes no more in the middle, what was saved before is there and is told.
#[test]
fn a_save_that_breaks_off_says_what_it_saved() {
    let full = Arc::new(Full { memory: Memory::new(), most: 1 });
    let depot: Arc<dyn Depot> = full.clone();
    let store = heavy_store(0..20);
    let saved = save(&mut open(&depot).0, "1", &store).unwrap();
    assert!(saved.broken_off.is_some());
    assert!(saved.paths > 0 && saved.paths < 20, "{}", saved.paths);
    assert_eq!(saved.pack.unwrap().as_str(), "packs/1");
    assert_eq!(open(&depot).0.catalog().names().len(), saved.paths);
    // Nothing is there when none was made.
    let none: Arc<dyn Depot> = Arc::new(Full { memory: Memory::new(), most: 0 });
    assert!(save(&mut open(&none).0, "1", &store).is_err());
}

/// A depot for so many blobs.
#[derive(Debug)]
struct Full {
    memory: Memory,
    most: usize,
}

#[async_trait::async_trait]
impl Depot for Full {
    fn location(&self) -> &str {
        self.memory.location()
    }
    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        if self.memory.list("").await?.len() >= self.most {
            return Err(DepotError {
                location: self.location().to_owned(),
                doing: format!("creating {name}"),
                problem: phoenix_depot::Problem::Full("no space left".to_owned()),
            });
        }
        self.memory.create(name, body).await
    }
    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        self.memory.find(name).await
    }
    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        self.memory.newest(prefix).await
    }
    async fn read(&self, blob: &Blob, range: std::ops::Range<u64>) -> Result<Bytes, DepotError> {
        self.memory.read(blob, range).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        self.memory.list(prefix).await
    }
    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        self.memory.remove(name).await
    }
}

/// What a branch needs is said though nothing of the last of several packs can be read.
#[test]
fn what_a_branch_needs_is_said_whatever_becomes_of_the_last_pack() {
    let depot: Arc<dyn Depot> = Arc::new(Memory::new());
    let store = heavy_store(0..10);
    let all = names(&store);
    let (mut cache, _) = open(&depot);
    cache.set_branch("main", 1);
    // By their names six are in the first pack, and all others in the last.
    let read = |info: &PathInfo, emit: &mut dyn FnMut(&[u8]) -> io::Result<()>| match store[&info.name] {
        _ if all[6..].contains(&info.name) => Err(io::Error::other("a disk is broken")),
        (_, ref archive) => emit(archive),
    };
    let paths: Vec<PathInfo> = store.values().map(|(info, _)| info.clone()).collect();
    let saved = cache.save(&BlobName::new("packs/1").unwrap(), &paths, &read, 2).unwrap();
    assert_eq!((saved.paths, saved.unreadable.len()), (6, 4));
    let (latest, gone) = open(&depot).0.latest(&["main".to_owned()]);
    assert_eq!((latest.len(), gone.len()), (6, 4));
    let packs = live(&mut open(&depot).0);
    assert_eq!(packs, ["packs/1++002", "packs/1"]);
}

/// A path of which little is known, with this archive.
fn light(number: usize, archive: &[u8], references: &[String]) -> (PathInfo, Vec<u8>) {
    let (info, _) = heavy(number);
    let (nar_hash, nar_size) = (Sha256::digest(archive).into(), archive.len() as u64);
    (PathInfo { nar_hash, nar_size, references: references.to_vec(), ..info }, archive.to_vec())
}

fn goal(damaged: Damaged) -> Goal {
    Goal {
        budget: u64::MAX,
        measured: Measured::default(),
        room: u64::MAX,
        now: 0,
        keep: [].into(),
        alive: 0,
        grace: u64::MAX,
        packs: 0,
        outside: [].into(),
        foreign: [].into(),
        replaced: [].into(),
        damaged,
        beside: Beside::default(),
    }
}

/// A depot in which the oldest pack is left out. Of the others two paths need it: one of which it has the parts, and one
/// that refers to what is in it alone; the third needs nothing. All of what is in small packs is told.
fn overfull(depot: &Arc<dyn Depot>) -> Store {
    let mut store = Store::new();
    let mut add = |(info, archive): (PathInfo, Vec<u8>)| store.insert(info.name.clone(), (info, archive));
    let parts: Vec<u8> =
        (0..60_000_u32).flat_map(|at| (at.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let first = light(900, &parts, &[]);
    let mut base = heavy_store(0..EACH);
    base.insert(first.0.name.clone(), first.clone());
    save(&mut open(depot).0, "0", &base).unwrap();
    add(light(901, &parts, &[]));
    add(light(902, b"it refers to the first", &[first.0.name]));
    add(light(903, b"it needs nothing", &[]));
    assert!(save(&mut open(depot).0, "1", &store).unwrap().new < 100, "the parts are not in the first pack");
    fill(depot.as_ref(), 2..6);
    store
}

#[test]
fn nothing_is_let_go_while_packs_are_left_out() {
    let depot: Arc<dyn Depot> = Arc::new(Memory::new());
    let store = overfull(&depot);
    let (mut cache, _) = open(&depot);
    assert_eq!((cache.left_out(), live(&mut cache).len()), (1, 5));
    // What needs that pack is not said to be gone or damaged, and counts as not read.
    let names = names(&store);
    let (restored, _) = restore(&mut cache, &names);
    let [(failed, why)] = &restored.failed[..1] else { panic!("{restored:?}") };
    assert_eq!(
        (failed, why.as_str()),
        (&names[0], "a part of it may be in a pack that there is no room for")
    );
    assert!(restored.unread.contains(failed), "{restored:?}");
    // Whoever would tidy up does not, and removes nothing.
    let planned = cache.plan_collection(&goal(Damaged::default()), &mut |_| ());
    assert!(matches!(planned, Err(CollectError::LeftOut { packs: 1, .. })), "{planned:?}");
    assert_eq!(cache.remove_replaced(0, &mut |_| ()), (0, 0));
    assert_eq!(blobs(depot.as_ref()), 6);
    // When there is room all of it is there.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(depot.remove(&BlobName::new("packs/5").unwrap())).unwrap();
    let (restored, taken) = restore(&mut open(&depot).0, &names[..1]);
    check(&restored, &taken, &store);
    assert_eq!((restored.paths.len(), open(&depot).0.left_out()), (1, 0));
}

#[test]
fn room_is_made_by_letting_go_of_what_is_left_out_and_of_what_needs_it() {
    let depot: Arc<dyn Depot> = Arc::new(Memory::new());
    let store = overfull(&depot);
    let all = names(&store);
    let (mut cache, _) = open(&depot);
    let room = cache.plan_room(&mut |_| ()).unwrap().unwrap();
    assert_eq!(room.packs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["packs/0"]);
    assert_eq!(room.lost, all[..2].iter().cloned().collect());
    assert_eq!(room.damaged.packs, ["packs/1".to_owned()].into());
    // So far it is a plan.
    assert_eq!((open(&depot).0.left_out(), blobs(depot.as_ref())), (1, 6));
    // What cannot be restored without it goes first: whatever happens then, it is told again that there is no room.
    let planned = goal(room.damaged.clone());
    let plan = cache.plan_collection(&Goal { packs: usize::MAX, ..planned }, &mut |_| ()).unwrap();
    assert_eq!(plan.dropped.len(), 2, "{:?}", plan.dropped);
    cache.collect(&BlobName::new("packs/6").unwrap(), &plan, &mut |_| ()).unwrap();
    let (mut cache, _) = open(&depot);
    assert_eq!((cache.left_out(), blobs(depot.as_ref())), (1, 7));
    assert!(cache.plan_room(&mut |_| ()).unwrap().unwrap().lost.is_empty());
    assert_eq!(cache.make_room(&room).unwrap(), (vec!["packs/0".to_owned()], false));
    // All that is left comes back.
    let (mut cache, troubles) = open(&depot);
    assert_eq!((cache.left_out(), troubles), (0, vec![]));
    let left: Vec<String> = cache.catalog().names().into_iter().collect();
    assert!(left.contains(&all[2]) && !left.contains(&all[0]) && !left.contains(&all[1]));
    assert_eq!(restore(&mut cache, &left).0.paths.len(), left.len());
    assert!(cache.plan_room(&mut |_| ()).unwrap().is_none());
    // And the next save brings what is needed.
    let mut again = store.clone();
    let (info, archive) = light(900, b"the first", &[]);
    again.insert(info.name.clone(), (info, archive));
    assert_eq!(save(&mut cache, "7", &again).unwrap().paths, 3);
    let (mut cache, _) = open(&depot);
    let (restored, taken) = restore(&mut cache, &names(&again));
    check(&restored, &taken, &again);
    assert_eq!((restored.paths.len(), cache.left_out()), (4, 0));
}

/// What two jobs folded at once has room once, and the older of these, or the one in which less is, is folded away.
#[test]
fn what_is_in_others_takes_no_room() {
    for newer in [8..20, 8..18] {
        let depot: Arc<dyn Depot> = Arc::new(Memory::new());
        put(depot.as_ref(), "packs/1", pack(&heavy_store(0..8)));
        put(depot.as_ref(), "packs/2", pack(&heavy_store(8..20)));
        put(depot.as_ref(), "packs/3", pack(&heavy_store(newer.clone())));
        let (mut cache, troubles) = open(&depot);
        let (stays, goes) = if newer.end == 20 { ("packs/3", "packs/2") } else { ("packs/2", "packs/3") };
        assert_eq!((live(&mut cache), troubles), (vec![stays.to_owned(), "packs/1".to_owned()], vec![]));
        // Who folds sees to it, and nothing is lost by that.
        let plan = cache
            .plan_collection(&Goal { packs: usize::MAX, ..goal(Damaged::default()) }, &mut |_| ())
            .unwrap();
        assert_eq!(plan.sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), [goes]);
        assert_eq!((plan.dropped.len(), plan.unwanted.len()), (0, 0));
        cache.collect(&BlobName::new("packs/4").unwrap(), &plan, &mut |_| ()).unwrap();
        let (mut cache, troubles) = open(&depot);
        assert!(cache.catalog().is_replaced(goes) && troubles.is_empty(), "{troubles:?}");
        let all = names(&heavy_store(0..20));
        assert_eq!(restore(&mut cache, &all).0.paths.len(), 20);
    }
}

/// A depot in which the oldest pack has no room. The newest does not know of a fold, and needs a part of what that replaced,
/// which the fold left out.
fn folded_meanwhile(depot: &dyn Depot) -> (PathInfo, PathInfo, Store) {
    let known = |names: &[&str]| {
        names.iter().map(|name| ((*name).to_owned(), PackInfo { size: 1, created: 1 })).collect()
    };
    let add = |store: &Store, number: usize, others: &Others, foreign: &[&str]| {
        put(depot, &format!("packs/{number}"), pack_that_says(store, others, foreign));
    };
    let none = Others::default();
    let (oldest, middle) = (heavy_store(0..5), heavy_store(10..24));
    add(&oldest, 1, &none, &[]);
    add(&middle, 2, &none, &[]);
    let (new, archive) = light(900, b"a part that the fold left out", &[]);
    let mut first = heavy_store(30..35);
    let old = PathInfo { name: new.name.replace("-a", "-b"), ..new.clone() };
    first.insert(old.name.clone(), (old, archive.clone()));
    add(&first, 3, &none, &[]);
    add(&heavy_store(35..40), 4, &none, &[]);
    let needs = light(901, b"it refers to what is in the oldest", &names(&oldest)[..1]);
    let mut fold = heavy_store(30..34);
    fold.insert(needs.0.name.clone(), needs.clone());
    let all = known(&["packs/1", "packs/2", "packs/3", "packs/4"]);
    let by = || ["packs/5".to_owned()].into();
    let replaced = [("packs/3".to_owned(), by()), ("packs/4".to_owned(), by())].into();
    add(&fold, 5, &Others { known: all, replaced, ..Others::default() }, &[]);
    let all = known(&["packs/1", "packs/2", "packs/3", "packs/4"]);
    let newest = [(new.name.clone(), (new.clone(), archive))].into();
    add(&newest, 6, &Others { known: all, ..Others::default() }, &[&new.name]);
    (new, needs.0, middle)
}

#[test]
fn what_a_live_pack_relies_on_comes_with_it_and_what_was_replaced_stays_so() {
    let depot: Arc<dyn Depot> = Arc::new(Memory::new());
    let (new, needs, middle) = folded_meanwhile(depot.as_ref());
    let whole = |cache: &mut Cache| {
        let wanted = [new.name.clone()];
        assert_eq!(restore(cache, &wanted).0.paths, wanted);
        assert_eq!(restore(cache, &names(&middle)).0.paths.len(), middle.len());
    };
    let (mut cache, _) = open(&depot);
    assert_eq!(
        (live(&mut cache), cache.left_out()),
        (["packs/6", "packs/5", "packs/2"].map(str::to_owned).into(), 1)
    );
    whole(&mut cache);
    // First all is folded that nobody misses then, and nothing is removed, whatever the time of grace.
    let goal = |damaged| Goal { grace: 0, now: u64::MAX, ..goal(damaged) };
    let plan = cache.plan_beside_left_out(&goal(Damaged::default()), &mut |_| ()).unwrap().unwrap();
    assert!(plan.dropped.is_empty() && !plan.at_once, "{plan:?}");
    assert!(plan.sources.iter().any(|source| source.name == "packs/3"), "{:?}", plan.sources);
    let collected = cache.collect(&BlobName::new("packs/7").unwrap(), &plan, &mut |_| ()).unwrap();
    assert!(!collected.removed.iter().any(|(name, _)| name == "packs/3" || name == "packs/1"));
    let (mut cache, _) = open(&depot);
    whole(&mut cache);
    // Then what cannot be restored without what is left out, if anything still is.
    if cache.left_out() > 0 {
        let room = cache.plan_room(&mut |_| ()).unwrap().unwrap();
        assert_eq!(room.lost, [needs.name.clone()].into());
        let plan = cache
            .plan_collection(&Goal { packs: usize::MAX, ..goal(room.damaged.clone()) }, &mut |_| ())
            .unwrap();
        cache.collect(&BlobName::new("packs/8").unwrap(), &plan, &mut |_| ()).unwrap();
        let (mut cache, _) = open(&depot);
        whole(&mut cache);
        cache.make_room(&room).unwrap();
    }
    // What was replaced did not come back, and took no room from others.
    let (mut cache, troubles) = open(&depot);
    whole(&mut cache);
    assert_eq!((cache.left_out(), troubles), (0, vec![]));
    assert!(["packs/3", "packs/4"].iter().all(|name| !live(&mut cache).contains(&(*name).to_owned())));
}

/// A depot that neither lists nor removes anything.
#[derive(Debug)]
struct Blind(Arc<dyn Depot>);

impl Blind {
    fn refused(&self, doing: &str) -> DepotError {
        let (location, doing) = (self.location().to_owned(), doing.to_owned());
        DepotError { location, doing, problem: phoenix_depot::Problem::Denied("no rights".to_owned()) }
    }
}

#[async_trait::async_trait]
impl Depot for Blind {
    fn location(&self) -> &str {
        self.0.location()
    }
    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        self.0.create(name, body).await
    }
    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        self.0.find(name).await
    }
    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        self.0.newest(prefix).await
    }
    async fn read(&self, blob: &Blob, range: std::ops::Range<u64>) -> Result<Bytes, DepotError> {
        self.0.read(blob, range).await
    }
    async fn list(&self, _: &str) -> Result<Vec<Blob>, DepotError> {
        Err(self.refused("listing"))
    }
    async fn remove(&self, _: &BlobName) -> Result<(), DepotError> {
        Err(self.refused("removing"))
    }
}

/// Where nothing is listed and nothing may be removed, it is said that what was left out is gone, and nobody looks for it.
#[test]
fn room_is_made_where_nothing_can_be_removed() {
    let all: Arc<dyn Depot> = Arc::new(Memory::new());
    overfull(&all);
    open(&all).0.tell(&BlobName::new("packs/6").unwrap()).unwrap();
    let depot: Arc<dyn Depot> = Arc::new(Blind(all));
    let (mut cache, _) = open(&depot);
    assert_eq!((cache.left_out(), live(&mut cache).len()), (1, 6));
    let room = cache.plan_room(&mut |_| ()).unwrap().unwrap();
    assert!(cache.make_room(&room).unwrap().1, "it cannot be removed");
    cache.tell(&BlobName::new("packs/7").unwrap()).unwrap();
    let (mut cache, troubles) = open(&depot);
    assert_eq!((cache.left_out(), troubles), (0, vec![]));
    assert_eq!(live(&mut cache).len(), 7);
}
