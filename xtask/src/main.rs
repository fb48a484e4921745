//! The tasks of this repository: `cargo xtask VERB`.

mod architecture;
mod bench;
mod ci;
mod demo;
mod nix;
mod nix_versions;
mod process;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask VERB

  demo                       install Nix if it is missing, build phoenix, run it twice on the example flake
  test [ARGS...]             everything needed, then all tests; ARGS go to `cargo test`
  nix-versions [--allow-skip] [--only NAME]
                             the end-to-end tests on each version of Nix that is supported
  architecture [--check]     draw the dependency picture in docs/architecture.md, or check that it is true
  bench [NAME...]            the benchmarks; their figures are in docs/benchmarks.md
  ci                         everything that has to hold
";

/// What went wrong, in words.
type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = args.split_first().map_or(("", &[][..]), |(verb, rest)| (verb.as_str(), rest));
    let done = match verb {
        "demo" => demo::demo(),
        "test" => test::test(rest),
        "nix-versions" => nix_versions::nix_versions(rest),
        "architecture" => architecture::architecture(rest),
        "bench" => bench::bench(rest),
        "ci" => ci::ci(),
        _ => {
            process::say(USAGE);
            return if matches!(verb, "" | "help" | "-h" | "--help") {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            process::say(&format!("error: {problem}\n"));
            ExitCode::FAILURE
        }
    }
}
