//! How many runners, what that would take, and the rows of a matrix.

use std::fmt::Write as _;
use std::sync::Arc;

use phoenix_model::Action;
use phoenix_report::human_seconds;
use phoenix_schedule::farm::FarmPlan;
use phoenix_schedule::simulation::{
    Comparison, Conditions, Decision, Story, compare, runners, share, simulate,
};
use phoenix_schedule::{Actions, Grain, Plan, RunnerKinds};
use phoenix_work::Hit;
use serde_json::{Value, json};

use super::acting::own_targets;
use crate::pipeline::Farm;

use crate::args::{FarmArgs, Matrix, Runners};

/// How many units a worker is to claim at most that does so by artifacts: a job of GitHub makes 500. By some of them it
/// tells of itself for hours, and where the depot is made of artifacts each unit may cost one more.
const MOST_CLAIMS: usize = 200;

/// The numbers of runners that are simulated.
const NUMBERS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Decides how many runners of each kind a plan gets.
pub(crate) fn decide(farm: &FarmPlan, kinds: &RunnerKinds, runners_asked: Runners, most: u32) -> Decision {
    let conditions = Conditions::default();
    match runners_asked {
        Runners::Auto => runners(farm, kinds, most as usize, false, &conditions),
        Runners::Just(number) => {
            let number = number.min(most);
            let needed = farm.seconds_by_kind(kinds).iter().filter(|&&seconds| seconds > 0.0).count();
            let number = (number as usize).max(needed).min(farm.count_to_claim());
            let counts = share(farm, kinds, number);
            let story = Story::as_expected(farm);
            let with = Arc::new(farm.with_slots(kinds, &counts));
            let makespan_seconds = match counts.iter().sum::<usize>() {
                0 => 0.0,
                _ => simulate(&with, &story, &conditions).makespan_seconds,
            };
            Decision { counts, makespan_seconds, tried: vec![(number, makespan_seconds)] }
        }
    }
}

/// The same for workers that meet by artifacts, and can claim so many units each and no more: where there would be more, the
/// plan is put into larger ones.
pub(crate) fn decide_within(farm: &mut Farm, runners_asked: Runners, most: u32) -> Decision {
    let kinds = &farm.kinds;
    let mut decided = None;
    let fits = |workers: &FarmPlan| {
        // Which numbers of runners pay off is simulated only for what could fit.
        decided = None;
        if workers.count_to_claim() > MOST_CLAIMS * most as usize {
            return false;
        }
        let decision = decided.insert(decide(workers, kinds, runners_asked, most));
        most_of_one(workers, kinds, &decision.counts) <= MOST_CLAIMS
    };
    farm.farm = FarmPlan::fitting(&mut farm.plan, kinds, &Grain::default(), fits);
    decided.unwrap_or_else(|| decide(&farm.farm, kinds, runners_asked, most))
}

/// How many units the worker claims that claims the most, when everything goes as expected.
fn most_of_one(farm: &FarmPlan, kinds: &RunnerKinds, counts: &[usize]) -> usize {
    match counts.iter().sum::<usize>() {
        0 => 0,
        1 => farm.count_to_claim(),
        _ => {
            let with = Arc::new(farm.with_slots(kinds, counts));
            simulate(&with, &Story::as_expected(farm), &Conditions::default()).most_claims()
        }
    }
}

/// Puts a plan into larger units, until no worker has to claim more than it can that builds alone what it answers for.
pub(crate) fn fit_hits<V>(farm: &mut Farm, hits: &[Hit], actions: &[(Action, V)]) {
    let goals: Vec<_> =
        farm.plan.goals.iter().map(|goal| goal.step).zip(farm.goals.iter().copied()).collect();
    let steps = |hit: &Hit| -> Vec<u32> {
        let own = own_targets(actions, hit);
        goals.iter().filter(|(_, target)| own.contains(target)).filter_map(|(step, _)| *step).collect()
    };
    let hits: Vec<Vec<u32>> = hits.iter().map(steps).collect();
    let fits = |workers: &FarmPlan| {
        let each = |steps: &Vec<u32>| workers.count_needed(steps.iter().copied()) <= MOST_CLAIMS;
        workers.count_to_claim() <= MOST_CLAIMS || hits.iter().all(each)
    };
    farm.farm = FarmPlan::fitting(&mut farm.plan, &farm.kinds, &Grain::default(), fits);
}

