//! `phoenix cache gc`, and the tidying up after a save.

#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Ran, TestEnv};
use fs_err as fs;
use phoenix_testkit::github::{Github, Permission, Request};
use serde_json::Value;

/// Adds a file to the store whose contents hardly compress, and returns its path.
fn add(env: &TestEnv, name: &str, seed: u64, size: usize) -> String {
    let file = env.file(name);
    fs::write(&file, noise(seed, size)).unwrap();
    env.nix.run("nix-store", &["--add", file.to_str().unwrap()]).trim().to_owned()
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

fn depot(env: &TestEnv) -> String {
    format!("dir:{}", env.file("depot").display())
}

fn cache(env: &TestEnv, args: &[&str]) -> Ran {
    env.phoenix(&[&["cache"], args, &["--depot", &depot(env)]].concat())
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

fn packs(env: &TestEnv) -> Vec<String> {
    let packs = fs::read_dir(env.file("depot/packs")).unwrap();
    packs.map(|pack| pack.unwrap().file_name().into_string().unwrap()).collect()
}

/// Everything goes out of the store and comes back.
fn come_back(env: &TestEnv, paths: &[String]) {
    for path in paths {
        env.nix.run("nix-store", &["--delete", path]);
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let _ = cache(env, &[&["restore"], paths.as_slice()].concat()).ends_with(0);
    env.nix.run("nix-store", &["--verify", "--check-contents"]);
}

#[test]
fn many_packs_become_one_when_asked_and_when_a_save_finds_too_many() {
    let env = TestEnv::new();
    let paths: Vec<String> = (0..4).map(|at| add(&env, &format!("p{at}"), at, 30_000)).collect();
    for path in &paths {
        let _ = cache(&env, &["save", path]).ends_with(0).says("saved 1 path ");
    }
    // A plan is shown and nothing is done.
    let plan = cache(&env, &["gc", "--dry-run", "--json"]).ends_with(0);
    let plan = plan.says("it is small, and there are others").says("nothing was done");
    assert_eq!(json(&plan)["fold"].as_array().unwrap().len(), 4);
    assert_eq!(packs(&env).len(), 4);

    let done =
        cache(&env, &["gc", "--json"]).ends_with(0).says("folded 4 packs into packs/").says("wait until");
    assert_eq!(json(&done)["done"]["removed"], Value::Array(vec![]));
    assert_eq!(packs(&env).len(), 5);
    assert_eq!(json(&cache(&env, &["stat"]))["packs"], 1);
    let _ = cache(&env, &["verify"]).ends_with(0).says("4 of 4 paths are whole");
    come_back(&env, &paths);

    let _ = cache(&env, &["gc", "--grace", "0"]).ends_with(0).says("removed 4 packs");
    assert_eq!(packs(&env).len(), 1);
    come_back(&env, &paths);
    let _ = cache(&env, &["gc", "--grace", "0"]).ends_with(0).says("nothing to do");

    // Four packs are few enough, five are not.
    let mut all = paths;
    for at in 10..14 {
        let path = add(&env, &format!("p{at}"), at, 3_000);
        let said = cache(&env, &["save", &path]).ends_with(0).stderr;
        assert_eq!(said.contains("folded"), at == 13, "{at}: {said}");
        all.push(path);
    }
    let left = json(&cache(&env, &["stat"]));
    assert!(left["packs"].as_u64().unwrap() <= 2, "{left}");
    come_back(&env, &all);
    // What was saved last is still known, although all of it is in a fold now.
    let last = all.last().unwrap();
    env.nix.run("nix-store", &["--delete", last]);
    let _ = cache(&env, &["restore", "--latest"]).ends_with(0).says("restored 1 path ");
}

#[test]
fn of_many_jobs_that_save_at_once_one_folds() {
    let env = TestEnv::new();
    let mut paths: Vec<String> = (0..4).map(|at| add(&env, &format!("p{at}"), at, 3_000_000)).collect();
    for path in &paths {
        let _ = cache(&env, &["save", path]).ends_with(0);
    }
    let new: Vec<String> = (10..18).map(|at| add(&env, &format!("p{at}"), at, 100_000)).collect();
    let jobs: Vec<std::process::Child> = new
        .iter()
        .map(|path| {
            let mut job = env.command();
            job.args(["cache", "save", path, "--depot", &depot(&env)]);
            job.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut job in jobs {
        assert!(job.wait().unwrap().success());
    }
    paths.extend(new);
    // Those that had not seen the others' packs may have folded something else meanwhile.
    let made = packs(&env).len();
    assert!((13..=15).contains(&made), "{made} packs");
    come_back(&env, &paths);
}

/// Who says that he folds holds others off for half an hour, whatever he says.
#[test]
fn a_claim_that_lies_in_the_future_keeps_nobody_from_folding() {
    let env = TestEnv::new();
    let paths: Vec<String> = (0..5).map(|at| add(&env, &format!("p{at}"), at, 30_000)).collect();
    for path in &paths[..4] {
        let _ = cache(&env, &["save", path]).ends_with(0);
    }
    let oldest = packs(&env).into_iter().min().unwrap();
    let folds = env.file("depot/folds");
    fs::create_dir_all(&folds).unwrap();
    let now = SystemTime::now();
    let half_hours = now.duration_since(UNIX_EPOCH).unwrap().as_secs() / 1800;
    let month = Duration::from_secs(30 * 24 * 3600);
    let in_a_month = (now + month).duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    for number in (0..8).chain([half_hours - 1]) {
        let file = folds.join(format!("{oldest}-{number}"));
        fs::write(&file, &in_a_month).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(now + month).unwrap();
    }
    let _ = cache(&env, &["save", &paths[4]]).ends_with(0).says("folded 5 packs");
    come_back(&env, &paths);
}

#[test]
fn what_is_kept_of_what_there_is_no_room_for_is_restored_and_told() {
    let env = TestEnv::new();
    let flake = phoenix_testkit::Flake::new(
        r#"{ packages.${system}.top = d "top" "head -c 300000 /dev/urandom > $out; echo $low >> $out" {
          low = d "low" "head -c 30000 /dev/urandom > $out" { };
        }; }"#,
    );
    let ran = env.phoenix(&["run", &flake.reference()]).ends_with(0);
    let store = env.nix.store_dir();
    let top = env.nix.run("nix", &["eval", "--raw", &format!("{}#top.outPath", flake.reference())]);
    assert!(top.starts_with(&store), "{ran}");
    let _ = cache(&env, &["save", &top, "--branch", "main"]).ends_with(0);
    let _ = cache(&env, &["gc", "--budget", "100K", "--grace", "0"]).ends_with(0).says("-top");
    env.forget_store();
    let restored = cache(&env, &["restore", "--latest", "--branch", "main"]).ends_with(0);
    let _ = restored.says("1 path is in no pack any more").says("-top").says("restored 1 path ");
}

#[test]
fn a_budget_keeps_what_is_named_and_what_live_branches_need() {
    let env = TestEnv::new();
    let paths: Vec<String> = (0..5).map(|at| add(&env, &format!("p{at}"), at, 100_000)).collect();
    for (path, branch) in paths.iter().zip(["main", "main-old", "topic", "none", "none"]) {
        let args = ["save", path, "--branch", branch];
        let _ = cache(&env, if branch == "none" { &args[..2] } else { &args }).ends_with(0);
    }
    let gone = ["--gone", "topic", "--gone", "main-old", "--gone", "default"];
    let keep = ["--keep", &paths[1]];
    let args = [&["gc", "--budget", "250K", "--grace", "0", "--json"][..], &gone, &keep].concat();
    let done = cache(&env, &args).ends_with(0).says("there is no room for it");
    let done = json(&done);
    assert_eq!(
        (&done["branchesAlive"]["main"], &done["branchesAlive"]["topic"]),
        (&true.into(), &false.into())
    );
    assert_eq!(done["drop"].as_array().unwrap().len(), 3, "{done:#}");
    let size: u64 =
        packs(&env).iter().map(|name| fs::metadata(env.file("depot/packs").join(name)).unwrap().len()).sum();
    assert!(size <= 250_000, "{size}");
    come_back(&env, &paths[..2]);
    let _ = cache(&env, &["restore", &paths[2]]).ends_with(0);
    env.nix.run("nix-store", &["--delete", &paths[2]]);
    let _ = cache(&env, &["restore", &paths[2]]).ends_with(1).says("1 path is in no pack");

    // A save that goes over the budget lets go of the oldest that no branch needs, and says so.
    let more = add(&env, "more", 9, 100_000);
    let _ = cache(&env, &["save", &more, "--budget", "250K", "--branch", "next"])
        .ends_with(0)
        .says("drop ")
        .says("folded ");
    come_back(&env, &[paths[0].clone(), more]);

    let _ = cache(&env, &["gc", "--keep", "/etc/passwd"]).ends_with(1).says("is no store path");
    let _ = cache(&env, &["gc", "--budget", "much"]).ends_with(1).says("such as 10G");
}

/// What is more than the budget is not kept, and a save that says nothing of it is believed.
#[test]
fn a_save_that_is_let_go_again_says_so() {
    let env = TestEnv::new();
    let (small, large) = (add(&env, "small", 1, 20_000), add(&env, "large", 2, 300_000));
    let _ = cache(&env, &["save", "--budget", "100K", &small]).ends_with(0);
    let large_name = large.rsplit('/').next().unwrap();
    let _ = cache(&env, &["save", "--budget", "100K", &large]).ends_with(1).says(&format!(
        "warning: 1 path is let go again, as more than a budget of 97.66 KiB has room for: {large_name}"
    ));
    let _ = cache(&env, &["save", "--budget", "100K", &small]).ends_with(0);
    assert!(!cache(&env, &["ls"]).ends_with(0).stdout.contains(large_name));
    come_back(&env, &[small]);
}

/// What is kept is measured where an estimate says that there is no room for all of it: what branches need shares parts with
/// what nobody does, and compresses better.
#[test]
fn what_is_needed_stays_where_it_fits_whatever_it_is_made_of() {
    let env = TestEnv::new();
    let block = |number: u64| -> Vec<u8> {
        if number % 2 == 1 {
            return noise(number, 40_000);
        }
        format!("line {number} of a text that compresses well\n").into_bytes().repeat(2_000)
    };
    let add = |at: u64| {
        // What is needed is mostly text.
        let blocks = if at.is_multiple_of(2) {
            [at * 8, at * 8 + 2, at % 5 * 2 + 1]
        } else {
            [at * 8 + 1, at * 8 + 4, at % 5 * 2 + 1]
        };
        let file = env.file(&format!("p{at}"));
        fs::write(&file, blocks.map(block).concat()).unwrap();
        env.nix.run("nix-store", &["--add", file.to_str().unwrap()]).trim().to_owned()
    };
    let paths: Vec<String> = (0..40).map(add).collect();
    let all: Vec<&str> = paths.iter().map(String::as_str).collect();
    let needed: Vec<&str> = all.iter().step_by(2).copied().collect();
    let alone = format!("dir:{}", env.file("alone").display());
    let in_depot = |depot: &str, args: &[&str]| {
        env.phoenix(&[&["cache"], args, &["--depot", depot]].concat()).ends_with(0)
    };
    let _ = in_depot(&alone, &[&["save"], &needed[..]].concat());
    let size = json(&in_depot(&alone, &["stat"]))["bytes"].as_u64().unwrap();

    let _ = cache(&env, &[&["save", "--branch", "old"], &all[..]].concat()).ends_with(0);
    let _ = cache(&env, &[&["save", "--branch", "main"], &needed[..]].concat()).ends_with(0);
    let before = json(&cache(&env, &["stat"]))["bytes"].as_u64().unwrap();
    assert!(before > size * 3, "{before} of {size}");
    let budget = (size + size / 8).to_string();
    let gc = |more: &[&str]| {
        cache(&env, &[&["gc", "--json", "--grace", "0", "--gone", "old", "--budget", &budget], more].concat())
    };
    let plan = json(
        &gc(&["--dry-run"]).ends_with(0).says("it is measured, and if it is not enough, some of 20 paths"),
    );
    assert!(!plan["next"]["drop"].as_array().unwrap().is_empty(), "{plan}");
    let done = json(&gc(&[]).ends_with(0));
    assert!(done["next"].is_null() && done["drop"].as_array().unwrap().len() == 20, "{done}");
    let after = json(&cache(&env, &["stat"]))["bytes"].as_u64().unwrap();
    assert!(after <= size + size / 8, "{after} of {budget}");
    let listed = cache(&env, &["ls"]).ends_with(0).stdout;
    assert!(needed.iter().all(|path| listed.contains(path.rsplit('/').next().unwrap())), "{listed}");
    come_back(&env, &paths.iter().step_by(2).cloned().collect::<Vec<_>>());
    let _ = gc(&[]).ends_with(0).says("nothing to do");
}

/// GitHub answers so many lookups a minute for all jobs of a repository.
#[test]
fn however_many_saves_there_were_a_restore_looks_up_few_packs() {
    let env = TestEnv::new();
    let github = Github::start().unwrap();
    let token = github.token(&[("refs/heads/main", Permission::Both)]);
    let job = |args: &[&str], listing: bool| {
        let mut command = env.in_job(&github, &token);
        command.args(["cache"]).args(args).args(["--depot", "github:"]);
        if listing {
            command.env("GITHUB_API_URL", github.url()).env("GITHUB_REPOSITORY", github.repository());
            command.env("GITHUB_TOKEN", github.rest_token());
        }
        Ran::from(command.output().unwrap()).ends_with(0)
    };
    let paths: Vec<String> =
        (1..11).map(|at: u32| add(&env, &format!("p{at}"), at.into(), 3_000 * at as usize)).collect();
    // A fold, which is each fourth, looks up what is live, twice, and none of what was ever replaced.
    for path in &paths {
        let before = github.counts().of(Request::Lookup);
        let _ = job(&["save", path], false);
        let lookups = github.counts().of(Request::Lookup) - before;
        assert!(lookups <= 14, "{lookups} lookups for {path}");
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    // Also where a token lists all that there is.
    for listing in [false, true] {
        env.nix.run("nix-store", &[&["--delete"], &paths[..]].concat());
        let before = github.counts().of(Request::Lookup);
        let _ = job(&[&["restore"], &paths[..]].concat(), listing).says("restored 10 paths");
        let lookups = github.counts().of(Request::Lookup) - before;
        assert!(lookups <= 5, "{lookups} lookups, listing: {listing}");
    }
}

/// The packs of the main branch count for a pull request, too.
#[test]
fn a_restore_on_a_pull_request_looks_up_few_packs() {
    let env = TestEnv::new();
    let github = Github::start().unwrap();
    let main = github.token(&[("refs/heads/main", Permission::Both)]);
    let pull =
        github.token(&[("refs/pull/7/merge", Permission::Both), ("refs/heads/main", Permission::Read)]);
    let job = |token: &str, args: &[&str]| {
        let mut command = env.in_job(&github, token);
        command.args(["cache"]).args(args).args(["--depot", "github:"]);
        Ran::from(command.output().unwrap()).ends_with(0)
    };
    let paths: Vec<String> = (1..8).map(|at: u32| add(&env, &format!("p{at}"), at.into(), 9_000)).collect();
    for (number, path) in paths.iter().enumerate() {
        let _ = job(if number < 3 { &main } else { &pull }, &["save", path]);
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    env.nix.run("nix-store", &[&["--delete"], &paths[..]].concat());
    let before = github.counts().of(Request::Lookup);
    let _ = job(&pull, &[&["restore"], &paths[..]].concat()).says("restored 7 paths");
    let lookups = github.counts().of(Request::Lookup) - before;
    assert!(lookups <= 5, "{lookups} lookups");
}

/// The jobs of a matrix end at the same time, and none of them may list what there is.
#[test]
fn jobs_that_save_at_once_lose_nothing_of_each_other() {
    let env = TestEnv::new();
    let github = Github::start().unwrap();
    let token = github.token(&[("refs/heads/main", Permission::Both)]);
    let job = |args: &[&str]| {
        let mut command = env.in_job(&github, &token);
        command.args(["cache"]).args(args).args(["--depot", "github:"]);
        command
    };
    let paths: Vec<String> = (1..5).map(|at: u32| add(&env, &format!("p{at}"), at.into(), 5_000)).collect();
    let saves: Vec<_> = paths.iter().map(|path| job(&["save", path]).spawn().unwrap()).collect();
    for mut save in saves {
        assert!(save.wait().unwrap().success());
    }
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    env.nix.run("nix-store", &[&["--delete"], &paths[..]].concat());
    let restored = Ran::from(job(&[&["restore"], &paths[..]].concat()).output().unwrap());
    let _ = restored.ends_with(0).says("restored 4 paths");
}

#[test]
fn a_pull_request_finds_the_packs_of_the_main_branch_and_never_the_other_way_round() {
    let env = TestEnv::new();
    let [early, own, late] =
        [("early", 1), ("own", 2), ("late", 3)].map(|(name, seed)| add(&env, name, seed, 20_000));
    let github = Github::start().unwrap();
    let main = github.token(&[("refs/heads/main", Permission::Both)]);
    let pull =
        github.token(&[("refs/pull/7/merge", Permission::Both), ("refs/heads/main", Permission::Read)]);
    let job = |token: &str, rest: bool, args: &[&str]| {
        let mut command = env.in_job(&github, token);
        command.args(["cache"]).args(args).args(["--depot", "github:"]);
        if rest {
            command.env("GITHUB_TOKEN", github.rest_token()).env("GITHUB_API_URL", github.url());
            command.env("GITHUB_REPOSITORY", github.repository());
        }
        Ran::from(command.output().unwrap())
    };
    let restores = |token: &str, rest: bool, path: &str| {
        env.nix.run("nix-store", &["--delete", path]);
        let ran = job(token, rest, &["restore", path]);
        assert!(!ran.stderr.contains("warning"), "{ran}");
        // Put it back for the next one.
        if ran.code == Some(1) {
            let (name, seed) = if path == own { ("own", 2) } else { ("late", 3) };
            add(&env, name, seed, 20_000);
        }
        ran.code == Some(0)
    };
    let _ = job(&main, false, &["save", &early]).ends_with(0);
    let _ = job(&pull, false, &["save", &own]).ends_with(0);
    // The pull request has a newest pack of its own now, that knows nothing of this one.
    let _ = job(&main, false, &["save", &late]).ends_with(0);
    for rest in [false, true] {
        for path in [&early, &own, &late] {
            assert!(restores(&pull, rest, path), "{path} with REST {rest}");
        }
        assert!(restores(&main, rest, &early) && restores(&main, rest, &late));
        assert!(!restores(&main, rest, &own));
    }
    let lookups = github.counts().of(Request::Lookup);
    assert!(restores(&main, false, &late));
    assert!(github.counts().of(Request::Lookup) - lookups <= 5);

    // Without the right to delete, gc leaves to eviction what it replaces, and that is not read any more.
    let _ = job(&main, false, &["gc", "--grace", "0"])
        .ends_with(0)
        .says("folded 2 packs")
        .says("left to the depot");
    // Beside them it stands who folds.
    let packs = || github.entries().iter().filter(|entry| entry.key.contains("packs/")).count();
    assert_eq!(packs(), 4);
    assert!(restores(&main, false, &late) && restores(&pull, false, &early) && restores(&pull, true, &own));
    // With it, what was replaced goes; what a pull request has counts, and stays while there is room.
    let _ = job(&main, true, &["gc", "--grace", "0"]).ends_with(0).says("removed 2 packs");
    assert_eq!(packs(), 2);
    assert!(restores(&main, true, &late) && restores(&pull, true, &own));
    let _ = job(&main, true, &["gc", "--grace", "0", "--budget", "45K", "--keep", &early, "--keep", &late])
        .ends_with(0)
        .says("removed packs/=refs+2Fpull+2F7+2Fmerge/")
        .says("removed 1 pack");
    assert_eq!(packs(), 1);
    assert!(restores(&main, true, &late) && !restores(&pull, true, &own));
}
