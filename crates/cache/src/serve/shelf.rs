//! What a server has to offer: the catalog, and what became known of it meanwhile.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use phoenix_depot::Depot;
use phoenix_model::StorePath;
use phoenix_pack::{HASH_LENGTH, Located, PathInfo};
use phoenix_substituter::{
    self as substituter, ContentCheck, NarInfo, PublicKeys, SecretKey, is_content_addressed, nix32,
};

use super::asked::nar_url;
use super::damaged::Damaged;
use super::nar::{Broken, Planned};
use super::opened::{FramePlace, Lost, Tell};
use crate::{Packs, Trouble};

/// How long one request waits for a look at what is new in the depot.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// How often the depot is looked at because something is gone, at most.
const LOST: Duration = Duration::from_secs(1);

/// A catalog that answers.
pub(super) struct Shelf {
    packs: Arc<Mutex<Packs>>,
    store_dir: String,
    sign: Option<SecretKey>,
    trusted: Option<PublicKeys>,
    look_every: Duration,
    /// When the depot was looked at last. Held while it is looked at.
    looked: Arc<tokio::sync::Mutex<Instant>>,
    /// Archives that turned out to be damaged.
    damaged: Arc<Mutex<Damaged>>,
    tell: Arc<Tell>,
}

impl Shelf {
    pub(super) fn new(packs: Packs, settings: super::Settings, tell: Arc<Tell>) -> Self {
        Self {
            packs: Arc::new(Mutex::new(packs)),
            store_dir: settings.store_dir,
            sign: settings.sign,
            trusted: settings.trusted,
            look_every: settings.look_every,
            looked: Arc::new(tokio::sync::Mutex::new(Instant::now())),
            damaged: Arc::default(),
            tell,
        }
    }

    pub(super) fn store_dir(&self) -> &str {
        &self.store_dir
    }

    pub(super) fn depot(&self) -> Arc<dyn Depot> {
        self.packs().depot().clone()
    }

    fn packs(&self) -> MutexGuard<'_, Packs> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The narinfo of a path that can be put together and may be served, and the frames it is in.
    pub(super) fn narinfo(&self, hash_part: &[u8; HASH_LENGTH]) -> Option<(String, Vec<FramePlace>)> {
        let (located, frames) = {
            let mut packs = self.packs();
            let located = packs.catalog().locate(hash_part)?;
            let frames = frames(&packs, &located);
            (located, frames)
        };
        let said = self.narinfo_of(hash_part, &located.info)?;
        // Of a pack that is not there any more nothing can be read along.
        Some((said, frames.map(|frames| frames.into_values().collect()).unwrap_or_default()))
    }

    fn narinfo_of(&self, hash_part: &[u8; HASH_LENGTH], info: &PathInfo) -> Option<String> {
        if info.hash_part() != Some(hash_part) || self.is_damaged(hash_part, &info.nar_hash) {
            return None;
        }
        let mut said = self.said(info)?;
        if self.trusted.as_ref().is_some_and(|keys| !keys.signed(&said) && !is_content_addressed(&said)) {
            return None;
        }
        if let Some(signature) = self.sign.as_ref().and_then(|key| key.sign(&said))
            && !said.signatures.contains(&signature)
        {
            said.signatures.push(signature);
        }
        let narinfo = NarInfo {
            info: said,
            url: nar_url(hash_part, &info.nar_hash),
            compression: Some("none".to_owned()),
            file_hash: None,
            file_size: None,
            deriver: info.deriver.clone(),
        };
        let text = narinfo.to_string();
        // What a pack says could break out of its line: only what can be read back is sent.
        match NarInfo::parse(&text) {
            Ok(read) => (read == narinfo).then_some(text),
            Err(why) => {
                let (depot, path) = (self.depot().location().to_owned(), info.name.clone());
                (self.tell)(Trouble::NotServed { depot, path, why });
                None
            }
        }
    }

    /// What is said of a path; of an address that it does not follow from, nothing.
    fn said(&self, info: &PathInfo) -> Option<substituter::PathInfo> {
        let mut said = substituter::PathInfo {
            store_path: StorePath::parse(&format!("{}/{}", self.store_dir, info.name)).ok()?,
            nar_hash: format!("sha256:{}", nix32::encode(&info.nar_hash)),
            nar_size: info.nar_size,
            references: info.references.clone(),
            signatures: info.signatures.clone(),
            content_address: info.ca.clone(),
        };
        if !is_content_addressed(&said) {
            said.content_address = None;
        }
        Some(said)
    }

