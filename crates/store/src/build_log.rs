//! Nix's `internal-json` log: one JSON object a line behind `@nix `
//! (nix `src/libutil/logging.cc`, `JSONLogger`; the numbers are `ActivityType` and `ResultType` of
//! `logging.hh`, the same from 2.8 to 2.34).

use std::collections::HashMap;

use phoenix_model::StorePath;
use serde::Deserialize;
use serde_json::Value;

use crate::failure::is_consequence;
use crate::{Failure, failure_of, strip_ansi};

const ACTIVITY_BUILDS: u64 = 104;
const ACTIVITY_BUILD: u64 = 105;
const ACTIVITY_SUBSTITUTE: u64 = 108;
const RESULT_LOG_LINE: u64 = 101;
const RESULT_SET_PHASE: u64 = 104;
const RESULT_PROGRESS: u64 = 105;
const RESULT_POST_BUILD_LOG_LINE: u64 = 107;
const LEVEL_ERROR: u64 = 0;
const LEVEL_WARNING: u64 = 1;
const LEVEL_NOTICE: u64 = 2;

/// What a build's log tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// A build began.
    Started {
        /// Which derivation.
        drv_path: StorePath,
        /// On which machine; empty for this one.
        machine: String,
    },
    /// A build printed a line.
    Line {
        /// Which derivation.
        drv_path: StorePath,
        /// The line.
        line: String,
    },
    /// A build turned to another phase.
    Phase {
        /// Which derivation.
        drv_path: StorePath,
        /// The phase.
        phase: String,
    },
    /// Nix began to fetch a path.
    Fetching {
        /// Which.
        path: StorePath,
        /// From where.
        from: String,
    },
    /// A builder ended, well or not.
    Ended {
        /// Which derivation.
        drv_path: StorePath,
    },
    /// Some build ended; which, older versions (up to 2.26) say much later.
    SomeEnded(Counts),
    /// A derivation failed.
    Failed(Failure),
    /// An error, warning or notice that is about no derivation's failure. 0 error, 1 warning, 2 notice,
    /// more: less.
    Message {
        /// How much it matters.
        level: u64,
        /// What.
        text: String,
    },
}

/// How many builds there were so far, as Nix counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Ended well, and all they made is valid.
    pub done: u64,
    /// Begun and not ended.
    pub running: u64,
    /// Failed by themselves; some of them could not even be begun.
    pub failed: u64,
}

/// Reads a log line by line.
#[derive(Debug, Default)]
pub struct BuildLog {
    builds: HashMap<u64, StorePath>,
    counter: Option<u64>,
    ended: (u64, u64),
}

#[derive(Debug, Deserialize)]
struct Line<'a> {
    action: &'a str,
    #[serde(default)]
    id: u64,
    #[serde(default)]
    level: Option<u64>,
    #[serde(default, rename = "type")]
    kind: u64,
    #[serde(default)]
    fields: Vec<Value>,
    #[serde(default)]
    msg: Option<String>,
    #[serde(default)]
    raw_msg: Option<String>,
}

impl BuildLog {
    /// What a line tells, if it tells something. A line that is not Nix's is a message.
    pub fn line(&mut self, line: &str) -> Option<BuildEvent> {
        let Some(json) = line.strip_prefix("@nix ") else {
            return message(LEVEL_NOTICE, line);
        };
        let Ok(line) = serde_json::from_str::<Line<'_>>(json) else {
            return message(LEVEL_WARNING, &shortened(line));
        };
        match line.action {
            "start" => self.start(&line),
            "result" => self.result(&line),
            "stop" => self.builds.remove(&line.id).map(|drv_path| BuildEvent::Ended { drv_path }),
            "msg" => said(&line),
            _ => None,
        }
    }

    fn start(&mut self, line: &Line<'_>) -> Option<BuildEvent> {
        match line.kind {
            ACTIVITY_BUILDS => {
                self.counter = Some(line.id);
                None
            }
            ACTIVITY_BUILD => {
                let drv_path = path(&line.fields, 0)?;
                self.builds.insert(line.id, drv_path.clone());
                Some(BuildEvent::Started { drv_path, machine: string(&line.fields, 1).unwrap_or_default() })
            }
            ACTIVITY_SUBSTITUTE => {
                let from = string(&line.fields, 1).unwrap_or_default();
                Some(BuildEvent::Fetching { path: path(&line.fields, 0)?, from })
            }
            _ => None,
        }
    }

    fn result(&mut self, line: &Line<'_>) -> Option<BuildEvent> {
        match line.kind {
            RESULT_LOG_LINE | RESULT_POST_BUILD_LOG_LINE => {
                let drv_path = self.builds.get(&line.id)?.clone();
                Some(BuildEvent::Line { drv_path, line: string(&line.fields, 0)? })
            }
            RESULT_SET_PHASE => {
                let drv_path = self.builds.get(&line.id)?.clone();
                Some(BuildEvent::Phase { drv_path, phase: string(&line.fields, 0)? })
            }
            RESULT_PROGRESS if self.counter == Some(line.id) => {
                // done, expected, running, failed
                let number = |at: usize| line.fields.get(at).and_then(Value::as_u64).unwrap_or(0);
                let counts = Counts { done: number(0), running: number(2), failed: number(3) };
                let ended = (counts.done, counts.failed);
                (std::mem::replace(&mut self.ended, ended) != ended).then_some(BuildEvent::SomeEnded(counts))
            }
            _ => None,
        }
    }
}

