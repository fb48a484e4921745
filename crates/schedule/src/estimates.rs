//! What derivations took, and so what others may take.

use std::collections::BTreeMap;

use phoenix_model::StorePath;
use serde::{Deserialize, Serialize};

/// What a derivation is expected to take when nothing is known of it, in seconds.
pub const DEFAULT_SECONDS: f64 = 10.0;

/// How many bytes the outputs of a derivation are expected to have when nothing is known of it: about what a
/// store path of nixpkgs has on the average.
pub const DEFAULT_BYTES: u64 = 2_000_000;

/// How many derivations are remembered; the names are remembered beyond that.
const MOST_DERIVATIONS: usize = 50_000;

/// What derivations took in earlier runs, in seconds and in bytes of output: by derivation, and by package
/// name for those that were never built in this exact form.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Estimates {
    by_derivation: BTreeMap<String, f64>,
    by_name: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    bytes_by_derivation: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    bytes_by_name: BTreeMap<String, u64>,
}

impl Estimates {
    /// Reads what [`Estimates::to_json`] wrote; `None` when it is something else.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        let read: Self = serde_json::from_str(text).ok()?;
        let sound = |seconds: &f64| seconds.is_finite() && *seconds >= 0.0;
        read.by_derivation.values().chain(read.by_name.values()).all(sound).then_some(read)
    }

    /// The form in which estimates are kept between runs, on a machine or in a depot.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Remembers what a derivation took.
    pub fn learn(&mut self, drv_path: &StorePath, seconds: f64) {
        if !seconds.is_finite() || seconds < 0.0 {
            return;
        }
        // Half the new figure and half the old: machines are noisy, packages grow.
        self.by_name
            .entry(package_name(drv_path.human_name()).to_owned())
            .and_modify(|known| *known = f64::midpoint(*known, seconds))
            .or_insert(seconds);
        remember(&mut self.by_derivation, drv_path, seconds);
    }

    /// Remembers how many bytes the outputs of a derivation have, as archives.
    pub fn learn_bytes(&mut self, drv_path: &StorePath, bytes: u64) {
        self.bytes_by_name
            .entry(package_name(drv_path.human_name()).to_owned())
            .and_modify(|known| *known = u64::midpoint(*known, bytes))
            .or_insert(bytes);
        remember(&mut self.bytes_by_derivation, drv_path, bytes);
    }

    /// Takes in what another has learnt, which counts as the newer: so the records of several runners
    /// become one.
    pub fn merge(&mut self, newer: Self) {
        self.by_name.extend(newer.by_name);
        self.bytes_by_name.extend(newer.bytes_by_name);
        for (key, seconds) in newer.by_derivation {
            keep(&mut self.by_derivation, key, seconds);
        }
        for (key, bytes) in newer.bytes_by_derivation {
            keep(&mut self.bytes_by_derivation, key, bytes);
        }
    }

    /// What exactly this derivation took when it was last built, if it was.
    #[must_use]
    pub fn known(&self, drv_path: &StorePath) -> Option<f64> {
        self.by_derivation.get(drv_path.base_name()).copied()
    }

    /// What a derivation is expected to take.
    #[must_use]
    pub fn seconds(&self, drv_path: &StorePath) -> f64 {
        self.known(drv_path)
            .or_else(|| self.by_name.get(package_name(drv_path.human_name())).copied())
            .unwrap_or(DEFAULT_SECONDS)
    }

    /// How many bytes the outputs of a derivation are expected to have.
    #[must_use]
    pub fn bytes(&self, drv_path: &StorePath) -> u64 {
        let known = self.bytes_by_derivation.get(drv_path.base_name());
        known
            .or_else(|| self.bytes_by_name.get(package_name(drv_path.human_name())))
            .copied()
            .unwrap_or(DEFAULT_BYTES)
    }
}

fn remember<T>(known: &mut BTreeMap<String, T>, drv_path: &StorePath, value: T) {
    keep(known, drv_path.base_name().to_owned(), value);
}

