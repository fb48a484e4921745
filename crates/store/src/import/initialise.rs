//! A store where there is none.

use std::io;

use fs_err as fs;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use super::ImportError;
use crate::{Layout, Nix, NixError};

/// Has Nix make the store that it is set to use, where there is none yet; the layout is that store's.
///
/// Processes that do so at once do it one after the other: two that make one database lose rows of it.
///
/// # Errors
/// When the directory of the state cannot be made or locked, or Nix fails.
pub fn initialise(nix: &Nix, layout: &Layout) -> Result<(), InitialiseError> {
    if is_made(layout) {
        return Ok(());
    }
    let path = &layout.state_dir;
    let failed =
        |source: io::Error| InitialiseError::Import(ImportError::File { path: path.clone(), source });
    fs::create_dir_all(path).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    rustix::io::retry_on_intr(|| flock(&directory, FlockOperation::LockExclusive))
        .map_err(|errno| failed(errno.into()))?;
    if !is_made(layout) {
        nix.run(&mut nix.nix_store("--init"), "nix-store --init")?;
    }
    Ok(())
}

/// Why a store could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitialiseError {
    /// Nix did not make it.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// Its directory.
    #[error(transparent)]
    Import(ImportError),
}

fn is_made(layout: &Layout) -> bool {
    // The last that Nix writes.
    fs::metadata(layout.state_dir.join("db/schema")).is_ok_and(|schema| schema.len() > 0)
}
