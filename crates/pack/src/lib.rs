//! What packs hold and how: archives of store paths, cut into chunks, with the hashes of references taken out,
//! kept once each, and put together again.
//!
//! Nothing here knows where bytes live.

mod catalog;
mod cut;
mod directory;
pub mod nar;
mod pack;
mod put_back;

pub use catalog::{Catalog, Chunks, Located, Others, OthersError, PackInfo, Piece};
pub use cut::{ChunkSizes, Cutter, HASH_LENGTH, Patch, References};
pub use directory::{
    Chunk, ChunkId, Contents, Directory, DirectoryError, Frame, LONGEST_FRAME, PathInfo, PathRecord, Run,
};
pub use pack::{
    Compressor, FOOTER, FRAME_TARGET, Footer, FrameBuilder, FrameOpener, LEVEL, LONGEST_DIRECTORY,
    PackBuilder, PackError, PackedPath, SealedFrame, open_frame,
};
pub use put_back::PutBack;
