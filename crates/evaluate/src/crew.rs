//! Workers at work on a walk, within a budget of memory.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use phoenix_model::Severity;

use crate::FoundTarget;
use crate::answers::{Answers, Known};
use crate::budget::{Budget, Load};
use crate::earlier::Earlier;
use crate::evaluator::{Evaluator, Handle};
use crate::explore::Explore;
use crate::memory::{Meter, shown};
use crate::pace::{Pace, pays};
use crate::pool::{EvaluateError, Evaluators, Heard, Progress, Request, Root, conclude, explore, tell_found};
use crate::prepare::Prepared;
use crate::said::Said;
use crate::spread::Spread;
use crate::walk::Inspect;
use crate::worker::{Job, Reply, Told, are_neighbours, work};

/// How often it is looked how much memory there is.
const TICK: Duration = Duration::from_millis(50);

/// How often it is looked whether what was found is in the store by now.
const MOMENT: Duration = Duration::from_millis(10);

/// How long something takes that others are not to wait for.
const SLOW: Duration = Duration::from_millis(500);

/// How much longer all may take for errors that print values: each is asked for again in a process of its own, so that its text
/// is the same whatever else was asked for.
const FOR_WORDS: Duration = Duration::from_secs(5);

/// What Nix says where no daemon listens (`src/libutil/unix-domain-socket.cc`).
const NO_DAEMON: &str = "cannot connect to socket";

/// Whether an error says that Nix's daemon is not there, and it is not: a flake may throw the same words.
fn is_without_daemon(error: &str) -> bool {
    let socket = error.strip_prefix(NO_DAEMON).and_then(|rest| rest.split('\'').nth(1));
    socket.is_some_and(|socket| {
        let is_nix = std::env::var_os("NIX_DAEMON_SOCKET_PATH").is_some_and(|set| set == socket)
            || socket.ends_with("/daemon-socket/socket");
        is_nix && UnixStream::connect(socket).is_err()
    })
}

/// Evaluates a root; what is returned protects what it found, as far as the processes are left.
pub(crate) fn walk(
    request: &Request<'_>,
    root: &Root,
    mut prepared: Prepared,
    budget: Budget,
    meter: &mut Meter,
    stop: &Arc<AtomicBool>,
    hear: &mut dyn FnMut(Heard),
) -> Result<Evaluators, EvaluateError> {
    let mut walk = explore(request, root, &prepared);
    let mut answers = std::mem::take(&mut prepared.answers);
    let mut earlier = prepared.earlier.take();
    let known_before = answers.len();
    // What is known from earlier sources is not kept for this one yet.
    let kept_before = if earlier.is_some() { 0 } else { known_before };
    let (told, tell) = unbounded();
    let ended = std::thread::scope(|scope| {
        let mut crew = Crew {
            scope,
            prepared: &prepared,
            stop,
            most: request.workers.max(1),
            is_enough: false,
            budget,
            meter,
            told,
            workers: Vec::new(),
            spread: Spread::default(),
            alone: VecDeque::new(),
            wordy: VecDeque::new(),
            word_by_word: None,
            for_words: Duration::ZERO,
            gone: 0,
            lost: None,
            progress: Progress::default(),
            answered: 0,
            available: u64::MAX,
            ended: false,
        };
        let mut desk = Desk {
            root,
            walk: &mut *walk,
            answers: &mut answers,
            earlier: &mut earlier,
            hear,
            waiting: VecDeque::new(),
        };
        crew.run(&tell, &mut desk, &|| prepared.find_sources(request));
        if let Some(Err(why)) = prepared.writing.through() {
            let text = format!("Nix writes the derivations itself, one by one: {why}");
            desk.say(Severity::Detail, text);
        }
        let left = crew.left();
        conclude(root, desk.walk, left, stop, desk.hear);
        crew.dismiss()
    });
    if let (Some(fingerprint), Some(keep)) = (&prepared.fingerprint, request.answers)
        && answers.len() > kept_before
        && let Some(bytes) = answers.to_bytes()
    {
        // With the inputs it can be evaluated elsewhere when something has changed.
        let mut needs = answers.needs();
        needs.extend(prepared.inputs_there(request));
        keep.keep(fingerprint, &bytes, &needs);
        if let Some(earlier) = earlier {
            let mut say = |text| hear(Heard::Said { severity: Severity::Detail, text });
            earlier.missed().into_iter().for_each(&mut say);
            let through = prepared.writing.through().and_then(Result::ok);
            let built = through.and_then(|through| through.built());
            if earlier.is_built_from(&request.nix, built.as_deref()) {
                say("nothing is kept for other sources, for something is built from this one by its path"
                    .to_owned());
            } else {
                earlier.keep(keep, &needs);
            }
        }
    }
    ended
}

