//! Writing store paths straight into a store while everything goes wrong, judged by Nix.

#![expect(clippy::unwrap_used, reason = "a test")]

mod nasty;
mod stores;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use phoenix_model::{NarHash, StorePath, ValidPathInfo};
use phoenix_pack::nar::{Sink as _, Writer};
use phoenix_store::{Import, Layout, PathInfos, ReceiveError, UnpackError, dump};
use phoenix_testkit::NixRoot;
use sha2::{Digest as _, Sha256};
use stores::{Source, Target};

const CHILD_FROM: &str = "PHOENIX_TEST_IMPORT_FROM";
const CHILD_TO: &str = "PHOENIX_TEST_IMPORT_TO";

/// What kills the child may come at any moment: at least so many are tried.
const SEEDS: u32 = 24;

/// Takes everything from one store into another with two threads. A process of its own, to be killed.
#[test]
#[ignore = "the child of other tests"]
fn child() {
    let (Some(from), Some(to)) = (std::env::var_os(CHILD_FROM), std::env::var_os(CHILD_TO)) else { return };
    let layout = |text: &std::ffi::OsStr| {
        let mut parts = text.to_str().unwrap().split('|');
        let mut next = || parts.next().unwrap().to_owned();
        Layout {
            store_dir: next(),
            real_dir: next().into(),
            state_dir: next().into(),
            log_dir: PathBuf::new(),
        }
    };
    let (from, to) = (layout(&from), layout(&to));
    let infos = PathInfos::open(&from).unwrap();
    let paths = infos.all_paths().unwrap();
    let infos = infos.of(&paths).unwrap();
    let import = Import::open(&to).unwrap();
    say("writing");
    let received: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = [0, 1]
            .map(|part| {
                let (infos, from, import) = (&infos, &from, &import);
                scope.spawn(move || {
                    let mut received = Vec::new();
                    for info in infos.iter().skip(part).step_by(2) {
                        let Some(mut receive) = import.receive(info.clone()).unwrap() else { continue };
                        let mut nar = Writer::default();
                        dump(&from.real_path(&info.path), &mut nar).unwrap();
                        nar.bytes.chunks(5000).for_each(|piece| receive.feed(piece).unwrap());
                        received.push(receive.finish().unwrap());
                    }
                    received
                })
            })
            .into();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    say("registering");
    import.register(received).unwrap();
    say("done");
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nchild: {line}").unwrap();
    out.flush().unwrap();
}

fn spawn(source: &Source, target: &Target<'_>) -> (Child, BufReader<std::process::ChildStdout>) {
    spawn_after(source, target, "")
}

/// After a shell has done this.
fn spawn_after(
    source: &Source,
    target: &Target<'_>,
    before: &str,
) -> (Child, BufReader<std::process::ChildStdout>) {
    let text = |layout: &Layout| {
        format!("{}|{}|{}", layout.store_dir, layout.real_dir.display(), layout.state_dir.display())
    };
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("{before}\nexec \"$0\" --exact child --ignored --nocapture")])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD_FROM, text(&source.layout))
        .env(CHILD_TO, text(&target.layout))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

/// Reads until the child says so; `false` when it ended before.
fn wait_for(out: &mut impl std::io::BufRead, word: &str) -> bool {
    out.lines().map_while(Result::ok).any(|line| line == format!("child: {word}"))
}

