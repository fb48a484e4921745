//! What a job needs to get to the cache.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use crate::pace::Budget;
use crate::said::said;
use crate::secret::Secret;

/// How long a request is tried in all; the service lets a minute's budget return within a minute.
const PATIENCE: Duration = Duration::from_secs(150);

/// How long the service itself may take for an answer; it takes tens of milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(30);

/// How long an upload may take in all. The URL for it holds for 60 minutes and cannot be had again.
const UPLOAD_WITHIN: Duration = Duration::from_secs(50 * 60);

/// The size of blocks, and of the largest blob that is put in one request.
const BLOCK: usize = 16 << 20;

/// How many blocks go up at once; four or eight is what other clients do.
const UPLOADS: usize = 4;

/// The wait before a second try; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// What a job's environment says of the cache.
#[derive(Debug, Clone)]
pub struct Access {
    pub(crate) service: Url,
    pub(crate) token: Secret,
    pub(crate) mode: CacheMode,
    /// Why nothing is to be written, whatever the service would take.
    pub(crate) unwritable: Option<String>,
    pub(crate) rest: Option<RestAccess>,
}

/// What is missing for getting to the cache, or is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// A variable is not set. GitHub sets these for actions only, never for `run:` steps.
    #[error(
        "{0} is not set: GitHub gives it to actions only, not to `run:` steps, so an action has to hand it on"
    )]
    Missing(&'static str),
    /// A variable's value is no URL.
    #[error("{0} is no http URL")]
    NotAUrl(&'static str),
}

impl Access {
    /// Takes the values of `ACTIONS_RESULTS_URL`, `ACTIONS_RUNTIME_TOKEN` and `ACTIONS_CACHE_MODE`.
    ///
    /// As in the official client, only the origin of the URL counts.
    ///
    /// # Errors
    ///
    /// When one of the first two is missing or empty, or the URL is none.
    pub fn new(
        results_url: Option<&str>,
        token: Option<&str>,
        mode: Option<&str>,
    ) -> Result<Self, AccessError> {
        const URL: &str = "ACTIONS_RESULTS_URL";
        const TOKEN: &str = "ACTIONS_RUNTIME_TOKEN";
        let url = results_url.filter(|url| !url.is_empty()).ok_or(AccessError::Missing(URL))?;
        let token = token.filter(|token| !token.is_empty()).ok_or(AccessError::Missing(TOKEN))?;
        let service = origin(url).ok_or(AccessError::NotAUrl(URL))?;
        Ok(Self {
            service,
            token: Secret::new(token),
            mode: CacheMode::of(mode),
            unwritable: None,
            rest: None,
        })
    }

    /// Writes nothing to the cache, whatever the service would take, and says why.
    #[must_use]
    pub fn read_only(mut self, why: &str) -> Self {
        self.unwritable = Some(why.to_owned());
        self
    }

    /// A server's words without our secrets.
    pub(crate) fn said(&self, words: &str) -> String {
        let rest = self.rest.as_ref().map(|rest| &rest.token);
        said(words, &[Some(&self.token), rest].into_iter().flatten().collect::<Vec<_>>())
    }

    /// Adds what is needed to list and remove.
    #[must_use]
    pub fn with_rest(mut self, rest: Option<RestAccess>) -> Self {
        self.rest = rest;
        self
    }
}

/// What a job needs to list and remove a repository's caches.
#[derive(Debug, Clone)]
pub struct RestAccess {
    /// The URL of the API, without a slash at its end.
    pub(crate) url: String,
    pub(crate) token: Secret,
    pub(crate) repository: String,
}

impl RestAccess {
    /// Takes the values of `GITHUB_TOKEN`, `GITHUB_REPOSITORY` (`owner/name`) and `GITHUB_API_URL`
    /// (`https://api.github.com` when it is not set); none when one of the first two is missing or makes no
    /// sense.
    #[must_use]
    pub fn new(token: Option<&str>, repository: Option<&str>, url: Option<&str>) -> Option<Self> {
        let filled = |value: Option<&str>| value.map(str::to_owned).filter(|value| !value.is_empty());
        let character = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let part = |part: &str| !part.is_empty() && !part.starts_with("..") && part.chars().all(character);
        let repository = filled(repository)
            .filter(|repository| repository.split('/').filter(|name| part(name)).count() == 2)
            .filter(|repository| repository.split('/').count() == 2)?;
        let url = filled(url).unwrap_or_else(|| "https://api.github.com".to_owned());
        origin(&url)?;
        let url = url.trim_end_matches('/').to_owned();
        Some(Self { url, token: Secret::new(filled(token)?), repository })
    }
}

/// What the job may do with the cache, as far as its environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Nothing.
    None,
    /// Read and not write.
    Read,
    /// Write and not read.
    WriteOnly,
    /// Both, as far as the environment knows; the token may allow less.
    #[default]
    Both,
}

