//! GitHub's artifacts as a place where the jobs of a workflow run keep small texts.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use phoenix_depot::{Body, Problem};
use phoenix_work::{Artifact, ArtifactError, ArtifactStore, Room};
use reqwest::Client;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::answer::{ENDED, Meaning};
use crate::download::{Download, Missed};
use crate::job::Job;
use crate::patience::{Passing, Patience};
use crate::signed::Signed;
use crate::upload::{Blocks, Upload};
use crate::{Access, Settings, http, twirp};

/// Where the service is; a method's name follows.
const SERVICE: &str = "twirp/github.actions.results.api.v1.ArtifactService/";

/// The version of the format in which an artifact is any single file (`@actions/artifact`, `upload-artifact.ts`).
const VERSION: u32 = 7;

/// When an artifact is removed by itself, should nobody do it: a day is the least that GitHub takes.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// The most artifacts of a job, as GitHub's staff said in the issues of `actions/upload-artifact`.
const MOST_OF_A_JOB: usize = 500;

/// Version 4 of GitHub's artifact service, for texts of up to a few megabytes. What the service does not promise
/// in writing is not built upon: that an unfinished artifact takes its name only saves work.
#[derive(Debug)]
pub struct Artifacts {
    /// For everything that has a time of its own.
    http: Client,
    /// For reading, which may not stand still.
    reader: Client,
    access: Access,
    settings: Settings,
    job: Job,
    /// How many artifacts this process has made for the job, by whatever it has of it.
    made: Arc<AtomicUsize>,
}

/// How many artifacts this process has made for a job of a service.
fn made_for(service: &str, job: &Job) -> Arc<AtomicUsize> {
    type Counts = HashMap<(String, Job), Arc<AtomicUsize>>;
    static MADE: LazyLock<Mutex<Counts>> = LazyLock::new(Mutex::default);
    let mut all = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(all.entry((service.to_owned(), job.clone())).or_default())
}

/// A name that this job has taken.
#[derive(Debug)]
pub struct Reservation {
    name: String,
    url: Signed,
}

/// An artifact that is kept for others to read parts of.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    artifact: Artifact,
    /// When it was made, in seconds since 1970.
    created: Option<u64>,
    /// Where its bytes are, once that was asked for.
    url: Arc<Mutex<Option<Signed>>>,
}

impl Kept {
    fn new(artifact: Artifact, created: Option<u64>) -> Self {
        Self { artifact, created, url: Arc::default() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.artifact.name
    }

    pub(crate) fn number(&self) -> i64 {
        self.artifact.number
    }

    pub(crate) fn size(&self) -> u64 {
        self.artifact.size
    }

    pub(crate) fn created(&self) -> Option<u64> {
        self.created
    }
}

/// What came of a call that was not answered as hoped.
enum Failed {
    /// `doubt` is whether it may be by ourselves, in a try whose answer was lost.
    Taken {
        doubt: bool,
    },
    NotFound,
    Problem(Problem),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    ok: bool,
    #[serde(alias = "signedUploadUrl")]
    signed_upload_url: String,
    #[serde(alias = "signedUrl")]
    signed_url: String,
    #[serde(alias = "artifactId", deserialize_with = "any_int64")]
    artifact_id: i64,
    artifacts: Vec<Listed>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listed {
    #[serde(alias = "workflowJobRunBackendId")]
    workflow_job_run_backend_id: String,
    #[serde(alias = "databaseId", deserialize_with = "any_int64")]
    database_id: i64,
    name: String,
    #[serde(deserialize_with = "any_int64")]
    size: i64,
    #[serde(alias = "createdAt")]
    created_at: String,
}

impl Listed {
    fn kept(self) -> Kept {
        let created = self.created_at.parse().ok().map(Timestamp::as_second);
        let artifact = Artifact {
            name: self.name,
            number: self.database_id,
            size: u64::try_from(self.size).unwrap_or_default(),
            maker: self.workflow_job_run_backend_id,
        };
        Kept::new(artifact, created.and_then(|seconds| u64::try_from(seconds).ok()))
    }
}

impl Artifacts {
    /// Gets ready to use the artifacts of the workflow run that the token is for; asks nobody.
    ///
    /// # Errors
    ///
    /// When the token names no job, or there can be no HTTP client.
    pub fn new(access: Access, settings: Settings) -> Result<Self, ArtifactError> {
        let job = Job::of(access.token.reveal()).ok_or_else(|| {
            let words =
                "ACTIONS_RUNTIME_TOKEN is not the token of a job: it names no workflow run (Actions.Results)";
            ArtifactError::Other(format!("{words}; hand on the one that GitHub gives to actions"))
        })?;
        let http = http::client(None).map_err(ArtifactError::Other)?;
        let reader = http::client(Some(settings.stall)).map_err(ArtifactError::Other)?;
        let made = made_for(access.service.as_str(), &job);
        Ok(Self { http, reader, access, settings, job, made })
    }

