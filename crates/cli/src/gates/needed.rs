//! What Nix says while it builds what gates need.

use std::collections::{HashMap, VecDeque};

use phoenix_model::{Severity, StorePath};
use phoenix_store::{BuildEvent, BuildLog, Failure};

/// How many lines of a build that failed are shown.
const LAST: usize = 10;

/// What was heard of some builds.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// What there is to tell, line by line.
    pub(super) said: Vec<(Severity, String)>,
    failures: Vec<Failure>,
    errors: Vec<String>,
    tails: HashMap<StorePath, VecDeque<String>>,
}

impl Heard {
    /// Reads the log of a `nix-store --realise`.
    pub(super) fn read(log: &str) -> Self {
        let (mut this, mut reader) = (Self::default(), BuildLog::default());
        for event in log.lines().filter_map(|line| reader.line(line)) {
            match event {
                BuildEvent::Line { drv_path, line } => {
                    this.said.push((Severity::Detail, format!("{}> {line}", drv_path.human_name())));
                    let tail = this.tails.entry(drv_path).or_default();
                    tail.push_back(line);
                    if tail.len() > LAST {
                        tail.pop_front();
                    }
                }
                BuildEvent::Failed(failure) => this.failures.push(failure),
                BuildEvent::Message { level: 0, text } => this.errors.push(text),
                BuildEvent::Message { text, .. } => this.said.push((Severity::Detail, text)),
                _ => {}
            }
        }
        this
    }

    /// Why a derivation was not built, with the last lines of what failed.
    pub(super) fn why(&self, drv_path: &StorePath) -> String {
        let own = self.failures.iter().find(|failure| failure.about == *drv_path);
        let Some(failure) = own.or(self.failures.first()) else {
            return match self.errors.first() {
                Some(error) => error.clone(),
                None => "Nix does not say why".to_owned(),
            };
        };
        let mut why = failure.message.clone();
        for line in self.tails.get(&failure.about).into_iter().flatten() {
            why.push_str("\n  > ");
            why.push_str(line);
        }
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_builder_printed_is_part_of_why_it_failed() {
        let drv = "/nix/store/00000000000000000000000000000000-tool.drv";
        let line =
            |text: &str| format!(r#"@nix {{"action":"result","id":1,"type":101,"fields":["{text}"]}}"#);
        let mut log = vec![format!(
            r#"@nix {{"action":"start","id":1,"type":105,"level":3,"text":"","fields":["{drv}","",1,1],"parent":0}}"#
        )];
        log.extend((0..20).map(|number| line(&format!("line {number}"))));
        log.push(format!(
            r#"@nix {{"action":"msg","level":0,"msg":"error: builder for '{drv}' failed with exit code 4"}}"#
        ));
        let heard = Heard::read(&log.join("\n"));
        assert_eq!(heard.said.len(), 20);
        let why = heard.why(&StorePath::parse(drv).unwrap());
        assert!(why.contains("exit code 4\n  > line 10\n") && why.ends_with("  > line 19"), "{why}");
        assert!(!why.contains("line 9\n"), "{why}");
        let other = StorePath::parse("/nix/store/00000000000000000000000000000001-other.drv").unwrap();
        assert_eq!(heard.why(&other), why);
        assert_eq!(Heard::read("").why(&other), "Nix does not say why");
    }
}
