//! A row of a matrix for each thing that has work, as phoenix-ci v1 and std-action have them.

use phoenix_model::{Action, ActionId, Target, TargetId, Verdict};
use phoenix_schedule::Actions;
use phoenix_work::Hit;
use serde_json::{Map, Value, json};

use crate::args::Matrix;

/// How many rows a matrix of GitHub may have, with a margin.
const MOST_ROWS: usize = 250;

/// How many characters of a name are in a row, which says it to people, and how many names: Linux hands no more than 128
/// KiB over in one variable, and the plan has all of it. Where there are many long ones there are fewer, so that all rows
/// together are an output.
const LIMITS: [(usize, usize); 4] = [(1000, usize::MAX), (200, 100), (60, 10), (20, 3)];

/// How many bytes all rows may have: GitHub takes 1 MB of all outputs of a job together, and counts UTF-16.
const LARGEST: usize = 900_000;

/// How many bytes a text has in UTF-16.
fn utf16_bytes(text: &str) -> usize {
    2 * text.encode_utf16().count()
}

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

impl Row {
    /// The block and the action of one of std.
    fn pair(&self) -> (String, String) {
        let word = |name: &str| {
            let word = self.std.as_ref().and_then(|action| action.get(name)).and_then(Value::as_str);
            word.unwrap_or_default().to_owned()
        };
        (word("block"), word("action"))
    }
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
    let row = |one: &Gated| Row {
        hit: Hit { name: one.attr.clone(), targets: one.targets.clone(), actions: one.actions.clone() },
        build: one.build.clone(),
        run: one.run.clone(),
        std: one.std.clone(),
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut idle: Vec<Row> = Vec::new();
    for one in gated.iter().filter(|one| one.std.is_some() == is_std) {
        let to_run = one.actions.iter().any(|id| actions.verdict(*id).is_none());
        // What is only to be built, and exists, has no work; and what may not run here has none.
        if one.std.is_some() && !to_run && !one.targets.iter().any(is_open) {
            idle.push(row(one));
        } else if to_run || !one.targets.is_empty() {
            rows.push(row(one));
        }
    }
    let of_gates: Vec<TargetId> = gated.iter().flat_map(|one| one.targets.clone()).collect();
    let plain = targets.iter().filter(|target| !is_std && !of_gates.contains(&target.id));
    for target in plain.filter(|target| target.drv_path.is_some() && is_open(&target.id)) {
        let hit = Hit { name: target.attr(), targets: vec![target.id], actions: Vec::new() };
        rows.push(Row { hit, build: vec![target.attr()], run: Vec::new(), std: None });
    }
    if is_std {
        // std-action has a row for all that has no proviso, and workflows rely on a matrix that is there: of an action
        // of which all exists one row stays, whose job ends at once.
        let with_work = rows.into_iter().map(|row| (row, true));
        let all = with_work.chain(idle.into_iter().map(|row| (row, false)));
        let mut matrices: Vec<((String, String), Vec<Row>)> = Vec::new();
        for (row, has_work) in all {
            let pair = row.pair();
            match matrices.iter_mut().find(|(other, _)| *other == pair) {
                Some((_, rows)) if has_work => rows.push(row),
                Some(_) => {}
                None => matrices.push((pair, vec![row])),
            }
        }
        return matrices.iter().flat_map(|(_, rows)| at_most(rows, MOST_ROWS)).collect();
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
            let name = |row: &Row| Some(row.std.as_ref()?.get("name")?.as_str()?.to_owned());
            if let (Some(one), Some(other)) = (name(&all), name(row))
                && let Some(Value::Object(action)) = &mut all.std
            {
                action.insert("name".to_owned(), format!("{one}, {other}").into());
            }
        }
        all
    };
    rows.chunks(each).map(together).collect()
}

/// The rows as the discovery of phoenix-ci v1 or of std-action prints them, with the plan and the slot of each.
pub(crate) fn hits_rows(rows: &[Row], reference: &str, format: Matrix) -> Value {
    let mut rows_shown = Value::Null;
    for limits in LIMITS {
        rows_shown = shown(rows, reference, format, limits);
        if utf16_bytes(&rows_shown.to_string()) <= LARGEST {
            break;
        }
    }
    rows_shown
}

