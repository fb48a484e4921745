//! A depot with what is needed to use it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use phoenix_depot::{BlobName, Depot};
use phoenix_pack::Catalog;
use tokio::runtime::Runtime;

use crate::frames::ROOM;
use crate::{Packs, Trouble};

/// Whoever saved at the same time can be seen by then, on most days.
const MEET_AFTER: Duration = Duration::from_secs(1);

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
    /// What that run needs besides what it saves.
    pub(crate) needs: BTreeSet<String>,
    /// How long after a save it is looked whether others know of it, where packs are found by the newest.
    pub(crate) meet_after: Duration,
    /// How many bytes a restore holds ahead of their use, and half as many for a later use.
    pub(crate) room: u64,
    /// Whether something was found to be damaged that no pack tells yet.
    pub(crate) damage_is_news: bool,
}

impl Cache {
    /// Reads what a depot has. What cannot be read is told to `trouble` and is as if it were not there.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn open(depot: Arc<dyn Depot>, trouble: &mut (dyn FnMut(Trouble) + Send)) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let packs = runtime.block_on(Packs::load(depot, trouble));
        Ok(Self {
            runtime,
            packs,
            branch: None,
            needs: BTreeSet::new(),
            meet_after: MEET_AFTER,
            room: ROOM,
            damage_is_news: false,
        })
    }

    /// Says which branch and which run of it what is saved is for, so that collection knows what branches need.
    /// The number is greater for later runs of a branch; the jobs of one run share it.
    pub fn set_branch(&mut self, branch: impl Into<String>, run: u64) {
        self.branch = Some((branch.into(), run));
    }

    /// Says how long after a save it is looked, at the latest, whether others know of it, where packs are found by the
    /// newest only; a second if nothing is said. Where the depot is quick it is looked sooner.
    pub fn set_meeting(&mut self, after: Duration) {
        self.meet_after = after;
    }

    /// Says how many bytes of packs a restore holds in memory ahead of their use, and half as many for a later use; 48
    /// MiB if nothing is said. What is more than that waits in a file.
    pub fn set_room(&mut self, bytes: u64) {
        self.room = bytes;
    }

    /// Says which paths (`HASH-NAME`) of this depot the run needs besides those that it saves: what it restored.
    /// Those that no pack has are passed over.
    pub fn set_needs(&mut self, names: impl IntoIterator<Item = String>) {
        self.needs = names.into_iter().collect();
    }

    /// What to restore when nothing is named: what the last run of the first of these branches needed of which
    /// that is known; else what the last run of any branch did, else what was saved last. Beside it is what of that is in
    /// no pack any more.
    pub fn latest(&mut self, branches: &[String]) -> (BTreeSet<String>, BTreeSet<String>) {
        let catalog = self.packs.catalog();
        let uses = &catalog.others().branches;
        let named = branches.iter().filter_map(|branch| uses.get(branch));
        let mut all: Vec<_> = uses.values().collect();
        all.sort_by_key(|used| std::cmp::Reverse(used.at));
        let needs = named.chain(all).find(|used| !used.roots.is_empty()).map(|used| used.roots.clone());
        let Some(roots) = needs else { return (catalog.latest(), BTreeSet::new()) };
        let known = catalog.names();
        roots.into_iter().partition(|root| known.contains(root))
    }

    /// How many packs are left out because there is no room for what they say of their paths: what is in no pack may be in
    /// these.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.packs.left_out()
    }

    /// Takes in a pack that somebody made since the depot was read; whether it is there.
    ///
    /// # Errors
    /// When it cannot be told, or the pack cannot be used.
    pub fn see(&mut self, pack: &BlobName) -> Result<bool, Trouble> {
        self.runtime.block_on(self.packs.see(pack))
    }

    /// What is wrong with the first bytes of the live packs, which a restore does not read.
    #[must_use]
    pub fn check_heads(&self) -> Vec<Trouble> {
        self.runtime.block_on(self.packs.check_heads())
    }

    /// What the packs say together.
    pub fn catalog(&mut self) -> &mut Catalog {
        self.packs.catalog()
    }
}
