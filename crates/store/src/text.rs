//! Texts of Nix.

/// The text without terminal escape sequences (ECMA-48: `ESC [ … final byte`, `ESC ] … BEL`, `ESC x`).
#[must_use]
pub fn strip_ansi(text: &str) -> String {
    if !text.contains('\u{1b}') {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\u{1b}' {
            plain.push(char);
            continue;
        }
        match chars.next() {
            Some('[') => {
                for char in chars.by_ref() {
                    if ('\u{40}'..='\u{7e}').contains(&char) {
                        break;
                    }
                }
            }
            Some(']') => {
                for char in chars.by_ref() {
                    if char == '\u{7}' || char == '\u{9c}' {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_and_text_stays() {
        assert_eq!(strip_ansi("\u{1b}[31;1merror:\u{1b}[0m a\u{1b}]0;title\u{7}b\u{1b}(c"), "error: abc");
        assert_eq!(strip_ansi("plain"), "plain");
        assert_eq!(strip_ansi("cut \u{1b}["), "cut ");
    }
}
