//! Where events go: the events file, the logs, the summary, the screen.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;
use phoenix_model::{Event, Logged, Secrets, Severity, Stamp, Verdict};
use phoenix_report::{Summary, annotations};
use phoenix_schedule::{Happening, Run};

use crate::error::CommandError;
use crate::screen::Screen;
use crate::secrets::secrets;
use crate::talk;

/// The most log files that are open at once.
const MOST_OPEN: usize = 64;

/// Takes in the events of a run, one after another.
///
/// Records are their own concern: when one cannot be written, that is said once, and the run goes on.
#[derive(Debug)]
pub(crate) struct Recorder {
    summary: Summary,
    screen: Screen,
    directory: PathBuf,
    files: Vec<EventsFile>,
    /// By the names of their files.
    logs: HashMap<String, Log>,
    /// Whether the lines of builders are kept in files.
    keeps_logs: bool,
    open: usize,
    /// Why logs are not whole, if they are not.
    broken: Option<String>,
}

/// A file that events are written to.
#[derive(Debug)]
struct EventsFile {
    file: std::fs::File,
    path: PathBuf,
    /// The user asked for it.
    asked: bool,
    /// Why nothing more is written to it.
    trouble: Option<std::io::Error>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: Option<std::io::BufWriter<fs::File>>,
}

/// Hears what is no event of the run's own.
pub(crate) trait Hear {
    /// Takes it in.
    fn hear(&mut self, severity: Severity, text: String);
}

impl Hear for Recorder {
    fn hear(&mut self, severity: Severity, text: String) {
        self.say(severity, text);
    }
}

/// What is said later.
impl Hear for Vec<(Severity, String)> {
    fn hear(&mut self, severity: Severity, text: String) {
        self.push((severity, text));
    }
}

impl Recorder {
    /// Writes to `events.jsonl` in the run's directory, and to one more file if asked.
    pub(crate) fn new(directory: PathBuf, also: Option<&Path>, screen: Screen) -> Result<Self, CommandError> {
        let own = directory.join("events.jsonl");
        let mut files = Vec::new();
        for path in std::iter::once(own.as_path()).chain(also) {
            let file = talk::create(path)
                .map_err(|error| CommandError::because("cannot write the events of this run", &error))?;
            files.push(EventsFile { file, path: path.to_path_buf(), asked: path != own, trouble: None });
        }
        Ok(Self {
            summary: Summary::default(),
            screen,
            directory,
            files,
            logs: HashMap::new(),
            keeps_logs: true,
            open: 0,
            broken: None,
        })
    }

    /// Says whether lines of logs are kept in files from now on: whoever hears only the last ones keeps none.
    pub(crate) fn keep_logs(&mut self, keeps_logs: bool) {
        self.keeps_logs = keeps_logs;
    }

    /// What is known of the run.
    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Where the records of this run are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tells a run what happens now, and takes in the events that follow.
    pub(crate) fn apply(&mut self, run: &mut Run, mut happening: Happening) {
        // The run keeps what it is told, and others are told by it.
        match &mut happening {
            Happening::Found { ended: Some(Verdict::NotEvaluated { error: text }), .. }
            | Happening::Found { ended: Some(Verdict::Skipped { reason: text }), .. }
            | Happening::BuildFailed { message: text, .. } => secrets().hide_in(text),
            _ => {}
        }
        let at = now();
        for event in run.apply(at, happening) {
            self.record_at(at, event);
        }
    }

    /// Takes in events with the times that they happened at.
    pub(crate) fn take_in(&mut self, events: impl IntoIterator<Item = Logged>) {
        for Logged { at, event } in events {
            self.record_at(at, event);
        }
    }

    /// Takes in an event that happens now.
    pub(crate) fn record(&mut self, event: Event) {
        self.record_at(now(), event);
    }

