use std::collections::BTreeMap;

use phoenix_model::{AttrPath, TargetKind};
use proptest::prelude::*;

use super::*;
use crate::plan::Goal;

fn drv(number: usize) -> StorePath {
    StorePath::parse(&format!("/nix/store/{number:032}-d{number}.drv")).unwrap()
}

fn out(number: usize) -> StorePath {
    StorePath::parse(&format!("/nix/store/{number:032}-d{number}")).unwrap()
}

fn target(number: usize) -> Target {
    Target {
        id: TargetId(u32::try_from(number).unwrap()),
        source: ".".into(),
        attr_path: AttrPath(vec!["packages".into(), format!("t{number}")]),
        kind: TargetKind::Derivation,
        name: None,
        system: None,
        drv_path: Some(drv(number)),
        outputs: BTreeMap::default(),
        wanted: Vec::new(),
    }
}

/// A plan whose step `n` needs the steps `inputs[n]`, with one goal a step.
fn plan(inputs: &[Vec<u32>]) -> Plan {
    let steps = inputs.iter().enumerate().map(|(number, inputs)| Step {
        drv_path: drv(number),
        system: "x86_64-linux".into(),
        outputs: smallvec::smallvec![Some(out(number))],
        inputs: inputs.clone(),
        estimate: 1.0,
        bytes: 0,
        rides: false,
        fixed_output: false,
        rank: 1.0,
        unknown: false,
        required_features: vec![],
        hopeless: None,
    });
    let goals = (0..inputs.len()).map(|number| Goal {
        drv_path: drv(number),
        wanted: vec![],
        step: u32::try_from(number).ok(),
        node: 0,
    });
    Plan { steps: steps.collect(), goals: goals.collect(), ..Plan::default() }
}

fn planned(inputs: &[Vec<u32>], fail_fast: bool) -> (Run, Vec<Event>) {
    let mut run = Run::new(fail_fast);
    let mut events = Vec::new();
    for number in 0..inputs.len() {
        events.extend(run.apply(Stamp(0), Happening::Found { target: target(number), ended: None }));
    }
    let targets = (0..inputs.len()).map(|number| TargetId(u32::try_from(number).unwrap())).collect();
    let happening = Happening::Planned { plan: plan(inputs), targets, saved_seconds: 0.0 };
    events.extend(run.apply(Stamp(0), happening));
    (run, events)
}

fn started(number: usize) -> Happening {
    Happening::BuildStarted { drv_path: drv(number), machine: String::new() }
}

fn failed(number: usize, class: FailureClass) -> Happening {
    Happening::BuildFailed { drv_path: drv(number), class, message: "no".into() }
}

fn ended(exit_code: i32, valid: &[u32]) -> Happening {
    Happening::BuilderEnded(BuilderEnd {
        exit_code: Some(exit_code),
        valid: valid.iter().copied().collect(),
        ..BuilderEnd::default()
    })
}

fn verdict(run: &Run, number: u32) -> Verdict {
    run.verdict(TargetId(number)).cloned().expect("a verdict")
}

#[test]
fn a_built_derivation_has_its_seconds() {
    let (mut run, _) = planned(&[vec![]], false);
    run.apply(Stamp(1000), started(0));
    assert_eq!(run.running(), [0]);
    let events = run.apply(Stamp(3500), Happening::Appeared { drv_path: drv(0) });
    assert!(matches!(&events[0],
        Event::DerivationSettled { settled: SettledDerivation { verdict: Verdict::Built, seconds: Some(s), .. } }
        if (s - 2.5).abs() < 1e-9));
    run.apply(Stamp(4000), ended(0, &[0]));
    assert_eq!((verdict(&run, 0), run.exit_code()), (Verdict::Built, 0));
}

#[test]
fn a_failure_that_is_told_late_has_the_seconds_of_its_builder() {
    let (mut run, _) = planned(&[vec![]], false);
    run.apply(Stamp(1000), started(0));
    let events = run.apply(Stamp(3500), Happening::BuildEnded { drv_path: drv(0) });
    assert_eq!(events, [Event::BuildEnded { drv_path: drv(0) }]);
    assert_eq!((run.running(), run.begun()), (vec![], vec![0]));
    let events = run.apply(Stamp(9000), failed(0, FailureClass::Build));
    assert!(matches!(&events[0], Event::DerivationSettled { settled } if settled.seconds == Some(2.5)));
}

