//! A tree on disk, removed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, Mode, OFlags};
use rustix::io::{Errno, Result};

/// Removes what has this name in an open directory, with all that is in it; nothing there is fine.
///
/// Directories of a store are read-only, so they are made writable first. Symlinks are removed, not followed.
///
/// # Errors
/// When something cannot be removed; what came before it is gone.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let mut open: Vec<(OwnedFd, CString, std::vec::IntoIter<CString>)> = Vec::new();
    if let Some(found) = file_or_directory(parent, name)? {
        open.push(found);
    }
    while let Some((directory, _, names)) = open.last_mut() {
        if let Some(name) = names.next() {
            if let Some(found) = file_or_directory(directory.as_fd(), &name)? {
                open.push(found);
            }
        } else if let Some((_, name, _)) = open.pop() {
            let parent = open.last().map_or(parent, |(directory, _, _)| directory.as_fd());
            ignore_missing(fs::unlinkat(parent, &name, AtFlags::REMOVEDIR))?;
        }
    }
    Ok(())
}

/// Removes a file; opens a directory, makes it writable and lists it.
fn file_or_directory(
    parent: BorrowedFd<'_>,
    name: &CStr,
) -> Result<Option<(OwnedFd, CString, std::vec::IntoIter<CString>)>> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        // What unlink says of a directory: the first on Linux, the second by POSIX.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::openat(parent, name, flags, Mode::empty()).or_else(|errno| {
        if errno != Errno::ACCESS {
            return Err(errno);
        }
        fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
        fs::openat(parent, name, flags, Mode::empty())
    })?;
    fs::fchmod(&directory, Mode::RWXU)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(Some((directory, name.to_owned(), names.into_iter())))
}

fn ignore_missing(result: Result<()>) -> Result<()> {
    if result == Err(Errno::NOENT) { Ok(()) } else { result }
}
