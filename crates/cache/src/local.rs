//! Between packs and the store on this machine.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::sync::{Mutex, PoisonError};

use phoenix_depot::BlobName;
use phoenix_model::{Derivation, NarHash, StorePath, ValidPathInfo};
use phoenix_pack::nar::{Parser, Sink, Writer};
use phoenix_pack::{Closure, PathInfo};
use phoenix_store::{DaemonError, DumpError, Import, ImportError, Layout, RegisterError, Way, Whole, dump};
use phoenix_substituter::{PublicKeys, is_content_addressed, is_signature};

use crate::outline::Paths;
use crate::trust::{admit, compared};
use crate::{Cache, MakeArchive, Restored, Saved, Trouble};

/// How much of an archive is handed on at once, in bytes, where it comes in small parts.
const PIECE: usize = 64 << 10;

/// Why paths could not be restored into a store.
#[derive(Debug, thiserror::Error)]
pub enum IntoStoreError {
    /// The store cannot be written.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// What came in could not be made valid.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The daemon does not take what it is handed.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// It broke off when some had come in, each with all that it refers to. These stay.
    #[error("it broke off when paths had come in, which stay: {came_in}")]
    BrokenOff {
        /// How many had.
        came_in: usize,
        /// Why it broke off.
        source: Box<Self>,
    },
}

impl IntoStoreError {
    /// The same, if so many paths had come in before.
    pub(crate) fn after(self, came_in: usize) -> Self {
        if came_in == 0 { self } else { Self::BrokenOff { came_in, source: Box::new(self) } }
    }

    /// How many paths had come in before, and stay.
    #[must_use]
    pub fn came_in(&self) -> usize {
        match self {
            Self::BrokenOff { came_in, .. } => *came_in,
            Self::Import(_) | Self::Register(_) | Self::Daemon(_) => 0,
        }
    }
}

/// The store on this machine that paths are restored into.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'d> {
    /// Where it lies.
    pub layout: &'d Layout,
    /// Which way in.
    pub way: &'d Way,
    /// If keys are named, only what one of them signed comes in, and what is content-addressed.
    pub trusted: Option<&'d PublicKeys>,
}

