//! Writing to stdout (data) and stderr (talk).
//!
//! A closed pipe is no error: whoever read it has seen enough.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use phoenix_report::plural;

use crate::error::CommandError;

/// So many paths, in words.
pub(crate) fn paths(count: usize) -> String {
    format!("{count} {}", plural(count, "path"))
}

/// So many paths, as what something is said of.
pub(crate) fn paths_are(count: usize) -> String {
    format!("{} {}", paths(count), if count == 1 { "is" } else { "are" })
}

/// Writes to stderr at once.
pub(crate) fn stderr(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

/// Writes to stdout at once; whether somebody still reads.
///
/// # Errors
/// When it cannot be written, as to a full disk.
pub(crate) fn stdout(text: &str) -> Result<bool, CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CommandError::because("cannot write to stdout", &error)),
    }
}

/// Makes a file to write to; `-` is stdout.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    if path == Path::new("-") {
        return Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    }
    Ok(fs_err::File::create(path)?.into_parts().0)
}

/// Writes a text to a file; `-` is stdout.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    match create(path)?.write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe && path == Path::new("-") => Ok(()),
        written => written,
    }
}

/// Takes a file away that something else is to be written to, so that nobody takes the old one for the new. Pipes and
/// devices stay.
pub(crate) fn forget(path: &Path) -> io::Result<()> {
    if path != Path::new("-") && fs_err::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        fs_err::remove_file(path)?;
    }
    Ok(())
}

/// Whether a file can be written, as far as can be told without touching it.
pub(crate) fn may_write(path: &Path) -> io::Result<()> {
    if path == Path::new("-") {
        return Ok(());
    }
    if let Ok(found) = fs_err::metadata(path) {
        // Whoever reads a pipe takes a first writer that goes away for the end.
        if !found.is_file() && !found.is_dir() {
            return Ok(());
        }
        return fs_err::OpenOptions::new().append(true).open(path).map(drop);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if fs_err::metadata(parent)?.is_dir() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{} is not a directory", parent.display())))
    }
}

/// What stderr can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// It is a terminal that a picture can be redrawn on.
    pub(crate) live: bool,
    /// It shows colours.
    pub(crate) colour: bool,
}

impl Terminal {
    /// Whether stdout shows colours.
    pub(crate) fn stdout_colour() -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        io::stdout().is_terminal()
            && !set("NO_COLOR")
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Looks at stderr and at `NO_COLOR` (no-color.org), `TERM`, `CI` and `CLICOLOR_FORCE`.
    pub(crate) fn detect() -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = var("TERM").is_some_and(|term| term == "dumb");
        let is_terminal = io::stderr().is_terminal();
        let ci = var("CI").is_some_and(|ci| ci != "false" && ci != "0");
        let forced = var("CLICOLOR_FORCE").is_some_and(|force| force != "0");
        Self {
            live: is_terminal && !dumb && !ci,
            colour: var("NO_COLOR").is_none() && (forced || (is_terminal && !dumb)),
        }
    }
}
