//! `netrc` files: who to be at which host (curl's format, which Nix uses).

use std::fmt;

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
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
    entries: Vec<(Option<String>, Credentials)>,
}

impl Netrc {
    /// Reads a file. Words that are not known are passed over, as curl does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut entries = Vec::new();
        let mut words = words(text).into_iter();
        while let Some(word) = words.next() {
            let host = match word.as_str() {
                "machine" => match words.next() {
                    Some(host) => Some(host),
                    None => break,
                },
                "default" => None,
                "login" | "password" | "account" => {
                    let Some((_, credentials)) = entries.last_mut() else { continue };
                    let credentials: &mut Credentials = credentials;
                    let value = words.next().unwrap_or_default();
                    match word.as_str() {
                        "login" => credentials.login = value,
                        "password" => credentials.password = value,
                        _ => {}
                    }
                    continue;
                }
                _ => continue,
            };
            entries.push((host, Credentials { login: String::new(), password: String::new() }));
        }
        Self { entries }
    }

    /// Who to be at a host, if that is said.
    #[must_use]
    pub fn at(&self, host: &str) -> Option<&Credentials> {
        let named = self.entries.iter().find(|(name, _)| name.as_deref() == Some(host));
        named.or_else(|| self.entries.iter().find(|(name, _)| name.is_none())).map(|(_, credentials)| credentials)
    }
}

/// Words separated by space, or in double quotes with `\` before a quote; lines of comments and macros are
/// left out.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut in_macro = false;
    for line in text.lines() {
        if line.trim().is_empty() {
            in_macro = false;
        }
        if in_macro || line.trim_start().starts_with('#') {
            continue;
        }
        if line.trim_start().starts_with("macdef") {
            in_macro = true;
            continue;
        }
        let mut chars = line.trim_start().chars().peekable();
        while chars.peek().is_some() {
            let quoted = chars.next_if_eq(&'"').is_some();
            let mut word = String::new();
            while let Some(char) = chars.next() {
                match char {
                    '\\' if quoted => word.extend(chars.next()),
                    '"' if quoted => break,
                    char if !quoted && char.is_whitespace() => break,
                    char => word.push(char),
                }
            }
            words.push(word);
            while chars.next_if(|char| char.is_whitespace()).is_some() {}
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, host: &str) -> Option<(String, String)> {
        Netrc::parse(text).at(host).map(|found| (found.login.clone(), found.password.clone()))
    }

    fn two(login: &str, password: &str) -> Option<(String, String)> {
        Some((login.into(), password.into()))
    }

    #[test]
    fn hosts_and_the_default() {
        let text = "# mine\nmachine a login x password y\nmachine b\n  login \"q r\"\n  password \"s\\\"t\"\ndefault login d password e";
        assert_eq!(at(text, "a"), two("x", "y"));
        assert_eq!(at(text, "b"), two("q r", "s\"t"));
        assert_eq!(at(text, "c"), two("d", "e"));
        assert_eq!(at("machine a login x password y", "c"), None);
    }

    #[test]
    fn macros_and_nonsense_are_passed_over() {
        let text = "machine a login x password y\nmacdef init\nmachine evil login z\n\nmachine b login q password r";
        assert_eq!(at(text, "evil"), None);
        assert_eq!(at(text, "b"), two("q", "r"));
        assert_eq!(at("login x\npassword", "a"), None);
        assert_eq!(at("machine", "a"), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", Netrc::parse("machine a login x password secret")).contains("secret"));
    }
}
