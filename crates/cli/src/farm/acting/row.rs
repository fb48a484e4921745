//! What a row answers for, as the events of a run of its own: what forges show of failures is made from events.

use phoenix_model::{Action, Event, SettledDerivation, StorePath, Target, Verdict};
use phoenix_report::ActionState;
use phoenix_schedule::Run;

/// A target, and its verdict where it has one.
pub(super) type Ended<'r> = (&'r Target, Option<&'r Verdict>);

/// What failed so that a target is red: the derivation of the target, or those that block it.
pub(super) fn culprits<'r>((target, verdict): Ended<'r>) -> &'r [StorePath] {
    match verdict {
        Some(Verdict::Failed { .. }) => target.drv_path.as_slice(),
        Some(Verdict::Blocked { by }) => by,
        _ => &[],
    }
}

/// How targets ended, with what failed for them and how its log ended, wherever that was built.
pub(super) fn of_targets<'l>(
    targets: &[Ended<'_>],
    run: &Run,
    log: impl Fn(&StorePath) -> &'l [String],
) -> Vec<Event> {
    let found = targets.iter().map(|(target, _)| Event::TargetFound { target: (*target).clone() });
    let mut events: Vec<Event> = found.collect();
    let mut failed: Vec<&StorePath> = Vec::new();
    for drv_path in targets.iter().flat_map(|ended| culprits(*ended)) {
        if !failed.contains(&drv_path) {
            failed.push(drv_path);
        }
    }
    for drv_path in failed {
        let Some((verdict, seconds)) = run.end_of(drv_path) else { continue };
        let line = |line: &String| Event::LogLine { drv_path: drv_path.clone(), line: line.clone() };
        events.extend(log(drv_path).iter().map(line));
        let (drv_path, verdict) = (drv_path.clone(), verdict.clone());
        let settled = SettledDerivation { drv_path, verdict, seconds, log: None };
        events.push(Event::DerivationSettled { settled });
    }
    events.extend(targets.iter().filter_map(|(target, verdict)| {
        Some(Event::TargetSettled { target: target.id, verdict: (*verdict)?.clone() })
    }));
    events
}

/// How an action ended, with the end of what it printed.
pub(super) fn of_action(action: &Action, state: Option<&ActionState>) -> Vec<Event> {
    let mut events = vec![Event::ActionFound { action: action.clone() }];
    if let Some((state, verdict)) = state.and_then(|state| Some((state, state.verdict.clone()?))) {
        let lines = state.tail.iter().cloned();
        events.extend(lines.map(|line| Event::ActionLine { action: action.id, line }));
        events.push(Event::ActionSettled { action: action.id, verdict, seconds: state.seconds, log: None });
    }
    events
}
