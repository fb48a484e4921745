//! Paths with all that they refer to, in numbers.
//!
//! A name stands in the directories once for each path that refers to it, and as text in memory it takes half as much
//! again. So a closure keeps where things stand, and a path's record is decoded when it is asked for.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::catalog::{Catalog, hash_of_name};
use crate::{Directory, PathInfo};

/// How many names that no pack has are kept; what is missing beyond that goes under the last of them.
const MOST_UNKNOWN: usize = 1 << 18;

/// What a number begins with that is one of a name that no pack has.
const UNKNOWN: u32 = 1 << 31;

/// Paths with all that they refer to, each by a number: what is referred to has the smaller one, but in a circle.
///
/// It stays as it is when the catalog changes that it was made of.
#[derive(Debug, Default)]
pub struct Closure {
    directories: Vec<Arc<Directory>>,
    /// In which directory the record of each path is, and its number there.
    places: Vec<(u32, u32)>,
    /// Where the references of each begin and end.
    ranges: Vec<(u32, u32)>,
    /// The numbers of what is referred to.
    references: Vec<u32>,
    unknown: Vec<String>,
}

/// What a path of a closure refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// The path of this number.
    Path(u32),
    /// The name of this number among those that no pack has.
    Unknown(u32),
}

impl Closure {
    /// How many paths it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The numbers of all its paths, in order.
    pub fn numbers(&self) -> impl ExactSizeIterator<Item = u32> + use<> {
        0..self.places.len() as u32
    }

    /// The name of the path of this number; empty if there is none.
    #[must_use]
    pub fn name(&self, number: u32) -> &str {
        let place = self.places.get(number as usize);
        let name =
            place.map(|&(directory, record)| self.directories[directory as usize].name_of(record as usize));
        name.and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// The names of all its paths, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.numbers().map(|number| self.name(number))
    }

    /// What is known of the path of this number; none if there is no such path.
    #[must_use]
    pub fn info(&self, number: u32) -> Option<PathInfo> {
        let &(directory, record) = self.places.get(number as usize)?;
        self.directories[directory as usize].record(record as usize).ok().map(|record| record.info)
    }

    /// What the path of this number refers to, itself and what is left out not among it.
    pub fn references(&self, number: u32) -> impl Iterator<Item = Reference> {
        let (start, end) = self.ranges.get(number as usize).copied().unwrap_or_default();
        self.references[start as usize..end as usize].iter().map(|&number| {
            match number.checked_sub(UNKNOWN) {
                Some(number) => Reference::Unknown(number),
                None => Reference::Path(number),
            }
        })
    }

    /// What is wanted or referred to, and in no pack.
    #[must_use]
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// The name of what is referred to.
    #[must_use]
    pub fn name_of(&self, reference: Reference) -> &str {
        match reference {
            Reference::Path(number) => self.name(number),
            Reference::Unknown(number) => self.unknown.get(number as usize).map_or("", String::as_str),
        }
    }

    /// About how many bytes it takes in memory beside the directories.
    #[must_use]
    pub fn size(&self) -> usize {
        let unknown: usize = self.unknown.iter().map(|name| size_of::<String>() + name.len()).sum();
        self.places.len() * 2 * size_of::<(u32, u32)>() + self.references.len() * size_of::<u32>() + unknown
    }
}

/// Where a name stands.
#[derive(Debug, Clone, Copy)]
enum Text {
    /// Among those that are wanted.
    Wanted(u32),
    /// In the records of a directory, from here on, and so many bytes long.
    Record { directory: u32, at: u32, length: u32 },
}

/// What became of a name.
#[derive(Debug, Clone, Copy)]
enum Found {
    /// It is left out.
    There,
    Unknown(u32),
    /// Its record, and its number when all that it refers to has one.
    Path {
        directory: u32,
        record: u32,
        number: u32,
    },
}

/// A closure as it is found.
pub(crate) struct Finding<'c, F> {
    catalog: &'c Catalog,
    is_there: F,
    directories: Vec<Arc<Directory>>,
    wanted: Vec<String>,
    /// All names that were met, each once, by numbers of their own.
    met: Vec<(Text, Found)>,
    by_name: HashTable<u32>,
    /// The references of each that has been looked into, by the numbers of names.
    references: Vec<u32>,
    unknown: Vec<String>,
    places: Vec<(u32, u32)>,
    ranges: Vec<(u32, u32)>,
}

