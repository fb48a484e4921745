//! An exchange that builds nothing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phoenix_model::FailureClass;
use phoenix_schedule::farm::{Built, Ends, Failure, FarmPlan, UnitId};
use tokio::time::sleep;

use crate::{Exchange, Parcels, Trouble};

/// Waits for as long as the plan says that building takes, and checks that all inputs were built before.
/// Clones are the exchanges of workers on the same builds.
#[derive(Debug, Clone)]
pub struct Pretend {
    plan: Arc<FarmPlan>,
    scale: f64,
    fails: Arc<Vec<bool>>,
    builds: Arc<Vec<AtomicU32>>,
    /// Builds that went wrong for no fault of theirs, to come.
    troubles: Arc<Mutex<u32>>,
    ahead: Arc<Mutex<Vec<UnitId>>>,
}

impl Pretend {
    /// Builds take what the plan says times `scale`; those with `fails` fail.
    #[must_use]
    pub fn new(plan: &Arc<FarmPlan>, scale: f64, fails: Vec<bool>) -> Self {
        let builds = plan.derivations().iter().map(|_| AtomicU32::new(0)).collect();
        Self {
            plan: Arc::clone(plan),
            scale,
            fails: Arc::new(fails),
            builds: Arc::new(builds),
            troubles: Arc::default(),
            ahead: Arc::default(),
        }
    }

    /// The next so many builds go wrong for no fault of theirs.
    pub fn trouble(&self, times: u32) {
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }

    /// What was fetched for ahead.
    #[must_use]
    pub fn ahead(&self) -> Vec<UnitId> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often each derivation was built to the end.
    #[must_use]
    pub fn builds(&self) -> Vec<u32> {
        self.builds.iter().map(|builds| builds.load(Ordering::SeqCst)).collect()
    }
}

#[async_trait::async_trait]
impl Exchange for Pretend {
    async fn fetch(&self, _: UnitId, derivations: &[u32], _: &Arc<Parcels>) -> Result<(), Trouble> {
        for &derivation in derivations {
            for input in &self.plan.derivations()[derivation as usize].inputs {
                let there = self.builds[*input as usize].load(Ordering::SeqCst) > 0;
                assert!(
                    there || derivations.contains(input),
                    "{derivation} needs {input}, which is not built"
                );
            }
        }
        Ok(())
    }

    fn prefetch(&self, unit: UnitId, _: &[u32], _: &Arc<Parcels>) {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).push(unit);
    }

    async fn build(&self, _: UnitId, derivations: &[u32]) -> Result<Ends, Trouble> {
        let mut ends = Ends::default();
        for &derivation in derivations {
            let planned = &self.plan.derivations()[derivation as usize];
            let hindered = ends.failed.iter().any(|failure| planned.inputs.contains(&failure.derivation));
            if hindered {
                continue;
            }
            sleep(Duration::from_secs_f64(planned.seconds * self.scale)).await;
            let trouble = {
                let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
                let left = troubles.checked_sub(1);
                *troubles = left.unwrap_or(0);
                left.is_some()
            };
            if trouble {
                return Err(Trouble::new("no space left on device"));
            }
            let seconds = planned.seconds;
            if self.fails.get(derivation as usize) == Some(&true) {
                let message = "builder failed with exit code 1".to_owned();
                ends.failed.push(Failure {
                    derivation,
                    class: FailureClass::Build,
                    message,
                    seconds,
                    log: vec![],
                    ended: None,
                });
            } else {
                self.builds[derivation as usize].fetch_add(1, Ordering::SeqCst);
                ends.built.push(Built { derivation, seconds, bytes: None, cached: false, ended: None });
            }
        }
        Ok(ends)
    }
}