    /// A request with what every request has.
    fn request(&self, maker: &str, more: Value) -> Value {
        let mut request = more;
        request["workflow_run_backend_id"] = self.job.run.clone().into();
        request["workflow_job_run_backend_id"] = maker.into();
        request
    }

    async fn call(&self, method: &str, request: &Value) -> Result<Answer, Failed> {
        let mut patience = Patience::new(&self.settings);
        let mut doubt = false;
        let path = format!("{SERVICE}{method}");
        loop {
            let within = self.settings.answer_within;
            let (why, words, done) = match twirp::call(&self.http, &self.access, within, &path, request).await
            {
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
            patience.again(why, words).await.map_err(Failed::Problem)?;
        }
    }

    /// Where the bytes of an artifact are.
    async fn signed(&self, artifact: &Artifact) -> Result<Signed, ArtifactError> {
        self.place(artifact).await.map_err(|problem| match problem {
            Problem::Gone => ArtifactError::Gone,
            problem => told(&format!("asking where the artifact {} is", artifact.name), &problem),
        })
    }

    async fn place(&self, artifact: &Artifact) -> Result<Signed, Problem> {
        let request = self.request(&artifact.maker, json!({ "name": artifact.name }));
        let answer = self.call("GetSignedArtifactURL", &request).await.map_err(Failed::problem)?;
        Signed::new(&answer.signed_url, Instant::now())
            .ok_or_else(|| Problem::Unreachable("it says no place of the bytes".to_owned()))
    }

    /// Takes a name that nobody has taken, for content of a type.
    async fn take(&self, name: &str, mime_type: &str) -> Result<Option<Reservation>, Problem> {
        let expires = (Timestamp::now() + KEPT).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let more = json!({
            "name": name, "expires_at": expires, "version": VERSION, "mime_type": mime_type,
        });
        let answer = match self.call("CreateArtifact", &self.request(&self.job.job, more)).await {
            Ok(answer) => answer,
            // If it was ourselves, the place for the bytes was lost with the answer.
            Err(Failed::Taken { .. }) => return Ok(None),
            Err(Failed::Problem(Problem::Unreachable(words))) if is_of_limit(&words) => {
                return Err(Problem::Full(words));
            }
            Err(failed) => return Err(failed.problem()),
        };
        match Signed::new(&answer.signed_upload_url, Instant::now()).filter(|_| answer.ok) {
            Some(url) => {
                self.made.fetch_add(1, Ordering::Relaxed);
                Ok(Some(Reservation { name: name.to_owned(), url }))
            }
            None => Err(Problem::Unreachable("it says no place for the bytes".to_owned())),
        }
    }

    /// Makes what was put at its place seen.
    async fn finish(&self, name: &str, size: u64, hash: Sha256) -> Result<Artifact, Problem> {
        let hash = HEXLOWER.encode(&hash.finalize());
        // 64-bit numbers are text in the JSON of the official client.
        let more = json!({ "name": name, "size": size.to_string(), "hash": format!("sha256:{hash}") });
        let maker = &self.job.job;
        let number = match self.call("FinalizeArtifact", &self.request(maker, more)).await {
            Ok(answer) if answer.ok => answer.artifact_id,
            Ok(_) => return Err(Problem::Unreachable("it refuses and does not say why".to_owned())),
            // It was finished by the try whose answer was lost; its number comes with the next listing.
            Err(Failed::Taken { doubt: true }) => 0,
            Err(failed) => return Err(failed.problem()),
        };
        Ok(Artifact { name: name.to_owned(), number, size, maker: maker.clone() })
    }

    /// Makes an artifact of any size; none when there is one of that name. Memory does not grow with the body.
    pub(crate) async fn keep(&self, name: &str, body: Body) -> Result<Option<Kept>, Problem> {
        let hash = Arc::new(Mutex::new(Sha256::new()));
        let hashing = Arc::clone(&hash);
        let body = body.inspect_ok(move |piece| {
            hashing.lock().unwrap_or_else(PoisonError::into_inner).update(piece);
        });
        let mut blocks = Blocks::new(body.boxed(), self.settings.block);
        let first = blocks.next().await.map_err(Problem::Body)?.unwrap_or_default();
        let second = if blocks.is_over() { None } else { blocks.next().await.map_err(Problem::Body)? };
        let Some(reservation) = self.take(name, "application/octet-stream").await? else { return Ok(None) };
        let upload = Upload { http: &self.http, settings: &self.settings, url: &reservation.url };
        let size = match second {
            None => upload.whole(first).await?,
            Some(second) => upload.blocks([first, second], blocks).await?,
        };
        let hash = hash.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let artifact = self.finish(name, size, hash).await?;
        Ok(Some(Kept::new(artifact, u64::try_from(Timestamp::now().as_second()).ok())))
    }

    /// The artifact of this name, or all.
    pub(crate) async fn kept(&self, name: Option<&str>) -> Result<Vec<Kept>, Problem> {
        let more = name.map_or_else(|| json!({}), |name| json!({ "name_filter": name }));
        let answer = self.call("ListArtifacts", &self.request(&self.job.job, more)).await;
        let listed = answer.map_err(Failed::problem)?.artifacts.into_iter();
        Ok(listed.map(Listed::kept).filter(|kept| name.is_none_or(|name| kept.name() == name)).collect())
    }

    /// The bytes of a range of an artifact.
    pub(crate) async fn range(&self, kept: &Kept, range: Range<u64>) -> Result<Bytes, Problem> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if range.end > kept.size() {
            return Err(Problem::Short(format!("byte {} of {} was asked for", range.end, kept.size())));
        }
        let mut patience = Patience::new(&self.settings);
        let mut download = Download::new(range);
        let known = kept.url.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut url, mut fresh) = match known.filter(|url| url.holds(Instant::now())) {
            Some(url) => (url, false),
            None => (self.place_again(kept).await?, true),
        };
        loop {
            match download.more(&self.reader, &url).await {
                Ok(()) => return Ok(download.finish()),
                Err(Missed::Again(why, words)) => {
                    patience.again(why, words).await?;
                }
                Err(Missed::Denied(_) | Missed::Gone) if !fresh => {
                    fresh = true;
                    url = self.place_again(kept).await?;
                }
                Err(missed) => return Err(missed.problem()),
            }
        }
    }

