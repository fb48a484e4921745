//! The whole farm on this machine: worker processes, each with a store of its own.

use std::io::Read as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fs_err as fs;
use phoenix_model::{Event, Logged, Severity, Stage, StorePath, Verdict};
use phoenix_schedule::farm::Record;
use phoenix_schedule::{BuilderEnd, Happening, Step, signal_name};
use phoenix_store::{Layout, Nix, StoreEnv, Validity, ValidityError, is_realised};
use rustix::process::{Pid, Signal, kill_process};

use super::{Besides, collect, manner, ship};
use crate::args::RunArgs;
use crate::depots;
use crate::error::CommandError;
use crate::kept::Kept;
use crate::pipeline::Planned;
use crate::recorder::Recorder;
use crate::setup::{Setup, pairs, var};

/// How often the ledger and the workers are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long workers may take to keep what they built when they are told to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Exit code of a worker that was told to stop.
const STOPPED: i32 = 130;

/// A worker process.
struct Worker {
    slot: usize,
    child: Child,
    log: PathBuf,
    events: Tail,
    ended: Option<ExitStatus>,
}

/// Builds what was planned with so many workers; `at_the_end` is called before the run is closed.
pub(crate) fn build(
    planned: &mut Planned,
    args: &RunArgs,
    workers: u32,
    at_the_end: &mut dyn FnMut(&mut Planned) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let nothing = BuilderEnd { exit_code: Some(0), ..BuilderEnd::default() };
    let Some(mut farm) = planned.farm.take().filter(|farm| !farm.plan.steps.is_empty()) else {
        let ended = at_the_end(planned);
        planned.apply(Happening::BuilderEnded(nothing));
        return ended;
    };
    // What cannot be built is known before anything is.
    let has_failed = planned.run.steps().iter().any(|step| step.hopeless.is_some());
    if planned.was_stopped() || (planned.fail_fast && has_failed) {
        planned.apply(Happening::BuilderEnded(BuilderEnd { exit_code: None, ..nothing }));
        return Ok(());
    }
    if !cfg!(target_os = "linux") {
        return Err(CommandError::new(
            "--runners needs stores that Nix can build in wherever they lie, which it can on Linux only",
        )
        .hint("-j N builds several derivations at once in the one store"));
    }
    super::tell_of_floating(&farm.plan, &mut planned.recorder);
    planned.recorder.record(Event::StageStarted { stage: Stage::Build });
    let place = planned.recorder.directory().join("farm");
    fs::create_dir_all(&place)?;
    let depot_url = match args.build.depot() {
        Some(url) => url.to_owned(),
        None => format!("dir:{}", place.join("depot").display()),
    };
    if planned.kept.is_none() {
        let depot = depots::open(Some(&depot_url))?;
        planned.kept = Some(Kept::open(depot, args.build.budget, &mut planned.recorder)?);
    }
    let ledger_url = args.ledger.clone().unwrap_or_else(|| format!("dir:{}", place.join("ledger").display()));
    let count = (workers as usize).min(farm.farm.count_to_claim()).max(1);
    farm.farm = farm.farm.with_slots(&farm.kinds, &[count]);
    let (_, mut limits) = manner(&ledger_url);
    limits.fail_fast = planned.fail_fast;
    let plan = Arc::new(farm.farm.clone());
    // What follows builds runs in the store that they come home to.
    let (reference, mark) = ship(planned, farm, Besides::default(), None)?;
    let mut collecting = collect(&ledger_url, &mark, &plan, limits)?;
    let mut farm = Workers {
        place: place.clone(),
        seen: seen_by_builders(&planned.setup),
        all: Vec::new(),
        stopping: None,
    };
    for slot in 0..count {
        farm.start(slot, args, &reference, &depot_url, &ledger_url)?;
    }
    let mut looked: Option<Instant> = None;
    loop {
        if planned.was_stopped() {
            farm.stop();
        }
        if looked.is_none_or(|looked| looked.elapsed() >= collecting.pace().0) {
            // The log of what the ledger says has ended was written before.
            let mut tell = |recorder: &mut Recorder, _: &[Record]| farm.tell(recorder);
            collecting.look_after(&mut planned.run, &mut planned.recorder, &mut tell);
            looked = Some(Instant::now());
        }
        if collecting.is_over() && planned.fail_fast {
            farm.stop();
        }
        for (slot, words) in farm.ended() {
            planned.recorder.say(Severity::Warning, format!("worker {slot} {words}"));
        }
        if farm.all.iter().all(|worker| worker.ended.is_some()) {
            break;
        }
        planned.recorder.tick();
        std::thread::sleep(LOOK);
    }
    // What the last of them wrote at its end.
    let mut tell = |recorder: &mut Recorder, _: &[Record]| farm.tell(recorder);
    collecting.look_after(&mut planned.run, &mut planned.recorder, &mut tell);
    let ended = at_the_end(planned);
    let why = farm.why();
    collecting.close(&why, &mut planned.run, &mut planned.recorder);
    planned.sizes.extend(collecting.sizes().clone());
    collecting.discard(&mut planned.run, &mut planned.recorder);
    let home = bring_home(planned, &farm);
    drop(farm);
    forget(&place);
    if args.build.depot().is_none() {
        planned.kept = None;
    }
    ended.and(home)
}

