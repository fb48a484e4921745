//! Planning a farm and simulating it: makespan beside the lower bound, and what planning, a step of the state
//! machine and a large simulation cost.
//!
//! `cargo bench --package phoenix-schedule --bench farm`. The real graph is that of a nixpkgs, one JSON object
//! a line (`drv`, `system`, `inputs` as line numbers, `fixed`, `attrs`), where `PHOENIX_BENCH_GRAPH` or
//! `../shared/data/nixpkgs-graph.jsonl.zst` has it; nothing of it is there to begin with. `-- --synthetic` leaves it out. How long its
//! derivations take is drawn by a fixed seed: a downloaded file 2 s, everything else 40 s in the median, times
//! a number whose logarithm is normally distributed with the deviation 1.2 (downloads: 0.8).

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a benchmark reads a file, a clock and the environment, and prints"
)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;
use phoenix_model::StorePath;
use phoenix_schedule::farm::FarmPlan;
use phoenix_schedule::simulation::{Conditions, Row, Story, compare, runners, share, simulate};
use phoenix_schedule::{Estimates, Grain, Plan, RunnerKind, RunnerKinds, Search};
use serde_json::Value;

const SEED: u64 = 20_261_123;
const RUNS: usize = 5;
const NUMBERS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// A derivation of a graph.
struct Node {
    drv: String,
    system: String,
    inputs: Vec<usize>,
    fixed: bool,
    target: bool,
}

fn main() {
    if !std::env::args().any(|arg| arg == "--synthetic") {
        match real_graph() {
            Some(nodes) => nixpkgs(&nodes),
            None => println!("nixpkgs graph: not present, skipped"),
        }
    }
    synthetic();
}

