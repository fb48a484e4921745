//! How derivations come into the store: through a daemon of our own, where this process may write it.

use std::sync::{Arc, OnceLock};

use phoenix_model::StorePath;
use phoenix_store::{DaemonProxy, Layout, Nix, with_causes};

use crate::left;

/// How the directories of sockets are called.
const HOME: &str = "phoenix-daemon-";

/// What evaluators write through; what they have written is protected from the garbage collector as long as this is
/// there.
#[derive(Debug)]
pub(crate) struct Through {
    proxy: DaemonProxy,
    directory: left::Made,
}

impl Through {
    /// In one of the directories for what is temporary: not any path can be that of a socket.
    fn start(nix: &Nix, layout: &Layout) -> Result<Self, String> {
        left::somewhere(|place| {
            let directory = left::make(place, HOME).map_err(|error| error.to_string())?;
            let proxy =
                DaemonProxy::start(nix, layout, directory.path()).map_err(|error| with_causes(&error))?;
            Ok(Self { proxy, directory })
        })
    }

    /// What evaluation has asked to have built so far, if all of it was heard.
    pub(crate) fn built(&self) -> Option<Vec<StorePath>> {
        self.proxy.built()
    }

    /// Why nobody can write any more, if somebody has taken away what they write through.
    pub(crate) fn is_gone(&self) -> Option<String> {
        self.proxy.is_gone().then(|| {
            let directory = self.directory.path().display();
            format!("the way into the store is gone: {directory} was removed; is there a TMPDIR that stays?")
        })
    }

    /// Why something was not written that can be, if the machine did not let us.
    pub(crate) fn refused(&self) -> Option<String> {
        self.proxy.refused()
    }

    /// How many derivations were written so far.
    pub(crate) fn written(&self) -> u64 {
        self.proxy.written()
    }

    /// How many of them, the first ones, are valid; an error says why no more will be. If somebody waits, all are.
    pub(crate) fn registered(&self, wait: bool) -> Result<u64, String> {
        if wait {
            self.proxy.register().map_err(|error| with_causes(&error))?;
        }
        self.proxy.registered().map_err(|error| with_causes(&error))
    }
}

/// What evaluators write through, once the first of them is started.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    /// The store; nothing where Nix writes it.
    layout: Option<Layout>,
    started: OnceLock<Result<Arc<Through>, String>>,
}

impl Writing {
    pub(crate) fn to(layout: Option<Layout>) -> Self {
        Self { layout, started: OnceLock::new() }
    }

    /// Nix for an evaluator.
    pub(crate) fn nix(&self, nix: &Nix) -> Nix {
        let Some(layout) = &self.layout else { return nix.clone() };
        match self.started.get_or_init(|| Through::start(nix, layout).map(Arc::new)) {
            Ok(through) => through.proxy.in_front_of(nix),
            Err(_) => nix.clone(),
        }
    }

    /// What they write through, if there is any; an error says why there is none.
    pub(crate) fn through(&self) -> Option<Result<&Arc<Through>, &str>> {
        self.started.get().map(|started| started.as_ref().map_err(String::as_str))
    }
}
