//! What the tokens of Nix are, as far as it takes to know strings, interpolations and comments from what looks like them
//! (nix `src/libexpr/lexer.l`; the same from 2.8 to 2.34). The longest token counts.

use super::strings::{Open, Piece};

/// What a text begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// Whitespace and comments.
    Blank,
    /// `{` and `${`.
    Brace,
    /// `}`.
    End,
    /// A path, which has interpolations.
    Path,
    /// A string of one of the two kinds.
    String,
    /// Anything else.
    Other,
}

/// What a brace is in that is open.
#[derive(Debug)]
enum Within {
    Code,
    Path,
    /// With what is there of it.
    String(Open),
}

/// A text on one line.
pub(super) fn one_line(text: &str) -> String {
    let mut reader = Reader {
        rest: text,
        line: String::with_capacity(text.len()),
        within: Vec::new(),
        keeps_columns: !text.contains(['\n', '\r']),
    };
    while !reader.rest.is_empty() {
        reader.step();
    }
    // What ends too soon is for Nix to refuse.
    while let Some(within) = reader.within.pop() {
        if let Within::String(open) = within {
            let code = std::mem::replace(&mut reader.line, open.before.clone());
            reader.line.push_str(&open.unfinished(&code));
        }
    }
    reader.line
}

struct Reader<'t> {
    rest: &'t str,
    line: String,
    within: Vec<Within>,
    /// Whether all of it is on one line already.
    keeps_columns: bool,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line.push_str(taken);
        self.rest = rest;
    }

    fn step(&mut self) {
        let (token, length) = token(self.rest);
        match token {
            Token::Blank => {
                let width = if self.keeps_columns { length } else { usize::from(!self.line.ends_with(' ')) };
                self.line.extend(std::iter::repeat_n(' ', width));
                self.rest = &self.rest[length..];
            }
            Token::Other => self.take(length),
            Token::Brace => {
                self.take(length);
                self.within.push(Within::Code);
            }
            Token::Path => self.path(),
            Token::String => {
                let before = std::mem::take(&mut self.line);
                let open = Open { is_indented: length == 2, pieces: Vec::new(), before };
                self.rest = &self.rest[length..];
                self.string(open);
            }
            Token::End => {
                self.take(length);
                match self.within.pop() {
                    None | Some(Within::Code) => {}
                    Some(Within::Path) => self.path(),
                    Some(Within::String(mut open)) => {
                        open.pieces.push(Piece::Code(std::mem::take(&mut self.line)));
                        self.string(open);
                    }
                }
            }
        }
    }

    /// Goes on with a path.
    fn path(&mut self) {
        self.take(run(self.rest, |byte| is_of_path(byte) || byte == b'/'));
        if self.rest.starts_with("${") {
            self.take(2);
            self.within.push(Within::Path);
        }
    }

    /// Goes on with a string.
    fn string(&mut self, mut open: Open) {
        let length = if open.is_indented { indented(self.rest) } else { plain(self.rest) };
        let (text, rest) = self.rest.split_at(length);
        if !text.is_empty() {
            open.pieces.push(Piece::Plain(text.to_owned()));
        }
        self.rest = rest;
        if rest.starts_with("${") {
            self.line.clear();
            self.take(2);
            self.within.push(Within::String(open));
        } else if let Some(rest) = rest.strip_prefix(open.quote()) {
            self.rest = rest;
            let string = open.close();
            self.line = open.before;
            self.line.push_str(&string);
        } else {
            self.line.clear();
            self.within.push(Within::String(open));
        }
    }
}

/// How long the text of a `"` string is up to its end or an interpolation.
fn plain(text: &str) -> usize {
    pass(text, |rest| match rest {
        [b'"', ..] | [b'$', b'{', ..] => None,
        [b'$', b'\\', ..] => Some(2),
        [b'\\', ..] | [b'$', b'\0'..=b'!' | b'#'..=b'\xff', ..] => Some(1),
        _ => Some(0),
    })
}

