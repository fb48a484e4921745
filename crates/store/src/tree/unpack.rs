//! A NAR, written as a tree as Nix keeps it.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use phoenix_pack::nar::Sink;
use rustix::fs::{self, AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};

use super::case_hack::NamesOnDisk;
use super::remove;

/// The modes of all files in a store (nix `src/libstore/posix-fs-canonicalise.cc`).
const PLAIN: Mode = Mode::from_bits_retain(0o444);
/// Of programs and directories.
const EXECUTABLE: Mode = Mode::from_bits_retain(0o555);
/// When all files in a store were changed last: 1970-01-01 00:00:01 UTC (`mtimeStore`, as above).
const TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
};

/// `PATH_MAX`: from here on a path is too long for the system.
const PATH_MAX: usize = if cfg!(target_os = "macos") { 1024 } else { 4096 };
/// From here on a path is too long for us. Linux adds ` (deleted)` to the path of an open file that is removed,
/// and those who see the store in another place may see a longer path.
const LONGEST_PATH: usize = PATH_MAX - 256;

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two names of a directory cannot both be on this file system, which does not tell case apart.
    #[error("{path} clashes with another file of its directory that differs by case")]
    CaseClash {
        /// One of them.
        path: PathBuf,
    },
}

/// Writes what a NAR holds as a new file, directory or symlink, with the modes and times all files of a store
/// have: 0444 or 0555, changed last at 1; the owner is that of the process.
///
/// A [`Sink`] for [`phoenix_pack::nar::Parser`], whose checks of names it rests on. Nothing is followed and
/// nothing replaced: every file is made anew in a directory that this very value made and holds open.
/// Dropped before [`Unpacker::finish`], it removes what it wrote.
#[derive(Debug)]
pub(crate) struct Unpacker<D: AsFd> {
    // Dropped first: what is removed is not held open.
    open: Vec<Open>,
    top: Top<D>,
    /// The name of the node that is to come; the one at the top has its own.
    name: CString,
    /// Of the node that is written, for errors.
    path: PathBuf,
    file: Option<OwnedFd>,
    masks: Masks,
}

/// Where the tree is: a name in a directory. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Top<D: AsFd> {
    directory: D,
    /// Its name; none once it is somebody else's.
    name: Option<CString>,
    begun: bool,
}

#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    names: NamesOnDisk,
}

/// Whether new files get the modes they are made with: not so under a `umask` that takes reading away, or
/// where a directory has access lists that are inherited. Found out by the first file of each mode.
#[derive(Debug, Default)]
struct Masks {
    plain: Option<bool>,
    executable: Option<bool>,
}

impl<D: AsFd> Unpacker<D> {
    /// Will write to a new name in an open directory, whose path is only for messages.
    #[must_use]
    pub(crate) fn new(directory: D, directory_path: &Path, name: CString) -> Self {
        let path = directory_path.join(OsStr::from_bytes(name.as_bytes()));
        let top = Top { directory, name: Some(name), begun: false };
        let masks = Masks::default();
        Self { top, open: Vec::new(), name: CString::default(), path, file: None, masks }
    }

    /// Lets go of the tree, which is whole when the parser says so.
    #[must_use]
    pub(crate) fn finish(self) -> Top<D> {
        self.top
    }

    /// The directory and the name of the node that is to come.
    fn place(&self) -> (BorrowedFd<'_>, &CStr) {
        match self.open.last() {
            Some(open) => (open.fd.as_fd(), &self.name),
            None => (self.top.directory.as_fd(), self.top.name.as_deref().unwrap_or_default()),
        }
    }

    /// What was just made is ours; had something been there already, it would have failed and not be.
    fn made<T>(&mut self, result: rustix::io::Result<T>) -> Result<T, UnpackError> {
        self.top.begun |= result.is_ok();
        self.checked(result)
    }

    fn failed(&self, source: impl Into<io::Error>) -> UnpackError {
        UnpackError::Write { path: self.path.clone(), source: source.into() }
    }

    /// The node that was written is over; its name goes.
    fn after_node(&mut self) {
        if !self.open.is_empty() {
            self.path.pop();
        }
    }

    fn checked<T>(&self, result: rustix::io::Result<T>) -> Result<T, UnpackError> {
        result.map_err(|errno| self.failed(errno))
    }
}

impl<D: AsFd> Sink for Unpacker<D> {
    type Error = UnpackError;

    fn directory(&mut self) -> Result<(), UnpackError> {
        let (parent, name) = self.place();
        let made = fs::mkdirat(parent, name, Mode::RWXU);
        self.made(made)?;
        let (parent, name) = self.place();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.checked(fs::openat(parent, name, flags, Mode::empty()))?;
        self.open.push(Open { fd, names: NamesOnDisk::default() });
        Ok(())
    }

