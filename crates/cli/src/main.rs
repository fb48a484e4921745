//! The `phoenix` command: wires the crates together, prints, and sets exit codes.

mod acting;
mod answers;
mod args;
mod blobs;
mod building;
mod config;
mod depots;
mod error;
mod evaluating;
mod farm;
mod gates;
mod handed;
mod history;
mod kept;
mod ledgers;
mod mark;
mod memory;
mod pipeline;
mod pushing;
mod recorder;
mod screen;
mod secrets;
mod setup;
mod signals;
mod state;
mod status;
mod talk;
mod tidy;
mod verbs;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use phoenix_store::{Nix, Settings};

use crate::args::{Cli, Verb, understand};
use crate::error::EXIT_ERROR;

/// Graphs are made in many threads and taken apart in one: the system's allocator takes its time over that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    memory::begin_anew_if_sparing(&words);
    handed::take();
    // Where Nix does not tell of its settings, there are none that could be flags.
    let mut settings = || Nix::find().and_then(|nix| Settings::flags(&nix)).unwrap_or_default();
    let words = understand(words, &mut Cli::command(), &mut settings);
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors; everything else is a usage error.
            return if error.use_stderr() { ExitCode::from(EXIT_ERROR) } else { ExitCode::SUCCESS };
        }
    };
    let ended = match &cli.verb {
        Verb::Run(args) => verbs::run::run(args),
        Verb::Plan(args) => verbs::plan::plan(args),
        Verb::Eval(args) => verbs::eval::eval(args),
        Verb::Work(args) => verbs::work::work(args),
        Verb::Report(args) => verbs::report::report(args),
        Verb::Cache(verb) => verbs::cache::cache(verb),
    };
    ended.unwrap_or_else(|error| error.report())
}
