//! `netrc` files: who to be at which host (curl's format, which Nix uses).

use std::fmt;

/// A name and a password.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The name.
    pub login: String,
    /// The password; shown to nobody.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// The entries of a `netrc` file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Netrc {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// `None` for `default`.
    host: Option<String>,
    credentials: Credentials,
}

impl Netrc {
    /// Reads a file. Words that are not known are passed over, as curl does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        let mut words = words(text).into_iter();
        while let Some(word) = words.next() {
            let new = |host| Entry { host, credentials: Credentials::default() };
            match word.as_str() {
                "default" => entries.push(new(None)),
                "machine" => entries.extend(words.next().map(|host| new(Some(host)))),
                "login" | "password" | "account" => {
                    let (Some(value), Some(entry)) = (words.next(), entries.last_mut()) else { continue };
                    match word.as_str() {
                        "login" => entry.credentials.login = value,
                        "password" => entry.credentials.password = value,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Self { entries }
    }

    /// Who to be at a host, if that is said; of that name, if one is given.
    #[must_use]
    pub fn at(&self, host: &str, login: Option<&str>) -> Option<&Credentials> {
        let fits = |entry: &&Entry| login.is_none_or(|login| entry.credentials.login == login);
        let here = |entry: &&Entry| entry.host.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(host));
        let named = self.entries.iter().filter(fits).find(here);
        let found = named.or_else(|| self.entries.iter().filter(fits).find(|entry| entry.host.is_none()));
        found.map(|entry| &entry.credentials)
    }
}

/// Words separated by space, or in double quotes with `\"`, `\\`, `\n`, `\r` and `\t`. Comments (`#` at the
/// start of a line) and macros (from `macdef` to the next empty line) are left out.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut in_macro = false;
    for line in text.lines().map(str::trim_start) {
        in_macro &= !line.is_empty();
        if in_macro || line.starts_with('#') {
            continue;
        }
        let before = words.len();
        words_of_line(line, &mut words);
        if let Some(at) = words[before..].iter().position(|word| word == "macdef") {
            words.truncate(before + at);
            in_macro = true;
        }
    }
    words
}

fn words_of_line(line: &str, words: &mut Vec<String>) {
    let mut chars = line.chars().peekable();
    while chars.peek().is_some() {
        let quoted = chars.next_if_eq(&'"').is_some();
        let mut word = String::new();
        while let Some(char) = chars.next() {
            match char {
                '\\' if quoted => word.extend(chars.next().map(|char| match char {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                })),
                '"' if quoted => break,
                char if !quoted && char.is_whitespace() => break,
                char => word.push(char),
            }
        }
        words.push(word);
        while chars.next_if(|char| char.is_whitespace()).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str, host: &str) -> Option<(String, String)> {
        Netrc::parse(text).at(host, None).map(|found| (found.login.clone(), found.password.clone()))
    }

    fn two(login: &str, password: &str) -> Option<(String, String)> {
        Some((login.into(), password.into()))
    }

    #[test]
    fn a_host_has_its_own_entry_or_the_default() {
        let text = "# mine\nmachine a login x password y\nmachine B\n  login \"q r\"\n\tpassword \"s\\\"\\t\"\ndefault login d password e";
        assert_eq!(at(text, "a"), two("x", "y"));
        assert_eq!(at(text, "b"), two("q r", "s\"\t"));
        assert_eq!(at(text, "c"), two("d", "e"));
        assert_eq!(at("machine a login x password y", "c"), None);
    }

    #[test]
    fn macros_and_nonsense_are_passed_over() {
        let text =
            "machine a login x password y macdef init\nmachine evil login z\n\nmachine b login q password r";
        assert_eq!(at(text, "a"), two("x", "y"));
        assert_eq!(at(text, "evil"), None);
        assert_eq!(at(text, "b"), two("q", "r"));
        assert_eq!(at("login x\npassword", "a"), None);
        assert_eq!(at("machine", "a"), None);
        assert_eq!(at("machine a port 5 login x account z password y", "a"), two("x", "y"));
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", Netrc::parse("machine a login x password secret")).contains("secret"));
    }

    proptest! {
        #[test]
        fn quoted_words_hold_anything(login in "[ -~]{1,12}", password in "[ -~\t\n]{0,12}") {
            let quote = |word: &str| word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let text = format!("machine a login \"{}\" password \"{}\"", quote(&login), quote(&password));
            prop_assert_eq!(at(&text, "a"), two(&login, &password));
        }

        #[test]
        fn no_text_is_too_strange(text in "((machine|login|password|default|macdef|\"|\\\\|#|a)[ \n]?){0,20}") {
            let _ = Netrc::parse(&text);
        }
    }
}
