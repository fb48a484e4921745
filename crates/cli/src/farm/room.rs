//! Room on a worker's disk: when little is left, what no open unit needs goes from the store.

use std::collections::HashSet;

use phoenix_model::{StorePath, ValidPathInfo};
use phoenix_store::{Layout, PathInfos};

use crate::depots;
use crate::error::CommandError;

/// How many bytes there have to be to let go of. Each time costs a pack, for what is in none yet.
const WORTH: u64 = 32 << 20;

/// What is known of the room in a worker's store.
pub(super) struct Room {
    layout: Layout,
    /// How many bytes are to be free.
    min_free: u64,
    /// What was valid before the worker came. It is not the worker's, and stays.
    before: HashSet<StorePath>,
}

impl Room {
    /// Looks at a store to which nothing has been brought yet.
    pub(super) fn new(layout: &Layout, store: &str, min_free: u64) -> Result<Self, CommandError> {
        let before = if layout.database().exists() {
            let infos = depots::infos(layout, Some(store))?;
            infos.all_paths().map_err(|error| depots::no_look(&error))?.into_iter().collect()
        } else {
            HashSet::new()
        };
        Ok(Self { layout: layout.clone(), min_free, before })
    }

    /// Whether fewer bytes are free than there should be. What cannot be asked is no reason to do anything.
    pub(super) fn is_short(&self) -> bool {
        rustix::fs::statvfs(&self.layout.real_dir)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < self.min_free)
    }

    /// What may go when nothing is needed but these paths and what they refer to, and how many bytes that is;
    /// nothing when that is too little to be worth it. Whoever refers to one of them is among them, or it would be
    /// needed.
    pub(super) fn dispensable(
        &self,
        infos: &PathInfos,
        needed: Vec<StorePath>,
    ) -> Result<(Vec<StorePath>, u64), CommandError> {
        let all = infos.all_paths().map_err(|error| depots::no_look(&error))?;
        let valid: HashSet<&StorePath> = all.iter().collect();
        let needed = needed.into_iter().filter(|path| valid.contains(path)).collect();
        let needed = depots::closure(infos, needed)?.into_iter().map(|info| info.path).collect();
        let brought: Vec<&StorePath> = all.iter().filter(|path| !self.before.contains(*path)).collect();
        let brought = infos.of(brought).map_err(|error| depots::no_look(&error))?;
        let (paths, size) = without(brought, &needed);
        Ok(if size < WORTH { (Vec::new(), 0) } else { (paths, size) })
    }
}

/// The paths that are not needed, and how many bytes they have. Derivations stay: they are small, and the plan
/// is read from them.
fn without(brought: Vec<ValidPathInfo>, needed: &HashSet<StorePath>) -> (Vec<StorePath>, u64) {
    let goes = |info: &ValidPathInfo| !needed.contains(&info.path) && !info.path.is_derivation();
    let going = brought.into_iter().filter(goes);
    going.fold((Vec::new(), 0), |(mut paths, size), info| {
        paths.push(info.path);
        (paths, size + info.nar_size)
    })
}