    async fn place_again(&self, kept: &Kept) -> Result<Signed, Problem> {
        let url = self.place(&kept.artifact).await?;
        *kept.url.lock().unwrap_or_else(PoisonError::into_inner) = Some(url.clone());
        Ok(url)
    }

    /// Removes an artifact; that it is gone already is as good.
    pub(crate) async fn forget(&self, kept: &Kept) -> Result<(), Problem> {
        let request = self.request(&kept.artifact.maker, json!({ "name": kept.name() }));
        match self.call("DeleteArtifact", &request).await {
            Ok(_) | Err(Failed::NotFound) => Ok(()),
            Err(failed) => Err(failed.problem()),
        }
    }

    async fn bytes(&self, url: &Signed, size: u64) -> Result<Bytes, Missed> {
        let mut download = Download::new(0..size);
        download.more(&self.reader, url).await?;
        Ok(download.finish())
    }
}

impl Failed {
    fn problem(self) -> Problem {
        match self {
            Self::Problem(problem) => problem,
            Self::Taken { .. } => Problem::Unreachable("it answers 409".to_owned()),
            Self::NotFound => Problem::Gone,
        }
    }
}

/// Whether the words of a refusal are about how many artifacts there may be. What GitHub says then is written nowhere.
fn is_of_limit(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    words.contains("artifact") && ["too many", "limit", "maximum"].iter().any(|word| words.contains(word))
}

/// A problem with what was being done, and what would help.
fn told(doing: &str, problem: &Problem) -> ArtifactError {
    let next = match problem {
        Problem::Denied(_) | Problem::Ended(_) => {
            "run the job again; one that takes longer than six hours needs another ledger"
        }
        Problem::Full(words) if is_of_limit(words) => "use more runners, or another ledger",
        Problem::Full(_) => "remove artifacts, or raise the account's budget for Actions storage",
        Problem::Busy(_) => "it is asked too often: use fewer runners, or another ledger",
        _ => "https://www.githubstatus.com says whether GitHub has a problem",
    };
    let text = format!("{doing}: {problem}; {next}");
    match problem {
        Problem::Full(_) => ArtifactError::Full(text),
        _ => ArtifactError::Other(text),
    }
}

#[async_trait::async_trait]
impl ArtifactStore for Artifacts {
    type Reservation = Reservation;

