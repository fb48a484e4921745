//! `cargo xtask actions`: our actions and workflows, checked by `actionlint` and `zizmor` and run by `act`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::args::Args;
use crate::nix::ensure_nix;
use crate::node::ensure_node;
use crate::process::{cargo, on_path, output, root, run, say, target};

/// Programs made by `go install`: each with its module and version.
const ACT: (&str, &str) = ("act", "github.com/nektos/act@v0.2.89");
const ACTIONLINT: (&str, &str) = ("actionlint", "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12");

/// A registry of images.
const REGISTRY: (&str, &str) = ("registry", "github.com/distribution/distribution/v3/cmd/registry@v3.0.0");

/// The oldest Go that makes them, as major and minor version.
const OLDEST_GO: (u32, u32) = (1, 24);

const ZIZMOR: &str = "zizmor==1.32.0";

pub(crate) fn actions(mut args: Args<'_>) -> Result<()> {
    let allow_skip = args.flag("--allow-skip");
    args.finish()?;
    if let Some(obstacle) = obstacle() {
        if !allow_skip {
            return Err(format!("{obstacle}; --allow-skip goes on without it"));
        }
        say(&format!("skipped: our actions were neither checked nor run: {obstacle}\n"));
        return Ok(());
    }
    ensure_nix()?;
    ensure_node(&[])?;
    let tools = target()?.join("actions");
    fs_err::create_dir_all(&tools).map_err(|error| error.to_string())?;
    let act = go_program(&tools, ACT)?;
    say("--- actionlint\n");
    run(Command::new(go_program(&tools, ACTIONLINT)?).current_dir(root()))?;
    say("--- zizmor\n");
    run(Command::new(zizmor(&tools)?).args(["--offline", "--quiet", "."]).current_dir(root()))?;
    say("--- where an action has its program from\n");
    run(Command::new("node").arg("tests/actions/binary.mjs").arg(root()).current_dir(root()))?;
    say("--- images in a real registry\n");
    let registry = go_program(&tools, REGISTRY)?;
    let tests = ["test", "--package", "phoenix-gate", "--test", "registry"];
    run(cargo(&tests).env("PHOENIX_TEST_REGISTRY", registry))?;
    say("--- act\n");
    run(&mut cargo(&["build", "--package", "phoenix-cli"]))?;
    run(&mut cargo(&["build", "--package", "phoenix-testkit", "--example", "github"]))?;
    let built = target()?.join("debug");
    run(Command::new("node")
        .arg("tests/actions/check.mjs")
        .args([act, built.join("phoenix"), built.join("examples/github"), root()])
        .current_dir(root()))
}

/// Why this cannot be done on this machine, if so.
fn obstacle() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("Linux is needed".to_owned());
    }
    if let Some(missing) = ["go", "python3", "git"].into_iter().find(|program| !on_path(program)) {
        return Some(format!("`{missing}` is not on PATH"));
    }
    let version = output(Command::new("go").args(["env", "GOVERSION"])).unwrap_or_default();
    match go_version(&version) {
        Some(version) if version >= OLDEST_GO => None,
        _ => Some(format!("go is {version}, and {}.{} or later is needed", OLDEST_GO.0, OLDEST_GO.1)),
    }
}

/// Major and minor version of a Go that calls itself `go1.26.8`.
fn go_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix("go")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A program of Go, installed when this version is not there yet.
fn go_program(tools: &Path, (name, module): (&str, &str)) -> Result<PathBuf> {
    let version = module.rsplit('@').next().unwrap_or(module);
    let directory = tools.join(format!("{name}-{version}"));
    let program = directory.join(name);
    if !program.is_file() {
        run(Command::new("go").args(["install", module]).env("GOBIN", &directory))?;
    }
    Ok(program)
}

/// `zizmor`, in an environment of Python of its own.
fn zizmor(tools: &Path) -> Result<PathBuf> {
    let environment = tools.join(ZIZMOR);
    let program = environment.join("bin/zizmor");
    if !program.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        run(Command::new(environment.join("bin/pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            ZIZMOR,
        ]))?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read() {
        assert_eq!(go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(go_version("go1.24"), Some((1, 24)));
        assert_eq!(go_version("devel"), None);
        assert_eq!(go_version(""), None);
    }
}
