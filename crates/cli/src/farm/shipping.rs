//! Ships a plan through a depot: the plan as a blob, the derivations and what only this machine has as a pack.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use phoenix_depot::{BlobName, Created, Depot};
use phoenix_model::{Action, ActionVerdict, Severity, StorePath, redact};
use phoenix_store::{Layout, PathInfos, Validity, read_derivations};
use phoenix_work::{Hit, Shipment, ShipmentError};

use super::logs::LOGS;
use crate::blobs::{self, runtime};
use crate::depots;
use crate::error::CommandError;
use crate::ledgers::PlanMark;
use crate::pipeline::{Farm, Planned};
use crate::talk;

/// Where plans lie in a depot.
const PLANS: &str = "plans/";

/// How many seconds a plan is kept: no run takes longer.
const KEPT_SECONDS: u64 = 3 * 24 * 3600;

/// Nix settings that go along with a plan. Others are each machine's own business, and may hold secrets.
const SHIPPED_OPTIONS: &[&str] =
    &["substituters", "extra-substituters", "trusted-public-keys", "extra-trusted-public-keys"];

/// The name of a plan as a blob.
fn blob_name(reference: &str) -> Result<BlobName, CommandError> {
    BlobName::new(format!("{PLANS}{reference}")).map_err(|error| {
        CommandError::because(format!("`{reference}` is no name for a plan"), &error)
            .hint("letters, digits, `-`, `_` and `.` will do")
    })
}

/// What workers do besides building.
#[derive(Debug, Default)]
pub(crate) struct Besides {
    /// What they run.
    pub(crate) actions: Vec<(Action, Option<ActionVerdict>)>,
    /// What each of them answers for, where each answers for something of its own.
    pub(crate) hits: Vec<Hit>,
}

/// Ships a plan under a name, or one that no other has; returns the name, and what tells the plan from others.
pub(crate) fn ship(
    planned: &mut Planned,
    farm: Farm,
    besides: Besides,
    reference: Option<&str>,
) -> Result<(String, PlanMark), CommandError> {
    let reference = reference.map_or_else(
        || depots::new_name().to_string().rsplit('/').next().unwrap_or_default().to_owned(),
        str::to_owned,
    );
    let name = blob_name(&reference)?;
    let (needs, roots) = save_roots(planned, &farm)?;
    let summary = planned.recorder.summary();
    let targets = summary.targets.values().map(|state| {
        let mut target = state.target.clone();
        target.source = redact(&target.source).into_owned();
        // What the plan finds cached is found out again from the plan.
        let planned_verdict = farm.goals.contains(&target.id);
        (target, state.verdict.clone().filter(|_| !planned_verdict))
    });
    let options =
        planned.evaluated.options.iter().filter(|(name, _)| SHIPPED_OPTIONS.contains(&name.as_str()));
    let shipment = Shipment {
        phoenix: env!("CARGO_PKG_VERSION").to_owned(),
        nix: planned.setup.nix.version().to_owned(),
        store_dir: planned.setup.eval_layout.store_dir.clone(),
        installables: summary.installables.iter().map(|text| redact(text).into_owned()).collect(),
        systems: summary.systems.clone(),
        targets: targets.collect(),
        goals: farm.goals,
        actions: besides.actions,
        hits: besides.hits,
        saved_seconds: farm.saved_seconds,
        plan: farm.plan,
        farm: farm.farm,
        needs,
        roots,
        options: options.cloned().collect(),
        fail_fast: planned.fail_fast,
        nonce: depots::new_name().to_string(),
    };
    let bytes =
        shipment.to_bytes().map_err(|error| CommandError::because("cannot write the plan", &error))?;
    let mark = PlanMark::of(&reference, &bytes);
    let depot = depot_of(planned)?;
    let created = runtime()?.block_on(async {
        forget_old(&depot).await;
        blobs::create(depot.as_ref(), &name, bytes).await
    });
    match created.map_err(|error| CommandError::because("cannot ship the plan", &error))? {
        Created::New(_) => Ok((reference, mark)),
        Created::Taken => Err(CommandError::new(format!("there is a plan of the name {reference} already"))
            .hint(
                "name another (`--plan REF`), or leave `--plan` out: each plan has a name of its own then",
            )),
    }
}

fn depot_of(planned: &Planned) -> Result<Arc<dyn Depot>, CommandError> {
    planned.kept.as_ref().map(|kept| kept.depot().clone()).ok_or_else(|| {
        CommandError::new("a plan is shipped through a depot, and none is named")
            .hint("--depot URL names one")
    })
}

/// Lets go of plans of runs that are over, and of their logs. Whether that succeeds is of no matter.
async fn forget_old(depot: &Arc<dyn Depot>) {
    let now = jiff::Timestamp::now().as_second().unsigned_abs();
    for kind in [PLANS, LOGS] {
        let Ok(all) = depot.list(kind).await else { return };
        let old = all.into_iter().filter(|blob| blob.created.is_some_and(|at| at + KEPT_SECONDS < now));
        blobs::forget(depot, old).await;
    }
}

