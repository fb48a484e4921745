//! What will happen to the derivations of a plan, whoever builds them.

use fastrand::Rng;

use super::random::log_normal;
use crate::farm::FarmPlan;

/// What building each derivation really takes, and which fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// Seconds, by position in the plan.
    pub seconds: Vec<f64>,
    /// Whether the builder fails, by position in the plan.
    pub fails: Vec<bool>,
    /// Whether the builder is killed wherever it runs, by position in the plan.
    pub killed: Vec<bool>,
}

impl Story {
    /// Everything takes what is expected, and nothing fails.
    #[must_use]
    pub fn as_expected(plan: &FarmPlan) -> Self {
        Self::drawn(plan, 0, 0.0, 0.0)
    }

    /// Derivations take what is expected times a number whose logarithm is normally distributed with the
    /// deviation `noise`, and so many of them fail (0 to 1).
    #[must_use]
    pub fn drawn(plan: &FarmPlan, seed: u64, noise: f64, failing: f64) -> Self {
        let mut random = Rng::with_seed(seed);
        let seconds = plan.derivations().iter().map(|derivation| {
            if noise > 0.0 { derivation.seconds * log_normal(&mut random, noise) } else { derivation.seconds }
        });
        let seconds = seconds.collect();
        let fails = plan.derivations().iter().map(|_| random.f64() < failing).collect();
        let killed = vec![false; plan.derivations().len()];
        Self { seconds, fails, killed }
    }
}
