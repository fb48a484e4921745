//! Whether an image is in its registry, by the distribution API (v2).

mod challenge;
mod credentials;
mod reference;

use std::time::Duration;

use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use crate::{Answer, GateError};
use challenge::Challenge;
pub use credentials::{Credentials, Login};
use reference::Reference;

/// Single images and lists of them, Docker's and OCI's; what is not accepted is 404 in some registries.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Asks registries for images.
#[derive(Debug, Clone)]
pub struct Registries {
    client: Client,
    credentials: Credentials,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

impl Registries {
    /// With the user's credentials, and how long one request may take.
    ///
    /// # Errors
    ///
    /// Where there can be no HTTP client.
    pub fn new(credentials: Credentials, time_out: Duration) -> Result<Self, GateError> {
        // An error says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(time_out).user_agent("phoenix-ci").build();
        let client = client.map_err(|error| unknown("any image", in_words(&error)))?;
        Ok(Self { client, credentials })
    }

    /// Is there work, since the image is absent? Only 404 is absent.
    ///
    /// # Errors
    ///
    /// Where the registry does not say: refused, broken, out of reach, too slow.
    pub async fn ask(&self, image: &str) -> Result<Answer<()>, GateError> {
        let reference = Reference::parse(image).map_err(|cause| unknown(image, cause))?;
        let status = self.status(&reference).await.map_err(|cause| unknown(image, cause))?;
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

    async fn status(&self, reference: &Reference) -> Result<StatusCode, String> {
        let url = reference.url();
        let manifest = || self.client.head(&url).header(ACCEPT, MANIFESTS);
        let first = send(manifest()).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return Ok(first.status());
        }
        let login = self.credentials.of(&reference.host);
        let again = match challenge(&first) {
            Some(Challenge::Bearer { realm, query }) => {
                if reference.secure() && !realm.starts_with("https://") {
                    return Err(format!(
                        "{} wants credentials sent to {realm}, which is not https",
                        reference.host
                    ));
                }
                let asked = signed(self.client.get(&realm).query(&query), login);
                let answered = send(asked).await?;
                if !answered.status().is_success() {
                    // Its 404 is about the token, and says nothing of the image.
                    return Err(format!("{realm} gives no token: {}", answered.status()));
                }
                let token = answered.text().await.map_err(|error| in_words(&error))?;
                let token: Token =
                    serde_json::from_str(&token).map_err(|_| format!("{realm} answers without a token"))?;
                manifest().bearer_auth(token.token)
            }
            Some(Challenge::Basic) if login.is_some() => signed(manifest(), login),
            _ => return Ok(first.status()),
        };
        Ok(send(again).await?.status())
    }
}

fn challenge(response: &Response) -> Option<Challenge> {
    Challenge::parse(response.headers().get(WWW_AUTHENTICATE)?.to_str().ok()?)
}

fn signed(request: RequestBuilder, login: Option<&Login>) -> RequestBuilder {
    match login {
        Some(login) => request.basic_auth(&login.user, Some(&login.password)),
        None => request,
    }
}

async fn send(request: RequestBuilder) -> Result<Response, String> {
    request.send().await.map_err(|error| in_words(&error))
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
