//! Bringing paths in through Nix's own daemon.

#![expect(clippy::unwrap_used, reason = "a test")]

mod nasty;
mod stores;

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use phoenix_model::{NarHash, StorePath, ValidPathInfo};
use phoenix_store::{AddError, Daemon, DaemonError, add_through_daemon};
use stores::{Source, Target, metadata};

/// Whoever runs the tests may bring in what is not signed.
const TRUSTED: &str = "trusted-users = *";

/// A daemon over a target.
struct Running {
    child: Child,
    directory: tempfile::TempDir,
}

impl Running {
    fn over(target: &Target<'_>) -> Self {
        // Sockets have short names.
        let directory = tempfile::Builder::new().prefix("pnx-").tempdir().unwrap();
        let mut command = target.command("nix-daemon");
        command.env("NIX_DAEMON_SOCKET_PATH", directory.path().join("s"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let this = Self { child, directory };
        let deadline = Instant::now() + Duration::from_secs(10);
        while Daemon::connect(&this.socket()).is_err() {
            assert!(Instant::now() < deadline, "the daemon does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        this
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn add(
    source: &Source,
    socket: &Path,
    check: bool,
    infos: &[ValidPathInfo],
) -> Result<(), AddError<Infallible>> {
    add_through_daemon(socket, 2, check, infos, |info, take| {
        source.nar(&info.path).chunks(10_007).try_for_each(take)
    })
}

#[test]
fn what_goes_through_the_daemon_is_what_nix_would_have() {
    let source = Source::new();
    source.nix.configure(TRUSTED);
    let mut infos = source.infos();
    infos.reverse();
    let target = source.target("t");
    let daemon = Running::over(&target);
    let version = target.run("nix", &["--version"]);
    let mut connection = Daemon::connect(&daemon.socket()).unwrap();
    assert!(version.ends_with(connection.version()), "{version}, {}", connection.version());
    let trusted = connection.trusts_us();
    assert!(matches!(trusted, None | Some(true)), "{trusted:?}");
    let all: Vec<StorePath> = infos.iter().map(|info| info.path.clone()).collect();
    assert_eq!(connection.valid(&all).unwrap(), HashSet::new());

    add(&source, &daemon.socket(), false, &infos).unwrap();
    assert_eq!(connection.valid(&all).unwrap(), all.iter().cloned().collect());
    target.verify();
    let there = target.infos();
    assert_eq!(there.len(), infos.len());
    infos.sort_by(|one, two| one.path.cmp(&two.path));
    for (there, info) in there.iter().zip(&infos) {
        let expected =
            ValidPathInfo { registration_time: there.registration_time, ultimate: false, ..info.clone() };
        assert_eq!(*there, expected);
        let (ours, theirs) = (target.layout.real_path(&info.path), source.layout.real_path(&info.path));
        assert_eq!(metadata(&ours), metadata(&theirs), "{}", info.path);
    }
    // And once more: the daemon passes over what it has.
    add(&source, &daemon.socket(), false, &infos).unwrap();
    // Beside it, straight into the store.
    assert!(target.import().receive(infos[0].clone()).unwrap().is_none());
}

#[test]
fn the_daemon_refuses_in_its_own_words() {
    let source = Source::new();
    source.nix.configure(TRUSTED);
    let infos = source.infos();
    let target = source.target("t");
    let daemon = Running::over(&target);
    let leaf = infos.iter().find(|info| info.path.name() == "leaf").unwrap();
    let text = infos.iter().find(|info| info.path.name() == "text").unwrap();
    let refused = |infos: &[ValidPathInfo], check| match add(&source, &daemon.socket(), check, infos) {
        Err(AddError::Daemon(DaemonError::Refused(words))) => words,
        other => panic!("{other:?}"),
    };
    let words = refused(std::slice::from_ref(leaf), true);
    assert!(words.contains("lacks a"), "{words}");
    assert!(words.contains("signature") && words.contains(leaf.path.as_str()), "{words}");
    let wrong = ValidPathInfo { nar_hash: NarHash([1; 32]), content_address: None, ..text.clone() };
    let words = refused(&[wrong], false);
    assert!(words.contains("hash mismatch importing path"), "{words}");
    assert!(target.infos().is_empty());
    // What is content-addressed needs no signature, and what refers to it none when it is signed by a known key.
    add(&source, &daemon.socket(), true, std::slice::from_ref(text)).unwrap();
    drop(daemon);
    // Nobody is trusted now but the key; what is asked for without a check is checked.
    source.nix.configure(&format!("trusted-users =\ntrusted-public-keys = {}", source.public_key.trim()));
    let daemon = Running::over(&target);
    add(&source, &daemon.socket(), true, std::slice::from_ref(leaf)).unwrap();
    target.verify();
    assert_eq!(target.infos().len(), 2);
}

#[test]
fn what_breaks_off_is_not_valid() {
    let source = Source::new();
    source.nix.configure(TRUSTED);
    let infos = source.infos();
    let target = source.target("t");
    let daemon = Running::over(&target);
    let tree = infos.iter().find(|info| info.path.name() == "tree").unwrap();
    let error = add_through_daemon(&daemon.socket(), 2, false, std::slice::from_ref(tree), |info, take| {
        take(&source.nar(&info.path)[..1_000_000])?;
        Err(AddError::Source("the depot went away"))
    })
    .unwrap_err();
    assert!(matches!(error, AddError::Source("the depot went away")));
    for size in [1_000_000, 4_000_000] {
        let error = add_through_daemon(&daemon.socket(), 2, false, std::slice::from_ref(tree), |_, take| {
            take(&vec![0; size]).map_err(|error: AddError<Infallible>| error)
        })
        .unwrap_err();
        // The daemon may see that it is no NAR first.
        assert!(matches!(error, AddError::Size { .. } | AddError::Daemon(_)), "{error}");
    }
    target.verify();
    assert!(target.infos().is_empty());
    add(&source, &daemon.socket(), false, std::slice::from_ref(tree)).unwrap();
    target.verify();
    assert_eq!(target.infos().len(), 1);
}

#[test]
fn who_is_no_daemon_is_told_from_one() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let error = Daemon::connect(&socket).unwrap_err();
    assert!(matches!(error, DaemonError::Connect { .. }), "{error}");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (answer, words) in [
        (vec![], "broke"),
        (b"HTTP/1.1 400 Bad Request".to_vec(), "it is no Nix daemon"),
        ([0x6478_696f_u64.to_le_bytes(), 0x011f_u64.to_le_bytes()].concat(), "it speaks protocol 1.31"),
        ([0x6478_696f_u64.to_le_bytes(), 0x0220_u64.to_le_bytes()].concat(), "it speaks protocol 2.32"),
    ] {
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                use std::io::{Read as _, Write as _};
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut [0; 16]).unwrap();
                stream.write_all(&answer).unwrap();
            });
            Daemon::connect(&socket).unwrap_err()
        });
        assert!(error.to_string().contains(words), "{error}");
    }
    fs::remove_file(&socket).unwrap();
}
