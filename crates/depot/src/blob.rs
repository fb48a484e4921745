//! What a blob is called.

use std::fmt;

/// The most characters a name may have; GitHub's cache takes keys of up to 512, and a prefix is added there.
pub const LONGEST_NAME: usize = 400;

/// The name of a blob: segments of `[A-Za-z0-9._+=-]` joined by `/`, none of them empty, `.` or `..`; at most
/// [`LONGEST_NAME`] characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName(String);

impl BlobName {
    /// Takes a name if it is one.
    ///
    /// # Errors
    ///
    /// When it is empty, too long, or holds a character or a segment that no name may have.
    pub fn new(name: impl Into<String>) -> Result<Self, BlobNameError> {
        let name = name.into();
        let character = |c: char| c.is_ascii_alphanumeric() || "._+=-".contains(c);
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.chars().all(character);
        if name.len() <= LONGEST_NAME && name.split('/').all(segment) {
            Ok(Self(name))
        } else {
            Err(BlobNameError { name })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot name a blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} cannot name a blob: names are segments of letters, digits and ._+=- joined by /, at most \
     {LONGEST_NAME} characters"
)]
pub struct BlobNameError {
    /// What was given.
    pub name: String,
}

/// A blob that a depot was seen to hold. It may be gone when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// What it is called.
    pub name: BlobName,
    /// How many bytes it has.
    pub size: u64,
    /// When it was made, in seconds since 1970, where the depot tells.
    pub created: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_names_and_nothing_that_could_escape() {
        for good in ["a", "packs/main/0001-ab.pack", "a+b=c_d", "..a", "a..b/c"] {
            assert_eq!(BlobName::new(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in
            ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/./b", "a,b", "a b", "a\0b", "é", "a\\b"]
        {
            assert!(BlobName::new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(BlobName::new("a".repeat(LONGEST_NAME)).is_ok());
        assert!(BlobName::new("a".repeat(LONGEST_NAME + 1)).is_err());
    }
}
