//! A row of a matrix for each thing that has work, as phoenix-ci v1 and std-action have them.

use phoenix_model::{Action, ActionId, Target, TargetId, Verdict};
use phoenix_schedule::Actions;
use phoenix_work::Hit;
use serde_json::{Map, Value, json};

use crate::args::Matrix;

/// How many rows a matrix of GitHub may have, with a margin.
const MOST_ROWS: usize = 250;

/// How many characters of a name are in a row, which says it to people: Linux hands no more than 128 KiB over in one
/// variable, and the plan has the name.
const LONGEST_NAME: usize = 1000;

/// Something that has work by its gate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gated {
    /// Its attribute path.
    pub(crate) attr: String,
    /// What a findWork named to build, and to run.
    pub(crate) build: Vec<String>,
    pub(crate) run: Vec<String>,
    /// The targets that follow from it.
    pub(crate) targets: Vec<TargetId>,
    /// The actions that follow from it.
    pub(crate) actions: Vec<ActionId>,
    /// An action of std, as its own.
    pub(crate) std: Option<Value>,
}

/// Something that has work, and how a row tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    hit: Hit,
    build: Vec<String>,
    run: Vec<String>,
    std: Option<Value>,
}

/// What has work: by its gate, or, for what has none, because it is to be built. `verdict` is that of a target, if it
/// has one already.
pub(crate) fn hits<'v>(
    gated: &[Gated],
    targets: &[Target],
    actions: &Actions,
    verdict: impl Fn(TargetId) -> Option<&'v Verdict>,
    format: Matrix,
) -> Vec<Row> {
    let is_open = |id: &TargetId| !matches!(verdict(*id), Some(Verdict::Cached { .. }));
    let is_std = format == Matrix::Std;
    let mut rows: Vec<Row> = Vec::new();
    for one in gated.iter().filter(|one| one.std.is_some() == is_std) {
        // What is only to be built, and exists, has no work.
        if one.std.is_some() && one.actions.is_empty() && !one.targets.iter().any(is_open) {
            continue;
        }
        rows.push(Row {
            hit: Hit { name: one.attr.clone(), targets: one.targets.clone(), actions: one.actions.clone() },
            build: one.build.clone(),
            run: one.run.clone(),
            std: one.std.clone(),
        });
    }
    let of_gates: Vec<TargetId> = gated.iter().flat_map(|one| one.targets.clone()).collect();
    let plain = targets.iter().filter(|target| !is_std && !of_gates.contains(&target.id));
    for target in plain.filter(|target| target.drv_path.is_some() && is_open(&target.id)) {
        let hit = Hit { name: target.attr(), targets: vec![target.id], actions: Vec::new() };
        rows.push(Row { hit, build: vec![target.attr()], run: Vec::new(), std: None });
    }
    if is_std {
        return rows;
    }
    let mut rows = at_most(&rows, MOST_ROWS);
    let own = without_row(gated, actions);
    if !own.is_empty() {
        let hit = Hit {
            name: "phoenix.toml".to_owned(),
            targets: Vec::new(),
            actions: own.iter().map(|action| action.id).collect(),
        };
        let run = own.iter().map(|action| action.name.clone()).collect();
        rows.push(Row { hit, build: Vec::new(), run, std: None });
    }
    rows
}

/// The actions that are to run and that nothing with a gate asked for.
pub(crate) fn without_row<'a>(gated: &[Gated], actions: &'a Actions) -> Vec<&'a Action> {
    let is_asked = |action: &&Action| gated.iter().any(|one| one.actions.contains(&action.id));
    let open = actions.all().filter(|action| actions.verdict(action.id).is_none());
    open.filter(|action| !is_asked(action)).collect()
}

/// Rows put together until there are no more than so many.
fn at_most(rows: &[Row], most: usize) -> Vec<Row> {
    let each = rows.len().div_ceil(most).max(1);
    let together = |some: &[Row]| {
        let mut all = some[0].clone();
        for row in &some[1..] {
            all.hit.name = format!("{}, {}", all.hit.name, row.hit.name);
            all.hit.targets.extend(&row.hit.targets);
            all.hit.actions.extend(&row.hit.actions);
            all.build.extend(row.build.clone());
            all.run.extend(row.run.clone());
        }
        all
    };
    rows.chunks(each).map(together).collect()
}

/// The rows as the discovery of phoenix-ci v1 or of std-action prints them, with the plan and the slot of each.
pub(crate) fn hits_rows(rows: &[Row], reference: &str, format: Matrix) -> Value {
    let numbered = rows.iter().enumerate();
    if format != Matrix::Std {
        let row = |(slot, row): (usize, &Row)| {
            let all = |names: &[String]| names.iter().map(|name| short(name)).collect::<Vec<_>>();
            json!({
                "targets": { "build": all(&row.build), "run": all(&row.run) },
                "attrPath": short(&row.hit.name),
                "plan": reference,
                "slot": slot,
            })
        };
        return numbered.map(row).collect();
    }
    let mut blocks: Map<String, Value> = Map::new();
    for (slot, row) in numbered {
        let Some(Value::Object(mut action)) = row.std.clone() else { continue };
        action.insert("plan".to_owned(), reference.into());
        action.insert("slot".to_owned(), slot.into());
        let word = |name: &str| action.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (block, name) = (word("block"), word("action"));
        let of_block = blocks.entry(block).or_insert_with(|| json!({}));
        let of_action = of_block.as_object_mut().map(|block| block.entry(name).or_insert_with(|| json!([])));
        if let Some(list) = of_action.and_then(Value::as_array_mut) {
            list.push(action.into());
        }
    }
    blocks.into()
}

fn short(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// What each slot answers for.
pub(crate) fn of_slots(rows: &[Row]) -> Vec<Hit> {
    rows.iter().map(|row| row.hit.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Row {
        let hit = Hit { name: name.to_owned(), targets: vec![TargetId(0)], actions: Vec::new() };
        Row { hit, build: vec![name.to_owned()], run: Vec::new(), std: None }
    }

    #[test]
    fn a_matrix_has_no_more_rows_than_github_takes_and_loses_nothing() {
        let rows: Vec<Row> = (0..1001).map(|number| row(&format!("a.{number}"))).collect();
        let rows = at_most(&rows, MOST_ROWS);
        assert!(rows.len() <= MOST_ROWS);
        assert_eq!(rows.iter().map(|row| row.build.len()).sum::<usize>(), 1001);
        assert!(at_most(&[], MOST_ROWS).is_empty());
    }

    #[test]
    fn a_row_is_small_however_long_a_name_is() {
        let json = hits_rows(&[row(&"\u{e9}".repeat(200_000))], "p", Matrix::V1);
        assert!(json.to_string().len() < 10_000);
        assert_eq!(json[0]["slot"], 0);
    }

    #[test]
    fn std_rows_are_by_block_and_action() {
        let std = |block: &str, action: &str| Row {
            std: Some(json!({"block": block, "action": action, "name": "n"})),
            ..row("x")
        };
        let rows = [std("packages", "build"), std("images", "publish"), std("packages", "build")];
        let json = hits_rows(&rows, "p", Matrix::Std);
        assert_eq!(json["packages"]["build"].as_array().unwrap().len(), 2);
        assert_eq!(json["images"]["publish"][0]["slot"], 1);
        assert_eq!(json["images"]["publish"][0]["plan"], "p");
        assert_eq!(hits_rows(&[row("a.b")], "p", Matrix::V1)[0]["attrPath"], "a.b");
    }
}
