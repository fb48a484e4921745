//! `phoenix cache` on real stores.

#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use common::TestEnv;
use fs_err as fs;
use phoenix_testkit::Flake;
use phoenix_testkit::github::{Github, Permission, Request};
use serde_json::Value;

/// Paths that refer to each other and to themselves, with what a NAR can hold.
const OUTPUTS: &str = r#"{ packages.${system} = rec {
  lib = d "lib" "mkdir -p $out/empty $out/bin; echo $out > $out/self; ln -s ../self $out/bin/link; echo x > $out/bin/x; chmod +x $out/bin/x; : > $out/none" { };
  data = d "data" "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done > $out" { };
  app = d "app" "mkdir $out; echo ${lib} ${data} $out ${lib} > $out/uses; cp ${data} $out/copy; chmod 644 $out/copy; echo $out >> $out/copy" { };
}; }"#;

/// Takes the store away, as on a new machine.
fn forget_store(env: &TestEnv) {
    env.nix.run("chmod", &["-R", "u+w", &env.nix.store_dir()]);
    fs::remove_dir_all(env.nix.store_dir()).unwrap();
    fs::remove_dir_all(env.nix.path("var/nix")).unwrap();
    fs::create_dir_all(env.nix.path("var/nix")).unwrap();
}

/// The path of a package as Nix has it.
fn output(env: &TestEnv, flake: &Flake, name: &str) -> String {
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    let attr = format!("packages.{}.{name}", env.system());
    report.field(&attr, "outputs")["out"].as_str().unwrap().to_owned()
}

fn depot(env: &TestEnv) -> String {
    format!("dir:{}", env.file("depot").display())
}

fn stat(env: &TestEnv) -> Value {
    serde_json::from_str(&env.phoenix(&["cache", "stat", "--depot", &depot(env)]).stdout).unwrap()
}

/// Nix finds nothing wrong with the store; and what it says of a path with all that it refers to.
fn sound(env: &TestEnv, path: &str) -> String {
    let verified = env.nix.output("nix-store", &["--verify", "--check-contents"]);
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !said.contains("error") && !said.contains("modified"), "{said}");
    let closure = env.nix.run("nix-store", &["--query", "--requisites", path]);
    let paths: Vec<&str> = closure.lines().collect();
    let dumps: Vec<String> =
        paths.iter().map(|path| env.nix.run("nix-store", &["--query", "--hash", path])).collect();
    let references = env.nix.run("nix-store", &["--query", "--references", path]);
    format!("{closure}{dumps:?}{references}")
}

/// Changes every frame of every pack: which one holds what, the threads decide. The footer says where they end.
fn damage_frames(env: &TestEnv) {
    for pack in fs::read_dir(env.file("depot/packs")).unwrap() {
        let pack = pack.unwrap().path();
        let mut bytes = fs::read(&pack).unwrap();
        let footer = bytes.len() - 40;
        let frames_end = u64::from_le_bytes(bytes[footer..footer + 8].try_into().unwrap());
        for byte in &mut bytes[8..usize::try_from(frames_end).unwrap()] {
            *byte ^= 1;
        }
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
}

#[test]
fn what_is_saved_comes_back_to_a_new_machine() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = output(&env, &flake, "app");
    let before = sound(&env, &app);
    let depot = depot(&env);
    let _ = env.phoenix(&["cache", "save", "--depot", &depot, &app]).ends_with(0).says("saved 3 paths");
    let _ = env.phoenix(&["cache", "save", "--depot", &depot, &app]).ends_with(0).says("nothing to save: 3");
    let _ = env.phoenix(&["cache", "verify", "--depot", &depot]).ends_with(0).says("3 of 3 paths are whole");
    let listed = env.phoenix(&["cache", "ls", "--depot", &depot]).ends_with(0).stdout;
    assert_eq!(listed.lines().count(), 3);

    forget_store(&env);
    let snapshot = env.file("snapshot").display().to_string();
    let _ = env
        .phoenix(&["cache", "restore", "--depot", &depot, "--snapshot", &snapshot, &app])
        .ends_with(0)
        .says("restored 3 paths");
    assert_eq!(sound(&env, &app), before);
    // Nix takes them for its own: nothing is built again.
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!((report.count("targets", "cached"), report.count("derivations", "built")), (3, 0));
    let _ = env.phoenix(&["cache", "restore", "--depot", &depot, &app]).ends_with(0).says("restored 0 paths");

    // What was not there at the snapshot is what is saved since.
    flake.outputs(&OUTPUTS.replace("echo x >", "echo y >"));
    let changed = output(&env, &flake, "app");
    assert_ne!(changed, app);
    let _ = env.phoenix(&["cache", "save", "--depot", &depot, "--since", &snapshot]).ends_with(0);
    let paths = stat(&env)["paths"].as_u64().unwrap();
    forget_store(&env);
    let _ = env.phoenix(&["cache", "restore", "--depot", &depot, "--latest"]).ends_with(0);
    assert!(env.nix.is_valid(&changed));
    sound(&env, &changed);
    assert!(paths > 3, "{paths}");
}

