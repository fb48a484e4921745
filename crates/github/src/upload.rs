//! Bytes on their way into a blob: at once when they are few, in blocks when they are many.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use phoenix_depot::{Body, Problem};
use reqwest::{Client, StatusCode};

use crate::patience::{Passing, Patience};
use crate::signed::Signed;
use crate::{Settings, http};

/// The most blocks of a blob (Azure's limit).
const MOST_BLOCKS: u32 = 50_000;

/// How much longer than a standstill one request may take that sends bytes.
const TRANSFER: u32 = 10;

/// How often a refused URL is tried again: another cannot be had, and the name would be lost for a day.
const REFUSALS: u32 = 1;

/// A body that is cut into blocks of one size, the last of which may be smaller.
pub(crate) struct Blocks {
    body: Option<Body>,
    size: usize,
    left: Bytes,
}

impl Blocks {
    pub(crate) fn new(body: Body, size: usize) -> Self {
        Self { body: Some(body), size: size.max(1), left: Bytes::new() }
    }

    /// The next block; none at the end.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        // What is large enough already is not copied.
        if self.left.len() >= self.size {
            return Ok(Some(self.left.split_to(self.size)));
        }
        let mut block = BytesMut::from(&self.left[..]);
        self.left = Bytes::new();
        while let Some(body) = &mut self.body {
            match body.next().await {
                Some(Ok(mut piece)) => {
                    let room = self.size - block.len();
                    block.extend_from_slice(&piece.split_to(room.min(piece.len())));
                    self.left = piece;
                    if block.len() == self.size {
                        break;
                    }
                }
                Some(Err(error)) => {
                    self.body = None;
                    return Err(error);
                }
                None => self.body = None,
            }
        }
        Ok((!block.is_empty()).then(|| block.freeze()))
    }

    /// A body again, with blocks before it that were taken from it.
    pub(crate) fn into_body(self, taken: [Option<Bytes>; 2]) -> Body {
        let rest = stream::try_unfold(self, |mut blocks| async move {
            Ok(blocks.next().await?.map(|block| (block, blocks)))
        });
        stream::iter(taken.into_iter().flatten().map(Ok)).chain(rest).boxed()
    }

    /// Whether there is certainly nothing more.
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_none() && self.left.is_empty()
    }
}

/// Puts bytes where a URL says.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    pub(crate) http: &'a Client,
    pub(crate) settings: &'a Settings,
    pub(crate) url: &'a Signed,
}

impl Upload<'_> {
    /// A blob of one block.
    pub(crate) async fn whole(&self, bytes: Bytes) -> Result<u64, Problem> {
        let size = bytes.len() as u64;
        self.put(self.url.url().to_owned(), bytes, true).await?;
        Ok(size)
    }

    /// A blob of many blocks, the first of which were taken from `blocks` already.
    pub(crate) async fn blocks(&self, first: [Bytes; 2], blocks: Blocks) -> Result<u64, Problem> {
        let (count, size) = (AtomicU32::new(0), AtomicU64::new(0));
        let rest = stream::try_unfold(blocks, |mut blocks| async move {
            let block = blocks.next().await.map_err(Problem::Body)?;
            Ok(block.map(|block| (block, blocks)))
        });
        stream::iter(first.map(Ok))
            .chain(rest)
            .try_for_each_concurrent(self.settings.uploads.max(1), |block| {
                let number = count.fetch_add(1, Ordering::Relaxed);
                size.fetch_add(block.len() as u64, Ordering::Relaxed);
                async move {
                    if number >= MOST_BLOCKS {
                        return Err(Problem::Full(format!("a blob has at most {MOST_BLOCKS} blocks")));
                    }
                    let query = format!("comp=block&blockid={}", encoded(&block_id(number)));
                    self.put(self.url.with(&query), block, false).await
                }
            })
            .await?;
        let list = block_list(count.into_inner());
        self.put(self.url.with("comp=blocklist"), list.into(), false).await?;
        Ok(size.into_inner())
    }

    async fn put(&self, url: String, bytes: Bytes, blob: bool) -> Result<(), Problem> {
        let mut patience = Patience::new(self.settings);
        let mut refusals = 0;
        loop {
            let (why, words) = match self.once(&url, bytes.clone(), blob).await {
                Ok(()) => return Ok(()),
                Err(Refused::Again(why, words)) => (why, words),
                Err(Refused::Denied(words)) if refusals < REFUSALS => {
                    refusals += 1;
                    (Passing::Broken, words)
                }
                Err(Refused::Denied(words)) => return Err(Problem::Denied(words)),
                Err(Refused::Other(words)) => return Err(Problem::Unreachable(words)),
            };
            patience.again(why, words).await?;
        }
    }

    async fn once(&self, url: &str, bytes: Bytes, blob: bool) -> Result<(), Refused> {
        let mut request = self.http.put(url).timeout(self.settings.stall * TRANSFER);
        // An empty body has no length by itself, and Azure wants one.
        request = request.header(reqwest::header::CONTENT_LENGTH, bytes.len());
        if blob {
            request = request.header("x-ms-blob-type", "BlockBlob");
        }
        let response = request.body(bytes).send().await;
        let response =
            response.map_err(|error| Refused::Again(http::failed(&error).0, http::in_words(&error)))?;
        let status = response.status();
        if status.is_success() {
            // Read to its end, the connection can be used again.
            let _ = http::body(response).await;
            return Ok(());
        }
        let words = azure_words(&response);
        let wait = http::retry_after(&response).and_then(|text| text.parse().ok()).map(Duration::from_secs);
        Err(match status {
            StatusCode::FORBIDDEN => Refused::Denied(format!("the upload URL is not taken: {words}")),
            StatusCode::TOO_MANY_REQUESTS => Refused::Again(Passing::Busy(wait), words),
            StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => Refused::Again(Passing::Busy(wait), words),
            StatusCode::REQUEST_TIMEOUT => Refused::Again(Passing::Broken, words),
            status if status.is_server_error() => Refused::Again(Passing::Broken, words),
            _ => Refused::Other(words),
        })
    }
}

