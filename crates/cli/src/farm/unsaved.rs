//! What a worker has yet to keep, to end and to say, as a list in a file: it may be ended before it has done so.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;
use phoenix_model::{ActionVerdict, StorePath};
use phoenix_schedule::farm::{Acted, FarmPlan, Outcome, Record, Returned, Slot, UnitId, action_of};
use phoenix_work::{Cursor, LedgerError};

use crate::blobs::runtime;
use crate::error::CommandError;
use crate::ledgers::{self, PlanMark};
use crate::recorder::now;

/// The line of a list that says that its worker has begun, and not yet that it leaves.
const AT_WORK: &str = "at work";

/// The first word of a line that names what was claimed: a unit, and the number of the attempt.
const CLAIM: &str = "claim";

/// The list of a worker. Clones are the same list.
#[derive(Debug, Clone)]
pub(crate) struct Unsaved(Option<Arc<List>>);

#[derive(Debug)]
struct List {
    file: PathBuf,
    left: Mutex<Undone>,
}

/// What a worker has yet to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Undone {
    /// Whether it has begun, and not yet said that it leaves.
    at_work: bool,
    /// What it has claimed and not ended, each with the number of the attempt.
    claims: BTreeSet<(UnitId, u32)>,
    /// What it has built and not kept. Some of it may not be built yet.
    pub(crate) paths: Vec<StorePath>,
}

impl Unsaved {
    /// One in a file; without one, nothing is written.
    pub(super) fn new(file: Option<&Path>) -> Self {
        Self(file.map(|file| Arc::new(List { file: file.to_owned(), left: Mutex::default() })))
    }

    /// Lists these paths, and no others any more.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(super) fn list<'p>(&self, paths: impl Iterator<Item = &'p StorePath>) -> io::Result<()> {
        self.change(|left| left.paths = paths.cloned().collect())
    }

    /// Takes in that an attempt was claimed.
    pub(super) fn claimed(&self, unit: UnitId, attempt: u32) {
        // What cannot be written is told when paths are listed.
        let _ = self.change(|left| left.claims.extend([(unit, attempt)]));
    }

    /// Takes in what the ledger was told.
    pub(super) fn told(&self, record: &Record) {
        let _ = self.change(|left| match record {
            Record::Joined { .. } => left.at_work = true,
            Record::Left { .. } => left.at_work = false,
            Record::Outcome(Outcome { unit, attempt, .. })
            | Record::Returned(Returned { unit, attempt, .. }) => {
                left.claims.remove(&(*unit, *attempt));
            }
            Record::Claim { .. } => {}
        });
    }

    /// The worker has ended, and nothing is left to do for it.
    pub(crate) fn clear(&self) {
        let _ = self.change(|left| *left = Undone::default());
    }

    fn change(&self, change: impl FnOnce(&mut Undone)) -> io::Result<()> {
        let Some(list) = &self.0 else { return Ok(()) };
        let mut left = list.left.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut left);
        // Whoever ends the worker ends it between two lists, and not in one.
        let part = list.file.with_extension("part");
        fs::write(&part, left.text())?;
        fs::rename(&part, &list.file)
    }
}

impl Undone {
    /// What is in a list; nothing where there is none.
    pub(crate) fn read(file: &Path) -> io::Result<Self> {
        match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            text => Ok(Self::of(&text?)),
        }
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the lines of a list say; others say nothing.
    fn of(text: &str) -> Self {
        let mut undone = Self::default();
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                _ if line == AT_WORK => undone.at_work = true,
                [CLAIM, unit, attempt] => {
                    let claim = unit.parse().ok().map(UnitId).zip(attempt.parse().ok());
                    undone.claims.extend(claim);
                }
                _ => undone.paths.extend(StorePath::parse(line)),
            }
        }
        undone
    }

    fn text(&self) -> String {
        let at_work = self.at_work.then(|| format!("{AT_WORK}\n"));
        let claims = self.claims.iter().map(|(unit, attempt)| format!("{CLAIM} {} {attempt}\n", unit.0));
        let paths = self.paths.iter().map(|path| format!("{path}\n"));
        at_work.into_iter().chain(claims).chain(paths).collect()
    }
}

/// Gives back what the worker of a slot was at when it was ended, and says that it has left. Of claims that no other has
/// heard of yet, only its list tells.
///
/// # Errors
/// When the ledger does not answer.
pub(crate) fn give_back(
    ledger: &str,
    mark: &PlanMark,
    plan: &FarmPlan,
    slot: Slot,
    undone: &Undone,
) -> Result<(), CommandError> {
    let failed =
        |error: LedgerError| CommandError::because("what the worker was at is not given back", &error);
    let is_action = |unit| action_of(plan, unit).is_some();
    runtime()?.block_on(async {
        let ledger = ledgers::open(ledger, mark).await?;
        let records = ledger.since(&mut Cursor::default()).await.map_err(failed)?;
        for record in records_of_one_who_left(&records, &undone.claims, slot, &is_action) {
            ledger.post(&record).await.map_err(failed)?;
        }
        Ok(())
    })
}

