//! What Nix means by its error messages.
//!
//! The texts are those of Nix 2.8 to 2.34 (`src/libstore/build/*.cc`, `src/libstore/unix/build/*.cc`);
//! they were collected by running each version. A text that is not known belongs to no derivation, and
//! what it was about then ends as *could not be built* with Nix's words.

use phoenix_model::{FailureClass, StorePath};

/// A failure that Nix tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The derivation that failed, or an output of it.
    pub about: StorePath,
    /// Which kind of failure.
    pub class: FailureClass,
    /// What Nix said, without the log lines it repeats and without the list of outputs.
    pub message: String,
}

/// What a message at Nix's error level says: `Some` when a derivation failed itself, `None` for
/// consequences ("dependencies failed", "build of … failed") and for everything else.
#[must_use]
pub fn failure_of(message: &str) -> Option<Failure> {
    let text = message.strip_prefix("error:").unwrap_or(message).trim();
    let class = classify(text)?;
    let about = quoted_paths(text).next()?;
    Some(Failure { about, class, message: shorten(text) })
}

/// Whether a message only says what follows from failures that are told on their own.
pub(crate) fn is_consequence(message: &str) -> bool {
    let text = message.strip_prefix("error:").unwrap_or(message).trim();
    dependency_failed(text)
        || (text.starts_with("build of '") && text.ends_with("failed"))
        || text == "Build failed due to failed dependency"
        || text == "build failed"
}

fn dependency_failed(text: &str) -> bool {
    text.contains("dependencies of derivation '")
        || text.contains("dependency of derivation '")
        || text.contains("dependency failed")
        || text.contains("dependencies failed")
}

fn classify(text: &str) -> Option<FailureClass> {
    let has = |part: &str| text.contains(part);
    if is_consequence(text) {
        return None;
    }
    if has("hash mismatch in fixed-output derivation '") {
        return Some(FailureClass::HashMismatch);
    }
    // The second is what `repeat` finds, a setting that Nix had until 2.12.
    if has("may not be deterministic") || has("differs from previous round") {
        return Some(FailureClass::NonDeterministic);
    }
    if has("timed out after") || has("Reason: timed out") {
        return Some(FailureClass::TimedOut);
    }
    if has("log of") && has("exceeded") || has("log limit") || has("killed after writing more than") {
        return Some(FailureClass::Build);
    }
    if text.starts_with("builder for '") || has("Reason: builder failed") {
        return Some(if was_killed(text) { FailureClass::Killed } else { FailureClass::Build });
    }
    // What the builder made is not what the derivation allows (`allowedReferences` and the like).
    if text.starts_with("output '") && (has("is not allowed to refer to") || has("output check")) {
        return Some(FailureClass::Build);
    }
    let its_own = text.starts_with("Cannot build '")
        || text.starts_with("derivation '")
        || text.starts_with("building '")
        || text.starts_with("output '")
        || text.starts_with("some substitutes for the outputs of derivation '")
        || (text.starts_with("a '") && has("is required to build '"))
        || has("failed to build due to signal");
    its_own.then_some(FailureClass::Other)
}

/// Whether Nix tells of a builder that got SIGKILL, which no builder does to itself; the log that Nix repeats may
/// tell of others. What crashed (SIGSEGV, SIGABRT) would do so again.
fn was_killed(text: &str) -> bool {
    shorten(text).contains("failed due to signal 9 (")
}

/// The store paths in quotes, in the order of the text. Only the last component is looked at, so that
/// any store directory will do.
fn quoted_paths(text: &str) -> impl Iterator<Item = StorePath> + '_ {
    // A derivation may come with its outputs: `….drv!*`, `….drv^out`.
    let bare = |part: &str| part.split(['!', '^']).next().map(str::to_owned).unwrap_or_default();
    text.split(['\'', '"']).filter_map(move |part| StorePath::parse(&bare(part)).ok())
}

/// Leaves out what is shown elsewhere: the last log lines, and the list of outputs.
fn shorten(text: &str) -> String {
    // The name in it is one of Nix's goals, not of a derivation: `….drv!*`.
    let text = text
        .find("timed out after ")
        .filter(|_| text.starts_with("building of '"))
        .map_or(text, |at| &text[at..]);
    let mut lines = Vec::new();
    for line in text.lines() {
        let bare = line.trim();
        if bare.starts_with("Output paths:") || is_log_heading(bare) {
            break;
        }
        let cut = bare.find("; last ").filter(|&at| bare[at..].ends_with(" log lines:"));
        match cut {
            Some(at) => {
                lines.push(&bare[..at]);
                break;
            }
            None => lines.push(bare),
        }
    }
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines.join("\n").trim_end_matches(';').to_owned()
}

