//! Which derivations somebody can build at all.

/// The builders there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Builders {
    /// All of them; none for builders that nothing is known of, which may be able to build anything.
    pub machines: Vec<Machine>,
}

/// What one builder can build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// The systems it builds for.
    pub systems: Vec<String>,
    /// The features it has.
    pub features: Vec<String>,
    /// Features that a derivation has to require for this builder to take it.
    pub mandatory: Vec<String>,
}

impl Machine {
    pub(crate) fn takes(&self, system: &str, required: &[String]) -> bool {
        self.builds_for(system)
            && required.iter().all(|feature| self.has(feature))
            && self.mandatory.iter().all(|feature| required.contains(feature))
    }

    fn builds_for(&self, system: &str) -> bool {
        // Fetchers and the like that Nix itself runs, anywhere.
        system == "builtin" || self.systems.iter().any(|known| known == system)
    }

    fn has(&self, feature: &str) -> bool {
        self.features.iter().chain(&self.mandatory).any(|known| known == feature)
    }
}

impl Builders {
    /// Why nobody can build for a system with some features; `None` when somebody can, or might.
    #[must_use]
    pub fn refuse(&self, system: &str, required: &[String]) -> Option<String> {
        if self.machines.is_empty() || self.machines.iter().any(|machine| machine.takes(system, required)) {
            return None;
        }
        let able: Vec<&Machine> = self.machines.iter().filter(|machine| machine.builds_for(system)).collect();
        if able.is_empty() {
            let mut known: Vec<&str> =
                self.machines.iter().flat_map(|machine| &machine.systems).map(String::as_str).collect();
            known.sort_unstable();
            known.dedup();
            return Some(format!("it is for {system}, and there are builders for {} only", known.join(", ")));
        }
        let missing: Vec<&str> = required
            .iter()
            .filter(|feature| !able.iter().any(|machine| machine.has(feature)))
            .map(String::as_str)
            .collect();
        // One has them all, and takes only what requires more.
        let picky = able.iter().find(|machine| required.iter().all(|feature| machine.has(feature)));
        if let Some(picky) = picky {
            let wanted: Vec<&str> = picky
                .mandatory
                .iter()
                .filter(|feature| !required.contains(feature))
                .map(String::as_str)
                .collect();
            return Some(format!(
                "a builder for {system} that could build it takes only what requires {}, which this does not",
                wanted.join(", ")
            ));
        }
        Some(if missing.is_empty() {
            format!(
                "no single builder for {system} has all the features it requires: {}",
                required.join(", ")
            )
        } else {
            format!(
                "it requires the system feature {}, which no builder for {system} has",
                missing.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(systems: &[&str], features: &[&str], mandatory: &[&str]) -> Machine {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Machine { systems: owned(systems), features: owned(features), mandatory: owned(mandatory) }
    }

    fn refuse(machines: Vec<Machine>, system: &str, required: &[&str]) -> Option<String> {
        let required: Vec<String> = required.iter().map(|&word| word.to_owned()).collect();
        Builders { machines }.refuse(system, &required)
    }

    #[test]
    fn what_is_missing_is_named() {
        let here = || vec![machine(&["x86_64-linux", "i686-linux"], &["big-parallel"], &[])];
        assert_eq!(refuse(here(), "x86_64-linux", &["big-parallel"]), None);
        assert_eq!(refuse(here(), "i686-linux", &[]), None);
        assert_eq!(refuse(here(), "builtin", &[]), None);
        assert_eq!(
            refuse(here(), "x86_64-linux", &["kvm", "big-parallel"]).unwrap(),
            "it requires the system feature kvm, which no builder for x86_64-linux has"
        );
        assert_eq!(
            refuse(here(), "aarch64-linux", &[]).unwrap(),
            "it is for aarch64-linux, and there are builders for i686-linux, x86_64-linux only"
        );
    }

    #[test]
    fn one_builder_has_to_have_everything() {
        let two = vec![machine(&["x"], &["a"], &[]), machine(&["x"], &["b"], &[])];
        assert!(refuse(two, "x", &["a", "b"]).unwrap().contains("no single builder"));
    }

    #[test]
    fn a_mandatory_feature_keeps_others_away() {
        let picky = || vec![machine(&["x"], &[], &["kvm"])];
        assert!(refuse(picky(), "x", &[]).unwrap().contains("takes only what requires kvm"));
        assert_eq!(refuse(picky(), "x", &["kvm"]), None);
    }

    #[test]
    fn builders_that_are_not_known_might_build_anything() {
        assert_eq!(refuse(vec![], "any", &["thing"]), None);
    }
}
