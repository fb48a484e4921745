//! A ledger on a NATS server, for fleets of one's own runners.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::{self, ErrorCode, kv, stream};
use bytes::Bytes;
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use phoenix_schedule::farm::{Record, Slot, UnitId};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::log::{Key, Log, is_same};
use crate::{Cursor, Ledger, LedgerError};

/// How long the records of a run are kept on the server.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Records as the keys of a JetStream key-value bucket, one bucket a run: `claim.UNIT.ATTEMPT`,
/// `outcome.UNIT`, …. A key is created once, which the server sees to; a watcher receives what others create.
/// Heartbeats are keys that are overwritten.
#[derive(Debug)]
pub struct Nats {
    location: String,
    bucket: kv::Store,
    seen: Arc<Mutex<Seen>>,
    watcher: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    log: Log,
    beats: BTreeMap<Slot, u64>,
}

impl Nats {
    /// Connects to the ledger of a URL `nats://HOST:PORT/RUN`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When the URL is not of that form, the server cannot be reached, refuses us, or has no JetStream.
    pub async fn connect(url: &str) -> Result<Self, LedgerError> {
        let location = Self::shown(url);
        let error = |problem: String| LedgerError::new(location.clone(), "being opened", problem);
        let (server, run) = server_and_run(url)?;
        let client = options(url)
            .name("phoenix")
            .connection_timeout(Duration::from_secs(10))
            .connect(Self::shown(server))
            .await
            .map_err(|problem| error(format!("{problem}; is a NATS server there that lets us in?")))?;
        let bucket = bucket(jetstream::new(client), run).await.map_err(|problem| {
            error(format!("{problem}; the server needs JetStream (`nats-server --jetstream`)"))
        })?;
        let seen = Arc::<Mutex<Seen>>::default();
        let watcher = tokio::spawn(watch(bucket.clone(), Arc::clone(&seen)));
        Ok(Self { location, bucket, seen, watcher })
    }

    /// Sees that a URL has the form that is needed.
    pub(crate) fn check(url: &str) -> Result<(), LedgerError> {
        server_and_run(url).map(drop)
    }

    /// A URL without what may be a secret.
    pub(crate) fn shown(url: &str) -> String {
        match url.split_once("://") {
            Some((scheme, rest)) => {
                let authority = rest.find('/').unwrap_or(rest.len());
                let host = rest[..authority].rfind('@').map_or(0, |at| at + 1);
                format!("{scheme}://{}", &rest[host..])
            }
            None => url.to_owned(),
        }
    }

    fn error(&self, doing: &str, problem: &dyn Error) -> LedgerError {
        LedgerError::new(self.location.clone(), doing, problem.to_string())
    }

    /// Creates a record; whether it, or itself created before, stands.
    async fn create(&self, doing: &str, record: &Record) -> Result<bool, LedgerError> {
        let key = Key::of(record).name();
        let text = serde_json::to_vec(record).map_err(|error| self.error(doing, &error))?;
        match self.bucket.create(&key, Bytes::from(text)).await {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == kv::CreateErrorKind::AlreadyExists => {}
            Err(error) => return Err(self.error(doing, &error)),
        }
        let standing = self.bucket.get(&key).await.map_err(|error| self.error(doing, &error))?;
        let standing = standing.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        Ok(standing.is_some_and(|standing| is_same(&standing, record)))
    }
}

/// The two parts of a URL.
fn server_and_run(url: &str) -> Result<(&str, &str), LedgerError> {
    let parts = url
        .rsplit_once('/')
        .filter(|(server, run)| server.contains("://") && !server.ends_with('/') && is_name(run));
    parts.ok_or_else(|| {
        let problem = "it does not name a run; write nats://HOST:PORT/RUN".to_owned();
        LedgerError::new(Nats::shown(url), "being opened", problem)
    })
}

