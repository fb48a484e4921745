//! Drives the search for what is missing: reads derivations, looks into the store, asks substituters.

mod known;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use phoenix_model::{Source, Status, StorePath, Target, TargetId};
use phoenix_schedule::{Estimates, Plan, Question, Search};
use phoenix_store::{ReadAhead, Validity, read_derivations};
use phoenix_substituter::Heard;

use crate::error::CommandError;
use crate::kept::Kept;
use crate::setup::{Setup, var};

pub(crate) use self::known::Known;

/// How many derivations are read and held at once.
const READ_AT_ONCE: usize = 1024;

/// What came of the search.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) plan: Plan,
    /// The target of each goal of the plan.
    pub(crate) targets: Vec<TargetId>,
    /// Seconds that earlier runs took for what is cached now.
    pub(crate) saved_seconds: f64,
    /// Substituters that did not answer as they should: Nix need not ask them again.
    pub(crate) failed: Vec<String>,
}

/// What is heard while searching.
#[derive(Debug)]
pub(crate) enum Searching<'a> {
    /// A substituter does not answer as it should.
    Trouble {
        /// Its URL without credentials.
        url: &'a str,
        /// What is wrong.
        problem: &'a str,
    },
    /// Nothing for a moment: substituters are waited for.
    Waiting,
}

/// Finds out what is missing for the targets. Of each substituter that fails is heard once.
pub(crate) fn search(
    setup: &Setup,
    targets: &[Target],
    estimates: &Estimates,
    depot: Option<&mut Kept>,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Searching<'_>),
) -> Result<Found, CommandError> {
    let driver = Driver {
        setup,
        depot,
        known: None,
        search: Search::default(),
        validity: Validity::open(&setup.nix, setup.layout.as_ref()),
        failed: Vec::new(),
        whole: HashMap::new(),
    };
    drive(driver, targets, estimates, stop, hear)
}

/// Finds out what is missing for more targets; what is known already is asked for no more.
pub(crate) fn search_again(
    setup: &Setup,
    targets: &[Target],
    estimates: &Estimates,
    known: &mut Known,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Searching<'_>),
) -> Result<Found, CommandError> {
    let driver = Driver {
        setup,
        depot: None,
        known: Some(known),
        search: Search::default(),
        validity: Validity::open(&setup.nix, setup.layout.as_ref()),
        failed: Vec::new(),
        whole: HashMap::new(),
    };
    drive(driver, targets, estimates, stop, hear)
}

fn drive(
    mut driver: Driver<'_>,
    targets: &[Target],
    estimates: &Estimates,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Searching<'_>),
) -> Result<Found, CommandError> {
    let setup = driver.setup;
    let mut goals = Vec::new();
    for target in targets {
        if let Some(drv_path) = &target.drv_path {
            driver.search.add_goal(drv_path, &target.wanted);
            goals.push(target.id);
        }
    }
    let first = driver.advance()?;
    driver.ask_substituters(first, stop, hear)?;
    let plan = driver.search.into_plan(estimates);
    let saved_seconds = saved(setup, &plan, estimates);
    Ok(Found { plan, targets: goals, saved_seconds, failed: driver.failed })
}

struct Driver<'a> {
    setup: &'a Setup,
    depot: Option<&'a mut Kept>,
    known: Option<&'a mut Known>,
    search: Search,
    validity: Validity,
    failed: Vec<String>,
    /// Of paths of the depot, whether all that they refer to can be had.
    whole: HashMap<String, bool>,
}

