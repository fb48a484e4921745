//! A depot that misbehaves, the same way each time for the same seed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::testing::body::any;
use crate::{Blob, BlobName, Body, Created, Depot, DepotError, Problem, Scopes};

/// One way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The answer is [`Problem::Gone`]; the next may be another.
    Gone,
    /// The answer is [`Problem::Denied`].
    Denied,
    /// The answer is [`Problem::Short`].
    Short,
    /// The answer is [`Problem::Busy`].
    Busy,
    /// The answer is [`Problem::Full`].
    Full,
    /// The answer is [`Problem::Unreachable`].
    Unreachable,
    /// The answer is [`Problem::Unsupported`].
    Unsupported,
    /// The answer is [`Problem::Unreachable`], and yet what was asked for is done.
    DoneAndDenied,
    /// A creation fails as if its body had, with [`Problem::Body`].
    Body,
    /// The blob is lost, as if it were evicted; its name can be created again.
    Lost,
    /// The blob is not shown for the next [`Faults::lag`] requests.
    Late,
    /// Bytes come back with a bit that is wrong.
    Flipped,
    /// Fewer bytes come back than there are, as if that were all.
    Truncated,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Gone,
        Self::Denied,
        Self::Short,
        Self::Busy,
        Self::Full,
        Self::Unreachable,
        Self::Unsupported,
        Self::DoneAndDenied,
        Self::Body,
        Self::Lost,
        Self::Late,
        Self::Flipped,
        Self::Truncated,
    ];

    /// Whether a depot could misbehave like that when it is asked for this.
    fn fits(self, request: Request) -> bool {
        use Request::{Create, Find, List, Read, Remove};
        match self {
            Self::Denied | Self::Busy | Self::Unreachable => true,
            Self::Gone | Self::Short | Self::Flipped | Self::Truncated => request == Read,
            Self::Full | Self::Body => request == Create,
            Self::Unsupported => matches!(request, List | Remove),
            Self::DoneAndDenied => matches!(request, Create | Remove),
            Self::Lost => matches!(request, Find | Read),
            Self::Late => matches!(request, Create | Find),
        }
    }

    fn problem(self, number: u64) -> Option<Problem> {
        let said = format!("request {number} had to fail ({self:?})");
        match self {
            Self::Gone => Some(Problem::Gone),
            Self::Denied => Some(Problem::Denied(said)),
            Self::Short => Some(Problem::Short(said)),
            Self::Busy => Some(Problem::Busy(said)),
            Self::Full => Some(Problem::Full(said)),
            Self::Unreachable | Self::DoneAndDenied => Some(Problem::Unreachable(said)),
            Self::Unsupported => Some(Problem::Unsupported("do that now")),
            Self::Body => Some(Problem::Body(std::io::Error::other(said))),
            Self::Lost | Self::Late | Self::Flipped | Self::Truncated => None,
        }
    }
}

/// How a depot misbehaves.
#[derive(Debug, Clone)]
pub struct Faults {
    /// What the choices follow from.
    pub seed: u64,
    /// Of so many requests one is faulty, at a place among them that the seed chooses; 0 for none.
    pub every: u64,
    /// The ways, of which one that fits the request is chosen; if none does it is served well.
    pub kinds: Vec<Fault>,
    /// For how many requests a blob that is [`Fault::Late`] is not shown.
    pub lag: u64,
}

impl Faults {
    /// Every n-th request is faulty in any way.
    #[must_use]
    pub fn any(seed: u64, every: u64) -> Self {
        Self { seed, every, kinds: Fault::ALL.into(), lag: 5 }
    }

    /// Every n-th request is faulty in this way.
    #[must_use]
    pub fn only(kind: Fault, seed: u64, every: u64) -> Self {
        Self { seed, every, kinds: vec![kind], lag: 5 }
    }
}

/// What a depot is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Create,
    Find,
    Newest,
    Read,
    List,
    Remove,
}

/// A depot in front of another that misbehaves by [`Faults`]. What comes of several requests at once depends
/// on their order, and on nothing else that is not in the seed.
#[derive(Debug)]
pub struct Faulty<D> {
    inner: D,
    faults: Faults,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: u64,
    done: BTreeMap<Fault, u64>,
    lost: BTreeSet<BlobName>,
    /// Up to which request a blob is not shown.
    late: BTreeMap<BlobName, u64>,
}

