//! Gates: which targets have work, what that is, and which actions follow from it.

mod actions;
mod needed;
mod places;
mod questions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use phoenix_evaluate::{Evaluators, Needed, Special, StdAction, WorkUnit};
use phoenix_gate::{Answer, Work};
use phoenix_model::{Action, ActionVerdict, FailureClass, StorePath, Target, TargetId, Verdict};
use phoenix_store::Validity;

use crate::args::NixArgs;
use crate::building::{Wanted, copy_derivations};
use crate::error::CommandError;
use crate::evaluating::{self, Asked, FoundOne, Named};
use crate::farm::Gated;
use crate::kept::Kept;
use crate::recorder::Recorder;
use crate::setup::Setup;

use actions::Drafts;
pub(crate) use actions::Permission;
use needed::Heard;
use places::Places;
use questions::{ImageQuestion, Question, ask_all};

/// How long a gate may take, unless the flake says otherwise.
const TIME_OUT: Duration = Duration::from_secs(600);

/// What gates answered.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// The targets that follow, with the verdicts of those that have one.
    pub(crate) targets: Vec<(Target, Option<Verdict>)>,
    /// What is to run after builds.
    pub(crate) actions: Vec<(Action, Option<ActionVerdict>)>,
    /// What has work, and what that is.
    pub(crate) gated: Vec<Gated>,
    /// Keep derivations from being collected.
    pub(crate) evaluators: Evaluators,
}

/// What asking gates needs of a run.
pub(crate) struct Gates<'r> {
    pub(crate) setup: &'r Setup,
    pub(crate) recorder: &'r mut Recorder,
    pub(crate) kept: Option<&'r mut Kept>,
    pub(crate) asked: &'r Asked,
    pub(crate) nix: &'r NixArgs,
    pub(crate) stop: &'r Arc<AtomicBool>,
    pub(crate) permission: Permission,
    /// The configurations of the flakes, by what the user calls the flake.
    pub(crate) configs: &'r [(String, crate::config::Config)],
    /// The targets that were found already, less those that have a gate.
    pub(crate) known: &'r [Target],
    /// The number of the next target.
    pub(crate) next: u32,
}

/// A target, what its gate answered, and what was named in that.
struct Asking {
    target: Target,
    what: What,
}

enum What {
    Unit { build: Vec<String>, run: Vec<String> },
    Std(Box<StdAction>),
}

