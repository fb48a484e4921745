//! What chunks, frames and zstd's level cost and save, on files of this machine.
//!
//! `cargo bench --package phoenix-cache --bench sweep`. The corpus are Debian packages that are installed, chosen by a
//! fixed seed until there are `PHOENIX_BENCH_MB` (256) megabytes, each as one archive; or the directories in
//! `PHOENIX_BENCH_CORPUS`. Everything is saved; then every package is changed a little, as by a new build (in one file
//! of eight 64 bytes are others, in one of forty 100 bytes come in between), and saved again. One thread.
//!
//! A row is: how much is stored of the corpus; how much more of the changed one, by what nobody had before; how fast
//! archives go in (cut, hashed, compressed) and frames come out (checked, decompressed); how many bytes are read and
//! decompressed to get one package alone, as parts of its own size; how large the directory is.

#![expect(clippy::unwrap_used, reason = "a benchmark says so by failing")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use phoenix_pack::nar::{Sink as _, Writer};
use phoenix_pack::{
    ChunkId, ChunkSizes, Compressor, Cutter, FRAME_TARGET, Footer, FrameBuilder, LEVEL, PackBuilder,
    PackedPath, PathInfo, References, open_frame,
};

/// A package: its files.
type Package = Vec<Vec<u8>>;

#[derive(Clone, Copy)]
struct Setting {
    average: usize,
    frame: usize,
    level: i32,
}

