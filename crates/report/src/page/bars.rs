//! The timeline as a picture.

use phoenix_model::{Stage, Verdict};

use crate::timeline::Timeline;
use crate::{Summary, clean, human_seconds};

use super::{clock, look};

/// The height of a lane, and of what is above the lanes of a row.
const LANE: usize = 22;
const HEAD: usize = 24;
const AXIS: usize = 26;

/// About how many marks the axis has.
const MARKS: f64 = 8.0;

/// The picture; horizontal measures are in hundredths of its width.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) height: usize,
    pub(super) marks: Vec<Mark>,
    pub(super) stages: Vec<Block>,
    pub(super) rows: Vec<Lane>,
    pub(super) left_out: usize,
}

/// A mark on the axis.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) x: String,
    pub(super) label: String,
}

/// A runner.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) y: usize,
    pub(super) blocks: Vec<Block>,
}

/// A bar.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) id: usize,
    pub(super) x: String,
    pub(super) width: String,
    pub(super) y: usize,
    pub(super) class: &'static str,
    pub(super) name: String,
    pub(super) hint: String,
}

/// The picture of the builds that are shown; `None` when nothing was built.
pub(super) fn picture(summary: &Summary, timeline: &Timeline, shown: &[bool]) -> Option<Picture> {
    let count: usize = timeline.rows.iter().map(|row| row.bars.len()).sum();
    if count == 0 {
        return None;
    }
    let whole = timeline.seconds.max(0.001);
    let place = |seconds: f64| format!("{:.2}", (seconds / whole * 100.0).clamp(0.0, 100.0));
    let mut y = AXIS + LANE + 6;
    let mut rows = Vec::new();
    for row in &timeline.rows {
        let bars = row.bars.iter().filter(|bar| shown[bar.derivation]);
        let blocks = bars.map(|bar| {
            let state = &summary.derivations[bar.derivation];
            let name = clean(state.planned.drv_path.human_name()).into_owned();
            let kind = state.verdict.as_ref().map(Verdict::kind);
            let words = kind.map_or_else(|| "did not end".to_owned(), |kind| kind.to_string());
            let took = human_seconds(bar.end - bar.begin);
            Block {
                id: bar.derivation,
                x: place(bar.begin),
                // What is too short to be seen is seen.
                width: place((bar.end - bar.begin).max(whole * 0.0015)),
                y: y + HEAD + bar.lane * LANE,
                class: look(kind).0,
                hint: format!("{words}, {took} from {}", clock(bar.begin)),
                name,
            }
        });
        let height = HEAD + row.lanes * LANE + 6;
        rows.push(Lane {
            name: if row.machine.is_empty() {
                "this machine".to_owned()
            } else {
                clean(&row.machine).into_owned()
            },
            about: format!("{} built or tried · {} here", row.bars.len(), human_seconds(row.seconds())),
            y,
            blocks: blocks.collect(),
        });
        y += height;
    }
    let drawn: usize = rows.iter().map(|row| row.blocks.len()).sum();
    let stages = timeline.stages.iter().map(|&(stage, begin, end)| Block {
        id: 0,
        x: place(begin),
        width: place(end - begin),
        y: AXIS,
        class: "stage",
        name: match stage {
            Stage::Evaluate => "evaluate",
            Stage::Gate => "ask gates",
            Stage::Plan => "plan",
            Stage::Act => "act",
            Stage::Build => "build",
        }
        .to_owned(),
        hint: human_seconds(end - begin),
    });
    Some(Picture {
        height: y + 4,
        marks: marks(whole),
        stages: stages.collect(),
        rows,
        left_out: count - drawn,
    })
}

/// Marks at round times.
fn marks(whole: f64) -> Vec<Mark> {
    let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0];
    let mut step = steps.into_iter().find(|step| whole / step <= MARKS).unwrap_or(3600.0);
    while whole / step > MARKS {
        step *= 2.0;
    }
    let mut marks = Vec::new();
    let mut at = 0.0;
    // A mark at the very end would have no room for its label.
    while at < whole * 0.97 {
        marks.push(Mark { x: format!("{:.2}", at / whole * 100.0), label: human_seconds(at) });
        at += step;
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_axis_has_a_handful_of_round_marks_however_long_the_run() {
        for whole in [0.001, 0.5, 3.0, 61.0, 4000.0, 1e6, 1e12] {
            let marks = marks(whole);
            assert!((1..=9).contains(&marks.len()), "{whole}: {}", marks.len());
        }
        let labels: Vec<_> = marks(61.0).into_iter().map(|mark| mark.label).collect();
        assert_eq!(labels, ["0.0s", "10s", "20s", "30s", "40s", "50s"]);
    }

    #[test]
    fn only_what_is_to_be_shown_is_drawn_and_the_rest_is_counted() {
        let summary = fixture::summary();
        let timeline = Timeline::of(&summary);
        let picture = picture(&summary, &timeline, &[true, false, false, false, false]).unwrap();
        let blocks = picture.rows.iter().flat_map(|row| &row.blocks);
        let names: Vec<_> = blocks.map(|block| block.name.as_str()).collect();
        assert_eq!((names, picture.left_out), (vec!["hello-2.12"], 1));
    }
}