impl Cache {
    /// Saves valid paths of the store on this machine in a new pack of this name.
    ///
    /// # Errors
    /// When the pack cannot be made; nothing of it is in the depot then.
    pub fn save_from_store(
        &mut self,
        name: &BlobName,
        layout: &Layout,
        paths: &[ValidPathInfo],
        threads: usize,
    ) -> Result<Saved, Trouble> {
        let by_name: HashMap<&str, &StorePath> =
            paths.iter().map(|info| (info.path.base_name(), &info.path)).collect();
        let read = |info: &PathInfo, emit: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
            let Some(path) = by_name.get(info.name.as_str()) else {
                return Err(io::ErrorKind::NotFound.into());
            };
            let mut pieces = Pieces { writer: Writer::default(), emit };
            dump(&layout.real_path(path), &mut pieces).map_err(|error| match error {
                DumpError::Sink(error) => error,
                error => io::Error::other(error.to_string()),
            })?;
            pieces.flush()
        };
        self.save_some(name, &Valid(paths), &read, threads)
    }

    /// Restores paths, with all that they refer to and that is not valid, into the store on this machine: as
    /// files written in parallel, and made valid all together when they are whole; or through the daemon, over
    /// several connections.
    ///
    /// # Errors
    /// When the store cannot be written, or not to the end ([`IntoStoreError::came_in`]). What goes wrong with packs is
    /// told to `trouble` and costs the paths that need them.
    pub fn restore_into_store(
        &mut self,
        wanted: &[StorePath],
        into: Destination<'_>,
        threads: usize,
        trouble: &(dyn Fn(Trouble) + Sync),
    ) -> Result<Restored, IntoStoreError> {
        match into.way {
            Way::Direct => self.restore_directly(wanted, into, threads, trouble),
            Way::Daemon(socket) => self.restore_through_daemon(wanted, into, socket, threads, trouble),
        }
    }

    fn restore_directly(
        &mut self,
        wanted: &[StorePath],
        into: Destination<'_>,
        threads: usize,
        trouble: &(dyn Fn(Trouble) + Sync),
    ) -> Result<Restored, IntoStoreError> {
        let layout = into.layout;
        let import = Import::open(layout)?;
        let store_dir = &layout.store_dir;
        let names: Vec<String> = wanted.iter().map(|path| path.base_name().to_owned()).collect();
        // All that could come in is kept from the garbage collector before it is looked at.
        let valid = {
            let closure = self.catalog().closure(names.clone(), |_| false);
            import.valid(&store_paths(&closure, store_dir))?
        };
        let valid: HashSet<&str> = valid.iter().map(StorePath::base_name).collect();
        let closure = self.catalog().closure(names, |name| valid.contains(name));

        let received: Mutex<BTreeMap<u32, Taken>> = Mutex::default();
        let take = |number: u32, packed: &PathInfo, make: &mut MakeArchive<'_>| {
            let info = unpacked(packed, store_dir)?;
            let mut check = admit(&info, into.trusted)?;
            let mut text = info.path.is_derivation().then(DerivationText::default);
            let Some(mut receive) = import.receive(info).map_err(io::Error::other)? else { return Ok(()) };
            make(&mut |piece| {
                if let Some(check) = &mut check {
                    check.feed(piece);
                }
                if let Some(text) = &mut text {
                    text.feed(piece);
                }
                receive.feed(piece).map_err(io::Error::other)
            })?;
            let (_, whole) = receive.finish().map_err(io::Error::other)?.into_parts();
            compared(check)?;
            text.map_or(Ok(()), DerivationText::finish)?;
            let taken = Taken { other: other_than(&closure, number, packed)?, whole };
            received.lock().unwrap_or_else(PoisonError::into_inner).insert(number, taken);
            Ok(())
        };
        let may_come_in = |info: &PathInfo| admit(&unpacked(info, store_dir)?, into.trusted).map(|_| ());
        let mut outcome = self.restore_admitted(&closure, &may_come_in, &take, threads, trouble);
        outcome.lose_circles(&closure);
        // What refers to something that did not come in is dropped again. What is known of the others is looked up again
        // for each: of all together it would take more memory than their files.
        let received = received.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter();
        let whole = received.filter(|(number, _)| outcome.is_whole(*number)).filter_map(|(number, taken)| {
            let packed = taken.other.map(|info| *info).or_else(|| closure.info(number))?;
            Some((unpacked(&packed, store_dir).ok()?, taken.whole))
        });
        if let Err(error) = import.register_in_order(whole) {
            // Some transactions may have ended well.
            let came_in = import.valid(&store_paths(&closure, store_dir)).map_or(0, |valid| valid.len());
            return Err(IntoStoreError::from(error).after(came_in));
        }
        Ok(outcome.told(&closure))
    }
}

/// A path that was taken in.
struct Taken {
    whole: Whole,
    /// What is known of it, if the closure does not say the same.
    other: Option<Box<PathInfo>>,
}

/// What is known of a path that was put together, if that is not what the closure says.
///
/// # Errors
/// When it refers to something that did not come along.
fn other_than(closure: &Closure, number: u32, info: &PathInfo) -> io::Result<Option<Box<PathInfo>>> {
    let known = closure.info(number);
    if known.as_ref() == Some(info) {
        return Ok(None);
    }
    // An older record stands in for one that cannot be put together.
    let known = known.map(|known| known.references).unwrap_or_default();
    if info.references.iter().all(|name| *name == info.name || known.contains(name)) {
        return Ok(Some(Box::new(info.clone())));
    }
    Err(io::Error::other("of what packs say of it only what refers to other paths can be put together"))
}

/// The paths of a closure in a store, and those that are in no pack.
pub(crate) fn store_paths(closure: &Closure, store_dir: &str) -> Vec<StorePath> {
    let all = closure.names().chain(closure.unknown().iter().map(String::as_str));
    all.filter_map(|name| StorePath::parse(&format!("{store_dir}/{name}")).ok()).collect()
}

/// The text of a derivation, out of its archive as it comes; whatever is none costs nobody but itself.
#[derive(Default)]
struct DerivationText {
    parser: Parser,
    text: Contents,
    broken: bool,
}

/// The longest `.drv` file that is read; real ones stay below 1 MB.
const LONGEST_DERIVATION: usize = 64 << 20;

/// Collects what a file holds.
#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    other: bool,
}

impl DerivationText {
    fn feed(&mut self, piece: &[u8]) {
        self.broken |= self.parser.feed(piece, &mut self.text).is_err();
    }

