//! Paths of store objects, such as `/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-hello-2.12`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The digits of Nix's base 32, in order of value: no `e`, `o`, `t`, `u`
/// (nix `src/libutil/hash.cc`, `nix32Chars`).
pub const NIX32_ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

const HASH_LEN: usize = 32;
const MAX_NAME_LEN: usize = 211;

/// The absolute path of one store object: a store directory, a 32-digit hash, and a name.
///
/// Cheap to clone. Ordered by its text.
#[derive(Clone)]
pub struct StorePath {
    text: Arc<str>,
    /// Where the last component begins.
    base: u32,
}

/// Why a text is not a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a store path: {reason}")]
pub struct StorePathError {
    /// The text that was refused, shortened when long.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl StorePath {
    /// Reads an absolute store path, whatever the store directory is.
    ///
    /// # Errors
    /// When the text is not `DIRECTORY/HASH-NAME` with an absolute directory, a hash of 32 digits of
    /// Nix's base 32, and a name of 1 to 211 characters out of `[A-Za-z0-9+._?=-]`.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        match check(text.as_bytes()) {
            Ok(base) => Ok(Self { text: text.into(), base }),
            Err(reason) => Err(StorePathError::new(text, reason)),
        }
    }

    /// The whole path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The directory the object is in, without a trailing slash: usually `/nix/store`.
    #[must_use]
    pub fn store_dir(&self) -> &str {
        &self.text[..self.base as usize - 1]
    }

    /// The last component: `HASH-NAME`.
    #[must_use]
    pub fn base_name(&self) -> &str {
        &self.text[self.base as usize..]
    }

    /// The 32 digits that identify the object: what binary caches are asked for.
    #[must_use]
    pub fn hash_part(&self) -> &str {
        &self.base_name()[..HASH_LEN]
    }

    /// The same as a key that is compared without following a pointer.
    #[must_use]
    pub fn key(&self) -> PathKey {
        PathKey::of(self.text.as_bytes(), self.base)
    }

    /// The name after the hash; for a derivation with its `.drv`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.base_name()[HASH_LEN + 1..]
    }

    /// The name without `.drv`: what people call the derivation.
    #[must_use]
    pub fn human_name(&self) -> &str {
        self.name().strip_suffix(".drv").unwrap_or_else(|| self.name())
    }

    /// Whether this is the path of a `.drv` file.
    #[must_use]
    pub fn is_derivation(&self) -> bool {
        self.name().ends_with(".drv")
    }
}

/// A store path that stands in another text: what looking at it needs, without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorePathRef<'a> {
    text: &'a str,
    base: u32,
}

impl<'a> StorePathRef<'a> {
    /// Takes a text that [`check`] found right, with what it answered.
    pub(crate) fn checked(text: &'a str, base: u32) -> Self {
        Self { text, base }
    }

    /// The whole path.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// The same as [`StorePath::key`].
    #[must_use]
    pub fn key(&self) -> PathKey {
        PathKey::of(self.text.as_bytes(), self.base)
    }

    /// A copy that stands by itself.
    #[must_use]
    pub fn to_store_path(&self) -> StorePath {
        StorePath { text: self.text.into(), base: self.base }
    }
}

impl<'a> From<&'a StorePath> for StorePathRef<'a> {
    fn from(path: &'a StorePath) -> Self {
        Self { text: &path.text, base: path.base }
    }
}

impl StorePathError {
    pub(crate) fn new(text: &str, reason: &'static str) -> Self {
        Self { text: text.chars().take(200).collect(), reason }
    }
}

/// The hash part of a store path: what tells it from all others of one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathKey([u8; HASH_LEN]);

impl PathKey {
    /// That of a path that [`check`] found right, with what it answered.
    pub(crate) fn of(text: &[u8], base: u32) -> Self {
        let mut key = [0; HASH_LEN];
        key.copy_from_slice(&text[base as usize..][..HASH_LEN]);
        Self(key)
    }
}

impl Hash for PathKey {
    /// It is a hash already: 80 bits of it are enough.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (half, _) = self.0.split_at(HASH_LEN / 2);
        state.write_u128(half.try_into().map_or(0, u128::from_le_bytes));
    }
}

