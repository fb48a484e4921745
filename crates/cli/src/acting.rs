//! Runs actions: what follows builds.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use phoenix_gate::run_program;
use phoenix_model::{Action, ActionVerdict, Does, Event, Severity, Stage, StorePath, Target, Verdict};
use phoenix_schedule::{Readiness, Run, signal_name};
use phoenix_store::Validity;

use crate::error::CommandError;
use crate::pipeline::Planned;
use crate::pushing::To;
use crate::recorder::Recorder;
use crate::setup::{Setup, var};

/// How often it is looked whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// Runs the actions of a run on this machine, as far as what they need is green; whether that was not stopped.
pub(crate) fn act(planned: &mut Planned) -> bool {
    let (mut begun, mut stopped) = (false, false);
    loop {
        let summary = planned.recorder.summary();
        let told = |id| {
            let target = summary.targets.get(&id).map(|state| summary.shown(&state.target));
            (target.unwrap_or_default(), planned.run.verdict(id))
        };
        let Some((id, readiness)) = planned.actions.next(told) else { break };
        let Some(action) = planned.actions.get(id).cloned() else { break };
        if stopped || planned.was_stopped() {
            break;
        }
        let (verdict, seconds) = match readiness {
            Readiness::Ended(verdict) => (verdict, None),
            Readiness::Waiting => break,
            Readiness::Ready => {
                if !std::mem::replace(&mut begun, true) {
                    planned.recorder.record(Event::StageStarted { stage: Stage::Act });
                }
                planned.actions.started(id);
                planned.recorder.record(Event::ActionStarted { action: id });
                let since = Instant::now();
                let targets = planned.recorder.summary().targets.values();
                let verdicts = targets.map(|state| (&state.target, state.verdict.as_ref()));
                let built = built(&planned.run, verdicts);
                let signals = &planned.signals;
                let mut go_on = |recorder: &mut Recorder| {
                    while let Ok(signal) = signals.try_recv() {
                        if !std::mem::replace(&mut stopped, true) {
                            recorder.record(Event::Cancelling { reason: signal.to_owned() });
                        }
                    }
                    !stopped
                };
                let ended = run_action(&action, &planned.setup, &built, &mut planned.recorder, &mut go_on);
                (ended, Some(since.elapsed().as_secs_f64()))
            }
        };
        planned.actions.ended(id, verdict.clone());
        planned.recorder.record(Event::ActionSettled { action: id, verdict, seconds, log: None });
    }
    // Only what was stopped is left.
    for (action, verdict) in planned.actions.close(&ActionVerdict::Cancelled) {
        planned.recorder.record(Event::ActionSettled { action, verdict, seconds: None, log: None });
    }
    !stopped
}

/// What a run has to give away: the outputs of what it built, and of its green targets; each once.
pub(crate) fn built<'a>(
    run: &'a Run,
    targets: impl Iterator<Item = (&'a Target, Option<&'a Verdict>)>,
) -> Vec<StorePath> {
    let is_green = |verdict| matches!(verdict, Some(&Verdict::Built | &Verdict::Cached { .. }));
    let green = targets.filter(|(_, verdict)| is_green(*verdict));
    let of_targets = green.flat_map(|(target, _)| target.outputs.values().flatten());
    let mut seen = HashSet::new();
    run.built_outputs().chain(of_targets).filter(|path| seen.insert(*path)).cloned().collect()
}

/// Runs one action. `go_on` is asked all the while; when it says no, the action is ended.
pub(crate) fn run_action(
    action: &Action,
    setup: &Setup,
    built: &[StorePath],
    recorder: &mut Recorder,
    go_on: &mut dyn FnMut(&mut Recorder) -> bool,
) -> ActionVerdict {
    let time_out = Duration::from_secs(action.time_out);
    let ended = match &action.does {
        Does::Push { to } => push(action, to, setup, built, recorder, go_on),
        Does::Run { .. } | Does::Source { .. } => fetch(action, setup).and_then(|()| {
            let command = command(action, setup)?;
            run(action, command, &action.name, time_out, recorder, go_on)
        }),
    };
    match ended {
        Ok(Some(status)) if status.success() => ActionVerdict::Done,
        Ok(Some(status)) => ActionVerdict::Failed { message: format!("it ended with {}", in_words(status)) },
        Ok(None) => ActionVerdict::Cancelled,
        Err(error) => ActionVerdict::Failed { message: error.in_one_line() },
    }
}

/// Brings what it runs into the store, where that is only in a substituter.
fn fetch(action: &Action, setup: &Setup) -> Result<(), CommandError> {
    let missing = missing(setup, &action.paths)?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut command = setup.nix.nix_store("--realise");
    command.args(missing.iter().map(StorePath::as_str));
    setup.nix.run(&mut command, "nix-store --realise")?;
    Ok(())
}

fn missing(setup: &Setup, paths: &[StorePath]) -> Result<Vec<StorePath>, CommandError> {
    let valid = Validity::open(&setup.nix, setup.layout.as_ref())
        .valid(paths)
        .map_err(|error| CommandError::because("cannot look into the store", &error))?;
    Ok(paths.iter().filter(|path| !valid.contains(*path)).cloned().collect())
}

