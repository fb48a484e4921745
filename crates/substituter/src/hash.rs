//! Hashes in the notations of Nix: `ALGORITHM:DIGITS` in base 32, base 16 or base 64, and SRI.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use data_encoding::HEXLOWER;

use crate::nix32;

/// A hash and its algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hash<'a> {
    pub(crate) algorithm: &'a str,
    pub(crate) bytes: Vec<u8>,
}

impl<'a> Hash<'a> {
    /// Reads a hash; which notation it is follows from its length, as in Nix.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (algorithm, digits) = text.split_once([':', '-'])?;
        let length = match algorithm {
            "md5" => 16,
            "sha1" => 20,
            "sha256" | "blake3" => 32,
            "sha512" => 64,
            _ => return None,
        };
        let bytes = if digits.len() == length * 2 && !text.contains('-') {
            let byte = |at: usize| digits.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
            (0..digits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>()?
        } else if digits.len() == (length * 8).div_ceil(5) && !text.contains('-') {
            nix32::decode(digits)?
        } else {
            BASE64_STANDARD.decode(digits).ok()?
        };
        (bytes.len() == length).then_some(Self { algorithm, bytes })
    }

    /// The SHA-256, if it is one.
    pub(crate) fn sha256(&self) -> Option<&[u8]> {
        (self.algorithm == "sha256").then_some(&self.bytes)
    }

    /// `ALGORITHM:DIGITS` in base 16.
    pub(crate) fn in_base16(&self) -> String {
        format!("{}:{}", self.algorithm, HEXLOWER.encode(&self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_gives_the_same() {
        let base16 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let all = [
            base16,
            "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
            "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        ];
        for text in all {
            assert_eq!(Hash::parse(text).unwrap().in_base16(), base16, "{text}");
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in ["", "sha256", "sha256:00", "md4:00", "sha256-AA==", "sha1:é", "md5:zz"] {
            assert_eq!(Hash::parse(text), None, "{text}");
        }
    }
}
