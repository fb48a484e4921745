//! Nix expressions of the user's, for an evaluator that reads lines.

use rnix::ast::{AstNode, InterpolPart, Str};
use rnix::{NodeOrToken, SyntaxKind, SyntaxNode};

use crate::evaluator::quote;

mod strings;

/// A Nix expression that fits on one line, in parentheses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    line: String,
    /// As the user wrote it; nothing where it stands for a text.
    written: Option<String>,
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not a Nix expression: {0}")]
pub struct ExpressionError(String);

impl Expression {
    /// Reads an expression: comments go, and strings over several lines become what they mean.
    ///
    /// # Errors
    /// When it has mistakes.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let mut parsed = rnix::Root::parse(text);
        if text.contains('\r') {
            let mut text = text.to_owned();
            while let Some(end) = end_of_comment(&parsed.syntax()) {
                text.replace_range(end..=end, "\n");
                parsed = rnix::Root::parse(&text);
            }
        }
        if let Some(error) = parsed.errors().first() {
            return Err(ExpressionError(error.to_string()));
        }
        let mut line = String::with_capacity(text.len() + 2);
        line.push('(');
        write(&parsed.syntax(), &mut line);
        line.push(')');
        Ok(Self { line, written: Some(text.to_owned()) })
    }

    /// A text as an expression.
    #[must_use]
    pub fn string(text: &str) -> Self {
        Self { line: quote(text), written: None }
    }

    /// A function that throws, whatever it is given.
    pub(crate) fn throwing(error: &str) -> Self {
        Self { line: format!("(_: throw {})", quote(error)), written: None }
    }

    /// As the user wrote it; nothing where it stands for a text.
    pub(crate) fn written(&self) -> Option<&str> {
        self.written.as_deref()
    }

    /// As Nix reads it, on one line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.line
    }
}

/// A node as what it is.
fn cast<N: AstNode>(node: &SyntaxNode) -> Option<N> {
    N::cast(node.clone())
}

fn syntax<N: AstNode>(node: &N) -> &SyntaxNode {
    node.syntax()
}

/// Where the first carriage return is that ends a comment for Nix, and not for who parsed this.
fn end_of_comment(node: &SyntaxNode) -> Option<usize> {
    let tokens = node.descendants_with_tokens().filter_map(NodeOrToken::into_token);
    let mut comments = tokens.filter(|token| token.kind() == SyntaxKind::TOKEN_COMMENT);
    comments.find_map(|comment| {
        let end = comment.text().strip_prefix('#')?.find('\r')?;
        Some(usize::from(comment.text_range().start()) + 1 + end)
    })
}

fn write(node: &SyntaxNode, line: &mut String) {
    if let Some(string) = cast::<Str>(node) {
        return write_string(&string, line);
    }
    for child in node.children_with_tokens() {
        match child {
            NodeOrToken::Node(node) => write(&node, line),
            NodeOrToken::Token(token) => match token.kind() {
                SyntaxKind::TOKEN_COMMENT | SyntaxKind::TOKEN_WHITESPACE => {
                    if !line.ends_with(' ') {
                        line.push(' ');
                    }
                }
                _ => line.push_str(token.text()),
            },
        }
    }
}

fn write_string(string: &Str, line: &mut String) {
    line.push('"');
    for part in strings::parts(string) {
        match part {
            InterpolPart::Literal(text) => {
                let quoted = quote(&text);
                line.push_str(&quoted[1..quoted.len() - 1]);
            }
            InterpolPart::Interpolation(interpolation) => write(syntax(&interpolation), line),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        Expression::parse(text).unwrap().as_str().to_owned()
    }

    #[test]
    fn an_expression_becomes_one_line() {
        assert_eq!(line("a: # all\n  /* of\n it */ b"), "(a: b)");
        assert_eq!(line("{\n  a = \"x\ny\";\n}"), "({ a = \"x\\ny\"; })");
        assert_eq!(line("''\n  one\n    ${two}\n  ''$three\n''"), "(\"one\\n  ${two}\\n\\$three\\n\")");
        assert_eq!(line("\"# no comment $${x}\""), "(\"# no comment \\$\\${x}\")");
        assert_eq!(line("import ./. { } # end"), "(import ./. { } )");
    }

    #[test]
    fn nested_strings_are_read_as_well() {
        assert_eq!(line("\"${''\n a\n b''}\""), "(\"${\"a\\nb\"}\")");
    }

    #[test]
    fn mistakes_are_told() {
        let error = Expression::parse("{ a = 1").unwrap_err().to_string();
        assert!(error.starts_with("it is not a Nix expression:"), "{error}");
        assert!(Expression::parse("").is_err());
        assert!(Expression::parse("1) + (2").is_err());
    }
}
