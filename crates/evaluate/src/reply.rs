//! What an evaluator answers: the values of `nix/inspect.nix`.

use std::collections::BTreeMap;

use phoenix_model::StorePath;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Detailed;
use crate::special::Needed;

/// What is at an attribute path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Reply {
    /// A derivation.
    Derivation {
        name: String,
        system: String,
        drv_path: StorePath,
        /// Paths by output; a placeholder or nothing where the path is known only after the build.
        outputs: BTreeMap<String, Option<String>>,
        /// Which of the names that are wanted below it exist.
        #[serde(default)]
        names: Vec<String>,
        /// What else was asked for.
        #[serde(default)]
        details: Detailed,
    },
    /// What a derivation is called: its name, and its package's name and version where they are told.
    Name { name: String, pname: String },
    /// A phoenix `ci-work-unit`: the body of its `findWork`, and the unit itself.
    WorkUnit { find_work: Value, unit: Map<String, Value> },
    /// The list of std actions: how many there are.
    StdActions { count: usize },
    /// One of them, and what its proviso comes from.
    StdAction { action: Map<String, Value>, needs: Vec<Needed> },
    /// What `nix run` would run.
    Program { program: String, needs: Vec<Needed> },
    /// A set of attributes, and its `recurseForDerivations` where it has one.
    Set { names: Vec<String>, recurse: Option<Value> },
    /// Something that cannot be built.
    Other { r#type: String },
    /// Nothing: the last `left` names of the path do not exist; these names do where it breaks off.
    Missing { left: usize, r#type: String, names: Vec<String> },
}

impl Reply {
    /// Reads the JSON of an answer.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }
}

/// A type of Nix in words.
pub(crate) fn type_in_words(name: &str) -> String {
    match name {
        "lambda" => "a function".to_owned(),
        "set" => "a set".to_owned(),
        "int" => "an integer".to_owned(),
        "bool" => "a Boolean".to_owned(),
        "null" => "null".to_owned(),
        other => format!("a {other}"),
    }
}
