//! The directory keeps the contract, and what the real world does to it harms nothing.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use phoenix_depot::testing::{Promises, body, bytes, contract, pieces};
use phoenix_depot::{Blob, BlobName, Created, Depot, Directory, Problem};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_keeps_the_contract() {
    let all = tempfile::tempdir().unwrap();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let promises = Promises { grain: Duration::from_millis(2), ..Promises::default() };
    contract(&promises, || -> Arc<dyn Depot> {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(Directory::new(all.path().join(format!("not-there/{n}"))))
    })
    .await;
}

fn name(name: &str) -> BlobName {
    BlobName::new(name).unwrap()
}

async fn create(depot: &Directory, called: &str, length: usize) -> Result<Created, Problem> {
    depot.create(&name(called), body(bytes(1, length))).await.map_err(|error| error.problem)
}

/// What stands in a directory, folders included, by path.
fn everything(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        let leaf = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !path.is_symlink() {
            found.extend(everything(&path).into_iter().map(|below| format!("{leaf}/{below}")));
        }
        found.push(leaf);
    }
    found.sort();
    found
}

fn is_root() -> bool {
    std::process::Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

#[tokio::test]
async fn names_are_paths_and_nothing_else_is_left() {
    let all = tempfile::tempdir().unwrap();
    let depot = Directory::new(all.path());
    create(&depot, "a/b/c", 10).await.unwrap();
    assert_eq!(everything(all.path()), [",unfinished", "a", "a/b", "a/b/c"]);
    depot.remove(&name("a/b/c")).await.unwrap();
    assert_eq!(everything(all.path()), [",unfinished"]);
    // A reader makes nothing.
    let absent = Directory::new(all.path().join("absent"));
    assert_eq!(absent.list("").await.unwrap(), []);
    absent.remove(&name("a")).await.unwrap();
    assert_eq!(everything(all.path()), [",unfinished"]);
}

#[tokio::test]
async fn a_directory_without_rights_says_so() {
    let all = tempfile::tempdir().unwrap();
    let path = all.path().join("depot");
    let depot = Directory::new(&path);
    create(&depot, "a", 10).await.unwrap();
    if is_root() {
        // No mode keeps root out; a read-only mount does.
        let mounted = mount(&path, &["--bind", path.to_str().unwrap()])
            .filter(|_| run("mount", &["-o", "remount,bind,ro", path.to_str().unwrap()]));
        let Some(_mounted) = mounted else {
            println!("skipped: root may not mount anything here");
            return;
        };
        check_no_rights(&depot, &path).await;
    } else {
        let rights = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        rights(0o555);
        check_no_rights(&depot, &path).await;
        rights(0o755);
    }
}

async fn check_no_rights(depot: &Directory, path: &Path) {
    // What is there is there, and the rest is refused.
    assert_eq!(create(depot, "a", 10).await.unwrap(), Created::Taken);
    let error = depot.create(&name("b"), body(bytes(1, 10))).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Denied(_)), "{error}");
    let words = error.to_string();
    assert!(words.contains(path.to_str().unwrap()) && words.contains("use another depot"), "{words}");
    let error = depot.remove(&name("a")).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Denied(_)), "{error}");
    let blob = depot.find(&name("a")).await.unwrap().unwrap();
    assert_eq!(depot.read(&blob, 0..10).await.unwrap(), bytes(1, 10));
}

