//! The walk from the root to the targets.
//!
//! [`Walk`] never evaluates anything: it says which attribute path to inspect next, is told what is
//! there, and finds targets. Attributes may be inspected in any order and several at a time.

mod agenda;

use std::collections::{BTreeMap, HashSet};

use phoenix_model::{AttrPath, StorePath, TargetKind};
use serde_json::{Map, Value};

pub(crate) use self::agenda::Agenda;
use crate::constituents::Constituent;
use crate::evaluator::quote;
use crate::explore::Explore;
use crate::names::INSPECT;
use crate::reply::{Reply, type_in_words};
use crate::selection::Unfit;
use crate::special::{Needed, Program, Special, StdAction, WorkUnit};
use crate::unavailable::Refusal;
use crate::{Detailed, Glob, Selection, Unavailable};

/// How many names are suggested for one that does not exist.
const SUGGESTIONS: usize = 3;

/// The name by which a set says whether it is to be looked through (nixpkgs `lib.recurseIntoAttrs`).
const RECURSE: &str = "recurseForDerivations";

/// How many bytes a name may have. Names stand in every event, log and report, and an evaluator reads them slowly.
const LONGEST_NAME: usize = 4096;

/// How many bytes of a longer one are shown.
const SHOWN_OF_NAME: usize = 64;

/// What a flake holds besides its outputs (nix `src/libflake/call-flake.nix`, `emitTreeAttrs`).
const BESIDE_OUTPUTS: &[&str] = &[
    "_type",
    "dirtyRev",
    "dirtyShortRev",
    "inputs",
    "lastModified",
    "lastModifiedDate",
    "narHash",
    "outPath",
    "outputs",
    "rev",
    "revCount",
    "shortRev",
    "sourceInfo",
    "submodules",
];

/// An attribute to inspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspect {
    /// Where it is.
    pub path: AttrPath,
    /// The names below it that matter; `None` for all.
    pub wanted: Option<Vec<String>>,
    pub(crate) reason: Reason,
}

/// Why an attribute is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It was named: these places have not been tried yet, and those have, with the names that exist there.
    Named { rest: Vec<AttrPath>, tried: Vec<(AttrPath, Vec<String>)>, outputs: Vec<String> },
    /// A pattern leads to it.
    Selected,
    /// It is below a set that was named and that no pattern knows.
    Below,
    /// It is in the list of std actions.
    InStd,
    /// It was named, to be run: these places have not been tried yet, and those have.
    Program { rest: Vec<AttrPath>, tried: Vec<(AttrPath, Vec<String>)> },
    /// nixpkgs refuses something here, with this error: is it this package itself?
    Refused { refusal: Refusal, error: String },
    /// It is looked through as nix-eval-jobs does it.
    Job,
    /// It is an aggregate that is made anew with its constituents.
    Aggregate(Vec<Constituent>),
}

/// A target the walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTarget {
    /// Its attribute path.
    pub path: AttrPath,
    /// What it is.
    pub kind: TargetKind,
    /// Name, system, `.drv` and outputs, when it evaluated.
    pub derivation: Option<FoundDerivation>,
    /// The outputs that are wanted; empty for all.
    pub wanted: Vec<String>,
    /// What it is, when it is no plain derivation.
    pub special: Option<Special>,
    /// Its verdict, when it has one already.
    pub ended: Option<Ended>,
    /// Why nixpkgs refuses it or something that it needs, if that is why it ended.
    pub unavailable: Option<Unavailable>,
    /// What else was asked for.
    pub details: Detailed,
}

/// The derivation of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDerivation {
    /// Its name.
    pub name: String,
    /// The system it is built on.
    pub system: String,
    /// Its `.drv`.
    pub drv_path: StorePath,
    /// Its outputs, with the path where that is known.
    pub outputs: BTreeMap<String, Option<StorePath>>,
}

impl FoundDerivation {
    /// Takes placeholders of paths that only the build tells for what they are.
    pub(crate) fn new(
        name: String,
        system: String,
        drv_path: StorePath,
        outputs: BTreeMap<String, Option<String>>,
    ) -> Self {
        let path = |path: String| StorePath::parse(&path).ok();
        let outputs = outputs.into_iter().map(|(name, value)| (name, value.and_then(path))).collect();
        Self { name, system, drv_path, outputs }
    }
}

