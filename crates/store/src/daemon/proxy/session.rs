//! A connection of a client.

use std::io::{self, BufReader, Read, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use phoenix_model::{StorePath, ValidPathInfo};
#[cfg(target_os = "linux")]
use rustix::net::sockopt::socket_peercred;

use super::super::{
    CLIENT_MAGIC, DAEMON_MAGIC, Daemon, DaemonError, NEWEST, OLDEST, message, operation, wire,
};
use super::Behind;
#[cfg(target_os = "linux")]
use super::beside::Beside;
use super::request::{Frames, Request};
use crate::import::TextError;
use crate::text::with_causes;
use crate::{PathInfos, group};

/// What is added: a text, or a tree as a NAR, each with its SHA-256 (nix `src/libstore/content-address.cc`,
/// `ContentAddressMethod::renderWithAlgo`).
const TEXT: &str = "text:sha256";
const SOURCE: &str = "fixed:r:sha256";
/// The longest text, and the longest source, that is taken in at once; a longer one is handed on. Real derivations stay below
/// 1 MB.
const LONGEST_TEXT: u64 = 64 << 20;
const LONGEST_SOURCE: u64 = 4 << 20;
/// How long a client may take for the next frame of what it adds: it may evaluate something in between.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes that are handed on at once.
const PIECE: usize = 64 * 1024;

/// One client's connection.
pub(super) struct Session {
    from: BufReader<UnixStream>,
    answers: Answers,
}

/// Where answers come from.
struct Answers {
    to: UnixStream,
    behind: Arc<Behind>,
    protocol: u64,
    /// What the client last set, for a daemon that is started later.
    options: Option<Vec<u8>>,
    daemon: Option<Started>,
    /// What the database says, once somebody asked.
    infos: Option<PathInfos>,
    /// Keeps this thread on the client's processor.
    #[cfg(target_os = "linux")]
    beside: Option<Beside>,
}

/// A daemon that has what is not ours. It answers the client itself.
struct Started {
    to: UnixStream,
    child: Child,
}

impl Session {
    pub(super) fn new(stream: UnixStream, behind: Arc<Behind>) -> io::Result<Self> {
        let from = BufReader::with_capacity(PIECE, stream.try_clone()?);
        let answers = Answers {
            #[cfg(target_os = "linux")]
            beside: socket_peercred(&stream).ok().and_then(|client| Beside::new(client.pid)),
            to: stream,
            behind,
            protocol: OLDEST,
            options: None,
            daemon: None,
            infos: None,
        };
        Ok(Self { from, answers })
    }

    /// Answers until the client goes. An error is that the client, or the daemon behind us, is gone or not understood:
    /// then the connection is closed.
    pub(super) fn run(mut self) -> io::Result<()> {
        self.greet()?;
        while let Some(operation) = self.operation()? {
            let Some(request) = Request::read(operation, &mut self.from)? else {
                // From here on both talk to each other, and nobody listens.
                self.answers.behind.built().not_all = true;
                self.answers.send_on(&operation.to_le_bytes())?;
                return self.answers.pass(&mut self.from);
            };
            #[cfg(target_os = "linux")]
            if let Some(beside) = &mut self.answers.beside {
                beside.stay();
            }
            self.request(&request)?;
        }
        Ok(())
    }

    /// As nix `src/libstore/worker-protocol-connection.cc`, `BasicServerConnection`.
    fn greet(&mut self) -> io::Result<()> {
        if self.number()? != CLIENT_MAGIC {
            return Err(not_understood("it is no client of a Nix daemon"));
        }
        let mut greeting = Vec::new();
        wire::number(&mut greeting, DAEMON_MAGIC);
        wire::number(&mut greeting, NEWEST);
        self.answers.to.write_all(&greeting)?;
        let theirs = self.number()?;
        if theirs >> 8 != NEWEST >> 8 || theirs < OLDEST {
            return Err(not_understood("it speaks another protocol"));
        }
        self.answers.protocol = theirs.min(NEWEST);
        let mut answer = Vec::new();
        if self.answers.protocol >= 0x0126 {
            for _ in 0..self.number()? {
                wire::read_bytes(&mut self.from)?;
            }
            // None of the features.
            wire::strings(&mut answer, []);
            self.answers.to.write_all(&std::mem::take(&mut answer))?;
        }
        // A processor to run on, and space to reserve: both are obsolete.
        if self.number()? != 0 {
            self.number()?;
        }
        self.number()?;
        if self.answers.protocol >= 0x0121 {
            wire::string(&mut answer, self.answers.behind.nix.version());
        }
        if self.answers.protocol >= 0x0123 {
            // It is trusted.
            wire::number(&mut answer, 1);
        }
        wire::number(&mut answer, message::LAST);
        self.answers.to.write_all(&answer)
    }

    /// What is asked for next; nothing when the client is gone.
    fn operation(&mut self) -> io::Result<Option<u64>> {
        match self.number() {
            Ok(operation) => Ok(Some(operation)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn request(&mut self, request: &Request) -> io::Result<()> {
        // A client that is interrupted in the middle of frames waits for an answer, and we for the rest.
        let has_frames = request.is_framed || request.operation == operation::ADD_TO_STORE;
        if has_frames {
            self.answers.to.set_read_timeout(Some(PATIENCE))?;
        }
        self.respond(request)?;
        if has_frames {
            self.answers.to.set_read_timeout(None)?;
        }
        Ok(())
    }

    fn respond(&mut self, request: &Request) -> io::Result<()> {
        let answers = &mut self.answers;
        answers.behind.hear_of_builds(request);
        let answered = match request.operation {
            operation::ADD_TO_STORE => return self.add(request),
            operation::SET_OPTIONS if answers.daemon.is_none() => {
                answers.options = Some(request.raw.clone());
                Ok(Some(Vec::new()))
            }
            operation::IS_VALID_PATH => answers.is_valid(request, |is_valid| Some(u64::from(is_valid))),
            operation::ADD_TEMP_ROOT => answers.keep(request),
            operation::ENSURE_PATH => answers.is_valid(request, |is_valid| is_valid.then_some(1)),
            operation::QUERY_PATH_INFO => answers.path_info(request),
            operation::QUERY_VALID_PATHS => answers.valid_paths(request),
            _ => Ok(None),
        };
        match answered {
            Ok(Some(answer)) => answers.answer(&answer),
            Ok(None) | Err(TextError::NotForUs) => self.hand_on(request),
            Err(error) => answers.refuse_for(&error),
        }
    }

    fn hand_on(&mut self, request: &Request) -> io::Result<()> {
        self.answers.send_on(&request.raw)?;
        if request.is_framed {
            return self.answers.pass_frames(&mut Frames::new(&mut self.from));
        }
        Ok(())
    }

    /// Takes in a text or a small source, and hands everything else on.
    fn add(&mut self, request: &Request) -> io::Result<()> {
        let address = request.texts.get(1).map(String::as_str).unwrap_or_default();
        let longest = match address {
            TEXT => LONGEST_TEXT,
            SOURCE if request.many.is_empty() => LONGEST_SOURCE,
            _ => return self.hand_on(request),
        };
        // It is not to be repaired.
        let (Some(name), Some(0)) = (request.texts.first(), request.numbers.first()) else {
            return self.hand_on(request);
        };
        let mut bytes = Vec::new();
        let mut frames = Frames::new(&mut self.from);
        frames.by_ref().take(longest).read_to_end(&mut bytes)?;
        let answers = &mut self.answers;
        let added = match address {
            _ if bytes.len() as u64 == longest => Err(TextError::NotForUs),
            TEXT => answers.added(name, &bytes, &request.many),
            _ => answers.behind.texts.add_source(name, &bytes),
        };
        match added {
            Ok(info) => {
                let mut answer = Vec::new();
                wire::info(&mut answer, &info);
                answers.answer(&answer)
            }
            Err(TextError::NotForUs) => {
                answers.send_on(&request.raw)?;
                answers.pass_frames(&mut bytes.as_slice().chain(frames))
            }
            Err(error) => answers.refuse_for(&error),
        }
    }

    fn number(&mut self) -> io::Result<u64> {
        wire::read_number(&mut self.from)
    }
}

impl Answers {
    /// The path that is asked about, if it is one of this store.
    fn path(&self, request: &Request) -> Option<StorePath> {
        let path = request.texts.first().and_then(|text| StorePath::parse(text).ok())?;
        self.behind.is_here(&path).then_some(path)
    }

    fn keep(&self, request: &Request) -> Result<Option<Vec<u8>>, TextError> {
        let Some(path) = self.path(request) else { return Ok(None) };
        self.behind.texts.keep(&path)?;
        // Always 1.
        Ok(Some(1_u64.to_le_bytes().to_vec()))
    }

    fn is_valid(
        &self,
        request: &Request,
        answer: impl FnOnce(bool) -> Option<u64>,
    ) -> Result<Option<Vec<u8>>, TextError> {
        let Some(path) = self.path(request) else { return Ok(None) };
        Ok(answer(self.behind.texts.is_valid(&path)?).map(|answer| answer.to_le_bytes().to_vec()))
    }

    fn path_info(&mut self, request: &Request) -> Result<Option<Vec<u8>>, TextError> {
        let Some(path) = self.path(request) else { return Ok(None) };
        if let Some(info) = self.behind.texts.waiting(&path) {
            let mut answer = Vec::new();
            wire::number(&mut answer, 1);
            wire::known(&mut answer, &info, false);
            return Ok(Some(answer));
        }
        let infos = match &self.infos {
            Some(infos) => infos.of([&path]),
            None => {
                PathInfos::open(&self.behind.layout).and_then(|infos| self.infos.insert(infos).of([&path]))
            }
        };
        // What cannot be read here is for Nix to say.
        Ok(infos.ok().map(|infos| {
            let mut answer = Vec::new();
            wire::number(&mut answer, infos.len() as u64);
            for info in &infos {
                wire::known(&mut answer, info, info.ultimate);
            }
            answer
        }))
    }

    fn valid_paths(&self, request: &Request) -> Result<Option<Vec<u8>>, TextError> {
        let paths: Result<Vec<StorePath>, _> =
            request.many.iter().map(|text| StorePath::parse(text)).collect();
        let Ok(paths) = paths else { return Ok(None) };
        let mut valid = Vec::new();
        for path in &paths {
            if !self.behind.is_here(path) {
                return Ok(None);
            }
            if self.behind.texts.is_valid(path)? {
                valid.push(path.as_str());
            }
        }
        // What is missing may be substituted first.
        if valid.len() < paths.len() && request.numbers.first() != Some(&0) {
            return Ok(None);
        }
        let mut answer = Vec::new();
        wire::strings(&mut answer, valid);
        Ok(Some(answer))
    }

    fn added(&self, name: &str, text: &[u8], references: &[String]) -> Result<ValidPathInfo, TextError> {
        let mut paths = Vec::with_capacity(references.len());
        for text in references {
            let path = StorePath::parse(text).map_err(|_| TextError::NotForUs)?;
            if !self.behind.is_here(&path) {
                return Err(TextError::NotForUs);
            }
            paths.push(path);
        }
        paths.sort_unstable();
        paths.dedup();
        self.behind.texts.add(name, text, paths)
    }

    fn answer(&mut self, answer: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(8 + answer.len());
        wire::number(&mut bytes, message::LAST);
        bytes.extend_from_slice(answer);
        self.to.write_all(&bytes)
    }

    /// Refuses what could not be done. Where the machine does not let us, no other will be.
    fn refuse_for(&mut self, error: &TextError) -> io::Result<()> {
        let why = error.to_string();
        if matches!(error, TextError::Store(_) | TextError::Files(_)) {
            // Known before the client hears of it.
            let _ = self.behind.refused.set(why.clone());
        }
        self.refuse(&why)
    }

    /// Says no (nix `src/libutil/serialise.cc`, `operator <<` of `Error`).
    fn refuse(&mut self, why: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        wire::number(&mut bytes, message::ERROR);
        wire::string(&mut bytes, "Error");
        wire::number(&mut bytes, 0);
        wire::string(&mut bytes, "Error");
        wire::string(&mut bytes, why);
        // No position, no traces.
        wire::number(&mut bytes, 0);
        wire::number(&mut bytes, 0);
        self.to.write_all(&bytes)
    }

    /// Sends something to the daemon behind us, which answers the client. What came before is valid by then.
    fn send_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.behind.texts.register() {
            self.refuse_for(&error)?;
            return Err(io::Error::other(error));
        }
        let started = match &mut self.daemon {
            Some(started) => started,
            None => {
                // Builds may be anywhere.
                #[cfg(target_os = "linux")]
                if let Some(beside) = &mut self.beside {
                    beside.let_go();
                }
                let options = self.options.as_deref();
                match Started::new(&self.behind, &self.to, self.protocol, options) {
                    Ok(started) => self.daemon.insert(started),
                    Err(error) => {
                        self.refuse(&error)?;
                        return Err(io::Error::other(error));
                    }
                }
            }
        };
        started.to.write_all(bytes)
    }

    /// Hands bytes on as frames, to the end.
    fn pass_frames(&mut self, frames: &mut impl Read) -> io::Result<()> {
        let Some(started) = &mut self.daemon else { return Ok(()) };
        let mut piece = vec![0; 8 + PIECE];
        loop {
            let count = frames.read(&mut piece[8..])?;
            piece[..8].copy_from_slice(&(count as u64).to_le_bytes());
            started.to.write_all(&piece[..8 + count])?;
            if count == 0 {
                return Ok(());
            }
        }
    }

    /// Hands everything on that comes.
    fn pass(&mut self, from: &mut impl Read) -> io::Result<()> {
        let Some(started) = &mut self.daemon else { return Ok(()) };
        io::copy(from, &mut started.to).map(drop)
    }
}

impl Started {
    /// Starts a daemon that answers a client which speaks this protocol and has set these options.
    fn new(
        behind: &Behind,
        client: &UnixStream,
        protocol: u64,
        options: Option<&[u8]>,
    ) -> Result<Self, String> {
        let (daemon, child) =
            Daemon::start_alone_at(&behind.nix, protocol).map_err(|error| with_causes(&error))?;
        let mut this =
            Self { to: daemon.from.get_ref().try_clone().map_err(|error| error.to_string())?, child };
        this.begin(daemon, client, protocol, options).map_err(|error| with_causes(&error))?;
        Ok(this)
    }

    fn begin(
        &mut self,
        mut daemon: Daemon,
        client: &UnixStream,
        protocol: u64,
        options: Option<&[u8]>,
    ) -> Result<(), DaemonError> {
        if daemon.protocol != protocol {
            return Err(daemon.misunderstood("it is another Nix than the one that evaluates".to_owned()));
        }
        if let Some(options) = options {
            daemon.send(options)?;
            daemon.work_done()?;
        }
        let mut client = client.try_clone().map_err(|error| daemon.broken(error))?;
        std::thread::spawn(move || {
            // Whichever of them is gone: the other one is told.
            let _ = io::copy(&mut daemon.from, &mut client);
            let _ = client.shutdown(Shutdown::Both);
        });
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It sees that its client is gone, and ends what it builds.
        let _ = self.to.shutdown(Shutdown::Both);
        group::end(&mut self.child);
    }
}

fn not_understood(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
