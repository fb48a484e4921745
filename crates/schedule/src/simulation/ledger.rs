//! A ledger on virtual time: what it promises, and no more.

use std::collections::HashSet;

use crate::farm::Record;

/// Records, in the order in which they can be seen.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    visible: Vec<Record>,
    claims: HashSet<(u32, u32)>,
    ended: HashSet<u32>,
}

impl Ledger {
    /// Whether a claim is the first of its number.
    pub(super) fn claim(&mut self, unit: u32, attempt: u32) -> bool {
        self.claims.insert((unit, attempt))
    }

    /// Whether a record is the first of its kind, and so will be seen.
    pub(super) fn accepts(&mut self, record: &Record) -> bool {
        match record {
            Record::Outcome(outcome) => self.ended.insert(outcome.unit.0),
            _ => true,
        }
    }

    /// From now on a record can be seen by all.
    pub(super) fn show(&mut self, record: Record) {
        self.visible.push(record);
    }

    pub(super) fn since(&self, cursor: usize) -> &[Record] {
        &self.visible[cursor..]
    }

    pub(super) fn len(&self) -> usize {
        self.visible.len()
    }

    pub(super) fn into_records(self) -> Vec<Record> {
        self.visible
    }
}
