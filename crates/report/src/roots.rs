//! What failed itself, and what each of these failures stopped.

use std::collections::{HashMap, HashSet};

use phoenix_model::{FailureClass, StorePath, Target, Verdict};

use crate::clean::{clip, one_line};
use crate::{DerivationState, Summary, TargetState, clean};

/// How many characters of a reason are shown: Nix's own are far shorter.
const REASON_LENGTH: usize = 2000;

/// A derivation that failed itself.
#[derive(Debug, Clone)]
pub struct Root<'a> {
    /// The derivation.
    pub derivation: &'a DerivationState,
    /// How it failed.
    pub class: FailureClass,
    /// What Nix said.
    pub message: &'a str,
    /// The targets that are this derivation.
    pub targets: Vec<&'a Target>,
    /// The targets it stopped.
    pub blocked: Vec<&'a Target>,
    /// How many derivations it stopped that are no targets.
    pub blocked_derivations: usize,
}

/// The root failures of a run, the one that stopped most first, and else in the order of the plan.
#[must_use]
pub fn root_failures(summary: &Summary) -> Vec<Root<'_>> {
    let mut by_root: HashMap<&StorePath, (Vec<&Target>, Vec<&Target>)> = HashMap::new();
    let mut target_drvs = HashSet::new();
    for state in summary.targets.values() {
        let Some(drv_path) = &state.target.drv_path else { continue };
        target_drvs.insert(drv_path);
        match &state.verdict {
            Some(Verdict::Failed { .. }) => by_root.entry(drv_path).or_default().0.push(&state.target),
            Some(Verdict::Blocked { by }) => {
                for root in by {
                    by_root.entry(root).or_default().1.push(&state.target);
                }
            }
            _ => {}
        }
    }
    let mut derivations: HashMap<&StorePath, usize> = HashMap::new();
    for state in &summary.derivations {
        if let Some(Verdict::Blocked { by }) = &state.verdict
            && !target_drvs.contains(&state.planned.drv_path)
        {
            for root in by {
                *derivations.entry(root).or_default() += 1;
            }
        }
    }
    let mut roots: Vec<Root<'_>> = summary
        .derivations
        .iter()
        .filter_map(|derivation| {
            let Some(Verdict::Failed { class, message }) = &derivation.verdict else { return None };
            let drv_path = &derivation.planned.drv_path;
            let (targets, blocked) = by_root.remove(drv_path).unwrap_or_default();
            let blocked_derivations = derivations.get(drv_path).copied().unwrap_or(0);
            Some(Root { derivation, class: *class, message, targets, blocked, blocked_derivations })
        })
        .collect();
    roots.sort_by_key(|root| std::cmp::Reverse((root.blocked.len(), root.blocked_derivations)));
    roots
}

/// The targets that failed although no derivation of the plan did so for them, with the class and Nix's
/// words: what could not be read or was lost with its event. Their failures are their own.
pub(crate) fn failed_alone(summary: &Summary) -> Vec<(&TargetState, FailureClass, &str)> {
    summary
        .targets
        .values()
        .filter_map(|state| match &state.verdict {
            Some(Verdict::Failed { class, message }) if !is_root(summary, &state.target) => {
                Some((state, *class, message.as_str()))
            }
            _ => None,
        })
        .collect()
}

/// Whether the target's derivation is among the root failures.
pub(crate) fn is_root(summary: &Summary, target: &Target) -> bool {
    let derivation = target.drv_path.as_ref().and_then(|drv_path| summary.of_derivation(drv_path));
    derivation.is_some_and(|state| matches!(state.verdict, Some(Verdict::Failed { .. })))
}

/// Nix's words of a failure on one clean line, without the path of the derivation that is named beside it.
pub(crate) fn reason(drv_path: &StorePath, message: &str) -> String {
    // What cannot be read has to be found by its path.
    if message.starts_with("cannot read ") {
        return clip(&one_line(message), REASON_LENGTH).into_owned();
    }
    let (path, name) = (drv_path.as_str(), drv_path.human_name());
    let text = message
        .replace(&format!("builder for '{path}' "), "builder ")
        .replace(&format!("Cannot build '{path}'."), "")
        .replace(&format!("hash mismatch in fixed-output derivation '{path}':"), "")
        .replace(path, name);
    let lines: Vec<&str> = text.lines().map(|line| line.trim().trim_start_matches("Reason: ")).collect();
    let line = one_line(&lines.join("\n"));
    clip(line.trim_end_matches('.'), REASON_LENGTH).into_owned()
}

/// How many failures for the same reason outside of them are told one by one.
pub(crate) const ALIKE: usize = 5;

