//! `phoenix cache` while everything goes wrong: processes that are killed, disks that are full, packs that lie,
//! many at once. Afterwards Nix finds the store sound, and what was saved comes back.

#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ran, TestEnv};
use fs_err as fs;
use phoenix_pack::nar::{Sink as _, Writer};
use phoenix_pack::{
    Chunk, ChunkId, Compressor, FrameBuilder, LEVEL, Others, PackBuilder, PackedPath, PathInfo,
};
use sha2::{Digest as _, Sha256};

/// How many kills are tried: all with `PHOENIX_TEST_SEEDS=all`, as `cargo xtask ci` does.
fn seeds() -> u64 {
    if std::env::var("PHOENIX_TEST_SEEDS").is_ok_and(|value| value == "all") { 120 } else { 6 }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size).map(|_| (random(&mut state) >> 24) as u8).collect()
}

/// Adds a directory with some files to the store, and returns its path.
fn add(env: &TestEnv, name: &str, seed: u64) -> String {
    let directory = env.file(name);
    fs::create_dir_all(directory.join("sub")).unwrap();
    for file in 0..12 {
        fs::write(directory.join(format!("sub/f{file}")), noise(seed * 100 + file, 20_000)).unwrap();
    }
    env.nix.run("nix-store", &["--add", directory.to_str().unwrap()]).trim().to_owned()
}

fn depot_in(directory: &Path) -> String {
    format!("dir:{}", directory.display())
}

fn depot(env: &TestEnv) -> String {
    depot_in(&env.file("depot"))
}

fn cache(env: &TestEnv, args: &[&str]) -> Ran {
    env.phoenix(&[&["cache"], args, &["--depot", &depot(env)]].concat())
}

fn with<'p>(args: &[&'p str], paths: &'p [String]) -> Vec<&'p str> {
    args.iter().copied().chain(paths.iter().map(String::as_str)).collect()
}