/// Reads a plan, and what tells it from others.
pub(crate) fn receive(depot: &dyn Depot, reference: &str) -> Result<(Shipment, PlanMark), CommandError> {
    let name = blob_name(reference)?;
    let cannot = |error: &dyn std::error::Error| {
        CommandError::because(format!("cannot read the plan {reference} of {}", depot.location()), error)
    };
    let bytes = runtime()?.block_on(async {
        let blob = depot.find(&name).await.map_err(|error| cannot(&error))?.ok_or_else(|| {
            CommandError::new(format!("there is no plan {reference} in {}", depot.location())).hint(
                "`phoenix plan --runners N --matrix FORMAT --depot URL` ships one and names it; the depot has to be \
                 the same",
            )
        })?;
        blobs::read(depot, &blob).await.map_err(|error| cannot(&error))
    })?;
    let shipment = Shipment::from_bytes(&bytes).map_err(|error| match error {
        ShipmentError::Version => cannot(&error),
        ShipmentError::Damaged(_) | ShipmentError::Unfit => cannot(&error)
            .hint("plan again: `phoenix plan` ships a new one under another name; this one is not mended"),
    })?;
    Ok((shipment, PlanMark::of(reference, &bytes)))
}

/// Saves what workers need before they begin. Returns what each step needs that is no step's output, and what was
/// saved.
fn save_roots(
    planned: &mut Planned,
    farm: &Farm,
) -> Result<(Vec<Vec<StorePath>>, Vec<StorePath>), CommandError> {
    let setup = &planned.setup;
    let drv_paths: Vec<StorePath> = farm.plan.steps.iter().map(|step| step.drv_path.clone()).collect();
    let needs = needs(&setup.eval_layout, &drv_paths);
    let mut roots = drv_paths.clone();
    let mut saves = Vec::new();
    if !drv_paths.is_empty() {
        // Read where they are, not by way of a daemon.
        let infos = PathInfos::open(&setup.eval_layout).map_err(|error| depots::no_look(&error))?;
        saves.push((setup.eval_layout.clone(), depots::closure(&infos, drv_paths)?));
    }
    if let Some(layout) = setup.layout.clone() {
        let here = only_here(planned, &layout, &needs)?;
        if !here.is_empty() {
            let infos = depots::infos(&layout, Some(&planned.setup.store))?;
            let mut paths = depots::closure(&infos, here.clone())?;
            depots::leave_to_upstream(&mut paths, &planned.setup.settings.trusted_public_keys);
            roots.extend(here);
            saves.push((layout, paths));
        }
    }
    let Some(kept) = &mut planned.kept else { return Ok((needs, roots)) };
    // One pack where one store has it all.
    if let [(first, paths), (second, more)] = saves.as_mut_slice()
        && first == second
    {
        let known: HashSet<StorePath> = paths.iter().map(|info| info.path.clone()).collect();
        paths.extend(more.drain(..).filter(|info| !known.contains(&info.path)));
    }
    let (mut count, mut size) = (0, 0);
    for (layout, paths) in saves.iter().filter(|(_, paths)| !paths.is_empty()) {
        let saved = kept.save(layout, paths, &mut planned.recorder)?;
        let lost = saved.left_out.len() + saved.no_room.len();
        if lost > 0 {
            let count = talk::paths_are(lost);
            return Err(CommandError::new(format!("the plan is not shipped: {count} not to be had from the depot"))
                .hint("use a depot that has room for it, or let go of what this one does not need: `phoenix cache gc`"));
        }
        if let Some(pack) = &saved.pack {
            kept.see(pack.as_str())?;
        }
        (count, size) = (count + saved.paths, size + saved.size);
    }
    let text = format!("shipped {count} paths in {}", indicatif::HumanBytes(size));
    planned.recorder.say(Severity::Detail, text);
    Ok((needs, roots))
}

/// For each derivation what it needs that no other of them builds.
fn needs(layout: &Layout, drv_paths: &[StorePath]) -> Vec<Vec<StorePath>> {
    let steps: HashSet<&StorePath> = drv_paths.iter().collect();
    let read = read_derivations(layout, drv_paths);
    let mut wanted: Vec<Vec<(StorePath, Vec<String>)>> = Vec::new();
    for derivation in read {
        let inputs = derivation.map_or_else(
            // What cannot be read is hopeless, and needs nothing.
            |_| Vec::new(),
            |derivation| {
                let inputs = derivation.input_drvs.iter();
                let named = inputs.map(|input| {
                    (input.path.to_store_path(), input.outputs().map(str::to_owned).collect::<Vec<_>>())
                });
                named.filter(|(path, _)| !steps.contains(path)).collect()
            },
        );
        wanted.push(inputs);
    }
    let others: Vec<StorePath> = {
        let mut others: Vec<StorePath> = wanted.iter().flatten().map(|(path, _)| path.clone()).collect();
        others.sort_unstable();
        others.dedup();
        others
    };
    let outputs: HashMap<&StorePath, _> = others.iter().zip(read_derivations(layout, &others)).collect();
    let paths = |(drv_path, names): (StorePath, Vec<String>)| -> Vec<StorePath> {
        let Some(Ok(derivation)) = outputs.get(&drv_path) else { return Vec::new() };
        let named = derivation.outputs.iter().filter(|output| names.iter().any(|name| *name == *output.name));
        named.filter_map(|output| output.path.clone()).collect()
    };
    wanted.into_iter().map(|inputs| inputs.into_iter().flat_map(paths).collect()).collect()
}

/// What of this is in the store of this machine.
fn only_here(
    planned: &Planned,
    layout: &Layout,
    needs: &[Vec<StorePath>],
) -> Result<Vec<StorePath>, CommandError> {
    let mut all: Vec<StorePath> = needs.iter().flatten().cloned().collect();
    all.sort_unstable();
    all.dedup();
    let valid = Validity::open(&planned.setup.nix, Some(layout))
        .valid(&all)
        .map_err(|error| CommandError::because("cannot look into the store", &error))?;
    all.retain(|path| valid.contains(path));
    Ok(all)
}