#[test]
fn a_killed_process_leaves_a_sound_store() {
    let source = Source::new();
    let infos = source.infos();
    let whole = source.target("whole");
    let (mut child, mut out) = spawn(&source, &whole);
    let mut lasts = Vec::new();
    for word in ["writing", "registering", "done"] {
        assert!(wait_for(&mut out, word));
        lasts.push(Instant::now());
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(whole.infos().len(), infos.len());
    let (writing, registering) = (lasts[1] - lasts[0], lasts[2] - lasts[1]);

    let (mut partly, mut valid) = (0, 0);
    for seed in 0..SEEDS {
        let target = source.target(&format!("seed-{seed}"));
        // Spread evenly, with the order of bits turned round.
        let share = f64::from(seed.reverse_bits() >> 16) / 65536.0;
        let (word, time) = if seed % 2 == 0 { ("writing", writing) } else { ("registering", registering) };
        let (mut child, mut out) = spawn(&source, &target);
        assert!(wait_for(&mut out, word), "seed {seed}");
        std::thread::sleep(time.mul_f64(share * 1.1));
        child.kill().unwrap();
        child.wait().unwrap();

        let names = target.names().len();
        partly += usize::from(names > 0 && names < infos.len());
        valid += usize::from(!target.infos().is_empty());
        target.verify();
        // Whoever comes next finishes it.
        let import = target.import();
        target.take(&import, &infos, 1 << 20);
        assert_eq!(target.infos().len(), infos.len(), "seed {seed}");
        target.verify();
        drop(import);
        target.run("nix-store", &["--gc"]);
        assert_eq!(target.names(), Vec::<String>::new(), "seed {seed}: what was left is garbage");
    }
    eprintln!("{SEEDS} kills, {partly} while paths were written, {valid} with paths valid already");
    assert!(partly > 0);
}

#[test]
fn neither_a_umask_nor_few_open_files_change_anything() {
    let source = Source::new();
    let target = source.target("t");
    // So few that there are several transactions.
    let (mut child, mut out) = spawn_after(&source, &target, "umask 077; ulimit -n 64");
    assert!(wait_for(&mut out, "done"));
    assert!(child.wait().unwrap().success());
    target.verify();
    let infos = source.infos();
    assert_eq!(target.infos().len(), infos.len());
    for info in infos {
        let (ours, theirs) = (target.layout.real_path(&info.path), source.layout.real_path(&info.path));
        assert_eq!(stores::metadata(&ours), stores::metadata(&theirs), "{}", info.path);
    }
}

#[test]
fn several_processes_take_in_the_same_paths() {
    let source = Source::new();
    let target = source.target("t");
    let mut children: Vec<_> = (0..3).map(|_| spawn(&source, &target)).collect();
    // And Nix beside them.
    let paths: Vec<String> = source.infos().iter().map(|info| info.path.to_string()).collect();
    let export = source.nix.command("nix-store").arg("--export").args(&paths).output().unwrap();
    assert!(export.status.success());
    let mut import = target.command("nix-store");
    let mut nix = import.arg("--import").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    nix.stdin.take().unwrap().write_all(&export.stdout).unwrap();
    for (child, out) in &mut children {
        assert!(wait_for(out, "done"));
        assert!(child.wait().unwrap().success());
    }
    assert!(nix.wait().unwrap().success());
    target.verify();
    assert_eq!(target.infos().len(), paths.len());
    assert_eq!(target.names().len(), paths.len(), "{:?}", target.names());
}

#[test]
fn nix_builds_what_comes_in() {
    let nix = NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let expression = r#"derivation { name = "slow"; system = builtins.currentSystem; builder = "/bin/sh";
        args = [ "-c" "PATH=/bin:/usr/bin; touch MARK; sleep 2; printf built > $out" ]; }"#;
    let mark = nix.path("mark");
    fs::write(nix.path("x.nix"), expression.replace("MARK", mark.to_str().unwrap())).unwrap();
    let drv = nix.run("nix-instantiate", &[nix.path("x.nix").to_str().unwrap()]);
    let out = StorePath::parse(&nix.run("nix-store", &["--query", "--outputs", &drv])).unwrap();
    let layout = Layout {
        store_dir: nix.store_dir(),
        real_dir: nix.path("store"),
        state_dir: nix.path("var/nix"),
        log_dir: nix.path("var/log"),
    };
    let mut nar = Writer::default();
    nar.file(false, 5).unwrap();
    nar.data(b"other").unwrap();
    nar.file_end().unwrap();

    let mut command = nix.command("nix-store");
    let mut build = command.args(["--realise", &drv]).stdout(Stdio::null()).spawn().unwrap();
    while !mark.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Nix has the lock now.
    let import = Import::open(&layout).unwrap();
    let mut receive = import.receive(info(out.clone(), &nar.bytes)).unwrap().unwrap();
    receive.feed(&nar.bytes).unwrap();
    let done = import.register(vec![receive.finish().unwrap()]).unwrap();
    assert_eq!((done.new.len(), done.already.len()), (0, 1));
    assert!(build.wait().unwrap().success());
    assert_eq!(fs::read_to_string(out.as_str()).unwrap(), "built");
    nix.run("nix-store", &["--verify", "--check-contents"]);
}

