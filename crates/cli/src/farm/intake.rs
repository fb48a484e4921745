//! What a worker brings into its store.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use phoenix_depot::Depot;
use phoenix_model::{Severity, StorePath};
use phoenix_schedule::farm::UnitId;
use phoenix_store::{Layout, Nix};
use phoenix_work::{Parcels, Shipment};

use crate::error::CommandError;
use crate::kept::Kept;
use crate::recorder::Hear;
use crate::setup::Setup;

/// Fetches from a depot, and from substituters what that refers to.
pub(super) struct Intake {
    shipment: Arc<Shipment>,
    nix: Nix,
    layout: Option<Layout>,
    store: String,
    /// The depot.
    pub(super) kept: Kept,
    seen: HashSet<String>,
    /// Which unit builds a path, by its name.
    unit_of: HashMap<String, UnitId>,
}

impl Intake {
    /// One for the store of a setup.
    pub(super) fn new(shipment: &Arc<Shipment>, setup: &Setup, kept: Kept) -> Self {
        let (nix, layout, store) = (setup.nix.clone(), setup.layout.clone(), setup.store.clone());
        let unit_of = (0..).zip(&shipment.plan.steps).flat_map(|(position, step)| {
            let unit = UnitId(shipment.farm.unit_of(position));
            step.outputs.iter().flatten().map(move |path| (path.base_name().to_owned(), unit))
        });
        let unit_of = unit_of.collect();
        Self { shipment: Arc::clone(shipment), nix, layout, store, kept, seen: HashSet::new(), unit_of }
    }

    /// Brings paths of the depot into a store, with what only substituters have of what they refer to; how many
    /// came from the depot.
    pub(super) fn restore(
        &mut self,
        paths: &[StorePath],
        layout: &Layout,
        store: &str,
        hearer: &mut dyn Hear,
    ) -> Result<usize, CommandError> {
        let wanted: Vec<StorePath> = paths.iter().filter(|path| self.kept.has(path)).cloned().collect();
        if wanted.is_empty() {
            return Ok(0);
        }
        let cannot = |error| CommandError::because("nothing can be had from the depot", &error);
        let restored = self.kept.restore(&wanted, layout, store, &self.nix, hearer).map_err(cannot)?;
        if let Some((name, why)) = restored.failed.first() {
            let text =
                format!("{} paths do not come from the depot, such as {name}: {why}", restored.failed.len());
            hearer.hear(Severity::Warning, text);
        }
        Ok(restored.paths.len())
    }

    /// Brings what derivations of a unit need of what other workers built, with all that it refers to; how many paths
    /// came.
    pub(super) fn fetch(
        &mut self,
        unit: UnitId,
        derivations: &[u32],
        parcels: &Parcels,
        hearer: &mut dyn Hear,
    ) -> Result<usize, CommandError> {
        let Some(layout) = self.layout.clone() else { return Ok(0) };
        let shipment = Arc::clone(&self.shipment);
        let inputs = shipment.farm.units().get(unit.0 as usize).map_or(&[][..], |unit| &unit.inputs);
        let near = inputs.iter().copied().map(UnitId).chain([unit]);
        self.see_all(near.flat_map(|unit| parcels.of(unit)), hearer);
        let (wanted, store) = (self.wanted(derivations), self.store.clone());
        // What they refer to may have been built by others again, and parts of it may be in packs of anybody.
        loop {
            let (missing, in_parts) = self.kept.lacking(&wanted);
            let far: BTreeSet<UnitId> = if in_parts {
                parcels.units().collect()
            } else {
                missing.iter().filter_map(|name| self.unit_of.get(name).copied()).collect()
            };
            if !self.see_all(far.into_iter().flat_map(|unit| parcels.of(unit)), hearer) {
                break;
            }
        }
        self.restore(&wanted, &layout, &store, hearer)
    }

    /// Takes in those packs that were not taken in before; whether there were any.
    fn see_all<'p>(&mut self, parcels: impl Iterator<Item = &'p String>, hearer: &mut dyn Hear) -> bool {
        let new: BTreeSet<&String> = parcels.filter(|parcel| !self.seen.contains(*parcel)).collect();
        for parcel in &new {
            let lost = match self.see(parcel) {
                Ok(true) => continue,
                Ok(false) => format!("the pack {parcel} is not there any more"),
                Err(error) => error.in_one_line(),
            };
            hearer.hear(Severity::Warning, format!("{lost}; what was in it is built again"));
        }
        !new.is_empty()
    }

    /// Takes in a pack, once; whether it is there.
    pub(super) fn see(&mut self, pack: &str) -> Result<bool, CommandError> {
        self.seen.insert(pack.to_owned());
        self.kept.see(pack)
    }

    /// What derivations need, and what they make.
    pub(super) fn wanted(&self, derivations: &[u32]) -> Vec<StorePath> {
        let steps = &self.shipment.plan.steps;
        let mut wanted: BTreeSet<&StorePath> = BTreeSet::new();
        for &derivation in derivations {
            let Some(step) = steps.get(derivation as usize) else { continue };
            wanted.extend(&self.shipment.needs[derivation as usize]);
            let inputs = step.inputs.iter().filter(|input| !derivations.contains(input));
            wanted.extend(inputs.flat_map(|&input| steps[input as usize].outputs.iter().flatten()));
            // Somebody may have built a part of it before it was given back.
            wanted.extend(step.outputs.iter().flatten());
        }
        wanted.into_iter().cloned().collect()
    }
}

/// Fetches for what is built later. The depot is read when there is something to fetch for the first time.
pub(super) struct Ahead {
    shipment: Arc<Shipment>,
    setup: Setup,
    depot: Arc<dyn Depot>,
    intake: Option<Intake>,
    /// What is to be said when it can be.
    said: Vec<(Severity, String)>,
}

impl Ahead {
    /// One for the store of a setup.
    pub(super) fn new(shipment: &Arc<Shipment>, setup: &Setup, depot: &Arc<dyn Depot>) -> Self {
        let (setup, depot) = (setup.clone(), Arc::clone(depot));
        Self { shipment: Arc::clone(shipment), setup, depot, intake: None, said: Vec::new() }
    }

    /// What there was to say since it was asked.
    pub(super) fn take_said(&mut self) -> Vec<(Severity, String)> {
        std::mem::take(&mut self.said)
    }

    /// Brings what derivations need. What goes wrong is no matter yet: they are fetched for again.
    pub(super) fn fetch(&mut self, unit: UnitId, derivations: &[u32], parcels: &Parcels) {
        if let Err(error) = self.try_to_fetch(unit, derivations, parcels) {
            self.said.push((Severity::Detail, format!("nothing was fetched ahead: {}", error.in_one_line())));
        }
    }

    fn try_to_fetch(
        &mut self,
        unit: UnitId,
        derivations: &[u32],
        parcels: &Parcels,
    ) -> Result<(), CommandError> {
        let intake = match &mut self.intake {
            Some(intake) => intake,
            None => {
                let kept = Kept::open(Arc::clone(&self.depot), u64::MAX, &mut self.said)?;
                self.intake.insert(Intake::new(&self.shipment, &self.setup, kept))
            }
        };
        let count = intake.fetch(unit, derivations, parcels, &mut self.said)?;
        if count > 0 {
            self.said.push((Severity::Detail, format!("{count} paths were fetched ahead")));
        }
        Ok(())
    }
}
