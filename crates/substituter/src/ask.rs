//! Many questions to several substituters at once.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use phoenix_model::{Source, Status, StorePath};
use phoenix_store::Nix;

use crate::http::{Answer, Http, HttpSettings};
use crate::location::Place;
use crate::{Location, NarInfo, Netrc, PublicKeys, other};

/// How many requests are in flight at once where each needs a connection (HTTP/1.1). Measured: the time
/// falls in proportion up to here, and servers take it (`docs/benchmarks.md`).
pub const DEFAULT_CONNECTIONS: usize = 128;

/// How many requests are in flight at once where connections are shared (HTTP/2).
const SHARED_IN_FLIGHT: usize = 400;

/// How often a stop is looked for while nothing answers.
const TICK: Duration = Duration::from_millis(100);

/// The priority of a cache that does not say (nix `src/libstore/store-api.hh`).
const DEFAULT_PRIORITY: u64 = 50;

/// Whom to ask, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Nix, for stores that only Nix can reach.
    pub nix: Nix,
    /// URLs as in nix.conf.
    pub substituters: Vec<String>,
    /// Keys as in nix.conf.
    pub trusted_public_keys: Vec<String>,
    /// Whether only signed paths count.
    pub require_sigs: bool,
    /// The store directory a cache has to be for.
    pub store_dir: String,
    /// Where credentials are.
    pub netrc_file: Option<PathBuf>,
    /// Root certificates to use instead of the system's.
    pub ssl_cert_file: Option<PathBuf>,
    /// The most connections to one substituter, at least 1.
    pub connections: usize,
    /// The longest that a request may take.
    pub timeout: Duration,
}

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The answer to a question.
    Answer {
        /// The path that was asked for.
        path: StorePath,
        /// Present, absent, or unknown.
        status: Status,
        /// What the substituter says of it, when present.
        found: Option<Found>,
    },
    /// A substituter does not answer as it should and is not asked again. Once each.
    Failed {
        /// Its URL without credentials.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A substituter says something of a path that cannot be right; that answer is unknown. Once each.
    Strange {
        /// Its URL without credentials.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A substituter has a path that is not signed by a trusted key, so Nix would not take it. Once each.
    Untrusted {
        /// Its URL without credentials.
        url: String,
        /// The first such path.
        example: StorePath,
    },
}

/// What a substituter says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Bytes to fetch, where told.
    pub file_size: Option<u64>,
}

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No runtime for requests.
    #[error("cannot start making requests")]
    Runtime(#[from] std::io::Error),
}

/// Asks for each path in `first`, and for each that `hear` returns, each once. Substituters are asked in
/// the order of their priorities, and only while nobody before them has the path. Returns when nothing is
/// left to ask, or soon after `stop` is set; what is then open has had no answer.
///
/// # Errors
/// When requests cannot be made at all.
pub fn ask(
    settings: &Settings,
    stop: &AtomicBool,
    first: Vec<StorePath>,
    hear: &mut dyn FnMut(Heard) -> Vec<StorePath>,
) -> Result<(), AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let caches = make(settings);
    runtime.block_on(async {
        let mut asking = Asking { caches: &caches, queue: VecDeque::new(), asked: HashSet::new(), hear };
        asking.add(first);
        asking.run(settings, stop).await;
    });
    Ok(())
}

/// A substituter.
#[derive(Debug)]
struct Cache {
    location: Location,
    shown: String,
    reach: Reach,
    down: AtomicBool,
    strange: AtomicBool,
    untrusted: AtomicBool,
    keys: PublicKeys,
    require_sigs: bool,
}

#[derive(Debug)]
enum Reach {
    Http(Http),
    Directory(PathBuf),
    Other,
    Broken(String),
}

/// What one substituter says of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lookup {
    Found(Found),
    Untrusted,
    Absent,
    Failed(String),
    /// It answers, but what it says of this path cannot be right.
    Strange(String),
    /// It is down already.
    Down,
}

fn make(settings: &Settings) -> Vec<Cache> {
    let netrc = settings
        .netrc_file
        .as_ref()
        .and_then(|file| std::fs::read_to_string(file).ok())
        .map(|text| Netrc::parse(&text))
        .unwrap_or_default();
    let mut seen = HashSet::new();
    let keys = PublicKeys::parse(settings.trusted_public_keys.iter().map(String::as_str));
    settings
        .substituters
        .iter()
        .map(|url| Location::parse(url))
        .filter(|location| seen.insert(location.shown()))
        .map(|location| {
            let reach = match &location.place {
                Place::Http { base, host, credentials } => {
                    let credentials = credentials.clone().or_else(|| netrc.at(host).cloned());
                    let how = HttpSettings {
                        https: location.is_https(),
                        timeout: settings.timeout,
                        connections: settings.connections.max(1),
                        ssl_cert_file: settings.ssl_cert_file.clone(),
                    };
                    Http::new(base.clone(), credentials, &how).map_or_else(Reach::Broken, Reach::Http)
                }
                Place::Directory(directory) => Reach::Directory(directory.into()),
                Place::Other => Reach::Other,
            };
            Cache {
                shown: location.shown(),
                reach,
                down: AtomicBool::new(false),
                strange: AtomicBool::new(false),
                untrusted: AtomicBool::new(false),
                keys: keys.clone(),
                require_sigs: settings.require_sigs && !location.trusted,
                location,
            }
        })
        .collect()
}

