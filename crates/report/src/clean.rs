//! Text of strangers, made harmless.

use std::borrow::Cow;

/// The text with nothing in it that a terminal, a log viewer or a reader could be fooled with: escape
/// sequences are left out; other control characters, line ends among them, and characters that are
/// invisible or turn the direction of writing are shown as `�`. A tab becomes four spaces.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\t' => clean.push_str("    "),
            '\u{1b}' => skip_escape(&mut chars),
            // A carriage return alone goes back to the start of the line: progress bars do so.
            '\r' if chars.peek().is_none() => {}
            char if is_harmful(char) => clean.push('\u{fffd}'),
            char => clean.push(char),
        }
    }
    Cow::Owned(clean)
}

fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|char| !('\u{40}'..='\u{7e}').contains(&char)) {},
        Some(']') => while chars.next().is_some_and(|char| char != '\u{7}' && char != '\u{9c}') {},
        _ => {}
    }
}

fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' | '\u{180e}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_text_is_left_as_it_is() {
        assert!(matches!(clean("ünïcödé → 日本 x86_64"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_fools_terminals_and_readers_is_taken_out() {
        assert_eq!(clean("\u{1b}[31mred\u{1b}[0m\u{1b}]0;title\u{7}!"), "red!");
        assert_eq!(clean("a\nb\u{0}c\u{7f}"), "a\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(clean("evil\u{202e}txt.exe\u{200b}"), "evil\u{fffd}txt.exe\u{fffd}");
        assert_eq!(clean("50 %\r"), "50 %");
        assert_eq!(clean("a\tb"), "a    b");
        assert_eq!(clean("\u{1b}["), "");
    }
}
