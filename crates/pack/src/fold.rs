//! Writing a pack out of the frames of others.

use std::collections::HashSet;

use crate::{
    Chunk, ChunkId, Compressor, Directory, FRAME_TARGET, FrameBuilder, PackBuilder, PackError, PackedPath,
    SealedFrame, open_frame,
};

/// How much of a frame has to be wanted for it to be copied as it is; the rest of it is carried along. Making a
/// frame anew costs some hundred times what copying it does, so a third more bytes is a fair price.
const MOSTLY: (u64, u64) = (3, 4);

/// How long a frame is at least that is copied where everything is to be as small as it can be, in bytes.
const SMALL: u64 = FRAME_TARGET as u64 / 2;

/// How many kinds of frames a fold makes, so that it may end with so many small ones.
pub(crate) const KINDS: usize = 2;

/// Writes one pack out of frames of others: those that are mostly wanted as they are, the chunks of the rest in
/// new ones. Every chunk is checked on the way, for the others may be removed afterwards.
#[derive(Debug)]
pub struct Fold {
    builder: PackBuilder,
    /// One of each kind.
    frames: [FrameBuilder; KINDS],
    compressor: Compressor,
    lost: HashSet<ChunkId>,
    copied: u64,
    exact: bool,
    apart: bool,
}

/// What came of folding.
#[derive(Debug)]
pub struct Folded {
    /// The last parts of the pack.
    pub end: Vec<Vec<u8>>,
    /// How many bytes the pack has.
    pub size: u64,
    /// How many bytes of these are frames that were copied as they are.
    pub copied: u64,
    /// The names of paths that cannot be had any more, because a chunk of theirs was damaged.
    pub lost: Vec<String>,
}

/// Whether a frame of `length` bytes is copied as it is when `wanted` bytes of it are; where it is to be exact, only when all
/// are, and it is not small: small ones compress better together.
pub(crate) fn is_copied(wanted: u64, length: u64, exact: bool) -> bool {
    if exact { wanted == length && length >= SMALL } else { wanted * MOSTLY.1 >= length * MOSTLY.0 }
}

impl Fold {
    /// Begins a pack; returns what it begins with. New frames are compressed at this zstd level. An exact one carries nothing
    /// along that is not wanted, whatever that costs. Where they are kept apart, what compresses and what does not are in frames of
    /// their own, so that the part of a frame that a chunk is tells what it takes.
    ///
    /// # Errors
    /// When zstd has no memory.
    pub fn new(level: i32, exact: bool, apart: bool) -> Result<(Self, &'static [u8]), PackError> {
        let (builder, head) = PackBuilder::new();
        let compressor = Compressor::new(level)?;
        let fold = Self {
            builder,
            frames: Default::default(),
            compressor,
            lost: HashSet::new(),
            copied: 0,
            exact,
            apart,
        };
        Ok((fold, head))
    }

    /// Takes in a frame of another pack: its number there, its bytes, and which chunks are wanted, by their
    /// numbers. Returns what comes next in the new pack, often nothing, and what is wrong with the frame: paths
    /// that need what is damaged are lost, and the fold can go on.
    ///
    /// # Errors
    /// When zstd fails.
    pub fn take(
        &mut self,
        directory: &Directory,
        number: usize,
        stored: &[u8],
        is_wanted: impl Fn(u32) -> bool,
    ) -> Result<(Vec<Vec<u8>>, Option<PackError>), PackError> {
        let frame = directory.frame(number);
        let opened = directory.chunks_of(number).map_err(PackError::from);
        let opened = opened.and_then(|chunks| Ok((chunks, open_frame(&frame, stored)?)));
        let (chunks, bytes) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let chunks = directory.chunks_in(number).filter(|&chunk| is_wanted(chunk));
                self.lost.extend(chunks.filter_map(|chunk| directory.chunk(chunk)).map(|chunk| chunk.id));
                return Ok((Vec::new(), Some(error)));
            }
        };
        let chunks: Vec<Chunk> = chunks.into_iter().map(|(_, chunk)| chunk).collect();
        let mut at = 0;
        let (mut wanted, mut damaged) = (Vec::new(), false);
        for (chunk, number) in chunks.iter().zip(frame.first..) {
            let part = &bytes[at..at + chunk.length as usize];
            at += chunk.length as usize;
            let whole = ChunkId::of(part) == chunk.id;
            damaged |= !whole;
            match (is_wanted(number), whole) {
                (false, _) => {}
                (true, true) => wanted.push((chunk.id, part)),
                (true, false) => {
                    self.lost.insert(chunk.id);
                }
            }
        }
        let length = wanted.iter().map(|(_, part)| part.len() as u64).sum();
        let mut out = Vec::new();
        if !wanted.is_empty() && !damaged && is_copied(length, bytes.len() as u64, self.exact) {
            let copied = SealedFrame::copied(&frame, chunks, stored.to_vec());
            self.builder.add(&copied);
            self.copied += u64::from(frame.stored);
            out.push(copied.bytes);
        } else {
            for (id, part) in wanted {
                let kind = usize::from(self.apart && self.compressor.is_noise(part));
                self.frames[kind].push(id, part);
                if self.frames[kind].is_full() {
                    self.seal(kind, &mut out)?;
                }
            }
        }
        let problem = damaged.then_some(PackError::Damaged("a chunk has another hash than its name"));
        Ok((out, problem))
    }

    fn seal(&mut self, kind: usize, out: &mut Vec<Vec<u8>>) -> Result<(), PackError> {
        let sealed = self.frames[kind].seal(&mut self.compressor)?;
        self.builder.add(&sealed);
        out.push(sealed.bytes);
        Ok(())
    }

    /// Ends the pack with these paths and what it says of others.
    ///
    /// # Errors
    /// When there is more than a directory can hold.
    pub fn finish(
        mut self,
        paths: impl IntoIterator<Item = PackedPath>,
        others: Vec<u8>,
    ) -> Result<Folded, PackError> {
        let mut end = Vec::new();
        for kind in 0..KINDS {
            if !self.frames[kind].is_empty() {
                self.seal(kind, &mut end)?;
            }
        }
        let Self { builder, lost: lost_chunks, copied, frames, compressor, .. } = self;
        drop((frames, compressor));
        let mut lost = Vec::new();
        let whole = paths.into_iter().filter(|path| {
            let whole = path.chunks.iter().all(|chunk| !lost_chunks.contains(&chunk.id));
            if !whole {
                lost.push(path.info.name.clone());
            }
            whole
        });
        let frames = builder.size();
        let tail = builder.finish_in_parts(whole, others)?;
        let size = frames + tail.iter().map(|part| part.len() as u64).sum::<u64>();
        end.extend(tail);
        Ok(Folded { end, size, copied, lost })
    }
}
