//! Jobs as nix-eval-jobs finds them: every derivation below a root, through sets that ask for it.

use std::collections::{BTreeMap, VecDeque};

use phoenix_model::{AttrPath, TargetKind};

use crate::constituents::{Aggregate, Constituent, Job, Resolved, resolve};
use crate::evaluator::quote;
use crate::explore::Explore;
use crate::flake::one_line;
use crate::names::{ARGUMENT, CALL, EXPRESSION, FLAKE, ROOT, SELECT, SELECTED};
use crate::reply::Reply;
use crate::unavailable::Refusal;
use crate::walk::{Agenda, Reason, ended, is_too_long, too_long, unended};
use crate::{Details, Ended, Expression, FoundDerivation, FoundTarget, Inspect};

const CALL_NIX: &str = include_str!("nix/call.nix");
const JOB: &str = include_str!("nix/job.nix");

/// The root of jobs.
#[derive(Debug, Clone)]
pub struct JobRoot {
    /// What it is in.
    pub source: JobSource,
    /// A function from what is there to the root.
    pub select: Option<Expression>,
    /// Whether all sets are looked through, whatever they ask for.
    pub force_recurse: bool,
    /// Arguments for functions on the way, by name.
    pub arguments: Vec<(String, Expression)>,
}

/// Where a root of jobs is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobSource {
    /// At an attribute of a flake, or all of it with its inputs.
    Flake(AttrPath),
    /// In a file, or a directory with a `default.nix`.
    File(std::path::PathBuf),
    /// In a file of the search path, `<NAME>`.
    SearchPath(String),
    /// In an expression.
    Expression(Expression),
}

impl JobRoot {
    /// The expressions that the user gave, each with what the user calls it.
    pub(crate) fn expressions(&self) -> Vec<(String, &Expression)> {
        let mut all: Vec<(String, &Expression)> =
            self.arguments.iter().map(|(name, value)| (format!("--arg {name}"), value)).collect();
        if let JobSource::Expression(expression) = &self.source {
            all.push(("--expr".to_owned(), expression));
        }
        all.extend(self.select.iter().map(|select| ("--select".to_owned(), select)));
        all
    }

    /// Definitions for an evaluator after which `root` is the root. A flake is `flake`, and called so by the user.
    pub(crate) fn definitions(&self, shown: &str) -> Vec<String> {
        let mut definitions = Vec::new();
        let mut given = String::new();
        for (number, (name, value)) in self.arguments.iter().enumerate() {
            let argument = format!("{ARGUMENT}{number}");
            given.push_str(&format!("{} = {argument}; ", quote(name)));
            definitions.push(value.definition(&argument));
        }
        definitions.push(format!("{CALL} = ({}) {{ {given}}}", one_line(CALL_NIX)));
        let whole = match &self.source {
            JobSource::Flake(path) => path.names().iter().fold(FLAKE.to_owned(), |parent, name| {
                let name = quote(name);
                let error = quote(&format!("flake '{shown}' does not provide attribute '{path}'"));
                format!(
                    "(let parent = {parent}; in if parent ? {name} then parent.{name} else throw {error})"
                )
            }),
            // An absolute path is needed: the repl has another idea of what is relative.
            JobSource::File(file) => {
                format!("{CALL} (import (/. + {}))", quote(&file.to_string_lossy()))
            }
            JobSource::SearchPath(name) => format!("{CALL} (import <{name}>)"),
            JobSource::Expression(expression) => {
                definitions.push(expression.definition(EXPRESSION));
                format!("{CALL} {EXPRESSION}")
            }
        };
        let root = match &self.select {
            None => whole,
            Some(select) => {
                definitions.push(select.definition(SELECT));
                format!(
                    "let {SELECTED} = {SELECT} ({whole}); in if builtins.isAttrs {SELECTED} then {SELECTED} \
                     else throw \"'--select' must evaluate to an attrset (the traversal root)\""
                )
            }
        };
        definitions.push(format!("{ROOT} = {root}"));
        definitions
    }

