//! A double of GitHub's cache for each tool that uses it.

use std::collections::BTreeMap;

use phoenix_testkit::github::{Counts, Github, Permission, Request};

use crate::peers::{family, latency};

/// A double, and a token that may read and write.
pub(crate) struct Double {
    pub(crate) github: Github,
    pub(crate) token: String,
}

/// One for each tool.
#[derive(Default)]
pub(crate) struct Doubles(BTreeMap<String, Double>);

impl Doubles {
    pub(crate) fn start(&mut self, tool: &str) {
        self.0.entry(family(tool).to_owned()).or_insert_with(|| {
            let github = Github::start().expect("a server");
            // The limits of a minute would measure patience.
            github.behave(|behaviour| {
                behaviour.creates_per_minute = u64::MAX;
                behaviour.lookups_per_minute = u64::MAX;
            });
            let token = github.token(&[("refs/heads/main", Permission::Both)]);
            Double { github, token }
        });
    }

    /// The double of a tool; it waits from now on as long as the tool's name says. None for a tool that needs none.
    pub(crate) fn of(&self, tool: &str) -> Option<&Double> {
        let double = self.0.get(family(tool))?;
        double.github.behave(|behaviour| behaviour.latency = latency(tool));
        Some(double)
    }
}

/// What was asked of a double between two counts.
pub(crate) fn requests(before: &Counts, now: &Counts) -> String {
    let of = |requests: &[Request]| requests.iter().map(|one| now.of(*one) - before.of(*one)).sum::<u64>();
    format!(
        "{} creates, {} finalizes, {} lookups, {} uploads, {} reads",
        of(&[Request::Create]),
        of(&[Request::Finalize]),
        of(&[Request::Lookup]),
        of(&[Request::PutBlob, Request::PutBlock, Request::PutBlockList]),
        of(&[Request::GetBlob, Request::HeadBlob]),
    )
}
