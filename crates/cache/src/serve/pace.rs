//! How a depot answers, by what was seen of it: how long ranges may be, when one is in doubt, and when it is silent.

use std::time::{Duration, Instant};

/// The longest range that is read at once, in bytes.
const LONGEST: u64 = 5 << 20;

/// How long reading one range should take at the rate that was seen: beyond that a frame alone is there sooner.
const MOMENT: Duration = Duration::from_millis(500);

/// How many bytes fit into a moment where nothing was read yet.
const FIRST_RANGE: u64 = 1 << 20;

/// How long what should come in a moment is waited for without a doubt: one request may hang where others do not.
const DOUBT: Duration = Duration::from_secs(4);

/// How many times as long as it should take is a range waited for without a doubt, where that is longer.
const DOUBTFUL: u64 = 3;

/// How long ranges stay short after a long one hung.
const SHORT: Duration = Duration::from_secs(60);

/// What is known of how a depot answers.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many bytes came in a moment, of late.
    in_a_moment: Option<u64>,
    /// When it answered last.
    heard: Option<Instant>,
    /// How long ranges may be since one hung, and until when.
    short: Option<(u64, Instant)>,
}

impl Pace {
    /// How long a range may be, by how fast others came.
    pub(super) fn longest(&self, now: Instant) -> u64 {
        let short = self.short.filter(|(_, until)| now < *until).map_or(LONGEST, |(longest, _)| longest);
        self.in_a_moment.unwrap_or(FIRST_RANGE).min(short)
    }

    /// How long a range of so many bytes is waited for until another request may be faster.
    pub(super) fn doubt(&self, length: u64) -> Duration {
        let Some(in_a_moment) = self.in_a_moment else { return DOUBT };
        let moments = u128::from(length) * u128::from(DOUBTFUL) / u128::from(in_a_moment.max(1));
        let expected = MOMENT.saturating_mul(u32::try_from(moments).unwrap_or(u32::MAX));
        expected.max(DOUBT)
    }

    /// Takes in how long a range took to come.
    pub(super) fn came(&mut self, length: u64, took: Duration, now: Instant) {
        self.answered(now);
        let (moment, micros) = (MOMENT.as_micros(), took.as_micros().max(1));
        let mut fits = u64::try_from(u128::from(length) * moment / micros).unwrap_or(u64::MAX);
        if took < MOMENT {
            // That little took a part of a moment says nothing of how much would have fitted.
            fits = fits.max(self.in_a_moment.unwrap_or(FIRST_RANGE));
        }
        // It is slower soon, and faster after some.
        self.in_a_moment = Some(self.in_a_moment.map_or(fits, |before| fits.min(before.saturating_mul(2))));
    }

    /// Takes in that a range hung which was more than a frame: shorter ones may not.
    pub(super) fn hung(&mut self, length: u64, now: Instant) {
        self.short = Some((self.longest(now).min(length / 2), now + SHORT));
    }

    /// Takes in that there was an answer, whatever it was.
    pub(super) fn answered(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Whether nothing was heard since then.
    pub(super) fn is_silent_since(&self, begun: Instant) -> bool {
        self.heard.is_none_or(|heard| heard < begun)
    }

    /// Whether a request that failed tells of the whole depot: no other was answered while it was under way, nor shortly
    /// before.
    pub(super) fn is_silent(&self, begun: Instant, now: Instant) -> bool {
        self.is_silent_since(now.checked_sub(DOUBT).map_or(begun, |before| begun.min(before)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MEBI: u64 = 1 << 20;

    #[test]
    fn ranges_are_as_long_as_what_comes_in_a_moment() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.longest(now), FIRST_RANGE);
        pace.came(4 * MEBI, SECOND, now);
        assert_eq!(pace.longest(now), 2 * MEBI);
        // Faster after some, up to a bound, and slower soon.
        pace.came(100 * MEBI, SECOND, now);
        assert_eq!(pace.longest(now), 4 * MEBI);
        pace.came(100 * MEBI, SECOND, now);
        assert_eq!(pace.longest(now), LONGEST);
        pace.came(MEBI, SECOND, now);
        assert_eq!(pace.longest(now), MEBI / 2);
        // A little that was there in less than a moment is not slow.
        pace.came(100, MOMENT / 2, now);
        assert_eq!(pace.longest(now), MEBI / 2);
    }

    #[test]
    fn after_a_long_range_hung_they_are_shorter_for_a_while() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        (0..10).for_each(|_| pace.came(100 * MEBI, SECOND, now));
        pace.hung(LONGEST, now);
        assert_eq!(pace.longest(now), LONGEST / 2);
        // One that was on its way at the same time says nothing new.
        pace.hung(LONGEST, now);
        assert_eq!(pace.longest(now), LONGEST / 2);
        pace.hung(LONGEST / 2, now);
        assert_eq!(pace.longest(now), LONGEST / 4);
        pace.came(100 * MEBI, SECOND, now);
        assert_eq!(pace.longest(now), LONGEST / 4);
        assert_eq!(pace.longest(now + SHORT), LONGEST);
    }

    #[test]
    fn what_is_slow_is_in_doubt_later() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.doubt(100 * MEBI), DOUBT);
        pace.came(MEBI, 10 * SECOND, now);
        assert_eq!(pace.doubt(1), DOUBT);
        let doubt = pace.doubt(MEBI);
        assert!((29 * SECOND..=31 * SECOND).contains(&doubt), "{doubt:?}");
    }

    #[test]
    fn a_depot_that_answers_others_is_not_silent() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        assert!(pace.is_silent(begun, begun + SECOND) && pace.is_silent_since(begun));
        pace.answered(begun + 10 * SECOND);
        // While it was under way, or shortly before.
        assert!(!pace.is_silent(begun, begun + 60 * SECOND));
        assert!(!pace.is_silent(begun + 11 * SECOND, begun + 12 * SECOND));
        assert!(pace.is_silent(begun + 11 * SECOND, begun + 26 * SECOND));
        assert!(pace.is_silent(begun + 20 * SECOND, begun + 20 * SECOND));
    }
}
