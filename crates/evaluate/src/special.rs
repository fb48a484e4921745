//! Targets that are more than a derivation.

use std::collections::BTreeMap;

use phoenix_model::StorePath;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What a target is, when it is no plain derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Special {
    /// A phoenix `ci-work-unit`: a script says what is to be done for it.
    WorkUnit(WorkUnit),
    /// An action of `__std.ci`.
    StdAction(StdAction),
    /// A program that was asked for, to run it.
    Program(Program),
}

/// A phoenix `ci-work-unit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkUnit {
    /// The body of its `findWork`.
    pub find_work: String,
    /// What the body sees as `self`.
    pub unit: Value,
    /// Its `findWorkDeps`, by name: they have to be built before it is asked.
    pub needs: BTreeMap<String, Dependency>,
}

/// One of the `findWorkDeps` of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// Its derivation.
    pub drv_path: StorePath,
    /// Its output.
    pub path: StorePath,
}

/// An action of `__std.ci`, by the schema `v0` of paisano.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdAction {
    /// Its particulars.
    pub particulars: StdParticulars,
    /// All of it as its proviso and the outputs of a discovery have it, with the name of its job.
    pub json: Value,
    /// What its proviso comes from, where that has to be built.
    pub needs: Vec<Needed>,
}

/// What is said of an action of `__std.ci`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StdParticulars {
    /// The name of the target.
    pub name: String,
    /// Its cell.
    pub cell: String,
    /// Its block.
    pub block: String,
    /// What is done with it: `build`, `publish`, ….
    pub action: String,
    /// The derivation that is the action.
    pub action_drv: StorePath,
    /// The derivation that it is about.
    #[serde(default)]
    pub target_drv: Option<StorePath>,
    /// The file of the script that says whether there is work.
    #[serde(default)]
    pub proviso: Option<String>,
    /// What the block type says of the target.
    #[serde(default)]
    pub meta: Option<Value>,
}

impl StdParticulars {
    /// As std writes it: `//CELL/BLOCK/NAME:ACTION`.
    #[must_use]
    pub fn shown(&self) -> String {
        let Self { cell, block, name, action, .. } = self;
        format!("//{cell}/{block}/{name}:{action}")
    }

    /// The name of its job: `ACTION //CELL/BLOCK/NAME`.
    #[must_use]
    pub fn job_name(&self) -> String {
        let Self { cell, block, name, action, .. } = self;
        format!("{action} //{cell}/{block}/{name}")
    }
}

/// A program, and what it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its file.
    pub file: String,
    /// The derivations that have to be built for it.
    pub needs: Vec<Needed>,
}

/// A derivation with the outputs that are needed of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Needed {
    /// Its path.
    pub drv_path: StorePath,
    /// The names of the outputs.
    pub outputs: Vec<String>,
}

impl WorkUnit {
    /// Reads what an evaluator tells of a unit at a path.
    pub(crate) fn read(path: &str, find_work: Value, mut unit: Map<String, Value>) -> Result<Self, String> {
        let find_work = match find_work {
            Value::String(body) => body,
            Value::Null => return Err("this ci-work-unit has no `findWork`".to_owned()),
            _ => return Err("the `findWork` of this ci-work-unit is neither a string nor a path".to_owned()),
        };
        let needs = unit.get("findWorkDeps").cloned().unwrap_or_else(|| Map::new().into());
        let needs = serde_json::from_value(needs).map_err(|error| {
            format!("the `findWorkDeps` of this ci-work-unit are no derivations: {error}")
        })?;
        unit.insert("attrPath".to_owned(), path.into());
        Ok(Self { find_work, unit: unit.into(), needs })
    }
}

impl StdAction {
    /// Reads what an evaluator tells of an action.
    pub(crate) fn read(mut action: Map<String, Value>, needs: Vec<Needed>) -> Result<Self, String> {
        let particulars: StdParticulars = serde_json::from_value(Value::Object(action.clone()))
            .map_err(|error| format!("it is no action of std's schema v0: {error}"))?;
        action.insert("jobName".to_owned(), particulars.job_name().into());
        Ok(Self { particulars, json: action.into(), needs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("{value}") };
        map
    }

    #[test]
    fn a_unit_sees_itself_with_its_path() {
        let path = format!("/nix/store/{}-x", "0".repeat(32));
        let dep = json!({"drvPath": format!("{path}.drv"), "path": path});
        let unit = json!({"type": "ci-work-unit", "findWorkDeps": {"x": dep}, "image": path});
        let read = WorkUnit::read("ci.a", json!("return {}"), map(unit)).unwrap();
        assert_eq!(read.unit["attrPath"], "ci.a");
        assert_eq!(read.needs["x"].path.as_str(), path);
        assert!(WorkUnit::read("ci.a", Value::Null, Map::new()).unwrap_err().contains("no `findWork`"));
        assert!(WorkUnit::read("ci.a", json!(3), Map::new()).unwrap_err().contains("neither a string"));
    }

    #[test]
    fn an_action_of_std_gets_the_name_of_its_job() {
        let drv = format!("/nix/store/{}-x.drv", "0".repeat(32));
        let action = json!({"name": "n", "cell": "c", "block": "b", "blockType": "t", "action": "publish",
            "targetDrv": null, "actionDrv": drv, "proviso": null, "meta": {"image": "i"}});
        let read = StdAction::read(map(action), vec![]).unwrap();
        assert_eq!(read.json["jobName"], "publish //c/b/n");
        assert_eq!(read.particulars.shown(), "//c/b/n:publish");
        let error = StdAction::read(map(json!({"name": "n"})), vec![]).unwrap_err();
        assert!(error.contains("missing field"), "{error}");
    }
}
