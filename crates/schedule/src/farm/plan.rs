//! What all workers of a run share.

use phoenix_model::StorePath;
use serde::{Deserialize, Serialize};

use crate::hindered::hindered;
use crate::labels::RunnerKinds;
use crate::order::order;
use crate::units::{Class, Grain, Unit, Units};
use crate::{Estimates, Hopeless, Plan};

/// A plan for several workers: what is to be built, in which units, in which order, and who there is.
///
/// It holds together: positions exist, and inputs come before what needs them, also in one that was read from
/// a file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Shipped", into = "Shipped")]
pub struct FarmPlan {
    derivations: Vec<FarmDerivation>,
    units: Vec<Unit>,
    classes: Vec<Class>,
    slots: Vec<SlotPlan>,
    /// The place of each unit in the order of claiming, and the unit of each place.
    place: Vec<u32>,
    at_place: Vec<u32>,
    /// How many derivations each unit has: read with every outcome, and next to each other.
    sizes: Vec<u32>,
    unit_of: Vec<u32>,
    users: Lists,
    dependents: Lists,
}

/// A derivation that has to be built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FarmDerivation {
    /// Its path.
    pub drv_path: StorePath,
    /// The positions of what has to be built before it, each less than its own.
    pub inputs: Vec<u32>,
    /// How long it is expected to take, in seconds.
    pub seconds: f64,
    /// Why it is not tried, when it is known beforehand that it would be in vain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hopeless: Option<Hopeless>,
}

/// How many times as coarse as it might be a plan is at most.
const COARSEST: f64 = 1_048_576.0;

/// A place for a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotPlan {
    /// The system it is called after.
    pub system: String,
    /// The labels of its runner.
    pub runs_on: Vec<String>,
    /// For each class whether it can build it.
    pub takes: Vec<bool>,
}

/// Why a plan that was read does not hold together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plan is damaged: {0}")]
pub struct PlanError(String);

/// A plan as it is kept and shipped.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename = "FarmPlan")]
struct Shipped {
    derivations: Vec<FarmDerivation>,
    units: Vec<Unit>,
    classes: Vec<Class>,
    slots: Vec<SlotPlan>,
}

impl FarmPlan {
    /// The plan for building the steps of a plan on runners of these kinds; it has no slots yet. What no kind
    /// of runner can build becomes hopeless, with the words that name what is missing.
    #[must_use]
    pub fn new(plan: &mut Plan, kinds: &RunnerKinds, grain: &Grain) -> Self {
        for step in &mut plan.steps {
            if step.hopeless.is_none() && !step.system.is_empty() {
                step.hopeless =
                    kinds.for_class(&step.system, &step.required_features).err().map(Hopeless::other);
            }
        }
        let Units { units, classes } = Units::of(plan, grain);
        let derivations = plan.steps.iter().zip(plan.seconds()).map(|(step, seconds)| FarmDerivation {
            drv_path: step.drv_path.clone(),
            inputs: step.inputs.clone(),
            seconds,
            hopeless: step.hopeless.clone(),
        });
        Self::indexed(Shipped { derivations: derivations.collect(), units, classes, slots: Vec::new() })
    }

    /// The plan in units as fine as this grain says, or as coarse as they have to be for a plan that fits. One that no
    /// grain makes fit is as coarse as it can be. `plan` is the one that a plan of workers was made from.
    #[must_use]
    pub fn fitting(
        plan: &mut Plan,
        kinds: &RunnerKinds,
        grain: &Grain,
        mut fits: impl FnMut(&Self) -> bool,
    ) -> Self {
        let mut coarse = Self::new(plan, kinds, grain);
        let mut factor = 1.0;
        while !fits(&coarse) && factor < COARSEST {
            factor *= 2.0;
            coarse = Self::new(plan, kinds, &grain.times(factor));
        }
        coarse
    }

    /// The same plan with so many workers on each kind of runner.
    #[must_use]
    pub fn with_slots(&self, kinds: &RunnerKinds, counts: &[usize]) -> Self {
        let slots = kinds.kinds().iter().enumerate().zip(counts).flat_map(|((position, kind), &count)| {
            let able = |class: &Class| {
                kinds.for_class(&class.system, &class.features).is_ok_and(|able| able.contains(&position))
            };
            let slot = SlotPlan {
                system: kind.systems.first().cloned().unwrap_or_default(),
                runs_on: kind.runs_on.clone(),
                takes: self.classes.iter().map(able).collect(),
            };
            std::iter::repeat_n(slot, count)
        });
        Self { slots: slots.collect(), ..self.clone() }
    }

