//! GitHub's cache as a depot.

use std::ops::Range;

use bytes::Bytes;
use futures_util::future::join;
use phoenix_depot::{Blob, BlobName, Body, Created, Depot, DepotError, Problem, Scopes};
use reqwest::Client;

use crate::download::{Download, Head, Missed, head};
use crate::patience::{Passing, Patience};
use crate::service::{Matched, Reserved, Service};
use crate::signed::Signed;
use crate::upload::{Blocks, Upload};
use crate::urls::Urls;
use crate::{Access, RestAccess, Settings, http, key, rest, scopes};

/// How often a read begins anew because the blob became another one.
const RESTARTS: u32 = 3;

/// Version 2 of GitHub's cache service, as a place that keeps blobs.
///
/// What it promises less than other depots, because the service does:
///
/// - A name whose creation failed after the service reserved it stays taken for up to a day, and nothing is
///   seen under it. Nothing is reserved before the first 16 MiB of the body are there.
/// - When every answer to the last step of a creation is lost, the blob may be there although an error said no.
/// - Of several who create one name at once on one ref, one is answered [`Created::New`] as far as is known;
///   the service does not promise it. Names on different refs do not meet at all.
/// - A lookup goes through the refs that the job may read, its own first, so [`Depot::newest`] is the newest of
///   the first ref that has any.
/// - [`Depot::list`] and [`Depot::remove`] need a token of the REST interface, and see all refs.
/// - A blob that was just created may not be found for seconds or, seldom, minutes.
#[derive(Debug)]
pub struct Cache {
    location: String,
    /// For everything that has a time of its own.
    http: Client,
    /// For reading, which may take long and may not stand still.
    reader: Client,
    service: Service,
    urls: Urls,
    scopes: Option<Scopes>,
}

impl Cache {
    /// Gets ready to use the cache; asks nobody.
    ///
    /// # Errors
    ///
    /// When there can be no HTTP client, such as without certificates of the system.
    pub fn new(access: Access, settings: Settings) -> Result<Self, DepotError> {
        let repository = access.rest.as_ref().map_or("", |rest| &rest.repository);
        let location = format!("github:{repository}");
        let error = |words| DepotError {
            location: location.clone(),
            doing: "preparing".to_owned(),
            problem: Problem::Unreachable(words),
        };
        let http = http::client(None).map_err(error)?;
        let reader = http::client(Some(settings.stall)).map_err(error)?;
        let scopes = scopes::scopes(access.token.reveal());
        let service = Service::new(http.clone(), access, settings);
        Ok(Self { location, http, reader, service, urls: Urls::default(), scopes })
    }

    /// Why this job cannot write, once that is known; then [`Depot::create`] answers so without asking anybody.
    #[must_use]
    pub fn write_denied(&self) -> Option<String> {
        self.service.write_denied()
    }

    fn error(&self, doing: &str, what: &str, problem: Problem) -> DepotError {
        DepotError { location: self.location.clone(), doing: format!("{doing} {what}"), problem }
    }

    fn rest(&self, cannot: &'static str) -> Result<&RestAccess, Problem> {
        self.service.access().rest.as_ref().ok_or(Problem::Unsupported(cannot))
    }

    /// Why this job may not use the cache to the full, as far as that is known before anybody was asked.
    pub(crate) fn forbidden(&self) -> Option<String> {
        let unread = self.service.may_read().err().map(|problem| problem.to_string());
        let unwritable = self.scopes.as_ref().is_some_and(|scopes| scopes.write.is_none());
        let unwritable = unwritable.then(|| "its token has no scope that it may write".to_owned());
        self.write_denied().or(unread).or(unwritable)
    }

    /// As [`Depot::create`]; where the cache may not be written or has no room, with the whole body again.
    pub(crate) async fn create_or_return(
        &self,
        name: &BlobName,
        body: Body,
    ) -> Result<Created, (DepotError, Option<Body>)> {
        let made = self.make(name, body).await;
        made.map_err(|(problem, body)| (self.error("creating", name.as_str(), problem), body))
    }

