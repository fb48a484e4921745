//! Which attributes are targets.

use phoenix_model::AttrPath;

use crate::glob::{Glob, GlobError, Next};

/// The attributes that are targets when nothing else is asked for. `{system}` stands for each system
/// that is selected.
pub const DEFAULT_INCLUDE: &[&str] = &[
    "checks.{system}.*",
    "packages.{system}.*",
    "devShells.{system}.*",
    "formatter.{system}",
    "nixosConfigurations.*.config.system.build.toplevel",
    "darwinConfigurations.*.system",
    "homeConfigurations.*.activationPackage",
    "hydraJobs.**",
    "ci.**",
    "__std.ci.{system}",
];

/// Which attributes are targets, by patterns over the full attribute path.
#[derive(Debug, Clone)]
pub struct Selection {
    include: Vec<Include>,
    /// Whether patterns were given, other than the usual ones.
    narrowed: bool,
    /// Whether they are the flake's own, and say what it is tested for when nothing else is asked.
    own: bool,
    /// Whether the systems were asked for.
    systems_asked: bool,
    exclude: Vec<Glob>,
    systems: Vec<String>,
}

/// A pattern of targets.
#[derive(Debug, Clone)]
struct Include {
    glob: Glob,
    /// As it was given, before it was expanded for a system.
    pattern: String,
    /// It is one of [`DEFAULT_INCLUDE`]: what it leads to has to be what Nix's schema of flakes says.
    usual: bool,
}

/// What is wrong with something that a pattern leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It should be a derivation.
    NoDerivation,
    /// There should be sets here, down to the pattern's end.
    NoSet(Glob),
}

impl Selection {
    /// Makes a selection for some systems. Without `include` it is [`DEFAULT_INCLUDE`]; `{system}` is
    /// replaced in both.
    ///
    /// # Errors
    /// When a pattern is malformed.
    pub fn new(include: &[String], exclude: &[String], systems: &[String]) -> Result<Self, GlobError> {
        let defaults: Vec<String> = DEFAULT_INCLUDE.iter().map(|&glob| glob.to_owned()).collect();
        let narrowed = !include.is_empty();
        let this = Self::of_file(if narrowed { include } else { &defaults }, exclude, systems)?;
        Ok(Self { narrowed, ..this })
    }

    /// The selection of a file that is no flake, when no patterns are given: there are no usual places, so
    /// sets are entered where they ask for it, as `nix-build` does.
    ///
    /// # Errors
    /// When a pattern is malformed.
    pub fn of_file(include: &[String], exclude: &[String], systems: &[String]) -> Result<Self, GlobError> {
        let mut includes = Vec::new();
        for pattern in include {
            let usual = DEFAULT_INCLUDE.contains(&pattern.as_str());
            let globs = expand(std::slice::from_ref(pattern), systems)?;
            includes.extend(globs.into_iter().map(|glob| Include { glob, pattern: pattern.clone(), usual }));
        }
        Ok(Self {
            include: includes,
            narrowed: !include.is_empty(),
            own: false,
            systems_asked: false,
            exclude: expand(exclude, systems)?,
            systems: systems.to_vec(),
        })
    }

    /// Says that the systems were asked for, so that there has to be something for them.
    #[must_use]
    pub fn with_systems_asked(mut self) -> Self {
        self.systems_asked = true;
        self
    }

    /// Says that the patterns to include are the flake's own.
    #[must_use]
    pub fn of_the_flake(mut self) -> Self {
        self.own = true;
        self
    }

    /// The systems that are selected.
    #[must_use]
    pub fn systems(&self) -> &[String] {
        &self.systems
    }

    /// Whether a name is that of a system, and if so whether it is selected.
    pub(crate) fn selects_system(&self, name: &str) -> Option<bool> {
        is_system(name).then(|| self.systems.iter().any(|system| system == name))
    }

    /// Whether patterns were given that also choose among what is named.
    pub(crate) fn binds_named(&self) -> bool {
        self.narrowed && !self.own
    }

    /// The patterns, as they were given.
    pub(crate) fn patterns(&self) -> String {
        let mut quoted: Vec<String> =
            self.include.iter().map(|include| format!("`{}`", include.pattern)).collect();
        quoted.dedup();
        quoted.join(" or ")
    }

    /// Why there has to be at least one target, if there has to be.
    pub(crate) fn demand(&self) -> Option<String> {
        if self.narrowed {
            Some(format!("no attribute matches {}", self.patterns()))
        } else if self.systems_asked {
            Some(format!("there is no target for {}", self.systems.join(" or ")))
        } else {
            None
        }
    }

