//! Finds what is missing.
//!
//! Outputs that are needed are asked for first; only when one is missing are the inputs of its
//! derivation looked at, so that what exists somewhere hides everything below it.

use std::collections::HashMap;

use compact_str::CompactString;
use phoenix_model::{Derivation, Source, Status, StorePath};

use smallvec::SmallVec;

use crate::plan::{Goal, Plan, Step};
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
    by_drv: HashMap<Key, u32>,
    /// Who makes a path: more than one where downloads with the same hash are written differently.
    by_output: HashMap<Key, SmallVec<[(u32, u32); 1]>>,
    goals: Vec<Goal>,
    to_read: Vec<StorePath>,
    to_ask: Vec<Question>,
    fetched: Vec<(StorePath, Source)>,
}

/// The hash part of a path, which identifies it.
type Key = [u8; 32];

#[derive(Debug)]
struct Node {
    drv_path: StorePath,
    /// Names of outputs that were wanted before the derivation was read; `None` stands for all.
    wanted: Vec<Option<CompactString>>,
    is_goal: bool,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Unread,
    Unreadable(String),
    Read(Read),
}

#[derive(Debug)]
struct Read {
    derivation: Derivation,
    asked: Vec<Option<Answer>>,
    missing: bool,
    unknown: bool,
    inputs: Vec<u32>,
}

#[derive(Debug, Clone)]
enum Answer {
    Pending,
    Known(Status),
}

impl Search {
    /// Asks for a target's outputs: those named, or all when `wanted` is empty. Returns the number of the
    /// goal, counted from 0.
    pub fn add_goal(&mut self, drv_path: &StorePath, wanted: &[String]) -> usize {
        let node = self.want(drv_path, wanted, true);
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
        if !matches!(node.body, Body::Unread) {
            return;
        }
        match derivation {
            Err(reason) => node.body = Body::Unreadable(reason),
            Ok(mut derivation) => {
                derivation.input_srcs = Vec::new();
                for (position, output) in (0..).zip(&derivation.outputs) {
                    if let Some(path) = &output.path {
                        self.by_output.entry(path.key()).or_default().push((index, position));
                    }
                }
                let asked = vec![None; derivation.outputs.len()];
                node.body = Body::Read(Read {
                    derivation,
                    asked,
                    missing: false,
                    unknown: false,
                    inputs: Vec::new(),
                });
                for name in std::mem::take(&mut self.nodes[index as usize].wanted) {
                    self.want_output(index, name.as_deref());
                }
            }
        }
    }

    /// Tells the answer to a question of [`Search::to_ask`].
    pub fn answer(&mut self, path: &StorePath, status: &Status) {
        if let Status::Present(source @ Source::Substituter(_)) = status {
            self.fetched.push((path.clone(), source.clone()));
        }
        for (index, position) in self.by_output.get(&path.key()).cloned().unwrap_or_default() {
            self.answer_one(index, position, status);
        }
    }

    /// Takes in an answer for one derivation, if it waits for it.
    fn answer_one(&mut self, index: u32, position: u32, status: &Status) {
        let Body::Read(read) = &mut self.nodes[index as usize].body else { return };
        let asked = &mut read.asked[position as usize];
        if !matches!(asked, Some(Answer::Pending)) {
            return;
        }
        *asked = Some(Answer::Known(status.clone()));
        read.unknown |= *status == Status::Unknown;
        if !matches!(status, Status::Present(_)) {
            self.miss(index);
        }
    }

    fn want(&mut self, drv_path: &StorePath, names: &[impl AsRef<str>], is_goal: bool) -> u32 {
        let index = if let Some(&index) = self.by_drv.get(&drv_path.key()) {
            index
        } else {
            let index = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
            self.nodes.push(Node {
                drv_path: drv_path.clone(),
                wanted: Vec::new(),
                is_goal: false,
                body: Body::Unread,
            });
            self.all_asked.push(false);
            self.by_drv.insert(drv_path.key(), index);
            self.to_read.push(drv_path.clone());
            index
        };
        if self.all_asked[index as usize] {
            return index;
        }
        self.nodes[index as usize].is_goal |= is_goal;
        if names.is_empty() {
            self.want_output(index, None);
        }
        for name in names {
            self.want_output(index, Some(name.as_ref()));
        }
        index
    }

