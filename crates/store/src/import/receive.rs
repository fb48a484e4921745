//! One store path that comes in.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use phoenix_model::{NarHash, StorePath, ValidPathInfo};
use phoenix_pack::nar::{ParseError, Parser};
use sha2::{Digest as _, Sha256};

use crate::tree::{Top, UnpackError, Unpacker};

use super::temp_roots::TempRoots;

/// A store path whose NAR comes in by pieces: written under another name while it is hashed.
///
/// Dropped before it is whole, it leaves nothing.
#[derive(Debug)]
pub struct Receive {
    info: ValidPathInfo,
    parser: Parser,
    unpacker: Unpacker<Arc<OwnedFd>>,
    hash: Sha256,
    size: u64,
    roots: Arc<TempRoots>,
}

/// A store path that came in whole, has the hash it should have, and waits to be registered.
///
/// It lies under another name in the store; dropped before it is registered, it is removed.
#[derive(Debug)]
pub struct Received {
    pub(super) info: ValidPathInfo,
    tree: Top<Arc<OwnedFd>>,
    roots: Arc<TempRoots>,
}

/// The files of a path that came in whole. What else is known of many paths takes more memory than this, and is needed
/// again only when they are registered.
///
/// Dropped before that, they are removed.
#[derive(Debug)]
pub struct Whole {
    pub(super) path: StorePath,
    pub(super) nar_hash: NarHash,
    pub(super) tree: Top<Arc<OwnedFd>>,
    /// Kept so that the garbage collector leaves it alone.
    _roots: Arc<TempRoots>,
}

/// Why a store path did not come in.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The stream is no NAR.
    #[error("{path} is not taken: {problem}")]
    Damaged {
        /// The store path.
        path: StorePath,
        /// What is wrong with it.
        problem: String,
    },
    /// The NAR has another size.
    #[error("{path} is not taken: its NAR should have {expected} bytes and has {}{actual}", if *.more { "at least " } else { "" })]
    Size {
        /// The store path.
        path: StorePath,
        /// The bytes it should have.
        expected: u64,
        /// The bytes that came.
        actual: u64,
        /// Whether more would have come.
        more: bool,
    },
    /// The NAR has another hash.
    #[error("{path} is not taken: its NAR should have the hash {expected} and has {actual}")]
    Hash {
        /// The store path.
        path: StorePath,
        /// The hash it should have.
        expected: NarHash,
        /// The hash it has.
        actual: NarHash,
    },
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] UnpackError),
}

impl Receive {
    pub(super) fn new(info: ValidPathInfo, unpacker: Unpacker<Arc<OwnedFd>>, roots: Arc<TempRoots>) -> Self {
        Self { info, parser: Parser::default(), unpacker, hash: Sha256::new(), size: 0, roots }
    }

    /// The path that comes in.
    #[must_use]
    pub fn path(&self) -> &StorePath {
        &self.info.path
    }

    /// Takes the next bytes of the NAR, any number of them.
    ///
    /// # Errors
    /// When they are no part of a NAR, more than there should be, or cannot be written. Nothing more can be
    /// taken then.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), ReceiveError> {
        self.size += piece.len() as u64;
        // Before anything is written: a stream without end must not fill the disk.
        if self.size > self.info.nar_size {
            return Err(self.wrong_size(true));
        }
        self.hash.update(piece);
        match self.parser.feed(piece, &mut self.unpacker) {
            Ok(()) => Ok(()),
            Err(ParseError::Sink(error)) => Err(error.into()),
            Err(damaged) => Err(self.damaged(&damaged)),
        }
    }

    /// Says that all has come.
    ///
    /// # Errors
    /// When the NAR breaks off, or has another size or hash than it should have.
    pub fn finish(self) -> Result<Received, ReceiveError> {
        if self.size != self.info.nar_size {
            return Err(self.wrong_size(false));
        }
        if let Err(damaged) = self.parser.finish::<UnpackError>() {
            return Err(self.damaged(&damaged));
        }
        let actual = NarHash(self.hash.finalize().into());
        if actual != self.info.nar_hash {
            let (path, expected) = (self.info.path, self.info.nar_hash);
            return Err(ReceiveError::Hash { path, expected, actual });
        }
        Ok(Received { info: self.info, tree: self.unpacker.finish(), roots: self.roots })
    }

    fn wrong_size(&self, more: bool) -> ReceiveError {
        let (path, expected) = (self.info.path.clone(), self.info.nar_size);
        ReceiveError::Size { path, expected, actual: self.size, more }
    }

    fn damaged(&self, problem: &ParseError<UnpackError>) -> ReceiveError {
        ReceiveError::Damaged { path: self.info.path.clone(), problem: problem.to_string() }
    }
}

impl Received {
    /// What will be registered.
    #[must_use]
    pub fn info(&self) -> &ValidPathInfo {
        &self.info
    }

    /// What will be registered, and the files.
    #[must_use]
    pub fn into_parts(self) -> (ValidPathInfo, Whole) {
        let Self { info, tree, roots } = self;
        let whole = Whole { path: info.path.clone(), nar_hash: info.nar_hash, tree, _roots: roots };
        (info, whole)
    }
}
