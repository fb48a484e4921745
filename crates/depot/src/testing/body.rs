//! Bytes to create blobs from.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::Body;

/// Any number: the next of a sequence that `state` begins (splitmix64).
pub(super) fn any(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// So many bytes that look like chance and are the same for the same seed.
#[must_use]
pub fn bytes(seed: u64, length: usize) -> Bytes {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&any(&mut state).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// Bytes cut into pieces of odd sizes: some empty, some of one byte, some of hundreds of kilobytes.
#[must_use]
pub fn pieces(seed: u64, mut bytes: Bytes) -> Vec<Bytes> {
    let mut state = seed;
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let most = 1 << (any(&mut state) % 20);
        let length = usize::try_from(any(&mut state) % (most + 1)).unwrap_or(1).min(bytes.len());
        pieces.push(bytes.split_to(length));
    }
    pieces
}

/// A body in one piece.
#[must_use]
pub fn body(bytes: Bytes) -> Body {
    stream::iter([Ok(bytes)]).boxed()
}

/// A body that fails after these bytes, with the message `the body failed`.
#[must_use]
pub fn failing_body(bytes: Bytes) -> Body {
    let pieces = pieces(1, bytes).into_iter().map(Ok);
    stream::iter(pieces.chain([Err(io::Error::other("the body failed"))])).boxed()
}
