//! One evaluator process: a stock `nix repl` behind pipes.
//!
//! A question is a Nix expression on one line, followed by a marker that is asked for as well; what is
//! printed up to the marker is the answer. The answer's own line begins with a mark that nobody else
//! knows, so that nothing a flake prints can be taken for it.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use phoenix_store::{Nix, strip_ansi};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::trace::tidy;

/// How evaluation is kept from reading what it should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purity {
    /// As `nix build` without `--impure`.
    Pure,
    /// For versions whose repl is never pure (2.8): no environment, no files outside the store.
    Restricted,
    /// Everything may be read.
    Impure,
}

/// What an evaluator answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The text after the mark.
    Text(String),
    /// Nix's error.
    Error(String),
    /// The process ended over it.
    Died(String),
    /// We were told to stop.
    Stopped,
}

/// A running evaluator. Dropping it ends the process; until then it protects what it instantiated from
/// the garbage collector.
#[derive(Debug)]
pub(crate) struct Evaluator {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    mark: String,
    asked: u64,
    _home: tempfile::TempDir,
}

impl Evaluator {
    /// Starts a process and gives it definitions, each an assignment on one line.
    pub(crate) fn start(
        nix: &Nix,
        purity: Purity,
        flags: &[&str],
        definitions: &[String],
    ) -> io::Result<Self> {
        // The repl writes a history file; not into the user's.
        let home = tempfile::Builder::new().prefix("phoenix-eval-").tempdir()?;
        let mark = mark(home.path());
        let mut command = nix.nix(&["repl"]);
        command.args(flags);
        match purity {
            Purity::Pure => {
                command.args(["--option", "pure-eval", "true"]);
            }
            Purity::Restricted => {
                command.args(["--option", "restrict-eval", "true", "--option", "allowed-uris"]);
                command.arg("http:// https:// ssh:// git:// git+ssh:// git+https:// file:// path: git+file:// github: gitlab: sourcehut:");
                command.env("NIX_PATH", "");
            }
            Purity::Impure => {}
        }
        let (output, writer) = io::pipe()?;
        command
            .env("XDG_DATA_HOME", home.path())
            .env("NO_COLOR", "1")
            .env("TERM", "dumb")
            .stdin(std::process::Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        let mut child = command.spawn()?;
        drop(command);
        let stdin = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the evaluator"))?;
        let (sender, lines) = crossbeam_channel::bounded(1024);
        std::thread::spawn(move || {
            let mut reader = BufReader::with_capacity(1 << 16, output);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(count) if count > 0) {
                let text = strip_ansi(&String::from_utf8_lossy(&line));
                line.clear();
                if sender.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                    return;
                }
            }
        });
        let mut this = Self { child, stdin, lines, mark, asked: 0, _home: home };
        for definition in definitions {
            this.send(definition)?;
        }
        Ok(this)
    }

    /// The mark an answer has to begin with, as a Nix string.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    /// Gives it one more definition.
    pub(crate) fn define(&mut self, definition: &str) -> io::Result<()> {
        self.send(definition)
    }

    /// Asks for the value of an expression, a string that begins with the mark. `talk` gets the lines
    /// that are neither answer nor error, as they come.
    pub(crate) fn ask(&mut self, expression: &str, stop: &AtomicBool, talk: &mut dyn FnMut(&str)) -> Answer {
        self.asked += 1;
        let number = self.asked;
        let sent = self.send(expression).and_then(|()| {
            // Put together by Nix, so that the echo of this line is not taken for the end.
            self.send(&format!("\"{} \" + \"end {number}\"", self.mark))
        });
        let end = format!("\"{} end {number}\"", self.mark);
        let value = format!("\"{}", self.mark);
        let mut answer = None;
        let mut error: Option<Vec<String>> = None;
        loop {
            let line = match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => return Answer::Stopped,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    return Answer::Died(self.last_words(&error.unwrap_or_default(), sent.err()));
                }
            };
            if line == end {
                break;
            }
            // The echo of what was asked.
            if line.starts_with("nix-repl>") {
                continue;
            }
            if let Some(text) = line.strip_prefix(&value) {
                answer = unquote(text);
            } else if let Some(lines) = &mut error {
                lines.push(line);
            } else if line.starts_with("error:") {
                error = Some(vec![line]);
            } else if !line.trim().is_empty() {
                talk(&line);
            }
        }
        match (answer, error) {
            (Some(text), _) => Answer::Text(text),
            (None, Some(lines)) => Answer::Error(tidy(&lines)),
            (None, None) => Answer::Error("the evaluator answered nothing that can be read".to_owned()),
        }
    }

    fn send(&mut self, line: &str) -> io::Result<()> {
        self.stdin.write_all(line.as_bytes())?;
        self.stdin.write_all(b"\n")?;
        self.stdin.flush()
    }

    fn last_words(&mut self, lines: &[String], sent: Option<io::Error>) -> String {
        let end = match self.child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (_, Some(11 | 7 | 10)) => {
                    "the evaluator crashed, most likely because its stack overflowed (infinite recursion)"
                        .to_owned()
                }
                (_, Some(9)) => "the evaluator was killed, maybe for want of memory".to_owned(),
                (_, Some(signal)) => format!("the evaluator was ended by signal {signal}"),
                (Some(code), None) => format!("the evaluator ended with exit code {code}"),
                (None, None) => "the evaluator ended".to_owned(),
            },
            Err(error) => format!("the evaluator ended ({error})"),
        };
        let said = tidy(lines);
        match (said.is_empty(), sent) {
            (false, _) => format!("{said}\n({end})"),
            (true, Some(error)) => format!("{end} ({error})"),
            (true, None) => end,
        }
    }
}

impl Drop for Evaluator {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A word nobody can know beforehand: the random name of a directory made for this process.
fn mark(directory: &std::path::Path) -> String {
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("@@{name}@@")
}

/// Reads the rest of a string as the repl prints it, up to its closing quote.
fn unquote(text: &str) -> Option<String> {
    let body = text.strip_suffix('"')?;
    let mut plain = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => plain.push(match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            }),
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// A text as a Nix string literal on one line.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' | '$' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quoting_and_unquoting_are_one(text in "[a-z\"\\\\\n\t${}é ]{0,30}") {
            let quoted = quote(&text);
            prop_assert_eq!(unquote(quoted.strip_prefix('"').unwrap()).unwrap(), text);
        }
    }
}