    /// Takes in an event that happened at some time.
    pub(crate) fn record_at(&mut self, at: Stamp, mut event: Event) {
        match &mut event {
            Event::DerivationSettled { settled } => {
                settled.log = self.close_log(settled.drv_path.base_name());
            }
            Event::ActionSettled { action, log, .. } => {
                *log = self.close_log(&format!("action-{}", action.0));
            }
            _ => {}
        }
        let Safe { logged, json } = Safe::new(Logged { at, event }, secrets());
        match &logged.event {
            Event::LogLine { drv_path, line } if self.keeps_logs => self.log(drv_path.base_name(), line),
            Event::ActionLine { action, line } if self.keeps_logs => {
                self.log(&format!("action-{}", action.0), line);
            }
            _ => {}
        }
        self.write(&logged.event, json);
        self.summary.apply(&logged);
        self.screen.event(&self.summary, &logged);
    }

    /// Has a forge show the failures that these events tell of beside the run, if one looks on. They are none of the run's own.
    pub(crate) fn annotate(&self, events: Vec<Event>) {
        let mut summary = Summary::default();
        for event in events {
            summary.apply(&Safe::new(Logged { at: now(), event }, secrets()).logged);
        }
        self.screen.annotate(&annotations(&summary));
    }

    /// Says something that is no event of the run's own.
    pub(crate) fn say(&mut self, severity: Severity, text: impl Into<String>) {
        self.record(Event::Message { severity, text: text.into() });
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        self.screen.tick(&self.summary, now());
    }

    /// The run is over: the screen is left as it is.
    pub(crate) fn finish(mut self) -> Summary {
        self.screen.finish();
        self.summary
    }

    fn write(&mut self, event: &Event, json: Option<String>) {
        // A transient sign of progress is of no use to a report.
        if matches!(event, Event::Evaluating { .. } | Event::EvaluationProgress { .. }) {
            return;
        }
        let Some(mut line) = json else { return };
        line.push('\n');
        let mut trouble = None;
        for file in self.files.iter_mut().filter(|file| file.trouble.is_none()) {
            if let Err(error) = file.file.write_all(line.as_bytes()) {
                trouble = Some(format!("the events of this run to {} ({error})", file.path.display()));
                file.trouble = Some(error);
            }
        }
        if let Some(text) = trouble {
            self.warn(format!("cannot write {text}; going on without"));
        }
    }

    /// Why the events file that was asked for is not whole, if it is not. Whoever reads a pipe may stop.
    pub(crate) fn lost_events(&self) -> Option<CommandError> {
        let asked = self.files.iter().filter(|file| file.asked);
        let lost = asked.filter_map(|file| Some((&file.path, file.trouble.as_ref()?)));
        let mut lost = lost.filter(|(_, error)| error.kind() != std::io::ErrorKind::BrokenPipe);
        let (path, error) = lost.next()?;
        Some(CommandError::because(format!("the events file {} is not whole", path.display()), error))
    }

    fn log(&mut self, name: &str, line: &str) {
        if self.open >= MOST_OPEN && !self.logs.contains_key(name) {
            let closed = self.logs.values_mut().filter_map(|log| log.file.take());
            let lost = closed.filter_map(|mut file| file.flush().err()).last();
            self.open = 0;
            if let Some(error) = lost {
                self.trouble("logs", &error);
            }
        }
        if !self.logs.contains_key(name) {
            let path = self.directory.join("logs").join(format!("{name}.log"));
            self.logs.insert(name.to_owned(), Log { path, file: None });
        }
        let Some(log) = self.logs.get_mut(name) else { return };
        let written = open(log, &mut self.open).and_then(|file| {
            file.write_all(line.as_bytes())?;
            file.write_all(b"\n")
        });
        if let Err(error) = written {
            self.trouble("logs", &error);
        }
    }

    fn close_log(&mut self, name: &str) -> Option<String> {
        let log = self.logs.get_mut(name)?;
        let mut flushed = Ok(());
        if let Some(mut file) = log.file.take() {
            self.open = self.open.saturating_sub(1);
            flushed = file.flush();
        }
        let path = log.path.clone();
        if let Err(error) = flushed {
            // The verdict does not rest on it.
            self.trouble("logs", &error);
        }
        let has_something = fs::metadata(&path).is_ok_and(|found| found.len() > 0);
        has_something.then(|| path.display().to_string())
    }