#[test]
fn a_run_builds_nothing_that_its_depot_has() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let depot = depot(&env);
    let run = |more: &[&str]| env.report(&[&[&flake.reference(), "--depot", &depot], more].concat());
    let (ran, first) = run(&[]);
    let _ = ran.ends_with(0).says("3 paths are kept in dir:");
    assert_eq!(first.count("derivations", "built"), 3);

    // On a new machine all is cached, and nothing is fetched that nobody needs.
    forget_store(&env);
    let (ran, second) = run(&[]);
    let _ = ran.ends_with(0);
    assert_eq!((second.count("targets", "cached"), second.count("derivations", "built")), (3, 0));
    let app = first.field(&format!("packages.{}.app", env.system()), "outputs")["out"].as_str().unwrap();
    assert!(!env.nix.is_valid(app));
    assert_eq!(second.field(&format!("packages.{}.app", env.system()), "cachedFrom"), &depot);

    // A link is one who needs it.
    let link = env.file("app-link");
    let app_alone = format!("{}#app", flake.reference());
    let (ran, _) = env.report(&[&app_alone, "--depot", &depot, "-o", link.to_str().unwrap()]);
    let _ = ran.ends_with(0);
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some(app));
    sound(&env, app);

    // What one change needs is fetched, and only that change is built and kept.
    forget_store(&env);
    flake.outputs(&OUTPUTS.replace("chmod 644 $out/copy", "echo changed >> $out/uses"));
    let (ran, third) = run(&[]);
    let _ = ran.ends_with(0).says("1 path is kept in dir:");
    assert_eq!((third.count("targets", "cached"), third.count("derivations", "built")), (2, 1));
    let changed = third.field(&format!("packages.{}.app", env.system()), "outputs")["out"].as_str().unwrap();
    sound(&env, changed);

    // A depot that is damaged costs a rebuild and no more.
    forget_store(&env);
    damage_frames(&env);
    flake.outputs(&OUTPUTS.replace("chmod 644 $out/copy", "echo again >> $out/uses"));
    let (ran, fourth) = run(&[]);
    let _ = ran.ends_with(0).says("warning: ");
    assert_eq!(fourth.count("targets", "failed"), 0);
    let again = fourth.field(&format!("packages.{}.app", env.system()), "outputs")["out"].as_str().unwrap();
    sound(&env, again);
}