impl PartialEq for StorePath {
    /// Paths differ in their hashes first; the directory is the same for all.
    fn eq(&self, other: &Self) -> bool {
        self.base_name() == other.base_name()
            && self.text.len() == other.text.len()
            && self.text == other.text
    }
}

impl Eq for StorePath {}

impl Hash for StorePath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for StorePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StorePath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

/// Where the last component of a store path begins, or what is wrong with it.
pub(crate) fn check(text: &[u8]) -> Result<u32, &'static str> {
    let slash = memchr::memrchr(b'/', text).ok_or("it is not absolute")?;
    let (dir, bytes) = (&text[..slash], &text[slash + 1..]);
    if !dir.starts_with(b"/") {
        return Err("it is not absolute");
    }
    if bytes.len() < HASH_LEN + 2 || bytes[HASH_LEN] != b'-' {
        return Err("its last component is not HASH-NAME");
    }
    if !bytes[..HASH_LEN].iter().all(|&byte| DIGITS[byte as usize]) {
        return Err("its hash has a character outside Nix's base 32");
    }
    let name = &bytes[HASH_LEN + 1..];
    if name.len() > MAX_NAME_LEN {
        return Err("its name is longer than 211 characters");
    }
    if !name.iter().all(|&byte| NAME_BYTES[byte as usize]) {
        return Err("its name has a character that Nix does not allow");
    }
    u32::try_from(dir.len() + 1).map_err(|_| "it is longer than any path")
}

/// Which bytes are digits of Nix's base 32.
const DIGITS: [bool; 256] = table(NIX32_ALPHABET);

/// Which bytes may be in a name.
const NAME_BYTES: [bool; 256] =
    table(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?=");

const fn table(members: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < members.len() {
        table[members[at] as usize] = true;
        at += 1;
    }
    table
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl Serialize for StorePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for StorePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-hello-2.12.drv";

    #[test]
    fn parts_of_a_path() {
        let path = StorePath::parse(HELLO).unwrap();
        assert_eq!(path.store_dir(), "/nix/store");
        assert_eq!(path.hash_part(), "kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv");
        assert_eq!(path.name(), "hello-2.12.drv");
        assert_eq!(path.human_name(), "hello-2.12");
        assert!(path.is_derivation());
        assert_eq!(path.to_string(), HELLO);
    }

    #[test]
    fn another_store_directory_is_fine() {
        let path = StorePath::parse("/tmp/x/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a").unwrap();
        assert_eq!(path.store_dir(), "/tmp/x/store");
        assert!(!path.is_derivation());
    }

    #[test]
    fn what_is_not_a_store_path_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "it is not absolute"),
            ("nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a", "it is not absolute"),
            ("/nix/store/hello", "its last component is not HASH-NAME"),
            ("/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-", "its last component is not HASH-NAME"),
            (
                "/nix/store/eh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a",
                "its hash has a character outside Nix's base 32",
            ),
            (
                "/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a b",
                "its name has a character that Nix does not allow",
            ),
            (
                "/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-é",
                "its name has a character that Nix does not allow",
            ),
        ] {
            assert_eq!(StorePath::parse(text).unwrap_err().reason, reason, "{text}");
        }
        let long = format!("/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-{}", "a".repeat(212));
        assert_eq!(StorePath::parse(&long).unwrap_err().reason, "its name is longer than 211 characters");
    }

    #[test]
    fn paths_are_equal_when_their_texts_are() {
        let parse = |text: &str| StorePath::parse(text).unwrap();
        let (one, two) = (parse(HELLO), parse(&HELLO.replace("/nix", "/abc")));
        assert_ne!(one, two);
        assert_eq!(one, parse(HELLO));
        assert!(two < one, "ordered by the text");
        assert_ne!(one, parse(&HELLO.replace("2.12", "2.13")));
    }

    #[test]
    fn json_is_the_text_and_is_checked() {
        let path = StorePath::parse(HELLO).unwrap();
        let json = serde_json::to_string(&path).unwrap();
        assert_eq!(json, format!("\"{HELLO}\""));
        assert_eq!(serde_json::from_str::<StorePath>(&json).unwrap(), path);
        assert!(serde_json::from_str::<StorePath>("\"/etc/passwd\"").is_err());
    }
}
