//! Requests to answers.

use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderValue, IF_RANGE, RANGE,
    RETRY_AFTER,
};
use hyper::{Method, Request, Response, StatusCode};
use phoenix_pack::HASH_LENGTH;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::asked::{Asked, Part, is_loopback_host};
use super::nar::{Broken, Planned, parts};
use super::opened::{Lost, Opened};
use super::shelf::Shelf;

/// Lower is asked first; cache.nixos.org has 40.
const PRIORITY: u32 = 30;

/// Archives up to here, in bytes, are made before the answer begins, so that damage is a 404.
const SMALL: u64 = 1 << 20;

/// How long a client waits for a part of the beginning of an archive while nothing comes from the depot: one that hears
/// 404 asks the next substituter, or builds.
const FIRST: Duration = Duration::from_secs(15);

/// How long it waits while something comes, for others; Nix gives up after 300 seconds (`stalled-download-timeout`).
const LAST: Duration = Duration::from_secs(240);

/// How many archives are sent at once; more keep no machine busier, and each takes up to a mebibyte.
const SENDING: usize = 48;

/// How long an archive waits for its turn: longer than a client may keep others waiting, and not as long as Nix waits.
const TURN: Duration = Duration::from_secs(180);

/// How often an archive is planned anew because a pack went away: others may have it.
const PLANS: usize = 2;

/// Nothing came in time.
const NOTHING: Broken = Broken { why: Lost::Unreachable, pack: None };

/// The body of an answer. When it fails, the connection is closed before the length that was promised.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Answers requests.
pub(super) struct Answers {
    pub(super) shelf: Shelf,
    pub(super) opened: Arc<Opened>,
    /// Turns of archives to be sent.
    turns: Arc<Semaphore>,
}

impl Answers {
    pub(super) fn new(shelf: Shelf, opened: Arc<Opened>) -> Self {
        Self { shelf, opened, turns: Arc::new(Semaphore::new(SENDING)) }
    }

    /// Waits until there is memory for another archive to be sent. Nix waits, too; what is refused it asks for again,
    /// and only a few times.
    async fn turn(&self) -> Option<Arc<OwnedSemaphorePermit>> {
        let turn = tokio::time::timeout(TURN, self.turns.clone().acquire_owned()).await;
        turn.ok()?.ok().map(Arc::new)
    }

