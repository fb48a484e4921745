//! Nix's own cache, without what it remembers of copied sources.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rusqlite::{Connection, OpenFlags};

use crate::left;

/// The part of Nix's cache that tells what was fetched and what was copied, followed by a version
/// (nix `src/libfetchers/cache.cc`).
const FETCHERS: &str = "fetcher-cache";

/// The kinds of what it tells that say nothing of what was copied to the store (nix `src/libfetchers/{git,github,mercurial,
/// tarball,git-utils}.cc`). Whatever else there is or comes is left out.
const HARMLESS: &str = "'file', 'tarball', 'gitLastModified', 'gitRevCount', 'gitRevToTreeHash', \
    'gitRevToLastModified', 'treeHashToNarHash', 'hgRefToRev', 'hgRev'";

/// What is harmless of these. What was fetched as a file may be a file of the source that is watched, unless it came from
/// a server.
const FROM_SERVER: &str =
    "(domain not in ('file', 'tarball') or lower(key) like '%\"http://%' or lower(key) like '%\"https://%')";

/// How the cache of a recording is called.
const PREFIX: &str = "phoenix-cache-";

/// How long is waited for others who write to the user's.
const PATIENCE: Duration = Duration::from_millis(500);

/// A cache for evaluators, for as long as they run.
#[derive(Debug)]
pub(crate) struct Fetchers {
    home: left::Made,
    /// The user's.
    user: Option<PathBuf>,
}

impl Fetchers {
    /// Makes one of the user's, the directory `nix` in the cache of whoever runs this.
    pub(crate) fn start(user: Option<&Path>) -> io::Result<Self> {
        // On the file system of the user's, what is new can be given back by its name.
        let home = match user.and_then(|user| left::make(user.parent()?, PREFIX).ok()) {
            Some(home) => home,
            None => left::make_temporary(PREFIX)?,
        };
        let own = home.path().join("nix");
        fs::create_dir(&own)?;
        for entry in entries(user) {
            let (name, to) = (entry.file_name(), own.join(entry.file_name()));
            if !is_fetchers(&name) {
                symlink(entry.path(), to)?;
            } else if is_database(&name) && copy(&entry.path(), &to).and_then(|()| seal(&to)).is_err() {
                // What cannot be copied is fetched again.
                let _ = fs::remove_file(&to);
            }
        }
        // What evaluators start has its cache where it had it, too.
        let beside = user.filter(|user| user.ends_with("nix")).and_then(Path::parent);
        let is_another = |name: &OsString| name != "nix" && !name.to_string_lossy().starts_with(PREFIX);
        for entry in entries(beside).filter(|entry| is_another(&entry.file_name())) {
            symlink(entry.path(), home.path().join(entry.file_name()))?;
        }
        Ok(Self { home, user: user.map(Path::to_owned) })
    }

    /// Where it is.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Whether it stands for all of the user's cache, and not for Nix's alone.
    pub(crate) fn is_whole(&self) -> bool {
        self.user.as_ref().is_none_or(|user| user.ends_with("nix"))
    }

