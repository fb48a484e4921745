//! Packs that are made to fill memory: what they say of themselves does not decide how much a restore takes.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Ran, TestEnv};
use fs_err as fs;
use phoenix_pack::nar::{Sink as _, Writer};
use phoenix_pack::{
    Chunk, ChunkId, Compressor, Contents, Frame, FrameBuilder, LEVEL, LONGEST_FRAME, Others, PackBuilder,
    PackInfo, PackedPath, PathInfo, PathRecord, Run,
};
use sha2::{Digest as _, Sha256};

/// What a restore may take, in MiB, whatever a pack is.
const LIMIT: u64 = 256;

/// The peak of a process's resident memory so far, in MiB.
fn peak_of(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() >> 10
}

/// The same of one that ends, as far as it was seen until then.
fn peak(child: &mut Child) -> u64 {
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(peak_of(child.id()));
        std::thread::sleep(Duration::from_millis(2));
    }
    peak
}

/// Runs phoenix, which takes no more memory than it may.
fn within_limit(env: &TestEnv, args: &[&str]) -> Ran {
    let mut child = common::start(env, args);
    let peak = peak(&mut child);
    let ran = common::end(child);
    assert!(peak < LIMIT, "{peak} MiB: {ran}");
    eprintln!("{peak} MiB");
    ran
}

/// The same for a verb of `cache` over the depot of the test.
fn cache_within_limit(env: &TestEnv, args: &[&str]) -> Ran {
    within_limit(env, &[&["cache"], args, &["--depot", &env.depot()]].concat())
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0; size];
    for part in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        part.copy_from_slice(&state.to_le_bytes()[..part.len()]);
    }
    bytes
}

fn name(number: usize) -> String {
    format!("{number:032}-hostile")
}

fn info(number: usize, nar_size: u64) -> PathInfo {
    PathInfo {
        name: name(number),
        nar_hash: [0; 32],
        nar_size,
        references: vec![],
        deriver: None,
        signatures: vec![],
        ca: None,
    }
}

/// A pack of these frames, with this directory behind them.
fn sealed(frames: &[u8], directory: &[u8]) -> Vec<u8> {
    let tail = zstd::bulk::compress(directory, 1).unwrap();
    let mut pack = b"PHXPACK\x01".to_vec();
    pack.extend(frames);
    let start = pack.len() as u64;
    pack.extend(&tail);
    pack.extend(start.to_le_bytes());
    pack.extend((tail.len() as u32).to_le_bytes());
    pack.extend((directory.len() as u32).to_le_bytes());
    pack.extend(ChunkId::of(&tail).0);
    pack.extend(b"PHXPACK\x01");
    pack
}

/// Restores so many paths of a depot of these packs, and looks at how much that takes.
fn restore(env: &TestEnv, packs: &[Vec<u8>], paths: usize) -> Ran {
    let folder = env.file("depot/packs");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for (number, pack) in packs.iter().enumerate() {
        fs::write(folder.join(number.to_string()), pack).unwrap();
    }
    let depot = env.depot();
    let paths: Vec<String> =
        (0..paths).map(|number| format!("{}/{}", env.nix.store_dir(), name(number))).collect();
    // As many threads as a runner of GitHub's has.
    let mut args = vec!["cache", "restore", "--threads", "4", "--depot", &depot];
    args.extend(paths.iter().map(String::as_str));
    within_limit(env, &args)
}

/// How many large frames there are, of 200 MB together.
const FRAMES: u32 = 40;

