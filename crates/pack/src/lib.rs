//! What packs hold and how: archives of store paths, cut into chunks, with the hashes of references taken out,
//! kept once each, and put together again.
//!
//! Nothing here knows where bytes live.

mod catalog;
mod closure;
mod collect;
mod cut;
mod directory;
mod fold;
pub mod nar;
mod others;
mod pack;
mod put_back;
mod room;

pub use catalog::{Catalog, Chunks, Lack, Located, Piece};
pub use closure::{Closure, Reference};
pub use collect::{Beside, Collection, Damaged, Dropped, Goal, Lost, Measured, Next, Source, Unwanted, Why};
pub use cut::{ChunkSizes, Cutter, HASH_LENGTH, Patch, References};
pub use directory::{
    Chunk, ChunkId, Contents, Directory, DirectoryError, Frame, LONGEST_FRAME, PathInfo, PathRecord, Run,
};
pub use fold::{Fold, Folded};
pub use others::{Others, OthersError, PackInfo, Use};
pub use pack::{
    Compressor, FOOTER, FRAME_TARGET, Footer, FrameBuilder, FrameOpener, HEAD, LEVEL, LONGEST_DIRECTORY,
    PackBuilder, PackError, PackedPath, SealedFrame, check_head, heaviest_directories, longest_directories,
    open_frame,
};
pub use put_back::PutBack;
pub use room::{Load, Newer, with_room, without_room_since};
