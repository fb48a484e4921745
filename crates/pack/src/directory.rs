//! The directory of a pack: which store paths it holds, of which chunks, and where those are.
//!
//! Tables of fixed width are read where they stand; a path's record is decoded when it is asked for. So a
//! directory of a million chunks is ready as soon as its bytes are there. Nothing it says of itself is
//! believed: every number is checked before it is used. The format is in `docs/design/pack.md`.

use std::fmt;
use std::io::Write;
use std::ops::Range;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{HASH_LENGTH, Patch};

/// What a directory begins with; the last byte is the version.
const MAGIC: &[u8; 8] = b"PHXDIR\0\x01";
/// Magic and the numbers of frames, chunks, foreign chunks, paths, bytes of records, bytes of what follows.
const HEADER: usize = 8 + 6 * 4;
const FRAME: usize = 8 + 4 + 4 + 4 + 16;
const CHUNK: usize = 16 + 4;

/// What is made of a chunk and of a path in memory beside the directory, in bytes.
const MADE_OF: (usize, usize) = (20, 192);

/// The longest frame, in bytes before compression.
pub const LONGEST_FRAME: usize = 5 << 20;

/// The longest record, in bytes: of a path with half a million places of hash parts.
const LONGEST_RECORD: usize = 4 << 20;

/// How many references or signatures a path has at most.
const MOST_NAMES: usize = 1 << 16;

/// How many chunks a path has at most: an archive of 128 GiB.
const MOST_CHUNKS: u64 = 1 << 22;

/// What identifies a chunk: the first half of its BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 16]);

impl ChunkId {
    /// That of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&blake3::hash(bytes))
    }

    pub(crate) fn from_hash(hash: &blake3::Hash) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&hash.as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A chunk in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// What identifies it.
    pub id: ChunkId,
    /// How many bytes it has.
    pub length: u32,
}

/// Chunks that are compressed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where it begins in the pack.
    pub offset: u64,
    /// How many bytes it has there.
    pub stored: u32,
    /// How many bytes its chunks have.
    pub length: u32,
    /// The number of its first chunk; the others follow, up to the next frame's first.
    pub first: u32,
    /// The [`ChunkId::of`] the stored bytes.
    pub check: ChunkId,
}

impl Frame {
    /// Whether these bytes are those that were written.
    #[must_use]
    pub fn is_whole(&self, stored: &[u8]) -> bool {
        stored.len() == self.stored as usize && ChunkId::of(stored) == self.check
    }
}

/// What is known of a store path besides its contents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PathInfo {
    /// `HASH-NAME`: the path without the store directory.
    pub name: String,
    /// The SHA-256 of its NAR.
    pub nar_hash: [u8; 32],
    /// The length of its NAR, in bytes.
    pub nar_size: u64,
    /// The paths it refers to, sorted, itself among them if it does.
    #[serde(deserialize_with = "few")]
    pub references: Vec<String>,
    /// The derivation that made it.
    pub deriver: Option<String>,
    /// Signatures, as Nix writes them: `KEY:BASE64`.
    #[serde(deserialize_with = "few")]
    pub signatures: Vec<String>,
    /// The content address, as Nix writes it.
    pub ca: Option<String>,
}

impl PathInfo {
    /// About how many bytes it takes in memory.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        let names = self.references.iter().chain(&self.signatures);
        let names: usize = names.map(|name| size_of::<String>() + name.len()).sum();
        let more = self.name.len() + self.deriver.as_ref().map_or(0, String::len);
        size_of::<Self>() + names + more + self.ca.as_ref().map_or(0, String::len)
    }

    /// The first 32 characters of its name, if it is that long.
    #[must_use]
    pub fn hash_part(&self) -> Option<&[u8; HASH_LENGTH]> {
        self.name.as_bytes().first_chunk()
    }
}

/// Reads names, and no more than a path may have: an empty one takes one byte in a record and many in memory.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MOST_NAMES} names")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
            let mut few = Vec::new();
            while let Some(name) = names.next_element()? {
                if few.len() == MOST_NAMES {
                    return Err(A::Error::invalid_length(few.len() + 1, &self));
                }
                few.push(name);
            }
            Ok(few)
        }
    }

    deserializer.deserialize_seq(Few)
}

