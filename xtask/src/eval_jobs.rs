//! `cargo xtask eval-jobs`: nix-eval-jobs' own tests against `phoenix eval`.
//!
//! They take the program that they test from `NIX_EVAL_JOBS_BIN`; ours is called by that name, which is how it knows
//! whose arguments it gets. The checkout is not part of this repository.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::args::Args;
use crate::nix::ensure_nix;
use crate::nix_versions::on_each;
use crate::process::{cargo, output, root, run, say, target};

/// Where a checkout may be named.
const VARIABLE: &str = "NIX_EVAL_JOBS_CHECKOUT";

pub(crate) fn eval_jobs(mut args: Args<'_>) -> Result<()> {
    let allow_skip = args.flag("--allow-skip");
    let only = args.value("--only")?;
    let named = args.word().map(PathBuf::from);
    args.finish()?;
    let checkout = match found(named.or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from))) {
        Ok(checkout) => checkout,
        Err(problem) if allow_skip => {
            say(&format!("skipped: nix-eval-jobs' tests were not run: {problem}\n"));
            return Ok(());
        }
        Err(problem) => return Err(format!("{problem}; --allow-skip goes on without it")),
    };
    ensure_nix()?;
    run(&mut cargo(&["build", "--package", "phoenix-cli"]))?;
    let directory = target()?.join("eval-jobs");
    fs_err::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let program = directory.join("nix-eval-jobs");
    let _ = fs_err::remove_file(&program);
    fs_err::os::unix::fs::symlink(target()?.join("debug/phoenix"), &program)
        .map_err(|error| error.to_string())?;
    on_each(allow_skip, only, "nix-eval-jobs' tests", &|path, version| {
        test(&checkout, &directory, &program, path, version)
    })
}

/// Sees that there is a checkout, and what it takes to run its tests.
fn found(checkout: Option<PathBuf>) -> Result<PathBuf> {
    let checkout = checkout.ok_or_else(|| {
        format!(
            "no checkout of it is named: clone github.com/nix-community/nix-eval-jobs and give its path, or set {VARIABLE}"
        )
    })?;
    // What is relative is meant from where the user is.
    let checkout = std::path::absolute(&checkout).map_err(|error| error.to_string())?;
    if !checkout.join("tests/test_eval.py").is_file() {
        return Err(format!(
            "{} is no checkout of nix-eval-jobs: it has no tests/test_eval.py",
            checkout.display()
        ));
    }
    if checkout.starts_with(root()) {
        return Err(format!(
            "{} is inside of this repository, which keeps nothing of others",
            checkout.display()
        ));
    }
    output(Command::new("python3").args(["-m", "pytest", "--version"]))
        .map(|_| checkout)
        .ok_or_else(|| "`python3 -m pytest` does not run: install pytest".to_owned())
}

/// Runs the tests with one Nix, and with a store of their own.
fn test(checkout: &Path, directory: &Path, program: &Path, path: &OsString, version: &str) -> Result<()> {
    let home = directory.join(version);
    if home.exists() {
        // The store in it is read-only.
        run(Command::new("chmod").args(["-R", "u+w"]).arg(&home))?;
        fs_err::remove_dir_all(&home).map_err(|error| error.to_string())?;
    }
    fs_err::create_dir_all(&home).map_err(|error| error.to_string())?;
    run(Command::new("python3")
        .args(["-m", "pytest", "-p", "no:cacheprovider", "--verbose"])
        .arg(checkout.join("tests"))
        .env("NIX_EVAL_JOBS_BIN", program)
        .env("NIX_REMOTE", format!("local?root={}", home.join("root").display()))
        // Nothing is to be asked of a network.
        .env("NIX_CONFIG", "substituters =\n")
        .env("HOME", &home)
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PATH", path))
    .map_err(|problem| format!("on Nix {version}: {problem}"))
}
