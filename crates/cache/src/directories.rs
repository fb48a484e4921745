//! Reading the directories of packs: several at once, in memory that does not grow with what packs say of themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use phoenix_depot::{Blob, Depot};
use phoenix_pack::{Directory, FOOTER, Footer, PackError, heaviest_directories};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Trouble;
use crate::attempts::attempts;

/// How much of the end of a pack is read at first, in bytes: the footer, and the whole directory of most.
const TAIL: u64 = 256 << 10;

/// How many packs are asked for at once.
pub(crate) const AT_ONCE: usize = 8;

/// How many KiB of directories, as they are stored, are on their way at once.
const ON_THEIR_WAY: u32 = 24 << 10;

/// How many bytes a directory that was left out may have, as it is stored and as it is, for a look into it: all others
/// are in memory beside it.
const LOOKED_INTO: u64 = 80 << 20;

/// Whether this is wrong with what a pack is, and not with who reads it.
pub(crate) fn may_be_damage(problem: &PackError) -> bool {
    !matches!(problem, PackError::Version(_) | PackError::NoRoom)
}

/// How much room there is for directories: what packs say of themselves does not decide it, but what they are.
#[derive(Debug)]
pub(crate) struct Room {
    most: u64,
    taken: AtomicU64,
}

impl Room {
    /// What there is for packs of so many bytes together, of which so much is taken already.
    pub(crate) fn beside(packs: u64, taken: u64) -> Self {
        Self { most: heaviest_directories(packs), taken: AtomicU64::new(taken) }
    }

    /// Whether there is room for so much more. Where there is none, there is none later.
    fn has(&self, more: u64) -> bool {
        self.taken.load(Ordering::Relaxed).saturating_add(more) <= self.most
    }

    /// Takes room for the directory of a pack, if there is any.
    fn take(&self, more: u64) -> Result<(), PackError> {
        if !self.has(more) {
            return Err(PackError::NoRoom);
        }
        self.taken.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }
}

/// The end of a pack.
pub(crate) struct Tail {
    footer: Footer,
    /// Where it begins.
    start: u64,
    bytes: Bytes,
}

/// A directory as it is stored.
pub(crate) struct Stored {
    footer: Footer,
    bytes: Bytes,
}

/// Reads the end of a pack, in which the whole directory of most is.
pub(crate) async fn read_tail(depot: &dyn Depot, blob: &Blob) -> Result<Tail, Trouble> {
    let start = blob.size.saturating_sub(TAIL);
    let bytes = depot.read(blob, start..blob.size).await?;
    let footer = Footer::parse(&bytes, blob.size).map_err(|problem| unusable(depot, blob, problem))?;
    Ok(Tail { footer, start, bytes })
}

impl Tail {
    /// Whether the directory takes too much memory for a look into it beside all others.
    pub(crate) fn is_too_large_beside_others(&self) -> bool {
        self.footer.length() + self.stored() > LOOKED_INTO
    }

    /// How many bytes the directory has in the pack.
    fn stored(&self) -> u64 {
        self.footer.directory.end - self.footer.directory.start
    }

    /// The directory; another request for a large one.
    pub(crate) async fn directory(self, depot: &dyn Depot, blob: &Blob) -> Result<Stored, Trouble> {
        let Self { footer, start, bytes } = self;
        let bytes = match footer.directory.start.checked_sub(start).map(usize::try_from) {
            Some(before) => {
                let stored = before.ok().and_then(|before| bytes.get(before..bytes.len() - FOOTER));
                bytes.slice_ref(stored.unwrap_or_default())
            }
            None => depot.read(blob, footer.directory.clone()).await?,
        };
        Ok(Stored { footer, bytes })
    }
}

impl Stored {
    pub(crate) fn open(self) -> Result<Directory, PackError> {
        self.footer.open(&self.bytes)
    }

    /// Opens a directory, if there is room for it.
    fn open_in(self, room: &Room) -> Result<Directory, PackError> {
        if !room.has(self.footer.length()) {
            return Err(PackError::NoRoom);
        }
        let directory = self.open()?;
        // What is made of it comes beside it.
        room.take(directory.weight())?;
        Ok(directory)
    }
}

/// A directory as it is stored, with its leave to be in memory if it is not the only one.
pub(crate) type Fetched = Result<(Stored, Option<OwnedSemaphorePermit>), Trouble>;

