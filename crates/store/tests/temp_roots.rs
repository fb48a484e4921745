//! What is protected is not collected, until nobody protects it any more.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

use std::path::Path;

use phoenix_model::StorePath;
use phoenix_store::{Layout, Nix, StoreEnv, TempRoots, Way};
use phoenix_testkit::NixRoot;

#[test]
fn what_is_protected_outlives_the_garbage_collector() {
    let root = NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
    for through_daemon in [false, true] {
        let daemon = through_daemon.then(|| root.daemon().unwrap());
        let mut nix = Nix::find().unwrap();
        for (name, value) in root.env() {
            nix.set_env(name, value);
        }
        if through_daemon {
            nix.set_env("NIX_REMOTE", "daemon");
        }
        let add = |name: &str| {
            let file = root.path(name);
            std::fs::write(&file, name).unwrap();
            root.run("nix-store", &["--add", file.to_str().unwrap()])
        };
        let (kept, lost) = (add("kept"), add("lost"));
        let directory = root.store_dir();
        let path = |number| StorePath::parse(&format!("{directory}/{number:032}-x")).unwrap();
        let many: Vec<StorePath> = (0..600).map(path).collect();
        let environment = root.env();
        let socket = environment.iter().find(|(name, _)| *name == "NIX_DAEMON_SOCKET_PATH").unwrap();
        let way = if through_daemon { Way::Daemon(socket.1.clone().into()) } else { Way::Direct };
        let value = |name: &str| environment.iter().find(|(known, _)| *known == name).unwrap().1.clone();
        let of = |name: &str| Some(value(name).into_string().unwrap());
        let (store_dir, state_dir, log_dir) = (of("NIX_STORE_DIR"), of("NIX_STATE_DIR"), of("NIX_LOG_DIR"));
        let env = StoreEnv { store_dir, state_dir, log_dir, remote: None };
        let layout = Layout::of("", &env).unwrap();
        let mut roots = TempRoots::start(&nix, &layout, &way).unwrap();
        // That there are many, and that they are not there, is no matter.
        let kept_path = StorePath::parse(&kept).unwrap();
        let valid = roots.valid(many.iter().chain([&kept_path])).unwrap();
        assert_eq!(valid, [kept_path].into(), "through a daemon: {through_daemon}");
        root.run("nix-store", &["--gc"]);
        assert!(root.is_valid(&kept) && !root.is_valid(&lost), "through a daemon: {through_daemon}");
        drop(roots);
        root.run("nix-store", &["--gc"]);
        assert!(!root.is_valid(&kept), "through a daemon: {through_daemon}");
        drop(daemon);
    }
}
