//! Provisos: bash scripts that say by their exit code whether an action has work.

mod note;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::answer::shortened;
use crate::child;
use crate::{Answer, GateError};
use note::Note;

/// A proviso and what it is asked about.
#[derive(Debug, Clone)]
pub struct Proviso {
    /// The script. It need not be executable.
    pub file: PathBuf,
    /// The action's compact JSON, its first argument.
    pub action: String,
    /// Variables that it gets besides those that we have, and without a value those that it does not get.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// How long it may take.
    pub time_out: Duration,
}

impl Proviso {
    /// Asks. Dropping the future ends the script and whatever it started.
    ///
    /// # Errors
    ///
    /// Where there is no answer: an exit code other than 0 and 1, a signal, a time-out, or a command that failed in the
    /// middle and ended the script with its own exit code 1.
    pub async fn ask(&self) -> Result<Answer<()>, GateError> {
        let start =
            |source| GateError::Start { program: format!("bash for {}", self.file.display()), source };
        let ending_note = Note::new(&self.env).map_err(start)?;
        let mut command = Command::new("bash");
        command.args(["-o", "errexit", "-o", "nounset", "-o", "pipefail", "--"]);
        command.arg(&self.file).arg(&self.action).stdout(Stdio::null()).stderr(Stdio::piped());
        child::set_env(&mut command, &self.env);
        command.env("BASH_ENV", ending_note.file());
        let proviso = || format!("proviso {}", self.file.display());
        let finished = tokio::time::timeout(self.time_out, child::run(command))
            .await
            .map_err(|_| GateError::TimeOut { gate: proviso(), after: self.time_out })?
            .map_err(start)?;
        match finished.status.code() {
            Some(0) => Ok(Answer::Work(())),
            Some(1) => match ending_note.died_of(&self.file, &finished.stderr) {
                None => Ok(Answer::None { reason: reason(&finished.stderr) }),
                Some(command) => Err(GateError::ProvisoDied {
                    proviso: proviso(),
                    command,
                    stderr: last_lines(&finished.stderr),
                }),
            },
            _ => Err(GateError::Proviso {
                proviso: proviso(),
                ending: ending(finished.status),
                stderr: last_lines(&finished.stderr),
            }),
        }
    }
}

/// The last line of stderr is the best reason there is.
fn reason(stderr: &str) -> String {
    match stderr.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!("its proviso says no: {}", shortened(line.trim())),
        None => "its proviso says no".to_owned(),
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn last_lines(stderr: &str) -> String {
    let lines: Vec<_> = stderr.lines().collect();
    let last = &lines[lines.len().saturating_sub(20)..];
    last.iter().map(|line| shortened(line)).collect::<Vec<_>>().join("\n")
}
