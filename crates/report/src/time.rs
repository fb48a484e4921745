//! Times in words.

use std::time::Duration;

/// Seconds as people say them: `0.3s`, `42s`, `2m10s`, `1h02m`.
#[must_use]
pub fn human_seconds(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    // In range: a run takes no 10^19 seconds, and the cast saturates.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded, positive and small"
    )]
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// Seconds as a duration; what no run takes, as an events file may claim it, is cut to a thousand years.
pub(crate) fn duration(seconds: f64) -> Duration {
    const MOST: f64 = 1000.0 * 365.25 * 86_400.0;
    // What is no number stays none, and is refused.
    Duration::try_from_secs_f64(seconds.clamp(0.0, MOST)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_too_strange_for_a_duration() {
        assert_eq!(duration(1.5), Duration::from_millis(1500));
        for seconds in [-1.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(duration(seconds), Duration::ZERO);
        }
        assert_eq!(duration(f64::INFINITY), duration(1e300));
    }

    #[test]
    fn as_people_say_them() {
        for (seconds, words) in [
            (0.0, "0.0s"),
            (4.24, "4.2s"),
            (9.97, "10s"),
            (59.6, "1m00s"),
            (130.0, "2m10s"),
            (3725.0, "1h02m"),
            (f64::NAN, "0.0s"),
            (-1.0, "0.0s"),
        ] {
            assert_eq!(human_seconds(seconds), words);
        }
    }
}
