use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use phoenix_model::{AttrPath, Event, FailureClass, Stamp, StorePath, Target, TargetId, TargetKind, Verdict};
use proptest::prelude::*;

use super::*;
use crate::farm::fixture::{drv, farm, kinds, plan};
use crate::farm::{Built, Collector, FarmPlan, Leaving, Limits, Record, Returned, Slot, UnitId};
use crate::run::{Happening, Run};
use crate::{Grain, Plan};

type Drafts = Vec<(f64, Vec<u32>)>;

fn drafts(most: usize) -> impl Strategy<Value = Drafts> {
    let one =
        (prop_oneof![1.0..20.0, 1.0..2000.0], prop::collection::vec(any::<prop::sample::Index>(), 0..4));
    prop::collection::vec(one, 1..most).prop_map(|drawn| {
        let step = |(own, (seconds, inputs)): (usize, (f64, Vec<prop::sample::Index>))| {
            let inputs: BTreeSet<u32> = inputs
                .iter()
                .filter(|_| own > 0)
                .map(|index| u32::try_from(index.index(own)).unwrap())
                .collect();
            (seconds, inputs.into_iter().collect())
        };
        drawn.into_iter().enumerate().map(step).collect()
    })
}

/// Gives a record to a collector after the other; the verdict of the target of each step, and how many
/// verdicts there were.
fn verdicts(plan: &Plan, farm: &Arc<FarmPlan>, records: &[Record], limits: Limits) -> (Vec<Verdict>, usize) {
    let mut run = Run::new(limits.fail_fast);
    for id in (0..plan.goals.len()).map(|number| TargetId(u32::try_from(number).unwrap())) {
        let target = Target {
            id,
            source: ".".into(),
            attr_path: AttrPath::parse(&format!("t{}", id.0)).unwrap(),
            kind: TargetKind::Derivation,
            name: None,
            system: None,
            drv_path: None,
            outputs: BTreeMap::new(),
            wanted: vec![],
        };
        run.apply(Stamp(0), Happening::Found { target, ended: None });
    }
    let targets = (0..).take(plan.goals.len()).map(TargetId).collect();
    let planned = Happening::Planned { plan: plan.clone(), targets, saved_seconds: 0.0 };
    let mut events = run.apply(Stamp(0), planned);
    let mut collector = Collector::new(farm, limits);
    for (number, record) in (0..).zip(records) {
        let news = collector.news(Stamp(number), std::slice::from_ref(record), &mut run);
        events.extend(news.into_iter().map(|logged| logged.event));
    }
    let rest = collector.close(Stamp(1 << 40), "no runner was left", &mut run);
    events.extend(rest.into_iter().map(|logged| logged.event));
    let settled: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event {
            Event::TargetSettled { target, verdict } => Some((target, verdict)),
            _ => None,
        })
        .collect();
    let count = settled.len();
    let by_target: BTreeMap<TargetId, Verdict> = settled.into_iter().collect();
    (by_target.into_values().collect(), count)
}

/// What every verdict has to be, from the graph alone: the kind, and what it is blocked by.
fn expected(drafts: &Drafts, fails: &[bool]) -> Vec<(bool, BTreeSet<StorePath>)> {
    let mut roots: Vec<BTreeSet<StorePath>> = Vec::new();
    let mut expected = Vec::new();
    for (own, (_, inputs)) in drafts.iter().enumerate() {
        let by: BTreeSet<StorePath> =
            inputs.iter().flat_map(|&input| roots[input as usize].clone()).collect();
        let failed = by.is_empty() && fails[own];
        roots.push(if failed { BTreeSet::from([drv(own)]) } else { by.clone() });
        expected.push((failed, by));
    }
    expected
}