#[tokio::test]
async fn something_else_in_the_way_is_named() {
    let all = tempfile::tempdir().unwrap();
    let file = all.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let depot = Directory::new(&path);
        for error in [
            depot.create(&name("a"), body(bytes(1, 10))).await.unwrap_err(),
            depot.find(&name("a")).await.unwrap_err(),
            depot.list("").await.unwrap_err(),
        ] {
            assert!(matches!(error.problem, Problem::Unreachable(_)), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
    // A folder, a pipe and a dangling link where a blob is to be.
    let depot = Directory::new(all.path().join("depot"));
    create(&depot, "folder/blob", 1).await.unwrap();
    symlink("nowhere", depot.path().join("link")).unwrap();
    assert!(run("mkfifo", &[depot.path().join("pipe").to_str().unwrap()]));
    assert!(matches!(create(&depot, "folder", 1).await, Err(Problem::Unsupported(_))));
    for called in ["link", "pipe"] {
        let problem = create(&depot, called, 1).await.unwrap_err();
        assert!(problem.to_string().contains("is no file; move it away"), "{problem}");
        assert_eq!(depot.find(&name(called)).await.unwrap(), None);
        let blob = Blob { name: name(called), size: 1, created: None };
        let error = depot.read(&blob, 0..1).await.unwrap_err();
        assert!(matches!(error.problem, Problem::Gone), "{error}");
        depot.remove(&name(called)).await.unwrap();
    }
    assert_eq!(depot.list("").await.unwrap().len(), 1);
    assert!(depot.path().join("link").is_symlink());
}

#[tokio::test]
async fn links_out_of_the_directory_are_not_followed() {
    let all = tempfile::tempdir().unwrap();
    let outside = Directory::new(all.path().join("outside"));
    create(&outside, "x/secret", 10).await.unwrap();
    let depot = Directory::new(all.path().join("depot"));
    create(&depot, "ours", 10).await.unwrap();
    symlink(outside.path(), depot.path().join("folder")).unwrap();
    symlink(outside.path().join("x/secret"), depot.path().join("file")).unwrap();
    let listed: Vec<_> =
        depot.list("").await.unwrap().into_iter().map(|blob| blob.name.to_string()).collect();
    assert_eq!(listed, ["ours"]);
    for called in ["folder/x/secret", "file"] {
        assert_eq!(depot.find(&name(called)).await.unwrap(), None);
        let blob = Blob { name: name(called), size: 10, created: None };
        let error = depot.read(&blob, 0..10).await.unwrap_err();
        assert!(matches!(error.problem, Problem::Gone), "{error}");
        depot.remove(&name(called)).await.unwrap();
    }
    let problem = create(&depot, "folder/new", 10).await.unwrap_err();
    assert!(problem.to_string().contains("depot/folder"), "{problem}");
    assert_eq!(everything(outside.path()), [",unfinished", "x", "x/secret"]);
    // The directory itself may be reached through one.
    let linked = all.path().join("linked");
    symlink(depot.path(), &linked).unwrap();
    assert_eq!(Directory::new(linked).list("").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_blob_that_was_cut_off_or_went_away_is_told() {
    let all = tempfile::tempdir().unwrap();
    let depot = Directory::new(all.path());
    create(&depot, "a", 1000).await.unwrap();
    let blob = depot.find(&name("a")).await.unwrap().unwrap();
    std::fs::write(all.path().join("a"), "short").unwrap();
    let error = depot.read(&blob, 0..6).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Short(_)), "{error}");
    std::fs::remove_file(all.path().join("a")).unwrap();
    let error = depot.read(&blob, 0..6).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Gone), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing() {
    let all = tempfile::tempdir().unwrap();
    let Some(_mounted) = mount(all.path(), &["-t", "tmpfs", "-o", "size=3m", "tmpfs"]) else {
        println!("skipped: only root can make a small disk");
        return;
    };
    let depot = Directory::new(all.path().join("depot"));
    create(&depot, "fits", 1 << 20).await.unwrap();
    let error = depot.create(&name("large"), body(bytes(1, 8 << 20))).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Full(_)), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(everything(depot.path()), [",unfinished", "fits"]);
    create(&depot, "fits-too", 1 << 20).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_come_and_go_while_blobs_are_created() {
    let all = tempfile::tempdir().unwrap();
    let tasks = (0..8).map(|task| {
        let depot = Directory::new(all.path());
        tokio::spawn(async move {
            for round in 0..50 {
                let called = format!("a/b/{task}-{round}");
                assert_eq!(create(&depot, &called, 10).await.unwrap(), Created::New(10));
                depot.remove(&name(&called)).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(everything(all.path()), [",unfinished"]);
}

/// Set in the process that is to be killed: the directory that it writes to.
const VICTIM: &str = "PHOENIX_DEPOT_TEST_VICTIM";

/// No test of its own: the process that [`a_killed_process_leaves_nothing_visible`] starts and kills.
#[tokio::test]
async fn the_victim_creates_blobs_until_it_is_killed() {
    let Some(path) = std::env::var_os(VICTIM) else { return };
    let depot = Directory::new(path);
    for n in 0_u64.. {
        // Pieces that come slowly, so that most of the time one is being written.
        let slow = stream::iter(pieces(n, bytes(n, 3 << 20))).then(async |piece| {
            tokio::time::sleep(Duration::from_micros(300)).await;
            Ok(piece)
        });
        depot.create(&name(&format!("v/{}-{n}", std::process::id())), slow.boxed()).await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_process_leaves_nothing_visible() {
    let all = tempfile::tempdir().unwrap();
    let depot = Directory::new(all.path());
    let unfinished = || std::fs::read_dir(all.path().join(",unfinished")).map_or(0, Iterator::count);
    let mut left = 0;
    for round in 0..25_u64 {
        let mut victim = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_victim_creates_blobs_until_it_is_killed"])
            .env(VICTIM, all.path())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(10 + round * 7)).await;
        // SIGKILL.
        victim.kill().await.unwrap();
        left += unfinished();
        for blob in depot.list("").await.unwrap() {
            let n: u64 = blob.name.as_str().rsplit_once('-').unwrap().1.parse().unwrap();
            assert_eq!(blob.size, 3 << 20, "{} is not whole", blob.name);
            assert!(depot.read(&blob, 0..blob.size).await.unwrap() == bytes(n, 3 << 20), "{}", blob.name);
            depot.remove(&blob.name).await.unwrap();
        }
    }
    assert!(left > 0, "no process was killed while it wrote");
    // The next who creates something removes what is left, and not what somebody still writes.
    let (send, receive) = tokio::sync::oneshot::channel::<()>();
    let wait =
        stream::once(async move { receive.await.map(|()| Bytes::new()).map_err(std::io::Error::other) });
    let alive = {
        let depot = depot.clone();
        let slow = stream::iter([Ok(bytes(1, 2 << 20))]).chain(wait).boxed();
        tokio::spawn(async move { depot.create(&name("alive"), slow).await })
    };
    while unfinished() == 0 || all.path().join("alive").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    create(&depot, "next", 10).await.unwrap();
    assert_eq!(unfinished(), 1);
    send.send(()).unwrap();
    assert_eq!(alive.await.unwrap().unwrap(), Created::New(2 << 20));
    // Who was killed between making a folder and moving its blob there leaves the folder, which is empty.
    let _ = std::fs::remove_dir(all.path().join("v"));
    assert_eq!(everything(all.path()), [",unfinished", "alive", "next"]);
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let command = std::process::Command::new(program).args(arguments).output();
    command.is_ok_and(|output| output.status.success())
}

/// Something that is mounted until this is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

/// Mounts something at a path; none where that is not permitted.
fn mount(at: &Path, what: &[&str]) -> Option<Mounted> {
    (is_root() && run("mount", &[what, &[at.to_str()?]].concat())).then(|| Mounted(at.to_owned()))
}
