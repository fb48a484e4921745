//! Whatever stands in an archive or a pack, and whatever it says of itself: no panic, and no more memory than it
//! could be worth.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "hostile/checks.rs"]
#[allow(missing_docs, clippy::allow_attributes, reason = "a part of this test")]
mod checks;

use std::sync::Mutex;

use peak_alloc::PeakAlloc;
use phoenix_pack::nar::{Sink as _, Writer};
use phoenix_pack::{
    Chunk, ChunkId, Compressor, FrameBuilder, LEVEL, Others, PackBuilder, PackedPath, Patch, PathInfo,
};
use proptest::prelude::*;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// One at a time: the allocator counts for all of them.
static ALONE: Mutex<()> = Mutex::new(());

/// How many megabytes `act` takes at most beyond what was taken before.
fn megabytes(act: impl FnOnce()) -> f32 {
    let before = ALLOCATOR.current_usage_as_mb();
    ALLOCATOR.reset_peak_usage();
    act();
    ALLOCATOR.peak_usage_as_mb() - before
}

fn archive() -> Vec<u8> {
    let mut nar = Writer::default();
    nar.directory().unwrap();
    for (name, size) in [("a", 0_u64), ("b", 5), ("bin", 300)] {
        nar.entry(name.as_bytes()).unwrap();
        nar.file(size == 5, size).unwrap();
        nar.data(&vec![b'x'; size as usize]).unwrap();
        nar.file_end().unwrap();
    }
    nar.entry(b"link").unwrap();
    nar.symlink(b"../b").unwrap();
    nar.leave().unwrap();
    nar.bytes
}

fn pack() -> Vec<u8> {
    let parts: Vec<Vec<u8>> = (0..6_u8).map(|part| vec![part; 500 + usize::from(part)]).collect();
    let chunk = |part: &Vec<u8>| Chunk { id: ChunkId::of(part), length: part.len() as u32 };
    let (mut builder, head) = PackBuilder::new();
    let mut pack = head.to_vec();
    for parts in parts.chunks(2) {
        let mut frame = FrameBuilder::default();
        parts.iter().for_each(|part| frame.push(chunk(part).id, part));
        let sealed = frame.seal(&mut Compressor::new(LEVEL).unwrap()).unwrap();
        builder.add(&sealed);
        pack.extend(sealed.bytes);
    }
    let path = |number: usize, parts: &[Vec<u8>]| {
        let name = format!("{number:032}-p");
        let info = PathInfo {
            name: name.clone(),
            nar_hash: [1; 32],
            nar_size: parts.iter().map(|part| part.len() as u64).sum(),
            references: vec![name],
            deriver: Some("x.drv".to_owned()),
            signatures: vec!["key:sig".to_owned()],
            ca: None,
        };
        let patches = vec![Patch { at: 3, reference: 0 }, Patch { at: 100, reference: 0 }];
        PackedPath { info, chunks: parts.iter().map(chunk).collect(), patches, saved: 1 }
    };
    let paths = vec![path(1, &parts[..4]), path(2, &parts[2..])];
    pack.extend(builder.finish(paths, Others::default().encode()).unwrap());
    pack
}

/// A pack whose directory, which the footer's check would protect, is changed by `change`.
fn with_directory(change: impl FnOnce(&mut Vec<u8>), length: Option<u32>) -> Vec<u8> {
    let pack = pack();
    let footer = pack.len() - 40;
    let word = |at: usize| u32::from_le_bytes(pack[footer + at..footer + at + 4].try_into().unwrap());
    let (start, stored) = (word(0) as usize, word(8) as usize);
    let mut directory = zstd::bulk::decompress(&pack[start..start + stored], 1 << 20).unwrap();
    change(&mut directory);
    let tail = zstd::bulk::compress(&directory, 3).unwrap();
    let mut changed = pack[..start].to_vec();
    changed.extend(&tail);
    changed.extend((start as u64).to_le_bytes());
    changed.extend((tail.len() as u32).to_le_bytes());
    changed.extend(length.unwrap_or(directory.len() as u32).to_le_bytes());
    changed.extend(ChunkId::of(&tail).0);
    changed.extend(b"PHXPACK\x01");
    changed
}

#[test]
fn what_is_not_changed_is_taken() {
    checks::nar(&archive());
    checks::names(&archive());
    checks::pack(&pack()).unwrap();
    checks::pack(&with_directory(|_| (), None)).unwrap();
}

#[test]
fn sizes_that_lie_take_no_memory() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Every 32-bit word of the directory, the counts of its tables among them, as large as it can be.
    let mut length = 0;
    with_directory(|directory| length = directory.len(), None);
    for at in 0..length - 3 {
        for lie in [u32::MAX, 1 << 31, 1 << 24] {
            let lying =
                with_directory(|directory| directory[at..at + 4].copy_from_slice(&lie.to_le_bytes()), None);
            let taken = megabytes(|| drop(checks::pack(&lying)));
            // Of a frame that is said to be long at most that much, which is 5 MiB.
            assert!(taken < 8.0, "{lie} at {at}: {taken} MB");
        }
    }
    for lie in [256 << 20, u32::MAX, 0] {
        let lying = with_directory(|_| (), Some(lie));
        let taken = megabytes(|| assert!(checks::pack(&lying).is_err()));
        assert!(taken < 4.0, "a directory that is {lie} long takes {taken} MB");
    }
    // An archive that says that a name, a file, a link is as long as can be.
    let archive = archive();
    for at in (0..archive.len() - 8).step_by(8) {
        let mut lying = archive.clone();
        lying[at..at + 8].copy_from_slice(&(u64::MAX >> 1).to_le_bytes());
        let taken = megabytes(|| checks::nar(&lying));
        assert!(taken < 1.0, "at {at}: {taken} MB");
    }
}

#[test]
fn a_directory_that_unpacks_without_end_is_let_go_of() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bomb = with_directory(|directory| directory.resize(100 << 20, 0), Some(1000));
    assert!(bomb.len() < 100_000);
    let taken = megabytes(|| assert!(checks::pack(&bomb).is_err()));
    assert!(taken < 4.0, "{taken} MB");
}

/// Changes some bytes: puts others there, takes some out, doubles some.
fn mutated(mut bytes: Vec<u8>, changes: Vec<(prop::sample::Index, u8, u8)>) -> Vec<u8> {
    for (at, how, with) in changes {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match how % 4 {
            0 => bytes[at] = with,
            1 => bytes[at] ^= 1 << (with % 8),
            2 => {
                let end = (at + usize::from(with)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + usize::from(with)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_changed_archive_is_refused_or_is_one(changes in changes()) {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bytes = mutated(archive(), changes);
        checks::nar(&bytes);
        checks::names(&bytes);
    }

    #[test]
    fn a_changed_pack_is_refused_or_is_one(changes in changes()) {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(checks::pack(&mutated(pack(), changes)));
    }

    /// The checks of packs hold off what is changed by chance. Here is what somebody makes who knows them.
    #[test]
    fn a_directory_that_was_made_to_lie_is_refused_or_harmless(changes in changes()) {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let lying = with_directory(|directory| *directory = mutated(std::mem::take(directory), changes), None);
        drop(checks::pack(&lying));
    }

    #[test]
    fn hash_parts_are_put_back_in_any_pieces(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        checks::put_back(&bytes);
    }
}
