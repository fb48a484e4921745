//! Node.js, and scripts that use packages of npm.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::nix::install;
use crate::process::{on_path, output, root, run, target};

/// The oldest Node.js that everything here runs on.
const OLDEST_NODE: u32 = 20;

/// Sees to it that Node.js, npm and more programs are there, each named with the package that brings it.
pub(crate) fn ensure_node(more: &[(&str, &str)]) -> Result<()> {
    let tools = [("node", "nodejs"), ("npm", "npm")];
    let missing: Vec<_> = tools.iter().chain(more).filter(|(program, _)| !on_path(program)).collect();
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

/// A directory with these files of `tests/NAME`, and the packages that they use, as the lock file has them. Packages
/// are not put among the sources.
pub(crate) fn packages(name: &str, files: &[&str]) -> Result<PathBuf> {
    let directory = target()?.join(name);
    let scripts = root().join("tests").join(name);
    let lock = scripts.join("package-lock.json");
    let stamp = directory.join("node_modules/.installed");
    let same = |a: &Path, b: &Path| match (std::fs::read(a), std::fs::read(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    fs_err::create_dir_all(&directory).map_err(|error| error.to_string())?;
    for file in files {
        fs_err::copy(scripts.join(file), directory.join(file)).map_err(|error| error.to_string())?;
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
