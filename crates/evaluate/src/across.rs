//! What was answered about other sources of a flake, and what of it holds for this one.
//!
//! Two sources of one flake that differ only in what files hold, and in what is told of them (a revision, a time), are of
//! one family: names, types, links and locked inputs are the same. While a source is evaluated it is recorded what is
//! read of it, in the order in which it is read for the first time: a [`Reading`]. All that an answer depends on was read
//! before it was given, by its process or by another one, so that a place in a reading bounds it. Nix is lazy and its
//! language has no other effects; so an answer that was given in two readings depends on no more than on what was read
//! before it in both. Where they went in opposite orders that is little more than what it needs.
//!
//! One thing cannot be seen being read: the path of the source, which has a hash of everything in its name
//! (`toString ./.`). It may stand in an answer, and it may be compared: what is sorted by it comes out in one order or another,
//! and something else may be read then. So an answer holds for another source only between two that gave it, one with a path
//! that comes before that of the other source and one with a path that comes after it. Whatever it is compared with, the other source
//! goes the way of one of them; so it may differ neither in what those before it have in common nor in what those after it have. An
//! answer that came out otherwise although nothing that was seen to be read had changed depends on the source as a whole, and is
//! asked for each time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use phoenix_model::Severity;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::answers::{Known, sealed, unsealed};

/// How many readings are kept. Each source that was not known adds one.
const MOST_READINGS: usize = 64;

/// By how many readings an answer is bounded at most: some before and some after most sources, in both directions.
const MOST_BOUNDS: usize = 8;

/// Stands for the hash in the name of the source. Nix's hashes have none of these letters.
const SOURCE: &str = "eeeeeeeeooooooootttttttteeeeeeee";

/// How long a hash in the name of a store path is.
const HASH: usize = 32;

/// Something of a source that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Item {
    /// What is in a file, by its path in the source.
    File(Vec<u8>),
    /// What is told of the source by this name, its path included: an attribute of `self.sourceInfo`.
    Told(String),
}

impl Item {
    /// As a user knows it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::File(path) => String::from_utf8_lossy(path).into_owned(),
            Self::Told(name) => format!("self.{name}"),
        }
    }
}

/// The hash of what an item is in one source.
pub(crate) type Content = [u8; 32];

/// What was read of a source, in the order in which it was read first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reading {
    id: u32,
    /// The hash of the source.
    source: String,
    /// Into [`Across::contents`].
    items: Vec<u32>,
    /// All that the flake said meanwhile: what attributes have in common is told of with the first that comes to it.
    said: BTreeSet<Words>,
}

/// What something is known by that a flake says.
type Words = u64;

/// An answer, and what it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// With [`SOURCE`] in place of the hash of its source.
    answer: Result<String, String>,
    said: Vec<(Severity, String)>,
    /// In the order in which they came: so much of the beginning of a reading was read when it was given.
    within: Vec<(u32, u32)>,
    /// Whether it depends on the source as a whole.
    is_of_whole: bool,
}

/// Why an answer does not hold, or that it does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Holds,
    /// This has changed, and may have been read.
    Changed(Item),
    /// It has to come out the same from one more source: all that gave it come before this one, or all after it.
    Unproven,
    /// It depends on the source as a whole.
    OfWhole,
}

/// Answers about the sources of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Across {
    /// What was read of any source, and what it was there.
    contents: Vec<(Item, Content)>,
    readings: Vec<Reading>,
    next: u32,
    answers: BTreeMap<String, Kept>,
}

/// A source that something is asked about.
pub(crate) struct Source<'s> {
    /// The hash in the name of its store path.
    pub(crate) hash: &'s str,
    /// What an item is in it; nothing where that cannot be told.
    pub(crate) content: &'s dyn Fn(&Item) -> Option<Content>,
}

/// What was answered while a source was read.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// What was read, in its order.
    pub(crate) items: Vec<Item>,
    /// The questions that were answered, and how much had been read by then.
    pub(crate) answers: Vec<(String, u32, Known)>,
    /// What the flake said with answers that are not kept.
    pub(crate) said: Vec<(Severity, String)>,
}

