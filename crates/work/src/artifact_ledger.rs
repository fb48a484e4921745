//! A ledger of artifacts, for runs on a forge's own runners.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use phoenix_schedule::farm::{Record, Slot, UnitId};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::task::JoinHandle;

use crate::artifact_names::{Attempt, Name, is_run};
use crate::log::Log;
use crate::presence::{self, Presences};
use crate::{Artifact, ArtifactError, ArtifactStore, Cursor, Ledger, LedgerError, Room};

/// How often at most a worker tells of itself: a job that works for six hours makes 156 artifacts to do so.
const PRESENCE: Duration = Duration::from_secs(60);

/// How many artifacts of a job are not for claims: by them it tells of itself, keeps what it built, and says how that ended.
const NOT_FOR_CLAIMS: usize = 60;

/// How many artifacts are read or removed at once.
const AT_ONCE: usize = 8;

/// Records as artifacts of a run, `phoenix-RUN.…`, of which a unit costs one and three requests.
///
/// A claim reserves the artifact `unit.UNIT.ATTEMPT`, which only one can; it is filled, and so becomes seen, when
/// the unit has ended. Who has claimed what is told to others beside the heartbeat, in the name of
/// `worker.SLOT.…`, at most once in a while: whoever has not heard of a claim is refused by the reservation. So
/// news of a claim may be late, and that of an outcome is not.
///
/// Of two outcomes of one unit the second is refused, unless both are written in the same moment: then each
/// reader takes the one that was seen first, or has the smaller number.
#[derive(Debug)]
pub struct ArtifactLedger<S: ArtifactStore> {
    location: String,
    kept: Arc<Kept<S>>,
    showing: JoinHandle<()>,
}

#[derive(Debug)]
pub(crate) struct Kept<S: ArtifactStore> {
    pub(crate) store: S,
    run: String,
    state: Mutex<State<S::Reservation>>,
    /// Whoever writes has it: what is written once needs no answer twice.
    writing: AsyncMutex<()>,
    /// Whoever reads has it.
    reading: AsyncMutex<()>,
    pub(crate) changed: Notify,
}

#[derive(Debug)]
pub(crate) struct State<R> {
    log: Log,
    /// The numbers of the artifacts that are in the log.
    known: HashSet<i64>,
    /// What was claimed here, by whom, and what is to be filled.
    claims: HashMap<Attempt, (Slot, Option<Arc<R>>)>,
    /// What others have claimed.
    refused: HashSet<Attempt>,
    /// What was reserved and could not be filled.
    pending: HashMap<String, Arc<R>>,
    /// The last number and count of each worker.
    beats: BTreeMap<Slot, (u64, u64)>,
    pub(crate) presences: Presences,
}

impl<S: ArtifactStore> ArtifactLedger<S> {
    /// The ledger of a run; `location` is its URL. Needs a Tokio runtime with its clock.
    ///
    /// # Errors
    ///
    /// When `run` is no name of letters, digits, `-` and `_`.
    pub fn new(store: S, location: &str, run: &str) -> Result<Self, LedgerError> {
        let location = location.to_owned();
        if !is_run(run) {
            let problem = format!("{run:?} names no run: letters, digits, `-` and `_` make a name");
            return Err(LedgerError::new(location, "being opened", problem));
        }
        let state = State {
            log: Log::default(),
            known: HashSet::new(),
            claims: HashMap::new(),
            refused: HashSet::new(),
            pending: HashMap::new(),
            beats: BTreeMap::new(),
            presences: Presences::new(PRESENCE),
        };
        let kept = Arc::new(Kept {
            store,
            run: run.to_owned(),
            state: Mutex::new(state),
            writing: AsyncMutex::default(),
            reading: AsyncMutex::default(),
            changed: Notify::new(),
        });
        let showing = tokio::spawn(presence::show(Arc::clone(&kept)));
        Ok(Self { location, kept, showing })
    }

    /// The same, but a worker tells of itself as often as this, and not once a minute. (The oftener it did, the
    /// rarer it becomes.)
    #[must_use]
    pub fn with_presence(self, pace: Duration) -> Self {
        self.kept.state().presences = Presences::new(pace);
        self
    }

    fn told<T>(&self, doing: &str, done: Result<T, ArtifactError>) -> Result<T, LedgerError> {
        done.map_err(|error| LedgerError {
            location: self.location.clone(),
            doing: doing.to_owned(),
            problem: error.to_string(),
            is_full: matches!(error, ArtifactError::Full(_)),
        })
    }
}

impl<S: ArtifactStore> Drop for ArtifactLedger<S> {
    fn drop(&mut self) {
        self.showing.abort();
    }
}

