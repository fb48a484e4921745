//! What a pack says of other packs, and of the branches that need what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// How many names and numbers a pack may say of others.
const MOST: usize = 1 << 17;

/// How many a pack says that is made here: what branches need that ran long ago is left out then.
const MOST_SAID: usize = 1 << 15;

/// What a pack says of other packs, and of branches.
///
/// Merging is a union in which the greater of two contradicting statements wins: order and repetition do not
/// matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// Packs that were there when it was made.
    pub known: BTreeMap<String, PackInfo>,
    /// Packs that were folded, each with the packs that hold what was live of it.
    pub replaced: BTreeMap<String, BTreeSet<String>>,
    /// Packs that are not there any more, so that nobody looks for them because another pack knows them. One
    /// that is seen all the same counts as any other.
    pub gone: BTreeSet<String>,
    /// What branches need, by name.
    pub branches: BTreeMap<String, Use>,
    /// The numbers of frames of packs that are damaged, so that what is in them is saved anew. It stands behind the
    /// rest, where those who do not know of it do not look.
    #[serde(skip)]
    pub damaged: BTreeMap<String, BTreeSet<u32>>,
}

/// What is known of a pack without its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackInfo {
    /// How many bytes it has.
    pub size: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// What the last run of a branch needed. One that needs nothing is of a branch that is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// A number that is greater for later runs of the branch; the jobs of one run share it, and what they need
    /// is added up.
    pub run: u64,
    /// When it was said last, in seconds since 1970.
    pub at: u64,
    /// The store paths (`HASH-NAME`) that were saved and that no other of them refers to.
    pub roots: BTreeSet<String>,
}

/// Why what a pack says of others cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what it says of other packs is damaged")]
pub struct OthersError;

impl Others {
    /// The form that stands in a directory.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Writing to memory what has no maps with odd keys cannot fail.
        let mut bytes = postcard::to_stdvec(self).unwrap_or_default();
        if !self.damaged.is_empty() {
            bytes.extend(postcard::to_stdvec(&self.damaged).unwrap_or_default());
        }
        bytes
    }

    /// Reads what [`Others::encode`] wrote; nothing at all is nothing known.
    ///
    /// # Errors
    /// When it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, OthersError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        // Before any is kept: a few bytes of a name take many times as many in memory.
        let (counted, more): (Counted<'_>, _) = postcard::take_from_bytes(bytes).map_err(|_| OthersError)?;
        let more: Pairs<&str, Items<u32>> = match more {
            [] => Pairs::default(),
            more => postcard::from_bytes(more).map_err(|_| OthersError)?,
        };
        if counted.count() + more.count() > MOST {
            return Err(OthersError);
        }
        let (mut others, more): (Self, _) = postcard::take_from_bytes(bytes).map_err(|_| OthersError)?;
        if !more.is_empty() {
            others.damaged = postcard::from_bytes(more).map_err(|_| OthersError)?;
        }
        Ok(others)
    }

    /// How many names and numbers it has.
    #[must_use]
    pub fn count(&self) -> usize {
        let replaced: usize = self.replaced.values().map(|by| 1 + by.len()).sum();
        let branches: usize = self.branches.values().map(|used| 1 + used.roots.len()).sum();
        let damaged: usize = self.damaged.values().map(|frames| 1 + frames.len()).sum();
        self.known.len() + replaced + self.gone.len() + branches + damaged
    }

    /// Leaves out what branches need that ran longest ago, until it is not too much for a pack to say.
    pub(crate) fn shorten(&mut self) {
        let mut count = self.count();
        while count > MOST_SAID {
            let oldest = self.branches.iter().min_by_key(|(_, used)| used.at).map(|(name, _)| name.clone());
            let Some(used) = oldest.and_then(|oldest| self.branches.remove(&oldest)) else { return };
            count -= 1 + used.roots.len();
        }
    }

    /// Whether who says this took a pack for live: it was there, and so was nothing that replaced it.
    #[must_use]
    pub fn takes_for_live(&self, name: &str) -> bool {
        let by = self.replaced.get(name).into_iter().flatten();
        self.known.contains_key(name) && !by.into_iter().any(|by| self.known.contains_key(by))
    }

    /// Takes in what somebody else knows of packs and branches that came after a decision was made: what was live
    /// then is not said to be replaced, for others have to know what was relied on.
    pub fn merge_later(&mut self, later: Self) {
        let live: Vec<String> = self.known.keys().filter(|name| self.takes_for_live(name)).cloned().collect();
        let before: Vec<_> = live.into_iter().map(|name| (self.replaced.get(&name).cloned(), name)).collect();
        self.merge(later);
        for (by, name) in before {
            match by {
                Some(by) => drop(self.replaced.insert(name, by)),
                None => drop(self.replaced.remove(&name)),
            }
        }
    }

    /// Takes in what somebody else knows.
    pub fn merge(&mut self, other: Self) {
        for (name, info) in other.known {
            let known = self.known.entry(name).or_insert(info);
            *known = info.max(*known);
        }
        for (name, by) in other.replaced {
            self.replaced.entry(name).or_default().extend(by);
        }
        self.gone.extend(other.gone);
        for (name, used) in other.branches {
            self.branches.entry(name).or_default().merge(used);
        }
        for (name, frames) in other.damaged {
            self.damaged.entry(name).or_default().extend(frames);
        }
    }
}

/// Something that names and numbers can be counted in.
trait Count {
    fn count(&self) -> usize {
        0
    }
}

impl Count for &str {}
impl Count for u32 {}
impl Count for PackInfo {}

/// What [`Others`] has, counted and not kept.
#[derive(Deserialize)]
struct Counted<'s> {
    #[serde(borrow)]
    known: Pairs<&'s str, PackInfo>,
    replaced: Pairs<&'s str, Items<&'s str>>,
    gone: Items<&'s str>,
    branches: Pairs<&'s str, CountedUse<'s>>,
}

