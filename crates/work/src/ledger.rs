//! What every ledger can do.

use std::fmt::Debug;

use phoenix_schedule::farm::{Record, Slot, UnitId};

/// How far the records of a ledger were read. It belongs to the ledger object that it was used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor(pub u64);

/// A ledger that did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ledger {location} failed while {doing}: {problem}")]
pub struct LedgerError {
    /// Where it is, without credentials.
    pub location: String,
    /// What was being done.
    pub doing: String,
    /// What went wrong, and what would help where that is known.
    pub problem: String,
    /// Whether it takes nothing more of this worker, so that it is in vain to ask again.
    pub is_full: bool,
}

impl LedgerError {
    /// What went wrong while something was done; it may go better another time.
    pub(crate) fn new(location: String, doing: &str, problem: String) -> Self {
        Self { location, doing: doing.to_owned(), problem, is_full: false }
    }
}

/// Where the workers of one run take units and post outcomes.
///
/// Every method may be called from many tasks at once, and again when it failed: nothing is written twice, and
/// who already has a claim is told so again. A ledger may show a record late. It is for one run.
#[async_trait::async_trait]
pub trait Ledger: Debug + Send + Sync {
    /// Where it is, for messages: its URL without credentials.
    fn location(&self) -> &str;

    /// Takes a unit, if nobody has claimed it with this number of the attempt; whether the claim is ours. Of
    /// several who claim at once at most one is told so.
    ///
    /// # Errors
    ///
    /// When there was no answer. The claim may be ours all the same: ask again.
    async fn claim(&self, unit: UnitId, attempt: u32, slot: Slot) -> Result<bool, LedgerError>;

    /// Writes a record that is no claim. Whether it stands: of several outcomes of one unit only the first
    /// does, and the others are not kept.
    ///
    /// # Errors
    ///
    /// When there was no answer. The record may be there all the same: write it again.
    async fn post(&self, record: &Record) -> Result<bool, LedgerError>;

    /// The records, claims among them, that were not read with this cursor before. Each comes exactly once;
    /// all come in the end, the own ones too.
    ///
    /// # Errors
    ///
    /// When there was no answer; the cursor has not moved then.
    async fn since(&self, cursor: &mut Cursor) -> Result<Vec<Record>, LedgerError>;

    /// Shows that a worker is alive; `count` is another one each time.
    ///
    /// # Errors
    ///
    /// When it could not be written.
    async fn beat(&self, slot: Slot, count: u64) -> Result<(), LedgerError>;

    /// The last count of every worker that ever showed to be alive, by slot.
    ///
    /// # Errors
    ///
    /// When there was no answer.
    async fn beats(&self) -> Result<Vec<(Slot, u64)>, LedgerError>;

    /// Whether something is left behind that costs until it is [discarded](Self::discard).
    fn leaves_something(&self) -> bool {
        false
    }

    /// Removes what it keeps, once the run is over and nobody reads it any more. A ledger whose place costs
    /// nothing, or that goes by itself, keeps it.
    ///
    /// # Errors
    ///
    /// When there was no answer. Some may be removed.
    async fn discard(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}
