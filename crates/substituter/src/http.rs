//! A binary cache over HTTP.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use phoenix_model::StorePath;
use reqwest::header::RETRY_AFTER;
use reqwest::{Certificate, Client, StatusCode};

use crate::Credentials;

/// The most bytes of an answer that are read; a `.narinfo` has a few hundred, and one that refers to
/// thousands of paths still less than this.
const LARGEST_ANSWER: usize = 1 << 20;

/// How often a request is tried that failed for a reason that may pass.
const TRIES: u32 = 4;

/// The longest wait that a server may ask for (`Retry-After`).
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How many connections HTTP/2 requests are spread over; one is limited by the server's number of streams.
const HTTP2_CONNECTIONS: usize = 4;

/// An HTTP binary cache.
#[derive(Debug)]
pub(crate) struct Http {
    clients: Vec<Client>,
    turn: AtomicU64,
    base: String,
    credentials: Option<Credentials>,
}

/// How requests are made.
#[derive(Debug, Clone)]
pub(crate) struct HttpSettings {
    pub(crate) https: bool,
    pub(crate) timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) ssl_cert_file: Option<PathBuf>,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The text of a file.
    Text(String),
    /// There is no such file.
    Absent,
    /// It cannot be told, and asking again would not help in this run.
    Failed(String),
}

impl Http {
    pub(crate) fn new(base: String, credentials: Option<Credentials>, settings: &HttpSettings) -> Result<Self, String> {
        // A second call changes nothing and says so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let count = if settings.https { HTTP2_CONNECTIONS } else { 1 };
        let clients = (0..count).map(|_| client(settings)).collect::<Result<_, _>>()?;
        Ok(Self { clients, turn: AtomicU64::new(0), base, credentials })
    }

    pub(crate) async fn narinfo(&self, path: &StorePath, given_up: &(dyn Fn() -> bool + Sync)) -> Answer {
        self.get(&format!("{}.narinfo", path.hash_part()), given_up).await
    }

    /// Gets a file below the base; tries again where that may help, unless `given_up` says that others
    /// have found the server down meanwhile.
    pub(crate) async fn get(&self, file: &str, given_up: &(dyn Fn() -> bool + Sync)) -> Answer {
        let mut wait = Duration::from_millis(250);
        let mut tries = 1;
        loop {
            let (problem, asked_wait) = match self.once(file).await {
                Once::Answer(answer) => return answer,
                Once::Passing(problem, asked_wait) => (problem, asked_wait),
            };
            if tries == TRIES || given_up() {
                return Answer::Failed(problem);
            }
            tries += 1;
            tokio::time::sleep(asked_wait.unwrap_or(wait).min(LONGEST_WAIT)).await;
            wait *= 3;
        }
    }

    async fn once(&self, file: &str) -> Once {
        let turn = usize::try_from(self.turn.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
        let mut request = self.clients[turn % self.clients.len()].get(format!("{}/{file}", self.base));
        if let Some(Credentials { login, password }) = &self.credentials {
            request = request.basic_auth(login, Some(password));
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return failed(&error),
        };
        let status = response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Once::Answer(Answer::Absent),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                return Once::Passing(said(status), retry_after(&response));
            }
            status if status.is_server_error() => return Once::Passing(said(status), retry_after(&response)),
            status => return Once::Answer(Answer::Failed(said(status))),
        }
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= LARGEST_ANSWER => body.extend_from_slice(&chunk),
                Ok(Some(_)) => return Once::Answer(Answer::Failed(format!("its {file} has more than 1 MiB"))),
                Ok(None) => break,
                Err(error) => return failed(&error),
            }
        }
        match String::from_utf8(body) {
            Ok(text) => Once::Answer(Answer::Text(text)),
            Err(_) => Once::Answer(Answer::Failed(format!("its {file} is no text"))),
        }
    }
}

enum Once {
    Answer(Answer),
    Passing(String, Option<Duration>),
}

fn client(settings: &HttpSettings) -> Result<Client, String> {
    let mut builder = Client::builder()
        .user_agent(concat!("phoenix-ci/", env!("CARGO_PKG_VERSION")))
        .timeout(settings.timeout)
        .connect_timeout(settings.timeout.min(Duration::from_secs(5)))
        .tcp_nodelay(true)
        .pool_max_idle_per_host(settings.connections);
    if let Some(file) = settings.ssl_cert_file.as_ref().filter(|_| settings.https) {
        let bytes = std::fs::read(file)
            .map_err(|error| format!("the certificates in {} cannot be read: {error}", file.display()))?;
        let certificates = Certificate::from_pem_bundle(&bytes)
            .map_err(|error| format!("{} holds no certificates: {error}", file.display()))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| in_words(&error))
}

fn said(status: StatusCode) -> String {
    format!("it answers {} {}", status.as_u16(), status.canonical_reason().unwrap_or_default()).trim_end().to_owned()
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Time-outs and broken connections may pass; a server that is not there stays away.
fn failed(error: &reqwest::Error) -> Once {
    let words = in_words(error);
    if error.is_connect() || error.is_builder() || error.is_redirect() {
        return Once::Answer(Answer::Failed(words));
    }
    Once::Passing(words, None)
}

/// An error with its causes and without the URL, which may hold credentials.
fn in_words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut words = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        words.push(cause.to_string());
        next = cause.source();
    }
    words.dedup();
    match words.last() {
        Some(last) if error.is_connect() => format!("cannot connect: {last}"),
        Some(last) => last.clone(),
        None => "the request failed".to_owned(),
    }
}
