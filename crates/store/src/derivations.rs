//! Reading `.drv` files: no process per derivation, many at once.

use std::io::Read;

use crossbeam_channel::{Receiver, bounded};
use phoenix_model::{Derivation, StorePath};
use rayon::prelude::*;

use crate::Layout;

/// Reads derivations in parallel; the answers are in the order of the paths.
///
/// One that is missing, damaged or not readable is an error of its own that says so.
#[must_use]
pub fn read_derivations(layout: &Layout, paths: &[StorePath]) -> Vec<Result<Derivation, String>> {
    // Threads cost more than they save for a handful.
    if paths.len() < 32 {
        let mut text = Vec::new();
        return paths.iter().map(|path| read(layout, path, &mut text)).collect();
    }
    paths.par_iter().with_min_len(16).map_init(Vec::new, |text, path| read(layout, path, text)).collect()
}

/// Derivations that are being read while something else is done.
#[derive(Debug)]
pub struct ReadAhead {
    paths: Vec<StorePath>,
    read: Receiver<Vec<Result<Derivation, String>>>,
}

impl ReadAhead {
    /// Begins to read.
    #[must_use]
    pub fn start(layout: &Layout, paths: Vec<StorePath>) -> Self {
        let (sender, read) = bounded(1);
        let (layout, wanted) = (layout.clone(), paths.clone());
        // Whoever waits may have gone; then nobody wants to know.
        rayon::spawn(move || drop(sender.send(read_derivations(&layout, &wanted))));
        Self { paths, read }
    }

    /// Waits for the end; each path with its derivation, or why it could not be read.
    pub fn wait(self) -> impl Iterator<Item = (StorePath, Result<Derivation, String>)> {
        // The reader sends exactly once, unless it panicked.
        let read = self.read.recv().unwrap_or_default();
        let lost = std::iter::repeat_with(|| Err("it could not be read".to_owned()));
        self.paths.into_iter().zip(read.into_iter().chain(lost))
    }
}

/// Reads one derivation; `text` is a buffer to use again.
fn read(layout: &Layout, path: &StorePath, text: &mut Vec<u8>) -> Result<Derivation, String> {
    let in_words = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "it is not in the store".to_owned(),
        _ => error.to_string(),
    };
    text.clear();
    let mut file = std::fs::File::open(layout.real_path(path)).map_err(in_words)?;
    // Without asking for its size first: most are small, and the buffer is soon large enough.
    loop {
        let start = text.len();
        text.resize(start.max(4096) * 2, 0);
        let count = file.read(&mut text[start..]).map_err(in_words)?;
        text.truncate(start + count);
        if count == 0 {
            return Derivation::parse(text).map_err(|error| error.to_string());
        }
    }
}
