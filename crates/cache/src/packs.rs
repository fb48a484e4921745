//! The packs of a depot, and the catalog they make together.

use std::collections::HashMap;
use std::sync::Arc;

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
        let mut packs = Self { depot, catalog: Catalog::default(), blobs: HashMap::new() };
        let seen = match packs.depot.list(PACKS).await {
            // Where nothing can be listed, the newest pack knows the others.
            Err(DepotError { problem: Problem::Unsupported(_), .. }) => {
                packs.depot.newest(PACKS).await.map(|newest| newest.into_iter().collect())
            }
            seen => seen,
        };
        match seen {
            Ok(seen) => packs.take_in(seen, trouble).await,
            Err(error) => trouble(error.into()),
        }
        packs
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

    /// Reads these packs, newest first, and then those they know of, until nobody knows of another.
    async fn take_in(&mut self, mut blobs: Vec<Blob>, trouble: &mut (dyn FnMut(Trouble) + Send)) {
        let mut tried: Vec<String> = Vec::new();
        while !blobs.is_empty() {
            tried.extend(blobs.iter().map(|blob| blob.name.to_string()));
            let depot = &self.depot;
            let read: Vec<(Blob, Result<Directory, Trouble>)> = stream::iter(blobs)
                .map(|blob| async move {
                    let read = read_directory(depot.as_ref(), &blob).await;
                    (blob, read)
                })
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            for (blob, read) in read {
                match read {
                    Ok(directory) => self.add(blob, directory, trouble),
                    Err(error) => {
                        self.catalog.lose(blob.name.as_str());
                        trouble(error);
                    }
                }
            }
            blobs = self.find_unread(&mut tried, trouble).await;
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

    /// The packs that are known of and were not tried yet, as far as they are there.
    async fn find_unread(
        &mut self,
        tried: &mut Vec<String>,
        trouble: &mut (dyn FnMut(Trouble) + Send),
    ) -> Vec<Blob> {
        let unread: Vec<BlobName> = self
            .catalog
            .unread()
            .into_iter()
            .filter(|(name, _)| !tried.iter().any(|tried| tried == name))
            .filter_map(|(name, _)| BlobName::new(name).ok())
            .collect();
        let depot = &self.depot;
        let found: Vec<(BlobName, Result<Option<Blob>, DepotError>)> = stream::iter(unread)
            .map(|name| async move {
                let found = depot.find(&name).await;
                (name, found)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut blobs = Vec::new();
        for (name, found) in found {
            tried.push(name.to_string());
            match found {
                Ok(Some(blob)) => blobs.push(blob),
                // Evicted: a miss, and nothing to talk about.
                Ok(None) => self.catalog.lose(name.as_str()),
                Err(error) => {
                    self.catalog.lose(name.as_str());
                    trouble(error.into());
                }
            }
        }
        blobs
    }
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
