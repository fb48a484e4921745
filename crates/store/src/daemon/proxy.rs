//! A daemon of our own in front of Nix's, for evaluators.
//!
//! It takes in the derivations that they write ([`Texts`]), answers what the database of the store knows, and hands
//! everything else on: to a `nix-daemon` for each client that needs one, started when it does, which then answers the
//! client itself.

#[cfg(target_os = "linux")]
mod beside;
mod request;
mod session;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use phoenix_model::StorePath;
use rustix::event::{PollFd, PollFlags, poll};

use self::request::Request;
use self::session::Session;
use super::operation;
use crate::import::{ImportError, TextError, Texts};
use crate::{Layout, Nix};

/// How long it is waited when nobody can be let in, and how often.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSES: usize = 100;

/// Listens for evaluators that write to one store, until it is dropped. What they have written is kept from the garbage
/// collector as long as this is there.
#[derive(Debug)]
pub struct DaemonProxy {
    behind: Arc<Behind>,
    socket: PathBuf,
    /// The listener is told by its end.
    end: Option<UnixStream>,
    listening: Option<JoinHandle<()>>,
}

/// Why evaluators cannot write through us.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The store cannot be written.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Nobody can connect.
    #[error("cannot listen at {socket}")]
    Listen {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path of the socket has characters that not all versions of Nix read in the URL of a store.
    #[error("{socket} cannot be named as a store")]
    Name {
        /// The socket.
        socket: PathBuf,
    },
    /// The objects of the store are in another directory than their names say: not all versions of Nix find them then.
    #[error("the store has a root of its own")]
    HasRoot,
    /// What was written cannot become valid.
    #[error("{0}")]
    Write(String),
}

impl From<TextError> for ProxyError {
    fn from(error: TextError) -> Self {
        Self::Write(error.to_string())
    }
}

/// What all connections share.
#[derive(Debug)]
struct Behind {
    texts: Texts,
    layout: Layout,
    /// Set to the store itself.
    nix: Nix,
    built: Mutex<Built>,
    /// Why something could not be written or read, the first time.
    refused: OnceLock<String>,
}

/// What clients have asked to have built, or substituted.
#[derive(Debug, Default)]
struct Built {
    paths: BTreeSet<StorePath>,
    /// Something was asked for that was not understood.
    not_all: bool,
}

impl Behind {
    /// Whether a path is one of this store, as far as its name says.
    fn is_here(&self, path: &StorePath) -> bool {
        path.store_dir() == self.layout.store_dir
    }

    /// Notes what a client wants to have built (nix `src/libstore/derived-path.cc`: `PATH!OUTPUTS`, `PATH^OUTPUTS`, with
    /// more such ends where it is built by something that is built).
    fn hear_of_builds(&self, request: &Request) {
        let wanted = match request.operation {
            operation::BUILD_PATHS | operation::BUILD_PATHS_WITH_RESULTS => &request.many,
            operation::ENSURE_PATH => &request.texts,
            _ => return,
        };
        let mut built = self.built();
        for text in wanted {
            let path = text.split(['!', '^']).next().unwrap_or_default();
            match StorePath::parse(path) {
                Ok(path) => drop(built.paths.insert(path)),
                Err(_) => built.not_all = true,
            }
        }
    }

    fn built(&self) -> MutexGuard<'_, Built> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DaemonProxy {
    /// Begins to listen at a new socket in a directory that nobody else may enter. `nix` is set to the store that lies
    /// there, which this process may write.
    ///
    /// # Errors
    /// When the store cannot be written, or nobody can listen there.
    pub fn start(nix: &Nix, layout: &Layout, directory: &Path) -> Result<Self, ProxyError> {
        if layout.real_dir != Path::new(&layout.store_dir) {
            return Err(ProxyError::HasRoot);
        }
        let socket = directory.join("daemon");
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
        if !socket.as_os_str().as_encoded_bytes().iter().all(is_plain) {
            return Err(ProxyError::Name { socket });
        }
        let texts = Texts::open(layout)?;
        let listen = |source| ProxyError::Listen { socket: socket.clone(), source };
        let listener = UnixListener::bind(&socket).map_err(listen)?;
        let behind = Arc::new(Behind {
            texts,
            layout: layout.clone(),
            nix: nix.clone(),
            built: Mutex::default(),
            refused: OnceLock::new(),
        });
        // Whatever becomes of the socket meanwhile, who listens is told of the end.
        listener.set_nonblocking(true).map_err(listen)?;
        let (end, over) = UnixStream::pair().map_err(listen)?;
        let for_clients = behind.clone();
        // What is listened at goes with whoever listens.
        let listening = std::thread::spawn(move || listen_for(&listener, &over, &for_clients));
        Ok(Self { behind, socket, end: Some(end), listening: Some(listening) })
    }

    /// The same Nix, whose calls write through this.
    #[must_use]
    pub fn in_front_of(&self, nix: &Nix) -> Nix {
        let mut nix = nix.clone();
        nix.set_env("NIX_REMOTE", format!("unix://{}", self.socket.display()));
        nix
    }

    /// Whether nobody can connect any more, for somebody has removed the socket.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        !self.socket.exists()
    }

    /// Why something was not written, or could not be looked for, if the machine did not let us: the disk is full, or no more
    /// files can be opened, say.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.behind.refused.get().cloned()
    }

    /// The derivations and paths that were asked for to be built or substituted so far; nothing if something was asked for
    /// that is not understood.
    #[must_use]
    pub fn built(&self) -> Option<Vec<StorePath>> {
        let built = self.behind.built();
        (!built.not_all).then(|| built.paths.iter().cloned().collect())
    }

    /// How many derivations and other texts were written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.behind.texts.written()
    }

    /// How many of them are valid: the first ones.
    ///
    /// # Errors
    /// When the store cannot be written: then no more become valid.
    pub fn registered(&self) -> Result<u64, ProxyError> {
        Ok(self.behind.texts.registered()?)
    }

    /// Has all that was written so far become valid.
    ///
    /// # Errors
    /// When the store cannot be written. What did not become valid is removed.
    pub fn register(&self) -> Result<(), ProxyError> {
        Ok(self.behind.texts.register()?)
    }
}

impl Drop for DaemonProxy {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

/// Lets clients in until it is over, or nobody can be let in: who waits for that is told by the end of the connection.
fn listen_for(listener: &UnixListener, over: &UnixStream, behind: &Arc<Behind>) {
    let mut pauses = 0;
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN), PollFd::new(over, PollFlags::IN)];
        // A signal came, say: what is there is looked at all the same.
        let _ = poll(&mut ready, None);
        if !ready[1].revents().is_empty() {
            return;
        }
        let stream = listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(false)?;
            Ok(stream)
        });
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    // Too many open files, say: it may pass.
                    std::thread::sleep(PAUSE);
                    pauses += 1;
                }
                if pauses > PAUSES {
                    let _ = behind.refused.set(format!("nobody else can be let in to write: {error}"));
                    return;
                }
                continue;
            }
        };
        pauses = 0;
        let behind = behind.clone();
        std::thread::spawn(move || {
            // A client that is gone, or is not understood, sees that the connection ends.
            let _ = Session::new(stream, behind).and_then(Session::run);
        });
    }
}
