//! nix-eval-jobs in the place of evaluators of our own.
//!
//! It is asked the very questions that these are asked: its root is a set with one attribute for each question, a
//! derivation (or a stand-in for what is none) that carries the answer, which `--apply` prints. So what is found is
//! the same by construction, and it spreads the work and bounds the memory as it knows how. It answers no question
//! that came up after it was started; so it is started once for each level of sets, and again after a crash, which it
//! does not survive.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use fs_err as fs;
use phoenix_model::nix32;
use phoenix_store::{Nix, error_text, strip_ansi};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::Value;

use crate::Inspect;
use crate::evaluator::quote;
use crate::explore::Explore;
use crate::names::{FINISH, INSPECT, SEEN, STAND_IN};
use crate::trace::tidy;

/// The program.
const PROGRAM: &str = "nix-eval-jobs";

/// How many questions are put at once: what comes of them may make others needless.
const AT_ONCE: usize = 4096;

/// How often it is looked whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// How many lines of what it says at last are kept.
const LAST_WORDS: usize = 200;

/// Who evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EvaluatorKind {
    /// Processes of the installed Nix.
    #[default]
    Nix,
    /// The nix-eval-jobs on PATH.
    NixEvalJobs,
}

/// What it is started with.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) nix: &'a Nix,
    /// After which `inspect` makes an answer of a function, a path and what is wanted.
    /// The definition of the inputs that are in the store already.
    pub(crate) sources: String,
    pub(crate) definitions: &'a [String],
    pub(crate) inspect: &'a str,
    pub(crate) pure: bool,
    pub(crate) show_trace: bool,
    pub(crate) instantiate: bool,
    pub(crate) workers: usize,
    /// How many MiB each worker may take.
    pub(crate) memory: Option<u64>,
}

