//! GitHub's cache as a depot, and the artifacts of the workflow run instead of it where a job may not use the cache.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use phoenix_depot::{Blob, BlobName, Body, Created, Depot, DepotError, Problem, Scopes};

use crate::artifacts::Kept;
use crate::{Artifacts, Cache};

/// What the names of our artifacts begin with.
const PREFIX: &str = "phoenix-depot.";

/// What stands for `/`, which no artifact's name may have, and is in no blob's.
const SLASH: &str = "~";

/// The scope of what is kept for this run alone.
const SCOPE: &str = "workflow-run";

/// The cache of a repository, as a pipeline uses it whose jobs may be forbidden to write it, or to read it.
///
/// GitHub gives such a job a token that can make artifacts all the same. Once it is known that the cache may not be
/// written, what is made becomes an artifact, and what is looked for is looked for there first: a plan and what
/// runners build for each other reach them, only nothing is left for the next run. What the planner's job knows,
/// others find out: what is not in the cache, or may not be read there, is looked for among the artifacts.
pub struct OfRun {
    cache: Cache,
    artifacts: Artifacts,
    /// Set once artifacts are used.
    instead: OnceLock<()>,
    /// Told once, and why.
    tell: Box<dyn Fn(&str) + Send + Sync>,
    known: Mutex<HashMap<BlobName, Kept>>,
}

impl fmt::Debug for OfRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfRun").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl OfRun {
    /// Puts artifacts beside a cache. `tell` is told once, when they are used instead of it, why.
    #[must_use]
    pub fn new(cache: Cache, artifacts: Artifacts, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let of_run = Self {
            cache,
            artifacts,
            instead: OnceLock::new(),
            tell: Box::new(tell),
            known: Mutex::default(),
        };
        if let Some(why) = of_run.cache.forbidden() {
            of_run.turn(&why);
        }
        of_run
    }

    fn turn(&self, why: &str) {
        if self.instead.set(()).is_ok() {
            (self.tell)(why);
        }
    }

    fn is_instead(&self) -> bool {
        self.instead.get().is_some()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<BlobName, Kept>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, doing: &str, what: &str, problem: Problem) -> DepotError {
        let doing = format!("{doing} {what}, in the artifacts of this workflow run");
        DepotError { location: self.cache.location().to_owned(), doing, problem }
    }

    /// The artifacts that are blobs with these names, and takes note of them.
    async fn among(&self, exact: Option<&BlobName>, prefix: &str) -> Result<Vec<Blob>, Problem> {
        let kept = self.artifacts.kept(exact.map(artifact_name).as_deref()).await?;
        let mut known = self.known();
        let found = kept.into_iter().filter_map(|kept| {
            let name = blob_name(kept.name())?;
            let is_it = exact.map_or_else(|| name.as_str().starts_with(prefix), |exact| *exact == name);
            is_it.then(|| {
                let blob = Blob { name: name.clone(), size: kept.size(), created: kept.created() };
                known.insert(name, kept);
                blob
            })
        });
        Ok(found.collect())
    }

    async fn newest_here(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        let found = self.among(None, prefix).await;
        let found = found.map_err(|problem| self.error("looking for the newest of", prefix, problem))?;
        let known = self.known();
        Ok(found.into_iter().max_by_key(|blob| known.get(&blob.name).map(Kept::number)))
    }
}

fn artifact_name(name: &BlobName) -> String {
    format!("{PREFIX}{}", name.as_str().replace('/', SLASH))
}

fn blob_name(artifact: &str) -> Option<BlobName> {
    BlobName::new(artifact.strip_prefix(PREFIX)?.replace(SLASH, "/")).ok()
}

/// What a cache that may not be read has for us.
fn unless_denied<T: Default>(answer: Result<T, DepotError>) -> Result<T, DepotError> {
    match answer {
        Err(DepotError { problem: Problem::Denied(_) | Problem::Ended(_), .. }) => Ok(T::default()),
        answer => answer,
    }
}

