//! A repository's caches over GitHub's REST interface: list and remove.

use std::collections::BTreeMap;

use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use phoenix_depot::{Blob, BlobName, Problem};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::Value;

use crate::RestAccess;
use crate::answer::Meaning;
use crate::key;
use crate::pace::Lane;
use crate::patience::Patience;
use crate::service::Service;

/// How many entries are asked for at once; the most that there may be.
const PAGE: usize = 100;

/// How many pages are asked for at most: a million entries.
const MOST_PAGES: usize = 10_000;

/// What a token may do that may not do this.
const HELP: &str = "the job needs `permissions: actions: write` to remove, `actions: read` to list";

#[derive(Deserialize)]
struct Page {
    actions_caches: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    version: String,
    created_at: String,
    size_in_bytes: u64,
}

/// All blobs whose names begin with `prefix`, on whatever ref they were made, by name; of those that have one
/// name, the one made last.
pub(crate) async fn list(
    client: &Client,
    service: &Service,
    access: &RestAccess,
    prefix: &str,
) -> Result<Vec<Blob>, Problem> {
    let Some(prefix) = key::prefix(prefix) else { return Ok(Vec::new()) };
    let mut blobs: BTreeMap<BlobName, Blob> = BTreeMap::new();
    for page in 1..=MOST_PAGES {
        // By age, from the oldest: what is new comes at the end and moves no page.
        let query = format!(
            "caches?key={}&sort=created_at&direction=asc&per_page={PAGE}&page={page}",
            encoded(&prefix)
        );
        let value = ask(client, service, access, &Method::GET, &query).await?;
        let value = value.ok_or_else(|| Problem::Denied(format!("no such repository, or {HELP}")))?;
        let page: Page = serde_json::from_value(value)
            .map_err(|_| Problem::Unreachable("the list of caches makes no sense".to_owned()))?;
        let last = page.actions_caches.len() < PAGE;
        let ours = page.actions_caches.into_iter().filter(|entry| entry.version == service.version());
        // Of one name the later one replaces the earlier.
        blobs.extend(ours.filter(|entry| entry.key.starts_with(&prefix)).filter_map(|entry| {
            let name = key::name(&entry.key)?;
            let created = entry.created_at.parse::<Timestamp>().ok();
            let created = created.and_then(|time| u64::try_from(time.as_second()).ok());
            Some((name.clone(), Blob { name, size: entry.size_in_bytes, created }))
        }));
        if last {
            break;
        }
    }
    Ok(blobs.into_values().collect())
}

/// Removes the entries of a name, on whatever ref they were made.
pub(crate) async fn remove(
    client: &Client,
    service: &Service,
    access: &RestAccess,
    name: &BlobName,
) -> Result<(), Problem> {
    let query = format!("caches?key={}", encoded(&key::key(name)));
    // That there is none is as good.
    ask(client, service, access, &Method::DELETE, &query).await.map(|_| ())
}

/// The answer; none for 404.
async fn ask(
    client: &Client,
    service: &Service,
    access: &RestAccess,
    method: &Method,
    query: &str,
) -> Result<Option<Value>, Problem> {
    let mut patience = Patience::new(service.settings());
    let url = format!("{}/repos/{}/actions/{query}", access.url, access.repository);
    loop {
        if *method == Method::DELETE {
            service.turn(Lane::Remove, patience.deadline()).await?;
        }
        let response = client
            .request(method.clone(), &url)
            .bearer_auth(access.token.reveal())
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28")
            .timeout(service.settings().answer_within)
            .send()
            .await;
        let (why, words) = match service.heard(response).await {
            Meaning::Answer(value) => return Ok(Some(value)),
            Meaning::NotFound => return Ok(None),
            Meaning::Again { why, said, .. } => (why, said),
            Meaning::Denied(words) => return Err(Problem::Denied(format!("{words}; {HELP}"))),
            // Not the token by which the cache is read and written.
            Meaning::Ended => {
                return Err(Problem::Denied(format!("GITHUB_TOKEN is not taken (401); {HELP}")));
            }
            Meaning::Full(words) => return Err(Problem::Full(words)),
            Meaning::Taken => return Err(Problem::Unreachable("it answers 409".to_owned())),
            Meaning::Refused(words) => return Err(Problem::Unreachable(words)),
        };
        if let (crate::patience::Passing::Busy(Some(asked)), true) = (why, *method == Method::DELETE) {
            service.pacer().pause(Lane::Remove, asked);
        }
        patience.again(why, words).await?;
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
