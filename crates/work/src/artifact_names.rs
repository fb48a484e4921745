//! What the names of a ledger's artifacts say.
//!
//! Names cost no request to read, contents cost two. So all that workers say of themselves and of their claims is
//! in names; only how a unit ended is in contents.

use std::fmt::Write as _;

use phoenix_schedule::farm::{Slot, UnitId};

/// The most claims that a name tells of; a worker has one at a time.
const MOST_CLAIMS: usize = 8;

/// A unit and the number of the attempt.
pub(crate) type Attempt = (UnitId, u32);

/// What an artifact of a ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// A worker began to work.
    Joined(Slot),
    /// A worker ended in good order, mayhap because it may make no more artifacts.
    Left(Slot, bool),
    /// Reserved, a claim; whole, how it ended.
    Unit(Attempt),
    /// How an attempt ended whose own artifact could not be used; the number makes it unique.
    Late(Attempt, u64),
    /// A worker is alive.
    Alive(Alive),
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alive {
    pub(crate) slot: Slot,
    /// Later ones have larger numbers.
    pub(crate) number: u64,
    /// The count of its heartbeat, if it has one.
    pub(crate) count: Option<u64>,
    /// What it has claimed and not finished.
    pub(crate) claims: Vec<Attempt>,
}

impl Name {
    /// The artifact's name in the ledger of a run: words and numbers between dots.
    pub(crate) fn of_run(&self, run: &str) -> String {
        let mut text = prefix(run);
        // Writing to a string does not fail.
        let _ = match self {
            Self::Joined(slot) => write!(text, "joined.{}", slot.0),
            Self::Left(slot, false) => write!(text, "left.{}", slot.0),
            Self::Left(slot, true) => write!(text, "left.{}.spent", slot.0),
            Self::Unit((unit, attempt)) => write!(text, "unit.{}.{attempt}", unit.0),
            Self::Late((unit, attempt), number) => write!(text, "late.{}.{attempt}.{number}", unit.0),
            Self::Alive(Alive { slot, number, count, claims }) => {
                let count = count.map_or_else(|| "none".to_owned(), |count| count.to_string());
                let claims = claims.iter().take(MOST_CLAIMS);
                let claims: String = claims.map(|(unit, attempt)| format!(".{}.{attempt}", unit.0)).collect();
                write!(text, "worker.{}.{number}.{count}{claims}", slot.0)
            }
        };
        text
    }

    /// What an artifact's name means in the ledger of a run; none for what is none of it.
    pub(crate) fn read(name: &str, run: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(&prefix(run))?.split('.');
        let kind = parts.next()?;
        let parts: Vec<&str> = parts.collect();
        let small = |text: &str| text.parse::<u32>().ok();
        Some(match (kind, parts.as_slice()) {
            ("joined", [slot]) => Self::Joined(Slot(small(slot)?)),
            ("left", [slot]) => Self::Left(Slot(small(slot)?), false),
            ("left", [slot, "spent"]) => Self::Left(Slot(small(slot)?), true),
            ("unit", [unit, attempt]) => Self::Unit((UnitId(small(unit)?), small(attempt)?)),
            ("late", [unit, attempt, number]) => {
                Self::Late((UnitId(small(unit)?), small(attempt)?), number.parse().ok()?)
            }
            ("worker", [slot, number, count, claims @ ..]) => {
                let (pairs, []) = claims.as_chunks::<2>() else { return None };
                let claim = |[unit, attempt]: &[&str; 2]| Some((UnitId(small(unit)?), small(attempt)?));
                let count = if *count == "none" { None } else { Some(count.parse().ok()?) };
                let claims = pairs.iter().map(claim).collect::<Option<_>>()?;
                Self::Alive(Alive { slot: Slot(small(slot)?), number: number.parse().ok()?, count, claims })
            }
            _ => return None,
        })
    }
}

/// Whether a text can be a run's name: letters, digits, `-` and `_`, which no forge forbids.
pub(crate) fn is_run(run: &str) -> bool {
    let fits = (1..=100).contains(&run.len());
    fits && run.chars().all(|char| char.is_ascii_alphanumeric() || "-_".contains(char))
}

fn prefix(run: &str) -> String {
    format!("phoenix-{run}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_what_they_mean() {
        let alive = |count, claims: &[(u32, u32)]| {
            let claims = claims.iter().map(|&(unit, attempt)| (UnitId(unit), attempt)).collect();
            Name::Alive(Alive { slot: Slot(3), number: 1_800_000_000_000, count, claims })
        };
        for (name, text) in [
            (Name::Joined(Slot(0)), "phoenix-a-b.joined.0"),
            (Name::Left(Slot(12), false), "phoenix-a-b.left.12"),
            (Name::Left(Slot(12), true), "phoenix-a-b.left.12.spent"),
            (Name::Unit((UnitId(5), 1)), "phoenix-a-b.unit.5.1"),
            (Name::Late((UnitId(5), 2), 99), "phoenix-a-b.late.5.2.99"),
            (alive(Some(7), &[]), "phoenix-a-b.worker.3.1800000000000.7"),
            (alive(None, &[(5, 1), (6, 2)]), "phoenix-a-b.worker.3.1800000000000.none.5.1.6.2"),
        ] {
            assert_eq!(name.of_run("a-b"), text);
            assert_eq!(Name::read(text, "a-b"), Some(name));
            assert_eq!(Name::read(text, "a"), None);
        }
    }

    #[test]
    fn what_others_made_means_nothing() {
        for name in [
            "",
            "logs",
            "phoenix-a",
            "phoenix-a.",
            "phoenix-a.unit.5",
            "phoenix-a.unit.5.x",
            "phoenix-a.unit.5.1.2",
            "phoenix-a.joined.-1",
            "phoenix-a.worker.1.2",
            "phoenix-a.worker.1.2.3.4",
            "phoenix-ab.joined.1",
        ] {
            assert_eq!(Name::read(name, "a"), None, "{name}");
        }
        assert!(is_run("0001-aF_2"));
        assert!(!is_run("") && !is_run("a.b") && !is_run("a/b") && !is_run(&"a".repeat(101)));
    }
}
