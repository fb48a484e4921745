//! The cache service: reserve an entry, finish it, look one up.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use phoenix_depot::Problem;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{ENDED, Meaning, WRITE_DENIED};
use crate::pace::Lane;
use crate::pace_file::Pacer;
use crate::patience::{Passing, Patience};
use crate::signed::Signed;
use crate::{Access, Settings, key, twirp};

/// Where the service is; a method's name follows.
const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService/";

/// How often an entry that is not found when it is to be finished is asked for again, where its bytes were
/// just put there.
const FINALIZE_TRIES: u32 = 8;

/// The longest wait between two of these tries.
const FINALIZE_WAIT: Duration = Duration::from_secs(2);

/// The service, as one job may use it.
#[derive(Debug)]
pub(crate) struct Service {
    http: Client,
    access: Access,
    settings: Settings,
    pacer: Pacer,
    version: String,
    /// Why nothing can be written, once that is known.
    denied: OnceLock<String>,
}

/// How a reservation ended.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// The bytes go there.
    At(Signed),
    /// There is such an entry. `ours` is whether it may be ours, of a try whose answer was lost.
    Taken { ours: bool },
}

/// An entry that was looked up.
#[derive(Debug)]
pub(crate) struct Matched {
    pub(crate) key: String,
    pub(crate) url: Signed,
}