impl Across {
    /// Reads what [`Across::to_bytes`] wrote; nothing if it is damaged in any way.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let this: Self = unsealed(bytes)?;
        let is_there = |&item: &u32| (item as usize) < this.contents.len();
        let ids: HashSet<u32> = this.readings.iter().map(|reading| reading.id).collect();
        let is_bounded = |kept: &Kept| {
            !kept.within.is_empty() && kept.within.iter().all(|(id, _)| ids.contains(id) && *id < this.next)
        };
        let is_whole = this.readings.iter().all(|reading| reading.items.iter().all(is_there))
            && this.answers.values().all(is_bounded);
        is_whole.then_some(this)
    }

    /// Writes it, with a hash of all before it.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        sealed(self)
    }

    /// How many readings there are.
    pub(crate) fn readings(&self) -> usize {
        self.readings.len()
    }

    /// The answers that hold for a source, and why the others do not.
    pub(crate) fn hold_for(&self, source: &Source<'_>) -> (Vec<(String, Known)>, Vec<Standing>) {
        let changes = Changes::of(&self.contents, &self.readings, source);
        let (mut hold, mut others) = (Vec::new(), Vec::new());
        for (question, kept) in &self.answers {
            match changes.standing(kept, source) {
                Standing::Holds => {
                    hold.extend(kept.answer_for(source.hash).map(|known| (question.clone(), known)));
                }
                other => others.push(other),
            }
        }
        (hold, others)
    }

    /// Takes in what was answered about a source.
    pub(crate) fn learn(&mut self, source: &Source<'_>, recorded: Recorded) {
        let id = self.next;
        self.next += 1;
        let mut items = Vec::with_capacity(recorded.items.len());
        let mut known: HashMap<(Item, Content), u32> = self.contents.iter().cloned().zip(0..).collect();
        for item in recorded.items {
            // What comes after something that cannot be told is bounded by nothing.
            let Some(content) = (source.content)(&item) else { break };
            items.push(*known.entry((item.clone(), content)).or_insert_with(|| {
                self.contents.push((item, content));
                number(self.contents.len() - 1)
            }));
        }
        let read = number(items.len());
        let answers = recorded.answers.iter().flat_map(|(_, _, known)| &known.said);
        let said = answers.chain(&recorded.said).filter_map(|word| words(word, source.hash)).collect();
        self.readings.push(Reading { id, source: source.hash.to_owned(), items, said });
        let changes = Changes::of(&self.contents, &self.readings, source);
        for (question, upto, known) in recorded.answers.into_iter().filter(|(_, upto, _)| *upto <= read) {
            let before = self.answers.remove(&question);
            let Some(fresh) = Kept::new(&known, source.hash, (id, upto)) else { continue };
            let kept = match before {
                Some(before) => changes.compare(&before, fresh),
                None => fresh,
            };
            self.answers.insert(question, kept);
        }
        self.forget();
    }

    /// Lets go of readings and contents that bound nothing, and of readings that are too many, the least used first.
    fn forget(&mut self) {
        loop {
            let mut uses: HashMap<u32, usize> = HashMap::new();
            for (id, _) in self.answers.values().flat_map(|kept| &kept.within) {
                *uses.entry(*id).or_default() += 1;
            }
            self.readings.retain(|reading| uses.contains_key(&reading.id));
            if self.readings.len() <= MOST_READINGS {
                break;
            }
            let least = self.readings.iter().map(|reading| reading.id).min_by_key(|id| uses[id]);
            self.readings.retain(|reading| Some(reading.id) != least);
            self.answers.retain(|_, kept| {
                kept.within.retain(|(id, _)| Some(*id) != least);
                !kept.within.is_empty()
            });
        }
        let used: HashSet<u32> =
            self.readings.iter().flat_map(|reading| reading.items.iter().copied()).collect();
        let mut numbers = HashMap::new();
        let mut contents = Vec::new();
        for (old, content) in (0..).zip(std::mem::take(&mut self.contents)) {
            if used.contains(&old) {
                numbers.insert(old, number(contents.len()));
                contents.push(content);
            }
        }
        self.contents = contents;
        for item in self.readings.iter_mut().flat_map(|reading| &mut reading.items) {
            *item = numbers[item];
        }
    }
}