fn keep<T>(known: &mut BTreeMap<String, T>, key: String, value: T) {
    if known.insert(key, value).is_none() && known.len() > MOST_DERIVATIONS {
        // The keys begin with a hash: this forgets one at random.
        known.pop_first();
    }
}

/// The name of a package without its version: everything before the first `-` that a digit follows, as
/// Nix's `builtins.parseDrvName` has it.
#[must_use]
pub fn package_name(name: &str) -> &str {
    name.char_indices()
        .zip(name.chars().skip(1))
        .find(|((_, char), next)| *char == '-' && !next.is_alphabetic())
        .map_or(name, |((at, _), _)| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drv(name: &str) -> StorePath {
        StorePath::parse(&format!("/nix/store/{}-{name}.drv", "0".repeat(32))).unwrap()
    }

    #[test]
    fn names_end_where_versions_begin() {
        for (name, package) in [
            ("hello-2.12", "hello"),
            ("python3.11-numpy-1.2", "python3.11-numpy"),
            ("gcc-wrapper", "gcc-wrapper"),
            ("x", "x"),
            ("", ""),
            ("linux-6.1-rc2", "linux"),
        ] {
            assert_eq!(package_name(name), package);
        }
    }

    #[test]
    fn the_derivation_itself_is_known_best_then_its_name_then_nothing() {
        let mut estimates = Estimates::default();
        estimates.learn(&drv("hello-1"), 4.0);
        estimates.learn(&drv("hello-2"), 8.0);
        estimates.learn_bytes(&drv("hello-1"), 100);
        estimates.learn_bytes(&drv("hello-2"), 300);
        assert_eq!(estimates.known(&drv("hello-1")), Some(4.0));
        assert_eq!(estimates.known(&drv("hello-3")), None);
        assert!((estimates.seconds(&drv("hello-3")) - 6.0).abs() < 1e-9);
        assert!((estimates.seconds(&drv("other")) - DEFAULT_SECONDS).abs() < 1e-9);
        assert_eq!(estimates.bytes(&drv("hello-1")), 100);
        assert_eq!(estimates.bytes(&drv("hello-3")), 200);
        assert_eq!(estimates.bytes(&drv("other")), DEFAULT_BYTES);
        assert_eq!(Estimates::from_json(&estimates.to_json()).unwrap(), estimates);
    }

    #[test]
    fn a_record_that_is_none_is_not_read() {
        for text in ["nonsense", r#"{"byName":{"a":-1}}"#, r#"{"byNames":{}}"#] {
            assert_eq!(Estimates::from_json(text), None, "{text}");
        }
        // What was kept before bytes were.
        let old = Estimates::from_json(r#"{"byDerivation":{},"byName":{"hello":3.0}}"#).unwrap();
        assert!((old.seconds(&drv("hello-1")) - 3.0).abs() < 1e-9);
        assert_eq!(old.bytes(&drv("hello-1")), DEFAULT_BYTES);
    }

    #[test]
    fn what_took_no_time_that_can_be_told_is_not_learnt() {
        let mut estimates = Estimates::default();
        estimates.learn(&drv("a-1"), f64::NAN);
        estimates.learn(&drv("a-1"), -1.0);
        assert_eq!(estimates, Estimates::default());
    }

    #[test]
    fn the_records_of_several_runners_become_one() {
        let (mut one, mut other) = (Estimates::default(), Estimates::default());
        one.learn(&drv("a-1"), 1.0);
        one.learn(&drv("b-1"), 2.0);
        other.learn(&drv("b-1"), 6.0);
        other.learn_bytes(&drv("c-1"), 7);
        one.merge(other);
        assert_eq!((one.known(&drv("a-1")), one.known(&drv("b-1"))), (Some(1.0), Some(6.0)));
        assert_eq!(one.bytes(&drv("c-2")), 7);
    }

    #[test]
    fn no_more_derivations_are_remembered_than_there_is_room_for() {
        let mut known = BTreeMap::new();
        for number in 0..MOST_DERIVATIONS + 10 {
            keep(&mut known, format!("{number:032}-x.drv"), 1.0);
        }
        assert_eq!(known.len(), MOST_DERIVATIONS);
    }
}