/// Where answers go: to the walk, to whoever hears, and to those that are kept.
struct Desk<'d> {
    root: &'d Root,
    walk: &'d mut dyn Explore,
    answers: &'d mut Answers,
    earlier: &'d mut Option<Earlier>,
    hear: &'d mut dyn FnMut(Heard),
    /// What was found, and when it is told of: as soon as so many derivations are in the store.
    waiting: VecDeque<(u64, Vec<FoundTarget>)>,
}

impl Desk<'_> {
    /// What has to be asked for next: what is known is answered at once. Counts what was answered, and what did not
    /// evaluate.
    fn next(&mut self, progress: &mut Progress) -> Vec<Inspect> {
        let mut next = Vec::new();
        while let Some(inspect) = self.walk.take_next() {
            let Some(known) = self.known(&inspect) else {
                next.push(inspect);
                continue;
            };
            for (severity, text) in known.said {
                (self.hear)(Heard::Said { severity, text });
            }
            self.take_in(inspect, &known.answer, 0, progress);
        }
        if self.earlier.as_ref().is_some_and(Earlier::goes_backwards) {
            next.reverse();
        }
        next
    }

    /// What is known of an attribute. A derivation is the same whether all names below it are asked for or none.
    fn known(&self, inspect: &Inspect) -> Option<Known> {
        if let Some(known) = self.answers.get(&inspect.question()) {
            return Some(known.clone());
        }
        let wanted = match &inspect.wanted {
            _ if !inspect.is_plain() => return None,
            None => Some(Vec::new()),
            Some(names) if names.is_empty() => None,
            Some(_) => return None,
        };
        let mut other = inspect.clone();
        other.wanted = wanted;
        let known = self.answers.get(&other.question())?;
        known.is_derivation().then(|| known.clone())
    }

    /// Takes in an answer for which so many derivations have to be in the store.
    fn take_in(
        &mut self,
        inspect: Inspect,
        answer: &Result<String, String>,
        written: u64,
        progress: &mut Progress,
    ) {
        progress.done += 1;
        progress.failed += usize::from(answer.is_err());
        let found = self.walk.answer(inspect, answer.as_deref().map_err(Clone::clone));
        if self.waiting.is_empty() && written == 0 {
            tell_found(self.root, found, self.hear);
        } else if !found.is_empty() {
            self.waiting.push_back((written, found));
        }
    }

    /// Tells of what was found and waits for no more derivations than these.
    fn tell(&mut self, registered: u64) {
        while let Some((written, _)) = self.waiting.front()
            && *written <= registered
        {
            let found = self.waiting.pop_front().map(|(_, found)| found).unwrap_or_default();
            tell_found(self.root, found, self.hear);
        }
    }

    fn say(&mut self, severity: Severity, text: String) {
        (self.hear)(Heard::Said { severity, text });
    }
}

/// A worker as the crew sees it.
struct Worker<'scope> {
    jobs: Sender<Job>,
    thread: ScopedJoinHandle<'scope, Option<Evaluator>>,
    /// Its process, if it has one.
    handle: Option<Handle>,
    /// What its process had when it was last looked at.
    resident: u64,
    pace: Pace,
    at_work: Option<AtWork>,
}

