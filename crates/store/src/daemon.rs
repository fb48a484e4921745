//! Store paths, brought in through Nix's daemon, where this process may not write the store.
//!
//! The worker protocol, 1.32 to 1.38 (nix `src/libstore/worker-protocol.hh`, `remote-store.cc`, `daemon.cc`): Nix
//! 2.4 and later. The daemon checks hashes and signatures.

mod add;
mod levels;
mod proxy;
mod wire;

use std::collections::HashSet;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use phoenix_model::StorePath;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Nix;
use crate::text::strip_ansi;

pub use add::{AddError, add_through_daemon};
pub use proxy::{DaemonProxy, ProxyError};

/// What a daemon of our own is called in messages.
const ALONE: &str = "nix-daemon --stdio";

const CLIENT_MAGIC: u64 = 0x6e69_7863;
const DAEMON_MAGIC: u64 = 0x6478_696f;
/// The oldest that can take many paths at once: Nix 2.4.
const OLDEST: u64 = 0x0120;
/// The newest that is known: what came after it are features, and none is asked for.
const NEWEST: u64 = 0x0126;

/// What is asked for (`WorkerProto::Op`).
mod operation {
    pub(super) const IS_VALID_PATH: u64 = 1;
    pub(super) const QUERY_REFERRERS: u64 = 6;
    pub(super) const ADD_TO_STORE: u64 = 7;
    pub(super) const BUILD_PATHS: u64 = 9;
    pub(super) const ENSURE_PATH: u64 = 10;
    pub(super) const ADD_TEMP_ROOT: u64 = 11;
    pub(super) const ADD_INDIRECT_ROOT: u64 = 12;
    pub(super) const SET_OPTIONS: u64 = 19;
    pub(super) const QUERY_PATH_INFO: u64 = 26;
    pub(super) const QUERY_PATH_FROM_HASH_PART: u64 = 29;
    pub(super) const QUERY_VALID_PATHS: u64 = 31;
    pub(super) const QUERY_SUBSTITUTABLE_PATHS: u64 = 32;
    pub(super) const QUERY_VALID_DERIVERS: u64 = 33;
    pub(super) const NAR_FROM_PATH: u64 = 38;
    pub(super) const ADD_TO_STORE_NAR: u64 = 39;
    pub(super) const QUERY_MISSING: u64 = 40;
    pub(super) const QUERY_DERIVATION_OUTPUT_MAP: u64 = 41;
    pub(super) const QUERY_REALISATION: u64 = 43;
    pub(super) const ADD_MULTIPLE_TO_STORE: u64 = 44;
    pub(super) const BUILD_PATHS_WITH_RESULTS: u64 = 46;
}

/// What the daemon says while it works (`STDERR_…`).
mod message {
    pub(super) const NEXT: u64 = 0x6f6c_6d67;
    pub(super) const LAST: u64 = 0x616c_7473;
    pub(super) const ERROR: u64 = 0x6378_7470;
    pub(super) const START_ACTIVITY: u64 = 0x5354_5254;
    pub(super) const STOP_ACTIVITY: u64 = 0x5354_4f50;
    pub(super) const RESULT: u64 = 0x5253_4c54;
}

/// How long the daemon may take to greet; that it works long is fine.
const GREETING: Duration = Duration::from_secs(30);

/// A connection to a daemon.
#[derive(Debug)]
pub struct Daemon {
    from: BufReader<UnixStream>,
    to: BufWriter<UnixStream>,
    socket: PathBuf,
    /// That both speak: the major version times 256, and the minor one.
    protocol: u64,
    version: String,
    trusts_us: Option<bool>,
}

