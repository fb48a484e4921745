use std::sync::Arc;

use phoenix_model::{Event, FailureClass, Stamp};

use super::fixture::{drv, farm, kinds, plan};
use super::*;
use crate::Grain;

fn at(seconds: u64) -> Stamp {
    Stamp(seconds * 1000)
}

fn worker(plan: &Arc<FarmPlan>, slot: u32) -> Worker {
    Worker::new(plan, Slot(slot), Limits::default())
}

fn claim(unit: u32, attempt: u32, slot: u32) -> Record {
    Record::Claim { unit: UnitId(unit), attempt, slot: Slot(slot) }
}

fn built(unit: u32, attempt: u32, slot: u32) -> Record {
    let built = vec![Built { derivation: unit, seconds: 1.0, bytes: None, cached: false, ended: None }];
    let unit = UnitId(unit);
    Record::Outcome(Outcome {
        unit,
        attempt,
        slot: Slot(slot),
        built,
        failed: vec![],
        parcel: None,
        action: None,
    })
}

fn failed(unit: u32, slot: u32) -> Record {
    let message = "builder failed".to_owned();
    let failed = vec![Failure {
        derivation: unit,
        class: FailureClass::Build,
        message,
        seconds: 1.0,
        log: vec![],
        ended: None,
    }];
    let unit = UnitId(unit);
    Record::Outcome(Outcome {
        unit,
        attempt: 1,
        slot: Slot(slot),
        built: vec![],
        failed,
        parcel: None,
        action: None,
    })
}

/// The first unit is given back.
fn returned(attempt: u32, slot: u32, reason: &str) -> Record {
    Record::Returned(Returned {
        unit: UnitId(0),
        attempt,
        slot: Slot(slot),
        reason: reason.to_owned(),
        stopped: false,
        built: vec![],
        parcel: None,
    })
}

fn interrupted(reason: &str, ends: Ends) -> Notice<'static> {
    Notice::Interrupted { reason: reason.to_owned(), ends }
}

/// Begins, and is told these records.
fn begun(worker: &mut Worker, records: &[Record]) -> Vec<Command> {
    let commands = worker.apply(at(0), Notice::Woken);
    assert_eq!(commands, [Command::Tell(Record::Joined { slot: worker.slot() }), Command::Look]);
    worker.apply(at(1), Notice::News(records))
}

fn claims(unit: u32, attempt: u32) -> Vec<Command> {
    vec![Command::Claim { unit: UnitId(unit), attempt }]
}

#[test]
fn a_unit_is_claimed_fetched_built_and_posted_and_then_the_next() {
    let plan = farm(&[(10.0, vec![]), (20.0, vec![0])], 1);
    let mut worker = worker(&plan, 0);
    assert_eq!(begun(&mut worker, &[]), claims(0, 1));
    let fetch = Command::Fetch { unit: UnitId(0), derivations: vec![0] };
    assert_eq!(worker.apply(at(2), Notice::Claimed), [fetch]);
    let build = Command::Build { unit: UnitId(0), derivations: vec![0] };
    assert_eq!(worker.apply(at(3), Notice::Fetched), [build]);
    let ended = Notice::Built {
        built: vec![Built { derivation: 0, seconds: 1.0, bytes: None, cached: false, ended: None }],
        failed: vec![],
        parcel: None,
    };
    assert_eq!(worker.apply(at(4), ended), [Command::Post(built(0, 1, 0))]);
    assert_eq!(worker.apply(at(5), Notice::Posted { first: true }), [Command::Look]);
    assert_eq!(worker.apply(at(6), Notice::News(&[])), claims(1, 1), "its own outcome it knows already");
}

#[test]
fn idle_workers_try_different_units() {
    let plan = farm(&[(30.0, vec![]), (20.0, vec![]), (10.0, vec![])], 3);
    let joined: Vec<Record> = (0..3).map(|slot| Record::Joined { slot: Slot(slot) }).collect();
    for slot in 0..3 {
        assert_eq!(begun(&mut worker(&plan, slot), &joined), claims(slot, 1));
    }
}

#[test]
fn who_is_refused_takes_the_next_and_asks_what_is_new_when_it_happens_often() {
    let plan = farm(&vec![(10.0, vec![]); 5], 2);
    let mut worker = worker(&plan, 0);
    assert_eq!(begun(&mut worker, &[]), claims(0, 1));
    assert_eq!(worker.apply(at(2), Notice::Taken), claims(1, 1));
    assert_eq!(worker.apply(at(2), Notice::Taken), claims(2, 1));
    assert_eq!(worker.apply(at(2), Notice::Taken), [Command::Look]);
}

