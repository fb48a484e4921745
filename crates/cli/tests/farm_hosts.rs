//! Several hosts that see each other over a network only, and then do not: network namespaces, and a ledger on NATS.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

mod common;

use std::process::{Child, Command};
use std::time::Duration;

use common::sixty::{each_once, marks, shared, wait_for_marks};
use common::{TestEnv, end};
use phoenix_testkit::NatsServer;

/// Where the NATS server is, on the host `hub`.
const HUB: &str = "10.213.7.1";

/// Hosts on one switch.
struct Hosts {
    prefix: String,
    names: Vec<&'static str>,
}

impl Hosts {
    /// Hosts of these names, with addresses from [`HUB`] on. None where no namespaces may be made, which is said.
    fn new(of: &str, names: &[&'static str]) -> Option<Self> {
        let mut this = Self { prefix: format!("phx-{}-{of}", std::process::id()), names: vec![] };
        if let Err(problem) = this.add("switch") {
            eprintln!("skipped: no network namespaces can be made here: {problem}");
            return None;
        }
        this.on("switch", &["link", "add", "br0", "type", "bridge"]);
        this.on("switch", &["link", "set", "br0", "up"]);
        for (name, last) in names.iter().zip(1..) {
            this.add(name).unwrap();
            let host = this.namespace(name);
            // Both ends are made where they belong: this machine's own network has no part in it.
            this.on("switch", &["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &host]);
            this.on("switch", &["link", "set", name, "master", "br0", "up"]);
            this.on(name, &["link", "set", "lo", "up"]);
            this.on(name, &["address", "add", &format!("10.213.7.{last}/24"), "dev", "eth0"]);
            this.on(name, &["link", "set", "eth0", "up"]);
        }
        Some(this)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn add(&mut self, name: &'static str) -> Result<(), String> {
        let made = Command::new("ip").args(["netns", "add", &self.namespace(name)]).output();
        let made = made.map_err(|error| format!("ip: {error}"))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).trim().to_owned());
        }
        self.names.push(name);
        Ok(())
    }

    /// Runs `ip` on a host.
    fn on(&self, name: &str, args: &[&str]) {
        let told = Command::new("ip").args(["-n", &self.namespace(name)]).args(args).output().unwrap();
        assert!(told.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&told.stderr));
    }

    /// Takes the cable out, or puts it in.
    fn cable(&self, name: &str, state: &str) {
        self.on("switch", &["link", "set", name, state]);
    }

    /// Starts phoenix on a host.
    fn start(&self, env: &TestEnv, name: &str, args: &[&str]) -> Child {
        let phoenix = env.command();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(name)]).arg(phoenix.get_program()).args(args);
        command.env_clear().envs(phoenix.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(name)]).output();
        }
    }
}

/// A plan of 60 derivations and two workers on hosts of their own, one of which is cut off when it has begun to
/// work. Answers the workers and what reports.
fn cut_off(
    env: &TestEnv,
    hosts: &Hosts,
    after: impl FnOnce(),
    seconds: &str,
) -> Option<([Child; 2], Child, NatsServer)> {
    let hub = hosts.namespace("hub");
    let server = NatsServer::start_at(&["ip", "netns", "exec", &hub], HUB)?;
    let ledger = format!("{}/a-run", server.url());
    let flake = shared(env, seconds);
    let (depot, reference) = (env.depot(), flake.reference());
    let plan = ["plan", "--runners", "2", "--matrix", "json", "--plan", "p", "--depot", &depot, &reference];
    let _ = env.phoenix(&plan).ends_with(0);
    let places = ["--plan", "p", "--ledger", &ledger, "--depot", &depot];
    let worker = |name: &str, slot: &str| {
        let store = format!("local?root={}", env.nix.path(&format!("worker-{slot}")).display());
        let args = [&["work", "--slot", slot, "--store", &store, "-j", "1"], &places[..]].concat();
        hosts.start(env, name, &args)
    };
    let workers = [worker("one", "0"), worker("two", "1")];
    let report = hosts.start(env, "hub", &[&["report"], &places[..]].concat());
    wait_for_marks(env, 12);
    hosts.cable("two", "down");
    after();
    Some((workers, report, server))
}

#[test]
fn a_short_partition_costs_time_and_nothing_else() {
    let Some(hosts) = Hosts::new("a", &["hub", "one", "two"]) else { return };
    let env = TestEnv::new();
    let wait = || {
        std::thread::sleep(Duration::from_secs(4));
        hosts.cable("two", "up");
    };
    let Some((workers, report, _server)) = cut_off(&env, &hosts, wait, "0.2") else { return };
    let ran = end(report).ends_with(0);
    assert!(ran.stdout.contains("20 targets: 20 built"), "{ran}");
    for child in workers {
        let _ = end(child).ends_with(0);
    }
    each_once(&env);
}

#[test]
fn who_stays_cut_off_is_worked_around() {
    let Some(hosts) = Hosts::new("b", &["hub", "one", "two"]) else { return };
    let env = TestEnv::new();
    let Some((workers, report, _server)) = cut_off(&env, &hosts, || (), "0.2") else { return };
    let ran = end(report).ends_with(0);
    assert!(ran.stdout.contains("20 targets: 20 built"), "{ran}");
    let [one, mut two] = workers;
    let _ = end(one).ends_with(0);
    let marks = marks(&env);
    assert_eq!(marks.len(), 60);
    // What it was building, and had built and could not tell, was built again.
    assert!(marks.values().sum::<usize>() <= 66, "{marks:?}");
    let _ = two.kill();
    let _ = two.wait();
}
