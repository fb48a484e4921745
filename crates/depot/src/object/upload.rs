//! Uploads: in one request, or in parts.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, PutMode, PutMultipartOptions, PutOptions, PutPayload};

use crate::object::ObjectDepot;
use crate::{BlobName, Body, Created, Problem};

/// The size of the first parts in bytes; what is not larger is put in one request. Stores ask for 5 MiB at least.
pub(super) const PART: usize = 8 << 20;

/// How long the parts that are under way are waited for when another failed.
const LAST_PARTS: Duration = Duration::from_secs(5);

/// How many bytes of parts are on their way at once, beside one that is being filled.
const UNDER_WAY: usize = 4 * PART;

/// How many parts an upload may have in every store.
const MOST_PARTS: usize = 10_000;

/// The size in bytes of the part of this number, from 0. It grows, so that all parts hold more than 400 GiB.
///
/// Bodies of up to 15 GiB have parts of one size but for the last, which some stores ask for.
fn part_size(number: usize) -> usize {
    match number {
        0..2_000 => PART,
        2_000..4_000 => 2 * PART,
        _ => 8 * PART,
    }
}

/// A body that is cut into parts.
struct Parts {
    body: Body,
    /// What was taken from the body for the next part already.
    rest: Bytes,
}

impl Parts {
    /// The next part: of `size` bytes, or of fewer if the body ends with it.
    async fn next(&mut self, size: usize) -> Result<Vec<Bytes>, Problem> {
        let mut pieces = Vec::new();
        let mut gathered = Vec::new();
        let mut missing = size;
        while missing > 0 {
            if self.rest.is_empty() {
                match self.body.next().await {
                    Some(piece) => self.rest = piece.map_err(Problem::Body)?,
                    None => break,
                }
            }
            let piece = self.rest.split_to(self.rest.len().min(missing));
            missing -= piece.len();
            // Many small pieces would take more memory than their bytes.
            if piece.len() < 64 << 10 {
                gathered.extend_from_slice(&piece);
            } else {
                if !gathered.is_empty() {
                    pieces.push(std::mem::take(&mut gathered).into());
                }
                pieces.push(piece);
            }
        }
        if !gathered.is_empty() {
            pieces.push(gathered.into());
        }
        Ok(pieces)
    }
}

