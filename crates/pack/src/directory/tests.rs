use proptest::prelude::*;

use super::*;

fn id(number: u32) -> ChunkId {
    ChunkId::of(&number.to_le_bytes())
}

fn chunk(number: u32) -> Chunk {
    Chunk { id: id(number), length: 100 + number }
}

fn name(number: usize) -> String {
    let digits = phoenix_model::NIX32_ALPHABET;
    let hash: String =
        (0..HASH_LENGTH).map(|at| char::from(digits[(number * 13 + at * number) % 32])).collect();
    format!("{hash}-p{number}")
}

/// A directory of `paths` paths of three chunks each, the last of them foreign, two chunks a frame.
fn contents(paths: usize) -> Contents {
    let own = u32::try_from(paths).unwrap() * 2;
    let frame = |number: u32| Frame {
        offset: u64::from(number) * 77,
        stored: 77,
        length: chunk(number * 2).length + chunk(number * 2 + 1).length,
        first: number * 2,
        check: id(1000 + number),
    };
    let record = |number: u32| PathRecord {
        info: PathInfo {
            name: name(number as usize),
            nar_hash: [number as u8; 32],
            nar_size: u64::from(
                chunk(number * 2).length + chunk(number * 2 + 1).length + chunk(number).length,
            ),
            references: vec![name(number as usize), name(number as usize + 1)],
            deriver: Some("x.drv".into()),
            signatures: vec!["key:sig".into()],
            ca: None,
        },
        runs: vec![Run { first: number * 2, count: 2 }, Run { first: own + number, count: 1 }],
        patches: vec![Patch { at: 3, reference: 1 }, Patch { at: 60, reference: 0 }],
        saved: 1_790_000_000_000,
    };
    let count = u32::try_from(paths).unwrap();
    Contents {
        frames: (0..count).map(frame).collect(),
        chunks: (0..own).map(chunk).collect(),
        foreign: (0..count).map(chunk).collect(),
        paths: (0..count).map(record).collect(),
        others: b"others".to_vec(),
    }
}

fn hash_part(name: &str) -> &[u8; HASH_LENGTH] {
    name.as_bytes().first_chunk().unwrap()
}

#[test]
fn what_is_written_is_found() {
    let contents = contents(20);
    let directory = Directory::parse(contents.clone().encode().unwrap()).unwrap();
    assert_eq!((directory.frames(), directory.chunks(), directory.paths()), (20, 40, 20));
    assert_eq!(directory.others(), b"others");
    for path in &contents.paths {
        let number = directory.find(hash_part(&path.info.name)).unwrap();
        assert_eq!(&directory.record(number).unwrap(), path);
    }
    assert_eq!(directory.find(&[b'z'; HASH_LENGTH]), None);
    for number in 0..40 {
        assert_eq!(directory.chunk(number), Some(chunk(number)));
        assert_eq!(directory.frame_of(number), Some(number as usize / 2));
    }
    assert_eq!((directory.chunk(45), directory.frame_of(45)), (Some(chunk(5)), None));
    assert_eq!(directory.chunk(60), None);
    assert_eq!(directory.chunks_of(3).unwrap(), [(0, chunk(6)), (chunk(6).length, chunk(7))]);
}

#[test]
fn an_empty_directory_is_one() {
    let directory = Directory::parse(Contents::default().encode().unwrap()).unwrap();
    assert_eq!((directory.frames(), directory.paths()), (0, 0));
    assert_eq!(directory.find(&[b'a'; HASH_LENGTH]), None);
}

#[test]
fn another_version_is_named() {
    let mut bytes = Contents::default().encode().unwrap();
    bytes[7] = 9;
    assert_eq!(Directory::parse(bytes).unwrap_err(), DirectoryError::Version(9));
}

#[test]
fn a_record_that_lies_is_damage() {
    let damage = |change: fn(&mut PathRecord)| {
        let mut contents = contents(3);
        change(&mut contents.paths[1]);
        let directory = Directory::parse(contents.encode().unwrap()).unwrap();
        (0..3).filter(|&number| directory.record(number).is_err()).count()
    };
    assert_eq!(damage(|_| ()), 0);
    assert_eq!(damage(|path| path.runs[0].count = u32::MAX), 1);
    assert_eq!(damage(|path| path.runs[0].first = u32::MAX), 1);
    assert_eq!(damage(|path| path.runs = vec![Run { first: 0, count: 1 }; 1_000_000]), 1);
    assert_eq!(damage(|path| path.info.nar_size += 1), 1);
    assert_eq!(damage(|path| path.patches[1].at = 20), 1, "overlapping");
    assert_eq!(damage(|path| path.patches[1].at = u64::MAX - 2), 1);
    assert_eq!(damage(|path| path.patches[0].reference = 2), 1);
    assert_eq!(damage(|path| path.info.name = "x".into()), 1);
}

#[test]
fn every_cut_is_damage() {
    let bytes = contents(3).encode().unwrap();
    for end in 0..bytes.len() {
        assert!(Directory::parse(bytes[..end].to_vec()).is_err(), "cut at {end}");
    }
}

/// Looks at everything there is.
fn look(directory: &Directory) {
    for number in 0..directory.frames() {
        let _ = directory.chunks_of(number);
    }
    for number in 0..directory.paths() {
        let _ = directory.record(number);
    }
    for number in 0..directory.chunks() as u32 + 5 {
        let _ = (directory.chunk(number), directory.frame_of(number));
    }
    let _ = directory.find(&[b'a'; HASH_LENGTH]);
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut bytes = contents(4).encode().unwrap();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Ok(directory) = Directory::parse(bytes) {
            look(&directory);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut whole = MAGIC.to_vec();
        whole.extend(&bytes);
        for bytes in [bytes, whole] {
            if let Ok(directory) = Directory::parse(bytes) {
                look(&directory);
            }
        }
    }
}

#[test]
fn a_record_says_no_more_than_a_path_may_have() {
    let damaged = |change: &dyn Fn(&mut PathRecord)| {
        let mut contents = contents(3);
        change(&mut contents.paths[1]);
        let directory = Directory::parse(contents.encode().unwrap()).unwrap();
        (0..3).filter(|&number| directory.record(number).is_err()).count()
    };
    assert_eq!(damaged(&|_| ()), 0);
    // A byte each in the record, and two dozen in memory.
    let names = |count| move |path: &mut PathRecord| path.info.references.resize(count, String::new());
    assert_eq!(damaged(&names(MOST_NAMES)), 0);
    assert_eq!(damaged(&names(MOST_NAMES + 1)), 1);
    assert_eq!(damaged(&|path| path.info.signatures = vec![String::new(); MOST_NAMES + 1]), 1);
    assert_eq!(damaged(&|path| path.info.deriver = Some("x".repeat(LONGEST_RECORD))), 1);
    let again = |path: &mut PathRecord| {
        path.runs = vec![Run { first: 0, count: 6 }; MOST_CHUNKS as usize / 6 + 1];
        path.info.nar_size = u64::MAX;
    };
    assert_eq!(damaged(&again), 1);
}
