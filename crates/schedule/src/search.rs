//! Finds what is missing.
//!
//! Outputs that are needed are asked for first; only when one is missing are the inputs of its
//! derivation looked at, so that what exists somewhere hides everything below it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use compact_str::CompactString;
use phoenix_model::{Derivation, InputDrvs, PathKey, Source, Status, StorePath, StorePathRef};
use smallvec::SmallVec;

use crate::plan::{Goal, Hopeless, Plan, Step};
use crate::{Estimates, critical_path};

/// Whether a path exists somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The path.
    pub path: StorePath,
    /// Only the store is to be asked: Nix would not substitute it (`allowSubstitutes = false`).
    pub store_only: bool,
}

/// A search for what is missing, driven from outside: hand over what [`Search::to_read`] and
/// [`Search::to_ask`] want until both are empty and nothing is on its way, then call
/// [`Search::into_plan`].
#[derive(Debug, Default)]
pub struct Search {
    nodes: Vec<Node>,
    /// Which nodes have all their outputs asked for: most edges lead to one, and need not look at it.
    all_asked: Vec<bool>,
    by_drv: ByKey<u32>,
    /// Who makes a path.
    by_output: ByKey<Maker>,
    /// Who makes it as well, where downloads with the same hash are written differently.
    other_makers: ByKey<Vec<Maker>>,
    goals: Vec<Goal>,
    to_read: Vec<StorePath>,
    to_ask: Vec<Question>,
    /// What is not in the store, but in a substituter.
    remote: ByKey<(StorePath, Source)>,
}

/// Things by path. A graph of 100,000 derivations has a million edges, each of which is looked up once; keys
/// are SHA-256 already and need no strong hash on top.
type ByKey<T> = HashMap<PathKey, T, foldhash::fast::FixedState>;

/// A node, and the position of one of its outputs.
type Maker = (u32, u32);

#[derive(Debug)]
struct Node {
    drv_path: StorePath,
    is_goal: bool,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// With the names of the outputs that were wanted so far; `None` stands for all.
    Unread(Vec<Option<CompactString>>),
    Unreadable(String),
    Read(Box<Read>),
}

/// What is kept of a derivation.
#[derive(Debug)]
struct Read {
    outputs: SmallVec<[Output; 1]>,
    system: CompactString,
    required_features: Vec<String>,
    allow_substitutes: bool,
    rides: bool,
    fixed_output: bool,
    missing: bool,
    unknown: bool,
    inputs: Inputs,
}

#[derive(Debug)]
struct Output {
    name: CompactString,
    path: Option<StorePath>,
    asked: Asked,
}

/// The derivations that one needs: as its file names them until one of its outputs is missing, then as
/// nodes.
#[derive(Debug)]
enum Inputs {
    Named(InputDrvs),
    Nodes(Vec<u32>),
}

/// What became of the question for an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    Pending,
    Present,
    Absent,
    Unknown,
}

impl From<&Status> for Asked {
    fn from(status: &Status) -> Self {
        match status {
            Status::Present(_) => Self::Present,
            Status::Absent => Self::Absent,
            Status::Unknown => Self::Unknown,
        }
    }
}

impl Read {
    fn nodes(&self) -> &[u32] {
        match &self.inputs {
            Inputs::Named(_) => &[],
            Inputs::Nodes(nodes) => nodes,
        }
    }
}

impl Search {
    /// Asks for a target's outputs: those named, or all when `wanted` is empty. Returns the number of the
    /// goal, counted from 0.
    pub fn add_goal(&mut self, drv_path: &StorePath, wanted: &[String]) -> usize {
        let node = self.want(drv_path.into(), wanted.iter().map(String::as_str), true);
        self.goals.push(Goal { step: None, drv_path: drv_path.clone(), node, wanted: wanted.to_vec() });
        self.goals.len() - 1
    }

    /// Takes the derivations that have to be read next.
    pub fn to_read(&mut self) -> Vec<StorePath> {
        std::mem::take(&mut self.to_read)
    }

    /// Takes at most so many of the derivations that have to be read next.
    pub fn to_read_some(&mut self, most: usize) -> Vec<StorePath> {
        let rest = self.to_read.len().saturating_sub(most);
        self.to_read.split_off(rest)
    }