/// What a worker is at.
struct AtWork {
    /// What is not answered; what it is at comes first.
    open: VecDeque<Inspect>,
    /// How many there were.
    many: usize,
    since: Instant,
    /// When it turned to the first of those that are not answered.
    turned: Instant,
    /// What the process had when it began.
    began: u64,
    /// It has the whole budget for itself.
    alone: bool,
    /// The process was stopped, when it had so much.
    killed: Option<u64>,
    /// It waits for a build.
    waits: bool,
    /// The process is asked for this first and for nothing else.
    is_first: bool,
    /// It is asked for again, for its words alone: they were this, in a process that had been asked for something else.
    again: Option<Wordy>,
}

/// An error that prints a value as far as that was evaluated when it came.
struct Wordy {
    inspect: Inspect,
    error: String,
    /// What the flake said on the way.
    said: Vec<(Severity, String)>,
    /// How much of its source had been read by then: no more is needed in a process of its own.
    read: Option<u32>,
}

impl AtWork {
    /// Strikes something that is answered from what is not; whether it was there.
    fn forget(&mut self, inspect: &Inspect) -> bool {
        let at = self.open.iter().position(|open| open == inspect);
        at.and_then(|at| self.open.remove(at)).is_some()
    }
}

struct Crew<'scope, 'env, 'c> {
    scope: &'scope Scope<'scope, 'env>,
    prepared: &'env Prepared,
    stop: &'env AtomicBool,
    /// How many workers there may be.
    most: usize,
    /// Whether no more could be started.
    is_enough: bool,
    budget: Budget,
    meter: &'c mut Meter,
    told: Sender<Told>,
    workers: Vec<Worker<'scope>>,
    spread: Spread<Inspect>,
    /// What needed more memory than there was, and is tried again with nobody beside it.
    alone: VecDeque<Inspect>,
    /// What has an error whose text is to be that of a process of its own.
    wordy: VecDeque<Wordy>,
    /// The worker that asks for those.
    word_by_word: Option<usize>,
    /// How long they took.
    for_words: Duration,
    /// How many workers will not answer any more.
    gone: usize,
    lost: Option<EvaluateError>,
    progress: Progress,
    /// How much was answered by processes.
    answered: usize,
    /// What the machine has left.
    available: u64,
    /// A process that answered something is gone.
    ended: bool,
}

