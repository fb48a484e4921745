//! Has Nix build the plan and watches it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, bounded, never, select};
use phoenix_model::{Event, FailureClass, Severity, Stamp, StorePath};
use phoenix_schedule::{BuilderEnd, Happening, Run, Step, signal_name};
use phoenix_store::{Build, BuildEvent, BuildExit, Counts, Nix, Realise, Validity, is_realised};

use crate::error::{CommandError, is_of_machine};
use crate::recorder::{Recorder, now};
use crate::setup::Setup;

/// The most bytes of arguments for one call of Nix; the rest waits for the next. Far below the limits of
/// Linux (2 MiB with the environment) and macOS (1 MiB).
const ARGUMENT_BYTES: usize = 400 * 1024;

/// How often the screen is drawn and the process looked at.
const TICK: Duration = Duration::from_millis(100);

/// How long the last lines of a log are waited for when Nix was stopped.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How often the store is looked into while Nix says nothing and builds nothing.
const LOOK: Duration = Duration::from_secs(2);

/// How long Nix may go on saying nothing after somebody else built what it waits for. It looks at a lock
/// every 5 seconds.
const LET_GO: Duration = Duration::from_secs(8);

/// How much older than its build a log may seem, in milliseconds.
const LOG_SLACK: u64 = 20;

/// How many of Nix's last messages are kept to explain what is missing.
const LAST_WORDS: usize = 5;

/// How often Nix is called again although the last call brought nothing new.
const MOST_FRUITLESS_TRIES: usize = 12;

/// A derivation and the outputs that are wanted of it; none for all.
pub(crate) type Wanted = (StorePath, Vec<String>);

/// A run at work.
pub(crate) struct Builder<'a> {
    setup: &'a Setup,
    /// Nix with all options of this run.
    nix: Nix,
    fail_fast: bool,
    signals: &'a Receiver<&'static str>,
    run: &'a mut Run,
    recorder: &'a mut Recorder,
    /// When each build printed its last line.
    last_line: HashMap<StorePath, Stamp>,
    /// Nix is being stopped because it waits for what is there.
    letting_go: bool,
    /// What is built that is not in the plan, with its outputs, where the derivation says them.
    beside: HashMap<StorePath, Vec<StorePath>>,
    /// What of that failed.
    failed_beside: BTreeSet<StorePath>,
    /// Builders that ended, of which it is not known yet whether well.
    ended: Vec<StorePath>,
    /// How many builds there were in this call of Nix, by its count, and how many were begun.
    counts: Counts,
    begun: u64,
    /// Those of them that are known.
    told: HashSet<StorePath>,
    /// What Nix said of builds that timed out without naming them.
    time_outs: Vec<String>,
    /// The errors that were said.
    said: HashSet<String>,
    /// The last one of this call: what Nix ended over, if it ended over something.
    last_error: String,
    /// Who Nix asks for what it need not build; those that broke off are left out from then on.
    substituters: Vec<String>,
    broken: Vec<String>,
    /// Whether the daemon ended in the middle, which is a Nix too.
    daemon_died: bool,
    /// What Nix is to build without asking substituters, because it died of one.
    unsubstituted: HashSet<StorePath>,
    /// Whether what was killed is left to others.
    elsewhere: bool,
    /// Whose builder was killed once and is tried again; of some not yet, with Nix's words.
    killed: HashSet<StorePath>,
    to_try_again: BTreeMap<StorePath, String>,
    has_failed: bool,
}

/// How a call of Nix ended.
enum Ended {
    Exit(BuildExit),
    /// It was stopped because it waited for what somebody else had built.
    LetGo,
}

/// Watches a Nix that says nothing.
///
/// Two Nixes that are asked for the same derivations at once can wait for each other for ever: one that finds
/// that the other was faster keeps the lock of that output to its own end (2.8, `tryToBuild`).
struct Silence {
    lines: u64,
    since: Instant,
    looked: Instant,
    appeared: Option<Instant>,
}

