//! Temporary roots: paths that Nix's garbage collector leaves alone while this process lives.
//!
//! The protocol is that of nix `src/libstore/gc.cc` (`addTempRoot`), the same in 2.8, 2.26 and 2.34: a file
//! `temproots/PID` under an exclusive lock lists paths, each with a NUL at its end. A path is added under a
//! shared `gc.lock`; where that cannot be had a collector is running, and is told through its socket.

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fs_err as fs;
use phoenix_model::StorePath;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};

/// How long a collector that does not answer yet is left to itself (2.34 waits as long).
const PAUSE: Duration = Duration::from_millis(100);

/// The roots of this process in one store. Nix knows one file a process, so all who need one share it.
static SHARED: Mutex<Vec<(PathBuf, Weak<TempRoots>)>> = Mutex::new(Vec::new());

/// The temporary roots of this process; gone when the last who shares them drops them.
#[derive(Debug)]
pub(crate) struct TempRoots {
    file_path: PathBuf,
    gc_lock_path: PathBuf,
    socket_path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The list; locked as long as it is open.
    file: fs::File,
    gc_lock: OwnedFd,
    collector: Option<UnixStream>,
    /// Whether a collector ran when a path was added, and has not been seen to be away since.
    collecting: bool,
    known: HashSet<StorePath>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TempRoots {
    /// Those of this process in the store with this directory of state.
    pub(crate) fn of(state_dir: &Path) -> io::Result<Arc<Self>> {
        let directory = state_dir.join("temproots");
        let file_path = directory.join(std::process::id().to_string());
        let mut shared = locked(&SHARED);
        shared.retain(|(_, roots)| roots.strong_count() > 0);
        let here = shared.iter().find(|(path, _)| *path == file_path);
        if let Some(roots) = here.and_then(|(_, roots)| roots.upgrade()) {
            return Ok(roots);
        }
        fs::create_dir_all(&directory)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let gc_lock_path = state_dir.join("gc.lock");
        let gc_lock = open(&gc_lock_path, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| named(&gc_lock_path, &errno.into()))?;
        let roots = Arc::new(Self {
            socket_path: state_dir.join("gc-socket/socket"),
            state: Mutex::new(State {
                file: list(&file_path)?,
                gc_lock,
                collector: None,
                collecting: false,
                known: HashSet::new(),
            }),
            file_path: file_path.clone(),
            gc_lock_path,
        });
        shared.push((file_path, Arc::downgrade(&roots)));
        Ok(roots)
    }

    /// Keeps these paths, and what has the same hash in its name, from being collected.
    ///
    /// Whether a collector was running that may have made up its mind before: it first visits all that refers
    /// to a path, then deletes all that, and only who asks for the last it visited is made to wait. Such a path
    /// may still be valid, and be deleted yet; [`TempRoots::wait_for_collector`] then helps.
    pub(crate) fn add<'p>(&self, paths: impl IntoIterator<Item = &'p StorePath>) -> io::Result<bool> {
        let mut state = locked(&self.state);
        let paths = paths.into_iter();
        let new: HashSet<&StorePath> = paths.filter(|path| !state.known.contains(*path)).collect();
        if new.is_empty() {
            return Ok(state.collecting);
        }
        let shared = self.gc_is_away_or_told(&mut state, &new)?;
        state.collecting = !shared;
        let mut list = Vec::with_capacity(new.len() * 80);
        for path in &new {
            list.extend_from_slice(path.as_str().as_bytes());
            list.push(0);
        }
        let written = state.file.write_all(&list);
        if shared {
            flock(&state.gc_lock, FlockOperation::Unlock)?;
        }
        written?;
        state.known.extend(new.into_iter().cloned());
        Ok(state.collecting)
    }

    /// Waits until no collector runs. From then on all that was added is left alone by every one.
    pub(crate) fn wait_for_collector(&self) -> io::Result<()> {
        // A lock of its own: who adds paths meanwhile uses the other.
        let lock = open(&self.gc_lock_path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| named(&self.gc_lock_path, &errno.into()))?;
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockShared))?;
        locked(&self.state).collecting = false;
        Ok(())
    }

    /// Takes the shared lock (then true), or tells the collector that has the exclusive one.
    fn gc_is_away_or_told(&self, state: &mut State, paths: &HashSet<&StorePath>) -> io::Result<bool> {
        loop {
            match flock(&state.gc_lock, FlockOperation::NonBlockingLockShared) {
                Ok(()) => return Ok(true),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            match self.tell(&mut state.collector, paths) {
                Ok(()) => return Ok(false),
                // It has not opened its socket yet, or has just ended: look again.
                Err(error) if is_gone(&error) => {
                    state.collector = None;
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(named(&self.socket_path, &error)),
            }
        }
    }

    fn tell(&self, collector: &mut Option<UnixStream>, paths: &HashSet<&StorePath>) -> io::Result<()> {
        let socket = match collector {
            Some(socket) => socket,
            None => collector.insert(UnixStream::connect(&self.socket_path)?),
        };
        for path in paths {
            socket.write_all(format!("{path}\n").as_bytes())?;
            let mut answer = [0];
            socket.read_exact(&mut answer)?;
            if answer != *b"1" {
                return Err(io::Error::other("the garbage collector does not understand"));
            }
        }
        Ok(())
    }
}

impl Drop for TempRoots {
    fn drop(&mut self) {
        let shared = locked(&SHARED);
        // Somebody may have made the list anew since the last who shared this one let go.
        let anew = shared.iter().any(|(path, roots)| *path == self.file_path && roots.strong_count() > 0);
        if !anew {
            let _ = fs::remove_file(&self.file_path);
        }
    }
}

/// Makes the list of this process. One that is there already is of a process that ended.
fn list(path: &Path) -> io::Result<fs::File> {
    loop {
        let _ = fs::remove_file(path);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::APPEND;
        let fd = open(path, flags, Mode::from_raw_mode(0o600)).map_err(|errno| named(path, &errno.into()))?;
        rustix::io::retry_on_intr(|| flock(&fd, FlockOperation::LockExclusive))?;
        // A collector may have taken it for stale before it was locked; it then wrote to it.
        if fstat(&fd)?.st_size == 0 {
            return Ok(fs::File::from_parts(fd.into(), path));
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