impl<D: Depot> Faulty<D> {
    /// A faulty depot in front of `inner`.
    pub fn new(inner: D, faults: Faults) -> Self {
        Self { inner, faults, state: Mutex::default() }
    }

    /// The depot behind it.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// How many requests there were.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// How often it misbehaved in which way.
    pub fn done(&self) -> BTreeMap<Fault, u64> {
        self.state().done.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, and says how it is to go wrong, with a number that chance gave.
    fn next(&self, request: Request, name: Option<&BlobName>) -> (u64, Option<Fault>, u64) {
        let mut state = self.state();
        let number = state.requests;
        state.requests += 1;
        if self.faults.every == 0 {
            return (number, None, 0);
        }
        let mut round = self.faults.seed ^ (number / self.faults.every).wrapping_mul(0xD134_2543_DE82_EF95);
        if any(&mut round) % self.faults.every != number % self.faults.every {
            return (number, None, 0);
        }
        let fitting: Vec<_> = self.faults.kinds.iter().filter(|kind| kind.fits(request)).collect();
        let chance = any(&mut round);
        let index = usize::try_from(chance % (fitting.len().max(1) as u64)).unwrap_or(0);
        let fault = fitting.get(index).map(|fault| **fault);
        if let Some(fault) = fault {
            *state.done.entry(fault).or_default() += 1;
        }
        match (fault, name) {
            (Some(Fault::Lost), Some(name)) => {
                state.lost.insert(name.clone());
            }
            (Some(Fault::Late), Some(name)) => {
                state.late.insert(name.clone(), number + self.faults.lag);
            }
            _ => {}
        }
        (number, fault, any(&mut round))
    }

    fn shown(&self, name: &BlobName) -> bool {
        let state = self.state();
        let late = state.late.get(name).is_some_and(|until| state.requests <= *until);
        !late && !state.lost.contains(name)
    }

    fn fail(&self, doing: impl Into<String>, fault: Option<Fault>, number: u64) -> Result<(), DepotError> {
        match fault.and_then(|fault| fault.problem(number)) {
            Some(problem) => Err(self.error(doing, problem)),
            None => Ok(()),
        }
    }

    fn error(&self, doing: impl Into<String>, problem: Problem) -> DepotError {
        DepotError { location: self.inner.location().to_owned(), doing: doing.into(), problem }
    }
}

#[async_trait::async_trait]
impl<D: Depot> Depot for Faulty<D> {
    fn location(&self) -> &str {
        self.inner.location()
    }