impl<'a> Builder<'a> {
    /// A builder that has built nothing yet.
    pub(crate) fn new(
        setup: &'a Setup,
        nix: Nix,
        fail_fast: bool,
        signals: &'a Receiver<&'static str>,
        run: &'a mut Run,
        recorder: &'a mut Recorder,
    ) -> Self {
        Self {
            setup,
            nix,
            fail_fast,
            signals,
            run,
            recorder,
            last_line: HashMap::new(),
            letting_go: false,
            beside: HashMap::new(),
            failed_beside: BTreeSet::new(),
            ended: Vec::new(),
            counts: Counts::default(),
            begun: 0,
            told: HashSet::new(),
            time_outs: Vec::new(),
            said: HashSet::new(),
            last_error: String::new(),
            substituters: setup.settings.substituters.clone(),
            broken: Vec::new(),
            unsubstituted: HashSet::new(),
            daemon_died: false,
            elsewhere: false,
            killed: HashSet::new(),
            to_try_again: BTreeMap::new(),
            has_failed: false,
        }
    }

    /// What was killed here is not tried again here.
    pub(crate) fn leaving_killed_to_others(self) -> Self {
        Self { elsewhere: true, ..self }
    }

    /// Builds what has to be built; `started` is called when Nix protects it from the garbage collector.
    pub(crate) fn build(&mut self, wanted: &[Wanted], started: &mut dyn FnMut()) -> Result<(), CommandError> {
        let end = self.bring(wanted, started)?;
        self.apply(Happening::BuilderEnded(end));
        Ok(())
    }

    /// Builds or fetches this; how it ended. The run goes on.
    pub(crate) fn bring(
        &mut self,
        wanted: &[Wanted],
        started: &mut dyn FnMut(),
    ) -> Result<BuilderEnd, CommandError> {
        let mut words: Vec<String> = Vec::new();
        let mut validity = Validity::open(&self.nix, self.setup.layout.as_ref());
        let mut last = BuildExit { code: Some(0), signal: None };
        // How Nix ended when something failed of which nothing was left to try.
        let mut failed = None;
        let mut fruitless = 0;
        let mut left: VecDeque<Vec<Wanted>> = batches(wanted).into_iter().map(<[_]>::to_vec).collect();
        while let Some(some) = left.pop_front() {
            if self.run.is_cancelled() || (self.fail_fast && last.code != Some(0)) {
                break;
            }
            let before = self.run.unexplained().len();
            let exit = match self.one(&some, &mut validity, &mut words, started)? {
                Ended::Exit(exit) => exit,
                Ended::LetGo => {
                    self.settle_present(&mut validity)?;
                    self.settle_time_outs(&mut words);
                    let undone = self.undone(&some, false);
                    if !undone.is_empty() {
                        left.push_front(undone);
                    }
                    continue;
                }
            };
            if exit.code == Some(0) {
                continue;
            }
            if self.has_failed && exit.signal.is_none() {
                failed.get_or_insert(exit);
            }
            if let Some(signal) = exit.signal.filter(|_| !self.run.is_cancelled()) {
                let text = format!(
                    "nix-store was ended by {}; it is asked again for what is left",
                    signal_name(signal)
                );
                self.recorder.say(Severity::Warning, text);
            }
            self.settle_present(&mut validity)?;
            self.settle_time_outs(&mut words);
            // A Nix that died has failed at nothing, also where the first failure ends all.
            let died = exit.signal.is_some() || self.daemon_died;
            let is_over = self.run.is_cancelled() || (self.fail_fast && self.has_failed);
            let killed = !is_over && !self.to_try_again.is_empty();
            let undone = self.undone(&some, died || killed);
            let progress = self.run.unexplained().len() < before;
            fruitless += usize::from(!progress);
            // What is wrong with the machine is wrong with the next try too, which may take as long again.
            if is_of_machine(&self.last_error) || self.run.is_cancelled() {
                last = exit;
                break;
            }
            if killed && !undone.is_empty() {
                left.push_front(undone);
                continue;
            }
            if died && self.leave_out_broken() && !undone.is_empty() {
                left.push_front(undone);
                continue;
            }
            if undone.is_empty() || (self.fail_fast && !died) || fruitless > MOST_FRUITLESS_TRIES {
                last = exit;
            } else if progress {
                // Nix stopped over something; what that did not concern is still to be built.
                left.push_front(undone);
            } else if undone.len() > 1 {
                let (front, back) = undone.split_at(undone.len() / 2);
                left.push_front(back.to_vec());
                left.push_front(front.to_vec());
            } else if died && self.unsubstituted.insert(undone[0].0.clone()) {
                // Nix 2.8 dies of an archive that a substituter does not give.
                let text = format!("{} is built without substituters now", undone[0].0.human_name());
                self.recorder.say(Severity::Warning, text);
                left.push_front(undone);
            } else {
                last = exit;
            }
        }
        self.settle_killed();
        let unexplained = self.run.unexplained();
        let unexplained = unexplained.iter().map(|&step| self.run.steps()[step as usize].drv_path.clone());
        let missing = wanted
            .iter()
            .map(|(drv_path, _)| drv_path)
            .filter(|drv_path| self.run.position(drv_path).is_none() && !is_realised(&self.nix, drv_path));
        let hindered = self.hindered(unexplained.chain(missing.cloned()));
        // What was tried again may have ended well beside what did not.
        let told = if last.code == Some(0) { failed.unwrap_or(last) } else { last };
        Ok(BuilderEnd {
            exit_code: told.code,
            signal: told.signal,
            valid: self.present(&mut validity, last.code == Some(0))?,
            realised: self
                .run
                .beside_plan()
                .filter(|drv_path| is_realised(&self.nix, drv_path))
                .cloned()
                .collect(),
            hindered,
            last_words: words.join("\n"),
        })
    }

