//! A ledger in a directory of a file system that all workers share.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use phoenix_schedule::farm::{Record, Slot, UnitId};
use tempfile::NamedTempFile;

use crate::log::Log;
use crate::{Cursor, Ledger, LedgerError};

/// Records as numbered files: `log/0000000000`, `log/0000000001`, …, each a line of JSON.
///
/// A record is written beside them and linked to the next free number in one step that never overwrites, by
/// whoever has read all before it. So all processes see the same records in the same order, one of several
/// claims is the first, and nothing is ever seen half. A file that holds no record (a disk that lost power)
/// counts as none. Heartbeats are files of their own, which are replaced.
#[derive(Debug, Clone)]
pub struct Directory {
    location: String,
    kept: Arc<Kept>,
}

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// What was read so far, and the number of the next file.
    read: Mutex<(Log, u64)>,
}

impl Directory {
    /// The ledger in a directory, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, LedgerError> {
        let path = path.into();
        let location = format!("dir:{}", path.display());
        let made = ["log", "beats", "drafts"].iter().try_for_each(|name| fs::create_dir_all(path.join(name)));
        if let Err(error) = made {
            let problem = format!("{error}; it needs a directory that may be written");
            return Err(LedgerError::new(location, "making its directory", problem));
        }
        Ok(Self { location, kept: Arc::new(Kept { path, read: Mutex::default() }) })
    }

    /// Runs what waits for the disk where waiting is no harm.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: impl FnOnce() -> String,
        work: impl FnOnce(&Kept) -> io::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let kept = Arc::clone(&self.kept);
        let done = tokio::task::spawn_blocking(move || work(&kept)).await;
        let problem = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Err(LedgerError::new(self.location.clone(), &doing(), problem))
    }
}

impl Kept {
    /// Writes a record, unless one with its key stands; whether it, or itself written before, stands.
    fn write(&self, record: &Record) -> io::Result<bool> {
        let mut draft = None;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.catch_up(&mut read)?;
            if let Some(ours) = read.0.standing(record) {
                return Ok(ours);
            }
            let file = match draft.take() {
                Some(file) => file,
                None => self.draft(&serde_json::to_vec(record)?)?,
            };
            match file.persist_noclobber(self.numbered(read.1)) {
                Ok(_) => {
                    read.0.push(record.clone());
                    read.1 += 1;
                    return Ok(true);
                }
                // Somebody else was faster; what they wrote may be about the same.
                Err(error) if error.error.kind() == ErrorKind::AlreadyExists => draft = Some(error.file),
                Err(error) => return Err(error.error),
            }
        }
    }

    /// Reads the files that are new.
    fn catch_up(&self, (log, next): &mut (Log, u64)) -> io::Result<()> {
        loop {
            match fs::read(self.numbered(*next)) {
                Ok(text) => {
                    if let Ok(record) = serde_json::from_slice(&text) {
                        log.push(record);
                    }
                    *next += 1;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return self.is_there(),
                Err(error) => return Err(error),
            }
        }
    }

    /// A ledger that somebody removed has no news, which is not the same as having nothing new.
    fn is_there(&self) -> io::Result<()> {
        fs::metadata(self.path.join("log")).map(drop)
    }

    fn numbered(&self, number: u64) -> PathBuf {
        self.path.join("log").join(format!("{number:010}"))
    }

    fn draft(&self, text: &[u8]) -> io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new_in(self.path.join("drafts"))?;
        file.write_all(text)?;
        file.write_all(b"\n")?;
        Ok(file)
    }

    fn beat(&self, slot: Slot, count: u64) -> io::Result<()> {
        let path = self.path.join("beats").join(slot.0.to_string());
        self.draft(count.to_string().as_bytes())?.persist(path).map(drop).map_err(|error| error.error)
    }

    fn beats(&self) -> io::Result<Vec<(Slot, u64)>> {
        let mut beats = Vec::new();
        for entry in fs::read_dir(self.path.join("beats"))? {
            beats.extend(beat_of(&entry?.path()));
        }
        beats.sort_unstable();
        Ok(beats)
    }
}

fn beat_of(path: &Path) -> Option<(Slot, u64)> {
    let slot = path.file_name()?.to_str()?.parse().ok()?;
    Some((Slot(slot), fs::read_to_string(path).ok()?.trim().parse().ok()?))
}

#[async_trait::async_trait]
impl Ledger for Directory {
    fn location(&self) -> &str {
        &self.location
    }

    async fn claim(&self, unit: UnitId, attempt: u32, slot: Slot) -> Result<bool, LedgerError> {
        let record = Record::Claim { unit, attempt, slot };
        self.blocking(|| format!("claiming unit {}", unit.0), move |kept| kept.write(&record)).await
    }

    async fn post(&self, record: &Record) -> Result<bool, LedgerError> {
        let record = record.clone();
        self.blocking(|| "posting a record".to_owned(), move |kept| kept.write(&record)).await
    }

    async fn since(&self, cursor: &mut Cursor) -> Result<Vec<Record>, LedgerError> {
        let mut moved = *cursor;
        let (records, moved) = self
            .blocking(
                || "looking at what is new".to_owned(),
                move |kept| {
                    let mut read = kept.read.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.catch_up(&mut read)?;
                    Ok((read.0.since(&mut moved), moved))
                },
            )
            .await?;
        *cursor = moved;
        Ok(records)
    }

    async fn beat(&self, slot: Slot, count: u64) -> Result<(), LedgerError> {
        self.blocking(|| "showing that it is alive".to_owned(), move |kept| kept.beat(slot, count)).await
    }

    async fn beats(&self) -> Result<Vec<(Slot, u64)>, LedgerError> {
        self.blocking(|| "looking who is alive".to_owned(), Kept::beats).await
    }
}
