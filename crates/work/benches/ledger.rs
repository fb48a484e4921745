//! What a unit costs beyond its building: claim, fetch of nothing, outcome, and looks at what is new.
//!
//! `cargo bench --package phoenix-work --bench ledger`. Units of no length on the ledger of a directory, by one
//! worker and by four in one process, each with a ledger object of its own; the time of all, for each unit.

use std::sync::Arc;
use std::time::Instant;

use phoenix_model::StorePath;
use phoenix_schedule::farm::{FarmPlan, Limits, Slot, Worker};
use phoenix_schedule::{Grain, Plan, RunnerKind, RunnerKinds, Step};
use phoenix_work::testing::Pretend;
use phoenix_work::{Directory, Settings, work};
use tokio::sync::watch;

const UNITS: usize = 1000;
const RUNS: usize = 5;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for workers in [1, 4] {
        let mut milliseconds: Vec<f64> = (0..RUNS).map(|_| runtime.block_on(run(workers))).collect();
        milliseconds.sort_by(f64::total_cmp);
        println!(
            "{workers} workers: {:.2} ms a unit (median of {RUNS}; {:.2} to {:.2})",
            milliseconds[RUNS / 2],
            milliseconds[0],
            milliseconds[RUNS - 1]
        );
    }
}

async fn run(workers: usize) -> f64 {
    let directory = tempfile::tempdir().expect("a directory");
    let plan = plan(workers);
    let exchange = Pretend::new(&plan, 0.0, vec![]);
    let (_stop, stopped) = watch::channel(None);
    let begin = Instant::now();
    let running: Vec<_> = (0..)
        .map(Slot)
        .take(workers)
        .map(|slot| {
            let ledger = Directory::open(directory.path()).expect("a ledger");
            let worker = Worker::new(&plan, slot, Limits::default());
            let (exchange, stopped) = (exchange.clone(), stopped.clone());
            tokio::spawn(async move { work(worker, &ledger, &exchange, &Settings::default(), stopped).await })
        })
        .collect();
    for worker in running {
        worker.await.expect("a worker");
    }
    assert!(exchange.builds().iter().all(|&builds| builds == 1), "everything is built once");
    begin.elapsed().as_secs_f64() * 1000.0 / UNITS as f64
}

fn plan(workers: usize) -> Arc<FarmPlan> {
    let steps = (0..UNITS).map(|number| Step {
        drv_path: StorePath::parse(&format!("/nix/store/{number:032}-p{number}.drv")).expect("a path"),
        system: "x86_64-linux".into(),
        outputs: std::iter::once(None).collect(),
        inputs: vec![],
        estimate: 0.0,
        bytes: 0,
        rides: false,
        fixed_output: false,
        rank: 0.0,
        unknown: false,
        required_features: vec![],
        hopeless: None,
    });
    let mut plan = Plan { steps: steps.collect(), ..Plan::default() };
    let kinds = RunnerKinds::new(vec![RunnerKind {
        systems: vec!["x86_64-linux".to_owned()],
        features: vec![],
        mandatory: vec![],
        runs_on: vec![],
    }]);
    Arc::new(FarmPlan::new(&mut plan, &kinds, &Grain::finest()).with_slots(&kinds, &[workers]))
}
