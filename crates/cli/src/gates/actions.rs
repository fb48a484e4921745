//! Which actions follow from gates and configurations.

use std::collections::BTreeMap;

use phoenix_evaluate::{Glob, Program, StdAction};
use phoenix_gate::Occasion;
use phoenix_github::Trigger;
use phoenix_model::{Action, ActionId, ActionVerdict, Does, StorePath, Target, TargetId, redact};

use crate::args::ActionsMode;
use crate::config::{ActionConfig, Config, PUSH};
use crate::setup::trigger;

/// How many seconds an action may take, unless the flake says otherwise.
const TIME_OUT: u64 = 3600;

/// Whether actions may run.
#[derive(Debug, Clone)]
pub(crate) enum Permission {
    /// All of them.
    Always,
    /// None, for a reason.
    Never(String),
    /// By what the run is for.
    By(Occasion, Anywhere),
}

/// Which actions run on any branch unless the user names those they may run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anywhere {
    /// None: they run on the default branch.
    Nothing,
    /// What gates ask for, as phoenix-ci v1 and std-action do.
    Gates,
    /// All, for the user said so.
    All,
}

impl Permission {
    /// By the flag, and by what the forge says. With `by_gates`, the rows of the plan are those of phoenix-ci v1 or
    /// std-action, which run what a gate asks for on any branch.
    pub(crate) fn of(mode: ActionsMode, by_gates: bool) -> Self {
        if mode == ActionsMode::Skip {
            return Self::Never("`--actions skip`".to_owned());
        }
        match (trigger(), mode) {
            // Who may not write to the repository runs nothing, whatever is asked for.
            (Ok(Some(trigger)), _) if trigger.is_fork => Self::By(occasion(trigger), Anywhere::Nothing),
            // What the user wrote down for the branches holds where it is known which one this is.
            (Ok(Some(trigger)), ActionsMode::Run) => Self::By(occasion(trigger), Anywhere::All),
            (_, ActionsMode::Run) => Self::Always,
            (Ok(Some(trigger)), _) => {
                Self::By(occasion(trigger), if by_gates { Anywhere::Gates } else { Anywhere::Nothing })
            }
            (Ok(None), _) => Self::Never("actions run in CI; `--actions run` runs them here".to_owned()),
            (Err(why), _) => Self::Never(format!("who this is for is unknown: {why}")),
        }
    }

    /// Whether an action may run that the user allows on these refs; none are those that are allowed where nothing is
    /// said.
    fn check(&self, refs: &[String], of_gate: bool) -> Result<(), String> {
        match self {
            Self::Always => Ok(()),
            Self::Never(why) => Err(why.clone()),
            Self::By(occasion, anywhere) => {
                let is_free = *anywhere == Anywhere::All || (*anywhere == Anywhere::Gates && of_gate);
                if is_free && refs.is_empty() { Ok(()) } else { occasion.allows(refs) }
            }
        }
    }
}

fn occasion(trigger: Trigger) -> Occasion {
    let Trigger { ref_name, default_branch, is_fork } = trigger;
    Occasion { ref_name, default_branch, is_fork }
}

/// An action whose needs are still names.
struct Draft {
    /// As a flake or a configuration calls it, and where it is from.
    called: String,
    source: String,
    of: Option<String>,
    does: Result<Does, String>,
    system: Option<String>,
    builds: Vec<TargetId>,
    needs: Needs,
    /// The targets whose outputs it runs.
    runs: Vec<TargetId>,
    time_out: u64,
    permitted: Result<(), String>,
}

enum Needs {
    /// What it builds.
    Own,
    /// That, and all targets of a source.
    All(String),
    /// That, and actions and targets of a source by name.
    Named(String, Vec<String>),
    /// That all builds have ended, however that is.
    Ends,
}

/// Actions, as they become known.
pub(super) struct Drafts<'c> {
    permission: Permission,
    configs: &'c [(String, Config)],
    all: Vec<Draft>,
}

impl<'c> Drafts<'c> {
    pub(super) fn new(permission: Permission, configs: &'c [(String, Config)]) -> Self {
        Self { permission, configs, all: Vec::new() }
    }

