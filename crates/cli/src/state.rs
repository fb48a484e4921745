//! What is kept between runs: their records, and how long builds took.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use phoenix_schedule::Estimates;

use crate::setup::var;

/// How many runs are kept.
const RUNS_KEPT: usize = 20;

/// Where phoenix keeps its state: `$XDG_STATE_HOME/phoenix`, else `~/.local/state/phoenix`.
#[derive(Debug, Clone)]
pub(crate) struct State {
    directory: PathBuf,
    /// It lies where others may write too.
    shared: bool,
    /// Held while the run goes on, so that no other forgets it.
    lock: Option<Arc<std::fs::File>>,
}

/// The file in a run's directory that is locked while the run goes on.
const LOCK: &str = "lock";

impl State {
    pub(crate) fn open() -> Self {
        let home = var("XDG_STATE_HOME")
            .map(PathBuf::from)
            .or_else(|| var("HOME").map(|home| Path::new(&home).join(".local/state")));
        match home {
            Some(home) => Self { directory: home.join("phoenix"), shared: false, lock: None },
            // Without a home: a place of this user's own among everybody's.
            None => {
                let name = format!("phoenix-{}", rustix::process::getuid().as_raw());
                Self { directory: std::env::temp_dir().join(name), shared: true, lock: None }
            }
        }
    }

    /// Makes a new directory for a run and forgets the oldest runs, less those that still go on.
    pub(crate) fn new_run(&mut self) -> io::Result<PathBuf> {
        let runs = self.directory.join("runs");
        if self.shared {
            self.take_for_own()?;
        }
        fs::create_dir_all(&runs)?;
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ");
        // Two runs may start in the same second.
        let run = runs.join(format!("{now}-{}", std::process::id()));
        fs::create_dir_all(run.join("logs"))?;
        let lock = std::fs::File::create(run.join(LOCK))?;
        // Where files cannot be locked, the oldest run is taken for one that is over.
        let _ = lock.try_lock();
        self.lock = Some(Arc::new(lock));
        let mut old: Vec<PathBuf> =
            fs::read_dir(&runs)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
        old.sort();
        let surplus = old.len().saturating_sub(RUNS_KEPT);
        for directory in old.into_iter().take(surplus).filter(|directory| !goes_on(directory)) {
            // Another run may be forgetting it too.
            let _ = fs::remove_dir_all(directory);
        }
        Ok(run)
    }

    /// Makes the directory for this user alone; one that somebody else made is not used.
    fn take_for_own(&self) -> io::Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        let found = fs::symlink_metadata(&self.directory)?;
        if found.is_dir() && found.uid() == rustix::process::getuid().as_raw() {
            return Ok(());
        }
        Err(io::Error::other(format!("{} belongs to somebody else", self.directory.display())))
    }

    /// How long builds took; nothing when that is not known or cannot be read.
    pub(crate) fn estimates(&self) -> Estimates {
        let text = fs::read_to_string(self.directory.join("estimates.json")).unwrap_or_default();
        Estimates::from_json(&text).unwrap_or_default()
    }

    /// Adds what was learned to what is known by now; another run may have learned meanwhile.
    pub(crate) fn learn(&self, built: &[(phoenix_model::StorePath, f64)]) -> io::Result<()> {
        if built.is_empty() {
            return Ok(());
        }
        let mut estimates = self.estimates();
        for (drv_path, seconds) in built {
            estimates.learn(drv_path, *seconds);
        }
        fs::create_dir_all(&self.directory)?;
        let file = tempfile::NamedTempFile::new_in(&self.directory)?;
        fs::write(file.path(), estimates.to_json())?;
        file.persist(self.directory.join("estimates.json")).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Whether the run of a directory still goes on.
fn goes_on(run: &Path) -> bool {
    let lock = std::fs::File::open(run.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_goes_on_is_not_forgotten_whatever_number_comes_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let state = || State { directory: directory.path().to_owned(), shared: false, lock: None };
        let at = |number: usize| directory.path().join(format!("runs/2000-01-01T00-00-{number:02}Z-1"));
        // One that goes on, and one that is over, from long ago.
        for number in 0..2 {
            fs::create_dir_all(at(number)).unwrap();
        }
        let held = std::fs::File::create(at(0).join(LOCK)).unwrap();
        held.lock().unwrap();
        for number in 2..30 {
            fs::create_dir_all(at(number)).unwrap();
        }
        let mut last = state();
        let run = last.new_run().unwrap();
        assert!(at(0).exists() && !at(1).exists() && run.exists());
        drop(held);
        let _ = state().new_run().unwrap();
        assert!(!at(0).exists());
        assert!(goes_on(&run));
        drop(last);
        assert!(!goes_on(&run));
    }
}
