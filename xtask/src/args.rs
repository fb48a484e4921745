//! The words after a verb. What nobody asked for is an error, never ignored: a mistyped `--check` must
//! not write.

use crate::Result;

/// What has not been asked for yet.
pub(crate) struct Args<'a> {
    left: Vec<&'a str>,
}

impl<'a> Args<'a> {
    pub(crate) fn new(words: &'a [String]) -> Self {
        Self { left: words.iter().map(String::as_str).collect() }
    }

    /// Whether a flag is there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.left.len();
        self.left.retain(|word| *word != name);
        self.left.len() < before
    }

    /// The value after a flag, if the flag is there.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<&'a str>> {
        let Some(at) = self.left.iter().position(|word| *word == name) else { return Ok(None) };
        self.left.remove(at);
        if at == self.left.len() || self.left[at].starts_with('-') {
            return Err(format!("{name} needs a value after it"));
        }
        Ok(Some(self.left.remove(at)))
    }

    /// The first word that is no flag, if there is one.
    pub(crate) fn word(&mut self) -> Option<&'a str> {
        let at = self.left.iter().position(|word| !word.starts_with('-'))?;
        Some(self.left.remove(at))
    }

    /// An error when anything is left.
    pub(crate) fn finish(self) -> Result<()> {
        match self.left.first() {
            None => Ok(()),
            Some(word) => Err(format!("`{word}` means nothing here; `cargo xtask help` says what does")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_and_values_are_taken_in_any_order() {
        let words = words("--only sid --allow-skip");
        let mut args = Args::new(&words);
        assert!(args.flag("--allow-skip"));
        assert_eq!(args.value("--only"), Ok(Some("sid")));
        assert_eq!(args.value("--only"), Ok(None));
        assert_eq!(args.finish(), Ok(()));
    }

    #[test]
    fn a_mistyped_flag_is_an_error_that_names_it() {
        let words = words("--chekc");
        let mut args = Args::new(&words);
        assert!(!args.flag("--check"));
        assert!(args.finish().unwrap_err().contains("`--chekc`"));
    }

    #[test]
    fn a_flag_without_its_value_is_an_error() {
        for text in ["--only", "--only --allow-skip"] {
            let words = words(text);
            assert!(Args::new(&words).value("--only").unwrap_err().contains("--only"));
        }
    }
}
