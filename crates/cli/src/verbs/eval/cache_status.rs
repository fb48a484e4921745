//! What there is of derivations already, for `--check-cache-status`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::AtomicBool;

use phoenix_model::{Derivation, Source, StorePath, Target};
use phoenix_schedule::{Estimates, Plan};
use serde::Serialize;

use crate::error::CommandError;
use crate::setup::Setup;
use crate::status::{self, Known, Searching};

/// What is printed of a derivation.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CacheStatus {
    /// nix-eval-jobs calls it deprecated.
    is_cached: bool,
    cache_status: &'static str,
    needed_builds: Vec<StorePath>,
    needed_substitutes: Vec<StorePath>,
}

/// Finds out what there is, of some derivations at a time; what it knows it asks nobody again.
pub(super) struct CacheStatuses<'s> {
    setup: &'s Setup,
    known: Known,
    read: HashMap<StorePath, Option<Derivation>>,
}

impl<'s> CacheStatuses<'s> {
    pub(super) fn new(setup: &'s Setup) -> Self {
        Self { setup, known: Known::default(), read: HashMap::new() }
    }

    /// The status of each target, in their order.
    ///
    /// # Errors
    /// When the store or substituters cannot be asked at all.
    pub(super) fn of(
        &mut self,
        targets: &[Target],
        stop: &AtomicBool,
        hear: &mut dyn FnMut(Searching<'_>),
    ) -> Result<Vec<CacheStatus>, CommandError> {
        let estimates = Estimates::default();
        let found = status::search_again(self.setup, targets, &estimates, &mut self.known, stop, hear)?;
        let plan = found.plan;
        let remote: BTreeMap<&StorePath, &Source> =
            plan.fetched.iter().map(|(path, source)| (path, source)).collect();
        let mut needed = Vec::new();
        for (target, goal) in targets.iter().zip(&plan.goals) {
            let (is, builds, fetched) = match goal.step {
                Some(step) => {
                    let steps = below(&plan, step);
                    let mut fetched = BTreeSet::new();
                    for &step in steps.iter().chain([&step]) {
                        self.fetched_for(&plan.steps[step as usize].drv_path, &remote, &mut fetched);
                    }
                    let builds =
                        steps.iter().map(|&step| plan.steps[step as usize].drv_path.clone()).collect();
                    ("notBuilt", builds, fetched)
                }
                None => match plan.found.get(&goal.drv_path) {
                    Some(Source::Substituter(_)) => {
                        let outputs = target.outputs.values().flatten().cloned().collect();
                        ("cached", Vec::new(), outputs)
                    }
                    _ => ("local", Vec::new(), BTreeSet::new()),
                },
            };
            needed.push((is, builds, fetched));
        }
        let all: HashSet<StorePath> =
            needed.iter().flat_map(|(_, _, fetched)| fetched.iter().cloned()).collect();
        self.known.follow(self.setup, all, stop, hear)?;
        let finished = needed.into_iter().map(|(is, needed_builds, fetched)| CacheStatus {
            is_cached: is != "notBuilt",
            cache_status: is,
            needed_builds,
            needed_substitutes: self.by_name(&fetched),
        });
        Ok(finished.collect())
    }

    /// What a derivation needs that a substituter has.
    fn fetched_for(
        &mut self,
        drv_path: &StorePath,
        remote: &BTreeMap<&StorePath, &Source>,
        fetched: &mut BTreeSet<StorePath>,
    ) {
        if remote.is_empty() {
            return;
        }
        let inputs: Vec<(StorePath, Vec<String>)> = match self.read(drv_path) {
            Some(derivation) => derivation
                .input_drvs
                .iter()
                .map(|input| (input.path.to_store_path(), input.outputs().map(str::to_owned).collect()))
                .collect(),
            None => Vec::new(),
        };
        for (input, names) in inputs {
            if let Some(derivation) = self.read(&input) {
                let wanted =
                    derivation.outputs.iter().filter(|output| names.iter().any(|name| *name == *output.name));
                let paths = wanted.filter_map(|output| output.path.as_ref());
                fetched.extend(paths.filter(|path| remote.contains_key(path)).cloned());
            }
        }
    }

    fn read(&mut self, drv_path: &StorePath) -> Option<&Derivation> {
        let layout = &self.setup.eval_layout;
        let read = |path: &StorePath| {
            phoenix_store::read_derivations(layout, std::slice::from_ref(path)).into_iter().next()?.ok()
        };
        self.read.entry(drv_path.clone()).or_insert_with_key(read).as_ref()
    }

    /// Paths from substituters with all that they refer to, by their names.
    fn by_name(&self, paths: &BTreeSet<StorePath>) -> Vec<StorePath> {
        let mut sorted: Vec<StorePath> = self.known.closure(paths).into_iter().collect();
        sorted.sort_by(|a, b| a.human_name().cmp(b.human_name()).then_with(|| a.cmp(b)));
        sorted
    }
}

/// The steps that one needs, inputs first.
fn below(plan: &Plan, step: u32) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    let mut next = plan.steps[step as usize].inputs.clone();
    while let Some(input) = next.pop() {
        if seen.insert(input) {
            next.extend(&plan.steps[input as usize].inputs);
        }
    }
    seen.into_iter().collect()
}