/// Why it could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NixEvalJobsError {
    /// There is none.
    #[error("no `nix-eval-jobs` on PATH")]
    NotFound,
    /// What it needs could not be prepared, or it not be started.
    #[error("cannot start `nix-eval-jobs`")]
    Start(#[source] std::io::Error),
    /// The questions could not be handed over.
    #[error("cannot hand the questions over to `nix-eval-jobs`")]
    Nix(#[from] phoenix_store::NixError),
    /// It ended without an answer to anything.
    #[error("`nix-eval-jobs` failed: {0}")]
    Failed(String),
}

/// What is heard of it.
pub(crate) enum Event<'a> {
    /// The answer to a question.
    Answer(&'a Inspect, Result<String, String>),
    /// A line that is none.
    Said(&'a str),
    /// Nothing for a moment.
    Waiting,
}

/// Links that keep what was evaluated from the garbage collector.
#[derive(Debug)]
pub(crate) struct Kept {
    _directory: tempfile::TempDir,
}

/// Has it answer all questions of a walk. `hear` gets what is found, and what is heard besides.
///
/// # Errors
/// When it cannot be used.
pub(crate) fn explore(
    start: &Start<'_>,
    explore: &mut dyn Explore,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(&mut dyn Explore, Event<'_>),
) -> Result<Option<Kept>, NixEvalJobsError> {
    let directory =
        tempfile::Builder::new().prefix("phoenix-roots-").tempdir().map_err(NixEvalJobsError::Start)?;
    while !stop.load(Ordering::Relaxed) {
        let mut questions = Vec::new();
        while questions.len() < AT_ONCE
            && let Some(inspect) = explore.take_next()
        {
            questions.push(inspect);
        }
        if questions.is_empty() {
            break;
        }
        let mut hear = |event: Event<'_>| hear(explore, event);
        ask(start, questions, directory.path(), stop, &mut hear)?;
    }
    Ok(start.instantiate.then_some(Kept { _directory: directory }))
}

/// Asks questions until each has an answer.
fn ask(
    start: &Start<'_>,
    mut questions: Vec<Inspect>,
    roots: &std::path::Path,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Event<'_>),
) -> Result<(), NixEvalJobsError> {
    while !questions.is_empty() {
        let expression = hand_over(start, &questions)?;
        let ran = run(start, &expression, &questions, roots, stop, hear)?;
        let Some(Ran { answered, failure }) = ran else { return Ok(()) };
        let none = answered.iter().all(|answered| !answered);
        let mut left = Vec::new();
        for (number, (inspect, answered)) in questions.into_iter().zip(answered).enumerate() {
            match &failure {
                _ if answered => {}
                Some(failure) if failure.names(number) => {
                    hear(Event::Answer(&inspect, Err(failure.in_words())));
                }
                _ => left.push(inspect),
            }
        }
        if none && failure.as_ref().is_none_or(|failure| failure.question.is_none()) {
            let words = failure.map(|failure| failure.words);
            return Err(NixEvalJobsError::Failed(words.unwrap_or_else(|| "it answered nothing".to_owned())));
        }
        questions = left;
    }
    Ok(())
}

/// Writes the questions to the store, where pure evaluation may read them; returns what leads to them.
fn hand_over(start: &Start<'_>, questions: &[Inspect]) -> Result<String, NixEvalJobsError> {
    let attributes: Vec<String> = (0..)
        .zip(questions)
        .map(|(number, inspect): (usize, _)| format!("q{number} = {};", inspect.question()))
        .collect();
    let file = format!(
        "let\n{SEEN} = name: value: value;\n{};\n{};\n{STAND_IN} = derivation {{ name = \"phoenix-answer\"; system = \"builtin\"; builder = \"builtin:phoenix\"; }};\n\
         {FINISH} = value: reply: (if reply.kind == \"derivation\" then value else {STAND_IN}) // {{ phoenixReply = reply; }};\n\
         {INSPECT} = {} {FINISH};\nin {{\n{}\n}}\n",
        start.sources,
        start.definitions.join(";\n"),
        start.inspect,
        attributes.join("\n")
    );
    let directory =
        tempfile::Builder::new().prefix("phoenix-questions-").tempdir().map_err(NixEvalJobsError::Start)?;
    let questions = directory.path().join("questions");
    fs::create_dir(&questions).map_err(NixEvalJobsError::Start)?;
    fs::write(questions.join("default.nix"), file).map_err(NixEvalJobsError::Start)?;
    let path = start.nix.run(start.nix.nix_store("--add").arg(&questions), "nix-store --add")?;
    let path = path.trim();
    let hash =
        start.nix.run(start.nix.nix_store("--query").args(["--hash", path]), "nix-store --query --hash")?;
    Ok(format!(
        "import (fetchTree {{ type = \"path\"; path = {}; narHash = {}; }} + \"/default.nix\")",
        quote(path),
        quote(&sri(hash.trim()))
    ))
}

/// A hash as `nix-store --query --hash` tells it, in the form that all versions take for a `narHash`.
fn sri(hash: &str) -> String {
    let bytes = hash.strip_prefix("sha256:").and_then(nix32::decode);
    bytes.map_or_else(|| hash.to_owned(), |bytes| format!("sha256-{}", BASE64_STANDARD.encode(bytes)))
}

/// How a run of the program ended.
struct Ran {
    /// Which questions have an answer.
    answered: Vec<bool>,
    failure: Option<Failure>,
}

/// Why it ended before its time.
struct Failure {
    /// In its words.
    words: String,
    /// The number of the question over which it ended, if it says so.
    question: Option<usize>,
}

impl Failure {
    fn of(said: &[String], status: &str) -> Self {
        let words = error_text(&said.join("\n"));
        let words = if words.trim().is_empty() { format!("it ended with {status}") } else { words };
        let name = words.split_once("attrPath 'q").and_then(|(_, rest)| rest.split_once('\''));
        let question = name.and_then(|(number, _)| number.parse().ok());
        Self { words, question }
    }

    fn names(&self, number: usize) -> bool {
        self.question == Some(number)
    }

    /// As a crash of an evaluator is told.
    fn in_words(&self) -> String {
        let words = self.words.lines().next_back().unwrap_or_default();
        let words = match words.split_once("evaluation worker ") {
            Some((_, what)) => what,
            None => words,
        };
        format!("the evaluator crashed: {}", words.trim_start_matches("error:").trim())
    }
}

/// One line of its output.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(default)]
    attr_path: Vec<String>,
    error: Option<String>,
    extra_value: Option<Value>,
}

enum Told {
    Line(String),
    Said(String),
}

fn run(
    start: &Start<'_>,
    expression: &str,
    questions: &[Inspect],
    roots: &std::path::Path,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Event<'_>),
) -> Result<Option<Ran>, NixEvalJobsError> {
    let mut child = spawn(start, expression, roots)?;
    let (sender, told) = unbounded();
    read(child.stdout.take(), sender.clone(), Told::Line);
    read(child.stderr.take(), sender, Told::Said);
    let mut answered = vec![false; questions.len()];
    let mut said = Vec::new();
    let mut errors: HashMap<String, ()> = HashMap::new();
    loop {
        match told.recv_timeout(TICK) {
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                end(&mut child);
                return Ok(None);
            }
            Err(RecvTimeoutError::Timeout) => hear(Event::Waiting),
            Err(RecvTimeoutError::Disconnected) => break,
            Ok(Told::Said(line)) => {
                let line = strip_ansi(&line);
                if said.len() == LAST_WORDS {
                    said.remove(0);
                }
                if line.starts_with("warning:")
                    || line.starts_with("trace:")
                    || line.starts_with("building '")
                {
                    hear(Event::Said(&line));
                } else {
                    said.push(line);
                }
            }
            Ok(Told::Line(text)) => {
                let Ok(line) = serde_json::from_str::<Line>(&text) else { continue };
                let number =
                    line.attr_path.first().and_then(|name| name.strip_prefix('q')?.parse::<usize>().ok());
                let Some((number, inspect)) =
                    number.and_then(|number| Some((number, questions.get(number)?)))
                else {
                    said.extend(line.error.filter(|error| errors.insert(error.clone(), ()).is_none()));
                    continue;
                };
                answered[number] = true;
                // What it printed of the error is told by the line.
                said.clear();
                let answer = match (line.error, line.extra_value) {
                    (Some(error), _) => Err(own_error(&error)),
                    (None, Some(reply)) => Ok(reply.to_string()),
                    (None, None) => {
                        Err("`nix-eval-jobs` printed no `extraValue`; is it older than 2.25?".to_owned())
                    }
                };
                hear(Event::Answer(inspect, answer));
            }
        }
    }
    let status = child.wait().map_err(NixEvalJobsError::Start)?;
    if stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let failure = (!status.success()).then(|| Failure::of(&said, &status.to_string()));
    Ok(Some(Ran { answered, failure }))
}

/// Its error, as evaluators of our own tell it.
fn own_error(error: &str) -> String {
    let lines: Vec<String> = strip_ansi(error).lines().map(str::to_owned).collect();
    tidy(&lines)
}

fn spawn(start: &Start<'_>, expression: &str, roots: &std::path::Path) -> Result<Child, NixEvalJobsError> {
    let mut command = Command::new(PROGRAM);
    command
        .args(["--extra-experimental-features", "nix-command flakes"])
        .args(["--workers", &start.workers.max(1).to_string()])
        .args(["--apply", "value: value.phoenixReply"])
        .args(start.nix.option_args());
    if let Some(memory) = start.memory {
        command.args(["--max-memory-size", &memory.to_string()]);
    }
    if start.pure {
        command.args(["--option", "pure-eval", "true"]);
    }
    if start.show_trace {
        command.arg("--show-trace");
    }
    if start.instantiate {
        command.arg("--gc-roots-dir").arg(roots);
    } else {
        command.arg("--no-instantiate");
    }
    start.nix.in_env(&mut command);
    command
        .args(["--expr", expression])
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => NixEvalJobsError::NotFound,
            _ => NixEvalJobsError::Start(error),
        })
}

fn read(pipe: Option<impl Read + Send + 'static>, sender: Sender<Told>, told: fn(String) -> Told) {
    let Some(pipe) = pipe else { return };
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(count) if count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            line.clear();
            if sender.send(told(text)).is_err() {
                return;
            }
        }
    });
}

/// Ends it with all its workers.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may be gone already.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(said: &str) -> Failure {
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        Failure::of(&lines, "exit status: 1")
    }

    #[test]
    fn hashes_are_told_as_nix_takes_them() {
        // Both of nothing.
        let sri_of = sri("sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73");
        assert_eq!(sri_of, "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn a_crash_is_blamed_on_its_question() {
        let crash = failure(
            "error: stack overflow (possible infinite recursion)\nerror: while reading result for attrPath 'q12', evaluation worker exited with exit code 1, (possible infinite recursion)",
        );
        assert!(crash.names(12) && !crash.names(1));
        let words = crash.in_words();
        assert_eq!(words, "the evaluator crashed: exited with exit code 1, (possible infinite recursion)");
        assert!(crate::is_crash(&words));
        assert_eq!(failure("error: worker error: boom").question, None);
        assert_eq!(failure("").words, "it ended with exit status: 1");
    }
}
