//! What is to be done.

use std::collections::HashMap;

use compact_str::CompactString;
use phoenix_model::{FailureClass, PlannedDerivation, Source, StorePath};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::hindered::hindered;
use crate::{Builders, Failures};

/// What has to be built for which goals, and what need not be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What has to be built, inputs before what needs them.
    pub steps: Vec<Step>,
    /// What was asked for, in the order of asking.
    pub goals: Vec<Goal>,
    /// Where the goals are that need no step.
    pub found: HashMap<StorePath, Source>,
    /// What the builds need that a substituter has, sorted.
    pub fetched: Vec<(StorePath, Source)>,
    /// How many derivations were looked at to find this out.
    pub looked_at: usize,
}

/// A derivation that has to be built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its path.
    pub drv_path: StorePath,
    /// The system it is built on; empty when the derivation could not be read.
    pub system: CompactString,
    /// The outputs that are needed of it; `None` for one whose path comes about in the build.
    pub outputs: SmallVec<[Option<StorePath>; 1]>,
    /// Positions, in [`Plan::steps`], of what has to be built before it; each less than its own.
    pub inputs: Vec<u32>,
    /// How long it is expected to take, in seconds.
    pub estimate: f64,
    /// How many bytes its outputs are expected to have together, as archives.
    pub bytes: u64,
    /// Whether it is not worth a runner of its own: a download (fixed output), or `preferLocalBuild`.
    pub rides: bool,
    /// Whether its only output is fixed by a hash: a download, whose builder sees the network.
    pub fixed_output: bool,
    /// The expected seconds from its start to the end of the last step that waits for it.
    pub rank: f64,
    /// Whether it is built for safety, because a substituter that might have it did not answer.
    pub unknown: bool,
    /// The features a builder has to have.
    pub required_features: Vec<String>,
    /// Why it is not tried, when it is known beforehand that it would be in vain.
    pub hopeless: Option<Hopeless>,
}

/// Why something is not tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hopeless {
    /// As what it counts.
    pub class: FailureClass,
    /// In words.
    pub message: String,
    /// The last lines of the log that tells more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

impl Hopeless {
    /// For a reason that is no fault of the build.
    #[must_use]
    pub fn other(message: String) -> Self {
        Self { class: FailureClass::Other, message, log: Vec::new() }
    }
}

/// One thing that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Goal {
    /// Its derivation.
    pub drv_path: StorePath,
    /// The outputs that are wanted; empty for all.
    pub wanted: Vec<String>,
    /// Its position in [`Plan::steps`]; `None` when it need not be built.
    pub step: Option<u32>,
    #[serde(skip)]
    pub(crate) node: u32,
}

impl Plan {
    /// Marks what no builder can build.
    pub fn refuse(&mut self, builders: &Builders) {
        for step in &mut self.steps {
            if step.hopeless.is_none() && !step.system.is_empty() {
                step.hopeless = builders.refuse(&step.system, &step.required_features).map(Hopeless::other);
            }
        }
    }

    /// Marks what failed in an earlier run, and would again. `now` is in seconds since 1970-01-01 UTC.
    pub fn remember(&mut self, failures: &Failures, now: u64) {
        for step in self.steps.iter_mut().filter(|step| step.hopeless.is_none()) {
            step.hopeless = failures.known(&step.drv_path, now);
        }
    }

    /// Some steps as a plan of their own: positions, inputs before what needs them, count from 0 anew, and inputs that
    /// are not among them are left out.
    #[must_use]
    pub fn part(&self, positions: &[u32]) -> Self {
        let new: HashMap<u32, u32> = positions.iter().copied().zip(0..).collect();
        let steps = positions.iter().filter_map(|&position| {
            let step = self.steps.get(position as usize)?.clone();
            let inputs = step.inputs.iter().filter_map(|input| new.get(input).copied()).collect();
            Some(Step { inputs, ..step })
        });
        Self { steps: steps.collect(), ..Self::default() }
    }

