//! Packs: immutable blobs of compressed frames with their directory at the end.
//!
//! ```text
//! magic · frames · directory (zstd) · footer
//! ```
//!
//! A frame is read by its range alone, the directory by the footer's. Everything is checksummed; the format
//! is in `docs/design/pack.md`.

use std::io::{self, BufWriter, Write};
use std::ops::Range;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use zstd::zstd_safe::CParameter;

use crate::catalog::hash;
use crate::directory::{Records, Tables};
use crate::{
    Chunk, ChunkId, Directory, DirectoryError, Frame, LONGEST_FRAME, Patch, PathInfo, PathRecord, Run,
};

/// What a pack begins and ends with; the last byte is the version.
const MAGIC: &[u8; 8] = b"PHXPACK\x01";

/// How many bytes a pack has before its frames.
pub const HEAD: usize = MAGIC.len();

/// How many bytes the footer has: where the directory begins, how long it is stored and itself, its check, and
/// the magic.
pub const FOOTER: usize = 8 + 4 + 4 + 16 + 8;

/// The longest directory, in bytes, before compression and after: that of ten million chunks.
pub const LONGEST_DIRECTORY: u32 = 256 << 20;

/// How long the directory of a small pack may be, in bytes: that of a million chunks and 50,000 paths with all they say, or
/// of 100,000 derivations.
const SMALL_DIRECTORY: u64 = 64 << 20;

/// Which part of larger packs a directory is at most. A chunk has 32 KiB on average, 20 bytes in the
/// directory, and a bit more than a quarter of its size in the pack: a 400th.
const DIRECTORY_PART: u64 = 128;

/// How many times as long as it is stored a directory may be; hashes do not compress, and what does is made to fill
/// memory.
const DENSEST: u64 = 64;

/// How long one may be however short it is stored, in bytes.
const FREE: u64 = 1 << 20;

/// How much all directories of small packs may weigh together, in bytes: those of three million chunks, or of all that is
/// known of 50,000 paths of which each refers to two dozen others.
const SMALL_WEIGHT: u64 = 96 << 20;

/// How long the directory of a pack may be that has so many bytes. What packs say of themselves does not decide how much
/// memory they take.
#[must_use]
pub fn longest_directories(bytes: u64) -> u64 {
    (bytes / DIRECTORY_PART).max(SMALL_DIRECTORY)
}

/// How much the directories of packs may weigh ([`Directory::weight`]) that have so many bytes together.
#[must_use]
pub fn heaviest_directories(bytes: u64) -> u64 {
    (bytes / DIRECTORY_PART * 2).max(SMALL_WEIGHT)
}

/// How much a frame gathers before it is compressed, in bytes: enough for zstd to find what repeats, and no more
/// than a path that needs one chunk of it can bear. The benchmark `sweep` compares sizes.
pub const FRAME_TARGET: usize = 2 << 20;

/// How long a directory is in which the names that paths refer to are further apart than zstd looks back at [`LEVEL`], in
/// bytes.
const FAR: u32 = 1 << 21;

/// How a longer one is compressed: zstd looks back 16 MiB for what is as long as a hash. 36,000 paths that refer to 14 others
/// each take 4.2 MB and not 11. It takes as much memory, and further back finds next to nothing more.
const FAR_APART: [CParameter; 5] = [
    CParameter::WindowLog(24),
    CParameter::EnableLongDistanceMatching(true),
    CParameter::LdmMinMatch(32),
    CParameter::LdmHashRateLog(3),
    CParameter::LdmHashLog(20),
];

/// The zstd level of frames, by the benchmark `sweep`.
pub const LEVEL: i32 = 3;

/// Why a pack cannot be read, or not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// It is of another version.
    #[error("it has version {0} of the format, which this phoenix does not know")]
    Version(u8),
    /// It is not a pack, cut off, or changed.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// It is not made: there is too much to say of what would be in it.
    #[error("its directory would be longer than any may be")]
    TooMuch,
    /// Nothing is wrong with it, but those of others take all the room that there is for directories.
    #[error("there is no room for its directory beside those of the other packs")]
    NoRoom,
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Gathers chunks until there are enough to be compressed together.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
    chunks: Vec<Chunk>,
}

