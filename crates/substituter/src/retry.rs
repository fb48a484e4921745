//! When a request is tried again.

use std::time::Duration;

/// How often a request is tried that fails for a reason that may pass.
const TRIES: u32 = 4;

/// How often a request is tried that is not answered in time: each try takes long.
const TRIES_OUT_OF_TIME: u32 = 2;

/// How often a request is tried at most, however busy the server is with others.
pub(crate) const MOST_TRIES: u32 = 16;

/// The wait before the second try; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait that a server may ask for (`Retry-After`). Who wants a longer one is not asked again.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(10);

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

/// How long to wait before the next try, when `tried` have failed (none, where the
/// server was only busy with others); `None` for no further try. `chance` is
/// any number: it spreads the waits of many requests.
pub(crate) fn wait(why: Passing, tried: u32, chance: u64) -> Option<Duration> {
    let tries = if why == Passing::OutOfTime { TRIES_OUT_OF_TIME } else { TRIES };
    if tried >= tries {
        return None;
    }
    if let Passing::Busy(Some(asked)) = why {
        return (asked <= LONGEST_WAIT).then_some(asked);
    }
    let whole = FIRST_WAIT * 2u32.pow(tried.saturating_sub(1).min(10));
    // Between half of it and all of it.
    let spread = u32::try_from(chance % 1024).unwrap_or(0);
    Some(whole / 2 + whole * spread / 2048)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_spread() {
        let millis = |tried, chance| wait(Passing::Broken, tried, chance).unwrap().as_millis();
        assert_eq!((millis(1, 0), millis(2, 0), millis(3, 0)), (125, 250, 500));
        assert!(millis(1, 1023) > 240 && millis(1, u64::MAX) < 251);
        assert_eq!(wait(Passing::Broken, TRIES, 0), None);
        assert_eq!(wait(Passing::OutOfTime, TRIES_OUT_OF_TIME, 0), None);
    }

    #[test]
    fn a_server_s_wish_is_followed_within_bounds() {
        let busy = |seconds| wait(Passing::Busy(Some(Duration::from_secs(seconds))), 1, 0);
        assert_eq!(busy(0), Some(Duration::ZERO));
        assert_eq!(busy(10), Some(Duration::from_secs(10)));
        assert_eq!(busy(11), None);
        assert_eq!(wait(Passing::Busy(Some(Duration::ZERO)), TRIES, 0), None);
    }
}
