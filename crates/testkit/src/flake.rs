//! Fixture flakes.

use std::path::Path;
use std::process::Command;

use fs_err as fs;
use tempfile::TempDir;

/// What fixture flakes begin with: `d NAME SCRIPT ATTRS` is a derivation that runs a shell script.
pub const PREAMBLE: &str = r#"
  system = "SYSTEM";
  d = name: script: attrs: derivation ({
    inherit name system;
    builder = "/bin/sh";
    args = [ "-c" ("PATH=/bin:/usr/bin; " + script) ];
  } // attrs);
  ok = name: d name "echo ${name} > $out" { };
"#;

/// A flake in a directory that goes away.
#[derive(Debug)]
pub struct Flake {
    directory: TempDir,
}

impl Flake {
    /// A flake with these outputs, in the scope of [`PREAMBLE`]; `SYSTEM` in them is this machine's system.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn new(outputs: &str) -> Self {
        let this =
            Self { directory: tempfile::Builder::new().prefix("flake-").tempdir().expect("a directory") };
        this.outputs(outputs);
        this
    }

    /// Gives it other outputs.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn outputs(&self, outputs: &str) {
        self.write("flake.nix", &format!("{{ outputs = {{ self }}: let {PREAMBLE} in {outputs}; }}"));
    }

    /// Writes a file of it; `SYSTEM` in it is this machine's system.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        let file = self.path().join(name);
        fs::create_dir_all(file.parent().expect("a file in the flake")).expect("a directory");
        fs::write(file, text.replace("SYSTEM", &system())).expect("a file");
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A reference to it.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("path:{}", self.path().display())
    }

    /// Makes it a git repository with everything committed.
    ///
    /// # Panics
    /// When git fails.
    pub fn commit(&self) {
        for args in [
            &["init", "--quiet", "--initial-branch=main"][..],
            &["add", "--all"],
            &["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message=x"],
        ] {
            let status = Command::new("git").args(args).current_dir(self.path()).status().expect("git");
            assert!(status.success(), "git {args:?}");
        }
    }
}

/// This machine's system in Nix's words.
#[must_use]
pub(crate) fn system() -> String {
    let os = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    format!("{}-{os}", std::env::consts::ARCH)
}
