//! Attributes of one set, and how an evaluator is asked for them in few words: what it reads costs more than what it
//! evaluates.

use std::collections::HashMap;

use crate::names::{AT, NAMES, SOME};

/// For how many sets something is defined: the repl knows no more than 32,768 names, and each definition is another one.
const MOST_DEFINED: usize = 10_000;

/// What is asked for attributes of one set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Neighbours {
    /// What is called.
    pub(crate) function: &'static str,
    /// The attribute path of the set, as a list of Nix.
    pub(crate) set: String,
    /// The other arguments.
    pub(crate) rest: String,
}

impl Neighbours {
    /// The question for one of them, by its name as a string of Nix, as one expression.
    pub(crate) fn whole(&self, name: &str) -> String {
        format!("{} ({} ++ [{name}]) {}", self.function, self.set, self.rest)
    }

    /// The function from a name to the answer.
    pub(crate) fn function(&self) -> String {
        format!("n: {}", self.whole("n"))
    }
}

/// What an evaluator was told of some neighbours, so that it can be asked for them in few words.
#[derive(Debug)]
pub(crate) struct Turned {
    /// The number by which what was defined for them is called.
    number: usize,
    /// The numbers of their names, once those were asked for; nothing if they could not be told.
    pub(crate) numbers: Option<Option<HashMap<String, usize>>>,
}

/// All neighbours that an evaluator was asked for.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Nothing of those for which nothing is defined.
    all: HashMap<Neighbours, Option<Turned>>,
    defined: usize,
}

impl Turns {
    /// What is defined for neighbours, if they are many, or come again; and whether that is still to be sent.
    pub(crate) fn turn(&mut self, neighbours: &Neighbours, many: bool) -> Option<(&mut Turned, bool)> {
        let is_first = !self.all.contains_key(neighbours);
        let known = self.all.entry(neighbours.clone()).or_default();
        let is_new = known.is_none();
        if is_new {
            if self.defined == MOST_DEFINED || is_first && !many {
                return None;
            }
            *known = Some(Turned { number: self.defined, numbers: None });
            self.defined += 1;
        }
        known.as_mut().map(|turned| (turned, is_new))
    }

    /// What is defined for neighbours.
    pub(crate) fn known(&mut self, neighbours: &Neighbours) -> Option<&mut Turned> {
        self.all.get_mut(neighbours)?.as_mut()
    }
}

impl Turned {
    /// What is called for one of them.
    pub(crate) fn function(&self) -> String {
        format!("{AT}{}", self.number)
    }

    /// What all their names are called.
    pub(crate) fn names(&self) -> String {
        format!("{NAMES}{}", self.number)
    }
}

/// Some of a list of names, by runs of their numbers, each a first and a last: `[ 3 7 9 8 ]` are two.
pub(crate) fn some() -> String {
    let run = "let a = e (2 * i); b = e (2 * i + 1); in builtins.genList (j: builtins.elemAt names (if a < b then a + j else \
               a - j)) ((if a < b then b - a else a - b) + 1)";
    format!(
        "{SOME} = names: l: let e = builtins.elemAt l; in builtins.concatLists (builtins.genList (i: {run}) \
         (builtins.length l / 2))"
    )
}

/// The numbers of names in runs, each its first and its last; nothing if a name has none.
pub(crate) fn runs(numbers: &HashMap<String, usize>, names: &[String]) -> Option<String> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for name in names {
        let number = *numbers.get(name)?;
        match runs.last_mut() {
            Some((first, last)) if *first <= *last && number == *last + 1 => *last = number,
            Some((first, last)) if *first >= *last && number + 1 == *last => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let words: Vec<String> = runs.iter().map(|(first, last)| format!("{first} {last}")).collect();
    Some(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_defined_for_sets_has_names_of_its_own() {
        let of =
            |set: usize| Neighbours { function: "f", set: format!("[ \"{set}\" ]"), rest: "null".into() };
        let mut turns = Turns::default();
        let mut turn = |set, many| turns.turn(&of(set), many).map(|(turned, is_new)| (turned.number, is_new));
        // One that comes once is not defined, and has its number when it comes again, whatever came between.
        assert_eq!(turn(0, false), None);
        assert_eq!(turn(1, true), Some((0, true)));
        assert_eq!(turn(0, false), Some((1, true)));
        assert_eq!(turn(2, true), Some((2, true)));
        assert_eq!(turn(3, false), None);
        assert_eq!(
            [turn(0, true), turn(1, false), turn(2, false)],
            [1, 0, 2].map(|number| Some((number, false)))
        );
        let numbers: Vec<usize> = (4..MOST_DEFINED + 10).filter_map(|set| Some(turn(set, true)?.0)).collect();
        assert_eq!(numbers, (3..MOST_DEFINED).collect::<Vec<_>>());
        // Where no more can be defined, what is defined is used.
        assert_eq!([turn(0, true), turn(MOST_DEFINED + 20, true)], [Some((1, false)), None]);
    }

    #[test]
    fn neighbours_are_runs_of_numbers_in_either_direction() {
        let numbers: HashMap<String, usize> = (0..10).map(|number| (format!("n{number}"), number)).collect();
        let of = |numbered: &[usize]| {
            let names: Vec<String> = numbered.iter().map(|number| format!("n{number}")).collect();
            runs(&numbers, &names)
        };
        assert_eq!(of(&[3, 4, 5, 9, 8, 0]).unwrap(), "3 5 9 8 0 0");
        assert_eq!(of(&[1, 2, 1]).unwrap(), "1 2 1 1");
        assert_eq!(of(&[1, 10]), None);
    }
}
