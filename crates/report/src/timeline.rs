//! When what was built on which runner, and what each build waited for.

use std::collections::BTreeMap;

use phoenix_model::{Stage, Stamp, Verdict};

use crate::{DerivationState, Summary};

/// The builds of a run over time. All times are seconds since its first event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline {
    /// How long the run took.
    pub(crate) seconds: f64,
    /// The stages: which, from when to when.
    pub(crate) stages: Vec<(Stage, f64, f64)>,
    /// One row for each runner that built something, by name.
    pub(crate) rows: Vec<Row>,
}

/// What one runner built.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// What the events call it; empty for this machine. Not yet clean.
    pub(crate) machine: String,
    /// How many lanes are needed so that no two bars of a lane overlap.
    pub(crate) lanes: usize,
    /// The builds, by their beginning.
    pub(crate) bars: Vec<Bar>,
}

/// A build.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bar {
    /// The position of the derivation in the plan.
    pub(crate) derivation: usize,
    /// From the top of its row.
    pub(crate) lane: usize,
    /// When it began.
    pub(crate) begin: f64,
    /// When it ended, or the events do.
    pub(crate) end: f64,
    /// The input that was ready last, and when; `None` when it needed nothing of the plan.
    pub(crate) waited_for: Option<(usize, f64)>,
}

impl Timeline {
    /// The timeline of what is known.
    pub(crate) fn of(summary: &Summary) -> Self {
        let start = summary.started.unwrap_or_default();
        let last = summary.last.unwrap_or_default();
        let since = |at: Stamp| at.seconds_since(start);
        let spans: Vec<Option<(f64, f64)>> =
            summary.derivations.iter().map(|state| span(state, start, last)).collect();
        let mut rows: BTreeMap<(usize, &str), Row> = BTreeMap::new();
        for (derivation, state) in summary.derivations.iter().enumerate() {
            let Some((begin, end)) = spans[derivation] else { continue };
            let ready = state.planned.inputs.iter().filter_map(|&input| {
                let input = input as usize;
                Some((input, (*spans.get(input)?)?.1))
            });
            let waited_for = ready.max_by(|a, b| a.1.total_cmp(&b.1));
            // `runner 2` comes before `runner 10`.
            let row = rows.entry((state.machine.len(), &state.machine)).or_default();
            row.bars.push(Bar { derivation, lane: 0, begin, end, waited_for });
        }
        let stages = (0..summary.stages.len()).map(|at| {
            let (stage, begin) = summary.stages[at];
            let end = summary.stages.get(at + 1).map_or(last, |next| next.1);
            (stage, since(begin), since(end.max(begin)))
        });
        Self {
            seconds: since(last),
            stages: stages.collect(),
            rows: rows.into_iter().map(|((_, machine), row)| row.packed(machine)).collect(),
        }
    }

    /// How many seconds all runners were there for builds: each from its first build to the end of its last.
    pub(crate) fn runner_seconds(&self) -> f64 {
        self.rows.iter().map(Row::seconds).sum()
    }

    /// How many seconds all builds took together.
    pub(crate) fn build_seconds(&self) -> f64 {
        self.rows.iter().flat_map(|row| &row.bars).map(|bar| bar.end - bar.begin).sum()
    }
}

impl Row {
    /// From its first build to the end of its last.
    pub(crate) fn seconds(&self) -> f64 {
        let begin = self.bars.first().map_or(0.0, |bar| bar.begin);
        self.bars.iter().fold(begin, |end, bar| end.max(bar.end)) - begin
    }

    /// Gives each bar the first lane that is free.
    fn packed(mut self, machine: &str) -> Self {
        self.bars.sort_by(|a, b| a.begin.total_cmp(&b.begin).then(a.derivation.cmp(&b.derivation)));
        let mut free_at: Vec<f64> = Vec::new();
        for bar in &mut self.bars {
            bar.lane = free_at.iter().position(|&free| free <= bar.begin).unwrap_or(free_at.len());
            if bar.lane == free_at.len() {
                free_at.push(bar.end);
            }
            free_at[bar.lane] = bar.end;
        }
        Self { machine: machine.to_owned(), lanes: free_at.len(), ..self }
    }
}

