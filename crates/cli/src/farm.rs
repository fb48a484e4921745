//! Several workers: what they are given, what they do, and what comes of it.

mod acting;
mod collecting;
mod exchange;
mod gathered;
mod here;
mod hits;
mod intake;
mod listed;
mod logs;
mod room;
mod shipping;
mod simulating;
mod unsaved;

use std::time::Duration;

use phoenix_model::Severity;
use phoenix_schedule::farm::{FarmPlan, Limits};
use phoenix_schedule::{Grain, Plan, RunnerKind, RunnerKinds, Step};
use phoenix_work::Settings;

use crate::ledgers;
use crate::recorder::Recorder;
use crate::setup::Setup;

pub(crate) use acting::{Stage, act, own_units};
pub(crate) use collecting::collect;
pub(crate) use exchange::NixExchange;
pub(crate) use gathered::report;
pub(crate) use here::build;
pub(crate) use hits::{Gated, hits, hits_rows, of_slots, without_row};
pub(crate) use listed::Listed;
pub(crate) use logs::keep_all as keep_logs;
pub(crate) use shipping::{Besides, receive, ship};
pub(crate) use simulating::{decide, decide_within, fit_hits, matrix_rows, place_actions, simulation, table};
pub(crate) use unsaved::{Undone, Unsaved, give_back};

/// A claim in a directory costs some milliseconds.
const GRAIN_HERE: Grain =
    Grain { worth_seconds: 1.0, longest_seconds: 60.0, critical_share: 0.02, slack_seconds: 0.0 };

/// Plans for workers on this machine.
pub(crate) fn for_here(setup: &Setup, _: &[RunnerKind], plan: &mut Plan) -> (FarmPlan, RunnerKinds) {
    plan.refuse(&setup.builders());
    // Whatever this machine has somebody for: Nix sees to who that is.
    let mut here =
        RunnerKind { systems: vec![], features: vec![], mandatory: vec![], runs_on: vec!["here".to_owned()] };
    for machine in setup.builders().machines {
        here.systems.extend(machine.systems);
        here.features.extend(machine.features);
    }
    let kinds = RunnerKinds::new(vec![here]);
    (FarmPlan::new(plan, &kinds, &GRAIN_HERE), kinds)
}

/// Plans for runners elsewhere: those of `phoenix.toml`, and GitHub's.
pub(crate) fn for_runners(_: &Setup, own: &[RunnerKind], plan: &mut Plan) -> (FarmPlan, RunnerKinds) {
    let kinds = RunnerKinds::github_with(own.to_vec());
    (FarmPlan::new(plan, &kinds, &Grain::default()), kinds)
}

/// Says what several workers cannot share.
pub(crate) fn tell_of_floating(plan: &Plan, recorder: &mut Recorder) {
    let floats = |step: &&Step| step.outputs.iter().any(Option::is_none);
    let count = plan.steps.iter().filter(floats).count();
    if count > 0 {
        let text = format!(
            "{count} {} content-addressed, or {} what is: each worker that needs it builds it, also where it is there",
            if count == 1 { "derivation is" } else { "derivations are" },
            if count == 1 { "needs" } else { "need" },
        );
        recorder.say(Severity::Notice, text);
    }
}

/// How the workers that meet in a ledger deal with time: the cheaper it is to look, the less they wait.
pub(crate) fn manner(ledger: &str) -> (Settings, Limits) {
    let (beat, lapse_seconds, poll_seconds) = match ledger.split_once(':') {
        Some(("dir", _)) => (1, 10.0, (0.02, 0.5)),
        Some(("nats" | "tls", _)) => (5, 30.0, (0.1, 5.0)),
        // A worker shows that it is alive once a minute at first, and after hours every four.
        Some((ledgers::GITHUB, _)) => (60, 600.0, (3.0, 30.0)),
        _ => return (Settings::default(), Limits::default()),
    };
    let beat = Duration::from_secs(beat);
    let settings = Settings { beat, look: beat, ..Settings::default() };
    (settings, Limits { lapse_seconds, poll_seconds, ..Limits::default() })
}
