//! How much memory evaluators may have, all together.
//!
//! [`Budget`] is told what each process has and answers what to do; it never looks for itself. A process grows while it
//! evaluates and never shrinks. So another one begins only when there is room for all to grow as they have grown
//! before, one that has more than its share is replaced by a fresh one between two attributes, and when all have more
//! than there is, the largest that is at work is stopped.

/// What part of the memory that is available the evaluators have when nobody says: four fifths.
const DEFAULT_SHARE: (u64, u64) = (4, 5);

/// What is left to the machine whatever the budget is: below, the kernel may stop somebody.
const FLOOR: u64 = 128 << 20;

/// What a process is taken to need until one has been seen.
const FIRST_GUESS: u64 = 96 << 20;

/// How much is kept free of the budget for what processes take between two looks at them.
const HEADROOM: u64 = 64 << 20;

/// The memory that evaluators share, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    total: u64,
    workers: u64,
    /// The most that a process had after its first attribute.
    first: u64,
    /// By how much a process grew over an attribute: the most, but what is long ago counts less.
    step: u64,
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Whose it is.
    pub(crate) worker: usize,
    /// What it has now.
    pub(crate) resident: u64,
    /// What it had when it began what it is at work on, if it is at work; 0 for one that was just started.
    pub(crate) began: Option<u64>,
}

impl Budget {
    /// A budget: what was asked for, or a share of what is available.
    pub(crate) fn new(asked: Option<u64>, available: u64, workers: usize) -> Self {
        let (part, whole) = DEFAULT_SHARE;
        let total = asked.unwrap_or(available / whole * part).max(1);
        Self { total, workers: workers.max(1) as u64, first: 0, step: 0 }
    }

    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// What processes may come to before one is stopped.
    pub(crate) fn limit(&self) -> u64 {
        self.total - (self.total / 16).max(HEADROOM * self.workers).min(self.total / 4)
    }

    /// Takes in by how much a process grew over an attribute.
    pub(crate) fn learn(&mut self, began: u64, resident: u64) {
        let grown = resident.saturating_sub(began);
        if began == 0 {
            self.first = self.first.max(resident);
        } else {
            self.step = grown.max(self.step - self.step / 32);
        }
    }

    /// What a process will have come to when it is done with an attribute.
    fn expected(&self, began: u64, resident: u64) -> u64 {
        let first = if self.first == 0 { FIRST_GUESS } else { self.first };
        let end = if began == 0 { first } else { began + self.step };
        end.max(resident)
    }

    /// Whether a process that has so much (0 for one that is still to be started) may begin an attribute beside the
    /// others. One may always: it is found out how far it comes.
    pub(crate) fn may_begin(&self, resident: u64, others: &[Load], available: u64) -> bool {
        if others.iter().all(|load| load.began.is_none()) {
            return true;
        }
        let expected =
            |load: &Load| load.began.map_or(load.resident, |began| self.expected(began, load.resident));
        let after = self.expected(resident, resident);
        let all: u64 = others.iter().map(expected).sum::<u64>() + after;
        let growth = all.saturating_sub(others.iter().map(|load| load.resident).sum::<u64>() + resident);
        all <= self.limit() && growth + FLOOR <= available
    }

    /// Whether a process that is done with an attribute has more than its share: a fresh one goes on.
    pub(crate) fn is_too_large(&self, resident: u64) -> bool {
        resident > self.limit() / self.workers
    }

    /// Whether a process may soon have more than its share, so that it is asked for one attribute at a time.
    pub(crate) fn is_large(&self, resident: u64) -> bool {
        self.is_too_large(2 * resident)
    }

