//! Memory that is read into again and again: fresh pages cost about as much as reading them full.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// How many buffers are kept for later.
const KEPT: usize = 6;

/// The largest that is kept, in bytes.
const LARGEST: usize = 16 << 20;

/// The smallest that is worth it, in bytes.
const SMALLEST: usize = 256 << 10;

/// Buffers that nobody uses now.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that comes back.
pub(super) struct Buffer {
    /// What was asked for, and what `fill` put there.
    pub(super) bytes: Vec<u8>,
    home: Buffers,
}

impl Buffers {
    /// A buffer of so many bytes, whatever they are.
    pub(super) fn take(&self, length: usize) -> Buffer {
        let kept = if length < SMALLEST {
            None
        } else {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
        };
        let mut bytes = kept.unwrap_or_default();
        if bytes.capacity() < length {
            // New memory of the system is zero as it comes; what is grown would be filled.
            bytes = vec![0; length];
        } else {
            bytes.resize(length, 0);
        }
        Buffer { bytes, home: self.clone() }
    }
}

impl Buffer {
    /// The bytes, whose buffer comes back when the last of them is dropped.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if (SMALLEST..=LARGEST).contains(&self.bytes.capacity()) {
            let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT {
                kept.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_is_as_long_as_is_asked() {
        let buffers = Buffers::default();
        let large = buffers.take(1 << 20);
        let place = large.bytes.as_ptr();
        let bytes = large.freeze();
        let part = bytes.slice(5..10);
        drop(bytes);
        assert_ne!(buffers.take(1 << 19).bytes.as_ptr(), place, "a part of it is used yet");
        drop(part);
        let again = buffers.take(1 << 19);
        assert_eq!((again.bytes.len(), again.bytes.as_ptr()), (1 << 19, place));
        drop(again);
        assert_eq!(buffers.take(3 << 20).bytes.len(), 3 << 20);
        assert_eq!(buffers.take(10).bytes.len(), 10);
    }
}