/// Paths of large frames, each of which is needed by all paths, in turn; what the frames hold is stored as it is, or
/// compressed to almost nothing.
fn large_frames(compressed: bool) -> (Vec<u8>, Contents) {
    let part = if compressed { vec![0; LONGEST_FRAME] } else { noise(LONGEST_FRAME) };
    let size = u64::from(FRAMES) * part.len() as u64;
    let mut nar = Writer::default();
    nar.file(false, size).unwrap();
    let head = std::mem::take(&mut nar.bytes);
    let mut frames = head.clone();
    let stored = if compressed { zstd::bulk::compress(&part, 3).unwrap() } else { part.clone() };
    let at = 8 + frames.len() as u64;
    frames.extend(&stored);
    let first = Frame {
        offset: 8,
        stored: head.len() as u32,
        length: head.len() as u32,
        first: 0,
        check: ChunkId::of(&head),
    };
    let check = ChunkId::of(&stored);
    let rest = (1..=FRAMES).map(|first| Frame {
        offset: at,
        stored: stored.len() as u32,
        length: part.len() as u32,
        first,
        check,
    });
    let id = ChunkId::of(&part);
    let chunks = std::iter::once(Chunk { id: ChunkId::of(&head), length: head.len() as u32 })
        .chain((0..FRAMES).map(|_| Chunk { id, length: part.len() as u32 }));
    let paths = (0..8).map(|number| {
        // Each from another frame on.
        let turned = 1 + number as u32 % FRAMES;
        let runs = vec![
            Run { first: 0, count: 1 },
            Run { first: turned, count: FRAMES + 1 - turned },
            Run { first: 1, count: turned - 1 },
        ];
        PathRecord { info: info(number, head.len() as u64 + size), runs, patches: vec![], saved: 1 }
    });
    let contents = Contents {
        frames: std::iter::once(first).chain(rest).collect(),
        chunks: chunks.collect(),
        foreign: vec![],
        paths: paths.collect(),
        others: vec![],
    };
    (frames, contents)
}

#[test]
fn large_frames_take_no_more_than_there_is() {
    let env = TestEnv::new();
    for compressed in [true, false] {
        let (frames, contents) = large_frames(compressed);
        let _ = restore(&env, &[sealed(&frames, &contents.encode().unwrap())], 8).ends_with(1);
    }
}

/// A path of one byte, in a directory that is changed.
fn one(change: impl FnOnce(&mut Contents)) -> Vec<u8> {
    let byte = b"x".to_vec();
    let check = ChunkId::of(&byte);
    let path =
        PathRecord { info: info(0, 1), runs: vec![Run { first: 0, count: 1 }], patches: vec![], saved: 1 };
    let mut contents = Contents {
        frames: vec![Frame { offset: 8, stored: 1, length: 1, first: 0, check }],
        chunks: vec![Chunk { id: check, length: 1 }],
        foreign: vec![],
        paths: vec![path],
        others: vec![],
    };
    change(&mut contents);
    sealed(&byte, &contents.encode().unwrap())
}

/// So many chunks that are nowhere, each of a byte.
fn chunks(count: usize) -> impl Iterator<Item = Chunk> {
    let ids = noise(count * 16);
    (0..count).map(move |number| {
        let mut id = [0; 16];
        id.copy_from_slice(&ids[number * 16..][..16]);
        Chunk { id: ChunkId(id), length: 1 }
    })
}

#[test]
fn a_directory_is_as_large_as_its_pack_may_have_one() {
    let env = TestEnv::new();
    // What nobody reads lets it be long.
    let long = |size: usize| one(|contents| contents.others = [noise(size / 32), vec![0; size]].concat());
    let _ = restore(&env, &[long(200 << 20)], 1).ends_with(1).says("longer than any is made");
    let many: Vec<_> = (0..12).map(|_| long(28 << 20)).collect();
    let _ = restore(&env, &many, 1).ends_with(1);
    // Each with a path of its own, or one would stand for all.
    let foreign = |number| {
        one(|contents| {
            contents.foreign = chunks(1_000_000).collect();
            contents.paths[0].info.name = name(number);
        })
    };
    let many: Vec<_> = (0..12).map(foreign).collect();
    let _ = restore(&env, &many, 1).ends_with(1).says("are left out");
}

#[test]
fn what_is_said_of_others_is_counted_before_it_is_kept() {
    let env = TestEnv::new();
    let said = |names: std::ops::Range<u32>| {
        one(|contents| {
            let known = names.map(|name| (format!("packs/{name}"), PackInfo { size: 0, created: 0 }));
            contents.others =
                Others { gone: known.map(|(name, _)| name).collect(), ..Others::default() }.encode();
        })
    };
    let ran = restore(&env, &[said(0..1_500_000)], 1).ends_with(1);
    assert!(ran.stderr.contains("what it says of other packs is not readable"), "{ran}");
    let many: Vec<_> = (0..20).map(|number| said(number * 100_000..(number + 1) * 100_000)).collect();
    let ran = restore(&env, &many, 1).ends_with(1);
    assert!(ran.stderr.contains("are left out"), "{ran}");
}

