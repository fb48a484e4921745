//! What was left by those who were killed.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use tempfile::TempDir;

/// How old something is that nobody uses any more.
const LEFT: Duration = Duration::from_secs(24 * 3600);

/// A file in what may be removed: others may have directories that are called so, too. Who uses it holds a lock on that.
const MARK: &str = ".made-by-phoenix";

/// A directory for what is temporary, which is known as such also if whoever made it is killed.
#[derive(Debug)]
pub(crate) struct Made {
    directory: TempDir,
    _mark: File,
}

impl Made {
    /// Where it is, kept as if its maker had been killed.
    #[cfg(test)]
    pub(crate) fn leave(self) -> PathBuf {
        self.directory.keep()
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Where what is temporary is on all systems.
const USUAL: &str = "/tmp";

/// Does something in the first directory for what is temporary in which that can be done. A TMPDIR below the directory that
/// one works in comes last: that may be a source, with all that is in it. Where it can be done in none, it is told why not in
/// TMPDIR.
pub(crate) fn somewhere<T, E>(mut attempt: impl FnMut(&Path) -> Result<T, E>) -> Result<T, E> {
    let here = std::env::current_dir().ok();
    // One that is set to nothing is none, as for Nix.
    let set = Some(std::env::temp_dir()).filter(|set| !set.as_os_str().is_empty());
    let (first, other) = in_order(set.unwrap_or_else(|| PathBuf::from(USUAL)), here.as_deref());
    attempt(&first).or_else(|error| match other {
        Some(other) => attempt(&other).map_err(|last| if other == Path::new(USUAL) { error } else { last }),
        None => Err(error),
    })
}

/// What is tried first, and what is tried then.
fn in_order(set: PathBuf, here: Option<&Path>) -> (PathBuf, Option<PathBuf>) {
    let usual = PathBuf::from(USUAL);
    if set == usual {
        return (set, None);
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_below = |path: &Path| here.is_some_and(|here| real(path).starts_with(real(here)));
    if is_below(&set) && !is_below(&usual) { (usual, Some(set)) } else { (set, Some(usual)) }
}

/// Makes a directory for what is temporary; see [`make`].
pub(crate) fn make_temporary(prefix: &str) -> io::Result<Made> {
    somewhere(|place| make(place, prefix))
}

/// Makes a directory, and removes those that were made so before and left.
pub(crate) fn make(directory: &Path, prefix: &str) -> io::Result<Made> {
    remove_left(directory, prefix);
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(directory)?;
    let mark = File::create(made.path().join(MARK))?;
    // Where there are no locks its age has to do.
    let _ = mark.try_lock();
    Ok(Made { directory: made, _mark: mark })
}

/// Removes the directories that were made so, that nobody has changed for a day, and that nobody uses. What cannot be
/// removed stays.
fn remove_left(directory: &Path, prefix: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let mark = entry.path().join(MARK);
        let is_ours = mark.symlink_metadata().is_ok_and(|mark| mark.is_file());
        let age = entry.metadata().ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        if is_ours && age.is_some_and(|age| age > LEFT) && !is_used(&mark) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether somebody holds the lock.
fn is_used(mark: &Path) -> bool {
    File::open(mark).is_ok_and(|mark| matches!(mark.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_directory_for_what_is_temporary_is_in_no_source_if_there_is_another() {
        let places = |set: &str, here: &str| {
            let (first, other) = in_order(set.into(), Some(Path::new(here)));
            let places = std::iter::once(first).chain(other);
            places.map(|place| place.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(places("/tmp", "/tmp"), "/tmp");
        assert_eq!(places("/nowhere/tmp", "/nowhere/project"), "/nowhere/tmp /tmp");
        assert_eq!(places("/nowhere/project/tmp", "/nowhere/project"), "/tmp /nowhere/project/tmp");
        assert_eq!(places("/nowhere/tmp", "/"), "/nowhere/tmp /tmp");
    }

    #[test]
    fn what_is_old_goes_and_what_is_new_or_of_others_stays() {
        let directory = tempfile::tempdir().unwrap();
        let old = |path: &Path| {
            let then = SystemTime::now() - 2 * LEFT;
            File::open(path).unwrap().set_modified(then).unwrap();
        };
        let made = |prefix: &str| make(directory.path(), prefix).unwrap().leave();
        let used = make(directory.path(), "phoenix-a-").unwrap();
        let (left, fresh, another) = (made("phoenix-a-"), made("phoenix-a-"), made("phoenix-b-"));
        let users = directory.path().join("phoenix-a-users");
        fs::create_dir(&users).unwrap();
        fs::write(users.join("file"), "").unwrap();
        [&left, &another, &users].into_iter().for_each(|path| old(path));
        old(used.path());
        remove_left(directory.path(), "phoenix-a-");
        assert!(!left.exists());
        assert!(used.path().exists() && fresh.exists() && another.exists() && users.join("file").exists());
    }
}