    fn scopes(&self) -> Option<Scopes> {
        self.inner.scopes()
    }

    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        let (number, fault, _) = self.next(Request::Create, Some(name));
        if fault != Some(Fault::DoneAndDenied) {
            self.fail(format!("creating {name}"), fault, number)?;
        }
        if self.state().lost.contains(name) {
            self.inner.remove(name).await?;
        }
        let created = self.inner.create(name, body).await?;
        self.state().lost.remove(name);
        self.fail(format!("creating {name}"), fault, number)?;
        Ok(created)
    }

    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        let (number, fault, _) = self.next(Request::Find, Some(name));
        self.fail(format!("looking for {name}"), fault, number)?;
        Ok(self.inner.find(name).await?.filter(|blob| self.shown(&blob.name)))
    }

    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        let (number, fault, _) = self.next(Request::Newest, None);
        self.fail(format!("looking for the newest of {prefix}"), fault, number)?;
        let newest = self.inner.newest(prefix).await?;
        if newest.as_ref().is_none_or(|blob| self.shown(&blob.name)) {
            return Ok(newest);
        }
        let blobs = self.inner.list(prefix).await?;
        let shown = blobs.into_iter().filter(|blob| self.shown(&blob.name));
        Ok(shown.max_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name))))
    }

    async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError> {
        if range.is_empty() {
            return self.inner.read(blob, range).await;
        }
        let (number, fault, chance) = self.next(Request::Read, Some(&blob.name));
        let doing = format!("reading {}", blob.name);
        self.fail(doing.clone(), fault, number)?;
        if self.state().lost.contains(&blob.name) {
            return Err(self.error(doing, Problem::Gone));
        }
        let bytes = self.inner.read(blob, range).await?;
        let index = usize::try_from(chance % (bytes.len().max(1) as u64)).unwrap_or(0);
        Ok(match fault {
            Some(Fault::Flipped) if !bytes.is_empty() => {
                let mut bytes = bytes.to_vec();
                bytes[index] ^= 1 << ((chance >> 40) % 8);
                bytes.into()
            }
            Some(Fault::Truncated) => bytes.slice(..index),
            _ => bytes,
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        let (number, fault, _) = self.next(Request::List, None);
        self.fail(format!("listing {prefix}"), fault, number)?;
        let mut blobs = self.inner.list(prefix).await?;
        blobs.retain(|blob| self.shown(&blob.name));
        Ok(blobs)
    }

    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        let (number, fault, _) = self.next(Request::Remove, Some(name));
        if fault == Some(Fault::DoneAndDenied) {
            self.inner.remove(name).await?;
        }
        self.fail(format!("removing {name}"), fault, number)?;
        self.inner.remove(name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, body, bytes};

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// What happens to a few requests of each kind, in words.
    async fn story(faults: Faults) -> (String, BTreeMap<Fault, u64>) {
        let depot = Faulty::new(Memory::new(), faults);
        let mut story = String::new();
        for n in 0..60_u64 {
            let name = BlobName::new(format!("b/{}", n % 20)).unwrap();
            let blob = Blob { name: name.clone(), size: 100, created: None };
            story += &format!("{:?}\n", depot.create(&name, body(bytes(n % 20, 100))).await);
            story += &format!("{:?}\n", depot.find(&name).await.map(|found| found.is_some()));
            story += &format!("{:?}\n", depot.newest("b").await.map(|found| found.is_some()));
            story += &format!("{:?}\n", depot.read(&blob, 0..100).await);
            story += &format!("{:?}\n", depot.list("b").await.map(|all| all.len()));
            if n % 7 == 0 {
                story += &format!("{:?}\n", depot.remove(&name).await);
            }
        }
        assert!(depot.requests() > 300);
        (story, depot.done())
    }

    #[test]
    fn a_seed_always_does_the_same_and_another_does_not() {
        let tell = |seed| run(story(Faults::any(seed, 3)));
        assert_eq!(tell(1), tell(1));
        assert_ne!(tell(1), tell(2));
    }

    #[test]
    fn every_way_is_taken() {
        let (_, done) = run(story(Faults::any(1, 2)));
        assert_eq!(done.keys().copied().collect::<Vec<_>>(), Fault::ALL);
        assert!(run(story(Faults::any(1, 0))).1.is_empty());
    }

    #[test]
    fn what_goes_wrong_is_one_of_n() {
        let (_, done) = run(story(Faults::any(5, 10)));
        let sum: u64 = done.values().sum();
        assert!((25..=31).contains(&sum), "{done:?}");
    }

    #[test]
    fn bytes_come_back_wrong_and_blobs_get_lost() {
        run(async {
            let name = BlobName::new("a").unwrap();
            let blob = Blob { name: name.clone(), size: 100, created: None };
            let faulty = |kind| {
                let depot = Faulty::new(Memory::new(), Faults::only(kind, 1, 1));
                async {
                    depot.inner().create(&name, body(bytes(1, 100))).await.unwrap();
                    depot
                }
            };
            let flipped = faulty(Fault::Flipped).await.read(&blob, 0..100).await.unwrap();
            let wrong: u32 = flipped.iter().zip(bytes(1, 100)).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!((flipped.len(), wrong), (100, 1));
            let truncated = faulty(Fault::Truncated).await.read(&blob, 0..100).await.unwrap();
            assert!(truncated.len() < 100 && bytes(1, 100).starts_with(&truncated));
            let losing = faulty(Fault::Lost).await;
            assert!(matches!(losing.read(&blob, 0..100).await.unwrap_err().problem, Problem::Gone));
            assert_eq!(losing.find(&name).await.unwrap(), None);
            assert_eq!(losing.newest("").await.unwrap(), None);
            let late = faulty(Fault::Late).await;
            assert_eq!(late.find(&name).await.unwrap(), None);
            assert_eq!(late.list("").await.unwrap(), []);
            for _ in 0..10 {
                late.newest("").await.unwrap();
            }
            assert_eq!(late.list("").await.unwrap().len(), 1);
        });
    }
}
