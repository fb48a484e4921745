//! Saving to a depot and restoring from it, with archives in memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod stores;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use phoenix_cache::{Cache, MakeArchive};
use phoenix_depot::testing::{Faults, Faulty, Memory, bytes};
use phoenix_depot::{Blob, BlobName, Body, Created, Depot, DepotError, Problem};
use phoenix_pack::PathInfo;
use sha2::{Digest, Sha256};
use stores::{Store, check, names, open, restore, restore_by, save, store};

fn memory() -> Arc<dyn Depot> {
    Arc::new(Memory::new())
}

#[test]
fn what_is_saved_is_restored() {
    let (depot, store) = (memory(), store(40, 1));
    let (mut cache, troubles) = open(&depot);
    assert!(troubles.is_empty());
    let saved = save(&mut cache, "1", &store).unwrap();
    assert_eq!((saved.paths, saved.known), (40, 0));
    assert!(saved.unreadable.is_empty());

    let (mut cache, _) = open(&depot);
    let (restored, taken) = restore(&mut cache, &names(&store));
    assert_eq!((restored.paths.len(), restored.missing.len(), restored.failed.len()), (40, 0, 0));
    check(&restored, &taken, &store);
    assert!(restored.requests <= 3, "{} requests for {} bytes", restored.requests, restored.bytes);

    // One path brings what it refers to, and no more is read than that needs.
    let (few, taken) = restore(&mut cache, &names(&store)[..1]);
    check(&few, &taken, &store);
    assert!(few.paths.len() < 40);

    // Nothing is saved twice.
    let again = save(&mut cache, "2", &store).unwrap();
    assert_eq!((again.pack, again.paths, again.known), (None, 0, 40));
}

#[test]
fn a_rebuild_that_changes_only_hashes_adds_next_to_nothing() {
    let depot = memory();
    let (old, new) = (store(40, 1), store(40, 2));
    let first = save(&mut open(&depot).0, "1", &old).unwrap();
    let second = save(&mut open(&depot).0, "2", &new).unwrap();
    assert_eq!((second.paths, second.new), (40, 0));
    assert!(second.size * 50 < first.size, "{} after {}", second.size, first.size);
    let (mut cache, _) = open(&depot);
    for store in [old, new] {
        let (restored, taken) = restore(&mut cache, &names(&store));
        assert_eq!(restored.paths.len(), 40);
        check(&restored, &taken, &store);
    }
}

#[test]
fn what_is_not_there_is_missing_and_so_is_what_refers_to_it() {
    let (depot, store) = (memory(), store(20, 1));
    let mut part = store.clone();
    let lost = names(&store)[3].clone();
    part.remove(&lost);
    save(&mut open(&depot).0, "1", &part).unwrap();
    let (restored, taken) = restore(&mut open(&depot).0, &names(&store));
    assert_eq!(restored.missing, std::slice::from_ref(&lost));
    check(&restored, &taken, &store);
    assert_eq!(restored.paths.len() + restored.failed.len() + 1, 20);
    for (name, why) in &restored.failed {
        assert!(why.starts_with("it refers to "), "{name}: {why}");
    }
    // With that one in the store, all of them are whole.
    let take = |_: &PathInfo, make: &mut MakeArchive<'_>| make(&mut |_| Ok(()));
    let restored = open(&depot).0.restore(names(&store), |name| name == lost, &take, 2, &|_| ());
    assert_eq!(restored.paths.len(), 19);
}

#[test]
fn a_path_that_cannot_be_read_is_left_out_and_named() {
    let (depot, store) = (memory(), store(10, 1));
    let bad = names(&store)[4].clone();
    let read = |info: &PathInfo, emit: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
        let archive = &store[&info.name].1;
        if info.name == bad {
            emit(&archive[..100])?;
            return Err(io::Error::other("a disk is broken"));
        }
        emit(archive)
    };
    let paths: Vec<PathInfo> = store.values().map(|(info, _)| info.clone()).collect();
    let saved = open(&depot).0.save(&BlobName::new("packs/1").unwrap(), &paths, &read, 2).unwrap();
    assert_eq!((saved.paths, saved.unreadable.len()), (9, 1));
    assert_eq!(saved.unreadable[0].0, bad);
    assert!(!open(&depot).0.catalog().has(bad.as_bytes().first_chunk().unwrap()));
}