/// A frame as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedFrame {
    /// Its bytes in the pack.
    pub bytes: Vec<u8>,
    chunks: Vec<Chunk>,
    length: u32,
    check: ChunkId,
}

impl SealedFrame {
    /// A frame of another pack, as it is; `chunks` are those that its directory says are in it.
    pub(crate) fn copied(frame: &Frame, chunks: Vec<Chunk>, bytes: Vec<u8>) -> Self {
        Self { bytes, chunks, length: frame.length, check: frame.check }
    }
}

impl FrameBuilder {
    /// Adds a chunk.
    pub fn push(&mut self, id: ChunkId, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.chunks.push(Chunk { id, length: bytes.len() as u32 });
    }

    /// Whether there is enough for a frame.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_TARGET
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Compresses what was gathered and begins anew.
    ///
    /// # Errors
    /// When zstd fails, or more was gathered than a frame may hold.
    pub fn seal(&mut self, compressor: &mut Compressor) -> Result<SealedFrame, PackError> {
        if self.bytes.len() > LONGEST_FRAME {
            return Err(PackError::Damaged("a frame would be longer than any may be"));
        }
        let length = self.bytes.len() as u32;
        let bytes = compressor
            .0
            .compress(&self.bytes)
            .map_err(|_| PackError::Damaged("zstd cannot compress a frame"))?;
        // What does not shrink is kept as it is: a frame as long as its chunks is not compressed.
        let bytes = if bytes.len() < self.bytes.len() { bytes } else { self.bytes.clone() };
        self.bytes.clear();
        let check = ChunkId::of(&bytes);
        Ok(SealedFrame { bytes, chunks: std::mem::take(&mut self.chunks), length, check })
    }
}

/// The part of its length that is left of noise at least.
const NOISE: (usize, usize) = (7, 8);

/// What compresses frames; one for each thread.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    /// One of this zstd level.
    ///
    /// # Errors
    /// When zstd has no memory.
    pub fn new(level: i32) -> Result<Self, PackError> {
        zstd::bulk::Compressor::new(level).map(Self).map_err(|_| PackError::Damaged("zstd cannot begin"))
    }

    /// Whether something hardly compresses by itself.
    pub(crate) fn is_noise(&mut self, bytes: &[u8]) -> bool {
        self.0.compress(bytes).is_ok_and(|compressed| compressed.len() * NOISE.1 >= bytes.len() * NOISE.0)
    }
}

/// A path that goes into a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedPath {
    /// What is known of it.
    pub info: PathInfo,
    /// The chunks of its archive, in order, whichever pack has them.
    pub chunks: Vec<Chunk>,
    /// Where hash parts stood in the archive.
    pub patches: Vec<Patch>,
    /// When it was saved, in milliseconds since 1970.
    pub saved: u64,
}

/// Whether a pack whose footer was read begins as it ends, by its first [`HEAD`] bytes.
///
/// # Errors
/// When it does not.
pub fn check_head(head: &[u8]) -> Result<(), PackError> {
    if head == MAGIC { Ok(()) } else { Err(PackError::Damaged("it does not begin as it ends")) }
}

/// Writes one pack, from its first byte to its last; whoever has it writes what it returns, in order.
#[derive(Debug, Default)]
pub struct PackBuilder {
    frames: Vec<Frame>,
    chunks: Vec<Chunk>,
    /// The first number of each chunk; its id stands in the table.
    numbers: HashTable<u32>,
    offset: u64,
}

impl PackBuilder {
    /// Begins a pack; returns what it begins with.
    #[must_use]
    pub fn new() -> (Self, &'static [u8]) {
        (Self { offset: MAGIC.len() as u64, ..Self::default() }, MAGIC)
    }

    /// Takes in a frame, whose bytes are what comes next in the pack.
    pub fn add(&mut self, frame: &SealedFrame) {
        let first = self.chunks.len() as u32;
        self.chunks.extend(&frame.chunks);
        for (chunk, number) in frame.chunks.iter().zip(first..) {
            number_of(&mut self.numbers, &self.chunks, &[], chunk.id, number);
        }
        self.frames.push(Frame {
            offset: self.offset,
            stored: frame.bytes.len() as u32,
            length: frame.length,
            first,
            check: frame.check,
        });
        self.offset += frame.bytes.len() as u64;
    }