/// What is not in a source what it was in the readings that are known.
struct Changes<'a> {
    /// By reading.
    readings: HashMap<u32, Changed<'a>>,
}

struct Changed<'a> {
    /// The hash of its source.
    source: &'a str,
    /// At which place everything stands.
    places: HashMap<&'a Item, u32>,
    /// What is another one now.
    changed: Vec<&'a Item>,
    said: &'a BTreeSet<Words>,
}

impl<'a> Changes<'a> {
    fn of(contents: &'a [(Item, Content)], readings: &'a [Reading], source: &Source<'_>) -> Self {
        let mut now: HashMap<&Item, Option<Content>> = HashMap::new();
        let mut is_same = |item: &'a Item, then: &Content| {
            *now.entry(item).or_insert_with(|| (source.content)(item)) == Some(*then)
        };
        let is_same: Vec<bool> = contents.iter().map(|(item, then)| is_same(item, then)).collect();
        let readings = readings.iter().map(|reading| {
            let items = || (0..).zip(&reading.items).map(|(place, &item)| (place, item as usize));
            let places = items().map(|(place, item)| (&contents[item].0, place)).collect();
            let changed = items().filter(|(_, item)| !is_same[*item]);
            let changed = changed.map(|(_, item)| &contents[item].0).collect();
            (reading.id, Changed { source: &reading.source, places, changed, said: &reading.said })
        });
        Self { readings: readings.collect() }
    }

    fn standing(&self, kept: &Kept, source: &Source<'_>) -> Standing {
        let side = |is_there: fn(&str, &str) -> bool| -> Vec<(u32, u32)> {
            let within = kept.within.iter().copied();
            within.filter(|(id, _)| is_there(self.source(*id), source.hash)).collect()
        };
        let (before, after) = (side(|one, other| one <= other), side(|one, other| one >= other));
        if kept.is_of_whole {
            Standing::OfWhole
        } else if let Some(item) = self.first(&before).or_else(|| self.first(&after)) {
            Standing::Changed(item.clone())
        } else if before.is_empty() || after.is_empty() {
            Standing::Unproven
        } else {
            Standing::Holds
        }
    }

    /// The hash of the source of a reading.
    fn source(&self, id: u32) -> &str {
        self.readings.get(&id).map_or("", |reading| reading.source)
    }

    /// Something that is in all of these and has changed since one of them.
    fn first(&self, within: &[(u32, u32)]) -> Option<&'a Item> {
        let is_in = |item: &Item, (id, upto): &(u32, u32)| {
            self.readings
                .get(id)
                .is_none_or(|reading| reading.places.get(item).is_some_and(|place| place < upto))
        };
        within.iter().find_map(|bound| {
            let mut changed = self.readings.get(&bound.0)?.changed.iter().copied();
            changed.find(|item| within.iter().all(|bound| is_in(item, bound)))
        })
    }

    /// Whether all this was said in these readings too, by whatever attribute came first.
    fn has_said(&self, within: &[(u32, u32)], said: &[(Severity, String)]) -> bool {
        let readings = within.iter().filter_map(|(id, _)| self.readings.get(id));
        said.iter().all(|word| readings.clone().any(|reading| reading.said.contains(&known_by(word))))
    }

    /// What is known of an answer that was given before, now that it was given again.
    fn compare(&self, before: &Kept, fresh: Kept) -> Kept {
        let mut within = [&before.within[..], &fresh.within].concat();
        // Both read the same up to the first item that is not the same in both, and that one is in both.
        if self.first(&within).is_some() {
            return Kept { is_of_whole: before.is_of_whole, ..fresh };
        }
        let is_same = before.answer == fresh.answer
            && self.has_said(&fresh.within, &before.said)
            && self.has_said(&before.within, &fresh.said);
        while within.len() > MOST_BOUNDS {
            // The first and the last of the paths stay.
            let by_path = |at: &usize| self.source(within[*at].0);
            let low = (0..within.len()).min_by_key(by_path);
            let high = (0..within.len()).max_by_key(by_path);
            let oldest = (0..within.len()).find(|at| Some(*at) != low && Some(*at) != high);
            within.remove(oldest.unwrap_or_default());
        }
        Kept { within, is_of_whole: before.is_of_whole || !is_same, ..fresh }
    }
}

