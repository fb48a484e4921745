//! What a client of a binary cache asks for.

use std::ops::Range;

use phoenix_pack::HASH_LENGTH;
use phoenix_substituter::nix32;

/// What a path of a URL means (nix `src/libstore/binary-cache-store.cc`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// `nix-cache-info`
    CacheInfo,
    /// `HASHPART.narinfo`
    NarInfo([u8; HASH_LENGTH]),
    /// `nar/HASHPART-NARHASH.nar`, as our narinfos have it: the path, and the very contents.
    Nar([u8; HASH_LENGTH], [u8; 32]),
    /// Logs, listings, realisations and all that is not there.
    Nothing,
}

impl Asked {
    /// Reads a path.
    pub(super) fn of(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        if path == "nix-cache-info" {
            return Self::CacheInfo;
        }
        let asked = match (path.strip_suffix(".narinfo"), path.strip_prefix("nar/")) {
            (Some(name), _) => hash_part(name).map(Self::NarInfo),
            (None, Some(name)) => name.strip_suffix(".nar").and_then(|name| {
                let (path, hash) = name.split_once('-')?;
                Some(Self::Nar(hash_part(path)?, nix32::decode(hash)?.try_into().ok()?))
            }),
            (None, None) => None,
        };
        asked.unwrap_or(Self::Nothing)
    }
}

/// The URL of an archive, relative to the cache.
pub(super) fn nar_url(hash_part: &[u8; HASH_LENGTH], nar_hash: &[u8; 32]) -> String {
    format!("nar/{}-{}.nar", String::from_utf8_lossy(hash_part), nix32::encode(nar_hash))
}

fn hash_part(text: &str) -> Option<[u8; HASH_LENGTH]> {
    // Nothing but digits of Nix's gets into the catalog's lookups.
    nix32::decode(text)?;
    text.as_bytes().try_into().ok()
}

/// A part of an archive that is asked for: its first byte, and its last if there is to be one before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    first: u64,
    last: Option<u64>,
}

impl Part {
    /// Reads the value of a `Range` header: `bytes=N-`, which is how Nix goes on with an archive that broke off, or
    /// `bytes=N-M`. Any other range is answered with the whole, as HTTP allows.
    pub(super) fn of(range: &str) -> Option<Self> {
        let number = |text: &str| {
            // Else a sign would be taken, too.
            text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten()
        };
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let first = number(first)?;
        let last = if last.is_empty() { None } else { Some(number(last)?) };
        last.is_none_or(|last| last >= first).then_some(Self { first, last })
    }

    /// The bytes of an archive of this size; none when it has no such.
    pub(super) fn within(self, size: u64) -> Option<Range<u64>> {
        let end = self.last.map_or(size, |last| last.saturating_add(1).min(size));
        (self.first < end).then_some(self.first..end)
    }
}

/// Whether a `Host` header names this machine's loopback, and is not the name that a page in a browser has
/// made to point here.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    name.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_url_that_is_served_is_understood() {
        let part = b"kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv";
        assert_eq!(Asked::of("/nix-cache-info"), Asked::CacheInfo);
        let narinfo = format!("/{}.narinfo", String::from_utf8_lossy(part));
        assert_eq!(Asked::of(&narinfo), Asked::NarInfo(*part));
        let hash = std::array::from_fn(|at| at as u8);
        assert_eq!(Asked::of(&format!("/{}", nar_url(part, &hash))), Asked::Nar(*part, hash));
    }

    #[test]
    fn all_else_is_nothing() {
        let part = "kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv";
        for path in [
            "/".to_owned(),
            "/log/x.drv".to_owned(),
            format!("/{part}"),
            format!("/{part}.ls"),
            format!("/{}.narinfo", &part[1..]),
            format!("/{part}0.narinfo"),
            format!("/../{part}.narinfo"),
            format!("/{}e.narinfo", &part[1..]),
            format!("/nar/{part}.nar"),
            format!("/nar/{part}-0.nar"),
            format!("/nar/{part}-{part}.nar.zst"),
            "/nix-cache-info/".to_owned(),
        ] {
            assert_eq!(Asked::of(&path), Asked::Nothing, "{path}");
        }
    }

    #[test]
    fn a_part_is_asked_for_by_its_first_and_last_byte() {
        let within = |range| Part::of(range).map(|part| part.within(100));
        for (range, bytes) in [
            ("bytes=12-", Some(12..100)),
            ("bytes=0-", Some(0..100)),
            ("bytes=1-2", Some(1..3)),
            ("bytes=0-99", Some(0..100)),
            ("bytes=99-18446744073709551615", Some(99..100)),
            ("bytes=100-", None),
            ("bytes=100-200", None),
        ] {
            assert_eq!(within(range), Some(bytes), "{range}");
        }
        for range in ["bytes=-5", "bytes=2-1", "bytes=x-", "bytes=+1-", "bytes=0-1,3-4", "12-", "", "bytes="]
        {
            assert_eq!(within(range), None, "{range}");
        }
    }

    #[test]
    fn a_page_of_a_browser_does_not_get_in_by_its_own_name() {
        for host in ["127.0.0.1:8080", "127.0.0.1", "localhost:1", "LocalHost", "[::1]:80", "127.9.9.9"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in
            ["evil.example:80", "127.0.0.1.evil.example", "10.0.0.1:80", "", "localhost.evil.example:1"]
        {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