    /// How many bytes the pack has so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.offset
    }

    /// How many bytes the chunks in it have, before compression.
    #[must_use]
    pub fn chunk_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.length)).sum()
    }

    /// Ends the pack: returns its last bytes, directory and footer. Chunks of `paths` that no frame has are
    /// those of other packs.
    ///
    /// # Errors
    /// When there is more than a directory can hold.
    pub fn finish(
        self,
        paths: impl IntoIterator<Item = PackedPath>,
        others: Vec<u8>,
    ) -> Result<Vec<u8>, PackError> {
        Ok(self.finish_in_parts(paths, others)?.concat())
    }

    /// The same in parts, of which each can be let go when it is written.
    ///
    /// # Errors
    /// When there is more than a directory can hold.
    pub fn finish_in_parts(
        self,
        paths: impl IntoIterator<Item = PackedPath>,
        others: Vec<u8>,
    ) -> Result<Vec<Vec<u8>>, PackError> {
        let Self { frames, chunks, mut numbers, offset } = self;
        let own = chunks.len() as u32;
        let most = longest_directories(offset).min(u64::from(LONGEST_DIRECTORY));
        let mut foreign: Vec<Chunk> = Vec::new();
        let mut records = Records::default();
        for path in paths {
            let mut runs: Vec<Run> = Vec::new();
            for &chunk in &path.chunks {
                let next = own + foreign.len() as u32;
                let number = number_of(&mut numbers, &chunks, &foreign, chunk.id, next);
                if number == next {
                    foreign.push(chunk);
                }
                match runs.last_mut() {
                    Some(run) if run.first + run.count == number => run.count += 1,
                    _ => runs.push(Run { first: number, count: 1 }),
                }
            }
            let PackedPath { info, patches, saved, .. } = path;
            records.push(PathRecord { info, runs, patches, saved })?;
            // Before all of what is too much is in memory.
            if records.bytes() > most {
                return Err(PackError::TooMuch);
            }
        }
        drop(numbers);
        let tables =
            Tables { frames: &frames, chunks: &chunks, foreign: &foreign, records: records.sorted(), others };
        let length = u32::try_from(tables.length()).ok().filter(|&length| u64::from(length) <= most);
        let length = length.ok_or(PackError::TooMuch)?;
        let no_zstd = |_| PackError::Damaged("zstd cannot compress a directory");
        let mut encoder = zstd::stream::write::Encoder::new(Parts::default(), LEVEL).map_err(no_zstd)?;
        encoder.set_pledged_src_size(Some(u64::from(length))).map_err(no_zstd)?;
        if length > FAR {
            for parameter in FAR_APART {
                encoder.set_parameter(parameter).map_err(no_zstd)?;
            }
        }
        // The tables come in numbers of some bytes.
        let mut buffered = BufWriter::with_capacity(1 << 16, encoder);
        tables.write(&mut buffered)?;
        let encoder = buffered.into_inner().map_err(|error| no_zstd(error.into_error()))?;
        let mut written = encoder.finish().map_err(no_zstd)?;
        written.thin_out(length).map_err(no_zstd)?;
        let Parts { mut parts, check, length: stored } = written;
        let mut footer = Vec::with_capacity(FOOTER);
        footer.extend_from_slice(&offset.to_le_bytes());
        footer.extend_from_slice(&stored.to_le_bytes());
        footer.extend_from_slice(&length.to_le_bytes());
        footer.extend_from_slice(&ChunkId::from_hash(&check.finalize()).0);
        footer.extend_from_slice(MAGIC);
        parts.push(footer);
        Ok(parts)
    }
}

/// What is written, in parts of a megabyte, so that nothing is copied as it grows.
#[derive(Default)]
struct Parts {
    parts: Vec<Vec<u8>>,
    check: blake3::Hasher,
    length: u32,
}