    async fn make(&self, name: &BlobName, body: Body) -> Result<Created, (Problem, Option<Body>)> {
        if let Some(words) = self.write_denied() {
            return Err((Problem::Denied(words), Some(body)));
        }
        let key = key::key(name);
        let settings = self.service.settings();
        let mut blocks = Blocks::new(body, settings.block);
        let cut = |error| (Problem::Body(error), None);
        let first = blocks.next().await.map_err(cut)?.unwrap_or_default();
        // One that is as large as a block may have no more to come.
        // What comes next is read meanwhile.
        let second = async { if blocks.is_over() { Ok(None) } else { blocks.next().await.map_err(cut) } };
        let (second, reserved) = join(second, self.service.create(&key)).await;
        let second = second?;
        let url = match reserved {
            Ok(Reserved::At(url)) => url,
            Ok(Reserved::Taken { ours: false }) => return Ok(Created::Taken),
            Ok(Reserved::Taken { ours: true }) => {
                return self.taken_by_whom(&key).await.map_err(|problem| (problem, None));
            }
            Err(problem @ (Problem::Denied(_) | Problem::Ended(_) | Problem::Full(_))) => {
                return Err((problem, Some(blocks.into_body([Some(first), second]))));
            }
            Err(problem) => return Err((problem, None)),
        };
        self.fill(&key, &url, (first, second), blocks).await.map_err(|problem| (problem, None))
    }

    /// Puts the bytes where they belong, and makes them seen.
    async fn fill(
        &self,
        key: &str,
        url: &Signed,
        (first, second): (Bytes, Option<Bytes>),
        blocks: Blocks,
    ) -> Result<Created, Problem> {
        let settings = self.service.settings();
        let upload = Upload { http: &self.http, settings, url };
        let uploading = async {
            match second {
                None => upload.whole(first).await,
                Some(second) => upload.blocks([first, second], blocks).await,
            }
        };
        let size = tokio::time::timeout(settings.upload_within, uploading).await.map_err(|_| {
            let minutes = settings.upload_within.as_secs() / 60;
            Problem::Unreachable(format!("the upload was not over within {minutes} minutes"))
        })??;
        if let Err(problem) = self.service.finalize(key, size).await {
            // It may be done, and only the answers were lost.
            return match self.is_there(key, url, size).await {
                true => Ok(Created::New(size)),
                false => Err(problem),
            };
        }
        Ok(Created::New(size))
    }

    /// The name is taken, and it may be us who did it in a try whose answer was lost. Then nobody fills it.
    async fn taken_by_whom(&self, key: &str) -> Result<Created, Problem> {
        let there = self.service.look_up(key).await.ok().flatten();
        if there.is_some_and(|matched| matched.key == key) {
            return Ok(Created::Taken);
        }
        Err(Problem::Unreachable(
            "the answer to a reservation was lost, and the name may be taken by nobody for a day".to_owned(),
        ))
    }

    /// Whether what we put at `url` can be looked up.
    async fn is_there(&self, key: &str, url: &Signed, size: u64) -> bool {
        let Ok(Some(matched)) = self.service.look_up(key).await else { return false };
        matched.key == key
            && matched.url.is_for_the_blob_of(url)
            && self.size(key, matched.url).await.is_ok_and(|head| head.is_some_and(|head| head.size == size))
    }

    /// The entry that an answer names, and how it is read.
    async fn look_for(
        &self,
        asked: &str,
        takes: impl Fn(&BlobName) -> bool,
    ) -> Result<Option<(BlobName, Matched)>, Problem> {
        self.service.may_read()?;
        let Some(matched) = self.service.look_up(asked).await? else { return Ok(None) };
        let Some(name) = key::name(&matched.key).filter(takes) else { return Ok(None) };
        self.urls.put(&matched.key, matched.url.clone());
        Ok(Some((name, matched)))
    }

    async fn look(&self, asked: &str, takes: impl Fn(&BlobName) -> bool) -> Result<Option<Blob>, Problem> {
        let Some((name, matched)) = self.look_for(asked, takes).await? else { return Ok(None) };
        let head = self.size(&matched.key, matched.url).await?;
        Ok(head.map(|head| Blob { name, size: head.size, created: head.modified }))
    }

