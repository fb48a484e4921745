//! `phoenix cache push`: to stores, and by the clients of cache services.

#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use common::{Ran, TestEnv};
use fs_err as fs;
use phoenix_testkit::Flake;

const OUTPUTS: &str = r#"{ packages.${system} = rec {
  lib = ok "lib";
  app = d "app" "echo ${lib} > $out" { };
}; }"#;

/// A client that writes down how it was called, and ends as it is told.
fn fake(env: &TestEnv, name: &str, code: u8) -> String {
    let directory = env.file("clients");
    fs::create_dir_all(&directory).unwrap();
    let (file, record) = (directory.join(name), directory.join(format!("{name}.called")));
    let record = record.display();
    let text = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >> {record}\necho --- >> {record}\ncat >> {record}\necho a word on the way\nexit {code}\n"
    );
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    record.to_string()
}

fn push(env: &TestEnv, to: &str, args: &[&str]) -> Ran {
    let mut command: Command = env.command();
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", env.file("clients").display()));
    command.args(["cache", "push", "--to", to]).args(args);
    Ran::from(command.output().unwrap())
}

#[test]
fn a_closure_goes_to_another_store() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let snapshot = env.file("snapshot").display().to_string();
    let restore = ["cache", "restore", "--depot", &env.depot(), "--latest", "--snapshot", &snapshot];
    let _ = env.phoenix(&restore).ends_with(0);
    let [app, lib] = ["app", "lib"].map(|name| env.output(&flake, name));
    let there =
        |to: &str, path: &str| env.nix.output("nix", &["path-info", "--store", to, path]).status.success();
    let stores = ["one", "two", "three"].map(|name| format!("file://{}", env.file(name).display()));
    let _ = push(&env, &stores[0], &[&app]).ends_with(0).says("pushed 1 path,").says("file://");
    assert!(there(&stores[0], &app) && there(&stores[0], &lib));
    // What is new, and what is there at all, is more than that; derivations stay here.
    for (store, args) in stores[1..].iter().zip([&["--since", &snapshot][..], &["--all"][..]]) {
        let _ = push(&env, store, args).ends_with(0).says("pushed ");
        assert!(there(store, &app) && there(store, &lib));
    }
    let drv = env.nix.run("nix-store", &["--query", "--deriver", &app]);
    assert!(!there(&stores[2], &drv));
    let _ = push(&env, &stores[2], &[&drv]).ends_with(0);
    assert!(there(&stores[2], &drv));
    let _ = env.phoenix(&restore).ends_with(0);
    let _ = push(&env, &stores[0], &["--since", &snapshot]).ends_with(0).says("nothing to push");
}

#[test]
fn clients_of_services_get_all_paths_at_once() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let [app, lib] = ["app", "lib"].map(|name| env.output(&flake, name));
    let (cachix, attic) = (fake(&env, "cachix", 0), fake(&env, "attic", 0));
    let _ =
        push(&env, "cachix:mine", &[&app, &lib]).ends_with(0).says("a word on the way").says("cachix:mine");
    assert_eq!(fs::read_to_string(cachix).unwrap(), format!("push\nmine\n{app}\n{lib}\n---\n"));
    let _ = push(&env, "attic:srv:mine", &[&app, &lib]).ends_with(0);
    assert_eq!(fs::read_to_string(attic).unwrap(), format!("push\nsrv:mine\n{app}\n{lib}\n---\n"));
}

#[test]
fn a_push_that_fails_is_a_push_that_failed() {
    let env = TestEnv::new();
    let flake = Flake::new(OUTPUTS);
    let app = env.output(&flake, "app");
    // A client's code is not taken for one of a build.
    fake(&env, "cachix", 100);
    let ran = push(&env, "cachix:mine", &[&app]).ends_with(1);
    let _ = ran.says("pushing to cachix:mine failed: `cachix push` ended with exit code 100");
    fs::write(env.file("file"), "").unwrap();
    let store = format!("file://{}/x", env.file("file").display());
    let _ = push(&env, &store, &[&app]).ends_with(1).says("failed: `nix copy` ended with exit code 1");
    let _ = push(&env, "attic:mine", &[&app])
        .ends_with(1)
        .says("there is no `attic` on PATH")
        .says("attic-client");
    let ran = push(&env, "https://me:hunter2@cache.example", &[&app]).ends_with(1).says("netrc-file");
    assert!(!ran.stderr.contains("hunter2"), "{ran}");
    let _ = push(&env, "cachix:--help", &[&app]).ends_with(1).says("does not name a cache");
    let nothing = format!("{}/{}-nothing", env.nix.store_dir(), "0".repeat(32));
    let _ = push(&env, &store, &[&nothing]).ends_with(1).says("is not valid");
}
