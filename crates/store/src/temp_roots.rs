//! Store paths that the garbage collector leaves alone for a while.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use phoenix_model::StorePath;

use crate::daemon::DaemonError;
use crate::{Daemon, Nix};

/// What the process is called in messages.
const NAME: &str = "nix-daemon --stdio";

/// Protects store paths from the garbage collector until it is dropped: a `nix-daemon` that speaks to nobody but us, and
/// itself works on the store, or hands on to the daemon that does.
#[derive(Debug)]
pub struct TempRoots {
    connection: Daemon,
    child: Child,
}

impl TempRoots {
    /// Starts the process, for the store that `nix` is set to.
    ///
    /// # Errors
    /// When it cannot be started, or does not answer.
    pub fn start(nix: &Nix) -> Result<Self, DaemonError> {
        let connect = |source: io::Error| DaemonError::Connect { socket: NAME.into(), source };
        let (ours, theirs) = UnixStream::pair().map_err(connect)?;
        let mut command = Command::new("nix-daemon");
        nix.in_env(&mut command).arg("--stdio");
        let output = theirs.try_clone().map_err(connect)?;
        command.stdin(OwnedFd::from(theirs)).stdout(OwnedFd::from(output)).stderr(Stdio::null());
        let mut child = crate::group::spawn(&mut command).map_err(connect)?;
        // It holds their end of the stream, which has to close when the process ends.
        drop(command);
        match Daemon::over(&ours, Path::new(NAME)) {
            Ok(connection) => Ok(Self { connection, child }),
            Err(error) => {
                crate::group::end(&mut child);
                Err(error)
            }
        }
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
        crate::group::end(&mut self.child);
    }
}
