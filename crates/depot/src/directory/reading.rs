//! What blobs a directory holds.

use std::cmp::Ordering;
use std::io;
use std::path::Path;

use rustix::fs::Stat;

use crate::directory::folder::{Folder, Kind};
use crate::directory::problem;
use crate::{Blob, BlobName, LONGEST_NAME, Problem};

/// A blob's file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: BlobName,
    size: u64,
    /// When it was made: seconds since 1970, and nanoseconds.
    made: (i64, i64),
}

impl Entry {
    #[expect(clippy::useless_conversion, reason = "the types of these fields differ between systems")]
    fn new(name: BlobName, stat: &Stat) -> Self {
        Self {
            name,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            made: (i64::try_from(stat.st_mtime).unwrap_or(0), i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        }
    }

    /// The order by when they were made, then by name.
    pub(super) fn by_age(&self, other: &Self) -> Ordering {
        (self.made, &self.name).cmp(&(other.made, &other.name))
    }

    pub(super) fn blob(self) -> Blob {
        Blob { name: self.name, size: self.size, created: u64::try_from(self.made.0).ok() }
    }
}

/// The file of a name.
pub(super) fn find(root: &Path, name: BlobName) -> Result<Option<Entry>, Problem> {
    let found = || -> io::Result<_> {
        let Some(folder) = Folder::holding(root, &name)? else { return Ok(None) };
        folder.stat(name.leaf())
    };
    match found().map_err(|error| problem(&error, &root.join(name.as_str())))? {
        Some((Kind::File, stat)) => Ok(Some(Entry::new(name, &stat))),
        _ => Ok(None),
    }
}

/// All files whose names begin with `prefix`, in no order.
pub(super) fn under(root: &Path, prefix: &str) -> Result<Vec<Entry>, Problem> {
    let mut entries = Vec::new();
    let mut work = || -> io::Result<()> {
        match Folder::root(root)? {
            Some(folder) => walk(&folder, "", prefix, &mut entries),
            None => Ok(()),
        }
    };
    work().map_err(|error| problem(&error, root))?;
    Ok(entries)
}

/// Adds what is in `folder`, which is called `path`: nothing, or segments that each have a slash behind them.
fn walk(folder: &Folder, path: &str, prefix: &str, entries: &mut Vec<Entry>) -> io::Result<()> {
    for leaf in folder.names()? {
        let full = format!("{path}{leaf}");
        if !full.starts_with(prefix) && !prefix.starts_with(&full) {
            continue;
        }
        let Ok(name) = BlobName::new(full) else { continue };
        match folder.stat(&leaf)? {
            Some((Kind::File, stat)) if name.as_str().starts_with(prefix) => {
                entries.push(Entry::new(name, &stat));
            }
            Some((Kind::Folder, _)) if name.as_str().len() < LONGEST_NAME => {
                // It may be gone again by now.
                if let Some(inner) = folder.enter(&leaf)? {
                    walk(&inner, &format!("{name}/"), prefix, entries)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
