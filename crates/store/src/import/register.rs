//! What came in becomes valid.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use phoenix_model::{Derivation, StorePath, ValidPathInfo};
use rustix::fs::{Mode, OFlags, openat};

use super::database::{self, Ids, Row};
use super::path_lock::{self, PathLock};
use super::{Import, Received, Whole, order};
use crate::tree;

/// The most paths that are registered in one transaction: each needs an open lock file meanwhile.
const MOST_AT_ONCE: usize = 1024;
/// The most references that these have together, but for those of the last: they are in memory meanwhile.
const MOST_REFERENCES: usize = 1 << 17;
/// The longest `.drv` file that is read; real ones stay below 1 MB.
const LONGEST_DERIVATION: u64 = 64 << 20;

/// What became of paths that came in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registered {
    /// Paths that are valid now and were not before, in the order they became so.
    pub new: Vec<StorePath>,
    /// Paths that somebody else made valid meanwhile; theirs were kept.
    pub already: Vec<StorePath>,
}

/// Why paths were not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A path refers to one that is neither valid nor came in.
    #[error("{path} is not taken: it refers to {reference}, which is not valid")]
    Reference {
        /// The path.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// A path refers to itself by way of others.
    #[error("{path} is not taken: it refers to itself by way of others")]
    Cycle {
        /// The path.
        path: StorePath,
    },
    /// What is known of a path is not of what came in.
    #[error("{path} is not taken: it is not what came in")]
    Other {
        /// The path.
        path: StorePath,
    },
    /// A `.drv` file is none.
    #[error("{path} is not taken: {problem}")]
    Derivation {
        /// The path.
        path: StorePath,
        /// What is wrong with it.
        problem: String,
    },
    /// It could not be given its name.
    #[error("cannot write {path}")]
    File {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database.
    #[error("cannot write the database of the store, {path}")]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl Import {
    /// Makes paths that came in valid, those that others refer to first; one that has become valid meanwhile
    /// is dropped.
    ///
    /// Each path gets its name and its row while its lock is held, as in Nix. All are in one transaction, but
    /// for as many as there may be open files; what is valid at any moment is valid with all it refers to.
    ///
    /// # Errors
    /// When a path refers to one that is not there, or the store cannot be written. What was registered before
    /// stays; what was not is removed.
    pub fn register(&self, received: Vec<Received>) -> Result<Registered, RegisterError> {
        let infos: Vec<_> = received.iter().map(|received| &received.info).collect();
        let order = order::by_references(&infos).map_err(|path| RegisterError::Cycle { path })?;
        self.references_are_known(&received)?;
        let mut received: Vec<Option<Received>> = received.into_iter().map(Some).collect();
        let ordered = order.into_iter().filter_map(|at| received[at].take());
        self.register_in_order(ordered.map(Received::into_parts))
    }

    /// The same of paths that come in the order of their references, of which only those of one transaction are looked
    /// at together: there may be more than memory should hold.
    ///
    /// # Errors
    /// When a path refers to one that is not valid by then, or the store cannot be written. What was registered before
    /// stays; what was not is removed.
    pub fn register_in_order(
        &self,
        paths: impl IntoIterator<Item = (ValidPathInfo, Whole)>,
    ) -> Result<Registered, RegisterError> {
        let mut paths = paths.into_iter();
        let mut registered = Registered::default();
        let at_once = path_lock::at_once(MOST_AT_ONCE);
        loop {
            let (mut some, mut references) = (Vec::new(), 0);
            while some.len() < at_once
                && references < MOST_REFERENCES
                && let Some((info, whole)) = paths.next()
            {
                if (&info.path, info.nar_hash) != (&whole.path, whole.nar_hash) {
                    return Err(RegisterError::Other { path: info.path });
                }
                references += info.references.len();
                some.push((info, whole));
            }
            if some.is_empty() {
                return Ok(registered);
            }
            self.register_some(some, &mut registered)?;
        }
    }

    /// Before anything is done; the transaction looks again.
    fn references_are_known(&self, received: &[Received]) -> Result<(), RegisterError> {
        let coming: HashSet<&StorePath> = received.iter().map(|received| &received.info.path).collect();
        let database = self.database();
        let mut valid = HashSet::new();
        for Received { info, .. } in received {
            for reference in &info.references {
                if coming.contains(reference) || valid.contains(reference) {
                    continue;
                }
                let id =
                    database::id_of(&database, reference).map_err(|source| self.database_failed(source))?;
                if id.is_none() {
                    let (path, reference) = (info.path.clone(), reference.clone());
                    return Err(RegisterError::Reference { path, reference });
                }
                valid.insert(reference);
            }
        }
        Ok(())
    }

    fn register_some(
        &self,
        some: Vec<(ValidPathInfo, Whole)>,
        done: &mut Registered,
    ) -> Result<(), RegisterError> {
        let mut sorted: Vec<&StorePath> = some.iter().map(|(info, _)| &info.path).collect();
        sorted.sort_unstable();
        let locks = PathLock::all(&self.store_dir, sorted).map_err(file_failed(&self.layout.real_dir))?;
        let mut infos = Vec::with_capacity(some.len());
        for (info, whole) in some {
            // Asked with the lock held: nobody else makes it valid now.
            let id = database::id_of(&self.database(), &info.path);
            if id.map_err(|source| self.database_failed(source))?.is_some() {
                done.already.push(info.path);
                continue;
            }
            match self.place(&info.path, whole) {
                Ok(()) => infos.push(info),
                Err(error) => {
                    self.take_back(&infos);
                    return Err(error);
                }
            }
        }
        if let Err(error) = self.write_rows(&infos) {
            self.take_back(&infos);
            return Err(error);
        }
        done.new.extend(infos.into_iter().map(|info| info.path));
        drop(locks);
        Ok(())
    }

    /// Gives a path its name. What is there is not valid, hence a leftover.
    fn place(&self, path: &StorePath, whole: Whole) -> Result<(), RegisterError> {
        let final_path = self.layout.real_path(path);
        let name = base_name(path);
        tree::remove(self.store_dir.as_fd(), &name).map_err(file_failed(&final_path))?;
        whole.tree.rename(&name).map_err(file_failed(&final_path))
    }

    fn write_rows(&self, infos: &[ValidPathInfo]) -> Result<(), RegisterError> {
        let mut derivations = Vec::with_capacity(infos.len());
        for info in infos {
            derivations.push(if info.path.is_derivation() {
                Some(read_derivation(&self.store_dir, &info.path)?)
            } else {
                None
            });
        }
        let rows = infos.iter().zip(&derivations);
        let rows: Vec<_> =
            rows.map(|(info, derivation)| Row { info, derivation: derivation.as_ref() }).collect();
        match database::register(&mut self.database(), &rows, &mut Ids::new()) {
            Ok(Ok(())) => Ok(()),
            Ok(Err((path, reference))) => Err(RegisterError::Reference { path, reference }),
            Err(source) => Err(self.database_failed(source)),
        }
    }

    /// Removes what has its name and was not registered. What cannot be removed is garbage, and Nix collects it.
    fn take_back(&self, infos: &[ValidPathInfo]) {
        for info in infos {
            if matches!(database::id_of(&self.database(), &info.path), Ok(None)) {
                let _ = tree::remove(self.store_dir.as_fd(), &base_name(&info.path));
            }
        }
    }

    fn database_failed(&self, source: rusqlite::Error) -> RegisterError {
        RegisterError::Database { path: self.layout.database(), source }
    }
}

fn file_failed(path: &Path) -> impl FnOnce(rustix::io::Errno) -> RegisterError {
    move |errno| RegisterError::File { path: path.to_owned(), source: errno.into() }
}

/// The name in the store directory; a store path has no NUL.
pub(super) fn base_name(path: &StorePath) -> CString {
    CString::new(path.base_name()).unwrap_or_default()
}

/// Reads a `.drv` file, which a hostile NAR may have made anything.
fn read_derivation(store_dir: &Arc<OwnedFd>, path: &StorePath) -> Result<Derivation, RegisterError> {
    let refused = |problem: String| RegisterError::Derivation { path: path.clone(), problem };
    let name: &CStr = &base_name(path);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat(store_dir, name, flags, Mode::empty())
        .map_err(|errno| refused(format!("it is no file: {errno}")))?;
    let mut text = Vec::new();
    std::fs::File::from(file)
        .take(LONGEST_DERIVATION)
        .read_to_end(&mut text)
        .map_err(|error| refused(format!("it cannot be read: {error}")))?;
    Derivation::parse(&text).map_err(|error| refused(error.to_string()))
}