    /// Why the records of this run are not whole, if they are not.
    pub(crate) fn lost_records(&self) -> Option<String> {
        let own = self.files.iter().filter(|file| !file.asked).find_map(|file| file.trouble.as_ref());
        self.broken.clone().or_else(|| own.map(ToString::to_string))
    }

    fn trouble(&mut self, what: &str, error: &std::io::Error) {
        if self.broken.is_none() {
            self.broken = Some(error.to_string());
            self.warn(format!("cannot write the {what} of this run ({error}); going on without"));
        }
    }

    /// Warns of what keeps this from being written down.
    fn warn(&mut self, text: String) {
        let logged = Logged { at: now(), event: Event::Message { severity: Severity::Warning, text } };
        self.summary.apply(&logged);
        self.screen.event(&self.summary, &logged);
    }
}

/// What may stand in the JSON of an event that has a URL.
const URL: &str = "://";

/// An event whose texts have no secrets and no credentials of URLs; and the same as JSON.
struct Safe {
    logged: Logged,
    json: Option<String>,
}

impl Safe {
    /// Of most events the JSON that is searched is the JSON that is written.
    fn new(mut logged: Logged, secrets: &Secrets) -> Self {
        let json = serde_json::to_string(&logged).ok();
        let (may_have_some, has_url) = match &json {
            Some(json) => (secrets.may_be_in_json(json), json.contains(URL)),
            None => (false, true),
        };
        if may_have_some {
            logged.event.hide(secrets);
        }
        if has_url {
            logged.event.redact();
        }
        let json = if may_have_some || has_url { serde_json::to_string(&logged).ok() } else { json };
        Self { logged, json }
    }
}

fn open<'a>(log: &'a mut Log, count: &mut usize) -> std::io::Result<&'a mut std::io::BufWriter<fs::File>> {
    let file = match log.file.take() {
        Some(file) => file,
        None => {
            *count += 1;
            std::io::BufWriter::new(fs::OpenOptions::new().create(true).append(true).open(&log.path)?)
        }
    };
    Ok(log.file.insert(file))
}

/// The time.
pub(crate) fn now() -> Stamp {
    Stamp(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use phoenix_model::{FailureClass, SettledDerivation, StorePath};

    use super::*;

    #[test]
    fn what_is_written_is_what_is_told_and_has_no_secret() {
        let secrets = Secrets::among([
            ("A_TOKEN", "hunter22\"hunter22"),
            ("B_TOKEN", "drvPath-drvPath"),
            ("C_TOKEN", "00000000"),
        ]);
        let drv_path = StorePath::parse(&format!("/nix/store/{}-a.drv", "0".repeat(32))).unwrap();
        let line = |line: &str| Event::LogLine { drv_path: drv_path.clone(), line: line.to_owned() };
        let failed = |message: &str| {
            let verdict = Verdict::Failed { class: FailureClass::Build, message: message.to_owned() };
            let settled =
                SettledDerivation { drv_path: drv_path.clone(), verdict, seconds: Some(1.5), log: None };
            Event::DerivationSettled { settled }
        };
        for (event, expected) in [
            (line("nothing"), line("nothing")),
            (line("a hunter22\"hunter22"), line("a ***")),
            // What a builder prints is its own business, but for secrets.
            (line("https://me:pass@host"), line("https://me:pass@host")),
            (failed("https://me:pass@host is not there"), failed("https://me:***@host is not there")),
            (failed("hunter22\"hunter22"), failed("***")),
            // No event is lost for a secret that is where its reader needs something else.
            (failed("drvPath-drvPath derivationSettled"), failed("*** derivationSettled")),
        ] {
            let safe = Safe::new(Logged { at: Stamp(1), event }, &secrets);
            assert_eq!(safe.logged.event, expected);
            assert_eq!(safe.json.unwrap(), serde_json::to_string(&safe.logged).unwrap());
        }
    }
}
