//! What an action does, on a thread of its own.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use phoenix_gate::run_program;
use phoenix_model::{Action, ActionVerdict, Does, Event, Severity, StorePath};
use phoenix_store::{Validity, ValidityError};

use super::crew::Teller;
use crate::error::CommandError;
use crate::pushing::{To, ended};
use crate::recorder::Hear;
use crate::secrets::secrets;
use crate::setup::{Setup, var};
use crate::talk;

/// How often it is looked whether to stop.
const TICK: Duration = Duration::from_millis(50);

/// Runs one action. `beside` has to be in the store besides what it runs; `built` is what a push gives away.
pub(crate) fn run_action(
    action: &Action,
    beside: &[StorePath],
    setup: &Setup,
    built: &[StorePath],
    teller: &mut Teller,
) -> ActionVerdict {
    let done = match &action.does {
        Does::Push { to } => push(action, to, setup, built, teller),
        Does::Run { .. } | Does::Source { .. } => {
            let paths: Vec<StorePath> = action.paths.iter().chain(beside).cloned().collect();
            fetch(&paths, setup).and_then(|()| {
                let command = command(action, setup)?;
                run(action, command, Duration::from_secs(action.time_out), teller)
            })
        }
    };
    match done {
        Ok(Some(status)) if status.success() => ActionVerdict::Done,
        Ok(Some(status)) => ActionVerdict::Failed { message: format!("it ended with {}", ended(status)) },
        Ok(None) => ActionVerdict::Cancelled,
        Err(error) => ActionVerdict::Failed { message: secrets().hide(&error.in_one_line()).into_owned() },
    }
}

/// Brings what is only in a substituter into the store, and what is in a store elsewhere into that of this machine,
/// where it is run.
fn fetch(paths: &[StorePath], setup: &Setup) -> Result<(), CommandError> {
    let missing = missing(setup, paths)?;
    if !missing.is_empty() {
        let mut command = setup.nix.nix_store("--realise");
        command.args(missing.iter().map(StorePath::as_str));
        setup.nix.run(&mut command, "nix-store --realise")?;
    }
    if setup.layout.is_some() || paths.is_empty() {
        return Ok(());
    }
    let valid = Validity::open(&setup.eval_nix, Some(&setup.eval_layout))
        .valid(paths)
        .map_err(|error| no_look(&error))?;
    let lacking: Vec<&StorePath> = paths.iter().filter(|path| !valid.contains(*path)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    // It was built there because the user said so: that is as good as a signature.
    let mut command = setup.eval_nix.nix(&["copy"]);
    command.args(["--no-check-sigs", "--from", &setup.store]);
    command.args(lacking.iter().map(|path| path.as_str()));
    setup.eval_nix.run(&mut command, "nix copy")?;
    Ok(())
}

fn missing(setup: &Setup, paths: &[StorePath]) -> Result<Vec<StorePath>, CommandError> {
    let valid =
        Validity::open(&setup.nix, setup.layout.as_ref()).valid(paths).map_err(|error| no_look(&error))?;
    Ok(paths.iter().filter(|path| !valid.contains(*path)).cloned().collect())
}

fn no_look(error: &ValidityError) -> CommandError {
    CommandError::because("cannot look into the store", error)
}

/// How an action is run: as it is where its store is where it says, else as `nix shell` makes it so.
fn command(action: &Action, setup: &Setup) -> Result<Command, CommandError> {
    let (program, args, env) = match &action.does {
        Does::Source { script, env } => {
            // As std-action sources it: what fails ends it, and it has no arguments.
            let source = format!(". '{script}'");
            let args = ["-o", "errexit", "-o", "pipefail", "-c", &source, "bash"];
            ("bash", args.map(str::to_owned).to_vec(), Some(env))
        }
        Does::Run { program } => (program.as_str(), Vec::new(), None),
        Does::Push { .. } => return Err(CommandError::new("pushing is no program")),
    };
    let (nix, layout) = match &setup.layout {
        Some(layout) => (&setup.nix, layout),
        None => (&setup.eval_nix, &setup.eval_layout),
    };
    let mut command = if layout.real_dir == Path::new(&layout.store_dir) {
        let mut command = Command::new(program);
        nix.in_env(&mut command);
        command
    } else if cfg!(target_os = "linux") {
        let mut command = nix.nix(&["shell"]);
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
    let root = var("PRJ_ROOT")
        .or_else(|| var("GITHUB_WORKSPACE"))
        .map(PathBuf::from)
        .or_else(|| std::env::current_dir().ok());
    let temporary = var("RUNNER_TEMP").map_or_else(std::env::temp_dir, PathBuf::from);
    let mut directories = vec![("PRJ_ROOT", root.unwrap_or_default())];
    for (name, below) in [
        ("PRJ_DATA_HOME", ".data"),
        ("PRJ_CACHE_HOME", ".cache"),
        ("PRJ_CONFIG_HOME", ".config"),
        ("PRJ_RUNTIME_DIR", ".run"),
        ("PRJ_PATH", ".bin"),
    ] {
        // Whoever calls us may have told others already.
        let directory = var(name).map_or_else(|| temporary.join("prj").join(below), PathBuf::from);
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
    time_out: Duration,
    teller: &Teller,
) -> Result<Option<ExitStatus>, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::because("cannot start", &error))?;
    let stopped = async {
        while !teller.is_stopped() {
            tokio::time::sleep(TICK).await;
        }
    };
    runtime.block_on(async {
        let mut line = |line: String| teller.event(Event::ActionLine { action: action.id, line });
        tokio::select! {
            ended = run_program(command, &action.name, time_out, &mut line) => {
                ended.map(Some).map_err(|error| CommandError::new(error.to_string()))
            }
            () = stopped => Ok(None),
        }
    })
}

/// Pushes what was built.
fn push(
    action: &Action,
    to: &str,
    setup: &Setup,
    built: &[StorePath],
    teller: &mut Teller,
) -> Result<Option<ExitStatus>, CommandError> {
    let to = To::parse(to)?;
    let missing: HashSet<StorePath> = missing(setup, built)?.into_iter().collect();
    // What a substituter has need not be pushed.
    let paths: Vec<&StorePath> = built.iter().filter(|path| !missing.contains(*path)).collect();
    let well = Some(ExitStatus::from_raw(0));
    if paths.is_empty() {
        teller.hear(Severity::Notice, format!("nothing to push to {}", to.shown()));
        return Ok(well);
    }
    let (deadline, mut stopped) = (Instant::now() + Duration::from_secs(action.time_out), false);
    let mut client = |command: Command| {
        let left = deadline.saturating_duration_since(Instant::now());
        match run(action, command, left, teller) {
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
    teller.hear(
        Severity::Notice,
        format!("pushed {}, with all they refer to, to {}", talk::paths(paths.len()), to.shown()),
    );
    Ok(well)
}
