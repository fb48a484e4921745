//! A ledger for the threads of one process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phoenix_schedule::farm::{Record, Slot, UnitId};

use crate::log::Log;
use crate::{Cursor, Ledger, LedgerError};

/// A ledger in the memory of this process; clones of it are the same ledger.
#[derive(Debug, Clone, Default)]
pub struct InProcess {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    log: Log,
    beats: BTreeMap<Slot, u64>,
}

impl InProcess {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // What is in it holds together at every moment.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, record: &Record) -> bool {
        let mut kept = self.kept();
        kept.log.standing(record).unwrap_or_else(|| {
            kept.log.push(record.clone());
            true
        })
    }
}

#[async_trait::async_trait]
impl Ledger for InProcess {
    fn location(&self) -> &str {
        "memory:"
    }

    async fn claim(&self, unit: UnitId, attempt: u32, slot: Slot) -> Result<bool, LedgerError> {
        Ok(self.write(&Record::Claim { unit, attempt, slot }))
    }

    async fn post(&self, record: &Record) -> Result<bool, LedgerError> {
        Ok(self.write(record))
    }

    async fn since(&self, cursor: &mut Cursor) -> Result<Vec<Record>, LedgerError> {
        Ok(self.kept().log.since(cursor))
    }

    async fn beat(&self, slot: Slot, count: u64) -> Result<(), LedgerError> {
        self.kept().beats.insert(slot, count);
        Ok(())
    }

    async fn beats(&self) -> Result<Vec<(Slot, u64)>, LedgerError> {
        Ok(self.kept().beats.iter().map(|(&slot, &count)| (slot, count)).collect())
    }
}
