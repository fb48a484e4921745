//! A Nix of its own: store, state, logs and configuration in a directory that goes away.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use tempfile::TempDir;

/// A Nix of its own.
///
/// The store directory is a real one, not `/nix/store` under a root, so that builds need neither a
/// sandbox nor namespaces.
#[derive(Debug)]
pub struct NixRoot {
    directory: TempDir,
    /// Unix sockets have short names; the directory's may be long.
    sockets: TempDir,
}

impl NixRoot {
    /// Makes one below `base`, which must not be writable for everybody (Nix 2.34 insists).
    ///
    /// # Panics
    /// When the directories cannot be made.
    #[must_use]
    pub fn new(base: &Path) -> Self {
        fs::create_dir_all(base).expect("the directory for tests");
        let directory = tempfile::Builder::new().prefix("nix-").tempdir_in(base).expect("a directory");
        let sockets = tempfile::Builder::new().prefix("pnx-").tempdir().expect("a directory");
        let this = Self { directory, sockets };
        // A daemon that finds no state directory takes itself for its own client, without end.
        for name in ["etc", "home", "var/nix"] {
            fs::create_dir_all(this.path(name)).expect("a directory");
        }
        this.configure("");
        this
    }

    /// Writes the configuration: no sandbox, no substituters, and more lines.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, more: &str) {
        let text = format!("sandbox = false\nbuild-users-group =\nsubstituters =\nmax-jobs = 2\n{more}\n");
        fs::write(self.path("etc/nix.conf"), text).expect("nix.conf");
    }

    /// A path in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The store directory.
    #[must_use]
    pub fn store_dir(&self) -> String {
        self.path("store").display().to_string()
    }

    /// The environment that makes Nix's programs use this and nothing else.
    #[must_use]
    pub fn env(&self) -> Vec<(&'static str, OsString)> {
        let path = |name: &str| self.path(name).into_os_string();
        vec![
            ("NIX_STORE_DIR", path("store")),
            ("NIX_STATE_DIR", path("var/nix")),
            ("NIX_LOCALSTATE_DIR", path("var")),
            ("NIX_LOG_DIR", path("var/log")),
            ("NIX_CONF_DIR", path("etc")),
            ("NIX_DAEMON_SOCKET_PATH", self.sockets.path().join("s").into_os_string()),
            ("HOME", path("home")),
            ("XDG_CACHE_HOME", path("home/.cache")),
            ("XDG_STATE_HOME", path("home/.state")),
            ("XDG_CONFIG_HOME", path("home/.config")),
            ("XDG_DATA_HOME", path("home/.local")),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
        ]
    }

    /// A program in this environment and in no other, but for PATH.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.env());
        for name in ["PATH", "TMPDIR", "LANG", "CARGO_TARGET_TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs one of Nix's programs and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs one of Nix's programs, however it ends.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn output(&self, program: &str, args: &[&str]) -> Output {
        let mut command = self.command(program);
        if program == "nix" {
            command.args(["--extra-experimental-features", "nix-command flakes"]);
        }
        command.args(args).output().unwrap_or_else(|error| panic!("{program}: {error}; is Nix installed?"))
    }

    /// Whether a path is valid in this store.
    #[must_use]
    pub fn is_valid(&self, path: &str) -> bool {
        self.output("nix-store", &["--check-validity", path]).status.success()
    }

    /// Starts a daemon over this store. Clients need `NIX_REMOTE=daemon`.
    ///
    /// # Errors
    /// When it does not come up within ten seconds.
    pub fn daemon(&self) -> io::Result<Daemon> {
        let child = self.command("nix-daemon").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let daemon = Daemon { child };
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            let mut ping = self.command("nix");
            ping.args(["--extra-experimental-features", "nix-command", "store", "ping"])
                .env("NIX_REMOTE", "daemon");
            if ping.output()?.status.success() {
                return Ok(daemon);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::other("the daemon does not answer"))
    }
}

impl Drop for NixRoot {
    /// Store objects are read-only; they have to be made writable to go away.
    fn drop(&mut self) {
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.directory.path()).status();
    }
}

/// A running daemon; dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