    /// How many seconds of work there are for each kind of runner, when each class goes to the kind that is
    /// preferred for it. What is hopeless is left out, and what needs it.
    #[must_use]
    pub fn seconds_by_kind(&self, kinds: &RunnerKinds) -> Vec<f64> {
        let preferred: Vec<Option<usize>> = self
            .classes
            .iter()
            .map(|class| kinds.for_class(&class.system, &class.features).ok()?.first().copied())
            .collect();
        let mut seconds = vec![0.0; kinds.kinds().len()];
        for unit in self.to_claim() {
            if let Some(kind) = preferred[unit.class as usize] {
                // What takes no time still needs somebody.
                seconds[kind] += unit.seconds.max(f64::MIN_POSITIVE);
            }
        }
        seconds
    }

    /// Of the units that these derivations are in, and all that those need, how many there is something to build of: what
    /// somebody has to claim who is alone with them.
    #[must_use]
    pub fn count_needed(&self, derivations: impl IntoIterator<Item = u32>) -> usize {
        let in_vain = self.in_vain();
        let is_open = |unit: &Unit| !unit.members.iter().all(|&member| in_vain[member as usize]);
        let needed = self.needed(derivations.into_iter().map(|derivation| self.unit_of(derivation)));
        needed.iter().zip(&self.units).filter(|(needed, unit)| **needed && is_open(unit)).count()
    }

    /// Of each unit whether it is among these, or one of these needs it.
    pub(super) fn needed(&self, units: impl IntoIterator<Item = u32>) -> Vec<bool> {
        let mut needed = vec![false; self.units.len()];
        for unit in units {
            needed[unit as usize] = true;
        }
        // What is needed comes before what needs it.
        for unit in (0..needed.len()).rev() {
            if needed[unit] {
                for &input in &self.units[unit].inputs {
                    needed[input as usize] = true;
                }
            }
        }
        needed
    }

    /// The units of which there is something to build.
    fn to_claim(&self) -> impl Iterator<Item = &Unit> {
        let in_vain = self.in_vain();
        self.units.iter().filter(move |unit| !unit.members.iter().all(|&member| in_vain[member as usize]))
    }

    /// How many units there are of which there is something to build: more workers would be too many.
    #[must_use]
    pub fn count_to_claim(&self) -> usize {
        self.to_claim().count()
    }

    /// Of each derivation whether nobody tries to build it: it is hopeless, or needs one that is.
    #[must_use]
    pub fn in_vain(&self) -> Vec<bool> {
        hindered(
            &self.derivations,
            |derivation| &derivation.inputs,
            |_, derivation| derivation.hopeless.is_some(),
        )
    }

    /// Everything that has to be built, inputs before what needs them.
    #[must_use]
    pub fn derivations(&self) -> &[FarmDerivation] {
        &self.derivations
    }

    /// The units, inputs before what needs them.
    #[must_use]
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// What builders have to offer.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The places for workers.
    #[must_use]
    pub fn slots(&self) -> &[SlotPlan] {
        &self.slots
    }

    /// The place of a unit in the order of claiming, counted from 0.
    #[must_use]
    pub fn place(&self, unit: u32) -> u32 {
        self.place[unit as usize]
    }

    /// The unit at a place in the order of claiming.
    #[must_use]
    pub fn at_place(&self, place: u32) -> u32 {
        self.at_place[place as usize]
    }

    /// How many derivations a unit has.
    pub(super) fn size(&self, unit: u32) -> usize {
        self.sizes[unit as usize] as usize
    }

    /// The unit that a derivation is in.
    #[must_use]
    pub fn unit_of(&self, derivation: u32) -> u32 {
        self.unit_of[derivation as usize]
    }

    /// The units that need something of a unit.
    #[must_use]
    pub fn users(&self, unit: u32) -> &[u32] {
        self.users.of(unit)
    }

    /// The derivations that need a derivation.
    #[must_use]
    pub fn dependents(&self, derivation: u32) -> &[u32] {
        self.dependents.of(derivation)
    }

    /// The expected seconds of the longest chain of derivations: no number of runners is faster.
    #[must_use]
    pub fn critical_seconds(&self) -> f64 {
        let seconds: Vec<f64> = self.derivations.iter().map(|derivation| derivation.seconds).collect();
        crate::remaining_seconds(&seconds, |derivation| &self.derivations[derivation].inputs)
    }

    /// The expected seconds of all derivations one after another.
    #[must_use]
    pub fn total_seconds(&self) -> f64 {
        self.derivations.iter().map(|derivation| derivation.seconds).sum()
    }