impl<S: ArtifactStore> Kept<S> {
    pub(crate) fn state(&self) -> MutexGuard<'_, State<S::Reservation>> {
        // What is in it holds together at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn claim(&self, attempt: Attempt, slot: Slot) -> Result<bool, ArtifactError> {
        let _writing = self.writing.lock().await;
        let record = Record::Claim { unit: attempt.0, attempt: attempt.1, slot };
        {
            let state = self.state();
            if let Some((holder, _)) = state.claims.get(&attempt) {
                return Ok(*holder == slot);
            }
            if state.refused.contains(&attempt) {
                return Ok(false);
            }
            if let Some(ours) = state.log.standing(&record) {
                return Ok(ours);
            }
        }
        self.has_room(NOT_FOR_CLAIMS)?;
        let reserved = self.reserve(&Name::Unit(attempt).of_run(&self.run)).await?;
        let mut state = self.state();
        let Some(reservation) = reserved else {
            state.refused.insert(attempt);
            return Ok(false);
        };
        state.claims.insert(attempt, (slot, Some(Arc::new(reservation))));
        state.log.push(record);
        state.presences.claimed(slot, attempt);
        drop(state);
        self.changed.notify_one();
        Ok(true)
    }

    async fn post(&self, record: &Record) -> Result<bool, ArtifactError> {
        let _writing = self.writing.lock().await;
        let (attempt, slot) = match record {
            Record::Claim { .. } => return Err(ArtifactError::Other("a claim is not posted".to_owned())),
            Record::Joined { slot } => return self.tell(record, &Name::Joined(*slot)).await,
            Record::Left { slot, spent } => return self.tell(record, &Name::Left(*slot, *spent)).await,
            Record::Outcome(outcome) => ((outcome.unit, outcome.attempt), outcome.slot),
            Record::Returned(returned) => ((returned.unit, returned.attempt), returned.slot),
        };
        self.catch_up().await?;
        if let Some(ours) = self.state().log.standing(record) {
            return Ok(ours);
        }
        let claim = {
            let state = self.state();
            state.claims.get(&attempt).filter(|(holder, _)| *holder == slot).cloned()
        };
        let mut records = vec![record.clone()];
        if claim.is_some() {
            // Whoever did not hear of the claim hears of it now.
            records.insert(0, Record::Claim { unit: attempt.0, attempt: attempt.1, slot });
        }
        let reserved = claim.and_then(|(_, reservation)| reservation);
        let filled = match reserved.filter(|reservation| self.store.holds(reservation)) {
            Some(reservation) => self.fill(&reservation, &records).await,
            None => Err(ArtifactError::Lapsed),
        };
        match filled {
            Err(ArtifactError::Lapsed) => self.write_anywhere(attempt, &records).await?,
            filled => filled?,
        }
        let mut state = self.state();
        if let Some((_, reservation)) = state.claims.get_mut(&attempt) {
            *reservation = None;
        }
        state.presences.ended(slot, attempt);
        state.log.push(record.clone());
        Ok(true)
    }

    /// Writes a record that is all in its name.
    async fn tell(&self, record: &Record, name: &Name) -> Result<bool, ArtifactError> {
        if let Some(ours) = self.state().log.standing(record) {
            return Ok(ours);
        }
        // One that is taken was written before, by a process that had this slot.
        self.write(&name.of_run(&self.run), std::slice::from_ref(record)).await?;
        self.state().log.push(record.clone());
        Ok(true)
    }

    /// Writes how an attempt ended of which we have no reservation, or none that holds.
    async fn write_anywhere(&self, attempt: Attempt, records: &[Record]) -> Result<(), ArtifactError> {
        let own = Name::Unit(attempt).of_run(&self.run);
        let ours = self.state().claims.contains_key(&attempt);
        if !ours && self.write(&own, records).await? {
            return Ok(());
        }
        let late = Name::Late(attempt, now()).of_run(&self.run);
        match self.write(&late, records).await? {
            true => Ok(()),
            false => Err(ArtifactError::Other(format!("the artifact {late} is there already"))),
        }
    }

    /// Makes an artifact; whether the name was free.
    async fn write(&self, name: &str, records: &[Record]) -> Result<bool, ArtifactError> {
        let pending = self.state().pending.get(name).filter(|held| self.store.holds(held)).cloned();
        let reservation = match pending {
            Some(reservation) => reservation,
            None => match self.reserve(name).await? {
                Some(reservation) => Arc::new(reservation),
                None => return Ok(false),
            },
        };
        self.state().pending.insert(name.to_owned(), Arc::clone(&reservation));
        self.fill(&reservation, records).await?;
        self.state().pending.remove(name);
        Ok(true)
    }

    /// Sees that the job may make artifacts beyond so many.
    fn has_room(&self, beyond: usize) -> Result<(), ArtifactError> {
        let Room { most, left } = self.store.room();
        if left > beyond {
            return Ok(());
        }
        let made = most.saturating_sub(left);
        Err(ArtifactError::Full(format!(
            "this job has made {made} of the {most} artifacts that a job may make; use more runners, or another ledger"
        )))
    }

    async fn reserve(&self, name: &str) -> Result<Option<S::Reservation>, ArtifactError> {
        self.has_room(0)?;
        self.store.reserve(name).await
    }

    async fn fill(&self, reservation: &S::Reservation, records: &[Record]) -> Result<(), ArtifactError> {
        let text = serde_json::to_vec(records).map_err(|error| ArtifactError::Other(error.to_string()))?;
        let artifact = self.store.fill(reservation, Bytes::from(text)).await?;
        self.state().known.insert(artifact.number);
        Ok(())
    }

    /// Takes in what is new. Of a listing that is not read to its end, what was read stays.
    async fn catch_up(&self) -> Result<(), ArtifactError> {
        let _reading = self.reading.lock().await;
        let mut listed = self.store.list().await?;
        listed.sort_unstable_by_key(|artifact| artifact.number);
        let mut unread = Vec::new();
        {
            let mut state = self.state();
            listed.retain(|artifact| !state.known.contains(&artifact.number));
            for artifact in listed {
                match Name::read(&artifact.name, &self.run) {
                    Some(Name::Unit(_) | Name::Late(..)) => unread.push(artifact),
                    Some(name) => {
                        state.take_in(name);
                        state.known.insert(artifact.number);
                    }
                    None => {}
                }
            }
        }
        let mut contents = stream::iter(unread)
            .map(|artifact| async move { Ok((artifact.number, self.contents(&artifact).await?)) })
            .buffered(AT_ONCE);
        while let Some((number, records)) = contents.try_next().await? {
            let mut state = self.state();
            for record in records {
                state.log.push(record);
            }
            state.known.insert(number);
        }
        Ok(())
    }

    /// The records of an artifact. One that holds none, or was removed, counts as none.
    async fn contents(&self, artifact: &Artifact) -> Result<Vec<Record>, ArtifactError> {
        match self.store.read(artifact).await {
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(ArtifactError::Gone) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Shows what a worker says of itself, and removes what it said before.
    pub(crate) async fn show(&self, name: Name, before: Option<Artifact>) -> Result<Artifact, ArtifactError> {
        let name = name.of_run(&self.run);
        let taken = || ArtifactError::Other(format!("the artifact {name} is there already"));
        let reservation = self.reserve(&name).await?.ok_or_else(taken)?;
        let shown = self.store.fill(&reservation, Bytes::from_static(b"[]\n")).await?;
        if let Some(before) = before {
            // It would be removed in the end.
            let _ = self.store.remove(&before).await;
        }
        Ok(shown)
    }

    /// Removes all artifacts of the ledger.
    async fn discard(&self) -> Result<(), ArtifactError> {
        let listed = self.store.list().await?;
        let ours = listed.into_iter().filter(|artifact| Name::read(&artifact.name, &self.run).is_some());
        stream::iter(ours)
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |artifact| async move { self.store.remove(&artifact).await })
            .await
    }
}

