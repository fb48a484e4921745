//! What the page's script knows of derivations.

use std::collections::BTreeMap;

use phoenix_model::Verdict;
use serde::Serialize;

use crate::timeline::{Bar, Timeline};
use crate::{Summary, clean, human_seconds};

use super::{clock, look};

/// What is told of a derivation when it is looked at. Letters, for there are thousands.
#[derive(Debug, Default, Serialize)]
struct Told {
    /// The name.
    n: String,
    /// The path.
    p: String,
    /// The class of the verdict.
    v: &'static str,
    /// The verdict in words.
    w: String,
    /// The system.
    s: String,
    /// What it needs, by position.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    i: Vec<u32>,
    /// The runner.
    #[serde(skip_serializing_if = "String::is_empty")]
    m: String,
    /// When it began, and how long it took.
    #[serde(skip_serializing_if = "String::is_empty")]
    b: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    t: String,
    /// Which input was ready last, when, and how long it then waited for a free runner.
    #[serde(skip_serializing_if = "Option::is_none")]
    g: Option<(usize, String, String)>,
}

/// The derivations that are shown, by position, as JSON that can stand in a `<script>`: nothing in it can end it.
pub(super) fn data(summary: &Summary, timeline: &Timeline, shown: &[bool]) -> String {
    let mut bars: Vec<Option<(&str, Bar)>> = vec![None; summary.derivations.len()];
    for row in &timeline.rows {
        for bar in &row.bars {
            bars[bar.derivation] = Some((&row.machine, *bar));
        }
    }
    let states = summary.derivations.iter().zip(bars).enumerate().filter(|(at, _)| shown[*at]);
    let told: BTreeMap<usize, Told> = states
        .map(|(at, (state, bar))| {
            let kind = state.verdict.as_ref().map(Verdict::kind);
            let mut told = Told {
                n: clean(state.planned.drv_path.human_name()).into_owned(),
                p: clean(state.planned.drv_path.as_str()).into_owned(),
                v: look(kind).0,
                w: kind.map_or_else(|| "no verdict".to_owned(), |kind| kind.to_string()),
                s: clean(&state.planned.system).into_owned(),
                i: state.planned.inputs.iter().copied().filter(|&input| shown[input as usize]).collect(),
                ..Told::default()
            };
            if let Some((machine, bar)) = bar {
                told.m =
                    if machine.is_empty() { "this machine".to_owned() } else { clean(machine).into_owned() };
                told.b = clock(bar.begin);
                told.t = human_seconds(bar.end - bar.begin);
                told.g = bar
                    .waited_for
                    .filter(|(input, _)| shown[*input])
                    .map(|(input, ready)| (input, clock(ready), human_seconds(bar.begin - ready)));
            }
            (at, told)
        })
        .collect();
    // `<` ends a script, or begins a comment in it; in JSON it is nowhere but in strings.
    serde_json::to_string(&told).unwrap_or_else(|_| "{}".to_owned()).replace('<', "\\u003c")
}
