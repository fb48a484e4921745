//! Plans for tests.

use std::sync::Arc;

use phoenix_model::StorePath;

use super::FarmPlan;
use crate::plan::{Goal, Plan, Step};
use crate::{Grain, RunnerKind, RunnerKinds};

/// The derivation with a number.
pub(crate) fn drv(number: usize) -> StorePath {
    StorePath::parse(&format!("/nix/store/{number:032}-p{number}-1.drv")).unwrap()
}

/// A plan whose step `n` takes so many seconds and needs these steps; each is a goal.
pub(crate) fn plan(drafts: &[(f64, Vec<u32>)]) -> Plan {
    let steps = drafts.iter().enumerate().map(|(number, (seconds, inputs))| Step {
        drv_path: drv(number),
        system: "x86_64-linux".into(),
        outputs: smallvec::smallvec![None],
        inputs: inputs.clone(),
        estimate: *seconds,
        bytes: 1_000_000,
        rides: false,
        fixed_output: false,
        rank: 0.0,
        unknown: false,
        required_features: vec![],
        hopeless: None,
    });
    let goals = (0..drafts.len()).map(|number| Goal {
        drv_path: drv(number),
        wanted: vec![],
        step: u32::try_from(number).ok(),
        node: 0,
    });
    Plan { steps: steps.collect(), goals: goals.collect(), ..Plan::default() }
}

/// One kind of runner a system, that builds everything.
pub(crate) fn kinds(systems: &[&str]) -> RunnerKinds {
    let kind = |system: &&str| RunnerKind {
        systems: vec![(*system).to_owned()],
        features: vec![],
        mandatory: vec![],
        runs_on: vec![(*system).to_owned()],
    };
    RunnerKinds::new(systems.iter().map(kind).collect())
}

/// The plan with so many workers, in which each derivation is a unit.
pub(crate) fn farm(drafts: &[(f64, Vec<u32>)], workers: usize) -> Arc<FarmPlan> {
    let kinds = kinds(&["x86_64-linux"]);
    Arc::new(FarmPlan::new(&mut plan(drafts), &kinds, &Grain::finest()).with_slots(&kinds, &[workers]))
}