impl<'c, F: FnMut(&str) -> bool> Finding<'c, F> {
    pub(crate) fn new(catalog: &'c Catalog, wanted: Vec<String>, is_there: F) -> Self {
        Self {
            catalog,
            is_there,
            directories: catalog.live_directories().cloned().collect(),
            wanted,
            met: Vec::new(),
            by_name: HashTable::new(),
            references: Vec::new(),
            unknown: Vec::new(),
            places: Vec::new(),
            ranges: Vec::new(),
        }
    }

    /// Depth first, without recursion: chains of references may be long.
    pub(crate) fn find(mut self) -> Closure {
        for wanted in 0..self.wanted.len() as u32 {
            let (name, new) = self.meet(Text::Wanted(wanted));
            let mut open = Vec::new();
            if new {
                open.extend(self.look_into(name));
            }
            while let Some((name, next, (start, end))) = open.pop() {
                if next == end {
                    self.number(name, (start, end));
                    continue;
                }
                let other = self.references[next as usize];
                open.push((name, next + 1, (start, end)));
                // Who looked into it first has it.
                if let Found::Path { number: NEW, .. } = self.met[other as usize].1 {
                    open.extend(self.look_into(other));
                }
            }
        }
        self.end()
    }

    /// Looks up a name; its number, and whether it was not met before.
    fn meet(&mut self, text: Text) -> (u32, bool) {
        let Self { catalog, is_there, directories, wanted, met, by_name, unknown, .. } = self;
        let bytes = |text: Text| -> &[u8] {
            match text {
                Text::Wanted(number) => wanted[number as usize].as_bytes(),
                Text::Record { directory, at, length } => {
                    directories[directory as usize].record_text(at as usize, length as usize)
                }
            }
        };
        let name = bytes(text);
        let of = |&number: &u32| bytes(met[number as usize].0);
        let next = met.len() as u32;
        match by_name.entry(
            hash_of_name(name),
            |number| of(number) == name,
            |number| hash_of_name(of(number)),
        ) {
            Entry::Occupied(entry) => return (*entry.get(), false),
            Entry::Vacant(entry) => {
                entry.insert(next);
            }
        }
        let name = std::str::from_utf8(name).unwrap_or_default();
        let found = if is_there(name) {
            Found::There
        } else {
            let place = name.as_bytes().first_chunk().and_then(|hash_part| catalog.record_of(hash_part));
            // The live ones are numbered as here.
            let is_it = |&(pack, record): &(u32, u32)| {
                directories[pack as usize].name_of(record as usize) == name.as_bytes()
            };
            match place.filter(is_it) {
                Some((directory, record)) => Found::Path { directory, record, number: NEW },
                None => {
                    if unknown.len() < MOST_UNKNOWN {
                        unknown.push(name.to_owned());
                    }
                    Found::Unknown(unknown.len() as u32 - 1)
                }
            }
        };
        met.push((text, found));
        (next, true)
    }

    /// Takes note of what a path refers to; none if the name is not that of a path.
    fn look_into(&mut self, name: u32) -> Option<(u32, u32, (u32, u32))> {
        let Found::Path { directory, record, number } = &mut self.met[name as usize].1 else { return None };
        *number = OPEN;
        let (directory, record) = (*directory, *record);
        let texts = self.directories[directory as usize].references_of(record as usize);
        let start = self.references.len();
        for (at, length) in texts {
            let (other, _) = self.meet(Text::Record { directory, at, length });
            if other != name && !matches!(self.met[other as usize].1, Found::There) {
                self.references.push(other);
            }
        }
        // One that is there many times counts once.
        self.references[start..].sort_unstable();
        let mut end = start;
        for at in start..self.references.len() {
            if at == start || self.references[at] != self.references[end - 1] {
                self.references[end] = self.references[at];
                end += 1;
            }
        }
        self.references.truncate(end);
        Some((name, start as u32, (start as u32, end as u32)))
    }

    /// Gives a path its number.
    fn number(&mut self, name: u32, range: (u32, u32)) {
        if let Found::Path { directory, record, number } = &mut self.met[name as usize].1 {
            *number = self.places.len() as u32;
            self.places.push((*directory, *record));
            self.ranges.push(range);
        }
    }

    fn end(self) -> Closure {
        let Self { directories, met, mut references, unknown, places, ranges, .. } = self;
        for reference in &mut references {
            *reference = match met[*reference as usize].1 {
                Found::Path { number, .. } => number,
                // None that is there is among them.
                Found::Unknown(number) => UNKNOWN | number,
                Found::There => UNKNOWN,
            };
        }
        Closure { directories, places, ranges, references, unknown }
    }
}

/// The number of a path that was not looked into yet, and that of one whose references are looked into.
const NEW: u32 = u32::MAX;
const OPEN: u32 = u32::MAX - 1;