    fn room(&self) -> Room {
        let left = MOST_OF_A_JOB.saturating_sub(self.made.load(Ordering::Relaxed));
        Room { most: MOST_OF_A_JOB, left }
    }

    async fn reserve(&self, name: &str) -> Result<Option<Reservation>, ArtifactError> {
        let taken = self.take(name, "application/json").await;
        taken.map_err(|problem| told(&format!("reserving the artifact {name}"), &problem))
    }

    fn holds(&self, reservation: &Reservation) -> bool {
        reservation.url.holds(Instant::now())
    }

    async fn fill(&self, reservation: &Reservation, content: Bytes) -> Result<Artifact, ArtifactError> {
        let Reservation { name, url } = reservation;
        let doing = || format!("writing the artifact {name}");
        let hash = Sha256::new().chain_update(&content);
        let upload = Upload { http: &self.http, settings: &self.settings, url };
        let size = upload.whole(content).await.map_err(|problem| match problem {
            Problem::Denied(_) => ArtifactError::Lapsed,
            problem => told(&doing(), &problem),
        })?;
        self.finish(name, size, hash).await.map_err(|problem| told(&doing(), &problem))
    }

    async fn list(&self) -> Result<Vec<Artifact>, ArtifactError> {
        let kept = self.kept(None).await.map_err(|problem| told("listing the artifacts", &problem))?;
        Ok(kept.into_iter().map(|kept| kept.artifact).collect())
    }

    async fn read(&self, artifact: &Artifact) -> Result<Bytes, ArtifactError> {
        let doing = || format!("reading the artifact {}", artifact.name);
        let mut patience = Patience::new(&self.settings);
        let mut url = self.signed(artifact).await?;
        let mut fresh = false;
        loop {
            let (why, words) = match self.bytes(&url, artifact.size).await {
                Ok(bytes) => return Ok(bytes),
                Err(Missed::Again(why, words)) => (why, words),
                Err(Missed::Changed) => (Passing::Broken, "it changes while it is read".to_owned()),
                // The URL has ended, or the artifact was removed: the service knows.
                Err(Missed::Denied(_) | Missed::Gone) if !fresh => {
                    fresh = true;
                    url = self.signed(artifact).await?;
                    continue;
                }
                Err(Missed::Gone) => return Err(ArtifactError::Gone),
                Err(missed) => return Err(told(&doing(), &missed.problem())),
            };
            patience.again(why, words).await.map_err(|problem| told(&doing(), &problem))?;
        }
    }

    async fn remove(&self, artifact: &Artifact) -> Result<(), ArtifactError> {
        let forgotten = self.forget(&Kept::new(artifact.clone(), None)).await;
        forgotten.map_err(|problem| told(&format!("removing the artifact {}", artifact.name), &problem))
    }
}

/// A 64-bit number, which is text in the JSON of protobuf.
fn any_int64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| serde::de::Error::custom("no number"))
}
