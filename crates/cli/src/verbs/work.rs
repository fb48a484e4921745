//! `phoenix work`: one worker of a farm.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::HumanBytes;
use phoenix_model::{Event, SCHEMA_VERSION, Severity, StorePath};
use phoenix_report::plural;
use phoenix_schedule::farm::{Leaving, Slot, Worker};
use phoenix_store::Validity;
use tokio::sync::watch;

use crate::args::{EvaluatorProgram, Format, NixArgs, WorkArgs};
use crate::error::{CommandError, EXIT_ERROR};
use crate::farm::{self, NixExchange, Undone};
use crate::kept::Kept;
use crate::recorder::Recorder;
use crate::screen::Screen;
use crate::setup::{self, Setup};
use crate::state::State;
use crate::verbs::report::render;
use crate::{depots, ledgers, signals, talk};

/// How much the packs of a depot may have together is the planner's business.
const NO_BUDGET: u64 = u64::MAX;

/// Exit code of a worker that was told to stop.
const EXIT_STOPPED: u8 = 130;

/// Exit code of a worker whose own action failed, which the report tells: the first that Nix's codes for failed builds, 100
/// and three bits more, do not have.
const EXIT_ACTION: u8 = 108;

/// Runs the verb.
pub(crate) fn work(args: &WorkArgs) -> Result<ExitCode, CommandError> {
    if let Some(list) = args.unsaved.as_deref().filter(|_| args.keep_unsaved) {
        return keep_unsaved(args, list);
    }
    let Some(ledger_url) = &args.shared.ledger else {
        return Err(
            CommandError::new("a worker needs a ledger to take units from").hint("--ledger URL names it")
        );
    };
    ledgers::check(ledger_url)?;
    let setup = setup(args)?;
    let depot = depots::open_of_run(args.shared.depot.as_deref())?;
    let (shipment, mark) = farm::receive(depot.as_ref(), &args.reference)?;
    let shipment = Arc::new(shipment);
    let setup = fitted(setup, &shipment, args)?;
    let stop = Arc::new(AtomicBool::new(false));
    let signals = signals::listen(&stop)?;
    let mut state = State::open();
    let mut recorder = Recorder::new(state.new_run()?, args.talk.events.as_deref(), Screen::new(&args.talk))?;
    recorder.record(Event::RunStarted {
        schema: SCHEMA_VERSION,
        phoenix: env!("CARGO_PKG_VERSION").to_owned(),
        nix: setup.nix.version().to_owned(),
        systems: shipment.systems.clone(),
        installables: shipment.installables.clone(),
    });
    recorder.record(Event::StageStarted { stage: phoenix_model::Stage::Build });
    let kept = Kept::open(Arc::clone(&depot), NO_BUDGET, &mut recorder)?;
    let exchange = NixExchange::begin(shipment.clone(), setup.clone(), kept, recorder, args)?;
    let list = exchange.list();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CommandError::because("cannot start", &error))?;
    let (settings, mut limits) = farm::manner(ledger_url);
    limits.fail_fast = shipment.fail_fast;
    let worker = Worker::new(&Arc::new(shipment.farm.clone()), Slot(args.slot), limits);
    let worker = match shipment.hits.get(args.slot as usize) {
        Some(hit) => worker.for_units(farm::own_units(&shipment, hit)),
        None => worker,
    };
    let (tell, told) = watch::channel(None);
    let limit = args.time_limit.map(|minutes| Duration::from_secs(u64::from(minutes) * 60));
    std::thread::spawn(move || {
        let reason = match limit {
            None => signals.recv().map_or_else(|_| None, |signal| Some(signal.to_owned())),
            Some(limit) => match signals.recv_timeout(limit) {
                Ok(signal) => Some(signal.to_owned()),
                Err(_) => Some("its time is up".to_owned()),
            },
        };
        if reason.is_some() {
            tell.send_replace(reason);
        }
        // The channel stays open: a closed one would be no reason.
        std::mem::forget(tell);
    });
    let leaving = runtime.block_on(async {
        let ledger = farm::Listed::new(ledgers::open(ledger_url, &mark).await?, list.clone());
        Ok::<_, CommandError>(phoenix_work::work(worker, &ledger, &exchange, &settings, told).await)
    })?;
    let (text, severity, code) = words(&leaving);
    exchange.say(severity, format!("worker {} leaves: {text}", args.slot));
    // Builds that were broken off have the exchange until they have ended.
    runtime.shutdown_timeout(Duration::from_secs(30));
    let Some(done) = exchange.finish() else { return Ok(ExitCode::from(code)) };
    let mut recorder = done.recorder;
    let stage = farm::Stage {
        shipment: &shipment,
        reference: &args.reference,
        ledger: ledger_url,
        mark: &mark,
        slot: Slot(args.slot),
        setup: &setup,
        depot: &depot,
        stop: &stop,
        list: &list,
    };
    // Who was stopped, or does not know how the others fare, begins nothing.
    let acted = match &leaving {
        Leaving::Done | Leaving::NotNeeded | Leaving::GivenUp(_) => farm::act(&stage, &mut recorder),
        _ => Ok(true),
    };
    // Who answers for something of its own has told of that.
    let answers = shipment.hits.get(args.slot as usize).is_some();
    let code = match acted {
        Ok(false) if code == 0 && !answers => EXIT_ACTION,
        Ok(false) if code == 0 => EXIT_ERROR,
        Ok(_) => code,
        Err(error) => {
            recorder.say(Severity::Error, error.in_one_line());
            if code == 0 { EXIT_ERROR } else { code }
        }
    };
    // Who ends by itself has said what there is to say. One that is told to stop may have had no answer.
    if !stop.load(Ordering::Relaxed) {
        list.clear();
    }
    farm::keep_logs(&depot, &args.reference, args.slot, recorder.summary());
    let derivations = plural(done.built, "derivation");
    recorder.say(Severity::Notice, format!("worker {} built {} {derivations}", args.slot, done.built));
    // Nix's exit code for what failed here, so that a forge that runs failed jobs again runs this one. What is no
    // build's fault has been tried elsewhere since.
    let code = if code == 0 && !answers { done.failure_code } else { code };
    recorder.record(Event::RunEnded { exit_code: code, directory: None });
    let summary = recorder.finish();
    if args.talk.json {
        talk::stdout(&render(&summary, Format::Json)?)?;
    }
    Ok(ExitCode::from(code))
}