    /// What was killed and is tried no more has failed.
    fn settle_killed(&mut self) {
        for (drv_path, message) in std::mem::take(&mut self.to_try_again) {
            // What was to be tried again when the run was stopped has not.
            if !self.run.is_cancelled() {
                self.failed(drv_path, FailureClass::Killed, message);
            }
        }
    }

    /// Which of these derivations need something that failed beside the plan, and what.
    fn hindered(&self, of: impl Iterator<Item = StorePath>) -> BTreeMap<StorePath, Vec<StorePath>> {
        let mut hindered: BTreeMap<StorePath, Vec<StorePath>> = BTreeMap::new();
        if self.failed_beside.is_empty() {
            return hindered;
        }
        let of: Vec<StorePath> = of.collect();
        let mut users: HashMap<StorePath, Vec<StorePath>> = HashMap::new();
        let mut seen: HashSet<StorePath> = of.iter().cloned().collect();
        let mut next = of.clone();
        while !next.is_empty() {
            let read = phoenix_store::read_derivations(&self.setup.eval_layout, &next);
            let mut inputs = Vec::new();
            for (user, derivation) in next.iter().zip(read) {
                let Ok(derivation) = derivation else { continue };
                for input in derivation.input_drvs.iter() {
                    let input = input.path.to_store_path();
                    users.entry(input.clone()).or_default().push(user.clone());
                    if seen.insert(input.clone()) {
                        inputs.push(input);
                    }
                }
            }
            next = inputs;
        }
        for failed in &self.failed_beside {
            let (mut reached, mut next) = (HashSet::new(), vec![failed.clone()]);
            while let Some(drv_path) = next.pop() {
                next.extend(
                    users
                        .get(&drv_path)
                        .into_iter()
                        .flatten()
                        .filter(|user| reached.insert((*user).clone()))
                        .cloned(),
                );
            }
            for drv_path in of.iter().filter(|drv_path| reached.contains(*drv_path)) {
                hindered.entry(drv_path.clone()).or_default().push(failed.clone());
            }
        }
        hindered
    }

    /// Only these are asked for what need not be built.
    pub(crate) fn asking(mut self, substituters: Vec<String>) -> Self {
        self.nix.set_option("substituters", &substituters.join(" "));
        self.substituters = substituters;
        self
    }

    /// Leaves out the substituters of which Nix said that they broke off; whether there are any. Nix 2.8 dies of
    /// them, again and again.
    fn leave_out_broken(&mut self) -> bool {
        let broken = std::mem::take(&mut self.broken);
        let place = |url: &str| url.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
        let before = self.substituters.len();
        self.substituters.retain(|url| !broken.iter().any(|broken| place(broken) == place(url)));
        if self.substituters.len() == before {
            return false;
        }
        for url in &broken {
            let text = format!("{} breaks off; going on without it", phoenix_substituter::redacted(url));
            self.recorder.say(Severity::Warning, text);
        }
        self.nix.set_option("substituters", &self.substituters.join(" "));
        true
    }

