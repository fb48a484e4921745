//! Installables: `FLAKEREF#ATTR^OUTPUTS`.

use phoenix_model::{AttrPath, AttrPathError};

/// What a user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installable {
    /// The flake reference, `.` when none is given.
    pub flake: String,
    /// The attribute path, `None` for the default targets.
    pub attr: Option<AttrPath>,
    /// Whether the path is meant from the root, without Nix's usual prefixes (`.#.a.b`).
    pub absolute: bool,
    /// The outputs that are wanted; empty for all.
    pub outputs: Vec<String>,
}

/// Why a text is not an installable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an installable")]
pub struct InstallableError {
    text: String,
    source: AttrPathError,
}

impl Installable {
    /// Reads an installable as Nix does.
    ///
    /// # Errors
    /// When the attribute path is malformed.
    pub fn parse(text: &str) -> Result<Self, InstallableError> {
        let (flake, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (attr, outputs) = split_outputs(fragment);
        let absolute = attr.starts_with('.');
        let attr = AttrPath::parse(attr.strip_prefix('.').unwrap_or(attr))
            .map_err(|source| InstallableError { text: text.to_owned(), source })?;
        Ok(Self {
            flake: if flake.is_empty() { "." } else { flake }.to_owned(),
            attr: Some(attr).filter(|attr| !attr.names().is_empty()),
            absolute,
            outputs,
        })
    }

    /// Where the attribute may be, in the order of looking: as it stands below `packages.SYSTEM` and
    /// `legacyPackages.SYSTEM`, as Nix looks, then from the root.
    #[must_use]
    pub fn candidates(&self, system: &str) -> Vec<AttrPath> {
        let Some(attr) = &self.attr else { return vec![AttrPath::default()] };
        let below = |prefix: &str| {
            let mut names = vec![prefix.to_owned(), system.to_owned()];
            names.extend(attr.names().iter().cloned());
            AttrPath(names)
        };
        if self.absolute {
            return vec![attr.clone()];
        }
        vec![below("packages"), below("legacyPackages"), attr.clone()]
    }
}

impl Installable {
    /// Where something to run may be: below `apps.SYSTEM`, as `nix run` looks, and where it is to be built.
    #[must_use]
    pub fn program_candidates(&self, system: &str) -> Vec<AttrPath> {
        let mut candidates = self.candidates(system);
        if let Some(attr) = self.attr.as_ref().filter(|_| !self.absolute) {
            let mut names = vec!["apps".to_owned(), system.to_owned()];
            names.extend(attr.names().iter().cloned());
            candidates.insert(0, AttrPath(names));
        }
        candidates
    }
}

/// `a.b^out,dev` and `a.b^*`; a `^` inside quotes belongs to the name.
fn split_outputs(fragment: &str) -> (&str, Vec<String>) {
    match fragment.rsplit_once('^') {
        Some((attr, outputs)) if !outputs.contains('"') => {
            let outputs = outputs.split(',').filter(|name| !name.is_empty() && *name != "*");
            (attr, outputs.map(str::to_owned).collect())
        }
        _ => (fragment, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, String, bool, String) {
        let found = Installable::parse(text).unwrap();
        let attr = found.attr.map(|attr| attr.to_string()).unwrap_or_default();
        (found.flake, attr, found.absolute, found.outputs.join(","))
    }

    fn four(flake: &str, attr: &str, absolute: bool, outputs: &str) -> (String, String, bool, String) {
        (flake.into(), attr.into(), absolute, outputs.into())
    }

    #[test]
    fn forms() {
        assert_eq!(parse("."), four(".", "", false, ""));
        assert_eq!(parse(".#"), four(".", "", false, ""));
        assert_eq!(parse("#a"), four(".", "a", false, ""));
        assert_eq!(parse("github:a/b#x.\"y.z\""), four("github:a/b", "x.\"y.z\"", false, ""));
        assert_eq!(parse("path:/x?dir=y#.a.b"), four("path:/x?dir=y", "a.b", true, ""));
        assert_eq!(parse(".#a^out,dev"), four(".", "a", false, "out,dev"));
        assert_eq!(parse(".#a^*"), four(".", "a", false, ""));
        assert_eq!(parse(".#\"a^b\""), four(".", "a^b", false, ""), "a quoted name keeps its ^");
        assert!(Installable::parse(".#a..b").is_err());
    }

    #[test]
    fn an_attribute_is_looked_for_where_nix_looks() {
        let texts = |text: &str| {
            let paths = Installable::parse(text).unwrap().candidates("x86_64-linux");
            paths.iter().map(AttrPath::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts(".#a"), ["packages.x86_64-linux.a", "legacyPackages.x86_64-linux.a", "a"]);
        assert_eq!(texts(".#.a"), ["a"]);
        assert_eq!(texts("."), [""]);
        let programs = Installable::parse(".#a").unwrap().program_candidates("x86_64-linux");
        assert_eq!(programs[0].to_string(), "apps.x86_64-linux.a");
        assert_eq!(programs.len(), 4);
    }
}
