//! Whether an image is in its registry, by the distribution API (v2).

mod challenge;
mod credentials;
mod helper;
mod reference;

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use crate::{Answer, GateError};
use challenge::Challenge;
pub use credentials::{Credentials, Login};
use reference::Reference;

/// Single images and lists of them, Docker's and OCI's; what is not accepted is 404 in some registries.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// How often a registry is asked that has a trouble which may pass.
const TRIES: u32 = 5;

/// The wait before the second time, where the registry does not say how long; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Asks registries for images.
#[derive(Debug, Clone)]
pub struct Registries {
    client: Client,
    credentials: Credentials,
    patience: Duration,
}

/// Why there is no answer.
struct Trouble {
    cause: String,
    /// Whether it may pass.
    passes: bool,
    /// How long the registry wants to be left alone.
    after: Option<Duration>,
}

impl From<String> for Trouble {
    fn from(cause: String) -> Self {
        Self { cause, passes: false, after: None }
    }
}

/// Some servers answer with both, and each of them may be alone.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registries {
    /// With the user's credentials, how long one request may take, and how long an image may be asked for with all
    /// that is asked again.
    ///
    /// # Errors
    ///
    /// Where there can be no HTTP client.
    pub fn new(credentials: Credentials, time_out: Duration, patience: Duration) -> Result<Self, GateError> {
        // An error says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(time_out).user_agent("phoenix-ci").build();
        let client = client.map_err(|error| unknown("any image", in_words(&error)))?;
        Ok(Self { client, credentials, patience })
    }

    /// Is there work, since the image is absent? Only 404 is absent.
    ///
    /// # Errors
    ///
    /// Where the registry does not say: refused, broken, out of reach, too slow.
    pub async fn ask(&self, image: &str) -> Result<Answer<()>, GateError> {
        let reference = Reference::parse(image)
            .map_err(|cause| GateError::ImageName { image: image.to_owned(), cause })?;
        let asked = tokio::time::timeout(self.patience, self.patiently(&reference)).await;
        let out_of_time =
            |_| format!("{} gave no answer within {} s", reference.host, self.patience.as_secs_f64());
        let status = asked
            .map_err(out_of_time)
            .and_then(std::convert::identity)
            .map_err(|cause| unknown(image, cause))?;
        match status {
            StatusCode::OK => Ok(Answer::None { reason: format!("image {image} exists") }),
            StatusCode::NOT_FOUND => Ok(Answer::Work(())),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let host = &reference.host;
                Err(unknown(image, format!("{host} answers {status}; log in with `docker login {host}`")))
            }
            other => Err(unknown(image, format!("{} answers {other}", reference.host))),
        }
    }

    /// Asks again what has a trouble that may pass.
    async fn patiently(&self, reference: &Reference) -> Result<StatusCode, String> {
        let begun = Instant::now();
        let mut tried = 0;
        loop {
            tried += 1;
            let trouble = match self.status(reference).await {
                Ok(status) => return Ok(status),
                Err(trouble) => trouble,
            };
            let wait = trouble.after.unwrap_or(FIRST_WAIT * 2u32.pow(tried - 1));
            let left = self.patience.saturating_sub(begun.elapsed());
            if !trouble.passes || tried == TRIES || wait >= left {
                let times = if tried > 1 { format!(" (asked {tried} times)") } else { String::new() };
                let asks =
                    trouble.after.map(|after| format!("; it wants to be asked in {} s", after.as_secs()));
                return Err(format!("{}{}{times}", trouble.cause, asks.unwrap_or_default()));
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn status(&self, reference: &Reference) -> Result<StatusCode, Trouble> {
        let url = reference.url();
        let manifest = || self.client.head(&url).header(ACCEPT, MANIFESTS);
        let first = send(manifest()).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return Ok(first.status());
        }
        let Some(challenge) = challenge(&first) else { return Ok(first.status()) };
        let login = self.credentials.of(&reference.host).await?;
        let again = match challenge {
            Challenge::Bearer { realm, query } => {
                if reference.secure() && !realm.starts_with("https://") {
                    let host = &reference.host;
                    return Err(
                        format!("{host} wants credentials sent to {realm}, which is not https").into()
                    );
                }
                manifest().bearer_auth(self.token(&realm, &query, login.as_ref()).await?)
            }
            Challenge::Basic => match &login {
                Some(Login::Password { user, password }) => manifest().basic_auth(user, Some(password)),
                Some(Login::Identity(_)) | None => return Ok(first.status()),
            },
        };
        Ok(send(again).await?.status())
    }

    /// A token for the question, from where the registry says that they are given.
    async fn token(
        &self,
        realm: &str,
        query: &[(String, String)],
        login: Option<&Login>,
    ) -> Result<String, Trouble> {
        let asked = match login {
            Some(Login::Identity(token)) => {
                // As docker does (distribution, `registry/client/auth/session.go`).
                let grant =
                    [("grant_type", "refresh_token"), ("client_id", "phoenix-ci"), ("refresh_token", token)];
                let own = grant.map(|(name, value)| (name.to_owned(), value.to_owned()));
                let form: Vec<_> = own.into_iter().chain(query.iter().cloned()).collect();
                // A query is written as a form is.
                let form = Url::parse_with_params("form:", form).ok();
                let form = form.as_ref().and_then(Url::query).unwrap_or_default().to_owned();
                self.client.post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
            }
            Some(Login::Password { user, password }) => {
                self.client.get(realm).query(query).basic_auth(user, Some(password))
            }
            None => self.client.get(realm).query(query),
        };
        let answered = send(asked).await?;
        if !answered.status().is_success() {
            // Its 404 is about the token, and says nothing of the image.
            return Err(format!("{realm} gives no token: {}", answered.status()).into());
        }
        let token = answered.text().await.map_err(|error| in_words(&error))?;
        let token: Option<Token> = serde_json::from_str(&token).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        let token = token.filter(|token| !token.is_empty());
        token.ok_or_else(|| format!("{realm} answers without a token").into())
    }
}

fn challenge(response: &Response) -> Option<Challenge> {
    Challenge::parse(response.headers().get(WWW_AUTHENTICATE)?.to_str().ok()?)
}

async fn send(request: RequestBuilder) -> Result<Response, Trouble> {
    let trouble = |cause, after| Trouble { cause, passes: true, after };
    let answer = request.send().await.map_err(|error| trouble(in_words(&error), None))?;
    match answer.status() {
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let host = answer.url().host_str().unwrap_or("the registry");
            Err(trouble(format!("{host} answers {}", answer.status()), retry_after(&answer)))
        }
        _ => Ok(answer),
    }
}

/// The seconds of `Retry-After`, one at least. The other form, a date, is not read: our own waits do then.
fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds.max(1)))
}

fn unknown(image: &str, cause: String) -> GateError {
    GateError::ImageUnknown { image: image.to_owned(), cause }
}

/// An error with what caused it.
fn in_words(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}