    fn refs(&self, source: &str) -> &'c [String] {
        let config = self.configs.iter().find(|(name, _)| name == source);
        config.map_or(&[], |(_, config)| config.refs.as_slice())
    }

    /// What is called so already and does the same is the same; what does something else, for another system or in another
    /// flake, is not.
    fn add(&mut self, draft: Draft) -> ActionId {
        let is_same = |other: &Draft| {
            other.called == draft.called
                && match (&other.does, &draft.does) {
                    (Ok(one), Ok(other)) => one == other,
                    // What has no program yet may have the same one.
                    _ => other.source == draft.source && other.system == draft.system,
                }
        };
        let known = self.all.iter().position(is_same);
        let at = known.unwrap_or(self.all.len());
        match self.all.get_mut(at) {
            Some(other) => {
                let new = draft.builds.into_iter().filter(|id| !other.builds.contains(id));
                let new: Vec<TargetId> = new.collect();
                other.builds.extend(new);
            }
            None => self.all.push(draft),
        }
        ActionId(u32::try_from(at).unwrap_or(u32::MAX))
    }

    /// What a work unit wants to be run.
    pub(super) fn run(
        &mut self,
        target: &Target,
        name: &str,
        (program, builds): (Option<Program>, Vec<TargetId>),
        also: &[TargetId],
    ) -> ActionId {
        let runs = builds.clone();
        self.add(Draft {
            called: format!("run {name}"),
            source: redact(&target.source).into_owned(),
            of: Some(target.attr()),
            does: runs_program(name, program),
            system: None,
            builds: builds.into_iter().chain(also.iter().copied()).collect(),
            needs: Needs::Own,
            runs,
            time_out: TIME_OUT,
            permitted: self.permission.check(self.refs(&target.source), true),
        })
    }

    /// An action of std, other than `build`, which is what building its derivation does.
    pub(super) fn std(&mut self, target: &Target, action: &StdAction) -> Option<ActionId> {
        let particulars = &action.particulars;
        if particulars.action == "build" {
            return None;
        }
        let script = target.outputs.get("out").cloned().flatten();
        let env = [
            ("cell", &particulars.cell),
            ("block", &particulars.block),
            ("target", &particulars.name),
            ("action", &particulars.action),
        ];
        let mut env: BTreeMap<String, String> =
            env.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        env.insert("actionDrv".to_owned(), particulars.action_drv.to_string());
        let does = script
            .map(|script| Does::Source { script: script.to_string(), env })
            .ok_or_else(|| "the path of its script is not known before it is built".to_owned());
        Some(self.add(Draft {
            called: particulars.job_name(),
            source: redact(&target.source).into_owned(),
            of: Some(target.attr()),
            does,
            system: target.system.clone(),
            builds: vec![target.id],
            needs: Needs::Own,
            runs: vec![target.id],
            time_out: TIME_OUT,
            permitted: self.permission.check(self.refs(&target.source), true),
        }))
    }

    /// An action of a configuration.
    pub(super) fn configured(
        &mut self,
        source: &str,
        config: &Config,
        action: &ActionConfig,
        (program, builds): (Option<Program>, Vec<TargetId>),
    ) {
        let needs = match &action.needs {
            None => Needs::All(source.to_owned()),
            Some(needs) => Needs::Named(source.to_owned(), needs.clone()),
        };
        let refs = action.refs.as_deref().unwrap_or(&config.refs);
        self.add(Draft {
            called: action.name.clone(),
            source: redact(source).into_owned(),
            of: None,
            does: runs_program(&action.run, program),
            system: None,
            runs: builds.clone(),
            builds,
            needs,
            time_out: action.time_out.unwrap_or(TIME_OUT),
            permitted: self.permission.check(refs, false),
        });
    }

    /// Where everything that was built is pushed to.
    pub(super) fn pushes(&mut self, config: &Config) {
        for to in &config.push {
            self.add(Draft {
                called: format!("{PUSH} {}", redact(to)),
                source: String::new(),
                of: None,
                does: Ok(Does::Push { to: to.clone() }),
                system: None,
                builds: Vec::new(),
                needs: Needs::Ends,
                runs: Vec::new(),
                time_out: TIME_OUT,
                permitted: self.permission.check(&config.refs, false),
            });
        }
    }

    /// The actions, once all targets are known.
    pub(super) fn finish(self, targets: &[&Target]) -> Vec<(Action, Option<ActionVerdict>)> {
        let mut names: Vec<String> = Vec::with_capacity(self.all.len());
        for draft in &self.all {
            names.push(draft.free_name(&names));
        }
        let called: Vec<(String, String)> =
            self.all.iter().map(|draft| (draft.called.clone(), draft.source.clone())).collect();
        let finished = (0..)
            .zip(names.into_iter().zip(self.all))
            .map(|(number, (name, draft))| draft.finish(ActionId(number), name, &called, targets));
        finished.collect()
    }
}