    /// What of this is neither built nor hindered by a failure; and of what is not in the plan, which was to be
    /// fetched, what is not there although Nix `died` over it.
    fn undone(&self, some: &[Wanted], died: bool) -> Vec<Wanted> {
        let unexplained = self.run.unexplained();
        let is_undone = |drv_path: &StorePath| match self.run.position(drv_path) {
            Some(position) => unexplained.contains(&position),
            None => died && !is_realised(&self.nix, drv_path),
        };
        let mut undone: Vec<Wanted> =
            some.iter().filter(|(drv_path, _)| is_undone(drv_path)).cloned().collect();
        let hindered = self.hindered(undone.iter().map(|(drv_path, _)| drv_path.clone()));
        undone.retain(|(drv_path, _)| {
            !hindered.contains_key(drv_path) && !self.failed_beside.contains(drv_path)
        });
        undone
    }

    /// Settles what is in the store by now.
    fn settle_present(&mut self, validity: &mut Validity) -> Result<(), CommandError> {
        let unexplained = self.run.unexplained();
        let present = self.present(validity, false)?;
        let appeared: Vec<StorePath> = present
            .intersection(&unexplained)
            .map(|&position| self.run.steps()[position as usize].drv_path.clone())
            .collect();
        for drv_path in appeared {
            self.apply(Happening::Appeared { drv_path });
        }
        Ok(())
    }

    /// Runs Nix once, to its end.
    fn one(
        &mut self,
        derivations: &[Wanted],
        validity: &mut Validity,
        words: &mut Vec<String>,
        started: &mut dyn FnMut(),
    ) -> Result<Ended, CommandError> {
        let (sender, events) = bounded(4096);
        let what = Realise { derivations: derivations.to_vec(), keep_going: !self.fail_fast };
        let mut nix = self.nix.clone();
        if derivations.iter().any(|(drv_path, _)| self.unsubstituted.contains(drv_path)) {
            nix.set_option("substitute", "false");
        }
        let mut build = Build::start(&nix, &what, sender)
            .map_err(|error| CommandError::because("cannot build", &error))?;
        let mut events = events;
        let mut listening = true;
        let mut some_ended = false;
        let mut ended: Option<Instant> = None;
        let now = Instant::now();
        let mut silence = Silence { lines: 0, since: now, looked: now, appeared: None };
        (self.letting_go, self.daemon_died) = (false, false);
        self.last_error.clear();
        (self.counts, self.begun, self.told) = (Counts::default(), 0, HashSet::new());
        loop {
            select! {
                recv(events) -> event => match event {
                    Ok(event) => {
                        started();
                        some_ended |= self.heard(event, words);
                        // Everything that is there is taken in before the store is looked into.
                        for _ in 0..256 {
                            let Ok(event) = events.try_recv() else { break };
                            some_ended |= self.heard(event, words);
                        }
                    }
                    Err(_) => {
                        listening = false;
                        events = never();
                    }
                },
                recv(self.signals) -> signal => {
                    self.apply(Happening::Cancelled { reason: signal.unwrap_or("the end of signals").to_owned() });
                    build.stop();
                },
                default(TICK) => {
                    self.recorder.tick();
                    let waits_in_vain = !self.letting_go && self.waits_in_vain(&mut silence, build.lines(), validity)?;
                    if waits_in_vain && !self.run.is_cancelled() {
                        self.letting_go = true;
                        let text = "another Nix built what this one waits for; asking again for the rest";
                        self.recorder.say(Severity::Detail, text);
                        build.stop();
                    }
                },
            }
            // A failure whose builder is not known yet is looked for until it is.
            if std::mem::take(&mut some_ended) || self.unknown_failures() > 0 {
                self.look_for_ended(validity);
            }
            let exit =
                build.try_wait().map_err(|error| CommandError::because("cannot wait for Nix", &error))?;
            if let Some(exit) = exit {
                let ended = *ended.get_or_insert_with(Instant::now);
                // A builder that outlives a Nix that had to be killed still holds its end of the log.
                let stopped = self.run.is_cancelled() || self.letting_go;
                if !listening || (stopped && ended.elapsed() > LAST_LINES) {
                    let let_go = self.letting_go && !self.run.is_cancelled();
                    return Ok(if let_go { Ended::LetGo } else { Ended::Exit(exit) });
                }
            }
        }
    }