#[test]
fn a_lost_pack_costs_what_it_held_and_no_more() {
    let memory = Arc::new(Memory::new());
    let depot: Arc<dyn Depot> = memory.clone();
    let (old, new) = (store(12, 1), store(24, 2));
    save(&mut open(&depot).0, "1", &old).unwrap();
    save(&mut open(&depot).0, "2", &new).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(memory.remove(&BlobName::new("packs/1").unwrap())).unwrap();
    let (mut cache, troubles) = open(&depot);
    assert!(troubles.is_empty(), "{troubles:?}");
    // The first twelve need chunks of the lost pack, the others refer to them.
    let (restored, _) = restore(&mut cache, &names(&new));
    assert!(restored.paths.is_empty());
    assert_eq!(restored.failed.len(), 24);
    // So they are saved again, whole.
    let saved = save(&mut cache, "3", &new).unwrap();
    assert_eq!(saved.paths, 12);
    let (restored, taken) = restore(&mut open(&depot).0, &names(&new));
    assert_eq!(restored.paths.len(), 24);
    check(&restored, &taken, &new);
}

#[test]
fn what_replaced_a_pack_that_went_away_is_looked_for_once() {
    let memory = Arc::new(Memory::new());
    let depot: Arc<dyn Depot> = memory.clone();
    let store = store(12, 1);
    save(&mut open(&depot).0, "1", &store).unwrap();
    // Both know the first pack only.
    let (mut first, mut second) = (open(&depot).0, open(&depot).0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let remove = |pack| runtime.block_on(memory.remove(&BlobName::new(pack).unwrap())).unwrap();
    remove("packs/1");
    save(&mut open(&depot).0, "2", &store).unwrap();
    let (restored, taken) = restore(&mut first, &names(&store));
    assert_eq!((restored.paths.len(), restored.failed.len()), (12, 0));
    check(&restored, &taken, &store);
    remove("packs/2");
    let (restored, _) = restore(&mut second, &names(&store));
    assert_eq!((restored.paths.len(), restored.failed.len()), (0, 12), "{:?}", restored.failed);
}

#[test]
fn whatever_a_depot_does_nothing_wrong_comes_out() {
    // What is damaged is waited for a little, hundreds of times.
    let all = std::env::var("PHOENIX_TEST_SEEDS").is_ok_and(|value| value == "all");
    let seeds = if all { 120 } else { 24 };
    let (old, new) = (store(16, 1), store(24, 2));
    let mut whole = 0;
    for seed in 0..seeds {
        let memory = Arc::new(Memory::new());
        let every = 2 + seed % 9;
        let faulty: Arc<dyn Depot> = Arc::new(Faulty::new(memory.clone(), Faults::any(seed, every)));
        drop(save(&mut open(&faulty).0, "1", &old));
        drop(save(&mut open(&faulty).0, "2", &new));
        for store in [&old, &new] {
            let (restored, taken) = restore(&mut open(&faulty).0, &names(store));
            check(&restored, &taken, store);
            whole += usize::from(restored.paths.len() == store.len());
        }
        // What the depot has in the end is right as well.
        let depot: Arc<dyn Depot> = memory;
        for store in [&old, &new] {
            let (restored, taken) = restore(&mut open(&depot).0, &names(store));
            check(&restored, &taken, store);
        }
    }
    assert!(whole as u64 > seeds / 6, "only {whole} restores were whole: the faults hide everything");
}

#[test]
fn a_flipped_bit_is_a_miss() {
    let store = store(8, 1);
    for seed in 0..30 {
        let memory = Arc::new(Memory::new());
        let depot: Arc<dyn Depot> = memory.clone();
        save(&mut open(&depot).0, "1", &store).unwrap();
        memory.tamper(&BlobName::new("packs/1").unwrap(), |bytes| {
            let at = (seed * 7919 + 11) % bytes.len();
            bytes[at] ^= 1 << (seed % 8);
        });
        let (restored, taken) = restore(&mut open(&depot).0, &names(&store));
        check(&restored, &taken, &store);
    }
}

/// Large paths that were saved by several threads at once lie between each other in their pack.
#[test]
fn what_is_read_is_read_once_however_little_room_there_is() {
    let depot = memory();
    let mut large = store(4, 1);
    for (seed, (info, archive)) in (100..).zip(large.values_mut()) {
        *archive = bytes(seed, 12 << 20).to_vec();
        (info.nar_hash, info.nar_size) = (Sha256::digest(&*archive).into(), archive.len() as u64);
        info.references.clear();
    }
    let size = save(&mut open(&depot).0, "1", &large).unwrap().size;
    for room in [1, 9 << 20] {
        for threads in [1, 3] {
            let mut cache = open(&depot).0;
            cache.set_room(room);
            let (restored, taken) = restore_by(&mut cache, &names(&large), threads);
            assert_eq!(restored.paths.len(), 4);
            check(&restored, &taken, &large);
            let (bytes, requests) = (restored.bytes, restored.requests);
            assert!(bytes <= size && requests <= 8, "{bytes} bytes of {size} in {requests} requests");
        }
    }
}

/// What is damaged where it is kept is told, and saved anew by whoever has it; nobody has to repair anything.
#[test]
fn damage_is_told_and_saved_anew() {
    for is_listed in [true, false] {
        let lists: Arc<Memory> = Arc::default();
        let hides: Arc<NoList> = Arc::default();
        let depot: Arc<dyn Depot> = if is_listed { lists.clone() } else { hides.clone() };
        let memory = if is_listed { &*lists } else { &hides.memory };
        let store = store(12, 1);
        save(&mut open(&depot).0, "1", &store).unwrap();
        memory.tamper(&BlobName::new("packs/1").unwrap(), |bytes| bytes[1000] ^= 1);

        // A job finds it, and tells; the next one knows and reads nothing of it.
        let (mut cache, _) = open(&depot);
        let (restored, _) = restore(&mut cache, &names(&store));
        assert!(!restored.failed.is_empty());
        let told = BlobName::new("packs/2").unwrap();
        assert!(cache.tell_damage(&told).unwrap() && !cache.tell_damage(&told).unwrap());
        let (mut next, troubles) = open(&depot);
        assert_eq!(troubles, Vec::<String>::new());
        let lost = |cache: &mut Cache| {
            let is_lost =
                |name: &&String| cache.catalog().locate(name.as_bytes().first_chunk().unwrap()).is_none();
            names(&store).iter().filter(is_lost).count()
        };
        let damaged = lost(&mut next);
        assert!(damaged > 0);
        // Whoever has built it saves it, in the same job or another one, and then all is whole.
        let mut saver = if is_listed { next } else { cache };
        let saved = save(&mut saver, "3", &store).unwrap();
        assert_eq!((saved.paths, saved.known), (damaged, 12 - damaged));
        let (mut cache, _) = open(&depot);
        assert_eq!(lost(&mut cache), 0);
        let (restored, taken) = restore(&mut cache, &names(&store));
        assert_eq!(restored.paths.len(), 12);
        check(&restored, &taken, &store);
    }
}

/// What is damaged on its way is read again.
#[test]
fn a_frame_that_is_damaged_once_costs_a_request() {
    let store = store(12, 1);
    let depot = memory();
    save(&mut open(&depot).0, "1", &store).unwrap();
    let mut cache = open(&depot).0;
    let garbled: Arc<dyn Depot> = Arc::new(Garbles { depot, times: AtomicUsize::new(2) });
    let mut through = open(&garbled).0;
    assert!(through.catalog().packs().count() == 1);
    let (restored, taken) = restore(&mut through, &names(&store));
    assert_eq!(restored.paths.len(), 12);
    check(&restored, &taken, &store);
    assert!(!through.tell_damage(&BlobName::new("packs/2").unwrap()).unwrap());
    assert!(restored.requests > restore(&mut cache, &names(&store)).0.requests);
}

/// Flips a bit in what is read first, some times.
#[derive(Debug)]
struct Garbles {
    depot: Arc<dyn Depot>,
    times: AtomicUsize,
}

#[async_trait::async_trait]
impl Depot for Garbles {
    fn location(&self) -> &str {
        self.depot.location()
    }
    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        self.depot.create(name, body).await
    }
    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        self.depot.find(name).await
    }
    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        self.depot.newest(prefix).await
    }
    async fn read(&self, blob: &Blob, range: std::ops::Range<u64>) -> Result<bytes::Bytes, DepotError> {
        let read = self.depot.read(blob, range.clone()).await?;
        let left = |times: usize| times.checked_sub(1);
        if range.start < 1000 && self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            let mut read = read.to_vec();
            read[500] ^= 1;
            return Ok(read.into());
        }
        Ok(read)
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        self.depot.list(prefix).await
    }
    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        self.depot.remove(name).await
    }
}

