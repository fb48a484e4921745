//! Globs over attribute paths: `packages.x86_64-linux.*`, `hydraJobs.**`.

use std::fmt;

use phoenix_model::{AttrPath, AttrPathError};

/// A pattern of attribute names: `*` in a name stands for any characters of that name, a name that is
/// `**` for any number of names, none included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    AnyDepth,
    Name(String),
    Pattern(String),
}

/// Why a text is not a glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// It is not a path of names.
    #[error(transparent)]
    Path(#[from] AttrPathError),
    /// It has no names.
    #[error("a pattern may not be empty; `**` stands for everything")]
    Empty,
}

/// What may follow a path by some globs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Names that have to be looked through.
    All,
    /// Only these names.
    Names(Vec<String>),
}

impl Glob {
    /// Reads a pattern such as `checks.*.*`; names with dots are quoted as in attribute paths.
    ///
    /// # Errors
    /// When it is empty or not a path of names.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let names = AttrPath::parse(text)?.0;
        if names.is_empty() {
            return Err(GlobError::Empty);
        }
        let segments = names
            .into_iter()
            .map(|name| match name.as_str() {
                "**" => Segment::AnyDepth,
                pattern if pattern.contains('*') => Segment::Pattern(name),
                _ => Segment::Name(name),
            })
            .collect();
        Ok(Self { text: text.to_owned(), segments })
    }

    /// Whether a path matches.
    #[must_use]
    pub fn matches(&self, path: &[String]) -> bool {
        self.after(path).contains(&self.segments.len())
    }

    /// Whether some longer path that begins with this one matches.
    #[must_use]
    pub fn may_match_below(&self, path: &[String]) -> bool {
        self.after(path).iter().any(|&at| at < self.segments.len())
    }

    /// Whether the first name is given, and the depth too: then what it leads to is known to be meant.
    pub(crate) fn is_definite(&self) -> bool {
        matches!(self.segments.first(), Some(Segment::Name(_))) && self.has_depth()
    }

    /// Whether it matches at one depth only.
    pub(crate) fn has_depth(&self) -> bool {
        !self.segments.contains(&Segment::AnyDepth)
    }

    /// The name that has to be below a path that was reached through a `*`, if it is given.
    pub(crate) fn name_below_star(&self, path: &[String]) -> Option<&str> {
        let after = self.after(path);
        after.into_iter().find_map(|at| match &self.segments[at..] {
            [Segment::Name(name), ..]
                if self.segments[..at].iter().any(|one| matches!(one, Segment::Pattern(_))) =>
            {
                Some(name.as_str())
            }
            _ => None,
        })
    }

    /// What may come after a path.
    pub(crate) fn next(&self, path: &[String]) -> Next {
        let mut names = Vec::new();
        for at in self.after(path) {
            match self.segments.get(at) {
                Some(Segment::Name(name)) => names.push(name.clone()),
                Some(_) => return Next::All,
                None => {}
            }
        }
        Next::Names(names)
    }

    /// The positions in the pattern that the path may lead to; `**` is at once passed over and stayed in.
    fn after(&self, path: &[String]) -> Vec<usize> {
        let mut at = vec![0];
        self.pass_over(&mut at);
        for name in path {
            let mut next = Vec::new();
            for &position in &at {
                match self.segments.get(position) {
                    Some(Segment::AnyDepth) => next.push(position),
                    Some(Segment::Name(wanted)) if wanted == name => next.push(position + 1),
                    Some(Segment::Pattern(pattern)) if wildcard(pattern.as_bytes(), name.as_bytes()) => {
                        next.push(position + 1);
                    }
                    _ => {}
                }
            }
            self.pass_over(&mut next);
            at = next;
        }
        at
    }

    fn pass_over(&self, at: &mut Vec<usize>) {
        let mut index = 0;
        while let Some(&position) = at.get(index) {
            if self.segments.get(position) == Some(&Segment::AnyDepth) && !at.contains(&(position + 1)) {
                at.push(position + 1);
            }
            index += 1;
        }
        at.sort_unstable();
        at.dedup();
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            p = at + 1;
            t = from + 1;
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> Vec<String> {
        AttrPath::parse(text).unwrap().0
    }

    fn matches(glob: &str, text: &str) -> bool {
        Glob::parse(glob).unwrap().matches(&path(text))
    }

    #[test]
    fn a_star_is_one_name_and_two_are_any_number() {
        assert!(matches("checks.*.*", "checks.x86_64-linux.a"));
        assert!(!matches("checks.*.*", "checks.x86_64-linux"));
        assert!(!matches("checks.*", "checks.x86_64-linux.a"));
        assert!(matches("hydraJobs.**", "hydraJobs.a.b.c"));
        assert!(matches("hydraJobs.**", "hydraJobs"));
        assert!(matches("**.tests", "a.b.tests"));
        assert!(matches("**.x.**.y", "x.y"));
        assert!(!matches("**.x.**.y", "x.z"));
    }

    #[test]
    fn stars_inside_names_and_quoted_dots() {
        assert!(matches("packages.*.python3*", "packages.x.python312"));
        assert!(matches("packages.*.*-doc-*", "packages.x.a-doc-b"));
        assert!(!matches("packages.*.*-doc", "packages.x.a-doc-b"));
        assert!(matches("a.\"b.c\"", "a.\"b.c\""));
        assert!(!matches("a.\"b.c\"", "a.b.c"));
    }

    #[test]
    fn prefixes_that_lead_nowhere_are_known() {
        let glob = Glob::parse("nixosConfigurations.*.config.system.build.toplevel").unwrap();
        assert!(glob.may_match_below(&[]));
        assert!(glob.may_match_below(&path("nixosConfigurations.host.config")));
        assert!(!glob.may_match_below(&path("nixosConfigurations.host.options")));
        assert!(!glob.may_match_below(&path("packages")));
        assert_eq!(glob.next(&path("nixosConfigurations")), Next::All);
        assert_eq!(glob.next(&path("nixosConfigurations.host")), Next::Names(vec!["config".into()]));
        assert_eq!(glob.next(&path("packages")), Next::Names(vec![]));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(Glob::parse("").unwrap_err(), GlobError::Empty);
        assert!(matches!(Glob::parse("a..b").unwrap_err(), GlobError::Path(_)));
    }

    proptest! {
        #[test]
        fn what_matches_may_match_below_each_of_its_prefixes(
            glob in prop::collection::vec("[ab]|\\*|\\*\\*|a\\*", 1..5),
            names in prop::collection::vec("[ab]{1,2}", 1..5),
        ) {
            let glob = Glob::parse(&glob.join(".")).unwrap();
            if glob.matches(&names) {
                for end in 0..names.len() {
                    prop_assert!(glob.may_match_below(&names[..end]));
                    match glob.next(&names[..end]) {
                        Next::All => {}
                        Next::Names(next) => prop_assert!(next.contains(&names[end])),
                    }
                }
            }
        }
    }
}