/// Brings what was built into the store of this machine, so that it is there for the next run.
fn bring_home(planned: &mut Planned, workers: &Workers) -> Result<(), CommandError> {
    let is_built = |drv_path: &StorePath| {
        let state = planned.recorder.summary().of_derivation(drv_path);
        state.is_some_and(|state| state.verdict == Some(Verdict::Built))
    };
    let steps = planned.run.steps().iter().filter(|step| is_built(&step.drv_path));
    let (named, nameless): (Vec<&Step>, Vec<&Step>) =
        steps.partition(|step| step.outputs.iter().all(Option::is_some));
    let outputs: Vec<StorePath> =
        named.into_iter().flat_map(|step| step.outputs.iter().flatten().cloned()).collect();
    let nameless: Vec<StorePath> = nameless.into_iter().map(|step| step.drv_path.clone()).collect();
    bring_nameless(&nameless, planned, workers);
    let Some(kept) = &mut planned.kept else { return Ok(()) };
    kept.look_again(&mut planned.recorder)?;
    kept.fetch(&outputs, &planned.setup, &mut planned.recorder);
    let no_look = |error: ValidityError| CommandError::because("cannot look into the store", &error);
    let missing = |planned: &Planned| {
        let valid = Validity::open(&planned.setup.nix, planned.setup.layout.as_ref()).valid(&outputs);
        let valid = valid.map_err(no_look)?;
        Ok::<_, CommandError>(outputs.iter().filter(|output| !valid.contains(*output)).collect::<Vec<_>>())
    };
    // What a worker had no time to keep, or no room, is still in its store.
    let mut lost = missing(planned)?;
    if !lost.is_empty() {
        for worker in &workers.all {
            copy_from(&workers.store(worker.slot), &lost, &planned.setup);
        }
        lost = missing(planned)?;
    }
    let Some(first) = lost.first() else { return Ok(()) };
    Err(CommandError::new(format!(
        "{} of {} paths that were built did not come into this store, the first is {first}",
        lost.len(),
        outputs.len()
    ))
    .hint("is there room in the depot and in the store? What was said before tells why"))
}

/// Brings what has no path before it is built, as what is content-addressed: it is only in the store of who built it.
fn bring_nameless(drv_paths: &[StorePath], planned: &mut Planned, workers: &Workers) {
    let setup = &planned.setup;
    let mut left = drv_paths.to_vec();
    for worker in &workers.all {
        let store = workers.store(worker.slot);
        let there = at(&store, setup);
        left.retain(|drv_path| {
            if !is_realised(&there, drv_path) {
                return true;
            }
            let mut command = setup.nix.nix(&["copy"]);
            command.args(["--no-check-sigs", "--from", &store, "--to", &setup.store]);
            // Before, a derivation stood for its outputs.
            let outputs = if setup.nix.version_numbers() >= (2, 15) { "^*" } else { "" };
            command.arg(format!("{drv_path}{outputs}"));
            setup.nix.run(&mut command, "nix copy").is_err()
        });
    }
    if let Some(first) = left.first() {
        let text = format!(
            "what {} content-addressed derivations made did not come into this store, the first is {first}; without \
             --runners it does",
            left.len()
        );
        planned.recorder.say(Severity::Warning, text);
    }
}

