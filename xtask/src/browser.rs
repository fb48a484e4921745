//! `cargo xtask browser`: the HTML report in a real browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::nix::install;
use crate::process::{cargo, on_path, root, run, say, target};

/// Where the scripts are, below the root of the repository.
const SCRIPTS: &str = "tests/browser";

/// The files there; they are run from a copy, so that packages are not put among the sources.
const FILES: &[&str] = &["package.json", "package-lock.json", "events.mjs", "page.mjs"];

/// What Chromium and its like are called.
const BROWSERS: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

pub(crate) fn browser() -> Result<()> {
    let browser = ensure_tools()?;
    let directory = packages()?;
    let pictures = directory.join("pictures");
    fs_err::create_dir_all(&pictures).map_err(|error| error.to_string())?;
    run(&mut cargo(&["build", "--package", "phoenix-cli"]))?;
    let phoenix = target()?.join("debug/phoenix");
    run(Command::new("node")
        .arg("page.mjs")
        .arg(phoenix)
        .arg(browser)
        .arg(&pictures)
        .current_dir(&directory))?;
    say(&format!("--- pages and pictures are in {}\n", pictures.display()));
    Ok(())
}

/// Sees to it that Node.js, npm and a browser are there; returns the browser.
fn ensure_tools() -> Result<&'static str> {
    let found = || BROWSERS.iter().copied().find(|name| on_path(name));
    let mut missing: Vec<&str> = [("node", "nodejs"), ("npm", "npm")]
        .into_iter()
        .filter(|(name, _)| !on_path(name))
        .map(|(_, of)| of)
        .collect();
    if found().is_none() {
        missing.push("chromium");
    }
    if !missing.is_empty() {
        install(&missing).map_err(|problem| {
            format!("not on PATH: {}: {problem}\ninstall them; then run this again", missing.join(", "))
        })?;
    }
    found().ok_or_else(|| format!("no browser is on PATH: install one of {}", BROWSERS.join(", ")))
}

/// A directory with the scripts and the packages that they use, as the lock file has them.
fn packages() -> Result<PathBuf> {
    let directory = target()?.join("browser");
    let lock = root().join(SCRIPTS).join("package-lock.json");
    let stamp = directory.join("node_modules/.installed");
    let same = |a: &Path, b: &Path| match (std::fs::read(a), std::fs::read(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    fs_err::create_dir_all(&directory).map_err(|error| error.to_string())?;
    for file in FILES {
        let from = root().join(SCRIPTS).join(file);
        fs_err::copy(from, directory.join(file)).map_err(|error| error.to_string())?;
    }
    if !same(&lock, &stamp) {
        let quiet = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"];
        run(Command::new("npm").args(quiet).current_dir(&directory))?;
        fs_err::copy(&lock, &stamp).map_err(|error| error.to_string())?;
    }
    Ok(directory)
}
