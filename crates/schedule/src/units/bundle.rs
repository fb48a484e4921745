//! Small ones that are ready at the same time come together.

use super::Grain;
use super::graph::{Graph, Kind};

/// Who owns each node when those of one level that are too small for a claim are bundled until they are worth
/// one. `tails` are the seconds from the start of each node to the end of everything; no path becomes longer
/// than `limit` seconds.
///
/// Two nodes of one level never need each other, whatever else of the same level is bundled: an edge leads
/// from a lower level to a higher one, before and after.
pub(super) fn bundle(graph: &Graph, tails: &[f64], grain: &Grain, limit: f64) -> Vec<u32> {
    let levels = graph.levels();
    let mut order: Vec<u32> = (0..).take(graph.len()).collect();
    order.sort_by(|&a, &b| {
        // Those whom the same others wait for next to each other, the most urgent first.
        let key =
            |node: u32| (levels[node as usize], graph.kind[node as usize].class, first_user(graph, node));
        let urgency = || tails[b as usize].total_cmp(&tails[a as usize]);
        key(a).cmp(&key(b)).then_with(urgency).then(a.cmp(&b))
    });
    let mut owner: Vec<u32> = (0..).take(graph.len()).collect();
    // When each node ends, with everything that it is bundled with.
    let mut end = vec![0.0_f64; graph.len()];
    let mut open: Option<Bundle> = None;
    for &node in &order {
        let own = node as usize;
        if open.as_ref().is_some_and(|bundle| bundle.level != levels[own]) {
            close(open.take(), &mut owner, &mut end);
        }
        let start = graph.inputs[own].iter().map(|&input| end[input as usize]).fold(0.0, f64::max);
        let seconds = graph.seconds[own];
        let after = tails[own] - seconds;
        let alone =
            Bundle { level: levels[own], kind: graph.kind[own], members: vec![node], start, seconds, after };
        if seconds >= grain.worth_seconds {
            close(Some(alone), &mut owner, &mut end);
            continue;
        }
        match open.as_mut() {
            Some(bundle) if bundle.takes(&alone, grain, limit) => bundle.take(alone),
            _ => close(open.replace(alone), &mut owner, &mut end),
        }
        if open.as_ref().is_some_and(|bundle| bundle.seconds >= grain.worth_seconds) {
            close(open.take(), &mut owner, &mut end);
        }
    }
    close(open, &mut owner, &mut end);
    owner
}

struct Bundle {
    level: u32,
    kind: Kind,
    members: Vec<u32>,
    start: f64,
    seconds: f64,
    after: f64,
}

impl Bundle {
    /// Whether another may come to it and keeps nobody waiting for long.
    fn takes(&self, other: &Self, grain: &Grain, limit: f64) -> bool {
        let near = (self.start - other.start).abs() <= grain.worth_seconds;
        let path = self.start.max(other.start) + self.seconds + other.seconds + self.after.max(other.after);
        self.kind.with(other.kind).is_some() && near && path <= limit * (1.0 + 1e-9)
    }

    fn take(&mut self, other: Self) {
        self.kind = self.kind.with(other.kind).unwrap_or(self.kind);
        self.members.extend(other.members);
        self.start = self.start.max(other.start);
        self.seconds += other.seconds;
        self.after = self.after.max(other.after);
    }
}

/// Nothing comes to a bundle any more.
fn close(bundle: Option<Bundle>, owner: &mut [u32], end: &mut [f64]) {
    let Some(bundle) = bundle else { return };
    for &member in &bundle.members {
        owner[member as usize] = bundle.members[0];
        end[member as usize] = bundle.start + bundle.seconds;
    }
}

/// The first of those who wait for a node; nobody comes last.
fn first_user(graph: &Graph, node: u32) -> u32 {
    graph.dependents[node as usize].first().copied().unwrap_or(u32::MAX)
}
