//! Cuts an archive into chunks, after the hashes of its references are taken out.
//!
//! A rebuild that changes nothing but hashes changes nothing but the bytes where they stand. With zeros in
//! their place the stream is the same as before, and so are its chunks. Where which hash stood is kept
//! beside, and put back on the way out.

use std::collections::HashMap;

use fastcdc::v2020::FastCDC;
use phoenix_model::NIX32_ALPHABET;

/// How many characters the hash part of a store path has.
pub const HASH_LENGTH: usize = 32;

/// How long chunks may be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// No chunk but the last of an archive is shorter.
    pub min: usize,
    /// What lengths gather around.
    pub average: usize,
    /// No chunk is longer.
    pub max: usize,
}

impl Default for ChunkSizes {
    /// Small enough that little is stored again when a file in the middle changes, large enough that a million of
    /// them, which a catalog can take, are what fits into 10 GB of packs. The benchmark `sweep` compares sizes.
    fn default() -> Self {
        Self { min: 8 << 10, average: 32 << 10, max: 128 << 10 }
    }
}

/// The hash parts that are looked for in an archive, each with a number.
#[derive(Debug, Clone, Default)]
pub struct References {
    numbers: HashMap<[u8; HASH_LENGTH], u32, foldhash::fast::FixedState>,
}

impl References {
    /// Hash parts in the order of their numbers, counted from 0. One that stands twice has its first number.
    pub fn new<'a>(hash_parts: impl IntoIterator<Item = &'a [u8; HASH_LENGTH]>) -> Self {
        let mut numbers = HashMap::default();
        for (part, number) in hash_parts.into_iter().zip(0..) {
            numbers.entry(*part).or_insert(number);
        }
        Self { numbers }
    }
}

/// A place where the hash part of a reference stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Offset in the archive, in bytes.
    pub at: u64,
    /// The number of the reference.
    pub reference: u32,
}

/// Cuts one archive that comes in pieces.
#[derive(Debug)]
pub struct Cutter<'r> {
    references: &'r References,
    sizes: ChunkSizes,
    buffer: Vec<u8>,
    /// Where in the buffer the chunk begins that is not cut yet.
    start: usize,
    /// No hash part that is not found yet begins before this place in the buffer.
    scanned: usize,
    /// The offset in the archive of the buffer's first byte.
    base: u64,
    patches: Vec<Patch>,
}

impl<'r> Cutter<'r> {
    /// A cutter at the beginning of an archive.
    #[must_use]
    pub fn new(references: &'r References, sizes: ChunkSizes) -> Self {
        Self { references, sizes, buffer: Vec::new(), start: 0, scanned: 0, base: 0, patches: Vec::new() }
    }

    /// Takes the next piece of the archive; `emit` gets each chunk that is certain by now.
    ///
    /// # Errors
    /// What `emit` failed with; the archive cannot be gone on with then.
    pub fn push<E>(&mut self, piece: &[u8], emit: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.buffer.extend_from_slice(piece);
        self.scan();
        while self.scanned - self.start >= self.sizes.max {
            self.cut(self.scanned, emit)?;
        }
        // What is cut is let go of when it is worth moving the rest.
        if self.start >= 4 * self.sizes.max {
            self.buffer.drain(..self.start);
            self.base += self.start as u64;
            self.scanned -= self.start;
            self.start = 0;
        }
        Ok(())
    }

