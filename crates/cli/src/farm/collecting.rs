//! From what workers write in a ledger to the verdicts of a run.

use std::sync::Arc;

use phoenix_model::Severity;
use phoenix_schedule::Run;
use phoenix_schedule::farm::{Collector, FarmPlan, Limits, Slot};
use phoenix_work::{Cursor, Ledger, LedgerError};
use tokio::runtime::Runtime;

use crate::error::CommandError;
use crate::recorder::{Recorder, now};

/// Somebody who watches the ledger of a farm.
pub(crate) struct Collecting {
    runtime: Runtime,
    ledger: Box<dyn Ledger>,
    cursor: Cursor,
    collector: Collector,
    /// That it does not answer was said.
    told: bool,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// So many records that were new.
    New(usize),
    /// The ledger did not answer.
    NoAnswer,
}

/// Begins to watch.
pub(crate) fn collect(url: &str, plan: &Arc<FarmPlan>, limits: Limits) -> Result<Collecting, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CommandError::because("cannot start", &error))?;
    let ledger = runtime
        .block_on(phoenix_work::open(url))
        .map_err(|error| CommandError::because("cannot use the ledger", &error))?;
    let collector = Collector::new(plan, limits);
    Ok(Collecting { runtime, ledger, cursor: Cursor::default(), collector, told: false })
}

impl Collecting {
    /// Whether everything has come to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.collector.is_over()
    }

    /// Takes in what is new.
    pub(crate) fn look(&mut self, run: &mut Run, recorder: &mut Recorder) -> Seen {
        let (ledger, cursor) = (&self.ledger, &mut self.cursor);
        match self.runtime.block_on(ledger.since(cursor)) {
            Ok(records) => {
                self.told = false;
                let at = now();
                let events = self.collector.news(at, &records, run);
                recorder.take_in(at, events);
                Seen::New(records.len())
            }
            Err(error) => {
                self.say(&error, recorder);
                Seen::NoAnswer
            }
        }
    }

    /// The heartbeats of all workers; none when there is no answer.
    pub(crate) fn beats(&mut self, recorder: &mut Recorder) -> Vec<(Slot, u64)> {
        match self.runtime.block_on(self.ledger.beats()) {
            Ok(beats) => beats,
            Err(error) => {
                self.say(&error, recorder);
                Vec::new()
            }
        }
    }

    fn say(&mut self, error: &LedgerError, recorder: &mut Recorder) {
        if !std::mem::replace(&mut self.told, true) {
            recorder.say(Severity::Warning, format!("{error}; it is asked again"));
        }
    }

    /// Nothing more will come: gives what has no verdict one.
    pub(crate) fn close(&mut self, why: &str, run: &mut Run, recorder: &mut Recorder) {
        let at = now();
        let events = self.collector.close(at, why, run);
        recorder.take_in(at, events);
    }
}
