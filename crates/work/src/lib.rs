//! A worker of a farm: the ledger that it shares with others, and the loop that does what the state machine
//! ([`phoenix_schedule::farm::Worker`]) says.
//!
//! A [`Ledger`] is where workers take units and say how they ended: [`InProcess`] for threads, [`Directory`]
//! for processes that share a file system, [`Nats`] for fleets, [`ArtifactLedger`] for the runners of a forge.
//! What a worker has to know comes in a [`Shipment`]. Claims save work and never carry correctness: what a ledger loses or shows late ends in a wait or in a second build. [`work`] is the loop; what fetching
//! and building are, an [`Exchange`] knows.

mod artifact_ledger;
mod artifact_names;
mod artifacts;
mod directory;
mod exchange;
mod in_process;
mod ledger;
mod log;
mod nats;
mod open;
mod presence;
mod shipment;
mod worker;

pub use artifact_ledger::ArtifactLedger;
pub use artifacts::{Artifact, ArtifactError, ArtifactStore, Room};
pub use directory::Directory;
pub use exchange::{Exchange, Parcels, Trouble};
pub use in_process::InProcess;
pub use ledger::{Cursor, Ledger, LedgerError};
pub use nats::Nats;
pub use open::{Opener, open};
pub use shipment::{Hit, Shipment, ShipmentError};
pub use worker::{Settings, work};

#[cfg(feature = "testing")]
pub mod testing;
