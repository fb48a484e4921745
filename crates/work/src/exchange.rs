//! How a unit's inputs come, how it is built, and how its outputs go.

use std::collections::BTreeMap;
use std::sync::Arc;

use phoenix_schedule::farm::{Ends, UnitId};

/// What fetches, builds and publishes for a worker.
///
/// Futures are dropped when the worker is told to stop, or when what they do is not needed any more, and then
/// [`broken_off`](Self::broken_off) is asked what was built by then. They must not block the thread: heartbeats come from the same one.
#[async_trait::async_trait]
pub trait Exchange: Send + Sync {
    /// Brings everything that these derivations need and other workers built, and of themselves what somebody built
    /// before. Where it is, the parcels say.
    ///
    /// # Errors
    ///
    /// When something of it could not be had. Another worker will try.
    async fn fetch(&self, unit: UnitId, derivations: &[u32], parcels: &Arc<Parcels>) -> Result<(), Trouble>;

    /// Begins to bring what these derivations need, while others are built, and returns at once. The unit comes
    /// next, most likely; if it does, [`fetch`](Self::fetch) is called for it as for any other. What goes wrong
    /// here goes wrong there again, or not.
    fn prefetch(&self, unit: UnitId, derivations: &[u32], parcels: &Arc<Parcels>) {
        let _ = (unit, derivations, parcels);
    }

    /// Whether so little room is left that [`make_room`](Self::make_room) is to be called. Asked before each unit.
    fn is_short_of_room(&self) -> bool {
        false
    }

    /// Lets go of what none of these derivations needs: those of the unit that comes now, and all others that are
    /// not done. What cannot be had again stays.
    async fn make_room(&self, open: &[u32]) {
        let _ = open;
    }

    /// Builds these derivations, as many of them as it can, and puts where others find them the outputs that
    /// others need.
    ///
    /// # Errors
    ///
    /// When something that is not the derivations' fault came between: a full disk, a killed builder, a lost
    /// connection. Another worker will try.
    async fn build(&self, unit: UnitId, derivations: &[u32]) -> Result<Ends, Trouble>;

    /// Waits until what was dropped has ended; what was built of the unit, and where others find it.
    async fn broken_off(&self, unit: UnitId) -> Ends {
        let _ = unit;
        Ends::default()
    }
}

/// Where the outputs of units are, as the workers said who built them or a part of them, this one perhaps among them
/// ([`Ends::parcel`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parcels(BTreeMap<UnitId, Vec<String>>);

impl Parcels {
    /// Those of a unit.
    #[must_use]
    pub fn of(&self, unit: UnitId) -> &[String] {
        self.0.get(&unit).map_or(&[], Vec::as_slice)
    }

    /// The units that have any.
    pub fn units(&self) -> impl Iterator<Item = UnitId> {
        self.0.keys().copied()
    }

    pub(crate) fn add(&mut self, unit: UnitId, parcel: &str) {
        self.0.entry(unit).or_default().push(parcel.to_owned());
    }
}

/// Something that came between and is no derivation's fault.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{why}")]
pub struct Trouble {
    /// What.
    pub why: String,
    /// What came of the unit all the same; of what failed by the fault of the machine, that it did.
    pub ends: Ends,
}

impl Trouble {
    /// Nothing came of the unit.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), ends: Ends::default() }
    }
}
