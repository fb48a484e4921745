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

/// Derivations that failed in earlier runs, for reasons that are their own: a derivation says everything that goes
/// into its build, so that it would fail again. Time-outs and what went wrong with a machine are not among them.
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
}

impl Failures {
    /// Remembers that a derivation failed, if it would fail again; whether it does. Times are in seconds since
    /// 1970-01-01 UTC.
    pub fn learn(&mut self, drv_path: &StorePath, class: FailureClass, message: &str, at: u64) -> bool {
        if !matches!(class, FailureClass::Build | FailureClass::HashMismatch) {
            return false;
        }
        let message = message.chars().take(LONGEST).collect();
        self.0.insert(drv_path.base_name().to_owned(), Past { class, message, at });
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
            "{} (it failed {} ago, in an earlier run, and is not tried again; --retry-failed does)",
            past.message,
            age(now.saturating_sub(past.at))
        );
        Some(Hopeless { class: past.class, message })
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
        assert!(failures.learn(&drv(1), FailureClass::Build, "exit code 1", 1_000_000));
        for class in [
            FailureClass::TimedOut,
            FailureClass::Killed,
            FailureClass::Other,
            FailureClass::NonDeterministic,
        ] {
            assert!(!failures.learn(&drv(2), class, "x", 1_000_000));
        }
        let known = failures.known(&drv(1), 1_000_000 + 7_300).unwrap();
        assert_eq!(known.class, FailureClass::Build);
        assert!(known.message.starts_with("exit code 1 (it failed 2 h ago"), "{}", known.message);
        assert_eq!(failures.known(&drv(2), 1_000_000), None);
        assert_eq!(failures.known(&drv(1), 1_000_000 + COUNTS_FOR), None);
        assert_eq!(failures.known(&drv(1), 0), None, "a clock that was far ahead");
        assert!(failures.forget(&drv(1)) && !failures.forget(&drv(1)));
        assert_eq!(failures.known(&drv(1), 1_000_000), None);
    }

    #[test]
    fn there_are_never_too_many() {
        let mut failures = Failures::default();
        for number in 0..MOST + 10 {
            failures.learn(&drv(number), FailureClass::Build, &"x".repeat(9999), 1_000_000 + number as u64);
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
