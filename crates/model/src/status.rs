//! What is known of an output before anything is built.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an output was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "where", content = "url")]
pub enum Source {
    /// In the store that is built in.
    Store,
    /// In a substituter, named by its URL without credentials.
    Substituter(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("the store"),
            Self::Substituter(url) => f.write_str(url),
        }
    }
}

/// What is known of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It can be had without building.
    Present(Source),
    /// Everybody who could have it was asked, answered, and has it not.
    Absent,
    /// Nobody has it, but somebody who could did not answer. Unknown is never absent: it is built for
    /// safety, and said so.
    Unknown,
}
