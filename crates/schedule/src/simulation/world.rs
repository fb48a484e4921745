//! Workers, their builds and their ledger, one event after another.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use phoenix_model::{FailureClass, Stamp};

use super::Story;
use super::ledger::Ledger;
use crate::farm::{
    Built, Command, Ends, Failure, FarmPlan, Leaving, Limits, Notice, Record, Slot, UnitId, Worker,
};

/// What runners and networks are like.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// Of everything below that is drawn.
    pub seed: u64,
    /// From asking for a runner to its first look at the ledger, in seconds; billed.
    pub start_up_seconds: f64,
    /// What a request to the ledger takes, in seconds.
    pub request_seconds: f64,
    /// How long a record is at most out of the others' sight, in seconds.
    pub delay_seconds: f64,
    /// How fast outputs go from a runner to where others find them, and from there to another.
    pub bytes_per_second: f64,
    /// What fetching and sending take beside their bytes, in seconds.
    pub exchange_seconds: f64,
    /// How many attempts (0 to 1) are broken off by what is not the unit's fault; of each unit the first two
    /// at most.
    pub interrupted: f64,
    /// Which workers die, and when, in seconds.
    pub deaths: Vec<(Slot, f64)>,
    /// In which slots of workers that died another one begins, and when, in seconds.
    pub restarts: Vec<(Slot, f64)>,
    /// How patient workers are.
    pub limits: Limits,
}

