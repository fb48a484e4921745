//! Paths of store objects, such as `/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-hello-2.12`.

use std::fmt;
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
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePath(Arc<str>);

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
        check(text).map_err(|reason| StorePathError { text: text.chars().take(200).collect(), reason })?;
        Ok(Self(text.into()))
    }

    /// The whole path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory the object is in, without a trailing slash: usually `/nix/store`.
    #[must_use]
    pub fn store_dir(&self) -> &str {
        &self.0[..self.base_start() - 1]
    }

    /// The last component: `HASH-NAME`.
    #[must_use]
    pub fn base_name(&self) -> &str {
        &self.0[self.base_start()..]
    }

    /// The 32 digits that identify the object: what binary caches are asked for.
    #[must_use]
    pub fn hash_part(&self) -> &str {
        &self.base_name()[..HASH_LEN]
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

    fn base_start(&self) -> usize {
        self.0.rfind('/').map_or(0, |slash| slash + 1)
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    let (dir, base) = text.rsplit_once('/').ok_or("it is not absolute")?;
    if !dir.starts_with('/') {
        return Err("it is not absolute");
    }
    let bytes = base.as_bytes();
    if bytes.len() < HASH_LEN + 2 || bytes[HASH_LEN] != b'-' {
        return Err("its last component is not HASH-NAME");
    }
    if !bytes[..HASH_LEN].iter().all(|digit| NIX32_ALPHABET.contains(digit)) {
        return Err("its hash has a character outside Nix's base 32");
    }
    let name = &bytes[HASH_LEN + 1..];
    if name.len() > MAX_NAME_LEN {
        return Err("its name is longer than 211 characters");
    }
    if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte)) {
        return Err("its name has a character that Nix does not allow");
    }
    Ok(())
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for StorePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
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
    fn json_is_the_text_and_is_checked() {
        let path = StorePath::parse(HELLO).unwrap();
        let json = serde_json::to_string(&path).unwrap();
        assert_eq!(json, format!("\"{HELLO}\""));
        assert_eq!(serde_json::from_str::<StorePath>(&json).unwrap(), path);
        assert!(serde_json::from_str::<StorePath>("\"/etc/passwd\"").is_err());
    }
}
