//! Rewriting packs without what cannot be restored: as many into one as can be, and the rest after that.

use std::collections::{BTreeSet, VecDeque};

use phoenix_cache::{Cache, CollectError, Collected};
use phoenix_pack::{Collection, Damaged, Goal};
use serde_json::Value;

use super::collector::{Troubled, report};

/// What was rewritten.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// What was done, to be read by machines.
    pub(super) done: Vec<Value>,
    /// The packs that are still to be rewritten.
    pub(super) left: BTreeSet<String>,
    /// Those of them that cannot be, for what is whole of them would say more than a pack may.
    pub(super) too_large: BTreeSet<String>,
    /// Why packs that were replaced stay.
    pub(super) stay: Option<String>,
}

/// Hears what was planned, and what was done.
pub(super) type Tell<'t> = dyn FnMut(&Collection, &Collected) + 't;

/// Does what was planned.
pub(super) type Collect<'c> =
    dyn FnMut(&mut Cache, &Collection, &mut Troubled<'_>) -> Result<Collected, CollectError> + 'c;

/// Rewrites packs, some at a time, so that it takes no more memory than one fold: whatever happens in between, what was
/// rewritten is there, and the rest is as it was. What ended it before its end is beside what was done.
pub(super) fn rewrite(
    cache: &mut Cache,
    damaged: &Damaged,
    goal: &Goal,
    collect: &mut Collect<'_>,
    tell: &mut Tell<'_>,
    trouble: &mut Troubled<'_>,
) -> (Rewritten, Result<(), CollectError>) {
    let mut rewritten = Rewritten { left: damaged.packs.clone(), ..Rewritten::default() };
    let mut groups: VecDeque<BTreeSet<String>> = damaged.groups(cache.catalog()).into();
    while let Some(group) = groups.pop_front() {
        let later = groups.iter().flatten().chain(&rewritten.too_large).cloned().collect();
        let now = Damaged { packs: group.clone(), later, ..damaged.clone() };
        let goal = Goal { packs: usize::MAX, damaged: now, ..goal.clone() };
        match rewritten.group(cache, &goal, collect, tell, trouble) {
            Ok(()) => {}
            Err(error) if !error.is_too_much() => return (rewritten, Err(error)),
            // Something else that is needed came with them.
            Err(_) if group.len() > 1 => {
                let mut packs: Vec<String> = group.into_iter().collect();
                let second = packs.split_off(packs.len() / 2);
                for half in [second, packs] {
                    groups.push_front(half.into_iter().collect());
                }
            }
            Err(_) => rewritten.too_large.extend(group),
        }
        if !groups.is_empty() {
            // What was replaced need not be in memory any more.
            cache.look_again(trouble);
        }
    }
    (rewritten, Ok(()))
}

impl Rewritten {
    /// Makes some packs into one.
    fn group(
        &mut self,
        cache: &mut Cache,
        goal: &Goal,
        collect: &mut Collect<'_>,
        tell: &mut Tell<'_>,
        trouble: &mut Troubled<'_>,
    ) -> Result<(), CollectError> {
        let plan = cache.plan_collection(goal, trouble)?;
        let collected = collect(cache, &plan, trouble)?;
        for source in &plan.sources {
            self.left.remove(&source.name);
        }
        tell(&plan, &collected);
        if !plan.is_nothing() {
            self.done.push(report(&plan, Some(&collected)));
        }
        self.stay = collected.left.or(self.stay.take());
        Ok(())
    }
}
