//! The artifacts of workflow runs: reserved, finalized, listed, removed.
//!
//! What is known of the real service is in its clients and its documentation; where neither says, this is
//! stricter than the service may be: a reservation is taken and not listed, a name is free again once its
//! artifact was removed, and what was removed still counts towards a job's limit.

use std::collections::BTreeMap;

use super::entries::Failure;

/// The most artifacts of one job, as GitHub's staff said in the issues of `actions/upload-artifact`.
const MOST_OF_A_JOB: u64 = 500;

/// What no name may hold (`actions/toolkit`, `path-and-artifact-name-validation.ts`).
const FORBIDDEN: &[char] = &['"', ':', '<', '>', '|', '*', '?', '\r', '\n', '\\', '/'];

/// The job of a token, as the service calls it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId {
    /// The workflow run: artifacts are shared within it.
    pub run: String,
    /// The job in it.
    pub job: String,
}

/// An artifact of a workflow run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its number, which grows.
    pub id: i64,
    /// The job that made it.
    pub of: JobId,
    /// Its name.
    pub name: String,
    /// What kind of content its maker said it has; empty if nothing was said.
    pub mime_type: String,
    /// How many bytes it has.
    pub size: u64,
    /// What its maker said its hash is, such as `sha256:…`; empty if nothing was said.
    pub digest: String,
    /// When it was reserved, in milliseconds since 1970.
    pub created: u64,
    /// When it is removed by itself, as its maker said it; empty if nothing was said.
    pub expires: String,
    /// Whether its bytes are complete; otherwise it is only reserved.
    pub finalized: bool,
}

impl Artifact {
    /// The path of its blob, as the real service has it, below an account of Azure.
    pub(super) fn path(&self) -> String {
        let JobId { run, job } = &self.of;
        format!("/productionresultssa0/actions-results/workflow-run-{run}/workflow-job-run-{job}/{}", self.id)
    }
}

/// All artifacts, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Artifacts {
    all: Vec<Artifact>,
    made: i64,
    of_jobs: BTreeMap<JobId, u64>,
}

impl Artifacts {
    pub(super) fn all(&self) -> &[Artifact] {
        &self.all
    }

    /// Reserves a name in a run.
    pub(super) fn create(
        &mut self,
        of: &JobId,
        name: &str,
        (mime_type, expires): (&str, &str),
        now: u64,
    ) -> Result<Artifact, Failure> {
        if name.is_empty() || name.contains(FORBIDDEN) {
            return Err(Failure::new("invalid_argument", "the artifact name is not valid"));
        }
        if self.find(&of.run, name).is_some() {
            let message = "an artifact with this name already exists on the workflow run";
            return Err(Failure::new("already_exists", message));
        }
        let count = self.of_jobs.entry(of.clone()).or_default();
        if *count >= MOST_OF_A_JOB {
            return Err(Failure::new("failed_precondition", "the job has too many artifacts"));
        }
        *count += 1;
        self.made += 1;
        let artifact = Artifact {
            id: self.made,
            of: of.clone(),
            name: name.to_owned(),
            mime_type: mime_type.to_owned(),
            size: 0,
            digest: String::new(),
            created: now,
            expires: expires.to_owned(),
            finalized: false,
        };
        self.all.push(artifact.clone());
        Ok(artifact)
    }

    /// Makes a reserved artifact of the same job whole; doing so again changes nothing. `held` is how many bytes
    /// its blob has.
    pub(super) fn finalize(
        &mut self,
        of: &JobId,
        name: &str,
        (size, digest): (i64, &str),
        held: impl FnOnce(&Artifact) -> Option<u64>,
    ) -> Result<i64, Failure> {
        let found = self.all.iter_mut().find(|artifact| artifact.of == *of && artifact.name == name);
        let Some(artifact) = found else {
            return Err(Failure::new("not_found", "artifact not found"));
        };
        if artifact.finalized {
            return Ok(artifact.id);
        }
        let Some(held) = held(artifact) else {
            return Err(Failure::new("not_found", "the blob of the artifact was not found"));
        };
        if u64::try_from(size) != Ok(held) {
            let message = format!("size is {size} and the blob has {held} bytes");
            return Err(Failure::new("invalid_argument", message));
        }
        artifact.size = held;
        digest.clone_into(&mut artifact.digest);
        artifact.finalized = true;
        Ok(artifact.id)
    }

