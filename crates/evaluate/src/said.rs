//! What an evaluator says besides answers and errors.

use phoenix_model::Severity;

use crate::trace::bounded;

/// A line that is worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) severity: Severity,
    pub(crate) text: String,
    /// The derivation that is built for the evaluation, if the line says so.
    pub(crate) building: Option<String>,
}

impl Said {
    /// Reads a line that is neither answer nor error; nothing for the repl's greeting.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let line = line.trim_end();
        if line.is_empty()
            || line.starts_with("Welcome to Nix")
            || line == "Type :? for help."
            || line.starts_with("Nix 2.")
            || line.starts_with("Lix ")
        {
            return None;
        }
        let mut building = None;
        // `builtins.warn` is told as an `evaluation warning`.
        let warning = line.strip_prefix("warning:").or_else(|| line.strip_prefix("evaluation warning:"));
        let (severity, text) = if let Some(text) = warning {
            // What comes after a colon is on lines of its own, which are details.
            (Severity::Warning, text.trim().trim_end_matches(':'))
        } else if let Some(text) = line.strip_prefix("trace:") {
            (Severity::Notice, text.trim())
        } else if let Some(text) = line.strip_prefix("building '") {
            building = text.split('\'').next().map(str::to_owned);
            (Severity::Notice, line)
        } else {
            (Severity::Detail, line)
        };
        Some(Self { severity, text: bounded(text), building })
    }

    /// Whether it is the flake's own word, which belongs to the answer.
    pub(crate) fn is_of_the_flake(&self) -> bool {
        self.building.is_none() && self.severity != Severity::Detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_weight() {
        let read = |line| Said::read(line).map(|said| (said.severity, said.text));
        assert_eq!(read("Welcome to Nix 2.8.0. Type :? for help."), None);
        assert_eq!(read("warning: old:"), Some((Severity::Warning, "old".to_owned())));
        assert_eq!(read("evaluation warning: old"), Some((Severity::Warning, "old".to_owned())));
        assert_eq!(read("trace: hello"), Some((Severity::Notice, "hello".to_owned())));
        assert_eq!(read("copying"), Some((Severity::Detail, "copying".to_owned())));
        let built = Said::read("building '/nix/store/x-a.drv' on 'ssh://b'...").unwrap();
        assert_eq!(built.building.as_deref(), Some("/nix/store/x-a.drv"));
        assert!(!built.is_of_the_flake() && Said::read("trace: x").unwrap().is_of_the_flake());
    }
}
