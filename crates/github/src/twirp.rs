//! Calls of GitHub's services: Twirp in JSON.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response};
use serde_json::Value;

use crate::answer::{Meaning, meaning};
use crate::{Access, http};

/// Calls a method by its path, once.
pub(crate) async fn call(
    client: &Client,
    access: &Access,
    within: Duration,
    method: &str,
    request: &Value,
) -> Meaning {
    let response = client
        .post(format!("{}{method}", access.service))
        .bearer_auth(access.token.reveal())
        .header(CONTENT_TYPE, "application/json")
        .timeout(within)
        .body(request.to_string())
        .send()
        .await;
    heard(access, response).await
}

/// What came back, in the end.
pub(crate) async fn heard(access: &Access, response: Result<Response, reqwest::Error>) -> Meaning {
    let again = |error: &reqwest::Error| {
        let (why, done) = http::failed(error);
        Meaning::Again { why, said: http::in_words(error), done }
    };
    let response = match response {
        Ok(response) => response,
        Err(error) => return again(&error),
    };
    let status = response.status().as_u16();
    let retry_after = http::retry_after(&response).map(str::to_owned);
    match http::body(response).await {
        Ok(body) => meaning(status, retry_after.as_deref(), &body, |words| access.said(words)),
        Err(error) => again(&error),
    }
}
