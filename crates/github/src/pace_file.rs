//! The pace as all tasks of this process keep it, and all processes of a job that share a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::pace::{Budget, Lane, Pace, micros};

/// How often a file that another process holds is tried; it is held for microseconds.
const TRIES: u32 = 50;

/// The wait between two tries.
const WAIT: Duration = Duration::from_millis(1);

/// The most that is read of the file.
const LARGEST: u64 = 4096;

/// The pace of requests.
#[derive(Debug)]
pub(crate) struct Pacer {
    budget: Budget,
    file: Option<PathBuf>,
    own: Mutex<Pace>,
}

impl Pacer {
    pub(crate) fn new(budget: Budget, file: Option<PathBuf>) -> Self {
        Self { budget, file, own: Mutex::default() }
    }

    /// Waits until one more request may go out.
    ///
    /// # Errors
    ///
    /// With the wait that it would take, when that goes beyond `deadline`.
    pub(crate) async fn turn(&self, lane: Lane, deadline: Instant) -> Result<(), Duration> {
        let now = now();
        let latest = now + micros(deadline.saturating_duration_since(Instant::now()));
        let taken = self.with(|pace| pace.take(lane, self.budget, now, latest));
        let until = |at: u64| Duration::from_micros(at.saturating_sub(now));
        match taken {
            Ok(at) if at <= now => Ok(()),
            Ok(at) => {
                tokio::time::sleep(until(at)).await;
                Ok(())
            }
            Err(at) => Err(until(at)),
        }
    }

    /// The service does not want to be asked for so long.
    pub(crate) fn pause(&self, lane: Lane, by: Duration) {
        let until = now() + micros(by);
        self.with(|pace| pace.pause(lane, until));
    }

    /// Changes the pace, in the file where there is one. If that cannot be had, this process keeps to a pace
    /// of its own: the service would still say when it is too much.
    fn with<T>(&self, change: impl Fn(&mut Pace) -> T) -> T {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = self.file.as_deref().and_then(|file| in_file(file, &change).ok());
        shared.unwrap_or_else(|| change(&mut own))
    }
}

fn in_file<T>(path: &Path, change: impl FnOnce(&mut Pace) -> T) -> io::Result<T> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    lock(&file)?;
    let mut text = String::new();
    (&mut file).take(LARGEST).read_to_string(&mut text)?;
    let mut pace = Pace::of(&text);
    let value = change(&mut pace);
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(pace.text().as_bytes())?;
    // Closing it lets go of it.
    Ok(value)
}

fn lock(file: &File) -> io::Result<()> {
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(WAIT),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

fn now() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_that_share_a_file_share_the_budget() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pace");
        let pacer = || Pacer::new(Budget { creates: 4, lookups: 4 }, Some(file.clone()));
        let (one, other) = (pacer(), pacer());
        let soon = || Instant::now() + Duration::from_secs(1);
        assert_eq!(one.turn(Lane::Create, soon()).await, Ok(()));
        assert_eq!(other.turn(Lane::Create, soon()).await, Ok(()));
        assert!(one.turn(Lane::Create, soon()).await.unwrap_err() > Duration::from_secs(10));
        assert!(other.turn(Lane::Create, soon()).await.is_err());
        one.pause(Lane::Lookup, Duration::from_secs(60));
        assert!(other.turn(Lane::Lookup, soon()).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_had_is_gone_without() {
        let directory = tempfile::tempdir().unwrap();
        let pacer =
            Pacer::new(Budget { creates: 2, lookups: 2 }, Some(directory.path().join("no/such/file")));
        let soon = Instant::now() + Duration::from_secs(1);
        assert_eq!(pacer.turn(Lane::Create, soon).await, Ok(()));
        assert!(pacer.turn(Lane::Create, soon).await.is_err());
        // One that another process does not let go of.
        let path = directory.path().join("held");
        let held = File::create(&path).unwrap();
        held.lock().unwrap();
        let pacer = Pacer::new(Budget::default(), Some(path));
        assert_eq!(pacer.turn(Lane::Create, soon).await, Ok(()));
    }
}
