//! Whole logs of what failed, from the worker that has them to whoever reports.

use std::sync::Arc;

use phoenix_depot::{BlobName, Depot};
use phoenix_model::{Event, StorePath};
use phoenix_report::TAIL_LINES;
use phoenix_schedule::farm::{FarmPlan, Record};

use crate::blobs::{self, runtime};
use crate::recorder::Recorder;

/// Where logs lie in a depot.
pub(super) const LOGS: &str = "logs/";

/// The most logs that one worker keeps: a depot on GitHub has room for few entries.
pub(super) const MOST: usize = 20;

/// How much of a log is kept: its end.
const LONGEST: usize = 8 << 20;

/// The level of zstd.
const LEVEL: i32 = 3;

fn name(reference: &str, drv_path: &StorePath) -> Option<BlobName> {
    let hash_part = drv_path.base_name().get(..32)?;
    BlobName::new(format!("{LOGS}{reference}/{hash_part}")).ok()
}

/// Keeps a log. That it cannot be kept costs its whole length: its end is told in any case.
pub(super) fn keep(depot: &Arc<dyn Depot>, reference: &str, drv_path: &StorePath, file: &str) -> Option<()> {
    let text = fs_err::read(file).ok()?;
    let end = &text[text.len().saturating_sub(LONGEST)..];
    let bytes = zstd::encode_all(end, LEVEL).ok()?;
    let name = name(reference, drv_path)?;
    runtime().ok()?.block_on(blobs::create(depot.as_ref(), &name, bytes)).ok().map(drop)
}

/// Reads a log; none where it is not kept.
fn read(depot: &Arc<dyn Depot>, reference: &str, drv_path: &StorePath) -> Option<String> {
    let name = name(reference, drv_path)?;
    let bytes = runtime().ok()?.block_on(async {
        let blob = depot.find(&name).await.ok()??;
        blobs::read(depot.as_ref(), &blob).await.ok()
    })?;
    let mut text = Vec::new();
    let decoder = zstd::Decoder::new(bytes.as_slice()).ok()?;
    std::io::Read::read_to_end(&mut std::io::Read::take(decoder, LONGEST as u64), &mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Tells the logs of what failed by these records: whole ones where they are kept, else their ends.
pub(super) fn tell(
    records: &[Record],
    plan: &FarmPlan,
    depot: &Arc<dyn Depot>,
    reference: &str,
    recorder: &mut Recorder,
) {
    let outcomes = records.iter().filter_map(|record| match record {
        Record::Outcome(outcome) => Some(outcome),
        _ => None,
    });
    for (outcome, failure) in
        outcomes.flat_map(|outcome| outcome.failed.iter().map(move |failed| (outcome, failed)))
    {
        let Some(derivation) = plan.derivations().get(failure.derivation as usize) else { continue };
        let drv_path = &derivation.drv_path;
        let is_told = recorder.summary().of_derivation(drv_path).is_some_and(|state| state.verdict.is_some());
        if is_told || failure.log.is_empty() {
            continue;
        }
        let whole = read(depot, reference, drv_path);
        recorder.keep_logs(whole.is_some());
        let lines: Vec<String> = match whole {
            Some(whole) => whole.lines().map(str::to_owned).collect(),
            None => {
                let words = format!("(the last lines; the whole log is with runner {})", outcome.slot.0);
                // With these words they are as many as a summary keeps.
                let skip = failure.log.len().saturating_sub(TAIL_LINES - 1);
                std::iter::once(words).chain(failure.log.iter().skip(skip).cloned()).collect()
            }
        };
        for line in lines {
            recorder.record(Event::LogLine { drv_path: drv_path.clone(), line });
        }
        recorder.keep_logs(false);
    }
}
