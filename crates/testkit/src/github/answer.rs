//! Answers on their way out, whole or not.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Response, StatusCode};

use super::fault::Fault;

pub(super) type Body = BoxBody<Bytes, io::Error>;

/// An answer before anything goes wrong with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    /// For `HEAD`: the length that is said and not sent.
    pub(super) length: Option<u64>,
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![(CONTENT_TYPE.as_str(), content_type.to_owned())];
        Self { status, headers, body: body.into(), length: None }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// A page that some machine on the way might send.
    pub(super) fn page(status: u16) -> Self {
        Self::new(status, "text/html", "<html><body>Something went wrong</body></html>")
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What goes out, with what goes wrong with bodies.
    pub(super) fn response(self, fault: Option<Fault>, pause: Duration) -> Response<Body> {
        let mut response = Response::builder()
            .status(StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
            .header(CONTENT_LENGTH, self.length.unwrap_or(self.body.len() as u64));
        for (name, value) in &self.headers {
            response = response.header(*name, value);
        }
        let response = response.body(body(self.body, fault, pause));
        response.unwrap_or_else(|_| Response::new(body(Bytes::new(), None, pause)))
    }
}

fn body(bytes: Bytes, fault: Option<Fault>, pause: Duration) -> Body {
    const PIECES: usize = 8;
    match fault {
        Some(Fault::Torn) => {
            // A moment between, for the first half to arrive.
            let half = Ok(Frame::data(bytes.slice(..bytes.len() / 2)));
            let broken = stream::once(async move {
                tokio::time::sleep(pause).await;
                Err(io::Error::other("torn on purpose"))
            });
            BodyExt::boxed(StreamBody::new(stream::iter([half]).chain(broken)))
        }
        Some(Fault::Slow) => {
            let size = bytes.len().div_ceil(PIECES).max(1);
            let pieces: Vec<_> = (0..bytes.len())
                .step_by(size)
                .map(|at| bytes.slice(at..(at + size).min(bytes.len())))
                .collect();
            let pieces = stream::iter(pieces).then(move |piece| async move {
                tokio::time::sleep(pause).await;
                Ok(Frame::data(piece))
            });
            BodyExt::boxed(StreamBody::new(pieces))
        }
        Some(Fault::Flipped) if !bytes.is_empty() => {
            let mut wrong = bytes.to_vec();
            let middle = wrong.len() / 2;
            wrong[middle] ^= 1;
            BodyExt::boxed(Full::new(Bytes::from(wrong)).map_err(|never| match never {}))
        }
        _ => BodyExt::boxed(Full::new(bytes).map_err(|never| match never {})),
    }
}
