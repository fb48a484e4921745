//! What is to be looked at, and in which order, where a set may hold itself.
//!
//! A set that holds itself has no end. Nothing in Nix tells that it is the same one; what can be seen is that a set has the same
//! names as one that it is in. Such a set is put aside until everything else is done. Those aside are gone into one after another,
//! in the order of their paths, until they end or are nested deeper than anything real. So what is found, and what is said to
//! have no end, does not depend on who answered first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use phoenix_model::{AttrPath, TargetKind};

use super::{Ended, FoundTarget, Inspect, ended};

/// How deep sets may be nested. Everything real has long ended here.
const MAX_DEPTH: usize = 64;

/// From here on sets are gone into one after another, whatever names they have.
const PLAIN_DEPTH: usize = 16;

/// A set holds itself when so many sets on the way to one that is nested too deep have the same names.
const LOOPS: usize = 4;

/// What is to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    queue: VecDeque<Inspect>,
    /// How many are being looked at.
    in_work: usize,
    /// Sets that may hold themselves, and what is in them.
    aside: BTreeMap<Vec<String>, Vec<Inspect>>,
    /// Whether sets that were aside are gone into. What else is found meanwhile has to wait, for there may be no end of it.
    probing: bool,
    later: VecDeque<Inspect>,
    held: Vec<FoundTarget>,
    /// Nothing below them is looked at any more.
    endless: Vec<AttrPath>,
    /// A hash of the names in each set that was entered.
    names_in: HashMap<Vec<String>, u64>,
}

impl Agenda {
    /// Adds something, after everything else.
    pub(crate) fn push_back(&mut self, inspect: Inspect) {
        self.queue.push_back(inspect);
    }

    /// Adds something, before everything else.
    pub(crate) fn push_front(&mut self, inspect: Inspect) {
        self.queue.push_front(inspect);
    }

    /// Takes the next attribute to inspect.
    pub(crate) fn take_next(&mut self) -> Option<Inspect> {
        if self.is_idle() {
            self.turn();
        }
        let next = self.queue.pop_front();
        self.in_work += usize::from(next.is_some());
        next
    }

    /// Goes into the next set that is aside, or on to what waits.
    fn turn(&mut self) {
        if let Some((_, inside)) = self.aside.pop_first() {
            self.probing = true;
            self.queue.extend(inside);
        } else {
            self.probing = false;
            self.queue.append(&mut self.later);
        }
    }

    /// Counts something that is looked at and was not taken from here.
    pub(crate) fn began(&mut self) {
        self.in_work += 1;
    }

    /// Counts an answer.
    pub(crate) fn answered(&mut self) {
        self.in_work = self.in_work.saturating_sub(1);
    }