impl Kept {
    /// Nothing where the hash of the source could not be told from what the flake says itself.
    fn new(known: &Known, source: &str, bound: (u32, u32)) -> Option<Self> {
        if source.len() != HASH {
            return None;
        }
        let plain = |text: &str| plain(text, source);
        let answer = match &known.answer {
            Ok(text) => Ok(plain(text)?),
            Err(text) => Err(plain(text)?),
        };
        let said = known.said.iter().map(|(severity, text)| Some((*severity, plain(text)?)));
        Some(Self { answer, said: said.collect::<Option<_>>()?, within: vec![bound], is_of_whole: false })
    }

    /// The answer as another source gives it.
    fn answer_for(&self, source: &str) -> Option<Known> {
        let of = |text: &String| text.replace(SOURCE, source);
        let answer = self.answer.as_ref().map(of).map_err(of);
        let said = self.said.iter().map(|(severity, text)| (*severity, of(text))).collect();
        Known::new(answer, said)
    }
}

/// A text with [`SOURCE`] in place of the hash of its source; nothing where the flake says that itself.
fn plain(text: &str, source: &str) -> Option<String> {
    (!text.contains(SOURCE)).then(|| text.replace(source, SOURCE))
}

/// What something is known by that a flake said with this source.
fn words((severity, text): &(Severity, String), source: &str) -> Option<Words> {
    Some(known_by(&(*severity, plain(text, source)?)))
}

fn known_by((severity, text): &(Severity, String)) -> Words {
    let hash = content(format!("{severity:?} {text}").as_bytes());
    Words::from_le_bytes(*hash.first_chunk().unwrap_or(&[0; 8]))
}

