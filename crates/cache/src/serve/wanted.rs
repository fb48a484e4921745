//! What clients have asked about and not yet for: the frames that will be needed, and so may be read along.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use phoenix_pack::{Frame, HASH_LENGTH};

use super::opened::FramePlace;

/// How many paths are remembered; a client that asks about more than it fetches is forgotten for the next ones.
const PATHS: usize = 8192;

/// How many frames of paths are remembered, at most.
const FRAMES: usize = 1 << 17;

/// Bytes that nobody wants but that are read along, because another request costs more than they do.
const GAP: u64 = 64 << 10;

type HashPart = [u8; HASH_LENGTH];

/// The frames of paths that were asked about, until they were sent.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    paths: HashMap<HashPart, Asked>,
    /// The paths by when they were asked about.
    order: BTreeMap<u64, HashPart>,
    /// The frames of each pack, each with how many paths want it.
    packs: HashMap<String, BTreeMap<u32, (Frame, usize)>>,
    /// How many frames all paths have together.
    count: usize,
    clock: u64,
}

#[derive(Debug)]
struct Asked {
    at: u64,
    /// By pack.
    frames: HashMap<String, Vec<u32>>,
}

/// Frames that lie together in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Where they are, in bytes.
    pub(super) range: Range<u64>,
    /// Their numbers, in order.
    pub(super) frames: Vec<u32>,
}

impl Stretch {
    fn of(number: u32, frame: &Frame) -> Self {
        Self { range: frame.offset..end(frame), frames: vec![number] }
    }
}

fn end(frame: &Frame) -> u64 {
    frame.offset + u64::from(frame.stored)
}

impl Wanted {
    /// Remembers that a path will be wanted, which is in these frames.
    pub(super) fn expect<'f>(&mut self, path: HashPart, frames: impl IntoIterator<Item = &'f FramePlace>) {
        if self.paths.contains_key(&path) {
            return;
        }
        self.clock += 1;
        let mut asked = Asked { at: self.clock, frames: HashMap::new() };
        for place in frames {
            let pack = place.blob.name.to_string();
            let known = self.packs.entry(pack.clone()).or_default();
            known.entry(place.number).or_insert((place.frame, 0)).1 += 1;
            asked.frames.entry(pack).or_default().push(place.number);
            self.count += 1;
        }
        self.order.insert(asked.at, path);
        self.paths.insert(path, asked);
        while self.paths.len() > PATHS || self.count > FRAMES {
            let Some(oldest) = self.order.first_key_value().map(|(_, path)| *path) else { break };
            self.forget(&oldest);
        }
    }

    /// Forgets a path: it was sent, or nobody waits for it any more.
    pub(super) fn forget(&mut self, path: &HashPart) {
        let Some(Asked { at, frames }) = self.paths.remove(path) else { return };
        self.order.remove(&at);
        for (pack, numbers) in frames {
            self.count -= numbers.len();
            let Some(known) = self.packs.get_mut(&pack) else { continue };
            for number in numbers {
                if let Some((_, count)) = known.get_mut(&number) {
                    *count -= 1;
                    if *count == 0 {
                        known.remove(&number);
                    }
                }
            }
            if known.is_empty() {
                self.packs.remove(&pack);
            }
        }
    }

    /// Whether a path that is in this frame was asked about and not forgotten.
    pub(super) fn has(&self, pack: &str, number: u32) -> bool {
        self.packs.get(pack).is_some_and(|known| known.contains_key(&number))
    }

    /// The next so many frames of a pack after this one that are wanted.
    pub(super) fn next(&self, place: &FramePlace, count: usize) -> Vec<FramePlace> {
        let known = self.packs.get(place.blob.name.as_str());
        let rest = known.into_iter().flat_map(|known| known.range(place.number.saturating_add(1)..));
        rest.take(count)
            .map(|(&number, &(frame, _))| FramePlace { blob: place.blob.clone(), number, frame })
            .collect()
    }

    /// What to read of a pack for this frame: with it those that are wanted, not here, and near, up to so many bytes;
    /// first those after it, then those before.
    pub(super) fn stretch(&self, place: &FramePlace, limit: u64, is_here: &dyn Fn(u32) -> bool) -> Stretch {
        let mut stretch = Stretch::of(place.number, &place.frame);
        let Some(known) = self.packs.get(place.blob.name.as_str()) else { return stretch };
        for (&number, (frame, _)) in known.range(place.number.saturating_add(1)..) {
            if !grow_after(&mut stretch, number, frame, limit, is_here) {
                break;
            }
        }
        for (&number, (frame, _)) in known.range(..place.number).rev() {
            // A pack need not have its frames in order.
            let gap = stretch.range.start.checked_sub(end(frame));
            if gap.is_none_or(|gap| gap > GAP)
                || is_here(number)
                || stretch.range.end.saturating_sub(frame.offset) > limit
            {
                break;
            }
            stretch.range.start = frame.offset;
            stretch.frames.insert(0, number);
        }
        stretch
    }

    /// What to read of a pack after this frame: the next that are wanted and not here, however far they are.
    pub(super) fn after(
        &self,
        pack: &str,
        number: u32,
        limit: u64,
        is_here: &dyn Fn(u32) -> bool,
    ) -> Option<Stretch> {
        let mut rest = self.packs.get(pack)?.range(number.saturating_add(1)..);
        let (&first, (frame, _)) = rest.find(|(number, _)| !is_here(**number))?;
        let mut stretch = Stretch::of(first, frame);
        for (&number, (frame, _)) in rest {
            if !grow_after(&mut stretch, number, frame, limit, is_here) {
                break;
            }
        }
        Some(stretch)
    }
}