#[test]
fn a_damaged_pack_is_told_and_nothing_wrong_comes_in() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = output(&env, &flake, "app");
    let depot = depot(&env);
    // One thread makes one frame, which all paths need.
    let _ = env.phoenix(&["cache", "save", "--threads", "1", "--depot", &depot, &app]).ends_with(0);
    let pack = fs::read_dir(env.file("depot/packs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, &bytes).unwrap();
    forget_store(&env);
    let _ = env
        .phoenix(&["cache", "restore", "--depot", &depot, &app])
        .ends_with(1)
        .says("a frame is not what was written")
        .says("-app")
        .says("are not restored: a part of it");
    let _ = env.phoenix(&["cache", "verify", "--depot", &depot]).ends_with(1).says("bad: ");
    assert!(!env.nix.is_valid(&app));
    // Nothing is left of what broke off.
    let left: Vec<_> = fs::read_dir(env.nix.store_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != ".links")
        .collect();
    assert!(left.is_empty(), "{left:?}");

    // A pack cut off has no directory, and is as if it were not there.
    fs::write(&pack, &bytes[..bytes.len() / 2]).unwrap();
    let _ = env
        .phoenix(&["cache", "restore", "--depot", &depot, &app])
        .ends_with(1)
        .says("cannot be used")
        .says("1 path is in no pack");
}

#[test]
fn the_cache_of_a_repository_keeps_one_entry_a_save() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = output(&env, &flake, "app");
    let before = sound(&env, &app);
    let github = Github::start().unwrap();
    let token = github.token(&[("refs/heads/main", Permission::Both)]);
    let job = |args: &[&str]| {
        let mut command = env.in_job(&github, &token);
        command.args(["cache"]).args(args).args(["--depot", "github:"]);
        common::Ran::from(command.output().unwrap())
    };
    let _ = job(&["save", &app]).ends_with(0).says("saved 3 paths");
    assert_eq!(github.entries().len(), 1);
    forget_store(&env);
    let lookups = github.counts().of(Request::Lookup);
    let _ = job(&["restore", &app]).ends_with(0).says("restored 3 paths");
    assert_eq!(sound(&env, &app), before);
    let lookups = github.counts().of(Request::Lookup) - lookups;
    assert!(lookups <= 5, "{lookups} lookups");

    // A token that may only read saves nothing and says so; what is there is restored all the same.
    let reader = github.token(&[("refs/heads/main", Permission::Read)]);
    let fails = |name: &str, value: &str| {
        let mut command = env.in_job(&github, &token);
        command.args(["cache", "save", "--depot", "github:", &app]);
        command.env(name, value);
        let ran = common::Ran::from(command.output().unwrap()).ends_with(1);
        assert!(!ran.stderr.contains(&token) && !ran.stderr.contains(&reader), "{ran}");
        ran
    };
    github.evict(|_| true);
    let _ = fails("ACTIONS_RUNTIME_TOKEN", &reader).says("not permitted").says("hint: GitHub lets");
    // Who can do without is told so, once.
    let mut command = env.in_job(&github, &reader);
    command.args(["cache", "save", "--unless-denied", "--depot", "github:", &app]);
    let ran = common::Ran::from(command.output().unwrap()).ends_with(0);
    assert!(ran.stdout.starts_with("nothing is saved: ") && ran.stdout.contains("not permitted"), "{ran}");
    assert_eq!((ran.stdout.lines().count(), ran.stderr.contains("not permitted")), (1, false), "{ran}");
    let _ = fails("ACTIONS_RUNTIME_TOKEN", "").says("ACTIONS_RUNTIME_TOKEN is not set");
}

/// A token that may not write is one thing, and one that has ended is another: nothing is read with it, either.
#[test]
fn a_token_that_has_ended_is_a_failure_and_told_once() {
    let env = TestEnv::new();
    let paths: Vec<String> = (0..3)
        .map(|number| {
            let file = env.file(&format!("p{number}"));
            fs_err::write(&file, format!("{number}")).unwrap();
            env.nix.run("nix-store", &["--add", file.to_str().unwrap()]).trim().to_owned()
        })
        .collect();
    let github = Github::start().unwrap();
    let token = github.token(&[("refs/heads/main", Permission::Both)]);
    let job = |args: &[&str]| {
        let mut command = env.in_job(&github, &token);
        command.env("GITHUB_API_URL", github.url()).env("GITHUB_REPOSITORY", github.repository());
        command.env("GITHUB_TOKEN", github.rest_token());
        command.args(["cache"]).args(args).args(["--depot", "github:"]);
        common::Ran::from(command.output().unwrap())
    };
    for path in &paths {
        let _ = job(&["save", path]).ends_with(0);
    }
    github.advance(std::time::Duration::from_secs(7 * 3600));
    let once = |ran: common::Ran| assert_eq!(ran.stderr.matches("(401)").count(), 1, "{ran}");
    // The other token lists all packs, and each would be told of.
    once(job(&["stat"]).ends_with(1));
    once(job(&["verify"]).ends_with(1));
    let file = env.file("new");
    fs_err::write(&file, "new").unwrap();
    let new = env.nix.run("nix-store", &["--add", file.to_str().unwrap()]).trim().to_owned();
    let ran = job(&["save", "--unless-denied", &new]).ends_with(1).says("nothing was saved");
    assert!(ran.stdout.is_empty(), "{ran}");
}

