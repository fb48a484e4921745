//! The job that a token is for, as the artifact service calls it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

#[derive(Deserialize)]
struct Claims {
    scp: String,
}

/// A workflow run and a job in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    pub(crate) run: String,
    pub(crate) job: String,
}

impl Job {
    /// What the token of a job says in its claim `scp`, in which one of several words is
    /// `Actions.Results:RUN:JOB`; none when it is not such a token. It is not verified: the service does that.
    pub(crate) fn of(token: &str) -> Option<Self> {
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
        let claims: Claims = serde_json::from_slice(&payload).ok()?;
        let (run, job) = claims
            .scp
            .split(' ')
            .find_map(|scope| scope.strip_prefix("Actions.Results:")?.split_once(':'))?;
        let filled = !run.is_empty() && !job.is_empty() && !job.contains(':');
        filled.then(|| Self { run: run.to_owned(), job: job.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(payload: &str) -> Option<Job> {
        Job::of(&format!("e30.{}.x", URL_SAFE_NO_PAD.encode(payload)))
    }

    #[test]
    fn a_token_says_its_run_and_job() {
        let job = of(r#"{"scp":"Actions.Example Actions.Results:r-1:j-2"}"#).unwrap();
        assert_eq!((job.run.as_str(), job.job.as_str()), ("r-1", "j-2"));
    }

    #[test]
    fn what_is_no_such_token_says_nothing() {
        for odd in ["{}", r#"{"scp":3}"#, r#"{"scp":""}"#, r#"{"scp":"Actions.Results:r"}"#] {
            assert_eq!(of(odd), None, "{odd}");
        }
        for odd in [r#"{"scp":"Actions.Results::j"}"#, r#"{"scp":"Actions.Results:r:j:k"}"#] {
            assert_eq!(of(odd), None, "{odd}");
        }
        assert_eq!([Job::of(""), Job::of("opaque"), Job::of("a.!.c")], [None, None, None]);
    }
}