/// Says so when dropped.
struct Stop<'b>(&'b AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_collector_leaves_alone_what_comes_in() {
    let source = Source::new();
    let target = source.target("t");
    let infos = source.infos();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // However this ends.
        let _stop = Stop(&stop);
        let collector = scope.spawn(|| {
            let mut runs = 0;
            while !stop.load(Ordering::Relaxed) {
                target.run("nix-store", &["--gc"]);
                runs += 1;
            }
            runs
        });
        for round in 0..12 {
            let import = target.import();
            let mut received = Vec::new();
            for info in &infos {
                let Some(mut receive) = import.receive(info.clone()).unwrap() else { continue };
                let nar = source.nar(&info.path);
                for piece in nar.chunks(nar.len() / 2 + 1) {
                    receive.feed(piece).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
                received.push(receive.finish().unwrap());
            }
            import.register(received).unwrap();
            assert_eq!(target.infos().len(), infos.len(), "round {round}: all are valid");
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(target.infos().len(), infos.len(), "round {round}: and stay so");
            drop(import);
            // Then they are garbage, and the next round begins while they are collected.
            while round % 2 == 0 && !target.infos().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        stop.store(true, Ordering::Relaxed);
        let runs = collector.join().unwrap();
        assert!(runs > 5, "{runs}");
    });
    target.verify();
}

fn info(path: StorePath, nar: &[u8]) -> ValidPathInfo {
    ValidPathInfo::new(path, NarHash(Sha256::digest(nar).into()), nar.len() as u64)
}

/// A directory of these entries: a target makes a symlink, nothing a directory with a file `x` in it.
fn directory(entries: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    let mut nar = Writer::default();
    nar.directory().unwrap();
    for (name, target) in entries {
        nar.entry(name).unwrap();
        if let Some(target) = target {
            nar.symlink(target).unwrap();
        } else {
            nar.directory().unwrap();
            nar.entry(b"x").unwrap();
            nar.file(true, 5).unwrap();
            nar.data(b"wrong").unwrap();
            nar.file_end().unwrap();
            nar.leave().unwrap();
        }
    }
    nar.leave().unwrap();
    nar.bytes
}

#[test]
fn hostile_archives_leave_nothing_anywhere() {
    let source = Source::new();
    let target = source.target("t");
    let outside = source.nix.path("outside");
    fs::create_dir(&outside).unwrap();
    let out = outside.as_os_str().as_encoded_bytes();
    let path = source.infos()[0].path.clone();
    let import = target.import();
    let through = [out, b"/x"].concat();
    let mut lies = Writer::default();
    lies.file(false, 1 << 62).unwrap();
    lies.data(b"few").unwrap();
    let mut no_end = Writer::default();
    for _ in 0..100_000 {
        no_end.directory().unwrap();
        no_end.entry(b"d").unwrap();
    }
    let long = vec![b'a'; 300];
    for (what, nar) in [
        ("dot dot", directory(&[(b"..", None)])),
        ("dot", directory(&[(b".", None)])),
        ("nothing", directory(&[(b"", None)])),
        ("a slash", directory(&[(b"../../x", None)])),
        ("absolute", directory(&[(&through, None)])),
        ("NUL", directory(&[(b"a\0b", None)])),
        ("NUL in a target", directory(&[(b"a", Some(b"a\0b"))])),
        ("a symlink and what is in it", directory(&[(b"a", Some(out)), (b"a", None)])),
        ("twice", directory(&[(b"a", None), (b"a", None)])),
        ("out of order", directory(&[(b"b", None), (b"a", None)])),
        ("through a symlink", directory(&[(b"a", Some(out)), (b"a/x", None)])),
        ("a long name", directory(&[(&long, None)])),
        ("a size that lies", lies.bytes.clone()),
        ("directories without end", no_end.bytes),
        ("nothing at all", Vec::new()),
    ] {
        let mut receive = import.receive(info(path.clone(), &nar)).unwrap().unwrap();
        let fed = nar.chunks(64).try_for_each(|piece| receive.feed(piece));
        let error = match fed {
            Ok(()) => receive.finish().unwrap_err(),
            Err(error) => {
                drop(receive);
                error
            }
        };
        // Its path is longer than any may be, or it is more open directories than there may be.
        let expected = matches!(error, ReceiveError::Damaged { .. })
            || what == "directories without end" && matches!(error, ReceiveError::Write(_));
        assert!(expected, "{what}: {error}");
        assert_eq!(target.names(), Vec::<String>::new(), "{what}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{what}");
    }
    // More than was said is not even written.
    let mut receive = import.receive(info(path, b"short")).unwrap().unwrap();
    let error = receive.feed(&lies.bytes).unwrap_err();
    assert!(matches!(error, ReceiveError::Size { more: true, .. }), "{error}");
    assert_eq!(target.names(), Vec::<String>::new());
    drop(receive);
    // A symlink at the temporary name or the final one is replaced, not followed.
    let info = source.infos().into_iter().find(|info| info.path.name() == "tree").unwrap();
    std::os::unix::fs::symlink(&outside, target.layout.real_path(&info.path)).unwrap();
    target.take(&import, std::slice::from_ref(&info), 1 << 20);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    target.verify();
}