impl Default for Conditions {
    /// GitHub's runners on the artifact service: half a minute until Nix is there, requests of 0.1 s, 50 MB/s.
    fn default() -> Self {
        Self {
            seed: 0,
            start_up_seconds: 30.0,
            request_seconds: 0.1,
            delay_seconds: 0.5,
            bytes_per_second: 50e6,
            exchange_seconds: 0.3,
            interrupted: 0.0,
            deaths: Vec::new(),
            restarts: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Conditions {
    /// A world in which everything but building takes no time.
    #[must_use]
    pub fn ideal() -> Self {
        Self {
            start_up_seconds: 0.0,
            request_seconds: 0.0,
            delay_seconds: 0.0,
            bytes_per_second: f64::INFINITY,
            exchange_seconds: 0.0,
            ..Self::default()
        }
    }
}

/// How many requests went to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// Claims.
    pub claims: u64,
    /// Claims that somebody else had already.
    pub refused: u64,
    /// Records written.
    pub posts: u64,
    /// Looks at what is new.
    pub looks: u64,
    /// Looks at heartbeats.
    pub listens: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulated {
    /// From asking for runners to the last outcome, in seconds.
    pub makespan_seconds: f64,
    /// How long each worker's runner ran, in seconds.
    pub ran_seconds: Vec<f64>,
    /// How long all workers together built, in seconds.
    pub building_seconds: f64,
    /// How often each derivation was built.
    pub builds: Vec<u32>,
    /// What the ledger holds in the end.
    pub records: Vec<Record>,
    /// Requests to it.
    pub requests: Requests,
    /// Why each worker left; `None` for one that died.
    pub left: Vec<Option<Leaving>>,
    /// How many things the state machines were told; each record a worker was told counts.
    pub steps: u64,
}

impl Simulated {
    /// What is paid for: each runner's time, rounded up to whole minutes.
    #[must_use]
    pub fn billed_minutes(&self) -> f64 {
        self.ran_seconds.iter().map(|seconds| (seconds / 60.0).ceil()).sum()
    }

    /// How many units the worker claimed that claimed the most.
    #[must_use]
    pub fn most_claims(&self) -> usize {
        let mut claims = vec![0; self.left.len()];
        for record in &self.records {
            if let Record::Claim { slot, .. } = record
                && let Some(count) = claims.get_mut(slot.0 as usize)
            {
                *count += 1;
            }
        }
        claims.into_iter().max().unwrap_or_default()
    }

    /// How much of what is paid for was not building, in minutes.
    #[must_use]
    pub fn idle_minutes(&self) -> f64 {
        self.billed_minutes() - self.building_seconds / 60.0
    }
}

/// Something that will happen.
#[derive(Debug)]
enum Coming {
    Woken,
    News,
    Beats,
    ClaimArrives(u32, u32),
    ClaimAnswer(bool),
    Fetched,
    Ended(Box<Ends>),
    Sent(Box<Ends>),
    Interrupted,
    PostArrives(Box<Record>, bool),
    Posted(bool),
    Visible(Box<Record>),
    Dies,
    Restarts,
}

/// Something that will happen to a worker, unless it does something else before (`turn` has changed then).
#[derive(Debug)]
struct Entry {
    at: Stamp,
    number: u64,
    worker: usize,
    turn: u32,
    coming: Coming,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Runner {
    worker: Worker,
    cursor: usize,
    turn: u32,
    /// The unit it works on, and which outputs it has.
    unit: u32,
    has: Vec<bool>,
    /// What it builds of that, and when each is done.
    building: Vec<(Stamp, Built)>,
    ended: Option<Stamp>,
    left: Option<Leaving>,
}

struct World<'a> {
    plan: Arc<FarmPlan>,
    conditions: &'a Conditions,
    story: &'a Story,
    random: Rng,
    queue: BinaryHeap<Reverse<Entry>>,
    entries: u64,
    ledger: Ledger,
    runners: Vec<Runner>,
    /// What was built of units that were given back.
    kept: HashSet<u32>,
    simulated: Simulated,
    last_outcome: Stamp,
}

/// Lets the workers of a plan build it. Equal arguments have equal results.
#[must_use]
pub fn simulate(plan: &Arc<FarmPlan>, story: &Story, conditions: &Conditions) -> Simulated {
    let workers = plan.slots().len();
    let runners = (0..).map(Slot).take(workers).map(|slot| Runner {
        worker: Worker::new(plan, slot, conditions.limits),
        cursor: 0,
        turn: 0,
        unit: 0,
        has: vec![false; plan.units().len()],
        building: Vec::new(),
        ended: None,
        left: None,
    });
    let mut world = World {
        plan: Arc::clone(plan),
        conditions,
        story,
        random: Rng::with_seed(conditions.seed),
        queue: BinaryHeap::new(),
        entries: 0,
        ledger: Ledger::default(),
        runners: runners.collect(),
        kept: HashSet::new(),
        simulated: Simulated {
            makespan_seconds: 0.0,
            ran_seconds: Vec::new(),
            building_seconds: 0.0,
            builds: vec![0; plan.derivations().len()],
            records: Vec::new(),
            requests: Requests::default(),
            left: Vec::new(),
            steps: 0,
        },
        last_outcome: Stamp::default(),
    };
    world.run();
    world.into_simulated()
}

impl World<'_> {
    fn run(&mut self) {
        for worker in 0..self.runners.len() {
            self.after(Stamp::default(), self.conditions.start_up_seconds, worker, Coming::Woken);
        }
        for &(slot, seconds) in &self.conditions.deaths {
            if (slot.0 as usize) < self.runners.len() {
                self.push(after(Stamp::default(), seconds), slot.0 as usize, Coming::Dies);
            }
        }
        for &(slot, seconds) in &self.conditions.restarts {
            if (slot.0 as usize) < self.runners.len() {
                self.push(after(Stamp::default(), seconds), slot.0 as usize, Coming::Restarts);
            }
        }
        while let Some(Reverse(entry)) = self.queue.pop() {
            self.happens(entry);
        }
    }

    fn push(&mut self, at: Stamp, worker: usize, coming: Coming) {
        self.entries += 1;
        let turn = self.runners[worker].turn;
        self.queue.push(Reverse(Entry { at, number: self.entries, worker, turn, coming }));
    }

    fn after(&mut self, now: Stamp, seconds: f64, worker: usize, coming: Coming) {
        self.push(after(now, seconds), worker, coming);
    }

    fn happens(&mut self, entry: Entry) {
        let Entry { at, worker, turn, coming, .. } = entry;
        // What is under way in the ledger arrives, whatever became of its writer.
        let coming = match coming {
            Coming::Visible(record) => return self.ledger.show(*record),
            Coming::PostArrives(record, answer) => return self.post_arrives(at, worker, *record, answer),
            Coming::ClaimArrives(unit, attempt) => return self.claim_arrives(at, worker, unit, attempt),
            Coming::Restarts => return self.restarts(at, worker),
            other => other,
        };
        let runner = &mut self.runners[worker];
        if runner.ended.is_some() || (runner.turn != turn && !matches!(coming, Coming::Dies)) {
            return;
        }
        match coming {
            Coming::Dies => runner.ended = Some(at),
            Coming::Woken => self.tell(at, worker, Notice::Woken),
            Coming::News => self.news(at, worker),
            Coming::Beats => self.beats(at, worker),
            Coming::ClaimAnswer(true) => self.tell(at, worker, Notice::Claimed),
            Coming::ClaimAnswer(false) => self.tell(at, worker, Notice::Taken),
            Coming::Fetched => self.tell(at, worker, Notice::Fetched),
            Coming::Ended(ends) => self.ended(at, worker, ends),
            Coming::Sent(ends) => self.sent(at, worker, *ends),
            Coming::Interrupted => {
                let reason = "the connection was lost".to_owned();
                let ends = Ends { built: self.take_built(at, worker), ..Ends::default() };
                self.kept.extend(ends.built.iter().map(|built| built.derivation));
                self.tell(at, worker, Notice::Interrupted { reason, ends });
            }
            Coming::Posted(first) => self.tell(at, worker, Notice::Posted { first }),
            Coming::Visible(_) | Coming::PostArrives(..) | Coming::ClaimArrives(..) | Coming::Restarts => {}
        }
    }

    /// Somebody starts a worker again that died.
    fn restarts(&mut self, now: Stamp, worker: usize) {
        let runner = &mut self.runners[worker];
        if runner.ended.is_none() || runner.left.is_some() {
            return;
        }
        let slot = runner.worker.slot();
        let again = Worker::new(&self.plan, slot, self.conditions.limits);
        let has = vec![false; self.plan.units().len()];
        let turn = runner.turn + 1;
        let building = Vec::new();
        *runner = Runner { worker: again, cursor: 0, turn, unit: 0, has, building, ended: None, left: None };
        self.push(now, worker, Coming::Woken);
    }

    fn tell(&mut self, now: Stamp, worker: usize, notice: Notice<'_>) {
        self.simulated.steps += 1;
        let commands = self.runners[worker].worker.apply(now, notice);
        self.follow(now, worker, commands);
    }

    fn news(&mut self, now: Stamp, worker: usize) {
        let runner = &mut self.runners[worker];
        let records = self.ledger.since(runner.cursor);
        runner.cursor = self.ledger.len();
        self.simulated.steps += 1 + records.len() as u64;
        let commands = runner.worker.apply(now, Notice::News(records));
        self.follow(now, worker, commands);
    }

    fn beats(&mut self, now: Stamp, worker: usize) {
        // A beat a second, until the end.
        let started = after(Stamp::default(), self.conditions.start_up_seconds);
        let beats: Vec<(Slot, u64)> = (0..)
            .map(Slot)
            .zip(&self.runners)
            .filter(|_| now >= started)
            .map(|(slot, runner)| (slot, runner.ended.unwrap_or(now).0 / 1000))
            .collect();
        self.tell(now, worker, Notice::Beats(&beats));
    }

    fn follow(&mut self, now: Stamp, worker: usize, commands: Vec<Command>) {
        let request = self.conditions.request_seconds;
        for command in commands {
            match command {
                Command::Look => {
                    self.simulated.requests.looks += 1;
                    self.after(now, request, worker, Coming::News);
                }
                Command::Listen => {
                    self.simulated.requests.listens += 1;
                    self.after(now, request, worker, Coming::Beats);
                }
                Command::Tell(record) => {
                    self.simulated.requests.posts += 1;
                    self.after(now, request / 2.0, worker, Coming::PostArrives(Box::new(record), false));
                }
                Command::Post(record) => {
                    self.simulated.requests.posts += 1;
                    self.after(now, request / 2.0, worker, Coming::PostArrives(Box::new(record), true));
                }
                Command::Claim { unit, attempt } => {
                    self.simulated.requests.claims += 1;
                    self.after(now, request / 2.0, worker, Coming::ClaimArrives(unit.0, attempt));
                }
                Command::Fetch { unit, .. } => self.fetch(now, worker, unit),
                Command::Build { unit, derivations } => self.build(now, worker, unit, &derivations),
                Command::Abandon { .. } => {
                    self.runners[worker].turn += 1;
                    self.push(now, worker, Coming::Interrupted);
                }
                Command::Wait { until } => self.push(until, worker, Coming::Woken),
                Command::Leave(why) => {
                    let runner = &mut self.runners[worker];
                    runner.ended = Some(now);
                    runner.left = Some(why);
                }
            }
        }
    }

    fn claim_arrives(&mut self, now: Stamp, worker: usize, unit: u32, attempt: u32) {
        let won = self.ledger.claim(unit, attempt);
        if won {
            let slot = self.runners[worker].worker.slot();
            self.show(now, worker, Record::Claim { unit: UnitId(unit), attempt, slot });
        } else {
            self.simulated.requests.refused += 1;
        }
        self.after(now, self.conditions.request_seconds / 2.0, worker, Coming::ClaimAnswer(won));
    }

    fn post_arrives(&mut self, now: Stamp, worker: usize, record: Record, answer: bool) {
        let first = self.ledger.accepts(&record);
        if first {
            if matches!(record, Record::Outcome(_)) {
                self.last_outcome = now;
            }
            self.show(now, worker, record);
        }
        if answer {
            self.after(now, self.conditions.request_seconds / 2.0, worker, Coming::Posted(first));
        }
    }

    /// A record is in the ledger, and will be seen by and by.
    fn show(&mut self, now: Stamp, worker: usize, record: Record) {
        let delay = self.random.f64() * self.conditions.delay_seconds;
        self.after(now, delay, worker, Coming::Visible(Box::new(record)));
    }

    fn fetch(&mut self, now: Stamp, worker: usize, unit: UnitId) {
        let plan = Arc::clone(&self.plan);
        let runner = &mut self.runners[worker];
        runner.unit = unit.0;
        runner.building.clear();
        let mut bytes = 0;
        for &input in &plan.units()[unit.0 as usize].inputs {
            if !std::mem::replace(&mut runner.has[input as usize], true) {
                bytes += plan.units()[input as usize].shared_bytes;
            }
        }
        let seconds = if bytes == 0 { 0.0 } else { self.exchange_seconds(bytes) };
        self.after(now, seconds, worker, Coming::Fetched);
    }

    fn exchange_seconds(&self, bytes: u64) -> f64 {
        self.conditions.exchange_seconds + bytes as f64 / self.conditions.bytes_per_second
    }

    fn build(&mut self, now: Stamp, worker: usize, unit: UnitId, derivations: &[u32]) {
        let attempt = self.runners[worker].worker.board().attempt(unit.0);
        let mut draw = Rng::with_seed(self.conditions.seed ^ (u64::from(unit.0) << 8 | u64::from(attempt)));
        let interrupted = attempt <= 2 && draw.f64() < self.conditions.interrupted;
        let (mut building, mut failed) = (Vec::new(), Vec::new());
        let mut seconds = 0.0;
        let mut hindered: Vec<u32> = Vec::new();
        for &derivation in derivations {
            let index = derivation as usize;
            if self.plan.derivations()[index].inputs.iter().any(|input| hindered.contains(input)) {
                hindered.push(derivation);
                continue;
            }
            let cached = self.kept.contains(&derivation);
            let took = if cached { 0.0 } else { self.story.seconds[index] };
            seconds += took;
            let (class, message) = match (self.story.fails[index], self.story.killed[index]) {
                (true, _) => (FailureClass::Build, "builder failed with exit code 1"),
                (_, true) => (FailureClass::Killed, "builder failed due to signal 9 (Killed)"),
                _ => {
                    let built = Built { derivation, seconds: took, bytes: None, cached, ended: None };
                    building.push((after(now, seconds), built));
                    continue;
                }
            };
            hindered.push(derivation);
            let message = message.to_owned();
            failed.push(Failure { derivation, class, message, seconds: took, log: vec![], ended: None });
        }
        self.runners[worker].building = building;
        if interrupted {
            self.after(now, seconds * draw.f64(), worker, Coming::Interrupted);
        } else {
            self.simulated.building_seconds += seconds;
            self.after(now, seconds, worker, Coming::Ended(Box::new(Ends { failed, ..Ends::default() })));
        }
    }

    /// What a worker has built by now.
    fn take_built(&mut self, now: Stamp, worker: usize) -> Vec<Built> {
        let building = std::mem::take(&mut self.runners[worker].building);
        let built: Vec<Built> =
            building.into_iter().filter(|(at, _)| *at <= now).map(|(_, built)| built).collect();
        for built in built.iter().filter(|built| !built.cached) {
            self.simulated.builds[built.derivation as usize] += 1;
        }
        built
    }

    /// The builders are done; what others need is sent.
    fn ended(&mut self, now: Stamp, worker: usize, ends: Box<Ends>) {
        let unit = self.runners[worker].unit as usize;
        self.runners[worker].has[unit] = true;
        let bytes = self.plan.units()[unit].shared_bytes;
        let seconds = if bytes == 0 { 0.0 } else { self.exchange_seconds(bytes) };
        self.after(now, seconds, worker, Coming::Sent(ends));
    }

    fn sent(&mut self, now: Stamp, worker: usize, mut ends: Ends) {
        ends.built = self.take_built(now, worker);
        let killed = ends.failed.iter().find(|failure| failure.class.is_of_machine());
        if let Some(reason) = killed.map(|failure| failure.message.clone()) {
            self.kept.extend(ends.built.iter().map(|built| built.derivation));
            self.tell(now, worker, Notice::Interrupted { reason, ends });
        } else {
            let Ends { built, failed, parcel } = ends;
            self.tell(now, worker, Notice::Built { built, failed, parcel });
        }
    }

    fn into_simulated(self) -> Simulated {
        let zero = Stamp::default();
        let ran = self.runners.iter().map(|runner| runner.ended.unwrap_or(zero).seconds_since(zero));
        Simulated {
            makespan_seconds: self.last_outcome.seconds_since(zero),
            ran_seconds: ran.collect(),
            left: self.runners.into_iter().map(|runner| runner.left).collect(),
            records: self.ledger.into_records(),
            ..self.simulated
        }
    }
}

fn after(now: Stamp, seconds: f64) -> Stamp {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Stamp(now.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}
