//! Words to the runner that a step can say: workflow commands.
//!
//! The runner takes any line that begins with `::` for a command, whoever wrote it. What strangers wrote goes
//! through [`error()`], which leaves it no line of its own.

/// A command that shows an error beside the run, with its line end.
#[must_use]
pub fn error(title: &str, text: &str) -> String {
    format!("::error title={}::{}\n", property(title), data(text))
}

/// Commands that have the runner hide a text wherever it is shown, line by line, as it hides it; with their line ends.
#[must_use]
pub fn mask(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| format!("::add-mask::{}\n", data(line))).collect()
}

/// Text as the last part of a command (`actions/toolkit`, `packages/core/src/command.ts`, `escapeData`).
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Text as a property of a command (`escapeProperty`).
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the runner makes of a command (`actions/runner`, `ActionCommand.cs`).
    fn read(command: &str) -> (String, String) {
        let plain = |text: &str| {
            text.replace("%0D", "\r")
                .replace("%0A", "\n")
                .replace("%3A", ":")
                .replace("%2C", ",")
                .replace("%25", "%")
        };
        let (head, text) = command.strip_prefix("::error title=").unwrap().split_once("::").unwrap();
        (plain(head), plain(text.strip_suffix('\n').unwrap()))
    }

    #[test]
    fn each_line_is_hidden() {
        assert_eq!(mask("a%\n\n  b\r\n"), "::add-mask::a%25\n::add-mask::b\n");
        assert_eq!(mask(" \n"), "", "everything would be hidden");
    }

    #[test]
    fn hostile_names_stay_in_their_command() {
        for evil in [
            "a\n::set-output name=x::y",
            "::stop-commands::z",
            "a\r::add-mask::b",
            "x,file=/etc/passwd",
            "%0A::error::",
            "a::b",
            "$(id)",
        ] {
            let command = error(evil, evil);
            assert_eq!(command.lines().count(), 1, "{command:?}");
            assert!(!command.trim_end_matches('\n').contains(['\n', '\r']));
            assert_eq!(read(&command), (evil.to_owned(), evil.to_owned()));
            let (head, _) = command[2..].split_once("::").unwrap();
            assert!(!head.contains(','), "no further property: {head}");
        }
    }
}
