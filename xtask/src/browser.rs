//! `cargo xtask browser`: the HTML report in a real browser.

use std::process::Command;

use crate::Result;
use crate::args::Args;
use crate::nix::install;
use crate::node::{ensure_node, packages};
use crate::process::{cargo, on_path, run, say, target};

/// The files in `tests/browser`; they are run from a copy, so that packages are not put among the sources.
const FILES: &[&str] = &["package.json", "package-lock.json", "events.mjs", "page.mjs"];

/// What Chromium and its like are called.
const BROWSERS: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

pub(crate) fn browser(mut args: Args<'_>) -> Result<()> {
    let allow_skip = args.flag("--allow-skip");
    args.finish()?;
    let browser = match ensure_node(&[]).and_then(|()| ensure_browser()) {
        Ok(browser) => browser,
        Err(problem) if allow_skip => {
            say(&format!("skipped: the page was looked at in no browser: {problem}\n"));
            return Ok(());
        }
        Err(problem) => return Err(format!("{problem}; --allow-skip goes on without it")),
    };
    let directory = packages("browser", FILES)?;
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

/// Sees to it that a browser is there; returns what it is called.
fn ensure_browser() -> Result<&'static str> {
    let found = || BROWSERS.iter().copied().find(|name| on_path(name));
    if found().is_none() {
        install(&["chromium"])
            .map_err(|problem| format!("no browser: {problem}\ninstall one of {}", BROWSERS.join(", ")))?;
    }
    found().ok_or_else(|| format!("no browser is on PATH: install one of {}", BROWSERS.join(", ")))
}
