//! Many paths, handed to the daemon.

use std::path::Path;

use phoenix_model::{StorePath, ValidPathInfo};

use super::levels::{levels, shares};
use super::{Daemon, DaemonError, operation, wire};

/// Bytes of a frame, by what Nix's own client sends.
const FRAME: usize = 64 * 1024;
/// The newest protocol of which some daemons, up to Nix 2.17, read on in the wrong place when a path of many has
/// become valid meanwhile. They get one after the other.
const NOT_SKIPPING: u64 = 0x0123;

/// Why paths did not come in.
#[derive(Debug, thiserror::Error)]
pub enum AddError<E> {
    /// The daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// Whoever has the contents.
    #[error(transparent)]
    Source(E),
    /// The contents have another size than they should have.
    #[error("{path} is not handed on: its NAR should have {expected} bytes and has {actual}")]
    Size {
        /// The path.
        path: StorePath,
        /// The bytes it should have.
        expected: u64,
        /// The bytes that came, or more.
        actual: u64,
    },
    /// A path refers to itself by way of others.
    #[error("{path} is not handed on: it refers to itself by way of others")]
    Cycle {
        /// The path.
        path: StorePath,
    },
}

/// Takes the next bytes of a NAR.
type Take<'t, E> = dyn FnMut(&[u8]) -> Result<(), AddError<E>> + 't;

/// Hands paths to the daemon at a socket, over several connections at once: each is one thread there.
///
/// What others refer to goes first. `nar` writes the NAR of a path, in pieces of any size. The daemon checks
/// hash and size, and, if `check_signatures` or if it does not trust this user, that a key it trusts signed the
/// path or that it is content-addressed. What is valid already is passed over.
///
/// # Errors
/// When the daemon refuses a path, in its words, or `nar` fails. What came in before stays.
pub fn add_through_daemon<E: Send>(
    socket: &Path,
    connections: usize,
    check_signatures: bool,
    infos: &[ValidPathInfo],
    nar: impl Fn(&ValidPathInfo, &mut Take<'_, E>) -> Result<(), AddError<E>> + Sync,
) -> Result<(), AddError<E>> {
    let levels = levels(infos).map_err(|path| AddError::Cycle { path })?;
    let mut open: Vec<Daemon> = Vec::new();
    for mut level in levels {
        if open.is_empty() {
            open.push(Daemon::connect(socket)?);
        }
        if let Some(first) = open.first_mut() {
            let valid = first.valid(level.iter().map(|&at| &infos[at].path))?;
            level.retain(|&at| !valid.contains(&infos[at].path));
        }
        let shares = shares(&level, infos, connections);
        while open.len() < shares.len() {
            open.push(Daemon::connect(socket)?);
        }
        std::thread::scope(|scope| {
            let nar = &nar;
            let adding: Vec<_> = open
                .iter_mut()
                .zip(&shares)
                .map(|(daemon, share)| {
                    let share: Vec<_> = share.iter().map(|&at| &infos[at]).collect();
                    scope.spawn(move || add(daemon, check_signatures, &share, nar))
                })
                .collect();
            let mut result = Ok(());
            for thread in adding {
                let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(done);
            }
            result
        })?;
    }
    Ok(())
}

/// Hands some paths over one connection, which is of no use any more after an error.
fn add<E>(
    daemon: &mut Daemon,
    check_signatures: bool,
    infos: &[&ValidPathInfo],
    nar: &impl Fn(&ValidPathInfo, &mut Take<'_, E>) -> Result<(), AddError<E>>,
) -> Result<(), AddError<E>> {
    // Not to repair, and whether not to check.
    let flags = [0, u64::from(!check_signatures)];
    if daemon.protocol <= NOT_SKIPPING {
        for info in infos {
            let mut request = Vec::new();
            wire::number(&mut request, operation::ADD_TO_STORE_NAR);
            wire::info(&mut request, info);
            flags.iter().for_each(|&flag| wire::number(&mut request, flag));
            daemon.write(&request)?;
            let mut frames = Frames { daemon, frame: Vec::with_capacity(FRAME) };
            frames.nar(info, nar)?;
            frames.end()?;
        }
        return Ok(());
    }
    let mut request = Vec::new();
    wire::number(&mut request, operation::ADD_MULTIPLE_TO_STORE);
    flags.iter().for_each(|&flag| wire::number(&mut request, flag));
    daemon.write(&request)?;
    let mut frames = Frames { daemon, frame: Vec::with_capacity(FRAME) };
    wire::number(&mut frames.frame, infos.len() as u64);
    for info in infos {
        wire::info(&mut frames.frame, info);
        frames.nar(info, nar)?;
    }
    frames.end().map_err(Into::into)
}

/// A stream within the stream: frames with their length before them; an empty one is the last.
struct Frames<'d> {
    daemon: &'d mut Daemon,
    frame: Vec<u8>,
}

impl Frames<'_> {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), DaemonError> {
        while self.frame.len() + bytes.len() >= FRAME {
            let (head, rest) = bytes.split_at(FRAME.saturating_sub(self.frame.len()).min(bytes.len()));
            self.frame.extend_from_slice(head);
            bytes = rest;
            self.frame_done()?;
        }
        self.frame.extend_from_slice(bytes);
        Ok(())
    }

    fn frame_done(&mut self) -> Result<(), DaemonError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        // It refuses a path when it has seen enough of it.
        self.daemon.messages_so_far()?;
        self.daemon.write(&(self.frame.len() as u64).to_le_bytes())?;
        let written = self.daemon.write_or_hear(&self.frame);
        self.frame.clear();
        written
    }

    /// Writes the NAR of a path, which has the size it should have.
    fn nar<E>(
        &mut self,
        info: &ValidPathInfo,
        nar: &impl Fn(&ValidPathInfo, &mut Take<'_, E>) -> Result<(), AddError<E>>,
    ) -> Result<(), AddError<E>> {
        let mut size = 0;
        let wrong = |actual| AddError::Size { path: info.path.clone(), expected: info.nar_size, actual };
        nar(info, &mut |piece| {
            size += piece.len() as u64;
            if size > info.nar_size {
                return Err(wrong(size));
            }
            self.write(piece).map_err(Into::into)
        })?;
        if size == info.nar_size { Ok(()) } else { Err(wrong(size)) }
    }

    /// Says that this was all, and hears what the daemon says to it.
    fn end(&mut self) -> Result<(), DaemonError> {
        self.frame_done()?;
        self.daemon.send(&0_u64.to_le_bytes())?;
        self.daemon.work_done()
    }
}

impl Daemon {
    /// Writes; when the daemon has hung up, what it said before says why.
    fn write_or_hear(&mut self, bytes: &[u8]) -> Result<(), DaemonError> {
        self.write(bytes).or_else(|broken| {
            self.messages_so_far()?;
            Err(broken)
        })
    }
}
