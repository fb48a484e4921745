//! Signatures of store paths (Nix manual, "Signing"): ed25519 over a fingerprint of what a `.narinfo` says.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};

use crate::{NarInfo, nix32};

/// The keys whose signatures count.
#[derive(Debug, Clone, Default)]
pub struct PublicKeys {
    keys: Vec<(String, VerifyingKey)>,
}

impl PublicKeys {
    /// Reads keys as nix.conf has them, `NAME:BASE64`. One that is malformed is passed over: nothing is
    /// trusted because of it.
    #[must_use]
    pub fn parse<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let key = |text: &str| {
            let (name, key) = text.split_once(':')?;
            let bytes: [u8; 32] = BASE64_STANDARD.decode(key).ok()?.try_into().ok()?;
            Some((name.to_owned(), VerifyingKey::from_bytes(&bytes).ok()?))
        };
        Self { keys: keys.into_iter().filter_map(key).collect() }
    }

    /// Whether one of the keys signed what is said of a path.
    #[must_use]
    pub fn signed(&self, info: &NarInfo) -> bool {
        let Some(fingerprint) = fingerprint(info) else { return false };
        info.signatures.iter().any(|signature| self.made(signature, fingerprint.as_bytes()))
    }

    fn made(&self, signature: &str, message: &[u8]) -> bool {
        let Some((name, text)) = signature.split_once(':') else { return false };
        let Some(bytes) = BASE64_STANDARD.decode(text).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
        else {
            return false;
        };
        let signature = Signature::from_bytes(&bytes);
        self.keys.iter().filter(|(known, _)| known == name).any(|(_, key)| key.verify(message, &signature).is_ok())
    }
}

/// What is signed: `1;PATH;NARHASH;NARSIZE;REFERENCES` (nix `src/libstore/path-info.cc`, `fingerprint`), the
/// hash as `sha256:` in base 32, references as full paths joined by commas. `None` when the hash is no
/// SHA-256.
#[must_use]
pub fn fingerprint(info: &NarInfo) -> Option<String> {
    let store_dir = info.store_path.store_dir();
    let mut references: Vec<String> =
        info.references.iter().map(|reference| format!("{store_dir}/{reference}")).collect();
    references.sort();
    Some(format!(
        "1;{};sha256:{};{};{}",
        info.store_path,
        sha256_in_base32(&info.nar_hash)?,
        info.nar_size,
        references.join(",")
    ))
}

/// A SHA-256 in any notation of Nix (base 32, base 16, or SRI) as base 32.
fn sha256_in_base32(hash: &str) -> Option<String> {
    if let Some(base64) = hash.strip_prefix("sha256-") {
        return BASE64_STANDARD.decode(base64).ok().filter(|bytes| bytes.len() == 32).map(|bytes| nix32::encode(&bytes));
    }
    let digits = hash.strip_prefix("sha256:")?;
    match digits.len() {
        52 => Some(digits.to_owned()),
        64 => {
            let byte = |at: usize| digits.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
            let bytes: Option<Vec<u8>> = (0..64).step_by(2).map(byte).collect();
            bytes.map(|bytes| nix32::encode(&bytes))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    fn info() -> NarInfo {
        NarInfo::parse(
            "StorePath: /nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a\nNarHash: sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\nNarSize: 34\nReferences: kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-b kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a\n",
        )
        .unwrap()
    }

    fn signed_by(key: &SigningKey, name: &str) -> NarInfo {
        let mut info = info();
        let signature = key.sign(fingerprint(&info).unwrap().as_bytes());
        info.signatures.push(format!("{name}:{}", BASE64_STANDARD.encode(signature.to_bytes())));
        info
    }

    #[test]
    fn the_fingerprint_is_nix_s() {
        assert_eq!(
            fingerprint(&info()).unwrap(),
            "1;/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a;sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73;34;/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a,/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-b"
        );
    }

    #[test]
    fn every_notation_of_a_hash_gives_the_same() {
        let hex = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let sri = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let base32 = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
        for hash in [hex, sri, &format!("sha256:{base32}")] {
            assert_eq!(sha256_in_base32(hash).as_deref(), Some(base32));
        }
        for hash in ["sha256:00", "md5:0", "", "sha256-AA=="] {
            assert_eq!(sha256_in_base32(hash), None);
        }
    }

    #[test]
    fn only_a_known_key_of_that_name_counts() {
        let (key, other) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
        let public = format!("mine-1:{}", BASE64_STANDARD.encode(key.verifying_key().to_bytes()));
        let keys = PublicKeys::parse([public.as_str(), "broken", "bad:AA=="]);
        assert!(keys.signed(&signed_by(&key, "mine-1")));
        assert!(!keys.signed(&signed_by(&key, "other-1")), "another name");
        assert!(!keys.signed(&signed_by(&other, "mine-1")), "another key");
        assert!(!keys.signed(&info()), "not signed");
        let mut changed = signed_by(&key, "mine-1");
        changed.nar_size += 1;
        assert!(!keys.signed(&changed), "something else was signed");
    }
}
