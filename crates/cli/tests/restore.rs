//! `phoenix cache restore`: what a flake wants, by whose keys, and through the daemon.

#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use common::{Ran, TestEnv};
use fs_err as fs;
use phoenix_cache::{Cache, Destination, Trouble};
use phoenix_depot::BlobName;
use phoenix_model::StorePath;
use phoenix_pack::PathInfo;
use phoenix_pack::nar::{Sink as _, Writer};
use phoenix_store::{Layout, StoreEnv, Way};
use phoenix_testkit::Flake;
use sha2::{Digest, Sha256};

/// Paths that refer to each other and to themselves, with what a NAR can hold; a text and a fixed output.
const OUTPUTS: &str = r#"{ packages.${system} = rec {
  lib = d "lib" "mkdir -p $out/empty $out/bin; echo $out > $out/self; ln -s ../self $out/bin/link; echo x > $out/bin/x; chmod +x $out/bin/x" { };
  data = d "data" "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done > $out" { };
  fixed = d "fixed" "printf fixed > $out" {
    outputHash = builtins.hashString "sha256" "fixed"; outputHashAlgo = "sha256"; outputHashMode = "flat";
  };
  app = d "app" "mkdir $out; echo ${lib} ${data} ${fixed} ${builtins.toFile "text" "a text"} $out > $out/uses" { };
}; }"#;

fn restore(env: &TestEnv, args: &[&str]) -> Ran {
    env.phoenix(&[&["cache", "restore", "--depot", &env.depot()], args].concat())
}

/// Mode, time and size of every file in the store.
fn files(env: &TestEnv) -> BTreeMap<PathBuf, (u32, i64, u64)> {
    let mut files = BTreeMap::new();
    let mut left = vec![PathBuf::from(env.nix.store_dir())];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            if entry.file_name() == ".links" || entry.path().extension().is_some_and(|end| end == "lock") {
                continue;
            }
            if metadata.is_dir() {
                left.push(entry.path());
            }
            let size = if metadata.is_file() { metadata.len() } else { 0 };
            files.insert(entry.path(), (metadata.mode(), metadata.mtime(), size));
        }
    }
    files
}

#[test]
fn what_a_flake_wants_comes_back() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = env.output(&flake, "app");
    let lib = env.output(&flake, "lib");
    let before = env.sound(&app);
    let _ = env.phoenix(&["cache", "save", "--depot", &env.depot(), &app]).ends_with(0).says("saved 5 paths");
    env.forget_store();
    let only_lib = format!("{}#lib", flake.reference());
    let _ = restore(&env, &[&only_lib]).ends_with(0).says("restored 1 path ");
    assert!(env.nix.is_valid(&lib) && !env.nix.is_valid(&app));
    // All that the flake wants, with a store path beside it, and a link.
    let link = env.file("link");
    std::os::unix::fs::symlink(&lib, &link).unwrap();
    let _ = restore(&env, &[&flake.reference(), &lib, link.to_str().unwrap()]).ends_with(0).says("restored ");
    assert_eq!(env.sound(&app), before);
    // Nothing is built again.
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!(report.count("derivations", "built"), 0);

    // What is not there is said, and what does not evaluate has its own error; the rest comes all the same.
    env.forget_store();
    flake.outputs(
        &OUTPUTS.replace("echo x >", "echo y >").replace("data =", "bad = throw \"no way\"; data ="),
    );
    let ran = restore(&env, &[&flake.reference()]).ends_with(120);
    let _ = ran.says("no way").says("are in no pack").says("restored ");
    let data = format!("{}#data", flake.reference());
    let _ = restore(&env, &[&data]).ends_with(0);
    let _ = restore(&env, &[&only_lib]).ends_with(1).says("1 path is in no pack");
    let _ = restore(&env, &["/nowhere/flake"]).ends_with(120);
    let _ =
        restore(&env, &[&format!("{}/nothing", env.nix.store_dir())]).ends_with(1).says("not in the store");
}

