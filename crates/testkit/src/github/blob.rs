//! Azure's block blobs: put at once or as blocks and a list of them, read whole or by a range.

use std::collections::HashMap;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// The most blocks of a blob.
const MOST_BLOCKS: usize = 50_000;

/// The most bytes of a block's name, decoded.
const LONGEST_BLOCK_ID: usize = 64;

/// Azure's name of an error; it has a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u16, pub(super) &'static str);

/// A blob as it is read.
#[derive(Debug, Clone)]
pub(super) struct Content {
    /// One after the other: a list of blocks copies nothing, whatever they have.
    parts: Vec<Bytes>,
    /// Which of all writes made it.
    pub(super) tag: u64,
    /// When, in milliseconds since 1970.
    pub(super) modified: u64,
    /// What it was made of, by name; a list may name these again.
    blocks: HashMap<String, Bytes>,
}

impl Content {
    /// How many bytes it has.
    pub(super) fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// The bytes of a range, as far as there are any. What is within one block is not copied.
    pub(super) fn bytes(&self, range: Range<u64>) -> Bytes {
        let mut start = 0;
        let inside = self.parts.iter().filter_map(|part| {
            let end = start + part.len() as u64;
            let cut = |at: u64| usize::try_from(at.clamp(start, end) - start).unwrap_or_default();
            let inside = cut(range.start)..cut(range.end);
            start = end;
            (!inside.is_empty()).then(|| part.slice(inside))
        });
        let mut inside: Vec<Bytes> = inside.collect();
        match inside.len() {
            0 => Bytes::new(),
            1 => inside.remove(0),
            _ => inside.concat().into(),
        }
    }
}

/// All blobs, by path.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    committed: HashMap<String, Content>,
    staged: HashMap<String, HashMap<String, Bytes>>,
    writes: u64,
}

impl Blobs {
    pub(super) fn get(&self, path: &str) -> Option<&Content> {
        self.committed.get(path)
    }

    pub(super) fn put(&mut self, path: &str, bytes: Bytes, now: u64) {
        self.commit(path, vec![bytes], HashMap::new(), now);
    }

    fn commit(&mut self, path: &str, parts: Vec<Bytes>, blocks: HashMap<String, Bytes>, now: u64) {
        self.writes += 1;
        self.staged.remove(path);
        let content = Content { parts, tag: self.writes, modified: now, blocks };
        self.committed.insert(path.to_owned(), content);
    }

    /// Takes a block; nothing of it is seen before the list.
    pub(super) fn put_block(&mut self, path: &str, id: &str, bytes: Bytes) -> Result<(), Refused> {
        let decoded = STANDARD.decode(id).map_err(|_| Refused(400, "InvalidQueryParameterValue"))?;
        if decoded.is_empty() || decoded.len() > LONGEST_BLOCK_ID {
            return Err(Refused(400, "InvalidQueryParameterValue"));
        }
        let staged = self.staged.entry(path.to_owned()).or_default();
        if staged.keys().any(|other| other.len() != id.len()) {
            return Err(Refused(400, "InvalidBlobOrBlock"));
        }
        staged.insert(id.to_owned(), bytes);
        Ok(())
    }

    /// Makes a blob of blocks, each the latest of its name; those that are not named are dropped.
    pub(super) fn put_list(&mut self, path: &str, xml: &str, now: u64) -> Result<(), Refused> {
        let ids = block_ids(xml).ok_or(Refused(400, "InvalidXmlDocument"))?;
        if ids.len() > MOST_BLOCKS {
            return Err(Refused(400, "BlockListTooLong"));
        }
        let staged = self.staged.get(path);
        let committed = self.committed.get(path).map(|content| &content.blocks);
        let (mut parts, mut blocks) = (Vec::new(), HashMap::new());
        for id in ids {
            let latest = staged.and_then(|staged| staged.get(id));
            let block = latest.or_else(|| committed.and_then(|committed| committed.get(id)));
            let block = block.ok_or(Refused(400, "InvalidBlockList"))?;
            parts.push(block.clone());
            blocks.insert(id.to_owned(), block.clone());
        }
        self.commit(path, parts, blocks, now);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.committed.remove(path);
        self.staged.remove(path);
    }
}

