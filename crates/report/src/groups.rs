//! Whole logs in one piece each, for viewers that can fold them.

use std::collections::{HashMap, VecDeque};

use phoenix_model::{ActionId, ActionVerdict, Event, Logged, SettledDerivation, Stamp, StorePath, Verdict};

use crate::clean::clip;
use crate::{Lines, Summary, plural};

/// How many bytes of a log are kept until it can be shown: its end.
const KEPT: usize = 1 << 20;

/// How many characters of a line are shown.
const LINE_LENGTH: usize = 16 << 10;

/// Something to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A line.
    Line(String),
    /// A line below which others follow that can be folded, up to [`Shown::End`]. Groups are never in each other.
    Begin(String),
    /// The end of these.
    End,
}

/// Turns events into lines as [`Lines`] does, with the log of each build and each action as one piece at its end: what
/// runs at the same time is not mixed. What ended well can be folded; what failed is open.
#[derive(Debug, Clone)]
pub struct Groups {
    lines: Lines,
    logs: HashMap<Of, Log>,
}

/// What a log is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Of {
    Derivation(StorePath),
    Action(ActionId),
}

/// The end of what something has printed so far.
#[derive(Debug, Clone, Default)]
struct Log {
    lines: VecDeque<String>,
    bytes: usize,
    left_out: usize,
}

impl Groups {
    /// Of what `lines` would show.
    #[must_use]
    pub fn new(lines: Lines) -> Self {
        Self { lines: lines.without_logs(), logs: HashMap::new() }
    }

    /// What to show for an event that `summary` has taken in already.
    pub fn shown(&mut self, summary: &Summary, logged: &Logged) -> Vec<Shown> {
        match &logged.event {
            Event::LogLine { drv_path, line } => self.take_in(Of::Derivation(drv_path.clone()), line),
            Event::ActionLine { action, line } => self.take_in(Of::Action(*action), line),
            _ => {}
        }
        let lines = self.lines.lines(summary, logged);
        match &logged.event {
            Event::DerivationSettled { settled: SettledDerivation { drv_path, verdict, .. } } => {
                let log = self.logs.remove(&Of::Derivation(drv_path.clone()));
                let name = drv_path.human_name().to_owned();
                self.with_log(lines, log, &name, matches!(verdict, Verdict::Built))
            }
            Event::ActionSettled { action, verdict, .. } => {
                let log = self.logs.remove(&Of::Action(*action));
                let name = summary.actions.get(action).map(|state| state.action.name.clone());
                let is_done = *verdict == ActionVerdict::Done;
                self.with_log(lines, log, &name.unwrap_or_default(), is_done)
            }
            _ => lines.into_iter().map(Shown::Line).collect(),
        }
    }

    /// A sign of life, when nothing was said for 30 seconds.
    pub fn heartbeat(&mut self, summary: &Summary, now: Stamp) -> Option<String> {
        self.lines.heartbeat(summary, now)
    }

    fn take_in(&mut self, of: Of, line: &str) {
        self.logs.entry(of).or_default().take_in(line);
    }

    /// The lines of an end, with the log below them. Of what is not told, no log is either.
    fn with_log(&self, lines: Vec<String>, log: Option<Log>, name: &str, is_well: bool) -> Vec<Shown> {
        let Some((log, last)) = log.zip(lines.last().cloned()) else {
            return lines.into_iter().map(Shown::Line).collect();
        };
        let mut shown: Vec<Shown> = lines[..lines.len() - 1].iter().cloned().map(Shown::Line).collect();
        shown.push(if is_well { Shown::Begin(last) } else { Shown::Line(last) });
        if log.left_out > 0 {
            let count = log.left_out;
            let text = format!("({count} {} before these are not shown)", plural(count, "line"));
            shown.push(Shown::Line(text));
        }
        shown.extend(log.lines.iter().map(|line| Shown::Line(self.lines.log_line(name, line))));
        shown.extend(is_well.then_some(Shown::End));
        shown
    }
}

