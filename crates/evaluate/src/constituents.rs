//! Hydra's aggregates: jobs that need other jobs, which they name.
//!
//! The rules are nix-eval-jobs' (`src/constituents.cc`): a name that does not exist, or whose job does not evaluate,
//! fails the aggregate; names may be patterns of the shell; a cycle fails all aggregates.

use std::collections::{BTreeMap, BTreeSet};

use phoenix_model::StorePath;

use crate::evaluator::quote;

/// A job, as far as aggregates ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Job {
    /// Why it does not evaluate.
    pub(crate) error: Option<String>,
    /// The jobs it needs, by name.
    pub(crate) named: Vec<String>,
    /// Whether those names are patterns.
    pub(crate) glob: bool,
}

/// A derivation that an aggregate needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Constituent {
    pub(crate) drv_path: StorePath,
    /// The output that is needed of it.
    pub(crate) output: String,
}

impl Constituent {
    /// As `nix/job.nix` reads it.
    pub(crate) fn in_nix(&self) -> String {
        format!("{{ drvPath = {}; output = {}; }}", quote(self.drv_path.as_str()), quote(&self.output))
    }
}

/// What an aggregate needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aggregate {
    pub(crate) name: String,
    /// Names of jobs.
    pub(crate) needs: BTreeSet<String>,
    /// What cannot be had, and why.
    pub(crate) broken: Vec<(String, String)>,
}

impl Aggregate {
    /// Why it cannot be had, if it cannot.
    pub(crate) fn error(&self) -> Option<String> {
        let lines = self.broken.iter().map(|(name, why)| format!("{name}: {why}\n"));
        (!self.broken.is_empty()).then(|| lines.collect())
    }
}

/// What came of looking names up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// In this order; each after those that it needs.
    Order(Vec<Aggregate>),
    /// These aggregates cannot be had, with the reasons.
    Cycle(Vec<(String, String)>),
}

/// Looks up what aggregates need among the jobs.
pub(crate) fn resolve(jobs: &BTreeMap<String, Job>) -> Resolved {
    let aggregates: BTreeMap<&str, Aggregate> = jobs
        .iter()
        .filter(|(_, job)| !job.named.is_empty() && job.error.is_none())
        .map(|(name, job)| (name.as_str(), look_up(name, job, jobs)))
        .collect();
    let mut sort =
        Sort { aggregates: &aggregates, seen: BTreeSet::new(), above: Vec::new(), order: Vec::new() };
    for name in aggregates.keys() {
        if let Err((one, other)) = sort.visit(name) {
            let message = format!("Dependency cycle: {one} <-> {other}");
            let mut failed = vec![(one.to_owned(), message.clone()), (other.to_owned(), message)];
            let rest = aggregates.keys().filter(|name| **name != one && **name != other);
            let skipped = "Skipping aggregate because of a dependency cycle";
            failed.extend(rest.map(|name| ((*name).to_owned(), skipped.to_owned())));
            return Resolved::Cycle(failed);
        }
    }
    let order = sort.order;
    Resolved::Order(order.into_iter().map(|name| aggregates[name].clone()).collect())
}

fn look_up(name: &str, job: &Job, jobs: &BTreeMap<String, Job>) -> Aggregate {
    let mut needs = BTreeSet::new();
    let mut broken: Vec<(String, String)> = Vec::new();
    let mut fail = |what: &str, why: &str| {
        if !broken.iter().any(|(known, _)| known == what) {
            broken.push((what.to_owned(), why.to_owned()));
        }
    };
    for wanted in &job.named {
        match jobs.get(wanted) {
            Some(Job { error: Some(error), .. }) => fail(wanted, error),
            Some(_) => {
                needs.insert(wanted.clone());
            }
            None if !job.glob => fail(wanted, "does not exist"),
            None => {
                let mut found = false;
                // It never needs itself.
                for (other, matching) in
                    jobs.iter().filter(|(other, _)| *other != name && matches(wanted, other))
                {
                    match &matching.error {
                        Some(error) => fail(other, error),
                        None => {
                            found = true;
                            needs.insert(other.clone());
                        }
                    }
                }
                if !found {
                    fail(wanted, "constituent glob pattern had no matches");
                }
            }
        }
    }
    Aggregate { name: name.to_owned(), needs, broken }
}

struct Sort<'a> {
    aggregates: &'a BTreeMap<&'a str, Aggregate>,
    seen: BTreeSet<&'a str>,
    above: Vec<&'a str>,
    order: Vec<&'a str>,
}

impl<'a> Sort<'a> {
    /// Puts an aggregate after what it needs, or tells two that need each other.
    fn visit(&mut self, name: &'a str) -> Result<(), (&'a str, &'a str)> {
        if self.above.contains(&name) {
            return Err((name, self.above.last().copied().unwrap_or(name)));
        }
        if !self.seen.insert(name) {
            return Ok(());
        }
        self.above.push(name);
        for need in &self.aggregates[name].needs {
            if need != name
                && let Some((need, _)) = self.aggregates.get_key_value(need.as_str())
            {
                self.visit(need)?;
            }
        }
        self.above.pop();
        self.order.push(name);
        Ok(())
    }
}

