//! The database of a store, as Nix writes it.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use phoenix_model::{Derivation, StorePath, ValidPathInfo};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use crate::path_infos::PATIENCE;

/// Opens the database for writing, with the settings of Nix (`src/libstore/local-store.cc`, `openDB`).
pub(super) fn open(path: &std::path::Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)?;
    database.busy_timeout(PATIENCE)?;
    database.pragma_update(None, "foreign_keys", true)?;
    database.pragma_update(None, "synchronous", "normal")?;
    database.pragma_update(None, "wal_autocheckpoint", 40_000)?;
    Ok(database)
}

/// The number of a path that is valid.
pub(super) fn id_of(database: &Connection, path: &StorePath) -> rusqlite::Result<Option<i64>> {
    let mut query = database.prepare_cached("select id from ValidPaths where path = ?")?;
    query.query_row([path.as_str()], |row| row.get(0)).optional()
}

/// A path to register, and what its file says where it is a derivation.
pub(super) struct Row<'i> {
    pub(super) info: &'i ValidPathInfo,
    pub(super) derivation: Option<&'i Derivation>,
}

/// The numbers of paths that are valid and stay so.
pub(super) type Ids = HashMap<StorePath, i64>;

/// Registers all the paths or none; references come before those who refer to them. `ids` are those that are known,
/// and then of all that was looked at.
///
/// `Ok(Err(…))` names a path and one it refers to that is not valid.
pub(super) fn register(
    database: &mut Connection,
    rows: &[Row<'_>],
    ids: &mut Ids,
) -> rusqlite::Result<Result<(), (StorePath, StorePath)>> {
    // Never a reader that becomes a writer: SQLite refuses that at once when another writes.
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut insert = transaction.prepare_cached(
            "insert into ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) \
             values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (path) do update set narSize = excluded.narSize, \
             hash = excluded.hash, ultimate = excluded.ultimate, sigs = excluded.sigs, ca = excluded.ca \
             returning id",
        )?;
        let mut refer =
            transaction.prepare_cached("insert or replace into Refs (referrer, reference) values (?, ?)")?;
        let mut output = transaction
            .prepare_cached("insert or replace into DerivationOutputs (drv, id, path) values (?, ?, ?)")?;
        for Row { info, derivation } in rows {
            let deriver = info.deriver.as_ref().map(StorePath::as_str);
            let size = i64::try_from(info.nar_size).ok().filter(|&size| size != 0);
            let signatures = (!info.signatures.is_empty()).then(|| info.signatures.join(" "));
            let time = if info.registration_time == 0 { now() } else { info.registration_time };
            let id: i64 = insert.query_row(
                params![
                    info.path.as_str(),
                    info.nar_hash.to_string(),
                    time,
                    deriver,
                    size,
                    info.ultimate.then_some(1),
                    signatures,
                    info.content_address
                ],
                |row| row.get(0),
            )?;
            ids.insert(info.path.clone(), id);
            for reference in &info.references {
                let reference_id = match ids.get(reference) {
                    Some(&id) => id,
                    None => match id_of(&transaction, reference)? {
                        Some(id) => *ids.entry(reference.clone()).or_insert(id),
                        None => return Ok(Err((info.path.clone(), reference.clone()))),
                    },
                };
                refer.execute([id, reference_id])?;
            }
            for known in derivation.iter().flat_map(|derivation| &derivation.outputs) {
                if let Some(path) = &known.path {
                    output.execute(params![id, known.name.as_str(), path.as_str()])?;
                }
            }
        }
    }
    transaction.commit().map(Ok)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