#[test]
fn a_time_out_that_names_nobody_is_of_the_builder_that_ended_after_the_longest_time() {
    let (mut run, _) = planned(&[vec![], vec![], vec![], vec![]], false);
    for (at, step) in [(0, 0), (1000, 1), (2000, 2), (2500, 3)] {
        run.apply(Stamp(at), started(step));
    }
    let silent = |run: &Run, lines: &[(usize, u64)]| {
        let last_line =
            |of: &StorePath| lines.iter().find(|(step, _)| drv(*step) == *of).map(|&(_, at)| Stamp(at));
        run.timed_out(Stamp(9000), last_line).cloned()
    };
    // As long as no builder ended: the one that runs longest.
    assert_eq!(silent(&run, &[]), Some(drv(0)));
    assert_eq!(silent(&run, &[(0, 8000)]), Some(drv(1)));
    for (at, step) in [(4000, 1), (7000, 2), (7500, 3)] {
        run.apply(Stamp(at), Happening::BuildEnded { drv_path: drv(step) });
    }
    // The first still runs: it is not what ran out of time.
    assert_eq!(silent(&run, &[]), Some(drv(2)));
    assert_eq!(silent(&run, &[(2, 6000)]), Some(drv(3)));
    // One of which is known how it ended is none either.
    run.apply(Stamp(9000), failed(2, FailureClass::Build));
    assert_eq!(silent(&run, &[]), Some(drv(3)));
}

#[test]
fn a_target_that_a_substituter_promised_in_vain_is_what_became_of_it() {
    for (built, wanted) in [(true, VerdictKind::Built), (false, VerdictKind::Failed)] {
        let mut run = Run::default();
        for id in [0, 1] {
            run.apply(Stamp(0), Happening::Found { target: target(id), ended: None });
        }
        let mut plan = plan(&[vec![]]);
        plan.goals.push(Goal { drv_path: drv(8), wanted: vec![], step: None, node: 0 });
        plan.found = [(drv(8), Source::Substituter("https://c".into()))].into();
        let targets = vec![TargetId(0), TargetId(1)];
        run.apply(Stamp(0), Happening::Planned { plan, targets, saved_seconds: 0.0 });
        assert_eq!(run.verdict(TargetId(1)).unwrap().kind(), VerdictKind::Cached);
        run.apply(Stamp(1), started(8));
        let end = BuilderEnd {
            exit_code: Some(i32::from(!built)),
            valid: [0].into(),
            realised: built.then(|| drv(8)).into_iter().collect(),
            ..BuilderEnd::default()
        };
        let events = run.apply(Stamp(2), Happening::BuilderEnded(end));
        assert_eq!(run.verdict(TargetId(1)).unwrap().kind(), wanted);
        let told = |event: &&Event| matches!(event, Event::TargetSettled { target: TargetId(1), .. });
        assert_eq!(events.iter().filter(told).count(), 1);
        assert_eq!(run.exit_code() == 0, built);
    }
}

#[test]
fn what_nix_builds_beside_the_plan_ends_too() {
    for (realised, cancelled, wanted) in [
        (true, false, VerdictKind::Built),
        (false, false, VerdictKind::Failed),
        (false, true, VerdictKind::Cancelled),
    ] {
        let (mut run, _) = planned(&[vec![]], false);
        run.apply(Stamp(1000), started(7));
        assert_eq!(run.beside_plan().collect::<Vec<_>>(), [&drv(7)]);
        if cancelled {
            run.apply(Stamp(1500), Happening::Cancelled { reason: "SIGINT".into() });
        }
        let end = BuilderEnd {
            exit_code: Some(i32::from(!realised)),
            valid: [0].into(),
            realised: realised.then(|| drv(7)).into_iter().collect(),
            ..BuilderEnd::default()
        };
        let events = run.apply(Stamp(3000), Happening::BuilderEnded(end));
        let settled = events.iter().find_map(|event| match event {
            Event::DerivationSettled { settled } if settled.drv_path == drv(7) => Some(settled),
            _ => None,
        });
        let settled = settled.expect("it ends");
        assert_eq!((settled.verdict.kind(), settled.seconds), (wanted, Some(2.0)));
    }
}

