//! `cargo xtask architecture`: the dependency picture, drawn from what cargo knows.

use std::fmt::Write as _;

use serde_json::Value;

use crate::Result;
use crate::process::{cargo, output, root};

const FILE: &str = "docs/architecture.md";
const BEGIN: &str = "<!-- drawn by `cargo xtask architecture`: begin -->\n";
const END: &str = "<!-- drawn by `cargo xtask architecture`: end -->";

/// What each crate is in the house; a crate that is missing here is an error.
const KINDS: &[(&str, &[&str])] = &[
    ("thinks", &["model", "schedule", "report"]),
    ("acts", &["store", "evaluate", "substituter"]),
    ("speaks", &["cli"]),
    ("dev", &["testkit"]),
];

pub(crate) fn architecture(args: &[String]) -> Result<()> {
    let check = args.iter().any(|arg| arg == "--check");
    let file = root().join(FILE);
    let text = fs_err::read_to_string(&file).map_err(|error| error.to_string())?;
    let markers =
        || format!("{FILE} has no place for the picture; it goes between `{}` and `{END}`", BEGIN.trim());
    let (before, rest) = text.split_once(BEGIN).ok_or_else(markers)?;
    let (_, after) = rest.split_once(END).ok_or_else(markers)?;
    let new = format!("{before}{BEGIN}{}{END}{after}", picture()?);
    if new == text {
        return Ok(());
    }
    if check {
        return Err(format!(
            "the picture in {FILE} is out of date; `cargo xtask architecture` draws it anew"
        ));
    }
    fs_err::write(&file, new).map_err(|error| error.to_string())
}

fn picture() -> Result<String> {
    let metadata = output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]))
        .ok_or("`cargo metadata` failed")?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("`cargo metadata` lists no packages")?;
    let mut edges = Vec::new();
    let mut crates = Vec::new();
    for package in packages {
        let Some(name) = package["name"].as_str().and_then(short) else { continue };
        crates.push(name);
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        edges.extend(normal.filter_map(|dependency| Some((name, short(dependency["name"].as_str()?)?))));
    }
    edges.sort_unstable();
    let mut picture = "\n```mermaid\ngraph TD\n".to_owned();
    for (kind, members) in KINDS {
        let _ = writeln!(picture, "  subgraph {kind}");
        for member in members.iter().filter(|member| crates.contains(member)) {
            let _ = writeln!(picture, "    {member}");
        }
        picture.push_str("  end\n");
    }
    if let Some(stranger) =
        crates.iter().find(|name| !KINDS.iter().any(|(_, members)| members.contains(name)))
    {
        return Err(format!("the crate {stranger} has no kind: say in xtask/src/architecture.rs what it is"));
    }
    // What everybody depends on would only hide the rest.
    for (from, to) in edges.iter().filter(|(_, to)| *to != "model") {
        let _ = writeln!(picture, "  {from} --> {to}");
    }
    picture.push_str("```\n\nEvery crate may use `model`; those arrows are left out.\n\n");
    Ok(picture)
}

fn short(name: &str) -> Option<&str> {
    name.strip_prefix("phoenix-")
}