#[test]
fn what_comes_next_is_foreseen() {
    // 0 is followed by 3; 1 and 2 are ready, 2 the longer one.
    let plan = farm(&[(100.0, vec![]), (20.0, vec![]), (30.0, vec![]), (50.0, vec![0])], 3);
    let mut worker = worker(&plan, 0);
    assert_eq!(begun(&mut worker, &[]), claims(0, 1));
    assert_eq!(worker.coming(at(1)), None);
    worker.apply(at(2), Notice::Claimed);
    worker.apply(at(3), Notice::Fetched);
    // Its own end opens the longest that is left.
    assert_eq!(worker.coming(at(3)), Some(UnitId(3)));
    // One who is done before takes that, and it takes what is left; two leave nothing.
    worker.apply(at(4), Notice::News(&[claim(1, 1, 1)]));
    assert_eq!(worker.coming(at(5)), Some(UnitId(2)));
    worker.apply(at(6), Notice::News(&[claim(2, 1, 2)]));
    assert_eq!(worker.coming(at(7)), None);
    // Those who take longer than expected are still counted on.
    worker.apply(at(200), Notice::News(&[built(1, 1, 1), claim(3, 1, 1)]));
    assert_eq!(worker.coming(at(200)), None);
}

#[test]
fn what_has_failed_blocks_its_dependents_on_every_worker() {
    let plan = farm(&[(10.0, vec![]), (5.0, vec![]), (10.0, vec![0]), (10.0, vec![2])], 2);
    let mut worker = worker(&plan, 0);
    assert_eq!(begun(&mut worker, &[claim(0, 1, 1), failed(0, 1)]), claims(1, 1));
    assert!(worker.board().is_settled(2) && worker.board().is_settled(3));
    let commands = worker.apply(at(2), Notice::Taken);
    assert!(matches!(commands[..], [Command::Wait { .. }]));
    worker.apply(at(3), Notice::Woken);
    let commands = worker.apply(at(3), Notice::News(&[claim(1, 1, 1), built(1, 1, 1)]));
    assert_eq!(commands.last(), Some(&Command::Leave(Leaving::Done)));
}

#[test]
fn a_worker_that_is_there_for_a_unit_stays_until_that_has_ended_and_no_longer() {
    let plan = farm(&[(10.0, vec![]), (10.0, vec![])], 3);
    let mut own = worker(&plan, 2).for_units([UnitId(0), UnitId(0), UnitId(7)]);
    begun(&mut own, &[claim(0, 1, 0)]);
    // The other unit is free, and none of its business.
    for seconds in 2..200 {
        own.apply(at(seconds), Notice::Woken);
        own.apply(at(seconds), Notice::Beats(&[(Slot(0), seconds)]));
        let commands = own.apply(at(seconds), Notice::News(&[]));
        let is_wrong = |command: &Command| matches!(command, Command::Leave(_) | Command::Claim { .. });
        assert!(!commands.iter().any(is_wrong), "{seconds}: {commands:?}");
    }
    own.apply(at(200), Notice::Woken);
    let commands = own.apply(at(200), Notice::News(&[built(0, 1, 0)]));
    assert_eq!(commands.last(), Some(&Command::Leave(Leaving::Done)));
    // What it needs is.
    let plan = farm(&[(10.0, vec![]), (10.0, vec![]), (10.0, vec![0])], 3);
    let mut own = worker(&plan, 2).for_units([UnitId(2)]);
    assert_eq!(begun(&mut own, &[]), claims(0, 1));
    // Who has nothing to build leaves at once.
    let mut none = worker(&plan, 2).for_units([]);
    let commands = begun(&mut none, &[]);
    assert_eq!(commands.last(), Some(&Command::Leave(Leaving::Done)));
}

#[test]
fn records_in_another_order_say_the_same() {
    let plan = farm(&[(10.0, vec![]), (10.0, vec![0]), (10.0, vec![0, 1])], 3);
    let records = [
        claim(0, 1, 0),
        built(0, 1, 0),
        claim(1, 1, 1),
        failed(1, 1),
        Record::Left { slot: Slot(1), spent: false },
        built(0, 2, 2),
    ];
    let mut orders = vec![records.to_vec()];
    for shift in 1..records.len() {
        let mut order = records.to_vec();
        order.rotate_left(shift);
        orders.push(order.clone());
        order.reverse();
        orders.push([order.clone(), order].concat());
    }
    for order in orders {
        let mut board = Board::new(&plan, vec![true], Limits::default());
        for record in &order {
            board.apply(at(1), record);
        }
        assert!(board.is_over(), "{order:?}");
        assert_eq!(board.failed().keys().copied().collect::<Vec<_>>(), [1]);
    }
}

