//! How long derivations took, and so how long others may take.

use std::collections::BTreeMap;

use phoenix_model::StorePath;
use serde::{Deserialize, Serialize};

/// What a derivation is expected to take when nothing is known of it, in seconds.
pub const DEFAULT_SECONDS: f64 = 10.0;

/// How many derivations are remembered; the names are remembered beyond that.
const MOST_DERIVATIONS: usize = 50_000;

/// Seconds that derivations took in earlier runs, by derivation, and by package name for those that
/// were never built in this exact form.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Estimates {
    by_derivation: BTreeMap<String, f64>,
    by_name: BTreeMap<String, f64>,
}

impl Estimates {
    /// Reads what [`Estimates::to_json`] wrote; `None` when it is something else.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The form in which estimates are kept between runs.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Remembers what a derivation took.
    pub fn learn(&mut self, drv_path: &StorePath, seconds: f64) {
        let name = package_name(drv_path.human_name());
        // Half the new figure and half the old: machines are noisy, packages grow.
        self.by_name
            .entry(name.to_owned())
            .and_modify(|known| *known = f64::midpoint(*known, seconds))
            .or_insert(seconds);
        if self.by_derivation.len() >= MOST_DERIVATIONS {
            self.by_derivation.pop_first();
        }
        self.by_derivation.insert(drv_path.base_name().to_owned(), seconds);
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
        assert_eq!(estimates.known(&drv("hello-1")), Some(4.0));
        assert_eq!(estimates.known(&drv("hello-3")), None);
        assert!((estimates.seconds(&drv("hello-3")) - 6.0).abs() < 1e-9);
        assert!((estimates.seconds(&drv("other")) - DEFAULT_SECONDS).abs() < 1e-9);
        assert_eq!(Estimates::from_json(&estimates.to_json()).unwrap(), estimates);
        assert_eq!(Estimates::from_json("nonsense"), None);
    }
}
