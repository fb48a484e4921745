//! What goes wrong, on demand and by seed.

use std::collections::{BTreeMap, VecDeque};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    /// `CreateCacheEntry`.
    Create,
    /// `FinalizeCacheEntryUpload`.
    Finalize,
    /// `GetCacheEntryDownloadURL`.
    Lookup,
    /// A blob uploaded at once.
    PutBlob,
    /// A block of a blob.
    PutBlock,
    /// The list that makes a blob of blocks.
    PutBlockList,
    /// Bytes of a blob.
    GetBlob,
    /// The size of a blob.
    HeadBlob,
    /// Entries listed over REST.
    List,
    /// Entries removed over REST.
    Delete,
    /// How much is kept, over REST.
    Usage,
    /// `CreateArtifact`.
    CreateArtifact,
    /// `FinalizeArtifact`.
    FinalizeArtifact,
    /// `ListArtifacts`.
    ListArtifacts,
    /// `GetSignedArtifactURL`.
    SignArtifact,
    /// `DeleteArtifact`.
    DeleteArtifact,
}

impl Request {
    /// Whether it goes to the cache service or the artifact service itself.
    #[must_use]
    pub fn is_twirp(self) -> bool {
        matches!(self, Self::Create | Self::Finalize | Self::Lookup) || self.is_of_artifacts()
    }

    /// Whether it goes to the artifact service.
    #[must_use]
    pub fn is_of_artifacts(self) -> bool {
        matches!(
            self,
            Self::CreateArtifact
                | Self::FinalizeArtifact
                | Self::ListArtifacts
                | Self::SignArtifact
                | Self::DeleteArtifact
        )
    }

    /// Whether it goes to where the bytes are.
    #[must_use]
    pub fn is_blob(self) -> bool {
        matches!(self, Self::PutBlob | Self::PutBlock | Self::PutBlockList | Self::GetBlob | Self::HeadBlob)
    }

    fn is_get(self) -> bool {
        self == Self::GetBlob
    }
}

/// Something that goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// 429 (503 `ServerBusy` from where the bytes are), with a `Retry-After` of so many seconds if any.
    TooMany(Option<u64>),
    /// This status, with a page of HTML for a body.
    Status(u16),
    /// The token or the signed URL is said to have ended: 401 or 403.
    Expired,
    /// The connection breaks before anything was done.
    Broken,
    /// It is done, and the connection breaks before the answer.
    AnswerLost,
    /// 200 with a page of HTML for a body.
    Strange,
    /// `Finalize` answers `ok`, and the entry is never seen.
    Lost,
    /// `Finalize` answers `not_found` and does nothing.
    NotFound,
    /// `Lookup` answers as if the newest of the entries that fit did not exist.
    Backwards,
    /// The entry that `Lookup` answers is evicted right after.
    Evicted,
    /// The body comes in pieces, with pauses between.
    Slow,
    /// The connection breaks in the middle of the body.
    Torn,
    /// One bit of the body is wrong.
    Flipped,
}

impl Fault {
    /// All that a client can recover from or notice: everything but [`Flipped`](Self::Flipped).
    pub const NOTICEABLE: &[Self] = &[
        Self::TooMany(None),
        Self::TooMany(Some(0)),
        Self::Status(500),
        Self::Status(502),
        Self::Status(503),
        Self::Expired,
        Self::Broken,
        Self::AnswerLost,
        Self::Strange,
        Self::Lost,
        Self::NotFound,
        Self::Backwards,
        Self::Evicted,
        Self::Slow,
        Self::Torn,
    ];

    /// Whether it can befall such a request.
    #[must_use]
    pub fn befalls(self, request: Request) -> bool {
        match self {
            Self::TooMany(_) | Self::Status(_) | Self::Expired | Self::Broken | Self::AnswerLost => true,
            Self::Strange => request.is_twirp() || request == Request::List,
            Self::Lost | Self::NotFound => request == Request::Finalize,
            Self::Backwards | Self::Evicted => request == Request::Lookup,
            Self::Slow | Self::Torn | Self::Flipped => request.is_get(),
        }
    }
}

/// Faults by seed: the same seed, kinds and order of requests have the same faults.
#[derive(Debug, Clone)]
pub struct Faults {
    /// What everything follows from.
    pub seed: u64,
    /// One of how many requests goes wrong; 0 is none.
    pub one_in: u64,
    /// What may go wrong.
    pub kinds: Vec<Fault>,
}

impl Faults {
    fn of(&self, number: u64, request: Request) -> Option<Fault> {
        let mut chance = Chance::new(self.seed ^ number.wrapping_mul(0x2545_F491_4F6C_DD1D));
        if self.one_in == 0 || !chance.next().is_multiple_of(self.one_in) {
            return None;
        }
        let kinds: Vec<_> = self.kinds.iter().filter(|fault| fault.befalls(request)).collect();
        let at = usize::try_from(chance.next()).unwrap_or_default();
        (!kinds.is_empty()).then(|| *kinds[at % kinds.len()])
    }
}

/// A sequence of numbers that looks like chance (splitmix64).
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// What is to go wrong, and what did.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    asked_for: BTreeMap<Request, VecDeque<Fault>>,
    number: u64,
    pub(super) done: BTreeMap<Fault, u64>,
}

impl Troubles {
    pub(super) fn ask_for(&mut self, request: Request, fault: Fault, times: usize) {
        self.asked_for.entry(request).or_default().extend(std::iter::repeat_n(fault, times));
    }

    pub(super) fn clear(&mut self) {
        self.asked_for.clear();
    }

    /// What goes wrong with the next request.
    pub(super) fn next(&mut self, request: Request, by_seed: Option<&Faults>) -> Option<Fault> {
        self.number += 1;
        let asked_for = self.asked_for.get_mut(&request).and_then(VecDeque::pop_front);
        let fault = asked_for.or_else(|| by_seed?.of(self.number, request))?;
        *self.done.entry(fault).or_default() += 1;
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_has_the_same_faults_and_every_kind_comes() {
        let tell = |seed| {
            let by_seed = Faults { seed, one_in: 3, kinds: Fault::NOTICEABLE.to_vec() };
            let mut troubles = Troubles::default();
            let requests = [Request::Create, Request::Finalize, Request::Lookup, Request::GetBlob];
            let faults: Vec<_> = (0..2000).map(|n| troubles.next(requests[n % 4], Some(&by_seed))).collect();
            (faults, troubles.done)
        };
        let (faults, done) = tell(1);
        assert_eq!(tell(1).0, faults);
        assert_ne!(tell(2).0, faults);
        assert_eq!(done.len(), Fault::NOTICEABLE.len());
        assert!((500..800).contains(&done.values().sum::<u64>()), "{done:?}");
    }

    #[test]
    fn what_was_asked_for_comes_first_and_as_often() {
        let mut troubles = Troubles::default();
        troubles.ask_for(Request::Lookup, Fault::Broken, 2);
        troubles.ask_for(Request::Lookup, Fault::Expired, 1);
        assert_eq!(troubles.next(Request::Create, None), None);
        let next: Vec<_> = (0..4).map(|_| troubles.next(Request::Lookup, None)).collect();
        assert_eq!(next, [Some(Fault::Broken), Some(Fault::Broken), Some(Fault::Expired), None]);
    }
}
