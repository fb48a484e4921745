//! Opening frames, with memory that is used again.

use std::sync::{Arc, Mutex, PoisonError};

use phoenix_pack::{Frame, FrameOpener, PackError};

/// How many buffers of closed frames are kept for the next ones, and how large they may be, in bytes.
const SPARE: (usize, usize) = (8, 3 << 20);

/// What is needed to open frames, used again and again: fresh memory costs more than decompressing into it.
#[derive(Debug, Default)]
pub(crate) struct Workshop {
    openers: Mutex<Vec<FrameOpener>>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// The bytes of an opened frame; their buffer is used again.
#[derive(Debug)]
pub(crate) struct OpenFrame {
    bytes: Vec<u8>,
    workshop: Arc<Workshop>,
}

impl std::ops::Deref for OpenFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for OpenFrame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for OpenFrame {
    fn drop(&mut self) {
        let mut buffers = self.workshop.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < SPARE.0 && self.bytes.capacity() <= SPARE.1 {
            buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Workshop {
    /// Opens a frame of these bytes.
    ///
    /// # Errors
    /// When they are not what was written.
    pub(crate) fn open(self: &Arc<Self>, frame: &Frame, stored: &[u8]) -> Result<OpenFrame, PackError> {
        let opener = self.openers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut opener = opener.map_or_else(FrameOpener::new, Ok)?;
        let bytes = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let mut opened = OpenFrame { bytes, workshop: Arc::clone(self) };
        let result = opener.open(frame, stored, &mut opened.bytes);
        self.openers.lock().unwrap_or_else(PoisonError::into_inner).push(opener);
        result.map(|()| opened)
    }
}
