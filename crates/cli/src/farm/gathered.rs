//! `phoenix report --plan`: waits for workers elsewhere, and gives every target its verdict.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use phoenix_model::{ActionVerdict, Event, SCHEMA_VERSION, Severity, Stage};
use phoenix_report::{ActionState, Summary};
use phoenix_schedule::farm::{Record, Slot};
use phoenix_schedule::{Happening, Run};

use super::acting::ActionsSeen;
use super::collecting::{Collecting, Seen};
use super::{collect, logs, manner, receive};
use crate::args::{ReportArgs, TalkArgs};
use crate::error::{CommandError, EXIT_ERROR};
use crate::recorder::Recorder;
use crate::screen::Screen;
use crate::state::State;
use crate::{depots, history, ledgers, signals};

/// How often a ledger is looked at that costs little: at first, and when nothing happens for long.
const LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long a worker that was told to stop is waited for: whoever restarts it does so at once.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// Collects all outcomes of a plan; returns what is then known of its run, which has ended.
pub(crate) fn report(args: &ReportArgs, reference: &str, url: &str) -> Result<Summary, CommandError> {
    ledgers::check(url)?;
    let depot = depots::open_of_run(args.shared.depot.as_deref())?;
    let (shipment, mark) = receive(depot.as_ref(), reference)?;
    let (_, mut limits) = manner(url);
    limits.fail_fast = shipment.fail_fast;
    let plan = Arc::new(shipment.farm);
    let mut collecting = collect(url, &mark, &plan, limits)?;
    let mut state = State::open();
    let mut recorder = Recorder::new(state.new_run()?, None, Screen::new(&TalkArgs::default()))?;
    recorder.keep_logs(false);
    let stop = Arc::new(AtomicBool::new(false));
    let signals = signals::listen(&stop)?;
    recorder.record(Event::RunStarted {
        schema: SCHEMA_VERSION,
        phoenix: shipment.phoenix,
        nix: shipment.nix,
        systems: shipment.systems,
        installables: shipment.installables,
    });
    let mut run = Run::new(shipment.fail_fast);
    for (target, ended) in shipment.targets {
        recorder.apply(&mut run, Happening::Found { target, ended });
    }
    let slots = plan.slots().len();
    let farm = Arc::clone(&plan);
    let (plan, targets, saved_seconds) = (shipment.plan, shipment.goals, shipment.saved_seconds);
    let nothing = plan.steps.is_empty();
    let mut actions = ActionsSeen::new(shipment.actions, &mut recorder);
    recorder.apply(&mut run, Happening::Planned { plan, targets, saved_seconds });
    recorder.record(Event::StageStarted { stage: Stage::Build });
    let patience = Duration::from_secs(u64::from(args.patience) * 60);
    let mut life = Life { at: Instant::now(), beats: Vec::new(), listened: Instant::now() };
    let pace = collecting.pace();
    let look = (LOOK.0.max(pace.0), LOOK.1.max(pace.1));
    let mut pause = look.0;
    let why = loop {
        if let Ok(signal) = signals.try_recv() {
            recorder.apply(&mut run, Happening::Cancelled { reason: signal.to_owned() });
            break "the collecting was stopped".to_owned();
        }
        let mut tell = |recorder: &mut Recorder, records: &[Record]| {
            logs::tell(records, &farm, &depot, reference, recorder);
        };
        let seen = collecting.look_after(&mut run, &mut recorder, &mut tell);
        actions.look(&mut collecting, &run, &mut recorder);
        if (nothing || collecting.is_over()) && actions.are_over() {
            break "it was not built".to_owned();
        }
        pause = if matches!(seen, Seen::New(1..)) { look.0 } else { (pause * 2).min(look.1) };
        if matches!(seen, Seen::New(1..)) {
            life.at = Instant::now();
        } else if life.listened.elapsed() > look.1 {
            life.listened = Instant::now();
            let beats = collecting.beats(&mut recorder);
            if beats != life.beats {
                (life.beats, life.at) = (beats, Instant::now());
            }
        }
        // All is built, and nobody is left to run what follows, though one was lost and has not said that it leaves.
        let only_acts = collecting.is_over() && collecting.have_all_begun(slots);
        if only_acts && life.at.elapsed().as_secs_f64() > limits.lapse_seconds {
            break "nobody is left to run it".to_owned();
        }
        // Who is told to stop goes on rarely, and at once.
        let is_stopped = collecting.have_all_left(slots) && stopped(&collecting, &recorder).is_some();
        if (is_stopped || args.cancelled) && life.at.elapsed() > BACK_WITHIN {
            break "the runners were stopped".to_owned();
        }
        // One that is started again in its slot may be on its way.
        if collecting.have_all_left(slots) && life.at.elapsed().as_secs_f64() > limits.lapse_seconds {
            break match collecting.spent() {
                0 => "all runners left, and it is not built".to_owned(),
                spent => spent_words(spent),
            };
        }
        if life.at.elapsed() > patience {
            let minutes = args.patience;
            break format!("no runner was left: for {minutes} minutes nothing was heard of any");
        }
        recorder.tick();
        std::thread::sleep(pause);
    };
    let over = collecting.is_over();
    let told = || args.cancelled.then(|| "the runners were told to stop".to_owned());
    let is_whole = over && actions.are_over();
    let reason = stopped(&collecting, &recorder).or_else(|| told().filter(|_| !is_whole));
    if let Some(reason) = reason.filter(|_| !run.is_cancelled()) {
        recorder.apply(&mut run, Happening::Cancelled { reason });
    }
    collecting.close(&why, &mut run, &mut recorder);
    let acted_well = actions.close(&why, &run, &mut recorder);
    if over {
        collecting.discard(&mut run, &mut recorder);
    }
    if let Err(error) = state.learn(&history::built(recorder.summary())) {
        recorder.say(Severity::Warning, format!("cannot remember how long builds took: {error}"));
    }
    if let Err(error) = history::add(&depot, recorder.summary(), collecting.sizes()) {
        recorder.say(Severity::Warning, error.in_one_line());
    }
    logs::fetch_all(&depot, reference, slots, &recorder.directory().join("logs"));
    let directory = recorder.directory().display().to_string();
    let code = run.exit_code();
    let code = if code == 0 && !acted_well { EXIT_ERROR } else { code };
    recorder.record(Event::RunEnded { exit_code: code, directory: Some(directory) });
    Ok(recorder.finish())
}