#[test]
fn a_builder_that_had_failed_is_not_cancelled() {
    let (mut run, _) = planned(&[vec![], vec![]], false);
    for step in 0..2 {
        run.apply(Stamp(1000), started(step));
    }
    run.apply(Stamp(2000), Happening::BuildEnded { drv_path: drv(0) });
    run.apply(Stamp(3000), Happening::Cancelled { reason: "SIGINT".into() });
    let events = run.apply(Stamp(4000), Happening::BuilderEnded(BuilderEnd::default()));
    let kind = |number| {
        events.iter().find_map(|event| match event {
            Event::DerivationSettled { settled } if settled.drv_path == drv(number) => {
                Some(settled.verdict.kind())
            }
            _ => None,
        })
    };
    assert_eq!((kind(0), kind(1)), (Some(VerdictKind::Failed), Some(VerdictKind::Cancelled)));
    assert_eq!(run.exit_code(), 130);
}

#[test]
fn what_is_tried_again_has_the_seconds_of_its_last_try() {
    let (mut run, _) = planned(&[vec![]], false);
    run.apply(Stamp(1000), started(0));
    run.apply(Stamp(2000), Happening::BuildEnded { drv_path: drv(0) });
    assert_eq!(run.apply(Stamp(3000), Happening::TriedAgain { drv_path: drv(0) }), []);
    assert_eq!(run.unexplained(), [0].into());
    let events = run.apply(Stamp(5000), started(0));
    assert_eq!(events, [Event::BuildStarted { drv_path: drv(0), machine: String::new() }]);
    let events = run.apply(Stamp(6500), Happening::Appeared { drv_path: drv(0) });
    assert!(matches!(&events[0], Event::DerivationSettled { settled } if settled.seconds == Some(1.5)));
    // When there is no time for that any more, nothing has failed.
    let (mut run, _) = planned(&[vec![]], false);
    run.apply(Stamp(1000), started(0));
    run.apply(Stamp(3000), Happening::TriedAgain { drv_path: drv(0) });
    run.apply(Stamp(3000), Happening::Cancelled { reason: "SIGINT".into() });
    run.apply(Stamp(4000), Happening::BuilderEnded(BuilderEnd::default()));
    assert_eq!(verdict(&run, 0), Verdict::Cancelled);
}

