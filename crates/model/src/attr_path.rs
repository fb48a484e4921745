//! Attribute paths, such as `packages.x86_64-linux."python3.12"`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path of attribute names from the root of a flake (or of a file).
///
/// Its text is that of nix-eval-jobs: names joined by dots, a name in double quotes when it holds a dot,
/// a quote or nothing at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AttrPath(pub Vec<String>);

/// Why a text is not an attribute path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an attribute path: {reason}")]
pub struct AttrPathError {
    /// The text that was refused.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl AttrPath {
    /// Reads names joined by dots; a name in double quotes may hold dots, and `\"` and `\\`.
    ///
    /// # Errors
    /// When a quote is not closed, or a name is empty without quotes.
    pub fn parse(text: &str) -> Result<Self, AttrPathError> {
        split(text).map(Self).map_err(|reason| AttrPathError { text: text.to_owned(), reason })
    }

    /// The names, outermost first.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// This path with one more name.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let mut names = self.0.clone();
        names.push(name.to_owned());
        Self(names)
    }
}

fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut names = Vec::new();
    if text.is_empty() {
        return Ok(names);
    }
    let mut name = String::new();
    let mut quoted = false;
    let mut was_quoted = false;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                quoted = !quoted;
                was_quoted = true;
            }
            '\\' if quoted => name.push(chars.next().ok_or("a backslash at the end")?),
            '.' if !quoted => finish(&mut names, &mut name, &mut was_quoted)?,
            other => name.push(other),
        }
    }
    if quoted {
        return Err("a quote is not closed");
    }
    finish(&mut names, &mut name, &mut was_quoted)?;
    Ok(names)
}

fn finish(names: &mut Vec<String>, name: &mut String, was_quoted: &mut bool) -> Result<(), &'static str> {
    if name.is_empty() && !*was_quoted {
        return Err("a name is empty");
    }
    names.push(std::mem::take(name));
    *was_quoted = false;
    Ok(())
}

impl fmt::Display for AttrPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            if name.is_empty() || name.contains(['.', '"']) {
                write!(f, "\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))?;
            } else {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

impl Serialize for AttrPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AttrPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dots_in_quotes_do_not_split() {
        let path = AttrPath::parse("packages.x86_64-linux.\"python3.12\"").unwrap();
        assert_eq!(path.names(), ["packages", "x86_64-linux", "python3.12"]);
        assert_eq!(path.to_string(), "packages.x86_64-linux.\"python3.12\"");
    }

    #[test]
    fn nothing_is_the_root() {
        assert_eq!(AttrPath::parse("").unwrap(), AttrPath::default());
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(AttrPath::parse("a..b").unwrap_err().reason, "a name is empty");
        assert_eq!(AttrPath::parse("a.").unwrap_err().reason, "a name is empty");
        assert_eq!(AttrPath::parse("a.\"b").unwrap_err().reason, "a quote is not closed");
    }

    proptest! {
        #[test]
        fn text_and_path_are_one(names in prop::collection::vec("[a-z._\"-]{0,6}", 1..5)) {
            let path = AttrPath(names);
            prop_assert_eq!(AttrPath::parse(&path.to_string()).unwrap(), path);
        }
    }
}