    /// The artifacts of a run that can be seen, the newest first: no order is promised, so that nobody should
    /// count on one.
    pub(super) fn list(&self, run: &str, name: Option<&str>, id: Option<i64>) -> Vec<&Artifact> {
        self.all
            .iter()
            .rev()
            .filter(|artifact| artifact.finalized && artifact.of.run == run)
            .filter(|artifact| name.is_none_or(|name| artifact.name == name))
            .filter(|artifact| id.is_none_or(|id| artifact.id == id))
            .collect()
    }

    /// The artifact of a job with a name, if it can be seen.
    pub(super) fn seen(&self, of: &JobId, name: &str) -> Option<&Artifact> {
        self.all.iter().find(|artifact| artifact.finalized && artifact.of == *of && artifact.name == name)
    }

    pub(super) fn remove(&mut self, id: i64) {
        self.all.retain(|artifact| artifact.id != id);
    }

    fn find(&self, run: &str, name: &str) -> Option<&Artifact> {
        self.all.iter().find(|artifact| artifact.of.run == run && artifact.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(run: &str, job: &str) -> JobId {
        JobId { run: run.into(), job: job.into() }
    }

    fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> &'static str {
        result.unwrap_err().code
    }

    #[test]
    fn a_name_is_taken_in_its_run_from_reservation_to_removal() {
        let mut artifacts = Artifacts::default();
        let (one, two) = (job("r", "1"), job("r", "2"));
        let made = artifacts.create(&one, "a", ("", ""), 0).unwrap();
        assert_eq!(code(artifacts.create(&two, "a", ("", ""), 0)), "already_exists");
        assert!(artifacts.create(&job("other", "1"), "a", ("", ""), 0).is_ok());
        assert!(artifacts.list("r", None, None).is_empty(), "what is only reserved is not seen");
        assert_eq!(code(artifacts.finalize(&one, "a", (3, ""), |_| None)), "not_found");
        assert_eq!(code(artifacts.finalize(&one, "a", (4, ""), |_| Some(3))), "invalid_argument");
        assert_eq!(code(artifacts.finalize(&two, "a", (3, ""), |_| Some(3))), "not_found");
        assert_eq!(artifacts.finalize(&one, "a", (3, "sha256:x"), |_| Some(3)), Ok(made.id));
        assert_eq!(artifacts.finalize(&one, "a", (4, "sha256:y"), |_| Some(4)), Ok(made.id));
        assert_eq!(artifacts.all()[0].digest, "sha256:x", "what is whole does not change");
        let seen = |name, id| artifacts.list("r", name, id).len();
        assert_eq!([seen(None, None), seen(Some("a"), None), seen(Some("b"), None)], [1, 1, 0]);
        assert_eq!([seen(None, Some(made.id)), seen(None, Some(99))], [1, 0]);
        assert!(artifacts.seen(&one, "a").is_some() && artifacts.seen(&two, "a").is_none());
        artifacts.remove(made.id);
        assert!(artifacts.create(&two, "a", ("", ""), 0).is_ok());
    }

    #[test]
    fn names_and_numbers_have_bounds() {
        let mut artifacts = Artifacts::default();
        for name in ["", "a/b", "a:b", "a\\b", "a\nb", "a*"] {
            assert_eq!(code(artifacts.create(&job("r", "1"), name, ("", ""), 0)), "invalid_argument");
        }
        for number in 0..MOST_OF_A_JOB {
            artifacts.create(&job("r", "1"), &format!("{number}"), ("", ""), 0).unwrap();
        }
        assert_eq!(code(artifacts.create(&job("r", "1"), "x", ("", ""), 0)), "failed_precondition");
        assert!(artifacts.create(&job("r", "2"), "x", ("", ""), 0).is_ok());
    }
}