/// As an action hands it over: the environment is inherited, and shown to all who run as the same user.
#[test]
fn the_token_may_come_by_standard_input() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = output(&env, &flake, "app");
    let github = Github::start().unwrap();
    let token = github.token(&[("refs/heads/main", Permission::Both)]);
    let input = env.file("token");
    let save = |text: &str| {
        fs_err::write(&input, text).unwrap();
        let mut command = env.in_job(&github, "");
        command.env("PHOENIX_CI_TOKEN", "stdin").stdin(std::fs::File::open(&input).unwrap());
        command.args(["cache", "save", "--depot", "github:", &app]);
        common::Ran::from(command.output().unwrap())
    };
    let _ = save(&format!("{token}\n")).ends_with(0).says("saved 3");
    let _ = save("").ends_with(1).says("ACTIONS_RUNTIME_TOKEN is not set");
}

#[test]
fn what_a_strangers_code_made_is_not_saved_where_others_would_find_it() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = output(&env, &flake, "app");
    let github = Github::start().unwrap();
    let token = github.token(&[("refs/heads/main", Permission::Both)]);
    let event = env.file("event.json");
    let job = |name: &str, payload: &str, args: &[&str]| {
        fs_err::write(&event, payload).unwrap();
        let mut command = env.in_job(&github, &token);
        command.envs([("GITHUB_ACTIONS", "true"), ("GITHUB_EVENT_NAME", name), ("GITHUB_REPOSITORY", "o/r")]);
        command.env("GITHUB_EVENT_PATH", &event);
        command.args(["cache", "save", "--depot", "github:", &app]).args(args);
        common::Ran::from(command.output().unwrap())
    };
    let pull = r#"{"pull_request": {"head": {"repo": {"full_name": "x/r"}}}}"#;
    let run = r#"{"workflow_run": {"head_repository": {"full_name": "x/r"}}}"#;
    for (name, payload) in
        [("pull_request", pull), ("pull_request_target", pull), ("workflow_run", run), ("push", "no JSON")]
    {
        let _ = job(name, payload, &["--unless-fork"]).ends_with(0).says("nothing is saved");
    }
    // Also without the flag, where it would be in the cache of the branch; and the reason is the true one.
    let refused = |payload: &str| {
        let ran = job("workflow_run", payload, &[]).ends_with(1).says("not permitted");
        assert!(!ran.stderr.contains("ACTIONS_CACHE_MODE"), "{ran}");
        ran
    };
    let _ = refused(run).says("this job is for code from a fork");
    let _ = refused("no JSON").says("cannot be known").says("event.json is no event");
    assert_eq!(github.entries().len(), 0);
    let _ = job("workflow_run", &run.replace("x/r", "o/r"), &["--unless-fork"]).ends_with(0).says("saved 3");
    assert_eq!(github.entries().len(), 1);
}

