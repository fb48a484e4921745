//! The targets that gates and configurations name.

use phoenix_evaluate::{Needed, Program, Special};
use phoenix_model::{AttrPath, StorePath, Target, TargetId, TargetKind, Verdict};

use crate::evaluating::{FoundOne, Named};

/// The targets that are known, and those that come to them: nothing is a target twice.
pub(super) struct Places<'k> {
    known: &'k [Target],
    new: Vec<(Target, Option<Verdict>)>,
    programs: Vec<FoundProgram>,
    next: u32,
}

struct FoundProgram {
    source: String,
    path: AttrPath,
    program: Program,
    builds: Vec<TargetId>,
}

/// Says of a target what its derivation says.
type Fill<'f> = dyn Fn(&mut Target, &StorePath) -> Result<(), String> + 'f;

impl<'k> Places<'k> {
    pub(super) fn new(known: &'k [Target], next: u32) -> Self {
        Self { known, new: Vec::new(), programs: Vec::new(), next }
    }

    /// The number of the next target.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Says which numbers others have given meanwhile.
    pub(super) fn set_next(&mut self, next: u32) {
        self.next = self.next.max(next);
    }

    /// All targets.
    pub(super) fn all(&self) -> impl Iterator<Item = &Target> {
        self.known.iter().chain(self.new.iter().map(|(target, _)| target))
    }

    /// Those that are new, with the verdicts of those that have one.
    pub(super) fn into_new(self) -> Vec<(Target, Option<Verdict>)> {
        self.new
    }

    /// Adds a target.
    pub(super) fn push(&mut self, target: Target, verdict: Option<Verdict>) {
        self.new.push((target, verdict));
    }

    /// Takes in what was found at a name.
    pub(super) fn take(&mut self, one: FoundOne, fill: &Fill<'_>) {
        let FoundOne { mut target, verdict, special, .. } = one;
        match special {
            Some(Special::Program(program)) => {
                let builds = program.needs.iter().map(|needed| self.needed(&target, needed, fill)).collect();
                let (source, path) = (target.source, target.attr_path);
                self.programs.push(FoundProgram { source, path, program, builds });
            }
            // Who has a gate is asked once, when it is found.
            Some(Special::WorkUnit(_) | Special::StdAction(_)) => {
                let error = "it has a gate of its own, and cannot be work of another".to_owned();
                self.add(target, Some(Verdict::NotEvaluated { error }));
            }
            None => {
                target.kind = TargetKind::WorkUnit;
                self.add(target, verdict);
            }
        }
    }

    fn add(&mut self, target: Target, verdict: Option<Verdict>) {
        let is_same = |other: &Target| other.source == target.source && other.attr_path == target.attr_path;
        if !self.all().any(is_same) {
            self.new.push((target, verdict));
        }
    }

    /// The target that builds what a program needs.
    fn needed(&mut self, program: &Target, needed: &Needed, fill: &Fill<'_>) -> TargetId {
        let is_same = |other: &&Target| {
            let all = |output: &String| other.wanted.is_empty() || other.wanted.contains(output);
            other.drv_path.as_ref() == Some(&needed.drv_path) && needed.outputs.iter().all(all)
        };
        if let Some(known) = self.all().find(is_same) {
            return known.id;
        }
        let id = TargetId(self.next);
        self.next += 1;
        let named = |other: &Target| other.source == program.source && other.attr_path == program.attr_path;
        let attr_path = if self.all().any(named) {
            program.attr_path.child(needed.drv_path.human_name())
        } else {
            program.attr_path.clone()
        };
        let mut target = Target {
            id,
            attr_path,
            kind: TargetKind::WorkUnit,
            wanted: needed.outputs.clone(),
            ..program.clone()
        };
        let verdict = fill(&mut target, &needed.drv_path).err().map(|error| Verdict::NotEvaluated { error });
        self.new.push((target, verdict));
        id
    }

    /// The targets that a name stands for.
    pub(super) fn builds(&self, named: &Named) -> Vec<TargetId> {
        let at = |candidate: &AttrPath| -> Vec<TargetId> {
            let below = |target: &&Target| {
                target.source == named.source && target.attr_path.names().starts_with(candidate.names())
            };
            self.all().filter(below).map(|target| target.id).collect()
        };
        named.candidates.iter().map(at).find(|ids| !ids.is_empty()).unwrap_or_default()
    }

    /// The program that a name stands for, and the targets that have to be green before it is there; without a
    /// program these say why.
    pub(super) fn program(&self, named: &Named) -> (Option<Program>, Vec<TargetId>) {
        let at = |candidate: &AttrPath| {
            self.programs.iter().find(|found| found.source == named.source && found.path == *candidate)
        };
        match named.candidates.iter().find_map(at) {
            Some(found) => (Some(found.program.clone()), found.builds.clone()),
            None => (None, self.builds(named)),
        }
    }
}
