//! A NATS server for tests.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server with JetStream, on the loopback unless it is said to be elsewhere; it ends with this value.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    url: String,
    _directory: tempfile::TempDir,
}

/// What it writes about its ports.
#[derive(serde::Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl NatsServer {
    /// Starts one. None where it is not installed, which is said; in CI it has to be.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts one with more arguments.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Option<Self> {
        Self::begin(&[], "127.0.0.1", args)
    }

    /// Starts one at an address of another host, by the program that runs others there.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_at(on_host: &[&str], address: &str) -> Option<Self> {
        Self::begin(on_host, address, &[])
    }

    fn begin(on_host: &[&str], address: &str, args: &[&str]) -> Option<Self> {
        let Some(program) = program() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "nats-server is not installed: apt-get install nats-server"
            );
            eprintln!("skipped: nats-server is not installed");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = match on_host {
            [] => Command::new(&program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program);
                command
            }
        };
        // It takes a port that is free and says which, so that nobody can come between.
        command.args(["--jetstream", "--addr", address, "--port", "-1", "--store_dir"]).arg(directory.path());
        command.arg("--ports_file_dir").arg(directory.path()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a NATS server");
        let ports = directory.path().join(format!("nats-server_{}.ports", child.id()));
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end && child.try_wait().expect("a NATS server").is_none() {
            // It may not be written whole yet.
            let text = fs_err::read_to_string(&ports).unwrap_or_default();
            if let Ok(ports) = serde_json::from_str::<Ports>(&text)
                && let Some(url) = ports.nats.into_iter().next()
            {
                return Some(Self { child, url, _directory: directory });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("{} does not start", program.display());
    }

    /// Its URL, without a run.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian keeps it among the administrator's programs.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|directory| directory.join("nats-server"))
        .find(|file| file.is_file())
}
