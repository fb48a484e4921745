//! What a worker fetches, builds and gives away, with the Nix and the store of this machine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use indicatif::HumanBytes;
use phoenix_model::{FailureClass, Severity, StorePath, Verdict};
use phoenix_schedule::farm::{Built, Ends, Failure, UnitId};
use phoenix_schedule::{Happening, Run};
use phoenix_store::Validity;
use phoenix_work::{Exchange, Parcels, Shipment, Trouble};

use super::intake::{Ahead, Intake};
use super::logs;
use super::room::Room;
use super::unsaved::Unsaved;
use crate::args::WorkArgs;
use crate::building::{Builder, copy_derivations};
use crate::depots;
use crate::error::{CommandError, DISK_FULL_WORDS};
use crate::kept::Kept;
use crate::recorder::Recorder;
use crate::setup::Setup;
use crate::talk;

/// After how long what nobody waits for is kept, too: what a job that is cut off can lose.
const KEEP_AFTER: Duration = Duration::from_secs(600);

/// The worker's hands.
#[derive(Clone)]
pub(crate) struct NixExchange {
    hands: Arc<Mutex<Hands>>,
    /// Fetches while those build, with a reader of its own for the depot.
    ahead: Arc<Mutex<Ahead>>,
    /// Where the store is on this machine.
    room: Option<Arc<Room>>,
}

struct Hands {
    shipment: Arc<Shipment>,
    setup: Setup,
    intake: Intake,
    recorder: Recorder,
    /// What was built and is in no pack yet.
    unsaved: Vec<StorePath>,
    /// Of that and of what is being built there is a list.
    list: Unsaved,
    saved_at: Instant,
    built: usize,
    /// The classes of what failed here by its own fault.
    failed: Vec<FailureClass>,
    /// The plan's name, and how many logs were kept.
    reference: String,
    logs: usize,
    /// What came of the last unit, for when nobody waited for its end.
    last: Ends,
}

/// What a worker has done.
pub(crate) struct Done {
    /// How many derivations it built.
    pub(crate) built: usize,
    /// Nix's exit code for what failed by its own fault.
    pub(crate) failure_code: u8,
    /// Its records.
    pub(crate) recorder: Recorder,
}

impl NixExchange {
    /// Brings what every worker needs into the store.
    pub(crate) fn begin(
        shipment: Arc<Shipment>,
        setup: Setup,
        kept: Kept,
        recorder: Recorder,
        args: &WorkArgs,
    ) -> Result<Self, CommandError> {
        let room = setup.layout.as_ref().map(|layout| Room::new(layout, &setup.store, args.min_free));
        let room = room.transpose()?.map(Arc::new);
        let ahead = Ahead::new(&shipment, &setup, kept.depot());
        let intake = Intake::new(&shipment, &setup, kept);
        let mut hands = Hands {
            shipment,
            setup,
            intake,
            recorder,
            unsaved: Vec::new(),
            list: Unsaved::new(args.unsaved.as_deref()),
            saved_at: Instant::now(),
            built: 0,
            failed: Vec::new(),
            reference: args.reference.clone(),
            logs: 0,
            last: Ends::default(),
        };
        hands.begin()?;
        if hands.setup.layout.is_none() {
            let text = format!(
                "what is built in {} stays there: other workers that need it build it again",
                hands.setup.store
            );
            hands.recorder.say(Severity::Warning, text);
        }
        Ok(Self { hands: Arc::new(Mutex::new(hands)), ahead: Arc::new(Mutex::new(ahead)), room })
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        lock(&self.hands)
    }

    /// The list of what the worker has yet to do.
    pub(crate) fn list(&self) -> Unsaved {
        self.hands().list.clone()
    }

    /// Says something on the worker's screen.
    pub(crate) fn say(&self, severity: Severity, text: String) {
        self.hands().recorder.say(severity, text);
    }

    /// Keeps what is not kept yet.
    pub(crate) fn finish(self) -> Option<Done> {
        self.hands().keep_rest();
        // Whatever was broken off has let go of it by now.
        let hands = Arc::into_inner(self.hands)?.into_inner().unwrap_or_else(PoisonError::into_inner);
        let codes = hands.failed.iter().filter_map(|class| class.exit_code());
        let failure_code = codes.fold(0, |all, code| all | code);
        Some(Done { built: hands.built, failure_code, recorder: hands.recorder })
    }

