//! Folders of the file system, entered step by step so that no symbolic link leads out of the depot.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::directory::problem;
use crate::{BlobName, Problem};

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

/// What is under a name in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// Anything else; a symbolic link, too.
    Other,
}

impl Folder {
    /// The depot's own directory, which may be reached through symbolic links; none if there is none.
    pub(super) fn root(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        absent(openat(CWD, path, flags, Mode::empty()).map(Self))
    }

    /// The depot's own directory, made if it is not there.
    pub(super) fn made_root(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Self::root(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The folder that a blob of this name is in; none if there is none.
    pub(super) fn holding(root: &Path, name: &BlobName) -> io::Result<Option<Self>> {
        let Some(mut folder) = Self::root(root)? else { return Ok(None) };
        for segment in name.folders() {
            match folder.enter(segment)? {
                Some(next) => folder = next,
                None => return Ok(None),
            }
        }
        Ok(Some(folder))
    }

    /// The folder that a blob of this name is to be in, made if it is not there.
    pub(super) fn making(&self, name: &BlobName) -> io::Result<Self> {
        let mut folder = Self(self.0.try_clone()?);
        for segment in name.folders() {
            folder = folder.make(segment)?;
        }
        Ok(folder)
    }

    /// A folder in this one; none if there is none: a file or a symbolic link is not one.
    pub(super) fn enter(&self, segment: &str) -> io::Result<Option<Self>> {
        match self.entered(segment) {
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(None),
            entered => absent(entered),
        }
    }

    fn entered(&self, segment: &str) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.0, segment, flags, Mode::empty()).map(Self)
    }

    /// A folder in this one, made if it is not there.
    pub(super) fn make(&self, segment: &str) -> io::Result<Self> {
        match mkdirat(&self.0, segment, Mode::from_raw_mode(0o777)) {
            Ok(()) => self.sync()?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        match self.entered(segment) {
            // What the system says to a symbolic link differs between systems.
            Err(Errno::LOOP) => Err(Errno::NOTDIR.into()),
            entered => Ok(entered?),
        }
    }

    /// A new file in this folder.
    pub(super) fn create(&self, leaf: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, leaf, flags, Mode::from_raw_mode(0o666))?.into())
    }

    /// A file of this folder, to be read; none if there is none, or if it is something else.
    pub(super) fn open(&self, leaf: &str) -> io::Result<Option<File>> {
        // Opening a pipe must not wait for somebody to write to it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = match openat(&self.0, leaf, flags, Mode::empty()) {
            Ok(file) => file.into(),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(file.metadata()?.is_file().then_some(file))
    }

    /// What is under a name in this folder.
    pub(super) fn stat(&self, leaf: &str) -> io::Result<Option<(Kind, Stat)>> {
        let found = absent(statat(&self.0, leaf, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(found.map(|stat| (kind(FileType::from_raw_mode(stat.st_mode)), stat)))
    }

    /// The names in this folder, in no order; those that are not UTF-8 are not a depot's.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Removes a file; one that is not there is as good.
    pub(super) fn unlink(&self, leaf: &str) -> io::Result<()> {
        absent(unlinkat(&self.0, leaf, AtFlags::empty())).map(|_| ())
    }

    /// Puts a file of this folder into another under a name that nothing has yet.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when something has, `NotFound` when the file or the other folder was removed.
    pub(super) fn move_new(&self, leaf: &str, to: &Self, name: &str) -> io::Result<()> {
        match rename_new(self, leaf, to, name) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_new(leaf, to, name),
            renamed => Ok(renamed?),
        }
    }

    /// The same where the file system cannot rename like that: the file stays where it was as well.
    pub(super) fn link_new(&self, leaf: &str, to: &Self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.0, leaf, &to.0, name, AtFlags::empty())?)
    }

    /// Waits until what happened to the folder itself is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.0) {
            // Some file systems do not do that to folders.
            Err(Errno::INVAL | Errno::BADF | Errno::OPNOTSUPP) => Ok(()),
            synced => Ok(synced?),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_new(from: &Folder, leaf: &str, to: &Folder, name: &str) -> Result<(), Errno> {
    rustix::fs::renameat_with(&from.0, leaf, &to.0, name, rustix::fs::RenameFlags::NOREPLACE)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_new(_: &Folder, _: &str, _: &Folder, _: &str) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

fn kind(of: FileType) -> Kind {
    match of {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        _ => Kind::Other,
    }
}

/// What is not there is no error.
fn absent<T>(result: Result<T, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a blob, and the folders above it that are empty then.
pub(super) fn remove(root: &Path, name: &BlobName) -> Result<(), Problem> {
    let at = |error: &io::Error| problem(error, &root.join(name.as_str()));
    let Some(mut folder) = Folder::root(root).map_err(|error| at(&error))? else { return Ok(()) };
    let mut above = Vec::new();
    for segment in name.folders() {
        let Some(next) = folder.enter(segment).map_err(|error| at(&error))? else { return Ok(()) };
        above.push((std::mem::replace(&mut folder, next), segment));
    }
    match folder.stat(name.leaf()).map_err(|error| at(&error))? {
        Some((Kind::File, _)) => folder.unlink(name.leaf()).map_err(|error| at(&error))?,
        _ => return Ok(()),
    }
    for (folder, segment) in above.iter().rev() {
        // Somebody may be about to fill it again; whoever creates a blob makes its folders again then.
        if unlinkat(&folder.0, *segment, AtFlags::REMOVEDIR).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways to put a file in place do the same where both can be had.
    #[test]
    fn nothing_is_replaced_either_way() {
        for way in [Folder::move_new, Folder::link_new] {
            let all = tempfile::tempdir().unwrap();
            let root = Folder::made_root(&all.path().join("a/b")).unwrap();
            let inner = root.make("inner").unwrap();
            for (leaf, content) in [("one", "1"), ("two", "2")] {
                io::Write::write_all(&mut root.create(leaf).unwrap(), content.as_bytes()).unwrap();
            }
            way(&root, "one", &inner, "name").unwrap();
            assert_eq!(way(&root, "two", &inner, "name").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(way(&root, "none", &inner, "other").unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(std::fs::read_to_string(all.path().join("a/b/inner/name")).unwrap(), "1");
            root.unlink("one").unwrap();
            root.unlink("one").unwrap();
            assert_eq!(std::fs::read_to_string(all.path().join("a/b/inner/name")).unwrap(), "1");
        }
    }
}
