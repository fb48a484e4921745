use std::ops::Range;

use phoenix_depot::testing::{Refusing, bytes};
use phoenix_depot::{Blob, BlobName, Problem};
use phoenix_pack::nar::{Sink as _, Writer};

use super::*;
use crate::args::DepotArgs;

fn args(repair: bool) -> VerifyArgs {
    VerifyArgs { repair, json: false, depot: DepotArgs { depot: None, threads: None } }
}

/// Saves so many paths in a pack of their own, and returns their names and that of the pack.
fn save(depot: &Arc<Refusing>, kind: &str, count: u64, references: &[String]) -> (Vec<String>, BlobName) {
    let name = |number| format!("{number:032}-{kind}");
    let archive = |name: &str| {
        let seed = name.bytes().map(u64::from).fold(7, |seed, byte| seed * 31 % 1_000_003 + byte);
        let contents = bytes(seed, 150_000);
        let mut nar = Writer::default();
        nar.file(false, contents.len() as u64).unwrap();
        nar.data(&contents).unwrap();
        nar.file_end().unwrap();
        nar.bytes
    };
    let infos = (0..count).map(|number| {
        let name = name(number + 100 * kind.len() as u64);
        let archive = archive(&name);
        PathInfo {
            nar_hash: Sha256::digest(&archive).into(),
            nar_size: archive.len() as u64,
            name,
            references: references.to_vec(),
            deriver: None,
            signatures: vec![],
            ca: None,
        }
    });
    let infos: Vec<PathInfo> = infos.collect();
    let names = infos.iter().map(|info| info.name.clone()).collect();
    let mut cache = Cache::open(depot.clone(), &mut |_| ()).unwrap();
    let read = |info: &PathInfo, emit: &mut dyn FnMut(&[u8]) -> io::Result<()>| emit(&archive(&info.name));
    let saved = cache.save(&depots::new_name(), &infos, &read, 1).unwrap();
    (names, saved.pack.unwrap())
}

/// What is between the beginning and the directory.
fn is_of_frames(blob: &Blob, range: &Range<u64>) -> bool {
    range.start > 0 && range.end < blob.size
}

fn busy() -> Option<Problem> {
    Some(Problem::Busy("503 SlowDown".to_owned()))
}

fn whole(depot: &Arc<Refusing>) -> Vec<String> {
    let (mut cache, found) = look(depot.clone(), 2).unwrap();
    assert!(found.bad.is_empty() && !found.is_unread, "{found:?}");
    cache.catalog().names().into_iter().collect()
}

#[test]
fn what_cannot_be_read_is_not_let_go() {
    let depot: Arc<Refusing> = Arc::default();
    let (names, _) = save(&depot, "a", 20, &[]);
    depot.refuse(|blob, range| if is_of_frames(blob, range) { busy() } else { None });
    let (_, found) = look(depot.clone(), 2).unwrap();
    assert_eq!((found.whole(), found.unread.len(), found.is_damaged()), (0, 20, false));
    assert!(!is_well(depot.clone(), 2, &args(false)).unwrap());
    let refused = is_well(depot.clone(), 2, &args(true)).unwrap_err();
    assert!(refused.in_one_line().contains("nothing is repaired"), "{}", refused.in_one_line());
    // Not even where one answer is refused, of many, while all else is given.
    let once = Mutex::new(true);
    depot.refuse(move |blob, range| {
        let refuses = is_of_frames(blob, range) && std::mem::take(&mut *once.lock().unwrap());
        if refuses { busy() } else { None }
    });
    assert!(is_well(depot.clone(), 2, &args(true)).is_err());
    depot.give();
    assert_eq!(whole(&depot), names);
}

#[test]
fn what_is_damaged_goes_and_what_cannot_be_read_stays() {
    let depot: Arc<Refusing> = Arc::default();
    let (damaged, first) = save(&depot, "a", 1, &[]);
    let (mut kept, second) = save(&depot, "bb", 3, &[]);
    depot.memory.tamper(&first, |bytes| bytes[1000] ^= 1);
    depot.refuse(
        move |blob, range| {
            if blob.name == second && is_of_frames(blob, range) { busy() } else { None }
        },
    );
    let (_, found) = look(depot.clone(), 2).unwrap();
    assert_eq!((found.whole(), found.bad.len(), found.unread.len()), (0, 1, 3));
    let told = is_well(depot.clone(), 2, &args(true)).unwrap_err();
    assert!(told.in_one_line().contains("is left as it is"), "{}", told.in_one_line());
    depot.give();
    assert_eq!(whole(&depot), kept);
    // Then it is saved anew, and all is well.
    let (again, _) = save(&depot, "a", 1, &[]);
    assert_eq!(again, damaged);
    kept.extend(again);
    kept.sort();
    assert_eq!(whole(&depot), kept);
}

