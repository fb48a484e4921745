//! Workers on real ledgers, with builds that are pretended.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use phoenix_model::{FailureClass, StorePath};
use phoenix_schedule::farm::{Board, Built, Ends, FarmPlan, Leaving, Limits, Record, Slot, UnitId, Worker};
use phoenix_schedule::{Grain, Plan, RunnerKind, RunnerKinds, Step};
use phoenix_testkit::NatsServer;
use phoenix_work::testing::Pretend;
use phoenix_work::{
    ArtifactLedger, Cursor, Exchange, InProcess, Ledger, LedgerError, Parcels, Settings, Trouble, open, work,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

mod shelf;

use shelf::Shelf;

/// 20 targets that share 8 slow dependencies, each of 20 to 60 (hundredths of) seconds; a derivation is a unit.
fn plan(workers: usize) -> Arc<FarmPlan> {
    let mut steps: Vec<(f64, Vec<u32>)> = (0..8).map(|own| (20.0 + f64::from(own) * 5.0, vec![])).collect();
    steps.extend((0..20).map(|own| (10.0, vec![own % 8, (own * 3 + 1) % 8])));
    let steps = steps.into_iter().enumerate().map(|(number, (estimate, mut inputs))| {
        inputs.sort_unstable();
        inputs.dedup();
        Step {
            drv_path: StorePath::parse(&format!("/nix/store/{number:032}-p{number}.drv")).unwrap(),
            system: "x86_64-linux".into(),
            outputs: std::iter::once(None).collect(),
            inputs,
            estimate,
            bytes: 0,
            rides: false,
            fixed_output: false,
            rank: 0.0,
            unknown: false,
            required_features: vec![],
            hopeless: None,
        }
    });
    let mut plan = Plan { steps: steps.collect(), ..Plan::default() };
    let kinds = RunnerKinds::new(vec![RunnerKind {
        systems: vec!["x86_64-linux".to_owned()],
        features: vec![],
        mandatory: vec![],
        runs_on: vec!["here".to_owned()],
    }]);
    Arc::new(FarmPlan::new(&mut plan, &kinds, &Grain::finest()).with_slots(&kinds, &[workers]))
}

/// A hundredth of a second for a second.
const SCALE: f64 = 0.01;

/// A worker that is alive may get no processor for a second or two.
fn limits() -> Limits {
    Limits { lapse_seconds: 3.0, poll_seconds: (0.01, 0.05), stranded_seconds: 20.0, ..Limits::default() }
}

fn settings() -> Settings {
    Settings {
        beat: Duration::from_millis(100),
        look: Duration::from_millis(50),
        patience: Duration::from_secs(20),
    }
}

type Running = tokio::task::JoinHandle<Leaving>;

fn start(
    plan: &Arc<FarmPlan>,
    slot: u32,
    ledger: Arc<dyn Ledger>,
    exchange: &Pretend,
    limits: Limits,
    stop: watch::Receiver<Option<String>>,
) -> Running {
    let (worker, exchange) = (Worker::new(plan, Slot(slot), limits), exchange.clone());
    tokio::spawn(async move { work(worker, &*ledger, &exchange, &settings(), stop).await })
}

/// What the ledger says in the end.
async fn board(plan: &Arc<FarmPlan>, ledger: &dyn Ledger) -> Board {
    let mut board = Board::new(plan, vec![], limits());
    let end = Instant::now() + Duration::from_secs(10);
    let mut cursor = Cursor::default();
    while !board.is_over() && Instant::now() < end {
        board.read(phoenix_model::Stamp(0), &ledger.since(&mut cursor).await.unwrap());
        sleep(Duration::from_millis(5)).await;
    }
    board
}

/// Four workers, each with a ledger object of its own.
async fn all_is_built_once(url: &str) {
    let plan = plan(4);
    let exchange = Pretend::new(&plan, SCALE, vec![]);
    let (_stop, stopped) = watch::channel(None);
    let mut workers = Vec::new();
    for slot in 0..4 {
        let ledger = Arc::from(open(url).await.unwrap());
        workers.push(start(&plan, slot, ledger, &exchange, limits(), stopped.clone()));
    }
    for worker in workers {
        assert!(matches!(worker.await.unwrap(), Leaving::Done | Leaving::NotNeeded));
    }
    assert_eq!(exchange.builds(), vec![1; 28]);
    // What came next was often known before it came.
    assert!(exchange.ahead().iter().all(|unit| unit.0 < 28) && !exchange.ahead().is_empty());
    let board = board(&plan, &*open(url).await.unwrap()).await;
    assert!(board.is_over() && board.failed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn four_workers_on_a_directory_build_everything_once() {
    let directory = tempfile::tempdir().unwrap();
    all_is_built_once(&format!("dir:{}", directory.path().display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_workers_on_nats_build_everything_once() {
    let Some(server) = NatsServer::start() else { return };
    all_is_built_once(&format!("{}/workers", server.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_worker_is_killed_others_do_its_work() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("dir:{}", directory.path().display());
    let plan = plan(3);
    let exchange = Pretend::new(&plan, SCALE, vec![]);
    let (_stop, stopped) = watch::channel(None);
    let mut workers = Vec::new();
    for slot in 0..3 {
        let ledger = Arc::from(open(&url).await.unwrap());
        workers.push(start(&plan, slot, ledger, &exchange, limits(), stopped.clone()));
    }
    sleep(Duration::from_millis(300)).await;
    let killed = workers.remove(1);
    killed.abort();
    for worker in workers {
        assert!(matches!(worker.await.unwrap(), Leaving::Done | Leaving::NotNeeded));
    }
    // What it had posted stands; what it was at was built by another.
    assert!(exchange.builds().iter().all(|&builds| builds == 1), "{:?}", exchange.builds());
    assert!(board(&plan, &*open(&url).await.unwrap()).await.is_over());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_blocks_its_dependents_and_what_goes_wrong_is_tried_elsewhere() {
    let plan = plan(3);
    let mut fails = vec![false; 28];
    fails[1] = true;
    let exchange = Pretend::new(&plan, SCALE, fails);
    exchange.trouble(2);
    let ledger = InProcess::default();
    let (_stop, stopped) = watch::channel(None);
    let workers: Vec<_> = (0..3)
        .map(|slot| start(&plan, slot, Arc::new(ledger.clone()), &exchange, limits(), stopped.clone()))
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let board = board(&plan, &ledger).await;
    assert!(board.is_over());
    let failed: Vec<_> = board.failed().values().map(|failure| (failure.derivation, failure.class)).collect();
    assert_eq!(failed, [(1, FailureClass::Build)]);
    for (own, derivation) in plan.derivations().iter().enumerate() {
        let expected = u32::from(own != 1 && !derivation.inputs.contains(&1));
        assert_eq!(exchange.builds()[own], expected, "{own}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_stop_gives_its_unit_back_at_once() {
    let plan = plan(2);
    let exchange = Pretend::new(&plan, SCALE, vec![]);
    let ledger = InProcess::default();
    let (stop, stopped) = watch::channel(None);
    let (_never, goes_on) = watch::channel(None);
    // Only the return can free the unit in time.
    let limits = Limits { lapse_seconds: 60.0, ..limits() };
    let first = start(&plan, 0, Arc::new(ledger.clone()), &exchange, limits, stopped);
    let second = start(&plan, 1, Arc::new(ledger.clone()), &exchange, limits, goes_on);
    sleep(Duration::from_millis(100)).await;
    stop.send(Some("SIGTERM".to_owned())).unwrap();
    assert_eq!(first.await.unwrap(), Leaving::Stopped("SIGTERM".to_owned()));
    assert_eq!(second.await.unwrap(), Leaving::Done);
    assert_eq!(exchange.builds(), vec![1; 28]);
    let records = ledger.since(&mut Cursor::default()).await.unwrap();
    let returned = |record: &&Record| matches!(record, Record::Returned(returned) if returned.stopped);
    assert_eq!(records.iter().filter(returned).count(), 1);
}

/// An exchange whose builds never end, of which a part is done when they are broken off.
#[derive(Debug)]
struct Endless {
    built: Ends,
    fetched: watch::Sender<Vec<String>>,
}

#[async_trait::async_trait]
impl Exchange for Endless {
    async fn fetch(&self, unit: UnitId, _: &[u32], parcels: &Arc<Parcels>) -> Result<(), Trouble> {
        self.fetched.send_replace(parcels.of(unit).to_vec());
        Ok(())
    }
    async fn build(&self, _: UnitId, _: &[u32]) -> Result<Ends, Trouble> {
        std::future::pending().await
    }
    async fn broken_off(&self, _: UnitId) -> Ends {
        self.built.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_unit_over_is_told_where_that_is_which_was_built_of_it() {
    let plan = plan(2);
    let ledger = InProcess::default();
    let first = UnitId(plan.at_place(0));
    let derivation = plan.units()[first.0 as usize].members[0];
    let built = vec![Built { derivation, seconds: 2.0, bytes: None, cached: false, ended: None }];
    let parcel = Some("packs/part".to_owned());
    let (stop, stopped) = watch::channel(None);
    let works = |slot: u32, built: Ends, stopped: watch::Receiver<Option<String>>| {
        let (fetched, seen) = watch::channel(vec![]);
        let (worker, ledger) = (Worker::new(&plan, Slot(slot), limits()), ledger.clone());
        let running = tokio::spawn(async move {
            work(worker, &ledger, &Endless { built, fetched }, &settings(), stopped).await
        });
        (running, seen)
    };
    let ends = Ends { built: built.clone(), parcel: parcel.clone(), ..Ends::default() };
    let (running, mut seen) = works(0, ends, stopped);
    seen.changed().await.unwrap();
    sleep(Duration::from_millis(50)).await;
    stop.send(Some("SIGTERM".to_owned())).unwrap();
    assert_eq!(running.await.unwrap(), Leaving::Stopped("SIGTERM".to_owned()));
    let records = ledger.since(&mut Cursor::default()).await.unwrap();
    let returned = records.iter().find_map(|record| match record {
        Record::Returned(returned) => Some(returned),
        _ => None,
    });
    let returned = returned.unwrap();
    assert_eq!((returned.unit, &returned.built, &returned.parcel), (first, &built, &parcel));
    let (_never, goes_on) = watch::channel(None);
    let (running, mut seen) = works(1, Ends::default(), goes_on);
    assert_eq!(*seen.wait_for(|seen| !seen.is_empty()).await.unwrap(), ["packs/part"]);
    running.abort();
}

/// A ledger behind a network that can be cut.
#[derive(Debug, Clone)]
struct Cut {
    ledger: InProcess,
    is_cut: Arc<AtomicBool>,
}

impl Cut {
    fn check(&self) -> Result<(), LedgerError> {
        if !self.is_cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        let problem = "connection refused".to_owned();
        Err(LedgerError {
            location: "cut".to_owned(),
            doing: "being asked".to_owned(),
            problem,
            is_full: false,
        })
    }
}

#[async_trait::async_trait]
impl Ledger for Cut {
    fn location(&self) -> &'static str {
        "cut"
    }
    async fn claim(&self, unit: UnitId, attempt: u32, slot: Slot) -> Result<bool, LedgerError> {
        self.check()?;
        let won = self.ledger.claim(unit, attempt, slot).await?;
        // The answer can be lost where the request was not.
        self.check().map(|()| won)
    }
    async fn post(&self, record: &Record) -> Result<bool, LedgerError> {
        self.check()?;
        self.ledger.post(record).await
    }
    async fn since(&self, cursor: &mut Cursor) -> Result<Vec<Record>, LedgerError> {
        self.check()?;
        self.ledger.since(cursor).await
    }
    async fn beat(&self, slot: Slot, count: u64) -> Result<(), LedgerError> {
        self.check()?;
        self.ledger.beat(slot, count).await
    }
    async fn beats(&self) -> Result<Vec<(Slot, u64)>, LedgerError> {
        self.check()?;
        self.ledger.beats().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_for_a_while_loses_nothing() {
    let plan = plan(2);
    let exchange = Pretend::new(&plan, SCALE, vec![]);
    let ledger = InProcess::default();
    let is_cut = Arc::new(AtomicBool::new(false));
    let (_stop, stopped) = watch::channel(None);
    let cut = Arc::new(Cut { ledger: ledger.clone(), is_cut: Arc::clone(&is_cut) });
    let limits = Limits { lapse_seconds: 1.0, ..limits() };
    let first = start(&plan, 0, cut, &exchange, limits, stopped.clone());
    let second = start(&plan, 1, Arc::new(ledger.clone()), &exchange, limits, stopped);
    sleep(Duration::from_millis(200)).await;
    is_cut.store(true, Ordering::SeqCst);
    // Long enough for its claim to lapse and its unit to be built by the other as well.
    sleep(Duration::from_millis(2500)).await;
    is_cut.store(false, Ordering::SeqCst);
    first.await.unwrap();
    second.await.unwrap();
    let builds = exchange.builds();
    assert!(builds.iter().all(|&builds| builds >= 1) && builds.iter().sum::<u32>() <= 30, "{builds:?}");
    let board = board(&plan, &ledger).await;
    assert!(board.is_over() && board.failed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_make_no_more_artifacts_leaves_at_once_and_the_others_go_on() {
    let plan = plan(2);
    let exchange = Pretend::new(&plan, SCALE, vec![]);
    let shelf = Shelf::default();
    let ledger = |most| {
        let ledger = ArtifactLedger::new(shelf.of_job(most), "artifacts:", "run").unwrap();
        Arc::new(ledger.with_presence(Duration::from_millis(100))) as Arc<dyn Ledger>
    };
    let (_stop, stopped) = watch::channel(None);
    // Some claims, and a reserve for all else. Of its kind it is not the one with the smallest number, which is red.
    let first = start(&plan, 1, ledger(70), &exchange, limits(), stopped.clone());
    let second = start(&plan, 0, ledger(499), &exchange, limits(), stopped);
    let begun = Instant::now();
    let Leaving::Spent { reason, others } = first.await.unwrap() else { panic!("it had enough") };
    assert!(begun.elapsed() < Duration::from_secs(10), "it does not ask again");
    assert!(others && reason.contains("of the 500 artifacts that a job may make"), "{reason}");
    assert_eq!(second.await.unwrap(), Leaving::Done);
    assert_eq!(exchange.builds(), vec![1; 28], "nothing of it is lost, and nothing is built twice");
    let board = board(&plan, &*ledger(500)).await;
    assert!(board.is_over() && board.failed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_does_not_come_back_ends_the_worker_with_its_words() {
    let plan = plan(1);
    let exchange = Pretend::new(&plan, SCALE, vec![]);
    let cut = Cut { ledger: InProcess::default(), is_cut: Arc::new(AtomicBool::new(true)) };
    let (_stop, stopped) = watch::channel(None);
    let settings = Settings { patience: Duration::from_millis(300), ..settings() };
    let leaving = work(Worker::new(&plan, Slot(0), limits()), &cut, &exchange, &settings, stopped).await;
    let Leaving::LedgerLost(reason) = leaving else { panic!("{leaving:?}") };
    assert_eq!(reason, "the ledger cut failed while being asked: connection refused");
}
