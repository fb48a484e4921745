//! How targets and derivations end.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Source, StorePath};

/// How a target ended. Every target ends in exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Verdict {
    /// It was built in this run.
    Built,
    /// It was there already, or was fetched instead of built.
    Cached {
        /// Where it was found.
        from: Source,
    },
    /// Its own derivation failed.
    Failed {
        /// Which kind of failure, in Nix's terms.
        class: FailureClass,
        /// What Nix said, on one line or more.
        message: String,
    },
    /// It could not be built because something it needs failed.
    Blocked {
        /// The derivations that failed themselves, sorted, at least one.
        by: Vec<StorePath>,
    },
    /// It was not to be built here.
    Skipped {
        /// Why.
        reason: String,
    },
    /// Its attribute could not be evaluated.
    NotEvaluated {
        /// What Nix said.
        error: String,
    },
    /// The run was stopped before it was done.
    Cancelled,
}

/// The verdicts without their particulars, in the order of reports: worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VerdictKind {
    /// See [`Verdict::Failed`].
    Failed,
    /// See [`Verdict::NotEvaluated`].
    NotEvaluated,
    /// See [`Verdict::Blocked`].
    Blocked,
    /// See [`Verdict::Cancelled`].
    Cancelled,
    /// See [`Verdict::Built`].
    Built,
    /// See [`Verdict::Cached`].
    Cached,
    /// See [`Verdict::Skipped`].
    Skipped,
}

impl VerdictKind {
    /// All kinds, in the order of reports.
    pub const ALL: [Self; 7] = [
        Self::Failed,
        Self::NotEvaluated,
        Self::Blocked,
        Self::Cancelled,
        Self::Built,
        Self::Cached,
        Self::Skipped,
    ];

    /// Whether it makes a run red.
    #[must_use]
    pub fn is_red(self) -> bool {
        matches!(self, Self::Failed | Self::NotEvaluated | Self::Blocked | Self::Cancelled)
    }
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Built => "built",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Blocked => "blocked",
            Self::Skipped => "skipped",
            Self::NotEvaluated => "not evaluated",
            Self::Cancelled => "cancelled",
        })
    }
}

impl Verdict {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> VerdictKind {
        match self {
            Self::Built => VerdictKind::Built,
            Self::Cached { .. } => VerdictKind::Cached,
            Self::Failed { .. } => VerdictKind::Failed,
            Self::Blocked { .. } => VerdictKind::Blocked,
            Self::Skipped { .. } => VerdictKind::Skipped,
            Self::NotEvaluated { .. } => VerdictKind::NotEvaluated,
            Self::Cancelled => VerdictKind::Cancelled,
        }
    }

    /// Whether it makes a run red.
    #[must_use]
    pub fn is_red(&self) -> bool {
        self.kind().is_red()
    }

    /// The exit codes of the failures among verdicts, OR-ed; 0 when there are none but what is no build's fault.
    #[must_use]
    pub fn failure_code<'v>(verdicts: impl IntoIterator<Item = &'v Self>) -> u8 {
        let codes = verdicts.into_iter().filter_map(|verdict| match verdict {
            Self::Failed { class, .. } => class.exit_code(),
            _ => None,
        });
        codes.fold(0, |all, code| all | code)
    }
}

/// Which kind of failure, in Nix's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureClass {
    /// The builder ended with an error, crashed, or left an output out.
    Build,
    /// Somebody killed the builder (SIGKILL), mostly the kernel because memory ran out. It may end well on another
    /// machine, or the next time.
    Killed,
    /// The builder took longer than `timeout`, or was silent for longer than `max-silent-time`.
    TimedOut,
    /// A fixed-output derivation gave something else than its hash says.
    HashMismatch,
    /// Two builds of the same derivation differ.
    NonDeterministic,
    /// Its gate could not say whether there is work.
    Gate,
    /// Nix could not build it for a reason of its own: no builder for its system or features, a full
    /// disk, a store that is not writable, an end without a word.
    Other,
}

impl FailureClass {
    /// Nix's exit status for it (Nix manual, `nix-store --realise`: 100 build failure, 101 time-out,
    /// 102 hash mismatch, 104 not deterministic). Several are OR-ed. `None` for what has no exit status in Nix.
    #[must_use]
    pub fn exit_code(self) -> Option<u8> {
        match self {
            Self::Build | Self::Killed => Some(100),
            Self::TimedOut => Some(101),
            Self::HashMismatch => Some(102),
            Self::NonDeterministic => Some(104),
            Self::Gate | Self::Other => None,
        }
    }

    /// Whether it is the machine's fault rather than the derivation's, so that another may build it.
    #[must_use]
    pub fn is_of_machine(self) -> bool {
        matches!(self, Self::Killed | Self::Other)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Build => "build failed",
            Self::Killed => "builder killed",
            Self::TimedOut => "timed out",
            Self::HashMismatch => "hash mismatch",
            Self::NonDeterministic => "not deterministic",
            Self::Gate => "gate failed",
            Self::Other => "could not be built",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_and_red_ones_first() {
        let mut all = VerdictKind::ALL.to_vec();
        all.dedup();
        assert_eq!(all.len(), 7);
        let reds: Vec<bool> = VerdictKind::ALL.iter().map(|kind| kind.is_red()).collect();
        assert!(reds.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn json_names_the_verdict() {
        let verdict = Verdict::Failed { class: FailureClass::HashMismatch, message: "m".into() };
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json, serde_json::json!({"verdict": "failed", "class": "hashMismatch", "message": "m"}));
        assert_eq!(serde_json::from_value::<Verdict>(json).unwrap(), verdict);
        let cached = Verdict::Cached { from: Source::Substituter("https://c".into()) };
        assert_eq!(
            serde_json::to_value(cached).unwrap(),
            serde_json::json!({"verdict": "cached", "from": {"where": "substituter", "url": "https://c"}})
        );
    }
}