/// What was left because somebody was told to stop, if anything was.
fn stopped(collecting: &Collecting, recorder: &Recorder) -> Option<String> {
    let mut actions = recorder.summary().actions.values();
    let broken_off = |state: &&ActionState| state.verdict == Some(ActionVerdict::Cancelled);
    let action = || Some(format!("{} was broken off", actions.find(broken_off)?.action.name));
    collecting.stopped().or_else(action)
}

/// Why something was left by runners of which so many made as many artifacts as they may.
fn spent_words(spent: usize) -> String {
    let (runners, each) = if spent == 1 { ("runner", "it") } else { ("runners", "they") };
    format!(
        "it is not built, for {spent} {runners} left when {each} had made as many artifacts as a job may (500 on GitHub); \
         run the failed jobs again, which goes on from what is kept, or allow more runners (`max-runners`)"
    )
}

/// When anything was heard of anybody.
struct Life {
    at: Instant,
    beats: Vec<(Slot, u64)>,
    listened: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_for_a_limit_says_which_it_is_and_what_helps() {
        assert!(
            spent_words(1)
                .starts_with("it is not built, for 1 runner left when it had made as many artifacts")
        );
        for words in
            ["2 runners left when they had", "500 on GitHub", "run the failed jobs again", "max-runners"]
        {
            assert!(spent_words(2).contains(words), "{words}");
        }
    }
}