#[test]
fn records_that_unfold_are_refused_or_planned_by_parts() {
    let env = TestEnv::new();
    // Each of these takes a byte in the record, and two dozen in memory.
    let references = one(|contents| {
        contents.paths[0].info.references = vec![String::new(); 4 << 20];
        contents.foreign = chunks(100_000).collect();
    });
    let _ = restore(&env, &[references], 1).ends_with(1);
    let few = one(|contents| {
        let path = contents.paths[0].clone();
        contents.paths = (0..300)
            .map(|number| {
                let mut path = path.clone();
                path.info.name = name(number);
                path.info.references = vec![String::new(); 60_000];
                path.info.references.push(name(number + 1));
                path
            })
            .collect();
        contents.foreign = chunks(200_000).collect();
    });
    let _ = restore(&env, &[few], 1).ends_with(1);
    // Many frames, which a path needs in turn, again and again.
    let pieces = |paths: usize| {
        one(|contents| {
            let check = contents.chunks[0].id;
            contents.frames =
                (0..100_000).map(|first| Frame { offset: 8, stored: 1, length: 1, first, check }).collect();
            contents.chunks = vec![contents.chunks[0]; 100_000];
            let turns = if paths == 1 { 40 } else { 1 };
            let path = &mut contents.paths[0];
            path.runs = vec![Run { first: 0, count: 100_000 }; turns];
            path.info.nar_size = 100_000 * turns as u64;
            let path = path.clone();
            contents.paths = (0..paths)
                .map(|number| PathRecord {
                    info: PathInfo { name: name(number), ..path.info.clone() },
                    ..path.clone()
                })
                .collect();
        })
    };
    for paths in [1, 12] {
        let _ = restore(&env, &[pieces(paths)], paths).ends_with(1);
    }
}

#[test]
fn all_of_it_together_takes_no_more() {
    let env = TestEnv::new();
    for compressed in [true, false] {
        let (frames, mut contents) = large_frames(compressed);
        contents.foreign = chunks(60_000).collect();
        // So that it is looked for where each chunk is.
        contents.paths[7].runs.push(Run { first: FRAMES + 1, count: 1 });
        contents.paths[7].info.nar_size += 1;
        let known = (0..100_000).map(|name| (format!("packs/{name:09}"), PackInfo { size: 0, created: 0 }));
        // Gone, or each would be looked for.
        contents.others =
            Others { gone: known.map(|(name, _)| name).collect(), ..Others::default() }.encode();
        for path in &mut contents.paths {
            path.info.references = vec![path.info.name.clone(); 10_000];
        }
        let packs = [
            sealed(&frames, &contents.encode().unwrap()),
            one(|contents| {
                contents.chunks = chunks(1_200_000).collect();
                contents.paths[0].info.name = name(99);
            }),
        ];
        let _ = restore(&env, &packs, 8).ends_with(1);
    }
}

/// How many packs there are, with how many chunks together, of which each path has as many as there are paths in a pack.
const MANY: (u64, u64, u64) = (8, 1_000_000, 20);

/// One of the packs of a depot that has as much as may be known of one without large packs.
fn many(number: u64) -> Vec<u8> {
    let (packs, chunks, each) = MANY;
    let (mut builder, head) = PackBuilder::new();
    let mut pack = head.to_vec();
    let (mut frame, mut compressor) = (FrameBuilder::default(), Compressor::new(LEVEL).unwrap());
    let mut paths = Vec::new();
    for path in number * chunks / packs / each..(number + 1) * chunks / packs / each {
        let of_it = (path * each..(path + 1) * each).map(|chunk| {
            let bytes = chunk.to_le_bytes();
            let chunk = Chunk { id: ChunkId::of(&bytes), length: 8 };
            frame.push(chunk.id, &bytes);
            chunk
        });
        let chunks = of_it.collect();
        let path = usize::try_from(path).unwrap();
        let references = (0..path.min(2)).map(|reference| name(path - reference - 1)).rev().collect();
        let info = PathInfo { references, ..info(path, 8 * each) };
        paths.push(PackedPath { info, chunks, patches: vec![], saved: 1 });
        if path % 3 == 0 {
            let sealed = frame.seal(&mut compressor).unwrap();
            builder.add(&sealed);
            pack.extend(sealed.bytes);
        }
    }
    if !frame.is_empty() {
        let sealed = frame.seal(&mut compressor).unwrap();
        builder.add(&sealed);
        pack.extend(sealed.bytes);
    }
    pack.extend(builder.finish(paths, Others::default().encode()).unwrap());
    pack
}

