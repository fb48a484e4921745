//! `cargo xtask architecture`: the dependency picture, drawn from what cargo knows.

use std::fmt::Write as _;

use serde_json::Value;

use crate::Result;
use crate::args::Args;
use crate::process::{metadata, root};

const FILE: &str = "docs/architecture.md";
const BEGIN: &str = "<!-- drawn by `cargo xtask architecture`: begin -->\n";
const END: &str = "<!-- drawn by `cargo xtask architecture`: end -->";

/// What each crate is in the house; a crate that is missing here is an error.
const KINDS: &[(&str, &[&str])] = &[
    ("thinks", &["model", "schedule", "pack", "report"]),
    ("acts", &["store", "evaluate", "substituter", "depot", "cache", "gate", "work", "github"]),
    ("speaks", &["cli"]),
    ("dev", &["testkit"]),
];

pub(crate) fn architecture(mut args: Args<'_>) -> Result<()> {
    let check = args.flag("--check");
    args.finish()?;
    let file = root().join(FILE);
    let text = fs_err::read_to_string(&file).map_err(|error| error.to_string())?;
    let new = redrawn(&text, &metadata()?)?;
    if new == text {
        return Ok(());
    }
    if check {
        return Err(format!("the picture in {FILE} is out of date; run `cargo xtask architecture`"));
    }
    fs_err::write(&file, new).map_err(|error| error.to_string())
}

/// The page with the picture as it should be.
fn redrawn(text: &str, metadata: &Value) -> Result<String> {
    let markers =
        || format!("{FILE} has no place for the picture; it goes between `{}` and `{END}`", BEGIN.trim());
    let (before, rest) = text.split_once(BEGIN).ok_or_else(markers)?;
    let (_, after) = rest.split_once(END).ok_or_else(markers)?;
    let (crates, edges) = ours(metadata)?;
    for name in &crates {
        let Some(kind) = kind(name) else {
            return Err(format!("the crate {name} has no kind: say in xtask/src/architecture.rs what it is"));
        };
        // The words beside the picture are written by hand, and should not fall behind it.
        if !after.contains(&format!("\n| `{name}` | {kind} |")) {
            return Err(format!("the table in {FILE} has no row for `{name}`, which {kind}"));
        }
    }
    Ok(format!("{before}{BEGIN}{}{END}{after}", picture(&crates, &edges)))
}

/// A crate and one it uses.
type Edge<'a> = (&'a str, &'a str);

/// Our crates, and which uses which outside its tests.
fn ours(metadata: &Value) -> Result<(Vec<&str>, Vec<Edge<'_>>)> {
    let packages = metadata["packages"].as_array().ok_or("`cargo metadata` lists no packages")?;
    let mut crates = Vec::new();
    let mut edges = Vec::new();
    for package in packages {
        let Some(name) = package["name"].as_str().and_then(short) else { continue };
        crates.push(name);
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        edges.extend(normal.filter_map(|dependency| Some((name, short(dependency["name"].as_str()?)?))));
    }
    edges.sort_unstable();
    Ok((crates, edges))
}

fn picture(crates: &[&str], edges: &[Edge<'_>]) -> String {
    let mut picture = "\n```mermaid\ngraph TD\n".to_owned();
    for (kind, members) in KINDS {
        let _ = writeln!(picture, "  subgraph {kind}");
        for member in members.iter().filter(|member| crates.contains(member)) {
            let _ = writeln!(picture, "    {member}");
        }
        picture.push_str("  end\n");
    }
    // What everybody depends on would only hide the rest.
    for (from, to) in edges.iter().filter(|(_, to)| *to != "model") {
        let _ = writeln!(picture, "  {from} --> {to}");
    }
    picture.push_str("```\n\nEvery crate may use `model`; those arrows are left out.\n\n");
    picture
}

fn kind(name: &str) -> Option<&'static str> {
    KINDS.iter().find(|(_, members)| members.contains(&name)).map(|(kind, _)| *kind)
}

fn short(name: &str) -> Option<&str> {
    name.strip_prefix("phoenix-")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page(rows: &str) -> String {
        format!("before\n{BEGIN}old{END}\n\n| crate | kind |\n{rows}after\n")
    }

    fn house() -> Value {
        json!({ "packages": [
            { "name": "xtask", "dependencies": [{ "name": "phoenix-cli", "kind": null }] },
            { "name": "phoenix-model", "dependencies": [] },
            { "name": "phoenix-cli", "dependencies": [
                { "name": "phoenix-store", "kind": null },
                { "name": "phoenix-model", "kind": null },
                { "name": "phoenix-testkit", "kind": "dev" },
                { "name": "clap", "kind": null },
            ] },
        ] })
    }

    const ROWS: &str = "| `model` | thinks |\n| `cli` | speaks |\n";

    #[test]
    fn the_picture_holds_our_crates_and_what_they_use_outside_tests() {
        let page = redrawn(&page(ROWS), &house()).unwrap();
        assert!(page.contains("  cli --> store\n"));
        for absent in ["testkit", "clap", "xtask -->", "--> model", "old"] {
            assert!(!page.contains(absent), "{absent} in {page}");
        }
        assert!(page.starts_with("before\n") && page.ends_with("after\n"));
    }

    #[test]
    fn drawing_twice_changes_nothing() {
        let once = redrawn(&page(ROWS), &house()).unwrap();
        assert_eq!(redrawn(&once, &house()), Ok(once.clone()));
    }

    #[test]
    fn a_crate_needs_a_kind_and_a_row() {
        let stranger = json!({ "packages": [{ "name": "phoenix-stranger", "dependencies": [] }] });
        assert!(redrawn(&page(ROWS), &stranger).unwrap_err().contains("stranger has no kind"));
        assert!(redrawn(&page(""), &house()).unwrap_err().contains("no row for `model`"));
    }

    #[test]
    fn a_page_without_the_markers_says_what_they_are() {
        assert!(redrawn("nothing", &house()).unwrap_err().contains(END));
    }
}
