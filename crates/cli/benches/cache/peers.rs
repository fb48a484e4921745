//! Other caches that keep store paths in GitHub's cache, where they are given, beside ours.
//!
//! They are run as their actions run them. They know no store but `/nix/store`, so the whole benchmark then has a
//! directory of its own at `/nix`.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::double::Double;
use crate::measure::{Running, Took, measure};
use crate::place::{Place, path_with};

/// A cache that is given by an environment variable, and the names that it has in tables: with nothing and with 50 ms
/// before each answer.
struct Peer {
    variable: &'static str,
    tools: [&'static str; 2],
    /// Whether Nix takes paths from it as from a substituter.
    serves: bool,
}

const PEERS: [Peer; 3] = [
    Peer {
        variable: "PHOENIX_BENCH_CACHE_NIX_ACTION",
        tools: ["cache-nix-action 0", "cache-nix-action 50"],
        serves: false,
    },
    Peer { variable: "PHOENIX_BENCH_HESTIA", tools: ["hestia 0", "hestia 50"], serves: true },
    Peer {
        variable: "PHOENIX_BENCH_MAGIC_NIX_CACHE",
        tools: ["magic-nix-cache 0", "magic-nix-cache 50"],
        serves: true,
    },
];

/// The name of a tool without what it waits for.
pub(crate) fn family(tool: &str) -> &str {
    tool.split(' ').next().unwrap_or(tool)
}

/// How long the double waits before it answers this tool.
pub(crate) fn latency(tool: &str) -> Duration {
    Duration::from_millis(tool.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0))
}

fn given(peer: &Peer) -> Option<PathBuf> {
    std::env::var_os(peer.variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Whether any is given.
pub(crate) fn any() -> bool {
    PEERS.iter().any(|peer| given(peer).is_some())
}

/// Says which are not given.
pub(crate) fn say_what_is_absent() {
    for peer in PEERS.iter().filter(|peer| given(peer).is_none()) {
        println!("skipped: {}, for {} is not set", family(peer.tools[0]), peer.variable);
    }
}

/// The names in tables of those that are given.
pub(crate) fn tools() -> Vec<&'static str> {
    PEERS.iter().filter(|peer| given(peer).is_some()).flat_map(|peer| peer.tools).collect()
}

/// The same, of those that are substituters.
pub(crate) fn substituters() -> Vec<&'static str> {
    PEERS.iter().filter(|peer| peer.serves && given(peer).is_some()).flat_map(|peer| peer.tools).collect()
}

/// Whether a tool is a peer.
pub(crate) fn is_peer(tool: &str) -> bool {
    PEERS.iter().any(|peer| family(peer.tools[0]) == family(tool))
}

fn program(tool: &str) -> PathBuf {
    let peer = PEERS.iter().find(|peer| family(peer.tools[0]) == family(tool)).expect("a peer");
    given(peer).expect("one that is given")
}

/// A peer saves the closure of a path. Starting a service is not part of it: a job does that at its beginning.
pub(crate) fn save(place: &Place, double: &Double, tool: &str, top: &str) -> Took {
    let took = match family(tool) {
        "cache-nix-action" => measure(&mut cache_nix_action(place, double, "save-only")),
        "hestia" => {
            let (service, socket) = hestia(place, double);
            wait_for(|| socket.exists());
            let mut hook = place.command(program(tool));
            hook.arg("hook").arg("--socket").arg(&socket).arg(top);
            let mut drain = place.command(program(tool));
            drain.arg("drain").arg("--socket").arg(&socket);
            service.took([measure(&mut hook), measure(&mut drain)])
        }
        _ => {
            let (service, url) = magic_nix_cache(place, double);
            let post = |path: &str, body: &str| {
                let mut curl = place.command("curl");
                curl.args([
                    "--fail",
                    "--silent",
                    "--show-error",
                    "--header",
                    "content-type: application/json",
                ]);
                measure(curl.args(["--data", body, &format!("{url}/api/{path}")]))
            };
            let enqueue = post("enqueue-paths", &format!("{{\"store_paths\": [\"{top}\"]}}"));
            service.took([enqueue, post("workflow-finish", "{}")])
        }
    };
    // None of them fails when it could not save.
    assert!(!double.github.entries().is_empty(), "{tool} saved nothing");
    took
}

/// A peer restores the closure into an empty store, in bulk if it can; its service is started for it.
pub(crate) fn restore(place: &Place, double: &Double, tool: &str, top: &str) -> Took {
    if family(tool) == "cache-nix-action" {
        return measure(&mut cache_nix_action(place, double, "restore-only"));
    }
    let start = Instant::now();
    let (service, url) = serve(place, double, tool);
    let ready = Took { seconds: start.elapsed().as_secs_f64(), memory: 0.0 };
    if family(tool) == "hestia" {
        let hash = Path::new(top).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let hash = hash.split('-').next().unwrap_or_default();
        let mut import = place.command("bash");
        let script =
            format!("set -o pipefail; curl -fsS {url}/closure/{hash} | nix-store --import > /dev/null");
        return service.took([ready, measure(import.args(["-c", &script]))]);
    }
    service.took([ready, measure(&mut realise(place, &format!("{url}?trusted=1"), top))])
}