#[test]
fn what_is_built_beside_the_plan_ends_when_it_appears() {
    let (mut run, _) = planned(&[vec![]], false);
    run.apply(Stamp(1000), started(7));
    let events = run.apply(Stamp(2500), Happening::Appeared { drv_path: drv(7) });
    let [Event::DerivationSettled { settled }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((settled.verdict.kind(), settled.seconds), (VerdictKind::Built, Some(1.5)));
    let end = BuilderEnd { exit_code: Some(0), valid: [0].into(), ..BuilderEnd::default() };
    let again =
        |event: &Event| matches!(event, Event::DerivationSettled { settled } if settled.drv_path == drv(7));
    assert!(!run.apply(Stamp(9000), Happening::BuilderEnded(end)).iter().any(again), "once");
}

#[test]
fn what_fails_beside_the_plan_fails_as_nix_says() {
    let (mut run, _) = planned(&[vec![]], false);
    run.apply(Stamp(1000), started(7));
    let (class, message) = (FailureClass::HashMismatch, "another hash".to_owned());
    let events = run.apply(Stamp(2000), Happening::BuildFailed { drv_path: drv(7), class, message });
    let [Event::DerivationSettled { settled }] = &events[..] else { panic!("{events:?}") };
    assert!(matches!(settled.verdict, Verdict::Failed { class: FailureClass::HashMismatch, .. }));
}

#[test]
fn what_nix_was_not_asked_for_is_no_disagreement() {
    // 1 needs 0, which nobody can build; 2 stands alone and is built.
    let mut plan = plan(&[vec![], vec![0], vec![]]);
    plan.steps[0].hopeless = Some(Hopeless::other("no builder has kvm".to_owned()));
    let mut run = Run::new(false);
    for number in 0..3 {
        run.apply(Stamp(0), Happening::Found { target: target(number), ended: None });
    }
    let targets = (0..3).map(TargetId).collect();
    run.apply(Stamp(0), Happening::Planned { plan, targets, saved_seconds: 0.0 });
    let events = run.apply(Stamp(1), ended(0, &[2]));
    assert!(!events.iter().any(|event| matches!(event, Event::Message { .. })), "{events:?}");
    assert!(matches!(verdict(&run, 0), Verdict::Failed { .. }));
    assert_eq!(verdict(&run, 1), Verdict::Blocked { by: vec![drv(0)] });
    assert_eq!(run.exit_code(), 1);
}

#[test]
fn a_failure_blocks_everything_above_it_and_names_every_root() {
    // 3 needs 2 and 1, 2 needs 0; 0 and 1 fail.
    let (mut run, _) = planned(&[vec![], vec![], vec![0], vec![1, 2]], false);
    for number in [0, 1] {
        run.apply(Stamp(0), started(number));
        run.apply(Stamp(1), failed(number, FailureClass::Build));
    }
    run.apply(Stamp(2), ended(100, &[]));
    assert_eq!(verdict(&run, 2), Verdict::Blocked { by: vec![drv(0)] });
    assert_eq!(verdict(&run, 3), Verdict::Blocked { by: vec![drv(0), drv(1)] });
    assert_eq!(run.exit_code(), 100);
}

#[test]
fn what_appears_without_being_built_was_fetched_or_made_by_another() {
    let (mut run, _) = planned(&[vec![], vec![]], false);
    run.apply(Stamp(0), Happening::FetchStarted { path: out(0), from: "https://c".into() });
    run.apply(Stamp(1), ended(0, &[0, 1]));
    assert_eq!(verdict(&run, 0), Verdict::Cached { from: Source::Substituter("https://c".into()) });
    assert_eq!(verdict(&run, 1), Verdict::Cached { from: Source::Store });
}

#[test]
fn a_failure_stands_even_if_the_outputs_are_there() {
    let (mut run, _) = planned(&[vec![]], false);
    run.apply(Stamp(0), failed(0, FailureClass::NonDeterministic));
    run.apply(Stamp(1), ended(104, &[0]));
    assert_eq!(verdict(&run, 0).kind(), VerdictKind::Failed);
    assert_eq!(run.exit_code(), 104);
}

#[test]
fn failures_of_two_classes_are_ored() {
    let (mut run, _) = planned(&[vec![], vec![]], false);
    run.apply(Stamp(0), failed(0, FailureClass::TimedOut));
    run.apply(Stamp(0), failed(1, FailureClass::HashMismatch));
    run.apply(Stamp(1), ended(103, &[]));
    assert_eq!(run.exit_code(), 101 | 102);
}

#[test]
fn what_nix_leaves_undone_without_a_word_is_red() {
    let (mut run, _) = planned(&[vec![], vec![0]], false);
    let events = run.apply(Stamp(1), ended(0, &[]));
    assert!(matches!(verdict(&run, 0), Verdict::Failed { class: FailureClass::Other, .. }));
    assert_eq!(verdict(&run, 1), Verdict::Blocked { by: vec![drv(0)] });
    assert!(events.iter().any(|event| matches!(event, Event::Message { severity: Severity::Error, .. })));
    assert_eq!(run.exit_code(), 1);
}

#[test]
fn an_exit_code_that_says_otherwise_makes_the_run_red() {
    let (mut run, _) = planned(&[vec![]], false);
    run.apply(Stamp(0), started(0));
    run.apply(Stamp(1), Happening::Appeared { drv_path: drv(0) });
    let events = run.apply(Stamp(2), ended(1, &[0]));
    assert!(matches!(&events[..], [Event::Message { severity: Severity::Error, .. }]), "{events:?}");
    assert_eq!((verdict(&run, 0), run.exit_code()), (Verdict::Built, 1));
}

#[test]
fn with_fail_fast_what_is_left_is_cancelled() {
    let (mut run, _) = planned(&[vec![], vec![], vec![0]], true);
    run.apply(Stamp(0), failed(0, FailureClass::Build));
    run.apply(Stamp(1), ended(100, &[]));
    assert_eq!(verdict(&run, 1), Verdict::Cancelled);
    assert_eq!(verdict(&run, 2), Verdict::Blocked { by: vec![drv(0)] });
    assert_eq!(run.exit_code(), 100);
}

#[test]
fn a_stopped_run_keeps_what_was_built_and_cancels_the_rest() {
    let (mut run, _) = planned(&[vec![], vec![]], false);
    run.apply(Stamp(0), started(0));
    run.apply(Stamp(1), Happening::Appeared { drv_path: drv(0) });
    assert_eq!(run.apply(Stamp(2), Happening::Cancelled { reason: "SIGINT".into() }).len(), 1);
    assert!(run.apply(Stamp(2), Happening::Cancelled { reason: "SIGINT".into() }).is_empty());
    run.apply(Stamp(3), ended(1, &[0]));
    assert_eq!((verdict(&run, 0), verdict(&run, 1)), (Verdict::Built, Verdict::Cancelled));
    assert_eq!(run.exit_code(), 130);
}

#[test]
fn a_run_stopped_before_its_plan_cancels_its_targets() {
    let mut run = Run::new(false);
    run.apply(Stamp(0), Happening::Found { target: target(0), ended: None });
    run.apply(Stamp(0), Happening::Cancelled { reason: "SIGTERM".into() });
    run.apply(Stamp(0), Happening::BuilderEnded(BuilderEnd::default()));
    assert_eq!((verdict(&run, 0), run.exit_code()), (Verdict::Cancelled, 130));
}

#[test]
fn not_evaluated_is_its_own_exit_code_but_a_failure_comes_first() {
    let mut run = Run::new(false);
    let ended_early = Some(Verdict::NotEvaluated { error: "boom".into() });
    run.apply(Stamp(0), Happening::Found { target: target(0), ended: ended_early });
    run.apply(Stamp(0), ended(0, &[]));
    assert_eq!(run.exit_code(), 120);

    let (mut run, _) = planned(&[vec![]], false);
    let mut other = target(0);
    other.id = TargetId(9);
    let ended_early = Some(Verdict::NotEvaluated { error: "boom".into() });
    run.apply(Stamp(0), Happening::Found { target: other, ended: ended_early });
    run.apply(Stamp(0), failed(0, FailureClass::Build));
    run.apply(Stamp(0), ended(100, &[]));
    assert_eq!(run.exit_code(), 100);
}

#[test]
fn a_derivation_that_cannot_be_read_fails_at_once() {
    let mut damaged = plan(&[vec![], vec![0]]);
    damaged.steps[0].hopeless = Some(Hopeless::other("it is damaged".into()));
    assert_eq!(damaged.to_realise(), [], "nothing can be built");
    let mut besides = plan(&[vec![], vec![], vec![1], vec![0, 2]]);
    besides.steps[0].hopeless = Some(Hopeless::other("it is damaged".into()));
    besides.goals.retain(|goal| goal.step == Some(3));
    assert_eq!(besides.to_realise(), [(drv(2), vec![])], "what does not need it is built");
    let mut run = Run::new(false);
    for number in 0..2 {
        run.apply(Stamp(0), Happening::Found { target: target(number), ended: None });
    }
    let targets = vec![TargetId(0), TargetId(1)];
    run.apply(Stamp(0), Happening::Planned { plan: damaged, targets, saved_seconds: 0.0 });
    assert_eq!(verdict(&run, 0).kind(), VerdictKind::Failed);
    run.apply(Stamp(0), ended(0, &[]));
    assert_eq!(verdict(&run, 1), Verdict::Blocked { by: vec![drv(0)] });
}

#[test]
fn a_content_addressed_derivation_is_known_by_its_name_when_it_is_resolved() {
    let mut floating = plan(&[vec![], vec![0]]);
    floating.steps[1].outputs = smallvec::smallvec![None];
    let mut run = Run::new(false);
    run.apply(Stamp(0), Happening::Found { target: target(1), ended: None });
    floating.goals.remove(0);
    run.apply(
        Stamp(0),
        Happening::Planned { plan: floating, targets: vec![TargetId(1)], saved_seconds: 0.0 },
    );
    let resolved = StorePath::parse(&format!("/nix/store/{:032}-d1.drv", 77)).unwrap();
    let events =
        run.apply(Stamp(1), Happening::BuildStarted { drv_path: resolved.clone(), machine: String::new() });
    assert_eq!(events, [Event::BuildStarted { drv_path: drv(1), machine: String::new() }]);
    assert_eq!(run.derivation_of(&resolved), Some(drv(1)));
    run.apply(Stamp(2), ended(0, &[0, 1]));
    assert_eq!(verdict(&run, 1), Verdict::Built);
}

#[test]
fn what_nix_leaves_undone_can_be_told_from_what_is_hindered() {
    let (mut run, _) = planned(&[vec![], vec![0], vec![1], vec![]], false);
    run.apply(Stamp(0), failed(0, FailureClass::Build));
    assert_eq!(run.unexplained(), HashSet::from([3]));
}

#[test]
fn an_empty_run_is_green() {
    let mut run = Run::new(false);
    run.apply(Stamp(0), ended(0, &[]));
    assert_eq!(run.exit_code(), 0);
}

/// What may happen to a step in a random run.
#[derive(Debug, Clone)]
enum Thing {
    Start(usize),
    Appear(usize),
    Fail(usize, FailureClass),
    Fetch(usize),
    Cancel,
    /// A derivation that is in no plan.
    Stranger,
}

fn thing(steps: usize) -> impl Strategy<Value = Thing> {
    prop_oneof![
        5 => (0..steps).prop_map(Thing::Start),
        4 => (0..steps).prop_map(Thing::Appear),
        2 => (0..steps, prop_oneof![
            Just(FailureClass::Build),
            Just(FailureClass::Killed),
            Just(FailureClass::TimedOut),
            Just(FailureClass::HashMismatch),
            Just(FailureClass::NonDeterministic),
            Just(FailureClass::Other)
        ])
            .prop_map(|(step, class)| Thing::Fail(step, class)),
        1 => (0..steps).prop_map(Thing::Fetch),
        1 => Just(Thing::Cancel),
        1 => Just(Thing::Stranger),
    ]
}

/// Inputs of each step, what happens, what is valid in the end, how Nix ends, and whether it stops at the
/// first failure.
type Story = (Vec<Vec<u32>>, Vec<Thing>, Vec<bool>, Option<i32>, bool);

/// A random acyclic graph, random things happening in it in a random order, and a random end.
fn story() -> impl Strategy<Value = Story> {
    (1_usize..12).prop_flat_map(|steps| {
        let inputs = (0..steps)
            .map(|step| prop::collection::vec(0..u32::try_from(step.max(1)).unwrap(), 0..3))
            .collect::<Vec<_>>();
        (
            inputs.prop_map(|mut inputs| {
                inputs[0].clear();
                inputs
            }),
            prop::collection::vec(thing(steps), 0..40),
            prop::collection::vec(any::<bool>(), steps),
            prop::option::of(prop_oneof![Just(0), Just(1), Just(100), Just(102)]),
            any::<bool>(),
        )
    })
}

fn happening(thing: &Thing) -> Happening {
    match *thing {
        Thing::Start(step) => started(step),
        Thing::Appear(step) => Happening::Appeared { drv_path: drv(step) },
        Thing::Fail(step, class) => failed(step, class),
        Thing::Fetch(step) => Happening::FetchStarted { path: out(step), from: "c".into() },
        Thing::Cancel => Happening::Cancelled { reason: "SIGINT".into() },
        Thing::Stranger => started(99),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_target_and_every_derivation_ends_exactly_once_and_rightly(
        (inputs, things, valid, exit_code, fail_fast) in story()
    ) {
        let (mut run, mut events) = planned(&inputs, fail_fast);
        for (time, thing) in (0..).zip(&things) {
            events.extend(run.apply(Stamp(time), happening(thing)));
        }
        let valid: HashSet<u32> =
            (0..).zip(&valid).filter(|(_, valid)| **valid).map(|(step, _)| step).collect();
        let end = BuilderEnd { exit_code, valid: valid.clone(), ..BuilderEnd::default() };
        events.extend(run.apply(Stamp(99), Happening::BuilderEnded(end)));
        // Nothing that comes after the end changes anything.
        for thing in &things {
            for event in run.apply(Stamp(100), happening(thing)) {
                let settles = matches!(event, Event::TargetSettled { .. } | Event::DerivationSettled { .. });
                prop_assert!(!settles);
            }
        }

        let mut targets: BTreeMap<TargetId, Vec<Verdict>> = BTreeMap::new();
        let mut derivations: BTreeMap<StorePath, Vec<Verdict>> = BTreeMap::new();
        for event in &events {
            match event {
                Event::TargetSettled { target, verdict } => {
                    targets.entry(*target).or_default().push(verdict.clone());
                }
                Event::DerivationSettled { settled } => {
                    derivations.entry(settled.drv_path.clone()).or_default().push(settled.verdict.clone());
                }
                _ => {}
            }
        }
        prop_assert_eq!(targets.len(), inputs.len());
        let stranger = things.iter().any(|thing| matches!(thing, Thing::Stranger));
        prop_assert_eq!(derivations.len(), inputs.len() + usize::from(stranger));
        prop_assert!(targets.values().chain(derivations.values()).all(|verdicts| verdicts.len() == 1));

        let verdict_of = |step: usize| derivations[&drv(step)][0].clone();
        let first = |step: usize, wanted: fn(&Thing, usize) -> bool| {
            things.iter().position(|thing| wanted(thing, step))
        };
        for (step, needs) in inputs.iter().enumerate() {
            let verdict = verdict_of(step);
            prop_assert_eq!(&targets[&TargetId(u32::try_from(step).unwrap())][0], &verdict);
            let failed = first(step, |thing, step| matches!(thing, Thing::Fail(at, _) if *at == step));
            let appeared = first(step, |thing, step| matches!(thing, Thing::Appear(at) if *at == step));
            let is_failure = matches!(verdict, Verdict::Failed { .. });
            match (failed, appeared) {
                // The first word stands.
                (Some(failed), Some(appeared)) => prop_assert_eq!(is_failure, failed < appeared),
                (Some(_), None) => prop_assert!(is_failure),
                (None, Some(_)) => {
                    let green = matches!(verdict, Verdict::Built | Verdict::Cached { .. });
                    prop_assert!(green, "{step}: {verdict:?}");
                }
                (None, None) => {
                    let here = valid.contains(&u32::try_from(step).unwrap());
                    prop_assert_eq!(here, matches!(verdict, Verdict::Built | Verdict::Cached { .. }));
                    let below_is_red = needs.iter().any(|&input| {
                        matches!(verdict_of(input as usize), Verdict::Failed { .. } | Verdict::Blocked { .. })
                    });
                    prop_assert_eq!(!here && below_is_red, matches!(verdict, Verdict::Blocked { .. }));
                }
            }
            if let Verdict::Blocked { by } = &verdict {
                prop_assert!(!by.is_empty());
                for root in by {
                    prop_assert_eq!(derivations[root][0].kind(), VerdictKind::Failed);
                }
            }
        }
        let all_green = targets.values().all(|verdicts| !verdicts[0].is_red());
        let cancelled = things.iter().any(|thing| matches!(thing, Thing::Cancel));
        if all_green && !cancelled {
            prop_assert_eq!(run.exit_code() == 0, exit_code == Some(0));
        } else {
            prop_assert_ne!(run.exit_code(), 0);
        }
    }
}