/// Reads directories as they are stored, several at once, and hands them on in the order of their packs.
pub(crate) fn fetched(
    depot: Arc<dyn Depot>,
    blobs: Vec<Blob>,
    room: Arc<Room>,
) -> BoxStream<'static, (Blob, Fetched)> {
    let on_their_way = Arc::new(Semaphore::new(ON_THEIR_WAY as usize));
    let of_tails = depot.clone();
    let tails = stream::iter(blobs).map(move |blob| {
        let depot = of_tails.clone();
        async move {
            let tail = read_tail(depot.as_ref(), &blob).await;
            (blob, tail)
        }
    });
    let of_large = depot.clone();
    // In their order here as well, or one would wait for what those hold that wait for it.
    let admitted = tails.buffered(AT_ONCE).then(move |(blob, tail)| {
        let (depot, room, on_their_way) = (depot.clone(), room.clone(), on_their_way.clone());
        async move {
            let admitted = match tail {
                Ok(tail) if room.has(tail.footer.length()) => {
                    let kibis = u32::try_from(tail.stored() >> 10).unwrap_or(u32::MAX).saturating_add(1);
                    let permit = on_their_way.acquire_many_owned(kibis.min(ON_THEIR_WAY)).await;
                    let no_room = |_| unusable(depot.as_ref(), &blob, PackError::NoRoom);
                    permit.map(|permit| (tail, permit)).map_err(no_room)
                }
                Ok(_) => Err(unusable(depot.as_ref(), &blob, PackError::NoRoom)),
                Err(error) => Err(error),
            };
            (blob, admitted)
        }
    });
    let stored = admitted.map(move |(blob, admitted)| {
        let depot = of_large.clone();
        async move {
            let stored = match admitted {
                Ok((tail, permit)) => {
                    tail.directory(depot.as_ref(), &blob).await.map(|stored| (stored, Some(permit)))
                }
                Err(error) => Err(error),
            };
            (blob, stored)
        }
    });
    stored.buffered(AT_ONCE).boxed()
}

/// Opens the directory of a pack, of which this was read. What is damaged is read again.
pub(crate) async fn opened(
    depot: &dyn Depot,
    blob: &Blob,
    read: Fetched,
    room: &Room,
) -> Result<Directory, Trouble> {
    let mut read = Some(read);
    let attempt = || {
        let read = read.take();
        async {
            let opened = match read {
                Some(Ok((stored, _permit))) => {
                    stored.open_in(room).map_err(|problem| unusable(depot, blob, problem))
                }
                Some(Err(error)) => Err(error),
                None => read_into(depot, blob, room).await,
            };
            match opened {
                Err(Trouble::Pack { depot, pack, problem }) if may_be_damage(&problem) => {
                    Ok(Err(Trouble::Pack { depot, pack, problem }))
                }
                opened => opened.map(Ok),
            }
        }
    };
    attempts(attempt).await.and_then(|opened| opened)
}

/// Reads the directory of a pack from its end on, with no other beside it on its way.
pub(crate) async fn read_on(
    depot: &dyn Depot,
    blob: &Blob,
    tail: Result<Tail, Trouble>,
    room: &Room,
) -> Result<Directory, Trouble> {
    let read = match tail {
        Ok(tail) => tail.directory(depot, blob).await.map(|stored| (stored, None)),
        Err(error) => Err(error),
    };
    opened(depot, blob, read, room).await
}

/// Reads the directory of a pack for which there is room.
async fn read_into(depot: &dyn Depot, blob: &Blob, room: &Room) -> Result<Directory, Trouble> {
    let tail = read_tail(depot, blob).await?;
    if !room.has(tail.footer.length()) {
        return Err(unusable(depot, blob, PackError::NoRoom));
    }
    let stored = tail.directory(depot, blob).await?;
    stored.open_in(room).map_err(|problem| unusable(depot, blob, problem))
}

/// Reads the directory of a pack, whatever else is known.
pub(crate) async fn read_directory(depot: &dyn Depot, blob: &Blob) -> Result<Directory, Trouble> {
    read_into(depot, blob, &Room::beside(blob.size, 0)).await
}

fn unusable(depot: &dyn Depot, blob: &Blob, problem: PackError) -> Trouble {
    Trouble::Pack { depot: depot.location().to_owned(), pack: blob.name.to_string(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_directories_by_what_packs_are() {
        const MEBI: u64 = 1 << 20;
        let room = Room::beside(MEBI, 94 * MEBI);
        assert_eq!(room.take(3 * MEBI), Err(PackError::NoRoom));
        assert_eq!(room.take(2 * MEBI), Ok(()));
        assert_eq!(room.take(1), Err(PackError::NoRoom));
        // Large packs have large directories.
        let room = Room::beside(100 << 30, 96 * MEBI);
        assert_eq!(room.take(1400 * MEBI), Ok(()));
        assert_eq!(room.take(350 * MEBI), Err(PackError::NoRoom));
    }
}