    /// Works on a thread that may wait. When the answer is not waited for any more, `signals` says so.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Hands, &Receiver<&'static str>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let (abandon, signals) = unbounded();
        let hands = self.hands.clone();
        let _abandoned = Abandoned(abandon);
        let working = tokio::task::spawn_blocking(move || {
            let mut hands = lock(&hands);
            let done = work(&mut hands, &signals);
            if let Err(Trouble { why, .. }) = &done {
                let text = format!("what was begun is given back: {why}");
                hands.recorder.say(Severity::Warning, text);
            }
            done
        });
        working.await.unwrap_or_else(|error| Err(Trouble::new(error.to_string())))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells whoever works that nobody waits any more.
struct Abandoned(Sender<&'static str>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        // After the work there is nobody who hears it.
        let _ = self.0.send("the farm");
    }
}

#[async_trait::async_trait]
impl Exchange for NixExchange {
    async fn fetch(&self, unit: UnitId, derivations: &[u32], parcels: &Arc<Parcels>) -> Result<(), Trouble> {
        let (derivations, parcels) = (derivations.to_vec(), Arc::clone(parcels));
        let ahead = Arc::clone(&self.ahead);
        self.on_thread(move |hands, _| {
            // What is on its way is not fetched a second time.
            for (severity, text) in lock(&ahead).take_said() {
                hands.recorder.say(severity, text);
            }
            hands.fetch(unit, &derivations, &parcels)
        })
        .await
    }

    fn prefetch(&self, unit: UnitId, derivations: &[u32], parcels: &Arc<Parcels>) {
        let (derivations, parcels) = (derivations.to_vec(), Arc::clone(parcels));
        let ahead = Arc::clone(&self.ahead);
        drop(tokio::task::spawn_blocking(move || {
            // One at a time: a guess that comes while another is fetched for may be forgotten.
            if let Ok(mut ahead) = ahead.try_lock() {
                ahead.fetch(unit, &derivations, &parcels);
            }
        }));
    }

    fn is_short_of_room(&self) -> bool {
        self.room.as_ref().is_some_and(|room| room.is_short())
    }

    async fn make_room(&self, open: &[u32]) {
        let (Some(room), open) = (self.room.clone(), open.to_vec()) else { return };
        let made =
            self.on_thread(move |hands, _| hands.make_room(&room, &open).map_err(|error| trouble(&error)));
        if let Err(why) = made.await {
            self.say(Severity::Warning, format!("little room is left, and none could be made: {why}"));
        }
    }

    async fn build(&self, _: UnitId, derivations: &[u32]) -> Result<Ends, Trouble> {
        let derivations = derivations.to_vec();
        self.on_thread(move |hands, signals| {
            hands.last = Ends::default();
            let done = hands.build(&derivations, signals);
            hands.last = match &done {
                Ok(ends) | Err(Trouble { ends, .. }) => ends.clone(),
            };
            done
        })
        .await
    }

    async fn broken_off(&self, _: UnitId) -> Ends {
        let hands = self.hands.clone();
        // They are free once the builders have ended and what they had built is saved.
        let last = tokio::task::spawn_blocking(move || std::mem::take(&mut lock(&hands).last));
        last.await.unwrap_or_default()
    }
}

/// What a worker's Nix says in the log of a builder that it does not find: something of the machine that is not in the
/// root that it builds in.
fn is_not_executed(line: &str) -> bool {
    line.contains("executing '") && line.contains("No such file or directory")
}

/// What that is about.
const NO_BUILDER: &str =
    " (its builder is not there where the worker builds; `sandbox-paths` in nix.conf puts it there)";

fn trouble(error: &CommandError) -> Trouble {
    Trouble::new(error.in_one_line())
}

impl Hands {
    /// Where the derivations are read.
    fn begin(&mut self) -> Result<(), CommandError> {
        let shipment = self.shipment.clone();
        let layout = self.setup.layout.clone();
        let store = self.setup.store.clone();
        let here = self.setup.eval_layout.clone();
        match layout {
            Some(layout) => self.intake.restore(&shipment.roots, &layout, &store, &mut self.recorder),
            // Builders elsewhere get their derivations through the store of this machine.
            None => self.intake.restore(&shipment.roots, &here, "auto", &mut self.recorder),
        }?;
        let steps = shipment.plan.steps.iter().filter(|step| step.hopeless.is_none());
        let drv_paths: Vec<&StorePath> = steps.map(|step| &step.drv_path).collect();
        let valid = Validity::open(&self.setup.eval_nix, Some(&here))
            .valid(drv_paths.iter().copied())
            .map_err(|error| CommandError::because("cannot look into the store", &error))?;
        match drv_paths.iter().find(|path| !valid.contains(**path)) {
            Some(path) => Err(CommandError::new(format!("the derivation {path} did not come with the plan"))
                .hint("is the depot the one that the plan was shipped to, and has nothing been removed from it?")),
            None => Ok(()),
        }
    }

