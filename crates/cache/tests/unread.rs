//! What a depot does not give is not damaged, and is told once.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod stores;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use phoenix_cache::{Cache, MakeArchive, Restored};
use phoenix_depot::testing::{Memory, Refusing, bytes};
use phoenix_depot::{BlobName, Depot, Problem};
use phoenix_pack::PathInfo;
use sha2::{Digest, Sha256};
use stores::{Store, check, names, open, restore, save, store};

type Words = fn() -> Problem;

/// Nothing of the packs is given whose names begin like that.
fn refuse(depot: &Refusing, prefix: &'static str, words: Words) {
    depot.refuse(move |blob, _| blob.name.as_str().starts_with(prefix).then(words));
}

fn busy() -> Problem {
    Problem::Busy("503 SlowDown".to_owned())
}

fn denied() -> Problem {
    Problem::Denied("the token has ended".to_owned())
}

/// Restores without keeping anything, and what was told meanwhile.
fn told(cache: &mut Cache, wanted: &[String]) -> (Restored, Vec<String>) {
    let told = Mutex::new(Vec::new());
    let take = |_: &PathInfo, make: &mut MakeArchive<'_>| {
        // In words of its own.
        make(&mut |_| Ok(())).map_err(|error| std::io::Error::other(format!("cannot make a file: {error}")))
    };
    let restored = cache.restore(wanted.to_vec(), |_| false, &take, 3, &|trouble| {
        told.lock().unwrap().push(trouble.to_string());
    });
    (restored, told.into_inner().unwrap())
}

fn set(names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    names.into_iter().collect()
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_damaged() {
    let refuses = Arc::new(Refusing::default());
    let depot: Arc<dyn Depot> = refuses.clone();
    let (one, two) = (store(4, 1), store(4, 2));
    let (one, two): (Store, Store) = (alone(one, 10), alone(two, 20));
    save(&mut open(&depot).0, "1", &one).unwrap();
    save(&mut open(&depot).0, "2", &two).unwrap();
    let mut cache = open(&depot).0;
    refuses.memory.tamper(&BlobName::new("packs/1").unwrap(), |bytes| bytes[1000] ^= 1);
    refuse(&refuses, "packs/2", busy);
    let (restored, troubles) = told(&mut cache, &[names(&one), names(&two)].concat());
    let failed = set(restored.failed.iter().map(|(name, _)| name.clone()));
    assert!(names(&two).iter().all(|name| failed.contains(name)));
    assert!(names(&one).iter().any(|name| failed.contains(name)), "the damage struck nothing");
    assert_eq!(restored.unread, set(names(&two)));
    assert_eq!(troubles.len(), 2, "{troubles:?}");
    // The pack that was not given is not doubted.
    refuses.give();
    let (restored, taken) = restore(&mut cache, &names(&two));
    check(&restored, &taken, &two);
    assert_eq!(restored.paths.len(), two.len());
}

/// Paths that refer to nothing, with contents of their own.
fn alone(mut store: Store, seed: u64) -> Store {
    for (seed, (info, archive)) in (seed..).zip(store.values_mut()) {
        *archive = bytes(seed, 200_000).to_vec();
        (info.nar_hash, info.nar_size) = (Sha256::digest(&*archive).into(), archive.len() as u64);
        info.references.clear();
    }
    store
}

#[test]
fn what_a_depot_did_not_show_may_be_whole() {
    let refuses = Arc::new(Refusing::default());
    let depot: Arc<dyn Depot> = refuses.clone();
    let (old, new) = (store(12, 1), store(24, 2));
    save(&mut open(&depot).0, "1", &old).unwrap();
    save(&mut open(&depot).0, "2", &new).unwrap();
    refuse(&refuses, "packs/1", busy);
    let mut cache = open(&depot).0;
    let (restored, _) = told(&mut cache, &names(&new));
    // They need chunks of the pack whose directory was not given.
    let own: Vec<&String> = restored
        .failed
        .iter()
        .filter(|(_, why)| !why.starts_with("it refers to"))
        .map(|(name, _)| name)
        .collect();
    assert!(!own.is_empty() && own.iter().all(|name| restored.unread.contains(*name)));
    // One that is gone is gone.
    refuses.give();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(refuses.remove(&BlobName::new("packs/1").unwrap())).unwrap();
    let (restored, _) = told(&mut open(&depot).0, &names(&new));
    assert!(!restored.failed.is_empty() && restored.unread.is_empty());
}

#[test]
fn what_is_about_us_is_told_once_and_not_of_every_pack() {
    let refuses = Arc::new(Refusing::default());
    let depot: Arc<dyn Depot> = refuses.clone();
    let stores: Vec<Store> = (1..6).map(|salt| alone(store(2, salt), salt * 10)).collect();
    for (at, store) in stores.iter().enumerate() {
        save(&mut open(&depot).0, &at.to_string(), store).unwrap();
    }
    let mut cache = open(&depot).0;
    refuse(&refuses, "packs/", denied);
    let (_, troubles) = open(&depot);
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    let all: Vec<String> = stores.iter().flat_map(names).collect();
    let (restored, troubles) = told(&mut cache, &all);
    assert_eq!((restored.unread.len(), troubles.len()), (all.len(), 1), "{troubles:?}");
}

#[test]
fn a_pack_that_went_away_is_told_once_and_only_if_something_is_missed() {
    let depot: Arc<dyn Depot> = Arc::new(Memory::new());
    let mut large = alone(store(3, 1), 30);
    for (seed, (info, archive)) in (100..).zip(large.values_mut()) {
        // Each is read in ranges of its own.
        *archive = bytes(seed, 9 << 20).to_vec();
        (info.nar_hash, info.nar_size) = (Sha256::digest(&*archive).into(), archive.len() as u64);
    }
    save(&mut open(&depot).0, "1", &large).unwrap();
    let (mut first, mut second) = (open(&depot).0, open(&depot).0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let remove = |pack| runtime.block_on(depot.remove(&BlobName::new(pack).unwrap())).unwrap();
    remove("packs/1");
    save(&mut open(&depot).0, "2", &large).unwrap();
    let (restored, troubles) = told(&mut first, &names(&large));
    assert_eq!((restored.paths.len(), troubles), (3, vec![]));
    remove("packs/2");
    let (restored, troubles) = told(&mut second, &names(&large));
    assert_eq!((restored.paths.len(), troubles.len()), (0, 1), "{troubles:?}");
    assert!(troubles[0].contains("packs/1") && restored.unread.is_empty());
}