    fn finish(self) -> io::Result<()> {
        let wrong = |why: String| io::Error::other(format!("it is no derivation: {why}"));
        if self.broken || self.text.other {
            return Err(wrong("it is not one file".to_owned()));
        }
        Derivation::parse(&self.text.bytes).map(drop).map_err(|error| wrong(error.to_string()))
    }
}

impl Sink for Contents {
    type Error = Infallible;

    fn directory(&mut self) -> Result<(), Infallible> {
        self.other = true;
        Ok(())
    }

    fn entry(&mut self, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn file(&mut self, _: bool, _: u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.other |= self.bytes.len() + bytes.len() > LONGEST_DERIVATION;
        if !self.other {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn file_end(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn symlink(&mut self, _: &[u8]) -> Result<(), Infallible> {
        self.other = true;
        Ok(())
    }
}

/// Valid paths of a store.
struct Valid<'v>(&'v [ValidPathInfo]);

impl Paths for Valid<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn info(&self, number: u32) -> PathInfo {
        packed(&self.0[number as usize])
    }
}

/// What a pack says of a path.
fn packed(info: &ValidPathInfo) -> PathInfo {
    let name = |path: &StorePath| path.base_name().to_owned();
    PathInfo {
        name: name(&info.path),
        nar_hash: info.nar_hash.0,
        nar_size: info.nar_size,
        references: info.references.iter().map(name).collect(),
        deriver: info.deriver.as_ref().map(name),
        signatures: info.signatures.clone(),
        ca: info.content_address.clone(),
    }
}

/// What a store in this directory is told of a path.
pub(crate) fn unpacked(info: &PathInfo, store_dir: &str) -> io::Result<ValidPathInfo> {
    let path = |name: &String| StorePath::parse(&format!("{store_dir}/{name}")).map_err(io::Error::other);
    let mut valid = ValidPathInfo::new(path(&info.name)?, NarHash(info.nar_hash), info.nar_size);
    valid.references = info.references.iter().map(path).collect::<io::Result<_>>()?;
    valid.deriver = info.deriver.as_ref().map(path).transpose()?;
    // What Nix could not read would make the store unsound.
    valid.signatures = info.signatures.iter().filter(|signature| is_signature(signature)).cloned().collect();
    valid.content_address.clone_from(&info.ca);
    // An address that the path does not follow from says nothing of it.
    if !is_content_addressed(&phoenix_substituter::PathInfo::of_valid(&valid)) {
        valid.content_address = None;
    }
    Ok(valid)
}

/// Hands an archive on in pieces that are worth it; large ones without a copy.
struct Pieces<'e> {
    writer: Writer,
    emit: &'e mut dyn FnMut(&[u8]) -> io::Result<()>,
}

impl Pieces<'_> {
    fn flush(&mut self) -> io::Result<()> {
        if !self.writer.bytes.is_empty() {
            (self.emit)(&self.writer.bytes)?;
            self.writer.bytes.clear();
        }
        Ok(())
    }

    fn written(&mut self, written: Result<(), Infallible>) -> io::Result<()> {
        match written {
            Ok(()) if self.writer.bytes.len() >= PIECE => self.flush(),
            Ok(()) => Ok(()),
            Err(never) => match never {},
        }
    }
}

impl Sink for Pieces<'_> {
    type Error = io::Error;

    fn directory(&mut self) -> io::Result<()> {
        let written = self.writer.directory();
        self.written(written)
    }

    fn entry(&mut self, name: &[u8]) -> io::Result<()> {
        let written = self.writer.entry(name);
        self.written(written)
    }

    fn leave(&mut self) -> io::Result<()> {
        let written = self.writer.leave();
        self.written(written)
    }

    fn file(&mut self, executable: bool, size: u64) -> io::Result<()> {
        let written = self.writer.file(executable, size);
        self.written(written)
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.writer.bytes.len() + bytes.len() <= PIECE {
            let written = self.writer.data(bytes);
            return self.written(written);
        }
        self.flush()?;
        (self.emit)(bytes)
    }

    fn file_end(&mut self) -> io::Result<()> {
        let written = self.writer.file_end();
        self.written(written)
    }

    fn symlink(&mut self, target: &[u8]) -> io::Result<()> {
        let written = self.writer.symlink(target);
        self.written(written)
    }
}
