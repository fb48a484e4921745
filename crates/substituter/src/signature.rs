//! Signatures of store paths (Nix manual, "Signing"): ed25519 over a fingerprint of what is said of a path.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};

use crate::hash::Hash;
use crate::{PathInfo, nix32};

/// The keys whose signatures count.
#[derive(Debug, Clone, Default)]
pub struct PublicKeys {
    keys: Vec<(String, VerifyingKey)>,
}

/// A text of fewer letters is no part of a key that is worth anything.
const SHORT: usize = 20;

/// Why a text is no public key. It may be the secret one, so that no more is shown than the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// It has not the form of one.
    #[error("{0} is no public key; one is NAME:BASE64, as `nix key convert-secret-to-public` prints it")]
    None(String),
    /// It is as long as a secret key.
    #[error(
        "{0} is a secret key, which is nobody's business but who signs; `nix key convert-secret-to-public` makes the \
         public one of it"
    )]
    Secret(String),
}

impl PublicKeyError {
    fn of(text: &str) -> Self {
        match text.split_once(':').filter(|(name, _)| !name.is_empty()) {
            Some((name, key)) => {
                let shown = format!("`{}:…`", name.chars().take(40).collect::<String>());
                let is_secret = BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 64);
                if is_secret { Self::Secret(shown) } else { Self::None(shown) }
            }
            None if text.len() < SHORT => Self::None(format!("`{text}`")),
            None => Self::None("a text without a name".to_owned()),
        }
    }
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

    /// Reads keys that somebody asked for by name, so that none may be passed over.
    ///
    /// # Errors
    /// The first that is no key.
    pub fn parse_all<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self, PublicKeyError> {
        let mut all = Self::default();
        for text in keys {
            let one = Self::parse([text]);
            if one.keys.is_empty() {
                return Err(PublicKeyError::of(text));
            }
            all.keys.extend(one.keys);
        }
        Ok(all)
    }

    /// Whether one of the keys signed what is said of a path.
    #[must_use]
    pub fn signed(&self, info: &PathInfo) -> bool {
        let Some(fingerprint) = fingerprint(info) else { return false };
        info.signatures.iter().any(|signature| self.made(signature, fingerprint.as_bytes()))
    }

    fn made(&self, signature: &str, message: &[u8]) -> bool {
        let Some((name, text)) = signature.split_once(':') else { return false };
        let mut named = self.keys.iter().filter(|(known, _)| known == name).peekable();
        if named.peek().is_none() {
            return false;
        }
        let bytes = BASE64_STANDARD.decode(text).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let Some(signature) = bytes.map(|bytes| Signature::from_bytes(&bytes)) else { return false };
        named.any(|(_, key)| key.verify(message, &signature).is_ok())
    }
}

/// Whether a text has the form of a signature: `NAME:BASE64` of 64 bytes. Newer versions of Nix cannot read a path of
/// which one has not.
#[must_use]
pub fn is_signature(text: &str) -> bool {
    text.split_once(':').is_some_and(|(name, signature)| {
        !name.is_empty()
            && !name.contains(char::is_whitespace)
            && BASE64_STANDARD.decode(signature).is_ok_and(|bytes| bytes.len() == 64)
    })
}

/// What is signed: `1;PATH;NARHASH;NARSIZE;REFERENCES` (nix `src/libstore/path-info.cc`, `fingerprint`), the
/// hash as `sha256:` in base 32, references as full paths joined by commas. `None` when the hash is no
/// SHA-256.
#[must_use]
pub fn fingerprint(info: &PathInfo) -> Option<String> {
    let hash = Hash::parse(&info.nar_hash)?;
    Some(format!(
        "1;{};sha256:{};{};{}",
        info.store_path,
        nix32::encode(hash.sha256()?),
        info.nar_size,
        info.sorted_references().join(",")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use phoenix_model::StorePath;

    fn info() -> PathInfo {
        let name = |end: &str| format!("kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-{end}");
        PathInfo {
            store_path: StorePath::parse(&format!("/nix/store/{}", name("a"))).unwrap(),
            nar_hash: "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73".into(),
            nar_size: 34,
            references: vec![name("b"), name("a"), name("b")],
            signatures: Vec::new(),
            content_address: None,
        }
    }

    fn signed_by(key: &SigningKey, name: &str) -> PathInfo {
        let mut info = info();
        let signature = key.sign(fingerprint(&info).unwrap().as_bytes());
        info.signatures.push(format!("{name}:{}", BASE64_STANDARD.encode(signature.to_bytes())));
        info
    }

    #[test]
    fn the_fingerprint_is_nix_s() {
        let fingerprint_of_all = "1;/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a;sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73;34;/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a,/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-b";
        assert_eq!(fingerprint(&info()).unwrap(), fingerprint_of_all);
        let base16 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(fingerprint(&PathInfo { nar_hash: base16.into(), ..info() }).unwrap(), fingerprint_of_all);
        assert_eq!(fingerprint(&PathInfo { nar_hash: "md5:0".into(), ..info() }), None);
    }

    #[test]
    fn of_what_is_no_public_key_only_the_name_is_shown() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let secret = BASE64_STANDARD.encode(key.to_keypair_bytes());
        let said = |text: &str| PublicKeys::parse_all([text]).unwrap_err().to_string();
        let whole = said(&format!("mine-1:{secret}"));
        assert!(whole.starts_with("`mine-1:…` is a secret key"), "{whole}");
        for text in [format!("mine-1:{secret}"), format!("mine-1:{}", &secret[..50]), secret.clone()] {
            assert!(!said(&text).contains(&secret[..8]), "{}", said(&text));
        }
        assert!(said(&secret).starts_with("a text without a name is no public key"));
        assert!(said("broken:").starts_with("`broken:…` is no public key"));
        assert!(said("nonsense").starts_with("`nonsense` is no public key"));
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
        changed.signatures.insert(0, "mine-1:nonsense".into());
        assert!(keys.signed(&changed), "one good signature is enough");
        changed.nar_size += 1;
        assert!(!keys.signed(&changed), "something else was signed");
        let mut changed = signed_by(&key, "mine-1");
        changed.references.pop();
        assert!(keys.signed(&changed), "a reference that came twice");
        changed.references.pop();
        assert!(!keys.signed(&changed), "a reference less");
    }
}
