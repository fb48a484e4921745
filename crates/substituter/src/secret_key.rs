//! Secret keys, which sign what is said of store paths (nix `src/libutil/signature/local-keys.cc`).

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signer, SigningKey};

use crate::{PathInfo, fingerprint};

/// A secret key, as `nix key generate-secret` makes it. It is never shown.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

/// Why a text is no secret key. Nothing of it is in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretKeyError {
    /// It has not the form.
    #[error("it is not NAME:BASE64, as `nix key generate-secret` prints it")]
    Form,
    /// It is a public key, or something else of a wrong length.
    #[error("it has {0} bytes and not 64; is it a public key?")]
    Length(usize),
    /// The public half does not belong to the secret one.
    #[error("its two halves do not belong together; a part of it was changed")]
    Halves,
}

impl SecretKey {
    /// Reads a key: `NAME:BASE64`, the base64 of 32 secret and 32 public bytes. White space around it is passed
    /// over.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, SecretKeyError> {
        let (name, key) = text.trim().split_once(':').ok_or(SecretKeyError::Form)?;
        // A name stands in a narinfo and in a column of words.
        if name.is_empty() || name.contains(|char: char| char.is_whitespace() || char.is_control()) {
            return Err(SecretKeyError::Form);
        }
        let bytes = BASE64_STANDARD.decode(key).map_err(|_| SecretKeyError::Form)?;
        let bytes: [u8; 64] =
            bytes.try_into().map_err(|bytes: Vec<u8>| SecretKeyError::Length(bytes.len()))?;
        let key = SigningKey::from_keypair_bytes(&bytes).map_err(|_| SecretKeyError::Halves)?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// What the signatures of this key begin with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key: what `trusted-public-keys` takes.
    #[must_use]
    pub fn public(&self) -> String {
        format!("{}:{}", self.name, BASE64_STANDARD.encode(self.key.verifying_key().to_bytes()))
    }

    /// Signs what is said of a path: `NAME:BASE64`. None when its hash is no SHA-256, for which there is no
    /// signature.
    #[must_use]
    pub fn sign(&self, info: &PathInfo) -> Option<String> {
        let signature = self.key.sign(fingerprint(info)?.as_bytes());
        Some(format!("{}:{}", self.name, BASE64_STANDARD.encode(signature.to_bytes())))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}, secret)", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PublicKeys;
    use phoenix_model::StorePath;

    fn info() -> PathInfo {
        PathInfo {
            store_path: StorePath::parse("/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a").unwrap(),
            nar_hash: "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73".into(),
            nar_size: 34,
            references: vec![],
            signatures: vec![],
            content_address: None,
        }
    }

    fn key() -> SecretKey {
        let key = SigningKey::from_bytes(&[7; 32]);
        SecretKey::parse(&format!("mine-1:{}\n", BASE64_STANDARD.encode(key.to_keypair_bytes()))).unwrap()
    }

    #[test]
    fn what_it_signs_its_public_half_knows() {
        let key = key();
        let mut info = info();
        info.signatures.push(key.sign(&info).unwrap());
        assert!(PublicKeys::parse_all([key.public().as_str()]).unwrap().signed(&info));
        info.nar_size += 1;
        assert!(!PublicKeys::parse_all([key.public().as_str()]).unwrap().signed(&info));
        info.nar_hash = "md5:0".into();
        assert_eq!(key.sign(&info), None);
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let public = key().public();
        let mut bytes = SigningKey::from_bytes(&[7; 32]).to_keypair_bytes();
        bytes[40] ^= 1;
        for (text, error) in [
            ("", SecretKeyError::Form),
            ("name", SecretKeyError::Form),
            (":AAAA", SecretKeyError::Form),
            ("two words:AAAA", SecretKeyError::Form),
            ("name:not base64", SecretKeyError::Form),
            (public.as_str(), SecretKeyError::Length(32)),
            (&format!("name:{}", BASE64_STANDARD.encode(bytes)), SecretKeyError::Halves),
        ] {
            assert_eq!(SecretKey::parse(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(format!("{:?}", key()), "SecretKey(mine-1, secret)");
        assert!(
            PublicKeys::parse_all([public.as_str(), "broken"]).unwrap_err().to_string().contains("`broken`")
        );
    }
}