#[async_trait::async_trait]
impl Depot for OfRun {
    fn location(&self) -> &str {
        self.cache.location()
    }

    fn scopes(&self) -> Option<Scopes> {
        let scopes = self.cache.scopes();
        if !self.is_instead() {
            return scopes;
        }
        let others = scopes.map(|scopes| scopes.read).unwrap_or_default();
        let read = std::iter::once(SCOPE.to_owned()).chain(others).collect();
        Some(Scopes { write: Some(SCOPE.to_owned()), read })
    }

    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        let body = if self.is_instead() {
            body
        } else {
            match self.cache.create_or_return(name, body).await {
                Ok(created) => return Ok(created),
                Err((error, None)) => return Err(error),
                Err((error, Some(body))) => {
                    self.turn(&error.problem.to_string());
                    body
                }
            }
        };
        let made = self.artifacts.keep(&artifact_name(name), body).await;
        match made.map_err(|problem| self.error("creating", name.as_str(), problem))? {
            None => Ok(Created::Taken),
            Some(kept) => {
                let size = kept.size();
                self.known().insert(name.clone(), kept);
                Ok(Created::New(size))
            }
        }
    }

    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        let from_cache = if self.is_instead() { None } else { Some(self.cache.find(name).await) };
        if let Some(Ok(Some(blob))) = from_cache {
            return Ok(Some(blob));
        }
        let here = self.among(Some(name), "").await.map(|found| found.into_iter().next());
        if let Ok(Some(blob)) = here {
            self.turn("another job of this run kept it so");
            return Ok(Some(blob));
        }
        match from_cache {
            // It is the cache's answer that counts.
            Some(answer) => answer,
            None => {
                here.map_err(|problem| self.error("looking for", name.as_str(), problem))?;
                unless_denied(self.cache.find(name).await)
            }
        }
    }

    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        if !self.is_instead() {
            return self.cache.newest(prefix).await;
        }
        match self.newest_here(prefix).await? {
            Some(blob) => Ok(Some(blob)),
            None => unless_denied(self.cache.newest(prefix).await),
        }
    }

    async fn newest_name(&self, prefix: &str) -> Result<Option<BlobName>, DepotError> {
        if !self.is_instead() {
            return self.cache.newest_name(prefix).await;
        }
        match self.newest_here(prefix).await? {
            Some(blob) => Ok(Some(blob.name)),
            None => unless_denied(self.cache.newest_name(prefix).await),
        }
    }

    async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError> {
        let kept = self.known().get(&blob.name).cloned();
        let Some(kept) = kept else { return self.cache.read(blob, range).await };
        let read = self.artifacts.range(&kept, range).await;
        read.map_err(|problem| self.error("reading", blob.name.as_str(), problem))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        let mut all = self.cache.list(prefix).await?;
        if self.is_instead() {
            let here = self.among(None, prefix).await;
            let here = here.map_err(|problem| self.error("listing", prefix, problem))?;
            all.retain(|blob| here.iter().all(|other| other.name != blob.name));
            all.extend(here);
            all.sort_by(|one, other| one.name.cmp(&other.name));
        }
        Ok(all)
    }

    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        let kept = self.known().remove(name);
        let Some(kept) = kept else { return self.cache.remove(name).await };
        let removed = self.artifacts.forget(&kept).await;
        removed.map_err(|problem| self.error("removing", name.as_str(), problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for text in ["plans/1-2", "packs/=refs+2Fheads+2Fmain/0001-ab", "a"] {
            let name = BlobName::new(text).unwrap();
            let artifact = artifact_name(&name);
            assert_eq!(blob_name(&artifact), Some(name));
            assert!(!artifact.contains(['"', ':', '<', '>', '|', '*', '?', '\\', '/']), "{artifact}");
        }
        assert_eq!(blob_name("phoenix-run.unit.1.1"), None);
        assert_eq!(blob_name("phoenix-report-1"), None);
    }
}
