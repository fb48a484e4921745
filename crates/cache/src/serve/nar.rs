//! The archive of a path as it is sent.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use phoenix_pack::{Located, Piece, PutBack};
use phoenix_substituter::ContentCheck;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::opened::{FramePlace, Lost, Opened};

/// How many bytes are handed on at once.
const PART: usize = 128 << 10;

/// How many parts wait to be sent.
const WAITING: usize = 2;

/// How many frames are fetched ahead of their use, shared by all archives that are under way.
const AHEAD: usize = 8;

/// How many frames one archive fetches ahead, at most.
const AHEAD_EACH: usize = 4;

/// How long a client may take for a part: one that takes none would count among those under way for ever.
pub(super) const DEAF: Duration = Duration::from_secs(120);

/// How many frames are opened ahead of those of an archive.
const NEXT: usize = 2;

/// An archive that can be put together, and where its parts are.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) located: Located,
    /// Its frames by the numbers of pack and frame.
    pub(super) frames: HashMap<(u32, u32), FramePlace>,
    /// The frames beside it in its pack: before its first and after its last.
    pub(super) beside: [Option<FramePlace>; 2],
    /// Compares it with its content address, if it has one.
    pub(super) check: Option<ContentCheck>,
}

/// Why an archive ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) why: Lost,
    /// The pack of the frame that could not be had; none when all frames were had, and made another archive than
    /// was registered.
    pub(super) pack: Option<u32>,
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::other(match broken.why {
            Lost::Gone | Lost::Unreachable => "a part of it could not be had",
            Lost::Damaged => "a part of it is damaged",
        })
    }
}

/// A range of an archive, in parts. The last one comes only if the whole had the registered hash.
pub(super) fn parts(
    planned: Arc<Planned>,
    opened: Arc<Opened>,
    range: Range<u64>,
) -> mpsc::Receiver<Result<Bytes, Broken>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let _under_way = opened.one_more();
        let info = &planned.located.info;
        if let Some(path) = info.hash_part() {
            opened.ranges.expect(*path, planned.frames.values());
        }
        fetch_beside(&planned, &opened);
        let mut sending = Sending::new(sender, info.nar_size, range, planned.check.clone());
        let made = make(&planned, &opened, &mut sending).await;
        if let Some(path) = info.hash_part() {
            opened.ranges.forget(path);
        }
        match made {
            Ok(()) => sending.finish(planned.located.info.nar_hash).await,
            Err(Stop::Broken(broken)) => sending.give_up(broken).await,
            Err(Stop::NobodyListens) => {}
        }
    });
    receiver
}

/// Why nothing more is made.
enum Stop {
    Broken(Broken),
    /// The client went away.
    NobodyListens,
}

async fn make(planned: &Planned, opened: &Arc<Opened>, sending: &mut Sending) -> Result<(), Stop> {
    let mut put_back = PutBack::new(&planned.located);
    let pieces = &planned.located.pieces;
    let mut last = None;
    for (number, piece) in pieces.iter().enumerate() {
        let key = (piece.pack, piece.frame);
        let broken = |why| Stop::Broken(Broken { why, pack: Some(piece.pack) });
        let place = planned.frames.get(&key).ok_or_else(|| broken(Lost::Gone))?;
        if last.replace(key) != Some(key) {
            fetch_ahead(planned, opened, &pieces[number..]);
        }
        let (mut at, end) = (piece.offset as usize, (piece.offset + piece.length) as usize);
        while at < end {
            // No frame is held while somebody is waited for, so that slow clients cost no memory.
            let next = end.min(at + sending.room());
            {
                let frame = opened.get(place).await.map_err(broken)?;
                let bytes = frame.get(at..next).ok_or_else(|| broken(Lost::Damaged))?;
                let Ok(()) = put_back.piece(bytes, &mut |part: &[u8]| {
                    sending.buffer.extend_from_slice(part);
                    Ok::<(), Infallible>(())
                });
            }
            at = next;
            sending.send_if_full().await?;
        }
    }
    Ok(())
}

/// Begins to fetch the frames that come after the first of these pieces'.
fn fetch_ahead(planned: &Planned, opened: &Arc<Opened>, pieces: &[Piece]) {
    let share = AHEAD / opened.under_way().max(1);
    let mut seen: Vec<(u32, u32)> = Vec::new();
    for piece in pieces {
        let key = (piece.pack, piece.frame);
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        // The first is fetched by who needs it now.
        if seen.len() > 1
            && let Some(place) = planned.frames.get(&key)
        {
            let (opened, place) = (opened.clone(), place.clone());
            tokio::spawn(async move { opened.get(&place).await.map(drop) });
        }
        if seen.len() > share.min(AHEAD_EACH) {
            return;
        }
    }
}

