//! What each number of runners would mean.

use std::sync::Arc;

use serde::Serialize;

use super::{Conditions, Story, share, simulate};
use crate::farm::FarmPlan;
use crate::labels::RunnerKinds;

/// A plan with several numbers of runners, and with a runner for each target.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The longest chain of derivations, in seconds: no number of runners is faster.
    pub critical_seconds: f64,
    /// All derivations one after another, in seconds.
    pub total_seconds: f64,
    /// One row a number of runners, in ascending order.
    pub rows: Vec<Row>,
    /// What it would be without sharing.
    pub separate: Separate,
}

/// A number of runners.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// How many.
    pub runners: usize,
    /// From asking for them to the last outcome, in seconds.
    pub makespan_seconds: f64,
    /// No schedule is faster: the longest chain, or all work shared by all, in seconds.
    pub lower_bound_seconds: f64,
    /// What is paid for, in minutes; each runner's are rounded up.
    pub billed_minutes: f64,
    /// How much of that is not building, in minutes.
    pub idle_minutes: f64,
    /// How many derivations were built, each time counted.
    pub builds: u64,
}

/// One runner for each target, each of which builds all that its target needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Separate {
    /// How many runners: as many as derivations that are targets and are to be built.
    pub runners: usize,
    /// Until the last is done, if all begin at once, in seconds.
    pub makespan_seconds: f64,
    /// What is paid for, in minutes; each runner's are rounded up.
    pub billed_minutes: f64,
    /// How many derivations are built, each time counted.
    pub builds: u64,
}

/// Simulates a plan with each of these numbers of runners; `targets` are the positions of the derivations
/// that are asked for. Numbers that are less than the kinds of runners that are needed are left out.
#[must_use]
pub fn compare(
    plan: &FarmPlan,
    kinds: &RunnerKinds,
    targets: &[u32],
    numbers: &[usize],
    story: &Story,
    conditions: &Conditions,
) -> Comparison {
    let critical_seconds = crate::remaining_seconds(&story.seconds, |at| &plan.derivations()[at].inputs);
    let total_seconds: f64 = story.seconds.iter().sum();
    let row = |&runners: &usize| {
        let counts = share(plan, kinds, runners);
        if counts.iter().sum::<usize>() == 0 {
            return None;
        }
        let with = Arc::new(plan.with_slots(kinds, &counts));
        let simulated = simulate(&with, story, conditions);
        Some(Row {
            runners,
            makespan_seconds: simulated.makespan_seconds,
            lower_bound_seconds: critical_seconds.max(total_seconds / runners as f64),
            billed_minutes: simulated.billed_minutes(),
            idle_minutes: simulated.idle_minutes(),
            builds: simulated.builds.iter().map(|&builds| u64::from(builds)).sum(),
        })
    };
    Comparison {
        critical_seconds,
        total_seconds,
        rows: numbers.iter().filter_map(row).collect(),
        separate: separate(plan, targets, story, conditions),
    }
}

/// What it takes when every target has a runner of its own that knows nothing of the others.
#[must_use]
pub fn separate(plan: &FarmPlan, targets: &[u32], story: &Story, conditions: &Conditions) -> Separate {
    // For what nobody can build no runner would be started.
    let in_vain = plan.in_vain();
    let mut targets: Vec<u32> = targets.iter().copied().filter(|&target| !in_vain[target as usize]).collect();
    targets.sort_unstable();
    targets.dedup();
    let mut separate =
        Separate { runners: targets.len(), makespan_seconds: 0.0, billed_minutes: 0.0, builds: 0 };
    let mut seen = vec![u32::MAX; plan.derivations().len()];
    let mut stack = Vec::new();
    for target in targets {
        let mut seconds = conditions.start_up_seconds;
        stack.push(target);
        while let Some(derivation) = stack.pop() {
            let index = derivation as usize;
            if std::mem::replace(&mut seen[index], target) != target {
                seconds += story.seconds[index];
                separate.builds += 1;
                stack.extend(&plan.derivations()[index].inputs);
            }
        }
        separate.makespan_seconds = separate.makespan_seconds.max(seconds);
        separate.billed_minutes += (seconds / 60.0).ceil();
    }
    separate
}
