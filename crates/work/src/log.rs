//! The records of a ledger in the order in which they stand, and which of them exclude each other.

use std::collections::HashMap;

use phoenix_schedule::farm::Record;

use crate::Cursor;

/// What there can be one record of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Joined(u32),
    Left(u32),
    Claim(u32, u32),
    Outcome(u32),
    Returned(u32, u32),
}

impl Key {
    pub(crate) fn of(record: &Record) -> Self {
        match record {
            Record::Joined { slot } => Self::Joined(slot.0),
            Record::Left { slot, .. } => Self::Left(slot.0),
            Record::Claim { unit, attempt, .. } => Self::Claim(unit.0, *attempt),
            Record::Outcome(outcome) => Self::Outcome(outcome.unit.0),
            Record::Returned(returned) => Self::Returned(returned.unit.0, returned.attempt),
        }
    }

    /// The key as a name: letters, digits and dots.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Joined(slot) => format!("joined.{slot}"),
            Self::Left(slot) => format!("left.{slot}"),
            Self::Claim(unit, attempt) => format!("claim.{unit}.{attempt}"),
            Self::Outcome(unit) => format!("outcome.{unit}"),
            Self::Returned(unit, attempt) => format!("returned.{unit}.{attempt}"),
        }
    }
}

/// Whether two records with the same key come from the same worker and the same attempt: one is the other,
/// written again.
pub(crate) fn is_same(one: &Record, other: &Record) -> bool {
    match (one, other) {
        (Record::Claim { slot: one, .. }, Record::Claim { slot: other, .. }) => one == other,
        (Record::Outcome(one), Record::Outcome(other)) => {
            (one.slot, one.attempt) == (other.slot, other.attempt)
        }
        _ => true,
    }
}

/// Records, of which each key has one.
#[derive(Debug, Default)]
pub(crate) struct Log {
    records: Vec<Record>,
    by_key: HashMap<Key, usize>,
}

impl Log {
    /// Whether a record stands that has the key of this one; if so, whether it is this one.
    pub(crate) fn standing(&self, record: &Record) -> Option<bool> {
        let position = *self.by_key.get(&Key::of(record))?;
        Some(is_same(&self.records[position], record))
    }

    /// Adds a record, unless one with its key stands.
    pub(crate) fn push(&mut self, record: Record) {
        let position = self.records.len();
        if *self.by_key.entry(Key::of(&record)).or_insert(position) == position {
            self.records.push(record);
        }
    }

    pub(crate) fn since(&self, cursor: &mut Cursor) -> Vec<Record> {
        let from = usize::try_from(cursor.0).unwrap_or(usize::MAX).min(self.records.len());
        cursor.0 = self.records.len() as u64;
        self.records[from..].to_vec()
    }
}
