//! A double of GitHub's cache service and artifact service that misbehaves on demand.
//!
//! It is what version 2 of the cache service is to a job: the Twirp service, in JSON and protobuf; the artifact
//! service of version 4 beside it, in JSON; where the bytes
//! are, behind signed URLs in the manner of Azure; and the REST interface to a repository's caches. It keeps
//! everything in memory and listens on the loopback. The official client is run against it, so that its wire
//! format is known to be right. What the real service does and nobody has written down is a choice here; each
//! is said where it is made, or can be set in [`Behaviour`].
//!
//! Tokens say what a job may read and write ([`Github::token`]), [`Behaviour`] what is usual, [`Fault`] what
//! goes wrong, [`Github::counts`] what was asked for. The clock is the machine's, and can be put forward.

mod answer;
mod artifact_twirp;
mod artifacts;
mod behaviour;
mod blob;
mod counts;
mod data;
mod entries;
mod fault;
mod message;
mod rest;
mod sas;
mod server;
mod state;
mod token;
mod twirp;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

pub use artifacts::{Artifact, JobId};
pub use behaviour::Behaviour;
pub use counts::Counts;
pub use entries::Entry;
pub use fault::{Fault, Faults, Request};
pub use token::Permission;

use state::Shared;

/// How long a token holds, as on the real service.
const TOKEN_VALID: Duration = Duration::from_secs(6 * 3600);

/// A running double; dropping it ends it.
#[derive(Debug)]
pub struct Github {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Github {
    /// Starts a double at a free port.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub fn start() -> io::Result<Self> {
        Self::start_at("127.0.0.1:0")
    }

    /// Starts a double at an address such as `127.0.0.1:8080`.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub fn start_at(address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/", listener.local_addr()?);
        // What another double signed is not taken here.
        let shared = Arc::new(Shared::new(url.clone(), &format!("{:x}", seed(&url))));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = server::serve(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// What a job has as `ACTIONS_RESULTS_URL`: the server's URL with a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// What a job has as `ACTIONS_RUNTIME_TOKEN`, for six hours; scopes are read in the order given, and the
    /// first that may be written is written to.
    #[must_use]
    pub fn token(&self, scopes: &[(&str, Permission)]) -> String {
        self.token_for(scopes, TOKEN_VALID)
    }

    /// A token that ends sooner or later.
    #[must_use]
    pub fn token_for(&self, scopes: &[(&str, Permission)], valid: Duration) -> String {
        token::token(scopes, self.shared.lock().now() / 1000 + valid.as_secs(), &token::job_id(0))
    }

    /// A token of another job of the same workflow run, by the job's number; the other tokens are of job 0.
    #[must_use]
    pub fn token_of_job(&self, number: u32, scopes: &[(&str, Permission)]) -> String {
        let ends = self.shared.lock().now() / 1000 + TOKEN_VALID.as_secs();
        token::token(scopes, ends, &token::job_id(number))
    }

    /// What a job has as `GITHUB_TOKEN`; it may list and remove.
    #[must_use]
    pub fn rest_token(&self) -> &str {
        &self.shared.rest_token
    }

    /// What a job has as `GITHUB_REPOSITORY`.
    #[must_use]
    pub fn repository(&self) -> &'static str {
        rest::REPOSITORY
    }

    /// Changes how it behaves from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.lock().behaviour);
    }

    /// Has something go wrong with the next so many requests of a kind.
    pub fn fault(&self, request: Request, fault: Fault, times: usize) {
        self.shared.lock().troubles.ask_for(request, fault, times);
    }

    /// Forgets what was still to go wrong on demand.
    pub fn clear_faults(&self) {
        self.shared.lock().troubles.clear();
    }

    /// Puts the clock forward.
    pub fn advance(&self, by: Duration) {
        self.shared.lock().ahead += u64::try_from(by.as_millis()).unwrap_or_default();
    }

    /// What was asked for so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let state = self.shared.lock();
        Counts { faults: state.troubles.done.clone(), ..state.counts.clone() }
    }

    /// All entries, reserved ones too, in the order in which they were made.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.shared.lock().entries.all().to_vec()
    }

    /// All artifacts, reserved ones too, in the order in which they were made.
    #[must_use]
    pub fn artifacts(&self) -> Vec<Artifact> {
        self.shared.lock().artifacts.all().to_vec()
    }

    /// Evicts the entries that `which` says, with their bytes; how many there were.
    pub fn evict(&self, which: impl Fn(&Entry) -> bool) -> usize {
        self.shared.lock().remove(which).len()
    }
}

impl Drop for Github {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // One that has ended by itself need not be told.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A number that differs from one server to the next.
fn seed(url: &str) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    url.bytes().fold(u64::from(now.subsec_nanos()) ^ now.as_secs().rotate_left(32), |seed, byte| {
        fault::Chance::new(seed ^ u64::from(byte)).next()
    })
}
