//! Whether contents are those that a content address stands for.
//!
//! That a path follows from its content address ([`crate::is_content_addressed`]) says
//! nothing of the contents that somebody sends for it: those have to be hashed, too.

use sha2::{Digest, Sha256, Sha512};

use crate::hash::Hash;
use crate::{PathInfo, is_content_addressed};

/// What the NAR of one file that is not executable begins with, up to the length of the file.
const FILE: &[u8; 88] = b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0\x01\0\0\0\0\0\0\0(\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0type\0\0\0\0\x07\0\0\0\0\0\0\0regular\0\x08\0\0\0\0\0\0\0contents";

/// Compares a NAR, as it comes, with the content address of its path.
#[derive(Debug, Clone)]
pub struct ContentCheck {
    expected: Vec<u8>,
    hasher: Hasher,
    /// Of a NAR of a file: its head as far as it came, and how much of the file is still to come.
    file: Option<(Vec<u8>, u64)>,
}

#[derive(Debug, Clone)]
enum Hasher {
    /// The address is the NAR hash, which is compared by whoever takes the NAR in.
    NarHash,
    Sha256(Sha256),
    Sha512(Sha512),
}

impl ContentCheck {
    /// Begins a comparison. None when the path does not follow from its content address, or from one that is not
    /// compared here: of trees that refer to themselves, of git, or by MD5 and SHA-1, which prove nothing.
    #[must_use]
    pub fn begin(info: &PathInfo) -> Option<Self> {
        if !is_content_addressed(info) {
            return None;
        }
        let address = info.content_address.as_deref()?;
        let own = info.store_path.base_name();
        let (flat, hash) = match (address.strip_prefix("text:"), address.strip_prefix("fixed:r:")) {
            (Some(hash), _) => (true, hash),
            (None, Some(_)) if info.references.iter().any(|name| name == own) => return None,
            (None, Some(hash)) => (false, hash),
            (None, None) => (true, address.strip_prefix("fixed:").filter(|rest| !rest.starts_with("git:"))?),
        };
        let expected = Hash::parse(hash)?;
        let hasher = match expected.algorithm {
            "sha256" if !flat => {
                let nar_hash = Hash::parse(&info.nar_hash)?;
                (nar_hash == expected).then_some(Hasher::NarHash)?
            }
            "sha256" => Hasher::Sha256(Sha256::new()),
            "sha512" => Hasher::Sha512(Sha512::new()),
            _ => return None,
        };
        Some(Self { expected: expected.bytes, hasher, file: flat.then(|| (Vec::new(), 0)) })
    }

    /// Takes the next bytes of the NAR.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if let Some((head, left)) = &mut self.file {
            let wanted = FILE.len() + 8 - head.len();
            let (of_head, rest) = bytes.split_at(wanted.min(bytes.len()));
            head.extend_from_slice(of_head);
            if wanted > 0 && wanted == of_head.len() {
                // Else it is shorter, and never this long.
                *left = head.last_chunk().map_or(0, |length| u64::from_le_bytes(*length));
            }
            let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
            *left -= count as u64;
            bytes = &rest[..count];
        }
        match &mut self.hasher {
            Hasher::NarHash => {}
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Whether it was what the address stands for. The NAR itself has to be a sound one of the right hash.
    #[must_use]
    pub fn finish(self) -> bool {
        let whole = |(head, left): &(Vec<u8>, u64)| {
            head.len() == FILE.len() + 8 && head.starts_with(FILE) && *left == 0
        };
        if !self.file.as_ref().is_none_or(whole) {
            return false;
        }
        match self.hasher {
            Hasher::NarHash => true,
            Hasher::Sha256(hasher) => hasher.finalize()[..] == self.expected,
            Hasher::Sha512(hasher) => hasher.finalize()[..] == self.expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phoenix_model::StorePath;

    /// A path and its address as Nix makes them, of the NAR hash that is given.
    fn info(path: &str, address: &str, nar_hash: &str) -> PathInfo {
        PathInfo {
            store_path: StorePath::parse(&format!("/nix/store/{path}")).unwrap(),
            nar_hash: nar_hash.to_owned(),
            nar_size: 1,
            references: Vec::new(),
            signatures: Vec::new(),
            content_address: Some(address.to_owned()),
        }
    }

    fn file(contents: &[u8]) -> Vec<u8> {
        let padding = vec![0; contents.len().next_multiple_of(8) - contents.len()];
        [
            &FILE[..],
            &(contents.len() as u64).to_le_bytes(),
            contents,
            &padding,
            b"\x01\0\0\0\0\0\0\0)\0\0\0\0\0\0\0",
        ]
        .concat()
    }

    fn checked(info: &PathInfo, nar: &[u8], piece: usize) -> bool {
        let mut check = ContentCheck::begin(info).unwrap();
        nar.chunks(piece).for_each(|piece| check.feed(piece));
        check.finish()
    }

    // `printf hello > f; nix-store --add-fixed sha256 f` and `--add-fixed sha512 f`.
    const FLAT: (&str, &str) = (
        "4c6wsvi6cnq8h7ibg70pv68bi43y92xs-f",
        "fixed:sha256:094qif9n4cq4fdg459qzbhg1c6wywawwaaivx0k0x8xhbyx4vwic",
    );
    const FLAT_512: (&str, &str) = (
        "vd4q7l0z68myxjb3k53sncw3cnd25vz0-f",
        "fixed:sha512:11w1pmwfdpz9pisbhp5qiv38q6dmidq2ipcqykw3p0sb6yrqcij79rwcwcjbxyzwbdal349qbxrncbk7pmd6snljrfpiwv2pljd4wcv",
    );
    // `nix-store --add f`.
    const RECURSIVE: (&str, &str) = (
        "664yy119pds2n905bls61j77r67z57cw-f",
        "fixed:r:sha256:0sg9f58l1jj88w6pdrfdpj5x9b1zrwszk84j81zvby36q9whhhqa",
    );

    #[test]
    fn a_file_is_compared_by_what_is_in_it() {
        for (path, address) in [FLAT, FLAT_512] {
            let info = info(path, address, "sha256:0");
            for piece in [1, 7, 95, 96, 97, 1000] {
                assert!(checked(&info, &file(b"hello"), piece), "{address} {piece}");
                assert!(!checked(&info, &file(b"hellp"), piece));
                assert!(!checked(&info, &file(b"hello there"), piece));
                assert!(!checked(&info, &file(b"hello")[..99], piece), "it breaks off");
                assert!(!checked(&info, &file(b"hello")[..50], piece), "it breaks off early");
            }
            let mut executable = file(b"hello");
            executable[80..88].copy_from_slice(b"execut\0\0");
            assert!(!checked(&info, &executable, 1000));
            assert!(!checked(&info, b"", 1));
        }
    }

    #[test]
    fn a_tree_is_compared_by_its_nar_hash() {
        let (path, address) = RECURSIVE;
        let hash = address.strip_prefix("fixed:r:").unwrap();
        assert!(checked(&info(path, address, hash), b"anything, for others compare it", 8));
        let other = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
        assert!(
            ContentCheck::begin(&info(path, address, other)).is_none(),
            "another hash than the address says"
        );
    }

    #[test]
    fn what_proves_nothing_is_not_compared() {
        let (path, address) = FLAT;
        let without = PathInfo { content_address: None, ..info(path, address, "sha256:0") };
        assert!(ContentCheck::begin(&without).is_none());
        let elsewhere = RECURSIVE.0;
        assert!(ContentCheck::begin(&info(elsewhere, address, "sha256:0")).is_none(), "another path");
        // `nix-store --add-fixed sha1 f`.
        let sha1 = info(
            "pnv0gwd3ivq66yd5bkpsh0r8925bq8zy-f",
            "fixed:sha1:9m1skbnr5i43n3yypvda5s65vhfwdx5a",
            "sha256:0",
        );
        assert!(ContentCheck::begin(&sha1).is_none());
    }
}