fn nixpkgs(nodes: &[Node]) {
    let mut plan = planned(nodes);
    let targets: Vec<u32> = plan.goals.iter().filter_map(|goal| goal.step).collect();
    let kinds = kinds();
    let mut seconds = Vec::new();
    let mut farm = FarmPlan::default();
    let mut auto = Vec::new();
    let mut decision = None;
    for _ in 0..RUNS {
        let begin = Instant::now();
        farm = FarmPlan::new(&mut plan, &kinds, &Grain::default());
        seconds.push(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        decision = Some(runners(&farm, &kinds, 64, false, &Conditions::default()));
        auto.push(begin.elapsed().as_secs_f64());
    }
    if let Some(decision) = decision {
        println!("auto: {} runners, {:.0} s", decision.runners(), decision.makespan_seconds);
        println!("tried: {:?}", decision.tried);
    }
    println!(
        "nixpkgs: {} derivations, {} units; {:.0} h of work, {:.2} h on the critical path",
        farm.derivations().len(),
        farm.units().len(),
        farm.total_seconds() / 3600.0,
        farm.critical_seconds() / 3600.0
    );
    println!("units and order: {}", shown(&mut seconds));
    println!("how many runners, of at most 64: {}", shown(&mut auto));
    table("everything but building takes no time", &farm, &kinds, &targets, 0.0, &Conditions::ideal());
    table("GitHub's runners", &farm, &kinds, &targets, 0.0, &Conditions::default());
    table("GitHub's runners, estimates off by e^±0.5", &farm, &kinds, &targets, 0.5, &Conditions::default());
    steps("nixpkgs", &farm, &kinds, 64, RUNS);
}

fn table(
    name: &str,
    farm: &FarmPlan,
    kinds: &RunnerKinds,
    targets: &[u32],
    noise: f64,
    conditions: &Conditions,
) {
    let story = Story::drawn(farm, SEED, noise, 0.0);
    let comparison = compare(farm, kinds, targets, &NUMBERS, &story, conditions);
    println!("{name}:");
    println!("runners  makespan h  bound h  ratio  true bound h  ratio  billed min  idle min  builds");
    for row in &comparison.rows {
        let true_bound = row.lower_bound_seconds.max(bound_by_starts(farm, &story, row.runners));
        let Row { runners, makespan_seconds, lower_bound_seconds, billed_minutes, idle_minutes, builds } =
            row;
        println!(
            "{runners:>7}  {:>10.2}  {:>7.2}  {:>5.3}  {:>12.2}  {:>5.3}  {billed_minutes:>10.0}  {idle_minutes:>8.0}  {builds:>6}",
            makespan_seconds / 3600.0,
            lower_bound_seconds / 3600.0,
            makespan_seconds / lower_bound_seconds,
            true_bound / 3600.0,
            makespan_seconds / true_bound,
        );
    }
    let separate = &comparison.separate;
    println!(
        "one a target: {} runners, {:.2} h, {:.0} min billed, {} builds",
        separate.runners,
        separate.makespan_seconds / 3600.0,
        separate.billed_minutes,
        separate.builds
    );
}

/// A lower bound that knows that not everything can begin at once: what has a long way before it cannot begin
/// before that is gone, so that for every time `t` nothing is over before `t` and the work that cannot begin
/// before `t`, shared by all; and the same backwards in time.
fn bound_by_starts(farm: &FarmPlan, story: &Story, runners: usize) -> f64 {
    let derivations = farm.derivations();
    let tails = phoenix_schedule::longest_paths(&story.seconds, |at| &derivations[at].inputs);
    let mut heads = vec![0.0_f64; derivations.len()];
    for (own, derivation) in derivations.iter().enumerate() {
        let ends =
            derivation.inputs.iter().map(|&input| heads[input as usize] + story.seconds[input as usize]);
        heads[own] = ends.fold(0.0, f64::max);
    }
    let after: Vec<f64> = tails.iter().zip(&story.seconds).map(|(tail, own)| tail - own).collect();
    let bound = |times: &[f64]| {
        let mut order: Vec<usize> = (0..times.len()).collect();
        order.sort_by(|&a, &b| times[b].total_cmp(&times[a]));
        let mut work = 0.0;
        order.into_iter().fold(0.0_f64, |most, at| {
            work += story.seconds[at];
            most.max(times[at] + work / runners as f64)
        })
    };
    bound(&heads).max(bound(&after))
}

/// What a step of the state machine costs, the queue and the ledger of the simulation included.
fn steps(name: &str, farm: &FarmPlan, kinds: &RunnerKinds, workers: usize, runs: usize) {
    let farm = Arc::new(farm.with_slots(kinds, &share(farm, kinds, workers)));
    let story = Story::as_expected(&farm);
    let mut seconds = Vec::new();
    let mut steps = 0;
    for _ in 0..runs {
        let begin = Instant::now();
        let simulated = simulate(&farm, &story, &Conditions::default());
        seconds.push(begin.elapsed().as_secs_f64());
        steps = simulated.steps;
        let requests = simulated.requests;
        assert!(simulated.builds.iter().all(|&builds| builds == 1), "everything is built once");
        if seconds.len() == runs {
            println!("{name}, {workers} workers: {requests:?} for {} units", farm.units().len());
        }
    }
    let mut each: Vec<f64> = seconds.iter().map(|seconds| seconds / steps as f64 * 1e6).collect();
    println!("{name}, {workers} workers, simulated: {}", shown(&mut seconds));
    println!("a step of {steps}, in microseconds: {}", shown(&mut each));
}

/// A graph as deep and dense as nixpkgs': each derivation needs up to 20 that were drawn before it, mostly
/// near ones.
fn synthetic() {
    let mut random = Rng::with_seed(SEED);
    let nodes: Vec<Node> = (0..100_000_usize)
        .map(|number| {
            let mut inputs: Vec<usize> = (0..random.usize(..21))
                .filter(|_| number > 0)
                .map(|_| {
                    if random.u8(..4) == 0 {
                        random.usize(..number)
                    } else {
                        number - 1 - random.usize(..number.min(2000))
                    }
                })
                .collect();
            inputs.sort_unstable();
            inputs.dedup();
            let drv = format!("/nix/store/{}-package-{number}-1.drv", hash(number));
            let fixed = random.u8(..4) == 0;
            Node { drv, system: "x86_64-linux".to_owned(), inputs, fixed, target: true }
        })
        .collect();
    let mut plan = planned(&nodes);
    let kinds = kinds();
    let coarse = Grain { worth_seconds: 600.0, ..Grain::default() };
    for (name, grain) in [("synthetic", Grain::default()), ("synthetic, coarse", coarse)] {
        let begin = Instant::now();
        let farm = FarmPlan::new(&mut plan, &kinds, &grain);
        println!(
            "{name}: {} derivations, {} units, planned in {:.2} s",
            farm.derivations().len(),
            farm.units().len(),
            begin.elapsed().as_secs_f64()
        );
        steps(name, &farm, &kinds, 256, 1);
    }
}

/// 32 digits, spread as hashes are.
fn hash(number: usize) -> String {
    let mut value = (number + 1) as u128 * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let digit = |_| {
        value = value.rotate_left(5);
        char::from(phoenix_model::NIX32_ALPHABET[(value % 32) as usize])
    };
    (0..32).map(digit).collect()
}

/// The plan in which everything is missing, as the search finds it, with drawn estimates.
fn planned(nodes: &[Node]) -> Plan {
    let mut estimates = Estimates::default();
    let mut random = Rng::with_seed(SEED);
    let mut search = Search::default();
    for node in nodes {
        let path = StorePath::parse(&node.drv).expect("a path");
        if node.target {
            search.add_goal(&path, &[]);
        }
    }
    let texts: std::collections::HashMap<&str, &Node> =
        nodes.iter().map(|node| (node.drv.as_str(), node)).collect();
    loop {
        let to_read = search.to_read();
        let to_ask = search.to_ask();
        if to_read.is_empty() && to_ask.is_empty() {
            break;
        }
        for question in to_ask {
            search.answer(&question.path, &phoenix_model::Status::Absent);
        }
        for path in to_read {
            let node = texts[path.as_str()];
            search.read(
                &path,
                phoenix_model::Derivation::parse(aterm(node, nodes).as_bytes())
                    .map_err(|error| error.to_string()),
            );
        }
    }
    let mut plan = search.into_plan(&estimates);
    for node in nodes {
        let path = StorePath::parse(&node.drv).expect("a path");
        let (median, sigma) = if node.fixed { (2.0, 0.8) } else { (40.0, 1.2) };
        estimates.learn(&path, median * (sigma * normal(&mut random)).exp());
    }
    for step in &mut plan.steps {
        step.estimate = estimates.seconds(&step.drv_path);
    }
    plan
}

fn normal(random: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

fn aterm(node: &Node, nodes: &[Node]) -> String {
    let inputs: Vec<String> =
        node.inputs.iter().map(|&input| format!("(\"{}\",[\"out\"])", nodes[input].drv)).collect();
    let (method, hash) = if node.fixed { ("sha256", "00") } else { ("", "") };
    format!(
        "Derive([(\"out\",\"{}\",\"{method}\",\"{hash}\")],[{}],[],\"{}\",\"/bin/sh\",[],[])",
        node.drv.trim_end_matches(".drv"),
        inputs.join(","),
        node.system
    )
}

/// One kind of runner for everything there is in the graphs.
fn kinds() -> RunnerKinds {
    RunnerKinds::new(vec![RunnerKind {
        systems: vec!["x86_64-linux".to_owned(), "i686-linux".to_owned()],
        features: vec!["kvm".to_owned(), "big-parallel".to_owned()],
        mandatory: vec![],
        runs_on: vec!["ubuntu-latest".to_owned()],
    }])
}

fn shown(figures: &mut [f64]) -> String {
    figures.sort_by(f64::total_cmp);
    format!(
        "{:.3} (median of {}; {:.3} to {:.3})",
        figures[figures.len() / 2],
        figures.len(),
        figures[0],
        figures[figures.len() - 1]
    )
}

fn real_graph() -> Option<Vec<Node>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = std::env::var_os("PHOENIX_BENCH_GRAPH")
        .map_or_else(|| root.join("../shared/data/nixpkgs-graph.jsonl.zst"), PathBuf::from);
    let mut text = String::new();
    zstd::Decoder::new(std::fs::File::open(file).ok()?).ok()?.read_to_string(&mut text).ok()?;
    let node = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        let string = |value: &Value| value.as_str().expect("a string").to_owned();
        let inputs = value["inputs"].as_array().expect("inputs").iter();
        Node {
            drv: string(&value["drv"]),
            system: string(&value["system"]),
            inputs: inputs
                .map(|input| usize::try_from(input.as_u64().expect("a number")).expect("small"))
                .collect(),
            fixed: value["fixed"].as_bool().unwrap_or(false),
            target: value["attrs"].as_array().is_some_and(|attrs| !attrs.is_empty()),
        }
    };
    Some(text.lines().map(node).collect())
}
