//! Text of strangers, made harmless.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

/// The text with nothing in it that a terminal, a log viewer or a reader could be fooled with: escape
/// sequences are left out; other control characters, line ends among them, and characters that are
/// invisible or turn the direction of writing are shown as `�`. A tab becomes four spaces.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|char| is_harmful(char) || is_presentation(char)) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\t' => clean.push_str("    "),
            '\u{1b}' => skip_escape(&mut chars),
            '\r' if chars.peek().is_none() => {}
            char if is_presentation(char) => {}
            char if is_harmful(char) => clean.push('\u{fffd}'),
            char => clean.push(char),
        }
    }
    Cow::Owned(clean)
}

/// A line that a build printed, as a terminal would have left it: a carriage return goes back to the start
/// of the line, as progress bars do, so only what comes after the last one is seen.
pub(crate) fn clean_log(line: &str) -> Cow<'_, str> {
    let line = line.trim_end_matches('\r');
    clean(line.rsplit_once('\r').map_or(line, |(_, last)| last))
}

/// Text of several lines on one, clean.
pub(crate) fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(clean).collect();
    lines.join(" ")
}

/// The text, or as much of its beginning as has `most` characters, with a mark where it was cut.
pub(crate) fn clip(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Passes over what follows the character that begins an escape sequence (ECMA-48), and over nothing that
/// does not belong to it: a sequence that breaks off must not hide what comes after.
fn skip_escape(chars: &mut Peekable<Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            while chars.next_if(|char| ('\u{20}'..='\u{3f}').contains(char)).is_some() {}
            chars.next_if(|char| ('\u{40}'..='\u{7e}').contains(char));
        }
        // Titles and links (OSC), device strings (DCS, SOS, PM, APC): up to a bell or a string terminator.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            let mut ahead = chars.clone();
            if skip_string(&mut ahead) {
                *chars = ahead;
            }
        }
        // Character sets and the like, as `tput sgr0` writes them.
        Some('\u{20}'..='\u{2f}') => {
            while chars.next_if(|char| ('\u{20}'..='\u{2f}').contains(char)).is_some() {}
            chars.next_if(|char| ('\u{30}'..='\u{7e}').contains(char));
        }
        Some('\u{30}'..='\u{7e}') => {
            chars.next();
        }
        _ => {}
    }
}

/// Whether the string ended, and did so on its line.
fn skip_string(chars: &mut Peekable<Chars<'_>>) -> bool {
    while let Some(char) = chars.next() {
        match char {
            '\u{7}' | '\u{9c}' => return true,
            '\u{1b}' => return chars.next_if_eq(&'\\').is_some(),
            '\n' => return false,
            _ => {}
        }
    }
    false
}

/// Says how the character before it looks, as in `⚠` and `⚠️`; nothing is lost without it, and widths are
/// what they seem.
fn is_presentation(char: char) -> bool {
    matches!(char, '\u{fe0e}' | '\u{fe0f}')
}

fn is_harmful(char: char) -> bool {
    char.is_control() || is_invisible(char) || is_not_xml(char)
}

/// Of no width, or of nothing but width, or turning the direction of writing.
fn is_invisible(char: char) -> bool {
    matches!(char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Characters that XML 1.0 does not allow, beyond control characters.
fn is_not_xml(char: char) -> bool {
    matches!(char, '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn harmless_text_is_left_as_it_is() {
        assert!(matches!(clean("ünïcödé → 日本 x86_64"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_fools_terminals_and_readers_is_taken_out() {
        for (text, tame) in [
            ("\u{1b}[31mred\u{1b}[0m\u{1b}]0;title\u{7}!", "red!"),
            ("a\nb\u{0}c\u{7f}", "a\u{fffd}b\u{fffd}c\u{fffd}"),
            ("evil\u{202e}txt.exe\u{200b}", "evil\u{fffd}txt.exe\u{fffd}"),
            ("50 %\r", "50 %"),
            ("a\tb", "a    b"),
            ("\u{1b}[", ""),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("\u{ffff}\u{ad}\u{3164}", "\u{fffd}\u{fffd}\u{fffd}"),
            ("⚠\u{fe0f} careful", "⚠ careful"),
        ] {
            assert_eq!(clean(text), tame, "{text:?}");
        }
    }

    #[test]
    fn an_escape_sequence_takes_nothing_with_it() {
        for (text, tame) in [
            // As gcc, systemd and cargo write links.
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\ after", "link after"),
            // As `tput sgr0` ends colours.
            ("\u{1b}(B\u{1b}[mplain", "plain"),
            ("\u{1b}Pdevice\u{1b}\\shown", "shown"),
            ("\u{1b}]never ended", "never ended"),
            ("\u{1b}[31\nnext", "\u{fffd}next"),
            ("\u{1b}\u{1b}[1mbold", "bold"),
            ("\u{1b}[31日本", "日本"),
        ] {
            assert_eq!(clean(text), tame, "{text:?}");
        }
    }

    #[test]
    fn a_line_of_a_log_is_as_a_terminal_leaves_it() {
        assert_eq!(clean_log("10 %\r50 %\rdone\r"), "done");
        assert_eq!(clean_log("\r\r"), "");
        assert_eq!(clean_log("plain"), "plain");
    }

    #[test]
    fn several_lines_on_one() {
        assert_eq!(one_line("a\n\n  b\tc\r\nd\u{1b}[0m"), "a b    c d");
        assert_eq!(clip("日本語", 2), "日本…");
        assert_eq!(clip("日本", 2), "日本");
    }

    proptest! {
        #[test]
        fn what_is_clean_stays_as_it_is(text in "(\\PC|[\u{1b}\\[\\]\r\n\t;m\u{7}\u{9c}()B]){0,40}") {
            let once = clean(&text).into_owned();
            prop_assert!(!once.chars().any(is_harmful), "{once:?}");
            prop_assert_eq!(clean(&once), once.as_str());
        }
    }
}
