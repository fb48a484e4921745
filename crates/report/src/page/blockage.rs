//! What failed and what it blocked, as a graph.

use std::collections::HashMap;

use phoenix_model::Verdict;

use crate::{Summary, clean, root_failures};

use super::look;

/// How many boxes are drawn; a graph of more is no picture any more.
const MOST: usize = 80;
/// Width and height of a box, and of the gaps between boxes.
const BOX: (usize, usize) = (210, 38);
const GAP: (usize, usize) = (70, 14);

/// The graph, in pixels.
#[derive(Debug)]
pub(super) struct Blockage {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) boxes: Vec<GraphBox>,
    pub(super) lines: Vec<String>,
    pub(super) left_out: usize,
}

/// A derivation.
#[derive(Debug)]
pub(super) struct GraphBox {
    pub(super) id: usize,
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) class: &'static str,
    pub(super) mark: &'static str,
    pub(super) name: String,
    pub(super) about: String,
}

/// The graph; `None` when nothing was blocked.
pub(super) fn blockage(summary: &Summary) -> Option<Blockage> {
    let blocked = |at: usize| matches!(summary.derivations[at].verdict, Some(Verdict::Blocked { .. }));
    let count = (0..summary.derivations.len()).filter(|&at| blocked(at)).count();
    let positions: HashMap<_, _> =
        summary.derivations.iter().enumerate().map(|(at, state)| (&state.planned.drv_path, at)).collect();
    // The failures that stopped most come first; those that stopped nothing are no part of a graph.
    let roots: Vec<usize> = root_failures(summary)
        .iter()
        .filter(|root| !root.blocked.is_empty() || root.blocked_derivations > 0)
        .filter_map(|root| positions.get(&root.derivation.planned.drv_path).copied())
        .collect();
    if count == 0 || roots.is_empty() {
        return None;
    }
    let all = roots.len() + count;
    let columns = columns(summary, roots, &blocked);
    let shown: usize = columns.iter().map(Vec::len).sum();
    Some(draw(summary, &columns, all - shown))
}

/// Which boxes stand in which column: what needs something stands right of it.
fn columns(summary: &Summary, mut chosen: Vec<usize>, blocked: &impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
    let mut users: HashMap<usize, Vec<usize>> = HashMap::new();
    for (at, state) in summary.derivations.iter().enumerate().filter(|(at, _)| blocked(*at)) {
        for &input in &state.planned.inputs {
            users.entry(input as usize).or_default().push(at);
        }
    }
    // Room for what they blocked.
    chosen.truncate(MOST / 2);
    let mut column: HashMap<usize, usize> = chosen.iter().map(|&at| (at, 0)).collect();
    let mut next = 0;
    while let Some(&at) = chosen.get(next) {
        next += 1;
        for &user in users.get(&at).into_iter().flatten() {
            if chosen.len() < MOST && !column.contains_key(&user) {
                column.insert(user, 0);
                chosen.push(user);
            }
        }
    }
    // Inputs come before what needs them, so one pass finds the longest ways.
    let mut in_order = chosen;
    in_order.sort_unstable();
    let mut columns: Vec<Vec<usize>> = Vec::new();
    for at in in_order {
        let inputs = summary.derivations[at].planned.inputs.iter();
        let before = inputs.filter_map(|&input| column.get(&(input as usize)));
        let own = if blocked(at) { before.max().map_or(0, |most| most + 1) } else { 0 };
        column.insert(at, own);
        if columns.len() <= own {
            columns.resize(own + 1, Vec::new());
        }
        columns[own].push(at);
    }
    columns.retain(|column| !column.is_empty());
    columns
}

fn draw(summary: &Summary, columns: &[Vec<usize>], left_out: usize) -> Blockage {
    let tallest = columns.iter().map(Vec::len).max().unwrap_or(0);
    let height = tallest * (BOX.1 + GAP.1) + GAP.1;
    let mut at: HashMap<usize, (usize, usize)> = HashMap::new();
    let mut boxes = Vec::new();
    for (column, ids) in columns.iter().enumerate() {
        let mut ids = ids.clone();
        // Near what they need, so that lines cross seldom.
        ids.sort_by_key(|&id| {
            let inputs = summary.derivations[id].planned.inputs.iter();
            let ys: Vec<usize> = inputs.filter_map(|&input| Some(at.get(&(input as usize))?.1)).collect();
            ys.iter().sum::<usize>().checked_div(ys.len()).unwrap_or(0)
        });
        let top = (height - ids.len() * (BOX.1 + GAP.1)) / 2;
        for (number, id) in ids.into_iter().enumerate() {
            let state = &summary.derivations[id];
            let (x, y) = (column * (BOX.0 + GAP.0) + 4, top + number * (BOX.1 + GAP.1));
            at.insert(id, (x, y));
            let kind = state.verdict.as_ref().map(Verdict::kind);
            let (class, mark) = look(kind);
            let name = clean(state.planned.drv_path.human_name()).into_owned();
            let about = kind.map_or_else(String::new, |kind| kind.to_string());
            boxes.push(GraphBox { id, x, y, class, mark, name, about });
        }
    }
    let mut lines = Vec::new();
    for shown in &boxes {
        for input in &summary.derivations[shown.id].planned.inputs {
            let Some(&(x, y)) = at.get(&(*input as usize)) else { continue };
            let (x, y) = (x + BOX.0, y + BOX.1 / 2);
            let (to_x, to_y, bend) = (shown.x, shown.y + BOX.1 / 2, GAP.0 / 2);
            let (left, right) = (x + bend, to_x.saturating_sub(bend));
            lines.push(format!("M{x} {y}C{left} {y} {right} {to_y} {to_x} {to_y}"));
        }
    }
    Blockage { width: columns.len() * (BOX.0 + GAP.0) - GAP.0 + 8, height, boxes, lines, left_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_failure_stands_left_of_what_it_blocked() {
        let graph = blockage(&fixture::summary()).unwrap();
        let names: Vec<_> = graph.boxes.iter().map(|shown| (shown.name.as_str(), shown.class)).collect();
        assert_eq!(names, [("lib-1.0", "failed"), ("glue", "blocked"), ("uses-lib", "blocked")]);
        assert!(graph.boxes.is_sorted_by_key(|shown| shown.x) && graph.lines.len() == 2);
        assert!(
            graph.boxes.iter().all(|shown| shown.x + BOX.0 <= graph.width && shown.y + BOX.1 <= graph.height)
        );
    }
}
