//! From a URL to the depot that it names.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use crate::object::{self, Settings};
use crate::redacted::redacted;
use crate::{Depot, Directory};

/// The forms of the URLs that are known here.
const FORMS: [&str; 4] = ["dir:PATH", "s3://BUCKET/PREFIX", "gs://BUCKET/PREFIX", "az://CONTAINER/PREFIX"];

/// How long requests to an object store are tried again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long nothing may come of what is read from an object store: a third of the patience, for one request may hang
/// where others do not.
const STALL: Duration = Duration::from_secs(20);

/// What opens the depots of a scheme, or says what is wrong and what would be right.
type Open = Box<dyn Fn(&str) -> Result<Box<dyn Depot>, String> + Send + Sync>;

/// Opens depots by their URLs:
///
/// - `dir:PATH`: a [`Directory`]; the path is taken as it is, and from the working directory if it is relative;
/// - `s3://BUCKET/PREFIX`, with `?region=` and `endpoint=` for stores that speak like S3; who we are comes from
///   `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, or from the machine, the
///   container or the web identity that we run as (files of profiles are not read);
/// - `gs://BUCKET/PREFIX`: `GOOGLE_SERVICE_ACCOUNT`, `GOOGLE_APPLICATION_CREDENTIALS` and so on;
/// - `az://CONTAINER/PREFIX` or `abfss://CONTAINER@ACCOUNT.…/PREFIX`: `AZURE_STORAGE_ACCOUNT_NAME`,
///   `AZURE_STORAGE_ACCOUNT_KEY` and so on;
/// - whatever else [`also`](Self::also) was called with.
///
/// The variables are those of the crate `object_store`, which documents the rest of them.
pub struct Opener {
    variables: BTreeMap<String, String>,
    patience: Duration,
    stall: Duration,
    others: Vec<(&'static str, &'static str, Open)>,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The variables hold secrets.
        write!(f, "Opener({})", self.forms().join(", "))
    }
}

