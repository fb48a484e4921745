//! One substituter, however it is reached.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use phoenix_model::StorePath;
use phoenix_store::Nix;
use tokio::sync::watch;

use crate::cache_info::{self, CacheInfo};
use crate::http::{File, Http, HttpSettings};
use crate::location::Place;
use crate::nix_store::Held;
use crate::routing::Lookup;
use crate::trust::Trust;
use crate::{Found, Location, NarInfo, Netrc, PathInfo, PublicKeys, Settings, directory, nix_store};

/// How many times as long as a request a call of Nix may take: it asks for many paths, often one by one.
const NIX_CALL: u32 = 4;

/// What a substituter turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opened {
    /// One to ask; its priority, lower is asked first.
    Ours(i64),
    /// One that Nix passes over, and why.
    Foreign(String),
    /// One that does not answer, and why.
    Failed(String),
}

/// One substituter.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) location: Location,
    reach: Reach,
    trust: Trust,
    store_dir: String,
    /// The longest that a call of Nix may take.
    nix_timeout: Duration,
    /// Becomes true when it is not to be asked any more: what is in flight then ends at once.
    down: watch::Sender<bool>,
}

#[derive(Debug)]
enum Reach {
    Http(Http),
    Directory(PathBuf),
    Nix(Nix),
    Nowhere(String),
}

impl Store {
    pub(crate) fn new(location: Location, settings: &Settings, netrc: &Netrc, keys: &PublicKeys) -> Self {
        let reach = match &location.place {
            Place::Http(place) => {
                let how = HttpSettings {
                    timeout: settings.timeout,
                    connections: settings.connections.max(1),
                    ssl_cert_file: settings.ssl_cert_file.clone(),
                };
                Http::new(place.base.clone(), place.credentials(netrc), how)
                    .map_or_else(Reach::Nowhere, Reach::Http)
            }
            Place::Directory(directory) => Reach::Directory(directory.into()),
            Place::Store => Reach::Nix(settings.nix.clone()),
            Place::Nowhere(problem) => Reach::Nowhere(problem.clone()),
        };
        Self {
            trust: Trust { blind: location.trusted || !settings.require_sigs, keys: keys.clone() },
            store_dir: settings.store_dir.clone(),
            nix_timeout: settings.timeout * NIX_CALL,
            down: watch::Sender::new(false),
            reach,
            location,
        }
    }

    /// How many lookups may be in flight now.
    pub(crate) fn window(&self) -> usize {
        match &self.reach {
            Reach::Http(http) => http.window(),
            Reach::Directory(_) => directory::READS_AT_ONCE,
            Reach::Nix(_) | Reach::Nowhere(_) => 1,
        }
    }

    /// How many paths are asked for in one lookup.
    pub(crate) fn batch(&self) -> usize {
        if matches!(self.reach, Reach::Nix(_)) { nix_store::PATHS_A_CALL } else { 1 }
    }

    /// Ends what is in flight.
    pub(crate) fn shut(&self) {
        self.down.send_replace(true);
    }

    /// Asks it what it is.
    pub(crate) async fn open(&self) -> Opened {
        let file = match &self.reach {
            Reach::Http(http) => http.get("nix-cache-info").await,
            Reach::Directory(path) => match directory::check(path).await {
                Ok(()) => directory::get(path, "nix-cache-info").await,
                Err(problem) => File::Failed(problem),
            },
            Reach::Nix(_) => File::Text(String::new()),
            Reach::Nowhere(problem) => File::Failed(problem.clone()),
        };
        let priority = |own| self.location.priority.unwrap_or(own);
        match file {
            File::Text(text) => match cache_info::parse(&text, &self.store_dir) {
                CacheInfo::Ours(own) => Opened::Ours(priority(own)),
                CacheInfo::Foreign(problem) => Opened::Foreign(problem),
                CacheInfo::Nonsense => {
                    Opened::Failed("what it has as nix-cache-info is something else".to_owned())
                }
            },
            // Nix writes one when there is none.
            File::Absent if matches!(self.reach, Reach::Directory(_)) => Opened::Ours(priority(0)),
            File::Absent => Opened::Foreign("it is no binary cache: it has no nix-cache-info".to_owned()),
            File::Strange(problem) | File::Failed(problem) => Opened::Failed(problem),
        }
    }

    /// Asks it for some paths; the answers in the same order.
    pub(crate) async fn lookup(&self, paths: &[StorePath]) -> Vec<Lookup> {
        let mut down = self.down.subscribe();
        tokio::select! {
            biased;
            _ = down.wait_for(|&down| down) => vec![Lookup::Failed("it does not answer".to_owned()); paths.len()],
            lookups = self.lookup_while_up(paths) => lookups,
        }
    }

    async fn lookup_while_up(&self, paths: &[StorePath]) -> Vec<Lookup> {
        let mut lookups = Vec::with_capacity(paths.len());
        match &self.reach {
            Reach::Http(http) => {
                for path in paths {
                    lookups.push(self.narinfo(path, http.get(&file_name(path)).await));
                }
            }
            Reach::Directory(directory) => {
                for path in paths {
                    lookups.push(self.narinfo(path, directory::get(directory, &file_name(path)).await));
                }
            }
            Reach::Nix(nix) => match self.ask_nix(nix, paths).await {
                Ok(mut all) => lookups.extend(paths.iter().map(|path| match all.remove(path.base_name()) {
                    Some(held) => self.judge(held.info, held.download_size),
                    None => Lookup::Absent,
                })),
                Err(problem) => lookups.resize(paths.len(), Lookup::Failed(problem)),
            },
            Reach::Nowhere(problem) => lookups.resize(paths.len(), Lookup::Failed(problem.clone())),
        }
        lookups
    }

    async fn ask_nix(&self, nix: &Nix, paths: &[StorePath]) -> Result<HashMap<String, Held>, String> {
        let lookup = nix_store::lookup(nix, &self.location, paths);
        tokio::time::timeout(self.nix_timeout, lookup)
            .await
            .unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
    }

    fn narinfo(&self, path: &StorePath, file: File) -> Lookup {
        let text = match file {
            File::Text(text) => text,
            File::Absent => return Lookup::Absent,
            File::Strange(problem) => return Lookup::Strange(problem),
            File::Failed(problem) => return Lookup::Failed(problem),
        };
        match NarInfo::parse(&text) {
            Ok(narinfo) if narinfo.info.store_path != *path => Lookup::Strange(format!(
                "asked for {} it tells of {}",
                path.base_name(),
                narinfo.info.store_path.base_name()
            )),
            Ok(narinfo) => self.judge(narinfo.info, narinfo.file_size),
            Err(error) => {
                Lookup::Strange(format!("its .narinfo of {} cannot be read: {error}", path.base_name()))
            }
        }
    }

    fn judge(&self, info: PathInfo, file_size: Option<u64>) -> Lookup {
        if self.trust.takes(&info) {
            Lookup::Found(Found { nar_size: info.nar_size, file_size, references: info.references })
        } else {
            Lookup::Untrusted
        }
    }
}

fn file_name(path: &StorePath) -> String {
    format!("{}.narinfo", path.hash_part())
}