impl CacheMode {
    /// The meaning of `ACTIONS_CACHE_MODE`; what is absent or unknown forbids nothing.
    #[must_use]
    pub fn of(value: Option<&str>) -> Self {
        match value.map(str::trim) {
            Some("none") => Self::None,
            Some("read") => Self::Read,
            Some("write-only") => Self::WriteOnly,
            _ => Self::Both,
        }
    }

    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::WriteOnly | Self::Both)
    }
}

/// How the cache is used. The defaults are right for the real service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many requests a minute this job may make of those that the service counts.
    pub budget: Budget,
    /// A file by which the processes of a job share the budget, such as one under `RUNNER_TEMP`; it need not
    /// exist. Without it each [`Cache`](crate::Cache) has a budget of its own.
    pub budget_file: Option<PathBuf>,
    /// How long one request is tried again, waiting for the budget included; 150 s. Reading begins it anew with
    /// every byte that comes.
    pub patience: Duration,
    /// How long the service may take for an answer; 30 s.
    pub answer_within: Duration,
    /// How long bytes that are read may stand still, 30 s; a block that is sent may take ten times as long.
    pub stall: Duration,
    /// How long the upload of one blob may take; 50 minutes, for the URL holds for 60.
    pub upload_within: Duration,
    /// The size of blocks in bytes, and of the largest blob that is put in one request; 16 MiB.
    pub block: usize,
    /// How many blocks go up at once; 4. So many blocks and one more are in memory.
    pub uploads: usize,
    /// The wait before a second try, which doubles with each; 500 ms.
    pub first_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            budget_file: None,
            patience: PATIENCE,
            answer_within: ANSWER_WITHIN,
            stall: STALL,
            upload_within: UPLOAD_WITHIN,
            block: BLOCK,
            uploads: UPLOADS,
            first_wait: FIRST_WAIT,
        }
    }
}

/// The origin of an http URL, with a slash at its end.
fn origin(url: &str) -> Option<Url> {
    let mut url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    url.set_path("/");
    url.set_query(None);
    url.set_fragment(None);
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let new = |url, token| Access::new(url, token, None).map(|access| access.service.to_string());
        assert_eq!(new(Some("http://h:1/"), Some("t")).as_deref(), Ok("http://h:1/"));
        assert_eq!(new(Some("https://h"), Some("t")).as_deref(), Ok("https://h/"));
        assert_eq!(new(Some("https://me:pw@h/a/b?c=d"), Some("t")).as_deref(), Ok("https://h/"));
        assert_eq!(new(None, Some("t")), Err(AccessError::Missing("ACTIONS_RESULTS_URL")));
        assert_eq!(new(Some("http://h"), Some("")), Err(AccessError::Missing("ACTIONS_RUNTIME_TOKEN")));
        assert_eq!(new(Some("file:///x"), Some("t")), Err(AccessError::NotAUrl("ACTIONS_RESULTS_URL")));
        assert!(AccessError::Missing("X").to_string().contains("`run:` steps"));
    }

    #[test]
    fn the_mode_forbids_only_what_it_knows() {
        let mode = |value| (CacheMode::of(value).reads(), CacheMode::of(value).writes());
        assert_eq!(mode(None), (true, true));
        assert_eq!(mode(Some("write")), (true, true));
        assert_eq!(mode(Some("something new")), (true, true));
        assert_eq!(mode(Some("read")), (true, false));
        assert_eq!(mode(Some("write-only")), (false, true));
        assert_eq!(mode(Some("none")), (false, false));
    }

    #[test]
    fn rest_needs_a_token_and_a_repository() {
        let rest = |token, repository| RestAccess::new(token, repository, None).map(|rest| rest.url);
        assert_eq!(rest(Some("t"), Some("o/r")).as_deref(), Some("https://api.github.com"));
        assert_eq!(rest(None, Some("o/r")), None);
        for bad in ["", "o", "o/r/x", "o/", "../r", "o/r?x"] {
            assert_eq!(rest(Some("t"), Some(bad)), None, "{bad}");
        }
    }

    #[test]
    fn no_token_is_shown() {
        let access = Access::new(Some("http://h"), Some("hunter22"), None).unwrap();
        let access = access.with_rest(RestAccess::new(Some("hunter33"), Some("o/r"), None));
        let shown = format!("{access:?}");
        assert!(!shown.contains("hunter") && shown.contains("(secret)"), "{shown}");
    }
}
