//! A NATS server for tests.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server with JetStream on the loopback; it ends with this value.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
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
        let Some(program) = program() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "nats-server is not installed: apt-get install nats-server"
            );
            eprintln!("skipped: nats-server is not installed");
            return None;
        };
        let directory = tempfile::tempdir().expect("a NATS server");
        // Free a moment ago; whoever takes it in between makes the server end, and another is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")
                .expect("a NATS server")
                .local_addr()
                .expect("a NATS server")
                .port();
            let mut child = Command::new(&program)
                .args(["--jetstream", "--addr", "127.0.0.1", "--port", &port.to_string(), "--store_dir"])
                .arg(directory.path())
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("a NATS server");
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end && child.try_wait().expect("a NATS server").is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(Self { child, port, _directory: directory });
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("{} does not start", program.display());
    }

    /// Its URL, without a run.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
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
