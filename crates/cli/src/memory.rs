//! How much the allocator keeps of what was let go of.

use std::ffi::OsString;

/// How the allocator is told after how many milliseconds it is to give back what was let go of; it looks when a process
/// begins.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// Begins this process anew if it is to serve, with an allocator that gives back at once what was let go of. Otherwise it
/// keeps that for a second, in which a server reads and lets go of a hundred megabytes.
///
/// Nothing may have been read yet of what this process is handed.
pub(crate) fn begin_anew_if_server(words: &[OsString]) {
    #[cfg(unix)]
    if is_server(words)
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

/// Whether these words, after the name of the program, are those of `phoenix cache serve`.
fn is_server(words: &[OsString]) -> bool {
    words.get(1..).is_some_and(|words| words.windows(2).any(|pair| pair[0] == "cache" && pair[1] == "serve"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_begins_anew() {
        let is_server =
            |line: &str| is_server(&line.split(' ').map(OsString::from).collect::<Vec<OsString>>());
        assert!(is_server("phoenix cache serve --depot dir:x"));
        for other in ["phoenix cache save ./serve", "phoenix", "cache serve", "phoenix run"] {
            assert!(!is_server(other), "{other}");
        }
    }
}