    /// Takes the questions that have to be answered next.
    pub fn to_ask(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.to_ask)
    }

    /// How many derivations have been looked at.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing was ever wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Tells what a derivation of [`Search::to_read`] says, or why it could not be read.
    pub fn read(&mut self, drv_path: &StorePath, derivation: Result<Derivation, String>) {
        let Some(&index) = self.by_drv.get(&drv_path.key()) else { return };
        let node = &mut self.nodes[index as usize];
        let Body::Unread(wanted) = &mut node.body else { return };
        let wanted = std::mem::take(wanted);
        let derivation = match derivation {
            Ok(derivation) => derivation,
            Err(reason) => {
                node.body = Body::Unreadable(reason);
                return;
            }
        };
        for (position, output) in (0..).zip(&derivation.outputs) {
            if let Some(path) = &output.path {
                match self.by_output.entry(path.key()) {
                    Entry::Vacant(entry) => {
                        entry.insert((index, position));
                    }
                    Entry::Occupied(_) => {
                        self.other_makers.entry(path.key()).or_default().push((index, position));
                    }
                }
            }
        }
        let fixed_output = derivation.is_fixed_output();
        let rides = derivation.prefer_local || fixed_output;
        let outputs = derivation.outputs.into_iter();
        node.body = Body::Read(Box::new(Read {
            outputs: outputs
                .map(|output| Output { name: output.name, path: output.path, asked: Asked::No })
                .collect(),
            system: derivation.system,
            required_features: derivation.required_features,
            allow_substitutes: derivation.allow_substitutes,
            rides,
            fixed_output,
            missing: false,
            unknown: false,
            inputs: Inputs::Named(derivation.input_drvs),
        }));
        for name in wanted {
            self.want_output(index, name.as_deref());
        }
    }

    /// Tells the answer to a question of [`Search::to_ask`].
    pub fn answer(&mut self, path: &StorePath, status: &Status) {
        if let Status::Present(source @ Source::Substituter(_)) = status {
            self.remote.insert(path.key(), (path.clone(), source.clone()));
        }
        let Some(&(index, position)) = self.by_output.get(&path.key()) else { return };
        self.answer_one(index, position, status.into());
        for (index, position) in self.others(path) {
            self.answer_one(index, position, status.into());
        }
    }

    /// All makers of a path but the first.
    fn others(&self, path: &StorePath) -> Vec<Maker> {
        // Nearly always there are none at all, and nothing needs to be looked up.
        if self.other_makers.is_empty() {
            return Vec::new();
        }
        self.other_makers.get(&path.key()).cloned().unwrap_or_default()
    }

    /// Takes in an answer for one derivation, if it waits for it.
    fn answer_one(&mut self, index: u32, position: u32, answer: Asked) {
        let Body::Read(read) = &mut self.nodes[index as usize].body else { return };
        let asked = &mut read.outputs[position as usize].asked;
        if *asked != Asked::Pending {
            return;
        }
        *asked = answer;
        read.unknown |= answer == Asked::Unknown;
        if answer != Asked::Present {
            self.miss(index);
        }
    }

    /// Wants outputs of a derivation: those named, or all when none is.
    fn want<'n>(
        &mut self,
        drv_path: StorePathRef<'_>,
        names: impl Iterator<Item = &'n str>,
        is_goal: bool,
    ) -> u32 {
        let new = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let index = *self.by_drv.entry(drv_path.key()).or_insert(new);
        if index == new {
            let drv_path = drv_path.to_store_path();
            self.to_read.push(drv_path.clone());
            self.nodes.push(Node { drv_path, is_goal: false, body: Body::Unread(Vec::new()) });
            self.all_asked.push(false);
        }
        if self.all_asked[index as usize] {
            return index;
        }
        self.nodes[index as usize].is_goal |= is_goal;
        let mut names = names.peekable();
        if names.peek().is_none() {
            self.want_output(index, None);
        }
        for name in names {
            self.want_output(index, Some(name));
        }
        index
    }

    /// Wants one output by name, or all.
    fn want_output(&mut self, index: u32, name: Option<&str>) {
        let node = &mut self.nodes[index as usize];
        let is_goal = node.is_goal;
        let read = match &mut node.body {
            Body::Read(read) => read,
            Body::Unreadable(_) => return,
            Body::Unread(wanted) => {
                if !wanted.iter().any(|wanted| wanted.as_deref() == name) {
                    wanted.push(name.map(CompactString::from));
                }
                return;
            }
        };
        let store_only = !is_goal && !read.allow_substitutes;
        let mut missing = false;
        let mut wanted: SmallVec<[(u32, StorePath); 2]> = SmallVec::new();
        for (position, output) in (0..).zip(&mut read.outputs) {
            if name.is_some_and(|name| name != output.name) || output.asked != Asked::No {
                continue;
            }
            output.asked = Asked::Pending;
            match &output.path {
                Some(path) => wanted.push((position, path.clone())),
                // Its path comes about when it is built: nobody can be asked.
                None => missing = true,
            }
        }
        self.all_asked[index as usize] = read.outputs.iter().all(|output| output.asked != Asked::No);
        for (position, path) in wanted {
            match self.asked_elsewhere(&path, index) {
                Asked::No => self.to_ask.push(Question { path, store_only }),
                Asked::Pending => {}
                answer => self.answer_one(index, position, answer),
            }
        }
        if missing {
            self.miss(index);
        }
    }

    /// What is known of a path that another derivation makes as well, if it was asked for.
    fn asked_elsewhere(&self, path: &StorePath, index: u32) -> Asked {
        let others = self.others(path);
        if others.is_empty() {
            return Asked::No;
        }
        let first = self.by_output.get(&path.key()).copied();
        first
            .into_iter()
            .chain(others)
            .filter(|(maker, _)| *maker != index)
            .find_map(|(maker, position)| match &self.nodes[maker as usize].body {
                Body::Read(read) => {
                    Some(read.outputs[position as usize].asked).filter(|&asked| asked != Asked::No)
                }
                _ => None,
            })
            .unwrap_or(Asked::No)
    }

    /// An output of this derivation has to be built, so its inputs are needed.
    fn miss(&mut self, index: u32) {
        let Body::Read(read) = &mut self.nodes[index as usize].body else { return };
        if std::mem::replace(&mut read.missing, true) {
            return;
        }
        let Inputs::Named(inputs) = std::mem::replace(&mut read.inputs, Inputs::Nodes(Vec::new())) else {
            return;
        };
        // Where they are is looked up in a loop that does nothing else: most of the time of a large search is
        // waiting for memory here, and so the processor waits for several at once.
        let mut nodes: Vec<u32> =
            inputs.keys().map(|key| self.by_drv.get(&key).copied().unwrap_or(u32::MAX)).collect();
        for (node, input) in nodes.iter_mut().zip(inputs.iter()) {
            if self.all_asked.get(*node as usize) != Some(&true) {
                *node = self.want(input.path, input.outputs(), false);
            }
        }
        if let Body::Read(read) = &mut self.nodes[index as usize].body {
            read.inputs = Inputs::Nodes(nodes);
        }
    }

    /// The plan that follows from all answers.
    ///
    /// A question that was never answered counts as unknown, and a derivation that was never read as
    /// unreadable: both end in a build or a red verdict, never in nothing.
    #[must_use]
    pub fn into_plan(mut self, estimates: &Estimates) -> Plan {
        self.settle_open_ends();
        let order = self.missing_in_order();
        let mut position = vec![u32::MAX; self.nodes.len()];
        for (new, &old) in (0..).zip(&order) {
            position[old as usize] = new;
        }
        let goals = std::mem::take(&mut self.goals)
            .into_iter()
            .map(|goal| {
                let step = Some(position[goal.node as usize]).filter(|&step| step != u32::MAX);
                Goal { step, ..goal }
            })
            .collect();
        let found = self.found();
        // What a target is cached as is not fetched for it; only what a build needs is.
        let fetched = self.fetched_for_builds();
        let looked_at = self.nodes.len();
        // What the steps say is what the nodes said: it moves, nothing of it is copied, and there is room.
        drop((self.by_drv, self.by_output, self.other_makers, self.remote));
        let mut nodes: Vec<Option<Node>> = self.nodes.into_iter().map(Some).collect();
        let mut steps = Vec::with_capacity(order.len());
        for (&old, own) in order.iter().zip(0..) {
            steps.extend(nodes[old as usize].take().map(|node| node.into_step(own, &position, estimates)));
        }
        critical_path::rank(&mut steps);
        Plan { steps, goals, found, fetched, looked_at }
    }

    fn settle_open_ends(&mut self) {
        let pending: Vec<StorePath> = self
            .nodes
            .iter()
            .filter_map(|node| match &node.body {
                Body::Read(read) => Some(read),
                _ => None,
            })
            .flat_map(|read| &read.outputs)
            .filter(|output| output.asked == Asked::Pending)
            .filter_map(|output| output.path.clone())
            .collect();
        for path in pending {
            self.answer(&path, &Status::Unknown);
        }
        for node in &mut self.nodes {
            if matches!(node.body, Body::Unread(_)) {
                node.body = Body::Unreadable("it was not read".to_owned());
            }
        }
    }

    fn needs_work(&self, index: u32) -> bool {
        match &self.nodes[index as usize].body {
            Body::Read(read) => read.missing,
            Body::Unreadable(_) | Body::Unread(_) => true,
        }
    }

    /// What has to be built, inputs before what needs them.
    fn missing_in_order(&self) -> Vec<u32> {
        let mut order = Vec::new();
        let mut seen = vec![false; self.nodes.len()];
        let mut stack = Vec::new();
        for start in 0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX) {
            if seen[start as usize] || !self.needs_work(start) {
                continue;
            }
            seen[start as usize] = true;
            stack.push((start, 0_usize));
            while let Some((node, next)) = stack.pop() {
                let inputs = match &self.nodes[node as usize].body {
                    Body::Read(read) => read.nodes(),
                    _ => &[],
                };
                if let Some(&input) = inputs.get(next) {
                    stack.push((node, next + 1));
                    if !seen[input as usize] && self.needs_work(input) {
                        seen[input as usize] = true;
                        stack.push((input, 0));
                    }
                } else {
                    order.push(node);
                }
            }
        }
        order
    }

    /// Where the goals are that need not be built: in a substituter when any output is only there, else
    /// in the store.
    fn found(&self) -> HashMap<StorePath, Source> {
        let mut found = HashMap::new();
        for node in self.nodes.iter().filter(|node| node.is_goal) {
            let Body::Read(read) = &node.body else { continue };
            if !read.missing {
                let present = read.outputs.iter().filter(|output| output.asked == Asked::Present);
                let remote = present.filter_map(|output| self.remote.get(&output.path.as_ref()?.key()));
                let source = remote.map(|(_, source)| source).max().unwrap_or(&Source::Store);
                found.insert(node.drv_path.clone(), source.clone());
            }
        }
        found
    }

    fn fetched_for_builds(&self) -> Vec<(StorePath, Source)> {
        if self.remote.is_empty() {
            return Vec::new();
        }
        let mut needed = vec![false; self.nodes.len()];
        for node in &self.nodes {
            if let Body::Read(read) = &node.body {
                for &input in read.nodes() {
                    needed[input as usize] = true;
                }
            }
        }
        let is_needed = |path: &StorePath| {
            let first = self.by_output.get(&path.key()).copied();
            first.into_iter().chain(self.others(path)).any(|(node, _)| needed[node as usize])
        };
        let mut fetched: Vec<_> = self.remote.values().filter(|(path, _)| is_needed(path)).cloned().collect();
        fetched.sort();
        fetched
    }
}