/// A store path in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRecord {
    /// What is known of it.
    pub info: PathInfo,
    /// The chunks of its archive, in order.
    pub runs: Vec<Run>,
    /// Where hash parts of its references stood in the archive, in order; by number in
    /// [`PathInfo::references`].
    pub patches: Vec<Patch>,
    /// When it was saved last, in milliseconds since 1970; folding does not change it.
    pub saved: u64,
}

/// Chunks that follow one another in the table: first those of the pack itself, then the foreign ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The number of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// How a record is written: what [`PathRecord`] has, places as distances.
#[derive(Serialize, Deserialize)]
struct Written {
    info: PathInfo,
    runs: Vec<Run>,
    patches: Vec<(u64, u32)>,
    saved: u64,
}

/// What a record begins with, as far as its references.
#[derive(Deserialize)]
struct Names<'r> {
    #[expect(dead_code, reason = "it is passed over")]
    name: &'r str,
    #[expect(dead_code, reason = "it is passed over")]
    nar_hash: [u8; 32],
    #[expect(dead_code, reason = "it is passed over")]
    nar_size: u64,
    #[serde(borrow)]
    references: Vec<&'r str>,
}

/// What a directory is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The frames, by the number of their first chunk.
    pub frames: Vec<Frame>,
    /// The chunks of all frames.
    pub chunks: Vec<Chunk>,
    /// Chunks that paths of this pack need and other packs have.
    pub foreign: Vec<Chunk>,
    /// The paths.
    pub paths: Vec<PathRecord>,
    /// What the pack says of other packs; the catalog knows what it means.
    pub others: Vec<u8>,
}

/// Why a directory cannot be used. Nothing is lost but what it would have saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// It is of another version.
    #[error("it has version {0} of the format, which this phoenix does not know")]
    Version(u8),
    /// It is not a directory, cut off, or contradicts itself.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

impl Contents {
    /// The directory as bytes.
    ///
    /// # Errors
    /// When a table has more than 4 GiB.
    pub fn encode(self) -> Result<Vec<u8>, DirectoryError> {
        let Self { frames, chunks, foreign, paths, others } = self;
        let mut records = Records::default();
        paths.into_iter().try_for_each(|path| records.push(path))?;
        let tables =
            Tables { frames: &frames, chunks: &chunks, foreign: &foreign, records: records.sorted(), others };
        let mut bytes = Vec::new();
        tables.write(&mut bytes)?;
        Ok(bytes)
    }
}

/// Records as they are written, in any order.
#[derive(Debug, Default)]
pub(crate) struct Records {
    all: Vec<Box<[u8]>>,
    /// How many bytes they have together.
    bytes: u64,
}

impl Records {
    /// Writes one more.
    pub(crate) fn push(&mut self, path: PathRecord) -> Result<(), DirectoryError> {
        let mut last = 0;
        let patches = path.patches.iter().map(|patch| {
            let distance = patch.at - std::mem::replace(&mut last, patch.at);
            (distance, patch.reference)
        });
        let written =
            Written { patches: patches.collect(), info: path.info, runs: path.runs, saved: path.saved };
        let record = postcard::to_extend(&written, Vec::new())
            .map_err(|_| DirectoryError::Damaged("a record cannot be written"))?;
        self.bytes += record.len() as u64;
        self.all.push(record.into_boxed_slice());
        Ok(())
    }

    /// How many bytes they have together.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of them by name, as a directory has them.
    pub(crate) fn sorted(mut self) -> Vec<Box<[u8]>> {
        fn name(record: &[u8]) -> &str {
            postcard::take_from_bytes(record).map_or("", |(name, _)| name)
        }
        self.all.sort_by(|a, b| name(a).cmp(name(b)));
        self.all
    }
}

/// A directory before it is bytes. These are never all in memory, for who writes a pack compresses them at once.
#[derive(Debug)]
pub(crate) struct Tables<'t> {
    pub(crate) frames: &'t [Frame],
    pub(crate) chunks: &'t [Chunk],
    pub(crate) foreign: &'t [Chunk],
    /// By name.
    pub(crate) records: Vec<Box<[u8]>>,
    pub(crate) others: Vec<u8>,
}

