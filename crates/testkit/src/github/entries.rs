//! The entries of the cache: reserved, finalized, looked up, listed, removed.

use super::token::Claims;

/// The most characters of a key.
const LONGEST_KEY: usize = 512;

/// The most keys of a lookup, the first included.
const MOST_KEYS: usize = 10;

/// How long a reservation that nobody finalizes keeps its key, in milliseconds: a day, as GitHub's staff said
/// in the issues of `actions/cache`.
const RESERVED: u64 = 24 * 3600 * 1000;

/// An entry of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, which grows.
    pub id: i64,
    /// The ref it was made on, such as `refs/heads/main`.
    pub scope: String,
    /// Its key.
    pub key: String,
    /// Its version, which is compared and has no meaning here.
    pub version: String,
    /// How many bytes it has.
    pub size: u64,
    /// When it was reserved, in milliseconds since 1970.
    pub created: u64,
    /// When it was last looked up, in milliseconds since 1970.
    pub accessed: u64,
    /// When it was finalized and how many lookups there had been; none while it is only reserved.
    pub(super) finalized: Option<Moment>,
    /// Whether it will never be seen, though its maker was told that all is well.
    pub(super) lost: bool,
}

impl Entry {
    /// Whether its bytes are complete; otherwise it is only reserved.
    #[must_use]
    pub fn is_finalized(&self) -> bool {
        self.finalized.is_some()
    }

    /// The path of its blob, as the real service has it, below an account of Azure.
    pub(super) fn path(&self) -> String {
        format!("/productionresultssa0/actions-cache/{:03x}-{}", self.id % 4096, self.id)
    }
}

/// A moment, by the clock and by the number of lookups before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// In milliseconds since 1970.
    pub(super) time: u64,
    pub(super) lookups: u64,
}

/// What a new entry stays out of sight for: both have to be over.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lag {
    pub(super) millis: u64,
    pub(super) lookups: u64,
}

/// What a lookup asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) keys: &'a [String],
    pub(super) version: &'a str,
    /// Answer as if the newest entry that fits were not there.
    pub(super) backwards: bool,
}

/// Why a request of the service fails: a Twirp code and a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// All entries, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Entries {
    all: Vec<Entry>,
    made: i64,
    lookups: u64,
}

impl Entries {
    pub(super) fn all(&self) -> &[Entry] {
        &self.all
    }

    /// Reserves an entry; `scope` is where the token may write.
    pub(super) fn create(
        &mut self,
        scope: &str,
        key: &str,
        version: &str,
        now: u64,
    ) -> Result<Entry, Failure> {
        check(key)?;
        if version.is_empty() {
            return Err(Failure::new("invalid_argument", "version is required"));
        }
        self.all.retain(|entry| entry.is_finalized() || now < entry.created + RESERVED);
        if self.find(scope, key, version).is_some() {
            let message = "cache entry with the same key, version, and scope already exists";
            return Err(Failure::new("already_exists", message));
        }
        self.made += 1;
        let entry = Entry {
            id: self.made,
            scope: scope.to_owned(),
            key: key.to_owned(),
            version: version.to_owned(),
            size: 0,
            created: now,
            accessed: now,
            finalized: None,
            lost: false,
        };
        self.all.push(entry.clone());
        Ok(entry)
    }

    /// Makes a reserved entry whole; doing so again changes nothing. `held` is how many bytes its blob has.
    pub(super) fn finalize(
        &mut self,
        (scope, key, version): (&str, &str, &str),
        size: i64,
        now: u64,
        held: impl FnOnce(&Entry) -> Option<u64>,
    ) -> Result<i64, Failure> {
        let finalized = Moment { time: now, lookups: self.lookups };
        let Some(entry) = self.find_mut(scope, key, version) else {
            return Err(Failure::new("not_found", "cache entry not found"));
        };
        let Some(held) = held(entry) else {
            return Err(Failure::new("not_found", "the blob of the cache entry was not found"));
        };
        if u64::try_from(size) != Ok(held) {
            let message = format!("size_bytes is {size} and the blob has {held} bytes");
            return Err(Failure::new("invalid_argument", message));
        }
        entry.size = held;
        entry.finalized.get_or_insert(finalized);
        Ok(entry.id)
    }

