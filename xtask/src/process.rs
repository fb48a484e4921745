//! Running programs.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Result;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// What cargo knows of the workspace.
pub(crate) fn metadata() -> Result<Value> {
    let text = output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]))
        .ok_or("`cargo metadata` failed; run it to see why")?;
    serde_json::from_str(&text).map_err(|error| format!("`cargo metadata` printed no JSON: {error}"))
}

/// Where cargo builds to.
pub(crate) fn target() -> Result<PathBuf> {
    let metadata = metadata()?;
    let directory = metadata["target_directory"].as_str();
    directory.map(PathBuf::from).ok_or_else(|| "`cargo metadata` names no target directory".to_owned())
}

/// A call of cargo in the repository.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Says something on stderr.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Runs a program to its end; an error when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let code = status(command)?;
    if code == Some(0) { Ok(()) } else { Err(format!("`{}` failed ({})", shown(command), in_words(code))) }
}

/// Runs a program to its end; its exit code, or none when a signal ended it.
pub(crate) fn status(command: &mut Command) -> Result<Option<i32>> {
    let status = command.stdin(Stdio::null()).status();
    status.map(|status| status.code()).map_err(|error| format!("cannot start `{}`: {error}", shown(command)))
}

/// Runs a program and returns what it printed, if it went well.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program is on PATH.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).as_deref() == Some("0")
}

/// An exit code for people.
pub(crate) fn in_words(code: Option<i32>) -> String {
    code.map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit code {code}"))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
