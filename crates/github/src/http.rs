//! What is common to all requests.

use std::error::Error;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};

use crate::patience::Passing;

/// The longest that a connection may take to come about.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);

/// The most that is read of an answer that is not a blob.
const LARGEST_ANSWER: usize = 4 << 20;

/// A client that follows nobody elsewhere, as a token would go with it. With `stall`, a request ends when
/// nothing comes back for so long; whoever sends much needs one without.
pub(crate) fn client(stall: Option<Duration>) -> Result<Client, String> {
    // A second call changes nothing and says so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("phoenix-ci/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(LONGEST_CONNECT)
        .redirect(Policy::none())
        .tcp_nodelay(true);
    let builder = match stall {
        Some(stall) => builder.read_timeout(stall),
        None => builder,
    };
    builder.build().map_err(|error| in_words(&error))
}

/// The `Retry-After` of an answer.
pub(crate) fn retry_after(response: &Response) -> Option<&str> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()
}

/// The body of an answer that is not a blob; one that is too long is cut.
pub(crate) async fn body(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = LARGEST_ANSWER - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    Ok(body)
}

/// What a request that got no answer means, and whether it may have been done all the same.
pub(crate) fn failed(error: &reqwest::Error) -> (Passing, bool) {
    let why = if error.is_timeout() { Passing::OutOfTime } else { Passing::Broken };
    (why, !error.is_connect() && !error.is_builder())
}

/// An error by its last cause, and without the URL, which may be signed.
pub(crate) fn in_words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let last = std::iter::successors(error.source(), |&cause| cause.source()).last();
    match last {
        Some(last) if error.is_connect() => format!("it cannot be reached: {last}"),
        Some(last) => format!("the request failed: {last}"),
        None => "the request failed".to_owned(),
    }
}
