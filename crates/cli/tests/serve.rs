//! `phoenix cache serve`, asked by Nix itself.

#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use common::TestEnv;
use fs_err as fs;
use phoenix_testkit::Flake;

/// Paths that refer to each other and to themselves; one of them is several frames long and not the same twice.
const OUTPUTS: &str = r#"{ packages.${system} = rec {
  lib = d "lib" "mkdir -p $out/empty $out/bin; echo $out > $out/self; ln -s ../self $out/bin/link; echo x > $out/bin/x; chmod +x $out/bin/x" { };
  data = d "data" "head -c 12000000 /dev/urandom > $out" { };
  app = d "app" "mkdir $out; echo ${lib} ${data} $out > $out/uses; cp ${data} $out/copy" { };
}; }"#;

/// A running `phoenix cache serve`.
struct Serving {
    child: Child,
    url: String,
    port_file: std::path::PathBuf,
}

impl Serving {
    fn start(env: &TestEnv, args: &[&str]) -> Self {
        let port_file = env.file("port");
        let mut command = env.command();
        command.args(["cache", "serve", "--depot", &env.depot(), "--port-file", port_file.to_str().unwrap()]);
        let mut child = command.args(args).stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        Self { child, url, port_file }
    }

    /// Asks it to end; it does so as one that was asked.
    fn end(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert!(!self.port_file.exists(), "the port of one who has gone");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes the store away, as on a new machine, but for the derivations.
fn forget_outputs(env: &TestEnv) {
    let all = env.nix.run("nix", &["path-info", "--all"]);
    let outputs: Vec<&str> = all.lines().filter(|path| !path.ends_with(".drv")).collect();
    let keep = env.nix.run("nix-store", &["--query", "--requisites", &drv_of(&all, "app")]);
    let outputs: Vec<&str> = outputs.into_iter().filter(|path| !keep.contains(*path)).collect();
    let _ = env.nix.run("nix-store", &[&["--delete", "--ignore-liveness"], outputs.as_slice()].concat());
}

fn drv_of(all: &str, name: &str) -> String {
    all.lines().find(|path| path.ends_with(&format!("-{name}.drv"))).unwrap().to_owned()
}

/// A store with everything built and saved; the path of `app` and its derivation.
fn saved(env: &TestEnv, args: &[&str]) -> (String, String) {
    let flake = Flake::new(OUTPUTS);
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    let attr = format!("packages.{}.app", env.system());
    let app = report.field(&attr, "outputs")["out"].as_str().unwrap().to_owned();
    let drv = report.field(&attr, "drvPath").as_str().unwrap().to_owned();
    // One thread: the frames are in the order of the paths.
    let save = ["cache", "save", "--threads", "1", "--depot", &env.depot(), &app];
    let _ = env.phoenix(&[&save, args].concat()).ends_with(0).says("saved 3 paths");
    (app, drv)
}

fn realise(env: &TestEnv, path: &str, options: &[(&str, &str)]) -> common::Ran {
    let mut command = env.nix.command("nix-store");
    command.args(["--realise", path]);
    for (name, value) in options {
        command.args(["--option", name, value]);
    }
    common::Ran::from(command.output().unwrap())
}

#[test]
fn nix_takes_a_closure_from_it() {
    let env = TestEnv::new();
    let (app, _) = saved(&env, &[]);
    let before = env.sound(&app);
    let serving = Serving::start(&env, &[]);
    let port = fs::read_to_string(&serving.port_file).unwrap();
    assert_eq!(serving.url, format!("http://127.0.0.1:{}", port.trim()));
    forget_outputs(&env);
    assert!(!env.nix.is_valid(&app));
    let url = serving.url.clone();
    let _ = realise(&env, &app, &[("substituters", &url), ("require-sigs", "false")]).ends_with(0);
    assert_eq!(env.sound(&app), before);
    serving.end();
}

#[test]
fn nix_accepts_its_signatures() {
    let env = TestEnv::new();
    let [saver, server, other] = ["saver-1", "server-1", "other-1"].map(|name| env.key(name));
    let (app, drv) = saved(&env, &[]);
    let trust = |key: &str| env.nix.configure(&format!("require-sigs = true\ntrusted-public-keys = {key}"));
    let take = |url: &str| {
        forget_outputs(&env);
        realise(&env, &app, &[("substituters", url)])
    };
    // Whoever saved it signed nothing.
    trust(&server.1);
    let serving = Serving::start(&env, &[]);
    let ran = take(&serving.url);
    assert!(ran.code != Some(0) && !env.nix.is_valid(&app), "{ran}");
    serving.end();
    let serving = Serving::start(&env, &["--sign-key", &server.0]);
    let _ = take(&serving.url).ends_with(0);
    serving.end();
    let signed = |by: &str| env.nix.run("nix", &["path-info", "--json", &app]).contains(&format!("\"{by}:"));
    assert!(signed("server-1"));

    // What is saved with a key has its signature wherever it goes.
    trust(&saver.1);
    let save = ["cache", "save", "--depot", &env.depot(), "--sign-key", &saver.0, &app];
    let _ = env.phoenix(&save).ends_with(0).says("saved 3 paths");
    let _ = env.phoenix(&save).ends_with(0).says("nothing to save: 3");
    let serving = Serving::start(&env, &["--trusted-key", &saver.1]);
    let _ = take(&serving.url).ends_with(0);
    assert!(signed("saver-1"));
    // Its own signatures do not make it somebody else's.
    let _ = env.phoenix(&save).ends_with(0).says("nothing to save: 3");
    serving.end();
    // Other keys are not asked for nothing.
    let serving = Serving::start(&env, &["--trusted-key", &other.1]);
    let ran = take(&serving.url);
    assert!(ran.code != Some(0), "{ran}");
    // No build was lost by any of that.
    let url = serving.url.clone();
    let _ = realise(&env, &drv, &[("substituters", &url)]).ends_with(0);
    serving.end();
}

#[test]
fn damage_and_a_lost_depot_cost_a_build_and_no_more() {
    let env = TestEnv::new();
    let (app, drv) = saved(&env, &[]);
    let pack = fs::read_dir(env.file("depot/packs")).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&pack).unwrap();
    let serving = Serving::start(&env, &[]);
    let url = serving.url.clone();
    let options =
        [("substituters", url.as_str()), ("require-sigs", "false"), ("narinfo-cache-positive-ttl", "0")];
    // In the middle of what is several frames long: it is found out while it is being sent.
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, &damaged).unwrap();
    forget_outputs(&env);
    let _ = realise(&env, &drv, &options).ends_with(0);
    env.sound(&app);
    serving.end();