#[test]
fn with_keys_only_what_is_signed_or_proves_itself_comes_in() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = env.output(&flake, "app");
    let before = env.sound(&app);
    let (secret, public) = env.key("ours-1");
    let (_, other) = env.key("other-1");
    let save = ["cache", "save", "--depot", &env.depot(), &app];
    let _ = env.phoenix(&save).ends_with(0).says("saved 5 paths");
    let signed_later = [&save[..], &["--sign-key", &secret]].concat();

    env.forget_store();
    // Of five, the text and the fixed output need no signature.
    let ran = restore(&env, &["--trusted-key", &public, &app]).ends_with(1).says("restored 2 paths");
    let _ =
        ran.says("-lib").says("are not restored: no trusted key signed it, and it is not content-addressed");
    assert!(!env.nix.is_valid(&app));
    let _ = restore(&env, &[&app]).ends_with(0).says("restored 3 paths");
    let _ = env.phoenix(&signed_later).ends_with(0).says("saved 5 paths");

    env.forget_store();
    let refused = restore(&env, &["--trusted-key", &other, &app]).ends_with(1);
    let _ = refused.says("no trusted key signed it");
    // What is known of a path says that, and nothing is read.
    let data = before.lines().find(|line| line.ends_with("-data")).unwrap();
    let _ = restore(&env, &["--trusted-key", &other, data])
        .ends_with(1)
        .says("restored 0 paths of 0 B in 0 requests");
    let _ = restore(&env, &["--trusted-key", &other, "--trusted-key", &public, &app]).ends_with(0);
    assert_eq!(env.sound(&app), before);
    let said =
        env.nix.run("nix", &["store", "verify", "--recursive", "--trusted-public-keys", &public, &app]);
    assert_eq!(said, "");
    let _ = restore(&env, &["--trusted-key", "nonsense", &app]).ends_with(1).says("no public key");
    // The key itself, where its file or its public half is wanted, is told to nobody.
    let key = fs_err::read_to_string(&secret).unwrap();
    let slips = [
        env.phoenix(&[&save[..], &["--sign-key", key.trim()]].concat()),
        restore(&env, &["--trusted-key", key.trim(), &app]),
    ];
    for ran in slips {
        let ran = ran.ends_with(1).says("ours-1");
        assert!(!ran.stderr.contains(&key[8..20]), "{ran}");
    }
}

/// A depot in which a path that follows from its contents has others.
fn forge(env: &TestEnv, path: &str, content_address: &str) {
    let mut nar = Writer::default();
    let Ok(()) = nar.file(false, 4);
    let Ok(()) = nar.data(b"evil");
    let Ok(()) = nar.file_end();
    let info = PathInfo {
        name: path.rsplit('/').next().unwrap().to_owned(),
        nar_hash: Sha256::digest(&nar.bytes).into(),
        nar_size: nar.bytes.len() as u64,
        references: vec![],
        deriver: None,
        signatures: vec![],
        ca: Some(content_address.to_owned()),
    };
    let depot = phoenix_depot::Opener::of_environment().open(&env.depot()).unwrap();
    let mut cache = Cache::open(std::sync::Arc::from(depot), &mut |_| ()).unwrap();
    let name = BlobName::new("packs/9999999999999-forged").unwrap();
    cache.save(&name, &[info], &|_, emit| emit(&nar.bytes), 1).unwrap();
}

