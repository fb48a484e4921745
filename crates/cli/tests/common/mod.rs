//! A phoenix with a Nix store of its own.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

pub(crate) mod sixty;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use phoenix_testkit::NixRoot;
use phoenix_testkit::github::Github;
use serde_json::Value;

/// A throw-away world for one test.
pub(crate) struct TestEnv {
    pub(crate) nix: NixRoot,
    daemon: bool,
}

/// How a run of phoenix ended.
#[must_use = "look at how it ended"]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestEnv {
    pub(crate) fn new() -> Self {
        let this = Self { nix: NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR"))), daemon: false };
        if let Ok(expected) = std::env::var("PHOENIX_TEST_NIX_VERSION") {
            let version = this.nix.run("nix", &["--version"]);
            assert!(version.ends_with(&expected), "the wrong Nix: {version}, not {expected}");
        }
        this
    }

    /// The same through a daemon, which has to be started.
    pub(crate) fn through_daemon(mut self) -> Self {
        self.daemon = true;
        self
    }

    /// This machine's system in Nix's words.
    pub(crate) fn system(&self) -> String {
        let os = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
        format!("{}-{os}", std::env::consts::ARCH)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = self.nix.command(env!("CARGO_BIN_EXE_phoenix"));
        if self.daemon {
            command.env("NIX_REMOTE", "daemon");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A phoenix of a job with this token of its run.
    pub(crate) fn in_job(&self, github: &Github, token: &str) -> Command {
        let mut command = self.command();
        command.env("ACTIONS_RESULTS_URL", github.url()).env("ACTIONS_RUNTIME_TOKEN", token);
        command
    }

    pub(crate) fn phoenix(&self, args: &[&str]) -> Ran {
        Ran::from(self.command().args(args).output().expect("phoenix"))
    }

    /// A run whose report is wanted.
    pub(crate) fn report(&self, args: &[&str]) -> (Ran, Report) {
        let ran = self.phoenix(&[&["run", "--json"], args].concat());
        let json = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
        (ran, Report(json))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.nix.path("home").join(name)
    }

    /// A depot that outlives the store.
    pub(crate) fn depot(&self) -> String {
        format!("dir:{}", self.file("depot").display())
    }

    /// Takes the store away, as on a new machine.
    pub(crate) fn forget_store(&self) {
        self.nix.run("chmod", &["-R", "u+w", &self.nix.store_dir()]);
        fs_err::remove_dir_all(self.nix.store_dir()).unwrap();
        fs_err::remove_dir_all(self.nix.path("var/nix")).unwrap();
        fs_err::create_dir_all(self.nix.path("var/nix")).unwrap();
    }

    /// What Nix says of a path with all that it refers to, once it found nothing wrong with the store.
    pub(crate) fn sound(&self, path: &str) -> String {
        let verified = self.nix.output("nix-store", &["--verify", "--check-contents"]);
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(verified.status.success() && !said.contains("error") && !said.contains("modified"), "{said}");
        let closure = self.nix.run("nix-store", &["--query", "--requisites", path]);
        let paths: Vec<&str> = closure.lines().collect();
        let hashes = self.nix.run("nix-store", &[&["--query", "--hash"], paths.as_slice()].concat());
        format!("{closure}\n{hashes}")
    }

    /// The file of a new secret key, and its public key.
    pub(crate) fn key(&self, name: &str) -> (String, String) {
        let file = |end: &str| self.file(&format!("{name}.{end}")).display().to_string();
        self.nix.run("nix-store", &["--generate-binary-cache-key", name, &file("sec"), &file("pub")]);
        (file("sec"), fs_err::read_to_string(file("pub")).unwrap().trim().to_owned())
    }

    /// The path of an output as a run reports it.
    pub(crate) fn output(&self, flake: &phoenix_testkit::Flake, name: &str) -> String {
        let (ran, report) = self.report(&[&flake.reference()]);
        let _ = ran.ends_with(0);
        let attr = format!("packages.{}.{name}", self.system());
        report.field(&attr, "outputs")["out"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn start(env: &TestEnv, args: &[&str]) -> Child {
    env.command().args(args).spawn().unwrap()
}

pub(crate) fn end(child: Child) -> Ran {
    Ran::from(child.wait_with_output().unwrap())
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Ran {
    /// Asserts the exit code.
    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Asserts that something was said on stderr.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no `{text}` in {self}");
        self
    }
}

/// A report as JSON.
pub(crate) struct Report(pub(crate) Value);

impl Report {
    fn target(&self, attr: &str) -> &Value {
        let targets = self.0["targets"].as_array().expect("targets");
        let found: Vec<&Value> = targets.iter().filter(|target| target["attr"] == attr).collect();
        assert_eq!(found.len(), 1, "{attr} in {:#}", self.0);
        found[0]
    }

    /// The verdict of a package by its name.
    pub(crate) fn verdict(&self, attr: &str) -> &str {
        self.target(attr)["verdict"].as_str().expect("a verdict")
    }

    pub(crate) fn field(&self, attr: &str, name: &str) -> &Value {
        &self.target(attr)[name]
    }

    pub(crate) fn attrs(&self) -> Vec<String> {
        let targets = self.0["targets"].as_array().expect("targets");
        let mut attrs: Vec<String> =
            targets.iter().map(|target| target["attr"].as_str().unwrap().to_owned()).collect();
        attrs.sort();
        attrs
    }

    pub(crate) fn count(&self, of: &str, verdict: &str) -> u64 {
        self.0["summary"][of][verdict].as_u64().expect("a count")
    }
}
