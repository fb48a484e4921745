//! Archives that turned out to be damaged: nobody is told of them for a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use phoenix_pack::HASH_LENGTH;

/// How long it is believed that an archive is damaged: what damaged it may have been on the way.
const BELIEVED: Duration = Duration::from_secs(60);

/// A path, and the very contents.
pub(super) type Archive = ([u8; HASH_LENGTH], [u8; 32]);

/// Archives that are believed to be damaged.
#[derive(Debug, Default)]
pub(super) struct Damaged {
    until: HashMap<Archive, Instant>,
}

impl Damaged {
    /// Believes that an archive is damaged.
    pub(super) fn insert(&mut self, archive: Archive, now: Instant) {
        self.until.retain(|_, until| now < *until);
        self.until.insert(archive, now + BELIEVED);
    }

    /// Whether it is believed that an archive is damaged.
    pub(super) fn has(&self, archive: &Archive, now: Instant) -> bool {
        self.until.get(archive).is_some_and(|until| now < *until)
    }

    /// Believes it of none any more.
    pub(super) fn clear(&mut self) {
        self.until.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_believed_for_a_while() {
        let (mut damaged, now) = (Damaged::default(), Instant::now());
        let archive = |number| ([number; HASH_LENGTH], [0; 32]);
        damaged.insert(archive(1), now);
        assert!(damaged.has(&archive(1), now + BELIEVED / 2) && !damaged.has(&archive(2), now));
        damaged.insert(archive(2), now + BELIEVED / 2);
        assert!(!damaged.has(&archive(1), now + BELIEVED) && damaged.has(&archive(2), now + BELIEVED));
        damaged.insert(archive(2), now + BELIEVED);
        assert_eq!(damaged.until.len(), 1, "it does not grow without bounds");
        damaged.clear();
        assert!(!damaged.has(&archive(2), now + BELIEVED));
    }
}