fn main() {
    let megabytes: u64 =
        std::env::var("PHOENIX_BENCH_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(256);
    let packages = corpus(megabytes << 20);
    let files: usize = packages.iter().map(Vec::len).sum();
    let before: Vec<Vec<u8>> = packages.iter().map(archive).collect();
    let after: Vec<Vec<u8>> = changed(packages).iter().map(archive).collect();
    let size: usize = before.iter().map(Vec::len).sum();
    println!("{} packages, {files} files, {:.0} MB", before.len(), size as f64 / 1e6);
    println!(
        "| chunks KiB | frames MiB | level | stored % | changed % | in MB/s | out MB/s | one: read | one: opened | directory % |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let chosen = Setting { average: ChunkSizes::default().average, frame: FRAME_TARGET, level: LEVEL };
    let mut settings = vec![chosen];
    settings.extend([16, 32, 128, 256].map(|kib| Setting { average: kib << 10, ..chosen }));
    settings.extend([1, 4].map(|mib| Setting { frame: mib << 20, ..chosen }));
    settings.extend([1, 2, 5, 7, 9].map(|level| Setting { level, ..chosen }));
    for setting in settings {
        row(setting, &before, &after, size as f64);
    }
}

struct Saved {
    /// Frames: which package has chunks in which.
    frames: Vec<Vec<usize>>,
    pack: Vec<u8>,
    seconds: f64,
}

fn row(setting: Setting, before: &[Vec<u8>], after: &[Vec<u8>], size: f64) {
    let mut known = HashMap::new();
    let first = save(setting, before, &mut known);
    let second = save(setting, after, &mut known);
    let footer = Footer::parse(&first.pack, first.pack.len() as u64).unwrap();
    let range = footer.directory.start as usize..footer.directory.end as usize;
    let stored_directory = range.len();
    let directory = footer.open(&first.pack[range]).unwrap();
    let begin = Instant::now();
    let (mut out, mut lengths) = (0, Vec::new());
    for number in 0..directory.frames() {
        let frame = directory.frame(number);
        let stored = &first.pack[frame.offset as usize..][..frame.stored as usize];
        out += open_frame(&frame, stored).unwrap().len();
        lengths.push((f64::from(frame.stored), f64::from(frame.length)));
    }
    let out_speed = out as f64 / begin.elapsed().as_secs_f64() / 1e6;
    // The median of what one package costs alone.
    let mut reads: Vec<(f64, f64)> = Vec::new();
    for (package, archive) in before.iter().enumerate() {
        let own = first.frames.iter().zip(&lengths).filter(|(in_it, _)| in_it.contains(&package));
        let (read, opened) = own.fold((0.0, 0.0), |sum, (_, one)| (sum.0 + one.0, sum.1 + one.1));
        reads.push((read / archive.len() as f64, opened / archive.len() as f64));
    }
    reads.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (read, opened) = reads[reads.len() / 2];
    println!(
        "| {} | {} | {} | {:.1} | {:.2} | {:.0} | {out_speed:.0} | {read:.1} | {opened:.1} | {:.2} |",
        setting.average >> 10,
        setting.frame >> 20,
        setting.level,
        first.pack.len() as f64 / size * 100.0,
        second.pack.len() as f64 / size * 100.0,
        size / first.seconds / 1e6,
        stored_directory as f64 / size * 100.0,
    );
}

/// Saves archives as one pack, less the chunks that are known.
fn save(setting: Setting, archives: &[Vec<u8>], known: &mut HashMap<ChunkId, ()>) -> Saved {
    let begin = Instant::now();
    let sizes = ChunkSizes { min: setting.average / 4, average: setting.average, max: setting.average * 4 };
    let references = References::default();
    let (mut builder, head) = PackBuilder::new();
    let mut pack = head.to_vec();
    let (mut frame, mut in_frame) = (FrameBuilder::default(), 0);
    let mut compressor = Compressor::new(setting.level).unwrap();
    let (mut frames, mut paths, mut in_it) = (Vec::new(), Vec::new(), Vec::new());
    for (number, archive) in archives.iter().enumerate() {
        let mut chunks = Vec::new();
        let mut emit = |bytes: &[u8]| {
            let chunk = phoenix_pack::Chunk { id: ChunkId::of(bytes), length: bytes.len() as u32 };
            chunks.push(chunk);
            if known.insert(chunk.id, ()).is_none() {
                frame.push(chunk.id, bytes);
                in_it.push(number);
                in_frame += bytes.len();
                if in_frame >= setting.frame {
                    let sealed = frame.seal(&mut compressor).unwrap();
                    builder.add(&sealed);
                    pack.extend_from_slice(&sealed.bytes);
                    frames.push(std::mem::take(&mut in_it));
                    in_frame = 0;
                }
            }
            Ok::<(), std::convert::Infallible>(())
        };
        let mut cutter = Cutter::new(&references, sizes);
        archive.chunks(60_000).for_each(|piece| cutter.push(piece, &mut emit).unwrap());
        let patches = cutter.finish(&mut emit).unwrap();
        let info = PathInfo {
            name: format!("{:?}-p", ChunkId::of(&number.to_le_bytes())),
            nar_hash: [number as u8; 32],
            nar_size: archive.len() as u64,
            references: vec![],
            deriver: None,
            signatures: vec![],
            ca: None,
        };
        paths.push(PackedPath { info, chunks, patches, saved: 1 });
    }
    if !frame.is_empty() {
        let sealed = frame.seal(&mut compressor).unwrap();
        builder.add(&sealed);
        pack.extend_from_slice(&sealed.bytes);
        frames.push(in_it);
    }
    pack.extend(builder.finish(paths, vec![]).unwrap());
    for packages in &mut frames {
        packages.dedup();
    }
    Saved { frames, pack, seconds: begin.elapsed().as_secs_f64() }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The packages of this machine, or the directories that somebody names.
fn corpus(limit: u64) -> Vec<Package> {
    let mut sources: Vec<Vec<PathBuf>> = match std::env::var_os("PHOENIX_BENCH_CORPUS") {
        Some(directories) => std::env::split_paths(&directories).map(|directory| files(&directory)).collect(),
        None => lists().iter().map(|list| listed(list)).collect(),
    };
    let mut state = 0x2545_f491_4f6c_dd1d;
    for at in (1..sources.len()).rev() {
        sources.swap(at, (random(&mut state) % (at as u64 + 1)) as usize);
    }
    let mut packages = Vec::new();
    let mut left = limit;
    for files in sources {
        let package: Package = files.iter().filter_map(|file| std::fs::read(file).ok()).collect();
        let size: u64 = package.iter().map(|file| file.len() as u64).sum();
        // One that is most of the corpus says little of the others.
        if size < 10_000 || size > left || size > limit / 4 {
            continue;
        }
        left -= size;
        packages.push(package);
    }
    assert!(
        packages.len() > 1,
        "there is nothing here; PHOENIX_BENCH_CORPUS names directories, `:` between them"
    );
    packages
}

/// What Debian keeps of the files of each package.
fn lists() -> Vec<PathBuf> {
    let all = std::fs::read_dir("/var/lib/dpkg/info").into_iter().flatten().flatten();
    let mut lists: Vec<PathBuf> = all
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "list"))
        .collect();
    lists.sort();
    lists
}

fn listed(list: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(list).unwrap_or_default();
    text.lines().map(PathBuf::from).filter(|path| path.is_file() && !path.is_symlink()).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let (mut found, mut next) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = next.pop() {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries.into_iter().filter(|path| !path.is_symlink()) {
            if path.is_dir() { next.push(path) } else { found.push(path) }
        }
    }
    found
}

fn archive(package: &Package) -> Vec<u8> {
    let mut nar = Writer::default();
    nar.directory().unwrap();
    for (number, file) in package.iter().enumerate() {
        nar.entry(format!("{number:08}").as_bytes()).unwrap();
        nar.file(false, file.len() as u64).unwrap();
        nar.data(file).unwrap();
        nar.file_end().unwrap();
    }
    nar.leave().unwrap();
    nar.bytes
}

fn changed(mut packages: Vec<Package>) -> Vec<Package> {
    let mut state = 7;
    for file in packages.iter_mut().flatten().filter(|file| file.len() > 200) {
        let at = random(&mut state) as usize % (file.len() - 100);
        if random(&mut state).is_multiple_of(8) {
            file[at..at + 64].iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
        }
        if random(&mut state).is_multiple_of(40) {
            file.splice(at..at, (0..100).map(|_| random(&mut state) as u8).collect::<Vec<_>>());
        }
    }
    packages
}
