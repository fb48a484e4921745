//! How many runners a plan gets.

use std::sync::Arc;

use super::{Conditions, Story, simulate};
use crate::farm::FarmPlan;
use crate::labels::RunnerKinds;

/// How much longer than with the best number of runners it may take with fewer.
const NEAR_BEST: f64 = 1.1;

/// How many runners, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// How many runners of each kind; none at all when the machine that plans does it best by itself, or when
    /// there is nothing to do.
    pub counts: Vec<usize>,
    /// What it is expected to take, in seconds.
    pub makespan_seconds: f64,
    /// The numbers of runners that were tried, with what they would take, in ascending order.
    pub tried: Vec<(usize, f64)>,
}

impl Decision {
    /// How many runners in all.
    #[must_use]
    pub fn runners(&self) -> usize {
        self.counts.iter().sum()
    }
}

/// The smallest number of runners with which a plan takes at most a tenth longer than with the best number,
/// of up to `most` in all, though never less than one of each kind that is needed. With `here` the machine
/// that plans could build everything itself, one after another, without starting or sending anything.
#[must_use]
pub fn runners(
    plan: &FarmPlan,
    kinds: &RunnerKinds,
    most: usize,
    here: bool,
    conditions: &Conditions,
) -> Decision {
    let story = Story::as_expected(plan);
    let needed = plan.seconds_by_kind(kinds).iter().filter(|&&seconds| seconds > 0.0).count();
    let mut tried: Vec<(usize, f64)> = Vec::new();
    if here || needed == 0 {
        tried.push((0, plan.total_seconds()));
    }
    let most = if needed == 0 { 0 } else { most.max(needed).min(plan.count_to_claim()) };
    let attempt = |count: usize| {
        let with = Arc::new(plan.with_slots(kinds, &share(plan, kinds, count)));
        simulate(&with, &story, conditions).makespan_seconds
    };
    // More runners are hardly ever slower: from the most downwards, halving, until it takes too long.
    let mut count = most;
    while count >= needed.max(1) {
        let seconds = attempt(count);
        tried.push((count, seconds));
        if seconds > best(&tried) * NEAR_BEST {
            break;
        }
        count /= 2;
    }
    let limit = best(&tried) * NEAR_BEST;
    tried.sort_by_key(|(count, _)| *count);
    let first = tried.iter().position(|(_, seconds)| *seconds <= limit).unwrap_or(0);
    let (mut chosen, mut makespan_seconds) = tried.get(first).copied().unwrap_or_default();
    // The smallest number is above those that take too long, and above those that have no time for it all.
    let time = (limit - conditions.start_up_seconds).max(0.001);
    let enough = (plan.total_seconds() / time).ceil().min(chosen as f64) as usize;
    let slower = first.checked_sub(1).map_or(0, |before| tried[before].0);
    let mut below = slower.max(enough.max(needed).saturating_sub(1));
    while chosen > below + 1 {
        let middle = usize::midpoint(below, chosen);
        let seconds = attempt(middle);
        tried.push((middle, seconds));
        if seconds <= limit {
            (chosen, makespan_seconds) = (middle, seconds);
        } else {
            below = middle;
        }
    }
    tried.sort_by_key(|(count, _)| *count);
    Decision { counts: share(plan, kinds, chosen), makespan_seconds, tried }
}

fn best(tried: &[(usize, f64)]) -> f64 {
    tried.iter().map(|(_, seconds)| *seconds).fold(f64::INFINITY, f64::min)
}

/// So many runners, shared among the kinds by their work: one of each kind that is needed, and every further
/// one where the most is left for each. Fewer than the kinds that are needed are none.
#[must_use]
pub fn share(plan: &FarmPlan, kinds: &RunnerKinds, runners: usize) -> Vec<usize> {
    let seconds = plan.seconds_by_kind(kinds);
    let mut counts: Vec<usize> = seconds.iter().map(|&seconds| usize::from(seconds > 0.0)).collect();
    let needed: usize = counts.iter().sum();
    if runners < needed.max(1) || needed == 0 {
        return vec![0; counts.len()];
    }
    for _ in needed..runners {
        let left = |kind: usize| if counts[kind] == 0 { -1.0 } else { seconds[kind] / counts[kind] as f64 };
        let next = (0..counts.len()).max_by(|&a, &b| left(a).total_cmp(&left(b)).then(b.cmp(&a)));
        if let Some(kind) = next {
            counts[kind] += 1;
        }
    }
    counts
}
