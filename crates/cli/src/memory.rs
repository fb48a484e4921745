//! How much the allocator keeps of what was let go of.

use std::ffi::OsString;

/// How the allocator is told after how many milliseconds it is to give back what was let go of; it looks when a process
/// begins.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// Begins this process anew if it is to serve or to verify, with an allocator that gives back at once what was let go of.
/// Otherwise it keeps that for a second, in which a server reads and lets go of a hundred megabytes, and a repair of the
/// directories of all packs.
///
/// Nothing may have been read yet of what this process is handed.
pub(crate) fn begin_anew_if_sparing(words: &[OsString]) {
    #[cfg(unix)]
    if is_sparing(words)
        && std::env::var_os(PURGE_DELAY).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        use std::os::unix::process::CommandExt;
        let mut anew = std::process::Command::new(program);
        anew.arg0(&words[0]).args(&words[1..]).env(PURGE_DELAY, "0");
        // It comes back only if that cannot be, and then it serves all the same.
        let _ = anew.exec();
    }
}

/// Whether these words, after the name of the program, are those of `phoenix cache serve` or `verify`.
fn is_sparing(words: &[OsString]) -> bool {
    let is_sparing = |pair: &[OsString]| pair[0] == "cache" && (pair[1] == "serve" || pair[1] == "verify");
    words.get(1..).is_some_and(|words| words.windows(2).any(is_sparing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_and_what_verifies_begins_anew() {
        let is_sparing =
            |line: &str| is_sparing(&line.split(' ').map(OsString::from).collect::<Vec<OsString>>());
        assert!(is_sparing("phoenix cache serve --depot dir:x"));
        assert!(is_sparing("phoenix cache verify --repair"));
        for other in ["phoenix cache save ./serve", "phoenix", "cache serve", "phoenix run"] {
            assert!(!is_sparing(other), "{other}");
        }
    }
}
