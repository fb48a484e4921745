//! Requests of the binary cache protocol to answers (nix `src/libstore/http-binary-cache-store.cc`,
//! `nar-info.cc`).

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use phoenix_model::NarHash;
use phoenix_pack::PathInfo;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Found, State, archive};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The answer to a request.
pub(super) async fn answer(
    state: &Arc<State>,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    state.requests.fetch_add(1, Ordering::Relaxed);
    let with_body = match *request.method() {
        Method::GET => true,
        Method::HEAD => false,
        _ => return Ok(status(StatusCode::METHOD_NOT_ALLOWED)),
    };
    let path = request.uri().path();
    let answer = if path == "/nix-cache-info" {
        let (store_dir, priority) = (&state.serving.store_dir, state.serving.priority);
        let text = format!("StoreDir: {store_dir}\nWantMassQuery: 1\nPriority: {priority}\n");
        Some(text_answer("text/x-nix-cache-info", text, with_body))
    } else if let Some(hash_part) = path.strip_prefix('/').and_then(|name| name.strip_suffix(".narinfo")) {
        narinfo(state, hash_part, with_body)
    } else if let Some(name) = path.strip_prefix("/nar/").and_then(|name| name.strip_suffix(".nar")) {
        nar(state, name, with_body).await
    } else {
        None
    };
    Ok(answer.unwrap_or_else(|| status(StatusCode::NOT_FOUND)))
}

fn narinfo(state: &Arc<State>, hash_part: &str, with_body: bool) -> Option<Response<Body>> {
    let hash_part: &[u8; 32] = hash_part.as_bytes().try_into().ok()?;
    if state.is_down() {
        return None;
    }
    let Some(found) = state.find(hash_part) else {
        state.look_for_new();
        return None;
    };
    let text = narinfo_text(state, &found.path.info);
    Some(text_answer("text/x-nix-narinfo", text, with_body))
}

/// What is said of a path. The name of the archive has its hash in it: two paths of one name, saved by two machines,
/// are not mixed up.
fn narinfo_text(state: &State, info: &PathInfo) -> String {
    let hash = NarHash(info.nar_hash);
    let hash_part = info.name.get(..32).unwrap_or_default();
    let mut text = format!(
        "StorePath: {}/{}\nURL: nar/{hash_part}-{}.nar\nCompression: none\nNarHash: {hash}\nNarSize: {}\nReferences: {}\n",
        state.serving.store_dir,
        info.name,
        hash.to_hex(),
        info.nar_size,
        info.references.join(" "),
    );
    if let Some(deriver) = &info.deriver {
        let _ = writeln!(text, "Deriver: {deriver}");
    }
    let own = state.serving.sign.as_ref().and_then(|sign| sign(info));
    let signatures = info.signatures.iter().chain(own.as_ref().filter(|own| !info.signatures.contains(own)));
    for signature in signatures {
        let _ = writeln!(text, "Sig: {signature}");
    }
    if let Some(ca) = &info.ca {
        let _ = writeln!(text, "CA: {ca}");
    }
    text
}

async fn nar(state: &Arc<State>, name: &str, with_body: bool) -> Option<Response<Body>> {
    let (hash_part, hash) = name.split_once('-')?;
    let found = state.find(hash_part.as_bytes().try_into().ok()?)?;
    if NarHash::from_hex(hash)?.0 != found.path.info.nar_hash {
        return None;
    }
    let size = found.path.info.nar_size;
    let head = |body: Body| {
        let answer =
            Response::builder().header(CONTENT_TYPE, "application/x-nix-nar").header(CONTENT_LENGTH, size);
        answer.body(body).ok()
    };
    if !with_body {
        return head(empty());
    }
    let mut parts = start(state, found).await?;
    // What goes wrong before the first byte can still be told.
    let first = parts.recv().await?.ok()?;
    let parts = stream::unfold((Some(first), parts), |(first, mut parts)| async move {
        let next = match first {
            Some(first) => Ok(first),
            None => parts.recv().await?,
        };
        Some((next.map(Frame::data), (None, parts)))
    });
    head(StreamBody::new(parts).boxed_unsync())
}

/// Begins to make an archive.
async fn start(state: &Arc<State>, found: Found) -> Option<mpsc::Receiver<io::Result<Bytes>>> {
    let turn = Arc::clone(&state.archives_at_once).acquire_owned().await.ok()?;
    let (sender, parts) = mpsc::channel(archive::WAITING);
    let state = Arc::clone(state);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        archive::send(&state, &found, &runtime, &sender);
        drop(turn);
    });
    Some(parts)
}

fn text_answer(kind: &str, text: String, with_body: bool) -> Response<Body> {
    let answer = Response::builder().header(CONTENT_TYPE, kind).header(CONTENT_LENGTH, text.len());
    let body = if with_body { full(text) } else { empty() };
    answer.body(body).unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}

fn status(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(empty());
    *answer.status_mut() = status;
    answer
}

fn full(text: String) -> Body {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