    /// Cuts the rest; returns where hash parts stood, in order.
    ///
    /// # Errors
    /// What `emit` failed with.
    pub fn finish<E>(mut self, emit: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<Vec<Patch>, E> {
        while self.start < self.buffer.len() {
            self.cut(self.buffer.len(), emit)?;
        }
        Ok(self.patches)
    }

    fn cut<E>(&mut self, end: usize, emit: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let rest = &self.buffer[self.start..end];
        let ChunkSizes { min, average, max } = self.sizes;
        let (_, length) = FastCDC::new(rest, min, average, max).cut(0, rest.len());
        emit(&rest[..length])?;
        self.start += length;
        Ok(())
    }

    /// Finds hash parts in what came last and puts zeros there.
    ///
    /// As Nix's own scanner does, a window is looked at from its end: a byte that is no digit rules out all
    /// windows that hold it (nix `src/libstore/references.cc`).
    fn scan(&mut self) {
        let mut at = self.scanned;
        while let Some(window) = self.buffer.get_mut(at..at + HASH_LENGTH) {
            if let Some(stranger) = window.iter().rposition(|&byte| !IS_DIGIT[usize::from(byte)]) {
                at += stranger + 1;
                continue;
            }
            let found = <&[u8; HASH_LENGTH]>::try_from(&*window)
                .ok()
                .and_then(|window| self.references.numbers.get(window));
            match found {
                None => at += 1,
                Some(&reference) => {
                    window.fill(0);
                    self.patches.push(Patch { at: self.base + at as u64, reference });
                    at += HASH_LENGTH;
                }
            }
        }
        self.scanned = at.min(self.buffer.len()).max(self.start);
    }
}

const IS_DIGIT: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < NIX32_ALPHABET.len() {
        table[NIX32_ALPHABET[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: ChunkSizes = ChunkSizes { min: 64, average: 256, max: 1024 };

    fn hash(number: u8) -> [u8; HASH_LENGTH] {
        std::array::from_fn(|at| NIX32_ALPHABET[(usize::from(number) * 7 + at * 5) % 32])
    }

    /// The chunks of an archive that comes in pieces of this size, and where hashes stood.
    fn cut(archive: &[u8], references: &References, piece: usize) -> (Vec<Vec<u8>>, Vec<Patch>) {
        let mut chunks = Vec::new();
        let mut keep = |chunk: &[u8]| {
            chunks.push(chunk.to_vec());
            Ok::<(), std::convert::Infallible>(())
        };
        let mut cutter = Cutter::new(references, SMALL);
        for piece in archive.chunks(piece.max(1)) {
            cutter.push(piece, &mut keep).unwrap();
        }
        let patches = cutter.finish(&mut keep).unwrap();
        (chunks, patches)
    }

    fn put_back(chunks: &[Vec<u8>], patches: &[Patch], hashes: &[[u8; HASH_LENGTH]]) -> Vec<u8> {
        let mut archive = chunks.concat();
        for patch in patches {
            let at = usize::try_from(patch.at).unwrap();
            archive[at..at + HASH_LENGTH].copy_from_slice(&hashes[patch.reference as usize]);
        }
        archive
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn an_archive_that_differs_in_hashes_alone_has_the_same_chunks() {
        let text = |hashes: [[u8; HASH_LENGTH]; 2]| {
            let mut archive = noise(3, 5000);
            for (at, which) in [(0, 0), (700, 1), (1010, 0), (4968, 1)] {
                archive[at..at + HASH_LENGTH].copy_from_slice(&hashes[which]);
            }
            archive
        };
        let (old, new) = ([hash(1), hash(2)], [hash(3), hash(4)]);
        let (chunks, patches) = cut(&text(old), &References::new(&old), 999);
        let (again, patches_again) = cut(&text(new), &References::new(&new), 77);
        assert_eq!(chunks, again);
        assert_eq!(patches, patches_again);
        assert_eq!(patches.iter().map(|patch| patch.at).collect::<Vec<_>>(), [0, 700, 1010, 4968]);
        assert_eq!(put_back(&again, &patches, &new), text(new));
    }

    #[test]
    fn a_hash_right_behind_digits_is_found() {
        let hashes = [hash(1)];
        for before in 0..70 {
            let archive = [b"a".repeat(before), hashes[0].to_vec(), b"a".repeat(5)].concat();
            let (_, patches) = cut(&archive, &References::new(&hashes), 3);
            assert_eq!(patches, [Patch { at: before as u64, reference: 0 }]);
        }
    }

    #[test]
    fn an_insertion_changes_the_chunks_around_it_and_no_others() {
        let archive = noise(9, 60_000);
        let mut longer = archive.clone();
        longer.splice(30_000..30_000, *b"inserted");
        let references = References::default();
        let (old, _) = cut(&archive, &references, 4096);
        let (new, _) = cut(&longer, &references, 4096);
        let known: std::collections::HashSet<_> = old.iter().collect();
        assert!(new.iter().filter(|chunk| !known.contains(chunk)).count() <= 3);
    }

    proptest! {
        #[test]
        fn chunks_do_not_depend_on_pieces_and_give_the_archive_back(
            seed in any::<u64>(), length in 0_usize..9000, one in 1_usize..3000, other in 1_usize..3000,
            places in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..3), 0..12)
        ) {
            let hashes = [hash(0), hash(1), hash(2)];
            let mut archive = noise(seed, length + HASH_LENGTH);
            for (place, which) in places {
                let at = place.index(length + 1);
                archive[at..at + HASH_LENGTH].copy_from_slice(&hashes[usize::from(which)]);
            }
            let references = References::new(&hashes);
            let (chunks, patches) = cut(&archive, &references, one);
            prop_assert_eq!(&(chunks.clone(), patches.clone()), &cut(&archive, &references, other));
            let (last, others) = chunks.split_last().unwrap();
            prop_assert!(last.len() <= SMALL.max);
            prop_assert!(others.iter().all(|chunk| (SMALL.min..=SMALL.max).contains(&chunk.len())));
            for hash in &hashes {
                let left = chunks.concat().windows(HASH_LENGTH).any(|window| window == hash);
                prop_assert!(!left);
            }
            prop_assert_eq!(put_back(&chunks, &patches, &hashes), archive);
        }
    }
}
