//! Evaluation errors, each told once: what many attributes share often fails for all of them.

use std::collections::HashMap;

use phoenix_model::{Target, Verdict};

use crate::roots::plural;
use crate::{Summary, clean};

/// An evaluation error, and whose it is.
#[derive(Debug)]
pub(crate) struct EvaluationError<'a> {
    /// What Nix said.
    pub(crate) text: &'a str,
    /// The targets that did not evaluate for it, at least one.
    pub(crate) targets: Vec<&'a Target>,
}

/// The different errors, in the order of their first targets.
pub(crate) fn evaluation_errors(summary: &Summary) -> Vec<EvaluationError<'_>> {
    let mut errors: Vec<EvaluationError<'_>> = Vec::new();
    let mut positions: HashMap<&str, usize> = HashMap::new();
    for state in summary.targets.values() {
        let Some(Verdict::NotEvaluated { error }) = &state.verdict else { continue };
        let position = *positions.entry(error).or_insert(errors.len());
        match errors.get_mut(position) {
            Some(known) => known.targets.push(&state.target),
            None => errors.push(EvaluationError { text: error, targets: vec![&state.target] }),
        }
    }
    errors
}

impl EvaluationError<'_> {
    /// The clean names of some targets, and how many more.
    pub(crate) fn names(&self, summary: &Summary, most: usize) -> String {
        let names: Vec<_> =
            self.targets.iter().take(most).map(|target| clean(&summary.shown(target)).into_owned()).collect();
        match self.targets.len().saturating_sub(most) {
            0 => names.join(", "),
            rest => format!("{} and {rest} more {}", names.join(", "), plural(rest, "target")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use phoenix_model::{Event, Logged, Stamp, TargetId};

    #[test]
    fn equal_errors_are_one() {
        let mut summary = Summary::default();
        for (id, error) in [(0, "a"), (1, "b"), (2, "a")] {
            let target = fixture::target(id, &format!("t{id}"), None);
            let verdict = Verdict::NotEvaluated { error: error.into() };
            for event in
                [Event::TargetFound { target }, Event::TargetSettled { target: TargetId(id), verdict }]
            {
                summary.apply(&Logged { at: Stamp(0), event });
            }
        }
        let errors = evaluation_errors(&summary);
        let told: Vec<_> = errors.iter().map(|error| (error.text, error.names(&summary, 1))).collect();
        assert_eq!(told, [("a", "t0 and 1 more target".to_owned()), ("b", "t1".to_owned())]);
    }
}