fn start(env: &TestEnv, args: &[&str]) -> Child {
    let mut command = env.command();
    command.arg("cache").args(args).args(["--depot", &depot(env)]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for an end that has to be a good one.
fn ends_well(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Nix finds nothing wrong.
fn sound(env: &TestEnv) {
    let verified = env.nix.output("nix-store", &["--verify", "--check-contents"]);
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let wrong = ["error", "modified", "disappeared", "corrupt"];
    assert!(verified.status.success() && !wrong.iter().any(|word| said.contains(word)), "{said}");
}

fn delete(env: &TestEnv, paths: &[String]) {
    for path in paths.iter().filter(|path| env.nix.is_valid(path)) {
        env.nix.run("nix-store", &["--delete", path]);
    }
}

/// All of these go out of the store and come back.
fn come_back(env: &TestEnv, paths: &[String]) {
    delete(env, paths);
    let _ = cache(env, &with(&["restore"], paths)).ends_with(0);
    assert!(paths.iter().all(|path| env.nix.is_valid(path)));
    sound(env);
}

#[test]
fn a_process_that_is_killed_leaves_a_sound_store_and_a_whole_depot() {
    let env = TestEnv::new();
    let paths: Vec<String> = (0..6).map(|seed| add(&env, &format!("p{seed}"), seed)).collect();
    let (kept, new) = paths.split_at(3);
    let _ = cache(&env, &with(&["save"], kept)).ends_with(0);
    let pristine = env.file("pristine");
    let copy = |from: &Path, to: &Path| {
        if to.exists() {
            fs::remove_dir_all(to).unwrap();
        }
        let status = Command::new("cp").arg("-R").arg(from).arg(to).status().unwrap();
        assert!(status.success());
    };
    let depot = env.file("depot");
    copy(&depot, &pristine);
    // How long each of them takes when nobody kills it.
    let verbs = [with(&["save"], new), with(&["restore"], kept), vec!["gc", "--grace", "0"]];
    let mut takes = [Duration::ZERO; 3];
    let prepare = |verb: usize| {
        copy(&pristine, &depot);
        match verb {
            1 => delete(&env, kept),
            2 => {
                let _ = cache(&env, &["save", &new[0]]).ends_with(0);
                let _ = cache(&env, &["save", &new[1]]).ends_with(0);
            }
            _ => {}
        }
    };
    for (verb, args) in verbs.iter().enumerate() {
        prepare(verb);
        let begin = Instant::now();
        ends_well(start(&env, args));
        takes[verb] = begin.elapsed();
    }
    let (mut killed, mut state) = (0, 0x2545_f491_4f6c_dd1d);
    for seed in 0..seeds() {
        let verb = (seed % 3) as usize;
        prepare(verb);
        let mut child = start(&env, &verbs[verb]);
        std::thread::sleep(takes[verb].mul_f64((random(&mut state) % 1000) as f64 / 1000.0));
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        // What was there before is there, whole, and so is what is there now.
        sound(&env);
        let _ = cache(&env, &["verify"]).ends_with(0);
        let before: &[String] = if verb == 2 { &paths[..5] } else { kept };
        come_back(&env, before);
        // The same again, to its end.
        let _ = cache(&env, &verbs[verb]).ends_with(0);
        if verb == 0 {
            come_back(&env, new);
        }
    }
    assert!(killed as u64 * 3 > seeds(), "only {killed} processes were killed before their end");
    // Nothing is left lying about by those that were killed.
    let _ = cache(&env, &["save", &paths[5]]).ends_with(0);
    let left = fs::read_dir(depot.join(",unfinished")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "unfinished files in the depot");
}

#[test]
fn savers_and_a_collector_at_once() {
    let env = TestEnv::new();
    let paths: Vec<String> = (0..5).map(|seed| add(&env, &format!("p{seed}"), seed)).collect();
    let _ = cache(&env, &["save", &paths[0]]).ends_with(0);
    for round in 0..2 {
        let (one, two) = (&paths[1 + round * 2], &paths[2 + round * 2]);
        let children =
            [start(&env, &["save", one, two]), start(&env, &["gc"]), start(&env, &["save", two, &paths[0]])];
        let hasty = start(&env, &["gc", "--grace", "0"]);
        children.into_iter().chain([hasty]).for_each(ends_well);
        let saved = &paths[..3 + round * 2];
        let _ = cache(&env, &with(&["save"], saved)).ends_with(0);
        let _ = cache(&env, &["verify"]).ends_with(0);
        come_back(&env, saved);
    }
}

/// A pack of these archives under these names, each of one chunk, that says of them what is true.
fn pack(archives: &[(String, Vec<u8>)], change: impl Fn(&mut PathInfo)) -> Vec<u8> {
    let (mut builder, head) = PackBuilder::new();
    let mut pack = head.to_vec();
    let mut frame = FrameBuilder::default();
    let mut paths = Vec::new();
    for (name, archive) in archives {
        let chunk = Chunk { id: ChunkId::of(archive), length: archive.len() as u32 };
        frame.push(chunk.id, archive);
        let mut info = PathInfo {
            name: name.clone(),
            nar_hash: Sha256::digest(archive).into(),
            nar_size: archive.len() as u64,
            references: vec![],
            deriver: None,
            signatures: vec![],
            ca: None,
        };
        change(&mut info);
        paths.push(PackedPath { info, chunks: vec![chunk], patches: vec![], saved: 1 });
    }
    let sealed = frame.seal(&mut Compressor::new(LEVEL).unwrap()).unwrap();
    builder.add(&sealed);
    pack.extend(sealed.bytes);
    pack.extend(builder.finish(paths, Others::default().encode()).unwrap());
    pack
}

/// Makes a depot of this pack, with nothing that was noted of one before it.
fn put(env: &TestEnv, pack: &[u8]) {
    let packs = env.file("depot/packs");
    if packs.exists() {
        fs::remove_dir_all(&packs).unwrap();
    }
    fs::create_dir_all(&packs).unwrap();
    fs::write(packs.join("1"), pack).unwrap();
}

/// A directory with one file of this name.
fn archive(entries: &[&[u8]]) -> Vec<u8> {
    let mut nar = Writer::default();
    nar.directory().unwrap();
    for name in entries {
        nar.entry(name).unwrap();
        nar.file(false, 1).unwrap();
        nar.data(b"x").unwrap();
        nar.file_end().unwrap();
    }
    nar.leave().unwrap();
    nar.bytes
}

/// A symbolic link out of the store, and a directory of the same name behind it.
fn link_and_through_it(target: &Path) -> Vec<u8> {
    let mut nar = Writer::default();
    nar.directory().unwrap();
    nar.entry(b"a").unwrap();
    nar.symlink(target.as_os_str().as_encoded_bytes()).unwrap();
    nar.entry(b"a").unwrap();
    nar.directory().unwrap();
    nar.entry(b"escaped").unwrap();
    nar.file(false, 1).unwrap();
    nar.data(b"x").unwrap();
    nar.file_end().unwrap();
    nar.leave().unwrap();
    nar.leave().unwrap();
    nar.bytes
}

#[test]
fn archives_that_would_escape_do_not_come_in() {
    let env = TestEnv::new();
    // There is a store, with something in it.
    let there = add(&env, "there", 1);
    let outside = env.file("outside");
    fs::create_dir_all(&outside).unwrap();
    let name = |number: usize| format!("{number:032}-hostile");
    let good = archive(&[b"a", b"b"]);
    let mut lying = good.clone();
    // The length of the first string.
    lying[0] = 0xff;
    let hostile: Vec<Vec<u8>> = vec![
        archive(&[b".."]),
        archive(&[b"."]),
        archive(&[b""]),
        archive(&[b"../escaped"]),
        archive(&[b"/tmp/escaped"]),
        archive(&[b"a/b"]),
        archive(&[b"a\0b"]),
        archive(&[b"b", b"a"]),
        archive(&[b"a", b"a"]),
        link_and_through_it(&outside),
        [good.clone(), b"more".to_vec()].concat(),
        good[..good.len() - 8].to_vec(),
        lying,
        b"".to_vec(),
        noise(3, 5000),
    ];
    let mut archives: Vec<(String, Vec<u8>)> =
        hostile.into_iter().enumerate().map(|(number, archive)| (name(number), archive)).collect();
    archives.retain(|(_, archive)| !archive.is_empty());
    let last = name(99);
    archives.push((last.clone(), good));
    put(&env, &pack(&archives, |_| ()));
    let full: Vec<String> =
        archives.iter().map(|(name, _)| format!("{}/{name}", env.nix.store_dir())).collect();
    let ran = cache(&env, &with(&["restore"], &full)).ends_with(1);
    for path in &full {
        let is_good = path.ends_with(&last);
        assert_eq!(env.nix.is_valid(path), is_good, "{path}: {ran}");
        assert_eq!(Path::new(path).exists(), is_good, "{path}");
        assert!(
            is_good || ran.stderr.contains(Path::new(path).file_name().unwrap().to_str().unwrap()),
            "{ran}"
        );
    }
    // Whoever looks at the depot finds them, too.
    let bad = archives.len() - 1;
    let verified = cache(&env, &["verify", "--json"])
        .ends_with(1)
        .says(&format!("1 of {} paths are whole", archives.len()));
    let verified = verified.says("verify --repair");
    // Most are bad for one reason, which is said once; all are named in the report.
    assert!(verified.stderr.matches("bad: ").count() < bad, "{verified}");
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!(report["bad"].as_array().unwrap().len(), bad, "{report:#}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!Path::new("/tmp/escaped").exists() && !env.nix.path("store/escaped").exists());
    sound(&env);
    assert!(env.nix.is_valid(&there));
}

#[test]
fn records_and_packs_that_lie_are_misses() {
    let env = TestEnv::new();
    let _ = add(&env, "there", 1);
    let good = archive(&[b"a"]);
    let name = format!("{:032}-x", 7);
    let path = format!("{}/{name}", env.nix.store_dir());
    let archives = [(name.clone(), good.clone())];
    let misses = |what: &str, pack: &[u8]| {
        put(&env, pack);
        let ran = cache(&env, &["restore", &path]).ends_with(1);
        assert!(!env.nix.is_valid(&path) && !ran.stderr.contains("panicked"), "{what}: {ran}");
    };
    let named = |what: &str, pack: &[u8]| {
        misses(what, pack);
        let _ = cache(&env, &["verify"]).ends_with(1).says("is not the name of a store path");
    };
    misses("another hash", &pack(&archives, |info| info.nar_hash[0] ^= 1));
    misses("longer than it is", &pack(&archives, |info| info.nar_size = u64::MAX));
    misses("shorter than it is", &pack(&archives, |info| info.nar_size = 1));
    named("a name that escapes", &pack(&[(format!("{:032}-../../x", 7), good.clone())], |_| ()));
    misses("a name that is none", &pack(&[("..".to_owned(), good.clone())], |_| ()));
    named(
        "a reference that escapes",
        &pack(&archives, |info| info.references = vec!["../../etc/passwd".to_owned()]),
    );
    named("a deriver that is none", &pack(&archives, |info| info.deriver = Some("a/../b".to_owned())));
    misses("not a pack", b"nothing like it");
    misses("empty", b"");
    // Cut off anywhere, and with a bit that is wrong anywhere: a miss, or what it should be.
    let whole = pack(&archives, |_| ());
    for at in (0..whole.len()).step_by(whole.len() / 7) {
        misses("cut off", &whole[..at]);
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        put(&env, &flipped);
        let ran = cache(&env, &["restore", &path]);
        assert!(!ran.stderr.contains("panicked"), "{ran}");
        assert_eq!(env.nix.is_valid(&path), ran.code == Some(0), "{ran}");
        delete(&env, std::slice::from_ref(&path));
    }
    sound(&env);
    put(&env, &whole);
    let _ = cache(&env, &["restore", &path]).ends_with(0);
}

/// Two that refer to each other are why nothing comes in that refers to them.
#[test]
fn circles_of_references_are_told_as_a_cause() {
    let env = TestEnv::new();
    let _ = add(&env, "there", 1);
    let name = |number: usize| format!("{number:032}-circle");
    let archives: Vec<_> = (0..4).map(|number| (name(number), archive(&[b"a"]))).collect();
    put(
        &env,
        &pack(&archives, |info| {
            let others: &[usize] = match &info.name {
                path if *path == name(0) => &[1],
                path if *path == name(1) => &[0],
                path if *path == name(2) => &[0],
                _ => &[],
            };
            info.references = others.iter().map(|&other| name(other)).collect();
        }),
    );
    let paths: Vec<String> =
        archives.iter().map(|(name, _)| format!("{}/{name}", env.nix.store_dir())).collect();
    let check = |ran: Ran| {
        let ran = ran.ends_with(1).says("restored 1 path ");
        let ran = ran.says("warning: 2 paths (").says("are not restored: it is in a circle of references");
        let _ = ran.says(&format!("{} is not restored: it refers to {}", name(2), name(0)));
    };
    check(cache(&env, &with(&["restore"], &paths)));
    delete(&env, &paths[3..]);
    let _daemon = env.nix.daemon().unwrap();
    let mut command = env.command();
    command.env("NIX_REMOTE", "daemon").args(["cache", "restore", "--depot", &depot(&env)]).args(&paths);
    check(Ran::from(command.output().unwrap()));
}

#[test]
fn a_pack_that_begins_as_something_else_is_found_and_written_anew() {
    let env = TestEnv::new();
    let path = add(&env, "there", 1);
    let _ = cache(&env, &["save", &path]).ends_with(0);
    let packs = fs::read_dir(env.file("depot/packs")).unwrap();
    let pack = packs.map(|entry| entry.unwrap().path()).next().unwrap();
    for at in 0..8 {
        let mut bytes = fs::read(&pack).unwrap();
        bytes[at] ^= 1;
        fs::write(&pack, &bytes).unwrap();
        let _ = cache(&env, &["verify"])
            .ends_with(1)
            .says("it does not begin as it ends")
            .says("1 of 1 path is whole")
            .says("verify --repair");
        bytes[at] ^= 1;
        fs::write(&pack, &bytes).unwrap();
        let _ = cache(&env, &["verify"]).ends_with(0);
    }
    fs::write(&pack, [b"anything", &fs::read(&pack).unwrap()[8..]].concat()).unwrap();
    let _ = cache(&env, &["verify", "--repair"]).ends_with(0).says("what is whole is in ");
    let _ = cache(&env, &["verify"]).ends_with(0);
    come_back(&env, &[path]);
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A small file system; none where it may not be mounted, which is said.
fn small(at: &Path, size: &str) -> Option<Mounted> {
    fs::create_dir_all(at).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at);
    let mounted = cfg!(target_os = "linux") && mount.output().is_ok_and(|mounted| mounted.status.success());
    if !mounted {
        eprintln!("skipped: no file system can be mounted here");
    }
    mounted.then(|| Mounted(at.to_owned()))
}

#[test]
fn a_depot_that_is_full_keeps_what_it_has() {
    let env = TestEnv::new();
    let Some(_mounted) = small(&env.file("depot"), "700k") else { return };
    let paths: Vec<String> = (0..4).map(|seed| add(&env, &format!("p{seed}"), seed)).collect();
    let _ = cache(&env, &["save", &paths[0]]).ends_with(0);
    for _ in 0..2 {
        let _ = cache(&env, &with(&["save"], &paths)).ends_with(1).says("nothing was saved").says("no room");
    }
    let _ = cache(&env, &["verify"]).ends_with(0).says("1 of 1 path is whole");
    // Nothing of what did not fit takes room: one more does.
    let _ = cache(&env, &["save", &paths[1]]).ends_with(0);
    // There is no room for folding either; nothing is lost by trying.
    let _ = cache(&env, &["gc"]).ends_with(1).says("nothing is lost");
    // Nor for a repair, which says what to do about it.
    let flip = || {
        for pack in fs::read_dir(env.file("depot/packs")).unwrap().map(|pack| pack.unwrap().path()) {
            let mut bytes = fs::read(&pack).unwrap();
            bytes[0] ^= 1;
            fs::write(&pack, bytes).unwrap();
        }
    };
    flip();
    let ran =
        cache(&env, &["verify", "--repair"]).ends_with(1).says("not repaired").says("free some space there");
    assert!(!ran.stderr.contains("when the depot tells all"), "{ran}");
    flip();
    come_back(&env, &paths[..2]);
}

#[test]
fn a_store_that_is_full_stays_sound() {
    let env = TestEnv::new();
    let paths: Vec<String> = (0..8).map(|seed| add(&env, &format!("p{seed}"), seed)).collect();
    let _ = cache(&env, &with(&["save"], &paths)).ends_with(0);
    // Another store of the same name, on a small file system.
    fs::rename(env.nix.path("store"), env.nix.path("store-before")).unwrap();
    fs::remove_dir_all(env.nix.path("var/nix")).unwrap();
    fs::create_dir_all(env.nix.path("var/nix")).unwrap();
    let Some(_mounted) = small(&env.nix.path("store"), "600k") else { return };
    let ran = cache(&env, &with(&["restore"], &paths)).ends_with(1);
    assert!(ran.stderr.contains("No space left on device"), "{ran}");
    // Nothing is read for a disk that takes no more: two of them fit, and two threads each try another one.
    assert!(ran.stderr.contains("it was not tried"), "{ran}");
    sound(&env);
    // What came in is whole, and what did not left nothing behind; one of them fits.
    let valid: Vec<_> = paths.iter().filter(|path| env.nix.is_valid(path)).cloned().collect();
    assert!(valid.len() < paths.len());
    delete(&env, &valid);
    let _ = cache(&env, &["restore", &paths[3]]).ends_with(0);
    sound(&env);
}

/// What somebody else put among the packs is said, is no damage, and stays.
#[test]
fn verify_passes_over_what_is_not_ours() {
    let env = TestEnv::new();
    let depot = env.depot();
    let file = env.file("file");
    fs::write(&file, "text").unwrap();
    let path = env.nix.run("nix-store", &["--add", file.to_str().unwrap()]).trim().to_owned();
    let _ = env.phoenix(&["cache", "save", "--depot", &depot, &path]).ends_with(0);
    let strange = env.file("depot/packs/README");
    fs::write(&strange, "junk").unwrap();
    for args in [&["cache", "verify"][..], &["cache", "verify", "--repair"], &["cache", "verify"]] {
        let ran = env.phoenix(&[args, &["--depot", &depot]].concat()).ends_with(0);
        assert!(ran.stderr.contains("packs/README is nothing that phoenix made"), "{ran}");
        assert!(!ran.stderr.contains("hint") && !ran.stderr.contains("let go"), "{ran}");
        assert!(strange.exists());
    }
}
