//! What failed in earlier runs, and would again.

use std::collections::BTreeMap;

use phoenix_model::{FailureClass, StorePath};
use serde::{Deserialize, Serialize};

use crate::Hopeless;

/// How long a failure counts, in seconds: a day. Builds are not always as deterministic as they should be.
const COUNTS_FOR: u64 = 24 * 3600;

/// How many failures are remembered.
const MOST: usize = 1000;

/// How long a message may be, in characters.
const LONGEST: usize = 500;

/// How many of its last lines are remembered of a log.
const LINES: usize = 20;

/// How long such a line may be, in characters.
const LONGEST_LINE: usize = 200;

/// Derivations that failed in earlier runs, for reasons that are their own: a derivation says everything that goes
/// into its build, so that it would fail again. Time-outs and what went wrong with a machine are not among them, nor a
/// download: what the network gives is not what its derivation says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Failures(BTreeMap<String, Past>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Past {
    class: FailureClass,
    message: String,
    /// Seconds since 1970-01-01 UTC.
    at: u64,
    /// The last lines of its log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    log: Vec<String>,
}

impl Failures {
    /// Remembers that a derivation failed whose output is not fixed by a hash, if it would fail again, and the end of its
    /// log; whether it does. Times are in seconds since 1970-01-01 UTC.
    pub fn learn<'l>(
        &mut self,
        drv_path: &StorePath,
        class: FailureClass,
        message: &str,
        log: impl IntoIterator<Item = &'l String>,
        at: u64,
    ) -> bool {
        if class != FailureClass::Build {
            return false;
        }
        let message = message.chars().take(LONGEST).collect();
        let log: Vec<String> =
            log.into_iter().map(|line| line.chars().take(LONGEST_LINE).collect()).collect();
        let log = log[log.len().saturating_sub(LINES)..].to_vec();
        self.0.insert(drv_path.base_name().to_owned(), Past { class, message, at, log });
        true
    }

    /// Forgets a derivation, because it was built; whether it was known.
    pub fn forget(&mut self, drv_path: &StorePath) -> bool {
        self.0.remove(drv_path.base_name()).is_some()
    }

    /// Forgets what counts no longer, and the oldest of what is too much.
    pub fn tidy(&mut self, now: u64) {
        self.0.retain(|_, past| counts(past, now));
        let surplus = self.0.len().saturating_sub(MOST);
        if surplus > 0 {
            let mut ages: Vec<(u64, String)> =
                self.0.iter().map(|(name, past)| (past.at, name.clone())).collect();
            ages.sort();
            for (_, name) in ages.into_iter().take(surplus) {
                self.0.remove(&name);
            }
        }
    }

    /// Why a derivation is not tried again, if it failed lately.
    #[must_use]
    pub fn known(&self, drv_path: &StorePath, now: u64) -> Option<Hopeless> {
        let past = self.0.get(drv_path.base_name()).filter(|past| counts(past, now))?;
        let message = format!(
            "{} (it failed {} ago, in an earlier run, and is not tried again; --retry-failed does, and so \
             does \"Re-run all jobs\" on GitHub)",
            past.message,
            age(now.saturating_sub(past.at))
        );
        Some(Hopeless { class: past.class, message, log: past.log.clone() })
    }
}

fn counts(past: &Past, now: u64) -> bool {
    // A clock that is ahead is no reason to remember for ever.
    past.at.abs_diff(now) < COUNTS_FOR
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drv(number: usize) -> StorePath {
        StorePath::parse(&format!("/nix/store/{number:032}-d.drv")).unwrap()
    }

    #[test]
    fn what_would_fail_again_is_known_for_a_day() {
        let mut failures = Failures::default();
        let log: Vec<String> = (0..30).map(|line| format!("{line} {}", "é".repeat(999))).collect();
        assert!(failures.learn(&drv(1), FailureClass::Build, "exit code 1", &log, 1_000_000));
        for class in [
            FailureClass::TimedOut,
            FailureClass::Killed,
            FailureClass::Other,
            FailureClass::NonDeterministic,
            // Of a download.
            FailureClass::HashMismatch,
        ] {
            assert!(!failures.learn(&drv(2), class, "x", [], 1_000_000));
        }
        let known = failures.known(&drv(1), 1_000_000 + 7_300).unwrap();
        assert_eq!(known.class, FailureClass::Build);
        assert!(known.message.starts_with("exit code 1 (it failed 2 h ago"), "{}", known.message);
        assert!(known.message.contains("--retry-failed") && known.message.contains("Re-run all jobs"));
        assert_eq!(known.log.len(), LINES, "the end of its log");
        assert!(known.log[0].starts_with("10 é") && known.log.iter().all(|line| line.chars().count() == 200));
        assert_eq!(failures.known(&drv(2), 1_000_000), None);
        assert_eq!(failures.known(&drv(1), 1_000_000 + COUNTS_FOR), None);
        assert_eq!(failures.known(&drv(1), 0), None, "a clock that was far ahead");
        assert!(failures.forget(&drv(1)) && !failures.forget(&drv(1)));
        assert_eq!(failures.known(&drv(1), 1_000_000), None);
    }

    #[test]
    fn what_was_remembered_without_a_log_is_read() {
        let text = r#"{"00000000000000000000000000000001-d.drv":{"class":"build","message":"exit code 1","at":1000000}}"#;
        let failures: Failures = serde_json::from_str(text).unwrap();
        assert!(failures.known(&drv(1), 1_000_000).unwrap().log.is_empty());
        assert_eq!(serde_json::to_string(&failures).unwrap(), text);
    }

    #[test]
    fn there_are_never_too_many() {
        let mut failures = Failures::default();
        for number in 0..MOST + 10 {
            failures.learn(
                &drv(number),
                FailureClass::Build,
                &"x".repeat(9999),
                [],
                1_000_000 + number as u64,
            );
        }
        failures.tidy(1_001_000);
        assert_eq!(failures.0.len(), MOST);
        assert!(
            failures.known(&drv(9), 1_001_000).is_none() && failures.known(&drv(10), 1_001_000).is_some()
        );
        assert!(failures.0.values().all(|past| past.message.len() == LONGEST));
        failures.tidy(1_000_000 + 2 * COUNTS_FOR);
        assert_eq!(failures, Failures::default());
    }
}
