use proptest::prelude::*;

use super::*;
use crate::{Compressor, Footer, FrameBuilder, LEVEL, PackBuilder, PackedPath, Reference};

fn hash(number: u32) -> [u8; HASH_LENGTH] {
    let mut hash = [b'0'; HASH_LENGTH];
    hash[..8].copy_from_slice(format!("{number:08}").as_bytes());
    hash
}

fn name(number: u32) -> String {
    format!("{}-p", String::from_utf8_lossy(&hash(number)))
}

fn bytes(part: u32) -> Vec<u8> {
    part.to_le_bytes().repeat(10 + part as usize % 7)
}

fn chunk(part: u32) -> Chunk {
    let bytes = bytes(part);
    Chunk { id: ChunkId::of(&bytes), length: bytes.len() as u32 }
}

/// A path of these parts that refers to these others.
fn path(number: u32, parts: &[u32], references: &[u32]) -> PackedPath {
    let info = PathInfo {
        name: name(number),
        nar_hash: [number as u8; 32],
        nar_size: parts.iter().map(|&part| u64::from(chunk(part).length)).sum(),
        references: references.iter().map(|&number| name(number)).collect(),
        deriver: None,
        signatures: vec![],
        ca: None,
    };
    PackedPath { info, chunks: parts.iter().map(|&part| chunk(part)).collect(), patches: vec![], saved: 0 }
}

/// The directory of a pack that has these parts itself, three a frame.
fn directory(own: &[u32], paths: Vec<PackedPath>, others: &Others) -> Directory {
    let (mut builder, mut bytes_so_far) = {
        let (builder, head) = PackBuilder::new();
        (builder, head.len())
    };
    let mut compressor = Compressor::new(LEVEL).unwrap();
    for parts in own.chunks(3) {
        let mut frame = FrameBuilder::default();
        for &part in parts {
            frame.push(chunk(part).id, &bytes(part));
        }
        let sealed = frame.seal(&mut compressor).unwrap();
        bytes_so_far += sealed.bytes.len();
        builder.add(&sealed);
    }
    let tail = builder.finish(paths, others.encode()).unwrap();
    let footer = Footer::parse(&tail, (bytes_so_far + tail.len()) as u64).unwrap();
    footer.open(&tail[..(footer.directory.end - footer.directory.start) as usize]).unwrap()
}

fn made(created: u64) -> PackInfo {
    PackInfo { size: 1, created }
}

fn replaced(old: &str, new: &str) -> Others {
    Others { replaced: [(old.to_owned(), [new.to_owned()].into())].into(), ..Others::default() }
}

fn live(catalog: &Catalog) -> Vec<&str> {
    catalog.packs().map(|(_, name, _)| name).collect()
}

/// The bytes that the pieces stand for.
fn put_together(catalog: &Catalog, pieces: &[Piece]) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in pieces {
        let (_, directory) = catalog.pack(piece.pack).unwrap();
        let chunks = directory.chunks_of(piece.frame as usize).unwrap();
        let frame: Vec<u8> = chunks
            .iter()
            .flat_map(|(_, wanted)| bytes((0..100).find(|&part| chunk(part).id == wanted.id).unwrap()))
            .collect();
        all.extend(&frame[piece.offset as usize..(piece.offset + piece.length) as usize]);
    }
    all
}

fn parts(parts: &[u32]) -> Vec<u8> {
    parts.iter().flat_map(|&part| bytes(part)).collect()
}

#[test]
fn a_path_is_put_together_of_own_and_foreign_chunks() {
    let mut catalog = Catalog::default();
    let old = directory(&[1, 2, 3, 4, 5], vec![path(1, &[1, 2, 3, 4, 5], &[])], &Others::default());
    catalog.add("old", made(1), old).unwrap();
    let new = directory(&[6], vec![path(2, &[2, 3, 6, 4, 5], &[])], catalog.others());
    catalog.add("new", made(2), new).unwrap();
    assert_eq!(live(&catalog), ["new", "old"]);

    let one = catalog.locate(&hash(1)).unwrap();
    assert_eq!(one.pieces.len(), 2, "one piece a frame");
    assert_eq!(put_together(&catalog, &one.pieces), parts(&[1, 2, 3, 4, 5]));
    let two = catalog.locate(&hash(2)).unwrap();
    assert_eq!(put_together(&catalog, &two.pieces), parts(&[2, 3, 6, 4, 5]));
    assert_eq!(catalog.locate(&hash(3)), None);
    assert!(catalog.chunks().has(chunk(6)) && !catalog.chunks().has(chunk(7)));

    // Without the old pack, what needs it cannot be had, and nothing worse happens.
    catalog.lose("old");
    assert!(catalog.has(&hash(2)));
    assert_eq!(catalog.locate(&hash(2)), None);
}