#[test]
fn a_depot_that_does_not_list_is_found_by_its_newest_pack() {
    let depot: Arc<dyn Depot> = Arc::new(NoList::default());
    let (one, two) = (store(6, 1), store(9, 3));
    save(&mut open(&depot).0, "1", &one).unwrap();
    save(&mut open(&depot).0, "2", &two).unwrap();
    let (mut cache, troubles) = open(&depot);
    assert!(troubles.is_empty(), "{troubles:?}");
    for store in [one, two] {
        assert_eq!(restore(&mut cache, &names(&store)).0.paths.len(), store.len());
    }
}

#[test]
fn packs_that_are_made_at_once_find_each_other_where_nothing_is_listed() {
    for round in 0..12 {
        // The second half: what was made is seen late.
        let lag = Duration::from_millis(if round < 6 { 0 } else { 60 });
        let depot: Arc<dyn Depot> = Arc::new(NoList { lag, ..NoList::default() });
        // Many who cannot see each other for long need more time than a job takes at its end.
        let count = if round < 6 { 5 } else { 2 };
        let stores: Vec<_> = (0..count).map(|at| store(3, round * 50 + at * 7 + 1)).collect();
        // All have looked before any has saved.
        let mut caches: Vec<_> = stores.iter().map(|_| open(&depot).0).collect();
        std::thread::scope(|scope| {
            for (number, (cache, store)) in caches.iter_mut().zip(&stores).enumerate() {
                scope.spawn(move || save(cache, &number.to_string(), store).unwrap());
            }
        });
        std::thread::sleep(lag);
        let (mut cache, troubles) = open(&depot);
        assert!(troubles.is_empty(), "{troubles:?}");
        for store in &stores {
            let (restored, _) = restore(&mut cache, &names(store));
            assert_eq!(restored.paths.len(), store.len(), "round {round}: {:?}", restored.missing);
        }
    }
}

