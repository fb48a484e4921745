//! `cargo xtask demo`: the main job on the example flake, twice.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Result;
use crate::nix::ensure_nix;
use crate::process::{cargo, in_words, root, run, say, status, target};

/// What one run gave.
struct Ran {
    exit_code: Option<i32>,
    seconds: f64,
    built: u64,
    cached: u64,
    targets: u64,
}

pub(crate) fn demo() -> Result<()> {
    ensure_nix()?;
    run(&mut cargo(&["build", "--release", "--package", "phoenix-cli"]))?;
    let place = Place::new()?;
    say("\n--- first run: everything is built\n");
    let first = place.phoenix("first", &place.flake)?;
    say("\n--- second run: nothing has changed\n");
    let second = place.phoenix("second", &place.flake)?;
    say("\n--- what a failure looks like (it is meant to fail)\n");
    let broken = place.phoenix("broken", &format!("{}#broken", place.flake))?;
    say("\n");

    let green = |ran: &Ran| ran.exit_code == Some(0) && ran.targets > 0;
    if !green(&first) || first.built == 0 {
        return Err(format!("the first run was to build everything, and {}", in_short(&first)));
    }
    if !green(&second) || second.built != 0 || second.cached != second.targets {
        return Err(format!("the second run was to build nothing, and {}", in_short(&second)));
    }
    if broken.exit_code != Some(100) {
        return Err(format!("the red run was to end with exit code 100, and {}", in_short(&broken)));
    }
    say(&format!(
        "first run:  {} derivations built for {} targets in {:.1} s\n\
         second run: {} built, {} targets cached, in {:.1} s ({:.0} % of the first)\n\
         red run:    exit code 100, as it should be\n\
         reports:    {}/{{first,second,broken}}.{{json,md,xml,events.jsonl}}\n",
        first.built,
        first.targets,
        first.seconds,
        second.built,
        second.cached,
        second.seconds,
        100.0 * second.seconds / first.seconds.max(0.001),
        place.directory.display()
    ));
    Ok(())
}

fn in_short(ran: &Ran) -> String {
    format!(
        "built {} derivations for {} targets, {} of them cached ({})",
        ran.built,
        ran.targets,
        ran.cached,
        in_words(ran.exit_code)
    )
}

struct Place {
    phoenix: PathBuf,
    directory: PathBuf,
    flake: String,
}

impl Place {
    /// A fresh Nix store and a copy of the example, so that nothing of the user's is touched.
    fn new() -> Result<Self> {
        let target = target()?;
        let directory = target.join("demo");
        let text = |error: std::io::Error| format!("cannot prepare the demo: {error}");
        if directory.exists() {
            // Store objects are read-only.
            run(Command::new("chmod").args(["-R", "u+w"]).arg(&directory))?;
            fs_err::remove_dir_all(&directory).map_err(text)?;
        }
        for name in ["flake", "nix/etc", "nix/home"] {
            fs_err::create_dir_all(directory.join(name)).map_err(text)?;
        }
        fs_err::copy(root().join("examples/flake/flake.nix"), directory.join("flake/flake.nix"))
            .map_err(text)?;
        // No sandbox: it needs rights that not everybody has.
        let configuration = "sandbox = false\nbuild-users-group =\nsubstituters =\n";
        fs_err::write(directory.join("nix/etc/nix.conf"), configuration).map_err(text)?;
        let flake = format!("path:{}", directory.join("flake").display());
        Ok(Self { phoenix: target.join("release/phoenix"), directory, flake })
    }

    fn phoenix(&self, name: &str, installable: &str) -> Result<Ran> {
        let nix = self.directory.join("nix");
        let report = self.directory.join(format!("{name}.json"));
        let mut command = Command::new(&self.phoenix);
        command
            .args(["run", installable, "--events"])
            .arg(self.directory.join(format!("{name}.events.jsonl")));
        for (format, ending) in [("json", "json"), ("markdown", "md"), ("junit", "xml")] {
            command.arg("--result-file").arg(self.directory.join(format!("{name}.{ending}")));
            command.args(["--result-format", format]);
        }
        command
            .env("NIX_STORE_DIR", nix.join("store"))
            .env("NIX_STATE_DIR", nix.join("var/nix"))
            .env("NIX_LOCALSTATE_DIR", nix.join("var"))
            .env("NIX_LOG_DIR", nix.join("var/log"))
            .env("NIX_CONF_DIR", nix.join("etc"))
            .env("NIX_USER_CONF_FILES", nix.join("etc/nix.conf"))
            .env("XDG_CACHE_HOME", nix.join("home/cache"))
            .env("XDG_STATE_HOME", nix.join("home/state"))
            .env_remove("NIX_CONFIG")
            .env_remove("NIX_REMOTE");
        let exit_code = status(&mut command)?;
        read(&report, exit_code)
    }
}

fn read(report: &Path, exit_code: Option<i32>) -> Result<Ran> {
    let text = fs_err::read_to_string(report).map_err(|error| format!("the run wrote no report: {error}"))?;
    let report: Value =
        serde_json::from_str(&text).map_err(|error| format!("the report is no JSON: {error}"))?;
    let count = |of: &str, verdict: &str| report["summary"][of][verdict].as_u64().unwrap_or(0);
    Ok(Ran {
        exit_code,
        seconds: report["seconds"].as_f64().unwrap_or(0.0),
        built: count("derivations", "built"),
        cached: count("targets", "cached"),
        targets: report["targets"].as_array().map_or(0, |targets| u64::try_from(targets.len()).unwrap_or(0)),
    })
}