#[test]
fn a_content_address_has_to_be_true() {
    let env = TestEnv::new();
    fs::write(env.file("file"), "good").unwrap();
    let file = env.file("file").display().to_string();
    let path = env.nix.run("nix-store", &["--add-fixed", "sha256", &file]);
    let said = env.nix.run("nix", &["path-info", "--json", &path]);
    let address = said.split('"').find(|word| word.starts_with("fixed:")).unwrap().to_owned();
    let (_, public) = env.key("ours-1");
    forge(&env, &path, &address);
    env.forget_store();
    let _ = restore(&env, &["--trusted-key", &public, &path])
        .ends_with(1)
        .says("its contents are not those that its content address stands for");
    assert!(!env.nix.is_valid(&path));
    fs::create_dir_all(env.nix.store_dir()).unwrap();
    let _daemon = env.nix.daemon().unwrap();
    let mut command = env.command();
    command.args(["cache", "restore", "--depot", &env.depot(), "--trusted-key", &public, &path]);
    let _ = Ran::from(command.env("NIX_REMOTE", "daemon").output().unwrap())
        .ends_with(1)
        .says("its contents are not those that its content address stands for");
    assert!(!env.nix.is_valid(&path));
}

/// A restore by somebody who owns nothing of the store. None where nobody else can be made.
fn as_nobody(env: &TestEnv, args: &[&str]) -> Option<Ran> {
    let open = |path: &Path| fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    open(&env.nix.path(""));
    let socket = env.nix.env().into_iter().find(|(name, _)| *name == "NIX_DAEMON_SOCKET_PATH").unwrap().1;
    open(Path::new(&socket).parent().unwrap());
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(env!("CARGO_BIN_EXE_phoenix"));
    command.args(["cache", "restore", "--depot", &env.depot()]).args(args).env_clear().envs(env.nix.env());
    command.env("PATH", std::env::var("PATH").unwrap());
    for name in ["HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        command.env(name, home.path());
    }
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return None;
    }
    let output = command.output().ok()?;
    Some(Ran::from(output))
}

#[test]
fn who_may_not_write_the_store_has_the_daemon_do_it() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = env.output(&flake, "app");
    let before = env.sound(&app);
    let (secret, public) = env.key("ours-1");
    let save = ["cache", "save", "--depot", &env.depot(), &app];
    let _ = env.phoenix(&save).ends_with(0).says("saved 5 paths");
    env.forget_store();
    let _ = restore(&env, &[&app]).ends_with(0).says("restored 5 paths");
    let (direct, closure) = (files(&env), env.sound(&app));
    assert_eq!(closure, before);

    // By root, because it is asked for: the same bytes, modes and times.
    env.forget_store();
    let env = env.through_daemon();
    let daemon = env.nix.daemon().unwrap();
    let snapshot = env.file("snapshot");
    let _ = restore(&env, &["--snapshot", snapshot.to_str().unwrap(), &app])
        .ends_with(0)
        .says("restored 5 paths");
    assert!(fs::read_to_string(&snapshot).unwrap().lines().count() >= 5);
    assert_eq!(env.sound(&app), before);
    assert_eq!(files(&env), direct);
    let _ = restore(&env, &[&app]).ends_with(0).says("restored 0 paths");
    drop(daemon);

    // A run does the same.
    env.forget_store();
    let daemon = env.nix.daemon().unwrap();
    let link = env.file("app-link");
    let app_alone = format!("{}#app", flake.reference());
    let (ran, _) = env.report(&[&app_alone, "--depot", &env.depot(), "-o", link.to_str().unwrap()]);
    let _ = ran.ends_with(0).says(" came from dir:");
    assert_eq!(env.sound(&app).lines().count(), before.lines().count());
    drop(daemon);

    // By somebody who is trusted, and by one who is not.
    env.forget_store();
    env.nix.configure("trusted-users = *");
    let daemon = env.nix.daemon().unwrap();
    let theirs = tempfile::tempdir().unwrap();
    fs::set_permissions(theirs.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let snapshot = theirs.path().join("snapshot").display().to_string();
    let Some(ran) = as_nobody(&env, &["--snapshot", &snapshot, &app]) else { return };
    let _ = ran.ends_with(0).says("restored 5 paths");
    assert!(fs::read_to_string(&snapshot).unwrap().lines().count() >= 5);
    assert_eq!(env.sound(&app), before);
    assert_eq!(files(&env), direct);
    let _ = env.phoenix(&[&save[..], &["--sign-key", &secret]].concat()).ends_with(0).says("saved 5 paths");
    drop(daemon);
    env.forget_store();
    env.nix.configure("trusted-users =");
    let daemon = env.nix.daemon().unwrap();
    let ran = as_nobody(&env, &[&app]).unwrap().ends_with(1);
    let ran = ran.says("restored 2 paths").says("takes only what a key in its trusted-public-keys signed");
    let _ = ran.says("hint: name this user among trusted-users");
    drop(daemon);
    env.nix.configure(&format!("trusted-users =\ntrusted-public-keys = {public}"));
    let _daemon = env.nix.daemon().unwrap();
    let _ = as_nobody(&env, &["--trusted-key", &public, &app]).unwrap().ends_with(0).says("restored 3 paths");
    assert_eq!(env.sound(&app), before);
}

