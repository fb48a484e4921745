//! What a server says, as people may see it.

use crate::Secret;

/// The most characters that are shown of what a server says.
const LONGEST: usize = 300;

/// A server's words without secrets: on one line, without control characters, cut when long, and without
/// every word that looks like a URL, a signature or a token.
pub(crate) fn said(words: &str, secrets: &[&Secret]) -> String {
    let mut words = words.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.reveal().is_empty()) {
        words = words.replace(secret.reveal(), "(secret)");
    }
    let words = words.split_whitespace().map(|word| if is_suspect(word) { "(not shown)" } else { word });
    let words = words.collect::<Vec<_>>().join(" ");
    let words: String = words.chars().filter(|c| !c.is_control()).collect();
    match words.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// URLs may be signed, three parts of base64 may be a token.
fn is_suspect(word: &str) -> bool {
    let base64 = |part: &str| {
        part.len() >= 8 && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '='))
    };
    word.contains("://")
        || word.contains("sig=")
        || word.contains("eyJ")
        || ["ghs_", "ghp_", "gho_", "github_pat_"].iter().any(|token| word.contains(token))
        || word.split('.').filter(|part| base64(part)).count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_and_secrets_go() {
        let token = Secret::new("hunter22");
        for (words, shown) in [
            ("cache write denied: token has no writable scopes", None),
            ("rate\r\n limit \u{1b}[31mexceeded", Some("rate limit [31mexceeded")),
            ("token hunter22 is bad", Some("token (secret) is bad")),
            ("see https://a.b/c?sig=1 or sig=abc%3D", Some("see (not shown) or (not shown)")),
            ("Bearer eyJhbGciOi.eyJhYyI6.x", Some("Bearer (not shown)")),
            ("", None),
        ] {
            assert_eq!(said(words, &[&token]), shown.unwrap_or(words));
        }
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        let shown = said(&"é".repeat(1000), &[]);
        assert_eq!(shown.chars().count(), LONGEST + 1);
    }
}