    /// Wants one output by name, or all.
    fn want_output(&mut self, index: u32, name: Option<&str>) {
        let node = &mut self.nodes[index as usize];
        let is_goal = node.is_goal;
        let Body::Read(read) = &mut node.body else {
            if !node.wanted.iter().any(|wanted| wanted.as_deref() == name) {
                node.wanted.push(name.map(CompactString::from));
            }
            return;
        };
        let store_only = !is_goal && !read.derivation.allow_substitutes;
        let mut missing = false;
        let mut wanted = Vec::new();
        for (position, (asked, output)) in (0..).zip(read.asked.iter_mut().zip(&read.derivation.outputs)) {
            if name.is_some_and(|name| name != output.name) || asked.is_some() {
                continue;
            }
            *asked = Some(Answer::Pending);
            match &output.path {
                Some(path) => wanted.push((position, path.clone())),
                // Its path comes about when it is built: nobody can be asked.
                None => missing = true,
            }
        }
        self.all_asked[index as usize] = read.asked.iter().all(Option::is_some);
        for (position, path) in wanted {
            match self.asked_elsewhere(&path, index) {
                None => self.to_ask.push(Question { path, store_only }),
                Some(Answer::Pending) => {}
                Some(Answer::Known(status)) => self.answer_one(index, position, &status),
            }
        }
        if missing {
            self.miss(index);
        }
    }

    /// What is known of a path that another derivation makes as well, if it was asked for.
    fn asked_elsewhere(&self, path: &StorePath, index: u32) -> Option<Answer> {
        let makers = self.by_output.get(&path.key())?;
        makers.iter().filter(|(maker, _)| *maker != index).find_map(|&(maker, position)| {
            match &self.nodes[maker as usize].body {
                Body::Read(read) => read.asked[position as usize].clone(),
                _ => None,
            }
        })
    }

