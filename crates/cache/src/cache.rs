//! A depot with what is needed to use it.

use std::sync::Arc;

use phoenix_depot::{BlobName, Depot};
use phoenix_pack::Catalog;
use tokio::runtime::Runtime;

use crate::{Packs, Trouble};

/// The packs of a depot, ready to be saved to and restored from.
///
/// All that waits for the depot happens on a runtime of its own; who calls it need not know of one, and must
/// not be on another.
#[derive(Debug)]
pub struct Cache {
    pub(crate) runtime: Runtime,
    pub(crate) packs: Packs,
    /// The branch and the number of the run that what is saved is for.
    pub(crate) branch: Option<(String, u64)>,
}

impl Cache {
    /// Reads what a depot has. What cannot be read is told to `trouble` and is as if it were not there.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn open(depot: Arc<dyn Depot>, trouble: &mut (dyn FnMut(Trouble) + Send)) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let packs = runtime.block_on(Packs::load(depot, trouble));
        Ok(Self { runtime, packs, branch: None })
    }

    /// Says which branch and which run of it what is saved is for, so that collection knows what branches need.
    /// The number is greater for later runs of a branch; the jobs of one run share it.
    pub fn set_branch(&mut self, branch: impl Into<String>, run: u64) {
        self.branch = Some((branch.into(), run));
    }

    /// Takes in a pack that somebody made since the depot was read; whether it is there.
    ///
    /// # Errors
    /// When it cannot be told, or the pack cannot be used.
    pub fn see(&mut self, pack: &BlobName) -> Result<bool, Trouble> {
        self.runtime.block_on(self.packs.see(pack))
    }

    /// What the packs say together.
    pub fn catalog(&mut self) -> &mut Catalog {
        self.packs.catalog()
    }
}
