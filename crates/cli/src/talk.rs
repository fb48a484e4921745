//! Writing to stdout (data) and stderr (talk).
//!
//! A closed pipe is no error: whoever read it has seen enough.

use std::io::{self, IsTerminal, Write};

/// Writes to stderr at once.
pub(crate) fn stderr(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

/// Writes to stdout at once; whether somebody still reads.
pub(crate) fn stdout(text: &str) -> bool {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_ok()
}

/// What stderr can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// It is a terminal that a picture can be redrawn on.
    pub(crate) live: bool,
    /// It shows colours.
    pub(crate) colour: bool,
}

impl Terminal {
    /// Whether stdout shows colours.
    pub(crate) fn stdout_colour() -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        io::stdout().is_terminal()
            && !set("NO_COLOR")
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Looks at stderr and at `NO_COLOR` (no-color.org), `TERM`, `CI` and `CLICOLOR_FORCE`.
    pub(crate) fn detect() -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = var("TERM").is_some_and(|term| term == "dumb");
        let is_terminal = io::stderr().is_terminal();
        let ci = var("CI").is_some_and(|ci| ci != "false" && ci != "0");
        let forced = var("CLICOLOR_FORCE").is_some_and(|force| force != "0");
        Self {
            live: is_terminal && !dumb && !ci,
            colour: var("NO_COLOR").is_none() && (forced || (is_terminal && !dumb)),
        }
    }
}
