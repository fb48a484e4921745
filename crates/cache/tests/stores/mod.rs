//! Archives in memory, and a cache to save them to.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phoenix_cache::{Cache, MakeArchive, Restored, Saved, Trouble};
use phoenix_depot::testing::bytes;
use phoenix_depot::{BlobName, Depot};
use phoenix_pack::PathInfo;
use sha2::{Digest, Sha256};

/// A store in memory: archives by name.
pub(crate) type Store = BTreeMap<String, (PathInfo, Vec<u8>)>;

fn hash_part(seed: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    bytes(seed, 32).iter().map(|byte| char::from(DIGITS[usize::from(*byte) % 32])).collect()
}

/// Paths of many sizes, each of which refers to itself and to some before it, and says so in its archive.
/// `salt` is what all hashes depend on.
pub(crate) fn store(count: u64, salt: u64) -> Store {
    let name = |number: u64| format!("{}-p{number}", hash_part(salt * 10_000 + number));
    let mut store = Store::new();
    for number in 0..count {
        let mut references: Vec<String> = (0..number).rev().take(3).chain([number]).map(name).collect();
        let size = [200, 3_000, 70_000, 400_000][number as usize % 4];
        let mut archive = bytes(number, size).to_vec();
        for (reference, at) in references.iter().zip([7_usize, 50, 90, 130]) {
            archive[at..at + 32].copy_from_slice(&reference.as_bytes()[..32]);
        }
        references.sort();
        let info = PathInfo {
            name: name(number),
            nar_hash: hash_of(&archive),
            nar_size: archive.len() as u64,
            references,
            deriver: Some("x.drv".into()),
            signatures: vec![format!("key:{number}")],
            ca: None,
        };
        store.insert(info.name.clone(), (info, archive));
    }
    store
}

/// Any hash serves here: what the archive is checked with is the caller's business.
fn hash_of(archive: &[u8]) -> [u8; 32] {
    Sha256::digest(archive).into()
}

pub(crate) fn open(depot: &Arc<dyn Depot>) -> (Cache, Vec<String>) {
    let mut troubles = Vec::new();
    let mut cache = Cache::open(depot.clone(), &mut |trouble| troubles.push(trouble.to_string())).unwrap();
    cache.set_meeting(Duration::from_millis(200));
    (cache, troubles)
}

pub(crate) fn save(cache: &mut Cache, name: &str, store: &Store) -> Result<Saved, Trouble> {
    let read = |info: &PathInfo, emit: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
        store[&info.name].1.chunks(60_000).try_for_each(emit)
    };
    let name = BlobName::new(format!("packs/{name}")).unwrap();
    let paths: Vec<PathInfo> = store.values().map(|(info, _)| info.clone()).collect();
    cache.save(&name, &paths, &read, 2)
}

/// Restores these; what was taken in, which is always what it says it is.
pub(crate) fn restore(cache: &mut Cache, wanted: &[String]) -> (Restored, HashMap<String, Vec<u8>>) {
    restore_by(cache, wanted, 3)
}

/// The same by so many threads.
pub(crate) fn restore_by(
    cache: &mut Cache,
    wanted: &[String],
    threads: usize,
) -> (Restored, HashMap<String, Vec<u8>>) {
    let taken = Mutex::new(HashMap::new());
    let take = |info: &PathInfo, make: &mut MakeArchive<'_>| {
        let mut archive = Vec::new();
        make(&mut |piece| {
            archive.extend_from_slice(piece);
            Ok(())
        })?;
        if archive.len() as u64 != info.nar_size || hash_of(&archive) != info.nar_hash {
            return Err(io::Error::other("the hash is another"));
        }
        taken.lock().unwrap().insert(info.name.clone(), archive);
        Ok(())
    };
    let restored = cache.restore(wanted.to_vec(), |_| false, &take, threads, &|_| ());
    (restored, taken.into_inner().unwrap())
}

pub(crate) fn names(store: &Store) -> Vec<String> {
    store.keys().cloned().collect()
}

/// What was restored is right, references are whole and come first.
pub(crate) fn check(restored: &Restored, taken: &HashMap<String, Vec<u8>>, store: &Store) {
    let mut before: Vec<&str> = Vec::new();
    for name in &restored.paths {
        let info = &store[name].0;
        assert!(taken[&info.name] == store[&info.name].1);
        let whole = |name: &String| *name == info.name || before.contains(&name.as_str());
        assert!(info.references.iter().all(whole), "{} comes too soon", info.name);
        before.push(&info.name);
    }
}
