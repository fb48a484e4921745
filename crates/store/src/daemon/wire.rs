//! Numbers and texts as the worker protocol has them (nix `src/libutil/serialise.hh`): 64 bits, little endian; a
//! text is its length, its bytes, and zeros up to a multiple of 8.

use std::io::{self, Read};

use phoenix_model::{StorePath, ValidPathInfo};
use phoenix_pack::nar::padding;

/// The longest text that is read: no message of Nix comes near.
const LONGEST: u64 = 16 << 20;

pub(super) fn number(to: &mut Vec<u8>, number: u64) {
    to.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn string(to: &mut Vec<u8>, text: &str) {
    bytes(to, text.as_bytes());
}

pub(super) fn bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    number(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
    to.extend_from_slice(&[0; 8][..padding(bytes.len() as u64)]);
}

pub(super) fn strings<'t>(to: &mut Vec<u8>, texts: impl IntoIterator<Item = &'t str>) {
    let at = to.len();
    number(to, 0);
    let mut count: u64 = 0;
    for text in texts {
        string(to, text);
        count += 1;
    }
    to[at..at + 8].copy_from_slice(&count.to_le_bytes());
}

/// A path and what is known of it, as protocol 1.16 has it (`ValidPathInfo::write`), whatever was agreed upon.
pub(super) fn info(to: &mut Vec<u8>, info: &ValidPathInfo) {
    string(to, info.path.as_str());
    // Nobody but the store that built it may say so.
    known(to, info, false);
}

/// What is known of a path, without the path.
pub(super) fn known(to: &mut Vec<u8>, info: &ValidPathInfo, ultimate: bool) {
    string(to, info.deriver.as_ref().map_or("", StorePath::as_str));
    string(to, &info.nar_hash.to_hex());
    strings(to, info.references.iter().map(StorePath::as_str));
    number(to, u64::try_from(info.registration_time).unwrap_or(0));
    number(to, info.nar_size);
    number(to, u64::from(ultimate));
    strings(to, info.signatures.iter().map(String::as_str));
    string(to, info.content_address.as_deref().unwrap_or(""));
}

pub(super) fn read_number(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

pub(super) fn read_string(from: &mut impl Read) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read_bytes(from)?).into_owned())
}

pub(super) fn read_bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = read_number(from)?;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a text is longer than any that may come"));
    }
    let mut bytes = Vec::new();
    // Grows with what comes, whatever the length says.
    from.by_ref().take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    from.read_exact(&mut [0; 8][..padding(length)])?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use phoenix_model::NarHash;
    use proptest::prelude::*;

    #[test]
    fn a_text_is_filled_up_to_eight_bytes() {
        let mut bytes = Vec::new();
        strings(&mut bytes, ["ab", ""]);
        assert_eq!(bytes, b"\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0ab\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn a_length_that_lies_is_no_harm() {
        for length in [u64::MAX, LONGEST + 1, LONGEST, 3] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.push(b'a');
            assert!(read_string(&mut bytes.as_slice()).is_err());
        }
    }

    #[test]
    fn what_is_known_of_a_path_begins_with_it() {
        let path = "/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a";
        let known = ValidPathInfo::new(StorePath::parse(path).unwrap(), NarHash([0; 32]), 7);
        let mut bytes = Vec::new();
        info(&mut bytes, &known);
        let mut from = bytes.as_slice();
        assert_eq!(read_string(&mut from).unwrap(), path);
        assert_eq!(read_string(&mut from).unwrap(), "");
        assert_eq!(read_string(&mut from).unwrap(), "0".repeat(64));
        let rest: Vec<u64> = (0..6).map(|_| read_number(&mut from).unwrap()).collect();
        assert_eq!(rest, [0, 0, 7, 0, 0, 0]);
        assert!(from.is_empty());
    }

    proptest! {
        #[test]
        fn texts_read_back(text in ".{0,40}") {
            let mut bytes = Vec::new();
            string(&mut bytes, &text);
            prop_assert_eq!(bytes.len() % 8, 0);
            let mut from = bytes.as_slice();
            prop_assert_eq!(read_string(&mut from).unwrap(), text);
            prop_assert!(from.is_empty());
        }
    }
}