fn is_log_heading(line: &str) -> bool {
    (line.starts_with("Last ") || line.starts_with("last ")) && line.ends_with(" log lines:")
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "/s/store/zap2bal78b3rmi26y7i9pgh6fzz5m5hj-fail.drv";

    fn class(text: &str) -> Option<FailureClass> {
        let failure = failure_of(text);
        if let Some(failure) = &failure {
            assert!(failure.about.as_str().starts_with("/s/store/zap2bal"), "{failure:?}");
        }
        failure.map(|failure| failure.class)
    }

    #[test]
    fn a_time_out_does_not_name_the_goal() {
        for goal in [format!("'{X}'"), format!("'{X}!*' from .drv file")] {
            let text = format!("error: building of {goal} timed out after 5 seconds of silence");
            assert_eq!(failure_of(&text).unwrap().message, "timed out after 5 seconds of silence");
        }
    }

    #[test]
    fn messages_of_all_versions_have_their_class() {
        for (text, expected) in [
            // 2.8 and 2.26
            (format!("error: builder for '{X}' failed with exit code 3"), Some(FailureClass::Build)),
            (
                format!("builder for '{X}' failed with exit code 1;\n       last 2 log lines:\n       > a"),
                Some(FailureClass::Build),
            ),
            (format!("error: builder for '{X}' failed due to signal 9 (Killed)"), Some(FailureClass::Killed)),
            (
                format!("error: builder for '{X}' failed due to signal 11 (Segmentation fault)"),
                Some(FailureClass::Build),
            ),
            (
                format!(
                    "builder for '{X}' failed with exit code 1; last 1 log lines:\n  > x failed due to signal 9 (Killed)"
                ),
                Some(FailureClass::Build),
            ),
            (
                format!(
                    "builder for '{X}' failed to produce output path for output 'out' at '/s/store/zap2bal78b3rmi26y7i9pgh6fzz5m5hj-x'"
                ),
                Some(FailureClass::Build),
            ),
            (format!("error: building of '{X}' timed out after 1 seconds"), Some(FailureClass::TimedOut)),
            (
                format!("error: building of '{X}' timed out after 1 seconds of silence"),
                Some(FailureClass::TimedOut),
            ),
            (
                format!("building of '{X}!*' from .drv file timed out after 1 seconds"),
                Some(FailureClass::TimedOut),
            ),
            (
                format!(
                    "hash mismatch in fixed-output derivation '{X}':\n  specified: sha256-A\n     got:    sha256-B"
                ),
                Some(FailureClass::HashMismatch),
            ),
            (
                format!(
                    "error: derivation '{X}' may not be deterministic: output '/s/store/zap2bal78b3rmi26y7i9pgh6fzz5m5hj-x' differs"
                ),
                Some(FailureClass::NonDeterministic),
            ),
            (
                format!(
                    "error: output '/s/store/zap2bal78b3rmi26y7i9pgh6fzz5m5hj-x' of '{X}' differs from previous round"
                ),
                Some(FailureClass::NonDeterministic),
            ),
            (
                format!(
                    "error: a 'aarch64-linux' with features {{}} is required to build '{X}', but I am a 'x86_64-linux' with features {{}}"
                ),
                Some(FailureClass::Other),
            ),
            (format!("error: 1 dependencies of derivation '{X}' failed to build"), None),
            (format!("error: build of '{X}' failed"), None),
            // 2.34
            (
                format!(
                    "error: Cannot build '{X}'.\n       Reason: builder failed with exit code 3.\n       Output paths:\n         /s/store/q"
                ),
                Some(FailureClass::Build),
            ),
            (
                format!(
                    "error: Cannot build '{X}'.\n       Reason: builder failed due to signal 9 (Killed).\n       Output paths:\n         /s/store/q"
                ),
                Some(FailureClass::Killed),
            ),
            (format!("Cannot build '{X}'.\nReason: 1 dependency failed.\nOutput paths:\n  /s"), None),
            (format!("Cannot build '{X}'.\nReason: 2 dependencies failed."), None),
            (
                format!("Cannot build '{X}'.\nReason: required system or feature not available"),
                Some(FailureClass::Other),
            ),
            ("error: Build failed due to failed dependency".to_owned(), None),
            ("error: unable to start any build".to_owned(), None),
        ] {
            assert_eq!(class(&text), expected, "{text}");
        }
    }

    #[test]
    fn the_message_leaves_out_what_is_shown_elsewhere() {
        let message = |text: &str| failure_of(text).unwrap().message;
        assert_eq!(
            message(&format!(
                "error: Cannot build '{X}'.\n       Reason: builder failed with exit code 3.\n       Output paths:\n         /s/store/q"
            )),
            format!("Cannot build '{X}'.\nReason: builder failed with exit code 3.")
        );
        assert_eq!(
            message(&format!("error: builder for '{X}' failed with exit code 1; last 2 log lines:\n  > a")),
            format!("builder for '{X}' failed with exit code 1")
        );
        assert!(
            message(&format!(
                "hash mismatch in fixed-output derivation '{X}':\n  specified: A\n     got:    B"
            ))
            .ends_with("specified: A\ngot:    B")
        );
    }
}
