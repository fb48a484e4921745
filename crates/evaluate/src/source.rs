//! The source of a flake, as it lies in the store.

use data_encoding::HEXLOWER;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use sha2::{Digest, Sha256};

use crate::across::{Content, Item, content};

/// More entries than are looked at; a larger source is evaluated each time it changes.
const MOST_ENTRIES: usize = 200_000;

/// The names in a source, and what they are, but not what is in the files.
#[derive(Debug)]
pub(crate) struct SourceTree {
    root: PathBuf,
    /// All directories, relative to the root, which is the first and empty.
    pub(crate) directories: Vec<PathBuf>,
    /// A hash of all names, types, links and what may be executed.
    pub(crate) shape: String,
}

impl SourceTree {
    /// Looks at everything below a directory.
    ///
    /// # Errors
    /// When something cannot be looked at, or there is too much.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut directories = vec![PathBuf::new()];
        let (mut next, mut entries) = (0, 0);
        while let Some(directory) = directories.get(next).cloned() {
            next += 1;
            let mut names: Vec<_> = fs::read_dir(root.join(&directory))?.collect::<Result<_, _>>()?;
            names.sort_by_key(fs::DirEntry::file_name);
            entries += names.len();
            if entries > MOST_ENTRIES {
                return Err(io::Error::other(format!("it has more than {MOST_ENTRIES} files")));
            }
            hasher.update((names.len() as u64).to_le_bytes());
            for entry in names {
                let kind = entry.file_type()?;
                let (sort, text): (u8, Vec<u8>) = if kind.is_dir() {
                    directories.push(directory.join(entry.file_name()));
                    (b'd', Vec::new())
                } else if kind.is_symlink() {
                    (b'l', fs::read_link(entry.path())?.into_os_string().into_vec())
                } else {
                    let may_run = entry.metadata()?.permissions().mode() & 0o111 != 0;
                    (if may_run { b'x' } else { b'f' }, Vec::new())
                };
                hasher.update([sort]);
                for part in [entry.file_name().as_bytes(), &text] {
                    hasher.update((part.len() as u64).to_le_bytes());
                    hasher.update(part);
                }
            }
        }
        let shape = HEXLOWER.encode(&hasher.finalize());
        Ok(Self { root: root.to_owned(), directories, shape })
    }

    /// What is in a file; nothing if that cannot be told.
    pub(crate) fn content(&self, item: &Item) -> Option<Content> {
        let Item::File(path) = item else { return None };
        let path = self.root.join(Path::new(std::ffi::OsStr::from_bytes(path)));
        Some(content(&fs::read(path).ok()?))
    }

    /// The file that a path leads to, if that is in the source.
    pub(crate) fn file(&self, path: &str) -> Option<Vec<u8>> {
        let (root, file) = (fs::canonicalize(&self.root).ok()?, fs::canonicalize(self.root.join(path)).ok()?);
        Some(file.strip_prefix(root).ok()?.as_os_str().as_bytes().to_vec())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(change: impl Fn(&Path)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        fs::create_dir(at.join("a")).unwrap();
        fs::write(at.join("a/file"), "1").unwrap();
        fs::write(at.join("b"), "1").unwrap();
        change(at);
        SourceTree::read(at).unwrap().shape
    }

    #[test]
    fn a_shape_is_of_everything_but_what_is_in_files() {
        let plain = shape(|_| ());
        assert_eq!(plain, shape(|_| ()));
        assert_eq!(plain, shape(|at| fs::write(at.join("b"), "other").unwrap()));
        let changes: [&dyn Fn(&Path); 6] = [
            &|at| fs::write(at.join("c"), "").unwrap(),
            &|at| fs::remove_file(at.join("b")).unwrap(),
            &|at| fs::rename(at.join("a/file"), at.join("a/other")).unwrap(),
            &|at| fs::create_dir(at.join("a/empty")).unwrap(),
            &|at| fs::set_permissions(at.join("b"), std::fs::Permissions::from_mode(0o755)).unwrap(),
            &|at| {
                fs::remove_file(at.join("b")).unwrap();
                std::os::unix::fs::symlink("a/file", at.join("b")).unwrap();
            },
        ];
        for change in changes {
            assert_ne!(plain, shape(change));
        }
        assert_ne!(
            shape(|at| std::os::unix::fs::symlink("a", at.join("l")).unwrap()),
            shape(|at| std::os::unix::fs::symlink("b", at.join("l")).unwrap())
        );
    }

    #[test]
    fn what_is_in_a_file_is_told_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("x"), "1").unwrap();
        let tree = SourceTree::read(directory.path()).unwrap();
        assert_eq!(tree.content(&Item::File(b"x".to_vec())), Some(content(b"1")));
        assert_eq!(tree.content(&Item::File(b"y".to_vec())), None);
    }
}
