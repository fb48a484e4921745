//! `cargo xtask bench`: the benchmarks.

use crate::Result;
use crate::nix::ensure_nix;
use crate::process::{cargo, run};

pub(crate) fn bench(names: &[String]) -> Result<()> {
    ensure_nix()?;
    let mut command = cargo(&["bench", "--workspace"]);
    for name in names {
        command.args(["--bench", name]);
    }
    run(&mut command)
}
