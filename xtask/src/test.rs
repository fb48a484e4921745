//! `cargo xtask test`: everything needed, then all tests.

use crate::Result;
use crate::nix::ensure_nix;
use crate::process::{cargo, run};

pub(crate) fn test(args: &[String]) -> Result<()> {
    ensure_nix()?;
    run(cargo(&["test", "--workspace"]).args(args))
}

/// The tests that play chance, with all seeds and not the first few.
pub(crate) fn seeds() -> Result<()> {
    ensure_nix()?;
    let files = [
        "--package",
        "phoenix-cache",
        "--package",
        "phoenix-cli",
        "--test",
        "collect",
        "--test",
        "packs",
        "--test",
        "cache_trouble",
    ];
    run(cargo(&["test"]).args(files).env("PHOENIX_TEST_SEEDS", "all"))
}
