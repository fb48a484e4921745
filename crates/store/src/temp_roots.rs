//! Store paths that the garbage collector leaves alone for a while.

use std::process::Child;

use phoenix_model::StorePath;

use crate::daemon::DaemonError;
use crate::{Daemon, Nix, Way};

/// Protects store paths from the garbage collector until it is dropped: a connection to the daemon of the store, or to a
/// `nix-daemon` that speaks to nobody but us, where there is none.
#[derive(Debug)]
pub struct TempRoots {
    connection: Daemon,
    child: Option<Child>,
}

impl TempRoots {
    /// Connects to the daemon, if that is the way into the store; else starts the process, for the store that `nix` is
    /// set to.
    ///
    /// # Errors
    /// When it cannot be started, or does not answer.
    pub fn start(nix: &Nix, way: &Way) -> Result<Self, DaemonError> {
        if let Way::Daemon(socket) = way {
            return Ok(Self { connection: Daemon::connect(socket)?, child: None });
        }
        let (connection, child) = Daemon::start_alone(nix)?;
        Ok(Self { connection, child: Some(child) })
    }

    /// Protects more paths, whether they are valid or not.
    ///
    /// # Errors
    /// When the process does not answer.
    pub fn add<'p>(&mut self, paths: impl IntoIterator<Item = &'p StorePath>) -> Result<(), DaemonError> {
        self.connection.add_temp_roots(paths)
    }
}

impl Drop for TempRoots {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            crate::group::end(child);
        }
    }
}