/// A small file system, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where this may not be done.
    fn new(at: &Path, size: &str) -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at);
        let done = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !done {
            eprintln!("skipped: no file system can be mounted here");
        }
        done.then(|| Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let source = Source::new();
    let infos = source.infos();
    let target = source.target("t");
    let Some(_mounted) = Mounted::new(&target.layout.real_dir, "1m") else { return };
    let import = target.import();
    let tree = infos.iter().find(|info| info.path.name() == "tree").unwrap();
    let mut receive = import.receive(tree.clone()).unwrap().unwrap();
    let error = source.nar(&tree.path).chunks(4096).try_for_each(|piece| receive.feed(piece)).unwrap_err();
    let ReceiveError::Write(UnpackError::Write { path, source: why }) = &error else { panic!("{error}") };
    assert!(path.ends_with("large"), "{}", path.display());
    assert_eq!(why.kind(), std::io::ErrorKind::StorageFull);
    drop(receive);
    assert_eq!(target.names(), Vec::<String>::new());
    // There is room again.
    let some: Vec<_> = infos.iter().filter(|info| info.nar_size < 1000).cloned().collect();
    let closed: Vec<_> = some.iter().filter(|info| info.references.is_empty()).cloned().collect();
    assert!(!closed.is_empty());
    target.take(&import, &closed, 1 << 20);
    target.verify();
}

#[test]
fn a_database_on_a_full_disk_leaves_a_sound_store() {
    let source = Source::new();
    let infos = source.infos();
    let target = source.no_store("t");
    // Nix keeps 8 MB for itself there.
    let Some(_mounted) = Mounted::new(&target.root, "40m") else { return };
    target.run("nix-store", &["--init"]);
    let mut failed = 0;
    for spare in [0_usize, 4, 16, 64, 128, 256, 512, 1024, 2048] {
        let import = target.import();
        let mut receives = Vec::new();
        let closed = infos.iter().filter(|info| info.references.is_empty() && info.nar_size < 1000);
        for info in closed {
            let Some(mut receive) = import.receive(info.clone()).unwrap() else { continue };
            receive.feed(&source.nar(&info.path)).unwrap();
            receives.push(receive.finish().unwrap());
        }
        // Everything has been written; now the disk fills up.
        let fill = target.root.join("fill");
        let mut file = fs::File::create(&fill).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(spare as u64 * 1024)).unwrap();
        let before = target.names().len();
        match import.register(receives) {
            Ok(done) => assert!(!done.new.is_empty() || failed == 0 || before > 0),
            Err(error) => {
                failed += 1;
                assert!(
                    error.to_string().contains("db.sqlite") || error.to_string().contains("store"),
                    "{error}"
                );
            }
        }
        drop(file);
        fs::remove_file(&fill).unwrap();
        drop(import);
        target.verify();
        assert_eq!(target.names().len(), target.infos().len(), "spare {spare}");
        target.run("nix-store", &["--gc"]);
    }
    assert!(failed > 0);
}