#[test]
fn a_damaged_newest_pack_hides_nothing_else_where_nothing_is_listed() {
    let depot: Arc<NoList> = Arc::default();
    let shared: Arc<dyn Depot> = depot.clone();
    let stores: Vec<_> = (0..3).map(|at| store(4, 300 + at)).collect();
    let names_of_packs = ["1795821896123-aa", "1795821999999-bb", "1795830000000-cc"];
    for (name, store) in names_of_packs.iter().zip(&stores) {
        save(&mut open(&shared).0, name, store).unwrap();
    }
    // Two damaged packs one after the other.
    for name in &names_of_packs[1..] {
        depot.memory.tamper(&BlobName::new(format!("packs/{name}")).unwrap(), |bytes| {
            let at = bytes.len() - 60;
            bytes[at] ^= 1;
        });
    }
    let (mut cache, troubles) = open(&shared);
    assert_eq!(troubles.len(), 2, "{troubles:?}");
    assert_eq!(restore(&mut cache, &names(&stores[0])).0.paths.len(), stores[0].len());
    // Whoever saves then knows of it.
    save(&mut cache, "1795840000000-dd", &store(4, 400)).unwrap();
    assert_eq!(restore(&mut open(&shared).0, &names(&stores[0])).0.paths.len(), stores[0].len());
}