    /// An archive that is asked for by path and hash, if it can be put together and may be served.
    pub(super) fn archive(&self, hash_part: &[u8; HASH_LENGTH], nar_hash: &[u8; 32]) -> Option<Planned> {
        let mut packs = self.packs();
        let located = packs.catalog().locate(hash_part).filter(|found| found.info.nar_hash == *nar_hash)?;
        let frames = frames(&packs, &located)?;
        let place = |pack, number| place(&packs, pack, number);
        let (first, last) = (located.pieces.first(), located.pieces.last());
        let beside = [
            first.and_then(|piece| place(piece.pack, piece.frame.checked_sub(1)?)),
            last.and_then(|piece| place(piece.pack, piece.frame.checked_add(1)?)),
        ];
        drop(packs);
        self.narinfo_of(hash_part, &located.info)?;
        let check = self.said(&located.info).as_ref().and_then(ContentCheck::begin);
        Some(Planned { located, frames, beside, check })
    }

    /// Takes note of why an archive could not be served to its end.
    pub(super) fn learn(&self, planned: &Planned, broken: Broken) {
        let info = &planned.located.info;
        let place =
            broken.pack.and_then(|pack| planned.frames.iter().find(|((number, _), _)| *number == pack));
        match (broken.why, place) {
            (Lost::Unreachable, _) => {}
            (Lost::Gone, Some((_, place))) => self.packs().lose(place.blob.name.as_str()),
            (Lost::Gone | Lost::Damaged, _) => {
                if let Some(hash_part) = info.hash_part() {
                    let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
                    damaged.insert((*hash_part, info.nar_hash), Instant::now());
                }
            }
        }
    }

    fn is_damaged(&self, hash_part: &[u8; HASH_LENGTH], nar_hash: &[u8; 32]) -> bool {
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.has(&(*hash_part, *nar_hash), Instant::now())
    }

    /// Looks at what is new in the depot, if nobody did for some time; whether what is known may be more now.
    pub(super) async fn look_again(&self) -> bool {
        self.look_after(self.look_every).await
    }

    /// The same where something that was known turned out to be gone.
    pub(super) async fn look_for_lost(&self) -> bool {
        self.look_after(self.look_every.min(LOST)).await
    }

    async fn look_after(&self, some_time: Duration) -> bool {
        let Ok(mut looked) = tokio::time::timeout(LOOK_PATIENCE, self.looked.clone().lock_owned()).await
        else {
            return false;
        };
        if looked.elapsed() < some_time {
            // Somebody may have looked while this waited.
            return true;
        }
        let (packs, damaged, tell) = (self.packs.clone(), self.damaged.clone(), self.tell.clone());
        let looking = tokio::spawn(async move {
            let count = || packs.lock().unwrap_or_else(PoisonError::into_inner).count();
            let before = count();
            Packs::look_again(&packs, &mut |trouble: Trouble| tell(trouble)).await;
            if count() != before {
                // Another pack may have what was damaged.
                damaged.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
            *looked = Instant::now();
        });
        tokio::time::timeout(LOOK_PATIENCE, looking).await.is_ok()
    }
}

/// Where a frame is, by the numbers of pack and frame.
fn place(packs: &Packs, pack: u32, number: u32) -> Option<FramePlace> {
    let (_, directory) = packs.peek().pack(pack)?;
    let known = (number as usize) < directory.frames();
    let frame = known.then(|| directory.frame(number as usize))?;
    Some(FramePlace { blob: packs.blob(pack)?.clone(), number, frame })
}

/// The frames of a path, by the numbers of pack and frame.
fn frames(packs: &Packs, located: &Located) -> Option<HashMap<(u32, u32), FramePlace>> {
    let mut frames = HashMap::new();
    for piece in &located.pieces {
        if let Entry::Vacant(entry) = frames.entry((piece.pack, piece.frame)) {
            entry.insert(place(packs, piece.pack, piece.frame)?);
        }
    }
    Some(frames)
}