/// Root failures without a log that have the same reason, where these are many, told together; the others alone.
pub(crate) fn alike<'r, 'a>(roots: &'r [Root<'a>]) -> Vec<Vec<&'r Root<'a>>> {
    let mut groups: Vec<(Option<String>, Vec<&Root<'_>>)> = Vec::new();
    for root in roots {
        let outside = root.class == FailureClass::Other && root.derivation.tail.is_empty();
        let reason = outside.then(|| root.reason());
        match groups.iter_mut().find(|(other, _)| reason.is_some() && *other == reason) {
            Some((_, same)) => same.push(root),
            None => groups.push((reason, vec![root])),
        }
    }
    let split = |(_, same): (Option<String>, Vec<&'r Root<'a>>)| {
        if same.len() > ALIKE { vec![same] } else { same.into_iter().map(|root| vec![root]).collect() }
    };
    groups.into_iter().flat_map(split).collect()
}

/// The names of failures that are told together: some, and how many more.
pub(crate) fn names(same: &[&Root<'_>]) -> String {
    let shown = same.iter().take(ALIKE).map(|root| root.derivation.planned.drv_path.human_name());
    let shown = shown.collect::<Vec<_>>().join(", ");
    format!("{} derivations: {shown} and {} more", same.len(), same.len().saturating_sub(ALIKE))
}

impl Root<'_> {
    /// Nix's words on one clean line, without the path that is named beside it.
    #[must_use]
    pub fn reason(&self) -> String {
        reason(&self.derivation.planned.drv_path, self.message)
    }

    /// What it stopped, in one clean line: some names and how many more; `None` when nothing.
    #[must_use]
    pub fn blocked_line(&self, summary: &Summary, most: usize) -> Option<String> {
        let mut parts: Vec<String> =
            self.blocked.iter().take(most).map(|target| clean(&summary.shown(target)).into_owned()).collect();
        let mut last = Vec::new();
        let rest = self.blocked.len().saturating_sub(most);
        if rest > 0 {
            last.push(format!("{rest} more {}", plural(rest, "target")));
        }
        if self.blocked_derivations > 0 {
            let count = self.blocked_derivations;
            last.push(format!("{count} {} on the way", plural(count, "derivation")));
        }
        if parts.is_empty() {
            return (!last.is_empty()).then(|| last.join(" and "));
        }
        let end = last.pop();
        parts.append(&mut last);
        let names = parts.join(", ");
        Some(end.map_or_else(|| names.clone(), |end| format!("{names} and {end}")))
    }
}

/// The noun for a number of things.
#[must_use]
pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_root_has_its_targets_and_what_it_stopped() {
        let summary = fixture::summary();
        let roots = root_failures(&summary);
        let [root] = roots.as_slice() else { panic!("{roots:?}") };
        let names = |targets: &[&Target]| targets.iter().map(|target| target.attr()).collect::<Vec<_>>();
        assert_eq!(names(&root.targets), ["packages.x86_64-linux.lib"]);
        assert_eq!(names(&root.blocked), ["checks.x86_64-linux.uses-lib"]);
        assert_eq!(root.blocked_derivations, 1);
        assert!(failed_alone(&summary).is_empty());
    }

    #[test]
    fn what_is_stopped_is_told_in_one_line() {
        let summary = fixture::summary();
        let mut root = root_failures(&summary).remove(0);
        let one = root.blocked[0];
        let mut line = |targets: usize, derivations: usize, most: usize| {
            root.blocked = vec![one; targets];
            root.blocked_derivations = derivations;
            root.blocked_line(&summary, most).unwrap_or_default().replace(&one.attr(), "t")
        };
        assert_eq!(line(0, 0, 5), "");
        assert_eq!(line(0, 1, 5), "1 derivation on the way");
        assert_eq!(line(2, 0, 5), "t, t");
        assert_eq!(line(3, 0, 2), "t, t and 1 more target");
        assert_eq!(line(9, 4, 2), "t, t, 7 more targets and 4 derivations on the way");
        assert_eq!(line(9, 4, 0), "9 more targets and 4 derivations on the way");
    }

    #[test]
    fn a_reason_does_not_repeat_the_path() {
        let path = fixture::drv("a");
        for (message, words) in [
            (format!("builder for '{path}' failed with exit code 1;"), "builder failed with exit code 1;"),
            (format!("Cannot build '{path}'.\n       Reason: builder failed."), "builder failed"),
            (
                format!("hash mismatch in fixed-output derivation '{path}':\n  specified: x\n  got: y"),
                "specified: x got: y",
            ),
        ] {
            assert_eq!(reason(&path, &message), words);
        }
    }
}
