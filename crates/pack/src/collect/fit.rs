//! Which plan keeps the budget.
//!
//! What a new pack will have is an estimate: a chunk that compresses better than those beside it takes less than its part of
//! their frame. So what somebody needs goes only as far as there is surely no room for it, and then, when what is left was
//! made into a new pack and measured, as far as there is none.

use super::choose::choose;
use super::costs::Costs;
use super::keep::{Candidate, candidates, keep};
use super::{Collection, Goal, Next, losses};
use crate::Catalog;

/// How many bytes there are for what is kept, by the estimate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// For what is named.
    pub(super) named: u64,
    /// For that and what live branches need.
    pub(super) needed: u64,
    /// For that together with everything else.
    pub(super) rest: u64,
}

/// What is done to be rid of what is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pains {
    /// It is carried along in frames that are mostly wanted.
    Few,
    /// Nothing of a pack that is rewritten is carried along.
    Exact,
    /// Packs are rewritten too of which nearly everything is kept.
    All,
}

/// Which part of the budget is left free where less and less is tried.
const SPARE: u64 = 64;

/// What is tried until it fits, with less and less of what nobody needs.
const TRIES: [Pains; 4] = [Pains::Exact, Pains::Exact, Pains::Exact, Pains::All];

/// How often less of what somebody needs is tried, until there may be room for it.
const SURELY: usize = 10;

/// Which part goes each time of what there seems to be too much.
const STEP: u64 = 4;

/// How often a part of what there seems to be too much of what somebody needs stays until that was measured.
pub(super) const GENTLY: u32 = 2;

/// Which part that is.
const STAYS: u64 = 8;

struct Fitting<'c> {
    catalog: &'c Catalog,
    goal: &'c Goal,
    candidates: Vec<Candidate<'c>>,
    costs: Costs,
}

/// The plan for a goal.
pub(super) fn fit(catalog: &Catalog, goal: &Goal) -> Collection {
    let fitting = Fitting { catalog, goal, candidates: candidates(catalog), costs: Costs::of(catalog) };
    // Where there is no more than there may be, nothing goes.
    if super::bytes_in_use(catalog, goal) <= goal.budget {
        return fitting.toward(Room { named: u64::MAX, needed: u64::MAX, rest: u64::MAX }, Pains::Few);
    }
    let plan = fitting.kept();
    let over = plan.estimate.at_most.saturating_sub(goal.budget);
    if over == 0 || plan.sources.is_empty() {
        return plan;
    }
    // It is measured whether it fits, and if not, more goes.
    let less = goal.budget.saturating_sub(over);
    let worst = fitting.toward(Room { named: less, needed: less, rest: less }, Pains::All);
    let later = losses::beside(&plan.dropped, worst.dropped.into_iter().chain(plan.later));
    let next = plan.next.or((!later.is_empty()).then_some(Next::Measure));
    Collection { next, later, ..plan }
}

impl Fitting<'_> {
    fn toward(&self, room: Room, pains: Pains) -> Collection {
        let keeping = keep(self.catalog, self.goal, &self.candidates, &self.costs, room);
        choose(self.catalog, self.goal, keeping, &self.costs, pains)
    }

    /// The budget, with more left free each time that this was not enough.
    fn aim(&self, times: u32) -> u64 {
        let part = (1 << times.min(SPARE.ilog2())) - 1;
        self.goal.budget - (self.goal.budget / SPARE).saturating_mul(part)
    }

    /// Lets go of what somebody needs as far as there is surely no room for it, and of everything else as far as there is none.
    fn kept(&self) -> Collection {
        let budget = self.goal.budget;
        let may_fit = |plan: &Collection| plan.after.min(plan.estimate.at_least) <= budget;
        let plan = self.within(u64::MAX, u64::MAX);
        // What was measured before is not believed twice.
        let is_believed = self.goal.measured.strict == 0 || !plan.dropped.is_empty();
        if may_fit(&plan) && is_believed {
            return plan;
        }
        // As long as something is left that branches need, nothing goes that is named.
        let is_named = plan.estimate.named >= plan.estimate.used;
        // What is left may be a little more than its parts.
        let slip = plan.after.saturating_sub(plan.estimate.used).min(budget / SPARE);
        let room = |needed: u64| {
            let needed = needed.saturating_sub(slip);
            (if is_named { needed } else { u64::MAX }, needed)
        };
        let within = |bytes| {
            let (named, needed) = room(bytes);
            self.within(named, needed)
        };
        if let Some(times) = self.goal.measured.strict.checked_sub(GENTLY) {
            return within(self.aim(times));
        }
        let too_much = (plan.estimate.used + slip).saturating_sub(budget);
        let mut more = too_much;
        for _ in 0..SURELY {
            more -= more / STEP;
            let (named, needed) = room(budget + more);
            let plan = self.toward(Room { named, needed, rest: 0 }, Pains::All);
            if plan.after <= budget {
                // There may be room for more.
                return within(budget + more);
            }
            if may_fit(&plan) {
                return plan;
            }
        }
        within(budget + too_much / STAYS)
    }

    /// Lets go of what nobody needs until the rest fits, if it does.
    fn within(&self, named: u64, needed: u64) -> Collection {
        let budget = self.goal.budget;
        let mut rest = self.aim(self.goal.measured.over);
        // Frames are carried along whole at first; then what nobody needs goes.
        let mut plan = self.toward(Room { named, needed, rest }, Pains::Few);
        for pains in TRIES {
            if plan.after <= budget {
                break;
            }
            if plan.exact {
                rest = rest.saturating_sub(plan.after - budget + budget / SPARE);
            }
            plan = self.toward(Room { named, needed, rest }, pains);
        }
        if plan.after > budget && rest > 0 {
            plan = self.toward(Room { named, needed, rest: 0 }, Pains::All);
        }
        plan
    }
}