#[test]
fn the_claim_of_one_who_is_silent_lapses_and_of_one_who_beats_does_not() {
    let plan = farm(&[(1000.0, vec![]), (1000.0, vec![])], 3);
    let mut board = Board::new(&plan, vec![true], Limits::default());
    board.apply(at(0), &claim(0, 1, 0));
    board.apply(at(0), &claim(1, 1, 1));
    board.beats(at(10), &[(Slot(0), 7), (Slot(1), 7)]);
    board.beats(at(99), &[(Slot(0), 7), (Slot(1), 8)]);
    assert_eq!(board.ready().count(), 0);
    board.beats(at(101), &[(Slot(0), 7), (Slot(1), 9)]);
    assert_eq!(board.ready().collect::<Vec<_>>(), [0]);
    assert_eq!((board.next_attempt(0), board.lost_over(0)), (2, 1));
    // It was only slow.
    board.apply(at(102), &built(0, 1, 0));
    assert!(board.is_settled(0));
    assert_eq!(board.ready().count(), 0);
}

#[test]
fn what_kills_every_worker_is_given_up_in_words() {
    let plan = farm(&[(1000.0, vec![])], 4);
    let mut worker = worker(&plan, 3);
    for attempt in 1..=3 {
        let now = 1000 * u64::from(attempt);
        worker.board_mut().apply(at(now), &claim(0, attempt, attempt - 1));
        worker.board_mut().beats(at(now + 200), &[]);
    }
    worker.apply(at(4000), Notice::Woken);
    let commands = worker.apply(at(4001), Notice::News(&[]));
    let [Command::Post(Record::Outcome(outcome))] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(outcome.failed[0].message, "given up: 3 runners were lost while they built it");
}

#[test]
fn what_a_runner_could_not_build_goes_to_another() {
    let plan = farm(&[(20.0, vec![]), (10.0, vec![])], 2);
    let mut worker = worker(&plan, 0);
    begun(&mut worker, &[Record::Joined { slot: Slot(1) }]);
    worker.apply(at(2), Notice::Claimed);
    let commands = worker.apply(at(3), interrupted("no space left on device", Ends::default()));
    assert_eq!(commands, [Command::Post(returned(1, 0, "no space left on device"))]);
    worker.apply(at(4), Notice::Posted { first: true });
    assert_eq!(worker.apply(at(5), Notice::News(&[])), claims(1, 1), "not what it gave back");
    worker.apply(at(6), Notice::Claimed);
    worker.apply(at(7), interrupted("no space left on device", Ends::default()));
    worker.apply(at(8), Notice::Posted { first: true });
    // The other may be about to leave, too.
    let commands = worker.apply(at(9), Notice::News(&[]));
    assert!(matches!(commands[..], [Command::Wait { .. }]), "{commands:?}");
    let mut last = worker.clone();
    worker.apply(at(40), Notice::Woken);
    let commands = worker.apply(at(40), Notice::News(&[]));
    assert!(matches!(commands[..], [_, Command::Leave(Leaving::Unfit(_))]), "{commands:?}");
    // Of two who cannot build one stays.
    last.apply(at(40), Notice::Woken);
    let gave_back = |unit, attempt| {
        let Record::Returned(returned) = returned(attempt, 1, "no space left on device") else {
            unreachable!()
        };
        Record::Returned(Returned { unit: UnitId(unit), ..returned })
    };
    let commands = last.apply(at(40), Notice::News(&[gave_back(0, 2), gave_back(1, 2)]));
    assert_eq!(commands, claims(0, 3));
}

#[test]
fn what_nobody_could_build_has_failed_with_all_reasons() {
    let plan = farm(&[(20.0, vec![])], 3);
    let mut board = Board::new(&plan, vec![true], Limits::default());
    for attempt in 1..=3 {
        let reason = format!("reason {attempt}");
        board.apply(at(1), &returned(attempt, attempt - 1, &reason));
    }
    assert_eq!(
        board.failed()[&0].message,
        "given up after 3 attempts; on runner 0: reason 1; on runner 1: reason 2; on runner 2: reason 3"
    );
}