    /// An output of this derivation has to be built, so its inputs are needed.
    fn miss(&mut self, index: u32) {
        let Body::Read(read) = &mut self.nodes[index as usize].body else { return };
        if std::mem::replace(&mut read.missing, true) {
            return;
        }
        let inputs = std::mem::take(&mut read.derivation.input_drvs);
        let found: Vec<u32> =
            inputs.iter().map(|(drv_path, names)| self.want(drv_path, names, false)).collect();
        if let Body::Read(read) = &mut self.nodes[index as usize].body {
            read.inputs = found;
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
        let mut steps: Vec<Step> = order.iter().map(|&old| self.step(old, &position, estimates)).collect();
        critical_path::rank(&mut steps);
        let goals = std::mem::take(&mut self.goals)
            .into_iter()
            .map(|goal| {
                let step = Some(position[goal.node as usize]).filter(|&step| step != u32::MAX);
                Goal { step, ..goal }
            })
            .collect();
        let mut found = Vec::new();
        for goal in &self.nodes {
            if let Body::Read(read) = &goal.body
                && goal.is_goal
                && !read.missing
            {
                found.push((goal.drv_path.clone(), present_at(read)));
            }
        }
        // What a target is cached as is not fetched for it; only what a build needs is.
        let fetched = self.fetched_for_builds();
        Plan { steps, goals, found: found.into_iter().collect(), fetched, looked_at: self.nodes.len() }
    }

    fn settle_open_ends(&mut self) {
        let pending: Vec<StorePath> = self
            .nodes
            .iter()
            .filter_map(|node| match &node.body {
                Body::Read(read) => Some(read),
                _ => None,
            })
            .flat_map(|read| read.asked.iter().zip(&read.derivation.outputs))
            .filter(|(asked, _)| matches!(asked, Some(Answer::Pending)))
            .filter_map(|(_, output)| output.path.clone())
            .collect();
        for path in pending {
            self.answer(&path, &Status::Unknown);
        }
        for node in &mut self.nodes {
            if matches!(node.body, Body::Unread) {
                node.body = Body::Unreadable("it was not read".to_owned());
            }
        }
    }

    fn needs_work(&self, index: u32) -> bool {
        match &self.nodes[index as usize].body {
            Body::Read(read) => read.missing,
            Body::Unreadable(_) | Body::Unread => true,
        }
    }

    /// What has to be built, inputs before what needs them.
    fn missing_in_order(&self) -> Vec<u32> {
        let mut order = Vec::new();
        let mut seen = vec![false; self.nodes.len()];
        for start in 0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX) {
            let mut stack = vec![(start, 0_usize)];
            if seen[start as usize] || !self.needs_work(start) {
                continue;
            }
            seen[start as usize] = true;
            while let Some((node, next)) = stack.pop() {
                let inputs = match &self.nodes[node as usize].body {
                    Body::Read(read) => read.inputs.as_slice(),
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

    fn step(&self, old: u32, position: &[u32], estimates: &Estimates) -> Step {
        let node = &self.nodes[old as usize];
        let mut step = Step {
            drv_path: node.drv_path.clone(),
            system: String::new(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            estimate: 0.0,
            rank: 0.0,
            unknown: false,
            required_features: Vec::new(),
            hopeless: None,
        };
        match &node.body {
            Body::Unread => {}
            Body::Unreadable(reason) => {
                step.hopeless = Some(format!("cannot read {}: {reason}", node.drv_path));
            }
            Body::Read(read) => {
                step.system = read.derivation.system.to_string();
                step.required_features.clone_from(&read.derivation.required_features);
                step.unknown = read.unknown;
                step.estimate = estimates.seconds(&node.drv_path);
                step.outputs = read
                    .asked
                    .iter()
                    .zip(&read.derivation.outputs)
                    .filter(|(asked, _)| asked.is_some())
                    .map(|(_, output)| output.path.clone())
                    .collect();
                // A damaged graph could go in circles; an input that comes later in the order is
                // dropped here, and Nix will say what is wrong with it.
                let own = position[old as usize];
                step.inputs = read
                    .inputs
                    .iter()
                    .map(|&input| position[input as usize])
                    .filter(|&input| input < own)
                    .collect();
                step.inputs.sort_unstable();
                step.inputs.dedup();
            }
        }
        step
    }

    fn fetched_for_builds(&self) -> Vec<(StorePath, Source)> {
        let mut needed = vec![false; self.nodes.len()];
        for node in &self.nodes {
            if let Body::Read(read) = &node.body {
                for &input in &read.inputs {
                    needed[input as usize] = true;
                }
            }
        }
        let mut fetched: Vec<_> = self
            .fetched
            .iter()
            .filter(|(path, _)| {
                let makers = self.by_output.get(&path.key()).into_iter().flatten();
                makers.clone().any(|&(node, _)| needed[node as usize])
            })
            .cloned()
            .collect();
        fetched.sort();
        fetched
    }
}

/// Where a derivation is found whose wanted outputs are all present: a substituter when any output is
/// only there, else the store.
fn present_at(read: &Read) -> Source {
    read.asked
        .iter()
        .filter_map(|answer| match answer {
            Some(Answer::Known(Status::Present(source))) => Some(source),
            _ => None,
        })
        .max()
        .cloned()
        .unwrap_or(Source::Store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use phoenix_model::{Output, OutputKind};

    pub(crate) fn path(name: &str) -> StorePath {
        let digit = name.as_bytes().first().copied().map_or('0', char::from);
        let digit = if "0123456789abcdfghijklmnpqrsvwxyz".contains(digit) { digit } else { '0' };
        StorePath::parse(&format!("/nix/store/{}-{name}", digit.to_string().repeat(32))).unwrap()
    }

    fn drv(name: &str) -> StorePath {
        path(&format!("{name}.drv"))
    }

    fn derivation(name: &str, inputs: &[(&str, &str)]) -> Derivation {
        Derivation {
            outputs: vec![
                Output {
                    name: "dev".into(),
                    path: Some(path(&format!("{name}-dev"))),
                    kind: OutputKind::InputAddressed,
                },
                Output { name: "out".into(), path: Some(path(name)), kind: OutputKind::InputAddressed },
            ],
            input_drvs: inputs
                .iter()
                .map(|(name, output)| (drv(name), smallvec::smallvec![(*output).into()]))
                .collect(),
            input_srcs: vec![],
            system: "x86_64-linux".into(),
            required_features: vec![],
            prefer_local: false,
            allow_substitutes: true,
            dynamic: false,
        }
    }

    /// Drives a search over `graph` where `present` exists; returns the plan and what was asked.
    fn search(
        goals: &[&str],
        graph: &[(&str, &[(&str, &str)])],
        present: &[(StorePath, Source)],
    ) -> (Plan, Vec<StorePath>, Vec<StorePath>) {
        let mut search = Search::default();
        for goal in goals {
            search.add_goal(&drv(goal), &["out".to_owned()]);
        }
        let (mut asked, mut reads) = (Vec::new(), Vec::new());
        loop {
            let to_read = search.to_read();
            let to_ask = search.to_ask();
            if to_read.is_empty() && to_ask.is_empty() {
                break;
            }
            for path in to_read {
                let found = graph.iter().find(|(name, _)| drv(name) == path);
                search.read(
                    &path,
                    found.map(|(name, inputs)| derivation(name, inputs)).ok_or_else(|| "gone".to_owned()),
                );
                reads.push(path);
            }
            for question in to_ask {
                let status = present
                    .iter()
                    .find(|(path, _)| *path == question.path)
                    .map_or(Status::Absent, |(_, source)| Status::Present(source.clone()));
                search.answer(&question.path, &status);
                asked.push(question.path);
            }
        }
        (search.into_plan(&Estimates::default()), asked, reads)
    }

    const CHAIN: &[(&str, &[(&str, &str)])] = &[("a", &[("b", "out")]), ("b", &[("c", "dev")]), ("c", &[])];

    #[test]
    fn what_is_present_hides_everything_below_it() {
        let (plan, asked, reads) = search(&["a"], CHAIN, &[(path("b"), Source::Store)]);
        assert_eq!(plan.steps.iter().map(|step| step.drv_path.clone()).collect::<Vec<_>>(), [drv("a")]);
        assert_eq!(asked, [path("a"), path("b")]);
        assert_eq!(reads, [drv("a"), drv("b")]);
    }

    #[test]
    fn only_the_outputs_that_are_needed_are_asked_for() {
        let (plan, asked, _) = search(&["a"], CHAIN, &[]);
        assert_eq!(asked, [path("a"), path("b"), path("c-dev")]);
        let names: Vec<_> = plan.steps.iter().map(|step| step.drv_path.human_name().to_owned()).collect();
        assert_eq!(names, ["c", "b", "a"], "inputs first");
        assert_eq!(plan.steps[2].inputs, [1]);
    }

    #[test]
    fn a_present_goal_has_no_step_and_says_where_it_is() {
        let from = Source::Substituter("https://cache".into());
        let (plan, ..) = search(&["a"], CHAIN, &[(path("a"), from.clone())]);
        assert!(plan.steps.is_empty());
        assert_eq!(plan.goals[0].step, None);
        assert_eq!(plan.found[&drv("a")], from);
        assert!(plan.fetched.is_empty(), "a cached target is not fetched");
    }

    #[test]
    fn what_a_build_needs_from_a_substituter_is_fetched() {
        let from = Source::Substituter("https://cache".into());
        let (plan, ..) = search(&["a"], CHAIN, &[(path("b"), from.clone())]);
        assert_eq!(plan.fetched, [(path("b"), from)]);
    }

    #[test]
    fn a_shared_derivation_stands_once() {
        let graph: &[(&str, &[(&str, &str)])] =
            &[("a", &[("c", "out")]), ("b", &[("c", "out"), ("c", "dev")]), ("c", &[])];
        let (plan, asked, reads) = search(&["a", "b"], graph, &[]);
        assert_eq!(plan.steps.len(), 3);
        assert_eq!(asked.len(), 4);
        assert_eq!(reads.len(), 3);
    }

    #[test]
    fn two_derivations_may_make_the_same_path_and_it_is_asked_for_once() {
        // The same download written in two ways, both needed.
        let same = |name: &str| Derivation {
            outputs: vec![Output { name: "out".into(), path: Some(path("same")), kind: OutputKind::Fixed }],
            ..derivation(name, &[])
        };
        for late in [false, true] {
            let mut search = Search::default();
            search.add_goal(&drv("a"), &[]);
            search.add_goal(&drv("b"), &[]);
            search.to_read();
            search.read(&drv("a"), Ok(same("a")));
            let mut questions = search.to_ask();
            if late {
                search.answer(&path("same"), &Status::Absent);
            }
            search.read(&drv("b"), Ok(same("b")));
            questions.extend(search.to_ask());
            assert_eq!(questions.len(), 1);
            if !late {
                search.answer(&path("same"), &Status::Absent);
            }
            let plan = search.into_plan(&Estimates::default());
            assert_eq!(plan.steps.len(), 2);
            assert!(plan.steps.iter().all(|step| !step.unknown));
        }
    }

    #[test]
    fn a_derivation_that_cannot_be_read_is_a_step_that_says_so() {
        let (plan, ..) = search(&["a"], &[("a", &[("gone", "out")])], &[]);
        assert!(plan.steps[0].hopeless.as_ref().unwrap().ends_with(": gone"));
        assert_eq!(plan.steps[1].inputs, [0]);
    }

    #[test]
    fn an_unanswered_question_is_built_for_safety() {
        let mut search = Search::default();
        search.add_goal(&drv("c"), &[]);
        search.to_read();
        search.read(&drv("c"), Ok(derivation("c", &[])));
        assert_eq!(search.to_ask().len(), 2, "all outputs");
        let plan = search.into_plan(&Estimates::default());
        assert!(plan.steps[0].unknown);
    }

    #[test]
    fn an_output_without_a_path_is_built() {
        let mut search = Search::default();
        search.add_goal(&drv("c"), &[]);
        search.to_read();
        let mut floating = derivation("c", &[("b", "out")]);
        for output in &mut floating.outputs {
            output.path = None;
            output.kind = OutputKind::Floating;
        }
        search.read(&drv("c"), Ok(floating));
        assert_eq!(search.to_read(), [drv("b")]);
        assert!(search.to_ask().is_empty());
    }

    #[test]
    fn an_input_nix_would_not_substitute_is_only_looked_for_here() {
        let mut search = Search::default();
        search.add_goal(&drv("a"), &["out".to_owned()]);
        search.to_read();
        search.read(&drv("a"), Ok(derivation("a", &[("b", "out")])));
        assert!(!search.to_ask()[0].store_only);
        search.answer(&path("a"), &Status::Absent);
        search.to_read();
        search.read(&drv("b"), Ok(Derivation { allow_substitutes: false, ..derivation("b", &[]) }));
        assert!(search.to_ask()[0].store_only);
    }
}
