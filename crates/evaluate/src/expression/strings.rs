//! What the strings of Nix mean, as Nix itself reads them (nix `src/libexpr/lexer.l`, and `stripIndentation` in
//! `parser-state.hh`; the same from 2.8 to 2.34).

use rnix::ast::{AstToken, Interpol, InterpolPart, Str};

/// Whitespace before which the first line of an indented string ends that is left out.
const SPACES: &[char] = &[' '];

/// The parts of a string, with its escapes resolved and its indentation gone.
pub(super) fn parts(string: &Str) -> Vec<InterpolPart<String>> {
    let mut raw: Vec<InterpolPart<String>> = Vec::new();
    for part in string.parts() {
        match (raw.last_mut(), part) {
            (Some(InterpolPart::Literal(before)), InterpolPart::Literal(more)) => {
                before.push_str(more.syntax().text());
            }
            (_, InterpolPart::Literal(more)) => {
                raw.push(InterpolPart::Literal(more.syntax().text().to_owned()));
            }
            (_, InterpolPart::Interpolation(interpolation)) => {
                raw.push(InterpolPart::Interpolation(interpolation));
            }
        }
    }
    let is_indented = super::syntax(string).first_token().is_some_and(|open| open.text() == "''");
    if is_indented {
        return without_indentation(raw);
    }
    let meant = raw.into_iter().map(|part| match part {
        InterpolPart::Literal(text) => InterpolPart::Literal(unescaped(&text)),
        interpolation => interpolation,
    });
    meant.collect()
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

/// A piece of an indented string.
enum Piece {
    /// Whose spaces at the start of a line are indentation.
    Plain(String),
    /// Whose spaces count for none, though they go with the others.
    Escaped(String),
    Interpolation(Interpol),
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

fn without_indentation(mut raw: Vec<InterpolPart<String>>) -> Vec<InterpolPart<String>> {
    if let Some(InterpolPart::Literal(first)) = raw.first_mut()
        && let Some(rest) = first.trim_start_matches(SPACES).strip_prefix('\n')
    {
        *first = rest.to_owned();
    }
    let mut all = Vec::new();
    for part in raw {
        match part {
            InterpolPart::Literal(text) => pieces(&text, &mut all),
            InterpolPart::Interpolation(interpolation) => all.push(Piece::Interpolation(interpolation)),
        }
    }
    let least = indentation(&all);
    let mut meant = Vec::new();
    let (mut at_start, mut dropped) = (true, 0);
    let count = all.len();
    for (number, piece) in all.into_iter().enumerate() {
        let text = match piece {
            Piece::Interpolation(interpolation) => {
                (at_start, dropped) = (false, 0);
                meant.push(InterpolPart::Interpolation(interpolation));
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
        meant.push(InterpolPart::Literal(left));
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
