//! A store on another machine, which is reached by a real ssh: what `remoteStore` of std-action asks for.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ran, TestEnv};
use fs_err as fs;
use phoenix_testkit::{Flake, NixRoot};
use serde_json::Value;

/// An ssh server on the loopback, before a Nix whose store is elsewhere on this disk.
struct Host {
    nix: NixRoot,
    server: Child,
    port: u16,
    store_dir: String,
}

fn sshd() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap();
    let folders = path.split(':').chain(["/usr/sbin"]);
    folders.map(|folder| Path::new(folder).join("sshd")).find(|program| program.is_file())
}

/// A user of this machine with an own namespace is what Nix needs to build in another root.
fn may_build_in_a_root() -> bool {
    let told = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    told.is_ok_and(|status| status.success())
}

impl Host {
    fn start(sshd: &Path, store_dir: &str) -> Self {
        let nix = NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
        let there = ["/bin", "/usr", "/lib", "/lib64"].into_iter().filter(|place| Path::new(place).exists());
        nix.configure(&format!("sandbox-paths = {}", there.collect::<Vec<_>>().join(" ")));
        let file = |name: &str| nix.path("home").join(name);
        for key in ["host", "client"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(file(key))
                .status()
                .unwrap();
            assert!(made.success());
        }
        fs::copy(file("client.pub"), file("authorized")).unwrap();
        // Privileges are separated only where there are any.
        if is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let shown = |name: &str| file(name).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n",
            shown("host"),
            shown("authorized")
        );
        fs::write(file("sshd_config"), config).unwrap();
        // What a session of ssh is told is little.
        let env = nix.env().into_iter().filter(|(name, _)| *name != "NIX_STORE_DIR");
        let mut env: String =
            env.map(|(name, value)| format!("export {name}='{}'\n", value.to_str().unwrap())).collect();
        env.push_str(&format!("export PATH='{}'\n", std::env::var("PATH").unwrap()));
        env.push_str(&format!("export NIX_STORE_DIR='{store_dir}'\n"));
        env.push_str(&format!("export NIX_REMOTE='local?root={}'\n", nix.path("root").display()));
        // These name places of a store that is not below a root.
        env.push_str("unset NIX_STATE_DIR NIX_LOCALSTATE_DIR NIX_LOG_DIR NIX_DAEMON_SOCKET_PATH\n");
        fs::write(file("nix-daemon"), format!("#!/bin/sh\n{env}exec nix-daemon \"$@\"\n")).unwrap();
        fs::set_permissions(file("nix-daemon"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let log = fs::File::create(file("sshd.log")).unwrap().into_parts().0;
        let server = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(file("sshd_config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let host = Self { nix, server, port, store_dir: store_dir.to_owned() };
        let until = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "{}", fs::read_to_string(host.file("sshd.log")).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
        host
    }

    fn file(&self, name: &str) -> PathBuf {
        self.nix.path("home").join(name)
    }

    fn url(&self, scheme: &str) -> String {
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap().trim().to_owned();
        format!("{scheme}://{user}@127.0.0.1?remote-program={}", self.file("nix-daemon").display())
    }

    fn ssh_options(&self) -> String {
        let key = self.file("client").display().to_string();
        let port = self.port;
        format!(
            "-p {port} -i {key} -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        )
    }

    /// Whether a path is in its store.
    fn has(&self, path: &str) -> bool {
        // Below a root Nix has its store there, whatever it is called.
        let name = path.strip_prefix(&self.store_dir).expect("a store path");
        self.nix.path("root/nix/store").join(name.trim_start_matches('/')).exists()
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    String::from_utf8(id).unwrap().trim() == "0"
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn what_is_built_in_a_store_elsewhere_is_run_here() {
    let Some(sshd) = sshd().filter(|_| may_build_in_a_root()) else {
        eprintln!("skipped: there is no sshd, or Nix may not build in another root");
        return;
    };
    let env = TestEnv::new();
    let host = Host::start(&sshd, &env.nix.store_dir());
    let ran = env.file("ran").display().to_string();
    let flake = Flake::new(&format!(
        r#"let
          action = name: block: action: script: {{
            inherit name block action;
            cell = "app"; blockType = "x"; meta = null; targetDrv = null; proviso = null;
            actionDrv = (d "${{action}}-${{name}}" script {{ }}).drvPath;
          }};
        in {{
          __std.ci.${{system}} = [
            (action "a" "packages" "build" "echo > $out")
            (action "b" "images" "publish" "echo 'echo \"$cell/$block/$target:$action\" >> {ran}' > $out")
          ];
        }}"#
    ));
    let depot = env.depot();
    let installable = format!("{}#.__std.ci.{}", flake.reference(), env.system());
    let args = ["plan", "--actions", "run", "--runners", "auto", "--matrix", "std", "--plan", "p"];
    let planned = env.phoenix(&[&args[..], &["--depot", &depot, &installable]].concat()).ends_with(0);
    let hits: Value = serde_json::from_str(&planned.stdout).unwrap();
    drop(flake);
    env.forget_store();
    let ledger = format!("dir:{}", env.file("ledger").display());
    let work = |hit: &Value| {
        let slot = hit["slot"].to_string();
        // As the action `run` of std calls it.
        let url = host.url("ssh-ng");
        let args = ["work", "--plan", "p", "--slot", &slot, "--depot", &depot, "--ledger", &ledger];
        let mut command = env.command();
        command.args(args).args(["--store", &url, "--builders", ""]);
        command.env("NIX_SSHOPTS", host.ssh_options());
        Ran::from(command.output().unwrap())
    };
    let output = |hit: &Value| {
        let drv = hit["actionDrv"].as_str().unwrap();
        env.nix.run("nix-store", &["--query", "--outputs", drv])
    };
    let (build, publish) = (&hits["packages"]["build"][0], &hits["images"]["publish"][0]);
    let ended = work(build).ends_with(0);
    let built = output(build);
    assert!(host.has(&built), "{built} is built there: {ended}");
    assert!(!env.nix.is_valid(&built), "and not here: {ended}");
    assert!(!Path::new(&ran).exists());
    let ended = work(publish).ends_with(0);
    let script = output(publish);
    assert!(host.has(&script) && env.nix.is_valid(&script), "built there and brought here: {ended}");
    assert_eq!(fs::read_to_string(&ran).unwrap(), "app/images/b:publish\n", "{ended}");
}
