//! The tasks of this repository: `cargo xtask VERB`.

mod actions;
mod architecture;
mod args;
mod bench;
mod browser;
mod ci;
mod demo;
mod eval_jobs;
mod github_clients;
mod nix;
mod nix_versions;
mod node;
mod process;
mod test;

use std::process::ExitCode;

use crate::args::Args;
use crate::process::say;

const USAGE: &str = "\
usage: cargo xtask VERB

  demo                       install Nix if it is missing, build phoenix, run it twice on the example flake
  test [ARGS...]             everything needed, then all tests; ARGS go to `cargo test`
  nix-versions [--allow-skip] [--only installed|trixie|sid|VERSION]
                             the end-to-end tests on each version of Nix that is supported; what cannot be
                             had here is an error, or with --allow-skip a line that says so
  github-clients             the official client of GitHub's cache against our double of the service, and our
                             client against Azurite; needs Node.js, and npm's packages
  actions [--allow-skip]     our actions and workflows, checked by actionlint and zizmor, and run by act; needs Go,
                             Python and Node.js
  browser [--allow-skip]     the HTML report in a real browser: clicks, keys, pictures; needs Node.js and Chromium
  eval-jobs [CHECKOUT] [--allow-skip] [--only installed|trixie|sid|VERSION]
                             nix-eval-jobs' own tests against `phoenix eval`, on each version of Nix; CHECKOUT (or
                             $NIX_EVAL_JOBS_CHECKOUT) is its repository; needs Python and pytest
  architecture [--check]     draw the dependency picture in docs/architecture.md, or check that it is true
  bench [NAME...]            the benchmarks; their figures are in docs/benchmarks.md
  ci                         everything that has to hold
";

/// What went wrong, in words.
type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match task(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say(&format!("error: {problem}\n"));
            ExitCode::FAILURE
        }
    }
}

fn task(words: &[String]) -> Result<()> {
    let (verb, rest) = words.split_first().map_or(("help", &[][..]), |(verb, rest)| (verb.as_str(), rest));
    let help = |word: &str| matches!(word, "help" | "-h" | "--help");
    // `cargo test` has a help of its own.
    if help(verb) || verb != "test" && rest.iter().any(|word| help(word)) {
        say(USAGE);
        return Ok(());
    }
    match verb {
        "demo" => Args::new(rest).finish().and_then(|()| demo::demo()),
        "test" => test::test(rest),
        "nix-versions" => nix_versions::nix_versions(Args::new(rest)),
        "github-clients" => Args::new(rest).finish().and_then(|()| github_clients::github_clients()),
        "actions" => actions::actions(Args::new(rest)),
        "browser" => browser::browser(Args::new(rest)),
        "eval-jobs" => eval_jobs::eval_jobs(Args::new(rest)),
        "architecture" => architecture::architecture(Args::new(rest)),
        "bench" => bench::bench(rest),
        "ci" => Args::new(rest).finish().and_then(|()| ci::ci()),
        _ => Err(format!("there is no verb `{verb}`\n\n{USAGE}")),
    }
}
