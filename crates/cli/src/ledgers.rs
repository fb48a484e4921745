//! Which ledger.

use data_encoding::HEXLOWER;
use phoenix_github::{Access, Artifacts, Settings};
use phoenix_work::{ArtifactLedger, Ledger, LedgerError, Opener};
use sha2::{Digest, Sha256};

use crate::error::CommandError;
use crate::handed;
use crate::setup::var;

/// The scheme of the ledger on the artifacts of the workflow run that this job is of.
pub(crate) const GITHUB: &str = "github-artifacts";

fn opener() -> Opener {
    Opener::default().also(GITHUB, "github-artifacts:RUN", github)
}

fn cannot_use(error: &LedgerError) -> CommandError {
    CommandError::because("cannot use the ledger", error)
}

/// Sees that a URL names a ledger, before anything is done that takes time.
pub(crate) fn check(url: &str) -> Result<(), CommandError> {
    opener().check(url).map_err(|error| cannot_use(&error))
}

/// Opens the ledger of a URL for the plan that this is the mark of. Needs a Tokio runtime.
pub(crate) async fn open(url: &str, plan: &PlanMark) -> Result<Box<dyn Ledger>, CommandError> {
    opener().open(&of_plan(url, plan)).await.map_err(|error| cannot_use(&error))
}

/// What tells a plan from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlanMark(String);

impl PlanMark {
    /// The mark of a plan that was shipped as these bytes under a name.
    pub(crate) fn of(reference: &str, bytes: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(reference).chain_update([0]).chain_update(bytes).finalize();
        Self(HEXLOWER.encode(&digest[..6]))
    }
}

/// Where the ledger of a plan is, at a URL that may serve many: records name units by their numbers, which mean
/// other things in another plan.
fn of_plan(url: &str, PlanMark(plan): &PlanMark) -> String {
    if url == "dir:" {
        // Whoever opens it says what is wrong.
        return url.to_owned();
    }
    if url.starts_with("dir:") {
        return format!("{}/{plan}", url.trim_end_matches('/'));
    }
    match url.split_once('?') {
        Some((place, query)) => format!("{place}-{plan}?{query}"),
        None => format!("{url}-{plan}"),
    }
}

/// The artifacts of the workflow run that this job is of.
fn github(run: &str) -> Result<Box<dyn Ledger>, String> {
    let (results_url, token) = (var("ACTIONS_RESULTS_URL"), handed::runtime_token());
    let access = Access::new(results_url.as_deref(), token.as_deref(), None);
    let access = access.map_err(|error| error.to_string())?;
    let artifacts = Artifacts::new(access, Settings::default()).map_err(|error| error.to_string())?;
    let ledger = ArtifactLedger::new(artifacts, &format!("{GITHUB}:{run}"), run);
    Ok(Box::new(ledger.map_err(|error| error.problem)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plan_has_a_ledger_of_its_own() {
        let mark = PlanMark::of("a", b"plan");
        for (other, bytes) in [("b", &b"plan"[..]), ("a", b"plan2"), ("ap", b"lan")] {
            assert_ne!(mark, PlanMark::of(other, bytes));
        }
        assert_eq!(mark, PlanMark::of("a", b"plan"));
        let PlanMark(text) = &mark;
        assert!(text.len() == 12 && text.chars().all(|char| char.is_ascii_alphanumeric()), "{text}");
        for (url, expected) in [
            ("dir:", "dir:"),
            ("dir:/srv/ledger", "dir:/srv/ledger/MARK"),
            ("dir:/srv/a?b/", "dir:/srv/a?b/MARK"),
            ("nats://user@host:4222/run", "nats://user@host:4222/run-MARK"),
            ("github-artifacts:7-1", "github-artifacts:7-1-MARK"),
        ] {
            assert_eq!(of_plan(url, &mark), expected.replace("MARK", text));
        }
    }
}
