//! What evaluation writes into a store: texts (derivations, and what `builtins.toFile` makes) and small sources.
//!
//! There are very many, each small. Nix makes each valid in a transaction of its own, which takes longer than its
//! evaluation. Here each is written at once, under its name and its lock, as in Nix; but those that come within a moment
//! are registered together, by a thread of its own. Until then they are not valid, hence garbage to everybody else.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use phoenix_model::{Derivation, Modulo, NarHash, StorePath, ValidPathInfo, nix32, source_path, text_path};
use phoenix_pack::nar::{ParseError, Parser, Sink as _, padding};
use rusqlite::Connection;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::database::{self, Ids, Row};
use super::path_lock::{self, PathLock};
use super::register::base_name;
use super::{Import, ImportError};
use crate::Layout;
use crate::text::with_causes;
use crate::tree::{self, Top, UnpackError, Unpacker};

/// How long it is waited for more before what there is is registered, at least and at most; and how many times as long
/// as it took the last time. Few at once are many writes each: all tables are sorted by hashes.
const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_millis(100);
const TIMES: u32 = 4;
/// How many may wait, or be registered meanwhile; each has an open lock file. Half of them are registered without waiting
/// for more.
const MOST: usize = 512;
/// How often it is tried again where no more files can be opened.
const TRIES: usize = 50;
/// How many derivations may need each other, one after another, that are in the store and were not written here.
const DEEPEST: usize = 400;

/// Writes texts into one local store. Shared by threads.
#[derive(Debug)]
pub(crate) struct Texts {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// Why a text was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TextError {
    /// It is nothing for this: Nix has to be asked, and says why.
    #[error("it refers to what is not valid, or is no derivation though it is called one")]
    NotForUs,
    /// The store cannot be written, in words.
    #[error("{0}")]
    Store(String),
    /// The same, for no more files can be opened.
    #[error("{0}")]
    Files(String),
    /// It cannot have such a name there, in words; others can be written.
    #[error("{0}")]
    Name(String),
}

impl From<ImportError> for TextError {
    fn from(error: ImportError) -> Self {
        Self::of(&error)
    }
}

impl TextError {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let mut numbers = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
        let words = with_causes(error);
        match numbers.next().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE) => Self::Files(words),
            Some(Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ) => Self::Name(words),
            _ => Self::Store(words),
        }
    }
}

#[derive(Debug)]
struct Shared {
    import: Import,
    state: Mutex<State>,
    /// Something is to be registered, now.
    work: Condvar,
    /// Something was registered, or is not written by anybody any more.
    changed: Condvar,
    /// How many may wait.
    most: usize,
    /// What derivations come to as inputs of others.
    modulos: Mutex<HashMap<StorePath, [u8; 32]>>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<StorePath, Known>,
    waiting: Vec<Coming>,
    /// How many are being registered, whose locks are held still.
    registering: usize,
    /// How many came, and how many of them are valid.
    came: u64,
    done: u64,
    /// Somebody waits for the registration of all that came.
    hurry: bool,
    /// Nothing more comes.
    ended: bool,
    /// Why nothing can be registered any more.
    failed: Option<String>,
}

#[derive(Debug, Clone)]
enum Known {
    /// Somebody writes it.
    Begun,
    /// It is written, and will be registered as this.
    Written(Arc<ValidPathInfo>),
    /// It is valid.
    Valid,
}

/// A text that is written, and not yet registered.
#[derive(Debug)]
struct Coming {
    info: Arc<ValidPathInfo>,
    derivation: Option<Derivation>,
    file: Top<Arc<OwnedFd>>,
    // Given back last.
    _lock: Option<PathLock<Arc<OwnedFd>>>,
}

impl Texts {
    /// Opens a store.
    ///
    /// # Errors
    /// As [`Import::open`].
    pub(crate) fn open(layout: &Layout) -> Result<Self, ImportError> {
        let import = Import::open(layout)?;
        let database = database::open(&layout.database())
            .map_err(|source| ImportError::Database { path: layout.database(), source })?;
        let most = path_lock::at_once(MOST);
        let (state, work, changed) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { import, state, work, changed, most, modulos: Mutex::default() });
        let writer = shared.clone();
        let writer = std::thread::spawn(move || writer.register_all(database));
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Writes a text, unless it is there already; it is valid soon, at the latest after [`Texts::register`]. The
    /// references are sorted, each once.
    ///
    /// # Errors
    /// When a reference is not valid, or the store cannot be written.
    pub(crate) fn add(
        &self,
        name: &str,
        text: &[u8],
        references: Vec<StorePath>,
    ) -> Result<ValidPathInfo, TextError> {
        let shared = &*self.shared;
        let sha256: [u8; 32] = Sha256::digest(text).into();
        let store_dir = &shared.import.layout.store_dir;
        let path = text_path(store_dir, name, sha256, &references).ok_or(TextError::NotForUs)?;
        let info = ValidPathInfo {
            content_address: Some(format!("text:sha256:{}", nix32::encode(&sha256))),
            references,
            ..nar_of(path, text)
        };
        shared.add(&info, Contents::Text(text))?;
        Ok(info)
    }