    /// Whether Nix says nothing and builds nothing although something it was asked for has appeared.
    fn waits_in_vain(
        &mut self,
        silence: &mut Silence,
        lines: u64,
        validity: &mut Validity,
    ) -> Result<bool, CommandError> {
        let now = Instant::now();
        let builds = !self.run.running().is_empty();
        if silence.lines != lines || builds {
            // A line may be that it noticed one of two things that appeared, and waits for the other.
            let appeared = silence.appeared.filter(|_| !builds);
            *silence = Silence { lines, since: now, looked: now, appeared };
        } else if silence.looked.elapsed() > LOOK {
            silence.looked = now;
            let before = self.run.unexplained().len();
            self.settle_present(validity)?;
            if self.run.unexplained().len() < before {
                silence.appeared = Some(now);
            }
        }
        Ok(silence.appeared.is_some_and(|appeared| appeared.elapsed() > LET_GO)
            && silence.since.elapsed() > LET_GO)
    }

    /// Takes in what Nix says; whether some build ended.
    fn heard(&mut self, event: BuildEvent, words: &mut Vec<String>) -> bool {
        match event {
            BuildEvent::Started { drv_path, machine } => {
                self.begun += 1;
                self.to_try_again.remove(&drv_path);
                if self.run.derivation_of(&drv_path).is_none() {
                    let outputs = self.outputs_of(&drv_path);
                    self.beside.insert(drv_path.clone(), outputs);
                }
                self.apply(Happening::BuildStarted { drv_path, machine });
            }
            BuildEvent::Line { drv_path, line } => {
                let drv_path = self.run.derivation_of(&drv_path).unwrap_or(drv_path);
                self.last_line.insert(drv_path.clone(), now());
                self.recorder.record(Event::LogLine { drv_path, line });
            }
            BuildEvent::Phase { drv_path, phase } => {
                let drv_path = self.run.derivation_of(&drv_path).unwrap_or(drv_path);
                self.recorder.record(Event::PhaseStarted { drv_path, phase });
            }
            BuildEvent::Fetching { path, from } => self.apply(Happening::FetchStarted { path, from }),
            BuildEvent::Ended { drv_path } => {
                self.ended.push(self.run.derivation_of(&drv_path).unwrap_or(drv_path));
                return true;
            }
            BuildEvent::SomeEnded(counts) => {
                self.counts = counts;
                return true;
            }
            BuildEvent::Failed(failure) => {
                match self.run.derivation_of(&failure.about).or_else(|| self.beside_of(&failure.about)) {
                    Some(drv_path) => {
                        let (class, message) = (failure.class, failure.message);
                        self.told.insert(drv_path.clone());
                        if self.to_try_again.contains_key(&drv_path) {
                            // Nix 2.34 says it once for each goal that waits for it.
                        } else if class == FailureClass::Killed && self.may_try_again(&drv_path) {
                            self.try_again(drv_path, message);
                        } else {
                            self.failed(drv_path, class, message);
                        }
                    }
                    None => self.message(0, failure.message, words),
                }
                return true;
            }
            BuildEvent::Message { level: 0, text } if text.contains("timed out after") => {
                self.time_outs.push(text);
            }
            BuildEvent::Message { level, text } => self.message(level, text, words),
        }
        false
    }

    fn failed(&mut self, drv_path: StorePath, class: FailureClass, message: String) {
        if self.beside.remove(&drv_path).is_some() {
            self.failed_beside.insert(drv_path.clone());
        }
        self.has_failed = true;
        self.apply(Happening::BuildFailed { drv_path, class, message });
    }

    /// Whether a builder that was killed is tried once more. The kernel kills the largest when memory runs out: with
    /// others gone there may be room for it.
    fn may_try_again(&mut self, drv_path: &StorePath) -> bool {
        !self.elsewhere && !self.run.is_cancelled() && self.killed.insert(drv_path.clone())
    }

    fn try_again(&mut self, drv_path: StorePath, message: String) {
        let words = message.lines().last().unwrap_or_default().trim_start_matches("Reason: ");
        let text = format!(
            "{}: {}; out of memory? It is tried once more",
            drv_path.human_name(),
            words.trim_end_matches('.')
        );
        self.recorder.say(Severity::Warning, text);
        self.apply(Happening::TriedAgain { drv_path: drv_path.clone() });
        self.to_try_again.insert(drv_path, message);
    }