#[test]
fn errors_name_the_thing_and_the_way_out() {
    let env = TestEnv::new();
    let depot = depot(&env);
    let _ = env
        .phoenix(&["cache", "save", "--depot", &depot, "/etc/passwd"])
        .ends_with(1)
        .says("is not in the store");
    let nothing = format!("{}/{}-nothing", env.nix.store_dir(), "0".repeat(32));
    let _ = env.phoenix(&["cache", "save", "--depot", &depot, &nothing]).ends_with(1).says("is not valid");
    let _ = env.phoenix(&["cache", "restore", "--depot", &depot, &nothing]).ends_with(1).says("in no pack");
    let _ = env.phoenix(&["cache", "ls", "--depot", "ftp://x"]).ends_with(1).says("known are");
    let _ = env.phoenix(&["cache", "save", "--depot", &depot]).ends_with(1).says("--since <FILE>|--all");
    let _ = env
        .phoenix(&["cache", "restore", "--depot", &depot])
        .ends_with(1)
        .says("<INSTALLABLE|--latest|--snapshot <FILE>>");
    // What is valid can be written down without anything that is restored.
    let snapshot = env.file("alone");
    let args = ["cache", "restore", "--depot", &depot, "--snapshot", snapshot.to_str().unwrap()];
    let _ = env.phoenix(&args).ends_with(0);
    let _ = env
        .phoenix(&["cache", "save", "--depot", &depot, "--since", snapshot.to_str().unwrap()])
        .ends_with(0)
        .says("nothing to save");
    // A variable that is empty is not set.
    let stat = env.command().args(["cache", "stat"]).env("PHOENIX_DEPOT", "").output().unwrap();
    let _ = common::Ran::from(stat).ends_with(0);
    let lost = format!("dir:{}", env.file("typo").display());
    let _ =
        env.phoenix(&["cache", "stat", "--depot", &lost]).ends_with(0).says("there is no such directory yet");
    let _ = env
        .phoenix(&["cache", "save", "--depot", &depot, "--since", "/nowhere"])
        .ends_with(1)
        .says("cannot read the snapshot");
}

/// A job as it is documented: what earlier ones needed comes first, then it builds, and keeps what is new.
fn job(env: &TestEnv, flake: &Flake, branch: &str) -> (u64, common::Ran) {
    if fs::exists(env.nix.store_dir()).unwrap() {
        forget_store(env);
    }
    let snapshot = env.file("snapshot").display().to_string();
    let depot = depot(env);
    let on = ["--branch", branch, "--depot", &depot];
    let _ = env
        .phoenix(&[&["cache", "restore", "--latest", "--snapshot", &snapshot], &on[..]].concat())
        .ends_with(0);
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    let saved = env.phoenix(&[&["cache", "save", "--since", &snapshot], &on[..]].concat()).ends_with(0);
    (report.count("derivations", "built"), saved)
}

#[test]
fn every_later_job_has_what_all_earlier_ones_kept() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let main = |env: &TestEnv| job(env, &flake, "refs/heads/main");
    assert_eq!(main(&env).0, 3);
    let more = OUTPUTS.replace("\n}; }", "\n  more = d \"more\" \"echo ${lib} > $out\" { };\n}; }");
    flake.outputs(&more);
    assert_eq!(main(&env).0, 1);
    // What the second saved is not all that the third needs.
    for _ in 0..2 {
        let (built, saved) = main(&env);
        assert_eq!(built, 0);
        let _ = saved.says("nothing to save");
    }
    // Another branch begins with what this one needs, and collecting knows what that is, whatever is newer.
    let other = more.replace("echo ${lib} > $out", "echo other ${lib} > $out");
    flake.outputs(&other);
    assert_eq!(job(&env, &flake, "refs/pull/7/merge").0, 1);
    let depot = depot(&env);
    let theirs = env.report(&[&format!("{}#more", flake.reference())]).1;
    let theirs = theirs.field(&format!("packages.{}.more", env.system()), "outputs")["out"]
        .as_str()
        .unwrap()
        .to_owned();
    let listed = |env: &TestEnv| env.phoenix(&["cache", "ls", "--depot", &depot]).ends_with(0).stdout;
    flake.outputs(&more);
    let ours = ["lib", "data", "app", "more"].map(|name| output(&env, &flake, name));
    let name = theirs.rsplit('/').next().unwrap();
    assert!(listed(&env).contains(name));
    // Less and less room, until what nobody needs has none.
    let mut budget = stat(&env)["bytes"].as_u64().unwrap();
    while listed(&env).contains(name) {
        let kept = listed(&env);
        assert!(ours.iter().all(|path| kept.contains(path.rsplit('/').next().unwrap())), "{kept}");
        budget = budget.checked_sub(100).unwrap();
        let room = budget.to_string();
        let gc = ["cache", "gc", "--depot", &depot, "--gone", "refs/pull/7/merge", "--grace", "0"];
        let _ = env.phoenix(&[&gc[..], &["--budget", &room]].concat()).ends_with(0);
    }
}

