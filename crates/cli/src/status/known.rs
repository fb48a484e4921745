//! What substituters said before.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::AtomicBool;

use phoenix_model::{Status, StorePath};
use phoenix_schedule::Question;
use phoenix_store::Validity;
use phoenix_substituter::{Found, Heard};

use super::{Searching, substituter_settings};
use crate::error::CommandError;
use crate::setup::Setup;

/// What is known of paths that are not in the store.
#[derive(Debug, Default)]
pub(crate) struct Known {
    status: HashMap<StorePath, Status>,
    /// What those refer to that a substituter has.
    references: HashMap<StorePath, Vec<StorePath>>,
    /// Paths that are in the store, of those that others refer to.
    valid: HashSet<StorePath>,
}

impl Known {
    /// The answer to a question, if it was given before.
    pub(super) fn status(&self, question: &Question) -> Option<&Status> {
        self.status.get(&question.path).filter(|_| !question.store_only)
    }

    /// Takes in an answer.
    pub(super) fn learn(&mut self, path: StorePath, status: Status, found: Option<Found>) {
        if let (Some(found), Some((directory, _))) = (found, path.as_str().rsplit_once('/')) {
            let parse = |name: &String| StorePath::parse(&format!("{directory}/{name}")).ok();
            let references =
                found.references.iter().filter_map(parse).filter(|other| *other != path).collect();
            self.references.insert(path.clone(), references);
        }
        // A substituter that did not answer may do so the next time.
        if status != Status::Unknown {
            self.status.insert(path, status);
        }
    }

    /// Asks for all that paths of substituters refer to, as far as the store has it not.
    pub(crate) fn follow(
        &mut self,
        setup: &Setup,
        paths: HashSet<StorePath>,
        stop: &AtomicBool,
        hear: &mut dyn FnMut(Searching<'_>),
    ) -> Result<(), CommandError> {
        let mut validity = Validity::open(&setup.nix, setup.layout.as_ref());
        let mut seen = HashSet::new();
        let mut next: Vec<StorePath> = paths.into_iter().collect();
        while !next.is_empty() {
            let mut ask = Vec::new();
            while let Some(path) = next.pop() {
                if !seen.insert(path.clone()) {
                    continue;
                }
                match self.references.get(&path) {
                    Some(references) => next.extend(references.iter().cloned()),
                    None if self.status.contains_key(&path) || self.valid.contains(&path) => {}
                    None => ask.push(path),
                }
            }
            let valid = validity
                .valid(&ask)
                .map_err(|error| CommandError::because("cannot look into the store", &error))?;
            ask.retain(|path| !valid.contains(path));
            self.valid.extend(valid);
            if ask.is_empty() {
                break;
            }
            for path in &ask {
                seen.remove(path);
            }
            next.clone_from(&ask);
            let asked = ask.len();
            let before = self.status.len();
            phoenix_substituter::ask(&substituter_settings(setup), stop, ask, &mut |heard| {
                match heard {
                    Heard::Answer { path, status, found } => self.learn(path, status, found),
                    Heard::Waiting => hear(Searching::Waiting),
                    _ => {}
                }
                Vec::new()
            })
            .map_err(|error| CommandError::because("cannot ask the substituters", &error))?;
            // Nobody answered: asking again would be no use.
            if asked > 0 && self.status.len() == before {
                break;
            }
        }
        Ok(())
    }

    /// Paths with all that they refer to, less what is in the store.
    pub(crate) fn closure(&self, paths: &BTreeSet<StorePath>) -> BTreeSet<StorePath> {
        let mut all = BTreeSet::new();
        let mut next: Vec<&StorePath> = paths.iter().collect();
        while let Some(path) = next.pop() {
            if !self.valid.contains(path) && all.insert(path.clone()) {
                next.extend(self.references.get(path).into_iter().flatten());
            }
        }
        all
    }
}
