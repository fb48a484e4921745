//! What failed itself, and what each of these failures stopped.

use std::collections::{BTreeSet, HashMap};

use phoenix_model::{FailureClass, StorePath, Verdict};

use crate::{DerivationState, Summary};

/// A derivation that failed itself.
#[derive(Debug, Clone)]
pub struct Root<'a> {
    /// The derivation.
    pub derivation: &'a DerivationState,
    /// How it failed.
    pub class: FailureClass,
    /// What Nix said.
    pub message: &'a str,
    /// The targets that are this derivation, as they are shown.
    pub targets: Vec<String>,
    /// The targets it stopped, as they are shown.
    pub blocked: Vec<String>,
    /// How many derivations it stopped that are no targets.
    pub blocked_derivations: usize,
}

/// The root failures of a run, in the order of the plan: what others wait for first.
#[must_use]
pub fn root_failures(summary: &Summary) -> Vec<Root<'_>> {
    let mut by_root: HashMap<&StorePath, (Vec<String>, Vec<String>)> = HashMap::new();
    let mut target_drvs = BTreeSet::new();
    for state in summary.targets.values() {
        let Some(drv_path) = &state.target.drv_path else { continue };
        target_drvs.insert(drv_path);
        match &state.verdict {
            Some(Verdict::Failed { .. }) => {
                by_root.entry(drv_path).or_default().0.push(summary.shown(&state.target));
            }
            Some(Verdict::Blocked { by }) => {
                for root in by {
                    by_root.entry(root).or_default().1.push(summary.shown(&state.target));
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
    summary
        .derivations
        .iter()
        .filter_map(|derivation| {
            let Some(Verdict::Failed { class, message }) = &derivation.verdict else { return None };
            let drv_path = &derivation.planned.drv_path;
            let (targets, blocked) = by_root.remove(drv_path).unwrap_or_default();
            let blocked_derivations = derivations.get(drv_path).copied().unwrap_or(0);
            Some(Root { derivation, class: *class, message, targets, blocked, blocked_derivations })
        })
        .collect()
}

impl Root<'_> {
    /// Nix's words on one line, without the path that is named beside it.
    #[must_use]
    pub fn reason(&self) -> String {
        let drv_path = self.derivation.planned.drv_path.as_str();
        let name = self.derivation.planned.drv_path.human_name();
        let text = self
            .message
            .replace(&format!("builder for '{drv_path}' "), "builder ")
            .replace(&format!("Cannot build '{drv_path}'."), "")
            .replace(&format!("hash mismatch in fixed-output derivation '{drv_path}':"), "")
            .replace(drv_path, name);
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.trim().trim_start_matches("Reason: "))
            .filter(|line| !line.is_empty())
            .collect();
        lines.join(" ").trim_end_matches('.').to_owned()
    }

    /// What it stopped, in one line: some names and how many more; `None` when nothing.
    #[must_use]
    pub fn blocked_line(&self, most: usize) -> Option<String> {
        let mut parts: Vec<String> =
            self.blocked.iter().take(most).map(|name| crate::clean(name).into_owned()).collect();
        let rest = self.blocked.len().saturating_sub(most);
        if rest > 0 {
            parts.push(format!("and {rest} more {}", plural(rest, "target")));
        }
        if self.blocked_derivations > 0 {
            let (head, count) = (if parts.is_empty() { "" } else { "and " }, self.blocked_derivations);
            parts.push(format!("{head}{count} {} on the way", plural(count, "derivation")));
        }
        (!parts.is_empty()).then(|| parts.join(", ").replace(", and ", " and "))
    }
}

pub(crate) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}
