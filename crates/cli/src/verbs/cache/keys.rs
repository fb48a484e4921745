//! Keys that are named on the command line.

use std::path::Path;

use phoenix_model::ValidPathInfo;
use phoenix_substituter::{PathInfo, PublicKeys, SecretKey};

use crate::error::CommandError;

/// Reads the secret key in a file. Nothing of it is ever shown.
pub(super) fn secret(file: &Path) -> Result<SecretKey, CommandError> {
    if let Some(key) = file.to_str()
        && !file.exists()
        && SecretKey::parse(key).is_ok()
    {
        // Who takes the key for its file finds it in no log.
        let name = key.split(':').next().unwrap_or_default();
        return Err(CommandError::new(format!(
            "what was given to sign with is the secret key {name} itself"
        ))
        .hint("--sign-key wants the file that holds it: everybody on this machine can read arguments"));
    }
    let text = fs_err::read_to_string(file)
        .map_err(|error| CommandError::because("cannot read the key to sign with", &error))?;
    SecretKey::parse(&text).map_err(|error| {
        CommandError::because(format!("{} holds no secret key", file.display()), &error)
            .hint("`nix key generate-secret --key-name NAME > FILE` makes one")
    })
}

/// The public keys that are named; none when none is, and then no signature is asked for.
pub(super) fn trusted(keys: &[String]) -> Result<Option<PublicKeys>, CommandError> {
    if keys.is_empty() {
        return Ok(None);
    }
    // A list as nix.conf has it is as good as several flags.
    PublicKeys::parse_all(keys.iter().flat_map(|keys| keys.split_ascii_whitespace()))
        .map(Some)
        .map_err(|error| CommandError::because("cannot use a key of --trusted-key", &error))
}

/// Adds the key's signature to those of a path.
pub(super) fn sign(key: &SecretKey, info: &mut ValidPathInfo) {
    if let Some(signature) = key.sign(&PathInfo::of_valid(info))
        && !info.signatures.contains(&signature)
    {
        info.signatures.push(signature);
        info.signatures.sort_unstable();
    }
}
