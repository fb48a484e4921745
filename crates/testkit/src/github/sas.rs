//! Signed URLs of blobs: who has one may do with that blob what it says until it ends.

use std::collections::BTreeMap;

use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// The permissions of an upload URL: create and write.
pub(super) const UPLOAD: &str = "cw";

/// The permission of a download URL: read.
pub(super) const DOWNLOAD: &str = "r";

/// The version of Azure's protocol in the URLs that the real service hands out.
const VERSION: &str = "2025-11-05";

/// How long before now a URL begins to hold, in seconds: clocks differ.
const EARLY: u64 = 5;

/// Why a URL is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The signature is missing, is not of this URL, or it has ended or not begun.
    Authentication,
    /// It is for something else.
    Permission,
}

/// A key that signs URLs.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    key: String,
}

impl Signer {
    pub(super) fn new(key: impl Into<String>) -> Self {
        Self { key: key.into() }
    }

    /// The query that lets `permissions` be used on `path` from `now` for `valid`, both in seconds. `headers` is
    /// empty, or what the answer is to say of itself: `rsct=…&rscd=…`.
    pub(super) fn query(&self, path: &str, permissions: &str, now: u64, valid: u64, headers: &str) -> String {
        let (start, end) = (time(now - EARLY), time(now + valid));
        let said = pairs(headers);
        let signature = self.signature(path, permissions, &start, &end, &said);
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let headers = if headers.is_empty() { String::new() } else { format!("&{headers}") };
        format!(
            "se={}&sig={}&sp={permissions}&spr=https&sr=b&st={}&sv={VERSION}{headers}",
            encode(&end),
            encode(&signature),
            encode(&start),
        )
    }

    /// Whether a query allows `permission` on `path` at the second `now`.
    pub(super) fn check(
        &self,
        path: &str,
        query: &BTreeMap<String, String>,
        permission: &str,
        now: u64,
    ) -> Result<(), Refusal> {
        let get = |name: &str| query.get(name).map_or("", String::as_str);
        let (permissions, start, end) = (get("sp"), get("st"), get("se"));
        if get("sig") != self.signature(path, permissions, start, end, query) {
            return Err(Refusal::Authentication);
        }
        let within = |text: &str| text.parse::<Timestamp>().map(Timestamp::as_second).unwrap_or_default();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if now < within(start) || now >= within(end) {
            return Err(Refusal::Authentication);
        }
        if permission.chars().any(|needed| permissions.contains(needed)) {
            Ok(())
        } else {
            Err(Refusal::Permission)
        }
    }

    fn signature(
        &self,
        path: &str,
        permissions: &str,
        start: &str,
        end: &str,
        query: &BTreeMap<String, String>,
    ) -> String {
        use base64::Engine as _;
        let said = |name: &str| query.get(name).map_or("", String::as_str);
        let parts = [&self.key, path, permissions, start, end, said("rsct"), said("rscd")];
        let text = parts.map(|part| part.replace('\n', " ")).join("\n");
        base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text))
    }
}

/// The pairs of a query, decoded.
pub(super) fn pairs(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn time(second: u64) -> String {
    let second = i64::try_from(second).unwrap_or_default();
    Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn check(query: &str, permission: &str, now: u64) -> Result<(), Refusal> {
        Signer::new("secret").check("/a/b/c", &pairs(query), permission, now)
    }

    #[test]
    fn a_url_holds_for_what_it_says_until_it_ends() {
        let query = Signer::new("secret").query("/a/b/c", UPLOAD, NOW, 3600, "");
        assert!(query.contains("sp=cw") && query.contains("2027%2D01%2D15T09%3A00%3A00Z"), "{query}");
        assert_eq!(check(&query, "cw", NOW), Ok(()));
        assert_eq!(check(&query, "w", NOW + 3599), Ok(()));
        assert_eq!(check(&query, "w", NOW + 3600), Err(Refusal::Authentication));
        assert_eq!(check(&query, "w", NOW - 6), Err(Refusal::Authentication));
        assert_eq!(check(&query, "r", NOW), Err(Refusal::Permission));
    }

    #[test]
    fn whatever_is_changed_breaks_the_signature() {
        let query = Signer::new("secret").query("/a/b/c", DOWNLOAD, NOW, 600, "rsct=a%2Fb");
        assert_eq!(check(&query, "r", NOW), Ok(()));
        for (from, to) in [
            ("sp=r", "sp=rw"),
            ("rsct=a", "rsct=b"),
            ("T08%3A10", "T09%3A10"),
            ("sig=", "sig=A"),
            ("sig=", "gis="),
        ] {
            assert!(query.contains(from), "{query}");
            assert_eq!(check(&query.replace(from, to), "r", NOW), Err(Refusal::Authentication), "{to}");
        }
        assert_eq!(check("", "r", NOW), Err(Refusal::Authentication));
        let other = Signer::new("secret").query("/a/b/d", DOWNLOAD, NOW, 600, "");
        assert_eq!(check(&other, "r", NOW), Err(Refusal::Authentication));
    }
}