    /// Learns from what a unit's derivations took.
    pub fn learn(&self, outcome: &super::Outcome, estimates: &mut Estimates) {
        for built in &outcome.built {
            if let Some(derivation) = self.derivations.get(built.derivation as usize) {
                if !built.cached {
                    estimates.learn(&derivation.drv_path, built.seconds);
                }
                if let Some(bytes) = built.bytes {
                    estimates.learn_bytes(&derivation.drv_path, bytes);
                }
            }
        }
    }

    fn indexed(shipped: Shipped) -> Self {
        let Shipped { derivations, units, classes, slots } = shipped;
        let name = |unit: &Unit| {
            unit.members.first().map_or("", |&member| derivations[member as usize].drv_path.human_name())
        };
        let at_place = order(&units, name);
        let mut place = vec![0; units.len()];
        for (number, &unit) in (0..).zip(&at_place) {
            place[unit as usize] = number;
        }
        let mut unit_of = vec![0; derivations.len()];
        for (number, unit) in (0..).zip(&units) {
            for &member in &unit.members {
                unit_of[member as usize] = number;
            }
        }
        let sizes = units.iter().map(|unit| u32::try_from(unit.members.len()).unwrap_or(u32::MAX)).collect();
        let users = Lists::turned(units.len(), |unit| &units[unit].inputs);
        let dependents = Lists::turned(derivations.len(), |derivation| &derivations[derivation].inputs);
        Self { derivations, units, classes, slots, place, at_place, sizes, unit_of, users, dependents }
    }
}

impl TryFrom<Shipped> for FarmPlan {
    type Error = PlanError;

    fn try_from(shipped: Shipped) -> Result<Self, PlanError> {
        let wrong =
            |what: &str, number: usize| Err(PlanError(format!("{what} {number} does not fit the rest")));
        let before = |inputs: &[u32], own: usize| inputs.iter().all(|&input| (input as usize) < own);
        for (number, derivation) in shipped.derivations.iter().enumerate() {
            let seconds = derivation.seconds.is_finite() && derivation.seconds >= 0.0;
            if !before(&derivation.inputs, number) || !seconds {
                return wrong("derivation", number);
            }
        }
        let mut unit_of = vec![None; shipped.derivations.len()];
        for (number, unit) in shipped.units.iter().enumerate() {
            let sound = before(&unit.inputs, number)
                && (unit.class as usize) < shipped.classes.len()
                && unit.seconds.is_finite()
                && !unit.members.is_empty()
                && unit.members.is_sorted();
            if !sound {
                return wrong("unit", number);
            }
            for &member in &unit.members {
                match unit_of.get_mut(member as usize) {
                    Some(unit @ None) => *unit = Some(number),
                    _ => return wrong("unit", number),
                }
            }
        }
        for (number, derivation) in shipped.derivations.iter().enumerate() {
            let Some(unit) = unit_of[number] else { return wrong("derivation", number) };
            let waits = |&input: &u32| match unit_of[input as usize] {
                Some(other) => {
                    other == unit || shipped.units[unit].inputs.iter().any(|&known| known as usize == other)
                }
                None => false,
            };
            if !derivation.inputs.iter().all(waits) {
                return wrong("derivation", number);
            }
        }
        if let Some(number) = shipped.slots.iter().position(|slot| slot.takes.len() != shipped.classes.len())
        {
            return wrong("slot", number);
        }
        Ok(Self::indexed(shipped))
    }
}

impl From<FarmPlan> for Shipped {
    fn from(plan: FarmPlan) -> Self {
        Self { derivations: plan.derivations, units: plan.units, classes: plan.classes, slots: plan.slots }
    }
}

/// Lists of numbers, one after another in memory.
#[derive(Debug, Clone, PartialEq, Default)]
struct Lists {
    ends: Vec<u32>,
    numbers: Vec<u32>,
}

impl Lists {
    /// For each of `len` numbers those that have it among their inputs.
    fn turned<'a>(len: usize, inputs: impl Fn(usize) -> &'a [u32]) -> Self {
        let mut ends = vec![0_u32; len];
        for own in 0..len {
            for &input in inputs(own) {
                ends[input as usize] += 1;
            }
        }
        let mut sum = 0;
        for end in &mut ends {
            // Where each begins; the filling moves it to where it ends.
            (sum, *end) = (sum + *end, sum);
        }
        let mut numbers = vec![0; sum as usize];
        for own in 0..len {
            for &input in inputs(own) {
                let end = &mut ends[input as usize];
                numbers[*end as usize] = u32::try_from(own).unwrap_or(u32::MAX);
                *end += 1;
            }
        }
        Self { ends, numbers }
    }

    fn of(&self, number: u32) -> &[u32] {
        let number = number as usize;
        let begin = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.numbers[begin as usize..self.ends[number] as usize]
    }
}
