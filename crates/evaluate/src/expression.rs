//! Nix expressions of the user's, for an evaluator that reads lines.
//!
//! Whether a text is one is for Nix to say, and in its words (`mistakes.rs`). Here it is only read as far as tokens go, for
//! what is to become one line: so no depth is too deep, and what Nix takes is taken.

use crate::evaluator::quote;

mod strings;
mod tokens;

/// A Nix expression that fits on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    line: String,
    /// As the user wrote it; nothing where it stands for a text.
    written: Option<String>,
}

impl Expression {
    /// Takes what the user wrote: comments go, and what ends lines in strings is written as Nix's escapes.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self { line: tokens::one_line(text), written: Some(text.to_owned()) }
    }

    /// A text as an expression.
    #[must_use]
    pub fn string(text: &str) -> Self {
        Self { line: quote(text), written: None }
    }

    /// A function that throws, whatever it is given.
    pub(crate) fn throwing(error: &str) -> Self {
        Self { line: format!("_: throw {}", quote(error)), written: None }
    }

    /// As the user wrote it; nothing where it stands for a text.
    pub(crate) fn written(&self) -> Option<&str> {
        self.written.as_deref()
    }

    /// As Nix reads it, on one line. What was written on one has its columns still.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.line
    }

    /// Its definition. What follows the sign is where columns are counted from.
    pub(crate) fn definition(&self, name: &str) -> String {
        format!("{name} ={}", self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        Expression::of(text).as_str().to_owned()
    }

    #[test]
    fn an_expression_becomes_one_line() {
        assert_eq!(line("a: # all\n  /* of\n it */ b"), "a: b");
        assert_eq!(line("{\n  a = \"x\ny\";\n}"), "{ a = \"x\\ny\"; }");
        assert_eq!(
            line("''\n  one\n    ${two}\n  ''$three\n''"),
            "''one''\\n''\\ ''\\ ${two}''\\n''$three''\\n''".replace("''\\ ''\\ ", "  ")
        );
        assert_eq!(line("import ./. { } # end\n"), "import ./. { } ");
        assert_eq!(line("a#b\rc"), "a c");
    }

    #[test]
    fn what_is_on_one_line_keeps_its_columns() {
        assert_eq!(line("a: /* of */ b\t+ 1 # end"), "a:          b + 1      ");
        for text in [
            "\"# no comment $${x}\"",
            "''# none ''${x} '${y  +  \"z\"}'''",
            "a.${b} or ''c''",
            "let { body = {a}: a''b''; }",
            "[ x:''y/*z*/ http://a/b?c=d#e",
        ] {
            let expected = text.strip_suffix("#e").map(|rest| format!("{rest}  "));
            assert_eq!(line(text), expected.unwrap_or_else(|| text.to_owned()));
        }
    }

    #[test]
    fn nested_strings_are_read_as_well() {
        assert_eq!(line("\"${''\n a\n b''}\""), "\"${''a''\\nb''}\"");
    }

    #[test]
    fn what_begins_a_string_or_a_comment_elsewhere_does_not_within_a_token() {
        let same = |text: &str| assert_eq!(line(&format!("{text}\n")).trim_end(), text);
        for text in [
            "a''b \"c\" ''d'' e",
            "1.5e5''s  '' x",
            "a:''b  ''",
            "./a/${b  + \"}\"}c''s  ''",
            "a//b''c d''e",
            "a_b:''s  ''",
            "~/a ''s  ''",
            "x //*y \"  \"",
        ] {
            let text = text.replace("b  +", "b +").replace("''b  ''", "''b ''");
            same(&text);
        }
    }

    #[test]
    fn what_is_no_whitespace_to_nix_stays() {
        for space in ["\u{a0}", "\u{2003}", "\u{c}", "\u{b}"] {
            assert_eq!(line(&format!("1{space}+ 1")), format!("1{space}+ 1"));
        }
        assert_eq!(line("{ ''a\n'' = 1; }"), "{ ''a''\\n'' = 1; }");
    }

    #[test]
    fn no_depth_is_too_deep() {
        for (open, close, depth) in [("(", ")", 100_000), ("\"${", "}\"", 2000), ("{a=", ";}", 100_000)] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(line(&deep), deep);
        }
    }

    #[test]
    fn a_text_that_ends_too_soon_is_taken_as_it_is() {
        for text in ["{ a = ", "\"a", "''a ${b", "\"${\"${x}", "./a${", "/* a", "}"] {
            assert!(!line(text).contains('\n'));
        }
    }
}
