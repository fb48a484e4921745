//! Secrets that a process was given, kept out of what it tells.

use std::borrow::Cow;

use serde_json::Value;

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// What is shorter would hide half of what is told.
const SHORTEST: usize = 8;

/// What stands where a text was cut.
const CUT: &str = "…";

/// So many bytes of the beginning of a secret tell something of it.
const TELLING: usize = 4;

/// How the names of variables end that hold a secret, in upper case.
const ENDINGS: [&str; 10] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "API_KEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "SIGNING_KEY",
    "SIGN_KEY",
    "STORAGE_KEY",
];

/// The variable in which an action tells which others hold a secret, by their names with commas between.
const NAMES: &str = "PHOENIX_CI_SECRETS";

/// Texts that nobody is to see.
#[derive(Clone, Default)]
pub struct Secrets {
    texts: Vec<String>,
    /// The same as JSON has them between its quotes.
    in_json: Vec<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.texts.len())
    }
}

impl Secrets {
    /// Those among the variables of an environment: what names like `GITHUB_TOKEN` or `AWS_SECRET_ACCESS_KEY` hold, line by
    /// line, the `access-tokens` of a `NIX_CONFIG`, and what variables hold whose names are in `PHOENIX_CI_SECRETS`. What is
    /// short is no secret, nor is what looks like a file, unless its name is among the last.
    pub fn among<'v>(variables: impl IntoIterator<Item = (&'v str, &'v str)>) -> Self {
        let variables: Vec<(&str, &str)> = variables.into_iter().collect();
        let named =
            variables.iter().filter(|(name, _)| *name == NAMES).flat_map(|(_, names)| names.split(','));
        let named: Vec<&str> = named.collect();
        let mut found = Vec::new();
        for (name, value) in variables {
            let is_named = named.contains(&name);
            let name = name.to_ascii_uppercase();
            let is_guessed = ENDINGS.iter().any(|ending| name.ends_with(ending)) && !is_file(value.trim());
            if is_named || is_guessed {
                found.extend(value.lines());
            }
            if name == "NIX_CONFIG" {
                found.extend(value.lines().flat_map(access_tokens));
            }
        }
        let is_secret = |text: &&str| text.len() >= SHORTEST;
        // Those who print them as JSON print them otherwise.
        let forms = |text: &str| [text.to_owned(), as_in_json(text)];
        let mut texts: Vec<String> =
            found.into_iter().map(str::trim).filter(is_secret).flat_map(forms).collect();
        // One that is part of another comes after it.
        texts.sort_by(|a, b| (b.len(), a).cmp(&(a.len(), b)));
        texts.dedup();
        let in_json = texts.iter().map(|text| as_in_json(text)).collect();
        Self { texts, in_json }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// A text without them, and without what is left of one where the text was cut.
    #[must_use]
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut spans = self.spans(text);
        if spans.is_empty() {
            return Cow::Borrowed(text);
        }
        spans.sort_unstable();
        let (mut hidden, mut shown) = (String::with_capacity(text.len()), 0);
        for (start, end) in spans {
            // What overlaps is hidden as one.
            if start >= shown {
                hidden.push_str(&text[shown..start]);
                hidden.push_str(HIDDEN);
            }
            shown = shown.max(end);
        }
        hidden.push_str(&text[shown..]);
        Cow::Owned(hidden)
    }

    /// Where secrets stand in a text, and beginnings of secrets that are followed by a cut.
    fn spans(&self, text: &str) -> Vec<(usize, usize)> {
        let whole = |secret: &String| {
            let length = secret.len();
            text.match_indices(secret.as_str()).map(move |(at, _)| (at, at + length)).collect::<Vec<_>>()
        };
        let mut spans: Vec<(usize, usize)> = self.texts.iter().flat_map(whole).collect();
        if !self.is_empty() {
            let cuts = text.match_indices(CUT).map(|(at, _)| at);
            spans.extend(cuts.filter_map(|at| Some((at - self.begun_at_the_end_of(&text[..at])?, at))));
        }
        spans
    }

    /// How much of a secret a text ends with, if that is enough to tell something.
    fn begun_at_the_end_of(&self, text: &str) -> Option<usize> {
        let begun = |secret: &String| {
            let lengths = (TELLING..secret.len()).rev().filter(|&length| secret.is_char_boundary(length));
            lengths.into_iter().find(|&length| text.ends_with(&secret[..length]))
        };
        self.texts.iter().filter_map(begun).max()
    }

    /// Takes them out of a text.
    pub fn hide_in(&self, text: &mut String) {
        if let Cow::Owned(hidden) = self.hide(text) {
            *text = hidden;
        }
    }

    /// Whether any text of a value may have some, by the value as JSON. Where there is none, none has.
    #[must_use]
    pub fn may_be_in_json(&self, json: &str) -> bool {
        !self.is_empty() && (json.contains(CUT) || self.in_json.iter().any(|secret| json.contains(secret)))
    }
}

