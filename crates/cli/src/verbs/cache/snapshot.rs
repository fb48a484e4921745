//! What was valid when a job began, so that its end knows what is new.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use phoenix_model::StorePath;

use crate::error::CommandError;

/// The first line of the file.
const HEAD: &str = "phoenix snapshot 1";

/// The base names of paths: those that were there, and those that were restored.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) there: HashSet<String>,
    pub(super) restored: HashSet<String>,
}

impl Snapshot {
    /// Whether a path was valid when it was written.
    pub(super) fn has(&self, name: &str) -> bool {
        self.there.contains(name) || self.restored.contains(name)
    }

    /// Reads the file that `cache restore --snapshot` wrote.
    pub(super) fn read(file: &Path) -> Result<Self, CommandError> {
        let hint = "`phoenix cache restore --snapshot FILE` writes one";
        let text = fs_err::read_to_string(file)
            .map_err(|error| CommandError::because("cannot read the snapshot", &error).hint(hint))?;
        Self::parse(&text).ok_or_else(|| {
            CommandError::new(format!("{} is no snapshot, or not all of one", file.display())).hint(hint)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix("end\n")?.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let mut this = Self::default();
        for line in lines {
            match line.split_at_checked(1)? {
                ("=", name) => this.there.insert(name.to_owned()),
                ("+", name) => this.restored.insert(name.to_owned()),
                _ => return None,
            };
        }
        Some(this)
    }
}

/// Writes a file: what was valid before a restore, and after it.
pub(super) fn write(file: &Path, before: &[StorePath], after: &[StorePath]) -> Result<(), CommandError> {
    fs_err::write(file, text(before, after))
        .map_err(|error| CommandError::because("cannot write the snapshot", &error))
}

fn text(before: &[StorePath], after: &[StorePath]) -> String {
    let there: HashSet<&str> = before.iter().map(StorePath::base_name).collect();
    let mut text = format!("{HEAD}\n");
    for path in after {
        let name = path.base_name();
        let _ = writeln!(text, "{}{name}", if there.contains(name) { '=' } else { '+' });
    }
    text.push_str("end\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_read_as_it_was_written_and_nothing_else_is() {
        let path = |name: &str| StorePath::parse(&format!("/nix/store/{}-{name}", "0".repeat(32))).unwrap();
        let written = text(&[path("a")], &[path("a"), path("b")]);
        let read = Snapshot::parse(&written).unwrap();
        assert!(read.there.contains(path("a").base_name()) && read.restored.contains(path("b").base_name()));
        assert!(read.has(path("b").base_name()) && !read.has(path("c").base_name()));
        for (at, _) in written.char_indices() {
            assert_eq!(Snapshot::parse(&written[..at]), None, "cut after {at}");
        }
        assert_eq!(Snapshot::parse("garbage\n"), None);
    }
}
