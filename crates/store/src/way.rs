//! Which way paths come into a store.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::Layout;

/// How paths come into the store of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Written straight into it ([`Import`](crate::Import)).
    Direct,
    /// Handed to the daemon that listens at a socket ([`add_through_daemon`](crate::add_through_daemon)).
    Daemon(PathBuf),
}

impl Way {
    /// The way into a store that was asked for by this URL, else by `NIX_REMOTE`: through the daemon if it is
    /// named, or if this process may not write the store and a daemon is there; else straight.
    ///
    /// `socket` is `NIX_DAEMON_SOCKET_PATH`.
    #[must_use]
    pub fn into(layout: &Layout, url: Option<&str>, remote: Option<&str>, socket: Option<&str>) -> Self {
        let usual = || socket.map_or_else(|| layout.state_dir.join("daemon-socket/socket"), PathBuf::from);
        let asked = url.filter(|url| !matches!(*url, "" | "auto")).or(remote).unwrap_or_default();
        let place = asked.split('?').next().unwrap_or_default();
        match place.strip_prefix("unix://") {
            Some(path) if !path.is_empty() => return Self::Daemon(path.into()),
            Some(_) => return Self::Daemon(usual()),
            None if place == "daemon" => return Self::Daemon(usual()),
            None => {}
        }
        // A store with a place of its own has no daemon.
        let is_usual = matches!(place, "" | "auto");
        if !is_usual || may_write(layout) || !usual().exists() { Self::Direct } else { Self::Daemon(usual()) }
    }
}

/// Whether this process may write the files of a store and its database.
fn may_write(layout: &Layout) -> bool {
    let may = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    may(&layout.real_dir) && may(&layout.state_dir.join("db")) && may(&layout.database())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;

    #[test]
    fn who_is_named_comes_first_and_then_who_may() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout {
            store_dir: "/nix/store".into(),
            real_dir: root.path().join("store"),
            state_dir: root.path().join("state"),
            log_dir: root.path().join("log"),
        };
        let way = |url, remote, socket| Way::into(&layout, url, remote, socket);
        let usual = Way::Daemon(layout.state_dir.join("daemon-socket/socket"));
        assert_eq!(way(Some("daemon"), None, None), usual);
        assert_eq!(way(None, Some("daemon"), None), usual);
        assert_eq!(way(Some("auto"), Some("unix://"), None), usual);
        assert_eq!(way(None, Some("daemon"), Some("/s")), Way::Daemon("/s".into()));
        assert_eq!(way(None, Some("unix:///run/s?x=1"), Some("/s")), Way::Daemon("/run/s".into()));
        assert_eq!(way(Some("local"), Some("daemon"), None), Way::Direct);
        assert_eq!(way(Some("/tmp/r"), Some("daemon"), None), Way::Direct);

        // Nothing may be written, for nothing is there; and nobody else is there to write it.
        assert_eq!(way(None, None, None), Way::Direct);
        fs::create_dir_all(layout.state_dir.join("daemon-socket")).unwrap();
        fs::write(layout.state_dir.join("daemon-socket/socket"), "").unwrap();
        assert_eq!(way(None, None, None), usual);
        assert_eq!(way(Some("auto"), None, None), usual);
        fs::create_dir_all(&layout.real_dir).unwrap();
        fs::create_dir_all(layout.state_dir.join("db")).unwrap();
        assert_eq!(way(None, None, None), usual, "no database");
        fs::write(layout.database(), "").unwrap();
        assert_eq!(way(None, None, None), Way::Direct);
    }
}