/// The same of a `''` string.
fn indented(text: &str) -> usize {
    pass(text, |rest| match rest {
        [b'\'', b'\'', b'$' | b'\'', ..] => Some(2),
        [b'\'', b'\'', b'\\', _, ..] => Some(3),
        [b'\'', b'\'', ..] | [b'$', b'{', ..] => None,
        [b'\'', b'$', ..] | [b'$', b'\'', ..] => Some(0),
        [b'\'' | b'$', _, ..] => Some(1),
        _ => Some(0),
    })
}

/// How long a text is up to where nothing is passed any more: each time so many bytes, and the character after them.
fn pass(text: &str, step: impl Fn(&[u8]) -> Option<usize>) -> usize {
    let mut at = 0;
    while at < text.len() {
        let Some(more) = step(&text.as_bytes()[at..]) else { break };
        let last = at + more;
        at = last + text[last.min(text.len())..].chars().next().map_or(0, char::len_utf8);
    }
    at.min(text.len())
}

/// What a text that is not empty begins with, and how long that is.
fn token(text: &str) -> (Token, usize) {
    let bytes = text.as_bytes();
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    match bytes {
        [first, ..] if is_space(*first) => (Token::Blank, run(text, is_space)),
        [b'#', ..] => (Token::Blank, run(text, |byte| !matches!(byte, b'\r' | b'\n'))),
        [b'/', b'*', ..] => match text[2..].find("*/") {
            Some(end) => (Token::Blank, end + 4),
            None => (Token::Other, 1),
        },
        [b'/', b'/', ..] => (Token::Other, 2),
        _ if is_path(text) => (Token::Path, 0),
        [b'"', ..] => (Token::String, 1),
        [b'\'', b'\'', ..] => (Token::String, 2),
        [b'{', ..] => (Token::Brace, 1),
        [b'$', b'{', ..] => (Token::Brace, 2),
        [b'}', ..] => (Token::End, 1),
        [b'a'..=b'z' | b'A'..=b'Z' | b'_', ..] => (Token::Other, name(text).max(uri(text))),
        [b'0'..=b'9' | b'.', ..] => (Token::Other, number(text).max(1)),
        _ => (Token::Other, text.chars().next().map_or(1, char::len_utf8)),
    }
}

/// How long the bytes are that a text begins with and that are such.
fn run(text: &str, is_such: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(|byte| !is_such(byte)).unwrap_or(text.len())
}

fn is_of_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-+".contains(&byte)
}

fn is_path(text: &str) -> bool {
    let rest = &text.as_bytes()[run(text, is_of_path)..];
    match rest {
        [b'/', b'$', b'{', ..] => true,
        [b'/', next, ..] => is_of_path(*next),
        _ => false,
    }
}

fn name(text: &str) -> usize {
    run(text, |byte| byte.is_ascii_alphanumeric() || b"_'-".contains(&byte))
}

fn uri(text: &str) -> usize {
    let scheme = run(text, |byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let Some(rest) = text[scheme..].strip_prefix(':') else { return 0 };
    let rest = run(rest, |byte| byte.is_ascii_alphanumeric() || b"%/?:@&=+$,-_.!~*'".contains(&byte));
    if rest == 0 || text.starts_with('_') { 0 } else { scheme + 1 + rest }
}

/// An integer, or a number with a point.
fn number(text: &str) -> usize {
    let digits = |from: usize| run(&text[from..], |byte| byte.is_ascii_digit());
    let whole = digits(0);
    let Some(b'.') = text.as_bytes().get(whole) else { return whole };
    let fraction = digits(whole + 1);
    // Nothing need follow the point of a number, but of one below one; and no other one begins with a zero.
    let is_float = if text.starts_with('0') || whole == 0 { whole <= 1 && fraction > 0 } else { true };
    if !is_float {
        return whole;
    }
    let end = whole + 1 + fraction;
    if !text[end..].starts_with(['e', 'E']) {
        return end;
    }
    let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
    match digits(end + 1 + sign) {
        0 => end,
        exponent => end + 1 + sign + exponent,
    }
}
