//! A ledger that has a worker's list tell what the worker has claimed.

use phoenix_schedule::farm::{Record, Slot, UnitId};
use phoenix_work::{Cursor, Ledger, LedgerError};

use super::unsaved::Unsaved;

/// The ledger of a worker, of whose claims there is a list: a ledger may tell others late of a claim, and a worker that is
/// ended before cannot.
#[derive(Debug)]
pub(crate) struct Listed {
    ledger: Box<dyn Ledger>,
    list: Unsaved,
}

impl Listed {
    /// The same ledger, of which this list tells.
    pub(crate) fn new(ledger: Box<dyn Ledger>, list: Unsaved) -> Self {
        Self { ledger, list }
    }
}

#[async_trait::async_trait]
impl Ledger for Listed {
    fn location(&self) -> &str {
        self.ledger.location()
    }

    async fn claim(&self, unit: UnitId, attempt: u32, slot: Slot) -> Result<bool, LedgerError> {
        let is_ours = self.ledger.claim(unit, attempt, slot).await?;
        if is_ours {
            self.list.claimed(unit, attempt);
        }
        Ok(is_ours)
    }

    async fn post(&self, record: &Record) -> Result<bool, LedgerError> {
        // Who is ended while this is written has begun, and has not left.
        if matches!(record, Record::Joined { .. }) {
            self.list.told(record);
            return self.ledger.post(record).await;
        }
        let stands = self.ledger.post(record).await?;
        self.list.told(record);
        Ok(stands)
    }

    async fn since(&self, cursor: &mut Cursor) -> Result<Vec<Record>, LedgerError> {
        self.ledger.since(cursor).await
    }

    async fn beat(&self, slot: Slot, count: u64) -> Result<(), LedgerError> {
        self.ledger.beat(slot, count).await
    }

    async fn beats(&self) -> Result<Vec<(Slot, u64)>, LedgerError> {
        self.ledger.beats().await
    }

    fn leaves_something(&self) -> bool {
        self.ledger.leaves_something()
    }

    async fn discard(&self) -> Result<(), LedgerError> {
        self.ledger.discard().await
    }
}