/// Begins to open what will be asked for next: what was asked about, and lies behind this archive in its pack. Of whoever
/// did not ask about anything: who asked for what lies on one side of an archive, and now for this, is on the way to the
/// other side, for paths that belong together lie together, in the order of references or against it.
fn fetch_beside(planned: &Planned, opened: &Arc<Opened>) {
    if opened.under_way() > AHEAD {
        return;
    }
    let last = planned.located.pieces.last().and_then(|piece| planned.frames.get(&(piece.pack, piece.frame)));
    let mut next = last.map(|last| opened.ranges.next(last, NEXT)).unwrap_or_default();
    if next.is_empty() {
        next.extend(match &planned.beside {
            [Some(before), Some(after)] if opened.knows(before) => Some(after.clone()),
            [Some(before), Some(after)] if opened.knows(after) => Some(before.clone()),
            _ => None,
        });
    }
    for place in next.into_iter().filter(|place| !opened.knows(place)) {
        let opened = opened.clone();
        tokio::spawn(async move { opened.get(&place).await.map(drop) });
    }
}

/// What is gathered, hashed and sent. One part is always held back: it goes only after the hash is known.
struct Sending {
    sender: mpsc::Sender<Result<Bytes, Broken>>,
    hash: Sha256,
    buffer: Vec<u8>,
    held_back: Option<Bytes>,
    /// How many bytes were hashed, and how many there are to be.
    done: u64,
    size: u64,
    /// Which of them are to be sent.
    range: Range<u64>,
    check: Option<ContentCheck>,
}

impl Sending {
    fn new(
        sender: mpsc::Sender<Result<Bytes, Broken>>,
        size: u64,
        range: Range<u64>,
        check: Option<ContentCheck>,
    ) -> Self {
        let buffer = Vec::with_capacity(PART);
        Self { sender, hash: Sha256::new(), buffer, held_back: None, done: 0, size, range, check }
    }

    /// How many bytes more make a part; at least one.
    fn room(&self) -> usize {
        PART.saturating_sub(self.buffer.len()).max(1)
    }

    async fn send_if_full(&mut self) -> Result<(), Stop> {
        if self.buffer.len() < PART {
            return Ok(());
        }
        match self.take_buffer()? {
            Some(part) => self.send(part).await,
            None => Ok(()),
        }
    }

    /// Hashes what was gathered and holds it back; what was held back before may go.
    fn take_buffer(&mut self) -> Result<Option<Bytes>, Stop> {
        self.hash.update(&self.buffer);
        if let Some(check) = &mut self.check {
            check.feed(&self.buffer);
        }
        let before = self.done;
        self.done += self.buffer.len() as u64;
        if self.done > self.size {
            return Err(Stop::Broken(Broken { why: Lost::Damaged, pack: None }));
        }
        let part = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(PART)));
        let within = |at: u64| at.clamp(before, self.done) - before;
        let [start, end] = [within(self.range.start), within(self.range.end)].map(|at| at as usize);
        if start == end {
            // What is held back is the last of what is to be sent, whatever is still to be hashed.
            return Ok(None);
        }
        Ok(self.held_back.replace(part.slice(start..end)))
    }

    async fn send(&self, part: Bytes) -> Result<(), Stop> {
        if part.is_empty() {
            return Ok(());
        }
        let sent = tokio::time::timeout(DEAF, self.sender.send(Ok(part))).await;
        sent.map_err(|_| Stop::NobodyListens)?.map_err(|_| Stop::NobodyListens)
    }

    /// Sends the last part, if the whole is what it should be.
    async fn finish(mut self, nar_hash: [u8; 32]) {
        match self.finish_checked(nar_hash).await {
            Ok(()) | Err(Stop::NobodyListens) => {}
            Err(Stop::Broken(broken)) => self.give_up(broken).await,
        }
    }

    async fn finish_checked(&mut self, nar_hash: [u8; 32]) -> Result<(), Stop> {
        if let Some(part) = self.take_buffer()? {
            self.send(part).await?;
        }
        let hash: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
        let is_content = self.check.take().is_none_or(ContentCheck::finish);
        if hash != nar_hash || self.done != self.size || !is_content {
            return Err(Stop::Broken(Broken { why: Lost::Damaged, pack: None }));
        }
        match self.held_back.take() {
            Some(part) => self.send(part).await,
            None => Ok(()),
        }
    }

    /// Says that there is no end to come.
    async fn give_up(&self, broken: Broken) {
        // Who does not listen any more need not know.
        drop(self.sender.send(Err(broken)).await);
    }
}