/// How a target ended before anything was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It could not be evaluated.
    NotEvaluated(String),
    /// It is not to be built here.
    Skipped(String),
}

/// The walk over one root.
#[derive(Debug)]
pub struct Walk {
    selection: Selection,
    extra_platforms: Vec<String>,
    agenda: Agenda,
    found: HashSet<AttrPath>,
    /// Sets that were named and are not empty, and the root when patterns were given.
    entered: Vec<AttrPath>,
    /// Whether the root is a flake.
    is_flake: bool,
    /// What was left out below sets that were named, by which pattern.
    left_out: Vec<(AttrPath, String)>,
}

impl Inspect {
    /// What an evaluator is asked, where `inspect` is `nix/inspect.nix` or `nix/job.nix` for some root.
    pub(crate) fn question(&self) -> String {
        format!("{INSPECT} {} {}", list_in_nix(self.path.names()), self.wanted_in_nix())
    }

    /// Whether what is there is asked for, and nothing particular about it.
    pub(crate) fn is_plain(&self) -> bool {
        !matches!(self.reason, Reason::Program { .. } | Reason::Refused { .. } | Reason::Aggregate(_))
    }

    /// Whether two questions differ in nothing but where they lead.
    pub(crate) fn asks_the_same_as(&self, other: &Self) -> bool {
        match (&self.reason, &other.reason) {
            (Reason::Refused { .. }, Reason::Refused { .. }) => true,
            _ => self.is_plain() && other.is_plain() && self.wanted == other.wanted,
        }
    }

    /// What is wanted there, as the question's last argument.
    pub(crate) fn wanted_in_nix(&self) -> String {
        match (&self.reason, &self.wanted) {
            (Reason::Program { .. }, _) => quote("program"),
            (Reason::Refused { .. }, _) => quote("name"),
            (Reason::Aggregate(constituents), _) => {
                let constituents: Vec<String> = constituents.iter().map(Constituent::in_nix).collect();
                format!("{{ aggregate = [ {} ]; }}", constituents.join(" "))
            }
            (_, None) => "null".to_owned(),
            (_, Some(wanted)) => list_in_nix(wanted),
        }
    }
}

/// A list of strings in Nix.
pub(crate) fn list_in_nix(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quote(name)).collect();
    format!("[{}]", names.join(" "))
}

impl Walk {
    /// A walk that has nowhere to go yet. `extra_platforms` are systems this machine builds for besides
    /// those of the selection.
    #[must_use]
    pub fn new(selection: Selection, extra_platforms: Vec<String>) -> Self {
        Self {
            selection,
            extra_platforms,
            agenda: Agenda::default(),
            found: HashSet::new(),
            entered: Vec::new(),
            is_flake: false,
            left_out: Vec::new(),
        }
    }

    /// Says that the root is a flake: patterns pass by what it holds besides its outputs.
    #[must_use]
    pub fn of_flake(mut self) -> Self {
        self.is_flake = true;
        self
    }

    /// Adds something that was asked for: the first of the candidates that exists. The root stands for
    /// what the selection includes.
    pub fn add(&mut self, candidates: Vec<AttrPath>, outputs: Vec<String>) {
        let mut rest = candidates;
        if rest.is_empty() {
            return;
        }
        let path = rest.remove(0);
        let by_patterns = path.names().is_empty() && self.selection.may_include_below(&[]);
        let wanted = if by_patterns { self.selection.wanted_below(&[]) } else { None };
        self.agenda.push_back(Inspect {
            path,
            wanted,
            reason: Reason::Named { rest, tried: Vec::new(), outputs },
        });
    }

    /// Adds something that is to be run: the first of the candidates that exists.
    pub fn add_program(&mut self, candidates: Vec<AttrPath>) {
        let mut rest = candidates;
        if !rest.is_empty() {
            let path = rest.remove(0);
            let reason = Reason::Program { rest, tried: Vec::new() };
            self.agenda.push_back(Inspect { path, wanted: None, reason });
        }
    }

    /// Takes the next attribute to inspect.
    pub fn take_next(&mut self) -> Option<Inspect> {
        self.agenda.take_next()
    }

