//! The archive of a path, put together for one client.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use phoenix_pack::PutBack;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Found, Key, State};
use crate::workshop::OpenFrame;

/// How many frames are fetched ahead of the one that is used.
const AHEAD: usize = 3;

/// Parts from here on are handed on as they lie in their frame; smaller ones are gathered, up to as many bytes.
const PART: usize = 32 << 10;

/// How many parts wait for the client, at most.
pub(super) const WAITING: usize = 8;

/// Makes the archive and sends it in parts; an error is the last of them. Needs a thread.
pub(super) fn send(
    state: &Arc<State>,
    found: &Found,
    runtime: &Handle,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) {
    let mut out = Out { sender, hash: Sha256::new(), size: 0, gathered: BytesMut::new(), held: None };
    let sent = make(state, found, runtime, &mut out).and_then(|()| {
        let info = &found.path.info;
        out.gather_end()?;
        let hash: [u8; 32] = std::mem::take(&mut out.hash).finalize().into();
        if out.size != info.nar_size || hash != info.nar_hash {
            return Err(io::Error::other("it has another hash than it should have"));
        }
        out.end()
    });
    match sent {
        Ok(()) => {
            state.archives.fetch_add(1, Ordering::Relaxed);
            state.bytes.fetch_add(out.size, Ordering::Relaxed);
        }
        // Nobody may be there any more to hear it.
        Err(error) => drop(sender.blocking_send(Err(error))),
    }
}

fn make(state: &Arc<State>, found: &Found, runtime: &Handle, out: &mut Out<'_>) -> io::Result<()> {
    let mut put_back = PutBack::new(&found.path);
    let places: HashMap<Key, usize> =
        found.frames.iter().zip(0..).map(|((key, ..), place)| (*key, place)).collect();
    let mut begun = 0;
    let mut current: Option<(Key, Bytes)> = None;
    for piece in &found.path.pieces {
        let key = (piece.pack, piece.frame);
        if current.as_ref().is_none_or(|(of, _)| *of != key) {
            let place = places[&key];
            for (key, blob, frame) in found.frames.iter().take(place + 1 + AHEAD).skip(begun.max(place + 1)) {
                let (frames, number, blob, frame) = (Arc::clone(&state.frames), key.1, blob.clone(), *frame);
                // It comes again, with its error, when it is needed.
                runtime.spawn(async move { drop(frames.get(&blob, number, frame).await) });
            }
            begun = begun.max(place + 1 + AHEAD);
            let (_, blob, frame) = &found.frames[place];
            let got = runtime.block_on(state.frames.get(blob, key.1, *frame));
            let opened: Arc<OpenFrame> = got.map_err(|problem| {
                let text = problem.to_string();
                state.lost(blob, key.1, problem);
                io::Error::other(text)
            })?;
            current = Some((key, Bytes::from_owner(Shared(opened))));
        }
        let Some((_, frame)) = &current else { continue };
        let bytes = frame.get(piece.offset as usize..(piece.offset + piece.length) as usize);
        let bytes = bytes.ok_or_else(|| io::Error::other("a frame is shorter than its chunks"))?;
        put_back.piece(bytes, &mut |part: &[u8]| out.part(frame, part))?;
    }
    Ok(())
}

/// A frame as the owner of bytes.
struct Shared(Arc<OpenFrame>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What leaves, but for its last part, which is held back until all is known to be right.
struct Out<'s> {
    sender: &'s mpsc::Sender<io::Result<Bytes>>,
    hash: Sha256,
    size: u64,
    gathered: BytesMut,
    held: Option<Bytes>,
}

impl Out<'_> {
    /// The next bytes, which lie in `frame` or are a hash part.
    fn part(&mut self, frame: &Bytes, part: &[u8]) -> io::Result<()> {
        self.hash.update(part);
        self.size += part.len() as u64;
        if part.len() >= PART && frame.as_ptr_range().contains(&part.as_ptr()) {
            self.gather_end()?;
            return self.push(frame.slice_ref(part));
        }
        self.gathered.extend_from_slice(part);
        if self.gathered.len() >= PART { self.gather_end() } else { Ok(()) }
    }

    fn gather_end(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let part = self.gathered.split().freeze();
        self.push(part)
    }

    fn push(&mut self, part: Bytes) -> io::Result<()> {
        match self.held.replace(part) {
            Some(before) => self.send(before),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.held.take().map_or(Ok(()), |last| self.send(last))
    }

    fn send(&self, part: Bytes) -> io::Result<()> {
        self.sender.blocking_send(Ok(part)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
