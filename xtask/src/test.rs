//! `cargo xtask test`: everything needed, then all tests.

use crate::Result;
use crate::nix::ensure_nix;
use crate::process::{cargo, run};

pub(crate) fn test(args: &[String]) -> Result<()> {
    ensure_nix()?;
    run(cargo(&["test", "--workspace"]).args(args))
}