#[test]
fn a_newer_record_that_cannot_be_used_hides_no_older_one() {
    let mut catalog = Catalog::default();
    catalog.add("old", made(1), directory(&[1, 2], vec![path(1, &[1, 2], &[])], &Others::default())).unwrap();
    catalog.add("new", made(2), directory(&[1], vec![path(1, &[1, 9], &[])], &Others::default())).unwrap();
    let located = catalog.locate(&hash(1)).unwrap();
    assert_eq!(put_together(&catalog, &located.pieces), parts(&[1, 2]));
}

#[test]
fn a_replaced_pack_is_looked_at_while_what_replaced_it_is_not_there() {
    let mut catalog = Catalog::default();
    let old = directory(&[1], vec![path(1, &[1], &[])], &Others::default());
    let fold = directory(&[1], vec![path(1, &[1], &[])], &replaced("old", "fold"));
    catalog.add("fold", made(5), fold).unwrap();
    catalog.hear(Others { known: [("old".into(), made(1))].into(), ..Others::default() });
    assert!(catalog.unread().is_empty(), "nobody needs it");
    catalog.lose("fold");
    assert_eq!(catalog.unread(), [("old", made(1))]);
    catalog.add("old", made(1), old).unwrap();
    assert!(catalog.locate(&hash(1)).is_some());
}

#[test]
fn what_was_replaced_twice_stays_replaced_and_a_circle_ends() {
    let mut catalog = Catalog::default();
    let mut others = replaced("old", "fold");
    others.merge(replaced("fold", "new"));
    catalog.add("new", made(9), directory(&[1], vec![], &others)).unwrap();
    catalog.add("old", made(1), directory(&[1], vec![], &Others::default())).unwrap();
    assert_eq!(live(&catalog), ["new"]);
    catalog.hear(replaced("new", "elsewhere"));
    catalog.hear(replaced("elsewhere", "new"));
    assert_eq!(live(&catalog), ["new"]);
}

#[test]
fn a_chunk_that_only_a_replaced_pack_has_is_found_there_and_kept_again() {
    let mut catalog = Catalog::default();
    catalog.add("old", made(1), directory(&[1, 2], vec![path(1, &[1, 2], &[])], &Others::default())).unwrap();
    let fold = directory(&[1], vec![], &replaced("old", "fold"));
    catalog.add("fold", made(5), fold).unwrap();
    catalog.add("late", made(6), directory(&[], vec![path(2, &[1, 2], &[])], &Others::default())).unwrap();
    assert_eq!(live(&catalog), ["late", "fold"]);
    let located = catalog.locate(&hash(2)).unwrap();
    assert_eq!(put_together(&catalog, &located.pieces), parts(&[1, 2]));
    assert!(!catalog.keeps(&hash(2)) && !catalog.chunks().has(chunk(2)) && catalog.chunks().has(chunk(1)));
    assert_eq!(catalog.locate(&hash(1)), None, "what a fold left out is not brought back");
}

