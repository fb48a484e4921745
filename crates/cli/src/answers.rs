//! What was evaluated before, in a directory of the user's cache, and in the depot of a run.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use phoenix_depot::BlobName;
use phoenix_evaluate::{Fingerprint, KeepAnswers};
use phoenix_model::{Severity, StorePath};
use phoenix_store::{PathInfos, TempRoots, TempRootsError};

use crate::blobs::{self, runtime};
use crate::depots;
use crate::error::CommandError;
use crate::kept::Kept;
use crate::recorder::Hear;
use crate::setup::{Setup, cache_home};

/// How many evaluations are kept: on this machine those that were used last, in a depot the newest.
const KEPT: usize = 100;

/// How hard what is kept is compressed: it is written while somebody waits.
const LEVEL: i32 = 1;

/// More than any evaluation comes to, unpacked.
const MOST: u64 = 1 << 30;

/// Where evaluations lie in a depot: below it the fingerprint, and below that what was made later is larger.
const EVALUATIONS: &str = "evaluations/";

/// The same for what is known of many sources. It is written only where something was learned, and would be the oldest
/// among those of single sources, of which there is one for each commit.
const FAMILIES: &str = "readings/";

/// The depot that evaluations are kept in besides this machine.
pub(crate) enum InDepot<'k> {
    /// None.
    No,
    /// One that has been read.
    Read(&'k mut Kept),
    /// One that is read once something is not known on this machine, or something new is. Without it everything is
    /// evaluated.
    Later {
        /// The depot.
        url: String,
        /// How many bytes all packs are to have together.
        budget: u64,
    },
    /// The same, now that it was read.
    Own(Box<Kept>),
}

impl<'k> From<Option<&'k mut Kept>> for InDepot<'k> {
    fn from(kept: Option<&'k mut Kept>) -> Self {
        kept.map_or(Self::No, Self::Read)
    }
}

impl InDepot<'_> {
    /// The depot, if there is one that can be read.
    fn kept(&mut self, hearer: &mut dyn Hear) -> Option<&mut Kept> {
        if let Self::Later { url, budget } = self {
            let read = depots::open(Some(url)).and_then(|depot| Kept::open(depot, *budget, hearer));
            *self = match read {
                Ok(kept) => Self::Own(Box::new(kept)),
                Err(error) => {
                    let text = format!("{}; evaluating without it", error.in_one_line());
                    hearer.hear(Severity::Warning, text);
                    Self::No
                }
            };
        }
        match self {
            Self::No | Self::Later { .. } => None,
            Self::Read(kept) => Some(kept),
            Self::Own(kept) => Some(kept),
        }
    }
}

/// What an evaluation rests on is protected from the garbage collector, in the store that is evaluated in.
pub(crate) struct Protected<'s> {
    setup: &'s Setup,
    /// As soon as there is anything.
    roots: RefCell<Option<TempRoots>>,
}

impl<'s> Protected<'s> {
    pub(crate) fn new(setup: &'s Setup) -> Self {
        Self { setup, roots: RefCell::default() }
    }

    /// Protects paths; those of them that are valid stay so.
    pub(crate) fn valid<'p>(
        &self,
        paths: impl IntoIterator<Item = &'p StorePath> + Clone,
    ) -> Result<HashSet<StorePath>, TempRootsError> {
        let mut roots = self.roots.borrow_mut();
        let roots = match &mut *roots {
            Some(roots) => roots,
            None => {
                let setup = self.setup;
                roots.insert(TempRoots::start(&setup.eval_nix, &setup.eval_layout, &setup.eval_way())?)
            }
        };
        roots.valid(paths)
    }

    /// What goes on protecting them.
    pub(crate) fn into_roots(self) -> Option<TempRoots> {
        self.roots.into_inner()
    }
}

/// The evaluations that are kept.
pub(crate) struct KeptAnswers<'s> {
    setup: &'s Setup,
    /// On this machine.
    directory: Option<PathBuf>,
    depot: RefCell<InDepot<'s>>,
    protected: &'s Protected<'s>,
    /// What there is to say.
    said: RefCell<Vec<(Severity, String)>>,
}

impl<'s> KeptAnswers<'s> {
    /// In `$XDG_CACHE_HOME/phoenix`, else `~/.cache/phoenix`, and in the depot, if there is one.
    pub(crate) fn open(protected: &'s Protected<'s>, depot: InDepot<'s>) -> Self {
        Self {
            setup: protected.setup,
            protected,
            directory: cache_home().map(|cache| cache.join("phoenix/evaluations")),
            depot: RefCell::new(depot),
            said: RefCell::default(),
        }
    }

    /// What there is to say by now.
    pub(crate) fn said(&self) -> Vec<(Severity, String)> {
        self.said.take()
    }

    fn read_here(&self, fingerprint: &Fingerprint) -> Option<Vec<u8>> {
        let path = self.directory.as_ref()?.join(fingerprint.as_str());
        let file = std::fs::File::open(path).ok()?;
        // What is used is kept; where that cannot be noted, it goes a little earlier.
        let _ = file.set_modified(std::time::SystemTime::now());
        unpacked(file)
    }

