//! What is heard from substituters.

use phoenix_model::{Status, StorePath};

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The answer to a question.
    Answer {
        /// The path that was asked for.
        path: StorePath,
        /// Present, absent, or unknown.
        status: Status,
        /// What the substituter says of it, when present.
        found: Option<Found>,
    },
    /// A substituter does not answer as it should and is not asked again in this run; what it said before
    /// stands. Once each.
    Failed {
        /// Its URL without credentials, as [`redacted`](crate::redacted) gives it.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A substituter did not answer one question as it should, which leaves that path unknown; it is still
    /// asked for others. Once each.
    Strange {
        /// Its URL without credentials.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing for a moment: answers are waited for.
    Waiting,
    /// A substituter has a path that is not signed by a trusted key. Nix would not take it, so it counts as
    /// absent there. Once each.
    Untrusted {
        /// Its URL without credentials.
        url: String,
        /// The first such path.
        example: StorePath,
    },
}

/// What a substituter says of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Bytes to fetch, where told.
    pub file_size: Option<u64>,
    /// Base names of the paths it refers to, itself among them if it does.
    pub references: Vec<String>,
}