/// Whether a pattern of the shell matches a whole text: `*`, `?`, `[…]` and `\` (POSIX `fnmatch` without flags).
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut place) = (0, 0);
    // Where the last `*` is, and how far it goes.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, place));
            at += 1;
            continue;
        }
        match (text.get(place), one(&pattern[at..], text.get(place).copied())) {
            (None, _) if at == pattern.len() => return true,
            (Some(_), Some(length)) => {
                at += length;
                place += 1;
            }
            _ => match star {
                Some((back, reach)) if reach < text.len() => {
                    star = Some((back, reach + 1));
                    (at, place) = (back + 1, reach + 1);
                }
                _ => return false,
            },
        }
    }
}

/// How long the first element of a pattern is, if it matches a character.
fn one(pattern: &[char], char: Option<char>) -> Option<usize> {
    let char = char?;
    match *pattern.first()? {
        '?' => Some(1),
        '\\' if pattern.len() > 1 => (pattern[1] == char).then_some(2),
        '[' => match set(&pattern[1..], char) {
            Some((length, hit)) => hit.then_some(length + 1),
            // It is never closed, and stands for itself.
            None => (char == '[').then_some(1),
        },
        literal => (literal == char).then_some(1),
    }
}

/// The length of a set up to its closing bracket, and whether a character is in it.
fn set(pattern: &[char], char: char) -> Option<(usize, bool)> {
    let negated = matches!(pattern.first(), Some('!' | '^'));
    let mut at = usize::from(negated);
    let first = at;
    let mut hit = false;
    loop {
        match *pattern.get(at)? {
            ']' if at > first => return Some((at + 1, hit != negated)),
            low => match (pattern.get(at + 1), pattern.get(at + 2)) {
                (Some('-'), Some(&high)) if high != ']' => {
                    hit |= (low..=high).contains(&char);
                    at += 3;
                }
                _ => {
                    hit |= low == char;
                    at += 1;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(list: &[(&str, &[&str], bool)]) -> BTreeMap<String, Job> {
        list.iter()
            .map(|(name, named, glob)| {
                let named = named.iter().map(|&name| name.to_owned()).collect();
                ((*name).to_owned(), Job { error: None, named, glob: *glob })
            })
            .collect()
    }

    fn order(jobs: &BTreeMap<String, Job>) -> Vec<(String, Vec<String>, Option<String>)> {
        let Resolved::Order(order) = resolve(jobs) else { panic!("a cycle") };
        order
            .into_iter()
            .map(|one| {
                let error = one.error();
                (one.name, one.needs.into_iter().collect(), error)
            })
            .collect()
    }

    #[test]
    fn an_aggregate_comes_after_those_that_it_needs() {
        let jobs =
            jobs(&[("a", &["b"], false), ("b", &["c.*", "d"], true), ("c.x", &[], false), ("d", &[], false)]);
        assert_eq!(
            order(&jobs),
            [
                ("b".to_owned(), vec!["c.x".to_owned(), "d".to_owned()], None),
                ("a".to_owned(), vec!["b".to_owned()], None)
            ]
        );
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let mut jobs =
            jobs(&[("a", &["none", "bad"], false), ("bad", &[], false), ("g", &["t.*", "*d"], true)]);
        jobs.get_mut("bad").unwrap().error = Some("boom".to_owned());
        let order = order(&jobs);
        assert_eq!(order[0].2.as_deref(), Some("none: does not exist\nbad: boom\n"));
        let error = order[1].2.as_deref().unwrap();
        assert_eq!(
            error,
            "t.*: constituent glob pattern had no matches\nbad: boom\n*d: constituent glob pattern had no matches\n"
        );
    }

    #[test]
    fn a_pattern_never_means_the_aggregate_itself() {
        let jobs = jobs(&[("all", &["*"], true), ("x", &[], false)]);
        assert_eq!(order(&jobs), [("all".to_owned(), vec!["x".to_owned()], None)]);
    }

    #[test]
    fn a_cycle_fails_all_aggregates() {
        let jobs = jobs(&[("a", &["b"], true), ("b", &["a"], true), ("c", &["x"], false), ("x", &[], false)]);
        let Resolved::Cycle(failed) = resolve(&jobs) else { panic!("no cycle") };
        let cycle = "Dependency cycle: a <-> b";
        assert_eq!(
            failed,
            [
                ("a".to_owned(), cycle.to_owned()),
                ("b".to_owned(), cycle.to_owned()),
                ("c".to_owned(), "Skipping aggregate because of a dependency cycle".to_owned())
            ]
        );
    }

    #[test]
    fn patterns_are_the_shell_s() {
        for (pattern, text) in [
            ("*", "a.b"),
            ("tests.*", "tests.x.y"),
            ("a?c", "abc"),
            ("[!x]b", "ab"),
            ("*b*d", "abcbd"),
            ("\\*", "*"),
            ("[a-c]", "b"),
            ("[]]", "]"),
            ("[x", "[x"),
            ("", ""),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("tests.*", "test.x"),
            ("a?c", "ac"),
            ("[!x]b", "xb"),
            ("\\*", "a"),
            ("[a-c]", "d"),
            ("", "a"),
            ("a", ""),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