#[test]
fn a_fold_of_many_paths_takes_no_more() {
    let env = TestEnv::new();
    fs::create_dir_all(env.file("depot/packs")).unwrap();
    for number in 0..MANY.0 {
        fs::write(env.file(&format!("depot/packs/{number}")), many(number)).unwrap();
    }
    let depot = env.depot();
    let paths: Vec<String> = (0..10)
        .map(|number| {
            let file = env.file(&format!("small-{number}"));
            fs::write(&file, format!("{number}")).unwrap();
            env.nix.run("nix-store", &["--add", file.to_str().unwrap()]).trim().to_owned()
        })
        .collect();
    let mut args = vec!["cache", "save", "--depot", &depot];
    args.extend(paths.iter().map(String::as_str));
    let ran = within_limit(&env, &args).ends_with(0);
    assert!(ran.stderr.contains("folded 9 packs"), "{ran}");
}

/// How many paths refer to how many others.
const REFERRING: (usize, usize) = (14_000, 48);

/// Packs of small paths, of each of which much is known: the first refers to nothing, and all are reached from the last.
fn referring(store_dir: &str) -> (Vec<Vec<u8>>, String) {
    let (count, most) = REFERRING;
    let name = |number: usize| {
        let digits: String = format!("{number:07}").chars().cycle().take(32).collect();
        format!("{digits}-a-name-of-usual-length-{number:06}")
    };
    let mut packs = Vec::new();
    for half in [0..count / 2, count / 2..count] {
        let (mut builder, head) = PackBuilder::new();
        let mut pack = head.to_vec();
        let mut frame = FrameBuilder::default();
        let mut paths = Vec::new();
        for number in half {
            let mut references: Vec<String> = (number.saturating_sub(most)..number).map(name).collect();
            references.sort();
            let mut nar = Writer::default();
            let text = format!("{store_dir} {number}");
            nar.file(false, text.len() as u64).unwrap();
            nar.data(text.as_bytes()).unwrap();
            nar.file_end().unwrap();
            let chunk = Chunk { id: ChunkId::of(&nar.bytes), length: nar.bytes.len() as u32 };
            frame.push(chunk.id, &nar.bytes);
            let nar_hash = Sha256::digest(&nar.bytes).into();
            let info =
                PathInfo { name: name(number), nar_hash, references, ..info(0, u64::from(chunk.length)) };
            paths.push(PackedPath { info, chunks: vec![chunk], patches: vec![], saved: 1 });
        }
        let sealed = frame.seal(&mut Compressor::new(LEVEL).unwrap()).unwrap();
        builder.add(&sealed);
        pack.extend(sealed.bytes);
        pack.extend(builder.finish(paths, Others::default().encode()).unwrap());
        packs.push(pack);
    }
    (packs, name(count - 1))
}

#[test]
fn a_closure_of_which_much_is_known_comes_whole_and_goes_again() {
    let env = TestEnv::new();
    let (packs, last) = referring(&env.nix.store_dir());
    fs::create_dir_all(env.file("depot/packs")).unwrap();
    for (number, pack) in packs.iter().enumerate() {
        fs::write(env.file(&format!("depot/packs/{number}")), pack).unwrap();
    }
    drop(packs);
    let run = |args: &[&str]| within_limit(&env, args).ends_with(0);
    let path = format!("{}/{last}", env.nix.store_dir());
    let ran = run(&["cache", "restore", "--threads", "4", "--depot", &env.depot(), &path]);
    let _ = ran.says(&format!("restored {} paths", REFERRING.0));
    let other = format!("dir:{}", env.file("other").display());
    let _ = run(&["cache", "save", "--threads", "4", "--depot", &other, "--all"])
        .says(&format!("saved {} paths", REFERRING.0));
    assert_eq!(fs::read_dir(env.file("other/packs")).unwrap().count(), 2);
}

