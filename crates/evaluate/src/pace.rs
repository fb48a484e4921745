//! How many attributes are asked for in one question.
//!
//! A question has its price, whatever is asked, and what is asked together is not taken by another process meanwhile. So as
//! many are asked together as take a moment; one, to begin with, and few when few are left.

use std::time::Duration;

/// How long a question should take: a hundred times its price.
const MOMENT: Duration = Duration::from_millis(50);

/// The most that are asked for in one question.
const MOST: usize = 64;

/// How many have to be answered until it can be told how long the others will take: the first ones evaluate what all
/// share.
const TELLING: usize = 16;

/// How long it has to take until one more process pays. It evaluates again what all share, and both wait for the one
/// database of the store.
const PAYING: Duration = Duration::from_secs(2);

/// How long one attribute takes that nothing is to wait for.
const LONG: Duration = Duration::from_millis(300);

/// How fast a process evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    many: usize,
    each: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { many: 1, each: Duration::ZERO }
    }
}

/// Whether one more process pays, where so many are answered and left at this pace, and the others have been at what
/// they are at for so long.
pub(crate) fn pays(answered: usize, left: usize, pace: Pace, at_it: Duration) -> bool {
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    at_it >= LONG || (answered >= TELLING && pace.each.saturating_mul(left) >= PAYING)
}

impl Pace {
    /// Takes in how long a question for so many took.
    pub(crate) fn learn(&mut self, many: usize, took: Duration) {
        let micros = |time: Duration| usize::try_from(time.as_micros()).unwrap_or(usize::MAX);
        let fit = micros(MOMENT).saturating_mul(many) / micros(took).max(1);
        self.each = took / u32::try_from(many.max(1)).unwrap_or(u32::MAX);
        self.many = fit.clamp(1, (2 * many).max(self.many).min(MOST));
    }

    /// How many to ask for next, when so many are left for so many processes.
    pub(crate) fn many(self, left: usize, workers: usize) -> usize {
        self.many.min(left / (4 * workers.max(1))).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_begins_with_one_and_asks_for_as_many_as_take_a_moment() {
        let mut pace = Pace::default();
        assert_eq!(pace.many(1000, 2), 1);
        for expected in [2, 4, 8, 16, 32, 50, 50] {
            let many = pace.many(1000, 2);
            pace.learn(many, ms(many as u64));
            assert_eq!(pace.many(1000, 2), expected);
        }
        pace.learn(50, ms(5000));
        assert_eq!(pace.many(1000, 2), 1, "something slow");
        pace.learn(1, Duration::ZERO);
        assert_eq!(pace.many(1000, 2), 2);
    }

    #[test]
    fn one_more_process_pays_where_there_is_much_to_do() {
        let mut pace = Pace::default();
        assert!(!pays(0, 10_000, pace, ms(0)));
        pace.learn(1, ms(100));
        assert!(!pays(1, 10_000, pace, ms(0)), "the first one says nothing");
        assert!(pays(1, 1, pace, LONG));
        pace.learn(16, ms(16));
        assert!(pays(17, 2000, pace, ms(0)) && !pays(17, 1999, pace, ms(0)));
    }

    #[test]
    fn where_few_are_left_few_are_asked_for_together() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            let many = pace.many(100_000, 1);
            pace.learn(many, Duration::ZERO);
        }
        assert_eq!(pace.many(100_000, 1), MOST);
        assert_eq!((pace.many(100, 2), pace.many(16, 2), pace.many(3, 2), pace.many(0, 0)), (12, 2, 1, 1));
    }
}
