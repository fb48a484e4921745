//! The lock that Nix holds on a store path while it makes it (nix `src/libstore/pathlocks.cc`).
//!
//! `PATH.lock` beside the path, under `flock`. Who is done removes the file and then writes to it, so that those
//! who wait for the removed one see that it is stale, and begin again.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use phoenix_model::StorePath;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, openat, unlinkat};
use rustix::io::{Errno, Result, retry_on_intr};
use rustix::process::{Resource, getrlimit};

/// How many locks may be held, each an open file, of so many that are wanted at most.
pub(crate) fn at_once(most: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(most, |limit| (limit / 4).clamp(4, most))
}

/// The lock on one path, given back when dropped.
#[derive(Debug)]
pub(crate) struct PathLock<D: AsFd> {
    store_dir: D,
    name: CString,
    file: OwnedFd,
}

impl<D: AsFd + Clone> PathLock<D> {
    /// Takes the locks of all the paths; waits for those who hold some.
    ///
    /// Nothing is held while it waits: whoever holds a lock may be waiting for another of these.
    pub(crate) fn all<'p>(
        store_dir: &D,
        paths: impl IntoIterator<Item = &'p StorePath>,
    ) -> Result<Vec<Self>> {
        let names: Vec<CString> = paths.into_iter().filter_map(lock_name).collect();
        'again: loop {
            let mut locks = Vec::with_capacity(names.len());
            for name in &names {
                match Self::take(store_dir, name, false)? {
                    Some(lock) => locks.push(lock),
                    None => {
                        locks.clear();
                        drop(Self::take(store_dir, name, true)?);
                        continue 'again;
                    }
                }
            }
            return Ok(locks);
        }
    }

    /// Takes the lock of one path; waits for who holds it.
    pub(crate) fn one(store_dir: &D, path: &StorePath) -> Result<Option<Self>> {
        lock_name(path).map_or(Ok(None), |name| Self::take(store_dir, &name, true))
    }

    fn take(store_dir: &D, name: &CStr, wait: bool) -> Result<Option<Self>> {
        loop {
            let file = open(store_dir.as_fd(), name)?;
            let how =
                if wait { FlockOperation::LockExclusive } else { FlockOperation::NonBlockingLockExclusive };
            match retry_on_intr(|| flock(&file, how)) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(errno),
            }
            // Anything in it says that it was removed.
            if fstat(&file)?.st_size == 0 {
                return Ok(Some(Self { store_dir: store_dir.clone(), name: name.to_owned(), file }));
            }
        }
    }
}

impl<D: AsFd> Drop for PathLock<D> {
    fn drop(&mut self) {
        // Neither is needed: without them the file stays, unlocked.
        let _ = unlinkat(&self.store_dir, &self.name, AtFlags::empty());
        let _ = rustix::io::write(&self.file, b"d");
    }
}

/// `None` cannot be: a store path has no NUL.
fn lock_name(path: &StorePath) -> Option<CString> {
    CString::new(format!("{}.lock", path.base_name())).ok()
}

fn open(store_dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(store_dir, name, flags, Mode::from_raw_mode(0o600))
}