impl Crew<'_, '_, '_> {
    /// Works until nothing is left, or until it is stopped. `before` is called if there is anything to do.
    fn run(&mut self, tell: &Receiver<Told>, desk: &mut Desk<'_>, before: &dyn Fn()) {
        self.progress.budget = self.budget.total();
        let next = desk.next(&mut self.progress);
        if !next.is_empty() {
            before();
        }
        self.spread.give(0, next);
        let mut looked = Instant::now();
        loop {
            if !self.stop.load(Ordering::Relaxed) && self.lost.is_none() {
                self.free();
                self.hand_out(desk);
            }
            if self.in_work() == self.gone {
                return self.tell_what_is_written(true, desk);
            }
            let heard = tell.recv_timeout(if desk.waiting.is_empty() { TICK } else { MOMENT });
            self.tell_what_is_written(false, desk);
            if looked.elapsed() >= TICK {
                // Each answer looks by itself; between two there may be more than the kernel keeps.
                if let Some(earlier) = desk.earlier {
                    earlier.look();
                }
                self.look(desk);
                looked = Instant::now();
            }
            match heard {
                Ok(heard) => self.heard(heard, desk),
                Err(RecvTimeoutError::Timeout) => (desk.hear)(Heard::Waiting),
                Err(RecvTimeoutError::Disconnected) => return self.tell_what_is_written(true, desk),
            }
        }
    }

    /// Tells of what was found and is in the store by now; of all, if it is to be waited for.
    fn tell_what_is_written(&mut self, wait: bool, desk: &mut Desk<'_>) {
        if desk.waiting.is_empty() {
            return;
        }
        let registered = match self.prepared.writing.through() {
            Some(Ok(through)) => through.registered(wait),
            _ => Ok(u64::MAX),
        };
        match registered {
            Ok(registered) => desk.tell(registered),
            Err(error) => {
                desk.waiting.clear();
                self.lost.get_or_insert(EvaluateError::Write(error));
            }
        }
    }

    fn in_work(&self) -> usize {
        self.workers.iter().filter(|worker| worker.at_work.is_some()).count()
    }

    /// Gives work to everybody for whom there is some, and room.
    fn hand_out(&mut self, desk: &mut Desk<'_>) {
        if self.workers.iter().any(|worker| worker.at_work.as_ref().is_some_and(|work| work.alone)) {
            return;
        }
        while !self.spread.is_empty() {
            let waiting =
                self.workers.iter().filter_map(|worker| worker.at_work.as_ref()).filter(|work| work.waits);
            // Who waits for a build needs no processor.
            let most = self.most + waiting.count().min(self.most);
            if self.in_work() >= most {
                return;
            }
            // Whoever has a process goes first.
            let idle = (0..self.workers.len()).filter(|&number| self.workers[number].at_work.is_none());
            let worker = idle.min_by_key(|&number| self.workers[number].handle.is_none());
            let resident = worker.map_or(0, |number| self.workers[number].resident);
            let fresh = self.budget.is_too_large(resident);
            let pace = worker.map_or_else(Pace::default, |number| self.workers[number].pace);
            let many = if fresh || self.budget.is_large(resident) {
                1
            } else {
                pace.many(self.spread.len(), self.most)
            };
            let others = self.loads(worker);
            if !self.budget.may_begin(if fresh { 0 } else { resident }, &others, self.available) {
                return;
            }
            let has_process = worker.is_some_and(|number| self.workers[number].handle.is_some());
            // One could not be started, and those that there are do.
            let is_enough = self.is_enough && self.workers.iter().any(|worker| worker.handle.is_some());
            if !has_process && (is_enough || !self.one_more_pays()) {
                return;
            }
            let worker = worker.unwrap_or_else(|| self.hire());
            let inspects = self.spread.take_some(worker, many, are_neighbours);
            self.begin(worker, inspects, fresh, false, desk);
        }
        if self.in_work() == 0
            && let Some(inspect) = self.alone.pop_front()
        {
            // Everybody else makes room.
            let worker = if self.workers.is_empty() { self.hire() } else { 0 };
            for number in 0..self.workers.len() {
                if number != worker {
                    self.ended |= self.workers[number].handle.is_some();
                    let _ = self.workers[number].jobs.send(Job::End);
                    self.workers[number].handle = None;
                    self.workers[number].resident = 0;
                }
            }
            self.begin(worker, vec![inspect], true, true, desk);
        }
        let mut told = false;
        while self.in_work() == 0
            && self.spread.is_empty()
            && let Some(wordy) = self.wordy.pop_front()
        {
            told |= self.ask_again(wordy, desk);
        }
        if told && !self.spread.is_empty() {
            self.hand_out(desk);
        }
    }

    /// Asks for something again for its words. Where that took too long by now, they are told as they are.
    fn ask_again(&mut self, wordy: Wordy, desk: &mut Desk<'_>) -> bool {
        let is_late = self.for_words >= FOR_WORDS;
        if is_late {
            self.take_in(0, wordy.inspect, &Err(wordy.error), desk);
        } else {
            // What others instantiated is protected by their processes.
            let worker = self.word_by_word.unwrap_or_else(|| self.hire());
            self.word_by_word = Some(worker);
            self.begin(worker, vec![wordy.inspect.clone()], true, false, desk);
            if let Some(work) = &mut self.workers[worker].at_work {
                work.again = Some(wordy);
            }
        }
        is_late
    }

    /// Whether one more process is worth its price.
    fn one_more_pays(&self) -> bool {
        let at_work = self.workers.iter().filter_map(|worker| Some((worker.pace, worker.at_work.as_ref()?)));
        let (mut pace, mut at_it) = (Pace::default(), Duration::MAX);
        for (other, work) in at_work.filter(|(_, work)| !work.waits) {
            (pace, at_it) = (other, at_it.min(work.turned.elapsed()));
        }
        pays(self.answered, self.spread.len(), pace, at_it)
    }

    fn begin(
        &mut self,
        number: usize,
        inspects: Vec<Inspect>,
        fresh: bool,
        alone: bool,
        desk: &mut Desk<'_>,
    ) {
        let Some(first) = inspects.first() else { return };
        let left = self.spread.len() + self.alone.len() + inspects.len() - 1;
        (desk.hear)(Heard::Evaluating { attr: first.path.clone(), left });
        let worker = &mut self.workers[number];
        let is_new = fresh || worker.handle.is_none() || self.prepared.asks_alone();
        if fresh {
            self.ended |= worker.handle.is_some();
            worker.handle = None;
            worker.resident = 0;
        }
        let (began, since, open) = (worker.resident, Instant::now(), VecDeque::from(inspects.clone()));
        let many = open.len();
        let (is_first, turned) = (is_new && many == 1, since);
        let work = AtWork {
            open,
            many,
            since,
            turned,
            began,
            alone,
            killed: None,
            waits: false,
            is_first,
            again: None,
        };
        worker.at_work = Some(work);
        // A worker that is gone has said so already.
        let _ = worker.jobs.send(Job::Ask { inspects, fresh });
    }

    /// Gives what is behind something slow to others, when they have nothing to do. The process comes to it all the
    /// same, and is not listened to.
    fn free(&mut self) {
        let has_idle = self.in_work() < self.most;
        for number in 0..self.workers.len() {
            let Some(work) = &mut self.workers[number].at_work else { continue };
            let is_slow = has_idle && work.turned.elapsed() >= SLOW;
            if work.open.len() > 1 && self.spread.is_empty() && (work.waits || is_slow) {
                self.spread.give(number, work.open.drain(1..).collect());
            }
        }
    }

    /// One more worker. Its process is started when it has work.
    fn hire(&mut self) -> usize {
        let (jobs, todo) = unbounded();
        let (number, told) = (self.workers.len(), self.told.clone());
        let (prepared, stop) = (self.prepared, self.stop);
        let thread = self.scope.spawn(move || work(number, prepared, &todo, &told, stop));
        self.workers.push(Worker {
            jobs,
            thread,
            handle: None,
            resident: 0,
            pace: Pace::default(),
            at_work: None,
        });
        number
    }

    /// What every process but one has.
    fn loads(&self, without: Option<usize>) -> Vec<Load> {
        let others = self.workers.iter().enumerate().filter(|(number, _)| Some(*number) != without);
        others
            .map(|(number, worker)| Load {
                worker: number,
                resident: worker.resident,
                began: worker.at_work.as_ref().map(|work| work.began),
            })
            .collect()
    }

    /// Looks at the memory, and stops a process if there is too little.
    fn look(&mut self, desk: &mut Desk<'_>) {
        let processes: Vec<Option<u32>> =
            self.workers.iter().map(|worker| worker.handle.as_ref().and_then(Handle::id)).collect();
        let ids: Vec<u32> = processes.iter().flatten().copied().collect();
        let mut resident = self.meter.resident(&ids).into_iter();
        for (worker, process) in self.workers.iter_mut().zip(&processes) {
            // What is gone had what it had when it was last seen, until that is told.
            let seen = process.and_then(|_| resident.next()).filter(|&bytes| bytes > 0);
            worker.resident = worker.handle.as_ref().map_or(0, |_| seen.unwrap_or(worker.resident));
        }
        self.available = self.meter.available();
        self.progress.memory = self.workers.iter().map(|worker| worker.resident).sum();
        self.progress.in_work = self.in_work();
        self.progress.left = self.spread.len() + self.alone.len();
        (desk.hear)(Heard::Progress(self.progress));
        // One at a time: its memory is free a moment later.
        let dying = self
            .workers
            .iter()
            .any(|worker| worker.at_work.as_ref().is_some_and(|work| work.killed.is_some()));
        if dying {
            return;
        }
        if let Some(victim) = self.budget.victim(&self.loads(None), self.available) {
            let worker = &mut self.workers[victim];
            if let (Some(work), Some(handle)) = (&mut worker.at_work, &worker.handle) {
                work.killed = Some(worker.resident);
                handle.kill();
            }
        }
    }

    fn heard(&mut self, told: Told, desk: &mut Desk<'_>) {
        match told {
            Told::Started { worker, handle } => self.workers[worker].handle = Some(handle),
            Told::Said { worker, said } => self.said(worker, said, desk),
            Told::Stopped => self.gone += 1,
            Told::Lost { worker, error } => self.lose(worker, error, desk),
            Told::SetAside { worker, inspect } => {
                if let Some(work) = &mut self.workers[worker].at_work
                    && work.forget(&inspect)
                {
                    work.open.push_back(inspect);
                    self.turn(worker, desk);
                }
            }
            Told::Answered { worker, inspect, reply } => self.answered(worker, inspect, reply, desk),
            Told::Done { worker } => self.done(worker),
        }
    }

    /// Why nobody can evaluate any more, where an error says that the store is out of reach, or something could not be written
    /// to it: no attribute is to blame.
    fn cut_off(&self, error: &str) -> Option<String> {
        let Some(Ok(through)) = self.prepared.writing.through() else {
            return is_without_daemon(error).then(|| error.to_owned());
        };
        let is_of_store = error.contains("remote store") || error.contains(NO_DAEMON);
        through.refused().or_else(|| is_of_store.then(|| through.is_gone()).flatten())
    }

    /// A worker cannot start a process. Others have what it was given, if there are any.
    fn lose(&mut self, number: usize, error: io::Error, desk: &mut Desk<'_>) {
        let others = self.workers.iter().filter(|worker| worker.handle.is_some()).count();
        match self.workers[number].at_work.take_if(|work| others > 0 && work.again.is_none()) {
            Some(work) => {
                self.most = others;
                self.is_enough = true;
                self.spread.give(number, work.open.into());
                let text = format!("no more than {others} of the evaluators could be started: {error}");
                desk.say(Severity::Warning, text);
            }
            None => {
                self.gone += 1;
                self.lost = Some(EvaluateError::Start(error));
            }
        }
    }

    fn said(&mut self, worker: usize, said: Said, desk: &mut Desk<'_>) {
        let Said { severity, text, building } = said;
        if self.workers[worker].at_work.as_ref().is_some_and(|work| work.again.is_some()) {
            // It was said before.
            return;
        }
        let text = match (&building, &mut self.workers[worker].at_work) {
            (Some(drv_path), Some(work)) => {
                work.waits = true;
                let attr = work.open.front().map(|inspect| inspect.path.to_string()).unwrap_or_default();
                format!("evaluation of {attr} waits for a build of {drv_path}")
            }
            _ => text,
        };
        desk.say(severity, text);
    }

    /// Says what a worker has turned to, when it has an answer.
    fn turn(&mut self, number: usize, desk: &mut Desk<'_>) {
        let Some(work) = &mut self.workers[number].at_work else { return };
        (work.turned, work.waits) = (Instant::now(), false);
        if let Some(next) = work.open.front() {
            let left = self.spread.len() + self.alone.len() + work.open.len() - 1;
            (desk.hear)(Heard::Evaluating { attr: next.path.clone(), left });
        }
    }

    /// A worker has done what it was given. What has no answer goes to others.
    fn done(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        let Some(work) = worker.at_work.take() else { return };
        if work.killed.is_none() && worker.resident > 0 {
            self.budget.learn(work.began, worker.resident);
        }
        worker.pace.learn(work.many, work.since.elapsed());
        self.spread.give(number, work.open.into());
    }

    fn answered(&mut self, number: usize, inspect: Inspect, reply: Reply, desk: &mut Desk<'_>) {
        let worker = &mut self.workers[number];
        let Some(work) = &mut worker.at_work else { return };
        let is_open = work.forget(&inspect);
        self.answered += 1;
        let (killed, alone, is_first, again) = (work.killed, work.alone, work.is_first, work.again.take());
        if again.is_some() {
            self.for_words += work.since.elapsed();
        }
        let read_before = again.as_ref().map(|first| first.read);
        let mut resident = 0;
        if matches!(reply, Reply::Died(_)) {
            self.ended = true;
            worker.handle = None;
            resident = std::mem::take(&mut worker.resident);
        }
        if !is_open {
            // Others have it by now.
            return;
        }
        if let Reply::Error { error, .. } = &reply
            && let Some(why) = self.cut_off(error)
        {
            self.lost.get_or_insert(EvaluateError::Write(why));
            return;
        }
        let (answer, known) = match reply {
            Reply::Died(_) if let Some(first) = again => (Err(first.error), None),
            Reply::Error { error, said, prints_progress: true, .. } if !is_first => {
                let read = desk.earlier.as_mut().and_then(Earlier::read);
                self.wordy.push_back(Wordy { inspect, error, said, read });
                self.turn(number, desk);
                return;
            }
            Reply::Text { json, said } => (Ok(json.clone()), Known::new(Ok(json), said)),
            Reply::Error { error, said, lasts, .. } => {
                let said = again.map_or(said, |first| first.said);
                let known = if lasts {
                    Known::new(Err(error.clone()), said)
                } else {
                    if let Some(earlier) = desk.earlier {
                        earlier.heard(said);
                    }
                    None
                };
                (Err(error), known)
            }
            Reply::Died(death) => {
                let may_be_memory = killed.is_some() || death.may_be_memory;
                if may_be_memory && !alone {
                    let text = format!("{} needs much memory: it is evaluated again alone", inspect.path);
                    desk.say(Severity::Detail, text);
                    self.alone.push_back(inspect);
                    return;
                }
                let error = match killed {
                    Some(resident) => self.too_much(resident),
                    None if may_be_memory && resident > 0 => {
                        format!("{}; it had {} when last seen", death.words, shown(resident))
                    }
                    None => death.words,
                };
                (Err(error), None)
            }
        };
        if let (Some(known), Some(_)) = (known, &self.prepared.fingerprint) {
            if let Some(earlier) = desk.earlier {
                let read = read_before.unwrap_or_else(|| earlier.read());
                earlier.answered(inspect.question(), known.clone(), read);
            }
            desk.answers.insert(inspect.question(), known);
        }
        self.take_in(number, inspect, &answer, desk);
        self.turn(number, desk);
    }

    /// Takes in an answer, and gives what follows from it to a worker.
    fn take_in(
        &mut self,
        number: usize,
        inspect: Inspect,
        answer: &Result<String, String>,
        desk: &mut Desk<'_>,
    ) {
        let written = match self.prepared.writing.through() {
            Some(Ok(through)) => through.written(),
            _ => 0,
        };
        desk.take_in(inspect, answer, written, &mut self.progress);
        let next = desk.next(&mut self.progress);
        self.spread.give(number, next);
    }

    /// What to say of something that needs more memory than there is.
    fn too_much(&self, resident: u64) -> String {
        if resident > self.budget.limit() {
            format!(
                "it needs more memory than evaluation may have: the evaluator was stopped when it had {}, alone, of {} \
                 (`--eval-memory` gives it more)",
                shown(resident),
                shown(self.budget.total())
            )
        } else {
            format!(
                "it needs more memory than this machine has left: the evaluator was stopped when it had {}, alone, and \
                 {} were available",
                shown(resident),
                shown(self.available)
            )
        }
    }

    /// What was not answered.
    fn left(&mut self) -> Vec<Inspect> {
        let in_work = self.workers.iter_mut().filter_map(|worker| worker.at_work.take());
        let mut left: Vec<Inspect> = in_work.flat_map(|work| work.open).collect();
        left.extend(self.spread.drain());
        left.extend(self.alone.drain(..));
        left.extend(self.wordy.drain(..).map(|wordy| wordy.inspect));
        left
    }

    /// Lets everybody go.
    fn dismiss(self) -> Result<Evaluators, EvaluateError> {
        let mut threads = BTreeMap::new();
        for (number, worker) in self.workers.into_iter().enumerate() {
            drop(worker.jobs);
            threads.insert(number, worker.thread);
        }
        let evaluators = threads.into_values().filter_map(|thread| thread.join().ok().flatten()).collect();
        match self.lost {
            Some(error) => Err(error),
            None => {
                let through = self.prepared.writing.through().and_then(Result::ok).cloned();
                let has_unprotected = self.ended && through.is_none();
                Ok(Evaluators::new(evaluators, through, has_unprotected))
            }
        }
    }
}
