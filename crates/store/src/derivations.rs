//! Reading `.drv` files: no process per derivation, many at once.

use std::os::fd::OwnedFd;

use crossbeam_channel::{Receiver, bounded};
use phoenix_model::{Derivation, StorePath};
use rayon::prelude::*;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

use crate::Layout;

/// Reads derivations in parallel; the answers are in the order of the paths.
///
/// One that is missing, damaged or not readable is an error of its own that says so.
#[must_use]
pub fn read_derivations(layout: &Layout, paths: &[StorePath]) -> Vec<Result<Derivation, String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match open(&layout.real_dir, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(error) => return paths.iter().map(|_| Err(in_words(error))).collect(),
    };
    // Threads cost more than they save for a handful.
    if paths.len() < 32 {
        let mut text = Vec::new();
        return paths.iter().map(|path| read(&directory, path, &mut text)).collect();
    }
    paths.par_iter().with_min_len(16).map_init(Vec::new, |text, path| read(&directory, path, text)).collect()
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

/// Reads one derivation below the open directory of the store; `text` is a buffer to use again.
fn read(directory: &OwnedFd, path: &StorePath, text: &mut Vec<u8>) -> Result<Derivation, String> {
    let file = openat(directory, path.base_name(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(in_words)?;
    let mut end = 0;
    loop {
        if text.len() < end + 4096 {
            text.resize((end + 4096) * 2, 0);
        }
        let count = match rustix::io::read(&file, &mut text[end..]) {
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(in_words(error)),
        };
        let whole = end + count < text.len();
        end += count;
        // A read that was not filled is nearly always the last. A text that is complete proves it, and
        // saves a system call for each of very many files.
        if count == 0 || whole {
            match Derivation::parse(&text[..end]) {
                Err(error) if count == 0 => return Err(error.to_string()),
                Err(_) => {}
                Ok(derivation) => return Ok(derivation),
            }
        }
    }
}

fn in_words(error: Errno) -> String {
    match error {
        Errno::NOENT => "it is not in the store".to_owned(),
        _ => std::io::Error::from(error).to_string(),
    }
}
