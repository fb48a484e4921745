//! The double of GitHub's artifacts, by plain requests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use phoenix_testkit::github::{Fault, Github, Permission, Request};
use phoenix_testkit::http::request;
use serde_json::{Value, json};

const MAIN: (&str, Permission) = ("refs/heads/main", Permission::Both);

/// Calls a method as a job of the run, which a request has to name.
fn call(github: &Github, job: u32, method: &str, body: &Value) -> (u16, Value) {
    call_of(github, job, job, method, body)
}

fn call_of(github: &Github, token: u32, job: u32, method: &str, body: &Value) -> (u16, Value) {
    let mut body = body.clone();
    body["workflow_run_backend_id"] = "11111111-1111-1111-1111-111111111111".into();
    body["workflow_job_run_backend_id"] = format!("22222222-2222-2222-2222-{job:012}").into();
    let url = format!("{}twirp/github.actions.results.api.v1.ArtifactService/{method}", github.url());
    let authorization = format!("Authorization: Bearer {}", github.token_of_job(token, &[MAIN]));
    let headers = [authorization.as_str(), "Content-Type: application/json"];
    let answer = request("POST", &url, &headers, body.to_string().as_bytes());
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

fn create(github: &Github, job: u32, name: &str) -> (u16, Value) {
    call(github, job, "CreateArtifact", &json!({ "name": name, "version": 7, "mime_type": "text/plain" }))
}

fn have(github: &Github, job: u32, name: &str, bytes: &[u8]) {
    let url = create(github, job, name).1["signed_upload_url"].as_str().unwrap().to_owned();
    assert_eq!(request("PUT", &url, &["x-ms-blob-type: BlockBlob"], bytes).status, 201);
    let body = json!({ "name": name, "size": bytes.len().to_string(), "hash": "sha256:00" });
    assert_eq!(call(github, job, "FinalizeArtifact", &body).1["ok"], true);
}

#[test]
fn an_artifact_is_read_by_a_url_that_says_what_it_is() {
    let github = Github::start().unwrap();
    have(&github, 1, "a", b"hello");
    let (status, listed) = call(&github, 2, "ListArtifacts", &json!({ "name_filter": "a" }));
    let artifact = &listed["artifacts"][0];
    assert_eq!((status, &artifact["size"], &artifact["digest"]), (200, &json!("5"), &json!("sha256:00")));
    let created = artifact["created_at"].as_str().unwrap();
    assert_eq!(created.len(), "2026-07-01T09:59:55.000Z".len(), "{created}");
    let name = json!({ "name": "a" });
    let signed = call_of(&github, 2, 1, "GetSignedArtifactURL", &name).1;
    let answer = request("GET", signed["signed_url"].as_str().unwrap(), &[], b"");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
    assert_eq!(answer.header("content-type"), "text/plain");
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"a\"");
    assert_eq!(call(&github, 2, "GetSignedArtifactURL", &name).0, 404, "that job has none of the name");
    assert_eq!(call_of(&github, 2, 1, "DeleteArtifact", &name).1["ok"], true);
    assert_eq!(request("GET", signed["signed_url"].as_str().unwrap(), &[], b"").status, 404);
    assert!(github.artifacts().is_empty());
}

#[test]
fn a_job_makes_only_its_own_and_of_what_is_known() {
    let github = Github::start().unwrap();
    assert_eq!(call_of(&github, 1, 2, "CreateArtifact", &json!({ "name": "a", "version": 7 })).0, 403);
    assert_eq!(call(&github, 1, "CreateArtifact", &json!({ "name": "a", "version": 3 })).0, 400);
    let expires = json!({ "name": "a", "version": 7, "expires_at": "tomorrow" });
    assert_eq!(call(&github, 1, "CreateArtifact", &expires).0, 400);
    assert_eq!(create(&github, 1, "a").0, 200);
    let (status, taken) = create(&github, 2, "a");
    assert_eq!((status, &taken["code"]), (409, &json!("already_exists")));
    assert_eq!(call(&github, 1, "FinalizeArtifact", &json!({ "name": "a", "size": 0 })).0, 404, "no blob");
    assert_eq!(call(&github, 1, "NoSuchMethod", &json!({})).0, 404);
    github.fault(Request::ListArtifacts, Fault::TooMany(Some(3)), 1);
    assert_eq!(call(&github, 1, "ListArtifacts", &json!({})).0, 429);
    assert_eq!(call(&github, 1, "ListArtifacts", &json!({})).1, json!({ "artifacts": [] }));
    assert_eq!(github.counts().of(Request::ListArtifacts), 2);
}
