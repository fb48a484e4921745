//! When a request is tried again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use phoenix_depot::Problem;

use crate::Settings;

/// How often a request is tried that fails for a reason that may pass; the official client does so, too.
const TRIES: u32 = 5;

/// How often a request is tried that is not answered in time: each try takes long.
const TRIES_OUT_OF_TIME: u32 = 2;

/// The longest wait that we choose ourselves.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Why a request failed, where it may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passing {
    /// There was no answer in time.
    OutOfTime,
    /// The connection broke, or the server has a problem.
    Broken,
    /// The server asks to be asked less, or later by so much.
    Busy(Option<Duration>),
}

/// How long to wait before the next try when `tried` have failed and so much time is `left`; `None` for no
/// further try. `chance` is any number: it spreads the waits of many.
fn wait(why: Passing, tried: u32, first: Duration, left: Duration, chance: u64) -> Option<Duration> {
    let tries = match why {
        Passing::OutOfTime => TRIES_OUT_OF_TIME,
        Passing::Broken => TRIES,
        // Whoever only asks for patience gets what there is.
        Passing::Busy(_) => u32::MAX,
    };
    if tried >= tries {
        return None;
    }
    let whole = first.saturating_mul(2u32.saturating_pow(tried.saturating_sub(1).min(16))).min(LONGEST_WAIT);
    let spread = u32::try_from(chance % 1024).unwrap_or(0);
    let wait = match why {
        // Not before, and not all at the same moment.
        Passing::Busy(Some(asked)) => asked + first * spread / 1024,
        // Between half of it and all of it.
        _ => whole / 2 + whole * spread / 2048,
    };
    (wait < left).then_some(wait)
}

/// The tries of one operation.
#[derive(Debug)]
pub(crate) struct Patience {
    deadline: Instant,
    first: Duration,
    whole: Duration,
    tried: u32,
}

impl Patience {
    pub(crate) fn new(settings: &Settings) -> Self {
        let deadline = Instant::now() + settings.patience;
        Self { deadline, first: settings.first_wait, whole: settings.patience, tried: 0 }
    }

    /// When it ends.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Something was gained, so it begins anew.
    pub(crate) fn renew(&mut self) {
        self.deadline = Instant::now() + self.whole;
        self.tried = 0;
    }

    /// Waits for the next try.
    ///
    /// # Errors
    ///
    /// With the problem, when there is to be none.
    pub(crate) async fn again(&mut self, why: Passing, problem: String) -> Result<Duration, Problem> {
        self.tried += 1;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let chance = RandomState::new().build_hasher().finish();
        match (wait(why, self.tried, self.first, left, chance), why) {
            (Some(delay), _) => {
                tokio::time::sleep(delay).await;
                Ok(delay)
            }
            (None, Passing::Busy(Some(asked))) => {
                Err(Problem::Busy(format!("{problem}; it wants to be left alone for {} s", asked.as_secs())))
            }
            (None, Passing::Busy(None)) => Err(Problem::Busy(problem)),
            (None, _) => Err(Problem::Unreachable(problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const LONG: Duration = Duration::from_secs(1000);

    #[test]
    fn waits_double_and_are_spread() {
        let millis = |tried, chance| wait(Passing::Broken, tried, FIRST, LONG, chance).unwrap().as_millis();
        assert_eq!((millis(1, 0), millis(2, 0), millis(3, 0)), (250, 500, 1000));
        assert!(millis(1, 1023) > 490 && millis(1, u64::MAX) <= 500);
        assert_eq!(wait(Passing::Broken, TRIES, FIRST, LONG, 0), None);
        assert_eq!(wait(Passing::OutOfTime, TRIES_OUT_OF_TIME, FIRST, LONG, 0), None);
    }

    #[test]
    fn patience_ends_whatever_the_server_wants() {
        let busy = |seconds, left| {
            wait(Passing::Busy(Some(Duration::from_secs(seconds))), 40, FIRST, Duration::from_secs(left), 0)
        };
        assert_eq!(busy(20, 60), Some(Duration::from_secs(20)));
        assert_eq!(busy(60, 60), None);
        let longest = wait(Passing::Busy(None), 1000, FIRST, LONG, 0);
        assert_eq!(longest, Some(LONGEST_WAIT / 2));
        assert_eq!(wait(Passing::Broken, 1, FIRST, Duration::ZERO, 0), None);
    }
}
