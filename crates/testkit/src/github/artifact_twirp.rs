//! The artifact service: five methods over Twirp, in JSON, which is what its clients speak.

use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::artifacts::{Artifact, JobId};
use super::entries::Failure;
use super::fault::Request;
use super::message::any_int64;
use super::sas;
use super::state::{Shared, State};
use super::token::Claims;
use super::twirp::{Call, malformed, signed};

/// Where the service is; a method's name follows.
const SERVICE: &str = "/twirp/github.actions.results.api.v1.ArtifactService/";

/// The versions of an artifact's format that clients write: 4 is a zip, 7 any single file.
const VERSIONS: &[i64] = &[4, 5, 6, 7];

/// The kind of request that a path is for.
pub(super) fn kind(path: &str) -> Option<Request> {
    match path.strip_prefix(SERVICE)? {
        "CreateArtifact" => Some(Request::CreateArtifact),
        "FinalizeArtifact" => Some(Request::FinalizeArtifact),
        "ListArtifacts" => Some(Request::ListArtifacts),
        "GetSignedArtifactURL" => Some(Request::SignArtifact),
        "DeleteArtifact" => Some(Request::DeleteArtifact),
        _ => None,
    }
}

/// What requests hold, all methods together; fields are taken in snake_case, as the official client sends them,
/// and in camelCase.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    #[serde(alias = "workflowRunBackendId")]
    workflow_run_backend_id: String,
    #[serde(alias = "workflowJobRunBackendId")]
    workflow_job_run_backend_id: String,
    name: String,
    #[serde(alias = "expiresAt")]
    expires_at: Option<String>,
    #[serde(deserialize_with = "any_int64")]
    version: i64,
    #[serde(alias = "mimeType")]
    mime_type: Option<String>,
    #[serde(deserialize_with = "any_int64")]
    size: i64,
    hash: Option<String>,
    #[serde(alias = "nameFilter")]
    name_filter: Option<String>,
    #[serde(alias = "idFilter")]
    id_filter: Option<Value>,
}

/// What a call is answered, by a token that holds.
pub(super) fn answer(
    shared: &Shared,
    state: &mut State,
    token: &Claims,
    call: &Call<'_>,
) -> Result<Answer, Failure> {
    if call.content_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err(Failure::new("bad_route", "unexpected Content-Type"));
    }
    let asked: Asked = serde_json::from_slice(call.body).map_err(|error| malformed(error.to_string()))?;
    let of =
        JobId { run: asked.workflow_run_backend_id.clone(), job: asked.workflow_job_run_backend_id.clone() };
    let own = token.job.as_ref().ok_or_else(|| denied("the token is for no job"))?;
    if of.run != own.run {
        return Err(denied("the token is for another workflow run"));
    }
    // Only to read and to remove, a job may name the job that made an artifact.
    let makes = matches!(call.request, Request::CreateArtifact | Request::FinalizeArtifact);
    if makes && of != *own {
        return Err(denied("the token is for another job"));
    }
    let body = match call.request {
        Request::CreateArtifact => create(shared, state, &of, &asked),
        Request::FinalizeArtifact => finalize(state, &of, &asked),
        Request::ListArtifacts => list(state, &of, &asked),
        Request::SignArtifact => sign(shared, state, &of, &asked),
        _ => delete(state, &of, &asked),
    }?;
    Ok(Answer::new(200, "application/json", body.to_string()))
}

fn denied(message: &str) -> Failure {
    Failure::new("permission_denied", message)
}

fn create(shared: &Shared, state: &mut State, of: &JobId, asked: &Asked) -> Result<Value, Failure> {
    if !VERSIONS.contains(&asked.version) {
        return Err(Failure::new("invalid_argument", "version is not supported"));
    }
    let expires = asked.expires_at.as_deref().unwrap_or_default();
    if !expires.is_empty() && expires.parse::<Timestamp>().is_err() {
        return Err(malformed("expires_at is no time".to_owned()));
    }
    let now = state.now();
    let mime_type = asked.mime_type.as_deref().unwrap_or_default();
    let artifact = state.artifacts.create(of, &asked.name, (mime_type, expires), now)?;
    let valid = state.behaviour.upload_valid.as_secs();
    let url = signed(shared, state, &artifact.path(), sas::UPLOAD, valid, "");
    Ok(json!({ "ok": true, "signed_upload_url": url }))
}

fn finalize(state: &mut State, of: &JobId, asked: &Asked) -> Result<Value, Failure> {
    let digest = asked.hash.as_deref().unwrap_or_default();
    let blobs = &state.blobs;
    let id = state.artifacts.finalize(of, &asked.name, (asked.size, digest), |artifact| {
        blobs.get(&artifact.path()).map(super::blob::Content::size)
    })?;
    Ok(json!({ "ok": true, "artifact_id": id.to_string() }))
}

fn list(state: &State, of: &JobId, asked: &Asked) -> Result<Value, Failure> {
    let id = match &asked.id_filter {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.parse().map_err(|_| malformed("id_filter".to_owned()))?),
        Some(number) => Some(number.as_i64().ok_or_else(|| malformed("id_filter".to_owned()))?),
    };
    let found = state.artifacts.list(&of.run, asked.name_filter.as_deref(), id);
    Ok(json!({ "artifacts": found.into_iter().map(shown).collect::<Vec<_>>() }))
}

fn shown(artifact: &Artifact) -> Value {
    let created = i64::try_from(artifact.created).unwrap_or_default();
    // Protobuf's JSON has 0, 3, 6 or 9 digits after the dot, and the official client takes no other number.
    let created = Timestamp::from_millisecond(created).map(|time| format!("{time:.3}")).unwrap_or_default();
    let mut shown = json!({
        "workflow_run_backend_id": artifact.of.run,
        "workflow_job_run_backend_id": artifact.of.job,
        "database_id": artifact.id.to_string(),
        "name": artifact.name,
        "size": artifact.size.to_string(),
        "created_at": created,
    });
    if !artifact.digest.is_empty() {
        shown["digest"] = artifact.digest.clone().into();
    }
    shown
}

fn sign(shared: &Shared, state: &State, of: &JobId, asked: &Asked) -> Result<Value, Failure> {
    let artifact = seen(state, of, asked)?;
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    // Azure's way of having a URL say what its answer is.
    let content = if artifact.mime_type.is_empty() { "application/zip" } else { &artifact.mime_type };
    let disposition = format!("attachment; filename=\"{}\"", artifact.name);
    let headers = format!("rsct={}&rscd={}", encode(content), encode(&disposition));
    let valid = state.behaviour.download_valid.as_secs();
    let url = signed(shared, state, &artifact.path(), sas::DOWNLOAD, valid, &headers);
    Ok(json!({ "signed_url": url }))
}

fn delete(state: &mut State, of: &JobId, asked: &Asked) -> Result<Value, Failure> {
    let artifact = seen(state, of, asked)?.clone();
    state.artifacts.remove(artifact.id);
    state.blobs.remove(&artifact.path());
    Ok(json!({ "ok": true, "artifact_id": artifact.id.to_string() }))
}

fn seen<'a>(state: &'a State, of: &JobId, asked: &Asked) -> Result<&'a Artifact, Failure> {
    let found = state.artifacts.seen(of, &asked.name);
    found.ok_or_else(|| Failure::new("not_found", "artifact not found"))
}
