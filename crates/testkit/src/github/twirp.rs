//! Calls over Twirp: the three methods of the cache service, and the way to those of the artifact service.

use bytes::Bytes;
use serde_json::json;

use super::answer::Answer;
use super::artifact_twirp;
use super::entries::{Failure, Question};
use super::fault::{Fault, Request};
use super::message::{
    CreateRequest, CreateResponse, FinalizeRequest, FinalizeResponse, Language, LookupRequest, LookupResponse,
};
use super::sas;
use super::state::{Shared, State};
use super::token::{Claims, claims};

/// Where the cache service is; a method's name follows.
const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";

/// What clients know a read-only token by.
const WRITE_DENIED: &str = "cache write denied: token has no writable scopes";

const READ_DENIED: &str = "cache read denied: token has no readable scopes";

/// The kind of request that a path is for.
pub(super) fn kind(path: &str) -> Option<Request> {
    let Some(method) = path.strip_prefix(SERVICE) else { return artifact_twirp::kind(path) };
    match method {
        "CreateCacheEntry" => Some(Request::Create),
        "FinalizeCacheEntryUpload" => Some(Request::Finalize),
        "GetCacheEntryDownloadURL" => Some(Request::Lookup),
        _ => None,
    }
}

/// A call that came in.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) request: Request,
    pub(super) content_type: &'a str,
    pub(super) authorization: &'a str,
    pub(super) body: &'a Bytes,
    pub(super) fault: Option<Fault>,
}

/// Answers a call.
pub(super) fn answer(shared: &Shared, state: &mut State, call: &Call<'_>) -> Answer {
    let token = call.authorization.strip_prefix("Bearer ").and_then(claims);
    let token = match token {
        Some(token) if token.ends * 1000 > state.now() => token,
        Some(_) => return error(&Failure::new("unauthenticated", "token is expired")),
        None => return error(&Failure::new("unauthenticated", "invalid token")),
    };
    if call.request.is_of_artifacts() {
        return artifact_twirp::answer(shared, state, &token, call).unwrap_or_else(|failure| error(&failure));
    }
    let Some(language) = Language::of(call.content_type) else {
        return error(&Failure::new("bad_route", "unexpected Content-Type"));
    };
    let limited = match call.request {
        Request::Create => {
            let now = state.now();
            state.creates.take(state.behaviour.creates_per_minute, now)
        }
        Request::Lookup => {
            let now = state.now();
            state.lookups.take(state.behaviour.lookups_per_minute, now)
        }
        _ => Ok(()),
    };
    if let Err(seconds) = limited {
        state.counts.limited += 1;
        return too_many(Some(seconds));
    }
    let answer = match call.request {
        Request::Create => language
            .read(call.body)
            .map_err(malformed)
            .and_then(|request| create(shared, state, &token, &request))
            .map(|response| language.write(&response)),
        Request::Finalize => language
            .read(call.body)
            .map_err(malformed)
            .and_then(|request| finalize(state, &token, &request, call.fault))
            .map(|response| language.write(&response)),
        _ => language
            .read(call.body)
            .map_err(malformed)
            .and_then(|request| look_up(shared, state, &token, request, call.fault))
            .map(|response| language.write(&response)),
    };
    match answer {
        Ok(body) => Answer::new(200, language.content_type(), body),
        Err(failure) => error(&failure),
    }
}

/// The answer to a request too many, which says when to come back, or does not.
pub(super) fn too_many(seconds: Option<u64>) -> Answer {
    let answer = error(&Failure::new("resource_exhausted", "rate limit exceeded"));
    seconds.map(|seconds| answer.clone().header("retry-after", seconds.to_string())).unwrap_or(answer)
}

/// The answer to a token that has ended.
pub(super) fn expired() -> Answer {
    error(&Failure::new("unauthenticated", "token is expired"))
}

fn error(failure: &Failure) -> Answer {
    let status = match failure.code {
        "invalid_argument" | "malformed" => 400,
        "unauthenticated" => 401,
        "permission_denied" => 403,
        "already_exists" => 409,
        "failed_precondition" => 412,
        "resource_exhausted" => 429,
        "not_found" | "bad_route" => 404,
        _ => 500,
    };
    let body = json!({ "code": failure.code, "msg": failure.message });
    Answer::new(status, "application/json", body.to_string())
}

pub(super) fn malformed(problem: String) -> Failure {
    Failure::new("malformed", problem)
}

fn create(
    shared: &Shared,
    state: &mut State,
    token: &Claims,
    request: &CreateRequest,
) -> Result<CreateResponse, Failure> {
    let Some(scope) = &token.writable else {
        return Ok(CreateResponse { message: WRITE_DENIED.to_owned(), ..CreateResponse::default() });
    };
    let now = state.now();
    let entry = state.entries.create(scope, &request.key, &request.version, now)?;
    let valid = state.behaviour.upload_valid.as_secs();
    let url = signed(shared, state, &entry.path(), sas::UPLOAD, valid, "");
    Ok(CreateResponse { ok: true, signed_upload_url: url, message: String::new() })
}

fn finalize(
    state: &mut State,
    token: &Claims,
    request: &FinalizeRequest,
    fault: Option<Fault>,
) -> Result<FinalizeResponse, Failure> {
    let Some(scope) = &token.writable else {
        return Ok(FinalizeResponse { message: WRITE_DENIED.to_owned(), ..FinalizeResponse::default() });
    };
    if fault == Some(Fault::NotFound) {
        return Err(Failure::new("not_found", "cache entry not found"));
    }
    let now = state.now();
    let blobs = &state.blobs;
    let which = (scope.as_str(), request.key.as_str(), request.version.as_str());
    let id = state.entries.finalize(which, request.size_bytes, now, |entry| {
        blobs.get(&entry.path()).map(super::blob::Content::size)
    })?;
    if fault == Some(Fault::Lost) {
        state.entries.lose(id);
    }
    Ok(FinalizeResponse { ok: true, entry_id: id, message: String::new() })
}

fn look_up(
    shared: &Shared,
    state: &mut State,
    token: &Claims,
    request: LookupRequest,
    fault: Option<Fault>,
) -> Result<LookupResponse, Failure> {
    if token.readable.is_empty() {
        return Err(Failure::new("permission_denied", READ_DENIED));
    }
    let mut keys = request.restore_keys;
    if !state.behaviour.ignores_key {
        keys.insert(0, request.key);
        // A client that says the first key twice is not charged for it.
        keys.dedup();
    }
    let question =
        Question { keys: &keys, version: &request.version, backwards: fault == Some(Fault::Backwards) };
    let (lag, now) = (state.lag(), state.now());
    let Some(entry) = state.entries.look_up(token, question, lag, now)? else {
        return Ok(LookupResponse::default());
    };
    let valid = state.behaviour.download_valid.as_secs();
    let url = signed(shared, state, &entry.path(), sas::DOWNLOAD, valid, "");
    if fault == Some(Fault::Evicted) {
        state.remove(|other| other.id == entry.id);
    }
    Ok(LookupResponse { ok: true, signed_download_url: url, matched_key: entry.key })
}

/// The URL of a blob that may be used so for so many seconds; `headers` as in [`sas::Signer::query`].
pub(super) fn signed(
    shared: &Shared,
    state: &State,
    path: &str,
    permissions: &str,
    valid: u64,
    headers: &str,
) -> String {
    let query = state.signer.query(path, permissions, state.now() / 1000, valid, headers);
    format!("{}{path}?{query}", shared.url.trim_end_matches('/'))
}
