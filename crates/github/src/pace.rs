//! How many requests a minute are made of those that the service counts.

use std::time::Duration;

/// How many requests a minute a job may make of those that the service counts for the whole repository.
///
/// Half a minute's worth may be made at once; so one job makes at most one and a half times these numbers in a
/// minute, and by default leaves a quarter of what the service allows to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Entries made; 100. The service allows 200 a repository (GitHub's changelog of 2026-01-16).
    pub creates: u32,
    /// Lookups; 750. The service allows 1,500 a repository (GitHub's reference of dependency caching).
    pub lookups: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { creates: 100, lookups: 750 }
    }
}

/// How many entries are removed a minute: GitHub asks for a second between requests that change something.
const REMOVALS: u32 = 60;

/// The longest that a stored time may be ahead; what is further is nonsense, such as after a change of clock.
const LONGEST_AHEAD: u64 = 600_000_000;

/// A kind of request that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Create,
    Lookup,
    Remove,
}

/// When the next request of one kind may go out, in microseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slot {
    /// When it would if there were no bursts.
    next: u64,
    /// The service does not want to be asked before.
    until: u64,
}

/// When the next request of each kind may go out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pace([Slot; 3]);

impl Pace {
    /// When one more request may go out, which is counted then; `Err` with that time when it is after `latest`,
    /// and nothing is counted.
    pub(crate) fn take(&mut self, lane: Lane, budget: Budget, now: u64, latest: u64) -> Result<u64, u64> {
        let per_minute = match lane {
            Lane::Create => budget.creates,
            Lane::Lookup => budget.lookups,
            Lane::Remove => REMOVALS,
        };
        let per_minute = u64::from(per_minute.max(1));
        let interval = 60_000_000 / per_minute;
        let burst = if lane == Lane::Remove { 1 } else { (per_minute / 2).max(1) };
        let slot = &mut self.0[lane as usize];
        let begin = now.max(sane(slot.until, now));
        let next = sane(slot.next, now).max(begin);
        let at = next.saturating_sub((burst - 1) * interval).max(begin);
        if at > latest {
            return Err(at);
        }
        slot.next = next + interval;
        Ok(at)
    }

    /// The service does not want to be asked before `until`.
    pub(crate) fn pause(&mut self, lane: Lane, until: u64) {
        let slot = &mut self.0[lane as usize];
        slot.until = slot.until.max(until);
    }

    /// As text, for other processes.
    pub(crate) fn text(&self) -> String {
        let slots = self.0.map(|slot| format!("{} {}\n", slot.next, slot.until));
        format!("{HEADER}{}", slots.concat())
    }

    /// From text; what cannot be read is as nothing.
    pub(crate) fn of(text: &str) -> Self {
        let slot = |line: &str| {
            let (next, until) = line.split_once(' ')?;
            Some(Slot { next: next.parse().ok()?, until: until.parse().ok()? })
        };
        let slots: Option<Vec<_>> =
            text.strip_prefix(HEADER).map_or(Some(vec![]), |rest| rest.lines().map(slot).collect());
        slots.and_then(|slots| slots.try_into().ok()).map(Self).unwrap_or_default()
    }
}

const HEADER: &str = "phoenix-ci pace 1\n";

fn sane(time: u64, now: u64) -> u64 {
    if time > now + LONGEST_AHEAD { 0 } else { time }
}

/// A duration in microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000_000;
    const SECOND: u64 = 1_000_000;
    const BUDGET: Budget = Budget { creates: 60, lookups: 600 };

    #[test]
    fn half_a_minute_s_worth_goes_out_at_once_and_the_rest_in_turn() {
        let mut pace = Pace::default();
        let times: Vec<_> =
            (0..33).map(|_| pace.take(Lane::Create, BUDGET, NOW, u64::MAX).unwrap() - NOW).collect();
        assert!(times[..30].iter().all(|wait| *wait == 0), "{times:?}");
        assert_eq!(times[30..], [SECOND, 2 * SECOND, 3 * SECOND]);
        assert_eq!(pace.take(Lane::Lookup, BUDGET, NOW, NOW), Ok(NOW), "lookups are counted apart");
    }

    #[test]
    fn no_minute_has_more_than_one_and_a_half_times_the_budget() {
        let mut pace = Pace::default();
        let mut times = Vec::new();
        for step in 0..2000 {
            let now = NOW + step * SECOND / 10;
            times.extend(pace.take(Lane::Create, BUDGET, now, now).ok());
        }
        for &from in &times {
            let within = times.iter().filter(|&&time| (from..from + 60 * SECOND).contains(&time)).count();
            assert!(within <= 91, "{within}");
        }
    }

    #[test]
    fn who_cannot_wait_so_long_is_told_and_not_counted() {
        let mut pace = Pace::default();
        pace.pause(Lane::Create, NOW + 20 * SECOND);
        assert_eq!(pace.take(Lane::Create, BUDGET, NOW, NOW + SECOND), Err(NOW + 20 * SECOND));
        assert_eq!(pace.take(Lane::Create, BUDGET, NOW, NOW + 20 * SECOND), Ok(NOW + 20 * SECOND));
        assert_eq!(pace.take(Lane::Lookup, BUDGET, NOW, NOW), Ok(NOW));
    }

    #[test]
    fn removals_are_a_second_apart() {
        let mut pace = Pace::default();
        let mut take = || pace.take(Lane::Remove, BUDGET, NOW, u64::MAX).unwrap() - NOW;
        assert_eq!([take(), take(), take()], [0, SECOND, 2 * SECOND]);
    }

    #[test]
    fn it_comes_back_from_text_and_nonsense_is_nothing() {
        let mut pace = Pace::default();
        pace.pause(Lane::Lookup, NOW);
        pace.take(Lane::Create, BUDGET, NOW, NOW).unwrap();
        assert_eq!(Pace::of(&pace.text()), pace);
        for nonsense in ["", "x", HEADER, &format!("{HEADER}1 2\n3"), &pace.text()[..30]] {
            assert_eq!(Pace::of(nonsense), Pace::default(), "{nonsense}");
        }
        let mut pace = Pace::of(&format!("{HEADER}{0} {0}\n0 0\n0 0\n", u64::MAX / 2));
        assert_eq!(pace.take(Lane::Create, BUDGET, NOW, NOW), Ok(NOW));
    }
}
