//! Where the bytes are: what Azure's blob service does with signed URLs of block blobs.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::HeaderMap;
use jiff::Timestamp;

use super::answer::Answer;
use super::blob::{Refused, range};
use super::fault::Request;
use super::sas::Refusal;
use super::state::State;

/// The beginnings of the paths of all blobs: of the cache, and of artifacts.
const CONTAINERS: [&str; 2] =
    ["/productionresultssa0/actions-cache/", "/productionresultssa0/actions-results/"];

/// The kind of request that a method, a path and a query are for.
pub(super) fn kind(method: &str, path: &str, query: &BTreeMap<String, String>) -> Option<Request> {
    if !CONTAINERS.iter().any(|container| path.starts_with(container)) {
        return None;
    }
    match (method, query.get("comp").map(String::as_str)) {
        ("PUT", None) => Some(Request::PutBlob),
        ("PUT", Some("block")) => Some(Request::PutBlock),
        ("PUT", Some("blocklist")) => Some(Request::PutBlockList),
        ("GET", None) => Some(Request::GetBlob),
        ("HEAD", None) => Some(Request::HeadBlob),
        _ => None,
    }
}

/// A request that came in.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) request: Request,
    pub(super) path: &'a str,
    pub(super) query: &'a BTreeMap<String, String>,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
}

/// Answers a request.
pub(super) fn answer(state: &mut State, call: Call<'_>) -> Answer {
    let writes = !matches!(call.request, Request::GetBlob | Request::HeadBlob);
    let needed = if writes { "cw" } else { "r" };
    match state.signer.check(call.path, call.query, needed, state.now() / 1000) {
        Ok(()) => {}
        Err(Refusal::Authentication) => return refused(Refused(403, "AuthenticationFailed")),
        Err(Refusal::Permission) => return refused(Refused(403, "AuthorizationPermissionMismatch")),
    }
    let done = if writes { write(state, call) } else { read(state, &call) };
    done.unwrap_or_else(refused)
}

/// Azure's way of saying no.
pub(super) fn refused(Refused(status, code): Refused) -> Answer {
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code>\
         <Message>The request was refused.</Message></Error>"
    );
    Answer::new(status, "application/xml", body).header("x-ms-error-code", code)
}

fn write(state: &mut State, call: Call<'_>) -> Result<Answer, Refused> {
    if !call.headers.contains_key("content-length") {
        return Err(Refused(411, "MissingContentLengthHeader"));
    }
    let now = state.now();
    if call.request != Request::PutBlockList {
        state.counts.bytes_in += call.body.len() as u64;
    }
    match call.request {
        Request::PutBlob => {
            if call.headers.get("x-ms-blob-type").is_none_or(|kind| kind != "BlockBlob") {
                return Err(Refused(400, "MissingRequiredHeader"));
            }
            state.blobs.put(call.path, call.body, now);
        }
        Request::PutBlock => {
            let id = call.query.get("blockid").map_or("", String::as_str);
            state.blobs.put_block(call.path, id, call.body)?;
        }
        _ => {
            let list = std::str::from_utf8(&call.body).map_err(|_| Refused(400, "InvalidXmlDocument"))?;
            state.blobs.put_list(call.path, list, now)?;
        }
    }
    Ok(Answer::empty(201))
}

fn read(state: &mut State, call: &Call<'_>) -> Result<Answer, Refused> {
    let content = state.blobs.get(call.path).ok_or(Refused(404, "BlobNotFound"))?.clone();
    let size = content.size();
    let modified = i64::try_from(content.modified / 1000).unwrap_or_default();
    let modified = Timestamp::from_second(modified)
        .map(|time| time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .unwrap_or_default();
    // A URL may say what its answer is called.
    let said = |name: &str| call.query.get(name).cloned();
    let content_type = said("rsct").unwrap_or_else(|| "application/octet-stream".to_owned());
    let common = |answer: Answer| {
        let answer = match said("rscd") {
            Some(disposition) => answer.header("content-disposition", disposition),
            None => answer,
        };
        answer
            .header("etag", format!("\"0x{:X}\"", content.tag))
            .header("last-modified", modified.clone())
            .header("accept-ranges", "bytes")
            .header("x-ms-blob-type", "BlockBlob")
    };
    if call.request == Request::HeadBlob {
        return Ok(common(Answer { length: Some(size), ..Answer::empty(200) }));
    }
    // Azure looks at its own header first.
    let Some(wanted) = ["x-ms-range", "range"].iter().find_map(|name| call.headers.get(*name)) else {
        state.counts.bytes_out += size;
        return Ok(common(Answer::new(200, &content_type, content.bytes(0..size))));
    };
    let range = range(wanted.to_str().unwrap_or_default(), size)?;
    let (from, to) = (range.start, range.end);
    state.counts.bytes_out += to - from;
    let part = content.bytes(from..to);
    let answer = Answer::new(206, &content_type, part);
    Ok(common(answer.header("content-range", format!("bytes {from}-{}/{size}", to - 1))))
}