/// The names in `<BlockList><Latest>…</Latest>…</BlockList>`.
fn block_ids(xml: &str) -> Option<Vec<&str>> {
    let (_, rest) = xml.split_once("<BlockList>")?;
    let (mut rest, _) = rest.rsplit_once("</BlockList>")?;
    let mut ids = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(ids);
        }
        let (tag, after) = rest.strip_prefix('<')?.split_once('>')?;
        if !matches!(tag, "Latest" | "Uncommitted" | "Committed") {
            return None;
        }
        let (id, after) = after.split_once(&format!("</{tag}>"))?;
        ids.push(id);
        rest = after;
    }
}

/// What a `Range` header means for a blob of `size` bytes.
///
/// Only `bytes=A-B` and `bytes=A-` are taken; suffixes and several ranges are refused, more strictly than
/// Azure does it, for clients should not use them.
pub(super) fn range(header: &str, size: u64) -> Result<Range<u64>, Refused> {
    let bad = Refused(400, "InvalidHeaderValue");
    let (from, to) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or(bad)?;
    let from: u64 = from.parse().map_err(|_| bad)?;
    let to = if to.is_empty() { u64::MAX } else { to.parse().map_err(|_| bad)? };
    if to < from {
        return Err(bad);
    }
    if from >= size {
        return Err(Refused(416, "InvalidRange"));
    }
    Ok(from..to.saturating_add(1).min(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> String {
        STANDARD.encode(text)
    }

    #[test]
    fn blocks_are_seen_when_listed_in_the_order_of_the_list() {
        let mut blobs = Blobs::default();
        blobs.put_block("p", &id("01"), Bytes::from_static(b"world")).unwrap();
        blobs.put_block("p", &id("00"), Bytes::from_static(b"hello ")).unwrap();
        assert!(blobs.get("p").is_none());
        let missing = format!("<BlockList><Latest>{}</Latest></BlockList>", id("02"));
        assert_eq!(blobs.put_list("p", &missing, 0), Err(Refused(400, "InvalidBlockList")));
        let list = format!(
            "<?xml version=\"1.0\"?>\n<BlockList>\n<Latest>{}</Latest><Uncommitted>{}</Uncommitted></BlockList>\n",
            id("00"),
            id("01"),
        );
        blobs.put_list("p", &list, 7).unwrap();
        let content = blobs.get("p").unwrap();
        assert_eq!((&content.bytes(0..11)[..], content.modified), (&b"hello world"[..], 7));
        assert_eq!(content.size(), 11);
        for (range, bytes) in [(4..8, "o wo"), (6..11, "world"), (0..6, "hello "), (6..6, ""), (9..99, "ld")]
        {
            assert_eq!(&content.bytes(range)[..], bytes.as_bytes());
        }
        assert_eq!(blobs.put_list("p", &list, 0), Ok(()), "who did not hear the answer may ask again");
        blobs.put("p", Bytes::new(), 0);
        assert_eq!(blobs.put_list("p", &list, 0), Err(Refused(400, "InvalidBlockList")));
        assert_eq!(blobs.put_list("p", "nonsense", 0), Err(Refused(400, "InvalidXmlDocument")));
    }

    #[test]
    fn names_of_blocks_are_base64_of_one_length() {
        let mut blobs = Blobs::default();
        assert!(blobs.put_block("p", "!", Bytes::new()).is_err());
        assert!(blobs.put_block("p", &id(&"a".repeat(65)), Bytes::new()).is_err());
        blobs.put_block("p", &id("aaa"), Bytes::new()).unwrap();
        assert_eq!(blobs.put_block("p", &id("aaaa"), Bytes::new()), Err(Refused(400, "InvalidBlobOrBlock")));
    }

    #[test]
    fn ranges_end_where_the_blob_does() {
        assert_eq!(range("bytes=0-0", 10), Ok(0..1));
        assert_eq!(range("bytes=3-", 10), Ok(3..10));
        assert_eq!(range("bytes=3-99", 10), Ok(3..10));
        assert_eq!(range("bytes=10-11", 10), Err(Refused(416, "InvalidRange")));
        assert_eq!(range("bytes=0-0", 0), Err(Refused(416, "InvalidRange")));
        for bad in ["bytes=-5", "bytes=1-2,4-5", "items=1-2", "bytes=5-3", "bytes=a-b"] {
            assert_eq!(range(bad, 10), Err(Refused(400, "InvalidHeaderValue")), "{bad}");
        }
    }
}