/// A pack of paths of each of which as much is known as a record may hold; the first of them is what it says it is.
fn heavy(store_dir: &str, pack: usize) -> (Vec<u8>, String) {
    let (mut builder, head) = PackBuilder::new();
    let mut bytes = head.to_vec();
    let (mut frame, mut paths) = (FrameBuilder::default(), Vec::new());
    // What was saved long ago is written down again.
    let saved = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let name =
        |number: usize| format!("{number:032}-{}", "a-name-that-is-as-long-as-the-longest-are".repeat(2));
    for number in pack * 8..(pack + 1) * 8 {
        let mut nar = Writer::default();
        let text = format!("{store_dir} {number}");
        nar.file(false, text.len() as u64).unwrap();
        nar.data(text.as_bytes()).unwrap();
        nar.file_end().unwrap();
        let chunk = Chunk { id: ChunkId::of(&nar.bytes), length: nar.bytes.len() as u32 };
        frame.push(chunk.id, &nar.bytes);
        let nar_hash = Sha256::digest(&nar.bytes).into();
        let references = vec![name(number); if number % 8 == 0 { 1 } else { 35_000 }];
        let info = PathInfo { name: name(number), nar_hash, references, ..info(0, u64::from(chunk.length)) };
        paths.push(PackedPath { info, chunks: vec![chunk], patches: vec![], saved });
    }
    let sealed = frame.seal(&mut Compressor::new(LEVEL).unwrap()).unwrap();
    builder.add(&sealed);
    bytes.extend(sealed.bytes);
    bytes.extend(builder.finish(paths, Others::default().encode()).unwrap());
    (bytes, format!("{store_dir}/{}", name(pack * 8)))
}

/// Who looks, saves and restores says so, and in the same words each time.
#[test]
fn packs_that_there_is_no_room_for_are_told_and_nothing_of_them_is_saved_anew() {
    let env = TestEnv::new();
    let folder = env.file("depot/packs");
    fs::create_dir_all(&folder).unwrap();
    let run = |args: &[&str], code: i32| cache_within_limit(&env, args).ends_with(code);
    let made = |number: usize| {
        let (bytes, path) = heavy(&env.nix.store_dir(), number);
        fs::write(folder.join(format!("{number}")), bytes).unwrap();
        path
    };
    let oldest = made(1);
    let _ = run(&["restore", &oldest], 0);
    std::thread::sleep(Duration::from_millis(1100));
    let newer: Vec<String> = (2..7).map(made).collect();
    let _ = run(&["restore", &newer[4]], 0).says("are left out").says("`phoenix cache gc` makes room");
    for round in 0..3 {
        let ran = run(&["save", &oldest, &newer[4]], 1).says("is in packs that there is no room for");
        let ran = ran.says("are left out").says("nothing was saved; 1 path is there");
        assert_eq!(ran.stderr.matches("left out").count(), 1, "{ran}");
        // What the branch needs is said once.
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 7, "round {round}: {ran}");
    }
    env.nix.run("nix-store", &["--delete", &oldest]);
    let ran = run(&["restore", &oldest], 1);
    let _ = ran.says("1 path is in no pack, unless").says("that there was no room for");
    let _ = run(&["restore", "--latest"], 0).says("that there was no room for: 0");
    let ran = run(&["verify"], 1).says("known to be whole").says("hint: `phoenix cache gc` makes room");
    assert!(!ran.stderr.contains("when the depot tells all"), "{ran}");
    // Nothing is let go of while something is left out, damaged or not: no save folds, however many packs there are.
    for number in 0..3 {
        let file = env.file(&format!("small-{number}"));
        fs::write(&file, format!("{number}")).unwrap();
        let path = env.nix.run("nix-store", &["--add", file.to_str().unwrap()]).trim().to_owned();
        let ran = run(&["save", &path], 0).says("saved 1 path ").says("nothing is let go of meanwhile");
        assert!(!ran.stderr.contains("folded") && !ran.stderr.contains("tidied"), "{ran}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 8 + number, "{ran}");
    }
    let all = || fs::read_dir(&folder).unwrap().map(|pack| pack.unwrap().path()).collect::<BTreeSet<_>>();
    let before = all();
    let mut bytes = fs::read(folder.join("6")).unwrap();
    bytes[0] ^= 1;
    fs::write(folder.join("6"), &bytes).unwrap();
    let _ = run(&["verify", "--repair"], 1).says("nothing is repaired").says("gc` makes room");
    let _ = run(&["gc", "--dry-run", "--grace", "0"], 0).says("remove packs/1");
    assert_eq!(all(), before);
    // A save that began before there was no room for it may rely on it.
    let _ = run(&["gc"], 1).says("may rely on them").says("hint: run it again in").says("--grace 0");
    assert!(all().is_superset(&before));
    let _ = run(&["gc", "--grace", "0", "--keep", &oldest], 1)
        .says("which is to be kept")
        .says("is in packs that");
    // As it says, what is let go makes room for what is left, and what was let go is saved anew.
    let ran = run(&["gc", "--json", "--grace", "0"], 0).says("removed packs/1").says("in no other pack");
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let gone = report["room"]["paths"].as_array().unwrap();
    assert_eq!(report["room"]["packs"][0]["pack"], "packs/1", "{report}");
    assert!(gone.iter().any(|path| oldest.ends_with(path.as_str().unwrap())), "{report}");
    let ran = run(&["restore", &newer[4]], 0);
    assert!(!ran.stderr.contains("left out"), "{ran}");
    let _ = run(&["verify", "--repair"], 0);
    let _ = run(&["verify"], 0);
    let _ = run(&["save", &newer[4]], 0);
}

