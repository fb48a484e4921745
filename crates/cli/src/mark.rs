//! What tells lines of ours from those of builders, for a program that shows both.

use std::io::{IsTerminal, Read, stdin};

use crate::talk;

/// How many characters a mark has at least: nobody guesses it.
const SHORTEST: usize = 16;

/// How many bytes are read at most in search of one.
const LONGEST: u64 = 256;

/// A text that nobody who prints knows: not from arguments nor the environment, which builders and actions may see.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Mark(String);

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mark")
    }
}

impl Mark {
    /// Reads it from standard input, where whoever started us wrote it. Without one, nothing is marked.
    pub(crate) fn read() -> Option<Self> {
        let mut bytes = Vec::new();
        // Whoever gives a mark closes its end after it.
        let read = !stdin().is_terminal() && stdin().lock().take(LONGEST).read_to_end(&mut bytes).is_ok();
        let mark = read.then(|| Self::of(&bytes)).flatten();
        if mark.is_none() {
            talk::stderr("warning: there is no mark on standard input: logs are not in groups\n");
        }
        mark
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\n');
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (text.len() >= SHORTEST && is_plain).then(|| Self(text.to_owned()))
    }

    /// The line with which a group begins.
    pub(crate) fn begin(&self, title: &str) -> String {
        format!("{} begin {title}", self.0)
    }

    /// The line with which it ends.
    pub(crate) fn end(&self) -> String {
        format!("{} end", self.0)
    }

    /// The line that has an error shown beside the run: a command of GitHub's runner, without its first two colons.
    pub(crate) fn error(&self, title: &str, text: &str) -> String {
        let command = phoenix_github::error(title, text);
        format!("{} {}", self.0, command.trim_start_matches(':').trim_end_matches('\n'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_long_and_plain_and_not_shown() {
        let mark = Mark::of(b"0123-4567-89ab-cdef\n").unwrap();
        assert_eq!(mark.begin("built x"), "0123-4567-89ab-cdef begin built x");
        assert_eq!(mark.end(), "0123-4567-89ab-cdef end");
        let error = mark.error("x: failed", "why\n::error::evil");
        assert_eq!(error, "0123-4567-89ab-cdef error title=x%3A failed::why%0A::error::evil");
        assert_eq!(format!("{mark:?}"), "Mark");
        for bad in ["", "\n", "short", "0123456789abcdef x", "0123456789abcdef\n\u{e4}", "::0123456789abcdef"]
        {
            assert_eq!(Mark::of(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