    /// The positions of the steps that will be built, in the order of urgency: the longest way to the end
    /// first, ties by path, so that a plan is reproducible.
    #[must_use]
    pub fn by_urgency(&self) -> Vec<u32> {
        let hopeless = self.hopeless();
        let mut order: Vec<u32> =
            (0..).take(self.steps.len()).filter(|&step| !hopeless[step as usize]).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (&self.steps[a as usize], &self.steps[b as usize]);
            b.rank.total_cmp(&a.rank).then_with(|| a.drv_path.cmp(&b.drv_path))
        });
        order
    }

    /// How long each step is expected to take, in seconds. What cannot be built takes no time.
    pub(crate) fn seconds(&self) -> Vec<f64> {
        let steps = self.steps.iter().zip(self.hopeless());
        let seconds =
            steps.map(
                |(step, hopeless)| {
                    if hopeless || !step.estimate.is_finite() { 0.0 } else { step.estimate.max(0.0) }
                },
            );
        seconds.collect()
    }

    /// The expected seconds of the longest chain of steps: no number of builders is faster.
    #[must_use]
    pub fn critical_seconds(&self) -> f64 {
        crate::remaining_seconds(&self.seconds(), |step| &self.steps[step].inputs)
    }

    /// The expected seconds of all steps one after another.
    #[must_use]
    pub fn total_seconds(&self) -> f64 {
        // A sum of nothing is -0.0.
        self.seconds().into_iter().fold(0.0, std::ops::Add::add)
    }

    /// What Nix has to be asked to realise: the goals that need a step and can be built, each derivation
    /// once with all outputs that are wanted of it (none for all); and what only hopeless steps need.
    #[must_use]
    pub fn to_realise(&self) -> Vec<(StorePath, Vec<String>)> {
        let mut wanted: HashMap<u32, Vec<String>> = HashMap::new();
        let mut order = Vec::new();
        for goal in &self.goals {
            let Some(step) = goal.step else { continue };
            match wanted.entry(step) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(goal.wanted.clone());
                    order.push(step);
                }
                std::collections::hash_map::Entry::Occupied(mut entry) => {
                    let names = entry.get_mut();
                    if goal.wanted.is_empty() {
                        names.clear();
                    } else if !names.is_empty() {
                        names.extend(goal.wanted.iter().cloned());
                        names.sort();
                        names.dedup();
                    }
                }
            }
        }
        let hopeless = self.hopeless();
        // As with `--keep-going`, what does not need the failure is built.
        let mut asked_for: Vec<bool> = vec![false; self.steps.len()];
        for (step, _) in self.steps.iter().zip(&hopeless).filter(|(_, hopeless)| !**hopeless) {
            step.inputs.iter().for_each(|&input| asked_for[input as usize] = true);
        }
        order.extend(
            (0..)
                .zip(&asked_for)
                .filter(|(step, asked)| !**asked && !wanted.contains_key(step))
                .map(|(step, _)| step),
        );
        order
            .into_iter()
            .filter(|&step| !hopeless[step as usize])
            .map(|step| {
                (self.steps[step as usize].drv_path.clone(), wanted.remove(&step).unwrap_or_default())
            })
            .collect()
    }

    /// Which steps cannot be built because they, or a derivation they need, cannot.
    #[must_use]
    pub fn hopeless(&self) -> Vec<bool> {
        hopeless(&self.steps)
    }

    /// The steps as an event tells them.
    #[must_use]
    pub fn derivations(&self) -> Vec<PlannedDerivation> {
        self.steps
            .iter()
            .map(|step| PlannedDerivation {
                drv_path: step.drv_path.clone(),
                system: step.system.to_string(),
                inputs: step.inputs.clone(),
                estimate: step.estimate,
                unknown: step.unknown,
                fixed_output: step.fixed_output,
            })
            .collect()
    }
}

/// Which of these steps cannot be built because they, or a derivation they need, cannot.
pub(crate) fn hopeless(steps: &[Step]) -> Vec<bool> {
    hindered(steps, |step| &step.inputs, |_, step| step.hopeless.is_some())
}
