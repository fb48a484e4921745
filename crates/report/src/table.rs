//! What tables of targets say, whatever they are drawn with.

use std::collections::BTreeMap;

use phoenix_model::{StorePath, Verdict, VerdictKind};
use unicode_width::UnicodeWidthStr;

use crate::{Summary, TargetState, human_seconds};

/// The targets by verdict, worst first; those without a verdict are the worst.
pub(crate) fn groups(summary: &Summary) -> BTreeMap<Option<VerdictKind>, Vec<&TargetState>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for state in summary.in_order() {
        groups.entry(state.verdict.as_ref().map(Verdict::kind)).or_default().push(state);
    }
    groups
}

/// How many targets ended in which way, worst first, as in `2 failed`.
pub(crate) fn count_words(summary: &Summary) -> Vec<(Option<VerdictKind>, String)> {
    let mut words = Vec::new();
    if summary.without_verdict() > 0 {
        words.push((None, format!("{} without a verdict", summary.without_verdict())));
    }
    let counts = summary.target_counts();
    words.extend(counts.into_iter().map(|(kind, count)| (Some(kind), format!("{count} {kind}"))));
    words
}

/// What there is to say of a target besides its verdict. Not yet clean.
pub(crate) fn particulars(summary: &Summary, state: &TargetState) -> String {
    let own = || state.target.drv_path.as_ref().and_then(|drv_path| summary.of_derivation(drv_path));
    let seconds = || own().and_then(|own| own.seconds).map(human_seconds).unwrap_or_default();
    match &state.verdict {
        Some(Verdict::Cached { from }) => format!("in {from}"),
        Some(Verdict::Blocked { by }) => {
            let more = if by.len() > 1 { format!(" and {} more", by.len() - 1) } else { String::new() };
            let first = by.first().map(StorePath::human_name);
            first.map(|first| format!("by {first}{more}")).unwrap_or_default()
        }
        Some(Verdict::Skipped { reason }) => reason.clone(),
        Some(Verdict::Built | Verdict::Failed { .. }) => seconds(),
        Some(Verdict::NotEvaluated { .. } | Verdict::Cancelled) | None => String::new(),
    }
}

/// How many columns a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_worst_comes_first() {
        let events = fixture::events();
        let summary = fixture::fold(&events[..events.len() - 3]);
        let order: Vec<_> = groups(&summary).into_keys().collect();
        assert_eq!(order[..2], [None, Some(VerdictKind::Failed)]);
        let words: Vec<_> = count_words(&summary).into_iter().map(|(_, words)| words).collect();
        assert_eq!(
            words.join(", "),
            "1 without a verdict, 1 failed, 1 not evaluated, 1 blocked, 1 built, 2 cached, 1 skipped"
        );
    }
}
