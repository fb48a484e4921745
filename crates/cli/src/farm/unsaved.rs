//! What is built and not kept yet, as a list in a file: a worker may be ended before it has kept it.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use phoenix_model::StorePath;

/// The list of a worker.
pub(super) struct Unsaved {
    file: Option<PathBuf>,
}

impl Unsaved {
    /// One in a file; without one, nothing is written.
    pub(super) fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned) }
    }

    /// Lists these, and nothing else any more. Some of them may not be built yet.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(super) fn list<'p>(&self, paths: impl Iterator<Item = &'p StorePath>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let text: String = paths.map(|path| format!("{path}\n")).collect();
        // Whoever ends the worker ends it between two lists, and not in one.
        let part = file.with_extension("part");
        fs::write(&part, text)?;
        fs::rename(&part, file)
    }
}

/// What is in the list; nothing where there is none.
pub(crate) fn read(file: &Path) -> io::Result<Vec<StorePath>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    Ok(text.lines().filter_map(|line| StorePath::parse(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_list_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("list");
        assert_eq!(read(&file).unwrap(), []);
        let paths: Vec<_> = ["a", "b"]
            .map(|name| StorePath::parse(&format!("/nix/store/{}-{name}", "0".repeat(32))).unwrap())
            .into();
        let list = Unsaved::new(Some(&file));
        list.list(paths.iter()).unwrap();
        assert_eq!(read(&file).unwrap(), paths);
        list.list(paths.iter().skip(1)).unwrap();
        assert_eq!(read(&file).unwrap(), paths[1..]);
        list.list([].iter()).unwrap();
        assert_eq!(read(&file).unwrap(), []);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        Unsaved::new(None).list(paths.iter()).unwrap();
    }
}
