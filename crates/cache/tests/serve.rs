//! Serving a depot as a binary cache, with archives in memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use phoenix_cache::Cache;
use phoenix_cache::serve::{ServeError, Server, Settings};
use phoenix_depot::testing::{Memory, bytes};
use phoenix_depot::{Blob, BlobName, Body, Created, Depot, DepotError, Problem};
use phoenix_pack::{Chunk, ChunkId, Compressor, FrameBuilder, PackBuilder, PackedPath, PathInfo};
use phoenix_substituter::{NarInfo, PublicKeys, SecretKey};
use phoenix_testkit::http::{Answer, request};
use sha2::{Digest, Sha256};

const STORE_DIR: &str = "/nix/store";

/// A depot that can be away, or give wrong bytes from somewhere on.
#[derive(Debug, Default)]
struct Moody {
    memory: Memory,
    away: AtomicBool,
    reads: AtomicUsize,
    /// Reads from this offset on have a wrong bit.
    wrong_from: Mutex<Option<u64>>,
    /// So many reads from now on have a wrong bit.
    flips: AtomicUsize,
    /// How many bytes a second come, all reads together; 0 is as many as can be.
    rate: AtomicU64,
    /// One at a time has the way.
    way: tokio::sync::Mutex<()>,
    /// The next reads of more than this never end, and how many; 0 for none.
    hangs: (AtomicU64, AtomicUsize),
    /// How long the reads were.
    lengths: Mutex<Vec<u64>>,
}

impl Moody {
    fn fail(&self, doing: &str) -> Result<(), DepotError> {
        if !self.away.load(Ordering::Relaxed) {
            return Ok(());
        }
        let problem = Problem::Unreachable("it is away".into());
        Err(DepotError { location: "moody".into(), doing: doing.into(), problem })
    }
}

#[async_trait::async_trait]
impl Depot for Moody {
    fn location(&self) -> &str {
        "moody"
    }

    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        self.memory.create(name, body).await
    }

    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        self.fail("finding")?;
        self.memory.find(name).await
    }

    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        self.fail("looking")?;
        self.memory.newest(prefix).await
    }

    async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError> {
        self.fail("reading")?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let length = range.end - range.start;
        self.lengths.lock().unwrap().push(length);
        let less = |left: usize| left.checked_sub(1);
        if length > self.hangs.0.load(Ordering::Relaxed)
            && self.hangs.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
        {
            std::future::pending::<()>().await;
        }
        let rate = self.rate.load(Ordering::Relaxed);
        if let Some(micros) = (length * 1_000_000).checked_div(rate) {
            let _way = self.way.lock().await;
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
        let wrong = self.wrong_from.lock().unwrap().is_some_and(|from| range.start >= from)
            || self.flips.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        let mut bytes = self.memory.read(blob, range).await?.to_vec();
        if wrong {
            bytes[0] ^= 1;
        }
        Ok(bytes.into())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        self.fail("listing")?;
        self.memory.list(prefix).await
    }

    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        self.memory.remove(name).await
    }
}

type Store = BTreeMap<String, (PathInfo, Vec<u8>)>;

fn name(number: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let digits = bytes(number + 1, 32);
    let part: String = digits.iter().map(|byte| char::from(DIGITS[usize::from(*byte) % 32])).collect();
    format!("{part}-p{number}")
}

/// A path of this size that refers to itself and the one before, and says so.
fn path(number: u64, size: usize) -> (PathInfo, Vec<u8>) {
    let mut references = vec![name(number)];
    references.extend(number.checked_sub(1).map(name));
    let mut archive = bytes(number, size).to_vec();
    for (reference, at) in references.iter().zip([7_usize, size - 40]) {
        archive[at..at + 32].copy_from_slice(&reference.as_bytes()[..32]);
    }
    references.sort();
    let info = PathInfo {
        name: name(number),
        nar_hash: Sha256::digest(&archive).into(),
        nar_size: archive.len() as u64,
        references,
        deriver: Some(format!("{}.drv", name(900))),
        signatures: vec![],
        ca: None,
    };
    (info, archive)
}

