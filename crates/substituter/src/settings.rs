//! Whom to ask, and how.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use phoenix_store::Nix;

use crate::redacted;

/// How many requests are in flight at once to one substituter where each needs a connection of its own
/// (HTTP/1.1). The time falls in proportion; more would meet the limits of small servers and of the number
/// of open files.
pub const DEFAULT_CONNECTIONS: usize = 128;

/// Whom to ask, and how.
#[derive(Clone)]
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
    /// Where credentials are. It need not exist.
    pub netrc_file: Option<PathBuf>,
    /// Root certificates to use instead of the system's.
    pub ssl_cert_file: Option<PathBuf>,
    /// The most requests in flight to one substituter over HTTP/1.1, at least 1. Over HTTP/2, where requests
    /// share connections, there may be more.
    pub connections: usize,
    /// The longest that one request may take.
    pub timeout: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let substituters: Vec<String> = self.substituters.iter().map(|url| redacted(url)).collect();
        f.debug_struct("Settings")
            .field("substituters", &substituters)
            .field("trusted_public_keys", &self.trusted_public_keys)
            .field("require_sigs", &self.require_sigs)
            .field("store_dir", &self.store_dir)
            .field("netrc_file", &self.netrc_file)
            .field("ssl_cert_file", &self.ssl_cert_file)
            .field("connections", &self.connections)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