enum Refused {
    Again(Passing, String),
    Denied(String),
    Other(String),
}

/// What a refusal is called. The body is not shown: it may quote what was signed.
pub(crate) fn azure_words(response: &reqwest::Response) -> String {
    let status = response.status().as_u16();
    let code = response.headers().get("x-ms-error-code").and_then(|code| code.to_str().ok());
    match code.filter(|code| code.len() < 100 && code.chars().all(|c| c.is_ascii_alphanumeric())) {
        Some(code) => format!("the storage answers {status} {code}"),
        None => format!("the storage answers {status}"),
    }
}

/// The names of a blob's blocks have one length.
fn block_id(number: u32) -> String {
    STANDARD.encode(format!("phoenix-{number:08}"))
}

fn encoded(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn block_list(count: u32) -> String {
    let ids: String = (0..count).map(|number| format!("<Latest>{}</Latest>", block_id(number))).collect();
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{ids}</BlockList>")
}

#[cfg(test)]
mod tests {
    use phoenix_depot::testing;

    use super::*;

    async fn cut(pieces: Vec<Bytes>, size: usize) -> Vec<Bytes> {
        let mut blocks = Blocks::new(stream::iter(pieces.into_iter().map(Ok)).boxed(), size);
        let mut all = Vec::new();
        while let Some(block) = blocks.next().await.unwrap() {
            all.push(block);
        }
        assert!(blocks.is_over());
        all
    }

    #[tokio::test]
    async fn blocks_are_of_one_size_however_the_body_comes() {
        for seed in 0..200 {
            let length = usize::try_from(seed * 7919 % 5000).unwrap();
            let bytes = testing::bytes(seed, length);
            let blocks = cut(testing::pieces(seed, bytes.clone()), 1000).await;
            assert_eq!(blocks.concat(), bytes);
            assert_eq!(blocks.len(), length.div_ceil(1000));
            assert!(blocks.iter().rev().skip(1).all(|block| block.len() == 1000));
        }
        assert_eq!(cut(vec![], 10).await, Vec::<Bytes>::new());
        assert_eq!(cut(vec![Bytes::from_static(b"0123456789")], 5).await.len(), 2);
    }

    #[tokio::test]
    async fn a_body_comes_back_whole() {
        for length in [0, 5, 1000, 1001, 2000, 2001, 5000] {
            let bytes = testing::bytes(7, length);
            let mut blocks = Blocks::new(
                stream::iter(testing::pieces(7, bytes.clone()).into_iter().map(Ok)).boxed(),
                1000,
            );
            let taken = [blocks.next().await.unwrap(), blocks.next().await.unwrap()];
            let body: Vec<Bytes> = blocks.into_body(taken).try_collect().await.unwrap();
            assert_eq!(body.concat(), bytes, "{length}");
        }
    }

    #[test]
    fn block_names_have_one_length_and_fit() {
        assert_eq!(block_id(0).len(), block_id(MOST_BLOCKS).len());
        assert_eq!(STANDARD.decode(block_id(7)).unwrap(), b"phoenix-00000007");
        let list = block_list(2);
        assert!(list.find(&block_id(0)) < list.find(&block_id(1)), "{list}");
    }
}