#[test]
fn who_is_told_to_stop_gives_back_what_it_builds_and_goes() {
    let plan = farm(&[(20.0, vec![])], 2);
    let mut worker = worker(&plan, 0);
    begun(&mut worker, &[]);
    let stop = || Notice::Stop { reason: "SIGTERM".into() };
    assert_eq!(worker.apply(at(2), stop()), [], "the claim may be its own");
    let commands = worker.apply(at(2), Notice::Claimed);
    assert!(matches!(&commands[..], [Command::Post(Record::Returned(returned))] if returned.stopped));
    worker.apply(at(3), Notice::Posted { first: true });
    let commands = worker.apply(at(4), Notice::News(&[]));
    assert_eq!(commands.last(), Some(&Command::Leave(Leaving::Stopped("SIGTERM".into()))));
    assert_eq!(worker.apply(at(5), Notice::Woken), [], "gone is gone");
}

#[test]
fn with_fail_fast_the_first_failure_ends_what_others_build() {
    let plan = farm(&[(20.0, vec![]), (10.0, vec![])], 2);
    let limits = Limits { fail_fast: true, ..Limits::default() };
    let mut worker = Worker::new(&plan, Slot(1), limits);
    begun(&mut worker, &[]);
    worker.apply(at(2), Notice::Taken);
    worker.apply(at(2), Notice::Claimed);
    let commands = worker.apply(at(3), Notice::News(&[failed(0, 0)]));
    assert_eq!(commands, [Command::Abandon { unit: UnitId(1) }]);
    worker.apply(at(4), interrupted("another build failed", Ends::default()));
    worker.apply(at(5), Notice::Posted { first: true });
    let commands = worker.apply(at(6), Notice::News(&[]));
    assert_eq!(commands.last(), Some(&Command::Leave(Leaving::FailFast)));
}

#[test]
fn what_no_runner_can_build_has_its_verdict_at_once_and_hinders_the_rest() {
    let mut plan = plan(&[(1.0, vec![]), (1.0, vec![0]), (1.0, vec![])]);
    plan.steps[0].required_features = vec!["kvm".into()];
    let kinds = kinds(&["x86_64-linux"]);
    let farm = FarmPlan::new(&mut plan, &kinds, &Grain::default()).with_slots(&kinds, &[1]);
    let board = Board::new(&Arc::new(farm), vec![true, true], Limits::default());
    assert!(board.failed()[&0].message.contains("the system feature kvm"));
    assert!(plan.steps[0].hopeless.is_some(), "and the run will say so");
    assert_eq!(board.open_of_mine(), 1);
}

#[test]
fn a_plan_has_no_more_units_than_its_workers_may_claim() {
    let kinds = kinds(&["x86_64-linux"]);
    // Of one level, in chains, and each with the one before and another.
    let flat: Vec<(f64, Vec<u32>)> = (0..2000).map(|_| (60.0, vec![])).collect();
    let pairs = (0..1000).flat_map(|pair| [(90.0, vec![]), (90.0, vec![2 * pair])]).collect();
    let ladder = (0..1500).map(|own: u32| (50.0, (own.saturating_sub(2)..own).collect())).collect();
    let none = (0..5000).map(|_| (0.0, vec![])).collect();
    for (drafts, most) in [(flat, 400), (pairs, 400), (ladder, 200), (none, 200)] {
        let mut plan = plan(&drafts);
        let farm =
            FarmPlan::fitting(&mut plan, &kinds, &Grain::default(), |farm| farm.count_to_claim() <= most);
        let count = farm.count_to_claim();
        assert!(count <= most, "{count}");
        let members: usize = farm.units().iter().map(|unit| unit.members.len()).sum();
        assert_eq!(members, drafts.len());
    }
    // What fits stays as it is, and what nothing makes fit does not go on for ever.
    let mut few = plan(&[(60.0, vec![]), (60.0, vec![])]);
    let fine = FarmPlan::new(&mut few, &kinds, &Grain::default());
    assert_eq!(FarmPlan::fitting(&mut few, &kinds, &Grain::default(), |_| true), fine);
    assert_eq!(FarmPlan::fitting(&mut few, &kinds, &Grain::default(), |_| false).units().len(), 1);
}

#[test]
fn who_is_alone_with_something_has_to_claim_all_that_it_needs() {
    let farm = farm(&[(60.0, vec![]), (60.0, vec![0]), (60.0, vec![]), (60.0, vec![1])], 1);
    assert_eq!([vec![3], vec![1, 2], vec![], vec![0]].map(|own| farm.count_needed(own)), [3, 3, 0, 1]);
}

