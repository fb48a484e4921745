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
