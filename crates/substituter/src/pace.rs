//! How many requests are in flight to one server at once.

use std::time::Instant;

/// How many requests are in flight before the server has answered any.
const FIRST: usize = 32;

/// The number of requests that may be in flight: it grows with every answer up to a limit, and is halved
/// when the server pushes back, as TCP does with its packets.
#[derive(Debug)]
pub(crate) struct Pace {
    window: usize,
    limit: usize,
    cut: Option<Instant>,
    resume: Option<Instant>,
}

impl Pace {
    /// At most `limit` at once.
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self { window: FIRST.min(limit), limit, cut: None, resume: None }
    }

    /// How many may be in flight now.
    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// Raises the limit.
    pub(crate) fn allow(&mut self, limit: usize) {
        self.limit = self.limit.max(limit);
    }

    /// The server answered.
    pub(crate) fn answered(&mut self) {
        self.window = (self.window + 1).min(self.limit);
    }

    /// The server did not manage a request sent at `sent`. Many that were in flight together count once.
    pub(crate) fn pushed_back(&mut self, sent: Instant, now: Instant) {
        if self.cut.is_none_or(|cut| sent > cut) {
            self.window = (self.window / 2).max(1);
            self.cut = Some(now);
        }
    }

    /// No request is to be sent before `until`.
    pub(crate) fn pause(&mut self, until: Instant) {
        self.resume = self.resume.max(Some(until));
    }

    /// Until when no request is to be sent.
    pub(crate) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.resume.filter(|&resume| resume > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_grows_with_answers_up_to_the_limit() {
        let mut pace = Pace::new(40);
        assert_eq!(pace.window(), FIRST);
        for _ in 0..100 {
            pace.answered();
        }
        assert_eq!(pace.window(), 40);
        pace.allow(41);
        pace.answered();
        pace.answered();
        assert_eq!(pace.window(), 41);
        assert_eq!(Pace::new(0).window(), 1);
        assert_eq!(Pace::new(3).window(), 3);
    }

    #[test]
    fn one_burst_of_refusals_halves_it_once() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(100);
        for _ in 0..20 {
            pace.pushed_back(at(0), at(10));
        }
        assert_eq!(pace.window(), FIRST / 2);
        pace.pushed_back(at(11), at(20));
        assert_eq!(pace.window(), FIRST / 4);
        for millis in 3..20 {
            pace.pushed_back(at(millis * 10), at(millis * 10 + 1));
        }
        assert_eq!(pace.window(), 1);
    }

    #[test]
    fn the_longest_pause_counts() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(1);
        assert_eq!(pace.paused_until(start), None);
        pace.pause(at(20));
        pace.pause(at(10));
        assert_eq!(pace.paused_until(start), Some(at(20)));
        assert_eq!(pace.paused_until(at(20)), None);
    }
}