    /// The answer to a request.
    pub(super) async fn answer<B>(self: Arc<Self>, request: Request<B>) -> Response<Body> {
        let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
        if !host.is_none_or(is_loopback_host) {
            return status(StatusCode::MISDIRECTED_REQUEST);
        }
        let is_head = request.method() == Method::HEAD;
        if !is_head && request.method() != Method::GET {
            let mut answer = status(StatusCode::METHOD_NOT_ALLOWED);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let mut answer = match Asked::of(request.uri().path()) {
            Asked::CacheInfo => {
                let store_dir = self.shelf.store_dir();
                text(
                    "text/x-nix-cache-info",
                    format!("StoreDir: {store_dir}\nWantMassQuery: 1\nPriority: {PRIORITY}\n"),
                )
            }
            Asked::NarInfo(hash_part) => self.narinfo(&hash_part, is_head).await,
            Asked::Nar(hash_part, nar_hash) => {
                // Of what nothing else is told of, one cannot know whether it changed; and `HEAD` knows no ranges.
                let is_for_all = is_head || request.headers().contains_key(IF_RANGE);
                let range = request.headers().get(RANGE).filter(|_| !is_for_all);
                let part = range.and_then(|range| Part::of(range.to_str().ok()?));
                self.nar(&hash_part, &nar_hash, part, is_head).await
            }
            Asked::Nothing => status(StatusCode::NOT_FOUND),
        };
        if is_head {
            *answer.body_mut() = whole(Bytes::new());
        }
        answer
    }

    async fn narinfo(&self, hash_part: &[u8; HASH_LENGTH], is_head: bool) -> Response<Body> {
        let mut narinfo = self.shelf.narinfo(hash_part);
        if narinfo.is_none() && self.shelf.look_again().await {
            narinfo = self.shelf.narinfo(hash_part);
        }
        let Some((said, frames)) = narinfo else { return status(StatusCode::NOT_FOUND) };
        if !is_head {
            // Whoever asks what a path is goes on to ask for it.
            self.opened.ranges.expect(*hash_part, &frames);
        }
        text("text/x-nix-narinfo", said)
    }

    async fn nar(
        self: Arc<Self>,
        hash_part: &[u8; HASH_LENGTH],
        nar_hash: &[u8; 32],
        part: Option<Part>,
        is_head: bool,
    ) -> Response<Body> {
        let turn = if is_head { None } else { self.turn().await };
        if turn.is_none() && !is_head {
            let mut answer = status(StatusCode::SERVICE_UNAVAILABLE);
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
            return answer;
        }
        let mut planned = self.shelf.archive(hash_part, nar_hash);
        // Whoever asks for it was told of it once.
        if planned.is_none() && self.shelf.look_for_lost().await {
            planned = self.shelf.archive(hash_part, nar_hash);
        }
        let mut made = None;
        for _ in 0..PLANS {
            let Some(plan) = planned else { break };
            let size = plan.located.info.nar_size;
            let range = part.map_or(Some(0..size), |part| part.within(size));
            let Some(range) = range else {
                let mut answer = status(StatusCode::RANGE_NOT_SATISFIABLE);
                header(&mut answer, CONTENT_RANGE, &format!("bytes */{size}"));
                return answer;
            };
            let body = match &turn {
                Some(turn) => self.clone().body(plan, range.clone(), turn.clone()).await,
                None => Ok(whole(Bytes::new())),
            };
            match body {
                Ok(body) => {
                    made = Some((body, range, size));
                    break;
                }
                // What replaced the pack that went away may have it.
                Err(Broken { why: Lost::Gone, .. }) if self.shelf.look_for_lost().await => {
                    planned = self.shelf.archive(hash_part, nar_hash);
                }
                Err(_) => break,
            }
        }
        let Some((body, range, size)) = made else { return status(StatusCode::NOT_FOUND) };
        let mut answer = Response::new(body);
        if part.is_some() {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            header(&mut answer, CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
        }
        // An archive that breaks off is asked for from there on: then it can still be found to be gone.
        answer.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-nix-nar"));
        header(&mut answer, CONTENT_LENGTH, &(range.end - range.start).to_string());
        answer
    }

    /// The body of an archive, of which at least the beginning is there.
    async fn body(
        self: Arc<Self>,
        planned: Planned,
        range: Range<u64>,
        turn: Arc<OwnedSemaphorePermit>,
    ) -> Result<Body, Broken> {
        let planned = Arc::new(planned);
        let size = planned.located.info.nar_size;
        let mut parts = parts(planned.clone(), self.opened.clone(), range);
        let learn = |broken: &Broken| self.shelf.learn(&planned, *broken);
        let last = Instant::now() + LAST;
        if size <= SMALL {
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            while let Some(part) = self.next(&mut parts, last).await? {
                bytes.extend_from_slice(&part.inspect_err(learn)?);
            }
            return Ok(whole(sent(bytes, turn)));
        }
        let first = self.next(&mut parts, last).await?.unwrap_or(Err(NOTHING)).inspect_err(learn)?;
        Ok(self.clone().streamed(first, parts, planned, turn))
    }

    /// The next part of an archive that nothing was sent of yet. A depot that is slow is waited for; one that says
    /// nothing is not.
    async fn next(
        &self,
        parts: &mut mpsc::Receiver<Result<Bytes, Broken>>,
        last: Instant,
    ) -> Result<Option<Result<Bytes, Broken>>, Broken> {
        loop {
            let begun = Instant::now();
            if let Ok(part) = tokio::time::timeout(FIRST, parts.recv()).await {
                return Ok(part);
            }
            let is_silent = self.opened.ranges.is_silent_since(begun);
            if is_silent {
                self.opened.ranges.give_up(FIRST);
            }
            if is_silent || Instant::now() > last {
                return Err(NOTHING);
            }
        }
    }

    fn streamed(
        self: Arc<Self>,
        first: Bytes,
        parts: mpsc::Receiver<Result<Bytes, Broken>>,
        planned: Arc<Planned>,
        turn: Arc<OwnedSemaphorePermit>,
    ) -> Body {
        let rest = stream::unfold((Some(first), parts), move |(first, mut parts)| {
            let (this, planned, turn) = (self.clone(), planned.clone(), turn.clone());
            async move {
                let part = match first {
                    Some(first) => Ok(first),
                    None => parts.recv().await?.inspect_err(|broken| this.shelf.learn(&planned, *broken)),
                };
                let part = part.map(|part| Frame::data(sent(part, turn)));
                Some((part.map_err(io::Error::from), (None, parts)))
            }
        });
        StreamBody::new(rest).boxed_unsync()
    }
}

/// Bytes of an archive on their way: its turn is over when the last of them have gone, for until then they take memory.
fn sent(bytes: impl AsRef<[u8]> + Send + 'static, turn: Arc<OwnedSemaphorePermit>) -> Bytes {
    struct Sent<B>(B, #[expect(dead_code, reason = "it is held")] Arc<OwnedSemaphorePermit>);

    impl<B: AsRef<[u8]>> AsRef<[u8]> for Sent<B> {
        fn as_ref(&self) -> &[u8] {
            self.0.as_ref()
        }
    }

    Bytes::from_owner(Sent(bytes, turn))
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn header(answer: &mut Response<Body>, name: hyper::header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

fn text(kind: &'static str, text: String) -> Response<Body> {
    let length = text.len().to_string();
    let mut answer = Response::new(whole(text.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    header(&mut answer, CONTENT_LENGTH, &length);
    answer
}

fn status(status: StatusCode) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut answer = text("text/plain", format!("{reason}\n"));
    *answer.status_mut() = status;
    answer
}