/// Nix, set to another store.
fn at(store: &str, setup: &Setup) -> Nix {
    let mut there = setup.nix.clone();
    there.set_env("NIX_REMOTE", store);
    there
}

/// Copies what a store on this machine has of these paths. What does not come is missed by the caller.
fn copy_from(store: &str, paths: &[&StorePath], setup: &Setup) {
    let Some(layout) = Layout::of(store, &StoreEnv::default()) else { return };
    let Ok(valid) = Validity::open(&at(store, setup), Some(&layout)).valid(paths.iter().copied()) else {
        return;
    };
    if valid.is_empty() {
        return;
    }
    let mut command = setup.nix.nix(&["copy"]);
    command.args(["--no-check-sigs", "--from", store, "--to", &setup.store]);
    command.args(valid.iter().map(StorePath::as_str));
    let _ = setup.nix.run(&mut command, "nix copy");
}

/// As a setting of Nix: what builders see of the machine. Nix builds in a root of its own where a store lies elsewhere,
/// also where builders see everything otherwise (`sandbox = false`): then the programs of the machine are there, too.
fn seen_by_builders(setup: &Setup) -> String {
    if setup.settings.sandbox {
        return String::new();
    }
    let places = ["/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64"];
    let there = places.into_iter().filter(|place| Path::new(place).exists()).map(str::to_owned);
    // A shell that is to be at `/bin/sh` need not be on this machine: without a sandbox nobody misses it.
    let target = |path: &String| PathBuf::from(path.split(['=', '?']).next().unwrap_or_default());
    let others = setup.settings.sandbox_paths.iter();
    let others = others.filter(|path| !places.iter().any(|place| target(path).starts_with(place)));
    format!("sandbox-paths = {}", there.chain(others.cloned()).collect::<Vec<_>>().join(" "))
}

/// Takes away what only this run needed; the logs stay.
fn forget(place: &Path) {
    for name in ["ledger", "depot"] {
        let _ = fs::remove_dir_all(place.join(name));
    }
}

/// Reads a file that somebody writes, line by line.
struct Tail {
    path: PathBuf,
    file: Option<fs::File>,
    rest: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, rest: Vec::new() }
    }

    /// The lines that are whole and were not read before.
    fn lines(&mut self) -> Vec<Vec<u8>> {
        if self.file.is_none() {
            self.file = fs::File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Vec::new() };
        // What cannot be read now is read the next time.
        let _ = file.read_to_end(&mut self.rest);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else { return Vec::new() };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        whole.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    }
}

/// All workers; those that are left when it is dropped are ended, and their stores go.
struct Workers {
    place: PathBuf,
    /// What builders see of this machine.
    seen: String,
    all: Vec<Worker>,
    stopping: Option<Instant>,
}