/// Does what a worker would have done that was ended before it could: keeps what it had built, and gives back what it was
/// at, so that nobody waits for it and the report knows that it was stopped.
fn keep_unsaved(args: &WorkArgs, list: &Path) -> Result<ExitCode, CommandError> {
    let mut undone = Undone::read(list)
        .map_err(|error| CommandError::because(format!("cannot read the list {}", list.display()), &error))?;
    if undone.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let paths = std::mem::take(&mut undone.paths);
    let kept = if paths.is_empty() { Ok(ExitCode::SUCCESS) } else { keep(args, paths) };
    if let Some(ledger) = &args.shared.ledger {
        let depot = depots::open_of_run(args.shared.depot.as_deref())?;
        let (shipment, mark) = farm::receive(depot.as_ref(), &args.reference)?;
        farm::give_back(ledger, &mark, &shipment.farm, Slot(args.slot), &undone)?;
    }
    kept
}

/// Keeps what of these is valid: what was broken off is not.
fn keep(args: &WorkArgs, mut paths: Vec<StorePath>) -> Result<ExitCode, CommandError> {
    let setup = setup(args)?;
    let Some(layout) = setup.layout.clone() else { return Ok(ExitCode::SUCCESS) };
    let valid = Validity::open(&setup.nix, Some(&layout))
        .valid(&paths)
        .map_err(|error| CommandError::because("cannot look into the store", &error))?;
    paths.retain(|path| valid.contains(path));
    if paths.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let infos = depots::infos(&layout, Some(&setup.store))?;
    let mut paths = depots::closure(&infos, paths)?;
    depots::leave_to_upstream(&mut paths, &setup.settings.trusted_public_keys);
    let depot = depots::open_of_run(args.shared.depot.as_deref())?;
    let mut heard = Vec::new();
    let saved =
        Kept::open(depot, NO_BUDGET, &mut heard).and_then(|mut kept| kept.save(&layout, &paths, &mut heard));
    for (severity, text) in heard.into_iter().filter(|(severity, _)| *severity != Severity::Detail) {
        talk::stderr(&format!("{}: {text}\n", if severity == Severity::Notice { "note" } else { "warning" }));
    }
    let saved = saved?;
    let size = HumanBytes(saved.size);
    let count = talk::paths(saved.paths);
    talk::stderr(&format!("kept what was built and not kept yet: {count}, in {size}\n"));
    Ok(ExitCode::SUCCESS)
}