#[test]
fn a_pack_that_the_depot_does_not_open_is_no_damage() {
    let depot: Arc<Refusing> = Arc::default();
    let (mut names, _) = save(&depot, "a", 2, &[]);
    let (more, second) = save(&depot, "bb", 2, &[]);
    depot.refuse(move |blob, _| if blob.name == second { busy() } else { None });
    assert!(!is_well(depot.clone(), 2, &args(false)).unwrap());
    assert!(is_well(depot.clone(), 2, &args(true)).is_err());
    depot.give();
    names.extend(more);
    assert_eq!(whole(&depot), names);
}

/// What refers to something that is lost is read all the same, or it would not be known to be whole.
#[test]
fn what_was_not_read_is_not_whole() {
    let depot: Arc<Refusing> = Arc::default();
    let (lost, first) = save(&depot, "a", 1, &[]);
    let (_, second) = save(&depot, "bb", 3, &lost);
    let _ = save(&depot, "cccc", 1, &lost);
    depot.memory.tamper(&first, |bytes| bytes[1000] ^= 1);
    depot.memory.tamper(&second, |bytes| bytes[1000] ^= 1);
    let mut cache = Cache::open(depot.clone(), &mut |_| ()).unwrap();
    drop(cache.restore(lost, |_| false, &|_, make| make(&mut |_| Ok(())), 1, &|_| ()));
    assert!(cache.tell_damage(&depots::new_name()).unwrap());
    // That the first is damaged is known now, and nothing that refers to it would be restored.
    let (_, found) = look(depot.clone(), 2).unwrap();
    assert_eq!((found.all, found.whole(), found.bad.len()), (5, 1, 4), "{found:?}");
}

/// Saves one path that is large, and some of each of which as much is known as a record may hold.
fn save_heavy(depot: &Arc<Refusing>, pack: u64) -> (Vec<String>, BlobName) {
    let seed = |name: &str| name.bytes().map(u64::from).fold(7, |seed, byte| seed * 31 % 1_000_003 + byte);
    let archive = |name: &str| {
        let contents = bytes(seed(name), if name.contains("-large") { 2_300_000 } else { 100 });
        let mut nar = Writer::default();
        nar.file(false, contents.len() as u64).unwrap();
        nar.data(&contents).unwrap();
        nar.file_end().unwrap();
        nar.bytes
    };
    let infos = (0..6).map(|number| {
        // The first by what follows the hash.
        let kind = if number == 0 { "a-large" } else { "b" };
        let name =
            format!("{:032}-{kind}{}", pack * 100 + number, "-a-name-as-long-as-the-longest-are".repeat(3));
        let archive = archive(&name);
        PathInfo {
            nar_hash: Sha256::digest(&archive).into(),
            nar_size: archive.len() as u64,
            references: vec![name.clone(); if number == 0 { 1 } else { 28_000 }],
            name,
            deriver: None,
            signatures: vec![],
            ca: None,
        }
    });
    let infos: Vec<PathInfo> = infos.collect();
    let names = infos.iter().map(|info| info.name.clone()).collect();
    let mut cache = Cache::open(depot.clone(), &mut |_| ()).unwrap();
    let read = |info: &PathInfo, emit: &mut dyn FnMut(&[u8]) -> io::Result<()>| emit(&archive(&info.name));
    let saved = cache.save(&depots::new_name(), &infos, &read, 1).unwrap();
    (names, saved.pack.unwrap())
}

/// What is damaged is in more packs than fit into one together.
#[test]
fn however_many_packs_are_damaged_they_are_repaired_and_nothing_is_lost_in_between() {
    let depot: Arc<Refusing> = Arc::default();
    let saved: Vec<_> = (0..4).map(|pack| save_heavy(&depot, pack)).collect();
    for (_, pack) in &saved {
        depot.memory.tamper(pack, |bytes| bytes[1000] ^= 1);
    }
    let (mut cache, mut found) = look(depot.clone(), 2).unwrap();
    let lost: BTreeSet<&String> = found.bad.iter().map(|(name, _)| name).collect();
    assert_eq!(lost, saved.iter().map(|(names, _)| &names[0]).collect());
    let kept: BTreeSet<String> = saved.iter().flat_map(|(names, _)| names[1..].to_vec()).collect();
    let all = |cache: &mut Cache| -> BTreeSet<String> {
        let located = |cache: &mut Cache, name: &String| {
            cache.catalog().locate(name.as_bytes().first_chunk().unwrap()).is_some()
        };
        kept.iter().filter(|name| located(cache, name)).cloned().collect()
    };
    // The depot gives up in the middle: what was made last is repaired first.
    let first = saved[0].1.clone();
    depot.refuse(
        move |blob, range| if blob.name == first && is_of_frames(blob, range) { busy() } else { None },
    );
    let told = repair(&mut cache, &mut found).unwrap_err().in_one_line();
    assert!(told.starts_with("not all of the depot is repaired, and nothing is lost"), "{told}");
    depot.give();
    let (mut cache, found) = look(depot.clone(), 2).unwrap();
    assert!(!found.bad.is_empty() && found.bad.len() < 4, "{}", found.bad.len());
    assert_eq!(all(&mut cache), kept);
    // The same again repairs the rest.
    assert!(is_well(depot.clone(), 2, &args(true)).unwrap());
    assert_eq!(whole(&depot), kept.into_iter().collect::<Vec<_>>());
}
