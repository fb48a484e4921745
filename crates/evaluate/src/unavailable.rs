//! What nixpkgs refuses to evaluate, and why.
//!
//! Its words (`pkgs/stdenv/generic/check-meta.nix`) are `Package ‘NAME’ in FILE is marked as broken, refusing to
//! evaluate.` until 25.05, and `Refusing to evaluate package 'NAME' in FILE because it is marked as broken` since.

/// Why a package is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unavailable {
    /// It is marked as broken.
    Broken,
    /// Its licence is not free, and that was not allowed.
    Unfree,
    /// It is not for this platform.
    Unsupported,
    /// It has known vulnerabilities.
    Insecure,
}

impl Unavailable {
    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Unfree => "unfree",
            Self::Unsupported => "unsupported",
            Self::Insecure => "insecure",
        }
    }
}

/// A package that nixpkgs refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Its name with its version.
    pub(crate) package: String,
    pub(crate) why: Unavailable,
    /// What is said of it, on one line.
    pub(crate) words: String,
}

impl Refusal {
    /// Finds it in an error of Nix's.
    pub(crate) fn of(error: &str) -> Option<Self> {
        Self::since_25_11(error).or_else(|| Self::before(error))
    }

    fn since_25_11(error: &str) -> Option<Self> {
        let (_, rest) = error.split_once("Refusing to evaluate package '")?;
        let (package, rest) = rest.split_once('\'')?;
        let (_, words) = rest.split_once("because it ")?;
        // What follows is advice.
        let words = words.split_once("\n\n").map_or(words, |(words, _)| words);
        Self::new(package, words)
    }

    fn before(error: &str) -> Option<Self> {
        let (head, _) = error.split_once(", refusing to evaluate")?;
        let (_, rest) = head.rsplit_once("ackage ‘").or_else(|| head.rsplit_once("ackage '"))?;
        let (package, words) = rest.split_once(['’', '\''])?;
        Self::new(package, words)
    }

    fn new(package: &str, words: &str) -> Option<Self> {
        const PHRASES: &[(&str, Unavailable)] = &[
            ("is marked as broken", Unavailable::Broken),
            ("has an unfree license", Unavailable::Unfree),
            ("is marked as insecure", Unavailable::Insecure),
            ("is not available on the requested hostPlatform", Unavailable::Unsupported),
            ("is not supported on", Unavailable::Unsupported),
            ("- broken", Unavailable::Broken),
        ];
        let found = PHRASES.iter().filter_map(|&(phrase, why)| words.find(phrase).map(|at| (at, why)));
        let (at, why) = found.min_by_key(|(at, _)| *at)?;
        let words = words[at..].lines().next().unwrap_or_default();
        let words = words.trim_start_matches("- ").trim_end_matches([':', ',', '.', ' ']);
        Some(Self { package: package.to_owned(), why, words: words.to_owned() })
    }

    /// Why it is left out, for a target that is this package itself.
    pub(crate) fn reason(&self) -> String {
        format!("{}: {} {}", self.why.word(), self.package, self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: &str) -> (String, Unavailable, String) {
        let found = Refusal::of(error).unwrap();
        (found.package.clone(), found.why, found.reason())
    }

    #[test]
    fn the_words_of_all_times_are_known() {
        for (error, package, why, reason) in [
            (
                "Package ‘a-1’ in /s/a.nix:3 is marked as broken, refusing to evaluate.\n\na) To",
                "a-1",
                Unavailable::Broken,
                "broken: a-1 is marked as broken",
            ),
            (
                "… while evaluating\n\nPackage ‘b’ in ‘/s/b.nix:12’ has an unfree license (‘unfree’), refusing to evaluate.",
                "b",
                Unavailable::Unfree,
                "unfree: b has an unfree license (‘unfree’)",
            ),
            (
                "Refusing to evaluate package 'c-2' in /s/c.nix:1 because it is not available on the requested hostPlatform:\n  hostPlatform.system = \"x\"\n\nTo",
                "c-2",
                Unavailable::Unsupported,
                "unsupported: c-2 is not available on the requested hostPlatform",
            ),
            (
                "Package ‘d-0’ in d.nix:1 is not supported on ‘x86_64-linux’, refusing to evaluate.",
                "d-0",
                Unavailable::Unsupported,
                "unsupported: d-0 is not supported on ‘x86_64-linux’",
            ),
            (
                "Refusing to evaluate package 'e' in «unknown-file» because it is marked as insecure\n\nKnown issues:\n - broken",
                "e",
                Unavailable::Insecure,
                "insecure: e is marked as insecure",
            ),
            (
                "Refusing to evaluate package 'f-1' in f.nix:1 because it has problems:\n- broken: it does not build",
                "f-1",
                Unavailable::Broken,
                "broken: f-1 broken: it does not build",
            ),
        ] {
            assert_eq!(of(error), (package.to_owned(), why, reason.to_owned()));
        }
    }

    #[test]
    fn other_errors_are_errors() {
        for error in [
            "attribute 'broken' missing",
            "this is marked as broken",
            "Package ‘x’ in x.nix has a blocklisted license (‘y’), refusing to evaluate.",
            "Refusing to evaluate package 'x",
        ] {
            assert_eq!(Refusal::of(error), None, "{error}");
        }
    }
}