    fn fetch(&mut self, unit: UnitId, derivations: &[u32], parcels: &Parcels) -> Result<(), Trouble> {
        let fetched = self.intake.fetch(unit, derivations, parcels, &mut self.recorder);
        fetched.map(|_| ()).map_err(|error| trouble(&error))
    }

    fn build(&mut self, derivations: &[u32], signals: &Receiver<&'static str>) -> Result<Ends, Trouble> {
        let part = self.shipment.plan.part(derivations);
        let wanted: Vec<(StorePath, Vec<String>)> =
            part.steps.iter().map(|step| (step.drv_path.clone(), Vec::new())).collect();
        if let Some(from) = self.setup.copy_from.clone() {
            copy_derivations(&self.setup, &self.setup.nix, &from, &wanted)
                .map_err(|error| trouble(&error))?;
        }
        self.list(derivations);
        let mut nix = self.setup.nix.clone();
        nix.set_option("fallback", "true");
        let mut run = Run::default();
        self.recorder
            .apply(&mut run, Happening::Planned { plan: part, targets: Vec::new(), saved_seconds: 0.0 });
        Builder::new(&self.setup, nix, false, signals, &mut run, &mut self.recorder)
            .leaving_killed_to_others()
            .build(&wanted, &mut || {})
            .map_err(|error| trouble(&error))?;
        let (mut ends, came_between) = self.ends(derivations, &run);
        let outputs = self.take_built(&ends);
        // Who builds the unit next need not build what is done.
        let is_broken_off = came_between.is_some() || !signals.is_empty();
        if is_broken_off || self.is_awaited(&ends) {
            ends.parcel = self.keep(outputs);
        } else {
            self.unsaved.extend(outputs);
            if self.saved_at.elapsed() > KEEP_AFTER {
                self.keep_rest();
            }
        }
        self.list(&[]);
        self.measure(&mut ends);
        if let Some(why) = came_between {
            return Err(Trouble { why, ends });
        }
        self.failed.extend(ends.failed.iter().map(|failure| failure.class));
        self.keep_logs(&ends);
        Ok(ends)
    }

    /// How derivations ended; and what came between that is not their fault.
    fn ends(&self, derivations: &[u32], run: &Run) -> (Ends, Option<String>) {
        let (mut ends, mut came_between) = (Ends::default(), None);
        for &derivation in derivations {
            let drv_path = &self.shipment.plan.steps[derivation as usize].drv_path;
            let Some((verdict, seconds)) = run.end_of(drv_path) else { continue };
            let state = self.recorder.summary().of_derivation(drv_path);
            let begun = state.and_then(|state| state.started).filter(|_| seconds.is_some());
            let seconds = seconds.unwrap_or_default();
            let ended = begun.map(|begun| begun.after_seconds(seconds));
            match verdict {
                Verdict::Built | Verdict::Cached { .. } => {
                    let cached = *verdict != Verdict::Built;
                    ends.built.push(Built { derivation, seconds, bytes: None, cached, ended });
                }
                Verdict::Failed { class, message } => {
                    let tail = self.recorder.summary().of_derivation(drv_path).map(|state| &state.tail);
                    let log: Vec<String> = tail.into_iter().flatten().cloned().collect();
                    let full = |text: &String| DISK_FULL_WORDS.iter().any(|words| text.contains(words));
                    let is_full = full(message) || log.iter().any(full);
                    let is_nowhere = is_not_executed(message) || log.iter().any(|line| is_not_executed(line));
                    let class = if is_full || is_nowhere { FailureClass::Other } else { *class };
                    let message = if is_nowhere { format!("{message}{NO_BUILDER}") } else { message.clone() };
                    if class.is_of_machine() {
                        came_between = Some(message.clone());
                    }
                    ends.failed.push(Failure { derivation, class, message, seconds, log, ended });
                }
                Verdict::Cancelled => came_between = Some("it was stopped".to_owned()),
                // What it needs has failed.
                Verdict::Blocked { .. } | Verdict::NotEvaluated { .. } | Verdict::Skipped { .. } => {}
            }
        }
        (ends, came_between)
    }

    /// Keeps the whole logs of what failed, for whoever reports.
    fn keep_logs(&mut self, ends: &Ends) {
        let depot = Arc::clone(self.intake.kept.depot());
        for failure in &ends.failed {
            let drv_path = &self.shipment.plan.steps[failure.derivation as usize].drv_path;
            let state = self.recorder.summary().of_derivation(drv_path);
            if self.logs < logs::MOST
                && let Some(file) = state.and_then(|state| state.log.as_ref())
                && logs::keep(&depot, &self.reference, drv_path, file).is_some()
            {
                self.logs += 1;
            }
        }
    }

