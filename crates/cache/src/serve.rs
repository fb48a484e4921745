//! A substituter on this machine: the packs of a depot, spoken of as a binary cache over HTTP.
//!
//! What is where is answered from the catalog, without the depot. An archive is put together as it is sent, its
//! hash checked on the way: what cannot be had is 404, and what is found to be wrong only on the way never gets its
//! last bytes. `docs/design/serve.md` says why.

mod answer;
mod asked;
mod damaged;
mod nar;
mod opened;
mod pace;
mod patient;
mod ranges;
mod shelf;
mod wanted;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use phoenix_depot::Depot;
use phoenix_substituter::{PublicKeys, SecretKey};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::trouble::once;
use crate::{Packs, Trouble};
use answer::Answers;
use opened::{Opened, Tell};
use patient::Patient;
use shelf::Shelf;

/// How long a server that could not take a connection waits before it tries again: it may have too many files
/// open.
const BREATH: Duration = Duration::from_millis(50);

/// How many bytes wait to be written for one client, at most.
const BUFFER: usize = 128 << 10;

/// How many connections there are at once; Nix makes 25 if nobody says otherwise, and few ask for more than 128.
const CONNECTIONS: usize = 256;

/// How long a connection may be without a request, or with a part of one: others may be waiting for it.
const IDLE: Duration = Duration::from_secs(60);

/// How to serve.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen: an address of this machine's loopback. Port 0 is any that is free.
    pub address: SocketAddr,
    /// The directory in the names of store paths.
    pub store_dir: String,
    /// Signs everything that is served.
    pub sign: Option<SecretKey>,
    /// If keys are named, only what one of them signed is served, and what is content-addressed.
    pub trusted: Option<PublicKeys>,
    /// How long what the depot has is taken as known, when something is asked for that it had not.
    pub look_every: Duration,
    /// How many threads serve.
    pub threads: usize,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could reach it.
    #[error("{0} is not an address of this machine's loopback, and what is in a depot is not for others")]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen at {address}")]
    Listen {
        /// It.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
}

/// A server that runs until it is stopped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<()>,
    serving: JoinHandle<()>,
    runtime: Runtime,
}

impl Server {
    /// Reads what a depot has, and begins to serve it. What goes wrong with the depot or its packs is told to
    /// `tell`, each thing once, and makes the server know less.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub fn start(
        depot: Arc<dyn Depot>,
        settings: Settings,
        tell: Box<dyn Fn(Trouble) + Send + Sync>,
    ) -> Result<Self, ServeError> {
        let address = settings.address;
        if !address.ip().is_loopback() {
            return Err(ServeError::NotLoopback(address));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(settings.threads.max(1))
            .enable_all()
            .build()
            .map_err(ServeError::Threads)?;
        let failed = |source| ServeError::Listen { address, source };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let tell: Arc<Tell> = Arc::new(once(tell));
        let packs = runtime.block_on(Packs::load(depot, &mut |trouble| tell(trouble)));
        let shelf = Shelf::new(packs, settings, tell.clone());
        let opened = Arc::new(Opened::new(shelf.depot(), tell));
        let answers = Arc::new(Answers::new(shelf, opened));
        let (stop, stopped) = watch::channel(());
        let serving = runtime.spawn(serve(listener, answers, stopped));
        Ok(Self { address, stop, serving, runtime })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, and lets those that are being answered end, for so long.
    pub fn stop(self, patience: Duration) {
        drop(self.stop);
        let ended = async { tokio::time::timeout(patience, self.serving).await };
        // Whoever is not done by then is cut off.
        drop(self.runtime.block_on(ended));
        self.runtime.shutdown_background();
    }
}

async fn serve(listener: TcpListener, answers: Arc<Answers>, mut stopped: watch::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Whoever comes when there is no room waits where the system lets them wait.
        let accept = async { (room.clone().acquire_owned().await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            accepted = accept => accepted,
            _ = stopped.changed() => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        // Else each small answer would wait for the acknowledgement of the one before.
        drop(stream.set_nodelay(true));
        let answers = answers.clone();
        let service = service_fn(move |request| {
            let answers = answers.clone();
            async move { Ok::<_, Infallible>(answers.answer(request).await) }
        });
        // Each client has a buffer, and there may be many.
        let connection = http1::Builder::new()
            .max_buf_size(BUFFER)
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(Patient::new(stream, nar::DEAF)), service);
        let connection = graceful.watch(connection);
        // A client that goes away, and one that was cut off because of damage, know it.
        tokio::spawn(async move {
            drop(connection.await);
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}
