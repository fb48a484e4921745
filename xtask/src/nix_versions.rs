//! `cargo xtask nix-versions`: the end-to-end tests on each version of Nix that is supported.
//!
//! Beside the Nix that is installed these are those of Debian's newer suites. They are bootstrapped into
//! a directory, and their `nix` is told where its own libraries are; so it runs like any other program,
//! without a chroot.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::nix::{ensure_nix, install};
use crate::process::{cargo, is_root, on_path, output, run, say, status};

/// Suites of Debian whose Nix is tested: 2.26 and one that moves on.
const SUITES: &[&str] = &["trixie", "sid"];

/// The names by which Nix's one program is called.
const PROGRAMS: &[&str] = &[
    "nix-build",
    "nix-collect-garbage",
    "nix-copy-closure",
    "nix-daemon",
    "nix-env",
    "nix-hash",
    "nix-instantiate",
    "nix-shell",
    "nix-store",
];

pub(crate) fn nix_versions(args: &[String]) -> Result<()> {
    let allow_skip = args.iter().any(|arg| arg == "--allow-skip");
    let only = args.iter().position(|arg| arg == "--only").and_then(|at| args.get(at + 1));
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    ensure_nix()?;
    let mut tested = Vec::new();
    let mut skipped = Vec::new();
    if wanted("installed") {
        tested.push(end_to_end("installed", None)?);
    }
    for suite in SUITES.iter().filter(|suite| wanted(suite)) {
        match provide(suite) {
            Ok(programs) => tested.push(end_to_end(suite, Some(&programs))?),
            Err(problem) if allow_skip => {
                say(&format!("skipped: Nix of {suite}: {problem}\n"));
                skipped.push(*suite);
            }
            Err(problem) => return Err(format!("no Nix of {suite}: {problem}")),
        }
    }
    say(&format!("end-to-end tests passed on Nix {}\n", tested.join(", ")));
    if !skipped.is_empty() {
        say(&format!("skipped: {}\n", skipped.join(", ")));
    }
    if tested.is_empty() { Err("no version was tested".to_owned()) } else { Ok(()) }
}

/// Runs the tests with a directory of programs first on PATH; the version they ran on.
fn end_to_end(name: &str, programs: Option<&Path>) -> Result<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = programs.map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&path));
    let path: OsString = std::env::join_paths(all).map_err(|error| error.to_string())?;
    let version = output(Command::new("nix").arg("--version").env("PATH", &path))
        .and_then(|text| text.split(' ').next_back().map(str::to_owned))
        .ok_or_else(|| format!("the nix of {name} does not run"))?;
    say(&format!("--- Nix {version} ({name})\n"));
    let mut tests = cargo(&[
        "test",
        "--package",
        "phoenix-cli",
        "--package",
        "phoenix-substituter",
        "--package",
        "phoenix-evaluate",
        "--test",
        "*",
    ]);
    run(tests.env("PATH", &path).env("PHOENIX_TEST_NIX_VERSION", &version))?;
    Ok(version)
}

/// The directory with the programs of a suite's Nix, made if it is not there.
fn provide(suite: &str) -> Result<PathBuf> {
    let system = cache_directory()?.join(suite);
    let programs = system.join("phoenix-bin");
    if programs.join("nix-store").exists() {
        return Ok(programs);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("it can be had on x86_64 Linux only".to_owned());
    }
    if !is_root() {
        return Err("root is needed to bootstrap it".to_owned());
    }
    let missing: Vec<&str> =
        ["debootstrap", "patchelf"].into_iter().filter(|program| !on_path(program)).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    if !system.join("usr/bin/nix").exists() {
        fs_err::create_dir_all(&system).map_err(|error| error.to_string())?;
        // Its last step may fail over a Perl module that nothing here needs; what counts is the program.
        let code = status(
            Command::new("debootstrap").args(["--variant=minbase", "--include=nix-bin", suite]).arg(&system),
        )?;
        if !system.join("usr/bin/nix").exists() {
            return Err(format!("debootstrap brought no nix (exit code {code:?})"));
        }
    }
    fs_err::create_dir_all(&programs).map_err(|error| error.to_string())?;
    let nix = programs.join("nix");
    fs_err::copy(system.join("usr/bin/nix"), &nix).map_err(|error| error.to_string())?;
    run(Command::new("patchelf")
        .arg("--set-interpreter")
        .arg(system.join("lib64/ld-linux-x86-64.so.2"))
        .args(["--force-rpath", "--set-rpath"])
        .arg(system.join("usr/lib/x86_64-linux-gnu"))
        .arg(&nix))?;
    for program in PROGRAMS {
        let link = programs.join(program);
        let _ = fs_err::remove_file(&link);
        fs_err::os::unix::fs::symlink("nix", &link).map_err(|error| error.to_string())?;
    }
    Ok(programs)
}

fn cache_directory() -> Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("PHOENIX_NIX_VERSIONS_DIR")
        .or_else(|| var("XDG_CACHE_HOME").map(|cache| cache.join("phoenix-ci/nix-versions")))
        .or_else(|| var("HOME").map(|home| home.join(".cache/phoenix-ci/nix-versions")))
        .ok_or_else(|| "neither HOME nor XDG_CACHE_HOME is set".to_owned())
}
