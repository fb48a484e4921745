//! What a script may ask of the machine: programs, and Nix's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use super::IsKept;
use crate::child;

/// Where Nix is, and what it is always told.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) bin: Option<PathBuf>,
    pub(super) nix_args: Vec<String>,
    pub(super) env: Vec<(OsString, Option<OsString>)>,
    pub(super) is_kept: IsKept,
}

impl Host {
    /// Answers a call with `{"ok": …}` or `{"error": …}`; the prelude throws the latter.
    pub(super) async fn call(&self, name: &str, args: &str) -> String {
        if name == "kept" {
            let drv: Result<(String,), _> = serde_json::from_str(args);
            return json!({ "ok": drv.is_ok_and(|(drv,)| (self.is_kept.0)(&drv)) }).to_string();
        }
        if name == "sleep" {
            let time: Result<(f64,), _> = serde_json::from_str(args);
            let seconds = time.map_or(0.0, |(milliseconds,)| milliseconds / 1000.0);
            tokio::time::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default()).await;
            return json!({ "ok": null }).to_string();
        }
        let answered = match self.command(name, args) {
            Ok((program, mut command, changes)) => {
                child::set_env(&mut command, &self.env);
                child::set_env(&mut command, &changes);
                finished(&program, command).await
            }
            Err(error) => Err(error),
        };
        answered.map_or_else(|error| json!({ "error": error }), |ok| json!({ "ok": ok })).to_string()
    }

    /// The variables that programs have, as an object. What is no UTF-8 is left out.
    pub(super) fn variables(&self) -> String {
        let mut all: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        for (name, value) in &self.env {
            let Some(name) = name.to_str() else { continue };
            match value.as_ref().and_then(|value| value.to_str()) {
                Some(value) => drop(all.insert(name.to_owned(), value.to_owned())),
                None => drop(all.remove(name)),
            }
        }
        json!(all).to_string()
    }

    /// The program, the command, and what the script changed in its environment.
    fn command(&self, name: &str, args: &str) -> Result<(String, Command, Env), String> {
        let wrong = |error| format!("{name} takes strings: {error}");
        if name == "exec" {
            let (program, args, changes): (String, Vec<String>, Changes) =
                serde_json::from_str(args).map_err(wrong)?;
            let mut command = Command::new(&program);
            command.args(args);
            return Ok((program, command, env(changes)));
        }
        let (args, changes): (Vec<String>, Changes) = serde_json::from_str(args).map_err(wrong)?;
        let mut command = Command::new(
            self.bin.as_deref().map_or_else(|| PathBuf::from(name), |bin: &Path| bin.join(name)),
        );
        if name == "nix" {
            command.args(["--extra-experimental-features", "nix-command flakes"]);
        }
        command.args(args).args(&self.nix_args);
        Ok((name.to_owned(), command, env(changes)))
    }

    /// Adds to the file that a variable names, as steps tell their runner something; what went wrong, or nothing.
    pub(super) fn append(&self, variable: &str, text: &str) -> String {
        let own = self.env.iter().rev().find(|(name, _)| name == variable);
        let file = own.map_or_else(|| std::env::var_os(variable), |(_, value)| value.clone());
        let Some(file) = file.filter(|file| !file.is_empty()) else { return String::new() };
        let file = std::fs::OpenOptions::new().append(true).create(true).open(PathBuf::from(file));
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written
            .err()
            .map(|error| format!("cannot write to the file in {variable}: {error}"))
            .unwrap_or_default()
    }
}

/// Variables by name; those without a value are taken away.
type Changes = BTreeMap<String, Option<String>>;
type Env = Vec<(OsString, Option<OsString>)>;

fn env(changes: Changes) -> Env {
    changes.into_iter().map(|(name, value)| (name.into(), value.map(Into::into))).collect()
}

async fn finished(program: &str, mut command: Command) -> Result<Value, String> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = child::run(command).await.map_err(|error| format!("cannot start {program}: {error}"))?;
    // As in Node, what a signal ended has no exit code.
    Ok(json!({ "stdout": done.stdout, "stderr": done.stderr, "exitCode": done.status.code() }))
}