/// As it is written; there are never so many.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The hash of what something is.
pub(crate) fn content(bytes: &[u8]) -> Content {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A program: each target reads these files, and more if what it read says so; some look at the hash of the source.
    #[derive(Debug, Clone)]
    struct Target {
        files: Vec<u8>,
        /// If the first file is odd, these too.
        if_odd: Vec<u8>,
        uses_hash: bool,
        uses_rev: bool,
        /// Something else whose path it compares with that of the source: it reads one of two files then.
        sorts_with: Option<(u8, u8, u8)>,
        /// The same: it only says which of them comes first.
        warns_with: Option<u8>,
    }

    /// What attributes that read this file have in common says what is in it.
    const WARNS: u8 = 3;
    const SHARED: &str = "in common: ";

    /// What files hold, by number.
    type Files = Vec<u8>;

    fn hash_of(files: &Files) -> String {
        content(files).iter().map(|&byte| digit(byte)).collect()
    }

    fn digit(byte: u8) -> char {
        char::from(b"0123456789abcdfghijklmnpqrsvwxyz"[usize::from(byte % 32)])
    }

    fn path(file: u8) -> Item {
        Item::File(vec![b'f', file])
    }

    fn content_in<'f>(files: &'f Files) -> impl Fn(&Item) -> Option<Content> + 'f {
        move |item| match item {
            Item::File(path) => files.get(usize::from(path[1])).map(|byte| content(&[*byte])),
            Item::Told(_) => Some(content(hash_of(files).as_bytes())),
        }
    }

    /// What a target reads, in its order, and what it comes to.
    fn evaluate(target: &Target, files: &Files) -> (Vec<Item>, String) {
        let mut read: Vec<u8> = target.files.clone();
        if target.files.first().is_some_and(|&file| files[usize::from(file)] % 2 == 1) {
            read.extend(&target.if_odd);
        }
        let mut answer: String =
            read.iter().map(|&file| format!("{file}={} ", files[usize::from(file)])).collect();
        if let Some((other, first, last)) = target.sorts_with {
            let file = if hash_of(files) < digit(other).to_string() { first } else { last };
            answer.push_str(&format!("{} ", files[usize::from(file)]));
            read.push(file);
        }
        let mut items: Vec<Item> = read.into_iter().map(path).collect();
        if target.uses_hash {
            answer.push_str(&format!("{:02x?}", content(hash_of(files).as_bytes())[0..8].to_vec()));
        }
        if target.uses_rev {
            items.push(Item::Told("rev".into()));
            answer.push_str(&format!("rev {:02x?}", content(hash_of(files).as_bytes())[8..16].to_vec()));
        }
        // Where it lies is told by many, and is no other answer.
        answer.push_str(&format!("at /nix/store/{}-source/x", hash_of(files)));
        (items, answer)
    }

    /// What a target says by itself.
    fn warning(target: &Target, files: &Files) -> Option<String> {
        let is_first = |other| hash_of(files) < digit(other).to_string();
        let word = |other| if is_first(other) { "before" } else { "after" };
        target.warns_with.map(|other| format!("{} {}", word(other), digit(other)))
    }

    fn json(text: &str) -> String {
        serde_json::json!({ "kind": "other", "text": text }).to_string()
    }

    /// Evaluates what does not hold; how many that were.
    fn run(across: &mut Across, targets: &[Target], files: &Files, behind: usize) -> usize {
        let hash = hash_of(files);
        let in_files = content_in(files);
        let source = Source { hash: &hash, content: &in_files };
        let (hold, _) = across.hold_for(&source);
        let hold: HashMap<String, Known> = hold.into_iter().collect();
        for (question, known) in &hold {
            let target = &targets[question.parse::<usize>().unwrap()];
            assert_eq!(known.answer, Ok(json(&evaluate(target, files).1)), "{question}");
            let mut own = known.said.iter().map(|(_, text)| text).filter(|text| !text.starts_with(SHARED));
            assert_eq!(own.next().cloned(), warning(target, files), "{question}");
        }
        let mut open: Vec<usize> =
            (0..targets.len()).filter(|target| !hold.contains_key(&target.to_string())).collect();
        if across.readings() % 2 == 1 {
            open.reverse();
        }
        // Processes share what they read; an answer is heard when others after it were evaluated too.
        let mut recorded = Recorded::default();
        let mut heard: Vec<(usize, String, Vec<String>)> = Vec::new();
        let mut is_warned = false;
        for (place, &target) in open.iter().enumerate() {
            let (items, answer) = evaluate(&targets[target], files);
            for item in items {
                if !recorded.items.contains(&item) {
                    recorded.items.push(item);
                }
            }
            let mut said: Vec<String> = warning(&targets[target], files).into_iter().collect();
            if !is_warned && targets[target].files.contains(&WARNS) {
                is_warned = true;
                said.push(format!("{SHARED}{}", files[usize::from(WARNS)]));
            }
            heard.push((target, answer, said));
            if place % (behind + 1) == behind || place + 1 == open.len() {
                for (target, answer, said) in heard.drain(..) {
                    let said = said.into_iter().map(|text| (Severity::Warning, text)).collect();
                    let known = Known::new(Ok(json(&answer)), said).unwrap();
                    recorded.answers.push((target.to_string(), number(recorded.items.len()), known));
                }
            }
        }
        if !open.is_empty() {
            across.learn(&source, recorded);
            *across = Across::from_bytes(&across.to_bytes().unwrap()).unwrap();
        }
        open.len()
    }

    fn targets() -> impl Strategy<Value = Vec<Target>> {
        let files = || proptest::collection::vec(0..8_u8, 0..4);
        let (uses_hash, uses_rev) = (proptest::bool::weighted(0.15), proptest::bool::weighted(0.1));
        let sorts_with = proptest::option::weighted(0.3, (any::<u8>(), 0..8_u8, 0..8_u8));
        let warns_with = proptest::option::weighted(0.2, any::<u8>());
        let target = (files(), files(), uses_hash, uses_rev, sorts_with, warns_with);
        let target = target.prop_map(|(files, if_odd, uses_hash, uses_rev, sorts_with, warns_with)| Target {
            files,
            if_odd,
            uses_hash,
            uses_rev,
            sorts_with,
            warns_with,
        });
        proptest::collection::vec(target, 1..8)
    }

    proptest! {
        #[test]
        fn what_holds_is_what_a_fresh_evaluation_gives(
            targets in targets(),
            first in proptest::collection::vec(0..4_u8, 8),
            edits in proptest::collection::vec((0..8_usize, 0..4_u8, any::<bool>()), 1..32),
            behind in 0..3_usize,
        ) {
            let (mut across, mut files) = (Across::default(), first);
            for (file, byte, both) in edits {
                // What holds is compared in it.
                run(&mut across, &targets, &files, behind);
                files[file] = byte;
                if both {
                    files[(file + 3) % 8] ^= 1;
                }
            }
        }
    }

    fn plain(file: u8) -> Target {
        Target {
            files: vec![7, file],
            if_odd: Vec::new(),
            uses_hash: false,
            uses_rev: false,
            sorts_with: None,
            warns_with: None,
        }
    }

    #[test]
    fn what_was_read_by_nobody_changes_nothing_once_it_is_proven() {
        let targets: Vec<Target> = (0..5).map(plain).collect();
        let mut across = Across::default();
        let mut all: Vec<Files> = (0..=9).map(|byte| vec![0, 0, 0, 0, 0, byte, 0, 0]).collect();
        all.sort_by_key(hash_of);
        assert_eq!(run(&mut across, &targets, &all[3], 0), 5);
        assert_eq!(run(&mut across, &targets, &all[3], 0), 0);
        assert_eq!(run(&mut across, &targets, &all[6], 0), 5);
        assert_eq!(run(&mut across, &targets, &all[4], 0), 0);
        // What only one has read is evaluated by it alone once those on both sides went in both directions.
        assert_eq!(run(&mut across, &targets, &all[9], 0), 5);
        assert_eq!(run(&mut across, &targets, &all[0], 0), 5);
        let changed = |file: usize| -> Files {
            let mut others = (0..=255).map(|byte| {
                let mut files = all[3].clone();
                (files[file], files[6]) = (1, byte);
                files
            });
            let is_between = |files: &Files| (hash_of(&all[3])..hash_of(&all[6])).contains(&hash_of(files));
            others.find(is_between).expect("a hash between them")
        };
        assert_eq!(run(&mut across, &targets, &changed(2), 0), 1);
        // What all have read is evaluated by all.
        assert_eq!(run(&mut across, &targets, &changed(7), 0), 5);
    }

    #[test]
    fn what_reads_another_file_on_the_other_side_of_a_path_holds_where_neither_has_changed() {
        let targets = [Target { sorts_with: Some((16, 1, 2)), ..plain(0) }];
        let sorted = |first: u8| {
            let mut all: Vec<Files> = (0..=255).map(|byte| vec![0, first, 0, 0, 0, byte, 0, 0]).collect();
            all.sort_by_key(hash_of);
            all
        };
        let (same, other) = (sorted(0), sorted(1));
        let mut across = Across::default();
        for files in [&same[0], &same[255]] {
            assert_eq!(run(&mut across, &targets, files, 0), 1);
        }
        assert_eq!(run(&mut across, &targets, &same[100], 0), 0);
        let is_between = |files: &&Files| hash_of(files) > hash_of(&same[0]);
        assert_eq!(run(&mut across, &targets, other.iter().find(is_between).unwrap(), 0), 1);
    }

    #[test]
    fn an_answer_holds_between_the_sources_that_gave_it() {
        let mut across = Across::default();
        let targets = [plain(0)];
        let at = |byte| vec![0, 0, 0, 0, 0, byte, 0, 0];
        let mut all: Vec<Files> = (0..=9).map(at).collect();
        all.sort_by_key(hash_of);
        for (place, evaluated) in
            [(4, 1), (4, 0), (6, 1), (5, 0), (3, 1), (7, 1), (4, 0), (9, 1), (8, 0), (0, 1)]
        {
            assert_eq!(run(&mut across, &targets, &all[place], 0), evaluated, "{place}");
        }
    }

    #[test]
    fn what_is_sorted_by_the_path_of_the_source_is_never_stale() {
        // Half of all hashes come before it.
        let targets = [Target { sorts_with: Some((16, 1, 2)), ..plain(0) }];
        let mut across = Across::default();
        for byte in 0..=255 {
            run(&mut across, &targets, &vec![0, 1, 2, 0, 0, byte, 0, 0], 0);
        }
        assert!(across.answers["0"].is_of_whole);
    }

    #[test]
    fn what_is_said_of_the_path_of_the_source_is_never_stale() {
        let targets = [Target { warns_with: Some(16), ..plain(0) }];
        let mut across = Across::default();
        for byte in 0..=255 {
            run(&mut across, &targets, &vec![0, 1, 2, 0, 0, byte, 0, 0], 0);
        }
        assert!(across.answers["0"].is_of_whole);
    }

    #[test]
    fn what_attributes_have_in_common_is_said_with_whichever_comes_first() {
        let targets: Vec<Target> = (0..3).map(|_| plain(WARNS)).collect();
        let mut across = Across::default();
        let mut all: Vec<Files> = (0..=9).map(|byte| vec![0, 0, 0, 0, 0, byte, 0, 0]).collect();
        all.sort_by_key(hash_of);
        for (place, evaluated) in [(3, 3), (6, 3), (4, 0), (9, 3), (0, 3), (7, 0), (1, 0)] {
            assert_eq!(run(&mut across, &targets, &all[place], 0), evaluated, "{place}");
        }
        assert!(across.answers.values().all(|kept| !kept.is_of_whole));
    }

    #[test]
    fn what_is_said_with_an_answer_that_is_not_kept_is_no_other_word() {
        let (hashes, content) = (["a", "z"].map(|digit| digit.repeat(HASH)), |_: &Item| Some(content(b"")));
        let word = (Severity::Warning, "careful".to_owned());
        for (first, second) in [(true, false), (false, true)] {
            let mut across = Across::default();
            for (hash, is_kept) in hashes.iter().zip([first, second]) {
                let (kept, other) =
                    if is_kept { (vec![word.clone()], vec![]) } else { (vec![], vec![word.clone()]) };
                let known = Known::new(Ok(json("x")), kept).unwrap();
                let recorded =
                    Recorded { items: vec![], answers: vec![("x".to_owned(), 0, known)], said: other };
                across.learn(&Source { hash, content: &content }, recorded);
            }
            assert!(!across.answers["x"].is_of_whole);
        }
    }

    #[test]
    fn what_depends_on_the_path_of_the_source_never_holds_for_another() {
        let targets = [Target { uses_hash: true, ..plain(0) }];
        let mut across = Across::default();
        for byte in 1..6 {
            assert_eq!(run(&mut across, &targets, &vec![0, 0, 0, 0, 0, byte, 0, 0], 0), 1);
        }
    }

    #[test]
    fn readings_and_contents_are_bounded() {
        let targets: Vec<Target> = (0..5).map(plain).collect();
        let mut across = Across::default();
        for round in 0..200_u8 {
            let file = usize::from(round % 5);
            let mut files = vec![0; 8];
            files[file] = round;
            run(&mut across, &targets, &files, 0);
            assert!(across.readings.len() <= MOST_READINGS && across.contents.len() <= MOST_READINGS * 8);
        }
        let mut bytes = across.to_bytes().unwrap();
        bytes[40] ^= 1;
        assert_eq!(Across::from_bytes(&bytes), None);
    }

    #[test]
    fn what_a_flake_says_cannot_be_taken_for_a_hash() {
        let known = Known::new(Ok(json(&format!("about {SOURCE}"))), Vec::new()).unwrap();
        assert_eq!(Kept::new(&known, &hash_of(&vec![1]), (0, 0)), None);
    }
}
