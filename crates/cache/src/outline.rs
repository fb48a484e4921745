//! What has to be known of all paths that are saved at once.

use std::collections::{BTreeSet, HashMap};

use phoenix_pack::{ChunkSizes, Directory, PathInfo};

/// Paths that are to be saved, each of which is told in full when it is asked for: all of that together may be more than
/// memory should hold.
pub(crate) trait Paths: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// What is known of the one of this number, which is less.
    fn info(&self, number: u32) -> PathInfo;
}

impl Paths for &[PathInfo] {
    fn count(&self) -> usize {
        self.len()
    }

    fn info(&self, number: u32) -> PathInfo {
        self[number as usize].clone()
    }
}

/// Names and sizes of paths, and which of them refer to which.
#[derive(Debug)]
pub(crate) struct Outline {
    names: Vec<String>,
    nar_sizes: Vec<u64>,
    /// About how many bytes each takes in a directory, without its chunks.
    record_sizes: Vec<u32>,
    /// Where the references of each end.
    ends: Vec<usize>,
    /// The numbers of what is referred to and is among them.
    references: Vec<u32>,
}

impl Outline {
    pub(crate) fn of(paths: &(impl Paths + ?Sized)) -> Self {
        let numbers = || 0..paths.count() as u32;
        let mut outline = Self {
            names: Vec::with_capacity(paths.count()),
            nar_sizes: Vec::with_capacity(paths.count()),
            record_sizes: Vec::with_capacity(paths.count()),
            ends: Vec::with_capacity(paths.count()),
            references: Vec::new(),
        };
        for info in numbers().map(|number| paths.info(number)) {
            outline.record_sizes.push(u32::try_from(record_size(&info)).unwrap_or(u32::MAX));
            outline.nar_sizes.push(info.nar_size);
            outline.names.push(info.name);
        }
        let by_name: HashMap<&str, u32> = outline.names.iter().map(String::as_str).zip(0..).collect();
        for (info, number) in numbers().map(|number| (paths.info(number), number)) {
            let references = info.references.iter().filter_map(|name| by_name.get(name.as_str()).copied());
            let references: BTreeSet<u32> = references.filter(|&other| other != number).collect();
            outline.references.extend(references);
            outline.ends.push(outline.references.len());
        }
        outline
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }

    pub(crate) fn nar_size(&self, number: u32) -> u64 {
        self.nar_sizes[number as usize]
    }

    pub(crate) fn record_size(&self, number: u32) -> usize {
        self.record_sizes[number as usize] as usize
    }

    /// How much a directory weighs more for a path of which nothing is known yet, about.
    pub(crate) fn weight(&self, number: u32) -> u64 {
        let chunks = self.nar_size(number) / ChunkSizes::default().average as u64 + 1;
        Directory::weight_of_path(self.record_size(number) as u64, chunks)
    }

    /// The numbers of what a path refers to, less itself.
    pub(crate) fn references(&self, number: u32) -> &[u32] {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.references[start..self.ends[number]]
    }

    /// The names of the paths that no other of them refers to: with these, all of them are reached.
    pub(crate) fn roots(&self) -> BTreeSet<String> {
        let mut referred = vec![false; self.len()];
        self.references.iter().for_each(|&number| referred[number as usize] = true);
        let roots = self.names.iter().zip(referred).filter(|(_, referred)| !referred);
        roots.map(|(name, _)| name.clone()).collect()
    }
}

/// About how many bytes a path takes in a directory, without its chunks.
fn record_size(info: &PathInfo) -> usize {
    /// Hash, sizes, times and where it ends.
    const REST: usize = 64;
    let names = [&info.name].into_iter().chain(&info.references).chain(&info.signatures);
    let names = names.chain(&info.deriver).chain(&info.ca);
    REST + names.map(|name| name.len() + 2).sum::<usize>()
}
