//! The REST interface to a repository's caches: list, remove, how much there is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::answer::Answer;
use super::entries::Entry;
use super::fault::Request;
use super::state::{Shared, State};

/// The repository that the double is for.
pub(super) const REPOSITORY: &str = "phoenix/example";

/// The most entries on a page.
const LARGEST_PAGE: usize = 100;

/// How many entries are on a page when nobody says.
const PAGE: usize = 30;

/// The kind of request that a method and a path are for.
pub(super) fn kind(method: &str, path: &str) -> Option<Request> {
    let rest = path.strip_prefix("/repos/")?;
    let (_, rest) = rest.split_once("/actions/")?;
    match (method, rest) {
        ("GET", "caches") => Some(Request::List),
        ("GET", "cache/usage") => Some(Request::Usage),
        ("DELETE", rest) if rest == "caches" || rest.starts_with("caches/") => Some(Request::Delete),
        _ => None,
    }
}

/// Answers a request.
pub(super) fn answer(
    shared: &Shared,
    state: &mut State,
    request: Request,
    path: &str,
    query: &BTreeMap<String, String>,
    authorization: &str,
) -> Answer {
    let token = authorization.strip_prefix("Bearer ").or_else(|| authorization.strip_prefix("token "));
    if token != Some(&shared.rest_token) {
        return message(401, "Bad credentials");
    }
    let path = percent_decode_str(path).decode_utf8_lossy();
    let Some(rest) = path.strip_prefix(&format!("/repos/{REPOSITORY}/actions/")) else {
        return message(404, "Not Found");
    };
    match request {
        Request::List => list(state, query),
        Request::Delete => delete(state, rest.strip_prefix("caches/"), query),
        _ => usage(state),
    }
}

pub(super) fn message(status: u16, text: &str) -> Answer {
    let body = json!({ "message": text, "documentation_url": "https://docs.github.com/rest" });
    Answer::new(status, "application/json; charset=utf-8", body.to_string())
}

fn list(state: &State, query: &BTreeMap<String, String>) -> Answer {
    let get = |name: &str| query.get(name).map(String::as_str);
    let number = |name: &str| get(name).and_then(|text| text.parse::<usize>().ok());
    let (now, lag) = (state.now(), state.lag());
    let mut entries: Vec<_> = state
        .entries
        .all()
        .iter()
        .filter(|entry| !entry.lost && entry.finalized.is_some_and(|then| now >= then.time + lag.millis))
        .filter(|entry| get("key").is_none_or(|prefix| entry.key.starts_with(prefix)))
        .filter(|entry| get("ref").is_none_or(|scope| entry.scope == scope))
        .collect();
    match get("sort") {
        Some("created_at") => entries.sort_by_key(|entry| entry.created),
        Some("size_in_bytes") => entries.sort_by_key(|entry| entry.size),
        _ => entries.sort_by_key(|entry| entry.accessed),
    }
    if get("direction") != Some("asc") {
        entries.reverse();
    }
    let size = number("per_page").unwrap_or(PAGE).clamp(1, LARGEST_PAGE);
    let skipped = number("page").unwrap_or(1).saturating_sub(1).saturating_mul(size);
    let page: Vec<_> = entries.iter().skip(skipped).take(size).map(|entry| shown(entry)).collect();
    let body = json!({ "total_count": entries.len(), "actions_caches": page });
    Answer::new(200, "application/json; charset=utf-8", body.to_string())
}

fn delete(state: &mut State, id: Option<&str>, query: &BTreeMap<String, String>) -> Answer {
    let id: Option<i64> = id.and_then(|id| id.parse().ok());
    let key = query.get("key");
    if id.is_none() && key.is_none() {
        return message(422, "key is required");
    }
    let scope = query.get("ref");
    // What is only reserved is not listed and cannot be removed.
    let removed = state.remove(|entry| {
        entry.is_finalized()
            && id.is_none_or(|id| id == entry.id)
            && key.is_none_or(|key| *key == entry.key)
            && scope.is_none_or(|scope| *scope == entry.scope)
    });
    if removed.is_empty() {
        return message(404, "Not Found");
    }
    if id.is_some() {
        return Answer::empty(204);
    }
    let all: Vec<_> = removed.iter().map(shown).collect();
    let body = json!({ "total_count": all.len(), "actions_caches": all });
    Answer::new(200, "application/json; charset=utf-8", body.to_string())
}

fn usage(state: &State) -> Answer {
    let entries = || state.entries.all().iter().filter(|entry| entry.is_finalized());
    let body = json!({
        "full_name": REPOSITORY,
        "active_caches_size_in_bytes": entries().map(|entry| entry.size).sum::<u64>(),
        "active_caches_count": entries().count(),
    });
    Answer::new(200, "application/json; charset=utf-8", body.to_string())
}

fn shown(entry: &Entry) -> Value {
    let time = |millis: u64| {
        let millis = i64::try_from(millis).unwrap_or_default();
        Timestamp::from_millisecond(millis).map(|time| time.to_string()).unwrap_or_default()
    };
    json!({
        "id": entry.id,
        "ref": entry.scope,
        "key": entry.key,
        "version": entry.version,
        "size_in_bytes": entry.size,
        "created_at": time(entry.created),
        "last_accessed_at": time(entry.accessed),
    })
}