fn size(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// How an upload in parts ended that did not become a blob.
enum Not {
    Taken,
    Problem(Problem),
}

impl ObjectDepot {
    /// Makes a blob of a body.
    pub(super) async fn upload(&self, name: &BlobName, body: Body) -> Result<Created, Problem> {
        let path = self.path(name);
        let mut parts = Parts { body, rest: Bytes::new() };
        let first = parts.next(PART).await?;
        if size(&first) < PART as u64 {
            return self.put(name, &path, first).await;
        }
        let second = parts.next(part_size(1)).await?;
        if second.is_empty() {
            return self.put(name, &path, first).await;
        }
        if self.found(name).await?.is_some() {
            return Ok(Created::Taken);
        }
        let upload = self.store.put_multipart_opts(&path, PutMultipartOptions::default()).await;
        let mut upload = Unfinished(Some(upload.map_err(|error| self.problem(&error))?));
        match self.put_parts(name, &mut upload, [first, second], parts).await {
            Ok(size) => {
                upload.0 = None;
                Ok(Created::New(size))
            }
            Err(not) => {
                upload.abort().await;
                match not {
                    Not::Taken => Ok(Created::Taken),
                    Not::Problem(problem) => Err(problem),
                }
            }
        }
    }

    async fn put(&self, name: &BlobName, path: &Path, pieces: Vec<Bytes>) -> Result<Created, Problem> {
        let size = size(&pieces);
        let mode = if self.conditional {
            PutMode::Create
        } else if self.found(name).await?.is_some() {
            return Ok(Created::Taken);
        } else {
            PutMode::Overwrite
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.put_opts(path, pieces.into_iter().collect::<PutPayload>(), options).await {
            Ok(_) => Ok(Created::New(size)),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Created::Taken),
            Err(error) => Err(self.problem(&error)),
        }
    }

    async fn put_parts(
        &self,
        name: &BlobName,
        upload: &mut Unfinished,
        first: [Vec<Bytes>; 2],
        mut parts: Parts,
    ) -> Result<u64, Not> {
        let Some(upload) = &mut upload.0 else { return Err(Not::Taken) };
        let mut under_way = FuturesUnordered::new();
        let put = async {
            let mut waiting = 0;
            let mut whole = 0;
            let mut number = 0;
            let mut given = first.into_iter();
            loop {
                let part = match given.next() {
                    Some(part) => part,
                    // What is under way goes on while the body is waited for.
                    None => {
                        let next = parts.next(part_size(number));
                        futures_util::pin_mut!(next);
                        loop {
                            tokio::select! {
                                biased;
                                Some((size, put)) = under_way.next(), if waiting > 0 => {
                                    waiting -= size;
                                    Result::map_err(put, |error| self.problem(&error))?;
                                }
                                part = &mut next => break part?,
                            }
                        }
                    }
                };
                if part.is_empty() {
                    break;
                }
                if number == MOST_PARTS {
                    return Err(Problem::Full(format!("{whole} bytes are the most that it keeps in one")));
                }
                let size = size(&part);
                whole += size;
                waiting += size;
                number += 1;
                let put = upload.put_part(part.into_iter().collect::<PutPayload>());
                under_way.push(async move { (size, put.await) });
                while waiting > UNDER_WAY as u64 {
                    let Some((size, put)) = under_way.next().await else { break };
                    waiting -= size;
                    Result::map_err(put, |error| self.problem(&error))?;
                }
            }
            while let Some((_, put)) = under_way.next().await {
                Result::map_err(put, |error| self.problem(&error))?;
            }
            Ok(whole)
        };
        let whole = match put.await {
            Ok(whole) => whole,
            Err(problem) => {
                // A part that arrives after the upload was aborted may stay.
                let _ = tokio::time::timeout(LAST_PARTS, under_way.count()).await;
                return Err(Not::Problem(problem));
            }
        };
        // Where the end of an upload can be conditional this saves it the work, and elsewhere it is all there is.
        if self.found(name).await.map_err(Not::Problem)?.is_some() {
            return Err(Not::Taken);
        }
        match upload.complete().await {
            Ok(_) => Ok(whole),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Err(Not::Taken),
            Err(error) => match self.found(name).await {
                // The upload ended before, and the answer to that was lost.
                Ok(Some(blob)) if matches!(error, Error::NotFound { .. }) && blob.size == whole => Ok(whole),
                // When one upload of a name ends, Azure forgets the parts of all others.
                Ok(Some(_)) if format!("{error:?}").contains("InvalidBlockList") => Err(Not::Taken),
                _ => Err(Not::Problem(self.problem(&error))),
            },
        }
    }
}

/// An upload in parts that is aborted when it is dropped.
struct Unfinished(Option<Box<dyn MultipartUpload>>);

impl Unfinished {
    async fn abort(mut self) {
        if let Some(mut upload) = self.0.take() {
            // What cannot be aborted now is by the bucket's own rule.
            let _ = upload.abort().await;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(mut upload) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                let _ = upload.abort().await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_of_their_size_and_hold_the_body(
            pieces in prop::collection::vec(0_usize..200_000, 0..12),
            sizes in prop::collection::vec(1_usize..300_000, 1..4),
        ) {
            let whole = crate::testing::bytes(1, pieces.iter().sum());
            let mut rest = whole.clone();
            let pieces: Vec<_> = pieces.into_iter().map(|length| Ok(rest.split_to(length))).collect();
            let mut parts = Parts { body: stream::iter(pieces).boxed(), rest: Bytes::new() };
            let mut back = Vec::new();
            for size in sizes.into_iter().cycle() {
                let part = parts.next(size).now_or_never().unwrap().unwrap();
                let length: usize = part.iter().map(Bytes::len).sum();
                back.extend(part.into_iter().flatten());
                prop_assert!(length == size || back.len() == whole.len());
                if length == 0 {
                    break;
                }
            }
            prop_assert!(back == whole);
        }
    }

    #[test]
    fn parts_hold_hundreds_of_gibibytes_and_each_has_a_size_that_stores_take() {
        let all: u64 = (0..MOST_PARTS).map(|number| part_size(number) as u64).sum();
        assert!(all > 400 << 30, "{all}");
        assert!((0..MOST_PARTS).all(|number| (5 << 20..=5 << 30).contains(&(part_size(number) as u64))));
    }
}
