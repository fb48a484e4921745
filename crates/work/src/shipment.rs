//! What a worker is given, so that it needs no flake and no evaluation.

use std::io::{self, Read, Write};

use phoenix_model::{Action, ActionId, ActionVerdict, StorePath, Target, TargetId, Verdict};
use phoenix_schedule::Plan;
use phoenix_schedule::farm::FarmPlan;
use serde::{Deserialize, Serialize};

/// How a shipment begins; then comes a zstd frame of JSON.
const HEAD: &[u8] = b"phoenix shipment 1\n";

/// The level of zstd.
const LEVEL: i32 = 3;

/// How many bytes the JSON may have: a hundred times what nixpkgs takes.
const LONGEST: u64 = 1 << 30;

/// A plan with all that workers, and whoever collects their outcomes, have to know of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shipment {
    /// The version of the phoenix that planned.
    pub phoenix: String,
    /// The version of its Nix.
    pub nix: String,
    /// The directory of the stores, such as `/nix/store`.
    pub store_dir: String,
    /// What was asked for, as the user wrote it, without credentials.
    pub installables: Vec<String>,
    /// The systems that are built for.
    pub systems: Vec<String>,
    /// The targets, with the verdicts of those that have one already.
    pub targets: Vec<(Target, Option<Verdict>)>,
    /// The target of each goal of the plan.
    pub goals: Vec<TargetId>,
    /// What runs after builds, with the verdicts of what has one already.
    #[serde(default)]
    pub actions: Vec<(Action, Option<ActionVerdict>)>,
    /// What each slot is there for, where each has something of its own.
    #[serde(default)]
    pub hits: Vec<Hit>,
    /// Seconds that earlier runs took for what is cached now.
    pub saved_seconds: f64,
    /// What is to be built.
    pub plan: Plan,
    /// In which units, and by whom; its derivations are the steps of the plan.
    pub farm: FarmPlan,
    /// For each step what it needs that is no step's output: where that is in the depot, it comes from there.
    pub needs: Vec<Vec<StorePath>>,
    /// What every worker brings into its store before it begins: the derivations, and what only the planner had.
    pub roots: Vec<StorePath>,
    /// Nix settings that the flake asked for and the user accepted.
    pub options: Vec<(String, String)>,
    /// Whether the first failure ends everything.
    pub fail_fast: bool,
    /// What no other shipment has, also when all else is the same: so that nobody takes it for that.
    #[serde(default)]
    pub nonce: String,
}

/// What one worker is there for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hit {
    /// What people call it.
    pub name: String,
    /// The targets that it answers for.
    pub targets: Vec<TargetId>,
    /// The actions that it answers for.
    pub actions: Vec<ActionId>,
}

/// Why a shipment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShipmentError {
    /// It is of another version.
    #[error("it was written by another version of phoenix; the planner and its workers have to be of one")]
    Version,
    /// It is damaged, or no shipment.
    #[error("it is damaged")]
    Damaged(#[from] io::Error),
    /// Its parts do not fit each other.
    #[error("it is damaged: its parts do not fit each other")]
    Unfit,
}

impl Shipment {
    /// As it is shipped.
    ///
    /// # Errors
    /// When it cannot be compressed.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = HEAD.to_vec();
        let mut encoder = zstd::Encoder::new(&mut bytes, LEVEL)?;
        encoder.include_checksum(true)?;
        serde_json::to_writer(&mut encoder, self)?;
        encoder.finish()?.flush()?;
        Ok(bytes)
    }

    /// Reads what was shipped.
    ///
    /// # Errors
    /// When it is of another version or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ShipmentError> {
        let body = match bytes.strip_prefix(HEAD) {
            Some(body) => body,
            None if bytes.starts_with(b"phoenix shipment ") => return Err(ShipmentError::Version),
            None => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        };
        let mut json = Vec::new();
        zstd::Decoder::with_buffer(body)?.take(LONGEST).read_to_end(&mut json)?;
        let shipment: Self = serde_json::from_slice(&json).map_err(io::Error::from)?;
        if shipment.fits() { Ok(shipment) } else { Err(ShipmentError::Unfit) }
    }

    /// Whether an action waits for what a derivation makes: it runs that, or is to have it in its store, as all that the
    /// unit builds it is of. What pushes waits until all is kept.
    #[must_use]
    pub fn is_for_action(&self, derivation: u32) -> bool {
        let Some(step) = self.plan.steps.get(derivation as usize) else { return false };
        let goals = self.plan.goals.iter().zip(&self.goals);
        let targets: Vec<TargetId> =
            goals.filter(|(goal, _)| goal.step == Some(derivation)).map(|(_, target)| *target).collect();
        let mut open = self.actions.iter().filter(|(_, verdict)| verdict.is_none()).map(|(action, _)| action);
        open.any(|action| {
            let runs = action.paths.iter().any(|path| step.outputs.iter().flatten().any(|out| out == path));
            runs || (action.of.is_some() && action.builds.iter().any(|id| targets.contains(id)))
        })
    }

    /// Whether positions that stand for the same things do.
    fn fits(&self) -> bool {
        let steps = &self.plan.steps;
        let same = steps.len() == self.farm.derivations().len()
            && steps.iter().zip(self.farm.derivations()).all(|(step, derivation)| {
                step.drv_path == derivation.drv_path && step.inputs == derivation.inputs
            });
        let in_steps = |goal: &Option<u32>| goal.is_none_or(|step| (step as usize) < steps.len());
        same && self.needs.len() == steps.len()
            && self.goals.len() == self.plan.goals.len()
            && self.plan.goals.iter().all(|goal| in_steps(&goal.step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_arrives() {
        let shipment = Shipment {
            installables: vec![".".to_owned()],
            options: vec![("substituters".to_owned(), "https://a".to_owned())],
            ..Shipment::default()
        };
        let bytes = shipment.to_bytes().unwrap();
        assert_eq!(Shipment::from_bytes(&bytes).unwrap(), shipment);
    }

    #[test]
    fn what_is_no_shipment_is_told_from_one_of_another_version() {
        let bytes = Shipment::default().to_bytes().unwrap();
        let other = [b"phoenix shipment 2\n".as_slice(), &bytes[HEAD.len()..]].concat();
        assert!(matches!(Shipment::from_bytes(&other), Err(ShipmentError::Version)));
        assert!(matches!(Shipment::from_bytes(b"what"), Err(ShipmentError::Damaged(_))));
        for cut in [HEAD.len(), bytes.len() / 2, bytes.len() - 1] {
            assert!(Shipment::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in HEAD.len()..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(
                !matches!(Shipment::from_bytes(&flipped), Ok(read) if read != Shipment::default()),
                "byte {at} is flipped"
            );
        }
        let unfit = Shipment { needs: vec![vec![]], ..Shipment::default() }.to_bytes().unwrap();
        assert!(matches!(Shipment::from_bytes(&unfit), Err(ShipmentError::Unfit)));
    }
}