fn store(sizes: &[usize]) -> Store {
    let paths = (0..).zip(sizes).map(|(number, &size)| path(number, size));
    paths.map(|(info, archive)| (info.name.clone(), (info, archive))).collect()
}

fn save(depot: &Arc<Moody>, pack: &str, store: &Store) {
    let depot: Arc<dyn Depot> = depot.clone();
    let mut cache = Cache::open(depot, &mut |trouble| panic!("{trouble}")).unwrap();
    let read = |info: &PathInfo, emit: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
        store[&info.name].1.chunks(60_000).try_for_each(emit)
    };
    let name = BlobName::new(format!("packs/{pack}")).unwrap();
    // One thread: the frames are in the order of the paths.
    let paths: Vec<PathInfo> = store.values().map(|(info, _)| info.clone()).collect();
    let saved = cache.save(&name, &paths, &read, 1).unwrap();
    assert_eq!(saved.paths, store.len());
}

fn settings() -> Settings {
    Settings {
        address: "127.0.0.1:0".parse().unwrap(),
        store_dir: STORE_DIR.into(),
        sign: None,
        trusted: None,
        look_every: Duration::from_secs(3600),
        threads: 2,
    }
}

fn serve(depot: &Arc<Moody>, settings: Settings) -> Served {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let tell = told.clone();
    let tell =
        Box::new(move |trouble: phoenix_cache::Trouble| tell.lock().unwrap().push(trouble.to_string()));
    let server = Server::start(depot.clone(), settings, tell).unwrap();
    let url = format!("http://{}", server.address());
    Served { server: Some(server), url, told }
}

struct Served {
    server: Option<Server>,
    url: String,
    told: Arc<Mutex<Vec<String>>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Duration::from_secs(1));
        }
    }
}

impl Served {
    fn get(&self, path: &str) -> Answer {
        request("GET", &format!("{}/{path}", self.url), &[], &[])
    }

    fn narinfo(&self, name: &str) -> Option<NarInfo> {
        let answer = self.get(&format!("{}.narinfo", &name[..32]));
        if answer.status == 404 {
            return None;
        }
        assert_eq!(answer.status, 200);
        Some(NarInfo::parse(std::str::from_utf8(&answer.body).unwrap()).unwrap())
    }

    /// The archive by what the narinfo says.
    fn archive(&self, name: &str, headers: &[&str]) -> Answer {
        let url = self.narinfo(name).unwrap().url;
        request("GET", &format!("{}/{url}", self.url), headers, &[])
    }
}

/// What came of a body whose connection broke is less than was promised.
fn is_short(answer: &Answer) -> bool {
    answer.status == 200 && (answer.body.len() as u64) < answer.header("content-length").parse().unwrap()
}

