//! What a flake asks CI for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AttrPath, StorePath};

/// The number of a target in one run, counted from 0 in the order they were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TargetId(pub u32);

/// What a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TargetKind {
    /// A derivation to build.
    Derivation,
    /// A phoenix `ci-work-unit` (compatibility with phoenix-ci v1), or something that one asks for.
    WorkUnit,
    /// An action of `__std.ci` (compatibility with std-action).
    StdAction,
    /// Nothing that is known: its attribute did not evaluate, or is of a type that cannot be built.
    Unknown,
}

/// One thing a flake asks CI for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its number in this run.
    pub id: TargetId,
    /// The installable it comes from, as the user wrote it, without the attribute.
    pub source: String,
    /// Its attribute path from the root.
    pub attr_path: AttrPath,
    /// What it is.
    pub kind: TargetKind,
    /// The name of the derivation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The system it is built on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Its derivation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drv_path: Option<StorePath>,
    /// All outputs by name, with the path where that is known before building.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Option<StorePath>>,
    /// The outputs that are asked for, as `meta.outputsToInstall` or the installable's `^out` says;
    /// empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<String>,
}

impl Target {
    /// The attribute path as people write it.
    #[must_use]
    pub fn attr(&self) -> String {
        self.attr_path.to_string()
    }
}
