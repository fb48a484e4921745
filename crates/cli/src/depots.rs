//! From a URL to the depot it names.

use std::sync::Arc;

use phoenix_depot::{Depot, Opener, default_url_of_environment};
use phoenix_github::{Access, RestAccess, Settings};

use crate::error::CommandError;
use crate::setup::var;

/// Opens the depot of a URL, or the one in the user's cache where none is named.
pub(crate) fn open(url: Option<&str>) -> Result<Arc<dyn Depot>, CommandError> {
    let url = url.map(str::to_owned).or_else(default_url_of_environment).ok_or_else(|| {
        CommandError::new("there is no place for a depot: neither HOME nor XDG_CACHE_HOME is set")
            .hint("name one: --depot dir:PATH")
    })?;
    let opener = Opener::of_environment().also("github", "github:", |url| match url {
        "github:" => github(),
        _ => Err("the cache is that of the repository the job runs in: write `github:`".to_owned()),
    });
    let depot = opener.open(&url).map_err(|error| CommandError::because("cannot use the depot", &error))?;
    Ok(Arc::from(depot))
}

/// The cache of the repository that this job runs in.
fn github() -> Result<Box<dyn Depot>, String> {
    let [results_url, token, mode] =
        ["ACTIONS_RESULTS_URL", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_CACHE_MODE"].map(var);
    let [rest_token, repository, api] = ["GITHUB_TOKEN", "GITHUB_REPOSITORY", "GITHUB_API_URL"].map(var);
    let rest = RestAccess::new(rest_token.as_deref(), repository.as_deref(), api.as_deref());
    let access = Access::new(results_url.as_deref(), token.as_deref(), mode.as_deref())
        .map_err(|error| error.to_string())?
        .with_rest(rest);
    // All processes of a job share what the service allows.
    let budget_file = var("RUNNER_TEMP").map(|temp| std::path::Path::new(&temp).join("phoenix-ci-budget"));
    let settings = Settings { budget_file, ..Settings::default() };
    let cache = phoenix_github::Cache::new(access, settings).map_err(|error| error.to_string())?;
    Ok(Box::new(cache))
}
