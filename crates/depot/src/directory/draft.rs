//! A blob that is being written, and not visible yet.

use std::fs::{File, FileTimes, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;

use crate::directory::folder::{Folder, Kind};
use crate::directory::problem;
use crate::{BlobName, Created, Problem};

/// The folder of what is not finished; no blob can be called like that.
const UNFINISHED: &str = ",unfinished";

/// How often a folder is made again that somebody else removed because it was empty, and so on.
const ATTEMPTS: usize = 64;

/// Small pieces are gathered until there are so many bytes of them.
const BUFFER: usize = 128 << 10;

/// How an attempt to write a blob begins.
pub(super) enum Begun {
    /// It can be written.
    Draft(Draft),
    /// There is one of that name.
    Taken,
}

/// A file that becomes a blob when it is finished, and is removed when it is dropped before that.
///
/// Its process holds a lock on it, by which others know that it is not dead.
pub(super) struct Draft {
    path: PathBuf,
    name: BlobName,
    root: Folder,
    unfinished: Folder,
    /// What the file is called in `unfinished`.
    leaf: String,
    file: BufWriter<File>,
    size: u64,
}

impl Draft {
    /// Begins to write a blob, and removes what dead processes left.
    pub(super) fn begin(path: &Path, name: BlobName) -> Result<Begun, Problem> {
        let at = |error: io::Error| problem(&error, path);
        let root = Folder::made_root(path).map_err(at)?;
        if taken(path, &root, &name)? {
            return Ok(Begun::Taken);
        }
        let at = |error: io::Error| problem(&error, &path.join(UNFINISHED));
        let unfinished = root.make(UNFINISHED).map_err(at)?;
        remove_stale(&unfinished);
        let (leaf, file) = locked(&unfinished).map_err(at)?;
        let file = BufWriter::with_capacity(BUFFER, file);
        Ok(Begun::Draft(Self { path: path.to_owned(), name, root, unfinished, leaf, file, size: 0 }))
    }

    /// Adds bytes to it.
    pub(super) fn write(&mut self, pieces: &[Bytes]) -> Result<(), Problem> {
        for piece in pieces {
            self.file.write_all(piece).map_err(|error| self.problem(&error))?;
            self.size += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes it visible under its name, unless something else is by now.
    pub(super) fn finish(mut self) -> Result<Created, Problem> {
        let on_disk = |file: &mut BufWriter<File>| {
            file.flush()?;
            file.get_ref().set_times(FileTimes::new().set_modified(SystemTime::now()))?;
            file.get_ref().sync_all()
        };
        on_disk(&mut self.file).map_err(|error| self.problem(&error))?;
        for _ in 0..ATTEMPTS {
            let moved = || -> io::Result<()> {
                let folder = self.root.making(&self.name)?;
                self.unfinished.move_new(&self.leaf, &folder, self.name.leaf())?;
                folder.sync()
            };
            match moved() {
                Ok(()) => return Ok(Created::New(self.size)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if taken(&self.path, &self.root, &self.name)? {
                        return Ok(Created::Taken);
                    }
                }
                // A folder on the way was removed because it was empty.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::NotADirectory => {
                    return Err(in_the_way(&self.path, &self.root, &self.name));
                }
                Err(error) => return Err(self.problem(&error)),
            }
        }
        let path = self.path.join(UNFINISHED);
        Err(Problem::Unreachable(format!("{}: its files are removed by somebody else", path.display())))
    }

    fn problem(&self, error: &io::Error) -> Problem {
        problem(error, &self.path.join(self.name.as_str()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What cannot be removed now is by the next who creates something.
        let _ = self.unfinished.unlink(&self.leaf);
    }
}

/// Whether there is a blob of this name.
fn taken(path: &Path, root: &Folder, name: &BlobName) -> Result<bool, Problem> {
    let at = |error: io::Error| problem(&error, &path.join(name.as_str()));
    let mut inner = None;
    for segment in name.folders() {
        match inner.as_ref().unwrap_or(root).enter(segment).map_err(at)? {
            Some(next) => inner = Some(next),
            None => return Ok(false),
        }
    }
    match inner.as_ref().unwrap_or(root).stat(name.leaf()).map_err(at)? {
        Some((Kind::File, _)) => Ok(true),
        Some((Kind::Folder, _)) => Err(Problem::Unsupported("keep a blob that others are named below")),
        Some((Kind::Other, _)) => Err(Problem::Unreachable(format!(
            "{} is no file; move it away, or use another depot",
            path.join(name.as_str()).display()
        ))),
        None => Ok(false),
    }
}

/// Why a folder that a blob has to be in cannot be made.
fn in_the_way(path: &Path, root: &Folder, name: &BlobName) -> Problem {
    let mut at = path.to_owned();
    let mut inner: Option<Folder> = None;
    for segment in name.folders() {
        let folder = inner.as_ref().unwrap_or(root);
        at.push(segment);
        match (folder.stat(segment), folder.enter(segment)) {
            (Ok(Some((Kind::File, _))), _) => {
                return Problem::Unsupported("keep a blob that is named below another");
            }
            (_, Ok(Some(next))) => inner = Some(next),
            _ => break,
        }
    }
    problem(&ErrorKind::NotADirectory.into(), &at)
}

/// A new file that is locked, and its name.
fn locked(folder: &Folder) -> io::Result<(String, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    for _ in 0..ATTEMPTS {
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let leaf = format!("{}-{count}-{now:x}", std::process::id());
        let file = match folder.create(&leaf) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            file => file?,
        };
        match file.try_lock() {
            // Somebody who removes stale files was faster than our lock.
            Err(TryLockError::WouldBlock) => continue,
            Ok(()) if file.metadata()?.nlink() == 0 => continue,
            // Where there are no locks, nobody removes anything.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok((leaf, file)),
        }
    }
    Err(io::Error::other("its files are removed by somebody else"))
}

/// Removes the files that no living process has a lock on.
fn remove_stale(folder: &Folder) {
    for leaf in folder.names().unwrap_or_default() {
        if let Ok(Some(file)) = folder.open(&leaf)
            && file.try_lock().is_ok()
        {
            let _ = folder.unlink(&leaf);
        }
    }
}
