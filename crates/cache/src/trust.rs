//! Whose paths come in, where keys are named.

use std::io;

use phoenix_model::ValidPathInfo;
use phoenix_substituter::{ContentCheck, PathInfo, PublicKeys};

/// Lets a path in that one of the keys signed, if keys are named, or that is content-addressed: then its contents have
/// to be compared with what this returns.
///
/// # Errors
/// When it is neither.
pub(crate) fn admit(info: &ValidPathInfo, keys: Option<&PublicKeys>) -> io::Result<Option<ContentCheck>> {
    let info = PathInfo::of_valid(info);
    // What says that it is content-addressed has to be, whoever brings it.
    let Some(keys) = keys else { return Ok(ContentCheck::begin(&info)) };
    if keys.signed(&info) {
        return Ok(None);
    }
    let refused = || io::Error::other("no trusted key signed it, and it is not content-addressed");
    ContentCheck::begin(&info).map(Some).ok_or_else(refused)
}

/// Whether the contents are those that had to be compared.
///
/// # Errors
/// When they are others.
pub(crate) fn compared(check: Option<ContentCheck>) -> io::Result<()> {
    if check.is_none_or(ContentCheck::finish) {
        return Ok(());
    }
    Err(io::Error::other("its contents are not those that its content address stands for"))
}
