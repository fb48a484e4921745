//! From URLs and variables of the environment to object stores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, Error, ObjectStore, RetryConfig};
use reqwest::Url;

use crate::object::ObjectDepot;
use crate::object::problem::Secrets;
use crate::object::requests::Requests;
use crate::redacted::redacted;

/// How long one request may take, with all its bytes: a part of 8 MiB at 0.5 Mbit/s.
const LONGEST_REQUEST: Duration = Duration::from_secs(150);

/// How long a connection may take to come about.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);

/// What stands in the name of a variable that holds a secret.
const SECRET_WORDS: [&str; 5] = ["KEY", "SECRET", "TOKEN", "SAS", "CREDENTIALS"];

/// What an object store is opened with, beside its URL.
pub(crate) struct Settings<'a> {
    /// The variables of the environment.
    pub(crate) variables: &'a BTreeMap<String, String>,
    /// How long requests are tried again.
    pub(crate) patience: Duration,
    /// How long nothing may come of what is read.
    pub(crate) stall: Duration,
}

impl Settings<'_> {
    /// The variables that begin with this, as keys of a store's builder, with their values.
    fn keys<K: std::str::FromStr>(&self, prefix: &str) -> Vec<(K, String)> {
        let ours = self.variables.iter().filter(|(name, _)| name.starts_with(prefix));
        ours.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.clone())))
            .collect()
    }

    fn secrets(&self) -> Secrets {
        let clouds = ["AWS_", "GOOGLE_", "AZURE_"];
        let secret = |name: &str| {
            clouds.iter().any(|cloud| name.starts_with(cloud))
                && SECRET_WORDS.iter().any(|word| name.contains(word))
        };
        let values = self.variables.iter().filter(|(name, _)| secret(name));
        Secrets::new(values.map(|(_, value)| value.as_str()))
    }

    fn retry(&self) -> RetryConfig {
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(100).min(self.patience),
            max_backoff: Duration::from_secs(10).min(self.patience),
            base: 2.,
        };
        RetryConfig { backoff, max_retries: 10, retry_timeout: self.patience }
    }

    fn requests(&self, conditional: bool) -> Requests {
        Requests { stall: self.stall, conditional }
    }
}

/// A depot in the object store that a URL names.
///
/// # Errors
///
/// What is wrong with the URL or the settings, in words.
pub(crate) fn connect(url: &str, settings: &Settings<'_>) -> Result<ObjectDepot, String> {
    // A second call changes nothing and says so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let secrets = settings.secrets();
    let mut parsed = Url::parse(url).map_err(|error| error.to_string())?;
    if parsed.host_str().unwrap_or_default().is_empty() {
        return Err("it names no bucket; write SCHEME://BUCKET or SCHEME://BUCKET/PREFIX".to_owned());
    }
    // A name before the host is the container in some URLs of Azure. All else with an `@` in it may be a secret,
    // wherever it stands, so that no message may quote it.
    let container = parsed.scheme().starts_with("abfs") && !parsed.username().is_empty();
    if url.contains('@') && !(container && parsed.password().is_none() && url.matches('@').count() == 1) {
        return Err("credentials do not belong into it; set them in the environment".to_owned());
    }
    let parameters = parameters(&parsed)?;
    let root = Path::from_url_path(parsed.path()).map_err(|error| error.to_string())?;
    parsed.set_query(None);
    parsed.set_fragment(None);
    let (store, conditional) = match parsed.scheme() {
        "s3" | "s3a" => s3(&parsed, &parameters, settings),
        "gs" => google(&parsed, &parameters, settings),
        _ => azure(&parsed, &parameters, settings),
    }
    .map_err(|error| secrets.scrub(&error))?;
    Ok(ObjectDepot { store, root, location: redacted(url), secrets, conditional })
}

type Store = (Arc<dyn ObjectStore>, bool);

/// The parameters of a URL, each at most once.
fn parameters(url: &Url) -> Result<BTreeMap<String, String>, String> {
    let mut parameters = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        if parameters.insert(name.to_string(), value.into_owned()).is_some() {
            return Err(format!("its parameter {name} stands there twice"));
        }
    }
    Ok(parameters)
}

/// Says which parameters there are if there are others.
fn only(parameters: &BTreeMap<String, String>, known: &[&str]) -> Result<(), String> {
    let Some(strange) = parameters.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let known = if known.is_empty() { "none".to_owned() } else { known.join(" and ") };
    Err(format!(
        "its parameter {strange} is not known; {known} is, and credentials come from the environment"
    ))
}

fn client() -> ClientOptions {
    ClientOptions::new().with_timeout(LONGEST_REQUEST).with_connect_timeout(LONGEST_CONNECT)
}

fn s3(url: &Url, parameters: &BTreeMap<String, String>, settings: &Settings<'_>) -> Result<Store, String> {
    only(parameters, &["region", "endpoint"])?;
    let builder = AmazonS3Builder::new().with_client_options(client()).with_retry(settings.retry());
    let mut builder = settings
        .keys::<AmazonS3ConfigKey>("AWS_")
        .into_iter()
        .fold(builder, |builder, (key, value)| builder.with_config(key, value))
        .with_url(url.as_str());
    if let Some(region) = parameters.get("region") {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = parameters.get("endpoint") {
        let endpoint =
            if endpoint.contains("://") { endpoint.clone() } else { format!("https://{endpoint}") };
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    let value = |key| builder.get_config_value(&key);
    let endpoint = value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint));
    // Whoever writes that there is no TLS means it; no secret is sent, for requests are signed.
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    let value = |key| builder.get_config_value(&key);
    let conditional = value(AmazonS3ConfigKey::ConditionalPut).is_none_or(|value| value.trim() != "disabled");
    builder = builder.with_http_connector(settings.requests(conditional));
    let hint = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION";
    Ok((Arc::new(builder.build().map_err(|error| wrong(&error, hint))?), conditional))
}

fn google(
    url: &Url,
    parameters: &BTreeMap<String, String>,
    settings: &Settings<'_>,
) -> Result<Store, String> {
    only(parameters, &[])?;
    let builder = GoogleCloudStorageBuilder::new().with_client_options(client()).with_retry(settings.retry());
    let builder = settings
        .keys::<GoogleConfigKey>("GOOGLE_")
        .into_iter()
        .fold(builder, |builder, (key, value)| builder.with_config(key, value))
        .with_url(url.as_str())
        .with_http_connector(settings.requests(false));
    let hint = "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS (paths of files)";
    Ok((Arc::new(builder.build().map_err(|error| wrong(&error, hint))?), true))
}

fn azure(url: &Url, parameters: &BTreeMap<String, String>, settings: &Settings<'_>) -> Result<Store, String> {
    only(parameters, &[])?;
    let mut builder = MicrosoftAzureBuilder::new().with_client_options(client()).with_retry(settings.retry());
    builder = settings
        .keys::<AzureConfigKey>("AZURE_")
        .into_iter()
        .fold(builder, |builder, (key, value)| builder.with_config(key, value))
        .with_url(url.as_str())
        .with_http_connector(settings.requests(true));
    // As with S3: whoever writes that there is no TLS means it.
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    let hint = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN";
    Ok((Arc::new(builder.build().map_err(|error| wrong(&error, hint))?), true))
}

fn wrong(error: &Error, hint: &str) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    format!("{cause}; who we are comes from the environment: {hint}")
}