#[test]
fn what_was_left_to_a_substituter_comes_from_there() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let (secret, public) = env.key("upstream-1");
    let (lib, app) = (output(&env, &flake, "lib"), output(&env, &flake, "app"));
    let upstream = format!("file://{}", env.file("upstream").display());
    let signing = format!("{upstream}?secret-key={secret}");
    env.nix.run("nix", &["--extra-experimental-features", "nix-command", "copy", "--to", &signing, &lib]);
    let trust = ["--option", "substituters", &upstream, "--option", "trusted-public-keys", &public];
    forget_store(&env);
    env.nix.run("nix-store", &[&["--realise", &lib], &trust[..]].concat());
    assert_eq!(output(&env, &flake, "app"), app);
    let before = sound(&env, &app);
    let depot = depot(&env);
    let saved = env.phoenix(&[&["cache", "save", "--depot", &depot, &app], &trust[..]].concat());
    let _ = saved.ends_with(0).says("1 left to their substituters");

    // Nobody has it: what refers to it cannot come, which is said.
    forget_store(&env);
    let _ = env.phoenix(&["cache", "restore", "--depot", &depot, &app]).ends_with(1).says("it refers to");
    forget_store(&env);
    let restored = env.phoenix(&[&["cache", "restore", "--depot", &depot, &app], &trust[..]].concat());
    let _ = restored.ends_with(0).says("restored 2 paths");
    assert_eq!(sound(&env, &app), before);

    // A run that needs it does the same.
    forget_store(&env);
    let link = env.file("link").display().to_string();
    let app_alone = format!("{}#app", flake.reference());
    let (ran, report) = env.report(&[&[&app_alone, "--depot", &depot, "-o", &link], &trust[..]].concat());
    let _ = ran.ends_with(0);
    assert_eq!(report.count("derivations", "built"), 0);
    assert_eq!(sound(&env, &app), before);
}

/// Nobody has to repair a depot for it to be whole again.
#[test]
fn what_a_job_finds_damaged_is_built_and_saved_by_it() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = output(&env, &flake, "app");
    let depot = depot(&env);
    let cache = |args: &[&str]| env.phoenix(&[&["cache"], args, &["--depot", &depot]].concat());
    let run = |more: &[&str]| {
        let (ran, report) = env.report(&[&[&flake.reference(), "--depot", &depot], more].concat());
        let _ = ran.ends_with(0);
        (report.count("targets", "cached"), report.count("derivations", "built"))
    };
    let _ = cache(&["save", &app]).ends_with(0).says("saved 3 paths");
    damage_frames(&env);
    forget_store(&env);
    assert_eq!(run(&[]), (3, 0), "nothing of it was read");
    let restored = cache(&["restore", &app]).ends_with(1).says("a part of the pack");
    let restored = restored.says("whoever has it saves it anew");
    // One line for the cause, one for what refers to it, one for the pack.
    assert!(restored.stderr.matches("warning").count() <= 3, "{restored}");
    // Now it is known, and built and kept again.
    assert_eq!(run(&[]), (0, 3));
    forget_store(&env);
    let _ = cache(&["restore", &app]).ends_with(0).says("restored 3 paths");
    let before = sound(&env, &app);

    // The same when only those look who save what they have.
    damage_frames(&env);
    forget_store(&env);
    let _ = cache(&["restore", &app]).ends_with(1);
    assert_eq!(output(&env, &flake, "app"), app);
    let _ = cache(&["save", &app]).ends_with(0).says("saved 3 paths");
    forget_store(&env);
    let _ = cache(&["restore", &app]).ends_with(0).says("restored 3 paths");
    assert_eq!(sound(&env, &app), before);
    // And in a run that needs what it finds damaged.
    damage_frames(&env);
    forget_store(&env);
    let link = env.file("link").display().to_string();
    let (_, built) = run(&["-o", &link]);
    assert!(built > 0);
    forget_store(&env);
    let _ = cache(&["restore", &app]).ends_with(0).says("restored 3 paths");
}

