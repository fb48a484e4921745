//! Reading a graph of derivations, asking what is missing, and planning it: seconds and peak memory.
//!
//! `cargo bench --package phoenix-cli --bench graph`. The real graph is that of a nixpkgs, one JSON object
//! a line (`drv`, `system`, `outputs`, `inputs` as line numbers), where `PHOENIX_BENCH_GRAPH` or
//! `../shared/data/nixpkgs-graph.jsonl.zst` has it; the synthetic one is drawn by a fixed seed. Both are
//! written out as `.drv` files of realistic size and read again by a process of its own, so that the peak
//! memory is that of the work alone.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use phoenix_model::{Status, StorePath};
use phoenix_schedule::{Estimates, Search};
use phoenix_store::{Layout, ReadAhead};
use serde_json::Value;

/// The one phoenix has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: usize = 5;
const SYNTHETIC: usize = 100_000;

/// A derivation to write.
struct Node {
    drv: String,
    system: String,
    outputs: Vec<(String, String)>,
    inputs: Vec<usize>,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--measure") {
        measure(Path::new(&args[at + 1]));
        return;
    }
    if let Some(at) = args.iter().position(|arg| arg == "--read-only") {
        only_read(Path::new(&args[at + 1]));
        return;
    }
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    match real_graph() {
        Some(nodes) => bench(base, "nixpkgs", &nodes),
        None => println!("nixpkgs graph: not present, skipped"),
    }
    bench(base, "synthetic", &synthetic());
}

/// Writes a graph and has it measured several times.
fn bench(base: &Path, name: &str, nodes: &[Node]) {
    let directory = base.join(format!("graph-{name}"));
    let _ = std::fs::remove_dir_all(&directory);
    let store = directory.join("store");
    std::fs::create_dir_all(&store).expect("a directory");
    let mut bytes = 0;
    for node in nodes {
        let text = aterm(node, nodes);
        bytes += text.len();
        std::fs::write(store.join(base_name(&node.drv)), text).expect("a .drv file");
    }
    let mut is_input = vec![false; nodes.len()];
    for input in nodes.iter().flat_map(|node| &node.inputs) {
        is_input[*input] = true;
    }
    let goals: Vec<&str> = nodes
        .iter()
        .zip(&is_input)
        .filter(|(_, is_input)| !**is_input)
        .map(|(node, _)| node.drv.as_str())
        .collect();
    std::fs::write(directory.join("goals"), goals.join("\n")).expect("the goals");
    let edges: usize = nodes.iter().map(|node| node.inputs.len()).sum();
    println!(
        "{name}: {} derivations, {edges} edges, {} goals, {:.1} MB of .drv files",
        nodes.len(),
        goals.len(),
        bytes as f64 / 1e6
    );
    let (mut seconds, mut memory, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first pair warms the page cache.
    for pair in 0..=RUNS {
        let (floor, _) = figures("--read-only", &directory);
        let (whole, megabytes) = figures("--measure", &directory);
        if pair > 0 {
            seconds.push(whole);
            memory.push(megabytes);
            ratios.push(whole / floor);
        }
    }
    println!(
        "{name}: read, status and plan: {} s; peak memory {} MB",
        shown(&mut seconds),
        shown(&mut memory)
    );
    println!("{name}: times as long as one thread that only reads the same files: {}", shown(&mut ratios));
    let _ = std::fs::remove_dir_all(&directory);
}

/// What a process of this program prints: seconds and megabytes.
fn figures(what: &str, directory: &Path) -> (f64, f64) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let output = command.arg(what).arg(directory).output().expect("a measurement");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split_whitespace().map(|word| word.parse::<f64>().expect("a number"));
    (numbers.next().expect("seconds"), numbers.next().expect("megabytes"))
}

fn shown(figures: &mut [f64]) -> String {
    figures.sort_by(f64::total_cmp);
    let median = figures[figures.len() / 2];
    format!(
        "{median:.2} (median of {}; {:.2} to {:.2})",
        figures.len(),
        figures[0],
        figures[figures.len() - 1]
    )
}

/// Reads all files once, in this thread, and does nothing with them.
fn only_read(directory: &Path) {
    let start = Instant::now();
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory.join("store")).expect("the store") {
        bytes += std::fs::read(entry.expect("an entry").path()).expect("a file").len();
    }
    assert!(bytes > 0);
    println!("{} {}", start.elapsed().as_secs_f64(), peak_megabytes());
}