impl Parts {
    /// Sees to it that a directory of so many bytes is not denser than those that are read: names that come again and
    /// again compress to almost nothing. What is put behind it is passed over when it is decompressed.
    fn thin_out(&mut self, length: u32) -> io::Result<()> {
        /// What a frame begins with that zstd passes over; then comes how long the rest is.
        const PASSED_OVER: u32 = 0x184d_2a50;
        let least = u64::from(length).saturating_sub(FREE).div_ceil(DENSEST) as u32;
        if let Some(more) = least.checked_sub(self.length).filter(|&more| more > 0) {
            let mut frame = [PASSED_OVER.to_le_bytes(), more.to_le_bytes()].concat();
            frame.resize(frame.len() + more as usize, 0);
            self.write_all(&frame)?;
        }
        Ok(())
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        const PART: usize = 1 << 20;
        match self.parts.last_mut().filter(|part| part.len() + bytes.len() <= PART) {
            Some(part) => part.extend_from_slice(bytes),
            None => {
                let mut part = Vec::with_capacity(PART.max(bytes.len()));
                part.extend_from_slice(bytes);
                self.parts.push(part);
            }
        }
        self.check.update(bytes);
        // What is compressed is below 256 MiB.
        self.length += bytes.len() as u32;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The number of a chunk among those of a pack and the foreign ones that come after them; `next` if it has none yet.
fn number_of(
    numbers: &mut HashTable<u32>,
    chunks: &[Chunk],
    foreign: &[Chunk],
    wanted: ChunkId,
    next: u32,
) -> u32 {
    let id = |&number: &u32| {
        let number = number as usize;
        let chunk = chunks.get(number).or_else(|| foreign.get(number - chunks.len()));
        chunk.map(|chunk| chunk.id)
    };
    let is_it = |number: &u32| id(number) == Some(wanted);
    match numbers.entry(hash(wanted), is_it, |number| id(number).map_or(0, hash)) {
        Entry::Occupied(entry) => *entry.get(),
        Entry::Vacant(entry) => {
            entry.insert(next);
            next
        }
    }
}

/// Where a pack has its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The range of the pack that holds the directory.
    pub directory: Range<u64>,
    length: u32,
    check: ChunkId,
}

impl Footer {
    /// Reads the last [`FOOTER`] bytes of a pack of this size; what comes before them in `tail` does not
    /// matter.
    ///
    /// # Errors
    /// When they are no footer, or that of a pack of another size or version.
    pub fn parse(tail: &[u8], size: u64) -> Result<Self, PackError> {
        let damaged = PackError::Damaged;
        let footer = tail.last_chunk::<FOOTER>().ok_or(damaged("it is shorter than a footer"))?;
        let magic = &footer[FOOTER - 8..];
        if magic[..7] != MAGIC[..7] {
            return Err(damaged("it does not end as a pack does"));
        }
        if magic[7] != MAGIC[7] {
            return Err(PackError::Version(magic[7]));
        }
        let word =
            |at: usize| u32::from_le_bytes([footer[at], footer[at + 1], footer[at + 2], footer[at + 3]]);
        let start = u64::from(word(0)) | u64::from(word(4)) << 32;
        let (stored, length) = (word(8), word(12));
        let end = start.checked_add(u64::from(stored)).ok_or(damaged("its directory is nowhere"))?;
        if start < MAGIC.len() as u64 || end.checked_add(FOOTER as u64) != Some(size) {
            return Err(damaged("its directory is not where its footer says"));
        }
        let most = (u64::from(stored) * DENSEST + FREE).min(longest_directories(size));
        // What zstd cannot compress grows by less than this.
        let most_stored = length.saturating_add(length / 128).saturating_add(1 << 10);
        if stored > most_stored || length > LONGEST_DIRECTORY || u64::from(length) > most {
            return Err(damaged("its directory is longer than any is made"));
        }
        let mut check = [0; 16];
        check.copy_from_slice(&footer[16..32]);
        Ok(Self { directory: start..end, length, check: ChunkId(check) })
    }

    /// How many bytes the directory has in memory.
    #[must_use]
    pub fn length(&self) -> u64 {
        u64::from(self.length)
    }