/// Whether a text is the path of a file by its look: some words of small letters, from the root or from home. A secret in
/// base64 may begin with a slash, too, and have more of them, but has capitals.
fn is_file(text: &str) -> bool {
    let Some(path) = text.strip_prefix("~/").or_else(|| text.strip_prefix('/')) else { return false };
    let is_word = |word: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        !word.is_empty() && word.bytes().all(plain)
    };
    path.contains('/') && path.split('/').all(is_word)
}

/// A text as JSON has it, without the quotes around it.
fn as_in_json(text: &str) -> String {
    let json = Value::from(text).to_string();
    json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or(&json).to_owned()
}

/// The tokens of a line of `nix.conf` that has some: `access-tokens = HOST=TOKEN …` (nix `src/libfetchers/fetch-settings.hh`).
fn access_tokens(line: &str) -> Vec<&str> {
    let Some((name, tokens)) = line.split_once('=') else { return Vec::new() };
    if !matches!(name.trim(), "access-tokens" | "extra-access-tokens") {
        return Vec::new();
    }
    let token = |word: &'_ str| word.find('=').map(|at| at + 1);
    let tokens = tokens.split_whitespace().filter_map(|word| word.get(token(word)?..));
    // Some kinds are told before a colon: `PAT:…`, `OAuth2:…`.
    tokens.map(|token| token.split_once(':').map_or(token, |(_, token)| token)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets() -> Secrets {
        Secrets::among([
            ("CACHIX_AUTH_TOKEN", "cachix-secret"),
            ("github_token", "ghs_0123456789"),
            ("SSH_PRIVATE_KEY", "-----BEGIN-----\nbase64base64\n"),
            ("LONGER_TOKEN", "cachix-secret-longer"),
            (
                "NIX_CONFIG",
                "sandbox = false\naccess-tokens = github.com=ghp_abcdefgh gitlab.com=PAT:glpat-12345",
            ),
            ("SHORT_TOKEN", "abc"),
            ("AWS_WEB_IDENTITY_TOKEN", "/var/run/token/file"),
            ("TOKEN_OF_MERIT", "not a secret"),
            ("CACHE_KEY", "linux-main"),
            ("DB_PASS", "quo\"ted-1234"),
            ("DEPLOY", "/home/deploy/key"),
            (NAMES, "DB_PASS,DEPLOY"),
        ])
    }

    #[test]
    fn what_variables_hold_is_hidden() {
        let hide = |text: &str| secrets().hide(text).into_owned();
        assert_eq!(hide("a cachix-secret, ghs_0123456789"), "a ***, ***");
        assert_eq!(hide("cachix-secret-longer"), "***");
        assert_eq!(hide("key: base64base64"), "key: ***");
        assert_eq!(hide("ghp_abcdefgh glpat-12345"), "*** ***");
        assert_eq!(hide(r#"{"a":"quo\"ted-1234"} quo"ted-1234"#), r#"{"a":"***"} ***"#);
        assert_eq!(hide("/home/deploy/key"), "***", "it was named");
        for text in ["abc", "/var/run/token/file", "not a secret", "linux-main", "PAT"] {
            assert_eq!(hide(text), text);
        }
        assert!(Secrets::among([("A", "b")]).is_empty());
    }

    #[test]
    fn a_secret_may_begin_as_a_path_does() {
        let key = "/bPxRfiCYEXAMPLEKEYwJalrXUtnFEMI/K7MDENG0";
        let lines = "-----BEGIN KEY-----\n/slash0+line/of/base64==\n~tilde-line-of-it\n/var/run/no-path\n";
        let given = [
            ("AWS_SECRET_ACCESS_KEY", key),
            ("SSH_PRIVATE_KEY", lines),
            ("A_TOKEN", "~tilde1234"),
            ("B_TOKEN", "/lone-word"),
        ];
        let secrets = Secrets::among(given);
        for text in lines.lines().chain([key, "~tilde1234", "/lone-word"]) {
            assert_eq!(secrets.hide(text), HIDDEN, "{text}");
        }
        for file in ["/var/run/token", "~/.ssh/id_ed25519", "/run/secrets/a.b-c"] {
            assert!(Secrets::among([("A_TOKEN", file)]).is_empty(), "{file}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_of_base64_is_a_file(first in "[/~]", rest in "[A-Za-z0-9+/]{63}") {
            // As chance has it there is a capital, but for one in 10^14.
            let line = first + &rest;
            proptest::prop_assert!(!is_file(&line));
        }
    }

    #[test]
    fn no_value_has_one_whose_json_has_none() {
        let secrets = secrets();
        let json = |text: &str| json!({"a": [text]}).to_string();
        for text in ["cachix-secret", "x ghs_0123456789\n", "quo\"ted-1234", r#"{"a":"quo\"ted-1234"}"#] {
            assert!(secrets.may_be_in_json(&json(text)), "{text}");
            assert_ne!(secrets.hide(text), text);
        }
        for text in ["cachix", "quo ted-1234", ""] {
            assert!(!secrets.may_be_in_json(&json(text)), "{text}");
        }
        assert!(!Secrets::default().may_be_in_json(&json("cachix-secret")));
    }

    #[test]
    fn what_was_cut_within_a_secret_does_not_show_its_beginning() {
        let hide = |text: &str| secrets().hide(text).into_owned();
        assert_eq!(hide("x cachix-sec… (9 bytes more)"), "x ***… (9 bytes more)");
        assert_eq!(hide("x cachix-secret-lon… and ghs_0123…"), "x ***… and ***…");
        assert_eq!(hide("quo\"te… cachix-se"), "***… cachix-se", "which was not cut there");
        for text in ["a cac… b", "…", "waiting … for it", "the token… is there"] {
            assert_eq!(hide(text), text);
        }
        // A whole one goes as a whole, though its end begins another, or itself.
        let alike = Secrets::among([
            ("A_TOKEN", "hunter2X-hunter2X"),
            ("B_TOKEN", "AlphaSecretValue-link9"),
            ("C_TOKEN", "link9BetaSecretValue"),
        ]);
        assert_eq!(alike.hide("in with hunter2X-hunter2X… done"), "in with ***… done");
        assert_eq!(alike.hide("AlphaSecretValue-link9… hunter2X-hun…"), "***… ***…");
        assert!(secrets().may_be_in_json(&json!("x cachix-sec…").to_string()));
        assert!(!Secrets::default().may_be_in_json("…"));
    }

    #[test]
    fn they_are_not_shown_by_a_debugger() {
        assert_eq!(format!("{:?}", Secrets::among([("A_TOKEN", "cachix-secret")])), "Secrets(1)");
    }
}
