//! What commands take, and tables of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a command took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) seconds: f64,
    /// Peak of resident memory in megabytes, as far as it was seen.
    pub(crate) memory: f64,
}

/// Runs a command to its end; it has to end well.
pub(crate) fn measure(command: &mut Command) -> Took {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.as_mut().unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
    // What is said is read all the time, or who says much waits for ever.
    let mut stderr = child.stderr.take().expect("stderr");
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stderr, &mut said);
        said
    });
    let mut memory = 0.0_f64;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the command") {
            break status;
        }
        memory = memory.max(peak(child.id()));
        std::thread::sleep(Duration::from_millis(5));
    };
    let seconds = start.elapsed().as_secs_f64();
    let said = said.join().unwrap_or_default();
    let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    assert!(
        status.success(),
        "{} {}: {status}: {}",
        command.get_program().display(),
        args.join(" "),
        String::from_utf8_lossy(&said)
    );
    Took { seconds, memory }
}

/// The peak of resident memory of a process so far, where the system tells.
pub(crate) fn peak(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}

/// A service that runs; dropping it ends it.
pub(crate) struct Running {
    child: Child,
    pub(crate) url: String,
}

impl Running {
    pub(crate) fn start(command: &mut Command, url: String) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        Self { child, url }
    }

    pub(crate) fn of(child: Child, url: String) -> Self {
        Self { child, url }
    }

    /// What was measured one after the other while it ran, with the memory that it has itself.
    pub(crate) fn took<const N: usize>(&self, parts: [Took; N]) -> Took {
        let own = peak(self.child.id());
        Took {
            seconds: parts.iter().map(|part| part.seconds).sum(),
            memory: parts.iter().map(|part| part.memory).fold(own, f64::max),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Times of several tools over several rounds.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<&'static str, Vec<Took>>);

impl Table {
    /// Takes one in, and says so.
    pub(crate) fn add(&mut self, name: &'static str, took: Took) {
        let rounds = self.0.entry(name).or_default();
        rounds.push(took);
        println!("  round {}: {name:<18} {:>7.2} s {:>5.0} MB", rounds.len(), took.seconds, took.memory);
    }

    /// One line for each name: the median and the range, and the ratios to another.
    pub(crate) fn print(&self, name: &str, more: &str, beside: Option<&str>) {
        let Some(all) = self.0.get(name) else { return };
        let memory = all.iter().map(|took| took.memory).fold(0.0, f64::max);
        let ratio =
            beside.map(|other| format!("  {} times {other}", self.ratio(name, other))).unwrap_or_default();
        println!("{name:<18} {}{ratio}  {more}  {memory:.0} MB", shown(self.seconds(name)));
    }

    /// The ratios of two tools, round by round.
    pub(crate) fn ratio(&self, name: &str, other: &str) -> String {
        shown(self.seconds(name).iter().zip(self.seconds(other)).map(|(a, b)| a / b).collect())
    }

    /// The seconds of each round.
    pub(crate) fn seconds(&self, name: &str) -> Vec<f64> {
        self.0.get(name).into_iter().flatten().map(|took| took.seconds).collect()
    }
}

fn shown(mut values: Vec<f64>) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}