    fs::write(&pack, &whole).unwrap();
    let serving = Serving::start(&env, &[]);
    let url = serving.url.clone();
    let options = [("substituters", url.as_str()), ("require-sigs", "false")];
    fs::remove_dir_all(env.file("depot")).unwrap();
    forget_outputs(&env);
    let _ = realise(&env, &drv, &options).ends_with(0);
    env.sound(&app);
    serving.end();
}

#[test]
fn it_is_for_this_machine_only() {
    let env = TestEnv::new();
    let serve = |args: &[&str]| {
        env.phoenix(&[&["cache", "serve", "--depot", &env.depot()], args].concat()).ends_with(1)
    };
    let _ = serve(&["--listen", "0.0.0.0:0"]).says("not an address of this machine's loopback");
    let _ = serve(&["--listen", "[2001:db8::1]:0"]).says("loopback");
    let _ = serve(&["--listen", "nonsense"]).says("is no address to listen at");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _ = serve(&["--listen", &taken.local_addr().unwrap().to_string()]).says("cannot listen at");
    let _ = serve(&["--sign-key", "/nowhere"]).says("cannot read the key to sign with");
    fs::write(env.file("key"), "name:c2VjcmV0IHRoYXQgaXMgbm8ga2V5").unwrap();
    let ran = serve(&["--sign-key", env.file("key").to_str().unwrap()]).says("holds no secret key");
    assert!(!ran.stderr.contains("c2VjcmV0"), "{ran}");
    let _ = serve(&["--trusted-key", "nonsense"]).says("`nonsense` is no public key");
}
