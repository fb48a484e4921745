//! Mistakes in the user's own expressions that Nix finds when it reads them: an error of syntax, an undefined variable, the
//! same name twice.
//!
//! An evaluator reads them as part of its definitions, where one mistake takes all the definitions with it that need them. So
//! Nix is asked before, in a process that only parses, and says what is wrong in its own words, and where.

use phoenix_store::{Nix, strip_ansi};

use crate::Expression;
use crate::evaluator::output_of;
use crate::trace::tidy;

/// What the user calls the function of `--apply`.
pub(crate) const APPLY: &str = "--apply";

/// What Nix calls a text that it reads from a pipe, and what 2.8 calls it within a message.
const FROM_A_PIPE: &[&str] = &["«stdin»", "(string)"];

/// How long a text may be as an argument, and all of them together not be too long.
const LONGEST: usize = 8 << 10;

/// An expression that is none for Nix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// What the user calls the expression.
    pub(crate) of: String,
    /// Nix's error, with its place.
    pub(crate) error: String,
}

/// The first mistake in expressions, each with what the user calls it.
pub(crate) fn find(nix: &Nix, expressions: &[(String, &Expression)]) -> Option<Mistake> {
    // Text that was given as text has none.
    let written: Vec<(&str, &str)> = expressions
        .iter()
        .filter_map(|(of, expression)| Some((of.as_str(), expression.written()?)))
        .collect();
    if all_are_right(nix, &written) {
        return None;
    }
    written.into_iter().find_map(|(of, text)| {
        let error = error_in(nix, text)?;
        Some(Mistake { of: of.to_owned(), error: placed(&error, of) })
    })
}

/// Whether Nix finds nothing in several texts, which it reads one by one. Else, or where they are too long for that, it is
/// to be asked for each.
fn all_are_right(nix: &Nix, texts: &[(&str, &str)]) -> bool {
    if texts.len() < 2 || texts.iter().any(|(_, text)| text.len() > LONGEST) {
        return texts.is_empty();
    }
    let mut command = nix.nix_instantiate(&["--parse", "--expr"]);
    // Whatever one begins with, it is no flag.
    command.args(texts.iter().map(|(_, text)| format!("\n{text}")));
    command.output().is_ok_and(|output| output.status.success())
}

/// Nix's error when it reads a text, or why it could not be asked.
fn error_in(nix: &Nix, text: &str) -> Option<String> {
    let output = match output_of(&mut nix.nix_instantiate(&["--parse", "-"]), text) {
        Ok(output) if output.status.success() => return None,
        Ok(output) => output,
        Err(error) => return Some(format!("`nix-instantiate --parse` cannot be asked to read it: {error}")),
    };
    let said = strip_ansi(&String::from_utf8_lossy(&output.stderr));
    let lines: Vec<String> = said.lines().map(str::to_owned).collect();
    let error = tidy(&lines);
    Some(if error.is_empty() {
        format!("`nix-instantiate --parse` ended with {}", output.status)
    } else {
        error
    })
}

/// An error with its place in what the user calls it.
fn placed(error: &str, of: &str) -> String {
    FROM_A_PIPE.iter().fold(error.to_owned(), |error, pipe| error.replace(pipe, &format!("«{of}»")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_in_nix_s_words_and_with_its_place() {
        let nix = Nix::find().unwrap();
        let good = Expression::of("{ a ? <nixpkgs>, ... }:\n a ++ [ ./x ] # of all kinds");
        let text = Expression::string("nope ${");
        let with = |bad: &Expression| {
            find(
                &nix,
                &[("--arg a".to_owned(), &text), ("--select".to_owned(), &good), (APPLY.to_owned(), bad)],
            )
        };
        assert_eq!(with(&good), None);
        for (bad, words, place) in [
            ("nope", "undefined variable 'nope'", "at «--apply»:1:1:"),
            ("{\n a = nope; }", "undefined variable 'nope'", "at «--apply»:2:6:"),
            (
                "let a = 1; a = 2; in a",
                "attribute 'a' already defined at «--apply»:1:5",
                "at «--apply»:1:12:",
            ),
            ("{\n a = $x; }", "syntax error, unexpected ", "at «--apply»:2:6:"),
            ("{ a = 1", "syntax error, unexpected end of file", "at «--apply»:1:"),
            ("1) + (2", "syntax error, unexpected ", "at «--apply»:1:2:"),
            ("", "syntax error, unexpected end of file", "at «--apply»:1:"),
            ("{ ''a'' = 1; }", "syntax error, unexpected ", "at «--apply»:1:3:"),
            ("1\u{a0}+ 1", "syntax error, unexpected ", "at «--apply»:1:2:"),
            ("1\u{c}+ 1", "syntax error, unexpected ", "at «--apply»:1:2:"),
            ("{ x, x }: 1", "duplicate formal function argument 'x'", "at «--apply»:1:6:"),
        ] {
            let mistake = with(&Expression::of(bad)).unwrap_or_else(|| panic!("{bad} is right"));
            assert_eq!(mistake.of, APPLY);
            assert!(mistake.error.starts_with(words) && mistake.error.contains(place), "{}", mistake.error);
        }
    }
}
