//! What a blob is called.

use std::fmt;

/// The most characters a name may have; GitHub's cache takes keys of up to 512, and a prefix is added there.
pub const LONGEST_NAME: usize = 400;

/// The most characters a segment of a name may have; file systems take names of up to 255, and some add to them.
pub const LONGEST_SEGMENT: usize = 200;

/// The name of a blob: segments of `[A-Za-z0-9._+=-]` joined by `/`, none of them empty, `.` or `..`; at most
/// [`LONGEST_NAME`] characters, and [`LONGEST_SEGMENT`] a segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName(String);

impl BlobName {
    /// Takes a name if it is one.
    ///
    /// # Errors
    ///
    /// When it or a segment of it is empty, too long, or holds what no name may have.
    pub fn new(name: impl Into<String>) -> Result<Self, BlobNameError> {
        let name = name.into();
        let character = |c: char| c.is_ascii_alphanumeric() || "._+=-".contains(c);
        let length = |s: &str| (1..=LONGEST_SEGMENT).contains(&s.len());
        let segment = |s: &str| length(s) && s != "." && s != ".." && s.chars().all(character);
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

    /// The segments before the last one.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.rsplit_once('/').map(|(folders, _)| folders.split('/')).into_iter().flatten()
    }

    /// The last segment.
    pub(crate) fn leaf(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, leaf)| leaf)
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
     {LONGEST_SEGMENT} characters each and {LONGEST_NAME} together"
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
        assert!(BlobName::new("a".repeat(LONGEST_SEGMENT)).is_ok());
        assert!(BlobName::new("a".repeat(LONGEST_SEGMENT + 1)).is_err());
        let long = "a/".repeat(LONGEST_SEGMENT / 2 + 1);
        assert!(BlobName::new(format!("{long}{}", "a".repeat(LONGEST_NAME - long.len()))).is_ok());
        assert!(BlobName::new(format!("{long}{}", "a".repeat(LONGEST_NAME - long.len() + 1))).is_err());
    }
}
