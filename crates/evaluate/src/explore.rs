//! What evaluators answer questions for.

use crate::{FoundTarget, Inspect};

/// Looks through what there is at a root: says what to inspect next, is told what is there, and finds targets.
pub(crate) trait Explore {
    /// Takes the next attribute to inspect.
    fn take_next(&mut self) -> Option<Inspect>;

    /// How many attributes are known to be left.
    fn left(&self) -> usize;

    /// Takes in what is at an attribute, or why it could not be told; returns the targets that follow.
    fn answer(&mut self, inspect: Inspect, json: Result<&str, String>) -> Vec<FoundTarget>;

    /// The patterns that were given and that led to nothing.
    fn idle_patterns(&self) -> Vec<String>;

    /// The targets among what was not inspected, besides `in_work`, because the evaluation was stopped.
    fn stopped(&mut self, in_work: Vec<Inspect>) -> Vec<FoundTarget>;

    /// What there is to say when nothing is left to inspect.
    fn finish(&mut self) -> Vec<FoundTarget>;
}
