//! How much the allocator keeps of what was let go of.

use std::ffi::OsString;

/// How the allocator is told after how many milliseconds it is to give back what was let go of; it looks when a process
/// begins.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// Begins this process anew if it is to read the packs of a depot again and again, with an allocator that gives back at
/// once what was let go of. Otherwise it keeps that for a second, in which a server reads and lets go of a hundred
/// megabytes, and a fold of the directories of all packs.
///
/// Nothing may have been read yet of what this process is handed.
pub(crate) fn begin_anew_if_sparing(words: &[OsString]) {
    #[cfg(unix)]
    if is_sparing(words, std::env::var_os("PHOENIX_DEPOT").is_some_and(|depot| !depot.is_empty()))
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

/// Whether these words, after the name of the program, are those of a verb of `phoenix cache` that looks at a depot more
/// than once, or of a run that saves to one.
fn is_sparing(words: &[OsString], has_depot: bool) -> bool {
    let words = words.get(1..).unwrap_or_default();
    let of_cache = ["serve", "verify", "save", "gc"];
    let is_sparing = |pair: &[OsString]| pair[0] == "cache" && of_cache.iter().any(|verb| pair[1] == *verb);
    let names_depot = || words.iter().any(|word| word.as_encoded_bytes().starts_with(b"--depot"));
    words.windows(2).any(is_sparing)
        || words.first().is_some_and(|verb| verb == "run") && (has_depot || names_depot())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_a_depot_more_than_once_begins_anew() {
        let is_sparing = |line: &str, has_depot: bool| {
            is_sparing(&line.split(' ').map(OsString::from).collect::<Vec<OsString>>(), has_depot)
        };
        for line in [
            "phoenix cache serve --depot dir:x",
            "phoenix cache verify --repair",
            "phoenix cache save ./serve",
            "phoenix cache gc",
            "phoenix run --depot=dir:x .#a",
        ] {
            assert!(is_sparing(line, false), "{line}");
        }
        assert!(is_sparing("phoenix run .#a", true));
        for other in ["phoenix cache restore ./serve", "phoenix", "cache serve", "phoenix run"] {
            assert!(!is_sparing(other, false), "{other}");
        }
        assert!(!is_sparing("phoenix plan", true));
    }
}