    /// Whether nothing is looked at, nor to be looked at but for what was put aside.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_work == 0 && self.queue.is_empty()
    }

    /// How much is known to be left.
    pub(crate) fn left(&self) -> usize {
        self.queue.len() + self.aside.values().map(Vec::len).sum::<usize>() + self.later.len()
    }

    /// Takes in what was found with an answer, and returns what can be told by now.
    pub(crate) fn settle(&mut self, found: Vec<FoundTarget>) -> Vec<FoundTarget> {
        if !self.probing {
            return found;
        }
        self.held.extend(found);
        if self.is_idle() && self.aside.is_empty() { std::mem::take(&mut self.held) } else { Vec::new() }
    }

    /// What was not looked at, and what was found and not told.
    pub(crate) fn drain(&mut self) -> (Vec<Inspect>, Vec<FoundTarget>) {
        let aside = std::mem::take(&mut self.aside).into_values().flatten();
        let left = self.queue.drain(..).chain(aside).chain(self.later.drain(..)).collect();
        (left, std::mem::take(&mut self.held))
    }

    /// Adds what is to be looked at in a set with these names, in its order, before everything else. Where it is nested too
    /// deep, what there is to say of the set that has no end is returned.
    pub(crate) fn enter(
        &mut self,
        path: &AttrPath,
        names: &[String],
        inside: Vec<Inspect>,
        advice: &str,
    ) -> Option<FoundTarget> {
        if path.names().len() >= MAX_DEPTH {
            let set = self.endless_above(path);
            self.drop_below(&set);
            self.endless.push(set.clone());
            return Some(too_deep(set, path, advice));
        }
        let mut hasher = DefaultHasher::new();
        names.hash(&mut hasher);
        let names = hasher.finish();
        let above = (0..path.names().len()).filter_map(|depth| self.names_in.get(&path.names()[..depth]));
        let may_hold_itself = path.names().len() > PLAIN_DEPTH || above.clone().any(|other| *other == names);
        self.names_in.insert(path.0.clone(), names);
        if may_hold_itself && !inside.is_empty() {
            self.aside.insert(path.0.clone(), inside);
        } else if self.probing {
            self.later.extend(inside);
        } else {
            // Depth first, in the order of the names.
            inside.into_iter().rev().for_each(|inspect| self.queue.push_front(inspect));
        }
        None
    }

    /// Whether something is below a set that has no end, which was told already. What can be built in that
    /// set itself is a target like any other.
    pub(crate) fn is_endless(&self, path: &AttrPath, is_set: bool) -> bool {
        let mut sets = self.endless.iter();
        sets.any(|set| {
            is_deep_in(path, set) || is_set && path != set && path.names().starts_with(set.names())
        })
    }

    /// The set on the way to one that is nested too deep that most likely holds itself: the first whose names come again and
    /// again. Else the one from which on everything was gone into alone.
    fn endless_above(&self, path: &AttrPath) -> AttrPath {
        let names_at = |depth: usize| self.names_in.get(&path.names()[..depth]);
        let depths = 1..path.names().len();
        let again = |start: usize| depths.clone().filter(|&depth| names_at(depth) == names_at(start)).count();
        let start = depths.clone().find(|&start| names_at(start).is_some() && again(start) >= LOOPS);
        AttrPath(path.names()[..start.unwrap_or(PLAIN_DEPTH)].to_vec())
    }

    /// Leaves only what is directly in a set of what is to be looked at below it, and of what was found there.
    fn drop_below(&mut self, set: &AttrPath) {
        self.aside.retain(|path, inside| {
            inside.retain(|inspect| !is_deep_in(&inspect.path, set));
            path.len() == set.names().len() || !inside.is_empty()
        });
        self.queue.retain(|inspect| !is_deep_in(&inspect.path, set));
        self.later.retain(|inspect| !is_deep_in(&inspect.path, set));
        self.held.retain(|target| !is_deep_in(&target.path, set));
    }
}

/// Whether something is in a set that is in another.
fn is_deep_in(path: &AttrPath, set: &AttrPath) -> bool {
    path.names().len() > set.names().len() + 1 && path.names().starts_with(set.names())
}