/// How an action is run: as it is where its store is where it says, else as `nix shell` makes it so.
fn command(action: &Action, setup: &Setup) -> Result<Command, CommandError> {
    let (program, args, env) = match &action.does {
        Does::Source { script, env } => {
            let source = r#". "$1""#.to_owned();
            ("bash", vec!["-c".to_owned(), source, "bash".to_owned(), script.clone()], Some(env))
        }
        Does::Run { program } => (program.as_str(), Vec::new(), None),
        Does::Push { .. } => return Err(CommandError::new("pushing is no program")),
    };
    let is_here = setup.layout.as_ref().is_some_and(|layout| layout.real_dir == Path::new(&layout.store_dir));
    let mut command = if is_here {
        let mut command = Command::new(program);
        setup.nix.in_env(&mut command);
        command
    } else if setup.layout.is_some() && cfg!(target_os = "linux") {
        let mut command = setup.nix.nix(&["shell"]);
        command.args(action.paths.iter().map(StorePath::as_str)).arg("--command").arg(program);
        command
    } else {
        return Err(CommandError::new(format!(
            "what it runs is in the store {}, where nothing can be run from here",
            setup.store
        ))
        .hint("build in the store of this machine, or copy it there first"));
    };
    command.args(args);
    if let Some(env) = env {
        command.envs(env);
        command.envs(project_directories());
    }
    Ok(command)
}

/// Where a project keeps things, as std-action says it (the PRJ specification).
fn project_directories() -> Vec<(&'static str, PathBuf)> {
    let root = var("GITHUB_WORKSPACE").map(PathBuf::from).or_else(|| std::env::current_dir().ok());
    let temporary = var("RUNNER_TEMP").map_or_else(std::env::temp_dir, PathBuf::from);
    let mut directories = vec![("PRJ_ROOT", root.unwrap_or_default())];
    for (name, below) in [
        ("PRJ_DATA_HOME", ".data"),
        ("PRJ_CACHE_HOME", ".cache"),
        ("PRJ_CONFIG_HOME", ".config"),
        ("PRJ_RUNTIME_DIR", ".run"),
        ("PRJ_PATH", ".bin"),
    ] {
        let directory = temporary.join("prj").join(below);
        // Who needs it says that it is not there.
        let _ = fs_err::create_dir_all(&directory);
        directories.push((name, directory));
    }
    directories
}

/// Runs a program to its end; nothing when it was ended because we are to stop.
fn run(
    action: &Action,
    command: Command,
    shown: &str,
    time_out: Duration,
    recorder: &mut Recorder,
    go_on: &mut dyn FnMut(&mut Recorder) -> bool,
) -> Result<Option<ExitStatus>, CommandError> {
    let (tell, told) = crossbeam_channel::unbounded();
    let (cancel, cancelled) = tokio::sync::oneshot::channel::<()>();
    let mut cancel = Some(cancel);
    std::thread::scope(|scope| {
        // On a thread of its own: who is asked whether to go on may wait for something himself.
        let running = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| CommandError::because("cannot start", &error))?;
            runtime.block_on(async {
                let mut line = |line: String| drop(tell.send(line));
                tokio::select! {
                    ended = run_program(command, shown, time_out, &mut line) => {
                        ended.map(Some).map_err(|error| CommandError::new(error.to_string()))
                    }
                    _ = cancelled => Ok(None),
                }
            })
        });
        loop {
            match told.recv_timeout(TICK) {
                Ok(line) => recorder.record(Event::ActionLine { action: action.id, line }),
                Err(RecvTimeoutError::Timeout) => recorder.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if cancel.is_some() && !go_on(recorder) {
                // Nobody waits for it any more.
                cancel = None;
            }
        }
        running.join().unwrap_or_else(|_| Err(CommandError::new("what runs the program has failed")))
    })
}

/// Pushes what was built.
fn push(
    action: &Action,
    to: &str,
    setup: &Setup,
    built: &[StorePath],
    recorder: &mut Recorder,
    go_on: &mut dyn FnMut(&mut Recorder) -> bool,
) -> Result<Option<ExitStatus>, CommandError> {
    let to = To::parse(to)?;
    let missing: HashSet<StorePath> = missing(setup, built)?.into_iter().collect();
    // What a substituter has need not be pushed.
    let paths: Vec<&StorePath> = built.iter().filter(|path| !missing.contains(*path)).collect();
    let well = Some(ExitStatus::from_raw(0));
    if paths.is_empty() {
        recorder.say(Severity::Notice, format!("nothing to push to {}", to.shown()));
        return Ok(well);
    }
    let (deadline, mut stopped) = (Instant::now() + Duration::from_secs(action.time_out), false);
    let mut client = |command: Command| {
        let left = deadline.saturating_duration_since(Instant::now());
        match run(action, command, &action.name, left, recorder, go_on) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => {
                stopped = true;
                Err(std::io::ErrorKind::Interrupted.into())
            }
            Err(error) => Err(std::io::Error::other(error.in_one_line())),
        }
    };
    let pushed = to.push_all(&setup.nix, &paths, false, &mut client);
    if stopped {
        return Ok(None);
    }
    pushed?;
    recorder.say(
        Severity::Notice,
        format!("pushed {} paths, with all they refer to, to {}", paths.len(), to.shown()),
    );
    Ok(well)
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {}", signal_name(signal)),
        (None, None) => status.to_string(),
    }
}