impl Driver<'_> {
    /// Goes on as far as this machine alone can tell; returns what the substituters have to be asked.
    fn advance(&mut self) -> Result<Vec<StorePath>, CommandError> {
        let ask = self.setup.settings.substitute && !self.setup.settings.substituters.is_empty();
        let mut remote = Vec::new();
        loop {
            // A part at a time, and the next while the last one's questions are answered.
            let to_read = self.search.to_read_some(READ_AT_ONCE);
            let ahead = (!to_read.is_empty()).then(|| ReadAhead::start(&self.setup.eval_layout, to_read));
            let questions = self.search.to_ask();
            if questions.is_empty() && ahead.is_none() {
                return Ok(remote);
            }
            let valid = self
                .validity
                .valid(questions.iter().map(|question| &question.path))
                .map_err(|error| CommandError::because("cannot look into the store", &error))?;
            for question in questions {
                if valid.contains(&question.path) {
                    self.search.answer(&question.path, &Status::Present(Source::Store));
                } else if let Some(source) = self.in_depot(&question) {
                    self.search.answer(&question.path, &Status::Present(source));
                } else if let Some(status) = self.known.as_ref().and_then(|known| known.status(&question)) {
                    self.search.answer(&question.path, status);
                } else if ask && !question.store_only {
                    remote.push(question.path);
                } else {
                    self.search.answer(&question.path, &Status::Absent);
                }
            }
            for (path, read) in ahead.into_iter().flat_map(ReadAhead::wait) {
                self.search.read(&path, read);
            }
        }
    }

    /// The depot, when it has what is asked for and all that this refers to. What no pack knows of was left to a
    /// substituter; what a pack knows of and cannot give is only there if the store has it.
    fn in_depot(&mut self, question: &Question) -> Option<Source> {
        let kept = self.depot.as_mut().filter(|_| !question.store_only)?;
        let settings = &self.setup.settings;
        let asks = settings.substitute && !settings.substituters.is_empty();
        let store_dir = &self.setup.eval_layout.store_dir;
        let validity = &mut self.validity;
        let mut elsewhere = |name: &str, is_known: bool| {
            let path = StorePath::parse(&format!("{store_dir}/{name}"));
            let valid =
                path.ok().and_then(|path| validity.valid([&path]).ok().map(|valid| valid.contains(&path)));
            valid == Some(true) || (asks && !is_known)
        };
        kept.offers(&question.path, &mut self.whole, &mut elsewhere).then(|| kept.source())
    }

    fn ask_substituters(
        &mut self,
        first: Vec<StorePath>,
        stop: &AtomicBool,
        hear: &mut dyn FnMut(Searching<'_>),
    ) -> Result<(), CommandError> {
        if first.is_empty() {
            return Ok(());
        }
        let settings = substituter_settings(self.setup);
        let mut broken = None;
        let asked = phoenix_substituter::ask(&settings, stop, first, &mut |heard| {
            match heard {
                Heard::Waiting => {
                    hear(Searching::Waiting);
                    return Vec::new();
                }
                Heard::Answer { path, status, found } => {
                    self.search.answer(&path, &status);
                    if let Some(known) = &mut self.known {
                        known.learn(path, status, found);
                    }
                }
                Heard::Failed { url, problem } => {
                    hear(Searching::Trouble { url: &url, problem: &problem });
                    self.failed.push(url);
                }
                Heard::Strange { url, problem } => hear(Searching::Trouble { url: &url, problem: &problem }),
                Heard::Untrusted { url, example } => {
                    let problem = format!(
                        "what it has is not signed by a trusted key and is not used (for example {})",
                        example.base_name()
                    );
                    hear(Searching::Trouble { url: &url, problem: &problem });
                }
            }
            self.advance().unwrap_or_else(|error| {
                broken = Some(error);
                stop_asking()
            })
        });
        asked.map_err(|error| CommandError::because("cannot ask the substituters", &error))?;
        match broken.filter(|_| !stop.load(Ordering::Relaxed)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Nothing more to ask: what is open stays unknown.
fn stop_asking() -> Vec<StorePath> {
    Vec::new()
}

fn substituter_settings(setup: &Setup) -> phoenix_substituter::Settings {
    let nix = &setup.settings;
    let file = |path: &str| (!path.is_empty()).then(|| path.into());
    phoenix_substituter::Settings {
        nix: setup.nix.clone(),
        substituters: nix.substituters.clone(),
        trusted_public_keys: nix.trusted_public_keys.clone(),
        require_sigs: nix.require_sigs,
        store_dir: setup.eval_layout.store_dir.clone(),
        netrc_file: file(&nix.netrc_file),
        ssl_cert_file: var("NIX_SSL_CERT_FILE")
            .or_else(|| var("SSL_CERT_FILE"))
            .map(Into::into)
            .or_else(|| file(&nix.ssl_cert_file)),
        connections: nix.http_connections.max(phoenix_substituter::DEFAULT_CONNECTIONS),
        timeout: Duration::from_secs(30),
    }
}

/// The seconds that earlier runs took for what is below the goals that are cached now, each derivation
/// once: as far as it was built here, which is as far as anybody can know.
fn saved(setup: &Setup, plan: &Plan, estimates: &Estimates) -> f64 {
    let mut seen: HashMap<StorePath, ()> = HashMap::new();
    let mut next: Vec<StorePath> = plan.found.keys().cloned().collect();
    let mut seconds = 0.0;
    while !next.is_empty() {
        next.retain(|drv_path| seen.insert(drv_path.clone(), ()).is_none());
        let known: Vec<StorePath> =
            next.drain(..).filter(|drv_path| estimates.known(drv_path).is_some()).collect();
        seconds += known.iter().filter_map(|drv_path| estimates.known(drv_path)).sum::<f64>();
        for some in known.chunks(READ_AT_ONCE) {
            for derivation in read_derivations(&setup.eval_layout, some).into_iter().flatten() {
                next.extend(derivation.input_drvs.iter().map(|input| input.path.to_store_path()));
            }
        }
    }
    seconds
}