    /// How many attributes are known to be left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.agenda.left()
    }

    /// Takes in what is at an attribute, or why it could not be told; returns the targets that follow.
    pub fn answer(&mut self, inspect: Inspect, json: Result<&str, String>) -> Vec<FoundTarget> {
        let reply = json.and_then(|json| {
            Reply::parse(json).map_err(|problem| format!("the evaluator's answer cannot be read: {problem}"))
        });
        let path = inspect.path.clone();
        self.agenda.answered();
        let targets = match reply {
            reply if self.agenda.is_endless(&path, matches!(reply, Ok(Reply::Set { .. }))) => Vec::new(),
            reply if matches!(inspect.reason, Reason::Refused { .. }) => refused(inspect, reply),
            Err(error) => self.error(inspect, error),
            Ok(Reply::Derivation { name, system, drv_path, outputs, names, details }) => {
                let derivation = FoundDerivation::new(name, system, drv_path, outputs);
                self.derivation(inspect, derivation, &names, details)
            }
            // Only asked of what was refused.
            Ok(Reply::Name { .. }) => Vec::new(),
            Ok(Reply::WorkUnit { find_work, unit }) => {
                let read = WorkUnit::read(&path.to_string(), find_work, unit).map(Special::WorkUnit);
                self.work_unit(&inspect, TargetKind::WorkUnit, read)
            }
            Ok(Reply::StdActions { count }) => self.std_actions(&inspect, count),
            Ok(Reply::StdAction { action, needs }) => self.std_action(inspect, action, needs),
            Ok(Reply::Program { program, needs }) => {
                let special = Special::Program(Program { file: program, needs });
                vec![FoundTarget { special: Some(special), ..unended(path, TargetKind::Unknown) }]
            }
            Ok(Reply::Set { names, recurse }) => self.set(inspect, &names, recurse.as_ref()),
            Ok(Reply::Other { r#type }) => self.other(inspect, &r#type),
            Ok(Reply::Missing { left, r#type, names }) => self.missing(inspect, left, &r#type, names),
        };
        let mut targets = self.agenda.settle(targets);
        targets.retain(|target| self.found.insert(target.path.clone()));
        targets
    }

    /// What cannot be evaluated. Where a pattern leads to a package that nixpkgs refuses, nobody asked for it.
    fn error(&mut self, inspect: Inspect, error: String) -> Vec<FoundTarget> {
        match Refusal::of(&error) {
            Some(refusal) if matches!(inspect.reason, Reason::Selected | Reason::Below) => {
                let reason = Reason::Refused { refusal, error };
                self.agenda.push_front(Inspect { path: inspect.path, wanted: None, reason });
                Vec::new()
            }
            refusal => vec![FoundTarget {
                unavailable: refusal.map(|refusal| refusal.why),
                ..ended(meant(inspect), TargetKind::Unknown, Ended::NotEvaluated(error))
            }],
        }
    }

    /// A derivation, and the names below it that patterns want.
    fn derivation(
        &mut self,
        inspect: Inspect,
        derivation: FoundDerivation,
        names: &[String],
        details: Detailed,
    ) -> Vec<FoundTarget> {
        let path = inspect.path.clone();
        let is_selected = inspect.reason == Reason::Selected;
        let mut targets = Vec::new();
        if is_selected && !names.is_empty() {
            targets.extend(self.enter_selected(&path, names));
        }
        if !is_selected || self.selection.included(path.names()) {
            targets.push(FoundTarget { details, ..self.buildable(inspect, derivation) });
        } else if names.is_empty()
            && let Some(pattern) = self.selection.set_expected(path.names())
        {
            targets.push(no_set(path, "a derivation", pattern));
        }
        targets
    }

    fn buildable(&self, inspect: Inspect, derivation: FoundDerivation) -> FoundTarget {
        let names = inspect.path.names();
        let skipped = match (&inspect.reason, self.selection.excluded_by(names)) {
            (_, Some(glob)) => Some(format!("it is excluded by `{glob}`")),
            (Reason::Selected, None) => {
                self.selection.foreign(names, &derivation.system, &self.extra_platforms)
            }
            _ => None,
        };
        let wanted = match inspect.reason {
            Reason::Named { outputs, .. } => outputs,
            _ => Vec::new(),
        };
        let unknown = wanted.iter().find(|output| !derivation.outputs.contains_key(*output));
        let ended = match (skipped, unknown) {
            (Some(reason), _) => Some(Ended::Skipped(reason)),
            (None, Some(output)) => Some(Ended::NotEvaluated(format!(
                "the derivation has no output `{output}`; its outputs are {}",
                derivation.outputs.keys().cloned().collect::<Vec<_>>().join(", ")
            ))),
            (None, None) => None,
        };
        FoundTarget {
            derivation: Some(derivation),
            wanted,
            ended,
            ..unended(inspect.path, TargetKind::Derivation)
        }
    }

    /// A work unit is one target; what is in it is its own business.
    fn work_unit(
        &self,
        inspect: &Inspect,
        kind: TargetKind,
        special: Result<Special, String>,
    ) -> Vec<FoundTarget> {
        let path = inspect.path.clone();
        if inspect.reason == Reason::Selected && !self.selection.included(path.names()) {
            return Vec::new();
        }
        if let Some(pattern) = self.selection.excluded_by(path.names()) {
            return vec![ended(path, kind, Ended::Skipped(format!("it is excluded by `{pattern}`")))];
        }
        match special {
            Ok(special) => vec![FoundTarget { special: Some(special), ..unended(path, kind) }],
            Err(error) => vec![ended(path, kind, Ended::NotEvaluated(error))],
        }
    }

    /// The actions of std are looked at one by one: one that does not evaluate is no fault of the others.
    fn std_actions(&mut self, inspect: &Inspect, count: usize) -> Vec<FoundTarget> {
        let path = &inspect.path;
        if inspect.reason == Reason::Selected && !self.selection.included(path.names()) {
            return Vec::new();
        }
        if count == 0 && matches!(inspect.reason, Reason::Named { .. }) {
            let error = "no action is registered here: a block of std opts in with `ci.ACTION = true`";
            return vec![ended(path.clone(), TargetKind::StdAction, Ended::NotEvaluated(error.to_owned()))];
        }
        for number in 0..count {
            let path = path.child(&number.to_string());
            self.agenda.push_back(Inspect { path, wanted: None, reason: Reason::InStd });
        }
        Vec::new()
    }

    fn std_action(
        &self,
        inspect: Inspect,
        action: Map<String, Value>,
        needs: Vec<Needed>,
    ) -> Vec<FoundTarget> {
        let read = StdAction::read(action, needs);
        let mut inspect = inspect;
        if let (Ok(read), Some(number)) = (&read, inspect.path.0.last_mut()) {
            *number = read.particulars.shown();
            if is_too_long(number) {
                let name = std::mem::take(number);
                inspect.path.0.pop();
                return vec![too_long(&inspect.path, &name)];
            }
        }
        self.work_unit(&inspect, TargetKind::StdAction, read.map(Special::StdAction))
    }

    /// The patterns that were given and that led to nothing, when they were followed from the root.
    #[must_use]
    pub fn idle_patterns(&self) -> Vec<String> {
        self.selection.idle_patterns(&self.found.iter().collect::<Vec<_>>())
    }

    /// The targets among what was not inspected, besides `in_work`, because the evaluation was stopped.
    pub fn stopped(&mut self, in_work: Vec<Inspect>) -> Vec<FoundTarget> {
        let (queue, held) = self.agenda.drain();
        let is_target = |inspect: &Inspect| match inspect.reason {
            Reason::Named { .. } => !inspect.path.names().is_empty(),
            Reason::InStd | Reason::Program { .. } | Reason::Refused { .. } => true,
            Reason::Selected => self.selection.included(inspect.path.names()),
            Reason::Below | Reason::Job | Reason::Aggregate(_) => false,
        };
        let left: Vec<AttrPath> =
            in_work.into_iter().chain(queue).filter(is_target).map(|inspect| inspect.path).collect();
        let left = left.into_iter().map(|path| unended(path, TargetKind::Unknown));
        held.into_iter().chain(left).filter(|target| self.found.insert(target.path.clone())).collect()
    }

    /// What there is to say when nothing is left to inspect: a set that was named and holds something, but
    /// no target, is no success.
    pub fn finish(&mut self) -> Vec<FoundTarget> {
        let found = &self.found;
        let holds_target = |set: &AttrPath| found.iter().any(|path| path.names().starts_with(set.names()));
        let entered: Vec<AttrPath> = std::mem::take(&mut self.entered);
        let empty = entered.into_iter().filter(|set| !holds_target(set));
        empty
            .filter_map(|set| {
                let is_root = set.names().is_empty();
                let error = match self.selection.demand() {
                    Some(error) if is_root => error,
                    Some(_) if self.selection.binds_named() => {
                        format!("nothing in this set matches {}", self.selection.patterns())
                    }
                    _ if let Some(pattern) = self.left_out_of(&set) => {
                        format!("what is in this set is excluded by `{pattern}`")
                    }
                    // A flake may be empty; who names a file wants something in it.
                    _ if is_root && self.is_flake => return None,
                    _ => "there is no derivation in this set; sets below it are looked into when they have \
                          `recurseForDerivations = true` or when `--include` says so"
                        .to_owned(),
                };
                Some(ended(set, TargetKind::Unknown, Ended::NotEvaluated(error)))
            })
            .collect()
    }

    /// The pattern that leaves something out of a set, if one does.
    fn left_out_of(&self, set: &AttrPath) -> Option<&str> {
        let below = |(path, _): &&(AttrPath, String)| path.names().starts_with(set.names());
        self.left_out.iter().find(below).map(|(_, pattern)| pattern.as_str())
    }

    fn set(&mut self, inspect: Inspect, names: &[String], recurse: Option<&Value>) -> Vec<FoundTarget> {
        let path = inspect.path;
        let is_named = matches!(inspect.reason, Reason::Named { .. });
        let is_root = path.names().is_empty();
        if is_named && (!names.is_empty() || (is_root && self.selection.demand().is_some())) {
            self.entered.push(path.clone());
        }
        let of_system =
            path.names().last().and_then(|name| self.selection.selects_system(name)) == Some(true);
        match inspect.reason {
            Reason::Named { .. } | Reason::Selected if self.selection.may_include_below(path.names()) => {
                let may_recurse = recurse.is_none_or(|recurse| *recurse != Value::Bool(false));
                if !may_recurse && !is_named {
                    return Vec::new();
                }
                if let Some((name, pattern)) = self.selection.lacking(path.names(), names) {
                    let error = format!("it has no attribute `{name}`, which `{pattern}` needs");
                    return vec![ended(path, TargetKind::Unknown, Ended::NotEvaluated(error))];
                }
                self.enter_selected(&path, names)
            }
            // Patterns that were given lead elsewhere; those of the flake itself do not bind who names a set.
            Reason::Named { .. } if self.selection.binds_named() => Vec::new(),
            Reason::Named { .. } => self.enter_below(&path, names),
            Reason::Below if of_system || recurse == Some(&Value::Bool(true)) => {
                self.enter_below(&path, names)
            }
            Reason::Below => Vec::new(),
            _ => vec![wrong_type(path, "set")],
        }
    }

    fn enter_selected(&mut self, path: &AttrPath, names: &[String]) -> Vec<FoundTarget> {
        let at_flake = self.is_flake && path.names().is_empty();
        let is_hidden = |name: &str| name == RECURSE || (at_flake && BESIDE_OUTPUTS.contains(&name));
        let may_enter = |name: &&String| !is_hidden(name) && self.selection.may_enter(path.names(), name);
        let (inside, unwieldy): (Vec<&String>, Vec<_>) =
            names.iter().filter(may_enter).partition(|name| !is_too_long(name));
        let inside = inside.into_iter().map(|name| {
            let path = path.child(name);
            let wanted = self.selection.wanted_below(path.names());
            Inspect { path, wanted, reason: Reason::Selected }
        });
        let inside = inside.collect();
        self.enter(path, names, inside, &unwieldy)
    }

    fn enter_below(&mut self, path: &AttrPath, names: &[String]) -> Vec<FoundTarget> {
        let other_system = |name: &&String| self.selection.selects_system(name) == Some(false);
        let (all, unwieldy): (Vec<&String>, Vec<_>) = names.iter().partition(|name| !is_too_long(name));
        let mut inside = Vec::new();
        for path in all.into_iter().filter(|name| !other_system(name)).map(|name| path.child(name)) {
            match self.selection.excluded_by(path.names()) {
                Some(pattern) => self.left_out.push((path, pattern.to_string())),
                None => inside.push(Inspect { path, wanted: None, reason: Reason::Below }),
            }
        }
        self.enter(path, names, inside, &unwieldy)
    }

    /// Looks at what is in a set, and says what is not looked at.
    fn enter(
        &mut self,
        path: &AttrPath,
        names: &[String],
        inside: Vec<Inspect>,
        unwieldy: &[&String],
    ) -> Vec<FoundTarget> {
        match self.agenda.enter(path, names, inside, "; `--exclude` leaves it out") {
            Some(too_deep) => vec![too_deep],
            None => unwieldy.iter().map(|name| too_long(path, name)).collect(),
        }
    }

    fn other(&self, inspect: Inspect, r#type: &str) -> Vec<FoundTarget> {
        let path = inspect.path;
        match inspect.reason {
            // Sets that are looked through hold functions and strings besides what can be built.
            Reason::Below => Vec::new(),
            Reason::Selected => match self.selection.unfit(path.names(), r#type) {
                None => Vec::new(),
                Some(Unfit::NoDerivation) => vec![wrong_type(path, r#type)],
                Some(Unfit::NoSet(pattern)) => vec![no_set(path, &type_in_words(r#type), &pattern)],
            },
            Reason::Program { .. } => {
                let error = format!(
                    "it is {}, and neither an app nor a derivation, of which `nix run` knows what to run",
                    type_in_words(r#type)
                );
                vec![ended(path, TargetKind::Unknown, Ended::NotEvaluated(error))]
            }
            _ => vec![wrong_type(path, r#type)],
        }
    }

    fn missing(
        &mut self,
        inspect: Inspect,
        left: usize,
        r#type: &str,
        names: Vec<String>,
    ) -> Vec<FoundTarget> {
        let (mut rest, mut tried, outputs) = match inspect.reason {
            Reason::Named { rest, tried, outputs } => (rest, tried, Some(outputs)),
            Reason::Program { rest, tried } => (rest, tried, None),
            _ => {
                // It was among the names of its set. Nix 2.8 hands on names that are no text, by which nothing can be
                // asked for.
                let is_text = |name: &String| !name.contains(char::REPLACEMENT_CHARACTER);
                let error = if inspect.path.names().last().is_none_or(is_text) {
                    "it was there when its set was looked at, and is not there any more"
                } else {
                    "its name is not UTF-8, so that nothing can name it"
                };
                return vec![ended(inspect.path, TargetKind::Unknown, Ended::NotEvaluated(error.to_owned()))];
            }
        };
        if rest.is_empty() {
            let error = no_attribute(&inspect.path, left, r#type, &names, &tried);
            return vec![ended(inspect.path, TargetKind::Unknown, Ended::NotEvaluated(error))];
        }
        tried.push((inspect.path, names));
        let path = rest.remove(0);
        let reason = match outputs {
            Some(outputs) => Reason::Named { rest, tried, outputs },
            None => Reason::Program { rest, tried },
        };
        self.agenda.push_front(Inspect { path, wanted: None, reason });
        Vec::new()
    }
}

impl Explore for Walk {
    fn take_next(&mut self) -> Option<Inspect> {
        self.take_next()
    }

    fn left(&self) -> usize {
        self.left()
    }

    fn answer(&mut self, inspect: Inspect, json: Result<&str, String>) -> Vec<FoundTarget> {
        self.answer(inspect, json)
    }

    fn idle_patterns(&self) -> Vec<String> {
        self.idle_patterns()
    }

    fn stopped(&mut self, in_work: Vec<Inspect>) -> Vec<FoundTarget> {
        self.stopped(in_work)
    }

    fn finish(&mut self) -> Vec<FoundTarget> {
        self.finish()
    }
}

/// What to say of a name that does not exist at the last place it was looked for.
fn no_attribute(
    path: &AttrPath,
    left: usize,
    r#type: &str,
    names: &[String],
    tried: &[(AttrPath, Vec<String>)],
) -> String {
    let known = path.names().len().saturating_sub(left);
    let parent = AttrPath(path.names()[..known].to_vec());
    let wanted = path.names().get(known).map(String::as_str).unwrap_or_default();
    let mut error = if r#type != "set" {
        format!("there is no attribute `{wanted}` in `{parent}`, which is {}", type_in_words(r#type))
    } else if known > 0 {
        format!("there is no attribute `{wanted}` in `{parent}`")
    } else {
        let others: Vec<String> = tried.iter().map(|(path, _)| format!("`{path}`")).collect();
        let nor = if others.is_empty() { String::new() } else { format!(", nor {}", others.join(" or ")) };
        format!("there is no attribute `{path}`{nor}")
    };
    let elsewhere = tried.iter().flat_map(|(_, names)| names);
    let all: Vec<String> =
        if known > 0 { names.to_vec() } else { names.iter().chain(elsewhere).cloned().collect() };
    let nearest = nearest(wanted, &all);
    if !nearest.is_empty() {
        error.push_str(&format!("; did you mean {}?", nearest.join(" or ")));
    }
    error
}

/// The attribute that somebody meant where nothing can be looked at: one that is named with its system
/// (`apps.x86_64-linux.a`) is not below another `apps.x86_64-linux`, though that is where it is looked for first.
fn meant(inspect: Inspect) -> AttrPath {
    let Inspect { path, reason: Reason::Named { rest, .. } | Reason::Program { rest, .. }, .. } = &inspect
    else {
        return inspect.path;
    };
    let system = path.names().get(1);
    let is_meant = |other: &&AttrPath| {
        let below = path.names().get(2..);
        system.is_some() && other.names().get(1) == system && below == Some(other.names())
    };
    rest.iter().find(is_meant).unwrap_or(path).clone()
}

pub(crate) fn ended(path: AttrPath, kind: TargetKind, ended: Ended) -> FoundTarget {
    FoundTarget { ended: Some(ended), ..unended(path, kind) }
}

pub(crate) fn unended(path: AttrPath, kind: TargetKind) -> FoundTarget {
    FoundTarget {
        path,
        kind,
        derivation: None,
        wanted: Vec::new(),
        special: None,
        ended: None,
        unavailable: None,
        details: Detailed::default(),
    }
}

/// What nixpkgs refuses is skipped where it is this package itself; where it is something that is needed, the target
/// cannot be had though nobody said so.
fn refused(inspect: Inspect, reply: Result<Reply, String>) -> Vec<FoundTarget> {
    let Reason::Refused { refusal, error } = inspect.reason else { return Vec::new() };
    let is_itself = matches!(reply, Ok(Reply::Name { name, pname })
        if name == refusal.package || pname == refusal.package);
    let end = if is_itself { Ended::Skipped(refusal.reason()) } else { Ended::NotEvaluated(error) };
    let unavailable = Some(refusal.why);
    vec![FoundTarget { unavailable, ..ended(inspect.path, TargetKind::Unknown, end) }]
}

fn wrong_type(path: AttrPath, r#type: &str) -> FoundTarget {
    let error = format!("it is {}, not a derivation", type_in_words(r#type));
    ended(path, TargetKind::Unknown, Ended::NotEvaluated(error))
}

/// What has a name that is too long, by the beginning of it.
pub(crate) fn too_long(set: &AttrPath, name: &str) -> FoundTarget {
    let end = name.floor_char_boundary(SHOWN_OF_NAME);
    let hash = crate::Fingerprint::of([name]);
    let shown = format!("{}… ({} bytes, {:.8})", &name[..end], name.len(), hash.as_str());
    let error = format!(
        "its name has {} bytes; what has a name of more than {LONGEST_NAME} is not evaluated, and `exclude` leaves it out",
        name.len()
    );
    ended(set.child(&shown), TargetKind::Unknown, Ended::NotEvaluated(error))
}

/// Whether a name is too long.
pub(crate) fn is_too_long(name: &str) -> bool {
    name.len() > LONGEST_NAME
}

fn no_set(path: AttrPath, what: &str, pattern: &Glob) -> FoundTarget {
    let error = format!("it is {what}, where `{pattern}` needs a set");
    ended(path, TargetKind::Unknown, Ended::NotEvaluated(error))
}

/// The names most like a wanted one, in backquotes, best first: slips of the finger, and names that go on.
fn nearest(wanted: &str, names: &[String]) -> Vec<String> {
    // Nobody mistypes a name of this length, and to compare two takes as many steps as the product of theirs.
    let is_typed = |name: &str| name.len() <= 256;
    if !is_typed(wanted) {
        return Vec::new();
    }
    let slips = 1 + wanted.chars().count() / 4;
    let is_near = |score: f64, name: &str| {
        score > 0.85 || strsim::damerau_levenshtein(wanted, name) <= slips && slips < name.chars().count()
    };
    let mut scored: Vec<(f64, &String)> = names
        .iter()
        .filter(|name| is_typed(name))
        .map(|name| (strsim::jaro_winkler(wanted, name), name))
        .filter(|(score, name)| is_near(*score, name))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored
        .into_iter()
        .take(SUGGESTIONS)
        .map(|(_, name)| format!("`{}`", AttrPath(vec![name.clone()])))
        .collect()
}

#[cfg(test)]
mod tests;