/// A depot that cannot list.
#[derive(Debug, Default)]
struct NoList {
    memory: Memory,
    /// For how long the newest pack is not the newest to who looks.
    lag: Duration,
    made: Mutex<Vec<(Instant, Blob)>>,
}

#[async_trait::async_trait]
impl Depot for NoList {
    fn location(&self) -> &str {
        self.memory.location()
    }
    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        let created = self.memory.create(name, body).await?;
        if let Some(blob) = self.memory.find(name).await? {
            self.made.lock().unwrap().push((Instant::now(), blob));
        }
        Ok(created)
    }
    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        self.memory.find(name).await
    }
    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        let made = self.made.lock().unwrap();
        let mut seen = made.iter().filter(|(at, _)| at.elapsed() >= self.lag);
        Ok(seen.rfind(|(_, blob)| blob.name.as_str().starts_with(prefix)).map(|(_, blob)| blob.clone()))
    }
    async fn read(&self, blob: &Blob, range: std::ops::Range<u64>) -> Result<bytes::Bytes, DepotError> {
        self.memory.read(blob, range).await
    }
    async fn list(&self, _: &str) -> Result<Vec<Blob>, DepotError> {
        Err(DepotError {
            location: self.location().to_owned(),
            doing: "listing".to_owned(),
            problem: Problem::Unsupported("list"),
        })
    }
    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        self.memory.remove(name).await
    }
}

/// Paths of which each refers to all that come before it: what is known of them is more than one directory should hold.
/// There are ten archives for all of them.
fn referring() -> Store {
    let name = |number: u64| format!("{number:032}-a-name-as-long-as-names-of-packages-are");
    let path = |number: u64| {
        let archive = bytes(number % 10, 20_000).to_vec();
        let info = PathInfo {
            name: name(number),
            nar_hash: Sha256::digest(&archive).into(),
            nar_size: archive.len() as u64,
            references: (0..number).map(name).collect(),
            deriver: None,
            signatures: vec![],
            ca: None,
        };
        (info.name.clone(), (info, archive))
    };
    (0..1000).map(path).collect()
}

#[test]
fn what_is_known_of_many_paths_goes_into_several_packs() {
    let (depot, store) = (memory(), referring());
    let mut before = open(&depot).0;
    let mut cache = open(&depot).0;
    cache.set_branch("main", 1);
    let saved = save(&mut cache, "1-2", &store).unwrap();
    assert_eq!((saved.paths, saved.unreadable.len()), (1000, 0));
    // What is in one of them is not made again in the next.
    assert_eq!(saved.new, 200_000);
    let last = saved.pack.unwrap();
    assert_eq!(last.as_str(), "packs/1-2++001");

    let (mut cache, troubles) = open(&depot);
    assert_eq!(troubles, Vec::<String>::new());
    let packs: Vec<&str> = cache.catalog().packs().map(|(_, name, _)| name).collect();
    assert_eq!(packs, ["packs/1-2++001", "packs/1-2"]);
    let root = names(&store).pop().unwrap();
    assert_eq!(cache.latest(&["main".to_owned()]).0, [root.clone()].into());
    let (restored, taken) = restore(&mut cache, &[root]);
    assert_eq!((restored.paths.len(), restored.failed.len()), (1000, 0));
    check(&restored, &taken, &store);
    assert_eq!(save(&mut cache, "3-4", &store).unwrap().known, 1000);
    // Who is told of the last of them sees all.
    assert!(before.see(&last).unwrap());
    assert_eq!(before.catalog().names().len(), 1000);
}
