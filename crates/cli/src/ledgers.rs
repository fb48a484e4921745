//! Which ledger.

use phoenix_github::{Access, Artifacts, Settings};
use phoenix_work::{ArtifactLedger, Ledger, Opener};

use crate::error::CommandError;
use crate::setup::var;

/// The scheme of the ledger on the artifacts of the workflow run that this job is of.
pub(crate) const GITHUB: &str = "github-artifacts";

/// Opens the ledger of a URL. Needs a Tokio runtime.
pub(crate) async fn open(url: &str) -> Result<Box<dyn Ledger>, CommandError> {
    let opener = Opener::default().also(GITHUB, "github-artifacts:RUN", github);
    opener.open(url).await.map_err(|error| CommandError::because("cannot use the ledger", &error))
}

/// The artifacts of the workflow run that this job is of.
fn github(run: &str) -> Result<Box<dyn Ledger>, String> {
    let [results_url, token] = ["ACTIONS_RESULTS_URL", "ACTIONS_RUNTIME_TOKEN"].map(var);
    let access = Access::new(results_url.as_deref(), token.as_deref(), None);
    let access = access.map_err(|error| error.to_string())?;
    let artifacts = Artifacts::new(access, Settings::default()).map_err(|error| error.to_string())?;
    let ledger = ArtifactLedger::new(artifacts, &format!("{GITHUB}:{run}"), run);
    Ok(Box::new(ledger.map_err(|error| error.problem)?))
}