fn check(drafts: &Drafts, fails: &[bool], verdicts: &[Verdict]) -> Result<(), TestCaseError> {
    for ((failed, by), verdict) in expected(drafts, fails).iter().zip(verdicts) {
        match verdict {
            Verdict::Built => prop_assert!(!failed && by.is_empty()),
            Verdict::Failed { .. } => prop_assert!(*failed, "{verdict:?}"),
            Verdict::Blocked { by: named } => {
                let named: BTreeSet<StorePath> = named.iter().cloned().collect();
                prop_assert_eq!(&named, by);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
    Ok(())
}

/// A farm with merged units, and the plan it is of.
fn merged(drafts: &Drafts, workers: usize) -> (Plan, Arc<FarmPlan>) {
    let kinds = kinds(&["x86_64-linux"]);
    let mut plan = plan(drafts);
    let farm = FarmPlan::new(&mut plan, &kinds, &Grain::default()).with_slots(&kinds, &[workers]);
    (plan, Arc::new(farm))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn without_deaths_everything_is_built_once_and_every_verdict_is_right(
        drafts in drafts(50),
        workers in 1_usize..12,
        seed: u64,
        (failing, interrupted, delay) in (0.0..0.3, 0.0..0.5, 0.0..20.0),
    ) {
        let (plan, farm) = merged(&drafts, workers);
        let mut story = Story::drawn(&farm, seed, 0.5, failing);
        let fails = story.fails.clone();
        for (own, fails) in story.fails.iter_mut().enumerate().skip(1).step_by(2) {
            // Half of what fails is killed, wherever it is built.
            story.killed[own] = std::mem::take(fails);
        }
        let conditions = Conditions { seed, interrupted, delay_seconds: delay, ..Conditions::default() };
        let simulated = simulate(&farm, &story, &conditions);
        for (own, ((failed, by), &builds)) in expected(&drafts, &fails).iter().zip(&simulated.builds).enumerate() {
            prop_assert_eq!(builds, u32::from(!failed && by.is_empty()), "derivation {}", own);
        }
        let (verdicts, count) = verdicts(&plan, &farm, &simulated.records, conditions.limits);
        prop_assert_eq!(count, drafts.len(), "one verdict each");
        check(&drafts, &fails, &verdicts)?;
        prop_assert!(simulated.left.iter().all(Option::is_some), "all left");
        prop_assert_eq!(simulate(&farm, &story, &conditions), simulated, "reproducible");
    }

    #[test]
    fn when_workers_die_others_take_over(
        drafts in drafts(40),
        workers in 3_usize..10,
        seed: u64,
        (failing, delay) in (0.0..0.2, 0.0..20.0),
        deaths in prop::collection::vec((1_u32..10, 0.0..4000.0), 1..5),
        again in prop::collection::vec(prop::option::of(0.1_f64..600.0), 5),
    ) {
        let (plan, farm) = merged(&drafts, workers);
        let story = Story::drawn(&farm, seed, 0.5, failing);
        // One at a time: of two workers who stay for what is left, both may die at once.
        let deaths: Vec<(Slot, f64)> = deaths
            .into_iter()
            .zip(0..)
            .map(|((slot, at), number)| (Slot(slot), at + 4000.0 * f64::from(number)))
            .filter(|(slot, _)| (slot.0 as usize) < workers)
            .collect();
        let restarts = deaths.iter().zip(again).filter_map(|(&(slot, at), after)| after.map(|after: f64| (slot, at + after)));
        let restarts = restarts.collect();
        let limits = Limits { most_lost: 9, most_returned: 9, ..Limits::default() };
        let conditions =
            Conditions { seed, delay_seconds: delay, deaths, restarts, limits, ..Conditions::default() };
        let simulated = simulate(&farm, &story, &conditions);
        let stranded = simulated.left.contains(&Some(Leaving::Stranded));
        prop_assert!(!stranded, "{:?}", simulated.left);
        for ((failed, by), &builds) in expected(&drafts, &story.fails).iter().zip(&simulated.builds) {
            prop_assert_eq!(builds > 0, !failed && by.is_empty());
        }
        let (verdicts, count) = verdicts(&plan, &farm, &simulated.records, limits);
        prop_assert_eq!(count, drafts.len());
        check(&drafts, &story.fails, &verdicts)?;
    }

    #[test]
    fn whatever_happens_it_ends_and_no_verdict_is_better_than_the_truth(
        drafts in drafts(30),
        workers in 1_usize..6,
        seed: u64,
        (failing, interrupted, fail_fast) in (0.0..0.3, 0.0..0.5, any::<bool>()),
        deaths in prop::collection::vec((0_u32..6, 0.0..3000.0), 0..8),
    ) {
        let (plan, farm) = merged(&drafts, workers);
        let story = Story::drawn(&farm, seed, 0.5, failing);
        let deaths = deaths.into_iter().map(|(slot, at)| (Slot(slot), at)).collect();
        let limits = Limits { fail_fast, ..Limits::default() };
        let conditions = Conditions { seed, interrupted, deaths, limits, ..Conditions::default() };
        let simulated = simulate(&farm, &story, &conditions);
        let (verdicts, count) = verdicts(&plan, &farm, &simulated.records, limits);
        prop_assert_eq!(count, drafts.len());
        for (own, verdict) in verdicts.iter().enumerate() {
            prop_assert!(*verdict != Verdict::Built || simulated.builds[own] > 0);
        }
    }

    #[test]
    fn no_schedule_is_longer_than_list_scheduling_allows(drafts in drafts(60), workers in 1_usize..10) {
        // Graham, "Bounds on Multiprocessing Timing Anomalies" (1969): at most work/K + (1 - 1/K) times the
        // longest chain. Times are rounded down to milliseconds.
        let farm = farm(&drafts, workers);
        let story = Story::as_expected(&farm);
        let simulated = simulate(&farm, &story, &Conditions::ideal());
        let share = 1.0 / workers as f64;
        let bound = farm.total_seconds() * share + farm.critical_seconds() * (1.0 - share);
        // An idle worker looks only so often.
        let polls = drafts.len() as f64 * (Limits::default().poll_seconds.1 + 0.001);
        prop_assert!(simulated.makespan_seconds <= bound + polls, "{} > {bound}", simulated.makespan_seconds);
        prop_assert!(simulated.makespan_seconds + 0.001 * drafts.len() as f64 >= farm.critical_seconds());
        prop_assert!(simulated.makespan_seconds + 0.001 * drafts.len() as f64 >= farm.total_seconds() * share);
    }
}

#[test]
fn two_kinds_of_runners_wait_for_each_other() {
    let kinds = kinds(&["x86_64-linux", "aarch64-linux"]);
    let mut plan = plan(&[(100.0, vec![]), (100.0, vec![0]), (100.0, vec![1]), (100.0, vec![2])]);
    for step in [1, 3] {
        plan.steps[step].system = "aarch64-linux".into();
    }
    let farm = FarmPlan::new(&mut plan, &kinds, &Grain::default());
    assert_eq!(share(&farm, &kinds, 1), [0, 0], "one runner cannot");
    assert_eq!(share(&farm, &kinds, 3), [2, 1]);
    let farm = Arc::new(farm.with_slots(&kinds, &[1, 1]));
    let simulated = simulate(&farm, &Story::as_expected(&farm), &Conditions::default());
    assert_eq!(simulated.builds, [1, 1, 1, 1]);
    assert!(simulated.makespan_seconds < 30.0 + 400.0 + 4.0 * 17.0, "{}", simulated.makespan_seconds);
}

#[test]
fn what_waits_for_runners_that_are_all_dead_ends_and_says_so() {
    let kinds = kinds(&["x86_64-linux", "aarch64-linux"]);
    let mut plan = plan(&[(100.0, vec![]), (100.0, vec![0])]);
    plan.steps[0].system = "aarch64-linux".into();
    let farm = Arc::new(FarmPlan::new(&mut plan, &kinds, &Grain::default()).with_slots(&kinds, &[1, 1]));
    let conditions = Conditions { deaths: vec![(Slot(1), 50.0)], ..Conditions::default() };
    let simulated = simulate(&farm, &Story::as_expected(&farm), &conditions);
    assert_eq!(simulated.left, [Some(Leaving::Stranded), None]);
    let (verdicts, _) = verdicts(&plan, &farm, &simulated.records, Limits::default());
    assert!(
        matches!(&verdicts[0], Verdict::Failed { message, .. } if message.contains("no runner was left"))
    );
    assert!(matches!(&verdicts[1], Verdict::Blocked { by } if *by == [drv(0)]));
}

#[test]
fn a_worker_that_is_started_again_in_its_slot_goes_on() {
    let drafts: Drafts =
        (0..6).map(|own| (100.0, (own > 0).then(|| own - 1).into_iter().collect())).collect();
    for workers in [1, 2] {
        let (plan, farm) = merged(&drafts, workers);
        let all = (0..).take(workers);
        let deaths = all.clone().map(|slot| (Slot(slot), 150.0)).collect();
        // At once: its heartbeat does not stop for long enough that a claim could lapse.
        let restarts = all.map(|slot| (Slot(slot), 151.0)).collect();
        let conditions = Conditions { deaths, restarts, ..Conditions::default() };
        let simulated = simulate(&farm, &Story::as_expected(&farm), &conditions);
        let (verdicts, _) = verdicts(&plan, &farm, &simulated.records, Limits::default());
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Built), "{workers}: {verdicts:?}");
        assert!(simulated.makespan_seconds < 1000.0, "{}", simulated.makespan_seconds);
    }
}

#[test]
fn what_is_killed_on_every_machine_fails_alone() {
    let drafts: Drafts = vec![(3.0, vec![]), (3.0, vec![0]), (3.0, vec![1]), (3.0, vec![]), (3.0, vec![2])];
    for workers in [1, 2, 4] {
        let (plan, farm) = merged(&drafts, workers);
        assert!(farm.units().len() < drafts.len(), "some are together");
        let mut story = Story::as_expected(&farm);
        story.killed[2] = true;
        let simulated = simulate(&farm, &story, &Conditions::default());
        assert_eq!(simulated.builds, [1, 1, 0, 1, 0]);
        let (verdicts, _) = verdicts(&plan, &farm, &simulated.records, Limits::default());
        let Verdict::Failed { class: FailureClass::Killed, message } = &verdicts[2] else {
            panic!("{verdicts:?}")
        };
        assert!(message.starts_with("given up after 3 attempts; on runner"), "{message}");
        assert!(message.ends_with(": builder failed due to signal 9 (Killed)"), "{message}");
        for built in [0, 1, 3] {
            assert_eq!(verdicts[built], Verdict::Built);
        }
        assert_eq!(verdicts[4], Verdict::Blocked { by: vec![drv(2)] });
        let gave_up = |left: &&Option<Leaving>| matches!(left, Some(Leaving::GivenUp(_)));
        assert!(simulated.left.iter().any(|left| gave_up(&left)), "{:?}", simulated.left);
    }
}

#[test]
fn what_was_built_of_a_unit_that_nobody_took_up_is_built() {
    let drafts: Drafts = vec![(3.0, vec![]), (3.0, vec![0]), (3.0, vec![1]), (3.0, vec![2])];
    let (plan, farm) = merged(&drafts, 1);
    assert_eq!(farm.units().len(), 1);
    let (unit, attempt, slot) = (UnitId(0), 1, Slot(0));
    let built = |derivation| Built { derivation, seconds: 3.0, bytes: None, cached: false, ended: None };
    let records = [
        Record::Joined { slot },
        Record::Claim { unit, attempt, slot },
        Record::Returned(Returned {
            unit,
            attempt,
            slot,
            reason: "SIGTERM".to_owned(),
            stopped: true,
            built: vec![built(0), built(1)],
            parcel: None,
        }),
        Record::Left { slot, spent: false },
    ];
    let (verdicts, count) = verdicts(&plan, &farm, &records, Limits::default());
    assert_eq!((count, &verdicts[..2]), (4, &[Verdict::Built, Verdict::Built][..]));
    assert!(matches!(&verdicts[2], Verdict::Failed { message, .. } if message == "no runner was left"));
    assert_eq!(verdicts[3], Verdict::Blocked { by: vec![drv(2)] });
}

#[test]
fn a_unit_that_kills_its_worker_each_time_is_given_up() {
    let (plan, farm) = merged(&vec![(100.0, vec![])], 1);
    // 20 s after each begin.
    let times = (0..30).map(|round| 50.0 + 25.0 * f64::from(round));
    let deaths = times.clone().map(|at| (Slot(0), at)).collect();
    let restarts = times.map(|at| (Slot(0), at + 5.0)).collect();
    let conditions = Conditions { deaths, restarts, ..Conditions::default() };
    let simulated = simulate(&farm, &Story::as_expected(&farm), &conditions);
    let (verdicts, _) = verdicts(&plan, &farm, &simulated.records, Limits::default());
    assert!(
        matches!(&verdicts[..], [Verdict::Failed { message, .. }] if message.contains("given up after 3")),
        "{verdicts:?}"
    );
}

#[test]
fn workers_for_whom_nothing_is_left_go_home() {
    // Eight at once, then a long chain: one goes on, one stays as a spare.
    let mut drafts: Drafts = (0..8).map(|_| (600.0, vec![])).collect();
    drafts.push((3000.0, (0..8).collect()));
    drafts.push((3000.0, vec![8]));
    let farm = farm(&drafts, 8);
    let simulated = simulate(&farm, &Story::as_expected(&farm), &Conditions::default());
    let gone = simulated.left.iter().filter(|left| **left == Some(Leaving::NotNeeded)).count();
    assert_eq!(gone, 6);
    assert!(simulated.ran_seconds.iter().filter(|seconds| **seconds < 800.0).count() == 6);
}

#[test]
fn auto_takes_few_runners_for_a_chain_and_many_for_a_crowd() {
    let kinds = kinds(&["x86_64-linux"]);
    let decide = |drafts: &Drafts, most, here| {
        let farm = FarmPlan::new(&mut plan(drafts), &kinds, &Grain::default());
        runners(&farm, &kinds, most, here, &Conditions::default())
    };
    let chain: Drafts =
        (0..20).map(|own| (700.0, (own > 0).then(|| own - 1).into_iter().collect())).collect();
    assert_eq!(decide(&chain, 64, false).runners(), 1);
    assert_eq!(decide(&chain, 64, true).runners(), 0, "nothing is faster than to begin at once");
    let crowd: Drafts = (0..64).map(|_| (1000.0, vec![])).collect();
    let decision = decide(&crowd, 256, true);
    assert_eq!(decision.runners(), 64);
    assert!(decision.makespan_seconds < 1050.0);
    assert_eq!(decide(&crowd, 16, true).runners(), 16, "under the limit");
    assert_eq!(decide(&vec![], 16, false).runners(), 0);
    let small: Drafts = (0..4).map(|_| (10.0, vec![])).collect();
    assert_eq!(decide(&small, 256, true).runners(), 0, "starting a runner takes longer");
}

#[test]
fn what_nobody_can_build_is_no_work() {
    let kinds = kinds(&["x86_64-linux", "aarch64-linux"]);
    // One after another: two that can be built, one for the other system, and what needs something nobody has.
    let mut plan = plan(&[
        (100.0, vec![]),
        (100.0, vec![]),
        (100.0, vec![]),
        (5000.0, vec![]),
        (5000.0, vec![3]),
        (5000.0, vec![]),
    ]);
    plan.steps[2].system = "aarch64-linux".into();
    plan.steps[3].required_features = vec!["no-such".into()];
    plan.steps[5].system = "riscv64-linux".into();
    let farm = FarmPlan::new(&mut plan, &kinds, &Grain::default());
    assert!((plan.total_seconds() - 300.0).abs() < 1e-9 && (plan.critical_seconds() - 100.0).abs() < 1e-9);
    assert_eq!(farm.count_to_claim(), 3);
    let conditions = Conditions::default();
    assert_eq!(runners(&farm, &kinds, 10, false, &conditions).counts, [2, 1]);
    let story = Story::as_expected(&farm);
    let comparison = compare(&farm, &kinds, &[0, 1, 2, 3, 4, 5], &[4], &story, &conditions);
    assert!((comparison.total_seconds - 300.0).abs() < 1e-9, "{comparison:?}");
    assert!(comparison.rows.iter().all(|row| row.makespan_seconds >= row.lower_bound_seconds));
    let separate = comparison.separate;
    assert_eq!((separate.runners, separate.builds), (3, 3));
    assert!((separate.billed_minutes - 9.0).abs() < 1e-9, "3 times 130 s");
}

#[test]
fn a_runner_for_each_target_builds_what_is_shared_again_and_again() {
    let mut drafts: Drafts = vec![(1000.0, vec![])];
    drafts.extend((0..20).map(|_| (100.0, vec![0])));
    let kinds = kinds(&["x86_64-linux"]);
    let farm = FarmPlan::new(&mut plan(&drafts), &kinds, &Grain::default());
    let targets: Vec<u32> = (1..21).collect();
    let story = Story::as_expected(&farm);
    let comparison = compare(&farm, &kinds, &targets, &[1, 4, 16], &story, &Conditions::default());
    assert_eq!(comparison.separate.runners, 20);
    assert_eq!(comparison.separate.builds, 40);
    assert!((comparison.separate.billed_minutes - 380.0).abs() < 1e-9, "20 times 1130 s");
    assert!(comparison.rows.iter().all(|row| row.builds == 21));
    assert!(comparison.rows.iter().all(|row| row.makespan_seconds >= row.lower_bound_seconds));
    assert!((comparison.rows[0].lower_bound_seconds - 3000.0).abs() < 1e-9);
    assert!(comparison.rows[1].billed_minutes < 110.0, "{comparison:?}");
}