impl Opener {
    /// Opens depots with these variables in place of the environment's.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            variables: variables.into_iter().collect(),
            patience: PATIENCE,
            stall: STALL,
            others: Vec::new(),
        }
    }

    /// Opens depots with the variables of the environment; those that are no text are left out.
    #[must_use]
    pub fn of_environment() -> Self {
        let text = |value: std::ffi::OsString| value.into_string().ok();
        Self::new(std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))))
    }

    /// The same, but requests to object stores are tried again for this long, and not for a minute.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same, but what is read from an object store is asked for again when nothing came of it for this long, and not
    /// for twenty seconds.
    #[must_use]
    pub fn with_stall(mut self, stall: Duration) -> Self {
        self.stall = stall;
        self
    }

    /// The same, but URLs that begin with `scheme` and a colon are opened by `open`, before all others. `form`
    /// is how such a URL looks; `open` says what is wrong and what would be right, without secrets.
    #[must_use]
    pub fn also(
        mut self,
        scheme: &'static str,
        form: &'static str,
        open: impl Fn(&str) -> Result<Box<dyn Depot>, String> + Send + Sync + 'static,
    ) -> Self {
        self.others.push((scheme, form, Box::new(open)));
        self
    }

    fn forms(&self) -> Vec<&str> {
        FORMS.into_iter().chain(self.others.iter().map(|(_, form, _)| *form)).collect()
    }

    /// Opens a depot. Nobody is asked whether it is there: the first request shows.
    ///
    /// # Errors
    ///
    /// When the URL names no kind of depot that is known, or is not as that kind needs it.
    pub fn open(&self, url: &str) -> Result<Box<dyn Depot>, OpenError> {
        self.opened(url).map_err(|problem| OpenError { url: redacted(url), problem })
    }

    fn opened(&self, url: &str) -> Result<Box<dyn Depot>, String> {
        let known = || format!("known are {}", self.forms().join(", "));
        let Some((scheme, rest)) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
            let directory =
                if url.is_empty() { String::new() } else { format!(" (a directory is dir:{url})") };
            return Err(format!("it is no URL{directory}; {}", known()));
        };
        if let Some((_, _, open)) = self.others.iter().find(|(name, _, _)| *name == scheme) {
            return open(url);
        }
        match scheme {
            "dir" if rest.is_empty() => Err("it names no directory; write dir:PATH".to_owned()),
            // Shells resolve it at the beginning of a word only, and a folder called `~` is hard to get rid of.
            "dir" if rest == "~" || rest.starts_with("~/") => {
                Err("`~` means nothing here; write the whole path, or \"dir:$HOME/…\" in a shell".to_owned())
            }
            "dir" => {
                let path = std::path::absolute(rest).map_err(|error| error.to_string())?;
                Ok(Box::new(Directory::new(path)))
            }
            "s3" | "s3a" | "gs" | "az" | "azure" | "adl" | "abfs" | "abfss" => {
                let settings =
                    Settings { variables: &self.variables, patience: self.patience, stall: self.stall };
                Ok(Box::new(object::connect(url, &settings)?))
            }
            _ => Err(format!("no kind of depot is called {scheme}; {}", known())),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// A depot that cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the depot {url} cannot be opened: {problem}")]
pub struct OpenError {
    /// Its URL, without what may be a secret.
    pub url: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Opens the depot of a URL with the variables of the environment, as [`Opener::of_environment`] does.
///
/// # Errors
///
/// When the URL names no kind of depot that is known, or is not as that kind needs it.
pub fn open(url: &str) -> Result<Box<dyn Depot>, OpenError> {
    Opener::of_environment().open(url)
}

/// The URL of the depot that is used where none is named: the directory `phoenix-ci/depot` in `xdg_cache_home`
/// (the variable `XDG_CACHE_HOME`) if that is an absolute path, else in `.cache` in `home` (`HOME`); none where
/// neither is, or where it is no text.
#[must_use]
pub fn default_url(xdg_cache_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<String> {
    let absolute =
        |path: Option<&OsStr>| path.map(Path::new).filter(|path| path.is_absolute()).map(Path::to_owned);
    let caches = absolute(xdg_cache_home).or_else(|| Some(absolute(home)?.join(".cache")))?;
    Some(format!("dir:{}", caches.join("phoenix-ci/depot").to_str()?))
}

/// [`default_url`] with the variables of the environment.
#[must_use]
pub fn default_url_of_environment() -> Option<String> {
    default_url(std::env::var_os("XDG_CACHE_HOME").as_deref(), std::env::var_os("HOME").as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opener(variables: &[(&str, &str)]) -> Opener {
        Opener::new(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn every_known_kind_is_opened() {
        let opener = opener(&[
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "hunter22"),
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "aHVudGVyMjI="),
            ("GOOGLE_SKIP_SIGNATURE", "true"),
        ]);
        for (url, location) in [
            ("dir:/a/b", "dir:/a/b"),
            ("dir:///a/b", "dir:/a/b"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b/?region=eu-1", "s3://bucket/a/b?region=eu-1"),
            ("s3://bucket?endpoint=http://127.0.0.1:1", "s3://bucket?endpoint=http://127.0.0.1:1"),
            ("gs://bucket/x", "gs://bucket/x"),
            ("az://container/x", "az://container/x"),
            (
                "abfss://container@account.dfs.core.windows.net/x",
                "abfss://container@account.dfs.core.windows.net/x",
            ),
        ] {
            let depot = opener.open(url).unwrap_or_else(|error| panic!("{error}"));
            let debug = format!("{depot:?}");
            assert!(
                depot.location().ends_with(location.trim_start_matches("dir://")),
                "{}",
                depot.location()
            );
            assert!(!debug.contains("hunter") && !debug.contains("aHVudGVy"), "{debug}");
        }
        assert!(!format!("{opener:?}").contains("hunter"));
    }

    #[test]
    fn what_cannot_be_opened_is_told_with_what_could() {
        let opener = opener(&[]).also("github", "github:", |_| Err("not on a runner".to_owned()));
        for (url, words) in [
            ("", "it is no URL; known are dir:PATH, s3://"),
            (
                "/a/b",
                "the depot /a/b cannot be opened: it is no URL (a directory is dir:/a/b); known are dir:PATH",
            ),
            ("dir:", "it names no directory; write dir:PATH"),
            ("dir:~/x", "the depot dir:~/x cannot be opened: `~` means nothing here; write the whole path"),
            (
                "ftp://me:hunter22@host/x",
                "the depot ftp://host/x cannot be opened: no kind of depot is called ftp; known are",
            ),
            ("ftp://x", "az://CONTAINER/PREFIX, github:"),
            ("github:x", "the depot github:x cannot be opened: not on a runner"),
            ("s3:///x", "it names no bucket; write SCHEME://BUCKET"),
            ("s3:bucket", "it names no bucket"),
            (
                "s3://me:hunter22@bucket/x",
                "the depot s3://bucket/x cannot be opened: credentials do not belong",
            ),
            ("s3://bucket?secret=hunter22", "its parameter secret is not known; region and endpoint is"),
            ("gs://bucket?region=x", "its parameter region is not known; none is"),
            ("s3://bucket?region=a&region=b", "its parameter region stands there twice"),
            ("az://container", "AZURE_STORAGE_ACCOUNT_NAME"),
        ] {
            let error = opener.open(url).map(|depot| depot.location().to_owned()).unwrap_err().to_string();
            assert!(error.contains(words), "{url}: {error}");
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn a_relative_directory_is_where_we_are() {
        let depot = opener(&[]).open("dir:a").unwrap();
        assert_eq!(depot.location(), format!("dir:{}", std::env::current_dir().unwrap().join("a").display()));
    }

    #[test]
    fn the_default_follows_the_xdg_directories() {
        let url =
            |xdg: Option<&str>, home: Option<&str>| default_url(xdg.map(OsStr::new), home.map(OsStr::new));
        assert_eq!(url(Some("/c"), Some("/h")).as_deref(), Some("dir:/c/phoenix-ci/depot"));
        assert_eq!(url(None, Some("/h")).as_deref(), Some("dir:/h/.cache/phoenix-ci/depot"));
        for relative in ["", "c"] {
            assert_eq!(url(Some(relative), Some("/h")).as_deref(), Some("dir:/h/.cache/phoenix-ci/depot"));
        }
        assert_eq!(url(None, None), None);
        assert_eq!(url(None, Some("h")), None);
        assert!(opener(&[]).open(&url(None, Some("/h")).unwrap()).is_ok());
    }
}