    /// Writes a source that refers to nothing, given as a NAR; as a text.
    ///
    /// # Errors
    /// When it is no NAR, or the store cannot be written.
    pub(crate) fn add_source(&self, name: &str, nar: &[u8]) -> Result<ValidPathInfo, TextError> {
        let shared = &*self.shared;
        let hash = NarHash(Sha256::digest(nar).into());
        let path = source_path(&shared.import.layout.store_dir, name, hash).ok_or(TextError::NotForUs)?;
        let info = ValidPathInfo {
            content_address: Some(format!("fixed:r:sha256:{}", nix32::encode(&hash.0))),
            ..ValidPathInfo::new(path, hash, nar.len() as u64)
        };
        shared.add(&info, Contents::Nar(nar))?;
        Ok(info)
    }

    /// Whether a path is valid, or will be as soon as what was written is registered. The garbage collector leaves it
    /// alone from now on.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn is_valid(&self, path: &StorePath) -> Result<bool, TextError> {
        Ok(self.shared.is_known(path) || self.shared.import.is_valid(path)?)
    }

    /// What is known of a path that is written and not registered.
    pub(crate) fn waiting(&self, path: &StorePath) -> Option<Arc<ValidPathInfo>> {
        match self.shared.locked().known.get(path)? {
            Known::Written(info) => Some(info.clone()),
            Known::Begun | Known::Valid => None,
        }
    }

    /// Has the garbage collector leave a path alone from now on, whether it is valid or not.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) fn keep(&self, path: &StorePath) -> Result<(), TextError> {
        Ok(self.shared.import.keep(path)?)
    }

    /// How many texts were written so far.
    pub(crate) fn written(&self) -> u64 {
        self.shared.locked().came
    }

    /// How many of them are valid.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) fn registered(&self) -> Result<u64, TextError> {
        let state = self.shared.locked();
        match &state.failed {
            Some(error) => Err(TextError::Store(error.clone())),
            None => Ok(state.done),
        }
    }

    /// Has all that came become valid.
    ///
    /// # Errors
    /// When the store cannot be written: what did not become valid is removed.
    pub(crate) fn register(&self) -> Result<(), TextError> {
        self.shared.register()
    }
}

impl Drop for Texts {
    fn drop(&mut self) {
        self.shared.locked().ended = true;
        self.shared.work.notify_all();
        if let Some(writer) = self.writer.take() {
            // One that panicked has said so.
            let _ = writer.join();
        }
    }
}

