//! A running `nix-store --realise`.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use phoenix_model::StorePath;
use rustix::process::Signal;

use crate::{BuildEvent, BuildLog, Nix, group};

/// How long Nix may take to end its builders before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often Nix is asked again to stop.
const REMINDER: Duration = Duration::from_secs(1);

/// The most bytes of one line of a log that are kept; a builder may print gigabytes without a newline.
const LONGEST_LINE: usize = 1 << 20;

/// How many bytes of the end of a longer line are kept: there stands which build it is of.
const LONG_LINE_END: usize = 256;

/// What to build, and how.
#[derive(Debug, Clone, Default)]
pub struct Realise {
    /// Derivations, each with the outputs that are wanted; none for all.
    pub derivations: Vec<(StorePath, Vec<String>)>,
    /// Go on with what does not depend on a failure.
    pub keep_going: bool,
}

/// Why a build could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start `nix-store --realise`")]
pub struct RealiseError {
    /// Why.
    #[from]
    source: io::Error,
}

/// How Nix ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildExit {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// A build that runs. What it tells goes to the channel given to [`Build::start`]; the channel's other
/// end sees it closed when Nix has said its last.
#[derive(Debug)]
pub struct Build {
    child: Child,
    lines: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
    stopped: Option<Instant>,
    signalled: Option<Instant>,
    killed: bool,
}

impl Build {
    /// Starts Nix, in a process group of its own so that a Ctrl-C at the terminal reaches it through us.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(nix: &Nix, what: &Realise, events: Sender<BuildEvent>) -> Result<Self, RealiseError> {
        let mut command = nix.nix_store("--realise");
        command.args(["--no-gc-warning", "--log-format", "internal-json"]);
        if what.keep_going {
            command.arg("--keep-going");
        }
        for (drv_path, outputs) in &what.derivations {
            if outputs.is_empty() {
                command.arg(drv_path.as_str());
            } else {
                command.arg(format!("{drv_path}!{}", outputs.join(",")));
            }
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = group::spawn(&mut command)?;
        let stderr = child.stderr.take();
        let lines = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            if let Some(stderr) = stderr {
                follow(stderr, &counted, &events);
            }
        });
        Ok(Self { child, lines, reader: Some(reader), stopped: None, signalled: None, killed: false })
    }

    /// How many lines Nix has printed, those that tell nothing here among them: it is at work while this grows.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Asks Nix to end its builders and itself; what was built stays valid. Asked again, or when it takes
    /// too long, it is killed.
    pub fn stop(&mut self) {
        let again = self.stopped.is_some();
        self.stopped.get_or_insert_with(Instant::now);
        self.signalled = Some(Instant::now());
        group::signal(&self.child, if again { Signal::KILL } else { Signal::TERM });
    }

    /// How Nix ended, if it has.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn try_wait(&mut self) -> io::Result<Option<BuildExit>> {
        let Some(status) = self.child.try_wait()? else {
            self.insist();
            return Ok(None);
        };
        if let Some(reader) = self.reader.take_if(|reader| reader.is_finished()) {
            // A panic of the reader has lost log lines, no verdicts: those come from the store.
            let _ = reader.join();
        }
        Ok(Some(BuildExit { code: status.code(), signal: status.signal() }))
    }

    /// Reminds a Nix that was asked to stop. One that was just about to wait for its builders does not
    /// notice the first time (2.34).
    fn insist(&mut self) {
        let (Some(stopped), Some(signalled)) = (self.stopped, self.signalled) else { return };
        if !self.killed && stopped.elapsed() > PATIENCE {
            self.killed = true;
            group::signal(&self.child, Signal::KILL);
        } else if !self.killed && signalled.elapsed() > REMINDER {
            self.signalled = Some(Instant::now());
            group::signal(&self.child, Signal::TERM);
        }
    }
}

impl Drop for Build {
    /// Leaves no process behind when the run ends early.
    fn drop(&mut self) {
        group::end(&mut self.child);
    }
}