    /// The size of an entry; none when it is gone.
    async fn size(&self, key: &str, mut url: Signed) -> Result<Option<Head>, Problem> {
        let mut patience = Patience::new(self.service.settings());
        let mut fresh = false;
        loop {
            let missed = match head(&self.http, &url, self.service.settings().answer_within).await {
                Ok(head) => return Ok(Some(head)),
                Err(missed) => missed,
            };
            match missed {
                Missed::Again(why, words) => {
                    patience.again(why, words).await?;
                }
                Missed::Denied(_) | Missed::Gone if !fresh => {
                    fresh = true;
                    match self.urls.get(&self.service, key, Some(&url)).await? {
                        Some(other) => url = other,
                        None => return Ok(None),
                    }
                }
                Missed::Gone => return Ok(None),
                missed => return Err(missed.problem()),
            }
        }
    }

    async fn bytes(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, Problem> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.service.may_read()?;
        if range.end > blob.size {
            return Err(Problem::Short(format!("byte {} of {} was asked for", range.end, blob.size)));
        }
        let key = key::key(&blob.name);
        let mut url = self.urls.get(&self.service, &key, None).await?.ok_or(Problem::Gone)?;
        let mut patience = Patience::new(self.service.settings());
        let mut download = Download::new(range);
        let (mut fresh, mut restarts) = (false, 0);
        loop {
            let before = download.got();
            let Err(missed) = download.more(&self.reader, &url).await else { return Ok(download.finish()) };
            if download.got() > before {
                patience.renew();
                fresh = false;
            }
            match missed {
                Missed::Again(why, words) => {
                    patience.again(why, words).await?;
                }
                // The URL has ended, or it is of an entry that is gone and may have been made again.
                Missed::Denied(_) | Missed::Gone if !fresh => {
                    fresh = true;
                    let other = self.urls.get(&self.service, &key, Some(&url)).await?.ok_or(Problem::Gone)?;
                    if !other.is_for_the_blob_of(&url) {
                        download.restart();
                    }
                    url = other;
                }
                Missed::Changed if restarts < RESTARTS => {
                    restarts += 1;
                    download.restart();
                    patience.again(Passing::Broken, "the blob changes while it is read".to_owned()).await?;
                }
                missed => {
                    if missed == Missed::Gone {
                        self.urls.forget(&key);
                    }
                    return Err(missed.problem());
                }
            }
        }
    }
}

#[async_trait::async_trait]
impl Depot for Cache {
    fn location(&self) -> &str {
        &self.location
    }

    fn scopes(&self) -> Option<Scopes> {
        self.scopes.clone()
    }

    async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
        self.create_or_return(name, body).await.map_err(|(error, _)| error)
    }

    async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
        let found = self.look(&key::key(name), |found| found == name).await;
        found.map_err(|problem| self.error("looking for", name.as_str(), problem))
    }

    async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
        let Some(asked) = key::prefix(prefix) else { return Ok(None) };
        let found = self.look(&asked, |found| found.as_str().starts_with(prefix)).await;
        found.map_err(|problem| self.error("looking for the newest of", prefix, problem))
    }

    async fn newest_name(&self, prefix: &str) -> Result<Option<BlobName>, DepotError> {
        let Some(asked) = key::prefix(prefix) else { return Ok(None) };
        let found = self.look_for(&asked, |found| found.as_str().starts_with(prefix)).await;
        let found = found.map_err(|problem| self.error("looking for the newest of", prefix, problem))?;
        Ok(found.map(|(name, _)| name))
    }

    async fn read(&self, blob: &Blob, range: Range<u64>) -> Result<Bytes, DepotError> {
        let read = self.bytes(blob, range).await;
        read.map_err(|problem| self.error("reading", blob.name.as_str(), problem))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
        let listed = async { rest::list(&self.http, &self.service, self.rest(LIST)?, prefix).await };
        listed.await.map_err(|problem| self.error("listing", prefix, problem))
    }

    async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
        self.urls.forget(&key::key(name));
        let removed = async { rest::remove(&self.http, &self.service, self.rest(REMOVE)?, name).await };
        removed.await.map_err(|problem| self.error("removing", name.as_str(), problem))
    }
}

/// What cannot be done without the token of the REST interface.
const LIST: &str = "list without GITHUB_TOKEN and GITHUB_REPOSITORY";
const REMOVE: &str = "remove without GITHUB_TOKEN and GITHUB_REPOSITORY";