#[test]
fn a_daemon_that_does_not_know_a_key_is_asked_twice_and_not_for_each_path() {
    let env = TestEnv::new();
    let names: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
    let outputs: String = names.iter().map(|name| format!("{name} = ok \"{name}\"; ")).collect();
    let flake = Flake::new(&format!("{{ packages.${{system}} = {{ {outputs} }}; }}"));
    let paths: Vec<String> = names.iter().map(|name| env.output(&flake, name)).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let (secret, _) = env.key("unknown-1");
    let depot = env.depot();
    let save = ["cache", "save", "--depot", &depot, "--sign-key", &secret];
    let _ = env.phoenix(&[&save[..], &paths].concat()).ends_with(0).says("saved 8 paths");
    env.forget_store();
    let env = env.through_daemon();
    env.nix.configure("trusted-users =");
    let _daemon = env.nix.daemon().unwrap();
    let Some(ran) = as_nobody(&env, &paths) else { return };
    let ran = ran.ends_with(1).says("takes only what a key in its trusted-public-keys signed");
    let _ = ran.says("restored 0 paths of 0 B in 2 requests");
}

/// Has the database refuse a path whose name ends like that.
fn refuse(env: &TestEnv, end: &str) {
    let database = rusqlite::Connection::open(env.nix.path("var/nix/db/db.sqlite")).unwrap();
    let trigger = format!(
        "create trigger stop before insert on ValidPaths when new.path like '%{end}' \
         begin select raise(abort, 'there is no more'); end"
    );
    database.execute_batch(&trigger).unwrap();
}

/// What came in before a restore broke off stays, and is told.
#[test]
fn a_restore_that_breaks_off_says_what_came_in() {
    let env = TestEnv::new();
    // So many that they are registered in several transactions, where few files may be open.
    let paths: Vec<String> = (0..60)
        .map(|number| {
            let file = env.file(&format!("p{number:02}"));
            fs::write(&file, format!("{number}")).unwrap();
            env.nix.run("nix-store", &["--add", file.to_str().unwrap()]).trim().to_owned()
        })
        .collect();
    let all: Vec<&str> = paths.iter().map(String::as_str).collect();
    let depot = env.depot();
    let _ = env.phoenix(&[&["cache", "save", "--depot", &depot], &all[..]].concat()).ends_with(0);
    // They are registered by name.
    let mut sorted = all.clone();
    sorted.sort_unstable();
    for (refused, stays) in [(sorted[59], true), (sorted[0], false)] {
        env.forget_store();
        fs::create_dir_all(env.nix.store_dir()).unwrap();
        env.nix.run("nix-store", &["--init"]);
        refuse(&env, refused.rsplit('/').next().unwrap());
        let phoenix = env.command();
        let mut command = env.nix.command("sh");
        command.args(["-c", "ulimit -n 120; exec \"$@\"", "sh"]).arg(phoenix.get_program());
        command.args(["cache", "restore", "--depot", &depot]).args(&all);
        let ran = Ran::from(command.output().unwrap()).ends_with(1).says("there is no more");
        let came_in = all.iter().filter(|path| env.nix.is_valid(path)).count();
        assert_eq!(came_in > 0, stays, "{ran}");
        let _ = if stays {
            ran.says(&format!("not all was restored: {came_in} paths came in before it broke off, and stay"))
        } else {
            ran.says("nothing was restored")
        };
    }
}

