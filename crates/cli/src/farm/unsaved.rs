//! What is built and not kept yet, as a list in a file: a worker may be ended before it has kept it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use phoenix_model::StorePath;
use phoenix_schedule::farm::{Record, Returned, Slot, UnitId};
use phoenix_work::{Cursor, LedgerError};

use crate::blobs::runtime;
use crate::error::CommandError;
use crate::ledgers::{self, PlanMark};

/// The list of a worker.
pub(super) struct Unsaved {
    file: Option<PathBuf>,
}

impl Unsaved {
    /// One in a file; without one, nothing is written.
    pub(super) fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned) }
    }

    /// Lists these, and nothing else any more. Some of them may not be built yet.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(super) fn list<'p>(&self, paths: impl Iterator<Item = &'p StorePath>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let text: String = paths.map(|path| format!("{path}\n")).collect();
        // Whoever ends the worker ends it between two lists, and not in one.
        let part = file.with_extension("part");
        fs::write(&part, text)?;
        fs::rename(&part, file)
    }
}

/// What is in the list; nothing where there is none.
pub(crate) fn read(file: &Path) -> io::Result<Vec<StorePath>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    Ok(text.lines().filter_map(|line| StorePath::parse(line).ok()).collect())
}

/// Gives back what the worker of a slot was at when it was ended, and says that it has left.
///
/// # Errors
/// When the ledger does not answer.
pub(crate) fn give_back(ledger: &str, mark: &PlanMark, slot: Slot) -> Result<(), CommandError> {
    let failed =
        |error: LedgerError| CommandError::because("what the worker was at is not given back", &error);
    runtime()?.block_on(async {
        let ledger = ledgers::open(ledger, mark).await?;
        let records = ledger.since(&mut Cursor::default()).await.map_err(failed)?;
        for record in records_of_one_who_left(&records, slot) {
            ledger.post(&record).await.map_err(failed)?;
        }
        Ok(())
    })
}

/// What a worker would have written that was ended: that it was told to stop at what it has claimed last and not ended.
fn records_of_one_who_left(records: &[Record], slot: Slot) -> Vec<Record> {
    let mut open: BTreeMap<UnitId, u32> = BTreeMap::new();
    for record in records {
        if let Record::Claim { unit, attempt, slot: by } = record
            && *by == slot
        {
            let last = open.entry(*unit).or_default();
            *last = (*last).max(*attempt);
        }
    }
    open.retain(|unit, attempt| {
        !records.iter().any(|record| match record {
            Record::Outcome(outcome) => outcome.unit == *unit,
            Record::Returned(returned) => returned.unit == *unit && returned.attempt == *attempt,
            // Somebody else has it by now.
            Record::Claim { unit: other, attempt: later, .. } => other == unit && later > attempt,
            Record::Joined { .. } | Record::Left { .. } => false,
        })
    });
    let returned = open.into_iter().map(|(unit, attempt)| given_back(unit, attempt, slot));
    returned.chain([Record::Left { slot }]).collect()
}

/// That a unit was left because its worker was told to stop.
fn given_back(unit: UnitId, attempt: u32, slot: Slot) -> Record {
    let reason = "the worker was ended".to_owned();
    Record::Returned(Returned { unit, attempt, slot, reason, stopped: true, built: Vec::new(), parcel: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_ended_is_given_back_unless_others_have_it() {
        let slot = Slot(1);
        let claim = |unit, attempt, slot| Record::Claim { unit: UnitId(unit), attempt, slot };
        let returned = |unit, attempt| given_back(UnitId(unit), attempt, slot);
        let records = [
            claim(1, 1, slot),
            claim(2, 1, slot),
            claim(2, 2, Slot(0)),
            claim(3, 1, slot),
            returned(3, 1),
            claim(4, 1, Slot(0)),
            claim(4, 2, slot),
        ];
        let left = Record::Left { slot };
        assert_eq!(records_of_one_who_left(&records, slot), [returned(1, 1), returned(4, 2), left.clone()]);
        assert_eq!(records_of_one_who_left(&[], slot), [left]);
    }

    #[test]
    fn the_last_list_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("list");
        assert_eq!(read(&file).unwrap(), []);
        let paths: Vec<_> = ["a", "b"]
            .map(|name| StorePath::parse(&format!("/nix/store/{}-{name}", "0".repeat(32))).unwrap())
            .into();
        let list = Unsaved::new(Some(&file));
        list.list(paths.iter()).unwrap();
        assert_eq!(read(&file).unwrap(), paths);
        list.list(paths.iter().skip(1)).unwrap();
        assert_eq!(read(&file).unwrap(), paths[1..]);
        list.list([].iter()).unwrap();
        assert_eq!(read(&file).unwrap(), []);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        Unsaved::new(None).list(paths.iter()).unwrap();
    }
}