impl Cache {
    fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    async fn file(&self, name: &str) -> Answer {
        match &self.reach {
            Reach::Http(http) => http.get(name, &|| self.is_down()).await,
            Reach::Directory(directory) => read(directory, name),
            Reach::Other => Answer::Absent,
            Reach::Broken(problem) => Answer::Failed(problem.clone()),
        }
    }

    async fn lookup(&self, path: &StorePath) -> Lookup {
        if self.is_down() {
            return Lookup::Down;
        }
        let answer = match &self.reach {
            Reach::Http(http) => http.narinfo(path, &|| self.is_down()).await,
            _ => self.file(&format!("{}.narinfo", path.hash_part())).await,
        };
        let text = match answer {
            Answer::Text(text) => text,
            Answer::Absent => return Lookup::Absent,
            Answer::Failed(problem) => return Lookup::Failed(problem),
        };
        match NarInfo::parse(&text) {
            Ok(info) if info.store_path != *path => Lookup::Strange(format!(
                "asked for {} it tells of {}",
                path.base_name(),
                info.store_path.base_name()
            )),
            Ok(info) if self.require_sigs && !self.keys.signed(&info) => Lookup::Untrusted,
            Ok(info) => Lookup::Found(Found { nar_size: info.nar_size, file_size: info.file_size }),
            Err(error) => Lookup::Strange(format!("its .narinfo of {} cannot be read: {error}", path.base_name())),
        }
    }
}

fn read(directory: &Path, name: &str) -> Answer {
    match std::fs::read_to_string(directory.join(name)) {
        Ok(text) => Answer::Text(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Answer::Absent,
        Err(error) => Answer::Failed(format!("its {name} cannot be read: {error}")),
    }
}

/// A path and how far its question has come.
#[derive(Debug)]
struct Question {
    path: StorePath,
    /// The position, in the order of asking, of who is asked next.
    next: usize,
    /// Somebody before might have it.
    unknown: bool,
}

struct Asking<'a> {
    caches: &'a [Cache],
    queue: VecDeque<Question>,
    asked: HashSet<StorePath>,
    hear: &'a mut dyn FnMut(Heard) -> Vec<StorePath>,
}

