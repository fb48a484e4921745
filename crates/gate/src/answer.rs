//! What a gate answers.

use std::time::Duration;

use serde::Deserialize;

/// What a gate that could be asked says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<W> {
    /// There is work.
    Work(W),
    /// There is none.
    None {
        /// Why, for people.
        reason: String,
    },
}

/// What a `findWork` found: attributes to build, and to run once they are built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Work {
    /// Attributes to build.
    #[serde(default)]
    pub build: Vec<String>,
    /// Attributes to run.
    #[serde(default)]
    pub run: Vec<String>,
}

/// Why a gate gave no answer. Its target is red.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// What was to be started.
        program: String,
        /// Why it was not.
        source: std::io::Error,
    },
    /// A proviso ended with an exit code that is no answer, or by a signal.
    #[error("{proviso} ended with {ending}, which is neither 0 (work) nor 1 (no work){}", indented(.stderr))]
    Proviso {
        /// Its file.
        proviso: String,
        /// Its exit code or signal.
        ending: String,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// It took too long, and was ended.
    #[error("{gate} was ended after {} s: it took too long", .after.as_secs_f64())]
    TimeOut {
        /// Which gate.
        gate: String,
        /// How long it had.
        after: Duration,
    },
    /// A script threw.
    #[error("findWork of {attr_path} threw: {message}")]
    Threw {
        /// Whose.
        attr_path: String,
        /// The script's own message, with its line.
        message: String,
    },
    /// A script took more memory than it may.
    #[error("findWork of {attr_path} needs more than its {limit} bytes of memory")]
    Memory {
        /// Whose.
        attr_path: String,
        /// What it may take.
        limit: usize,
    },
    /// A script called `core.setFailed`.
    #[error("findWork of {attr_path} says that it failed: {message}")]
    SaidFailed {
        /// Whose.
        attr_path: String,
        /// What it said.
        message: String,
    },
    /// A script returned something else.
    #[error(
        "findWork of {attr_path} has to return {{build: [names], run: [names]}}, and returned {returned}: {cause}"
    )]
    Shape {
        /// Whose.
        attr_path: String,
        /// The beginning of what it returned.
        returned: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A proviso died of a command, with the exit code that says "no work".
    #[error(
        "{proviso} died of `{command}` (exit code 1): that is no answer, `exit 1` says that there is no work{}",
        indented(.stderr)
    )]
    ProvisoDied {
        /// Its file.
        proviso: String,
        /// What it died of.
        command: String,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// An image has a name that is none.
    #[error("image {image}: {cause}")]
    ImageName {
        /// What was given.
        image: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A registry does not say whether it has an image.
    #[error("unknown whether image {image} exists: {cause}")]
    ImageUnknown {
        /// Its name.
        image: String,
        /// Why.
        cause: String,
    },
    /// The engine itself did not work.
    #[error("the JavaScript engine failed for {attr_path}: {cause}")]
    Engine {
        /// Whose script it was to run.
        attr_path: String,
        /// What it said.
        cause: String,
    },
}

impl GateError {
    /// The same with what a script said changed.
    pub(crate) fn with_message(mut self, change: impl Fn(String) -> String) -> Self {
        if let Self::Threw { message, .. }
        | Self::SaidFailed { message, .. }
        | Self::Shape { returned: message, .. } = &mut self
        {
            *message = change(std::mem::take(message));
        }
        self
    }
}

/// How many bytes of one thing somebody says are shown.
const SHOWN: usize = 16 << 10;

/// The beginning of a text, and how much more there is.
pub(crate) fn shortened(text: &str) -> String {
    if text.len() <= SHOWN {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(SHOWN);
    format!("{}… ({} bytes more)", &text[..end], text.len() - end)
}

/// Lines of output below a message.
fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("\n  | {line}")).collect()
}