/// When it was built; `None` when it was not. What a worker tells of is told when its unit is over, so the
/// end counts and how long it took, where both are known.
fn span(state: &DerivationState, start: Stamp, last: Stamp) -> Option<(f64, f64)> {
    let begun = state.started?;
    if matches!(
        state.verdict,
        Some(Verdict::Cached { .. } | Verdict::Blocked { .. } | Verdict::Skipped { .. })
    ) {
        return None;
    }
    let end = state.settled.unwrap_or(last).max(begun).seconds_since(start);
    let took = state.seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    let begin = took.map_or_else(|| begun.seconds_since(start), |took| (end - took).max(0.0));
    Some((begin.min(end), end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use phoenix_model::{Event, Logged, PlannedDerivation, SettledDerivation};

    /// Builds: name, inputs, machine, when it settled, how long it took.
    fn timeline(builds: &[(&str, &[u32], &str, u64, f64)]) -> Timeline {
        let mut summary = Summary::default();
        let mut add = |at: u64, event: Event| summary.apply(&Logged { at: Stamp(at * 1000), event });
        add(0, Event::StageStarted { stage: Stage::Build });
        let derivations = builds.iter().map(|(name, inputs, ..)| PlannedDerivation {
            inputs: inputs.to_vec(),
            ..DerivationState::unplanned(fixture::drv(name)).planned
        });
        let derivations = derivations.collect();
        add(0, Event::Planned { derivations, targets: vec![], fetched: vec![], saved_seconds: 0.0 });
        for &(name, _, machine, at, seconds) in builds {
            let drv_path = fixture::drv(name);
            add(at, Event::BuildStarted { drv_path: drv_path.clone(), machine: machine.to_owned() });
            let seconds = Some(seconds);
            let settled = SettledDerivation { drv_path, verdict: Verdict::Built, seconds, log: None };
            add(at, Event::DerivationSettled { settled });
        }
        Timeline::of(&summary)
    }

    #[test]
    fn what_overlaps_has_lanes_of_its_own_and_a_free_lane_is_used_again() {
        let timeline = timeline(&[("a", &[], "", 4, 4.0), ("b", &[], "", 2, 2.0), ("c", &[], "", 5, 3.0)]);
        let [row] = timeline.rows.as_slice() else { panic!("{timeline:?}") };
        let lanes: Vec<_> = row.bars.iter().map(|bar| (bar.derivation, bar.lane)).collect();
        assert_eq!((lanes, row.lanes), (vec![(0, 0), (1, 1), (2, 1)], 2));
    }

    #[test]
    fn a_build_says_which_input_was_ready_last() {
        let timeline =
            timeline(&[("a", &[], "", 4, 4.0), ("b", &[], "", 2, 2.0), ("c", &[0, 1], "", 7, 2.0)]);
        let bar = timeline.rows[0].bars.iter().find(|bar| bar.derivation == 2).unwrap();
        assert_eq!((bar.begin, bar.end, bar.waited_for), (5.0, 7.0, Some((0, 4.0))));
    }

    #[test]
    fn runners_are_in_order_and_their_time_counts_from_the_first_build_to_the_last() {
        let timeline = timeline(&[
            ("a", &[], "runner 10", 4, 1.0),
            ("b", &[], "runner 2", 2, 2.0),
            ("c", &[], "runner 2", 9, 3.0),
        ]);
        let machines: Vec<_> = timeline.rows.iter().map(|row| row.machine.as_str()).collect();
        assert_eq!(machines, ["runner 2", "runner 10"]);
        assert!((timeline.runner_seconds() - 10.0).abs() < 1e-9, "{timeline:?}");
        assert!((timeline.build_seconds() - 6.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_built_has_no_bar() {
        let summary = fixture::summary();
        let timeline = Timeline::of(&summary);
        let built: Vec<_> = timeline.rows[0].bars.iter().map(|bar| bar.derivation).collect();
        assert_eq!(built, [0, 1], "blocked and cancelled ones were never started");
        let stages: Vec<_> = timeline.stages.iter().map(|(stage, ..)| *stage).collect();
        assert_eq!(stages, [Stage::Evaluate, Stage::Plan, Stage::Build]);
    }
}
