//! When a worker tells of itself, and of what it has claimed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use phoenix_schedule::farm::Slot;
use tokio::time::{Instant, sleep_until};

use crate::artifact_ledger::{Kept, now};
use crate::artifact_names::{Alive, Attempt, Name};
use crate::{Artifact, ArtifactError, ArtifactStore};

/// By what part of the pace each time makes the next one later: a job may make so many artifacts only, and works
/// for hours.
const SLOWER: u32 = 60;

/// What the workers of this process say of themselves.
#[derive(Debug)]
pub(crate) struct Presences {
    pace: Duration,
    of: BTreeMap<Slot, Presence>,
}

#[derive(Debug, Default)]
struct Presence {
    count: Option<u64>,
    claims: Vec<Attempt>,
    /// What has to be told, since when; a claim need not be at once.
    due: Option<Instant>,
    /// How often it was told, and when the last time.
    times: u32,
    last: Option<Instant>,
    number: u64,
    shown: Option<Artifact>,
    failed: Option<ArtifactError>,
}

impl Presences {
    pub(crate) fn new(pace: Duration) -> Self {
        Self { pace, of: BTreeMap::new() }
    }

    /// A heartbeat is to be told, and so what went wrong with the last one.
    pub(crate) fn beat(&mut self, slot: Slot, count: u64) -> Option<ArtifactError> {
        let presence = self.of.entry(slot).or_default();
        presence.count = Some(count);
        presence.tell_at(Instant::now());
        presence.failed.take()
    }

    /// A claim is to be told, if it lasts.
    pub(crate) fn claimed(&mut self, slot: Slot, attempt: Attempt) {
        let presence = self.of.entry(slot).or_default();
        presence.claims.push(attempt);
        presence.tell_at(Instant::now() + self.pace);
    }

    /// What was claimed has ended.
    pub(crate) fn ended(&mut self, slot: Slot, attempt: Attempt) {
        let Some(presence) = self.of.get_mut(&slot) else { return };
        presence.claims.retain(|claim| *claim != attempt);
        // A claim that nobody heard of need not be told any more; a heartbeat does.
        if presence.claims.is_empty() && presence.due.is_some_and(|due| due > Instant::now()) {
            presence.due = None;
        }
    }

    /// Who is to tell of himself next, and when.
    fn next(&self) -> Option<(Instant, Slot)> {
        let at = |presence: &Presence| {
            let pace = self.pace + self.pace * presence.times / SLOWER;
            Some(presence.due?.max(presence.last.map_or(presence.due?, |last| last + pace)))
        };
        self.of.iter().filter_map(|(&slot, presence)| Some((at(presence)?, slot))).min()
    }

    /// What a worker says now, and the artifact in which it did before.
    fn take(&mut self, slot: Slot) -> (Name, Option<Artifact>) {
        let presence = self.of.entry(slot).or_default();
        presence.due = None;
        presence.last = Some(Instant::now());
        presence.times += 1;
        presence.number = now().max(presence.number + 1);
        let Presence { count, number, .. } = *presence;
        let alive = Alive { slot, number, count, claims: presence.claims.clone() };
        (Name::Alive(alive), presence.shown.clone())
    }

    /// What came of it.
    fn told(&mut self, slot: Slot, shown: Result<Artifact, ArtifactError>) {
        let presence = self.of.entry(slot).or_default();
        match shown {
            Ok(artifact) => presence.shown = Some(artifact),
            Err(error) => {
                presence.failed = Some(error);
                presence.tell_at(Instant::now());
            }
        }
    }
}

impl Presence {
    fn tell_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// Tells of the workers whenever it is time, for ever.
pub(crate) async fn show<S: ArtifactStore>(kept: Arc<Kept<S>>) {
    loop {
        let next = kept.state().presences.next();
        match next {
            None => kept.changed.notified().await,
            Some((at, _)) if at > Instant::now() => tokio::select! {
                () = sleep_until(at) => {}
                () = kept.changed.notified() => {}
            },
            Some((_, slot)) => {
                let (name, before) = kept.state().presences.take(slot);
                let shown = kept.show(name, before).await;
                kept.state().presences.told(slot, shown);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use phoenix_schedule::farm::UnitId;
    use tokio::time::advance;

    use super::*;

    const PACE: Duration = Duration::from_secs(60);
    const ME: Slot = Slot(3);

    /// What is told within so long, with something done at every tenth second.
    async fn told(presences: &mut Presences, seconds: u32, mut each: impl FnMut(&mut Presences, u32)) -> u32 {
        let mut times = 0;
        for second in 0..seconds {
            if second.is_multiple_of(10) {
                each(presences, second);
            }
            if presences.next().is_some_and(|(at, _)| at <= Instant::now()) {
                let _ = presences.take(ME);
                times += 1;
            }
            advance(Duration::from_secs(1)).await;
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_of_six_hours_tells_of_itself_156_times() {
        let mut presences = Presences::new(PACE);
        let times = told(&mut presences, 6 * 3600, |presences, second| {
            assert_eq!(presences.beat(ME, u64::from(second)), None);
        });
        assert!((150..160).contains(&times.await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_told_if_it_lasts_and_only_once() {
        let mut presences = Presences::new(PACE);
        let short = |presences: &mut Presences, second: u32| {
            let unit = UnitId(second / 50);
            match second % 50 {
                0 => presences.claimed(ME, (unit, 1)),
                40 => presences.ended(ME, (unit, 1)),
                _ => {}
            }
        };
        assert_eq!(told(&mut presences, 1000, short).await, 0);
        presences.claimed(ME, (UnitId(99), 1));
        assert_eq!(told(&mut presences, 59, |_, _| {}).await, 0);
        assert_eq!(told(&mut presences, 1000, |_, _| {}).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_told_is_told_later_and_the_heartbeat_hears_of_it() {
        let mut presences = Presences::new(PACE);
        assert_eq!(presences.beat(ME, 1), None);
        let _ = presences.take(ME);
        let error = ArtifactError::Other("no answer".to_owned());
        presences.told(ME, Err(error.clone()));
        assert_eq!(told(&mut presences, 59, |_, _| {}).await, 0);
        assert_eq!(told(&mut presences, 100, |_, _| {}).await, 1);
        assert_eq!(presences.beat(ME, 2), Some(error));
        assert_eq!(presences.beat(ME, 3), None);
    }
}
