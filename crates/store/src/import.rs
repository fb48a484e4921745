//! Store paths, written straight into a local store.
//!
//! A path is written under a temporary name in the store directory while its NAR is hashed ([`Receive`]). Only
//! [`Import::register`] gives it its name and makes it valid. `docs/design/store.md` says why a crash, the
//! garbage collector or another Nix at any moment leaves a sound store.

mod database;
mod initialise;
mod order;
mod path_lock;
mod receive;
mod register;
mod temp_roots;
mod texts;

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use fs_err as fs;
use phoenix_model::{StorePath, ValidPathInfo};
use rusqlite::Connection;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, open, statat};
use rustix::io::Errno;

use crate::Layout;
use crate::tree::Unpacker;

pub use initialise::{InitialiseError, initialise};
pub(crate) use order::by_references;
pub use receive::{Receive, ReceiveError, Received, Whole};
pub use register::{RegisterError, Registered};
use temp_roots::TempRoots;
pub(crate) use texts::{TextError, Texts};

/// The version of the database that is written: that of all Nix since 2.1 (nix `src/libstore/local-store.hh`,
/// `nixSchemaVersion`).
const SCHEMA: &str = "10";

/// Writes store paths into one local store. Shared by threads.
#[derive(Debug)]
pub struct Import {
    layout: Layout,
    store_dir: Arc<OwnedFd>,
    roots: Arc<TempRoots>,
    database: Mutex<Connection>,
    /// Held as every Nix holds it, so that none changes the schema meanwhile.
    _big_lock: OwnedFd,
}

/// Why a local store cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is no database.
    #[error("there is no store: {path} is missing")]
    NoStore {
        /// Where the version of the database should be.
        path: PathBuf,
    },
    /// A database of another version.
    #[error("the store has a database of version {found}, and only {SCHEMA} is known; another Nix made it")]
    Schema {
        /// Its version.
        found: String,
    },
    /// A file that is needed.
    #[error("cannot write the store: {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database.
    #[error("cannot use the database of the store, {path}")]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The path has another store directory.
    #[error("{path} belongs to another store than {store_dir}")]
    OtherStore {
        /// The path.
        path: StorePath,
        /// The directory of this store.
        store_dir: String,
    },
    /// The temporary roots.
    #[error("cannot keep the garbage collector from what comes in")]
    TempRoots {
        /// Why.
        source: io::Error,
    },
}

