//! Units: groups of derivations that one runner builds in one go.
//!
//! A claim costs requests, and what another runner built has to be fetched. So derivations are merged until
//! a unit is worth its claim: first what has a single user goes to that user ([`absorb`]), then small ones
//! that are ready at the same time come together ([`bundle`]). A unit never mixes systems or required
//! features, and the longest path never grows by more than [`Grain::critical_share`] and
//! [`Grain::slack_seconds`].
//! `docs/design/farm.md` says why it cannot go in circles.

mod absorb;
mod bundle;
mod graph;

use serde::{Deserialize, Serialize};

use crate::Plan;
use crate::critical_path::longest_paths;
use graph::Graph;

/// How coarse units are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Grain {
    /// A unit of less than so many seconds is not worth a claim of its own.
    pub worth_seconds: f64,
    /// Chains are not merged to units of more than so many seconds: what a lost runner costs.
    pub longest_seconds: f64,
    /// By which share of itself merging may make the longest path longer.
    pub critical_share: f64,
    /// By how many seconds more it may, for the sake of fewer units.
    pub slack_seconds: f64,
}

impl Default for Grain {
    /// A claim on the slowest ledger, with the fetching, costs about 3 s: a tenth of a unit at most.
    fn default() -> Self {
        Self { worth_seconds: 30.0, longest_seconds: 600.0, critical_share: 0.02, slack_seconds: 0.0 }
    }
}

impl Grain {
    /// Each derivation is a unit.
    #[must_use]
    pub fn finest() -> Self {
        Self { worth_seconds: 0.0, longest_seconds: 0.0, critical_share: 0.0, slack_seconds: 0.0 }
    }

    /// So many times as coarse: what was not worth putting together is, though it may take longer by that.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        let worth_seconds = self.worth_seconds.max(1.0) * factor;
        let longest_seconds = self.longest_seconds.max(1.0) * factor;
        Self { worth_seconds, longest_seconds, slack_seconds: worth_seconds, ..*self }
    }
}

/// What a builder has to offer to build a unit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Class {
    /// The system.
    pub system: String,
    /// The features, sorted, each once.
    pub features: Vec<String>,
}

impl Class {
    /// What Nix itself builds, anywhere.
    pub(crate) fn is_builtin(&self) -> bool {
        self.system == "builtin" && self.features.is_empty()
    }
}

/// A group of derivations that one runner builds in one go; the grain of scheduling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// The positions of its derivations in the plan, inputs first.
    pub members: Vec<u32>,
    /// The units, by position, that it needs something of; each less than its own.
    pub inputs: Vec<u32>,
    /// The position of its class.
    pub class: u32,
    /// How long its derivations are expected to take, one after another, in seconds.
    pub seconds: f64,
    /// The expected bytes of those outputs that other units need.
    pub shared_bytes: u64,
}

/// Everything that has to be built, as units.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Units {
    /// The units, inputs before what needs them.
    pub units: Vec<Unit>,
    /// What builders have to offer.
    pub classes: Vec<Class>,
}

impl Units {
    /// Groups the steps of a plan. What cannot be built stands alone, in a unit that nobody will take.
    #[must_use]
    pub fn of(plan: &Plan, grain: &Grain) -> Self {
        let (graph, classes) = Graph::of(plan);
        let tails = longest_paths(&graph.seconds, |node| &graph.inputs[node]);
        let limit =
            tails.iter().copied().fold(0.0, f64::max) * (1.0 + grain.critical_share) + grain.slack_seconds;
        let absorbed = graph.merged(&absorb::absorb(&graph, &tails, grain, limit));
        let tails = longest_paths(&absorbed.seconds, |node| &absorbed.inputs[node]);
        let bundled = absorbed.merged(&bundle::bundle(&absorbed, &tails, grain, limit));
        Self { units: bundled.into_units(plan), classes }
    }
}

#[cfg(test)]
mod tests;
