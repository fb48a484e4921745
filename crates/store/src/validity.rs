//! Which store paths are valid.

use std::collections::HashSet;
use std::time::Duration;

use phoenix_model::StorePath;
use rusqlite::{Connection, OpenFlags};

use crate::{Layout, Nix, NixError};

/// How many paths one `nix-store` call is asked for; keeps the arguments far below the kernel's limit.
const PATHS_A_CALL: usize = 2000;

/// Answers which paths are valid in one store: from its database where that can be read, else through
/// `nix-store`.
#[derive(Debug)]
pub struct Validity {
    nix: Nix,
    layout: Option<Layout>,
    database: Option<Connection>,
}

/// Why it cannot be told which paths are valid.
#[derive(Debug, thiserror::Error)]
pub enum ValidityError {
    /// Nix does not say.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// The database cannot be read.
    #[error("cannot read the database of the store, {path}")]
    Database {
        /// Its file.
        path: String,
        /// Why.
        source: rusqlite::Error,
    },
}

impl Validity {
    /// Opens the store that `nix` is set to build in. `layout` is where it lies, if it is on this disk.
    #[must_use]
    pub fn open(nix: &Nix, layout: Option<&Layout>) -> Self {
        let mut this = Self { nix: nix.clone(), layout: layout.cloned(), database: None };
        this.connect();
        this
    }

    fn connect(&mut self) {
        // Without rights to the database's lock files SQLite cannot see what the daemon wrote last;
        // then Nix itself is asked.
        self.database = self.layout.as_ref().and_then(|layout| open(layout).ok());
    }

    /// Those of the paths that are valid.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn valid<'a>(
        &mut self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<HashSet<StorePath>, ValidityError> {
        if self.database.is_none() {
            self.connect();
        }
        if let (Some(database), Some(layout)) = (&self.database, &self.layout) {
            return from_database(database, paths).map_err(|source| ValidityError::Database {
                path: layout.database().display().to_string(),
                source,
            });
        }
        let paths: Vec<&StorePath> = paths.into_iter().collect();
        let mut valid = HashSet::new();
        for some in paths.chunks(PATHS_A_CALL) {
            let mut command = self.nix.nix_store("--check-validity");
            command.arg("--print-invalid").args(some.iter().map(|path| path.as_str()));
            let text = self.nix.run(&mut command, "nix-store --check-validity")?;
            let invalid: HashSet<&str> = text.lines().collect();
            valid.extend(some.iter().filter(|path| !invalid.contains(path.as_str())).copied().cloned());
        }
        Ok(valid)
    }
}

/// Whether all outputs of a derivation exist, where their paths come about in the build: Nix is asked to
/// realise it and forbidden to do anything for it.
#[must_use]
pub fn is_realised(nix: &Nix, drv_path: &StorePath) -> bool {
    let mut command = nix.nix_store("--realise");
    command.args(["--no-gc-warning", "--option", "max-jobs", "0", "--option", "builders", ""]);
    command.args(["--option", "substitute", "false", drv_path.as_str()]);
    nix.run(&mut command, "nix-store --realise").is_ok()
}

fn open(layout: &Layout) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(layout.database(), flags)?;
    database.busy_timeout(Duration::from_secs(10))?;
    database.query_row("select count(*) from (select 1 from ValidPaths limit 1)", [], |_| Ok(()))?;
    Ok(database)
}

fn from_database<'a>(
    database: &Connection,
    paths: impl IntoIterator<Item = &'a StorePath>,
) -> rusqlite::Result<HashSet<StorePath>> {
    let transaction = database.unchecked_transaction()?;
    let mut query = transaction.prepare_cached("select 1 from ValidPaths where path = ?")?;
    let mut valid = HashSet::new();
    for path in paths {
        if query.exists([path.as_str()])? {
            valid.insert(path.clone());
        }
    }
    Ok(valid)
}