    /// A function of Nix from a function that makes the answer to one that inspects.
    pub(crate) fn inspect(&self, details: &Details) -> String {
        let Self { force_recurse, .. } = self;
        format!("(finish: ({}) finish {} {CALL} {force_recurse} {ROOT})", one_line(JOB), details.function())
    }
}

/// The jobs below one root.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    agenda: Agenda,
    /// What aggregates may need, by name, where they are asked for.
    known: BTreeMap<String, Known>,
    with_constituents: bool,
    resolved: bool,
    /// Aggregates whose turn it is not yet.
    aggregates: VecDeque<Aggregate>,
    /// What is settled and could not be told yet.
    settled: Vec<FoundTarget>,
}

#[derive(Debug)]
struct Known {
    job: Job,
    /// Its derivation, and the output of it that is needed.
    constituent: Option<Constituent>,
    /// An aggregate waits here until all jobs are known.
    waiting: Option<FoundTarget>,
}

impl Jobs {
    pub(crate) fn new(with_constituents: bool) -> Self {
        let mut agenda = Agenda::default();
        agenda.push_back(Inspect { path: AttrPath::default(), wanted: None, reason: Reason::Job });
        Self { agenda, with_constituents, ..Self::default() }
    }

    fn set(&mut self, path: &AttrPath, names: &[String]) -> Vec<FoundTarget> {
        if names.is_empty() {
            return Vec::new();
        }
        let (inside, unwieldy): (Vec<&String>, Vec<_>) = names.iter().partition(|name| !is_too_long(name));
        let inside = inside.into_iter().map(|name| Inspect {
            path: path.child(name),
            wanted: None,
            reason: Reason::Job,
        });
        match self.agenda.enter(path, names, inside.collect(), "; `--select` can leave it out") {
            Some(too_deep) => vec![too_deep],
            None => unwieldy.into_iter().map(|name| too_long(path, name)).collect(),
        }
    }

    /// Keeps in mind what aggregates may need; an aggregate itself has to wait.
    fn know(&mut self, target: FoundTarget) -> Vec<FoundTarget> {
        if !self.with_constituents {
            return vec![target];
        }
        let error = match &target.ended {
            Some(Ended::NotEvaluated(error)) => Some(error.clone()),
            _ => None,
        };
        let named = target.details.named_constituents.clone().unwrap_or_default();
        let waits = error.is_none() && !named.is_empty();
        let constituent = target.derivation.as_ref().map(Constituent::of);
        let name = target.path.to_string();
        let job = Job { error, named, glob: target.details.glob_constituents };
        let (waiting, told) = if waits { (Some(target), Vec::new()) } else { (None, vec![target]) };
        self.known.insert(name, Known { job, constituent, waiting });
        told
    }

    /// Looks up what aggregates need, once all jobs are known.
    fn resolve(&mut self) {
        self.resolved = true;
        let jobs = self.known.iter().map(|(name, known)| (name.clone(), known.job.clone())).collect();
        match resolve(&jobs) {
            Resolved::Order(order) => self.aggregates = order.into(),
            Resolved::Cycle(failed) => {
                for (name, error) in failed {
                    self.settle(&name, Some(error));
                }
            }
        }
    }

    fn settle(&mut self, name: &str, error: Option<String>) {
        if let Some(mut target) = self.known.get_mut(name).and_then(|known| known.waiting.take()) {
            target.ended = error.map(Ended::NotEvaluated);
            self.settled.push(target);
        }
    }

