//! From flags and environment to a Nix that can be used.

use std::path::{Path, PathBuf};

use phoenix_github::Trigger;
use phoenix_schedule::{Builders, Machine};
use phoenix_store::{Layout, Nix, RemoteBuilder, Settings, StoreEnv, Way, initialise};

use crate::args::{BuilderArgs, NixArgs};
use crate::error::CommandError;

/// The default of Nix's setting `store`; all of its programs and all versions heed it.
const REMOTE: &str = "NIX_REMOTE";

/// The Nix of a run: how it is called for evaluating and for building, and where its stores lie.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Set to the store that is evaluated in.
    pub(crate) eval_nix: Nix,
    /// Set to the store that is built in.
    pub(crate) nix: Nix,
    pub(crate) settings: Settings,
    /// Where derivations are read.
    pub(crate) eval_layout: Layout,
    /// Where the store that is built in lies, if it is on this disk.
    pub(crate) layout: Option<Layout>,
    /// The URL of the store that is evaluated in, when that is another one.
    pub(crate) copy_from: Option<String>,
    /// The URL of the store that is built in.
    pub(crate) store: String,
}

/// Finds Nix and asks for its settings.
pub(crate) fn setup(args: &NixArgs, build: Option<&BuilderArgs>) -> Result<Setup, CommandError> {
    let env = store_env();
    let store = args.store.clone().or_else(|| env.remote.clone()).unwrap_or_else(|| "auto".to_owned());
    let layout = Layout::of(&store, &env);
    // What is evaluated has to be read from this disk; so with a store elsewhere, evaluate here.
    let here = if layout.is_some() { store.as_str() } else { "auto" };
    let eval_store = args.eval_store.clone().unwrap_or_else(|| here.to_owned());
    let local_env = StoreEnv { remote: None, ..env };
    let eval_layout = Layout::of(&eval_store, &local_env).ok_or_else(|| {
        CommandError::new(format!("cannot evaluate in the store {eval_store}: it is not on this machine"))
            .hint("leave --eval-store out, or name a local store; --store may be anywhere")
    })?;
    let (nix, settings) = Settings::find(|nix| {
        hide_secrets(nix);
        for (name, value) in pairs(&args.options) {
            nix.set_option(name, value);
        }
        if let Some(build) = build {
            build_options(nix, build);
        }
        nix.set_env(REMOTE, &store);
    })?;
    let mut eval_nix = nix.clone();
    eval_nix.set_env(REMOTE, &eval_store);
    // A store that cannot be made is told of by whoever needs it first.
    drop(initialise(&eval_nix, &eval_layout));
    let copy_from = (eval_store != store).then_some(eval_store);
    Ok(Setup { eval_nix, nix, settings, eval_layout, layout, copy_from, store })
}

/// The Nix on PATH.
pub(crate) fn nix() -> Result<Nix, CommandError> {
    let mut nix = Nix::find()?;
    hide_secrets(&mut nix);
    Ok(nix)
}

/// What a job's services know the job by is ours alone: what it starts may be of strangers, and a builder may ask for any
/// variable of who calls Nix (`impureEnvVars`).
fn hide_secrets(nix: &mut Nix) {
    nix.hide_env("ACTIONS_RUNTIME_TOKEN");
}

/// What the environment says of stores.
pub(crate) fn store_env() -> StoreEnv {
    StoreEnv {
        store_dir: var("NIX_STORE_DIR").or_else(|| var("NIX_STORE")),
        state_dir: var("NIX_STATE_DIR"),
        log_dir: var("NIX_LOG_DIR"),
        remote: var("NIX_REMOTE"),
    }
}

fn build_options(nix: &mut Nix, build: &BuilderArgs) {
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    let options = [
        ("max-jobs", build.max_jobs.clone()),
        ("cores", number(build.cores)),
        ("builders", build.builders.clone()),
        ("timeout", number(build.timeout)),
        ("max-silent-time", number(build.max_silent_time)),
    ];
    for (name, value) in options {
        if let Some(value) = value {
            nix.set_option(name, &value);
        }
    }
}

/// The values of a flag that takes two.
pub(crate) fn pairs(values: &[String]) -> impl Iterator<Item = (&str, &str)> {
    values.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str()))
}

/// A variable of the environment that is set and not empty.
pub(crate) fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where the user's caches are: `$XDG_CACHE_HOME`, else `~/.cache`.
pub(crate) fn cache_home() -> Option<PathBuf> {
    let home = || var("HOME").map(|home| Path::new(&home).join(".cache"));
    var("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)
}

/// What set the workflow of this job off, if it is one of GitHub's.
///
/// # Errors
/// When that cannot be known.
pub(crate) fn trigger() -> Result<Option<Trigger>, String> {
    Trigger::read(var, |path| fs_err::read_to_string(path))
}

impl Setup {
    /// The way into the store that is evaluated in.
    pub(crate) fn eval_way(&self) -> Way {
        let socket = var("NIX_DAEMON_SOCKET_PATH");
        let store = self.copy_from.as_deref().unwrap_or(&self.store);
        Way::into(&self.eval_layout, Some(store), store_env().remote.as_deref(), socket.as_deref())
    }

    /// Who builds: this machine and its remote builders. Nothing is known of who builds for a store that
    /// is elsewhere.
    pub(crate) fn builders(&self) -> Builders {
        if self.layout.is_none() {
            return Builders::default();
        }
        let settings = &self.settings;
        let mut own = vec![settings.system.clone()];
        own.extend(settings.extra_platforms.iter().cloned());
        let mut machines = Vec::new();
        if settings.max_jobs > 0 {
            let features = settings.system_features.clone();
            machines.push(Machine { systems: own, features, mandatory: Vec::new() });
        }
        let read = |file: &str| fs_err::read_to_string(file).ok();
        for remote in RemoteBuilder::parse(&settings.builders, &read) {
            let systems =
                if remote.systems.is_empty() { vec![settings.system.clone()] } else { remote.systems };
            machines.push(Machine { systems, features: remote.features, mandatory: remote.mandatory });
        }
        Builders { machines }
    }
}
