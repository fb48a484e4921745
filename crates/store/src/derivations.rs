//! Reading `.drv` files: no process per derivation, many at once.

use phoenix_model::{Derivation, StorePath};
use rayon::prelude::*;

use crate::Layout;

/// Reads derivations in parallel; the answers are in the order of the paths.
///
/// One that is missing, damaged or not readable is an error of its own that says so.
#[must_use]
pub fn read_derivations(layout: &Layout, paths: &[StorePath]) -> Vec<Result<Derivation, String>> {
    // Threads cost more than they save for a handful.
    if paths.len() < 32 {
        return paths.iter().map(|path| read(layout, path)).collect();
    }
    paths.par_iter().with_min_len(16).map(|path| read(layout, path)).collect()
}

fn read(layout: &Layout, path: &StorePath) -> Result<Derivation, String> {
    let file = layout.real_path(path);
    let text = std::fs::read(&file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "it is not in the store".to_owned(),
        _ => error.to_string(),
    })?;
    Derivation::parse(&text).map_err(|error| error.to_string())
}