/// Takes a frame into a stretch that ends before it, if it is near and there is room.
fn grow_after(
    stretch: &mut Stretch,
    number: u32,
    frame: &Frame,
    limit: u64,
    is_here: &dyn Fn(u32) -> bool,
) -> bool {
    let near = frame.offset.saturating_sub(stretch.range.end) <= GAP && frame.offset >= stretch.range.end;
    if !near || is_here(number) || end(frame).saturating_sub(stretch.range.start) > limit {
        return false;
    }
    stretch.range.end = end(frame);
    stretch.frames.push(number);
    true
}

#[cfg(test)]
mod tests {
    use phoenix_depot::{Blob, BlobName};
    use phoenix_pack::ChunkId;

    use super::*;

    /// Frames of 100 bytes, one after another.
    fn place(pack: &str, number: u32) -> FramePlace {
        let blob =
            Blob { name: BlobName::new(format!("packs/{pack}")).unwrap(), size: 1 << 30, created: None };
        let check = ChunkId::of(b"");
        let frame = Frame { offset: u64::from(number) * 100, stored: 100, length: 300, first: number, check };
        FramePlace { blob, number, frame }
    }

    fn path(number: u8) -> HashPart {
        [number; HASH_LENGTH]
    }

    /// Paths by number, each in these frames of the pack `a`.
    fn wanted(paths: &[(u8, &[u32])]) -> Wanted {
        let mut wanted = Wanted::default();
        for (number, frames) in paths {
            let places: Vec<_> = frames.iter().map(|&frame| place("a", frame)).collect();
            wanted.expect(path(*number), &places);
        }
        wanted
    }

    const NONE: &dyn Fn(u32) -> bool = &|_| false;

    #[test]
    fn neighbours_that_are_wanted_are_read_along() {
        let wanted = wanted(&[(1, &[3, 4]), (2, &[5]), (3, &[6, 7]), (4, &[1_000])]);
        let read = |number, limit, is_here| wanted.stretch(&place("a", number), limit, is_here);
        assert_eq!(read(5, 1_000, NONE), Stretch { range: 300..800, frames: vec![3, 4, 5, 6, 7] });
        // What comes next before what came before.
        assert_eq!(read(5, 300, NONE).frames, [5, 6, 7]);
        assert_eq!(read(5, 400, NONE).frames, [4, 5, 6, 7]);
        // A frame is read however large it is.
        assert_eq!(read(5, 0, NONE).frames, [5]);
        // What is here ends it, and so does what nobody wants, if it is large.
        assert_eq!(read(5, 1_000, &|number| number == 6).frames, [3, 4, 5]);
        assert_eq!(read(999, 1 << 30, NONE).frames, [999, 1_000]);
        // Of a pack that nobody asked about only what is needed is read.
        assert_eq!(wanted.stretch(&place("b", 5), 1_000, NONE).frames, [5]);
    }

