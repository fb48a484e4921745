//! What the database of a store says of its valid paths.

use std::collections::HashMap;
use std::time::Duration;

use phoenix_model::{NarHash, StorePath, ValidPathInfo};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row};

use crate::{Daemon, Layout, Way};

/// How long a busy database is waited for; Nix waits without end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const COLUMNS: &str = "id, path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca";

/// Reads what a store knows of its valid paths, from its database.
#[derive(Debug)]
pub struct PathInfos {
    database: Connection,
    path: String,
    _daemon: Option<Daemon>,
}

/// Why it cannot be read what a store knows.
#[derive(Debug, thiserror::Error)]
pub enum PathInfosError {
    /// The database cannot be read.
    #[error("cannot read the database of the store, {path}")]
    Database {
        /// Its file.
        path: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// It holds something that Nix does not write.
    #[error("the database of the store, {path}, is damaged at `{row}`: {problem}")]
    Damaged {
        /// Its file.
        path: String,
        /// The path it says it of.
        row: String,
        /// What is wrong.
        problem: String,
    },
}

/// A row that was read, whatever is in it.
struct Raw {
    id: i64,
    path: String,
    hash: String,
    registration_time: i64,
    deriver: Option<String>,
    nar_size: Option<i64>,
    ultimate: Option<i64>,
    signatures: Option<String>,
    content_address: Option<String>,
}

impl PathInfos {
    /// Opens the database for reading.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(layout: &Layout) -> Result<Self, PathInfosError> {
        let path = layout.database().display().to_string();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&path, flags)
            .and_then(|database| database.busy_timeout(PATIENCE).map(|()| database))
            .map_err(|source| PathInfosError::Database { path: path.clone(), source })?;
        Ok(Self { database, path, _daemon: None })
    }

    /// Opens the database for reading, by the way that leads into the store: who may not write it can read it only
    /// while somebody who may has it open (<https://sqlite.org/wal.html#readonly>). So a connection to the daemon
    /// is held meanwhile.
    ///
    /// # Errors
    /// When there is no database, or it cannot be read.
    pub fn open_by(layout: &Layout, way: &Way) -> Result<Self, PathInfosError> {
        let daemon = match way {
            Way::Direct => None,
            // Without it the database may be readable all the same, and says what is wrong if it is not.
            Way::Daemon(socket) => Daemon::connect(socket).ok(),
        };
        Ok(Self { _daemon: daemon, ..Self::open(layout)? })
    }

    /// All paths that are valid, sorted.
    ///
    /// # Errors
    /// When the database cannot be read, or a row is no store path.
    pub fn all_paths(&self) -> Result<Vec<StorePath>, PathInfosError> {
        let texts = || -> rusqlite::Result<Vec<String>> {
            let mut query = self.database.prepare_cached("select path from ValidPaths order by path")?;
            query.query_map([], |row| row.get(0))?.collect()
        };
        let texts = texts().map_err(|source| self.unreadable(source))?;
        texts.iter().map(|text| self.store_path(text, text)).collect()
    }

    /// What is known of those of the paths that are valid, in the order they are asked for.
    ///
    /// All is read at one point in time.
    ///
    /// # Errors
    /// When the database cannot be read, or a row is damaged.
    pub fn of<'p>(
        &self,
        paths: impl IntoIterator<Item = &'p StorePath>,
    ) -> Result<Vec<ValidPathInfo>, PathInfosError> {
        let failed = |source| self.unreadable(source);
        let _one_point_in_time = self.database.unchecked_transaction().map_err(failed)?;
        let mut query = self
            .database
            .prepare_cached(&format!("select {COLUMNS} from ValidPaths where path = ?"))
            .map_err(failed)?;
        let mut references = self
            .database
            .prepare_cached("select path from Refs join ValidPaths on reference = id where referrer = ?")
            .map_err(failed)?;
        let mut infos = Vec::new();
        // The same few paths are referred to again and again.
        let mut known: HashMap<String, StorePath> = HashMap::new();
        for path in paths {
            let Some(raw) = query.query_row([path.as_str()], raw).optional().map_err(failed)? else {
                continue;
            };
            let id = raw.id;
            let mut info = self.info(raw)?;
            let mut rows = references.query([id]).map_err(failed)?;
            while let Some(row) = rows.next().map_err(failed)? {
                let text = row.get_ref(0).and_then(|text| Ok(text.as_str()?)).map_err(failed)?;
                let reference = match known.get(text) {
                    Some(path) => path.clone(),
                    None => {
                        let parsed = self.store_path(text, info.path.as_str())?;
                        known.insert(text.to_owned(), parsed.clone());
                        parsed
                    }
                };
                info.references.push(reference);
            }
            info.references.sort_unstable();
            infos.push(info);
        }
        Ok(infos)
    }

    fn info(&self, raw: Raw) -> Result<ValidPathInfo, PathInfosError> {
        let path = self.store_path(&raw.path, &raw.path)?;
        let hash = NarHash::parse(&raw.hash).map_err(|error| self.damaged(&raw.path, &error))?;
        let size =
            u64::try_from(raw.nar_size.unwrap_or(0)).map_err(|error| self.damaged(&raw.path, &error))?;
        let deriver = raw.deriver.filter(|deriver| !deriver.is_empty());
        let mut signatures: Vec<String> =
            raw.signatures.iter().flat_map(|all| all.split_ascii_whitespace()).map(str::to_owned).collect();
        signatures.sort_unstable();
        signatures.dedup();
        Ok(ValidPathInfo {
            deriver: deriver.map(|deriver| self.store_path(&deriver, &raw.path)).transpose()?,
            signatures,
            content_address: raw.content_address.filter(|address| !address.is_empty()),
            registration_time: raw.registration_time,
            ultimate: raw.ultimate == Some(1),
            ..ValidPathInfo::new(path, hash, size)
        })
    }

    fn store_path(&self, text: &str, row: &str) -> Result<StorePath, PathInfosError> {
        StorePath::parse(text).map_err(|error| self.damaged(row, &error))
    }

    fn damaged(&self, row: &str, problem: &dyn std::fmt::Display) -> PathInfosError {
        PathInfosError::Damaged { path: self.path.clone(), row: row.to_owned(), problem: problem.to_string() }
    }

    fn unreadable(&self, source: rusqlite::Error) -> PathInfosError {
        PathInfosError::Database { path: self.path.clone(), source }
    }
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        id: row.get(0)?,
        path: row.get(1)?,
        hash: row.get(2)?,
        registration_time: row.get(3)?,
        deriver: row.get(4)?,
        nar_size: row.get(5)?,
        ultimate: row.get(6)?,
        signatures: row.get(7)?,
        content_address: row.get(8)?,
    })
}
