//! Store paths that the garbage collector leaves alone for a while.

use std::collections::HashSet;
use std::process::Child;

use phoenix_model::StorePath;

use crate::daemon::DaemonError;
use crate::import::{Import, ImportError};
use crate::{Daemon, Layout, Nix, Way};

/// Protects store paths from the garbage collector until it is dropped.
#[derive(Debug)]
pub struct TempRoots(Holder);

/// Who protects them.
#[derive(Debug)]
enum Holder {
    /// This process, which may write the store.
    Import(Import),
    /// The daemon that this connection is to. Where there is none it is a `nix-daemon` that speaks to nobody but us.
    Daemon { connection: Daemon, child: Option<Child> },
}

/// Why paths are not protected.
#[derive(Debug, thiserror::Error)]
pub enum TempRootsError {
    /// The daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The store.
    #[error(transparent)]
    Import(#[from] ImportError),
}

impl TempRoots {
    /// Begins to protect paths of the store that `nix` is set to and that lies there, by the way that leads into it.
    ///
    /// # Errors
    /// When there is a daemon and it cannot be connected to, or there is none and none can be started.
    pub fn start(nix: &Nix, layout: &Layout, way: &Way) -> Result<Self, TempRootsError> {
        if let Way::Daemon(socket) = way {
            return Ok(Self(Holder::Daemon { connection: Daemon::connect(socket)?, child: None }));
        }
        // A store of a version that is not known is for its Nix.
        if let Ok(import) = Import::open(layout) {
            return Ok(Self(Holder::Import(import)));
        }
        let (connection, child) = Daemon::start_alone(nix)?;
        Ok(Self(Holder::Daemon { connection, child: Some(child) }))
    }

    /// Protects more paths, whether they are valid or not.
    ///
    /// # Errors
    /// When that fails.
    pub fn add<'p>(
        &mut self,
        paths: impl IntoIterator<Item = &'p StorePath> + Clone,
    ) -> Result<(), TempRootsError> {
        self.valid(paths).map(drop)
    }

    /// Protects more paths, and tells which of them are valid: those stay so.
    ///
    /// # Errors
    /// When that fails.
    pub fn valid<'p>(
        &mut self,
        paths: impl IntoIterator<Item = &'p StorePath> + Clone,
    ) -> Result<HashSet<StorePath>, TempRootsError> {
        match &mut self.0 {
            Holder::Import(import) => Ok(import.valid(paths)?),
            Holder::Daemon { connection, .. } => {
                connection.add_temp_roots(paths.clone())?;
                Ok(connection.valid(paths)?)
            }
        }
    }
}

impl Drop for TempRoots {
    fn drop(&mut self) {
        if let Holder::Daemon { child: Some(child), .. } = &mut self.0 {
            crate::group::end(child);
        }
    }
}
