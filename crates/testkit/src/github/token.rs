//! The tokens of jobs: JSON Web Tokens that nobody signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::artifacts::JobId;

/// What a job may do in a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Read and not write: permission 1.
    Read,
    /// Write and not read: permission 2.
    Write,
    /// Both: permission 3.
    Both,
}

impl Permission {
    fn number(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Both => 3,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Access {
    #[serde(rename = "Scope")]
    scope: String,
    #[serde(rename = "Permission")]
    permission: u8,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    /// The scopes that may be read, in the order in which they are looked through.
    pub(super) readable: Vec<String>,
    /// The scope that is written to, if any.
    pub(super) writable: Option<String>,
    /// When the token ends, in seconds since 1970.
    pub(super) ends: u64,
    /// The job that it is for, where it says so.
    pub(super) job: Option<JobId>,
}

/// The job of the run that all tokens are for, by its number.
pub(super) fn job_id(number: u32) -> JobId {
    JobId {
        run: "11111111-1111-1111-1111-111111111111".to_owned(),
        job: format!("22222222-2222-2222-2222-{number:012}"),
    }
}

/// A token with the claims that clients of the cache and of artifacts read.
pub(super) fn token(scopes: &[(&str, Permission)], ends: u64, of: &JobId) -> String {
    let access: Vec<_> = scopes
        .iter()
        .map(|(scope, permission)| Access { scope: (*scope).to_owned(), permission: permission.number() })
        .collect();
    let claims = json!({
        "ac": serde_json::to_string(&access).unwrap_or_default(),
        "exp": ends,
        "repository_id": "1",
        "scp": format!("Actions.ExampleScope Actions.Results:{}:{}", of.run, of.job),
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.unsigned", part(&json!({ "alg": "none", "typ": "JWT" })), part(&claims))
}

/// What a token says; none for what is no token.
pub(super) fn claims(token: &str) -> Option<Claims> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let access: Vec<Access> = serde_json::from_str(claims["ac"].as_str()?).ok()?;
    let job = claims["scp"].as_str().unwrap_or_default().split(' ').find_map(|scope| {
        let (run, job) = scope.strip_prefix("Actions.Results:")?.split_once(':')?;
        Some(JobId { run: run.to_owned(), job: job.to_owned() })
    });
    let with = |bit| access.iter().filter(move |access| access.permission & bit != 0);
    Some(Claims {
        readable: with(1).map(|access| access.scope.clone()).collect(),
        writable: with(2).next().map(|access| access.scope.clone()),
        ends: claims["exp"].as_u64()?,
        job,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_was_put_in() {
        let token = token(
            &[("refs/pull/7/merge", Permission::Both), ("refs/heads/main", Permission::Read)],
            9,
            &job_id(7),
        );
        let claims = claims(&token).unwrap();
        assert_eq!(claims.readable, ["refs/pull/7/merge", "refs/heads/main"]);
        assert_eq!(claims.writable.as_deref(), Some("refs/pull/7/merge"));
        assert_eq!(claims.ends, 9);
        assert_eq!(claims.job, Some(job_id(7)));
    }

    #[test]
    fn read_only_and_write_only_tokens_are_told_apart() {
        let read = claims(&token(&[("a", Permission::Read)], 9, &job_id(0))).unwrap();
        assert_eq!((read.readable.len(), read.writable), (1, None));
        let write = claims(&token(&[("a", Permission::Write)], 9, &job_id(0))).unwrap();
        assert_eq!((write.readable.len(), write.writable.as_deref()), (0, Some("a")));
    }

    #[test]
    fn what_is_no_token_says_nothing() {
        for text in ["", "a", "a.b.c", "a.e30.c", "a.!!.c"] {
            assert_eq!(claims(text), None, "{text}");
        }
    }
}