fn follow(stderr: impl Read, lines: &AtomicU64, events: &Sender<BuildEvent>) {
    let mut log = BuildLog::default();
    let mut reader = BufReader::with_capacity(1 << 16, stderr);
    let mut line = Vec::new();
    while let Ok(true) = read_line(&mut reader, &mut line) {
        lines.fetch_add(1, Ordering::Relaxed);
        if let Some(event) = log.line(&String::from_utf8_lossy(&line))
            && events.send(event).is_err()
        {
            // Nobody listens any more; keep reading so that Nix does not block on a full pipe.
            let _ = io::copy(&mut reader, &mut io::sink());
            return;
        }
    }
}

/// Reads up to the next newline, keeping about [`LONGEST_LINE`] bytes of it; false at the end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut end: Vec<u8> = Vec::new();
    let mut any = false;
    loop {
        let buffer = reader.fill_buf()?;
        let (part, used, done) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(end) => (&buffer[..end], end + 1, true),
            None => (buffer, buffer.len(), buffer.is_empty()),
        };
        any |= used > 0;
        let (kept, rest) = part.split_at(part.len().min(LONGEST_LINE.saturating_sub(line.len())));
        line.extend_from_slice(kept);
        end.extend_from_slice(&rest[rest.len().saturating_sub(LONG_LINE_END)..]);
        end.drain(..end.len().saturating_sub(LONG_LINE_END));
        reader.consume(used);
        if done {
            if !end.is_empty() {
                join_cut(line, &end);
            }
            return Ok(any);
        }
    }
}

/// Makes one JSON object again of the two ends of a log line of a build.
fn join_cut(line: &mut Vec<u8>, end: &[u8]) {
    const AFTER: &[u8] = b"\"],\"id\":";
    let Some(at) = end.windows(AFTER.len()).rposition(|part| part == AFTER) else { return };
    if !line.starts_with(br#"@nix {"action":"result","fields":[""#) {
        return;
    }
    // Neither half an escape nor half a character is left at the cut: the longest, `\uXXXX`, has six bytes.
    let last = line.len().saturating_sub(6);
    if let Some(slash) = line[last..].iter().position(|&byte| byte == b'\\') {
        line.truncate(last + slash);
        while line.last() == Some(&b'\\') {
            line.pop();
        }
    }
    while line.last().is_some_and(|byte| !byte.is_ascii()) {
        line.pop();
    }
    line.extend_from_slice(" … (the line is longer)".as_bytes());
    line.extend_from_slice(&end[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_lines_are_cut_and_the_last_needs_no_newline() {
        let text = format!("short\n{}\nlast", "x".repeat(LONGEST_LINE + 10));
        let mut reader = BufReader::with_capacity(100, text.as_bytes());
        let mut line = Vec::new();
        let mut lengths = Vec::new();
        while read_line(&mut reader, &mut line).unwrap() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [5, LONGEST_LINE, 4]);
    }

    #[test]
    fn a_line_of_a_build_that_is_too_long_is_still_a_line_of_that_build() {
        for filler in ["x", "é", "\\\\", "\\n", "\\u001b", "a\\\""] {
            let text = filler.repeat(LONGEST_LINE / filler.len() + 100);
            let json =
                format!("@nix {{\"action\":\"result\",\"fields\":[\"{text}\"],\"id\":7,\"type\":101}}\n");
            let mut reader = BufReader::new(json.as_bytes());
            let mut line = Vec::new();
            assert!(read_line(&mut reader, &mut line).unwrap());
            assert!(line.len() < LONGEST_LINE + LONG_LINE_END + 100);
            let body = std::str::from_utf8(&line).unwrap().strip_prefix("@nix ").unwrap();
            let value: serde_json::Value =
                serde_json::from_str(body).unwrap_or_else(|error| panic!("{filler}: {error}"));
            assert_eq!(value["id"], 7);
            assert!(value["fields"][0].as_str().unwrap().ends_with("(the line is longer)"));
        }
    }
}
