//! What the strings of Nix mean, as Nix itself reads them (nix `src/libexpr/lexer.l`, and `stripIndentation` in
//! `parser-state.hh`; the same from 2.8 to 2.34).

use crate::evaluator::quote;

/// Whitespace before which the first line of an indented string ends that is left out.
const SPACES: &[char] = &[' '];

/// A piece of a string.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// As it was written. Of an indented string, where it is taken apart: whose spaces at the start of a line are
    /// indentation.
    Plain(String),
    /// What an escape means, whose spaces count for none, though they go with the others.
    Escaped(String),
    /// An interpolation, on one line.
    Code(String),
}

/// A string that was not read to its end.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) is_indented: bool,
    pub(super) pieces: Vec<Piece>,
    /// What was there before it.
    pub(super) before: String,
}

impl Open {
    pub(super) const fn quote(&self) -> &'static str {
        if self.is_indented { "''" } else { "\"" }
    }

    /// What there is of it.
    pub(super) fn unfinished(&self, code: &str) -> String {
        let text = format!("{}{}{code}", self.quote(), self.as_written());
        text.replace(|char: char| char.is_ascii_control(), " ")
    }

    fn as_written(&self) -> String {
        let texts = self.pieces.iter().map(|piece| match piece {
            Piece::Plain(text) | Piece::Escaped(text) | Piece::Code(text) => text.as_str(),
        });
        texts.collect()
    }

    /// The same string on one line. It stays one of its kind, for the other has other rights.
    pub(super) fn close(&mut self) -> String {
        let quote = self.quote();
        let written = self.as_written();
        if !written.contains(|char: char| char.is_ascii_control()) {
            return format!("{quote}{written}{quote}");
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        if self.is_indented {
            pieces = without_indentation(pieces);
        }
        let mut line = quote.to_owned();
        for piece in pieces {
            match piece {
                Piece::Code(code) => line.push_str(&code),
                Piece::Plain(text) | Piece::Escaped(text) if self.is_indented => {
                    write_indented(&text, &mut line);
                }
                Piece::Plain(text) | Piece::Escaped(text) => line.push_str(&quoted(&unescaped(&text))),
            }
        }
        line.push_str(quote);
        line
    }
}

/// A text for within a `"` string.
fn quoted(text: &str) -> String {
    let quoted = quote(text);
    quoted[1..quoted.len() - 1].to_owned()
}

/// Writes a text into a `''` string whose quotes `line` begins with, so that nothing of it is indentation.
fn write_indented(text: &str, line: &mut String) {
    for char in text.chars() {
        match char {
            '\n' => line.push_str("''\\n"),
            '\r' => line.push_str("''\\r"),
            '\t' => line.push_str("''\\t"),
            '$' => line.push_str("''$"),
            '\'' => line.push_str("''\\'"),
            ' ' if line == "''" => line.push_str("''\\ "),
            control if control.is_ascii_control() => line.push_str(&quoted(&control.to_string())),
            other => line.push(other),
        }
    }
}

/// What escapes mean. What ends a line elsewhere ends it as it does here.
fn unescaped(text: &str) -> String {
    let mut meant = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' => meant.extend(chars.next().map(|escaped| match escaped {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            })),
            '\r' => {
                chars.next_if_eq(&'\n');
                meant.push('\n');
            }
            other => meant.push(other),
        }
    }
    meant
}

/// The pieces of a text between interpolations.
fn pieces(text: &str, pieces: &mut Vec<Piece>) {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let mut next = rest.chars().skip(1);
        let (next, second) = (next.next(), next.next());
        let escaped = match (char, next, second) {
            ('\'', Some('\''), Some('$')) => Some((3, "$".to_owned())),
            ('\'', Some('\''), Some('\'')) => Some((3, "''".to_owned())),
            ('\'', Some('\''), Some('\\')) => {
                let length = rest[3..].chars().next().map_or(0, char::len_utf8);
                Some((3 + length, unescaped(&rest[2..3 + length])))
            }
            ('\'', None | Some('$' | '\''), _) => Some((1, "'".to_owned())),
            ('$', None | Some('{' | '\''), _) => Some((1, "$".to_owned())),
            _ => None,
        };
        let taken = match escaped {
            Some((length, meant)) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Plain(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Escaped(meant));
                length
            }
            None => {
                // What follows one of these is taken with it, whatever it would begin.
                let with = if matches!(char, '\'' | '$') { next.map_or(0, char::len_utf8) } else { 0 };
                let length = char.len_utf8() + with;
                plain.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[taken..];
    }
    if !plain.is_empty() {
        pieces.push(Piece::Plain(plain));
    }
}

fn without_indentation(mut raw: Vec<Piece>) -> Vec<Piece> {
    if let Some(Piece::Plain(first)) = raw.first_mut()
        && let Some(rest) = first.trim_start_matches(SPACES).strip_prefix('\n')
    {
        *first = rest.to_owned();
    }
    let mut all = Vec::new();
    for part in raw {
        match part {
            Piece::Plain(text) => pieces(&text, &mut all),
            other => all.push(other),
        }
    }
    let least = indentation(&all);
    let mut meant = Vec::new();
    let (mut at_start, mut dropped) = (true, 0);
    let count = all.len();
    for (number, piece) in all.into_iter().enumerate() {
        let text = match piece {
            Piece::Code(code) => {
                (at_start, dropped) = (false, 0);
                meant.push(Piece::Code(code));
                continue;
            }
            Piece::Plain(text) | Piece::Escaped(text) => text,
        };
        let mut left = String::with_capacity(text.len());
        for char in text.chars() {
            if at_start && char == ' ' {
                dropped += 1;
                if dropped <= least {
                    continue;
                }
            } else {
                (at_start, dropped) = (char == '\n', 0);
            }
            left.push(char);
        }
        // A last line of spaces is where the string ends, and nothing of it.
        if number + 1 == count
            && let Some(end) = left.rfind('\n')
            && left[end..].trim_matches(SPACES) == "\n"
        {
            left.truncate(end + 1);
        }
        meant.push(Piece::Plain(left));
    }
    meant
}

/// How many spaces all lines begin with that are not empty.
fn indentation(pieces: &[Piece]) -> usize {
    let mut least = usize::MAX;
    let (mut at_start, mut current) = (true, 0);
    for piece in pieces {
        let Piece::Plain(text) = piece else {
            if at_start {
                at_start = false;
                least = least.min(current);
            }
            continue;
        };
        for char in text.chars() {
            match char {
                '\n' => (at_start, current) = (true, 0),
                ' ' if at_start => current += 1,
                _ if at_start => {
                    at_start = false;
                    least = least.min(current);
                }
                _ => {}
            }
        }
    }
    least
}
