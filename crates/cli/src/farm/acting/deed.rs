//! An action of a plan, run by the worker that claimed it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use phoenix_depot::{BlobName, Depot};
use phoenix_model::{Action, ActionVerdict, Event, Severity, StorePath};
use phoenix_schedule::Run;
use phoenix_schedule::farm::Acted;
use phoenix_store::Validity;

use super::Stage;
use crate::acting::{Teller, beside, built, run_action};
use crate::blobs::{self, runtime};
use crate::error::CommandError;
use crate::kept::Kept;
use crate::recorder::Hear;
use crate::setup::Setup;

/// How long an action waits for others to keep what they built: at their end, or after ten minutes at most.
const KEPT_SOON: Duration = Duration::from_secs(15 * 60);

/// How often it looks whether they did.
const AGAIN: Duration = Duration::from_secs(2);

/// Where it is kept that an action of a plan is done, so that it is not when the plan is worked on again.
const DONE: &str = "acted/";

/// The depot, as it was when it was last looked at, for all actions of a worker.
#[derive(Clone, Default)]
pub(super) struct Shelf(Arc<Mutex<Option<Kept>>>);

impl Shelf {
    /// Looks into the depot as it is now.
    fn look<T>(
        &self,
        depot: &Arc<dyn Depot>,
        hearer: &mut dyn Hear,
        look: impl FnOnce(&mut Kept, &mut dyn Hear) -> T,
    ) -> Result<T, CommandError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match &mut *kept {
            Some(kept) => {
                kept.look_again(hearer)?;
                kept
            }
            none => none.insert(Kept::open(Arc::clone(depot), u64::MAX, hearer)?),
        };
        Ok(look(kept, hearer))
    }

    /// Brings paths into the store, as far as they are there.
    pub(super) fn bring(
        &self,
        paths: &[StorePath],
        depot: &Arc<dyn Depot>,
        setup: &Setup,
        hearer: &mut dyn Hear,
    ) -> Result<(), CommandError> {
        self.look(depot, hearer, |kept, hearer| bring(kept, paths, setup, hearer))
    }
}

fn bring(kept: &mut Kept, paths: &[StorePath], setup: &Setup, hearer: &mut dyn Hear) {
    let there: Vec<StorePath> = paths.iter().filter(|path| kept.has(path)).cloned().collect();
    kept.fetch(&there, setup, hearer);
}

/// An action that a worker has claimed, with all it takes.
pub(super) struct Deed {
    action: Action,
    /// Where it is kept that it is done.
    done: BlobName,
    setup: Setup,
    depot: Arc<dyn Depot>,
    kept: Shelf,
    /// What the run has to give away.
    built: Vec<StorePath>,
    /// What has to be in the store besides what it runs.
    beside: Vec<StorePath>,
    /// What the workers of this run built, who may not have kept it yet.
    by_workers: HashSet<StorePath>,
}

impl Deed {
    pub(super) fn of(
        stage: &Stage<'_>,
        action: Action,
        run: &Run,
        kept: Shelf,
    ) -> Result<Self, CommandError> {
        let done = BlobName::new(format!("{DONE}{}/{}", stage.reference, action.id.0))
            .map_err(|error| CommandError::because("cannot remember what is done", &error))?;
        let targets = || stage.shipment.targets.iter().map(|(target, _)| (target, run.verdict(target.id)));
        Ok(Self {
            done,
            setup: stage.setup.clone(),
            depot: Arc::clone(stage.depot),
            kept,
            built: built(run, targets()),
            beside: beside(&action, targets()),
            by_workers: run.built_outputs().cloned().collect(),
            action,
        })
    }

    /// Runs it, unless it is known to be done.
    pub(super) fn once(self, teller: &mut Teller) -> Result<Acted, CommandError> {
        let acted = |verdict, seconds| Acted { verdict, seconds, log: Vec::new(), ended: None };
        match runtime()?.block_on(self.depot.find(&self.done)) {
            Ok(Some(_)) => {
                teller.hear(Severity::Notice, format!("{} was done before", self.action.name));
                return Ok(acted(ActionVerdict::Done, None));
            }
            Ok(None) => {}
            // To run it again might do harm.
            Err(error) => {
                let message = format!("whether it was done before is unknown: {error}");
                return Ok(acted(ActionVerdict::Failed { message }, None));
            }
        }
        let action = self.action.id;
        teller.event(Event::ActionFound { action: self.action.clone() });
        teller.event(Event::ActionStarted { action });
        let begun = Instant::now();
        self.wait_and_bring(begun, teller)?;
        // What was stopped is not begun.
        let verdict = if teller.is_stopped() {
            ActionVerdict::Cancelled
        } else {
            run_action(&self.action, &self.beside, &self.setup, &self.built, teller)
        };
        let seconds = Some(begun.elapsed().as_secs_f64());
        teller.event(Event::ActionSettled { action, verdict: verdict.clone(), seconds, log: None });
        if verdict == ActionVerdict::Done
            && let Err(error) =
                runtime()?.block_on(blobs::create(self.depot.as_ref(), &self.done, b"done".to_vec()))
        {
            let text = format!("{} is done, and it cannot be kept that it is: {error}", self.action.name);
            teller.hear(Severity::Warning, text);
        }
        Ok(acted(verdict, seconds))
    }

    /// Brings what it needs into the store, once those who built it have kept it.
    fn wait_and_bring(&self, begun: Instant, teller: &mut Teller) -> Result<(), CommandError> {
        let own: Vec<StorePath> = self.action.paths.iter().chain(&self.beside).cloned().collect();
        let paths = if self.action.paths.is_empty() { &self.built } else { &own };
        loop {
            let here = Validity::open(&self.setup.nix, self.setup.layout.as_ref())
                .valid(paths)
                .map_err(|error| CommandError::because("cannot look into the store", &error))?;
            let is_missing = |path: &&StorePath| self.by_workers.contains(*path) && !here.contains(*path);
            let missing: Vec<&StorePath> = paths.iter().filter(is_missing).collect();
            let no_longer = begun.elapsed() > KEPT_SOON || teller.is_stopped();
            let is_done = self.kept.look(&self.depot, teller, |kept, hearer| {
                let is_time = no_longer || missing.into_iter().all(|path| kept.has(path));
                if is_time {
                    bring(kept, paths, &self.setup, hearer);
                }
                is_time
            })?;
            if is_done {
                return Ok(());
            }
            std::thread::sleep(AGAIN);
        }
    }
}
