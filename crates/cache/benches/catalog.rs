//! Reading a catalog of 50,000 paths and 1,000,000 chunks from a directory: seconds and peak memory.
//!
//! `cargo bench --package phoenix-cache --bench catalog`. Eight packs, which is as many as there may be before a save
//! folds them. Each measurement is a process of its own, so that the peak memory is that of the work alone; where
//! the system does not tell it, 0 is printed. Goal: 300 ms and 200 MB until the catalog is there.

#![expect(clippy::unwrap_used, reason = "a benchmark says so by failing")]

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use phoenix_cache::Cache;
use phoenix_depot::Directory;
use phoenix_pack::{
    Chunk, ChunkId, Compressor, FrameBuilder, LEVEL, Others, PackBuilder, PackedPath, Patch, PathInfo,
};

const RUNS: usize = 7;
const PACKS: u64 = 8;
const PATHS: u64 = 50_000;
const CHUNKS: u64 = 1_000_000;

/// How many bytes a frame has in its pack.
const STORED: usize = 700_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--measure") {
        measure(Path::new(&args[at + 1]));
        return;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("catalog");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(directory.join("packs")).unwrap();
    let mut size = 0;
    for number in 0..PACKS {
        let mut file = std::fs::File::create(directory.join(format!("packs/{number}"))).unwrap();
        size += write_pack(number, &mut file);
    }
    println!("{PACKS} packs, {PATHS} paths, {CHUNKS} chunks, {:.1} MB of directories", size as f64 / 1e6);
    let mut rows: [Vec<f64>; 4] = Default::default();
    for _ in 0..RUNS {
        let ran = Command::new(std::env::current_exe().unwrap()).arg("--measure").arg(&directory).output();
        let text = String::from_utf8(ran.unwrap().stdout).unwrap();
        for (row, figure) in rows.iter_mut().zip(text.split_whitespace()) {
            row.push(figure.parse().unwrap());
        }
    }
    let names =
        ["until it is there, ms", "peak memory then, MB", "all paths located, ms", "peak memory then, MB"];
    for (name, row) in names.iter().zip(&mut rows) {
        row.sort_by(f64::total_cmp);
        println!("{name}: {:.0} ({:.0} to {:.0})", row[RUNS / 2], row[0], row[RUNS - 1]);
    }
    std::fs::remove_dir_all(directory).unwrap();
}

fn measure(directory: &Path) {
    let begin = Instant::now();
    let depot = Arc::new(Directory::new(directory));
    let mut cache = Cache::open(depot, &mut |trouble| panic!("{trouble}")).unwrap();
    let loaded = begin.elapsed();
    let loaded_memory = peak_megabytes();
    let begin = Instant::now();
    let catalog = cache.catalog();
    let names = catalog.names();
    assert_eq!(names.len() as u64, PATHS);
    for name in &names {
        assert!(catalog.locate(name.as_bytes().first_chunk().unwrap()).is_some(), "{name}");
    }
    let located = begin.elapsed();
    println!(
        "{} {loaded_memory} {} {}",
        loaded.as_secs_f64() * 1e3,
        located.as_secs_f64() * 1e3,
        peak_megabytes()
    );
}

/// The peak of resident memory, where the system tells.
fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or_default() * 1024.0 / 1e6
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A chunk by its number. What is in it does not matter to a catalog.
fn chunk(number: u64) -> Chunk {
    Chunk { id: ChunkId::of(&number.to_le_bytes()), length: 8 }
}

fn name(number: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let hash = [ChunkId::of(&number.to_be_bytes()).0; 2].concat();
    let hash: String = hash.iter().map(|byte| char::from(DIGITS[usize::from(*byte) % 32])).collect();
    format!("{hash}-package-{}-1.{}.{}", number % 7919, number % 31, number % 7)
}

/// Every path has twenty chunks of its own pack and one of the pack before, six references, thirty places where hash
/// parts stood, a deriver and a signature.
/// Frames are as long as they would be, so that packs have room for such directories, and are nowhere on the disk: nobody
/// reads them here. Returns how many bytes the directory has.
fn write_pack(number: u64, file: &mut std::fs::File) -> usize {
    let (mut builder, head) = PackBuilder::new();
    file.write_all(head).unwrap();
    let (mut frame, mut compressor) = (FrameBuilder::default(), Compressor::new(LEVEL).unwrap());
    let own = number * CHUNKS / PACKS..(number + 1) * CHUNKS / PACKS;
    for at in own.clone() {
        frame.push(chunk(at).id, &at.to_le_bytes());
        // As many as a frame of 2 MiB has.
        if at % 64 == 63 {
            let mut sealed = frame.seal(&mut compressor).unwrap();
            sealed.bytes.resize(STORED, 0);
            builder.add(&sealed);
        }
    }
    if !frame.is_empty() {
        builder.add(&frame.seal(&mut compressor).unwrap());
    }
    file.seek(SeekFrom::Start(builder.size())).unwrap();
    let per_path = CHUNKS / PATHS;
    let mut state = number + 1;
    let paths = number * PATHS / PACKS..(number + 1) * PATHS / PACKS;
    let paths = paths.map(|path| {
        let mut chunks: Vec<Chunk> = (path * per_path..(path + 1) * per_path).map(chunk).collect();
        if number > 0 {
            chunks.push(chunk(own.start - 1 - random(&mut state) % 1000));
        }
        let mut references: Vec<String> = (0..6).map(|_| name(random(&mut state) % PATHS)).collect();
        references.sort();
        references.dedup();
        let mut hash = [0; 32];
        hash.fill_with(|| random(&mut state) as u8);
        let info = PathInfo {
            name: name(path),
            nar_hash: hash,
            nar_size: chunks.len() as u64 * 8,
            references,
            deriver: Some(format!("{}.drv", name(path + PATHS))),
            signatures: vec![format!("cache.example.org-1:{}", name(path + 2 * PATHS).repeat(2))],
            ca: None,
        };
        // As many places as fit: the archive here is shorter than any.
        let patches = (0..chunks.len() as u64 / 4).map(|at| Patch { at: at * 32, reference: 0 }).collect();
        PackedPath { info, chunks, patches, saved: 1 }
    });
    let paths: Vec<PackedPath> = paths.collect();
    let end = builder.finish(paths, Others::default().encode()).unwrap();
    file.write_all(&end).unwrap();
    end.len()
}
