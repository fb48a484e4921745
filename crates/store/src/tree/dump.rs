//! A tree on disk, told in the order of its NAR.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use phoenix_pack::nar::Sink;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};

use super::case_hack::name_in_nar;

/// Bytes that are read at once, by measurement: more gain nothing, and a thread each has one.
const PIECE: usize = 256 * 1024;

/// Why a tree could not be told.
#[derive(Debug, thiserror::Error)]
pub enum DumpError<E> {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file changed while it was read, which nothing in a store does.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// It is a device, a pipe or a socket.
    #[error("{path} is no file, directory or symlink, and cannot be in a store")]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Two names of a directory are one when the case hack is taken away.
    #[error("{path} stands in its directory twice but for the case hack")]
    CaseClash {
        /// One of them.
        path: PathBuf,
    },
    /// What was told could not be taken.
    #[error(transparent)]
    Sink(E),
}

/// Tells a tree to a sink, in the order of its NAR: entries sorted by their bytes, a file executable when its
/// owner may execute it.
///
/// With [`phoenix_pack::nar::Writer`] this gives byte for byte what `nix-store --dump` gives.
///
/// # Errors
/// When a file cannot be read, or the sink fails; the file is named.
pub fn dump<S: Sink>(path: &Path, sink: &mut S) -> Result<(), DumpError<S::Error>> {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        return Err(read(path)(rustix::io::Errno::INVAL));
    };
    let mut dumper = Dumper { sink, path: path.to_owned(), buffer: Vec::new(), open: Vec::new() };
    dumper.node(fs::CWD, &name, FileType::Unknown)?;
    // No recursion: how deep the tree is is not ours to say.
    while let Some(directory) = dumper.open.last_mut() {
        if let Some((on_disk, kind)) = directory.entries.next() {
            dumper.path.push(OsStr::from_bytes(on_disk.as_bytes()));
            dumper.sink.entry(in_nar(&on_disk)).map_err(DumpError::Sink)?;
            let parent = directory.fd.clone();
            if !dumper.node(parent.as_fd(), &on_disk, kind)? {
                dumper.path.pop();
            }
        } else {
            dumper.sink.leave().map_err(DumpError::Sink)?;
            dumper.open.pop();
            dumper.path.pop();
        }
    }
    Ok(())
}

/// An entry of a directory: its name on disk, and what the directory says it is.
type Entry = (CString, FileType);

struct Open {
    /// Shared, so that an entry can be read while the list of open directories grows.
    fd: std::rc::Rc<OwnedFd>,
    entries: std::vec::IntoIter<Entry>,
}

struct Dumper<'s, S> {
    sink: &'s mut S,
    /// Of the node that is told, for errors.
    path: PathBuf,
    buffer: Vec<u8>,
    open: Vec<Open>,
}

fn read<E>(path: &Path) -> impl FnOnce(rustix::io::Errno) -> DumpError<E> {
    move |errno| DumpError::Read { path: path.to_owned(), source: errno.into() }
}

impl<S: Sink> Dumper<'_, S> {
    /// Tells a node; whether it is a directory, which is then open.
    fn node(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
    ) -> Result<bool, DumpError<S::Error>> {
        let kind = match kind {
            FileType::Unknown => {
                let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(read(&self.path))?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        match kind {
            FileType::RegularFile => self.file(parent, name).map(|()| false),
            FileType::Directory => self.directory(parent, name).map(|()| true),
            FileType::Symlink => {
                let target = fs::readlinkat(parent, name, Vec::new()).map_err(read(&self.path))?;
                self.sink.symlink(target.as_bytes()).map_err(DumpError::Sink)?;
                Ok(false)
            }
            _ => Err(DumpError::Kind { path: self.path.clone() }),
        }
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), DumpError<S::Error>> {
        // Not blocking, for should it have become a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = fs::openat(parent, name, flags, Mode::empty()).map_err(read(&self.path))?;
        let stat = fs::fstat(&fd).map_err(read(&self.path))?;
        let changed = || DumpError::Changed { path: self.path.clone() };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(changed());
        }
        let size = u64::try_from(stat.st_size).map_err(|_| changed())?;
        let executable = Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR);
        self.sink.file(executable, size).map_err(DumpError::Sink)?;
        let mut left = size;
        self.buffer.resize(PIECE, 0);
        while left > 0 {
            let want = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let count = match rustix::io::read(&fd, &mut self.buffer[..want]) {
                Ok(0) => return Err(changed()),
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(read(&self.path)(errno)),
            };
            left -= count as u64;
            self.sink.data(&self.buffer[..count]).map_err(DumpError::Sink)?;
        }
        self.sink.file_end().map_err(DumpError::Sink)
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), DumpError<S::Error>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(parent, name, flags, Mode::empty()).map_err(read(&self.path))?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&fd).map_err(read(&self.path))? {
            let entry = entry.map_err(read(&self.path))?;
            let on_disk = entry.file_name();
            if !matches!(on_disk.to_bytes(), b"." | b"..") {
                entries.push((on_disk.to_owned(), entry.file_type()));
            }
        }
        entries.sort_unstable_by(|(one, _), (two, _)| in_nar(one).cmp(in_nar(two)));
        if let Some(pair) = entries.windows(2).find(|pair| in_nar(&pair[0].0) == in_nar(&pair[1].0)) {
            return Err(DumpError::CaseClash {
                path: self.path.join(OsStr::from_bytes(pair[0].0.as_bytes())),
            });
        }
        self.sink.directory().map_err(DumpError::Sink)?;
        self.open.push(Open { fd: std::rc::Rc::new(fd), entries: entries.into_iter() });
        Ok(())
    }
}

/// The name in the NAR of a file with this name on disk.
fn in_nar(on_disk: &CStr) -> &[u8] {
    let on_disk = on_disk.to_bytes();
    if cfg!(target_os = "macos") { name_in_nar(on_disk) } else { on_disk }
}
