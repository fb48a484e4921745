//! The hash by which Nix knows the contents of a store path.

use std::fmt;

/// The SHA-256 of the NAR of a store path: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NarHash(pub [u8; 32]);

/// Why a text is no hash of a NAR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not `sha256:` with 64 hexadecimal digits")]
pub struct NarHashError(String);

impl NarHash {
    /// Reads `sha256:` with 64 hexadecimal digits, as the database of a store has it.
    ///
    /// # Errors
    /// When it is anything else; the database has no other kind.
    pub fn parse(text: &str) -> Result<Self, NarHashError> {
        text.strip_prefix("sha256:")
            .and_then(Self::from_hex)
            .ok_or_else(|| NarHashError(text.chars().take(80).collect()))
    }

    /// Reads 64 hexadecimal digits of either case.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// 64 hexadecimal digits, without the name of the algorithm.
    #[must_use]
    pub fn to_hex(&self) -> String {
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 15)]);
        self.0.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
    }
}

impl fmt::Display for NarHash {
    /// `sha256:` and 64 hexadecimal digits, as the database of a store has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_hex())
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_database() {
        // `nix-hash --type sha256` of nothing.
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let hash = NarHash::parse(text).unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!(hash.0[..2], [0xe3, 0xb0]);
    }

    #[test]
    fn anything_else_is_refused() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [
            hex.to_owned(),
            format!("md5:{hex}"),
            format!("sha256:{hex}0"),
            format!("sha256:+{}", &hex[1..]),
            format!("sha256:é{}", &hex[2..]),
            String::new(),
        ] {
            assert!(NarHash::parse(&text).is_err(), "{text}");
        }
    }
}