/// The rows with so many characters of each name, and so many names in each.
fn shown(rows: &[Row], reference: &str, format: Matrix, (longest, most): (usize, usize)) -> Value {
    let numbered = rows.iter().enumerate();
    let short = |name: &str| short(name, longest);
    if format != Matrix::Std {
        let row = |(slot, row): (usize, &Row)| {
            let all = |names: &[String]| names.iter().take(most).map(|name| short(name)).collect::<Vec<_>>();
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
        if let Some(Value::String(name)) = action.get_mut("name") {
            *name = short(name);
        }
        if most < usize::MAX {
            // Nobody but a proviso reads what else there is, and it has.
            action.retain(|key, _| STD_KEYS.contains(&key.as_str()));
        }
        action.insert("plan".to_owned(), reference.into());
        action.insert("slot".to_owned(), slot.into());
        let (block, name) = row.pair();
        let of_block = blocks.entry(block).or_insert_with(|| json!({}));
        let of_action = of_block.as_object_mut().map(|block| block.entry(name).or_insert_with(|| json!([])));
        if let Some(list) = of_action.and_then(Value::as_array_mut) {
            list.push(action.into());
        }
    }
    blocks.into()
}

/// What a row of std has where there is little room.
const STD_KEYS: [&str; 6] = ["name", "cell", "block", "blockType", "action", "actionDrv"];

fn short(name: &str, longest: usize) -> String {
    match name.char_indices().nth(longest) {
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
    fn all_rows_are_an_output_whatever_the_names() {
        let name = |number: u32| format!("{number}.{}", "n".repeat(800));
        let rows: Vec<Row> = (0..1000).map(|number| row(&name(number))).collect();
        let json = hits_rows(&at_most(&rows, MOST_ROWS), "p", Matrix::V1);
        assert!(utf16_bytes(&json.to_string()) <= LARGEST, "{}", json.to_string().len());
        assert_eq!(json.as_array().unwrap().len(), 250);
        let std = |number: u32| Row {
            std: Some(json!({"block": "b", "action": "a", "name": name(number), "meta": "m".repeat(5_000)})),
            ..row("x")
        };
        let json = hits_rows(&(0..250).map(std).collect::<Vec<_>>(), "p", Matrix::Std);
        assert!(utf16_bytes(&json.to_string()) <= LARGEST, "{}", json.to_string().len());
        assert_eq!(json["b"]["a"][249]["slot"], 249);
    }

    #[test]
    fn rows_are_measured_as_github_does() {
        for (text, bytes) in [("", 0), ("abc", 6), ("é", 2), ("日本", 4), ("😀", 4)] {
            assert_eq!(utf16_bytes(text), bytes, "{text}");
        }
        // 200 rows with 2,500 characters each are 1 MB, and half of that in UTF-8.
        let rows: Vec<Row> = (0..200).map(|number| row(&format!("{number}{}", "n".repeat(999)))).collect();
        let rows: Vec<Row> =
            rows.iter().map(|row| Row { run: vec![row.hit.name.clone()], ..row.clone() }).collect();
        let json = hits_rows(&rows, "p", Matrix::V1);
        assert!(shown(&rows, "p", Matrix::V1, LIMITS[0]).to_string().len() < LARGEST);
        assert!(utf16_bytes(&json.to_string()) <= LARGEST);
        assert!(json[0]["attrPath"].as_str().unwrap().len() < 1000);
    }

    /// Gated actions of std, by number: those below `done` exist.
    fn std_hits(count: u32, done: u32, actions: &[ActionId]) -> Value {
        let gated: Vec<Gated> = (0..count)
            .map(|number| Gated {
                attr: format!("app.b.{number}.a"),
                targets: vec![TargetId(number)],
                actions: actions.to_vec(),
                std: Some(json!({"block": "b", "action": "a", "name": number.to_string()})),
                ..Gated::default()
            })
            .collect();
        let cached = Verdict::Cached { from: phoenix_model::Source::Store };
        let verdict = |id: TargetId| (id.0 < done).then_some(&cached);
        hits_rows(&hits(&gated, &[], &Actions::default(), verdict, Matrix::Std), "p", Matrix::Std)
    }

    #[test]
    fn a_matrix_of_std_is_there_though_all_of_it_exists() {
        let names = |json: &Value| {
            let rows = json["b"]["a"].as_array().cloned().unwrap_or_default();
            rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&std_hits(3, 1, &[])), ["1", "2"]);
        assert_eq!(names(&std_hits(3, 3, &[])), ["0"]);
        // What is to be run is, whatever exists.
        assert_eq!(names(&std_hits(3, 3, &[ActionId(0)])).len(), 3);
    }

    #[test]
    fn a_matrix_of_std_has_no_more_rows_than_github_takes() {
        let json = std_hits(600, 0, &[]);
        let rows = json["b"]["a"].as_array().unwrap();
        assert_eq!(rows.len(), 200);
        assert_eq!((&rows[0]["name"], &rows[1]["slot"]), (&json!("0, 1, 2"), &json!(1)));
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
