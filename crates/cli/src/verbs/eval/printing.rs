//! Lines on their way to stdout.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use phoenix_model::{Severity, Target};

use crate::error::CommandError;
use crate::setup::Setup;
use crate::status::Searching;
use crate::talk;

use super::cache_status::CacheStatuses;
use super::line::{Fields, Line};

/// How many derivations are looked up at once.
const LOOKED_UP_AT_ONCE: usize = 256;

/// Prints lines as they come, or sorted at the end.
#[derive(Debug)]
pub(super) struct Printer {
    held: Option<Vec<Line>>,
    /// What is to be printed with the next that is.
    text: String,
    /// Whether somebody still reads.
    pub(super) heard: bool,
}

impl Printer {
    pub(super) fn new(sorted: bool) -> Self {
        Self { held: sorted.then(Vec::new), text: String::new(), heard: true }
    }

    /// Prints lines, all at once.
    pub(super) fn print(&mut self, lines: impl IntoIterator<Item = Line>) -> Result<(), CommandError> {
        match &mut self.held {
            Some(held) => held.extend(lines),
            None => lines.into_iter().try_for_each(|line| self.write(&line))?,
        }
        self.flush()
    }

    /// Prints what was held back.
    pub(super) fn finish(mut self) -> Result<(), CommandError> {
        let mut held = self.held.take().unwrap_or_default();
        held.sort_by(|a, b| a.attr_path.cmp(&b.attr_path));
        held.iter().try_for_each(|line| self.write(line))?;
        self.flush()
    }

    fn write(&mut self, line: &Line) -> Result<(), CommandError> {
        let json = serde_json::to_string(line)
            .map_err(|error| CommandError::because("cannot write a target as JSON", &error))?;
        self.text.push_str(&json);
        self.text.push('\n');
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CommandError> {
        self.heard = self.heard && talk::stdout(&std::mem::take(&mut self.text))?;
        Ok(())
    }
}

/// Takes lines to the printer, by way of the cache status where that is wanted.
#[derive(Debug, Clone)]
pub(super) struct Way(Sender<(Line, Option<Target>)>);

impl Way {
    pub(super) fn new() -> (Self, Receiver<(Line, Option<Target>)>) {
        let (sender, receiver) = unbounded();
        (Self(sender), receiver)
    }

    /// Sends a line, with the target when its status is to be told.
    pub(super) fn send(&self, line: Line, target: Option<&Target>) {
        // Who printed may have gone, and says why itself.
        let _ = self.0.send((line, target.cloned()));
    }
}

/// Prints what comes until nothing more does. `stop` is set when nobody reads any more.
pub(super) fn print_all(
    setup: &Setup,
    fields: Fields,
    lines: &Receiver<(Line, Option<Target>)>,
    mut printer: Printer,
    stop: &AtomicBool,
    say: &(dyn Fn(Severity, &str) + Sync),
) -> Result<bool, CommandError> {
    let mut statuses = CacheStatuses::new(setup);
    while let Ok(first) = lines.recv() {
        let mut some = vec![first];
        some.extend(lines.try_iter().take(LOOKED_UP_AT_ONCE));
        Line::complete(some.iter_mut().map(|(line, _)| line), &setup.eval_layout, fields);
        let printed = look_up(&mut statuses, &mut some, stop, say)
            .and_then(|()| printer.print(some.into_iter().map(|(line, _)| line)));
        if printed.is_err() || !printer.heard {
            stop.store(true, Ordering::Relaxed);
            return printed.map(|()| false);
        }
    }
    printer.finish()?;
    Ok(true)
}

fn look_up(
    statuses: &mut CacheStatuses<'_>,
    lines: &mut [(Line, Option<Target>)],
    stop: &AtomicBool,
    say: &(dyn Fn(Severity, &str) + Sync),
) -> Result<(), CommandError> {
    let targets: Vec<Target> = lines.iter().filter_map(|(_, target)| target.clone()).collect();
    if targets.is_empty() {
        return Ok(());
    }
    let found = statuses.of(&targets, stop, &mut |heard| {
        if let Searching::Trouble { url, problem } = heard {
            say(Severity::Warning, &format!("{url}: {problem}"));
        }
    })?;
    let asked = lines.iter_mut().filter(|(_, target)| target.is_some());
    for ((line, _), status) in asked.zip(found) {
        line.cache = Some(status);
    }
    Ok(())
}