    /// Sees to it that an entry is never seen.
    pub(super) fn lose(&mut self, id: i64) {
        if let Some(entry) = self.all.iter_mut().find(|entry| entry.id == id) {
            entry.lost = true;
        }
    }

    /// The entry that the service would answer, and marks it as used.
    ///
    /// In each scope in turn: the entry with the first key, else the newest whose key begins with it, and so
    /// on with each further key.
    pub(super) fn look_up(
        &mut self,
        claims: &Claims,
        question: Question<'_>,
        lag: Lag,
        now: u64,
    ) -> Result<Option<Entry>, Failure> {
        if question.keys.len() > MOST_KEYS {
            return Err(Failure::new("invalid_argument", format!("more than {MOST_KEYS} keys")));
        }
        for key in question.keys {
            check(key)?;
        }
        self.lookups += 1;
        let lookups = self.lookups;
        let seen = |entry: &Entry| {
            entry.version == question.version
                && !entry.lost
                && entry
                    .finalized
                    .is_some_and(|then| now >= then.time + lag.millis && lookups > then.lookups + lag.lookups)
        };
        let mut skip = question.backwards;
        for scope in &claims.readable {
            for key in question.keys {
                let here = |entry: &&Entry| entry.scope == *scope && seen(entry);
                let exact = self.all.iter().rev().filter(here).filter(|entry| entry.key == *key);
                let prefix = self
                    .all
                    .iter()
                    .rev()
                    .filter(here)
                    .filter(|entry| entry.key != *key && entry.key.starts_with(key));
                for entry in exact.chain(prefix) {
                    if std::mem::take(&mut skip) {
                        continue;
                    }
                    let id = entry.id;
                    let entry = self.all.iter_mut().find(|entry| entry.id == id);
                    return Ok(entry.map(|entry| {
                        entry.accessed = now;
                        entry.clone()
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Removes what `which` says, and gives it back.
    pub(super) fn remove(&mut self, which: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        self.all.extract_if(.., |entry| which(entry)).collect()
    }

    fn find(&self, scope: &str, key: &str, version: &str) -> Option<&Entry> {
        self.all.iter().find(|entry| entry.scope == scope && entry.key == key && entry.version == version)
    }

    fn find_mut(&mut self, scope: &str, key: &str, version: &str) -> Option<&mut Entry> {
        self.all.iter_mut().find(|entry| entry.scope == scope && entry.key == key && entry.version == version)
    }
}

fn check(key: &str) -> Result<(), Failure> {
    let problem = if key.is_empty() {
        "key is required"
    } else if key.len() > LONGEST_KEY {
        "key is longer than 512 characters"
    } else if key.contains(',') {
        "key has a comma"
    } else {
        return Ok(());
    };
    Err(Failure::new("invalid_argument", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(readable: &[&str]) -> Claims {
        Claims {
            readable: readable.iter().map(|scope| (*scope).to_owned()).collect(),
            writable: None,
            ends: 0,
            job: None,
        }
    }

    fn have(entries: &mut Entries, scope: &str, key: &str) {
        entries.create(scope, key, "v", 0).unwrap();
        entries.finalize((scope, key, "v"), 3, 0, |_| Some(3)).unwrap();
    }

    fn ask(entries: &mut Entries, readable: &[&str], keys: &[&str]) -> Option<(String, String)> {
        let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        let question = Question { keys: &keys, version: "v", backwards: false };
        let found = entries.look_up(&claims(readable), question, Lag::default(), 0).unwrap();
        found.map(|entry| (entry.scope, entry.key))
    }

    fn pair(scope: &str, key: &str) -> Option<(String, String)> {
        Some((scope.to_owned(), key.to_owned()))
    }

    #[test]
    fn lookups_go_by_scope_then_key_then_exact_before_prefix_then_newest() {
        let mut entries = Entries::default();
        for (scope, key) in [("main", "a"), ("main", "ab"), ("main", "ac"), ("pr", "b"), ("pr", "abc")] {
            have(&mut entries, scope, key);
        }
        assert_eq!(ask(&mut entries, &["main"], &["a"]), pair("main", "a"));
        assert_eq!(ask(&mut entries, &["pr", "main"], &["a"]), pair("pr", "abc"));
        assert_eq!(ask(&mut entries, &["main", "pr"], &["b", "a"]), pair("main", "a"));
        assert_eq!(ask(&mut entries, &["pr", "main"], &["x", "b"]), pair("pr", "b"));
        let _ = entries.remove(|entry| entry.key == "a");
        assert_eq!(ask(&mut entries, &["main"], &["a"]), pair("main", "ac"));
        assert_eq!(ask(&mut entries, &["other"], &["a"]), None);
        assert_eq!(ask(&mut entries, &[], &["a"]), None);
    }

    #[test]
    fn a_reservation_is_taken_and_not_seen() {
        let mut entries = Entries::default();
        entries.create("main", "a", "v", 0).unwrap();
        assert_eq!(entries.create("main", "a", "v", 0).unwrap_err().code, "already_exists");
        assert!(entries.create("pr", "a", "v", 0).is_ok() && entries.create("main", "a", "w", 0).is_ok());
        assert_eq!(ask(&mut entries, &["main"], &["a"]), None);
        let not_found = entries.finalize(("main", "a", "v"), 3, 0, |_| None).unwrap_err();
        assert_eq!(not_found.code, "not_found");
        let wrong = entries.finalize(("main", "a", "v"), 4, 0, |_| Some(3)).unwrap_err();
        assert_eq!(wrong.code, "invalid_argument");
        assert_eq!(entries.finalize(("main", "a", "v"), 3, 0, |_| Some(3)), Ok(1));
        assert_eq!(entries.finalize(("main", "a", "v"), 3, 0, |_| Some(3)), Ok(1));
        assert_eq!(ask(&mut entries, &["main"], &["a"]), pair("main", "a"));
    }

    #[test]
    fn a_reservation_is_let_go_of_after_a_day() {
        let mut entries = Entries::default();
        entries.create("main", "a", "v", 0).unwrap();
        have(&mut entries, "main", "b");
        assert!(entries.create("main", "a", "v", RESERVED - 1).is_err());
        assert!(entries.create("main", "a", "v", RESERVED).is_ok());
        assert!(entries.create("main", "b", "v", RESERVED).is_err(), "what is finalized stays");
    }

    #[test]
    fn what_is_new_is_seen_after_so_many_lookups_and_so_long() {
        let mut entries = Entries::default();
        have(&mut entries, "main", "a");
        let keys = ["a".to_owned()];
        let question = Question { keys: &keys, version: "v", backwards: false };
        let mut look = |now, lag| entries.look_up(&claims(&["main"]), question, lag, now).unwrap().is_some();
        let lag = Lag { millis: 10, lookups: 2 };
        assert_eq!([look(20, lag), look(20, lag), look(20, lag), look(9, lag)], [false, false, true, false]);
    }

    #[test]
    fn a_lookup_can_go_backwards_and_lose() {
        let mut entries = Entries::default();
        for key in ["a1", "a2", "a3"] {
            have(&mut entries, "main", key);
        }
        let keys = ["a".to_owned()];
        let look = |entries: &mut Entries, backwards| {
            let question = Question { keys: &keys, version: "v", backwards };
            let found = entries.look_up(&claims(&["main"]), question, Lag::default(), 0);
            found.unwrap().map(|entry| entry.key)
        };
        assert_eq!(look(&mut entries, false).as_deref(), Some("a3"));
        assert_eq!(look(&mut entries, true).as_deref(), Some("a2"));
        entries.lose(3);
        assert_eq!(look(&mut entries, false).as_deref(), Some("a2"));
    }

    #[test]
    fn keys_have_bounds() {
        let mut entries = Entries::default();
        for key in ["", "a,b", &"a".repeat(513)] {
            assert_eq!(entries.create("main", key, "v", 0).unwrap_err().code, "invalid_argument");
        }
        assert!(entries.create("main", &"a".repeat(512), "v", 0).is_ok());
        let keys = vec!["a".to_owned(); 11];
        let question = Question { keys: &keys, version: "v", backwards: false };
        assert!(entries.look_up(&claims(&["main"]), question, Lag::default(), 0).is_err());
    }
}
