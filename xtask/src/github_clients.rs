//! `cargo xtask github-clients`: the official clients against our double, our clients against Azurite.

use std::process::Command;

use crate::Result;
use crate::node::{ensure_node, packages};
use crate::process::{cargo, root, run, say, target};

/// The files in `tests/github-clients`; they are run from a copy, so that packages are not put among the sources.
const FILES: &[&str] = &[
    "package.json",
    "package-lock.json",
    "double.mjs",
    "official.mjs",
    "official-artifacts.mjs",
    "azurite.mjs",
];

pub(crate) fn github_clients() -> Result<()> {
    ensure_node(&[("zstd", "zstd"), ("tar", "tar")])?;
    let directory = packages("github-clients", FILES)?;
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
