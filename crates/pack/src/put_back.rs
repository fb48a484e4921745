//! Puts the hash parts of references back where they stood.

use crate::{HASH_LENGTH, Located, Patch};

/// Makes an archive again of the pieces it is kept in.
#[derive(Debug)]
pub struct PutBack<'l> {
    located: &'l Located,
    patches: &'l [Patch],
    at: u64,
}

impl<'l> PutBack<'l> {
    /// At the beginning of the archive of this path.
    #[must_use]
    pub fn new(located: &'l Located) -> Self {
        Self { located, patches: &located.patches, at: 0 }
    }

    /// Takes the next piece; `emit` gets the archive's own bytes, in several parts if hash parts stand in it.
    ///
    /// # Errors
    /// What `emit` failed with.
    pub fn piece<E>(
        &mut self,
        mut piece: &[u8],
        emit: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some((patch, rest)) = self.patches.split_first() {
            // How far it is to the hash part; none when we are in it, because a piece ended there.
            let before = usize::try_from(patch.at.saturating_sub(self.at)).unwrap_or(usize::MAX);
            if before >= piece.len() {
                break;
            }
            let (plain, zeros) = piece.split_at(before);
            if !plain.is_empty() {
                emit(plain)?;
            }
            self.at += before as u64;
            let done = usize::try_from(self.at - patch.at).unwrap_or(HASH_LENGTH).min(HASH_LENGTH);
            let count = (HASH_LENGTH - done).min(zeros.len());
            let name = self.located.info.references.get(patch.reference as usize);
            let hash_part = name.and_then(|name| name.as_bytes().first_chunk::<HASH_LENGTH>());
            match hash_part.and_then(|hash_part| hash_part.get(done..done + count)) {
                Some(part) => emit(part)?,
                // A name that is too short for a hash part: the archive will not have its hash.
                None => emit(&zeros[..count])?,
            }
            self.at += count as u64;
            piece = &zeros[count..];
            if done + count < HASH_LENGTH {
                return Ok(());
            }
            self.patches = rest;
        }
        if !piece.is_empty() {
            emit(piece)?;
            self.at += piece.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PathInfo;
    use proptest::prelude::*;

    fn located(places: &[usize]) -> Located {
        let reference = |digit: &str| format!("{}-x", digit.repeat(HASH_LENGTH));
        let patch = |(number, &at): (usize, &usize)| Patch { at: at as u64, reference: number as u32 % 2 };
        Located {
            info: PathInfo {
                name: reference("0"),
                nar_hash: [0; 32],
                nar_size: 0,
                references: vec![reference("a"), reference("b")],
                deriver: None,
                signatures: vec![],
                ca: None,
            },
            patches: places.iter().enumerate().map(patch).collect(),
            pieces: vec![],
        }
    }

    fn put_back(located: &Located, kept: &[u8], pieces: &[usize]) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), kept);
        let mut put_back = PutBack::new(located);
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let (piece, left) = rest.split_at((*pieces.next().unwrap()).clamp(1, rest.len()));
            let mut emit = |part: &[u8]| {
                assert!(!part.is_empty());
                out.extend_from_slice(part);
                Ok::<(), std::convert::Infallible>(())
            };
            put_back.piece(piece, &mut emit).unwrap();
            rest = left;
        }
        out
    }

    #[test]
    fn hash_parts_stand_at_both_ends_and_side_by_side() {
        let located = located(&[0, 32, 70]);
        let kept = [vec![0; 64], b"middle".to_vec(), vec![0; 32]].concat();
        let wanted = [b"a".repeat(32), b"b".repeat(32), b"middle".to_vec(), b"a".repeat(32)].concat();
        assert_eq!(put_back(&located, &kept, &[1000]), wanted);
        assert_eq!(put_back(&located, &kept, &[1]), wanted);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(gaps in prop::collection::vec(0_usize..40, 0..8), tail in 0_usize..50, pieces in prop::collection::vec(1_usize..50, 1..5)) {
            let (mut places, mut kept, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
            for (number, gap) in gaps.iter().enumerate() {
                kept.extend(vec![b'x'; *gap]);
                wanted.extend(vec![b'x'; *gap]);
                places.push(kept.len());
                kept.extend([0; HASH_LENGTH]);
                wanted.extend([b"ab"[number % 2]; HASH_LENGTH]);
            }
            kept.extend(vec![b'y'; tail]);
            wanted.extend(vec![b'y'; tail]);
            prop_assert_eq!(put_back(&located(&places), &kept, &pieces), wanted);
        }
    }
}