    /// Some versions of Nix (2.34) do not say which build timed out, and say it before they name what failed in other
    /// ways: it is found out when all of that is known.
    fn settle_time_outs(&mut self, words: &mut Vec<String>) {
        for text in std::mem::take(&mut self.time_outs) {
            let of_silence = text.contains("of silence");
            let last_line =
                |drv_path: &StorePath| self.last_line.get(drv_path).copied().filter(|_| of_silence);
            match self.run.timed_out(now(), last_line).cloned() {
                Some(drv_path) => self.failed(drv_path, FailureClass::TimedOut, text),
                None => self.message(0, text, words),
            }
        }
    }

    fn message(&mut self, level: u64, text: String, words: &mut Vec<String>) {
        let severity = match level {
            // It was us who did.
            0 if (self.run.is_cancelled() || self.letting_go) && text.contains("interrupted by the user") => {
                Severity::Detail
            }
            0 => {
                if words.len() == LAST_WORDS {
                    words.remove(0);
                }
                if !words.contains(&text) {
                    words.push(text.clone());
                }
                self.last_error.clone_from(&text);
                self.broken.extend(disabled_substituter(&text).map(str::to_owned));
                self.daemon_died |= text.contains("unexpected end-of-file")
                    || text.contains("Nix daemon disconnected unexpectedly");
                // Every try has the same to say.
                if self.said.insert(text.clone()) { Severity::Error } else { Severity::Detail }
            }
            1 => Severity::Warning,
            _ => Severity::Detail,
        };
        self.recorder.say(severity, text);
    }

    /// Finds out which of the builds that were begun are done. Nix says that some is, and older versions of which
    /// only at their end; the store knows what was built, and the logs know whose builder has ended.
    fn look_for_ended(&mut self, validity: &mut Validity) {
        let begun: Vec<(StorePath, Vec<StorePath>)> = self
            .run
            .begun()
            .into_iter()
            .map(|step| &self.run.steps()[step as usize])
            .filter(|step| step.outputs.iter().all(Option::is_some))
            .map(|step| (step.drv_path.clone(), step.outputs.iter().flatten().cloned().collect()))
            .collect();
        let beside = self.beside.iter().map(|(drv_path, outputs)| (drv_path.clone(), outputs.clone()));
        let begun: Vec<(StorePath, Vec<StorePath>)> = begun.into_iter().chain(beside).collect();
        // When the store does not answer now, it is asked again at the end.
        let Ok(valid) = validity.valid(begun.iter().flat_map(|(_, outputs)| outputs)) else { return };
        for (drv_path, outputs) in begun {
            if !outputs.is_empty() && outputs.iter().all(|output| valid.contains(output)) {
                self.beside.remove(&drv_path);
                self.failed_beside.remove(&drv_path);
                self.apply(Happening::Appeared { drv_path });
            }
        }
        let unknown = self.unknown_failures();
        if unknown == 0 {
            return;
        }
        // Nix says why when all it was asked for has ended, if that was a target.
        let failed = self.failed_builders(usize::try_from(unknown).unwrap_or(usize::MAX));
        for drv_path in failed {
            self.told.insert(drv_path.clone());
            self.apply(Happening::BuildEnded { drv_path });
        }
    }

    /// What is built beside the plan that a path is, or is an output of.
    fn beside_of(&self, path: &StorePath) -> Option<StorePath> {
        let found =
            self.beside.iter().find(|(drv_path, outputs)| *drv_path == path || outputs.contains(path));
        found.map(|(drv_path, _)| drv_path.clone())
    }

    /// The outputs of a derivation that is not in the plan; none where they are not known.
    fn outputs_of(&self, drv_path: &StorePath) -> Vec<StorePath> {
        let read = phoenix_store::read_derivations(&self.setup.eval_layout, std::slice::from_ref(drv_path));
        let derivation = read.into_iter().next().and_then(Result::ok);
        let outputs = derivation.iter().flat_map(|derivation| &derivation.outputs);
        outputs.map(|output| output.path.clone()).collect::<Option<Vec<_>>>().unwrap_or_default()
    }

    /// How many builders have failed of which it is not known whose they are. What could not be begun has no builder.
    fn unknown_failures(&self) -> u64 {
        let Counts { done, running, failed } = self.counts;
        let ended = self.begun.saturating_sub(done + running);
        ended.min(failed).saturating_sub(self.told.len() as u64)
    }