/// Does the work once, in this process, and prints seconds and megabytes.
fn measure(directory: &Path) {
    let goals = std::fs::read_to_string(directory.join("goals")).expect("the goals");
    let layout = Layout {
        store_dir: "/nix/store".to_owned(),
        real_dir: directory.join("store"),
        state_dir: directory.to_path_buf(),
        log_dir: directory.to_path_buf(),
    };
    let start = Instant::now();
    let mut search = Search::default();
    for goal in goals.lines() {
        search.add_goal(&StorePath::parse(goal).expect("a path"), &[]);
    }
    loop {
        let to_read = search.to_read_some(1024);
        let ahead = (!to_read.is_empty()).then(|| ReadAhead::start(&layout, to_read));
        let questions = search.to_ask();
        if questions.is_empty() && ahead.is_none() {
            break;
        }
        // The answer from memory: nothing exists, so everything has to be planned.
        for question in questions {
            search.answer(&question.path, &Status::Absent);
        }
        for (path, derivation) in ahead.into_iter().flat_map(ReadAhead::wait) {
            search.read(&path, derivation);
        }
    }
    let looked_at = search.len();
    let plan = search.into_plan(&Estimates::default());
    let urgency = plan.by_urgency();
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!((plan.steps.len(), urgency.len()), (looked_at, looked_at), "everything is planned");
    assert!(plan.steps.iter().all(|step| step.hopeless.is_none()), "everything was read");
    println!("{seconds} {}", peak_megabytes());
}

/// The peak of resident memory, where the system tells.
fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok())
        .map_or(0.0, |kb| kb / 1000.0)
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
        let outputs = value["outputs"].as_object().expect("outputs");
        let inputs = value["inputs"].as_array().expect("inputs").iter();
        Node {
            drv: string(&value["drv"]),
            system: string(&value["system"]),
            outputs: outputs.iter().map(|(name, path)| (name.clone(), string(path))).collect(),
            inputs: inputs
                .map(|input| usize::try_from(input.as_u64().expect("a number")).expect("small"))
                .collect(),
        }
    };
    Some(text.lines().map(node).collect())
}

/// A graph as deep and dense as nixpkgs': each derivation needs up to 20 that were drawn before it, mostly
/// near ones.
fn synthetic() -> Vec<Node> {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below.max(1)).expect("small")).expect("small")
    };
    (0..SYNTHETIC)
        .map(|number| {
            let mut inputs: Vec<usize> = (0..random(21))
                .filter(|_| number > 0)
                .map(|_| if random(4) == 0 { random(number) } else { number - 1 - random(number.min(2000)) })
                .collect();
            inputs.sort_unstable();
            inputs.dedup();
            // Spread as hashes are.
            let hash = |offset: usize| {
                let mut value = (number * 2 + offset + 1) as u128 * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
                (0..32)
                    .map(|_| {
                        value = value.rotate_left(5);
                        char::from(phoenix_model::NIX32_ALPHABET[(value % 32) as usize])
                    })
                    .collect::<String>()
            };
            Node {
                drv: format!("/nix/store/{}-package-{number}-1.{}.drv", hash(0), number % 50),
                system: "x86_64-linux".to_owned(),
                outputs: vec![(
                    "out".to_owned(),
                    format!("/nix/store/{}-package-{number}-1.{}", hash(1), number % 50),
                )],
                inputs,
            }
        })
        .collect()
}

/// The text of a `.drv` file, with an environment as large as nixpkgs' are.
fn aterm(node: &Node, nodes: &[Node]) -> String {
    let outputs: Vec<String> =
        node.outputs.iter().map(|(name, path)| format!("(\"{name}\",\"{path}\",\"\",\"\")")).collect();
    let inputs: Vec<String> = node
        .inputs
        .iter()
        .map(|&input| format!("(\"{}\",[\"{}\"])", nodes[input].drv, nodes[input].outputs[0].0))
        .collect();
    let environment = (0..12)
        .map(|number| {
            format!("(\"variable{number}\",\"{}\")", "some words \\\"quoted\\\" and $(run)\\n".repeat(4))
        })
        .collect::<Vec<_>>();
    format!(
        "Derive([{}],[{}],[\"/nix/store/{:032}-builder.sh\"],\"{}\",\"/bin/sh\",[\"-e\",\"builder.sh\"],[{}])",
        outputs.join(","),
        inputs.join(","),
        0,
        node.system,
        environment.join(",")
    )
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