impl<R> State<R> {
    /// Takes in what a name says.
    fn take_in(&mut self, name: Name) {
        match name {
            Name::Joined(slot) => self.log.push(Record::Joined { slot }),
            Name::Left(slot, spent) => self.log.push(Record::Left { slot, spent }),
            Name::Alive(alive) => {
                for (unit, attempt) in alive.claims {
                    self.log.push(Record::Claim { unit, attempt, slot: alive.slot });
                }
                if let Some(count) = alive.count {
                    let beat = self.beats.entry(alive.slot).or_default();
                    *beat = (*beat).max((alive.number, count));
                }
            }
            Name::Unit(_) | Name::Late(..) => {}
        }
    }
}

/// Milliseconds since 1970: numbers that hardly come twice in one job.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait::async_trait]
impl<S: ArtifactStore> Ledger for ArtifactLedger<S> {
    fn location(&self) -> &str {
        &self.location
    }

    async fn claim(&self, unit: UnitId, attempt: u32, slot: Slot) -> Result<bool, LedgerError> {
        let claimed = self.kept.claim((unit, attempt), slot).await;
        self.told(&format!("claiming unit {}", unit.0), claimed)
    }

    async fn post(&self, record: &Record) -> Result<bool, LedgerError> {
        self.told("posting a record", self.kept.post(record).await)
    }

    async fn since(&self, cursor: &mut Cursor) -> Result<Vec<Record>, LedgerError> {
        self.told("looking at what is new", self.kept.catch_up().await)?;
        Ok(self.kept.state().log.since(cursor))
    }

    async fn beat(&self, slot: Slot, count: u64) -> Result<(), LedgerError> {
        let failed = self.kept.state().presences.beat(slot, count);
        self.kept.changed.notify_one();
        self.told("showing that it is alive", failed.map_or(Ok(()), Err))
    }

    async fn beats(&self) -> Result<Vec<(Slot, u64)>, LedgerError> {
        self.told("looking who is alive", self.kept.catch_up().await)?;
        Ok(self.kept.state().beats.iter().map(|(&slot, &(_, count))| (slot, count)).collect())
    }

    fn leaves_something(&self) -> bool {
        true
    }

    async fn discard(&self) -> Result<(), LedgerError> {
        self.showing.abort();
        self.told("removing its artifacts", self.kept.discard().await)
    }
}