#[test]
fn what_is_in_the_depot_is_served() {
    let depot = Arc::new(Moody::default());
    let store = store(&[300, 4_000, 1_500_000, 9_000_000, 70_000]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    let reads = depot.reads.load(Ordering::Relaxed);
    let info = served.get("nix-cache-info");
    assert_eq!(info.body, b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n");
    for (name, (info, archive)) in &store {
        let narinfo = served.narinfo(name).unwrap();
        assert_eq!(narinfo.info.store_path.as_str(), format!("{STORE_DIR}/{name}"));
        assert_eq!(narinfo.info.references, info.references);
        assert_eq!(narinfo.deriver, info.deriver);
        assert_eq!(narinfo.compression.as_deref(), Some("none"));
        let url = format!("{}/{}", served.url, narinfo.url);
        let head = request("HEAD", &url, &[], &[]);
        assert_eq!((head.status, head.header("content-length")), (200, archive.len().to_string().as_str()));
        assert!(head.body.is_empty());
    }
    assert_eq!(depot.reads.load(Ordering::Relaxed), reads, "the depot is not asked for what is known");
    for (name, (_, archive)) in &store {
        let answer = served.archive(name, &[]);
        assert_eq!(answer.status, 200);
        assert!(answer.body == *archive, "{name}");
        let half = archive.len() / 2;
        let rest = served.archive(name, &[&format!("Range: bytes={half}-")]);
        assert_eq!(rest.status, 206);
        assert_eq!(
            rest.header("content-range"),
            format!("bytes {half}-{}/{}", archive.len() - 1, archive.len())
        );
        assert!(rest.body == archive[half..], "the rest of {name}");
    }
    let (big, (_, archive)) = store.iter().find(|(_, (info, _))| info.nar_size == 9_000_000).unwrap();
    let none = served.archive(big, &[&format!("Range: bytes={}-", archive.len())]);
    assert_eq!((none.status, none.header("content-range")), (416, "bytes */9000000"));

    // What is not there.
    let nothing = name(77);
    assert!(served.narinfo(&nothing).is_none());
    let url = served.narinfo(big).unwrap().url;
    for path in ["", "log/x.drv", &url.replace("nar/", "nar/0"), &url.replacen(&big[..32], &nothing[..32], 1)]
    {
        assert_eq!(served.get(path).status, 404, "{path}");
    }
    assert_eq!(request("PUT", &format!("{}/{url}", served.url), &[], b"x").status, 405);
    let told = served.told.lock().unwrap();
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn one_connection_is_for_many_requests_and_for_this_machine() {
    let depot = Arc::new(Moody::default());
    let store = store(&[300, 4_000]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    let mut stream = TcpStream::connect(served.url.strip_prefix("http://").unwrap()).unwrap();
    let mut ask = |host: &str, path: &str| {
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        (head[9..12].to_owned(), body)
    };
    for name in store.keys() {
        let narinfo = ask("localhost:1", &format!("{}.narinfo", &name[..32])).1;
        let url = NarInfo::parse(std::str::from_utf8(&narinfo).unwrap()).unwrap().url;
        assert!(ask("127.0.0.1", &url) == ("200".into(), store[name].1.clone()));
        assert_eq!(ask("127.0.0.1", "nothing").0, "404");
    }
    assert_eq!(ask("evil.example", "nix-cache-info").0, "421");

    let outside = Settings { address: "0.0.0.0:0".parse().unwrap(), ..settings() };
    let error = Server::start(depot.clone(), outside, Box::new(|_| ())).unwrap_err();
    assert!(matches!(error, ServeError::NotLoopback(_)), "{error}");
    let taken = Settings { address: served.server.as_ref().unwrap().address(), ..settings() };
    let error = Server::start(depot, taken, Box::new(|_| ())).unwrap_err();
    assert!(matches!(error, ServeError::Listen { .. }), "{error}");
}

#[test]
fn a_part_is_sent_where_one_is_asked_for() {
    let depot = Arc::new(Moody::default());
    let store = store(&[300, 128 << 10, 3_000_000]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    for (name, (_, archive)) in &store {
        let size = archive.len();
        for (first, last) in [(0, 0), (0, 99), (0, size - 1), (size - 7, size + 5), (size / 3, size / 2)] {
            let part = served.archive(name, &[&format!("Range: bytes={first}-{last}")]);
            let last = last.min(size - 1);
            let range = format!("bytes {first}-{last}/{size}");
            assert_eq!((part.status, part.header("content-range")), (206, range.as_str()));
            assert_eq!(part.header("content-length"), (last - first + 1).to_string());
            assert!(part.body == archive[first..=last], "{name} {range}");
        }
        // Nothing says what it was a part of before, and other kinds of ranges may be answered with the whole.
        for headers in [["Range: bytes=5-9", "If-Range: \"x\""], ["Range: bytes=-9", "Accept: */*"]] {
            assert_eq!(served.archive(name, &headers).status, 200);
        }
        assert_eq!(served.archive(name, &["Range: bytes=5-"]).header("accept-ranges"), "bytes");
    }
}

#[test]
fn more_clients_than_are_sent_to_at_once_wait_for_their_turn() {
    let depot = Arc::new(Moody::default());
    let store = store(&[40_000, 2_000_000, 1_500_000]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    // As many as one Nix makes that was told to make many, and another beside it.
    std::thread::scope(|scope| {
        for client in 0..160 {
            let (served, store) = (&served, &store);
            scope.spawn(move || {
                let (name, (_, archive)) = store.iter().nth(client % store.len()).unwrap();
                assert!(served.archive(name, &[]).body == *archive);
            });
        }
    });
}

#[test]
fn many_ask_at_once() {
    let depot = Arc::new(Moody::default());
    let sizes: Vec<usize> = (0..40).map(|number| [500, 40_000, 300_000, 2_000_000][number % 4]).collect();
    let store = store(&sizes);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    std::thread::scope(|scope| {
        for offset in 0..12 {
            let (served, store) = (&served, &store);
            scope.spawn(move || {
                for (name, (_, archive)) in store.iter().cycle().skip(offset * 3).take(20) {
                    assert!(served.archive(name, &[]).body == *archive);
                }
            });
        }
    });
    // Each frame was read once, for they all fit into what is kept.
    let reads = depot.reads.load(Ordering::Relaxed);
    assert!(reads < 20, "{reads}");
}

#[test]
fn whoever_goes_along_a_pack_is_expected() {
    let depot = Arc::new(Moody::default());
    // Each about a frame long.
    let store = store(&[2_150_000; 6]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    let names: Vec<&String> = store.keys().collect();
    let read_after = |number: usize, at_least: u64| {
        depot.lengths.lock().unwrap().clear();
        assert_eq!(served.archive(names[number], &[]).status, 200);
        let read = || depot.lengths.lock().unwrap().iter().sum::<u64>();
        let deadline = Instant::now() + Duration::from_secs(10);
        while read() < at_least && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        read()
    };
    // One in the middle is on the way to nowhere: the two frames that it is in.
    let read = read_after(2, 1);
    assert!(read < 5_000_000, "{read}");
    // The next one is, of which one frame is here: what comes after it is fetched before anybody asks, maybe at once.
    let read = read_after(3, 4_000_000);
    assert!(read >= 4_000_000, "{read}");
    assert!(served.archive(names[4], &[]).body == store[names[4]].1);
}

#[test]
fn what_was_asked_about_is_read_along() {
    let depot = Arc::new(Moody::default());
    let store = store(&[1_000_000; 40]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    let read = |names: &[&String]| {
        let before = depot.reads.load(Ordering::Relaxed);
        let urls: Vec<String> = names.iter().map(|name| served.narinfo(name).unwrap().url).collect();
        for (name, url) in names.iter().zip(urls) {
            assert!(served.get(&url).body == store[*name].1, "{name}");
        }
        depot.reads.load(Ordering::Relaxed) - before
    };
    let names: Vec<&String> = store.keys().collect();
    // 40 MB of noise, 20 frames, in ranges of two or three, though each is asked for when the one before is there.
    let reads = read(&names);
    assert!(reads < 20, "{reads}");
    // Against the order.
    let served_anew = serve(&depot, settings());
    let asked: Vec<_> =
        names.iter().rev().map(|name| (*name, served_anew.narinfo(name).unwrap().url)).collect();
    for (name, url) in asked {
        assert!(served_anew.get(&url).body == store[name].1, "{name}");
    }
}

#[test]
fn a_depot_that_is_slow_is_read_in_small_parts_and_waited_for() {
    let depot = Arc::new(Moody::default());
    let store = store(&[1_000_000; 8]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    depot.rate.store(4_000_000, Ordering::Relaxed);
    depot.lengths.lock().unwrap().clear();
    let asked: Vec<_> = store.keys().map(|name| (name, served.narinfo(name).unwrap().url)).collect();
    std::thread::scope(|scope| {
        for (name, url) in &asked {
            let (served, store) = (&served, &store);
            scope.spawn(move || assert!(served.get(url).body == store[*name].1, "{name}"));
        }
    });
    // Frames of 2 MiB, and nothing with them that would not come in a moment.
    let lengths = depot.lengths.lock().unwrap().clone();
    assert!(lengths.iter().all(|&length| length < 3_000_000), "{lengths:?}");
    assert!(served.told.lock().unwrap().is_empty());
}

/// Asks for all archives of a store, while so many reads of more than so many bytes hang; how long that took.
fn ask_while_reads_hang(sizes: &[usize], longer: u64, hang: usize) -> Duration {
    let depot = Arc::new(Moody::default());
    let store = store(sizes);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    let asked: Vec<_> = store.keys().map(|name| (name, served.narinfo(name).unwrap().url)).collect();
    depot.hangs.0.store(longer, Ordering::Relaxed);
    depot.hangs.1.store(hang, Ordering::Relaxed);
    let begun = Instant::now();
    for (name, url) in &asked {
        assert!(served.get(url).body == store[*name].1, "{name}");
    }
    assert!(depot.hangs.1.load(Ordering::Relaxed) < hang, "one did");
    assert_eq!(*served.told.lock().unwrap(), Vec::<String>::new());
    begun.elapsed()
}

#[test]
fn a_request_that_hangs_holds_up_nobody_for_long() {
    // What reads more than a frame.
    let took = ask_while_reads_hang(&[1_000_000; 12], 3_000_000, 1);
    assert!(took < Duration::from_secs(10), "{took:?}");
    // Two for a frame alone, one after the other.
    let took = ask_while_reads_hang(&[300_000], 200_000, 2);
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn where_long_ranges_hang_they_get_shorter() {
    let took = ask_while_reads_hang(&[1_000_000; 40], 3_000_000, 1_000);
    assert!(took < Duration::from_secs(14), "{took:?}");
}

#[test]
fn what_was_put_into_another_pack_is_found_there() {
    let depot = Arc::new(Moody::default());
    let store = store(&[300, 70_000, 3_000_000]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    let asked: Vec<_> = store.keys().map(|name| (name, served.narinfo(name).unwrap().url)).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let first = BlobName::new("packs/1").unwrap();
    // As a collector does it, in another order.
    runtime.block_on(depot.remove(&first)).unwrap();
    save(&depot, "2", &store);
    // The depot is looked at once a second, for what is gone.
    std::thread::sleep(Duration::from_millis(1_100));
    for (name, url) in &asked {
        assert!(served.get(url).body == store[*name].1, "{name}");
    }
    // What nobody told this server of is found by whoever knows it.
    let mut more = self::store(&[300, 70_000, 3_000_000, 500]);
    more.retain(|name, _| !store.contains_key(name));
    save(&depot, "3", &more);
    std::thread::sleep(Duration::from_millis(1_100));
    let (name, (info, archive)) = more.first_key_value().unwrap();
    let url = format!("nar/{}-{}.nar", &name[..32], phoenix_substituter::nix32::encode(&info.nar_hash));
    assert!(served.get(&url).body == *archive);
}

#[test]
fn damage_is_not_found_and_never_a_wrong_end() {
    let depot = Arc::new(Moody::default());
    let store = store(&[300, 12_000_000, 500]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    // Of the large one the first frame is good and the others are not.
    *depot.wrong_from.lock().unwrap() = Some(1 << 20);
    let by_size = |size| store.iter().find(|(_, (info, _))| info.nar_size == size).unwrap();
    let (large, (_, archive)) = by_size(12_000_000);
    let url = served.narinfo(large).unwrap().url;
    let broken = served.get(&url);
    assert!(is_short(&broken), "{} {}", broken.status, broken.body.len());
    assert!(archive.starts_with(&broken.body) && !broken.body.is_empty());
    // Whoever tries again is told that there is nothing, from wherever on.
    assert_eq!(served.get(&url).status, 404);
    let again = request("GET", &format!("{}/{url}", served.url), &["Range: bytes=100000-"], &[]);
    assert_eq!(again.status, 404);
    assert!(served.narinfo(large).is_none());
    let told = served.told.lock().unwrap().clone();
    assert!(told.len() == 1 && told[0].contains("a frame is not what was written"), "{told:?}");
    // The others are as good as before.
    for (name, (_, archive)) in store.iter().filter(|(name, _)| *name != large) {
        let answer = served.archive(name, &[]);
        assert!(answer.status == 404 || answer.body == *archive);
    }
    drop(served);

    // From the beginning on: nothing is sent that would have to be taken back.
    *depot.wrong_from.lock().unwrap() = None;
    let served = serve(&depot, settings());
    *depot.wrong_from.lock().unwrap() = Some(0);
    for name in store.keys() {
        assert_eq!(served.archive(name, &[]).status, 404);
    }
}

#[test]
fn what_refers_to_too_much_for_a_narinfo_is_told_once_and_restored() {
    let depot = Arc::new(Moody::default());
    let (mut info, archive) = path(1, 300);
    info.references = (0..30_000).map(name).collect();
    info.references.sort();
    let store: Store = [(info.name.clone(), (info.clone(), archive))].into();
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    assert!(served.narinfo(&info.name).is_none() && served.narinfo(&info.name).is_none());
    let told = served.told.lock().unwrap().clone();
    assert!(told.len() == 1 && told[0].contains("it is larger than 1 MiB"), "{told:?}");
    let mut cache = Cache::open(depot.clone(), &mut |trouble| panic!("{trouble}")).unwrap();
    let is_there = |other: &str| *other != *info.name;
    let restored = cache.restore(vec![info.name.clone()], is_there, &|_, _| Ok(()), 1, &|_| ());
    assert_eq!(restored.paths, [info.name]);
}

#[test]
fn what_is_damaged_on_its_way_is_read_again() {
    let depot = Arc::new(Moody::default());
    let store = store(&[1_000_000; 4]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    let asked: Vec<_> = store.keys().map(|name| (name, served.narinfo(name).unwrap().url)).collect();
    for (name, url) in &asked {
        depot.flips.store(2, Ordering::Relaxed);
        assert!(served.get(url).body == store[*name].1, "{name}");
    }
    assert_eq!(*served.told.lock().unwrap(), Vec::<String>::new());
}

/// Makes a pack that says what it is told to of archives.
fn lie(depot: &Arc<Moody>, name: &str, store: &BTreeMap<String, (PathInfo, Vec<u8>)>) {
    let (mut builder, head) = PackBuilder::new();
    let mut parts = vec![Bytes::from_static(head)];
    let mut compressor = Compressor::new(3).unwrap();
    let mut frame = FrameBuilder::default();
    let mut paths = Vec::new();
    for (info, archive) in store.values() {
        let mut chunks = Vec::new();
        for piece in archive.chunks(20_000) {
            let chunk = Chunk { id: ChunkId::of(piece), length: piece.len() as u32 };
            frame.push(chunk.id, piece);
            chunks.push(chunk);
            if frame.is_full() {
                let sealed = frame.seal(&mut compressor).unwrap();
                builder.add(&sealed);
                parts.push(sealed.bytes.into());
            }
        }
        paths.push(PackedPath { info: info.clone(), chunks, patches: Vec::new(), saved: 1 });
    }
    let sealed = frame.seal(&mut compressor).unwrap();
    builder.add(&sealed);
    parts.push(sealed.bytes.into());
    parts.push(builder.finish(paths, Vec::new()).unwrap().into());
    let name = BlobName::new(format!("packs/{name}")).unwrap();
    let body = futures_util::stream::iter(parts.into_iter().map(Ok)).boxed();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(depot.create(&name, body)).unwrap();
}

#[test]
fn a_pack_that_lies_is_found_out_before_the_end() {
    let depot = Arc::new(Moody::default());
    // The last of them is made of whole parts.
    let mut store = store(&[300, 3_000_000, 24 << 17]);
    for (info, _) in store.values_mut() {
        info.nar_hash[5] ^= 1;
    }
    lie(&depot, "1", &store);
    let served = serve(&depot, settings());
    for (name, (info, _)) in &store {
        // A part that is whole may belong to something that is not.
        let other = serve(&depot, settings());
        let half = other.archive(name, &[&format!("Range: bytes=0-{}", info.nar_size / 2)]);
        assert!(half.status == 404 || half.body.len() as u64 <= info.nar_size / 2, "{}", half.status);
        let answer = served.archive(name, &[]);
        if info.nar_size == 300 {
            assert_eq!(answer.status, 404);
        } else {
            assert!(is_short(&answer));
        }
        assert!(served.narinfo(name).is_none(), "it is known now");
    }
    // What would break out of its line is not said at all.
    for hostile in ["a\nSig: b", "a\r", ""] {
        let depot = Arc::new(Moody::default());
        let mut store = self::store(&[300]);
        for (info, _) in store.values_mut() {
            info.deriver = Some(hostile.into());
            info.signatures = vec![hostile.into()];
        }
        save(&depot, "1", &store);
        let served = serve(&depot, settings());
        let said = served.narinfo(store.keys().next().unwrap());
        assert!(said.is_none(), "{said:?}");
    }
}

#[test]
fn a_depot_that_goes_away_costs_what_is_not_here_yet() {
    let depot = Arc::new(Moody::default());
    let store = store(&[9_000_000, 400, 300_000]);
    save(&depot, "1", &store);
    let served = serve(&depot, settings());
    let small = &name(1);
    assert_eq!(served.archive(small, &[]).status, 200);
    depot.away.store(true, Ordering::Relaxed);
    for (name, (_, archive)) in &store {
        // What is known is still known, and what was fetched is still there.
        let answer = served.archive(name, &[]);
        assert!(answer.status == 404 || answer.body == *archive, "{name}");
    }
    assert_eq!(served.archive(small, &[]).status, 200);
    assert_eq!(served.archive(&name(0), &[]).status, 404);
    assert!(served.narinfo(&name(55)).is_none());
    let told = served.told.lock().unwrap().clone();
    assert_eq!(told.len(), 1, "said once: {told:?}");
    drop(served);

    // And one that is not there at the beginning may come.
    let served = serve(&depot, Settings { look_every: Duration::ZERO, ..settings() });
    assert!(served.narinfo(small).is_none());
    depot.away.store(false, Ordering::Relaxed);
    assert!(served.narinfo(small).is_some());
}

#[test]
fn new_packs_are_noticed_when_something_is_missed() {
    let depot = Arc::new(Moody::default());
    save(&depot, "1", &store(&[300]));
    let (eager, lazy) =
        (serve(&depot, Settings { look_every: Duration::ZERO, ..settings() }), serve(&depot, settings()));
    assert!(eager.narinfo(&name(1)).is_none());
    let (info, archive) = path(1, 5_000);
    let second = Store::from([(info.name.clone(), (info, archive.clone()))]);
    save(&depot, "2", &second);
    assert!(eager.archive(&name(1), &[]).body == archive);
    assert!(eager.narinfo(&name(0)).is_some());
    assert!(lazy.narinfo(&name(1)).is_none(), "it looked not long ago");
}

#[test]
fn signatures_are_kept_added_and_asked_for() {
    let secret = |seed: u8| {
        use base64::Engine as _;
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).to_keypair_bytes();
        let key = base64::prelude::BASE64_STANDARD.encode(key);
        SecretKey::parse(&format!("key-{seed}:{key}")).unwrap()
    };
    let (theirs, ours) = (secret(1), secret(2));
    let public = |key: &SecretKey| PublicKeys::parse_all([key.public().as_str()]).unwrap();
    let depot = Arc::new(Moody::default());
    let mut store = store(&[300, 4_000]);
    for (info, _) in store.values_mut() {
        if info.name == name(1) {
            info.signatures.push(theirs.sign(&signable(info)).unwrap());
        }
    }
    save(&depot, "1", &store);

    let served = serve(&depot, Settings { sign: Some(ours.clone()), ..settings() });
    let both = [name(0), name(1)].map(|name| served.narinfo(&name).unwrap().info);
    assert!(both.iter().all(|info| public(&ours).signed(info)));
    assert_eq!(both.map(|info| public(&theirs).signed(&info)), [false, true]);

    let served = serve(&depot, Settings { trusted: Some(public(&theirs)), ..settings() });
    assert_eq!([name(0), name(1)].map(|name| served.narinfo(&name).is_some()), [false, true]);
    let unsigned = &store[&name(0)].0;
    let url =
        format!("nar/{}-{}.nar", &name(0)[..32], phoenix_substituter::nix32::encode(&unsigned.nar_hash));
    assert_eq!(served.get(&url).status, 404);
}

/// What is signed of a path.
fn signable(info: &PathInfo) -> phoenix_substituter::PathInfo {
    phoenix_substituter::PathInfo {
        store_path: phoenix_model::StorePath::parse(&format!("{STORE_DIR}/{}", info.name)).unwrap(),
        nar_hash: format!("sha256:{}", phoenix_substituter::nix32::encode(&info.nar_hash)),
        nar_size: info.nar_size,
        references: info.references.clone(),
        signatures: vec![],
        content_address: None,
    }
}