/// Why the daemon did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// There is none.
    #[error("cannot connect to the Nix daemon at {socket}")]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the Nix daemon at {socket} broke")]
    Broken {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It speaks another language.
    #[error("the Nix daemon at {socket} cannot be understood: {problem}")]
    Protocol {
        /// Its socket.
        socket: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It says no, in these words.
    #[error("the Nix daemon says: {0}")]
    Refused(String),
}

impl Daemon {
    /// Connects to the daemon that listens at a socket, usually `/nix/var/nix/daemon-socket/socket`.
    ///
    /// # Errors
    /// When nobody listens there, or somebody who speaks no protocol from 1.32 on.
    pub fn connect(socket: &Path) -> Result<Self, DaemonError> {
        let connect = |source| DaemonError::Connect { socket: socket.to_owned(), source };
        Self::over(&UnixStream::connect(socket).map_err(connect)?, socket, NEWEST)
    }

    /// Starts a daemon that speaks to nobody but us, for the store that `nix` is set to. It is in a process group of its
    /// own.
    pub(crate) fn start_alone(nix: &Nix) -> Result<(Self, Child), DaemonError> {
        Self::start_alone_at(nix, NEWEST)
    }

    fn start_alone_at(nix: &Nix, newest: u64) -> Result<(Self, Child), DaemonError> {
        let connect = |source: io::Error| DaemonError::Connect { socket: ALONE.into(), source };
        let (ours, theirs) = UnixStream::pair().map_err(connect)?;
        // A static Nix may be there by one name only; it goes by the one that it is called by.
        let start = |program: &str| {
            let mut command = Command::new(program);
            nix.in_env(&mut command).arg0("nix-daemon").arg("--stdio").args(nix.option_args());
            let (input, output) = (theirs.try_clone()?, theirs.try_clone()?);
            command.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(output)).stderr(Stdio::null());
            crate::group::spawn(&mut command)
        };
        let started = start("nix-daemon").or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => start("nix"),
            _ => Err(error),
        });
        let mut child = started.map_err(connect)?;
        // Their end of the stream has to close when the process ends.
        drop(theirs);
        match Self::over(&ours, Path::new(ALONE), newest) {
            Ok(connection) => Ok((connection, child)),
            Err(error) => {
                crate::group::end(&mut child);
                Err(error)
            }
        }
    }

    /// Talks to a daemon at the other end of a stream; `socket` is what it is called, and the protocol is none newer than
    /// `newest`.
    fn over(stream: &UnixStream, socket: &Path, newest: u64) -> Result<Self, DaemonError> {
        let connect = |source| DaemonError::Connect { socket: socket.to_owned(), source };
        stream.set_read_timeout(Some(GREETING)).map_err(connect)?;
        let mut this = Self {
            from: BufReader::new(stream.try_clone().map_err(connect)?),
            to: BufWriter::with_capacity(64 * 1024, stream.try_clone().map_err(connect)?),
            socket: socket.to_owned(),
            protocol: OLDEST,
            version: String::new(),
            trusts_us: None,
        };
        this.greet(newest)?;
        stream.set_read_timeout(None).map_err(connect)?;
        Ok(this)
    }

    /// The daemon's version of Nix; empty where it does not say, before 2.8.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether it trusts this user, who may then bring in what is not signed; `None` where it does not say,
    /// before 2.15.
    #[must_use]
    pub fn trusts_us(&self) -> Option<bool> {
        self.trusts_us
    }

    /// Those of the paths that are valid.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn valid<'p>(
        &mut self,
        paths: impl IntoIterator<Item = &'p StorePath>,
    ) -> Result<HashSet<StorePath>, DaemonError> {
        let mut request = Vec::new();
        wire::number(&mut request, operation::QUERY_VALID_PATHS);
        wire::strings(&mut request, paths.into_iter().map(StorePath::as_str));
        // Without asking substituters.
        wire::number(&mut request, 0);
        self.send(&request)?;
        self.work_done()?;
        let count = self.number()?;
        let mut valid = HashSet::new();
        for _ in 0..count {
            let text = self.string()?;
            let path = StorePath::parse(&text).map_err(|error| self.misunderstood(error.to_string()))?;
            valid.insert(path);
        }
        Ok(valid)
    }

    /// Keeps paths from the garbage collector as long as this connection lasts, whether they are valid or not.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub(crate) fn add_temp_roots<'p>(
        &mut self,
        paths: impl IntoIterator<Item = &'p StorePath>,
    ) -> Result<(), DaemonError> {
        let paths: Vec<&StorePath> = paths.into_iter().collect();
        // Many at once, but not so many that their answers do not fit on the way.
        for some in paths.chunks(256) {
            let mut request = Vec::new();
            for path in some {
                wire::number(&mut request, operation::ADD_TEMP_ROOT);
                wire::string(&mut request, path.as_str());
            }
            self.send(&request)?;
            for _ in some {
                self.work_done()?;
                self.number()?;
            }
        }
        Ok(())
    }

    /// Tells of a link outside of the store that keeps what it points to.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub(crate) fn add_indirect_root(&mut self, link: &Path) -> Result<(), DaemonError> {
        let mut request = Vec::new();
        wire::number(&mut request, operation::ADD_INDIRECT_ROOT);
        wire::string(&mut request, &link.to_string_lossy());
        self.send(&request)?;
        self.work_done()?;
        // Always 1.
        self.number().map(drop)
    }

    fn greet(&mut self, newest: u64) -> Result<(), DaemonError> {
        let mut greeting = Vec::new();
        wire::number(&mut greeting, CLIENT_MAGIC);
        wire::number(&mut greeting, newest);
        self.send(&greeting)?;
        if self.number()? != DAEMON_MAGIC {
            return Err(self.misunderstood("it is no Nix daemon".into()));
        }
        let theirs = self.number()?;
        if theirs >> 8 != NEWEST >> 8 || theirs < OLDEST {
            let problem = format!("it speaks protocol {}.{}, not 1.32 or later", theirs >> 8, theirs & 0xff);
            return Err(self.misunderstood(problem));
        }
        let both = theirs.min(newest);
        self.protocol = both;
        let mut rest = Vec::new();
        if both >= 0x0126 {
            wire::strings(&mut rest, []);
            self.send(&rest)?;
            for _ in 0..self.number()? {
                self.string()?;
            }
            rest.clear();
        }
        // Neither a processor to run on nor space to reserve: both are obsolete.
        wire::number(&mut rest, 0);
        wire::number(&mut rest, 0);
        self.send(&rest)?;
        if both >= 0x0121 {
            self.version = self.string()?;
        }
        if both >= 0x0123 {
            self.trusts_us = match self.number()? {
                1 => Some(true),
                2 => Some(false),
                _ => None,
            };
        }
        self.work_done()?;
        self.set_options()
    }

    /// Asks to be told of errors only.
    fn set_options(&mut self) -> Result<(), DaemonError> {
        let mut request = Vec::new();
        wire::number(&mut request, operation::SET_OPTIONS);
        // keep-failed, keep-going, fallback, verbosity, max-jobs, max-silent-time, (use-build-hook),
        // verbosity of builds, (log type), (print build trace), cores, substitute, number of other settings
        for value in [0, 0, 0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 0] {
            wire::number(&mut request, value);
        }
        self.send(&request)?;
        self.work_done()
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), DaemonError> {
        self.write(bytes)?;
        self.flush()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DaemonError> {
        self.to.write_all(bytes).map_err(|error| self.broken(error))
    }

    fn flush(&mut self) -> Result<(), DaemonError> {
        self.to.flush().map_err(|error| self.broken(error))
    }

    /// Reads what the daemon says until it is done.
    fn work_done(&mut self) -> Result<(), DaemonError> {
        while !self.message()? {}
        Ok(())
    }

    /// Reads what it has said already, without waiting.
    fn messages_so_far(&mut self) -> Result<(), DaemonError> {
        while self.has_said_something() {
            if self.message()? {
                return Err(self.misunderstood("it is done before it has everything".into()));
            }
        }
        Ok(())
    }

    fn has_said_something(&self) -> bool {
        if !self.from.buffer().is_empty() {
            return true;
        }
        let mut wanted = [PollFd::new(self.from.get_ref(), PollFlags::IN)];
        poll(&mut wanted, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
    }

    /// Reads one message; whether it is the last.
    fn message(&mut self) -> Result<bool, DaemonError> {
        match self.number()? {
            message::LAST => return Ok(true),
            message::ERROR => return Err(self.error()?),
            message::NEXT => drop(self.string()?),
            message::START_ACTIVITY => {
                for _ in 0..3 {
                    self.number()?;
                }
                self.string()?;
                self.fields()?;
                self.number()?;
            }
            message::STOP_ACTIVITY => drop(self.number()?),
            message::RESULT => {
                self.number()?;
                self.number()?;
                self.fields()?;
            }
            other => return Err(self.misunderstood(format!("it says {other:#x}, which is not known"))),
        }
        Ok(false)
    }

    fn fields(&mut self) -> Result<(), DaemonError> {
        for _ in 0..self.number()? {
            match self.number()? {
                0 => drop(self.number()?),
                1 => drop(self.string()?),
                other => return Err(self.misunderstood(format!("it has a field of kind {other}"))),
            }
        }
        Ok(())
    }

    /// An error, in the daemon's words; the error of this is that it cannot be read.
    fn error(&mut self) -> Result<DaemonError, DaemonError> {
        let _kind = self.string()?;
        let _level = self.number()?;
        let _name = self.string()?;
        let mut text = self.string()?;
        let _position = self.number()?;
        for _ in 0..self.number()? {
            let _position = self.number()?;
            let trace = self.string()?;
            text = format!("{text}\n{trace}");
        }
        let text = strip_ansi(&text);
        Ok(DaemonError::Refused(text.strip_prefix("error:").unwrap_or(&text).trim().to_owned()))
    }

    fn number(&mut self) -> Result<u64, DaemonError> {
        wire::read_number(&mut self.from).map_err(|error| self.broken(error))
    }

    fn string(&mut self) -> Result<String, DaemonError> {
        wire::read_string(&mut self.from).map_err(|error| self.broken(error))
    }

    fn broken(&self, source: io::Error) -> DaemonError {
        DaemonError::Broken { socket: self.socket.clone(), source }
    }

    fn misunderstood(&self, problem: String) -> DaemonError {
        DaemonError::Protocol { socket: self.socket.clone(), problem }
    }
}
