//! What a script ended with, as bash itself notes it.
//!
//! `errexit` and `nounset` end a script with the exit code of the command that failed, which is 1 for most: the code
//! that also says "no work". What bash was at when it ended tells the two apart. The note is written by a trap that is
//! set before the script begins (`BASH_ENV`), so that the script has its own name, lines and arguments. A script with
//! an `EXIT` trap of its own, or one that replaces itself (`exec`), leaves no note, and its exit code is all there is.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::answer::shortened;

/// Commands whose 1 is an answer, where trouble is 2.
const CONDITIONS: &[&str] =
    &["[[", "((", "[", "test", "false", "grep", "egrep", "fgrep", "zgrep", "rg", "diff", "cmp", "return"];

/// What bash reads before the script, and where it notes how that ended.
pub(super) struct Note {
    directory: tempfile::TempDir,
}

impl Note {
    /// `env` is what the script gets besides our own variables.
    pub(super) fn new(env: &[(OsString, Option<OsString>)]) -> io::Result<Self> {
        let this = Self { directory: tempfile::Builder::new().prefix("phoenix-proviso-").tempdir()? };
        let given = env.iter().rev().find(|(name, _)| name == "BASH_ENV");
        let given = given.map_or_else(|| std::env::var_os("BASH_ENV"), |(_, value)| value.clone());
        let mut script = Vec::new();
        match given {
            Some(file) => {
                script.extend(b"BASH_ENV=");
                script.extend(quoted(&file));
                script.extend(b"\nif [ -r \"$BASH_ENV\" ]; then . \"$BASH_ENV\"; fi\n");
            }
            None => script.extend(b"unset BASH_ENV\n"),
        }
        let mut trap = br#"{ printf '%s\n' "${PIPESTATUS[*]}" "$BASH_COMMAND" > "#.to_vec();
        trap.extend(quoted(this.written().as_os_str()));
        trap.extend(b"; } 2>/dev/null || :");
        script.extend(b"trap ");
        script.extend(quoted(OsStr::from_bytes(&trap)));
        script.extend(b" EXIT\n");
        std::fs::write(this.file(), script)?;
        Ok(this)
    }

    /// The file that bash reads first.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.path().join("before")
    }

    fn written(&self) -> PathBuf {
        self.directory.path().join("after")
    }

    /// What a script died of that ended with 1; nothing where that 1 is its answer, as far as can be told.
    pub(super) fn died_of(&self, script: &Path, stderr: &str) -> Option<String> {
        let note = std::fs::read(self.written()).ok()?;
        let note = String::from_utf8_lossy(&note);
        let (statuses, command) = note.split_once('\n')?;
        died_of(statuses, command.trim_end(), script, stderr).then(|| shortened(command.trim_end()))
    }
}

fn died_of(statuses: &str, command: &str, script: &Path, stderr: &str) -> bool {
    let word = command.split([' ', '\t', '\n', ';']).next().unwrap_or_default();
    if word == "exit" {
        return false;
    }
    let last_line = stderr.lines().rev().find(|line| !line.trim().is_empty());
    let Some(last_line) = last_line else { return false };
    // Bash's own complaints begin with the script's name: `nounset` ends also what asks a question.
    if last_line.starts_with(&format!("{}: ", script.display())) {
        return true;
    }
    let statuses: Vec<&str> = statuses.split(' ').collect();
    let (last, earlier) = statuses.split_last().unwrap_or((&"", &[]));
    let earlier_well = earlier.iter().all(|status| *status == "0");
    // `! command` is 1 because the command is 0.
    let is_inverted = *last == "0" && earlier_well;
    let is_condition = (CONDITIONS.contains(&word) || command.starts_with("((")) && earlier_well;
    !is_inverted && !is_condition
}

/// A word of bash.
fn quoted(text: &OsStr) -> Vec<u8> {
    let mut word = vec![b'\''];
    for &byte in text.as_bytes() {
        match byte {
            b'\'' => word.extend(br"'\''"),
            other => word.push(other),
        }
    }
    word.push(b'\'');
    word
}
