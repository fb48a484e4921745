//! `cargo xtask github-clients`: the official clients against our double, our clients against Azurite.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::nix::install;
use crate::process::{cargo, on_path, output, root, run, say, target};

/// Where the scripts are, below the root of the repository.
const SCRIPTS: &str = "tests/github-clients";

/// The files there; they are run from a copy, so that packages are not put among the sources.
const FILES: &[&str] = &[
    "package.json",
    "package-lock.json",
    "double.mjs",
    "official.mjs",
    "official-artifacts.mjs",
    "azurite.mjs",
];

/// The oldest Node.js that the official client runs on.
const OLDEST_NODE: u32 = 20;

pub(crate) fn github_clients() -> Result<()> {
    ensure_node()?;
    let directory = packages()?;
    run(&mut cargo(&["build", "--package", "phoenix-testkit", "--example", "github"]))?;
    let ours = ["--package", "phoenix-github", "--package", "phoenix-depot", "--test", "azurite"];
    run(cargo(&["test", "--no-run"]).args(ours))?;
    let double = target()?.join("debug/examples/github");
    say("--- the official client of the cache, against the double\n");
    run(Command::new("node").arg("official.mjs").arg(&double).current_dir(&directory))?;
    say("--- the official client of artifacts, against the double\n");
    run(Command::new("node").arg("official-artifacts.mjs").arg(&double).current_dir(&directory))?;
    say("--- our clients of GitHub's cache and of Azure, against Azurite\n");
    let test = cargo(&["test", "--manifest-path"]);
    run(Command::new("node")
        .arg("azurite.mjs")
        .arg(test.get_program())
        .args(test.get_args())
        .arg(root().join("Cargo.toml"))
        .args(ours)
        // One at a time: Azurite does not take the connections of two that are busy.
        .args(["--", "--ignored", "--test-threads=1"])
        .current_dir(&directory))
}

/// Sees to it that Node.js, npm and what the official client calls are there.
pub(crate) fn ensure_node() -> Result<()> {
    let tools = [("node", "nodejs"), ("npm", "npm"), ("zstd", "zstd"), ("tar", "tar")];
    let missing: Vec<_> = tools.iter().filter(|(program, _)| !on_path(program)).collect();
    if !missing.is_empty() {
        let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        install(&packages).map_err(|problem| {
            let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
            format!(
                "{} not on PATH: {problem}\nhttps://nodejs.org says how to install Node.js; then run this again",
                programs.join(", ")
            )
        })?;
    }
    let version = output(Command::new("node").arg("--version")).unwrap_or_default();
    match major(&version) {
        Some(major) if major >= OLDEST_NODE => Ok(()),
        _ => Err(format!(
            "node says that it is version {version:?}, and {OLDEST_NODE} or newer is needed: \
             https://nodejs.org says how to install it"
        )),
    }
}

/// The first number of a version such as `v20.20.2`.
fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// A directory with the scripts and the packages that they use, as the lock file has them.
fn packages() -> Result<PathBuf> {
    let directory = target()?.join("github-clients");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_node_is_read() {
        assert_eq!(major("v20.20.2"), Some(20));
        assert_eq!(major("v8.1"), Some(8));
        assert_eq!(major(""), None);
        assert_eq!(major("20"), None);
    }
}