impl Tables<'_> {
    /// How many bytes the directory has.
    pub(crate) fn length(&self) -> u64 {
        let chunks = self.chunks.len() + self.foreign.len();
        let tables = HEADER + self.frames.len() * FRAME + chunks * CHUNK + self.records.len() * 4;
        (tables + self.record_bytes() + self.others.len()) as u64
    }

    fn record_bytes(&self) -> usize {
        self.records.iter().map(|record| record.len()).sum()
    }

    /// Writes the directory, and lets go of what is written.
    pub(crate) fn write(self, out: &mut impl Write) -> Result<(), DirectoryError> {
        let too_large = |_| DirectoryError::Damaged("a table of it is too large");
        let full = |_| DirectoryError::Damaged("it cannot be written");
        let counts = [
            self.frames.len(),
            self.chunks.len(),
            self.foreign.len(),
            self.records.len(),
            self.record_bytes(),
            self.others.len(),
        ];
        out.write_all(MAGIC).map_err(full)?;
        for count in counts {
            out.write_all(&u32::try_from(count).map_err(too_large)?.to_le_bytes()).map_err(full)?;
        }
        for frame in self.frames {
            out.write_all(&frame.offset.to_le_bytes()).map_err(full)?;
            for number in [frame.stored, frame.length, frame.first] {
                out.write_all(&number.to_le_bytes()).map_err(full)?;
            }
            out.write_all(&frame.check.0).map_err(full)?;
        }
        for chunk in self.chunks.iter().chain(self.foreign) {
            out.write_all(&chunk.id.0).map_err(full)?;
            out.write_all(&chunk.length.to_le_bytes()).map_err(full)?;
        }
        let mut end = 0;
        for record in &self.records {
            // All of them together are less than 4 GiB.
            end += record.len() as u32;
            out.write_all(&end.to_le_bytes()).map_err(full)?;
        }
        for record in self.records {
            out.write_all(&record).map_err(full)?;
        }
        out.write_all(&self.others).map_err(full)
    }
}

/// A directory, read where it stands.
#[derive(Clone)]
pub struct Directory {
    bytes: Vec<u8>,
    frames: usize,
    chunks: usize,
    foreign: usize,
    paths: usize,
    /// Where the tables begin: chunks, ends of records, records, what is said of others.
    at: [usize; 4],
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, chunks, foreign, paths, .. } = self;
        write!(f, "Directory({paths} paths, {frames} frames, {chunks} chunks, {foreign} foreign)")
    }
}