#[test]
fn who_may_claim_no_more_leaves_in_good_order() {
    let farm = farm(&[(60.0, vec![]), (60.0, vec![])], 2);
    for (others, slot, own, left_to_others) in
        [(true, 1, false, true), (true, 0, false, false), (false, 1, false, false), (true, 1, true, false)]
    {
        let (slot, other) = (Slot(slot), Slot(1 - slot));
        let mut worker = Worker::new(&farm, slot, Limits::default());
        if own {
            worker = worker.for_units([UnitId(0)]);
        }
        drop(worker.apply(at(0), Notice::Woken));
        let joined = if others { vec![Record::Joined { slot: other }] } else { vec![] };
        let mut commands = worker.apply(at(1), Notice::News(&joined));
        // The first one begins before it.
        if matches!(commands.last(), Some(Command::Wait { .. })) {
            drop(worker.apply(at(5), Notice::Woken));
            commands = worker.apply(at(5), Notice::News(&[]));
        }
        assert!(matches!(commands.last(), Some(Command::Claim { .. })), "{commands:?}");
        let commands = worker.apply(at(6), Notice::Spent { reason: "that is all".to_owned() });
        let leaving = Leaving::Spent { reason: "that is all".to_owned(), others: left_to_others };
        let left = Record::Left { slot, spent: true };
        assert_eq!(commands, [Command::Tell(left), Command::Leave(leaving)]);
    }
}

#[test]
fn a_plan_is_read_as_it_was_written_and_a_damaged_one_is_not() {
    let plan = farm(&[(1.0, vec![]), (2.0, vec![0]), (3.0, vec![0, 1])], 2);
    let text = serde_json::to_string(&*plan).unwrap();
    assert_eq!(serde_json::from_str::<FarmPlan>(&text).unwrap(), *plan);
    for (from, to) in [
        (r#""inputs":[0,1]"#, r#""inputs":[0,2]"#),
        (r#""members":[1]"#, r#""members":[0]"#),
        (r#""members":[1]"#, r#""members":[9]"#),
        (r#""members":[1]"#, r#""members":[]"#),
        (r#""class":0"#, r#""class":1"#),
        (r#""takes":[true]"#, r#""takes":[]"#),
    ] {
        let damaged = text.replacen(from, to, if from.contains("inputs") { 9 } else { 1 });
        assert_ne!(damaged, text, "{from}");
        let error = serde_json::from_str::<FarmPlan>(&damaged).unwrap_err().to_string();
        assert!(error.contains("the plan is damaged"), "{error}");
    }
    // A unit that does not wait for what it needs.
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["units"][2]["inputs"] = serde_json::json!([]);
    assert!(serde_json::from_value::<FarmPlan>(value).is_err());
}

#[test]
fn what_was_built_teaches_the_estimates() {
    let plan = farm(&[(1.0, vec![])], 1);
    let Record::Outcome(mut outcome) = built(0, 1, 0) else { unreachable!() };
    outcome.built[0] = Built { derivation: 0, seconds: 42.0, bytes: Some(7), cached: false, ended: None };
    let mut estimates = crate::Estimates::default();
    plan.learn(&outcome, &mut estimates);
    assert_eq!((estimates.known(&drv(0)), estimates.bytes(&drv(0))), (Some(42.0), 7));
}

#[test]
fn what_is_heard_late_happened_when_it_did_and_nothing_is_yet_to_come() {
    use crate::run::{Happening, Run};
    let drafts = [(1.0, vec![])];
    for (told, begun, ended) in
        [(Some(at(50)), at(49), at(50)), (Some(at(500)), at(99), at(100)), (None, at(99), at(100))]
    {
        let mut run = Run::default();
        let planned = Happening::Planned { plan: plan(&drafts), targets: vec![], saved_seconds: 0.0 };
        drop(run.apply(at(0), planned));
        let mut collector = Collector::new(&farm(&drafts, 1), Limits::default());
        let Record::Outcome(mut outcome) = built(0, 1, 0) else { panic!() };
        outcome.built[0].ended = told;
        let news = collector.news(at(100), &[claim(0, 1, 0), Record::Outcome(outcome)], &mut run);
        let when =
            |is: fn(&Event) -> bool| news.iter().find(|logged| is(&logged.event)).map(|logged| logged.at);
        assert_eq!(when(|event| matches!(event, Event::BuildStarted { .. })), Some(begun), "{told:?}");
        assert_eq!(when(|event| matches!(event, Event::DerivationSettled { .. })), Some(ended), "{told:?}");
    }
}
