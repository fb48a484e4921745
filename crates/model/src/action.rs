//! What runs after builds.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{StorePath, TargetId};

/// The number of an action in one run, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActionId(pub u32);

/// Something that runs once everything it needs is built, and at most once in a run: a publication, a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// Its number in this run.
    pub id: ActionId,
    /// What people call it; no two actions of a run have the same name.
    pub name: String,
    /// The target it belongs to, where one asked for it: a work unit, or a std action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// What it does.
    pub does: Does,
    /// The system it runs on; none where any will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The targets that have to be green before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<TargetId>,
    /// The actions that have to be done before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<ActionId>,
    /// The store paths that have to be in the store where it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<StorePath>,
    /// How many seconds it may take.
    pub time_out: u64,
}

/// What an action does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "does", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Does {
    /// Runs a program, as `nix run` does.
    Run {
        /// Its file.
        program: String,
    },
    /// Has a bash source a script, as std-action does, with these variables in the environment.
    Source {
        /// Its file.
        script: String,
        /// The variables.
        env: BTreeMap<String, String>,
    },
    /// Copies what was built to a store.
    Push {
        /// Its URL as Nix takes it, `cachix:NAME` or `attic:NAME`; without credentials.
        to: String,
    },
}

/// How an action ended. Every action ends in exactly one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ActionVerdict {
    /// It ran, and ended well.
    Done,
    /// It ran, and did not end well, or could not be run.
    Failed {
        /// Why, on one line or more.
        message: String,
    },
    /// It was not run because something it needs is not green.
    Blocked {
        /// What, by name; at least one.
        by: Vec<String>,
    },
    /// It was not to be run here.
    Skipped {
        /// Why.
        reason: String,
    },
    /// The run was stopped before it was done.
    Cancelled,
}

impl ActionVerdict {
    /// Whether it makes a run red.
    #[must_use]
    pub fn is_red(&self) -> bool {
        !matches!(self, Self::Done | Self::Skipped { .. })
    }

    /// Its particulars in words; nothing where there are none.
    #[must_use]
    pub fn why(&self) -> String {
        match self {
            Self::Done | Self::Cancelled => String::new(),
            Self::Failed { message: text } | Self::Skipped { reason: text } => text.clone(),
            Self::Blocked { by } => format!("by {}", by.join(", ")),
        }
    }
}

impl fmt::Display for ActionVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::Failed { .. } => "failed",
            Self::Blocked { .. } => "blocked",
            Self::Skipped { .. } => "skipped",
            Self::Cancelled => "cancelled",
        })
    }
}