/// What [`Use`] has.
#[derive(Deserialize)]
struct CountedUse<'s>(u64, u64, #[serde(borrow)] Items<&'s str>);

impl Count for Counted<'_> {
    fn count(&self) -> usize {
        self.known.0 + self.replaced.0 + self.gone.0 + self.branches.0
    }
}

impl Count for CountedUse<'_> {
    fn count(&self) -> usize {
        let Self(_run, _at, roots) = self;
        roots.0
    }
}

/// How many entries a map has, with what is in them.
struct Pairs<K, V>(usize, PhantomData<(K, V)>);

/// How many elements a sequence has.
struct Items<T>(usize, PhantomData<T>);

impl<K, V> Default for Pairs<K, V> {
    fn default() -> Self {
        Self(0, PhantomData)
    }
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self(0, PhantomData)
    }
}

impl<K, V> Count for Pairs<K, V> {
    fn count(&self) -> usize {
        self.0
    }
}

impl<T> Count for Items<T> {
    fn count(&self) -> usize {
        self.0
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de> + Count> Deserialize<'de> for Pairs<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self::default())
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de> + Count> Visitor<'de> for Pairs<K, V> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((_, value)) = map.next_entry::<K, V>()? {
            self.0 += 1 + value.count();
        }
        Ok(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<Self, A::Error> {
        while sequence.next_element::<T>()?.is_some() {
            self.0 += 1;
        }
        Ok(self)
    }
}

impl Use {
    /// Takes in what another job said: a later run replaces an earlier one, the same one is added to.
    pub fn merge(&mut self, other: Self) {
        match other.run.cmp(&self.run) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Greater => *self = other,
            std::cmp::Ordering::Equal => {
                self.at = self.at.max(other.at);
                self.roots.extend(other.roots);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> impl Strategy<Value = BTreeSet<String>> {
        prop::collection::btree_set("[a-d]", 0..4)
    }

    fn others() -> impl Strategy<Value = Others> {
        let info = (0..3_u64, 0..3_u64).prop_map(|(size, created)| PackInfo { size, created });
        let used = (0..3_u64, 0..3_u64, names()).prop_map(|(run, at, roots)| Use { run, at, roots });
        (
            prop::collection::btree_map("[a-d]", info, 0..4),
            prop::collection::btree_map("[a-d]", names(), 0..4),
            names(),
            prop::collection::btree_map("[a-d]", used, 0..4),
            prop::collection::btree_map("[a-d]", prop::collection::btree_set(0..3_u32, 1..3), 0..3),
        )
            .prop_map(|(known, replaced, gone, branches, damaged)| Others {
                known,
                replaced,
                gone,
                branches,
                damaged,
            })
    }

    fn merged(all: &[&Others]) -> Others {
        let mut merged = Others::default();
        for one in all {
            merged.merge((*one).clone());
        }
        merged
    }

    fn gone(count: usize) -> Others {
        Others { gone: (0..count).map(|number| number.to_string()).collect(), ..Others::default() }
    }

    #[test]
    fn what_is_too_much_is_not_kept() {
        assert!(Others::decode(&gone(MOST).encode()).is_ok());
        assert_eq!(Others::decode(&gone(MOST + 1).encode()), Err(OthersError));
    }

    #[test]
    fn what_is_said_is_shortened_by_the_branches_that_ran_longest_ago() {
        let roots: BTreeSet<String> = (0..1000).map(|number| number.to_string()).collect();
        let used = |at| Use { run: at, at, roots: roots.clone() };
        let branches = (0..50).map(|at| (format!("branch {at}"), used(at))).collect();
        let mut others = Others { branches, ..gone(100) };
        others.shorten();
        assert!(others.count() <= MOST_SAID && others.count() + 1001 > MOST_SAID);
        assert!(others.branches.contains_key("branch 49") && !others.branches.contains_key("branch 0"));
        assert_eq!(others.gone.len(), 100);
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_is_kept(others in others()) {
            let bytes = Others { damaged: BTreeMap::new(), ..others.clone() }.encode();
            let counted: Counted<'_> = postcard::from_bytes(&bytes).unwrap();
            let damaged: usize = others.damaged.values().map(|frames| 1 + frames.len()).sum();
            prop_assert_eq!(counted.count() + damaged, others.count());
        }

        #[test]
        fn order_and_repetition_do_not_matter(a in others(), b in others(), c in others()) {
            let all = merged(&[&a, &b, &c]);
            for order in [[&b, &c, &a], [&c, &b, &a], [&b, &a, &c]] {
                prop_assert_eq!(&merged(&order), &all);
            }
            prop_assert_eq!(&merged(&[&a, &b, &a, &c, &b]), &all);
            prop_assert_eq!(&merged(&[&a, &merged(&[&b, &c])]), &all);
        }

        #[test]
        fn what_is_written_is_read_and_every_cut_is_damage(others in others(), at in any::<prop::sample::Index>()) {
            let bytes = others.encode();
            prop_assert_eq!(&Others::decode(&bytes).unwrap(), &others);
            let cut = at.index(bytes.len());
            // What was known of packs before damage was is whole without it.
            let before = Others { damaged: BTreeMap::new(), ..others };
            let is_whole = cut == before.encode().len();
            prop_assert_eq!(Others::decode(&bytes[..cut]).ok(), match cut {
                0 => Some(Others::default()),
                _ => is_whole.then_some(before.clone()),
            });
            // Who knows nothing of damage reads the rest.
            let (rest, _): (Others, _) = postcard::take_from_bytes(&bytes).unwrap();
            prop_assert_eq!(rest, before);
        }
    }
}
