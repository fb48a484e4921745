//! From a URL to the ledger that it names.

use crate::{Directory, Ledger, LedgerError, Nats};

/// Opens the ledger of a URL: `dir:PATH`, or `nats://HOST:PORT/RUN` (`tls://` for an encrypted connection), in
/// which `RUN` names the run: letters, digits, `-` and `_`. A user and a password, or a token, may stand before
/// the host; messages never show them.
///
/// # Errors
///
/// When the URL names no kind of ledger that is known, or it cannot be reached.
pub async fn open(url: &str) -> Result<Box<dyn Ledger>, LedgerError> {
    let wrong = |problem: &str| LedgerError {
        location: Nats::shown(url),
        doing: "being opened".to_owned(),
        problem: format!("{problem}; known are dir:PATH and nats://HOST:PORT/RUN"),
    };
    match url.split_once(':') {
        Some(("dir", "")) => Err(wrong("it names no directory")),
        Some(("dir", path)) => {
            let path = std::path::absolute(path).map_err(|error| wrong(&error.to_string()))?;
            Ok(Box::new(Directory::open(path)?))
        }
        Some(("nats" | "tls", _)) => Ok(Box::new(Nats::connect(url).await?)),
        _ => Err(wrong("no such kind of ledger is known")),
    }
}