impl Log {
    fn take_in(&mut self, line: &str) {
        let line = clip(line, LINE_LENGTH).into_owned();
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > KEPT {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.len();
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Detail, Style, fixture};

    fn shown(events: &[Logged], detail: Detail) -> Vec<String> {
        let mut groups = Groups::new(Lines::new(detail, false, Style::default()));
        let mut summary = Summary::default();
        let mut all = Vec::new();
        for event in events {
            summary.apply(event);
            all.extend(groups.shown(&summary, event).into_iter().map(|shown| match shown {
                Shown::Line(line) => line,
                Shown::Begin(line) => format!("[{line}"),
                Shown::End => "]".to_owned(),
            }));
        }
        all
    }

    /// Events of builds that print, mixed, as two that run at once do.
    fn mixed(first: &str, count: usize) -> Vec<Logged> {
        let mut events = fixture::events();
        let drv_paths: Vec<StorePath> = events
            .iter()
            .filter_map(|logged| match &logged.event {
                Event::BuildStarted { drv_path, .. } => Some(drv_path.clone()),
                _ => None,
            })
            .collect();
        let started = events.iter().rposition(|logged| matches!(logged.event, Event::BuildStarted { .. }));
        let at = events[started.unwrap()].at;
        let lines = (0..count).flat_map(|number| {
            let line = if number == 0 { first.to_owned() } else { format!("more {number}") };
            drv_paths.iter().map(move |drv_path| Logged {
                at,
                event: Event::LogLine { drv_path: drv_path.clone(), line: line.clone() },
            })
        });
        let lines: Vec<Logged> = lines.collect();
        let next = started.unwrap() + 1;
        events.splice(next..next, lines);
        events
    }

    #[test]
    fn what_ended_well_can_be_folded_and_what_failed_is_open_and_whole() {
        let text = shown(&mixed("first", 2), Detail::Normal).join("\n");
        assert!(text.contains("[built hello-2.12 in "), "{text}");
        let (_, built) = text.split_once("[built hello-2.12 in ").unwrap();
        let (_, inside) = built.split_once('\n').unwrap();
        assert!(inside.starts_with("hello-2.12> first\nhello-2.12> more 1\n]"), "{text}");
        let (_, failed) = text.split_once("FAILED lib-1.0 ").unwrap();
        let mut failed = failed.lines().skip(1);
        assert_eq!(failed.next(), Some("lib-1.0> first"), "{text}");
        // All of it, and not only the last lines.
        assert_eq!(failed.filter(|line| line.starts_with("lib-1.0> line ")).count(), 30, "{text}");
        assert!(!text.contains("[FAILED"), "{text}");
        assert_eq!(text.matches("hello-2.12> first").count(), 1);
    }

    #[test]
    fn a_log_is_no_longer_than_it_may_be_and_says_what_is_left_out() {
        let lines = shown(&mixed(&"x".repeat(3 * LINE_LENGTH), 200_000), Detail::Normal);
        let said = lines.iter().find(|line| line.contains("before these are not shown")).unwrap();
        assert!(said.starts_with('('), "{said}");
        assert!(lines.iter().all(|line| line.len() < 2 * LINE_LENGTH));
        let of_hello = lines.iter().filter(|line| line.starts_with("hello-2.12> "));
        assert!(of_hello.map(String::len).sum::<usize>() < 3 * KEPT);
    }

    #[test]
    fn whoever_wants_it_quiet_sees_no_log_of_what_ended_well() {
        let text = shown(&mixed("first", 1), Detail::Quiet).join("\n");
        assert!(!text.contains("hello-2.12"), "{text}");
        assert!(text.contains("lib-1.0> first"), "{text}");
    }

    #[test]
    fn what_an_action_prints_comes_with_its_end() {
        use phoenix_model::{Action, Does};
        let action = |id: u32| Action {
            id: ActionId(id),
            name: format!("act {id}\n::error::x"),
            of: None,
            does: Does::Run { program: "/p".to_owned() },
            system: None,
            builds: Vec::new(),
            needs: Vec::new(),
            paths: Vec::new(),
            time_out: 1,
        };
        let failed = ActionVerdict::Failed { message: "exit code 3".to_owned() };
        let settled = |id: u32, verdict: ActionVerdict| Event::ActionSettled {
            action: ActionId(id),
            verdict,
            seconds: None,
            log: None,
        };
        let line = |id: u32, line: &str| Event::ActionLine { action: ActionId(id), line: line.to_owned() };
        let events = [
            Event::ActionFound { action: action(0) },
            Event::ActionFound { action: action(1) },
            line(0, "a"),
            line(1, "b"),
            line(0, "c"),
            settled(0, ActionVerdict::Done),
            settled(1, failed),
        ];
        let events = events.map(|event| Logged { at: Stamp(0), event });
        let lines = shown(&events, Detail::Normal);
        assert!(lines.iter().all(|line| !line.contains('\n')), "{lines:?}");
        let name = |id: u32| format!("act {id}\u{fffd}::error::x");
        assert_eq!(
            lines,
            [
                format!("[done {}", name(0)),
                format!("{}> a", name(0)),
                format!("{}> c", name(0)),
                "]".to_owned(),
                format!("FAILED {}: exit code 3", name(1)),
                format!("{}> b", name(1)),
            ]
        );
    }
}
