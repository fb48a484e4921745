//! A binary cache over HTTP.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use reqwest::{Certificate, Client, Response, StatusCode, Version};
use tokio::sync::Notify;

use crate::pace::Pace;
use crate::retry::{LONGEST_WAIT, MOST_TRIES, Passing, wait};
use crate::{Credentials, LARGEST_NARINFO};

/// How many requests share an HTTP/2 connection: as many streams as most servers allow. One more gets a
/// connection of its own.
const STREAMS: usize = 100;

/// How many HTTP/2 connections there are at most.
const SHARED_CONNECTIONS: usize = 4;

/// The longest that a connection may take to come about.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);

/// An HTTP binary cache.
#[derive(Debug)]
pub(crate) struct Http {
    base: String,
    credentials: Option<Credentials>,
    how: HttpSettings,
    /// Clients, and how many requests each has in flight. One client has one HTTP/2 connection.
    clients: RefCell<Vec<(Client, usize)>>,
    shared: Cell<bool>,
    pace: RefCell<Pace>,
    /// How many requests are on their way, and word of each that ends.
    under_way: Cell<usize>,
    ended: Notify,
    /// How many questions were answered, `nix-cache-info` among them.
    answers: Cell<u64>,
    /// Whether one was given up since the last answer.
    gave_up: Cell<bool>,
}

/// How requests are made.
#[derive(Debug, Clone)]
pub(crate) struct HttpSettings {
    pub(crate) timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) ssl_cert_file: Option<PathBuf>,
}

/// What came of asking for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum File {
    /// Its text.
    Text(String),
    /// There is no such file.
    Absent,
    /// It cannot be told; other files may fare better.
    Strange(String),
    /// It cannot be told, and asking for others would not help.
    Failed(String),
}

/// What came of one try.
enum Try {
    Done(File),
    Again(Passing, String),
}

impl Http {
    pub(crate) fn new(
        base: String,
        credentials: Option<Credentials>,
        how: HttpSettings,
    ) -> Result<Self, String> {
        // A second call changes nothing and says so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let first = client(&how, &base)?;
        Ok(Self {
            base,
            credentials,
            clients: RefCell::new(vec![(first, 0)]),
            shared: Cell::new(false),
            pace: RefCell::new(Pace::new(how.connections)),
            under_way: Cell::new(0),
            ended: Notify::new(),
            answers: Cell::new(0),
            gave_up: Cell::new(false),
            how,
        })
    }

    /// How many requests may be in flight now.
    pub(crate) fn window(&self) -> usize {
        self.pace.borrow().window()
    }

    /// Gets a file below the base; tries again where that may help.
    ///
    /// When no try succeeds, the whole server is taken to be down if it has answered nothing else meanwhile;
    /// one that has answered for other paths before is given the benefit of the doubt once.
    pub(crate) async fn get(&self, file: &str) -> File {
        let first_answers = self.answers.get();
        let (mut tried, mut failures) = (0, 0);
        loop {
            let under_way = self.begin().await;
            let (sent, answers) = (Instant::now(), self.answers.get());
            let (why, problem) = match self.once(file).await {
                Try::Done(File::Failed(problem)) => return File::Failed(problem),
                Try::Done(file) => {
                    self.answers.set(self.answers.get() + 1);
                    self.gave_up.set(false);
                    self.pace.borrow_mut().answered();
                    return file;
                }
                Try::Again(why, problem) => (why, problem),
            };
            drop(under_way);
            let now = Instant::now();
            self.pace.borrow_mut().pushed_back(sent, now);
            tried += 1;
            // Who is told to wait while others are served only has to wait longer.
            let only_late =
                matches!(why, Passing::Busy(_)) && self.answers.get() > answers && tried < MOST_TRIES;
            failures += u32::from(!only_late);
            let chance = RandomState::new().build_hasher().finish();
            match (wait(why, failures, chance), why) {
                (Some(delay), Passing::Busy(_)) => self.pace.borrow_mut().pause(now + delay),
                (Some(delay), _) => tokio::time::sleep(delay).await,
                (None, Passing::Busy(Some(asked))) if asked > LONGEST_WAIT => {
                    return File::Failed(format!(
                        "{problem} and wants to be left alone for {} s",
                        asked.as_secs()
                    ));
                }
                (None, _)
                    if self.answers.get() == first_answers && (first_answers <= 1 || self.gave_up.get()) =>
                {
                    return File::Failed(problem);
                }
                (None, _) => {
                    self.gave_up.set(true);
                    return File::Strange(format!("{problem} when asked for {file}"));
                }
            }
        }
    }

