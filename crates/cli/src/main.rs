//! The `phoenix` command: wires the crates together, prints, and sets exit codes.

mod args;
mod config;
mod error;
mod evaluating;
mod setup;
mod signals;
mod talk;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Verb};
use crate::error::EXIT_ERROR;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors; everything else is a usage error.
            return if error.use_stderr() { ExitCode::from(EXIT_ERROR) } else { ExitCode::SUCCESS };
        }
    };
    let ended = match &cli.verb {
        Verb::Eval(args) => verbs::eval::eval(args),
        _ => return ExitCode::FAILURE,
    };
    ended.unwrap_or_else(|error| error.report())
}