    fn write_here(&self, fingerprint: &Fingerprint, packed: &[u8]) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        fs::create_dir_all(directory)?;
        let file = tempfile::NamedTempFile::new_in(directory)?;
        fs::write(file.path(), packed)?;
        file.persist(directory.join(fingerprint.as_str())).map_err(|error| error.error)?;
        forget_old(directory)
    }

    fn read_depot(&self, fingerprint: &Fingerprint) -> Result<Option<Vec<u8>>, CommandError> {
        let mut depot = self.depot.borrow_mut();
        let Some(kept) = depot.kept(&mut *self.said.borrow_mut()) else { return Ok(None) };
        let depot = kept.depot();
        let bytes = runtime()?.block_on(async {
            match depot.newest(&prefix(fingerprint)).await? {
                Some(blob) if blob.size <= MOST => blobs::read(depot.as_ref(), &blob).await.map(Some),
                _ => Ok(None),
            }
        });
        let bytes = bytes
            .map_err(|error| CommandError::because("the depot does not tell what was evaluated", &error))?;
        Ok(bytes.and_then(|bytes| unpacked(bytes.as_slice())))
    }

    /// Keeps answers in the depot, and the derivations that they are of use with.
    fn write_depot(
        &self,
        fingerprint: &Fingerprint,
        packed: &[u8],
        needs: &BTreeSet<StorePath>,
    ) -> Result<(), CommandError> {
        let mut place = self.depot.borrow_mut();
        let Some(kept) = place.kept(&mut *self.said.borrow_mut()) else { return Ok(()) };
        let layout = &self.setup.eval_layout;
        let infos = PathInfos::open(layout).map_err(|error| depots::no_look(&error))?;
        let paths = depots::closure(&infos, needs.iter().cloned().collect())?;
        let saved = kept.save(layout, &paths, &mut *self.said.borrow_mut())?;
        if let Some(pack) = &saved.pack {
            kept.see(pack.as_str())?;
        }
        let cannot = |error: &dyn std::error::Error| {
            CommandError::because("the depot does not keep what was evaluated", error)
        };
        let unique = depots::new_name().to_string();
        let unique = unique.rsplit('/').next().unwrap_or_default();
        let name =
            BlobName::new(format!("{}{unique}", prefix(fingerprint))).map_err(|error| cannot(&error))?;
        let depot = kept.depot().clone();
        runtime()?.block_on(async {
            let bytes = packed.to_vec();
            blobs::create(depot.as_ref(), &name, bytes).await.map_err(|error| cannot(&error))?;
            let mut all = depot.list(kind(fingerprint)).await.unwrap_or_default();
            all.sort_by_key(|blob| std::cmp::Reverse(blob.created));
            blobs::forget(&depot, all.into_iter().skip(KEPT)).await;
            Ok::<(), CommandError>(())
        })?;
        // Nobody else does it for a depot that is only evaluated with.
        if let (InDepot::Own(kept), Some(_)) = (&mut *place, &saved.pack) {
            kept.tidy(saved.size, &mut *self.said.borrow_mut());
        }
        Ok(())
    }

    /// Brings paths from the depot into the store that is evaluated in.
    fn bring_back(&self, missing: &[StorePath]) {
        if missing.is_empty() {
            return;
        }
        let mut depot = self.depot.borrow_mut();
        let Some(kept) = depot.kept(&mut *self.said.borrow_mut()) else { return };
        let there: Vec<StorePath> = missing.iter().filter(|path| kept.has(path)).cloned().collect();
        if there.is_empty() {
            return;
        }
        let setup = self.setup;
        let store = setup.copy_from.as_ref().unwrap_or(&setup.store);
        let said = &mut *self.said.borrow_mut();
        match kept.restore(&there, &setup.eval_layout, store, &setup.eval_nix, said) {
            Ok(restored) => {
                let text = format!("{} derivations and sources are from the depot", restored.paths.len());
                said.push((Severity::Detail, text));
            }
            Err(error) => {
                let error = CommandError::because("no derivation can be had from the depot", &error);
                said.push((Severity::Warning, error.in_one_line()));
            }
        }
    }

    fn warn(&self, done: Result<(), CommandError>) {
        if let Err(error) = done {
            self.said.borrow_mut().push((Severity::Warning, error.in_one_line()));
        }
    }
}

fn prefix(fingerprint: &Fingerprint) -> String {
    format!("{}{}/", kind(fingerprint), fingerprint.as_str())
}

fn kind(fingerprint: &Fingerprint) -> &'static str {
    if fingerprint.is_of_family() { FAMILIES } else { EVALUATIONS }
}

fn unpacked(packed: impl io::Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    zstd::stream::read::Decoder::new(packed).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Forgets what was not used for long.
fn forget_old(directory: &Path) -> io::Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        all.push((entry.metadata()?.modified()?, entry.path()));
    }
    all.sort();
    let surplus = all.len().saturating_sub(KEPT);
    for (_, path) in all.into_iter().take(surplus) {
        // Another run may be forgetting it too.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

impl KeepAnswers for KeptAnswers<'_> {
    fn recall(&self, fingerprint: &Fingerprint) -> Option<Vec<u8>> {
        self.read_here(fingerprint).or_else(|| match self.read_depot(fingerprint) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.warn(Err(error));
                None
            }
        })
    }

    fn keep(&self, fingerprint: &Fingerprint, bytes: &[u8], needs: &BTreeSet<StorePath>) {
        // It can only make the next evaluation faster.
        let Ok(packed) = zstd::bulk::compress(bytes, LEVEL) else { return };
        let _ = self.write_here(fingerprint, &packed);
        self.warn(self.write_depot(fingerprint, &packed, needs));
    }

    fn present(&self, paths: &BTreeSet<StorePath>) -> HashSet<StorePath> {
        let valid = self.protected.valid(paths).and_then(|mut valid| {
            let missing: Vec<StorePath> =
                paths.iter().filter(|path| !valid.contains(path)).cloned().collect();
            if !missing.is_empty() {
                self.bring_back(&missing);
                valid.extend(self.protected.valid(&missing)?);
            }
            Ok(valid)
        });
        // What cannot be told is evaluated.
        valid.unwrap_or_else(|error| {
            let error = CommandError::because("what was evaluated before is not used", &error);
            self.said.borrow_mut().push((Severity::Warning, error.in_one_line()));
            HashSet::new()
        })
    }
}