    /// Which process is to be stopped, if there is no room for all: the largest that is at work.
    pub(crate) fn victim(&self, loads: &[Load], available: u64) -> Option<usize> {
        let all: u64 = loads.iter().map(|load| load.resident).sum();
        if all <= self.limit() && available > FLOOR {
            return None;
        }
        let at_work = loads.iter().filter(|load| load.began.is_some());
        at_work.max_by_key(|load| load.resident).map(|load| load.worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const M: u64 = 1 << 20;

    fn load(worker: usize, resident: u64, began: Option<u64>) -> Load {
        Load { worker, resident: resident * M, began: began.map(|began| began * M) }
    }

    #[test]
    fn without_a_number_it_is_a_share_of_what_is_available() {
        assert_eq!(Budget::new(None, 1000 * M, 2).total(), 800 * M);
        assert_eq!(Budget::new(Some(300 * M), 1000 * M, 2).total(), 300 * M);
        assert!(Budget::new(Some(0), 0, 0).limit() <= 1);
    }

    #[test]
    fn one_may_always_begin_and_another_where_there_is_room_for_both_to_grow() {
        let mut budget = Budget::new(Some(1024 * M), 8000 * M, 2);
        assert!(budget.may_begin(0, &[load(1, 5000, None)], 0));
        budget.learn(0, 500 * M);
        assert!(!budget.may_begin(0, &[load(1, 400, Some(0))], 8000 * M), "both will have 500");
        assert!(Budget::new(Some(2048 * M), 0, 2).may_begin(0, &[load(1, 400, Some(0))], 8000 * M));
        // What has begun long ago has its own size.
        let mut budget = Budget::new(Some(1024 * M), 8000 * M, 2);
        budget.learn(100 * M, 150 * M);
        assert!(budget.may_begin(200 * M, &[load(1, 300, Some(290))], 8000 * M));
        assert!(!budget.may_begin(500 * M, &[load(1, 390, Some(390))], 8000 * M));
        assert!(!budget.may_begin(200 * M, &[load(1, 300, Some(290))], 100 * M), "the machine has no room");
    }

    #[test]
    fn the_largest_at_work_is_stopped_before_there_is_too_much() {
        let budget = Budget::new(Some(1024 * M), 8000 * M, 2);
        let loads = [load(0, 300, Some(10)), load(1, 400, Some(10)), load(2, 100, None)];
        assert_eq!(budget.victim(&loads, 8000 * M), None);
        let loads = [load(0, 300, Some(10)), load(1, 400, Some(10)), load(2, 450, None)];
        assert_eq!(budget.victim(&loads, 8000 * M), Some(1));
        assert_eq!(budget.victim(&loads[..1], 8000 * M), None);
        assert_eq!(budget.victim(&loads[..1], 50 * M), Some(0), "before the kernel does it");
        assert_eq!(budget.victim(&[load(2, 4500, None)], 8000 * M), None);
    }

    #[test]
    fn what_was_long_ago_counts_less() {
        let mut budget = Budget::new(Some(1024 * M), 8000 * M, 2);
        budget.learn(100 * M, 600 * M);
        assert!(!budget.may_begin(100 * M, &[load(1, 300, Some(290))], 8000 * M));
        for _ in 0..100 {
            budget.learn(100 * M, 101 * M);
        }
        assert!(budget.may_begin(100 * M, &[load(1, 300, Some(290))], 8000 * M));
    }

    proptest! {
        #[test]
        fn who_is_stopped_is_at_work_and_none_is_larger(
            total in 1_u64..4000, sizes in proptest::collection::vec((0_u64..3000, any::<bool>()), 0..6),
        ) {
            let budget = Budget::new(Some(total * M), 8000 * M, 2);
            let loads: Vec<Load> = sizes.iter().enumerate()
                .map(|(worker, &(resident, works))| load(worker, resident, works.then_some(0))).collect();
            if let Some(victim) = budget.victim(&loads, 8000 * M) {
                prop_assert!(loads[victim].began.is_some());
                prop_assert!(loads.iter().all(|load| load.began.is_none() || load.resident <= loads[victim].resident));
            }
        }
    }
}
