//! What workers write in the ledger.

use phoenix_model::{ActionVerdict, FailureClass, Stamp};
use serde::{Deserialize, Serialize};

/// The number of a worker's place in the plan, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(pub u32);

/// The position of a unit in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnitId(pub u32);

/// One entry of a ledger. Entries never change, and may be seen in any order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "camelCase")]
pub enum Record {
    /// A worker began to work.
    Joined {
        /// Which.
        slot: Slot,
    },
    /// A worker took a unit.
    Claim {
        /// The unit.
        unit: UnitId,
        /// How often it was taken, this time included. Of several claims with the same number one wins.
        attempt: u32,
        /// Who took it.
        slot: Slot,
    },
    /// A unit came to its end. Of several outcomes of a unit the first stands.
    Outcome(Outcome),
    /// A worker gave a unit back, for a reason that is not the unit's.
    Returned(Returned),
    /// A worker ended in good order.
    Left {
        /// Which.
        slot: Slot,
        /// Whether the ledger took no more claims of it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        spent: bool,
    },
}

/// How the derivations of a unit ended.
///
/// A derivation that is in neither list was not tried, because something it needs has failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The unit.
    pub unit: UnitId,
    /// The number of the claim.
    pub attempt: u32,
    /// Who built it.
    pub slot: Slot,
    /// What was built.
    pub built: Vec<Built>,
    /// What failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failure>,
    /// Where others find the outputs, in the words of whoever moves them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parcel: Option<String>,
    /// How an action ended, where the unit is one (see [`action_unit`](super::action_unit)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Acted>,
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acted {
    /// Its verdict.
    #[serde(flatten)]
    pub verdict: ActionVerdict,
    /// How long it ran, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The last lines that it printed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// When it ended, by the clock of who tells; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Stamp>,
}

/// A derivation that was built.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Built {
    /// Its position in the plan.
    pub derivation: u32,
    /// How long it took.
    pub seconds: f64,
    /// How many bytes its outputs have as archives, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether it was there after all, so that nothing was built.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// When it ended, by the clock of who tells; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Stamp>,
}

/// A derivation that failed by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Its position in the plan.
    pub derivation: u32,
    /// In which way.
    pub class: FailureClass,
    /// In Nix's words.
    pub message: String,
    /// How long it took to fail.
    pub seconds: f64,
    /// The last lines of its log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// When it ended, by the clock of who tells; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Stamp>,
}

/// What building a unit came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ends {
    /// What was built.
    pub built: Vec<Built>,
    /// What failed.
    pub failed: Vec<Failure>,
    /// Where others find the outputs.
    pub parcel: Option<String>,
}

/// A unit that was given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Returned {
    /// The unit.
    pub unit: UnitId,
    /// The number of the claim.
    pub attempt: u32,
    /// Who gave it back.
    pub slot: Slot,
    /// Why: lost connection, killed builder, full disk, a runner that was told to stop.
    pub reason: String,
    /// Whether the worker was told to stop; such a return does not count against the unit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// What of it was built by then. Who takes it next gets that from there, and builds what it does not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub built: Vec<Built>,
    /// Where others find the outputs of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parcel: Option<String>,
}

impl Record {
    /// The unit, and where outputs of it are, if the record tells of any.
    #[must_use]
    pub fn parcel(&self) -> Option<(UnitId, &str)> {
        match self {
            Self::Outcome(Outcome { unit, parcel, .. }) | Self::Returned(Returned { unit, parcel, .. }) => {
                Some((*unit, parcel.as_deref()?))
            }
            Self::Joined { .. } | Self::Claim { .. } | Self::Left { .. } => None,
        }
    }

    /// What was built, as far as the record tells.
    #[must_use]
    pub fn built(&self) -> &[Built] {
        match self {
            Self::Outcome(Outcome { built, .. }) | Self::Returned(Returned { built, .. }) => built,
            Self::Joined { .. } | Self::Claim { .. } | Self::Left { .. } => &[],
        }
    }
}