/// A pack of paths that refer to as many others each, with names as long as any, as are in no pack.
fn wide(numbers: std::ops::Range<usize>) -> Vec<u8> {
    wide_beside(numbers, None)
}

/// The same, with one more path, of so many bytes, that was saved long ago.
fn wide_beside(numbers: std::ops::Range<usize>, old: Option<(usize, usize)>) -> Vec<u8> {
    let (mut builder, head) = PackBuilder::new();
    let mut bytes = head.to_vec();
    let (mut frame, mut paths) = (FrameBuilder::default(), Vec::new());
    let saved = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    for number in numbers {
        let archive = number.to_string().into_bytes();
        let chunk = Chunk { id: ChunkId::of(&archive), length: archive.len() as u32 };
        frame.push(chunk.id, &archive);
        let references = (0..4000).map(|other| format!("{other:032}-{}", "x".repeat(170))).collect();
        let info = PathInfo { name: name(number), references, ..info(0, archive.len() as u64) };
        paths.push(PackedPath { info, chunks: vec![chunk], patches: vec![], saved });
    }
    let mut compressor = Compressor::new(LEVEL).unwrap();
    let mut seal = |frame: &mut FrameBuilder| {
        let sealed = frame.seal(&mut compressor).unwrap();
        builder.add(&sealed);
        bytes.extend(sealed.bytes);
    };
    seal(&mut frame);
    if let Some((number, size)) = old {
        let archive = noise(size);
        let chunks = archive.chunks(1 << 16).map(|part| {
            frame.push(ChunkId::of(part), part);
            Chunk { id: ChunkId::of(part), length: part.len() as u32 }
        });
        let chunks = chunks.collect();
        let info = PathInfo { name: name(number), ..info(0, size as u64) };
        paths.push(PackedPath { info, chunks, patches: vec![], saved: 1 });
        seal(&mut frame);
    }
    bytes.extend(builder.finish(paths, Others::default().encode()).unwrap());
    bytes
}