    fn entry(&mut self, name: &[u8]) -> Result<(), UnpackError> {
        let mut on_disk = std::borrow::Cow::Borrowed(name);
        if cfg!(target_os = "macos")
            && let Some(open) = self.open.last_mut()
        {
            on_disk = match open.names.name_on_disk(name) {
                Some(name) => name.into(),
                None => {
                    return Err(UnpackError::CaseClash { path: self.path.join(OsStr::from_bytes(name)) });
                }
            };
        }
        self.path.push(OsStr::from_bytes(&on_disk));
        // Nix, which goes by whole paths, could neither write nor read it. Nix 2.8 cannot even collect garbage while
        // a process has such a file open: it looks at those of all processes.
        if self.path.as_os_str().len() >= LONGEST_PATH {
            return Err(self.failed(rustix::io::Errno::NAMETOOLONG));
        }
        let bytes = on_disk.into_owned();
        self.name = CString::new(bytes).map_err(|_| self.failed(rustix::io::Errno::INVAL))?;
        Ok(())
    }

    fn leave(&mut self) -> Result<(), UnpackError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        // Not before: what is written into a directory changes its time, and only its owner may write there.
        let done = fs::fchmod(&open.fd, EXECUTABLE).and_then(|()| fs::futimens(&open.fd, &TIMES));
        self.checked(done)?;
        self.after_node();
        Ok(())
    }

    fn file(&mut self, executable: bool, _: u64) -> Result<(), UnpackError> {
        let mode = if executable { EXECUTABLE } else { PLAIN };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (parent, name) = self.place();
        let made = fs::openat(parent, name, flags, mode);
        let fd = self.made(made)?;
        let known = if executable { self.masks.executable } else { self.masks.plain };
        let holds = match known {
            Some(holds) => holds,
            None => {
                let stat = self.checked(fs::fstat(&fd))?;
                let holds = Mode::from_raw_mode(stat.st_mode) == mode;
                *(if executable { &mut self.masks.executable } else { &mut self.masks.plain }) = Some(holds);
                holds
            }
        };
        if !holds {
            self.checked(fs::fchmod(&fd, mode))?;
        }
        self.file = Some(fd);
        Ok(())
    }

    fn data(&mut self, mut bytes: &[u8]) -> Result<(), UnpackError> {
        let Some(file) = &self.file else { return Ok(()) };
        while !bytes.is_empty() {
            match rustix::io::write(file, bytes) {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero)),
                Ok(count) => bytes = &bytes[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        Ok(())
    }

    fn file_end(&mut self) -> Result<(), UnpackError> {
        if let Some(file) = self.file.take() {
            self.checked(fs::futimens(&file, &TIMES))?;
        }
        self.after_node();
        Ok(())
    }

    fn symlink(&mut self, target: &[u8]) -> Result<(), UnpackError> {
        let (parent, name) = self.place();
        let made = fs::symlinkat(target, parent, name);
        self.made(made)?;
        let (parent, name) = self.place();
        self.checked(fs::utimensat(parent, name, &TIMES, AtFlags::SYMLINK_NOFOLLOW))?;
        self.after_node();
        Ok(())
    }
}

impl<D: AsFd> Top<D> {
    /// Leaves the tree where it is.
    pub(crate) fn keep(mut self) {
        self.name = None;
    }

    /// Gives the tree another name in the same directory, where nothing is.
    pub(crate) fn rename(mut self, to: &CStr) -> rustix::io::Result<()> {
        let Some(from) = self.name.as_deref() else { return Ok(()) };
        let directory = self.directory.as_fd();
        // Linux asks for rights on the parents only. Others want to write into a directory that is moved.
        let writable = !cfg!(target_os = "linux") && is_directory(directory, from)?;
        if writable {
            fs::chmodat(directory, from, Mode::RWXU, AtFlags::empty())?;
        }
        fs::renameat(directory, from, directory, to)?;
        if writable {
            fs::chmodat(directory, to, EXECUTABLE, AtFlags::empty())?;
        }
        self.name = None;
        Ok(())
    }
}

fn is_directory(directory: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<bool> {
    let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory)
}

impl<D: AsFd> Drop for Top<D> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take()
            && self.begun
        {
            // What cannot be removed is garbage, and Nix collects it.
            let _ = remove(self.directory.as_fd(), &name);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// What Nix's collector does to all processes: it asks where each open file is.
    #[test]
    fn open_files_that_were_removed_can_be_read_of() {
        let directory = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(directory.path()).unwrap();
        let mut unpacker = Unpacker::new(&fd, directory.path(), CString::from(c"tree"));
        // Long names first, for not to have too many open; then short ones, for to come close to the limit.
        loop {
            unpacker.directory().unwrap();
            let left = LONGEST_PATH.saturating_sub(unpacker.path.as_os_str().len());
            if unpacker.entry("d".repeat(if left > 300 { 200 } else { 1 }).as_bytes()).is_err() {
                break;
            }
        }
        let long = unpacker.path.as_os_str().len();
        assert!(long >= LONGEST_PATH, "{long}");
        std::fs::remove_dir_all(directory.path().join("tree")).unwrap();
        for open in &unpacker.open {
            use std::os::fd::AsRawFd as _;
            let link = format!("/proc/self/fd/{}", open.fd.as_raw_fd());
            let place = std::fs::read_link(link).unwrap();
            assert!(place.as_os_str().as_bytes().ends_with(b" (deleted)"), "{}", place.display());
        }
    }
}