impl Gates<'_> {
    /// Asks the gates of what was found, and looks at what they name.
    pub(crate) fn ask(mut self, found: Vec<FoundOne>) -> Result<Answered, CommandError> {
        let mut places = Places::new(self.known, self.next);
        let asking = self.answers(found, &mut places)?;
        let (named, asking) = self.named(asking, &mut places);
        let mut evaluators = Evaluators::default();
        if !named.is_empty() && !self.stop.load(Ordering::Relaxed) {
            evaluators = self.look(&named, &mut places)?;
        }
        let of = |source: &str, name: &str, run: bool| {
            named.iter().find(|named| named.source == source && named.name == name && named.run == run)
        };
        let mut drafts = Drafts::new(self.permission.clone(), self.configs);
        let mut gated: Vec<Gated> = Vec::new();
        for Asking { target, what } in asking {
            match what {
                What::Unit { build, run } => {
                    let built = build.iter().filter_map(|name| of(&target.source, name, false));
                    let built: Vec<TargetId> = built.flat_map(|named| places.builds(named)).collect();
                    let mut one = Gated { attr: target.attr(), targets: built.clone(), ..Gated::default() };
                    for named in run.iter().filter_map(|name| of(&target.source, name, true)) {
                        let (program, builds) = places.program(named);
                        one.targets.extend(builds.iter().filter(|id| !built.contains(id)));
                        one.actions.push(drafts.run(&target, &named.name, (program, builds), &built));
                    }
                    gated.push(Gated { build, run, ..one });
                }
                What::Std(action) => {
                    gated.push(Gated {
                        attr: target.attr(),
                        targets: vec![target.id],
                        actions: drafts.std(&target, &action).into_iter().collect(),
                        std: Some(action.json.clone()),
                        ..Gated::default()
                    });
                    places.push(target, None);
                }
            }
        }
        for (source, config) in self.configs {
            for action in &config.actions {
                let program = of(source, &action.run, true).map(|named| places.program(named));
                drafts.configured(source, config, action, program.unwrap_or_default());
            }
            drafts.pushes(config);
        }
        let actions = drafts.finish(&places.all().collect::<Vec<_>>());
        Ok(Answered { targets: places.into_new(), actions, gated, evaluators })
    }

    /// Asks; what has no work, or could not be asked, has its verdict.
    fn answers(&mut self, found: Vec<FoundOne>, places: &mut Places) -> Result<Vec<Asking>, CommandError> {
        let needs: Vec<Needed> = found.iter().flat_map(needs_of).collect();
        let lost = self.bring(needs)?;
        let mut questions = Vec::new();
        let mut asked = Vec::new();
        for one in found {
            let missing = needs_of(&one).into_iter().find(|needed| lost.contains_key(&needed.drv_path));
            if let Some(needed) = missing {
                let message = format!(
                    "its gate needs {}, which was not built: {}",
                    needed.drv_path, lost[&needed.drv_path]
                );
                let verdict = Verdict::Failed { class: FailureClass::Gate, message };
                places.push(one.target, Some(verdict));
                continue;
            }
            let question = match &one.special {
                Some(Special::WorkUnit(unit)) => self.find_work(&one.target, unit),
                Some(Special::StdAction(action)) => self.proviso(&one.target, action),
                Some(Special::Program(_)) | None => continue,
            };
            questions.push((one.target.attr(), question));
            asked.push(one);
        }
        let answers = ask_all(questions, self.recorder, self.stop)?;
        let mut asking = Vec::new();
        for (one, answer) in asked.into_iter().zip(answers) {
            let target = one.target;
            let verdict = match (answer, one.special) {
                (None, _) => Verdict::Cancelled,
                (Some(Err(message)), _) => Verdict::Failed { class: FailureClass::Gate, message },
                (Some(Ok(Answer::None { reason })), _) => Verdict::Skipped { reason },
                (Some(Ok(Answer::Work(_))), Some(Special::StdAction(action))) => {
                    asking.push(Asking { target, what: What::Std(Box::new(action)) });
                    continue;
                }
                (Some(Ok(Answer::Work(Work { build, run }))), _) => {
                    asking.push(Asking { target, what: What::Unit { build, run } });
                    continue;
                }
            };
            places.push(target, Some(verdict));
        }
        Ok(asking)
    }

    /// The configuration of the flake that a target is of.
    fn config(&self, target: &Target) -> Option<&crate::config::Config> {
        self.configs.iter().find(|(source, _)| *source == target.source).map(|(_, config)| config)
    }

    fn time_out(&self, target: &Target) -> Duration {
        self.config(target).and_then(|config| config.gate_time_out).map_or(TIME_OUT, Duration::from_secs)
    }

    fn find_work(&mut self, target: &Target, unit: &WorkUnit) -> Question {
        Question::FindWork {
            attr_path: target.attr(),
            body: unit.find_work.clone(),
            unit: unit.unit.clone(),
            time_out: self.time_out(target),
            nix: self.setup.nix.clone(),
            kept: self.kept_derivations(&unit.unit),
        }
    }

    /// The derivations that a unit speaks of and that the depot has all outputs of, of which Nix does not know.
    fn kept_derivations(&mut self, unit: &serde_json::Value) -> Vec<String> {
        let Some(kept) = self.kept.as_deref_mut() else { return Vec::new() };
        let mut drv_paths = Vec::new();
        derivations_in(unit, &mut drv_paths);
        let read = phoenix_store::read_derivations(&self.setup.eval_layout, &drv_paths);
        let mut is_kept = |derivation: &phoenix_model::Derivation| {
            let mut outputs = derivation.outputs.iter();
            outputs.all(|output| output.path.as_ref().is_some_and(|path| kept.has(path)))
        };
        let both = drv_paths.into_iter().zip(read);
        both.filter(|(_, read)| read.as_ref().is_ok_and(&mut is_kept))
            .map(|(path, _)| path.to_string())
            .collect()
    }

    fn proviso(&self, target: &Target, action: &StdAction) -> Question {
        let particulars = &action.particulars;
        let time_out = self.time_out(target);
        let image = particulars.meta.as_ref().and_then(|meta| meta.get("image"));
        let image = image.filter(|image| particulars.action == "publish" && !image.is_null());
        let unknown = self.config(target).map(|config| config.unknown_images).unwrap_or_default();
        let question = |name: &str| ImageQuestion { name: name.to_owned(), time_out, unknown };
        match (&particulars.proviso, image) {
            (Some(file), image) => Question::Proviso {
                file: evaluating::real_path(self.setup, file),
                action: action.json.to_string(),
                time_out,
                nix: self.setup.nix.clone(),
                image: image.and_then(serde_json::Value::as_str).map(question),
            },
            (None, Some(serde_json::Value::String(image))) => Question::Image(question(image)),
            (None, Some(other)) => Question::Wrong(format!(
                "`meta.image` has to name an image, as in \"ghcr.io/owner/name:tag\", and is {other}"
            )),
            (None, None) => Question::None,
        }
    }

    /// Builds what gates need, or fetches it; what is not there after that, and why.
    fn bring(&mut self, needs: Vec<Needed>) -> Result<BTreeMap<StorePath, String>, CommandError> {
        let mut wanted: Vec<Wanted> = Vec::new();
        for needed in needs {
            if !wanted.iter().any(|(drv_path, _)| *drv_path == needed.drv_path) {
                wanted.push((needed.drv_path, needed.outputs));
            }
        }
        if wanted.is_empty() || self.stop.load(Ordering::Relaxed) {
            return Ok(BTreeMap::new());
        }
        let drv_paths: Vec<StorePath> = wanted.iter().map(|(drv_path, _)| drv_path.clone()).collect();
        let read = phoenix_store::read_derivations(&self.setup.eval_layout, &drv_paths);
        let outputs: Vec<StorePath> = read
            .iter()
            .flatten()
            .flat_map(|derivation| derivation.outputs.iter())
            .filter_map(|output| output.path.clone())
            .collect();
        let before = self.valid(&outputs)?;
        let missing: Vec<StorePath> = outputs.iter().filter(|path| !before.contains(path)).cloned().collect();
        if let Some(kept) = self.kept.as_deref_mut() {
            let there: Vec<StorePath> = missing.iter().filter(|path| kept.has(path)).cloned().collect();
            kept.fetch(&there, self.setup, self.recorder);
        }
        if let Some(from) = &self.setup.copy_from {
            copy_derivations(self.setup, &self.setup.nix, from, &wanted)?;
        }
        let mut nix = self.setup.nix.clone();
        nix.set_option("fallback", "true");
        let mut command = nix.nix_store("--realise");
        command.args(["--keep-going", "--log-format", "internal-json"]);
        command.args(drv_paths.iter().map(StorePath::as_str));
        let (recorder, stop) = (&mut *self.recorder, self.stop);
        let done = nix.output_while(&mut command, "nix-store --realise", &mut || {
            recorder.tick();
            !stop.load(Ordering::Relaxed)
        })?;
        let Some(done) = done else { return Ok(BTreeMap::new()) };
        let heard = Heard::read(&String::from_utf8_lossy(&done.stderr));
        for (severity, text) in &heard.said {
            self.recorder.say(*severity, text);
        }
        let after = self.valid(&outputs)?;
        let built: Vec<StorePath> = missing.into_iter().filter(|path| after.contains(path)).collect();
        if let Some(kept) = self.kept.as_deref_mut() {
            let new: Vec<StorePath> = built.into_iter().filter(|path| !kept.has(path)).collect();
            if !new.is_empty() {
                kept.keep(new, self.setup, self.recorder);
            }
        }
        let is_there = |read: &Result<phoenix_model::Derivation, String>| {
            let outputs = read.iter().flat_map(|derivation| derivation.outputs.iter());
            // Where a path comes about in the build, Nix's word is all there is.
            read.is_ok()
                && outputs.into_iter().all(|output| {
                    output.path.as_ref().map_or(done.status.success(), |path| after.contains(path))
                })
        };
        let lost = drv_paths.into_iter().zip(&read).filter(|(_, read)| !is_there(read));
        Ok(lost.map(|(path, _)| (path.clone(), heard.why(&path))).collect())
    }

    fn valid(&self, paths: &[StorePath]) -> Result<std::collections::HashSet<StorePath>, CommandError> {
        let mut validity = Validity::open(&self.setup.nix, self.setup.layout.as_ref());
        let valid = validity
            .valid(paths)
            .map_err(|error| CommandError::because("cannot look into the store", &error))?;
        Ok(valid.into_iter().collect())
    }

    /// What is named by those that have work, and by configurations. A name that is none is an error of who names it.
    fn named(&self, asking: Vec<Asking>, places: &mut Places) -> (Vec<Named>, Vec<Asking>) {
        let system = &self.setup.settings.system;
        let mut named: Vec<Named> = Vec::new();
        let mut well = Vec::new();
        let mut add = |source: &str, name: &str, run: bool| {
            self.asked.name(source, name, run, system).map(|new| {
                if !named.contains(&new) {
                    named.push(new);
                }
            })
        };
        for one in asking {
            let wrong = match &one.what {
                What::Unit { build, run } => {
                    let all =
                        build.iter().map(|name| (name, false)).chain(run.iter().map(|name| (name, true)));
                    let mut all = all.map(|(name, run)| add(&one.target.source, name, run));
                    all.find_map(Result::err)
                }
                What::Std(_) => None,
            };
            match wrong {
                Some(error) => {
                    let message = format!("findWork of {}: {error}", one.target.attr());
                    places.push(one.target, Some(Verdict::Failed { class: FailureClass::Gate, message }));
                }
                None => well.push(one),
            }
        }
        for (source, config) in self.configs {
            for action in &config.actions {
                // An action without a program fails, and says so.
                let _ = add(source, &action.run, true);
            }
        }
        (named, well)
    }

    /// Evaluates what is named.
    fn look(&mut self, named: &[Named], places: &mut Places) -> Result<Evaluators, CommandError> {
        let asked = self.asked.for_named(named, places.next());
        let recorder = std::cell::RefCell::new(&mut *self.recorder);
        let mut found = Vec::new();
        let evaluated = evaluating::evaluate(
            self.setup,
            &asked,
            self.nix,
            self.kept.as_deref_mut().into(),
            self.stop,
            &mut |one| found.push(one),
            &mut |heard| evaluating::tell(&mut recorder.borrow_mut(), heard),
        )?;
        places.set_next(evaluated.count);
        for one in found {
            places.take(one, &|target, drv_path| evaluating::fill(self.setup, target, drv_path));
        }
        Ok(evaluated.evaluators)
    }
}

fn needs_of(one: &FoundOne) -> Vec<Needed> {
    match &one.special {
        Some(Special::WorkUnit(unit)) => {
            let needs = unit.needs.values();
            needs.map(|dep| Needed { drv_path: dep.drv_path.clone(), outputs: Vec::new() }).collect()
        }
        Some(Special::StdAction(action)) => action.needs.clone(),
        Some(Special::Program(_)) | None => Vec::new(),
    }
}

/// The derivations that are named somewhere in a value.
fn derivations_in(value: &serde_json::Value, into: &mut Vec<StorePath>) {
    match value {
        serde_json::Value::String(text) => {
            into.extend(StorePath::parse(text).ok().filter(StorePath::is_derivation));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| derivations_in(value, into)),
        serde_json::Value::Object(values) => values.values().for_each(|value| derivations_in(value, into)),
        _ => {}
    }
}
