//! What is merged: nodes that are groups of derivations already.

use std::collections::HashMap;

use super::{Class, Unit};
use crate::Plan;

/// Groups of derivations, inputs before what needs them.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) seconds: Vec<f64>,
    pub(super) inputs: Vec<Vec<u32>>,
    pub(super) dependents: Vec<Vec<u32>>,
    pub(super) kind: Vec<Kind>,
    members: Vec<Vec<u32>>,
}

/// Who can build a node, and what it may be merged with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) class: u32,
    /// Anybody can build it.
    pub(super) builtin: bool,
    /// It is not worth a runner of its own.
    pub(super) rides: bool,
    /// It stands alone, because nobody can build it.
    pub(super) alone: bool,
}

impl Kind {
    /// The kind of both together, if they may come together.
    pub(super) fn with(self, other: Self) -> Option<Self> {
        let apart = self.class != other.class && !self.builtin && !other.builtin;
        if apart || self.alone || other.alone {
            return None;
        }
        let rides = self.rides && other.rides;
        let main = if self.builtin { other } else { self };
        Some(Self { rides, ..main })
    }
}

impl Graph {
    /// The steps of a plan, each a node of its own, and their classes.
    pub(super) fn of(plan: &Plan) -> (Self, Vec<Class>) {
        let mut classes = Vec::new();
        let mut known: HashMap<Class, u32> = HashMap::new();
        let mut graph = Self { seconds: plan.seconds(), ..Self::default() };
        for (position, step) in (0..).zip(&plan.steps) {
            let mut features = step.required_features.clone();
            features.sort_unstable();
            features.dedup();
            let class = Class { system: step.system.to_string(), features };
            let builtin = class.is_builtin();
            let class = *known.entry(class).or_insert_with_key(|class| {
                classes.push(class.clone());
                u32::try_from(classes.len() - 1).unwrap_or(u32::MAX)
            });
            graph.inputs.push(step.inputs.clone());
            let alone = step.hopeless.is_some();
            graph.kind.push(Kind { class, builtin, rides: step.rides, alone });
            graph.members.push(vec![position]);
        }
        graph.link();
        (graph, classes)
    }

    pub(super) fn len(&self) -> usize {
        self.seconds.len()
    }

    fn link(&mut self) {
        self.dependents = vec![Vec::new(); self.len()];
        for (node, inputs) in (0..).zip(&self.inputs) {
            for &input in inputs {
                self.dependents[input as usize].push(node);
            }
        }
    }

    /// The graph in which all nodes with the same owner are one. Owners are nodes that own themselves; the
    /// merged graph has no circles, which those who merge see to.
    pub(super) fn merged(&self, owner: &[u32]) -> Self {
        let levels = self.merged_levels(owner);
        let mut order: Vec<u32> =
            (0..).take(self.len()).filter(|&node| owner[node as usize] == node).collect();
        order.sort_by_key(|&node| (levels[node as usize], node));
        let mut new = vec![u32::MAX; self.len()];
        for (position, &node) in (0..).zip(&order) {
            new[node as usize] = position;
        }
        let mut merged = Self {
            seconds: vec![0.0; order.len()],
            inputs: vec![Vec::new(); order.len()],
            members: vec![Vec::new(); order.len()],
            kind: order.iter().map(|&node| self.kind[node as usize]).collect(),
            dependents: Vec::new(),
        };
        for node in 0..self.len() {
            let own = new[owner[node] as usize];
            let group = own as usize;
            merged.seconds[group] += self.seconds[node];
            merged.members[group].extend(&self.members[node]);
            merged.kind[group] = merged.kind[group].with(self.kind[node]).unwrap_or(merged.kind[group]);
            let inputs = self.inputs[node].iter().map(|&input| new[owner[input as usize] as usize]);
            merged.inputs[group].extend(inputs.filter(|&input| input != own));
        }
        for group in 0..order.len() {
            merged.members[group].sort_unstable();
            merged.inputs[group].sort_unstable();
            merged.inputs[group].dedup();
        }
        merged.link();
        merged
    }

    /// For every owner the length of the longest way to it, in merged nodes.
    fn merged_levels(&self, owner: &[u32]) -> Vec<u32> {
        let mut waits = vec![0_u32; self.len()];
        let mut after: Vec<Vec<u32>> = vec![Vec::new(); self.len()];
        for node in 0..self.len() {
            for &input in &self.inputs[node] {
                let (from, to) = (owner[input as usize], owner[node]);
                if from != to {
                    after[from as usize].push(to);
                    waits[to as usize] += 1;
                }
            }
        }
        let mut levels = vec![0_u32; self.len()];
        let mut ready: Vec<u32> = (0..)
            .take(self.len())
            .filter(|&node| owner[node as usize] == node && waits[node as usize] == 0)
            .collect();
        let mut done = 0;
        while let Some(node) = ready.pop() {
            done += 1;
            for &next in &after[node as usize] {
                let next = next as usize;
                levels[next] = levels[next].max(levels[node as usize] + 1);
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.extend(u32::try_from(next));
                }
            }
        }
        debug_assert_eq!(done, (0..self.len()).filter(|&node| owner[node] as usize == node).count());
        levels
    }

    /// The longest way, in nodes, to every node.
    pub(super) fn levels(&self) -> Vec<u32> {
        let mut levels = vec![0; self.len()];
        for node in 0..self.len() {
            levels[node] =
                self.inputs[node].iter().map(|&input| levels[input as usize] + 1).max().unwrap_or(0);
        }
        levels
    }

    pub(super) fn into_units(self, plan: &Plan) -> Vec<Unit> {
        let mut unit_of = vec![0_u32; plan.steps.len()];
        for (unit, members) in (0..).zip(&self.members) {
            for &member in members {
                unit_of[member as usize] = unit;
            }
        }
        let mut shared = vec![false; plan.steps.len()];
        for (position, step) in plan.steps.iter().enumerate() {
            for &input in &step.inputs {
                shared[input as usize] |= unit_of[input as usize] != unit_of[position];
            }
        }
        let bytes = |members: &[u32]| {
            let leaving = members.iter().filter(|&&member| shared[member as usize]);
            leaving.map(|&member| plan.steps[member as usize].bytes).fold(0, u64::saturating_add)
        };
        self.members
            .into_iter()
            .zip(self.inputs)
            .zip(self.kind.iter().zip(self.seconds))
            .map(|((members, inputs), (kind, seconds))| Unit {
                shared_bytes: bytes(&members),
                members,
                inputs,
                class: kind.class,
                seconds,
            })
            .collect()
    }
}