impl Directory {
    /// Takes the bytes of a directory.
    ///
    /// # Errors
    /// When they are of another version, or their tables do not fill them exactly.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, DirectoryError> {
        let damaged = DirectoryError::Damaged;
        let header = bytes.first_chunk::<HEADER>().ok_or(damaged("it has no header"))?;
        let (magic, version) = (&header[..7], header[7]);
        if magic != &MAGIC[..7] {
            return Err(damaged("it does not begin as a directory does"));
        }
        if version != MAGIC[7] {
            return Err(DirectoryError::Version(version));
        }
        let [frames, chunks, foreign, paths, records, others] =
            std::array::from_fn(|number| u32_at(header, 8 + 4 * number) as usize);
        // Each is below 4 GiB and narrower than 64 bytes, so nothing here overflows 64 bits.
        let sizes = [HEADER, frames * FRAME, (chunks + foreign) * CHUNK, paths * 4, records, others];
        if sizes.iter().map(|&size| size as u64).sum::<u64>() != bytes.len() as u64 {
            return Err(damaged("its tables are not as long as it says"));
        }
        let mut end = 0;
        let ends: [usize; 6] = std::array::from_fn(|number| {
            end += sizes[number];
            end
        });
        let this = Self { bytes, frames, chunks, foreign, paths, at: [ends[1], ends[2], ends[3], ends[4]] };
        this.check()?;
        Ok(this)
    }

    /// What later lookups rely on.
    fn check(&self) -> Result<(), DirectoryError> {
        let damaged = |reason| Err(DirectoryError::Damaged(reason));
        let mut first = 0;
        for number in 0..self.frames {
            let frame = self.frame(number);
            if frame.length as usize > LONGEST_FRAME || frame.stored as usize > LONGEST_FRAME {
                return damaged("a frame is longer than any is made");
            }
            if (number == 0 && frame.first != 0) || frame.first < first || frame.first as usize > self.chunks
            {
                return damaged("its frames are not in order");
            }
            first = frame.first;
        }
        if self.frames == 0 && self.chunks > 0 {
            return damaged("it has chunks without a frame");
        }
        let mut last = 0;
        for number in 0..self.paths {
            let end = self.record_end(number);
            if end < last || end > self.at[3] - self.at[2] {
                return damaged("its records are not in order");
            }
            last = end;
        }
        if last != self.at[3] - self.at[2] {
            return damaged("its records are not in order");
        }
        Ok(())
    }

    /// How many frames there are.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// How many chunks the pack itself has.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// How many paths there are.
    #[must_use]
    pub fn paths(&self) -> usize {
        self.paths
    }

    /// What the pack says of others.
    #[must_use]
    pub fn others(&self) -> &[u8] {
        &self.bytes[self.at[3]..]
    }

    /// How many bytes the directory takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes it takes in memory with all that is made of it: where its chunks are, and what is kept of its paths
    /// while they come in.
    #[must_use]
    pub fn weight(&self) -> u64 {
        (self.size() + self.chunks * MADE_OF.0 + self.paths * MADE_OF.1) as u64
    }

    /// How much heavier ([`Directory::weight`]) a directory is for a path whose record has so many bytes, with so many
    /// chunks that no other has.
    #[must_use]
    pub fn weight_of_path(record: u64, chunks: u64) -> u64 {
        record + (4 + MADE_OF.1) as u64 + chunks.saturating_mul((CHUNK + MADE_OF.0) as u64)
    }

    /// Whether it has the record of the path of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let number = name.as_bytes().first_chunk().and_then(|hash_part| self.find(hash_part));
        number.is_some_and(|number| self.name_of(number) == name.as_bytes())
    }

    /// The frame of this number, which is below [`Directory::frames`].
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn frame(&self, number: usize) -> Frame {
        assert!(number < self.frames, "there is no frame {number}");
        let at = HEADER + number * FRAME;
        let word = |at| u32_at(&self.bytes, at);
        let offset = u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Frame {
            offset,
            stored: word(at + 8),
            length: word(at + 12),
            first: word(at + 16),
            check: self.id_at(at + 20),
        }
    }

    /// The chunk of this number, own ones before foreign ones; none when there is no such chunk.
    #[must_use]
    pub fn chunk(&self, number: u32) -> Option<Chunk> {
        let number = number as usize;
        (number < self.chunks + self.foreign).then(|| {
            let at = self.at[0] + number * CHUNK;
            Chunk { id: self.id_at(at), length: u32_at(&self.bytes, at + 16) }
        })
    }

    /// Whether the chunk of this number is in the pack itself.
    #[must_use]
    pub fn is_own(&self, chunk: u32) -> bool {
        (chunk as usize) < self.chunks
    }

    /// The number of the frame that an own chunk is in.
    #[must_use]
    pub fn frame_of(&self, chunk: u32) -> Option<usize> {
        if !self.is_own(chunk) {
            return None;
        }
        let (mut low, mut high) = (0, self.frames);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.frame(middle).first <= chunk { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1)
    }

    /// The numbers of the chunks of a frame.
    #[must_use]
    pub fn chunks_in(&self, frame: usize) -> Range<u32> {
        let end = if frame + 1 < self.frames { self.frame(frame + 1).first } else { self.chunks as u32 };
        self.frame(frame).first..end
    }

    /// The chunks of a frame, each with where it begins in the frame.
    ///
    /// # Errors
    /// When they do not fill the frame exactly.
    pub fn chunks_of(&self, frame: usize) -> Result<Vec<(u32, Chunk)>, DirectoryError> {
        let this = self.frame(frame);
        let numbers = self.chunks_in(frame);
        let mut at = 0_u32;
        let mut chunks = Vec::with_capacity(numbers.len());
        for chunk in numbers.filter_map(|number| self.chunk(number)) {
            chunks.push((at, chunk));
            at = at.saturating_add(chunk.length);
        }
        if at == this.length {
            Ok(chunks)
        } else {
            Err(DirectoryError::Damaged("the chunks of a frame are not as long as it is"))
        }
    }

    /// The record of this number, which is below [`Directory::paths`].
    ///
    /// # Errors
    /// When it is damaged.
    ///
    /// # Panics
    /// When there is no such record.
    pub fn record(&self, number: usize) -> Result<PathRecord, DirectoryError> {
        let damaged = DirectoryError::Damaged;
        let bytes = self.record_bytes(number);
        if bytes.len() > LONGEST_RECORD {
            return Err(damaged("a record is longer than any is made"));
        }
        let written: Written = postcard::from_bytes(bytes).map_err(|_| damaged("a record is not one"))?;
        let Written { info, runs, patches, saved } = written;
        let (mut at, mut free) = (0_u64, 0);
        // In the memory that the distances have.
        let patches = patches.into_iter().map(|(distance, reference)| {
            at = at.checked_add(distance).ok_or(damaged("a record has a place beyond its end"))?;
            let end = at.checked_add(HASH_LENGTH as u64).filter(|&end| end <= info.nar_size);
            let end = end.ok_or(damaged("a record has a place beyond its end"))?;
            if at < free || reference as usize >= info.references.len() {
                return Err(damaged("a record has places that are not in order, or of no reference"));
            }
            free = end;
            Ok(Patch { at, reference })
        });
        let patches = patches.collect::<Result<_, DirectoryError>>()?;
        let record = PathRecord { info, runs, patches, saved };
        self.check_runs(&record)?;
        Ok(record)
    }

    fn check_runs(&self, record: &PathRecord) -> Result<(), DirectoryError> {
        let damaged = DirectoryError::Damaged;
        let all = (self.chunks + self.foreign) as u64;
        let mut size = 0_u64;
        if record.runs.iter().map(|run| u64::from(run.count)).sum::<u64>() > MOST_CHUNKS {
            return Err(damaged("a record has more chunks than any path"));
        }
        for run in &record.runs {
            if u64::from(run.first) + u64::from(run.count) > all {
                return Err(damaged("a record has chunks that there are not"));
            }
            let chunks = (run.first..run.first + run.count).filter_map(|number| self.chunk(number));
            for chunk in chunks {
                size = size.saturating_add(u64::from(chunk.length));
                // A short record could name the same chunks for ever.
                if size > record.info.nar_size {
                    return Err(damaged("the chunks of a record are not as long as it is"));
                }
            }
        }
        let is_name = record.info.name.as_bytes().get(HASH_LENGTH) == Some(&b'-');
        if size == record.info.nar_size && is_name {
            Ok(())
        } else {
            Err(damaged("the chunks of a record are not as long as it is"))
        }
    }

    /// The number of the record of the path with this hash part.
    #[must_use]
    pub fn find(&self, hash_part: &[u8; HASH_LENGTH]) -> Option<usize> {
        let (mut low, mut high) = (0, self.paths);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.name_of(middle).get(..HASH_LENGTH)? < hash_part.as_slice() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < self.paths && self.name_of(low).starts_with(hash_part)).then_some(low)
    }

    /// The name that a record begins with, as bytes; empty when it is damaged.
    #[must_use]
    pub fn name_of(&self, number: usize) -> &[u8] {
        // A record begins with its name, and that with its length, which is below 2^14.
        let record = self.record_bytes(number);
        let (length, rest) = match record {
            [low @ 0..0x80, rest @ ..] => (usize::from(*low), rest),
            [low, high @ 0..0x80, rest @ ..] => (usize::from(low & 0x7f) | usize::from(*high) << 7, rest),
            _ => return &[],
        };
        rest.get(..length).unwrap_or_default()
    }

    /// Where in the records the names stand that a record refers to, and how long they are; none if it is damaged.
    pub(crate) fn references_of(&self, number: usize) -> Vec<(u32, u32)> {
        let record = self.record_bytes(number);
        let start = if number == 0 { 0 } else { self.record_end(number - 1) };
        let names = postcard::from_bytes::<Names<'_>>(record).map(|names| names.references);
        let place = |name: &str| {
            // They lie in the record, which is below 4 GiB.
            let at = name.as_ptr().addr() - record.as_ptr().addr();
            ((start + at) as u32, name.len() as u32)
        };
        names.unwrap_or_default().into_iter().map(place).collect()
    }

    /// A part of the records.
    pub(crate) fn record_text(&self, at: usize, length: usize) -> &[u8] {
        &self.bytes[self.at[2] + at..][..length]
    }

    /// How many bytes the record of this number has, which is below [`Directory::paths`].
    pub(crate) fn record_size(&self, number: usize) -> usize {
        self.record_bytes(number).len()
    }

    fn record_end(&self, number: usize) -> usize {
        u32_at(&self.bytes, self.at[1] + number * 4) as usize
    }

    fn record_bytes(&self, number: usize) -> &[u8] {
        let start = if number == 0 { 0 } else { self.record_end(number - 1) };
        &self.bytes[self.at[2] + start..self.at[2] + self.record_end(number)]
    }

    fn id_at(&self, at: usize) -> ChunkId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes[at..at + 16]);
        ChunkId(id)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests;