    /// The builders that have failed, of which there are at most so many: those that Nix says have ended, or whose
    /// logs have. Nothing when there are more, for some of them ended well and their outputs are not yet valid.
    fn failed_builders(&mut self, count: usize) -> Vec<StorePath> {
        let running = self.run.running().into_iter().filter_map(|step| {
            let drv_path = self.run.steps()[step as usize].drv_path.clone();
            Some((drv_path, self.run.started(step)?))
        });
        let mut running: HashMap<StorePath, Stamp> = running.collect();
        running.retain(|drv_path, _| !self.told.contains(drv_path));
        self.ended.retain(|drv_path| running.contains_key(drv_path));
        let is_over = |drv_path: &StorePath, started: Stamp| {
            // File systems keep coarse times.
            let since = SystemTime::UNIX_EPOCH + Duration::from_millis(started.0.saturating_sub(LOG_SLACK));
            let layout = self.setup.layout.as_ref();
            self.ended.contains(drv_path)
                || layout.and_then(|layout| layout.is_log_whole(drv_path, since)) == Some(true)
        };
        running.retain(|drv_path, started| is_over(drv_path, *started));
        let mut over: Vec<StorePath> = running.into_keys().collect();
        over.sort_unstable();
        if over.len() <= count { over } else { Vec::new() }
    }

    /// The steps whose needed outputs are all valid.
    fn present(&self, validity: &mut Validity, all_went_well: bool) -> Result<HashSet<u32>, CommandError> {
        let steps = self.run.steps();
        let open = self.run.unexplained();
        let outputs = steps.iter().flat_map(|step| step.outputs.iter().flatten());
        let valid = validity
            .valid(outputs)
            .map_err(|error| CommandError::because("cannot look into the store", &error))?;
        let is_here = |position: u32, step: &Step| {
            step.hopeless.is_none()
                && step.outputs.iter().flatten().all(|output| valid.contains(output))
                // Where a path comes about in the build, Nix is asked whether it has come about.
                && (step.outputs.iter().all(Option::is_some)
                    || all_went_well
                    || (open.contains(&position) && is_realised(&self.nix, &step.drv_path)))
        };
        Ok((0..)
            .zip(steps)
            .filter(|(position, step)| is_here(*position, step))
            .map(|(position, _)| position)
            .collect())
    }

    fn apply(&mut self, happening: Happening) {
        self.recorder.apply(self.run, happening);
    }
}

/// The substituter that Nix says it asks no more (nix `src/libstore/http-binary-cache-store.cc`, `maybeDisable`).
fn disabled_substituter(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("disabling binary cache '")?;
    rest.split_once('\'').map(|(url, _)| url)
}

/// Copies derivations, with all they need, from the store they were evaluated in to the one they are built
/// in.
pub(crate) fn copy_derivations(
    setup: &Setup,
    nix: &Nix,
    from: &str,
    wanted: &[Wanted],
) -> Result<(), CommandError> {
    for some in batches(wanted) {
        let mut command = nix.nix(&["copy"]);
        command.args(["--derivation", "--no-check-sigs", "--from", from, "--to", &setup.store]);
        command.args(some.iter().map(|(drv_path, _)| drv_path.as_str()));
        nix.run(&mut command, "nix copy --derivation")?;
    }
    Ok(())
}

/// Splits what is wanted so that each part fits into one call.
fn batches(wanted: &[Wanted]) -> Vec<&[Wanted]> {
    let mut batches = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (at, (drv_path, outputs)) in wanted.iter().enumerate() {
        let own = drv_path.as_str().len() + outputs.iter().map(|name| name.len() + 1).sum::<usize>() + 10;
        if bytes + own > ARGUMENT_BYTES && at > start {
            batches.push(&wanted[start..at]);
            start = at;
            bytes = 0;
        }
        bytes += own;
    }
    if start < wanted.len() {
        batches.push(&wanted[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_of_nix_has_room_for_its_arguments() {
        let one = |number: usize| {
            let path = format!("/nix/store/{number:032}-{}.drv", "x".repeat(150));
            (StorePath::parse(&path).unwrap(), vec!["out".to_owned()])
        };
        let wanted: Vec<_> = (0..10_000).map(one).collect();
        let batches = batches(&wanted);
        assert!(batches.len() > 1);
        assert_eq!(batches.iter().map(|some| some.len()).sum::<usize>(), wanted.len());
        for some in batches {
            assert!(some.iter().map(|(path, _)| path.as_str().len() + 14).sum::<usize>() <= ARGUMENT_BYTES);
        }
    }
}
