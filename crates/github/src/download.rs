//! Ranges of a blob, put together from as many answers as it takes.

use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use phoenix_depot::Problem;
use reqwest::header::{CONTENT_RANGE, ETAG, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode};

use crate::http;
use crate::patience::Passing;
use crate::signed::Signed;
use crate::upload::azure_words;

/// The most that is set aside before any byte came.
const FIRST_ROOM: u64 = 64 << 20;

/// Why an answer did not give what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Asking again may help.
    Again(Passing, String),
    /// The URL is not taken, or not any more.
    Denied(String),
    /// There is no such blob.
    Gone,
    /// The blob ends before.
    Short(String),
    /// It is another blob than the one whose beginning we have.
    Changed,
    /// No answer that makes sense.
    Strange(String),
}

impl Missed {
    /// As a problem of a depot, when no more is to be tried.
    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::Again(Passing::Busy(_), words) => Problem::Busy(words),
            Self::Again(_, words) | Self::Strange(words) => Problem::Unreachable(words),
            Self::Denied(words) => Problem::Denied(words),
            Self::Gone => Problem::Gone,
            Self::Short(words) => Problem::Short(words),
            Self::Changed => Problem::Unreachable("it gives another blob each time".to_owned()),
        }
    }
}

/// What a blob says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) size: u64,
    /// In seconds since 1970.
    pub(crate) modified: Option<u64>,
}

/// Asks for the size of a blob.
pub(crate) async fn head(client: &Client, url: &Signed, within: Duration) -> Result<Head, Missed> {
    let response = client.head(url.url()).timeout(within).send().await.map_err(|error| broken(&error))?;
    if response.status() != StatusCode::OK {
        return Err(missed(&response));
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let size = header(reqwest::header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    let modified = header(LAST_MODIFIED).and_then(seconds);
    let size = size.ok_or_else(|| Missed::Strange("the storage does not say a size".to_owned()))?;
    Ok(Head { size, modified })
}

/// A range of a blob that is being put together.
#[derive(Debug)]
pub(crate) struct Download {
    range: Range<u64>,
    got: BytesMut,
    /// Which state of the blob the bytes are of.
    tag: Option<String>,
}

impl Download {
    /// Begins with a range that is not empty.
    pub(crate) fn new(range: Range<u64>) -> Self {
        Self { range, got: BytesMut::new(), tag: None }
    }

    /// How many bytes are there.
    pub(crate) fn got(&self) -> usize {
        self.got.len()
    }

    /// Begins anew.
    pub(crate) fn restart(&mut self) {
        self.got.clear();
        self.tag = None;
    }

    /// The bytes, when they are all there.
    pub(crate) fn finish(self) -> Bytes {
        self.got.freeze()
    }

    /// Asks for what is missing. What came before something went wrong is kept.
    pub(crate) async fn more(&mut self, client: &Client, url: &Signed) -> Result<(), Missed> {
        let from = self.range.start + self.got.len() as u64;
        let missing = self.range.end - from;
        if missing == 0 {
            return Ok(());
        }
        let request = client.get(url.url()).header(RANGE, format!("bytes={from}-{}", self.range.end - 1));
        let mut response = request.send().await.map_err(|error| broken(&error))?;
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                self.check_range(&response, from)?;
                0
            }
            // Somebody on the way does not know ranges.
            StatusCode::OK => from,
            _ => return Err(missed(&response)),
        };
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        if !self.got.is_empty() && tag != self.tag {
            return Err(Missed::Changed);
        }
        self.tag = tag;
        if self.got.is_empty() {
            self.got.reserve(usize::try_from(missing.min(FIRST_ROOM)).unwrap_or(0));
        }
        let (mut skip, mut missing) = (skip, missing);
        while let Some(mut chunk) = response.chunk().await.map_err(|error| broken(&error))? {
            let over = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= chunk.split_to(over).len() as u64;
            chunk.truncate(usize::try_from(missing).unwrap_or(usize::MAX));
            missing -= chunk.len() as u64;
            self.got.extend_from_slice(&chunk);
            if missing == 0 {
                return Ok(());
            }
        }
        // An answer to the whole blob that ends early has shown its end; a range that does is torn.
        Err(if response.status() == StatusCode::OK {
            Missed::Short("the blob ends before".to_owned())
        } else {
            Missed::Again(Passing::Broken, "the storage sent fewer bytes than it said".to_owned())
        })
    }

    /// Whether the answer is for what was asked.
    fn check_range(&self, response: &Response, from: u64) -> Result<(), Missed> {
        let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let Some((first, last, size)) = header.and_then(content_range) else {
            return Err(Missed::Again(
                Passing::Broken,
                "the storage does not say which bytes it sends".to_owned(),
            ));
        };
        if size.is_some_and(|size| size < self.range.end) {
            let size = size.unwrap_or_default();
            return Err(Missed::Short(format!("byte {} of {size} was asked for", self.range.end)));
        }
        if first != from || last >= self.range.end {
            return Err(Missed::Again(
                Passing::Broken,
                "the storage sends other bytes than asked for".to_owned(),
            ));
        }
        Ok(())
    }
}

/// What an answer other than the bytes means.
fn missed(response: &Response) -> Missed {
    let words = azure_words(response);
    let wait = http::retry_after(response).and_then(|text| text.parse().ok()).map(Duration::from_secs);
    match response.status() {
        // What is signed wrong and what has ended are 403; a conflict is a blob without bytes.
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Missed::Denied(words),
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::CONFLICT => Missed::Gone,
        StatusCode::RANGE_NOT_SATISFIABLE => Missed::Short(words),
        StatusCode::TOO_MANY_REQUESTS => Missed::Again(Passing::Busy(wait), words),
        StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => Missed::Again(Passing::Busy(wait), words),
        StatusCode::REQUEST_TIMEOUT => Missed::Again(Passing::Broken, words),
        status if status.is_server_error() => Missed::Again(Passing::Broken, words),
        _ => Missed::Strange(words),
    }
}

fn broken(error: &reqwest::Error) -> Missed {
    Missed::Again(http::failed(error).0, http::in_words(error))
}

/// First byte, last byte and size of `bytes A-B/SIZE`; the size may be `*`.
fn content_range(header: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, size) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let size = if size == "*" { None } else { Some(size.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, size))
}

/// The seconds since 1970 of a date in a header.
fn seconds(date: &str) -> Option<u64> {
    let time = jiff::fmt::rfc2822::parse(date).ok()?;
    u64::try_from(time.timestamp().as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9, None)));
        for bad in ["", "bytes */10", "5-9/10", "bytes 5-/10", "bytes 5-9"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("yesterday"), None);
    }
}
