//! Signatures of store paths (Nix manual, "Signing"): ed25519 over a fingerprint of what is said of a path.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use phoenix_model::ValidPathInfo;

use crate::hash::Hash;
use crate::{PathInfo, nix32};

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

/// A key that signs.
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

/// Why a text is no secret key. It never says what the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no secret key as `nix-store --generate-binary-cache-key` writes them, `NAME:BASE64`")]
pub struct SecretKeyError;

impl SecretKey {
    /// Reads a key as Nix writes it, `NAME:BASE64` of 64 bytes: the secret and the public half (nix
    /// `src/libutil/signature/local-keys.cc`).
    ///
    /// # Errors
    /// When it is none, or its halves are not of one key.
    pub fn parse(text: &str) -> Result<Self, SecretKeyError> {
        let (name, key) = text.trim().split_once(':').ok_or(SecretKeyError)?;
        let bytes = BASE64_STANDARD.decode(key).map_err(|_| SecretKeyError)?;
        let bytes: [u8; 64] = bytes.try_into().map_err(|_| SecretKeyError)?;
        let key = SigningKey::from_keypair_bytes(&bytes).map_err(|_| SecretKeyError)?;
        if name.is_empty() {
            return Err(SecretKeyError);
        }
        Ok(Self { name: name.to_owned(), key })
    }

    /// Signs what a store knows of a path: `NAME:BASE64`.
    #[must_use]
    pub fn sign(&self, info: &ValidPathInfo) -> String {
        let said = PathInfo {
            store_path: info.path.clone(),
            nar_hash: info.nar_hash.to_string(),
            nar_size: info.nar_size,
            references: info.references.iter().map(|path| path.base_name().to_owned()).collect(),
            signatures: Vec::new(),
            content_address: None,
        };
        let fingerprint = fingerprint(&said).unwrap_or_default();
        let signature = self.key.sign(fingerprint.as_bytes());
        format!("{}:{}", self.name, BASE64_STANDARD.encode(signature.to_bytes()))
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
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
    use phoenix_model::{NarHash, StorePath};

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

    #[test]
    fn what_a_secret_key_signs_its_public_key_knows() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let text = format!("mine-1:{}\n", BASE64_STANDARD.encode(key.to_keypair_bytes()));
        let public = format!("mine-1:{}", BASE64_STANDARD.encode(key.verifying_key().to_bytes()));
        let secret = SecretKey::parse(&text).unwrap();
        assert!(!format!("{secret:?}").contains(&text[10..20]));
        let path = |end: &str| {
            StorePath::parse(&format!("/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-{end}")).unwrap()
        };
        let mut valid = ValidPathInfo::new(path("a"), NarHash([3; 32]), 34);
        valid.references = vec![path("a"), path("b")];
        let info = PathInfo {
            store_path: valid.path.clone(),
            nar_hash: valid.nar_hash.to_string(),
            nar_size: 34,
            references: valid.references.iter().map(|path| path.base_name().to_owned()).collect(),
            signatures: vec![secret.sign(&valid)],
            content_address: None,
        };
        assert!(PublicKeys::parse([public.as_str()]).signed(&info));
        let mut halves = key.to_keypair_bytes();
        halves[63] ^= 1;
        for broken in ["", "x", "x:AAAA", &format!("x:{}", BASE64_STANDARD.encode(halves))] {
            assert_eq!(SecretKey::parse(broken).unwrap_err(), SecretKeyError);
        }
    }
}