    /// Has what evaluators copied by now be forgotten, and what they copy from now on.
    ///
    /// # Errors
    /// When it may be remembered.
    pub(crate) fn forget_copies(&self) -> io::Result<()> {
        for entry in entries(Some(&self.home.path().join("nix"))) {
            if is_fetchers(&entry.file_name()) && is_database(&entry.file_name()) {
                seal(&entry.path()).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Gives what was fetched meanwhile to the user's.
    pub(crate) fn give_back(&self) {
        let Some(user) = &self.user else { return };
        for entry in entries(Some(&self.home.path().join("nix"))) {
            let (name, to) = (entry.file_name(), user.join(entry.file_name()));
            // It is only fetched once more where this fails.
            if is_database(&name) && is_fetchers(&name) {
                let _ = if to.exists() { pour(&entry.path(), &to) } else { copy(&entry.path(), &to) };
            } else if !is_fetchers(&name) && !entry.path().is_symlink() && !to.exists() {
                let _ = fs::create_dir_all(user).and_then(|()| fs::rename(entry.path(), to));
            }
        }
    }
}

fn entries(directory: Option<&Path>) -> impl Iterator<Item = fs::DirEntry> {
    directory.and_then(|directory| fs::read_dir(directory).ok()).into_iter().flatten().flatten()
}

fn is_fetchers(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(FETCHERS)
}

fn is_database(name: &OsStr) -> bool {
    name.to_string_lossy().ends_with(".sqlite")
}

/// Copies what is harmless.
fn copy(from: &Path, to: &Path) -> rusqlite::Result<()> {
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    source.busy_timeout(PATIENCE)?;
    let table: String = source.query_row(
        "select sql from sqlite_master where type = 'table' and name = 'Cache'",
        [],
        |row| row.get(0),
    )?;
    drop(source);
    let own = Connection::open(to)?;
    own.execute_batch(&format!("pragma synchronous = off; pragma journal_mode = memory; {table};"))?;
    drop(own);
    pour(from, to)
}

/// Lets go of all but what is harmless, and keeps it from coming in: what takes in a source writes down what a copy of it would
/// be, so that it would be copied without being read.
fn seal(cache: &Path) -> rusqlite::Result<()> {
    let cache = Connection::open_with_flags(cache, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    cache.busy_timeout(PATIENCE)?;
    cache.execute_batch(&format!(
        "create trigger if not exists phoenix before insert on Cache when new.domain not in ({HARMLESS}) \
         begin select raise(ignore); end; delete from Cache where domain not in ({HARMLESS})"
    ))
}

/// Takes what is harmless and not there from one into another.
fn pour(from: &Path, to: &Path) -> rusqlite::Result<()> {
    let to = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    to.busy_timeout(PATIENCE)?;
    to.execute("attach ?1 as other", [from.to_string_lossy()])?;
    to.execute(
        &format!(
            "insert or ignore into main.Cache select * from other.Cache where domain in ({HARMLESS}) \
             and {FROM_SERVER} \
             and not exists (select 1 from main.Cache mine where mine.domain = other.Cache.domain and mine.key = other.Cache.key)"
        ),
        [],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "create table Cache (domain text not null, key text not null, value text not null, \
        timestamp integer not null, primary key (domain, key))";

    fn rows(path: &Path) -> Vec<(String, String)> {
        let db = Connection::open(path).unwrap();
        let mut query = db.prepare("select domain, key from Cache order by domain, key").unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn insert(path: &Path, domain: &str, key: &str) {
        Connection::open(path)
            .unwrap()
            .execute("insert into Cache values (?1, ?2, '{}', 1)", [domain, key])
            .unwrap();
    }

    #[test]
    fn what_was_copied_is_forgotten_and_what_was_fetched_is_not() {
        let cache = tempfile::tempdir().unwrap();
        let user = cache.path().join("nix");
        fs::create_dir_all(cache.path().join("git/credential")).unwrap();
        fs::create_dir(&user).unwrap();
        let db = user.join("fetcher-cache-v4.sqlite");
        Connection::open(&db).unwrap().execute_batch(TABLE).unwrap();
        insert(&db, "sourcePathToHash", "a");
        insert(&db, "fetchToStore", "a");
        insert(&db, "gitRevToTreeHash", "a");
        insert(&db, "tarball", r#"{"url":"https://example.org/a.tar.gz"}"#);
        insert(&db, "tarball", r#"{"url":"FILE:///store/x-source/a.tar"}"#);
        let left = cache.path().join("phoenix-cache-left");
        fs::rename(left::make(cache.path(), "phoenix-cache-").unwrap().leave(), &left).unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
        std::fs::File::open(&left).unwrap().set_modified(long_ago).unwrap();
        fs::create_dir(user.join("gitv3")).unwrap();
        fs::write(user.join("gitv3/x"), "1").unwrap();
        fs::write(user.join("fetcher-cache-v1.sqlite"), "nonsense").unwrap();

        let own = Fetchers::start(Some(&user)).unwrap();
        let copy = own.home().join("nix/fetcher-cache-v4.sqlite");
        assert!(own.home().join("git/credential").exists());
        let pair = |domain: &str, key: &str| (domain.to_owned(), key.to_owned());
        let fetched = pair("tarball", r#"{"url":"https://example.org/a.tar.gz"}"#);
        assert_eq!(rows(&copy), [pair("gitRevToTreeHash", "a"), fetched]);
        assert!(!left.exists() && own.is_whole());
        assert_eq!(fs::read_to_string(own.home().join("nix/gitv3/x")).unwrap(), "1");
        assert!(!own.home().join("nix/fetcher-cache-v1.sqlite").exists());

        insert(&copy, "gitRevToTreeHash", "b");
        // What Nix makes itself is sealed when it is there.
        let new = own.home().join("nix/fetcher-cache-v5.sqlite");
        Connection::open(&new).unwrap().execute_batch(TABLE).unwrap();
        insert(&new, "sourcePathToHash", "c");
        insert(&new, "hgRev", "c");
        own.forget_copies().unwrap();
        insert(&new, "sourcePathToHash", "d");
        assert_eq!(rows(&new), [pair("hgRev", "c")]);
        insert(&copy, "sourcePathToHash", "b");
        fs::create_dir(own.home().join("nix/tarball-cache")).unwrap();
        fs::write(own.home().join("nix/tarball-cache/x"), "2").unwrap();
        own.give_back();
        drop(own);
        assert_eq!(rows(&user.join("fetcher-cache-v5.sqlite")), [pair("hgRev", "c")]);
        insert(&user.join("fetcher-cache-v5.sqlite"), "sourcePathToHash", "e");
        assert_eq!(rows(&user.join("fetcher-cache-v5.sqlite")).len(), 2, "the user's is not sealed");
        assert_eq!(fs::read_to_string(user.join("tarball-cache/x")).unwrap(), "2");
        assert_eq!(fs::read_to_string(user.join("gitv3/x")).unwrap(), "1");
        let mut all = rows(&db);
        all.retain(|(domain, _)| domain != "tarball");
        assert_eq!(
            all,
            [
                pair("fetchToStore", "a"),
                pair("gitRevToTreeHash", "a"),
                pair("gitRevToTreeHash", "b"),
                pair("sourcePathToHash", "a")
            ]
        );
    }

    #[test]
    fn without_a_cache_there_is_an_empty_one() {
        let own = Fetchers::start(None).unwrap();
        assert_eq!(fs::read_dir(own.home().join("nix")).unwrap().count(), 0);
        own.give_back();
    }
}