impl Node {
    /// The step, at a position of its own, that has to be done for this derivation; `position` tells that
    /// of every node.
    fn into_step(self, own: u32, position: &[u32], estimates: &Estimates) -> Step {
        let mut step = Step {
            drv_path: self.drv_path,
            system: CompactString::default(),
            outputs: SmallVec::new(),
            inputs: Vec::new(),
            estimate: 0.0,
            bytes: 0,
            rides: false,
            fixed_output: false,
            rank: 0.0,
            unknown: false,
            required_features: Vec::new(),
            hopeless: None,
        };
        match self.body {
            Body::Unread(_) => {}
            Body::Unreadable(reason) => {
                step.hopeless = Some(Hopeless::other(format!("cannot read {}: {reason}", step.drv_path)));
            }
            Body::Read(read) => {
                step.estimate = estimates.seconds(&step.drv_path);
                step.bytes = estimates.bytes(&step.drv_path);
                step.rides = read.rides;
                step.fixed_output = read.fixed_output;
                step.system = read.system;
                step.required_features = read.required_features;
                step.unknown = read.unknown;
                let asked = read.outputs.into_iter().filter(|output| output.asked != Asked::No);
                step.outputs = asked.map(|output| output.path).collect();
                if let Inputs::Nodes(mut inputs) = read.inputs {
                    for input in &mut inputs {
                        *input = position[*input as usize];
                    }
                    // A damaged graph could go in circles; an input that comes later in the order is
                    // dropped here, and Nix will say what is wrong with it.
                    inputs.retain(|&input| input < own);
                    inputs.sort_unstable();
                    inputs.dedup();
                    step.inputs = inputs;
                }
            }
        }
        step
    }
}

#[cfg(test)]
mod tests;