/// Who we are, as a URL says it: `USER:PASSWORD@`, or `TOKEN@`.
fn options(url: &str) -> ConnectOptions {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    match authority.rsplit_once('@').map(|(who, _)| who.split_once(':').ok_or(who)) {
        Some(Ok((user, password))) => ConnectOptions::with_user_and_password(plain(user), plain(password)),
        Some(Err(token)) => ConnectOptions::with_token(plain(token)),
        None => ConnectOptions::new(),
    }
}

/// The key-value bucket of a run, made if it is not there.
///
/// It is made as the stream that it is (NATS ADR-8): the client's own call asks for the account first, whose
/// answer by servers before 2.10 it cannot read.
async fn bucket(context: jetstream::Context, run: &str) -> Result<kv::Store, Box<dyn Error + Send + Sync>> {
    let bucket = format!("phoenix-{run}");
    let config = stream::Config {
        name: format!("KV_{bucket}"),
        description: Some("claims and outcomes of a run of Phoenix CI".to_owned()),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: 1,
        max_age: KEPT,
        discard: stream::DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..stream::Config::default()
    };
    let mut tries = 0;
    while let Err(error) = context.get_or_create_stream(config.clone()).await {
        tries += 1;
        if !is_being_made(&error) || tries > BEING_MADE_TRIES {
            return Err(error.into());
        }
        sleep(Duration::from_millis(50) * tries).await;
    }
    Ok(context.get_key_value(bucket).await?)
}

/// How often we come back to a stream that someone else is just making: over a second in all.
const BEING_MADE_TRIES: u32 = 8;

/// Whether another worker is making the same stream at this moment: until the server has it up, whoever asks for
/// it is told that it is not there, and whoever makes it, that its subjects overlap with those of another.
fn is_being_made(error: &CreateStreamError) -> bool {
    let CreateStreamErrorKind::JetStream(error) = error.kind() else { return false };
    [ErrorCode::STREAM_SUBJECT_OVERLAP, ErrorCode::STREAM_NAME_EXIST].contains(&error.error_code())
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

fn is_name(run: &str) -> bool {
    !run.is_empty() && run.chars().all(|char| char.is_ascii_alphanumeric() || "-_".contains(char))
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // What is in it holds together at every moment.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Receives what is in the bucket, and what comes to it. When the connection is lost it begins anew; what it
/// knows already is not told twice.
async fn watch(bucket: kv::Store, seen: Arc<Mutex<Seen>>) {
    loop {
        if let Ok(mut entries) = bucket.watch_with_history(">").await {
            while let Some(Ok(entry)) = entries.next().await {
                let mut seen = locked(&seen);
                if let Some(slot) = entry.key.strip_prefix("beat.") {
                    let count = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok());
                    if let (Ok(slot), Some(count)) = (slot.parse(), count) {
                        seen.beats.insert(Slot(slot), count);
                    }
                } else if let Ok(record) = serde_json::from_slice(&entry.value) {
                    seen.log.push(record);
                }
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[async_trait::async_trait]
impl Ledger for Nats {
    fn location(&self) -> &str {
        &self.location
    }

    async fn claim(&self, unit: UnitId, attempt: u32, slot: Slot) -> Result<bool, LedgerError> {
        self.create(&format!("claiming unit {}", unit.0), &Record::Claim { unit, attempt, slot }).await
    }

    async fn post(&self, record: &Record) -> Result<bool, LedgerError> {
        self.create("posting a record", record).await
    }

    async fn since(&self, cursor: &mut Cursor) -> Result<Vec<Record>, LedgerError> {
        Ok(locked(&self.seen).log.since(cursor))
    }

    async fn beat(&self, slot: Slot, count: u64) -> Result<(), LedgerError> {
        let put = self.bucket.put(format!("beat.{}", slot.0), Bytes::from(count.to_string())).await;
        put.map(drop).map_err(|error| self.error("showing that it is alive", &error))
    }

    async fn beats(&self) -> Result<Vec<(Slot, u64)>, LedgerError> {
        Ok(locked(&self.seen).beats.iter().map(|(&slot, &count)| (slot, count)).collect())
    }
}
