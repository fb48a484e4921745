//! Mistakes in the user's own expressions that Nix finds when it reads them: an undefined variable, the same name twice.
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

/// An expression that is none for Nix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// What the user calls the expression.
    pub(crate) of: String,
    /// Nix's error, with its place.
    pub(crate) error: String,
}

/// The first mistake in expressions, each with what the user calls it. Where Nix cannot be asked, evaluators say what is
/// wrong.
pub(crate) fn find(nix: &Nix, expressions: &[(String, &Expression)]) -> Option<Mistake> {
    // Text that was given as text has none.
    let written: Vec<(&str, &Expression, &str)> = expressions
        .iter()
        .filter_map(|(of, expression)| Some((of.as_str(), *expression, expression.written()?)))
        .collect();
    let all: Vec<&str> = written.iter().map(|(_, expression, _)| expression.as_str()).collect();
    if all.is_empty() || error_in(nix, &format!("[ {} ]", all.join(" "))).is_none() {
        return None;
    }
    written.into_iter().find_map(|(of, _, text)| {
        let error = error_in(nix, text)?;
        Some(Mistake { of: of.to_owned(), error: placed(&error, of) })
    })
}

/// Nix's error when it reads a text; nothing where it has none, or was not asked.
fn error_in(nix: &Nix, text: &str) -> Option<String> {
    let output = output_of(&mut nix.nix_instantiate(&["--parse", "-"]), text).ok()?;
    if output.status.success() {
        return None;
    }
    let said = strip_ansi(&String::from_utf8_lossy(&output.stderr));
    let lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.iter().any(|line| line.starts_with("error:")).then(|| tidy(&lines))
}

/// An error with its place in what the user calls it.
fn placed(error: &str, of: &str) -> String {
    FROM_A_PIPE.iter().fold(error.to_owned(), |error, pipe| error.replace(pipe, &format!("«{of}»")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(text: &str) -> Expression {
        Expression::parse(text).unwrap()
    }

    #[test]
    fn a_mistake_is_told_in_nix_s_words_and_with_its_place() {
        let nix = Nix::find().unwrap();
        let good = expression("{ a ? <nixpkgs>, ... }:\n a ++ [ ./x ] # of all kinds");
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
            ("{ x, x }: 1", "duplicate formal function argument 'x'", "at «--apply»:1:6:"),
        ] {
            let mistake = with(&expression(bad)).unwrap_or_else(|| panic!("{bad} is right"));
            assert_eq!(mistake.of, APPLY);
            assert!(mistake.error.starts_with(words) && mistake.error.contains(place), "{}", mistake.error);
        }
    }
}