/// What is written.
#[derive(Debug, Clone, Copy)]
enum Contents<'c> {
    /// A file.
    Text(&'c [u8]),
    /// A tree.
    Nar(&'c [u8]),
}

impl Shared {
    /// Writes something, unless it is there already.
    fn add(&self, info: &ValidPathInfo, contents: Contents<'_>) -> Result<(), TextError> {
        if !self.begin(&info.path)? {
            return Ok(());
        }
        match self.write_with_patience(info, contents) {
            Ok(Some(coming)) => self.wait_for_registration(coming),
            Ok(None) => {
                self.becomes(&info.path, Some(Known::Valid));
                Ok(())
            }
            Err(error) => {
                self.becomes(&info.path, None);
                Err(error)
            }
        }
    }

    /// Has all that came become valid.
    fn register(&self) -> Result<(), TextError> {
        let mut state = self.locked();
        let came = state.came;
        while state.done < came {
            if let Some(error) = &state.failed {
                return Err(TextError::Store(error.clone()));
            }
            state.hurry = true;
            self.work.notify_all();
            state = self.wait(state);
        }
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a path is to be written by whoever asks: nobody has written it, or is about to.
    fn begin(&self, path: &StorePath) -> Result<bool, TextError> {
        let mut state = self.locked();
        loop {
            if let Some(error) = &state.failed {
                return Err(TextError::Store(error.clone()));
            }
            match state.known.get(path) {
                Some(Known::Begun) => state = self.wait(state),
                Some(Known::Written(_) | Known::Valid) => return Ok(false),
                None => {
                    state.known.insert(path.clone(), Known::Begun);
                    return Ok(true);
                }
            }
        }
    }

    fn becomes(&self, path: &StorePath, known: Option<Known>) {
        let mut state = self.locked();
        match known {
            Some(known) => drop(state.known.insert(path.clone(), known)),
            None => drop(state.known.remove(path)),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The same as [`Shared::write`], again and again while no more files can be opened.
    fn write_with_patience(
        &self,
        info: &ValidPathInfo,
        contents: Contents<'_>,
    ) -> Result<Option<Coming>, TextError> {
        for _ in 0..TRIES {
            match self.write(info, contents) {
                Err(TextError::Files(_)) => {}
                written => return written,
            }
            // What is registered gives its lock back.
            self.register()?;
            std::thread::sleep(LONG);
        }
        self.write(info, contents)
    }

    /// Writes something under its name; nothing if it is valid already.
    fn write(&self, info: &ValidPathInfo, contents: Contents<'_>) -> Result<Option<Coming>, TextError> {
        let import = &self.import;
        import.keep(&info.path)?;
        let derivation = match (info.path.is_derivation(), contents) {
            (true, Contents::Text(text)) => Some(self.derivation(&info.path, text)?),
            (true, Contents::Nar(_)) => return Err(TextError::NotForUs),
            (false, _) => None,
        };
        self.are_known(&info.references)?;
        let failed = |errno: Errno| {
            let path = import.layout.real_path(&info.path);
            TextError::of(&UnpackError::Write { path, source: errno.into() })
        };
        let lock = PathLock::one(&import.store_dir, &info.path).map_err(failed)?;
        let name = base_name(&info.path);
        // Looked at with the lock held: nobody else makes it valid now.
        if import.is_there(&info.path) {
            if import.is_valid(&info.path)? {
                return Ok(None);
            }
            tree::remove(import.store_dir.as_fd(), &name).map_err(failed)?;
        }
        let file = self.write_files(name, contents)?;
        Ok(Some(Coming { info: Arc::new(info.clone()), derivation, file, _lock: lock }))
    }

    /// What a text says that is called a derivation, if its outputs are where Nix would have them: a flake can write any
    /// text. Nix is asked about all others.
    fn derivation(&self, path: &StorePath, text: &[u8]) -> Result<Derivation, TextError> {
        let derivation = Derivation::parse(text).map_err(|_| TextError::NotForUs)?;
        match self.modulo(path, text, 0) {
            Some(modulo) if modulo.is_right => {
                self.modulos.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), modulo.hash);
                Ok(derivation)
            }
            _ => Err(TextError::NotForUs),
        }
    }

    fn modulo(&self, path: &StorePath, text: &[u8], depth: usize) -> Option<Modulo> {
        let mut input = |path: &StorePath| self.modulo_of_input(path, depth + 1);
        Modulo::of(text, path.human_name(), &self.import.layout.store_dir, &mut input)
    }

    /// What a derivation comes to that is needed by another: one that was written before, or that is in the store.
    fn modulo_of_input(&self, path: &StorePath, depth: usize) -> Option<[u8; 32]> {
        let known = || self.modulos.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hash) = known().get(path) {
            return Some(*hash);
        }
        if depth > DEEPEST || !path.is_derivation() || path.store_dir() != self.import.layout.store_dir {
            return None;
        }
        let text = fs_err::read(self.import.layout.real_path(path)).ok()?;
        let hash = self.modulo(path, &text, depth)?.hash;
        known().insert(path.clone(), hash);
        Some(hash)
    }

    fn write_files(&self, name: CString, contents: Contents<'_>) -> Result<Top<Arc<OwnedFd>>, TextError> {
        let import = &self.import;
        let failed = |error: UnpackError| TextError::of(&error);
        let mut unpacker = Unpacker::new(import.store_dir.clone(), &import.layout.real_dir, name);
        match contents {
            Contents::Text(text) => {
                unpacker.file(false, text.len() as u64).map_err(failed)?;
                unpacker.data(text).map_err(failed)?;
                unpacker.file_end().map_err(failed)?;
            }
            Contents::Nar(nar) => {
                let mut parser = Parser::default();
                let parsed = parser.feed(nar, &mut unpacker).and_then(|()| parser.finish());
                parsed.map_err(|error| match error {
                    ParseError::Sink(error) => failed(error),
                    ParseError::Damaged { .. } => TextError::NotForUs,
                })?;
            }
        }
        Ok(unpacker.finish())
    }

    /// Sees that what a text refers to is valid, or will be before it, and stays so.
    fn are_known(&self, references: &[StorePath]) -> Result<(), TextError> {
        for path in references {
            if self.is_known(path) {
                continue;
            }
            if !self.import.is_valid(path)? {
                return Err(TextError::NotForUs);
            }
            self.locked().known.insert(path.clone(), Known::Valid);
        }
        Ok(())
    }

    /// Whether a path is valid, or will be as soon as what was written is registered, as far as that is known.
    fn is_known(&self, path: &StorePath) -> bool {
        matches!(self.locked().known.get(path), Some(Known::Written(_) | Known::Valid))
    }

    fn wait_for_registration(&self, coming: Coming) -> Result<(), TextError> {
        let mut state = self.locked();
        while state.waiting.len() + state.registering >= self.most && state.failed.is_none() {
            state = self.wait(state);
        }
        if let Some(error) = &state.failed {
            return Err(TextError::Store(error.clone()));
        }
        state.known.insert(coming.info.path.clone(), Known::Written(coming.info.clone()));
        state.came += 1;
        state.waiting.push(coming);
        let many = state.waiting.len();
        drop(state);
        // Each time it is woken costs as much as writing a text.
        if many == 1 || many == self.enough() {
            self.work.notify_all();
        }
        Ok(())
    }

    /// How many are registered without waiting for more.
    fn enough(&self) -> usize {
        self.most / 2
    }

    /// Registers what comes until nothing more does.
    fn register_all(&self, mut database: Connection) {
        let mut ids = Ids::new();
        let mut took = Duration::ZERO;
        while let Some(coming) = self.next((took * TIMES).clamp(SHORT, LONG)) {
            let begin = Instant::now();
            let count = coming.len() as u64;
            let paths: Vec<StorePath> = coming.iter().map(|coming| coming.info.path.clone()).collect();
            let registered = self.register_some(&mut database, coming, &mut ids);
            took = begin.elapsed();
            let mut state = self.locked();
            state.registering = 0;
            match registered {
                Ok(()) => {
                    state.done += count;
                    state.known.extend(paths.into_iter().map(|path| (path, Known::Valid)));
                }
                Err(error) => {
                    state.failed = Some(error);
                    state.waiting.clear();
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// What is to be registered next, after some time if that is early enough.
    fn next(&self, time: Duration) -> Option<Vec<Coming>> {
        let mut state = self.locked();
        while state.waiting.is_empty() {
            if state.ended {
                return None;
            }
            state.hurry = false;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let is_early =
            |state: &mut State| !state.hurry && !state.ended && state.waiting.len() < self.enough();
        let waited = self.work.wait_timeout_while(state, time, is_early);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.registering = state.waiting.len();
        Some(std::mem::take(&mut state.waiting))
    }

    fn register_some(
        &self,
        database: &mut Connection,
        coming: Vec<Coming>,
        ids: &mut Ids,
    ) -> Result<(), String> {
        let rows: Vec<_> = coming
            .iter()
            .map(|coming| Row { info: &coming.info, derivation: coming.derivation.as_ref() })
            .collect();
        match database::register(database, &rows, ids) {
            Ok(Ok(())) => {
                for coming in coming {
                    coming.file.keep();
                }
                Ok(())
            }
            Ok(Err((path, reference))) => {
                Err(format!("{path} is not taken: it refers to {reference}, which is not valid any more"))
            }
            Err(source) => {
                let path = self.import.layout.database();
                Err(with_causes(&ImportError::Database { path, source }))
            }
        }
    }
}

/// What is known of a path that is a file with these bytes, and no program.
fn nar_of(path: StorePath, text: &[u8]) -> ValidPathInfo {
    let mut head = Vec::with_capacity(128);
    for word in ["nix-archive-1", "(", "type", "regular", "contents"] {
        nar_word(&mut head, word);
    }
    head.extend_from_slice(&(text.len() as u64).to_le_bytes());
    let mut tail = vec![0; padding(text.len() as u64)];
    nar_word(&mut tail, ")");
    let hash = Sha256::new_with_prefix(&head).chain_update(text).chain_update(&tail).finalize();
    ValidPathInfo::new(path, NarHash(hash.into()), (head.len() + text.len() + tail.len()) as u64)
}

fn nar_word(to: &mut Vec<u8>, word: &str) {
    to.extend_from_slice(&(word.len() as u64).to_le_bytes());
    to.extend_from_slice(word.as_bytes());
    to.resize(to.len() + padding(word.len() as u64), 0);
}
