//! What has a single user goes to that user.

use std::collections::BTreeSet;

use super::Grain;
use super::graph::{Graph, Kind};

/// Who owns each node when every node has taken in, of those that only it uses, what is too small for a
/// claim, and what it forms a chain with. `tails` are the seconds from the start of each node to the end of
/// everything; no path becomes longer than `limit` seconds.
///
/// The nodes are gone through with inputs first: what is before a node is final, and what is after it has
/// not changed yet, so that the length of every path through it is known exactly when it is decided on.
pub(super) fn absorb(graph: &Graph, tails: &[f64], grain: &Grain, limit: f64) -> Vec<u32> {
    let mut sweep = Sweep {
        graph,
        grain,
        limit,
        owner: (0..).take(graph.len()).collect(),
        members: (0..).take(graph.len()).map(|node| vec![node]).collect(),
        inputs: vec![BTreeSet::new(); graph.len()],
        start: vec![0.0; graph.len()],
        seconds: graph.seconds.clone(),
        kind: graph.kind.clone(),
    };
    for (node, tail) in (0..).zip(tails) {
        sweep.visit(node, tail - graph.seconds[node as usize]);
    }
    sweep.owner
}

struct Sweep<'a> {
    graph: &'a Graph,
    grain: &'a Grain,
    limit: f64,
    owner: Vec<u32>,
    /// Of owners: what they own, whom they need, when they can start at the soonest, and for how long.
    members: Vec<Vec<u32>>,
    inputs: Vec<BTreeSet<u32>>,
    start: Vec<f64>,
    seconds: Vec<f64>,
    kind: Vec<Kind>,
}

impl Sweep<'_> {
    /// Lets a node take in what it may; `after` are the seconds from its end to the end of everything.
    fn visit(&mut self, node: u32, after: f64) {
        let own = node as usize;
        self.inputs[own] = self.graph.inputs[own].iter().map(|&input| self.owner[input as usize]).collect();
        self.start[own] = self.ready(&self.inputs[own], None);
        if self.grain.worth_seconds <= 0.0 && self.grain.longest_seconds <= 0.0 {
            return;
        }
        // What may be added that is not of the chain: small things are merged until they are worth a claim,
        // and no further, so that they can still go to different runners.
        let mut room = self.grain.worth_seconds + self.seconds[own] / 10.0;
        let mut refused = BTreeSet::new();
        // The latest first: what it needs in turn may be absorbed after it.
        while let Some(input) = self.inputs[own].iter().rev().find(|input| !refused.contains(*input)).copied()
        {
            if self.takes_in(node, input, after, &mut room) {
                self.take_in(node, input);
            } else {
                refused.insert(input);
            }
        }
    }

    /// When everything among `inputs` is done, except one.
    fn ready(&self, inputs: &BTreeSet<u32>, except: Option<u32>) -> f64 {
        inputs
            .iter()
            .filter(|&&input| Some(input) != except)
            .map(|&input| self.start[input as usize] + self.seconds[input as usize])
            .fold(0.0, f64::max)
    }

    fn takes_in(&self, node: u32, input: u32, after: f64, room: &mut f64) -> bool {
        let (own, other) = (node as usize, input as usize);
        let Some(_) = self.kind[own].with(self.kind[other]) else { return false };
        if !self.only_user(node, input) {
            return false;
        }
        let together = self.seconds[own] + self.seconds[other];
        let others_done = self.ready(&self.inputs[own], Some(input));
        let start = others_done.max(self.start[other]);
        if start + together + after > self.limit * (1.0 + 1e-9) {
            return false;
        }
        let small = self.kind[other].rides || self.seconds[other] < self.grain.worth_seconds;
        if small && self.seconds[other] <= *room {
            *room -= self.seconds[other];
            return true;
        }
        // A chain: nothing else could be done between the two, and nothing begins later than it would.
        others_done <= self.start[other] + 1e-9 && together <= self.grain.longest_seconds
    }

    /// Whether nobody but the group of `node` needs anything of the group of `input`.
    fn only_user(&self, node: u32, input: u32) -> bool {
        let dependents =
            self.members[input as usize].iter().flat_map(|&member| &self.graph.dependents[member as usize]);
        let mut inside = dependents.map(|&dependent| self.owner[dependent as usize]);
        inside.all(|owner| owner == node || owner == input)
    }

    fn take_in(&mut self, node: u32, input: u32) {
        let (own, other) = (node as usize, input as usize);
        for &member in &self.members[other] {
            self.owner[member as usize] = node;
        }
        let members = std::mem::take(&mut self.members[other]);
        self.members[own].extend(members);
        self.inputs[own].remove(&input);
        let inputs = std::mem::take(&mut self.inputs[other]);
        self.inputs[own].extend(inputs);
        self.seconds[own] += self.seconds[other];
        self.start[own] = self.ready(&self.inputs[own], None);
        if let Some(kind) = self.kind[own].with(self.kind[other]) {
            self.kind[own] = kind;
        }
    }
}