/// What came of a call that was not answered as hoped.
enum Failed {
    Taken { doubt: bool },
    NotFound,
    Problem(Problem),
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Answer {
    ok: bool,
    #[serde(alias = "signedUploadUrl")]
    signed_upload_url: String,
    #[serde(alias = "signedDownloadUrl")]
    signed_download_url: String,
    #[serde(alias = "matchedKey")]
    matched_key: String,
    message: String,
}

impl Service {
    pub(crate) fn new(http: Client, access: Access, settings: Settings) -> Self {
        let pacer = Pacer::new(settings.budget, settings.budget_file.clone());
        Self { http, access, settings, pacer, version: key::version(), denied: OnceLock::new() }
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Why nothing can be written, as far as it is known.
    pub(crate) fn write_denied(&self) -> Option<String> {
        if !self.access.mode.writes() {
            return Some("ACTIONS_CACHE_MODE says that this job may not write to the cache".to_owned());
        }
        self.access.unwritable.clone().or_else(|| self.denied.get().cloned())
    }

    /// Whether anything may be read.
    pub(crate) fn may_read(&self) -> Result<(), Problem> {
        if self.access.mode.reads() {
            return Ok(());
        }
        let words = "ACTIONS_CACHE_MODE says that this job may not read the cache";
        Err(Problem::Denied(words.to_owned()))
    }

    /// The server's words without our secrets.
    pub(crate) fn said(&self, words: &str) -> String {
        self.access.said(words)
    }

    /// Reserves an entry.
    pub(crate) async fn create(&self, key: &str) -> Result<Reserved, Problem> {
        if let Some(words) = self.write_denied() {
            return Err(Problem::Denied(words));
        }
        let request = json!({ "key": key, "version": self.version });
        let mut patience = Patience::new(&self.settings);
        let answer = match self.call("CreateCacheEntry", Some(Lane::Create), &request, &mut patience).await {
            Ok(answer) => answer,
            Err(Failed::Taken { doubt }) => return Ok(Reserved::Taken { ours: doubt }),
            Err(Failed::NotFound) => return Err(Problem::Unreachable("it answers 404".to_owned())),
            Err(Failed::Problem(problem)) => return Err(self.remember(problem)),
        };
        if !answer.ok {
            return Err(self.remember(self.not_ok(&answer)));
        }
        Signed::new(&answer.signed_upload_url, Instant::now())
            .map(Reserved::At)
            .ok_or_else(|| Problem::Unreachable("it says no place for the bytes".to_owned()))
    }

    /// Finishes an entry whose bytes are there.
    pub(crate) async fn finalize(&self, key: &str, size: u64) -> Result<(), Problem> {
        // 64-bit numbers are text in the JSON of the official client.
        let request = json!({ "key": key, "size_bytes": size.to_string(), "version": self.version });
        let mut patience = Patience::new(&self.settings);
        let mut not_found = 0;
        loop {
            match self.call("FinalizeCacheEntryUpload", None, &request, &mut patience).await {
                Ok(answer) if answer.ok => return Ok(()),
                Ok(answer) => return Err(self.not_ok(&answer)),
                // It was finished by the try whose answer was lost.
                Err(Failed::Taken { .. }) => return Ok(()),
                Err(Failed::NotFound) => {
                    not_found += 1;
                    let words = "it does not find the entry that it reserved for us";
                    let late = Instant::now() >= patience.deadline();
                    if not_found == FINALIZE_TRIES || late {
                        return Err(Problem::Unreachable(words.to_owned()));
                    }
                    tokio::time::sleep((self.settings.first_wait * not_found).min(FINALIZE_WAIT)).await;
                }
                Err(Failed::Problem(problem)) => return Err(problem),
            }
        }
    }

    /// The entry with this key, else the newest whose key begins with it.
    pub(crate) async fn look_up(&self, key: &str) -> Result<Option<Matched>, Problem> {
        // The key is a restore key, too: some say that the service looks at those only.
        let request = json!({ "key": key, "restore_keys": [key], "version": self.version });
        let mut patience = Patience::new(&self.settings);
        let method = "GetCacheEntryDownloadURL";
        let answer = match self.call(method, Some(Lane::Lookup), &request, &mut patience).await {
            Ok(answer) => answer,
            Err(Failed::NotFound) => return Ok(None),
            Err(Failed::Taken { .. }) => return Err(Problem::Unreachable("it answers 409".to_owned())),
            Err(Failed::Problem(problem)) => return Err(problem),
        };
        if !answer.ok && answer.message.is_empty() {
            return Ok(None);
        }
        if !answer.ok {
            return Err(self.not_ok(&answer));
        }
        let url = Signed::new(&answer.signed_download_url, Instant::now())
            .ok_or_else(|| Problem::Unreachable("it says no place of the bytes".to_owned()))?;
        Ok(Some(Matched { key: answer.matched_key, url }))
    }

    /// What an answer means that says it is not well.
    fn not_ok(&self, answer: &Answer) -> Problem {
        let words = self.said(&answer.message);
        match words.as_str() {
            "" => Problem::Unreachable("it refuses and does not say why".to_owned()),
            _ if words.contains("insufficient usage") => Problem::Full(words),
            _ => Problem::Denied(words),
        }
    }

    /// Remembers that nothing can be written, if that is what a problem means.
    fn remember(&self, problem: Problem) -> Problem {
        if let Problem::Denied(words) = &problem
            && words.contains(WRITE_DENIED)
        {
            // Another task may have been told so before.
            let _ = self.denied.set(words.clone());
        }
        problem
    }

    async fn call(
        &self,
        method: &str,
        lane: Option<Lane>,
        request: &Value,
        patience: &mut Patience,
    ) -> Result<Answer, Failed> {
        let mut doubt = false;
        loop {
            if let Some(lane) = lane {
                self.turn(lane, patience.deadline()).await.map_err(Failed::Problem)?;
            }
            let (why, words, done) = match self.once(method, request).await {
                Meaning::Answer(value) => match serde_json::from_value(value) {
                    Ok(answer) => return Ok(answer),
                    Err(_) => (Passing::Broken, "its answer makes no sense".to_owned(), true),
                },
                Meaning::Taken => return Err(Failed::Taken { doubt }),
                Meaning::NotFound => return Err(Failed::NotFound),
                Meaning::Again { why, said, done } => (why, said, done),
                Meaning::Denied(words) => return Err(Failed::Problem(Problem::Denied(words))),
                Meaning::Ended => return Err(Failed::Problem(Problem::Ended(ENDED.to_owned()))),
                Meaning::Full(words) => return Err(Failed::Problem(Problem::Full(words))),
                Meaning::Refused(words) => return Err(Failed::Problem(Problem::Unreachable(words))),
            };
            doubt |= done;
            if let (Passing::Busy(Some(asked)), Some(lane)) = (why, lane) {
                // It is the same for everybody in this job.
                self.pacer.pause(lane, asked);
            }
            patience.again(why, words).await.map_err(Failed::Problem)?;
        }
    }

    /// Waits for the budget.
    pub(crate) async fn turn(&self, lane: Lane, deadline: Instant) -> Result<(), Problem> {
        self.pacer.turn(lane, deadline).await.map_err(|wait| {
            Problem::Busy(format!(
                "this job's requests to the cache service are used up for the next {} s",
                wait.as_secs_f64().ceil()
            ))
        })
    }

    async fn once(&self, method: &str, request: &Value) -> Meaning {
        let method = format!("{SERVICE}{method}");
        twirp::call(&self.http, &self.access, self.settings.answer_within, &method, request).await
    }

    /// What came back, in the end.
    pub(crate) async fn heard(&self, response: Result<reqwest::Response, reqwest::Error>) -> Meaning {
        twirp::heard(&self.access, response).await
    }
}
