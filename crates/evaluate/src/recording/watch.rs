//! Which files are opened below a directory, by inotify.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::source::SourceTree;

/// Room for a hundred events at least: an event has 16 bytes and a name of at most 256 (Linux `NAME_MAX`).
const BUFFER: usize = 32 << 10;

/// What is opened below a directory.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: OwnedFd,
    directories: HashMap<i32, PathBuf>,
}

impl Watch {
    /// Watches all directories of a source.
    ///
    /// # Errors
    /// When the system does not let it, for one because there are too many.
    pub(crate) fn start(tree: &SourceTree) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut directories = HashMap::with_capacity(tree.directories.len());
        for directory in &tree.directories {
            let flags = WatchFlags::OPEN | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
            let watch = inotify::add_watch(&inotify, tree.root().join(directory), flags);
            let watch = watch.map_err(|error| match error {
                Errno::NOSPC => io::Error::other(format!(
                    "it has {} directories, more than the kernel watches (fs.inotify.max_user_watches)",
                    tree.directories.len()
                )),
                other => other.into(),
            })?;
            directories.insert(watch, directory.clone());
        }
        Ok(Self { inotify, directories })
    }

    /// Tells of each file that was opened since, by its path below the directory.
    ///
    /// # Errors
    /// When some may have been missed.
    pub(crate) fn opened(&mut self, each: &mut dyn FnMut(Vec<u8>)) -> io::Result<()> {
        let mut buffer = [const { MaybeUninit::uninit() }; BUFFER];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let kind = event.events();
            if kind.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
                return Err(io::Error::other("the kernel does not tell everything"));
            }
            // The names in a directory belong to the shape of the source.
            if kind.contains(ReadFlags::ISDIR) {
                continue;
            }
            if let (Some(directory), Some(name)) = (self.directories.get(&event.wd()), event.file_name()) {
                let name = std::ffi::OsStr::from_bytes(name.to_bytes());
                each(directory.join(name).as_os_str().as_bytes().to_vec());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;

    #[test]
    fn it_is_told_what_is_opened_and_not_what_is_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        fs::create_dir_all(at.join("a/b")).unwrap();
        for name in ["one", "a/two", "a/b/three", "a/other"] {
            fs::write(at.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("other", at.join("a/link")).unwrap();
        let tree = SourceTree::read(at).unwrap();
        let mut watch = Watch::start(&tree).unwrap();
        let mut opened = || {
            let mut all = Vec::new();
            watch.opened(&mut |path| all.push(String::from_utf8(path).unwrap())).unwrap();
            all
        };
        assert!(opened().is_empty());
        fs::read(at.join("a/b/three")).unwrap();
        fs::read(at.join("one")).unwrap();
        fs::read_dir(at.join("a")).unwrap().for_each(drop);
        assert!(at.join("a/two").exists() && !at.join("a/none").exists());
        assert_eq!(opened(), ["a/b/three", "one"]);
        fs::read(at.join("a/link")).unwrap();
        assert_eq!(opened(), ["a/other"]);
    }

    #[test]
    fn what_is_missed_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let tree = SourceTree::read(directory.path()).unwrap();
        let mut watch = Watch::start(&tree).unwrap();
        let most: usize =
            fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        // The same as the last is told once.
        for _ in 0..=most.min(100_000) / 2 {
            fs::read(directory.path().join("one")).unwrap();
            fs::read(directory.path().join("two")).unwrap();
        }
        assert!(watch.opened(&mut |_| ()).is_err() || most > 100_000);
    }
}
