//! Who collects a depot: what it aims at, what it said that it folds, and what it did.

use std::collections::BTreeSet;

use phoenix_cache::{Cache, CollectError, Collected, Said, Trouble};
use phoenix_pack::{Collection, Dropped, Goal, Next};
use serde_json::{Value, json};

use crate::args::GcArgs;
use crate::error::CommandError;
use crate::tidy::Claims;
use crate::{talk, tidy};

/// Hears of trouble.
pub(super) type Troubled<'t> = dyn FnMut(Trouble) + Send + 't;

/// When another job folds.
pub(super) const LATER: &str = "if it does not come to that, run it again in half an hour";

/// What to do where a depot did not tell all that it has.
pub(super) const AGAIN: &str =
    "run it again when the depot tells all that it has: the warnings say why it did not";

pub(super) fn say(text: &str) {
    talk::stderr(&format!("{text}\n"));
}

/// Who collects.
pub(super) struct Collector<'a> {
    pub(super) args: &'a GcArgs,
    /// What it is to come to, without what cannot be rewritten.
    pub(super) goal: Goal,
    pub(super) claims: Claims,
    /// The depot is looked at several times.
    pub(super) said: Said,
    /// What was done before the last pass, to be read by machines.
    pub(super) earlier: Vec<Value>,
    /// The packs that were made into others.
    pub(super) folded: BTreeSet<String>,
}

impl Collector<'_> {
    /// Whether something of a plan was folded already, which the depot does not show yet.
    pub(super) fn has_folded(&self, plan: &Collection) -> bool {
        plan.sources.iter().any(|source| self.folded.contains(&source.name))
    }

    /// Takes note of what was done, for the report.
    pub(super) fn was_done(&mut self, report: Value) {
        self.earlier.push(report);
    }

    /// Folds what is planned, if no other job does, and says what was done. What cannot be folded because it would say too
    /// much stays as it is from then on.
    pub(super) fn fold(
        &mut self,
        cache: &mut Cache,
        plan: &Collection,
        trouble: &mut Troubled<'_>,
    ) -> Result<Collected, CollectError> {
        let collected = self.claims.collect(cache, plan, trouble);
        match &collected {
            Ok(collected) => {
                self.folded.extend(plan.sources.iter().map(|source| source.name.clone()));
                tidy::done_lines(plan, collected, tidy::NAMED).iter().for_each(|line| say(line));
            }
            Err(error) if error.is_too_much() => {
                for source in plan.sources.iter().filter(|source| source.wanted > 0) {
                    if self.goal.damaged.later.insert(source.name.clone()) {
                        say(&format!(
                            "warning: {} stays as it is: what is kept of it is more than a pack of that size may say of its \
                             paths",
                            source.name
                        ));
                    }
                }
            }
            Err(_) => {}
        }
        collected
    }
}

pub(super) fn not_collected(error: &CollectError) -> CommandError {
    let failed = CommandError::because("nothing is collected", error);
    match error {
        CollectError::Unsure { .. } => failed.hint(AGAIN),
        CollectError::LeftOut { .. } => failed.hint("run it again: it makes room"),
        CollectError::Claimed { .. } | CollectError::Closed { .. } | CollectError::Trouble(_) => failed,
    }
}

/// What is to be done, and what was done, to be read by machines.
pub(super) fn report(plan: &Collection, collected: Option<&Collected>) -> Value {
    let sources: Vec<_> = plan.sources.iter().map(|source| {
        json!({ "pack": source.name, "size": source.size, "kept": source.wanted, "why": source.why.to_string() })
    }).collect();
    let unwanted: Vec<_> = plan
        .unwanted
        .iter()
        .map(
            |unwanted| json!({ "pack": unwanted.name, "size": unwanted.size, "replaced": unwanted.replaced }),
        )
        .collect();
    let paths = |dropped: &[Dropped]| -> Vec<Value> {
        let path = |dropped: &Dropped| json!({ "path": dropped.name, "narSize": dropped.nar_size, "why": dropped.why.to_string() });
        dropped.iter().map(path).collect()
    };
    // What was done shows by itself what comes after it.
    let next = plan.next.filter(|_| collected.is_none()).map(|next| {
        let why = match next {
            Next::TooMuchInOne => "too much in one pack",
            Next::Measure => "to be measured",
        };
        json!({ "why": why, "drop": paths(&plan.later) })
    });
    let branches: serde_json::Map<_, _> =
        plan.branches.iter().map(|(name, alive)| (name.clone(), json!(alive))).collect();
    let done = collected.map(|done| {
        json!({
            "pack": done.pack.as_ref().map(ToString::to_string),
            "size": done.size,
            "copied": done.copied,
            "removed": done.removed.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "notRemoved": done.left,
            "lost": done.lost,
        })
    });
    json!({
        "bytesBefore": plan.before, "bytesAfter": collected.map_or(plan.after, |done| tidy::after(plan, done)), "pathsKept": plan.kept, "branchesAlive": branches,
        "fold": sources, "remove": unwanted, "drop": paths(&plan.dropped), "next": next,
        "waiting": { "packs": plan.waiting.0, "bytes": plan.waiting.1 }, "done": done,
    })
}
