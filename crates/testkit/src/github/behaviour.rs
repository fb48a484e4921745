//! How the double behaves, as tests set it.

use std::time::Duration;

use super::fault::Faults;

/// How the double behaves. What is here by default is what is known of the real service.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// How many entries may be reserved in a minute; 200 on the real service, for each repository.
    pub creates_per_minute: u64,
    /// How many lookups there may be in a minute; 1,500 on the real service, for each repository.
    pub lookups_per_minute: u64,
    /// How long an upload URL holds; 60 minutes on the real service.
    pub upload_valid: Duration,
    /// How long a download URL holds; 10 minutes on the real service.
    pub download_valid: Duration,
    /// How long a finalized entry stays out of sight of lookups and lists; from none to minutes on the real service.
    pub lag: Duration,
    /// How many lookups a finalized entry stays out of sight of.
    pub lag_lookups: u64,
    /// Look at the restore keys only and not at the key itself, as some say the real service does.
    pub ignores_key: bool,
    /// What is waited before each request is looked at.
    pub latency: Duration,
    /// The pause between two pieces of a body that is slow.
    pub pause: Duration,
    /// What goes wrong by itself.
    pub faults: Option<Faults>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            creates_per_minute: 200,
            lookups_per_minute: 1500,
            upload_valid: Duration::from_secs(3600),
            download_valid: Duration::from_secs(600),
            lag: Duration::ZERO,
            lag_lookups: 0,
            ignores_key: false,
            latency: Duration::ZERO,
            pause: Duration::from_millis(5),
            faults: None,
        }
    }
}

/// A limit of so many requests a minute.
#[derive(Debug, Default)]
pub(super) struct Window {
    began: u64,
    used: u64,
}

impl Window {
    /// Counts one more request at `now` (milliseconds); the seconds to wait when there were too many.
    pub(super) fn take(&mut self, limit: u64, now: u64) -> Result<(), u64> {
        const MINUTE: u64 = 60_000;
        if now >= self.began + MINUTE {
            *self = Self { began: now, used: 0 };
        }
        if self.used >= limit {
            return Err((self.began + MINUTE - now).div_ceil(1000));
        }
        self.used += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_and_the_next_has_as_many_again() {
        let mut window = Window::default();
        let start = 1_000_000;
        assert_eq!([window.take(2, start), window.take(2, start + 1)], [Ok(()), Ok(())]);
        assert_eq!(window.take(2, start + 40_500), Err(20));
        assert_eq!(window.take(2, start + 60_000), Ok(()));
    }
}