    /// Opens the directory, whose bytes were read from [`Footer::directory`].
    ///
    /// # Errors
    /// When they are not what was written.
    pub fn open(&self, stored: &[u8]) -> Result<Directory, PackError> {
        let damaged = PackError::Damaged;
        if ChunkId::of(stored) != self.check {
            return Err(damaged("its directory is not what was written"));
        }
        // As much as it may have at most, which is not taken before it comes, and never twice.
        let mut bytes = Vec::with_capacity(self.length as usize + 1);
        zstd::bulk::Decompressor::new()
            .and_then(|mut decompressor| decompressor.decompress_to_buffer(stored, &mut bytes))
            .map_err(|_| damaged("its directory does not decompress"))?;
        if bytes.len() != self.length as usize {
            return Err(damaged("its directory is not as long as its footer says"));
        }
        let directory = Directory::parse(bytes)?;
        let within = |frame: Frame| {
            frame.offset >= MAGIC.len() as u64
                && frame
                    .offset
                    .checked_add(u64::from(frame.stored))
                    .is_some_and(|end| end <= self.directory.start)
        };
        if (0..directory.frames()).all(|number| within(directory.frame(number))) {
            Ok(directory)
        } else {
            Err(damaged("a frame is not where its directory says"))
        }
    }
}

/// Opens frames one after another; what it takes to decompress is made once.
pub struct FrameOpener(zstd::bulk::Decompressor<'static>);

impl FrameOpener {
    /// One that has opened nothing yet.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> Result<Self, PackError> {
        zstd::bulk::Decompressor::new()
            .map(Self)
            .map_err(|_| PackError::Damaged("there is no memory to open a frame"))
    }

    /// Opens a frame, whose bytes were read from where its directory says: the bytes of its chunks are put in
    /// the place of what is in `bytes`.
    ///
    /// # Errors
    /// When they are not what was written.
    pub fn open(&mut self, frame: &Frame, stored: &[u8], bytes: &mut Vec<u8>) -> Result<(), PackError> {
        let damaged = PackError::Damaged;
        bytes.clear();
        if !frame.is_whole(stored) {
            return Err(damaged("a frame is not what was written"));
        }
        if frame.stored == frame.length {
            bytes.extend_from_slice(stored);
            return Ok(());
        }
        bytes.reserve_exact(frame.length as usize);
        match self.0.decompress_to_buffer(stored, bytes) {
            Ok(length) if length == frame.length as usize => Ok(()),
            _ => Err(damaged("a frame does not decompress to what its directory says")),
        }
    }
}

impl std::fmt::Debug for FrameOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameOpener")
    }
}