/// Starts the service that is a substituter, and returns its URL.
pub(crate) fn serve(place: &Place, double: &Double, tool: &str) -> (Running, String) {
    if family(tool) != "hestia" {
        return magic_nix_cache(place, double);
    }
    let (service, _) = hestia(place, double);
    let url = service.url.clone();
    (service, url)
}

/// Nix takes a closure from a substituter.
pub(crate) fn realise(place: &Place, url: &str, top: &str) -> Command {
    let mut command = place.command("nix-store");
    command.args(["--realise", top, "-j0"]);
    let options = [("substituters", url), ("require-sigs", "false"), ("narinfo-cache-positive-ttl", "0")];
    for (name, value) in options {
        command.args(["--option", name, value]);
    }
    command
}

/// What a job's environment says.
fn job(place: &Place, double: &Double, command: &mut Command) {
    let directory = place.path("runner");
    std::fs::create_dir_all(&directory).expect("a directory");
    let url = double.github.url();
    command
        .env("ACTIONS_CACHE_SERVICE_V2", "true")
        .env("ACTIONS_CACHE_URL", url)
        .env("ACTIONS_RESULTS_URL", url)
        .env("ACTIONS_RUNTIME_TOKEN", &double.token)
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_API_URL", url.trim_end_matches('/'))
        .env("GITHUB_REF", "refs/heads/main")
        .env("GITHUB_REF_NAME", "main")
        .env("GITHUB_REPOSITORY", double.github.repository())
        .env("GITHUB_RUN_ID", "1")
        .env("RUNNER_OS", "Linux")
        .env("RUNNER_TEMP", &directory);
    for name in ["GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_STATE"] {
        let file = directory.join(name);
        std::fs::write(&file, "").expect("a file");
        command.env(name, file);
    }
}

/// cache-nix-action: one archive of all of `/nix`.
fn cache_nix_action(place: &Place, double: &Double, verb: &str) -> Command {
    let script = program("cache-nix-action").join("dist").join(verb).join("index.js");
    let mut command = place.command("node");
    job(place, double, &mut command);
    // It wants its files to belong to `runner`, which is nobody here.
    let shims = place.path("shims");
    std::fs::create_dir_all(&shims).expect("a directory");
    let sudo = shims.join("sudo");
    std::fs::write(&sudo, "#!/bin/sh\n[ \"$1\" = chown ] && exit 0\nexec \"$@\"\n").expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&sudo, mode).expect("its mode");
    command.env("PATH", path_with(&shims));
    // What it leaves out it names from a workspace that is five directories deep.
    let workspace = place.five_deep();
    command.current_dir(&workspace).env("GITHUB_WORKSPACE", &workspace);
    let inputs = [
        ("PRIMARY-KEY", "nix-1"),
        ("NIX", "true"),
        ("SAVE", "true"),
        ("BACKEND", "actions"),
        ("LOOKUP-ONLY", "false"),
        ("FAIL-ON", "primary.miss"),
        ("PURGE", "false"),
        ("TOKEN", double.github.rest_token()),
    ];
    for (name, value) in inputs {
        command.env(format!("INPUT_{name}"), value);
    }
    command.arg(script);
    command
}

/// hestia's service, with the socket that its hook writes to.
fn hestia(place: &Place, double: &Double) -> (Running, PathBuf) {
    let socket = place.short("hestia.sock");
    let _ = std::fs::remove_file(&socket);
    let address = free_address();
    let mut command = place.command(program("hestia"));
    job(place, double, &mut command);
    command.args(["serve", "--listen", &address, "--socket"]).arg(&socket);
    let service = Running::start(&mut command, format!("http://{address}"));
    wait_for(|| TcpStream::connect(&address).is_ok());
    (service, socket)
}

/// magic-nix-cache's service, with its URL.
fn magic_nix_cache(place: &Place, double: &Double) -> (Running, String) {
    let ready = place.path("magic-nix-cache.ready");
    let _ = std::fs::remove_file(&ready);
    let address = free_address();
    let mut command = place.command(program("magic-nix-cache"));
    job(place, double, &mut command);
    command
        .args(["--listen", &address, "--diagnostic-endpoint", ""])
        .args(["--use-gha-cache=enabled", "--use-flakehub=disabled"])
        .arg("--nix-conf")
        .arg(place.path("magic-nix-cache.conf"))
        .arg("--startup-notification-file")
        .arg(&ready);
    let service = Running::start(&mut command, format!("http://{address}"));
    wait_for(|| ready.exists());
    let url = service.url.clone();
    (service, url)
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").to_string()
}

fn wait_for(ready: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < deadline, "a service did not come up in 30 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}