#[test]
fn what_a_maker_took_for_live_is_relied_on_until_a_fold_knows_of_it() {
    let knows = |names: &[&str]| {
        let known = names.iter().map(|name| ((*name).to_owned(), made(1))).collect();
        Others { known, ..Others::default() }
    };
    let fold = |old: &str, new: &str, known: &[&str]| {
        let mut others = replaced(old, new);
        others.merge(knows(known));
        others
    };
    let empty = |others: &Others| directory(&[], vec![], others);
    let relied_on = |catalog: &Catalog| -> Vec<String> {
        catalog.relied_on().into_iter().map(|(name, _)| name.to_owned()).collect()
    };
    let mut catalog = Catalog::default();
    catalog.add("fold", made(5), empty(&fold("old", "fold", &["old"]))).unwrap();
    assert!(!catalog.unread_replaced().is_empty());
    assert!(relied_on(&catalog).is_empty(), "nobody else is there");
    // Whoever knows of the fold relies on nothing that it replaced, but who looked before it does.
    catalog.add("after", made(6), empty(&fold("old", "fold", &["old", "fold"]))).unwrap();
    assert!(relied_on(&catalog).is_empty());
    catalog.add("late", made(6), empty(&knows(&["old"]))).unwrap();
    assert_eq!(relied_on(&catalog), ["old"]);
    // What came after it made its choices is said by it too, and does not hide them.
    let mut late = knows(&["old"]);
    late.merge_later(fold("old", "fold", &["old", "fold"]));
    catalog.add("late", made(6), empty(&late)).unwrap();
    assert_eq!(relied_on(&catalog), ["old"]);
    // Another fold that does not know it either makes the first one relied on, and one that knows it ends that.
    catalog.add("next", made(7), empty(&fold("fold", "next", &["old", "fold"]))).unwrap();
    catalog.lose("fold");
    catalog.hear(knows(&["fold"]));
    assert_eq!(relied_on(&catalog), ["fold", "old"]);
    let mut last = fold("fold", "last", &["old", "fold", "late", "after"]);
    last.merge(replaced("old", "last"));
    catalog.add("last", made(8), empty(&last)).unwrap();
    assert!(relied_on(&catalog).is_empty());
}

#[test]
fn nobody_looks_for_what_is_gone_and_that_is_said_as_long_as_somebody_knows_it() {
    let knows = |name: &str| Others { known: [(name.to_owned(), made(1))].into(), ..Others::default() };
    let mut catalog = Catalog::default();
    catalog.add("a", made(2), directory(&[1], vec![], &knows("x"))).unwrap();
    assert_eq!(catalog.unread(), [("x", made(1))]);
    catalog.forget("x");
    let said = catalog.statement();
    assert!(said.gone.contains("x") && !said.known.contains_key("x"));

    // Who reads both does not look for it, in whatever order they come.
    for order in [["a", "b"], ["b", "a"]] {
        let mut other = Catalog::default();
        for name in order {
            let says = if name == "a" { knows("x") } else { said.clone() };
            other.add(name, made(2), directory(&[1], vec![], &says)).unwrap();
        }
        assert!(other.unread().is_empty());
        assert!(other.statement().gone.contains("x"));
        // When nobody knows it any more, nothing need be said.
        other.lose("a");
        assert!(other.statement().gone.is_empty());
        // It is seen all the same: then it counts.
        other.add("x", made(1), directory(&[9], vec![], &Others::default())).unwrap();
        assert!(other.chunks().has(chunk(9)) && other.statement().known.contains_key("x"));
    }
}

#[test]
fn two_folds_at_once_lose_nothing() {
    let a = directory(&[1], vec![path(1, &[1], &[])], &Others::default());
    let b = directory(&[2], vec![path(2, &[2], &[])], &Others::default());
    let both = vec![path(1, &[1], &[]), path(2, &[2], &[])];
    let fold = |own: &str| {
        let mut others = replaced("a", own);
        others.merge(replaced("b", own));
        directory(&[1, 2], both.clone(), &others)
    };
    let mut catalog = Catalog::default();
    for (name, directory) in [("a", a), ("b", b), ("f", fold("f")), ("g", fold("g"))] {
        catalog.add(name, made(1), directory).unwrap();
    }
    assert_eq!(live(&catalog), ["g", "f"]);
    assert!(catalog.locate(&hash(1)).is_some() && catalog.locate(&hash(2)).is_some());
}