#[test]
fn what_is_damaged_is_let_go_and_saved_anew() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = output(&env, &flake, "app");
    let before = sound(&env, &app);
    let depot = depot(&env);
    let verify = |more: &[&str]| env.phoenix(&[&["cache", "verify", "--depot", &depot], more].concat());
    let save = || env.phoenix(&["cache", "save", "--depot", &depot, &app]).ends_with(0);
    let _ = save().says("saved 3 paths");
    damage_frames(&env);
    let _ = save().says("nothing to save");
    let _ = verify(&[]).ends_with(1).says("bad: ");
    let _ = verify(&["--repair"]).ends_with(0).says("will be saved anew");
    let _ = verify(&[]).ends_with(0);
    let _ = save().says("saved 3 paths");

    // A pack of which nothing can be read.
    for pack in fs::read_dir(env.file("depot/packs")).unwrap() {
        let pack = pack.unwrap().path();
        let bytes = fs::read(&pack).unwrap();
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, &bytes[..bytes.len() - 10]).unwrap();
    }
    let _ = verify(&[]).ends_with(1);
    let _ = env.phoenix(&["cache", "ls", "--depot", &depot]).ends_with(1);
    // What somebody else has put there is nobody's to remove.
    let notes = env.file("depot/packs/notes.txt");
    fs::write(&notes, "mine").unwrap();
    let _ = verify(&["--repair"]).ends_with(0);
    assert_eq!(fs::read_to_string(&notes).unwrap(), "mine");
    fs::remove_file(notes).unwrap();
    let _ = save().says("saved 3 paths");
    let _ = verify(&[]).ends_with(0).says("3 of 3 paths are whole");
    forget_store(&env);
    // A link that leads to what is not there yet names it.
    let link = env.file("result");
    std::os::unix::fs::symlink(&app, &link).unwrap();
    let _ = env.phoenix(&["cache", "restore", "--depot", &depot, &link.display().to_string()]).ends_with(0);
    assert_eq!(sound(&env, &app), before);

    // A store whose contents are not what they were is no source.
    let copy = format!("{app}/copy");
    env.nix.run("chmod", &["u+w", &copy]);
    let text = fs::read_to_string(&copy).unwrap();
    fs::write(&copy, text.replacen("line 7", "LINE 7", 1)).unwrap();
    let fresh = format!("dir:{}", env.file("fresh").display());
    let _ = env
        .phoenix(&["cache", "save", "--depot", &fresh, &app])
        .ends_with(1)
        .says("not those that are registered");
}

#[test]
fn what_refers_to_something_that_is_lost_is_not_cached() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = rec {
          leaf = ok "leaf";
          mid = d "mid" "echo $leaf > $out" { inherit leaf; };
          top = d "top" "echo $mid > $out" { inherit mid; };
        }; }"#,
    );
    let top = format!("{}#top", flake.reference());
    let [leaf, mid, out] = ["leaf", "mid", "top"].map(|name| env.output(&flake, name));
    let packs = env.file("depot").join("packs");
    let all = || -> std::collections::BTreeSet<_> {
        fs_err::read_dir(&packs)
            .map(|all| all.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default()
    };
    let save = |path: &str| {
        let before = all();
        let _ = env.phoenix(&["cache", "save", "--depot", &env.depot(), path]).ends_with(0);
        all().difference(&before).cloned().collect::<Vec<_>>()
    };
    let _ = save(&leaf);
    let lost = save(&mid);
    let _ = save(&out);
    assert_eq!(lost.len(), 1);
    fs_err::remove_file(&lost[0]).unwrap();
    env.forget_store();
    // Nothing is read of what cannot come in whole.
    let _ = env
        .phoenix(&["cache", "restore", "--depot", &env.depot(), &out])
        .ends_with(1)
        .says("restored 0 paths of 0 B in 0 requests");
    env.forget_store();
    let run = ["--depot", &env.depot(), &top];
    let (ran, report) = env.report(&run);
    let ran = ran.ends_with(0);
    assert_eq!((report.count("targets", "built"), report.count("derivations", "built")), (1, 2), "{ran}");
    // It is whole again, for everybody.
    env.forget_store();
    let (ran, report) = env.report(&run);
    let _ = ran.ends_with(0);
    assert_eq!(report.count("targets", "cached"), 1);
    let _ = env.phoenix(&["cache", "restore", "--depot", &env.depot(), &out]).ends_with(0);
    let _ = env.sound(&out);
}