impl Asking<'_> {
    fn add(&mut self, paths: Vec<StorePath>) {
        for path in paths {
            if self.asked.insert(path.clone()) {
                self.queue.push_back(Question { path, next: 0, unknown: false });
            }
        }
    }

    fn tell(&mut self, heard: Heard) {
        let more = (self.hear)(heard);
        self.add(more);
    }

    async fn run(&mut self, settings: &Settings, stop: &AtomicBool) {
        let Some(order) = self.greet(&settings.store_dir, stop).await else { return };
        let caches = self.caches;
        let shared = order.iter().any(|&at| caches[at].location.is_https());
        let most = if shared { SHARED_IN_FLIGHT.max(settings.connections) } else { settings.connections.max(1) };
        let mut flying = FuturesUnordered::new();
        let mut waiting: Vec<Vec<Question>> = caches.iter().map(|_| Vec::new()).collect();
        loop {
            while flying.len() < most && !stop.load(Ordering::Relaxed) {
                let Some(question) = self.queue.pop_front() else { break };
                let Some(&at) = order.get(question.next) else {
                    self.give_up(question);
                    continue;
                };
                let cache = &caches[at];
                if matches!(cache.reach, Reach::Other) && !cache.is_down() {
                    waiting[at].push(question);
                } else {
                    flying.push(async move {
                        let lookup = cache.lookup(&question.path).await;
                        (question, at, lookup)
                    });
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if flying.is_empty() {
                match waiting.iter().position(|questions| !questions.is_empty()) {
                    Some(at) => self.ask_nix(&settings.nix, at, std::mem::take(&mut waiting[at])),
                    None if self.queue.is_empty() => return,
                    None => {}
                }
                continue;
            }
            if let Ok(Some((question, at, lookup))) = tokio::time::timeout(TICK, flying.next()).await {
                self.answered(question, at, lookup);
            }
        }
    }

    /// Asks each substituter what it is; the order in which they are asked for paths.
    async fn greet(&mut self, store_dir: &str, stop: &AtomicBool) -> Option<Vec<usize>> {
        let mut flying: FuturesUnordered<_> = (0..self.caches.len())
            .map(|at| {
                let cache = &self.caches[at];
                async move { (at, cache.file("nix-cache-info").await) }
            })
            .collect();
        let mut order: Vec<(u64, usize)> = Vec::new();
        let mut failed: Vec<(usize, String)> = Vec::new();
        while !flying.is_empty() {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let Ok(Some((at, answer))) = tokio::time::timeout(TICK, flying.next()).await else { continue };
            let cache = &self.caches[at];
            let priority = cache.location.priority;
            match answer {
                Answer::Text(text) => match cache_info(&text, store_dir) {
                    Ok(own) => order.push((priority.unwrap_or(own), at)),
                    // Nix passes it over as well, so it has nothing.
                    Err(problem) => failed.push((at, problem)),
                },
                Answer::Absent if matches!(cache.reach, Reach::Other) => {
                    order.push((priority.unwrap_or(DEFAULT_PRIORITY), at));
                }
                Answer::Absent => failed.push((at, "it has no nix-cache-info, so it is no binary cache".to_owned())),
                Answer::Failed(problem) => {
                    // It is down, and who is down might have anything: it stays in the order.
                    cache.down.store(true, Ordering::Relaxed);
                    order.push((priority.unwrap_or(DEFAULT_PRIORITY), at));
                    failed.push((at, problem));
                }
            }
        }
        failed.sort();
        for (at, problem) in failed {
            self.tell(Heard::Failed { url: self.caches[at].shown.clone(), problem });
        }
        order.sort_unstable();
        Some(order.into_iter().map(|(_, at)| at).collect())
    }

    fn answered(&mut self, mut question: Question, at: usize, lookup: Lookup) {
        let cache = &self.caches[at];
        match lookup {
            Lookup::Found(found) => {
                let status = Status::Present(Source::Substituter(cache.shown.clone()));
                self.tell(Heard::Answer { path: question.path, status, found: Some(found) });
                return;
            }
            Lookup::Absent => {}
            Lookup::Untrusted => {
                if !cache.untrusted.swap(true, Ordering::Relaxed) {
                    self.tell(Heard::Untrusted { url: cache.shown.clone(), example: question.path.clone() });
                }
            }
            Lookup::Down => question.unknown = true,
            Lookup::Strange(problem) => {
                question.unknown = true;
                if !cache.strange.swap(true, Ordering::Relaxed) {
                    self.tell(Heard::Strange { url: cache.shown.clone(), problem });
                }
            }
            Lookup::Failed(problem) => {
                question.unknown = true;
                if !cache.down.swap(true, Ordering::Relaxed) {
                    self.tell(Heard::Failed { url: cache.shown.clone(), problem });
                }
            }
        }
        question.next += 1;
        self.queue.push_front(question);
    }

    /// Nobody has it.
    fn give_up(&mut self, question: Question) {
        let status = if question.unknown { Status::Unknown } else { Status::Absent };
        self.tell(Heard::Answer { path: question.path, status, found: None });
    }

    fn ask_nix(&mut self, nix: &Nix, at: usize, questions: Vec<Question>) {
        let cache = &self.caches[at];
        let mut questions = questions.into_iter().peekable();
        while questions.peek().is_some() {
            let some: Vec<Question> = questions.by_ref().take(other::PATHS_A_CALL).collect();
            let paths: Vec<StorePath> = some.iter().map(|question| question.path.clone()).collect();
            let found = if cache.is_down() { Ok(None) } else { other::lookup(nix, cache.location.url(), &paths).map(Some) };
            for question in some {
                let lookup = match &found {
                    Ok(Some(found)) => match found.get(&question.path) {
                        Some(&nar_size) => Lookup::Found(Found { nar_size, file_size: None }),
                        None => Lookup::Absent,
                    },
                    Ok(None) => Lookup::Down,
                    Err(problem) => Lookup::Failed(problem.clone()),
                };
                self.answered(question, at, lookup);
            }
        }
    }
}

/// Reads a `nix-cache-info`: the priority, if the cache is for our store directory.
fn cache_info(text: &str, store_dir: &str) -> Result<u64, String> {
    let mut priority = DEFAULT_PRIORITY;
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name {
            "StoreDir" if value != store_dir => {
                return Err(format!("it is for stores in {value}, and this one is in {store_dir}"));
            }
            "Priority" => priority = value.parse().unwrap_or(DEFAULT_PRIORITY),
            _ => {}
        }
    }
    Ok(priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_says_its_priority_and_its_store() {
        let text = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n";
        assert_eq!(cache_info(text, "/nix/store"), Ok(40));
        assert_eq!(cache_info("", "/nix/store"), Ok(DEFAULT_PRIORITY));
        assert!(cache_info(text, "/other").unwrap_err().contains("/nix/store"));
    }
}
