//! Nix and other packages of the system.

use std::process::Command;

use crate::Result;
use crate::process::{is_root, on_path, run, say};

/// Sees to it that `nix` is on PATH.
pub(crate) fn ensure_nix() -> Result<()> {
    if on_path("nix") {
        return Ok(());
    }
    install(&["nix-bin"]).map_err(|problem| {
        format!(
            "Nix is not installed: {problem}\n\
             https://nixos.org/download says how to install it; then run this again"
        )
    })?;
    if on_path("nix") {
        Ok(())
    } else {
        Err("nix-bin was installed, but there is no `nix` on PATH".to_owned())
    }
}

/// Installs packages of Debian or Ubuntu.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if !on_path("apt-get") {
        return Err("this is no Debian or Ubuntu: packages cannot be installed from here".to_owned());
    }
    if !is_root() && !on_path("sudo") {
        return Err(format!("root is needed to install {}: `apt-get install {0}`", packages.join(" ")));
    }
    say(&format!("installing {}\n", packages.join(", ")));
    run(apt().arg("update"))?;
    run(apt().args(["install", "--yes", "--no-install-recommends"]).args(packages))
}

fn apt() -> Command {
    let mut command = if is_root() { Command::new("apt-get") } else { Command::new("sudo") };
    if !is_root() {
        command.args(["--non-interactive", "apt-get"]);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
    command
}
