//! How many attributes are asked for in one question.
//!
//! A question has its price, whatever is asked, and what is asked together is not taken by another process meanwhile. So as
//! many are asked together as take a moment; one, to begin with, and few when few are left.

use std::time::Duration;

/// How long a question should take: a hundred times its price.
const MOMENT: Duration = Duration::from_millis(50);

/// The most that are asked for in one question.
const MOST: usize = 64;

/// How fast a process evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    many: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { many: 1 }
    }
}

impl Pace {
    /// Takes in how long a question for so many took.
    pub(crate) fn learn(&mut self, many: usize, took: Duration) {
        let micros = |time: Duration| usize::try_from(time.as_micros()).unwrap_or(usize::MAX);
        let fit = micros(MOMENT).saturating_mul(many) / micros(took).max(1);
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