/// Finds Nix, with what the flags say of it.
fn setup(args: &WorkArgs) -> Result<Setup, CommandError> {
    let nix = NixArgs {
        eval_memory: None,
        no_eval_cache: false,
        options: args.store.options.clone(),
        store: args.store.store.clone(),
        accept_flake_config: false,
        override_input: Vec::new(),
        impure: false,
        show_trace: false,
        eval_store: None,
        eval_workers: 1,
        evaluator: EvaluatorProgram::Nix,
    };
    setup::setup(&nix, Some(&args.builder))
}

/// Sees that this machine can work on a plan.
fn fitted(
    mut setup: Setup,
    shipment: &phoenix_work::Shipment,
    args: &WorkArgs,
) -> Result<Setup, CommandError> {
    let store_dir = &setup.eval_layout.store_dir;
    if *store_dir != shipment.store_dir {
        return Err(CommandError::new(format!(
            "the plan is for stores in {}, and the one here is in {store_dir}",
            shipment.store_dir
        ))
        .hint("planner and workers need the same store directory (NIX_STORE_DIR)"));
    }
    let slots = shipment.farm.slots().len();
    if args.slot as usize >= slots {
        return Err(CommandError::new(format!("the plan {} has no slot {}", args.reference, args.slot))
            .hint(format!("it has {slots} slots, counted from 0")));
    }
    for (name, value) in &shipment.options {
        setup.nix.set_option(name, value);
        setup.eval_nix.set_option(name, value);
    }
    Ok(setup)
}

/// Why it leaves in words, how much that matters, and the exit code.
fn words(leaving: &Leaving) -> (String, Severity, u8) {
    match leaving {
        Leaving::Done => ("all that it can build is done".to_owned(), Severity::Notice, 0),
        Leaving::NotNeeded => ("the others do the rest without it".to_owned(), Severity::Notice, 0),
        Leaving::FailFast => ("a failure ended the run".to_owned(), Severity::Notice, 0),
        Leaving::Stopped(reason) => (format!("it was stopped ({reason})"), Severity::Warning, EXIT_STOPPED),
        Leaving::Stranded => {
            ("nothing was heard of any other worker for long".to_owned(), Severity::Error, EXIT_ERROR)
        }
        Leaving::GivenUp(reason) => (
            format!("all is done but what could not be built here nor elsewhere ({reason})"),
            Severity::Error,
            EXIT_ERROR,
        ),
        Leaving::Spent { reason, others: true } => {
            (format!("{reason}; the others go on"), Severity::Warning, 0)
        }
        Leaving::Spent { reason, others: false } => {
            let text = format!("{reason}; what the others leave is built when the failed jobs are run again");
            (text, Severity::Error, EXIT_ERROR)
        }
        Leaving::Unfit(reason) | Leaving::LedgerLost(reason) => (reason.clone(), Severity::Error, EXIT_ERROR),
    }
}
