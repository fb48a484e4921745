//! Roots of the garbage collector: links outside of the store that keep what they point to.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fs_err as fs;
use phoenix_model::{StorePath, nix32};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use sha1::{Digest as _, Sha1};

use crate::{Daemon, DaemonError, Layout, Way};

/// Why a root could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A link could not be made.
    #[error("cannot make the link {link}, which would keep {path} from the garbage collector")]
    Link {
        /// The link.
        link: PathBuf,
        /// What it was to keep.
        path: StorePath,
        /// Why.
        source: io::Error,
    },
    /// The daemon does not take it.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// Makes links that keep store paths, as `nix-build --out-link` makes one.
#[derive(Debug)]
pub struct Roots {
    state_dir: PathBuf,
    daemon: Option<Daemon>,
}

impl Roots {
    /// Roots of the store of a layout.
    ///
    /// # Errors
    /// When there is no connection to the daemon that has to be told of them.
    pub fn open(layout: &Layout, way: &Way) -> Result<Self, RootError> {
        let daemon = match way {
            Way::Direct => None,
            Way::Daemon(socket) => Some(Daemon::connect(socket)?),
        };
        Ok(Self { state_dir: layout.state_dir.clone(), daemon })
    }

    /// Makes a link, whose path is absolute, to a valid store path. One that is there already stays as it is.
    ///
    /// # Errors
    /// When it cannot be made, or the store not be told of it.
    pub fn add(&mut self, link: &Path, path: &StorePath) -> Result<(), RootError> {
        if fs::symlink_metadata(link).is_ok() {
            return Ok(());
        }
        let failed = |source| RootError::Link { link: link.to_owned(), path: path.clone(), source };
        // By its name in the store, wherever that really is, as Nix does it.
        symlink(path.as_str(), link).map_err(failed)?;
        if let Some(daemon) = &mut self.daemon {
            return Ok(daemon.add_indirect_root(link)?);
        }
        // Where Nix keeps them, under the name it would choose (nix `src/libstore/gc.cc`, `addIndirectRoot`).
        let auto = self.state_dir.join("gcroots/auto");
        let name = nix32::encode(&Sha1::digest(link.as_os_str().as_encoded_bytes()));
        let made = fs::create_dir_all(&auto).and_then(|()| symlink(link, auto.join(name)));
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Waits for a garbage collector that is at work, and may have looked for roots before these were made. To be called
    /// while what they keep is still protected otherwise: Nix itself does not, and loses it now and then.
    ///
    /// Who may not write the store cannot wait, and does not.
    pub fn settle(&self) {
        if self.daemon.is_some() {
            return;
        }
        let lock = open(self.state_dir.join("gc.lock"), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        // Where there is none, there was no collector.
        if let Ok(lock) = lock {
            let _ = rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockShared));
        }
    }
}