    /// The patterns that were given and that none of these paths match.
    pub(crate) fn idle_patterns(&self, paths: &[&AttrPath]) -> Vec<String> {
        let mut idle: Vec<String> = Vec::new();
        for Include { pattern, .. } in self.include.iter().filter(|_| self.narrowed) {
            let mut globs = self.include.iter().filter(|include| include.pattern == *pattern);
            let matched = globs.any(|include| paths.iter().any(|path| include.glob.matches(path.names())));
            if !matched && !idle.contains(pattern) {
                idle.push(pattern.clone());
            }
        }
        idle
    }

    pub(crate) fn included(&self, path: &[String]) -> bool {
        self.include.iter().any(|include| include.glob.matches(path))
    }

    /// What is wrong with a path at which there is neither a derivation nor a set.
    ///
    /// Where a pattern goes any depth, and where it begins with `*`, it leads through functions and strings
    /// that nobody meant. The usual outputs hold nothing but derivations: `hydraJobs` by Hydra's own rule,
    /// where null is a job that is not to be built.
    pub(crate) fn unfit(&self, path: &[String], r#type: &str) -> Option<Unfit> {
        let any = |test: &dyn Fn(&Include) -> bool| self.include.iter().find(|include| test(include));
        let is_null = r#type == "null";
        let ends = any(&|Include { glob, usual, .. }| {
            glob.matches(path) && (glob.has_depth() || (*usual && !is_null))
        });
        if ends.is_some() {
            return Some(Unfit::NoDerivation);
        }
        any(&|Include { glob, usual, .. }| {
            glob.may_match_below(path) && glob.is_definite() || {
                *usual && !is_null && glob.may_match_below(path)
            }
        })
        .map(|include| Unfit::NoSet(include.glob.clone()))
    }

    /// The usual pattern that leads below a path at which there is a derivation.
    pub(crate) fn set_expected(&self, path: &[String]) -> Option<&Glob> {
        let leads_on = |include: &&Include| include.usual && include.glob.may_match_below(path);
        self.include.iter().find(leads_on).map(|include| &include.glob)
    }

    /// The name that is missing from a set with these names, and the usual pattern that needs it.
    pub(crate) fn lacking(&self, path: &[String], names: &[String]) -> Option<(&str, &Glob)> {
        self.include.iter().filter(|include| include.usual).find_map(|include| {
            let name = include.glob.name_below_star(path)?;
            (!names.iter().any(|known| known == name)).then_some((name, &include.glob))
        })
    }

    /// The pattern that excludes a path or something it is below, if one does.
    pub(crate) fn excluded_by(&self, path: &[String]) -> Option<&Glob> {
        self.exclude.iter().find(|glob| (1..=path.len()).any(|end| glob.matches(&path[..end])))
    }

    pub(crate) fn may_include_below(&self, path: &[String]) -> bool {
        self.include.iter().any(|include| include.glob.may_match_below(path))
    }

    /// Whether a child of a path is worth looking at: included itself or above something that is, not
    /// excluded, and not a system that is not selected, unless a pattern names it.
    pub(crate) fn may_enter(&self, path: &[String], name: &str) -> bool {
        let child = AttrPath(path.to_vec()).child(name).0;
        let globs = self.include.iter().map(|include| &include.glob);
        let candidates = globs.filter(|glob| glob.matches(&child) || glob.may_match_below(&child));
        let mut candidates = candidates.peekable();
        if candidates.peek().is_none() || self.excluded_by(&child).is_some() {
            return false;
        }
        if self.selects_system(name) != Some(false) {
            return true;
        }
        candidates.any(
            |glob| matches!(glob.next(path), Next::Names(names) if names.iter().any(|named| named == name)),
        )
    }

    /// The names below a path that have to be looked at; `None` for all.
    pub(crate) fn wanted_below(&self, path: &[String]) -> Option<Vec<String>> {
        let mut wanted = Vec::new();
        for include in &self.include {
            match include.glob.next(path) {
                Next::All => return None,
                Next::Names(names) => wanted.extend(names),
            }
        }
        wanted.sort();
        wanted.dedup();
        Some(wanted)
    }

    /// Why a derivation is not for the systems selected, if it is not: its own system counts where its
    /// attribute path names none.
    pub(crate) fn foreign(
        &self,
        path: &[String],
        system: &str,
        extra_platforms: &[String],
    ) -> Option<String> {
        let named = path.iter().any(|name| is_system(name));
        let known = |systems: &[String]| systems.iter().any(|known| known == system);
        if named || system == "builtin" || known(&self.systems) || known(extra_platforms) {
            return None;
        }
        Some(format!("it is for {system}, and this run is for {}", self.systems.join(", ")))
    }
}

