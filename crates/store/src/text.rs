//! Texts of Nix.

/// The text without terminal escape sequences.
#[must_use]
pub fn strip_ansi(text: &str) -> String {
    if text.contains('\u{1b}') { anstream::adapter::strip_str(text).to_string() } else { text.to_owned() }
}

/// What a program of Nix says went wrong: from the first line that begins with `error:`, without that word;
/// all of it when there is no such line. Warnings, which may quote errors, come before; what git says
/// before Nix says that git failed is added.
#[must_use]
pub fn error_text(stderr: &str) -> String {
    let text = strip_ansi(stderr);
    let start = if text.starts_with("error:") { Some(0) } else { text.find("\nerror:").map(|at| at + 1) };
    let error = &text[start.unwrap_or(0)..];
    let mut error = error.strip_prefix("error:").unwrap_or(error).trim().to_owned();
    let before = text[..start.unwrap_or(0)].lines().filter(|line| line.starts_with("fatal: "));
    for line in before {
        error.push('\n');
        error.push_str(line);
    }
    error
}

/// An error with all its causes, on one line as far as they are.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_what_follows_the_warnings() {
        assert_eq!(error_text("warning: x\n\u{1b}[31;1merror:\u{1b}[0m boom\n  at y\n"), "boom\n  at y");
        assert_eq!(error_text("warning: error: no net; retrying\nerror: no net"), "no net");
        assert_eq!(error_text("Killed\n"), "Killed");
        assert_eq!(
            error_text("fatal: '/x' does not exist\nerror: program 'git' failed with exit code 128\n"),
            "program 'git' failed with exit code 128\nfatal: '/x' does not exist"
        );
    }

    #[test]
    fn colours_go_and_text_stays() {
        assert_eq!(strip_ansi("\u{1b}[31;1merror:\u{1b}[0m a\u{1b}]0;title\u{7}b\u{1b}(Bc"), "error: abc");
        assert_eq!(strip_ansi("plain"), "plain");
        assert_eq!(strip_ansi("cut \u{1b}["), "cut ");
    }
}
