//! The packs of a depot, and the catalog they make together.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, stream};
use phoenix_depot::{Blob, BlobName, Depot, DepotError, Problem};
use phoenix_pack::{Catalog, Directory, FOOTER, Footer, PackError, PackInfo};

use crate::Trouble;

/// What the names of packs begin with.
pub const PACKS: &str = "packs/";

/// How much of the end of a pack is read at first, in bytes: the footer, and the whole directory of most.
const TAIL: u64 = 256 << 10;

/// How many packs are asked for at once.
const AT_ONCE: usize = 8;

/// A depot with the catalog of its packs.
#[derive(Debug)]
pub struct Packs {
    depot: Arc<dyn Depot>,
    catalog: Catalog,
    blobs: HashMap<String, Blob>,
}

impl Packs {
    /// Reads the directories of all packs that a depot shows.
    ///
    /// What cannot be read is told to `trouble` and is as if it were not there.
    pub async fn load(depot: Arc<dyn Depot>, trouble: &mut (dyn FnMut(Trouble) + Send)) -> Self {
        let packs = Mutex::new(Self { depot, catalog: Catalog::default(), blobs: HashMap::new() });
        Self::look_again(&packs, trouble).await;
        packs.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the packs that a depot shows and that were not read yet. Others may use what is known meanwhile.
    pub(crate) async fn look_again(packs: &Mutex<Self>, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let lock = || packs.lock().unwrap_or_else(PoisonError::into_inner);
        let depot = lock().depot.clone();
        let seen = match depot.list(PACKS).await {
            // Where nothing can be listed, the newest pack knows the others.
            Err(DepotError { problem: Problem::Unsupported(_), .. }) => {
                depot.newest(PACKS).await.map(|newest| newest.into_iter().collect())
            }
            seen => seen,
        };
        let mut blobs: Vec<Blob> = match seen {
            Ok(seen) => seen,
            Err(error) => return trouble(error.into()),
        };
        let mut tried: HashSet<String> = HashSet::new();
        loop {
            blobs.retain(|blob| {
                !lock().blobs.contains_key(blob.name.as_str()) && tried.insert(blob.name.to_string())
            });
            if blobs.is_empty() {
                break;
            }
            let read = read_directories(depot.as_ref(), std::mem::take(&mut blobs)).await;
            let unread = {
                let mut packs = lock();
                for (blob, read) in read {
                    packs.take_in(blob, read, trouble);
                }
                packs.unread(&tried)
            };
            for (name, found) in find(depot.as_ref(), unread).await {
                match found {
                    Ok(Some(blob)) => blobs.push(blob),
                    // Evicted: a miss, and nothing to talk about.
                    Ok(None) => lock().lose(name.as_str()),
                    Err(error) => {
                        lock().lose(name.as_str());
                        trouble(error.into());
                    }
                }
            }
        }
    }

    /// The depot.
    #[must_use]
    pub fn depot(&self) -> &Arc<dyn Depot> {
        &self.depot
    }

    /// What the packs say together.
    pub fn catalog(&mut self) -> &mut Catalog {
        &mut self.catalog
    }

    /// What the packs say together, to look at.
    #[must_use]
    pub fn peek(&self) -> &Catalog {
        &self.catalog
    }

    /// The blob of a live pack by its number in the catalog.
    #[must_use]
    pub fn blob(&self, pack: u32) -> Option<&Blob> {
        self.catalog.pack(pack).and_then(|(name, _)| self.blobs.get(name))
    }

    /// How many packs were read.
    pub(crate) fn count(&self) -> usize {
        self.blobs.len()
    }

    /// Takes note that a pack is not there any more.
    pub(crate) fn lose(&mut self, name: &str) {
        self.catalog.lose(name);
        self.blobs.remove(name);
    }

    fn take_in(
        &mut self,
        blob: Blob,
        read: Result<Directory, Trouble>,
        trouble: &mut (dyn FnMut(Trouble) + Send),
    ) {
        match read {
            Ok(directory) => self.add(blob, directory, trouble),
            Err(error) => {
                self.lose(blob.name.as_str());
                trouble(error);
            }
        }
    }

    fn add(&mut self, blob: Blob, directory: Directory, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let name = blob.name.to_string();
        let info = PackInfo { size: blob.size, created: blob.created.unwrap_or_default() };
        match self.catalog.add(&name, info, directory) {
            Ok(()) => {
                self.blobs.insert(name, blob);
            }
            Err(_) => trouble(Trouble::Pack {
                depot: self.depot.location().to_owned(),
                pack: name,
                problem: PackError::Damaged("what it says of other packs is not readable"),
            }),
        }
    }

    /// The packs that are known of and were not tried yet.
    fn unread(&self, tried: &HashSet<String>) -> Vec<BlobName> {
        let unread = self.catalog.unread().into_iter().filter(|(name, _)| !tried.contains(*name));
        unread.filter_map(|(name, _)| BlobName::new(name).ok()).collect()
    }
}

/// Reads the directories of these packs, several at once.
async fn read_directories(depot: &dyn Depot, blobs: Vec<Blob>) -> Vec<(Blob, Result<Directory, Trouble>)> {
    let read = stream::iter(blobs).map(|blob| async move {
        let read = read_directory(depot, &blob).await;
        (blob, read)
    });
    read.buffer_unordered(AT_ONCE).collect().await
}

/// Looks for packs by their names, several at once.
async fn find(depot: &dyn Depot, names: Vec<BlobName>) -> Vec<(BlobName, Result<Option<Blob>, DepotError>)> {
    let found = stream::iter(names).map(|name| async move {
        let found = depot.find(&name).await;
        (name, found)
    });
    found.buffer_unordered(AT_ONCE).collect().await
}

/// Reads the directory of a pack: one request for most, two for large ones.
async fn read_directory(depot: &dyn Depot, blob: &Blob) -> Result<Directory, Trouble> {
    let damaged =
        |problem| Trouble::Pack { depot: depot.location().to_owned(), pack: blob.name.to_string(), problem };
    let tail_start = blob.size.saturating_sub(TAIL);
    let tail = depot.read(blob, tail_start..blob.size).await?;
    let footer = Footer::parse(&tail, blob.size).map_err(damaged)?;
    let range = footer.directory.clone();
    let directory = if range.start >= tail_start {
        let before = usize::try_from(range.start - tail_start).unwrap_or(usize::MAX);
        footer.open(tail.get(before..tail.len() - FOOTER).unwrap_or_default())
    } else {
        footer.open(&depot.read(blob, range).await?)
    };
    directory.map_err(damaged)
}