impl Workers {
    fn start(
        &mut self,
        slot: usize,
        args: &RunArgs,
        reference: &str,
        depot: &str,
        ledger: &str,
    ) -> Result<(), CommandError> {
        let place = self.place.join(slot.to_string());
        fs::create_dir_all(&place)?;
        let log = place.join("log");
        let file = fs::File::create(&log)?;
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.arg("work").args(["--plan", reference, "--slot", &slot.to_string()]);
        command.args(["--depot", depot, "--ledger", ledger]);
        let events = place.join("events.jsonl");
        command.arg("--events").arg(&events);
        command.arg("--store").arg(self.store(slot));
        builder_flags(&mut command, args);
        // Settings may hold secrets, which arguments would show to everybody.
        let own = var("NIX_CONFIG").into_iter();
        let options = pairs(&args.nix.options).map(|(name, value)| format!("{name} = {value}"));
        command
            .env("NIX_CONFIG", own.chain(options).chain([self.seen.clone()]).collect::<Vec<_>>().join("\n"));
        command.env("XDG_STATE_HOME", place.join("state"));
        command.env_remove("NIX_REMOTE");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file.into_parts().0).process_group(0);
        let child =
            command.spawn().map_err(|error| CommandError::because("cannot start a worker", &error))?;
        self.all.push(Worker { slot, child, log, events: Tail::new(events), ended: None });
        Ok(())
    }

    /// The store of a worker.
    fn store(&self, slot: usize) -> String {
        format!("local?root={}", self.place.join(slot.to_string()).join("store").display())
    }

    /// Takes in what workers tell that is not in the ledger: the logs of builds, and what went wrong beside them.
    fn tell(&mut self, recorder: &mut Recorder) {
        for worker in &mut self.all {
            for line in worker.events.lines() {
                match serde_json::from_slice::<Logged>(&line).map(|logged| logged.event) {
                    Ok(event @ (Event::LogLine { .. } | Event::PhaseStarted { .. })) => {
                        recorder.record(event);
                    }
                    Ok(Event::Message {
                        severity: severity @ (Severity::Warning | Severity::Error),
                        text,
                    }) => {
                        recorder.say(severity, format!("worker {}: {text}", worker.slot));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Tells all to stop; those that take too long are killed.
    fn stop(&mut self) {
        let late = self.stopping.is_some_and(|since| since.elapsed() > PATIENCE);
        if self.stopping.is_none() || late {
            self.stopping.get_or_insert_with(Instant::now);
            let signal = if late { Signal::KILL } else { Signal::TERM };
            for worker in self.all.iter().filter(|worker| worker.ended.is_none()) {
                if let Some(pid) = i32::try_from(worker.child.id()).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, signal);
                }
            }
        }
    }

    /// Those that ended since the last look, and not in good order, with what happened to them.
    fn ended(&mut self) -> Vec<(usize, String)> {
        let mut told = Vec::new();
        let stopping = self.stopping.is_some();
        for worker in self.all.iter_mut().filter(|worker| worker.ended.is_none()) {
            let Ok(Some(status)) = worker.child.try_wait() else { continue };
            worker.ended = Some(status);
            if !(worked(status) || stopping && status.code() == Some(STOPPED)) {
                told.push((worker.slot, format!("{}; the others go on", worker.words())));
            }
        }
        told
    }

    /// What became of them, for what nobody built.
    fn why(&self) -> String {
        let failed = self.all.iter().find(|worker| worker.ended.is_some_and(|status| !worked(status)));
        match failed {
            Some(worker) => {
                format!("no worker was left to build it: worker {} {}", worker.slot, worker.words())
            }
            None => "all workers left, and it is not built".to_owned(),
        }
    }
}

/// Whether a worker could do its part; what it built may have failed, which is its exit code then (100 to 107).
fn worked(status: ExitStatus) -> bool {
    status.success() || status.code().is_some_and(|code| (100..=107).contains(&code))
}

impl Worker {
    /// How it ended, with its last words.
    fn words(&self) -> String {
        let Some(status) = self.ended else { return "is at work".to_owned() };
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, signal) => format!("was ended by {}", signal_name(signal.unwrap_or_default())),
        };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last =
            log.lines().rev().find(|line| line.starts_with("error: ") || line.starts_with("  caused by"));
        last.map_or(how.clone(), |last| format!("{how} ({})", last.trim()))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.all {
            if worker.ended.is_none() {
                let _ = worker.child.kill();
                let _ = worker.child.wait();
            }
            remove_store(&self.place.join(worker.slot.to_string()).join("store"));
        }
    }
}

/// Removes a store, whose directories may not be written.
fn remove_store(store: &Path) {
    let Ok(entries) = std::fs::symlink_metadata(store) else { return };
    if entries.is_dir() {
        make_writable(store);
        let _ = fs::remove_dir_all(store);
    }
}

fn make_writable(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755));
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

/// The flags that say how Nix builds, and what is said.
fn builder_flags(command: &mut Command, args: &RunArgs) {
    let builder = &args.build.builder;
    let numbers = [
        ("--cores", builder.cores),
        ("--timeout", builder.timeout),
        ("--max-silent-time", builder.max_silent_time),
    ];
    for (flag, number) in numbers {
        if let Some(number) = number {
            command.arg(flag).arg(number.to_string());
        }
    }
    for (flag, text) in [("--max-jobs", &builder.max_jobs), ("--builders", &builder.builders)] {
        if let Some(text) = text {
            command.arg(flag).arg(text);
        }
    }
    for _ in 0..args.talk.verbose {
        command.arg("--verbose");
    }
}