    /// Waits until one more request may go out.
    async fn begin(&self) -> UnderWay<'_> {
        loop {
            let now = Instant::now();
            let (paused, window) = (self.pace.borrow().paused_until(now), self.window());
            match paused {
                Some(until) => tokio::time::sleep(until - now).await,
                None if self.under_way.get() < window => break,
                None => self.ended.notified().await,
            }
        }
        self.under_way.set(self.under_way.get() + 1);
        UnderWay(self)
    }

    async fn once(&self, file: &str) -> Try {
        let turn = match self.turn() {
            Ok(turn) => turn,
            Err(problem) => return Try::Done(File::Failed(problem)),
        };
        let mut request = turn.client.get(format!("{}/{file}", self.base));
        if let Some(Credentials { login, password }) = &self.credentials {
            request = request.basic_auth(login, Some(password));
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return self.failed(&error),
        };
        if response.version() == Version::HTTP_2 && !self.shared.replace(true) {
            self.pace.borrow_mut().allow(STREAMS * SHARED_CONNECTIONS);
        }
        if let Some(done) = refused(&response, file) {
            return done;
        }
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= LARGEST_NARINFO => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => return Try::Done(File::Strange(format!("its {file} is larger than 1 MiB"))),
                Ok(None) => break,
                Err(error) => return self.failed(&error),
            }
        }
        Try::Done(match String::from_utf8(body) {
            Ok(text) => File::Text(text),
            Err(_) => File::Strange(format!("its {file} is no text")),
        })
    }

    /// A client with room for one more request.
    fn turn(&self) -> Result<Turn<'_>, String> {
        let mut clients = self.clients.borrow_mut();
        let at = if self.shared.get() {
            match clients.iter().position(|(_, in_flight)| *in_flight < STREAMS) {
                Some(at) => at,
                None if clients.len() < SHARED_CONNECTIONS => {
                    clients.push((client(&self.how, &self.base)?, 0));
                    clients.len() - 1
                }
                None => (0..clients.len()).min_by_key(|&at| clients[at].1).unwrap_or(0),
            }
        } else {
            0
        };
        clients[at].1 += 1;
        Ok(Turn { client: clients[at].0.clone(), clients: &self.clients, at })
    }

    /// A server that is not there stays away, and one that refuses our certificates goes on doing so; but
    /// one that has answered before may only have had a bad moment, unless it is gone.
    fn failed(&self, error: &reqwest::Error) -> Try {
        let words = in_words(error);
        if error.is_timeout() {
            return Try::Again(Passing::OutOfTime, words);
        }
        let gone = error.is_connect() && (self.answers.get() == 0 || is_refused(error));
        if gone || error.is_builder() || error.is_redirect() {
            return Try::Done(File::Failed(words));
        }
        Try::Again(Passing::Broken, words)
    }
}

/// A request that is on its way.
struct UnderWay<'a>(&'a Http);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.ended.notify_waiters();
    }
}

/// A request's hold on a client.
struct Turn<'a> {
    client: Client,
    clients: &'a RefCell<Vec<(Client, usize)>>,
    at: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.clients.borrow_mut()[self.at].1 -= 1;
    }
}

/// What a status other than 200 means.
fn refused(response: &Response, file: &str) -> Option<Try> {
    let status = response.status();
    let said = format!("it answers {} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let said = said.trim_end().to_owned();
    Some(match status {
        StatusCode::OK => return None,
        StatusCode::NOT_FOUND | StatusCode::GONE => Try::Done(File::Absent),
        StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => Try::Done(File::Failed(said)),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Try::Again(Passing::Busy(retry_after(response)), said)
        }
        status if status == StatusCode::REQUEST_TIMEOUT || status.is_server_error() => {
            Try::Again(Passing::Broken, said)
        }
        _ => Try::Done(File::Strange(format!("{said} when asked for {file}"))),
    })
}

/// The seconds of `Retry-After`. The other form, a date, is not read: our own waits do then.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn client(how: &HttpSettings, base: &str) -> Result<Client, String> {
    let mut builder = Client::builder()
        .user_agent(concat!("phoenix-ci/", env!("CARGO_PKG_VERSION")))
        .timeout(how.timeout)
        .connect_timeout(how.timeout.min(LONGEST_CONNECT))
        .tcp_nodelay(true)
        .pool_max_idle_per_host(how.connections.max(1));
    if let Some(file) = how.ssl_cert_file.as_ref().filter(|_| base.starts_with("https://")) {
        let bytes = std::fs::read(file)
            .map_err(|error| format!("the certificates in {} cannot be read: {error}", file.display()))?;
        let certificates = Certificate::from_pem_bundle(&bytes)
            .map_err(|error| format!("{} holds no certificates: {}", file.display(), in_words(&error)))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| in_words(&error))
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

fn is_refused(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// An error by its last cause, and without the URL.
fn in_words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    match causes(error).last() {
        Some(last) if error.is_connect() => format!("it cannot be reached: {last}"),
        Some(last) => format!("the request failed: {last}"),
        None => "the request failed".to_owned(),
    }
}