/// What to say of a set in which others are nested too deep.
fn too_deep(set: AttrPath, path: &AttrPath, advice: &str) -> FoundTarget {
    let shown = AttrPath(path.names()[..path.names().len().min(set.names().len() + 4)].to_vec());
    let error = format!(
        "sets are nested more than {MAX_DEPTH} levels deep here (`{shown}…`): this one may hold itself{advice}"
    );
    ended(set, TargetKind::Unknown, Ended::NotEvaluated(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::{Reason, unended};
    use proptest::prelude::*;

    /// Sets by number: the names in each, and where they lead; nothing is something that can be built.
    type Sets = Vec<Vec<(String, Option<usize>)>>;

    fn job(path: AttrPath) -> Inspect {
        Inspect { path, wanted: None, reason: Reason::Job }
    }

    /// What is found when so many answer at a time, in an order that `chosen` says; and in how many steps.
    fn look_through(
        sets: &Sets,
        workers: usize,
        mut chosen: impl FnMut(usize) -> usize,
    ) -> (Vec<String>, usize) {
        let mut agenda = Agenda::default();
        agenda.push_back(job(AttrPath::default()));
        let (mut in_work, mut found, mut steps) = (Vec::new(), Vec::new(), 0);
        loop {
            while in_work.len() < workers
                && let Some(next) = agenda.take_next()
            {
                in_work.push(next);
            }
            if in_work.is_empty() {
                break;
            }
            let Inspect { path, .. } = in_work.remove(chosen(in_work.len()));
            agenda.answered();
            steps += 1;
            let at = path.names().iter().try_fold(Some(0), |at, name| {
                sets[at?].iter().find(|(other, _)| other == name).map(|(_, to)| *to)
            });
            let at = at.flatten();
            let told = if agenda.is_endless(&path, at.is_some()) {
                Vec::new()
            } else if let Some(set) = at {
                let names: Vec<String> = sets[set].iter().map(|(name, _)| name.clone()).collect();
                let inside = names.iter().map(|name| job(path.child(name))).collect();
                agenda.enter(&path, &names, inside, "").into_iter().collect()
            } else {
                vec![unended(path, TargetKind::Derivation)]
            };
            let told = agenda.settle(told);
            found.extend(told.iter().map(|target| format!("{} {}", target.path, target.ended.is_some())));
        }
        assert_eq!(agenda.drain(), (Vec::new(), Vec::new()));
        found.sort();
        (found, steps)
    }

    fn in_turn(steps: &mut usize) -> impl FnMut(usize) -> usize {
        move |open| {
            *steps += 1;
            if steps.is_multiple_of(3) { open - 1 } else { 0 }
        }
    }

    fn chain(length: usize) -> Sets {
        let set = |at: usize| vec![("d".to_owned(), None), ("x".to_owned(), (at < length).then_some(at + 1))];
        (0..=length).map(set).collect()
    }

    #[test]
    fn what_is_deep_and_has_an_end_is_found() {
        for length in [1, 15, 20, 62] {
            let (found, _) = look_through(&chain(length), 2, in_turn(&mut 0));
            assert_eq!(found.len(), length + 2, "{found:?}");
            assert!(found.iter().all(|line| line.ends_with("false")), "{found:?}");
        }
        assert_eq!(look_through(&chain(70), 2, in_turn(&mut 0)).0, ["d false", "x true", "x.d false"]);
    }

    #[test]
    fn what_has_other_names_each_time_is_cut_where_it_is_deep() {
        let set = |at: usize| ["a", "b"].map(|name| (format!("{name}{at}"), Some(at + 1))).to_vec();
        let mut sets: Sets = (0..PLAIN_DEPTH - 12).map(set).collect();
        let single = |at: usize| vec![(format!("c{at}"), Some(at + 1))];
        sets.extend((PLAIN_DEPTH - 12..80).map(single));
        sets.push(Vec::new());
        let (found, _) = look_through(&sets, 3, in_turn(&mut 0));
        assert_eq!(found.len(), 16, "{found:?}");
        assert!(found.iter().all(|line| line.matches('.').count() == PLAIN_DEPTH - 1), "{found:?}");
    }

    #[test]
    fn an_inner_loop_is_not_taken_for_the_outer_one_by_who_answers_first() {
        let names = |names: &[(&str, Option<usize>)]| -> Vec<(String, Option<usize>)> {
            names.iter().map(|(name, to)| ((*name).to_owned(), *to)).collect()
        };
        let sets = vec![
            names(&[("a", Some(1)), ("z", None)]),
            names(&[("b", Some(2)), ("d", None)]),
            names(&[("a", Some(1)), ("b", Some(2)), ("c", None)]),
        ];
        let (first, steps) = look_through(&sets, 1, |_| 0);
        assert!(steps < 300 && first.iter().filter(|line| line.ends_with("true")).count() == 1, "{first:?}");
        for workers in 2..9 {
            assert_eq!(look_through(&sets, workers, in_turn(&mut 0)).0, first);
            assert_eq!(look_through(&sets, workers, |open| open - 1).0, first);
        }
    }

    fn sets() -> impl Strategy<Value = Sets> {
        (1..5_usize).prop_flat_map(|count| {
            let to = proptest::option::weighted(0.6, 0..count);
            let set = proptest::collection::btree_map("[a-c]", to, 1..4);
            let set = set.prop_map(|set| set.into_iter().collect::<Vec<_>>());
            proptest::collection::vec(set, count)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn what_is_found_does_not_depend_on_who_answers_first(
            sets in sets(), workers in 2..6_usize, order in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let (expected, _) = look_through(&sets, 1, |_| 0);
            let mut order = order.into_iter().cycle();
            let chosen = |open: usize| usize::from(order.next().unwrap_or_default()) % open;
            prop_assert_eq!(look_through(&sets, workers, chosen).0, expected);
        }
    }
}
