//! Which runner a derivation needs: from systems and features to runner labels.

use serde::{Deserialize, Deserializer, Serialize};

use crate::builders::{Builders, Machine};

/// A kind of runner: what it can build, and the labels it is asked for by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunnerKind {
    /// The systems it builds for; the first is the one it is called after in a matrix.
    pub systems: Vec<String>,
    /// The features it has.
    #[serde(default)]
    pub features: Vec<String>,
    /// Features that a derivation has to require to be built there: for runners too dear for the rest.
    #[serde(default)]
    pub mandatory: Vec<String>,
    /// The labels that ask for it: `runs-on` in GitHub's workflows, `tags` in GitLab's. One may stand alone.
    #[serde(deserialize_with = "one_or_several")]
    pub runs_on: Vec<String>,
}

fn one_or_several<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a label, or a list of labels")]
    enum Labels {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Labels::deserialize(source)? {
        Labels::One(label) => vec![label],
        Labels::Several(labels) => labels,
    })
}

impl RunnerKind {
    fn machine(&self) -> Machine {
        Machine {
            systems: self.systems.clone(),
            features: self.features.clone(),
            mandatory: self.mandatory.clone(),
        }
    }
}

/// The kinds of runners there are, the preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerKinds {
    kinds: Vec<RunnerKind>,
    machines: Builders,
}

impl RunnerKinds {
    /// These kinds and no others.
    #[must_use]
    pub fn new(kinds: Vec<RunnerKind>) -> Self {
        let machines = Builders { machines: kinds.iter().map(RunnerKind::machine).collect() };
        Self { kinds, machines }
    }

    /// The user's kinds, then those that GitHub gives to everybody, so that what the user has not said
    /// anything about still finds its runner.
    #[must_use]
    pub fn github_with(users: Vec<RunnerKind>) -> Self {
        Self::new(users.into_iter().chain(github()).collect())
    }

    /// The kinds, the preferred first.
    #[must_use]
    pub fn kinds(&self) -> &[RunnerKind] {
        &self.kinds
    }

    /// Which kinds, by position, can build for a system with some features: the preferred first, or in words
    /// why none can.
    ///
    /// # Errors
    /// When no kind can; the words name what is missing.
    pub fn for_class(&self, system: &str, features: &[String]) -> Result<Vec<usize>, String> {
        let able: Vec<usize> = (0..)
            .zip(&self.machines.machines)
            .filter(|(_, machine)| machine.takes(system, features))
            .map(|(position, _)| position)
            .collect();
        if able.is_empty() {
            let none = || format!("it is for {system}, and there are no runners at all");
            return Err(self.machines.refuse(system, features).unwrap_or_else(none));
        }
        Ok(able)
    }
}

/// What GitHub's standard runners are and have.
///
/// Labels: GitHub Docs, "GitHub-hosted runners reference" (standard runners for public and private
/// repositories). Features are what Nix takes on by itself (nix `src/libstore/globals.cc`,
/// `Settings::getDefaultSystemFeatures`): `nixos-test`, `benchmark` and `big-parallel` everywhere, `kvm` where
/// `/dev/kvm` may be used, which is on the x86 Linux runners only. `ca-derivations` is there where the experimental feature of that name
/// is on, and what requires it comes from a flake that turns it on.
fn github() -> Vec<RunnerKind> {
    let kind = |systems: &[&str], more: &[&str], label: &str| RunnerKind {
        systems: systems.iter().map(|&system| system.to_owned()).collect(),
        features: ["nixos-test", "benchmark", "big-parallel", "ca-derivations"]
            .iter()
            .chain(more)
            .map(|&feature| feature.to_owned())
            .collect(),
        mandatory: Vec::new(),
        runs_on: vec![label.to_owned()],
    };
    vec![
        kind(&["x86_64-linux", "i686-linux"], &["kvm", "uid-range"], "ubuntu-latest"),
        kind(&["aarch64-linux"], &["uid-range"], "ubuntu-24.04-arm"),
        kind(&["aarch64-darwin"], &[], "macos-latest"),
        kind(&["x86_64-darwin"], &[], "macos-15-intel"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn label(kinds: &RunnerKinds, system: &str, features: &[&str]) -> Result<String, String> {
        let able = kinds.for_class(system, &owned(features))?;
        Ok(kinds.kinds()[able[0]].runs_on.join(","))
    }

    #[test]
    fn every_system_of_github_has_its_label() {
        let kinds = RunnerKinds::github_with(vec![]);
        for (system, features, runs_on) in [
            ("x86_64-linux", &["kvm", "nixos-test"][..], "ubuntu-latest"),
            ("i686-linux", &["big-parallel"], "ubuntu-latest"),
            ("builtin", &[], "ubuntu-latest"),
            ("aarch64-linux", &["benchmark"], "ubuntu-24.04-arm"),
            ("aarch64-darwin", &[], "macos-latest"),
            ("x86_64-darwin", &[], "macos-15-intel"),
        ] {
            assert_eq!(label(&kinds, system, features).unwrap(), runs_on);
        }
    }

    #[test]
    fn what_nobody_can_build_is_told_with_what_is_missing() {
        let kinds = RunnerKinds::github_with(vec![]);
        assert_eq!(
            label(&kinds, "aarch64-linux", &["kvm"]).unwrap_err(),
            "it requires the system feature kvm, which no builder for aarch64-linux has"
        );
        assert!(label(&kinds, "riscv64-linux", &[]).unwrap_err().contains("it is for riscv64-linux"));
        let none = RunnerKinds::new(vec![]);
        assert!(label(&none, "x86_64-linux", &[]).unwrap_err().contains("no runners at all"));
    }

    #[test]
    fn the_users_runners_come_first() {
        let own = RunnerKind {
            systems: owned(&["x86_64-linux"]),
            features: owned(&["big-parallel", "gpu"]),
            mandatory: owned(&["big-parallel"]),
            runs_on: owned(&["self-hosted", "large"]),
        };
        let kinds = RunnerKinds::github_with(vec![own]);
        assert_eq!(label(&kinds, "x86_64-linux", &["big-parallel"]).unwrap(), "self-hosted,large");
        assert_eq!(label(&kinds, "x86_64-linux", &[]).unwrap(), "ubuntu-latest");
        let both = kinds.for_class("x86_64-linux", &owned(&["big-parallel"])).unwrap();
        assert_eq!(both.len(), 2, "GitHub's can build it too");
        assert!(label(&kinds, "x86_64-linux", &["gpu"]).is_err(), "mandatory, and not required");
    }
}