    fn take_built(&mut self, ends: &Ends) -> Vec<StorePath> {
        self.built += ends.built.iter().filter(|built| !built.cached).count();
        let steps = &self.shipment.plan.steps;
        let built = ends.built.iter().map(|built| &steps[built.derivation as usize]);
        built.flat_map(|step| step.outputs.iter().flatten().cloned()).collect()
    }

    /// Whether another unit needs something of this, or something that runs once it is built.
    fn is_awaited(&self, ends: &Ends) -> bool {
        let farm = &self.shipment.farm;
        ends.built.iter().any(|built| {
            let unit = farm.unit_of(built.derivation);
            farm.dependents(built.derivation).iter().any(|&user| farm.unit_of(user) != unit)
                || self.shipment.is_for_action(built.derivation)
        })
    }

    /// How large the outputs are, as far as the store tells.
    fn measure(&self, ends: &mut Ends) {
        let Some(layout) = &self.setup.layout else { return };
        let Ok(infos) = depots::infos(layout, Some(&self.setup.store)) else { return };
        for built in &mut ends.built {
            let outputs: Vec<StorePath> = self.shipment.plan.steps[built.derivation as usize]
                .outputs
                .iter()
                .flatten()
                .cloned()
                .collect();
            built.bytes = infos.of(&outputs).ok().map(|infos| infos.iter().map(|info| info.nar_size).sum());
        }
    }

    /// Puts outputs where others find them; the pack they are in, if they are.
    fn keep(&mut self, outputs: Vec<StorePath>) -> Option<String> {
        let layout = self.setup.layout.clone().filter(|_| !outputs.is_empty())?;
        let saved = depots::infos(&layout, Some(&self.setup.store))
            .and_then(|infos| depots::closure(&infos, outputs))
            .and_then(|mut paths| {
                depots::leave_to_upstream(&mut paths, &self.setup.settings.trusted_public_keys);
                self.intake.kept.save(&layout, &paths, &mut self.recorder)
            })
            .and_then(|saved| {
                if let Some(pack) = &saved.pack {
                    self.intake.see(pack.as_str())?;
                }
                Ok(saved)
            });
        match saved {
            Ok(saved) => {
                if let Some(pack) = &saved.pack {
                    let text =
                        format!("{} in {pack}, in {}", talk::paths_are(saved.paths), HumanBytes(saved.size));
                    self.recorder.say(Severity::Detail, text);
                }
                saved.pack.map(|pack| pack.to_string())
            }
            Err(error) => {
                self.recorder.say(Severity::Warning, error.in_one_line());
                None
            }
        }
    }

    /// Deletes from the store what none of the open derivations needs, and can be had again.
    fn make_room(&mut self, room: &Room, open: &[u32]) -> Result<(), CommandError> {
        let Some(layout) = self.setup.layout.clone() else { return Ok(()) };
        let infos = depots::infos(&layout, Some(&self.setup.store))?;
        let shipment = self.shipment.clone();
        let steps = &shipment.plan.steps;
        let mut needed = self.intake.wanted(open);
        needed.extend(steps.iter().map(|step| step.drv_path.clone()));
        if room.dispensable(&infos, needed.clone())?.0.is_empty() {
            return Ok(());
        }
        self.keep_rest();
        // What the depot did not take has to stay.
        let outputs = steps.iter().flat_map(|step| step.outputs.iter().flatten());
        needed.extend(outputs.filter(|path| !self.intake.kept.has(path)).cloned());
        let (paths, size) = room.dispensable(&infos, needed)?;
        if paths.is_empty() {
            return Ok(());
        }
        let mut command = self.setup.nix.nix_store("--delete");
        command.args(paths.iter().map(StorePath::as_str));
        self.setup
            .nix
            .run(&mut command, "nix-store --delete")
            .map_err(|error| CommandError::because("Nix does not delete what is not needed", &error))?;
        let text = format!(
            "little room is left: {} paths of {} that nothing needs any more were deleted",
            paths.len(),
            HumanBytes(size)
        );
        self.recorder.say(Severity::Notice, text);
        Ok(())
    }

    fn keep_rest(&mut self) {
        self.saved_at = Instant::now();
        let outputs = std::mem::take(&mut self.unsaved);
        let _ = self.keep(outputs);
        self.list(&[]);
    }

    /// Lists what is not kept yet, and what these derivations make.
    fn list(&mut self, derivations: &[u32]) {
        if self.setup.layout.is_none() {
            // What is built elsewhere is not kept.
            return;
        }
        let steps = derivations.iter().map(|&position| &self.shipment.plan.steps[position as usize]);
        let outputs = steps.flat_map(|step| step.outputs.iter().flatten());
        if let Err(error) = self.list.list(self.unsaved.iter().chain(outputs)) {
            let text = format!("what is built and not kept yet cannot be listed: {error}");
            self.recorder.say(Severity::Warning, text);
        }
    }
}
