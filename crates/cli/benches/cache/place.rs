//! Where the stores are: in a directory of the benchmark's own, or below `/nix` as other caches insist on.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use phoenix_testkit::NixRoot;
use tempfile::TempDir;

/// Says to a benchmark that was started again which directory is bound to `/nix`.
const BOUND: &str = "PHOENIX_BENCH_BOUND";

/// The directory below which everything is written.
fn base() -> PathBuf {
    std::env::var_os("PHOENIX_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into()).into()
}

/// Starts this benchmark once more where a directory of its own is `/nix`, and waits for it. None where this is that
/// benchmark already.
pub(crate) fn with_a_nix_of_its_own() -> Option<ExitCode> {
    if std::env::var_os(BOUND).is_some() {
        return None;
    }
    std::fs::create_dir_all(base()).expect("the directory of the benchmark");
    let directory = tempfile::Builder::new().prefix("bound-").tempdir_in(base()).expect("a directory");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let status = command
        .args(["sh", "-c", "mount --bind \"$0\" /nix && exec \"$@\""])
        .arg(directory.path())
        .arg(std::env::current_exe().expect("this program"))
        .args(std::env::args_os().skip(1))
        .env(BOUND, directory.path())
        .status()
        .unwrap_or_else(|error| panic!("unshare (of util-linux): {error}"));
    remove_all(directory.path());
    Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A store, and directories beside it.
pub(crate) struct Place {
    root: NixRoot,
    /// The directory bound to `/nix`.
    bound: Option<PathBuf>,
    /// A directory with a short name.
    short: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self {
            root: NixRoot::new(&base()),
            bound: std::env::var_os(BOUND).map(PathBuf::from),
            short: tempfile::Builder::new().prefix("pnx-").tempdir().expect("a directory"),
        };
        std::fs::create_dir_all(place.state()).expect("a directory");
        place
    }

    /// A path beside the store.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path(name)
    }

    /// A path that is short enough for a socket.
    pub(crate) fn short(&self, name: &str) -> PathBuf {
        self.short.path().join(name)
    }

    /// A directory whose path has five names, as a job's workspace has on GitHub.
    pub(crate) fn five_deep(&self) -> PathBuf {
        let mut directory = self.short("workspace");
        while directory.components().count() < 6 {
            directory.push("deep");
        }
        assert_eq!(directory.components().count(), 6, "TMPDIR is too deep");
        std::fs::create_dir_all(&directory).expect("a directory");
        directory
    }

    /// The directory that has `store` and `var` in it, where it can be moved from.
    pub(crate) fn nix(&self) -> PathBuf {
        self.bound.clone().unwrap_or_else(|| self.root.path(""))
    }

    /// The directory of Nix's state.
    fn state(&self) -> PathBuf {
        self.nix().join("var/nix")
    }

    /// The store directory as Nix names it.
    pub(crate) fn store_dir(&self) -> String {
        if self.bound.is_some() { "/nix/store".to_owned() } else { self.root.store_dir() }
    }

    /// A program that has this store and no other.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.root.command(program);
        if self.bound.is_some() {
            command.env("NIX_STORE_DIR", "/nix/store");
            command.env("NIX_STATE_DIR", "/nix/var/nix");
            command.env("NIX_LOCALSTATE_DIR", "/nix/var");
            command.env("NIX_LOG_DIR", "/nix/var/log/nix");
        }
        command
    }

    /// Runs one of Nix's programs and returns what it printed.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}; is Nix installed?"));
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Moves the full store out of the way, and leaves an empty one.
    pub(crate) fn put_aside(&self) -> PathBuf {
        let full = self.path("full");
        std::fs::create_dir_all(&full).expect("a directory");
        for name in ["store", "var"] {
            std::fs::rename(self.nix().join(name), full.join(name)).expect("to move the store");
        }
        self.empty();
        full
    }

    /// Moves it back.
    pub(crate) fn put_back(&self, full: &Path) {
        for name in ["store", "var"] {
            remove(&self.nix().join(name));
            std::fs::rename(full.join(name), self.nix().join(name)).expect("to move the store");
        }
    }

    /// Makes the store an empty one.
    pub(crate) fn empty(&self) {
        for name in ["store", "var"] {
            remove(&self.nix().join(name));
        }
        std::fs::create_dir_all(self.state()).expect("a directory");
        self.run("nix-store", &["--init"]);
        self.settle();
    }

    /// Lets what was written before reach the disk, so that the next does not wait for it; this file system's only,
    /// for others may write to another.
    pub(crate) fn settle(&self) {
        #[cfg(target_os = "linux")]
        {
            let directory = std::fs::File::open(self.path("")).expect("the directory of the benchmark");
            rustix::fs::syncfs(&directory).expect("the file system to be written");
        }
        #[cfg(not(target_os = "linux"))]
        rustix::fs::sync();
    }
}

/// `PATH` with one more directory before all others.
pub(crate) fn path_with(directory: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(directory.to_path_buf()).chain(std::env::split_paths(&path)))
        .expect("a PATH")
}

/// Removes a file, or a tree although its directories are read-only.
pub(crate) fn remove(path: &Path) {
    let Ok(found) = std::fs::symlink_metadata(path) else { return };
    if !found.is_dir() {
        std::fs::remove_file(path).expect("to remove a file");
        return;
    }
    remove_all(path);
    std::fs::remove_dir(path).expect("to remove a directory");
}

/// Removes all that is in a directory.
fn remove_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    for entry in std::fs::read_dir(path).expect("a directory").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_all(&entry.path());
            std::fs::remove_dir(entry.path()).expect("to remove a directory");
        } else {
            std::fs::remove_file(entry.path()).expect("to remove a file");
        }
    }
}