/// The beginning of a line that cannot be read.
fn shortened(line: &str) -> String {
    const MOST: usize = 200;
    match line.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

fn said(line: &Line<'_>) -> Option<BuildEvent> {
    let text = line.raw_msg.as_ref().or(line.msg.as_ref())?;
    let text = strip_ansi(text);
    let level = line.level.unwrap_or(LEVEL_NOTICE);
    if level == LEVEL_ERROR {
        if let Some(failure) = failure_of(&text) {
            return Some(BuildEvent::Failed(failure));
        }
        if is_consequence(&text) {
            return None;
        }
    }
    message(level, &text)
}

fn message(level: u64, text: &str) -> Option<BuildEvent> {
    let text = strip_ansi(text);
    let text = text.trim();
    let bare = text.strip_prefix("error:").or_else(|| text.strip_prefix("warning:")).unwrap_or(text).trim();
    (!bare.is_empty()).then(|| BuildEvent::Message { level, text: bare.to_owned() })
}

fn string(fields: &[Value], at: usize) -> Option<String> {
    fields.get(at)?.as_str().map(str::to_owned)
}

fn path(fields: &[Value], at: usize) -> Option<StorePath> {
    StorePath::parse(fields.get(at)?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "/s/store/g8wikzk8d1lyj3c21r8bzixrfcr2qx7p-fail.drv";

    fn read(lines: &[&str]) -> Vec<BuildEvent> {
        let mut log = BuildLog::default();
        lines.iter().filter_map(|line| log.line(line)).collect()
    }

    #[test]
    fn a_build_from_start_to_failure() {
        let drv_path = StorePath::parse(A).unwrap();
        let start = format!(
            r#"@nix {{"action":"start","fields":["{A}","",1,1],"id":5,"level":3,"text":"building","type":105}}"#
        );
        let failed = format!(
            r#"@nix {{"action":"msg","column":null,"file":null,"level":0,"line":null,"msg":"x","raw_msg":"builder for '{A}' failed with exit code 3"}}"#
        );
        let events = read(&[
            r#"@nix {"action":"start","id":2,"level":0,"text":"","type":104}"#,
            r#"@nix {"action":"result","fields":[0,1,0,0],"id":2,"type":105}"#,
            &start,
            r#"@nix {"action":"result","fields":[0,1,1,0],"id":2,"type":105}"#,
            r#"@nix {"action":"result","fields":["one"],"id":5,"type":101}"#,
            r#"@nix {"action":"result","fields":["buildPhase"],"id":5,"type":104}"#,
            r#"@nix {"action":"result","fields":[0,0,0,1],"id":2,"type":105}"#,
            &failed,
        ]);
        assert_eq!(
            events[..4],
            [
                BuildEvent::Started { drv_path: drv_path.clone(), machine: String::new() },
                BuildEvent::Line { drv_path: drv_path.clone(), line: "one".into() },
                BuildEvent::Phase { drv_path: drv_path.clone(), phase: "buildPhase".into() },
                BuildEvent::SomeEnded(Counts { done: 0, running: 0, failed: 1 }),
            ]
        );
        assert!(matches!(&events[4], BuildEvent::Failed(failure) if failure.about == drv_path));
    }

    #[test]
    fn a_fetch_names_its_source() {
        let path = "/s/store/g8wikzk8d1lyj3c21r8bzixrfcr2qx7p-x";
        let line = format!(
            r#"@nix {{"action":"start","fields":["{path}","https://c"],"id":5,"level":3,"text":"","type":108}}"#
        );
        let events = read(&[&line]);
        assert_eq!(
            events,
            [BuildEvent::Fetching { path: StorePath::parse(path).unwrap(), from: "https://c".into() }]
        );
    }

    #[test]
    fn lines_that_are_not_nix_s_are_messages_and_broken_ones_too() {
        let message = |level, text: &str| BuildEvent::Message { level, text: text.into() };
        assert_eq!(
            read(&["ssh: no route", "", "@nix {", "@nix {\"action\":\"new\"}"]),
            [message(2, "ssh: no route"), message(1, "@nix {")]
        );
        assert_eq!(
            read(&[r#"@nix {"action":"msg","level":1,"msg":"\u001b[35;1mwarning:\u001b[0m careful"}"#]),
            [message(1, "careful")]
        );
    }

    #[test]
    fn a_log_line_that_looks_like_a_command_stays_a_log_line() {
        let start = format!(r#"@nix {{"action":"start","fields":["{A}","",1,1],"id":5,"type":105}}"#);
        let events = read(&[
            &start,
            r#"@nix {"action":"result","fields":["@nix {\"action\":\"stop\",\"id\":5}"],"id":5,"type":101}"#,
        ]);
        assert!(matches!(&events[1], BuildEvent::Line { line, .. } if line.starts_with("@nix")));
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(line in "(@nix )?[\\{\\}a-z\":0-9,\\[\\]]{0,60}") {
            BuildLog::default().line(&line);
        }
    }
}
