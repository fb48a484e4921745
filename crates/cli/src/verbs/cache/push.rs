//! `phoenix cache push`: store paths to another store, or to a cache service through its own client.

use std::io;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use phoenix_model::StorePath;

use super::{say, store, store_path, valid_since};
use crate::args::PushArgs;
use crate::depots;
use crate::error::CommandError;
use crate::pushing::To;
use crate::talk;

/// Runs the verb.
pub(super) fn push(args: &PushArgs) -> Result<ExitCode, CommandError> {
    let to = To::parse(&args.to)?;
    let (nix, layout) = store(&args.store)?;
    let infos = depots::infos(&layout, args.store.store.as_deref())?;
    let paths = if args.all || args.since.is_some() {
        let (new, _) = valid_since(&infos, args.since.as_deref())?;
        // Derivations are of use to nobody else, and come along where something refers to them.
        new.into_iter().filter(|path| !path.is_derivation()).collect()
    } else {
        let roots: Vec<StorePath> =
            args.paths.iter().map(|path| store_path(path, &layout)).collect::<Result<_, _>>()?;
        let valid = infos.of(&roots).map_err(|error| depots::no_look(&error))?;
        if let Some(lost) = roots.iter().find(|root| !valid.iter().any(|info| info.path == **root)) {
            return Err(CommandError::new(format!("{lost} is not valid"))
                .hint("build it first; `nix-store --realise` does"));
        }
        roots
    };
    drop(infos);
    if paths.is_empty() {
        say("nothing to push");
        return Ok(ExitCode::SUCCESS);
    }
    let (derivations, others): (Vec<&StorePath>, Vec<&StorePath>) =
        paths.iter().partition(|path| path.is_derivation());
    for (some, is_derivation) in [(others, false), (derivations, true)] {
        to.push_all(&nix, &some, is_derivation, &mut run)?;
    }
    say(format!("pushed {}, with all they refer to, to {}", talk::paths(paths.len()), to.shown()));
    Ok(ExitCode::SUCCESS)
}

/// Runs a client to its end. What it says is for people, all of it.
fn run(mut command: Command) -> io::Result<ExitStatus> {
    command.stdin(Stdio::null()).stdout(io::stderr()).stderr(Stdio::inherit()).status()
}