    /// The next aggregate that can be made anew.
    fn next_aggregate(&mut self) -> Option<Inspect> {
        while let Some(aggregate) = self.aggregates.pop_front() {
            if let Some(error) = aggregate.error() {
                if let Some(target) =
                    self.known.get_mut(&aggregate.name).and_then(|known| known.waiting.as_mut())
                {
                    target.details.named_constituents = None;
                }
                self.settle(&aggregate.name, Some(error));
                continue;
            }
            let needs =
                aggregate.needs.iter().filter_map(|name| self.known.get(name)?.constituent.clone()).collect();
            let Some(target) = self.known.get(&aggregate.name).and_then(|known| known.waiting.as_ref())
            else {
                continue;
            };
            return Some(Inspect {
                path: target.path.clone(),
                wanted: None,
                reason: Reason::Aggregate(needs),
            });
        }
        None
    }

    /// An aggregate was made anew, with what it needs.
    fn aggregate(&mut self, path: &AttrPath, needs: Vec<Constituent>, reply: Result<Reply, String>) {
        let name = path.to_string();
        let Some(known) = self.known.get_mut(&name) else { return };
        let Some(target) = known.waiting.as_mut() else { return };
        let error = match reply {
            Ok(Reply::Derivation { name, system, drv_path, outputs, .. }) => {
                let derivation = FoundDerivation::new(name, system, drv_path, outputs);
                known.constituent = Some(Constituent::of(&derivation));
                target.derivation = Some(derivation);
                target.details.named_constituents = None;
                let more = needs.into_iter().map(|need| need.drv_path.as_str().to_owned());
                target.details.constituents.get_or_insert_default().extend(more);
                None
            }
            Ok(_) => Some("it is a derivation no more".to_owned()),
            Err(error) => Some(error),
        };
        self.settle(&name, error);
    }
}

impl Constituent {
    fn of(derivation: &FoundDerivation) -> Self {
        let output = derivation.outputs.keys().next().map_or("out", String::as_str);
        Self { drv_path: derivation.drv_path.clone(), output: output.to_owned() }
    }
}

impl Explore for Jobs {
    fn take_next(&mut self) -> Option<Inspect> {
        let next = self.agenda.take_next();
        if next.is_some() || !self.agenda.is_idle() || !self.with_constituents {
            return next;
        }
        if !self.resolved {
            self.resolve();
        }
        let next = self.next_aggregate()?;
        self.agenda.began();
        Some(next)
    }

    fn left(&self) -> usize {
        self.agenda.left() + self.aggregates.len()
    }

    fn answer(&mut self, inspect: Inspect, json: Result<&str, String>) -> Vec<FoundTarget> {
        self.agenda.answered();
        let reply = json.and_then(|json| {
            Reply::parse(json).map_err(|problem| format!("the evaluator's answer cannot be read: {problem}"))
        });
        let path = inspect.path;
        if let Reason::Aggregate(needs) = inspect.reason {
            self.aggregate(&path, needs, reply);
            return std::mem::take(&mut self.settled);
        }
        let found = match reply {
            reply if self.agenda.is_endless(&path, matches!(reply, Ok(Reply::Set { .. }))) => Vec::new(),
            Ok(Reply::Derivation { name, system, drv_path, outputs, details, .. }) => {
                let derivation = FoundDerivation::new(name, system, drv_path, outputs);
                let target = unended(path, TargetKind::Derivation);
                vec![FoundTarget { derivation: Some(derivation), details, ..target }]
            }
            Ok(Reply::Set { names, .. }) => self.set(&path, &names),
            // What cannot be built is passed by.
            Ok(_) => Vec::new(),
            Err(error) => {
                let unavailable = Refusal::of(&error).map(|refusal| refusal.why);
                let target = ended(path, TargetKind::Unknown, Ended::NotEvaluated(error));
                vec![FoundTarget { unavailable, ..target }]
            }
        };
        let told = self.agenda.settle(found);
        told.into_iter().flat_map(|target| self.know(target)).collect()
    }

    fn idle_patterns(&self) -> Vec<String> {
        Vec::new()
    }

    fn stopped(&mut self, _: Vec<Inspect>) -> Vec<FoundTarget> {
        self.agenda.drain().1
    }

    fn finish(&mut self) -> Vec<FoundTarget> {
        std::mem::take(&mut self.settled)
    }
}
