//! From a URL to the ledger that it names.

use std::fmt;

use crate::{Directory, Ledger, LedgerError, Nats};

/// The forms of the URLs that are known here.
const FORMS: [&str; 2] = ["dir:PATH", "nats://HOST:PORT/RUN"];

/// What opens the ledgers of a scheme, or says what is wrong and what would be right.
type Open = Box<dyn Fn(&str) -> Result<Box<dyn Ledger>, String> + Send + Sync>;

/// Opens ledgers by their URLs:
///
/// - `dir:PATH`: a [`Directory`];
/// - `nats://HOST:PORT/RUN` (`tls://` for an encrypted connection), in which `RUN` names the run: letters, digits,
///   `-` and `_`. A user and a password, or a token, may stand before the host; messages never show them;
/// - whatever else [`also`](Self::also) was called with.
#[derive(Default)]
pub struct Opener {
    others: Vec<(&'static str, &'static str, Open)>,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({})", self.forms().join(", "))
    }
}

impl Opener {
    /// The same, but what follows `scheme` and a colon is opened by `open`. `form` is how such a URL looks; `open`
    /// is called within the runtime, and says what is wrong and what would be right, without secrets.
    #[must_use]
    pub fn also(
        mut self,
        scheme: &'static str,
        form: &'static str,
        open: impl Fn(&str) -> Result<Box<dyn Ledger>, String> + Send + Sync + 'static,
    ) -> Self {
        self.others.push((scheme, form, Box::new(open)));
        self
    }

    fn forms(&self) -> Vec<&str> {
        FORMS.into_iter().chain(self.others.iter().map(|(_, form, _)| *form)).collect()
    }

    /// Sees that a URL is of a form that is known, without opening anything.
    ///
    /// # Errors
    ///
    /// When it names no kind of ledger that is known, or none of that kind.
    pub fn check(&self, url: &str) -> Result<(), LedgerError> {
        let unknown = |problem: &str| {
            let (last, others) = self.forms().split_last().map_or(("", vec![]), |(l, o)| (*l, o.to_vec()));
            wrong(url, format!("{problem}; known are {} and {last}", others.join(", ")))
        };
        match url.split_once(':') {
            Some((scheme, _)) if self.others.iter().any(|(name, _, _)| *name == scheme) => Ok(()),
            Some(("dir", "")) => Err(unknown("it names no directory")),
            Some(("dir", _)) => Ok(()),
            Some(("nats" | "tls", _)) => Nats::check(url),
            _ => Err(unknown("no such kind of ledger is known")),
        }
    }

    /// Opens a ledger.
    ///
    /// # Errors
    ///
    /// When the URL names no kind of ledger that is known, or it cannot be reached.
    pub async fn open(&self, url: &str) -> Result<Box<dyn Ledger>, LedgerError> {
        self.check(url)?;
        let (scheme, rest) = url.split_once(':').unwrap_or_default();
        if let Some((_, _, open)) = self.others.iter().find(|(name, _, _)| *name == scheme) {
            return open(rest).map_err(|problem| wrong(url, problem));
        }
        if scheme == "dir" {
            let path = std::path::absolute(rest).map_err(|error| wrong(url, error.to_string()))?;
            return Ok(Box::new(Directory::open(path)?));
        }
        Ok(Box::new(Nats::connect(url).await?))
    }
}

fn wrong(url: &str, problem: String) -> LedgerError {
    LedgerError::new(Nats::shown(url), "being opened", problem)
}

/// Opens the ledger of a URL of the kinds that [`Opener`] knows by itself.
///
/// # Errors
///
/// As [`Opener::open`].
pub async fn open(url: &str) -> Result<Box<dyn Ledger>, LedgerError> {
    Opener::default().open(url).await
}
