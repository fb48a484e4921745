//! What earlier runs learned and a depot keeps: how long builds took, and what failed.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use phoenix_depot::{BlobName, Depot};
use phoenix_model::{StorePath, Verdict};
use phoenix_report::Summary;
use phoenix_schedule::{Estimates, Failures};
use serde::{Deserialize, Serialize};

use crate::blobs::{self, runtime};
use crate::error::CommandError;
use crate::{depots, setup};

/// Where it lies in a depot: each run that learned something makes a new one, the newest counts.
const HISTORY: &str = "history/";

/// How many are kept: somebody may be reading the one before.
const KEPT: usize = 2;

/// No history is larger, in bytes; what says it is, is damaged.
const LARGEST: u64 = 64 << 20;

/// What earlier runs learned.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct History {
    /// How long builds took, and how large what they made is.
    pub(crate) estimates: Estimates,
    /// What failed.
    pub(crate) failures: Failures,
}

impl History {
    /// The newest of a depot; an empty one where there is none.
    pub(crate) fn read(depot: &dyn Depot) -> Result<Self, CommandError> {
        let cannot = |error: &dyn std::error::Error| {
            let text = format!("cannot read what earlier runs left in {}", depot.location());
            CommandError::because(text, error)
        };
        let bytes = runtime()?.block_on(async {
            match depot.newest(HISTORY).await? {
                Some(blob) if blob.size <= LARGEST => blobs::read(depot, &blob).await.map(Some),
                _ => Ok(None),
            }
        });
        match bytes.map_err(|error| cannot(&error))? {
            Some(bytes) => Self::from_bytes(&bytes).map_err(|error| cannot(&error)),
            None => Ok(Self::default()),
        }
    }

    fn from_bytes(bytes: &[u8]) -> std::io::Result<Self> {
        let mut json = Vec::new();
        zstd::Decoder::new(bytes)?.take(LARGEST).read_to_end(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }

    fn to_bytes(&self) -> std::io::Result<Vec<u8>> {
        zstd::encode_all(serde_json::to_vec(self)?.as_slice(), 0)
    }

    /// Adds what a run learned; whether that is anything.
    fn learn(&mut self, summary: &Summary, sizes: &BTreeMap<StorePath, u64>) -> bool {
        let now = now();
        let mut new = false;
        for state in &summary.derivations {
            let drv_path = &state.planned.drv_path;
            // What was not begun tells nothing.
            let Some(seconds) = state.seconds else { continue };
            match &state.verdict {
                Some(Verdict::Built) => {
                    self.estimates.learn(drv_path, seconds);
                    if let Some(bytes) = sizes.get(drv_path) {
                        self.estimates.learn_bytes(drv_path, *bytes);
                    }
                    self.failures.forget(drv_path);
                    new = true;
                }
                Some(Verdict::Failed { class, message }) if !state.planned.fixed_output => {
                    new |= self.failures.learn(drv_path, *class, message, &state.tail, now);
                }
                _ => {}
            }
        }
        self.failures.tidy(now);
        new
    }
}

/// Adds what a run learned to what a depot keeps; another run may have added something meanwhile. `sizes` are the
/// bytes of outputs by derivation, as far as they are known.
pub(crate) fn add(
    depot: &Arc<dyn Depot>,
    summary: &Summary,
    sizes: &BTreeMap<StorePath, u64>,
) -> Result<(), CommandError> {
    // What is damaged is made anew.
    let mut history = History::read(depot.as_ref()).unwrap_or_default();
    if !history.learn(summary, sizes) {
        return Ok(());
    }
    let cannot = |error: &dyn std::error::Error| {
        CommandError::because(format!("{} does not keep how long builds took", depot.location()), error)
    };
    let bytes = history.to_bytes().map_err(|error| cannot(&error))?;
    let unique = depots::new_name().to_string();
    let unique = unique.rsplit('/').next().unwrap_or_default();
    let name = BlobName::new(format!("{HISTORY}{unique}")).map_err(|error| cannot(&error))?;
    runtime()?.block_on(async {
        blobs::create(depot.as_ref(), &name, bytes).await.map_err(|error| cannot(&error))?;
        let mut all = depot.list(HISTORY).await.unwrap_or_default();
        // Names begin with the time they were made.
        all.sort_by(|a, b| b.name.as_str().cmp(a.name.as_str()));
        blobs::forget(depot, all.into_iter().skip(KEPT)).await;
        Ok(())
    })
}

/// Seconds since 1970-01-01 UTC.
pub(crate) fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

/// Whether somebody asked GitHub to run a job again, most likely because it failed.
pub(crate) fn is_another_attempt() -> bool {
    let attempt = setup::var("GITHUB_RUN_ATTEMPT").and_then(|attempt| attempt.parse::<u32>().ok());
    attempt.is_some_and(|attempt| attempt > 1)
}

/// The derivations that were built, with the seconds they took.
pub(crate) fn built(summary: &Summary) -> Vec<(StorePath, f64)> {
    let built = summary.derivations.iter().filter(|state| state.verdict == Some(Verdict::Built));
    built.filter_map(|state| Some((state.planned.drv_path.clone(), state.seconds?))).collect()
}

#[cfg(test)]
mod tests {
    use phoenix_model::{Event, FailureClass, Logged, PlannedDerivation, SettledDerivation, Stamp};

    use super::*;

    #[test]
    fn a_download_that_failed_is_tried_again() {
        let drv = |number: u8| StorePath::parse(&format!("/nix/store/{number:032}-d.drv")).unwrap();
        let planned = |(number, fixed_output)| PlannedDerivation {
            drv_path: drv(number),
            system: "x86_64-linux".to_owned(),
            inputs: Vec::new(),
            estimate: 1.0,
            unknown: false,
            fixed_output,
        };
        let derivations = [(0, false), (1, true), (2, true)].map(planned).to_vec();
        let failed = |number, class| Event::DerivationSettled {
            settled: SettledDerivation {
                drv_path: drv(number),
                verdict: Verdict::Failed { class, message: "exit code 1".to_owned() },
                seconds: Some(1.0),
                log: None,
            },
        };
        let mut summary = Summary::default();
        for event in [
            Event::Planned { derivations, targets: Vec::new(), fetched: Vec::new(), saved_seconds: 0.0 },
            failed(0, FailureClass::Build),
            failed(1, FailureClass::Build),
            failed(2, FailureClass::HashMismatch),
        ] {
            summary.apply(&Logged { at: Stamp(1), event });
        }
        let mut history = History::default();
        assert!(history.learn(&summary, &BTreeMap::new()));
        let known = [0, 1, 2].map(|number| history.failures.known(&drv(number), now()).is_some());
        assert_eq!(known, [true, false, false]);
    }

    #[test]
    fn it_is_read_as_it_was_written_and_nonsense_is_refused() {
        let drv_path = StorePath::parse(&format!("/nix/store/{}-a.drv", "0".repeat(32))).unwrap();
        let mut history = History::default();
        history.estimates.learn(&drv_path, 3.0);
        history.failures.learn(&drv_path, FailureClass::Build, "exit code 1", [], now());
        let bytes = history.to_bytes().unwrap();
        let read = History::from_bytes(&bytes).unwrap();
        assert_eq!((&read.estimates, &read.failures), (&history.estimates, &history.failures));
        for damaged in [&bytes[..bytes.len() / 2], b"nonsense", b""] {
            assert!(History::from_bytes(damaged).is_err());
        }
    }
}