/// What is left of packs says more together than one may: a collection goes on until all of them are rewritten.
#[test]
fn a_collection_of_more_than_one_pack_may_say_takes_no_more() {
    let env = TestEnv::new();
    let folder = env.file("depot/packs");
    fs::create_dir_all(&folder).unwrap();
    for number in 0..3 {
        let pack = wide_beside(number * 25..(number + 1) * 25, Some((1000 + number, (3 + number) << 20)));
        fs::write(folder.join(format!("{number}")), pack).unwrap();
    }
    let run = |args: &[&str]| cache_within_limit(&env, args).ends_with(0);
    let gc = ["gc", "--budget", "2M", "--grace", "0", "--json"];
    let planned = run(&[&gc[..], &["--dry-run"]].concat());
    let ran = run(&gc);
    assert_eq!(ran.stderr.matches("folded ").count(), 2, "{ran}");
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let passes = [&report["earlier"][0], &report];
    let rewritten = passes.map(|pass| pass["fold"].as_array().unwrap().len());
    assert_eq!(rewritten[0] + rewritten[1], 3, "{report}");
    let first: serde_json::Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!(first["fold"], passes[0]["fold"], "{planned}");
    let dropped = passes.map(|pass| pass["drop"].as_array().unwrap().len());
    assert_eq!(dropped[0] + dropped[1], 3, "{report}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "{ran}");
    let _ = run(&gc).says("nothing to do");
}

/// As much is known as there is room for, and the small packs beside it are folded.
#[test]
fn a_fold_in_a_depot_that_is_full_takes_no_more() {
    let env = TestEnv::new();
    let folder = env.file("depot/packs");
    fs::create_dir_all(&folder).unwrap();
    let mut first = 0;
    for (number, count) in [30, 30, 20, 10, 10].into_iter().enumerate() {
        fs::write(folder.join(format!("{number}")), wide(first..first + count)).unwrap();
        first += count;
    }
    // One that does not know what was folded counts as the newest, as if a slow job had made it.
    let newest = fs::File::options().write(true).open(folder.join("4")).unwrap();
    newest.set_modified(SystemTime::now() + Duration::from_secs(100)).unwrap();
    let run = |args: &[&str]| cache_within_limit(&env, args).ends_with(0);
    let mut folded = 0;
    for number in 0..2 {
        let file = env.file(&format!("small-{number}"));
        fs::write(&file, format!("{number}")).unwrap();
        let path = env.nix.run("nix-store", &["--add", file.to_str().unwrap()]).trim().to_owned();
        let ran = run(&["save", &path]).says("saved 1 path ");
        assert!(!ran.stderr.contains("left out"), "{ran}");
        folded += ran.stderr.matches("folded").count();
    }
    assert!(folded > 0, "nothing was folded");
    let _ = run(&["gc"]);
}

/// What is damaged is in more packs than one could hold together, and they are rewritten in memory that does not grow.
#[test]
fn a_repair_of_packs_of_which_much_is_known_takes_no_more() {
    let env = TestEnv::new();
    let folder = env.file("depot/packs");
    fs::create_dir_all(&folder).unwrap();
    for number in 1..4 {
        let (mut bytes, _) = heavy(&env.nix.store_dir(), number);
        // All of it is whole but for how it begins.
        bytes[0] ^= 1;
        fs::write(folder.join(format!("{number}")), bytes).unwrap();
    }
    let run = |args: &[&str], code: i32| {
        cache_within_limit(&env, &[&["verify", "--threads", "4"], args].concat()).ends_with(code)
    };
    let _ = run(&[], 1).says("it does not begin as it ends").says("24 of 24 paths are whole");
    let ran = run(&["--repair"], 0);
    assert_eq!(ran.stderr.matches("what is whole is in ").count(), 3, "{ran}");
    let _ = run(&[], 0).says("24 of 24 paths are whole");
}

#[test]
fn clients_that_take_nothing_cost_a_server_no_more() {
    let env = TestEnv::new();
    let sizes = [900 << 10, 40 << 20];
    let paths: Vec<String> = sizes
        .map(|size| {
            let file = env.file(&format!("of-{size}"));
            fs::write(&file, noise(size)).unwrap();
            env.nix.run("nix-store", &["--add", file.to_str().unwrap()]).trim().to_owned()
        })
        .to_vec();
    let save = ["cache", "save", "--depot", &env.depot(), &paths[0], &paths[1]];
    let _ = env.phoenix(&save).ends_with(0);
    let mut server = common::start(&env, &["cache", "serve", "--depot", &env.depot()]);
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().to_owned();
    let address = url.strip_prefix("http://").unwrap();
    let urls: Vec<String> = paths
        .iter()
        .map(|path| {
            let hash_part = path.rsplit('/').next().unwrap().split('-').next().unwrap();
            let narinfo =
                phoenix_testkit::http::request("GET", &format!("{url}/{hash_part}.narinfo"), &[], &[]);
            let text = String::from_utf8(narinfo.body).unwrap();
            text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap().to_owned()
        })
        .collect();
    let clients: Vec<TcpStream> = (0..300)
        .map(|client| {
            let mut stream = TcpStream::connect(address).unwrap();
            let ask = format!("GET /{} HTTP/1.1\r\nHost: {address}\r\n\r\n", urls[client % 2]);
            // Some ask for many, one behind the other, and some do not end what they ask.
            let ask = match client % 5 {
                0 => ask.repeat(500),
                1 => format!("GET /{} HTTP/1.1\r\nX: {}", urls[0], "x".repeat(100 << 10)),
                _ => ask,
            };
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            let _ = stream.write_all(ask.as_bytes());
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_secs(5));
    let peak = peak_of(server.id());
    let _ = server.kill();
    let _ = server.wait();
    drop(clients);
    assert!(peak < LIMIT, "{peak} MiB");
}