impl Draft {
    /// A name that none before has: its own, with its system or its flake or a number if that is taken.
    fn free_name(&self, taken: &[String]) -> String {
        let called = &self.called;
        let more = self.system.iter().chain([&self.source]).map(|more| format!("{called} ({more})"));
        let numbered = (2..).map(|number| format!("{called} ({number})"));
        let mut names = [called.clone()].into_iter().chain(more).chain(numbered);
        names.find(|name| !taken.contains(name)).unwrap_or_default()
    }

    /// The action. `called` is what all of them are called, and where they are from.
    fn finish(
        self,
        id: ActionId,
        name: String,
        called: &[(String, String)],
        targets: &[&Target],
    ) -> (Action, Option<ActionVerdict>) {
        let mut builds = self.builds;
        let mut needs = Vec::new();
        let mut wrong = None;
        match &self.needs {
            Needs::Own => {}
            Needs::Ends => builds.extend(targets.iter().map(|target| target.id)),
            Needs::All(source) => {
                builds
                    .extend(targets.iter().filter(|target| target.source == *source).map(|target| target.id));
            }
            Needs::Named(source, named) => {
                let own = redact(source);
                for wanted in named {
                    let is_push = |other: &str| wanted == PUSH && other.starts_with("push ");
                    // Those of its own flake are meant, if there are some.
                    let is_own = called.iter().any(|(other, source)| other == wanted && *source == own);
                    let is_meant = |(other, source): &(String, String)| {
                        is_push(other) || (other == wanted && (!is_own || *source == own))
                    };
                    let actions = (0..).zip(called).filter(|(_, other)| is_meant(other));
                    let actions: Vec<ActionId> = actions.map(|(number, _)| ActionId(number)).collect();
                    if !actions.is_empty() || wanted == PUSH {
                        needs.extend(actions);
                        continue;
                    }
                    match matching(wanted, source, targets) {
                        Ok(ids) => builds.extend(ids),
                        Err(error) => wrong = Some(error),
                    }
                }
            }
        }
        builds.sort_unstable();
        builds.dedup();
        let outputs = targets.iter().filter(|target| self.runs.contains(&target.id)).flat_map(|target| {
            let is_wanted =
                |name: &str| target.wanted.is_empty() || target.wanted.iter().any(|wanted| wanted == name);
            target
                .outputs
                .iter()
                .filter(move |(name, _)| is_wanted(name))
                .filter_map(|(_, path)| path.clone())
        });
        let mut paths: Vec<StorePath> = outputs.collect();
        let (does, problem) = match (self.does, wrong) {
            (Ok(does), wrong) => (does, wrong),
            (Err(problem), _) => (Does::Run { program: String::new() }, Some(problem)),
        };
        if let Does::Run { program } = &does {
            paths.extend(store_path_of(program).filter(|path| !paths.contains(path)));
        }
        let action = Action {
            id,
            name,
            of: self.of,
            does,
            system: self.system,
            builds,
            needs,
            paths,
            time_out: self.time_out,
        };
        // What is red among its builds says more than that there is no program.
        let has_builds = !action.builds.is_empty();
        let verdict = match (self.permitted, problem) {
            (Err(reason), _) => Some(ActionVerdict::Skipped { reason }),
            (Ok(()), Some(message)) if !has_builds || !message.starts_with(NO_PROGRAM) => {
                Some(ActionVerdict::Failed { message })
            }
            (Ok(()), _) => None,
        };
        (action, verdict)
    }
}

/// How a message begins that an action has no program.
const NO_PROGRAM: &str = "there is no program at ";

fn runs_program(name: &str, program: Option<Program>) -> Result<Does, String> {
    program.map(|program| Does::Run { program: program.file }).ok_or_else(|| {
        format!("{NO_PROGRAM}`{name}`; it has to be an app or a package, as `nix run` takes it")
    })
}

/// The targets of a source that a pattern matches.
fn matching(pattern: &str, source: &str, targets: &[&Target]) -> Result<Vec<TargetId>, String> {
    let glob = Glob::parse(pattern).map_err(|error| format!("`{pattern}` in its `needs`: {error}"))?;
    let matches = |target: &&&Target| target.source == source && glob.matches(target.attr_path.names());
    let ids: Vec<TargetId> = targets.iter().filter(matches).map(|target| target.id).collect();
    if ids.is_empty() {
        return Err(format!("`{pattern}` in its `needs` is neither an action nor matches a target"));
    }
    Ok(ids)
}

/// The store path that a file is in.
fn store_path_of(file: &str) -> Option<StorePath> {
    let store = file.match_indices('/').map(|(at, _)| &file[..at]).chain([file]);
    store.rev().find_map(|prefix| StorePath::parse(prefix).ok())
}
