//! What set a workflow off.

use serde::Deserialize;

/// What set a workflow off, by the variables and the payload that every job has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trigger {
    /// `GITHUB_REF_NAME`: a branch or a tag; for a pull request `NUMBER/merge`.
    pub ref_name: String,
    /// The repository's default branch, if the payload says so. That of a schedule does not, which is for no other branch.
    pub default_branch: Option<String>,
    /// Whether the code is from another repository than the workflow.
    pub is_fork: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    repository: Repository,
    pull_request: Option<PullRequest>,
    workflow_run: Option<WorkflowRun>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Repository {
    full_name: Option<String>,
    default_branch: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PullRequest {
    head: Head,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    /// None when the repository is deleted.
    repo: Option<Repository>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WorkflowRun {
    head_repository: Option<Repository>,
}

impl Trigger {
    /// Reads it from the variables of a job, and the file that `GITHUB_EVENT_PATH` names; none where there is no
    /// `GITHUB_ACTIONS`.
    ///
    /// # Errors
    /// When the payload is not there or cannot be read: who it comes from is unknown then.
    pub fn read(
        var: impl Fn(&str) -> Option<String>,
        file: impl Fn(&str) -> std::io::Result<String>,
    ) -> Result<Option<Self>, String> {
        if var("GITHUB_ACTIONS").is_none() {
            return Ok(None);
        }
        let path = var("GITHUB_EVENT_PATH").ok_or("GITHUB_EVENT_PATH is not set")?;
        let text = file(&path).map_err(|error| format!("{path} cannot be read: {error}"))?;
        let payload: Payload =
            serde_json::from_str(&text).map_err(|error| format!("{path} is no event: {error}"))?;
        let ref_name = var("GITHUB_REF_NAME").unwrap_or_default();
        let mut trigger = payload.trigger(ref_name, var("GITHUB_REPOSITORY"));
        if trigger.default_branch.is_none() && var("GITHUB_EVENT_NAME").as_deref() == Some("schedule") {
            trigger.default_branch = Some(trigger.ref_name.clone());
        }
        Ok(Some(trigger))
    }
}

impl Payload {
    fn trigger(self, ref_name: String, repository: Option<String>) -> Trigger {
        let own = self.repository.full_name.or(repository);
        // What has no repository any more came from another one.
        let is_other = |repo: Option<Repository>| {
            let name = repo.and_then(|repo| repo.full_name);
            name.is_none() || name != own
        };
        let is_fork = self.pull_request.is_some_and(|pull| is_other(pull.head.repo))
            || self.workflow_run.is_some_and(|run| is_other(run.head_repository));
        Trigger { ref_name, default_branch: self.repository.default_branch, is_fork }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(payload: &str) -> Trigger {
        let var = |name: &str| match name {
            "GITHUB_ACTIONS" => Some("true".to_owned()),
            "GITHUB_REPOSITORY" => Some("o/r".to_owned()),
            "GITHUB_REF_NAME" => Some("main".to_owned()),
            "GITHUB_EVENT_PATH" => Some("/event".to_owned()),
            _ => None,
        };
        Trigger::read(var, |_| Ok(payload.to_owned())).unwrap().unwrap()
    }

    #[test]
    fn a_push_names_the_default_branch() {
        let trigger = of(r#"{"repository": {"full_name": "o/r", "default_branch": "main"}, "ref": "x"}"#);
        assert_eq!(
            trigger,
            Trigger { ref_name: "main".into(), default_branch: Some("main".into()), is_fork: false }
        );
        assert_eq!(of("{}").default_branch, None);
    }

    #[test]
    fn a_schedule_is_for_the_default_branch() {
        let var = |name: &str| match name {
            "GITHUB_EVENT_NAME" => Some("schedule".to_owned()),
            "GITHUB_REF_NAME" => Some("trunk".to_owned()),
            "GITHUB_ACTIONS" | "GITHUB_EVENT_PATH" => Some("x".to_owned()),
            _ => None,
        };
        let trigger = Trigger::read(var, |_| Ok(r#"{"schedule": "0 0 * * *"}"#.to_owned())).unwrap().unwrap();
        assert_eq!(trigger.default_branch.as_deref(), Some("trunk"));
    }

    #[test]
    fn a_fork_is_told_by_the_repository_of_its_code() {
        let pull = |head: &str| {
            of(&format!(
                r#"{{"repository": {{"full_name": "o/r"}}, "pull_request": {{"head": {{"repo": {head}}}}}}}"#
            ))
        };
        assert!(!pull(r#"{"full_name": "o/r"}"#).is_fork);
        assert!(pull(r#"{"full_name": "x/r"}"#).is_fork);
        assert!(pull("null").is_fork, "a repository that was deleted");
        let run = |name: &str| {
            of(&format!(r#"{{"workflow_run": {{"head_repository": {{"full_name": "{name}"}}}}}}"#))
        };
        assert!(!run("o/r").is_fork && run("x/r").is_fork);
    }

    #[test]
    fn elsewhere_there_is_none_and_without_a_payload_it_is_unknown() {
        let none = Trigger::read(|_| None, |_| unreachable!());
        assert_eq!(none, Ok(None));
        let here = |name: &str| (name == "GITHUB_ACTIONS").then(|| "true".to_owned());
        assert!(Trigger::read(here, |_| unreachable!()).unwrap_err().contains("GITHUB_EVENT_PATH"));
    }
}
