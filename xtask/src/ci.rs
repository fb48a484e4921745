//! `cargo xtask ci`: everything that has to hold.

use std::time::Instant;

use crate::args::Args;
use crate::process::{cargo, run, say};
use crate::{Result, actions, architecture, browser, demo, eval_jobs, github_clients, nix_versions, test};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("format", || run(&mut cargo(&["fmt", "--all", "--check"]))),
    ("clippy", || run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))),
    ("documentation", || {
        run(cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "--deny warnings"))
    }),
    ("architecture", || architecture::architecture(Args::new(&["--check".to_owned()]))),
    // All that fails is told at once.
    ("test", || test::test(&["--no-fail-fast".to_owned()])),
    ("seeds", test::seeds),
    ("github-clients", github_clients::github_clients),
    ("actions", || actions::actions(Args::new(&["--allow-skip".to_owned()]))),
    ("browser", || browser::browser(Args::new(&["--allow-skip".to_owned()]))),
    ("nix-versions", || nix_versions::nix_versions(Args::new(&["--allow-skip".to_owned()]))),
    ("eval-jobs", || eval_jobs::eval_jobs(Args::new(&["--allow-skip".to_owned()]))),
    ("demo", demo::demo),
];

pub(crate) fn ci() -> Result<()> {
    let start = Instant::now();
    for (at, (name, step)) in STEPS.iter().enumerate() {
        say(&format!("=== {name} ({} of {})\n", at + 1, STEPS.len()));
        let start = Instant::now();
        step().map_err(|problem| format!("{name}: {problem}"))?;
        say(&format!("=== {name}: done in {:.0} s\n", start.elapsed().as_secs_f64()));
    }
    say(&format!("=== all {} steps done in {:.0} s\n", STEPS.len(), start.elapsed().as_secs_f64()));
    Ok(())
}