/// Through the daemon nobody looks for what replaced packs that went away: it is told.
#[test]
fn through_the_daemon_packs_that_went_away_are_told_once() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let [lib, data] = ["lib", "data"].map(|name| env.output(&flake, name));
    for path in [&data, &lib] {
        let _ = env.phoenix(&["cache", "save", "--depot", &env.depot(), path]).ends_with(0);
    }
    let mut packs: Vec<_> =
        fs::read_dir(env.file("depot/packs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    packs.sort();
    env.forget_store();
    fs::create_dir_all(env.nix.store_dir()).unwrap();
    let env = env.through_daemon();
    let _daemon = env.nix.daemon().unwrap();
    let depot = phoenix_depot::Opener::of_environment().open(&env.depot()).unwrap();
    let mut cache = Cache::open(std::sync::Arc::from(depot), &mut |_| ()).unwrap();
    // It is there while the directories are read, and not any more when its frames are.
    fs::remove_file(&packs[0]).unwrap();
    let socket = env.nix.env().into_iter().find(|(name, _)| *name == "NIX_DAEMON_SOCKET_PATH").unwrap().1;
    let state_dir = env.nix.path("var/nix").display().to_string();
    let store_env =
        StoreEnv { store_dir: Some(env.nix.store_dir()), state_dir: Some(state_dir), ..StoreEnv::default() };
    let layout = Layout::of("auto", &store_env).unwrap();
    let way = Way::Daemon(socket.into());
    let into = Destination { layout: &layout, way: &way, trusted: None };
    let wanted: Vec<StorePath> = [&data, &lib].map(|path| StorePath::parse(path).unwrap()).to_vec();
    let told = Mutex::new(Vec::new());
    let tell = |trouble: Trouble| told.lock().unwrap().push(trouble.to_string());
    let restored = cache.restore_into_store(&wanted, into, 2, &tell).unwrap();
    let told = told.into_inner().unwrap();
    let name = packs[0].file_name().unwrap().to_str().unwrap();
    assert_eq!(told.iter().filter(|told| told.contains(name)).count(), 1, "{told:?}");
    assert_eq!((restored.paths.len(), restored.failed.len()), (1, 1), "{restored:?}");
    assert!(env.nix.is_valid(&lib) && !env.nix.is_valid(&data));
}

#[test]
fn through_the_daemon_damage_costs_only_what_needs_it() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let [app, lib, data] = ["app", "lib", "data"].map(|name| env.output(&flake, name));
    // Each in a pack of its own.
    for path in [&data, &lib, &app] {
        let _ = env.phoenix(&["cache", "save", "--depot", &env.depot(), path]).ends_with(0);
    }
    let mut packs: Vec<_> =
        fs::read_dir(env.file("depot/packs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    packs.sort();
    let mut bytes = fs::read(&packs[0]).unwrap();
    bytes[50] ^= 1;
    fs::remove_file(&packs[0]).unwrap();
    fs::write(&packs[0], bytes).unwrap();
    env.forget_store();
    let env = env.through_daemon();
    let _daemon = env.nix.daemon().unwrap();
    let ran = restore(&env, &[&app, &lib]).ends_with(1).says("a frame is not what was written");
    let _ =
        ran.says("data is not restored").says("app is not restored: it refers to").says("restored 3 paths");
    assert!(env.nix.is_valid(&lib) && !env.nix.is_valid(&data) && !env.nix.is_valid(&app));
    env.sound(&lib);
}