impl Import {
    /// Opens a store for writing.
    ///
    /// # Errors
    /// When there is none ([`initialise()`] makes one), it is of a version that is not known, or this process may
    /// not write it: then the daemon may take what comes.
    pub fn open(layout: &Layout) -> Result<Self, ImportError> {
        let db_dir = layout.state_dir.join("db");
        let failed = |path: PathBuf| move |source| ImportError::File { path, source };
        let lock_path = db_dir.join("big-lock");
        let schema_path = db_dir.join("schema");
        let schema = match fs::read_to_string(&schema_path) {
            Ok(schema) => schema,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ImportError::NoStore { path: schema_path });
            }
            Err(error) => return Err(failed(schema_path)(error)),
        };
        if schema.trim() != SCHEMA {
            return Err(ImportError::Schema { found: schema.trim().chars().take(20).collect() });
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let big_lock = open(&lock_path, flags, Mode::from_raw_mode(0o600))
            .and_then(|lock| {
                rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockShared)).map(|()| lock)
            })
            .map_err(|errno| failed(lock_path)(errno.into()))?;
        let real_dir = &layout.real_dir;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let store_dir = open(real_dir, flags, Mode::empty())
            .and_then(|store_dir| {
                rustix::fs::access(real_dir, rustix::fs::Access::WRITE_OK).map(|()| store_dir)
            })
            .map_err(|errno| failed(real_dir.clone())(errno.into()))?;
        let roots = TempRoots::of(&layout.state_dir).map_err(|source| ImportError::TempRoots { source })?;
        let database = database::open(&layout.database())
            .map_err(|source| ImportError::Database { path: layout.database(), source })?;
        Ok(Self {
            layout: layout.clone(),
            store_dir: Arc::new(store_dir),
            roots,
            database: Mutex::new(database),
            _big_lock: big_lock,
        })
    }

    /// Those of the paths that are valid already and need not come in.
    ///
    /// The garbage collector leaves all of them alone from now on until this and all that came of it is
    /// dropped. Ask this first, for all that is wanted and all it refers to: what is valid then stays valid.
    ///
    /// # Errors
    /// When the store cannot be read, or does not let the paths be kept.
    pub fn valid<'p>(
        &self,
        paths: impl IntoIterator<Item = &'p StorePath> + Clone,
    ) -> Result<HashSet<StorePath>, ImportError> {
        let roots = |source| ImportError::TempRoots { source };
        if self.roots.add(paths.clone()).map_err(roots)? {
            // What is neither valid nor there cannot be deleted any more.
            let endangered = self.are_valid(paths.clone())?;
            let there = |path: &StorePath| fs::symlink_metadata(self.layout.real_path(path)).is_ok();
            if !endangered.is_empty() || paths.clone().into_iter().any(there) {
                self.roots.wait_for_collector().map_err(roots)?;
            }
        }
        self.are_valid(paths)
    }

    /// Has the garbage collector leave a path alone from now on.
    fn keep(&self, path: &StorePath) -> Result<(), ImportError> {
        if self.roots.add([path]).map_err(|source| ImportError::TempRoots { source })? {
            // A collector is at work.
            self.valid([path])?;
        }
        Ok(())
    }

    /// Whether a path is valid, and kept from now on. One that is not there is not valid, whatever the database says.
    fn is_valid(&self, path: &StorePath) -> Result<bool, ImportError> {
        self.keep(path)?;
        Ok(self.is_there(path) && !self.are_valid([path])?.is_empty())
    }

    fn is_there(&self, path: &StorePath) -> bool {
        let name = path.base_name();
        !matches!(statat(&self.store_dir, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    }

    fn are_valid<'p>(
        &self,
        paths: impl IntoIterator<Item = &'p StorePath>,
    ) -> Result<HashSet<StorePath>, ImportError> {
        let failed = |source| ImportError::Database { path: self.layout.database(), source };
        let database = self.database();
        // Else each would be a transaction of its own.
        let _reading = database.unchecked_transaction().map_err(failed)?;
        let mut valid = HashSet::new();
        for path in paths {
            if database::id_of(&database, path).map_err(failed)?.is_some() {
                valid.insert(path.clone());
            }
        }
        Ok(valid)
    }

    /// Begins to take in a path; `None` when it is valid already.
    ///
    /// # Errors
    /// When the path is of another store, or the store cannot be read or kept from being collected.
    pub fn receive(&self, info: ValidPathInfo) -> Result<Option<Receive>, ImportError> {
        for path in std::iter::once(&info.path).chain(&info.references) {
            if path.store_dir() != self.layout.store_dir {
                let store_dir = self.layout.store_dir.clone();
                return Err(ImportError::OtherStore { path: path.clone(), store_dir });
            }
        }
        let all: Vec<&StorePath> = std::iter::once(&info.path).chain(&info.references).collect();
        if self.valid(all)?.contains(&info.path) {
            return Ok(None);
        }
        let name = temporary_name(&info.path);
        let unpacker = Unpacker::new(Arc::clone(&self.store_dir), &self.layout.real_dir, name);
        Ok(Some(Receive::new(info, unpacker, Arc::clone(&self.roots))))
    }

    fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name for what comes in as this path, that nothing else has.
///
/// It begins with the hash of the path: the garbage collector compares that with the temporary roots, whatever
/// follows. Without the root it is a path that is not valid, hence garbage.
fn temporary_name(path: &StorePath) -> CString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Process ids come again.
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let (hash, process) = (path.hash_part(), std::process::id());
    CString::new(format!("{hash}-phoenix-incoming-{process}-{time:x}-{count}")).unwrap_or_default()
}