#[test]
fn a_closure_has_what_is_referred_to_first() {
    let paths =
        vec![path(1, &[1], &[1, 2, 3]), path(2, &[2], &[3, 7]), path(3, &[3], &[4]), path(4, &[4], &[])];
    let mut catalog = Catalog::default();
    catalog.add("x", made(1), directory(&[1, 2, 3, 4], paths, &Others::default())).unwrap();
    let names = |closure: &Closure| closure.names().map(str::to_owned).collect::<Vec<_>>();
    let closure = catalog.closure([name(1)], |_| false);
    assert_eq!(names(&closure), [4, 3, 2, 1].map(name));
    assert_eq!(closure.unknown(), [name(7)]);
    assert_eq!(closure.info(3).unwrap().references, [1, 2, 3].map(name));
    let references = |number| closure.references(number).collect::<Vec<_>>();
    assert_eq!(references(3), [Reference::Path(2), Reference::Path(1)], "not itself");
    assert_eq!(references(2), [Reference::Path(1), Reference::Unknown(0)]);
    assert_eq!(closure.name_of(references(2)[1]), name(7));
    let closure = catalog.closure([name(1)], |there| there == name(3) || there == name(7));
    assert_eq!(names(&closure), [2, 1].map(name));
    assert!(closure.unknown().is_empty());
    assert_eq!(closure.references(0).count(), 0, "what is left out is not among it");
}

#[test]
fn a_closure_stays_when_packs_go() {
    let mut catalog = Catalog::default();
    catalog.add("x", made(1), directory(&[1], vec![path(1, &[1], &[])], &Others::default())).unwrap();
    let closure = catalog.closure([name(1), name(1)], |_| false);
    catalog.lose("x");
    assert_eq!(closure.info(0).unwrap().name, name(1));
    assert_eq!((closure.len(), closure.info(1)), (1, None));
}

#[test]
fn a_closure_goes_in_circles_once_and_has_no_end() {
    // Every path says a kilobyte of itself; all of them together say more than fits into little memory.
    let number = 60_000;
    let paths = (0..number).map(|number| {
        let mut path = path(number, &[1], &[number + 1, number, number / 2, number + 1]);
        path.info.signatures = vec!["s".repeat(1000)];
        path
    });
    let mut paths: Vec<PackedPath> = paths.collect();
    paths[number as usize - 1].info.references = vec![name(0)];
    let mut catalog = Catalog::default();
    for (number, paths) in paths.chunks(20_000).enumerate() {
        let directory = directory(&[1], paths.to_vec(), &Others::default());
        catalog.add(&number.to_string(), made(1), directory).unwrap();
    }
    let closure = catalog.closure([name(0)], |_| false);
    assert_eq!((closure.len(), closure.unknown().len()), (number as usize, 0));
    assert!(closure.size() < 4 << 20, "{}", closure.size());
    assert_eq!(closure.name(0), name(number - 1), "the end of the chain comes first");
}

proptest! {
    #[test]
    fn garbage_of_others_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Others::decode(&bytes);
    }
}

/// What a pack was made of counts where all of that is newer than the pack that is asked for.
#[test]
fn a_pack_is_as_old_as_what_it_was_made_of() {
    let mut catalog = Catalog::default();
    let info = |created, size| PackInfo { size, created };
    let known = [
        ("a", info(10, 100)),
        ("b", info(20, 200)),
        ("x", info(50, 250)),
        ("c", info(30, 1000)),
        ("y", info(90, 300)),
        ("z", info(95, 7)),
    ];
    let replaced = [("a", "x"), ("b", "x"), ("x", "y"), ("c", "y"), ("y", "y")];
    catalog.hear(Others {
        known: known.iter().map(|(name, info)| ((*name).to_owned(), *info)).collect(),
        replaced: replaced.iter().map(|(name, by)| ((*name).to_owned(), [(*by).to_owned()].into())).collect(),
        ..Others::default()
    });
    assert_eq!(catalog.made_of("z", (5, "old")), (95, 7), "it was not made of others");
    assert_eq!(catalog.made_of("x", (5, "old")), (20, 300));
    assert_eq!(catalog.made_of("x", (10, "a0")), (50, 250), "`a` came before it, and took no room from it");
    assert_eq!(catalog.made_of("x", (9, "z")), (20, 300));
    assert_eq!(catalog.made_of("nobody", (9, "z")), (0, 0));
    // What is said to replace itself is not followed.
    assert_eq!(catalog.made_of("y", (5, "old")), (90, 300));
}