    #[test]
    fn a_little_that_nobody_wants_costs_less_than_a_request() {
        let wanted = wanted(&[(1, &[3]), (2, &[10])]);
        let read = wanted.stretch(&place("a", 3), 10_000, NONE);
        assert_eq!(read, Stretch { range: 300..1_100, frames: vec![3, 10] });
        assert_eq!(wanted.stretch(&place("a", 10), 10_000, NONE), read);
    }

    #[test]
    fn frames_that_lie_in_another_order_are_read_alone() {
        let mut wanted = Wanted::default();
        let backwards = |number: u32| {
            let mut place = place("a", number);
            place.frame.offset = 10_000 - place.frame.offset;
            place
        };
        let places: Vec<_> = (1..6).map(backwards).collect();
        wanted.expect(path(1), &places);
        let read = wanted.stretch(&backwards(3), 1 << 20, NONE);
        assert_eq!(read, Stretch { range: 9_700..9_800, frames: vec![3] });
    }

    #[test]
    fn what_comes_next_is_known() {
        let wanted = wanted(&[(1, &[3, 4]), (2, &[5, 2_000])]);
        let after = |number, is_here| wanted.after("packs/a", number, 250, is_here).map(|next| next.frames);
        assert_eq!(after(2, NONE), Some(vec![3, 4]));
        assert_eq!(after(2, &|number| number < 5), Some(vec![5]));
        assert_eq!(after(5, NONE), Some(vec![2_000]));
        assert_eq!(after(2_000, NONE), None);
        assert_eq!(wanted.after("packs/b", 0, 250, NONE), None);
    }

    #[test]
    fn the_next_frames_are_known() {
        let wanted = wanted(&[(1, &[3, 4]), (2, &[5, 2_000])]);
        let next = |pack, number| {
            let next = wanted.next(&place(pack, number), 2);
            next.iter().map(|place| place.number).collect::<Vec<_>>()
        };
        assert_eq!(next("a", 3), [4, 5]);
        assert_eq!(next("a", 5), [2_000]);
        assert!(next("a", 2_000).is_empty() && next("b", 0).is_empty());
    }

    #[test]
    fn what_was_sent_is_not_wanted_any_more() {
        let mut wanted = wanted(&[(1, &[3, 4]), (2, &[4, 5]), (2, &[9])]);
        wanted.forget(&path(1));
        assert_eq!(wanted.stretch(&place("a", 4), 1_000, NONE).frames, [4, 5]);
        wanted.forget(&path(1));
        wanted.forget(&path(2));
        assert_eq!(wanted.stretch(&place("a", 4), 1_000, NONE).frames, [4]);
        assert!(wanted.packs.is_empty() && wanted.order.is_empty() && wanted.count == 0);
    }

    #[test]
    fn it_does_not_grow_without_bounds() {
        let mut wanted = Wanted::default();
        let name = |number: usize| {
            let mut name = [0; HASH_LENGTH];
            name[..8].copy_from_slice(&number.to_le_bytes());
            name
        };
        for number in 0..PATHS + 10 {
            wanted.expect(name(number), &[place("a", number as u32)]);
        }
        assert_eq!((wanted.paths.len(), wanted.count), (PATHS, PATHS));
        assert!(!wanted.paths.contains_key(&name(9)) && wanted.paths.contains_key(&name(10)));
        let many: Vec<_> = (0..FRAMES as u32).map(|number| place("a", number)).collect();
        wanted.expect(path(255), &many);
        assert_eq!((wanted.paths.len(), wanted.count), (1, FRAMES));
    }
}