/// What a worker would have written that was ended: that it was told to stop at what it has claimed last and not ended.
fn records_of_one_who_left(
    records: &[Record],
    listed: &BTreeSet<(UnitId, u32)>,
    slot: Slot,
    is_action: &dyn Fn(UnitId) -> bool,
) -> Vec<Record> {
    let seen = records.iter().filter_map(|record| match record {
        Record::Claim { unit, attempt, slot: by } if *by == slot => Some((*unit, *attempt)),
        _ => None,
    });
    let mut open: BTreeMap<UnitId, u32> = BTreeMap::new();
    for (unit, attempt) in seen.chain(listed.iter().copied()) {
        let last = open.entry(unit).or_default();
        *last = (*last).max(attempt);
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
    let ends = open.into_iter().map(|(unit, attempt)| match is_action(unit) {
        true => broken_off(unit, attempt, slot),
        false => given_back(unit, attempt, slot),
    });
    ends.chain([Record::Left { slot, spent: false }]).collect()
}

/// That a unit was left because its worker was told to stop.
fn given_back(unit: UnitId, attempt: u32, slot: Slot) -> Record {
    let reason = "the worker was ended".to_owned();
    Record::Returned(Returned { unit, attempt, slot, reason, stopped: true, built: Vec::new(), parcel: None })
}

/// That an action was broken off. Nobody begins it anew: nobody knows how far it came.
fn broken_off(unit: UnitId, attempt: u32, slot: Slot) -> Record {
    let verdict = ActionVerdict::Cancelled;
    let action = Some(Acted { verdict, seconds: None, log: Vec::new(), ended: Some(now()) });
    Record::Outcome(Outcome {
        unit,
        attempt,
        slot,
        built: Vec::new(),
        failed: Vec::new(),
        parcel: None,
        action,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<StorePath> {
        let path = |name: &&str| StorePath::parse(&format!("/nix/store/{}-{name}", "0".repeat(32))).unwrap();
        names.iter().map(path).collect()
    }

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
        let left = Record::Left { slot, spent: false };
        let who_left = |records: &[Record], listed: &[(u32, u32)]| {
            let listed = listed.iter().map(|&(unit, attempt)| (UnitId(unit), attempt)).collect();
            records_of_one_who_left(records, &listed, slot, &|unit| unit.0 >= 10)
        };
        assert_eq!(who_left(&records, &[]), [returned(1, 1), returned(4, 2), left.clone()]);
        assert_eq!(who_left(&[], &[]), std::slice::from_ref(&left));
        // A claim that nobody has heard of stands in the list alone.
        assert_eq!(who_left(&[], &[(5, 1)]), [returned(5, 1), left.clone()]);
        let all = who_left(&records, &[(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(all, [returned(1, 1), returned(4, 2), left]);
        // Nobody begins an action again that may have been done.
        let [Record::Outcome(outcome), _] = &who_left(&[claim(10, 1, slot)], &[])[..] else { panic!() };
        assert_eq!(outcome.action.as_ref().map(|acted| &acted.verdict), Some(&ActionVerdict::Cancelled));
    }

    #[test]
    fn the_last_list_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("list");
        assert!(Undone::read(&file).unwrap().is_empty());
        let paths = paths(&["a", "b"]);
        let list = Unsaved::new(Some(&file));
        list.list(paths.iter()).unwrap();
        assert_eq!(Undone::read(&file).unwrap().paths, paths);
        list.list(paths.iter().skip(1)).unwrap();
        assert_eq!(Undone::read(&file).unwrap().paths, paths[1..]);
        list.list([].iter()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        Unsaved::new(None).list(paths.iter()).unwrap();
    }

    #[test]
    fn the_list_has_what_the_ledger_may_not_show_yet() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("list");
        let list = Unsaved::new(Some(&file));
        let slot = Slot(1);
        let undone = || Undone::read(&file).unwrap();
        list.told(&Record::Joined { slot });
        assert_eq!(undone(), Undone { at_work: true, ..Undone::default() });
        list.claimed(UnitId(5), 1);
        list.claimed(UnitId(6), 2);
        list.list(paths(&["a"]).iter()).unwrap();
        let claims = [(UnitId(5), 1), (UnitId(6), 2)].into();
        assert_eq!(undone(), Undone { at_work: true, claims, paths: paths(&["a"]) });
        list.told(&given_back(UnitId(6), 2, slot));
        list.told(&broken_off(UnitId(5), 1, slot));
        list.told(&Record::Left { slot, spent: false });
        assert_eq!(undone(), Undone { paths: paths(&["a"]), ..Undone::default() });
        list.clear();
        assert!(undone().is_empty());
        // What is damaged says nothing.
        assert!(Undone::of("claim 5\nclaim x 1\nnonsense\n\n").is_empty());
    }
}
