//! Sets that hold themselves.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use phoenix_model::AttrPath;

use crate::selection::MAX_DEPTH;

/// A set holds itself when so many sets on the way to one that is nested too deep have the same names.
const LOOPS: usize = 4;

/// Finds sets that have no end.
#[derive(Debug, Default)]
pub(crate) struct Endless {
    /// Nothing below them is looked at any more.
    sets: Vec<AttrPath>,
    /// A hash of the names in each set that was entered.
    names_in: HashMap<Vec<String>, u64>,
}

/// A set that is nested too deep.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TooDeep {
    /// This set on the way to it holds itself.
    Loop(AttrPath),
    /// It just is.
    Deep,
}

impl Endless {
    /// Keeps in mind which names a set has.
    pub(crate) fn note_names(&mut self, path: &AttrPath, names: &[String]) {
        let mut hasher = DefaultHasher::new();
        names.hash(&mut hasher);
        self.names_in.insert(path.0.clone(), hasher.finish());
    }

    /// Whether something is below a set that has no end, which was told already. What can be built in that
    /// set itself is a target like any other.
    pub(crate) fn contains(&self, path: &AttrPath, is_set: bool) -> bool {
        let names = path.names();
        let mut sets = self.sets.iter().map(AttrPath::names);
        sets.any(|set| names.starts_with(set) && (is_set || names.len() > set.len() + 1))
    }

    /// What to think of a set that was reached, if it is nested deeper than anything real. Where the same names come
    /// again and again on the way there, the first set that has them holds itself.
    pub(crate) fn too_deep(&mut self, path: &AttrPath) -> Option<TooDeep> {
        if path.names().len() < MAX_DEPTH {
            return None;
        }
        let names_at = |depth: usize| self.names_in.get(&path.names()[..depth]);
        let depths = 1..path.names().len();
        let again = |start: usize| depths.clone().filter(|&depth| names_at(depth) == names_at(start)).count();
        let start = depths.clone().find(|&start| names_at(start).is_some() && again(start) >= LOOPS);
        let Some(start) = start else { return Some(TooDeep::Deep) };
        let set = AttrPath(path.names()[..start].to_vec());
        self.sets.push(set.clone());
        Some(TooDeep::Loop(set))
    }
}