fn expand(globs: &[String], systems: &[String]) -> Result<Vec<Glob>, GlobError> {
    let mut expanded = Vec::new();
    for glob in globs {
        if glob.contains("{system}") {
            for system in systems {
                expanded.push(Glob::parse(&glob.replace("{system}", system))?);
            }
        } else {
            expanded.push(Glob::parse(glob)?);
        }
    }
    Ok(expanded)
}

/// Whether a name is that of a system, such as `aarch64-linux`: an architecture and a kernel that Nix
/// knows (nixpkgs `lib/systems/doubles.nix`).
#[must_use]
pub fn is_system(name: &str) -> bool {
    const ARCHITECTURES: &[&str] = &[
        "x86_64",
        "aarch64",
        "i686",
        "armv5tel",
        "armv6l",
        "armv7l",
        "armv7a",
        "riscv32",
        "riscv64",
        "powerpc64le",
        "powerpc64",
        "powerpc",
        "s390x",
        "loongarch64",
        "mips64el",
        "mipsel",
        "m68k",
        "wasm32",
    ];
    const KERNELS: &[&str] =
        &["linux", "darwin", "freebsd", "openbsd", "netbsd", "wasi", "cygwin", "windows", "none"];
    name.split_once('-')
        .is_some_and(|(arch, kernel)| ARCHITECTURES.contains(&arch) && KERNELS.contains(&kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(include: &[&str], exclude: &[&str]) -> Selection {
        let owned = |globs: &[&str]| globs.iter().map(|&glob| glob.to_owned()).collect::<Vec<_>>();
        Selection::new(&owned(include), &owned(exclude), &["x86_64-linux".to_owned()]).unwrap()
    }

    fn path(text: &str) -> Vec<String> {
        AttrPath::parse(text).unwrap().0
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let selection = selection(&[], &[]);
        for included in [
            "checks.x86_64-linux.a",
            "packages.x86_64-linux.default",
            "devShells.x86_64-linux.default",
            "formatter.x86_64-linux",
            "nixosConfigurations.host.config.system.build.toplevel",
            "darwinConfigurations.mac.system",
            "homeConfigurations.\"me@host\".activationPackage",
            "hydraJobs.a.b.c",
            "ci.lint",
        ] {
            assert!(selection.included(&path(included)), "{included}");
        }
        for not in
            ["checks.aarch64-linux.a", "legacyPackages.x86_64-linux.a", "packages.x86_64-linux.a.b", "lib.x"]
        {
            assert!(!selection.included(&path(not)), "{not}");
        }
        assert!(!selection.may_enter(&[], "legacyPackages"));
        assert!(!selection.may_enter(&path("checks"), "aarch64-linux"));
        assert_eq!(selection.wanted_below(&path("nixosConfigurations.h")), Some(vec!["config".into()]));
        assert_eq!(selection.wanted_below(&path("hydraJobs")), None);
    }

    #[test]
    fn exclude_wins_and_prunes() {
        let selection = selection(&["**"], &["hydraJobs.slow", "**.broken"]);
        assert!(!selection.may_enter(&path("hydraJobs"), "slow"));
        assert!(!selection.may_enter(&path("a.b"), "broken"));
        assert!(selection.excluded_by(&path("hydraJobs.slow.deep")).is_some());
        assert!(selection.may_enter(&path("hydraJobs"), "fast"));
    }

    #[test]
    fn systems_not_selected_are_left_out_unless_named() {
        assert!(!selection(&["packages.*.*"], &[]).may_enter(&path("packages"), "aarch64-linux"));
        assert!(selection(&["packages.aarch64-linux.*"], &[]).may_enter(&path("packages"), "aarch64-linux"));
        assert!(!selection(&[], &[]).may_enter(&path("hydraJobs.job"), "aarch64-darwin"));
        assert!(selection(&[], &[]).may_enter(&path("hydraJobs.job"), "x86_64-linux"));
    }

    #[test]
    fn a_derivation_for_another_system_is_foreign_where_its_path_does_not_say_so() {
        let selection = selection(&[], &[]);
        let host = path("nixosConfigurations.arm.config.system.build.toplevel");
        assert!(selection.foreign(&host, "aarch64-linux", &[]).unwrap().contains("aarch64-linux"));
        assert_eq!(selection.foreign(&host, "aarch64-linux", &["aarch64-linux".into()]), None);
        assert_eq!(selection.foreign(&host, "builtin", &[]), None);
        assert_eq!(selection.foreign(&path("packages.x86_64-linux.a"), "i686-linux", &[]), None);
    }

    #[test]
    fn systems_are_told_from_other_names() {
        for system in ["x86_64-linux", "aarch64-darwin", "i686-linux"] {
            assert!(is_system(system));
        }
        for name in ["linux", "my-linux", "x86_64", "x86_64-foo", "gnu-linux"] {
            assert!(!is_system(name));
        }
    }
}