/// Sees that there is a runner for every action that is to run, of its system or of this one.
pub(crate) fn place_actions(actions: &Actions, here: &str, kinds: &RunnerKinds, counts: &mut Vec<usize>) {
    counts.resize(kinds.kinds().len(), 0);
    for action in actions.all().filter(|action| actions.verdict(action.id).is_none()) {
        let able = kinds.for_class(action.system.as_deref().unwrap_or(here), &[]).unwrap_or_default();
        if let Some(&first) = able.first()
            && able.iter().all(|&kind| counts[kind] == 0)
        {
            counts[first] = 1;
        }
    }
}

/// What a plan would take with several numbers of runners, when builds take and end as the arguments say.
pub(crate) fn simulation(plan: &Plan, farm: &FarmPlan, kinds: &RunnerKinds, args: &FarmArgs) -> Comparison {
    let targets: Vec<u32> = plan.goals.iter().filter_map(|goal| goal.step).collect();
    let story = Story::drawn(farm, args.seed, args.noise, args.failing);
    let conditions = Conditions { seed: args.seed, ..Conditions::default() };
    compare(farm, kinds, &targets, &NUMBERS, &story, &conditions)
}

/// A simulation as a table.
pub(crate) fn table(comparison: &Comparison) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{} of work, {} on the critical path. On GitHub's runners it would take:\n",
        human_seconds(comparison.total_seconds),
        human_seconds(comparison.critical_seconds)
    );
    text.push_str("runners   time  at least  billed minutes  idle minutes  builds\n");
    for row in &comparison.rows {
        let _ = writeln!(
            text,
            "{:>7} {:>6} {:>9} {:>15.0} {:>13.0} {:>7}",
            row.runners,
            human_seconds(row.makespan_seconds),
            human_seconds(row.lower_bound_seconds),
            row.billed_minutes,
            row.idle_minutes,
            row.builds
        );
    }
    let separate = &comparison.separate;
    let _ = writeln!(
        text,
        "\none runner for each of {} targets: {}, {:.0} billed minutes, {} builds",
        separate.runners,
        human_seconds(separate.makespan_seconds),
        separate.billed_minutes,
        separate.builds
    );
    text
}

/// The rows of a job matrix: one for each slot of a plan.
pub(crate) fn matrix_rows(farm: &FarmPlan, reference: &str, format: Matrix) -> Value {
    let slots = farm.slots().iter().enumerate();
    match format {
        Matrix::Github => {
            let rows = slots.map(
                |(slot, place)| json!({ "slot": slot, "system": place.system, "runs-on": place.runs_on }),
            );
            json!({ "include": rows.collect::<Vec<_>>() })
        }
        Matrix::Gitlab => {
            let jobs = slots.map(|(slot, place)| {
                let job = json!({
                    "tags": place.runs_on,
                    "script": [format!("phoenix work --plan {reference} --slot {slot}")],
                });
                (format!("work {slot} {}", place.system), job)
            });
            Value::Object(jobs.collect())
        }
        // Their rows are of what has work, not of slots alone.
        Matrix::Json | Matrix::V1 | Matrix::Std => {
            let rows = slots.map(
                |(slot, place)| json!({ "slot": slot, "system": place.system, "runsOn": place.runs_on }),
            );
            json!({ "plan": reference, "slots": rows.collect::<Vec<_>>() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phoenix_schedule::Grain;

    #[test]
    fn a_plan_without_work_has_no_rows() {
        let kinds = RunnerKinds::github_with(Vec::new());
        let farm = FarmPlan::new(&mut Plan::default(), &kinds, &Grain::default());
        for asked in [Runners::Auto, Runners::Just(3)] {
            let decision = decide(&farm, &kinds, asked, 10);
            assert_eq!(decision.runners(), 0);
            let farm = farm.with_slots(&kinds, &decision.counts);
            assert_eq!(matrix_rows(&farm, "x", Matrix::Github), json!({ "include": [] }));
        }
    }
}