/// Opens one frame, as [`FrameOpener::open`] does.
///
/// # Errors
/// When its bytes are not what was written.
pub fn open_frame(frame: &Frame, stored: &[u8]) -> Result<Vec<u8>, PackError> {
    let mut bytes = Vec::new();
    FrameOpener::new()?.open(frame, stored, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HASH_LENGTH;
    use proptest::prelude::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect()
    }

    fn info(number: usize, nar_size: u64) -> PathInfo {
        PathInfo {
            name: format!("{number:0HASH_LENGTH$}-p"),
            nar_hash: [7; 32],
            nar_size,
            references: vec![],
            deriver: None,
            signatures: vec![],
            ca: None,
        }
    }

    fn chunk(bytes: &[u8]) -> Chunk {
        Chunk { id: ChunkId::of(bytes), length: bytes.len() as u32 }
    }

    /// A pack of two paths that share a chunk; one needs a chunk of another pack.
    fn pack() -> (Vec<u8>, Vec<Vec<u8>>) {
        let parts = vec![noise(1, 3000), vec![b'x'; 5000], noise(3, 700), b"elsewhere".to_vec()];
        let (mut builder, mut bytes) = {
            let (builder, head) = PackBuilder::new();
            (builder, head.to_vec())
        };
        let mut compressor = Compressor::new(LEVEL).unwrap();
        for frame in [&parts[..1], &parts[1..3]] {
            let mut building = FrameBuilder::default();
            for part in frame {
                building.push(ChunkId::of(part), part);
            }
            let sealed = building.seal(&mut compressor).unwrap();
            assert!(building.is_empty());
            builder.add(&sealed);
            bytes.extend(sealed.bytes);
        }
        assert_eq!(builder.size(), bytes.len() as u64);
        let packed = |number, which: &[usize]| PackedPath {
            info: info(number, which.iter().map(|&part| parts[part].len() as u64).sum()),
            chunks: which.iter().map(|&part| chunk(&parts[part])).collect(),
            patches: vec![],
            saved: 0,
        };
        let tail = builder.finish(vec![packed(1, &[0, 1, 2]), packed(2, &[1, 3, 0])], b"more".to_vec());
        bytes.extend(tail.unwrap());
        (bytes, parts)
    }

    fn open(pack: &[u8]) -> Result<Directory, PackError> {
        let footer = Footer::parse(&pack[pack.len().saturating_sub(100)..], pack.len() as u64)?;
        let range = footer.directory.start as usize..footer.directory.end as usize;
        footer.open(&pack[range])
    }

    fn frame_bytes(pack: &[u8], frame: &Frame) -> Vec<u8> {
        pack[frame.offset as usize..][..frame.stored as usize].to_vec()
    }

    #[test]
    fn what_is_packed_comes_out() {
        let (pack, parts) = pack();
        let directory = open(&pack).unwrap();
        assert_eq!((directory.frames(), directory.chunks(), directory.paths()), (2, 3, 2));
        let mut all = Vec::new();
        for number in 0..2 {
            let frame = directory.frame(number);
            all.extend(open_frame(&frame, &frame_bytes(&pack, &frame)).unwrap());
        }
        assert_eq!(all, parts[..3].concat());
        assert_eq!(directory.frame(0).stored, 3000, "noise is kept as it is");
        assert!(directory.frame(1).stored < 1000);
        assert_eq!(directory.record(0).unwrap().runs, [Run { first: 0, count: 3 }]);
        let second = directory.record(1).unwrap();
        let runs = [Run { first: 1, count: 1 }, Run { first: 3, count: 1 }, Run { first: 0, count: 1 }];
        assert_eq!(second.runs, runs);
        assert!(!directory.is_own(3));
        assert_eq!(directory.chunk(3), Some(chunk(b"elsewhere")));
        assert_eq!(directory.others(), b"more");
    }

    #[test]
    fn a_pack_of_nothing_is_one() {
        let (builder, head) = PackBuilder::new();
        let pack = [head.to_vec(), builder.finish(vec![], vec![]).unwrap()].concat();
        assert_eq!(open(&pack).unwrap().paths(), 0);
    }

    #[test]
    fn a_directory_that_is_very_dense_is_read_as_it_was_written() {
        let (builder, head) = PackBuilder::new();
        let paths = (0..200).map(|number| PackedPath {
            info: PathInfo {
                references: (0..number).map(|number| info(number, 0).name).collect(),
                ..info(number, 0)
            },
            chunks: vec![],
            patches: vec![],
            saved: 0,
        });
        let tail = builder.finish(paths, vec![0; 8 << 20]).unwrap();
        let pack = [head.to_vec(), tail].concat();
        assert!(pack.len() < 1 << 20, "{}", pack.len());
        let directory = open(&pack).unwrap();
        assert_eq!((directory.paths(), directory.others().len()), (200, 8 << 20));
        assert_eq!(directory.record(199).unwrap().info.references.len(), 199);
    }

    #[test]
    fn another_version_is_a_miss_that_says_so() {
        let (mut pack, _) = pack();
        *pack.last_mut().unwrap() = 2;
        assert_eq!(open(&pack).unwrap_err(), PackError::Version(2));
    }

    #[test]
    fn every_cut_is_damage() {
        let (pack, _) = pack();
        for end in 0..pack.len() {
            assert!(open(&pack[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_seen_before_it_is_used(at in any::<prop::sample::Index>(), with in 1_u8..) {
            let (mut pack, parts) = pack();
            let at = at.index(pack.len());
            pack[at] ^= with;
            let Ok(directory) = open(&pack) else { return Ok(()) };
            let mut all = Vec::new();
            for number in 0..2 {
                let frame = directory.frame(number);
                match open_frame(&frame, &frame_bytes(&pack, &frame)) {
                    Ok(bytes) => all.extend(bytes),
                    Err(_) => return Ok(()),
                }
            }
            // Only the magic at the beginning is read by nobody.
            prop_assert!(at < MAGIC.len());
            prop_assert_eq!(all, parts[..3].concat());
        }
    }
}
