//! Programs that keep logins: docker's credential helpers.
//!
//! `docker-credential-NAME get` reads the registry on its standard input and prints JSON, or says why not and ends with
//! another code (docker/docker-credential-helpers, `credentials/credentials.go`). What it prints is shown to nobody.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use super::credentials::Login;
use crate::child;

/// How long one may take; some ask a server.
const PATIENCE: Duration = Duration::from_secs(30);

/// What helpers print that know of no login at a registry (`credentials/error.go`).
const NONE: &str = "credentials not found in native keychain";

/// The user of a secret that is an identity token.
const TOKEN_USER: &str = "<token>";

/// A credential helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Helper {
    program: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Got {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl Helper {
    /// The helper that a configuration names.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let is_name = name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.chars().all(|char| char.is_ascii_alphanumeric() || "._-".contains(char));
        if is_name {
            Ok(Self { program: format!("docker-credential-{name}") })
        } else {
            Err(format!("{name:?} names no credential helper: it is what follows `docker-credential-`"))
        }
    }

    /// The login it has at a registry, if it has one.
    pub(super) async fn ask(&self, server: &str) -> Result<Option<Login>, String> {
        let program = &self.program;
        let mut command = Command::new(program);
        command.arg("get").stdout(Stdio::piped()).stderr(Stdio::piped());
        let asked = tokio::time::timeout(PATIENCE, child::run_on(command, server.as_bytes())).await;
        let done = asked
            .map_err(|_| format!("{program} was ended after {} s: it took too long", PATIENCE.as_secs()))?
            .map_err(|error| {
                let advice = "docker's configuration names it; install it, or log in without it";
                format!("cannot start {program}: {error}; {advice}")
            })?;
        if !done.status.success() {
            if done.stdout.trim() == NONE {
                return Ok(None);
            }
            let by_hand = format!("`echo {server} | {program} get` says why");
            return Err(format!("{program} does not say what the login at {server} is: {by_hand}"));
        }
        let got: Got = serde_json::from_str(&done.stdout)
            .map_err(|_| format!("{program} answers for {server} what is no login"))?;
        Ok(match (got.username.as_str(), got.secret.is_empty()) {
            ("", true) => None,
            (TOKEN_USER, _) => Some(Login::Identity(got.secret)),
            _ => Some(Login::Password { user: got.username, password: got.secret }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a helper with this script says of `reg.example:5000`.
    async fn asked(script: &str) -> Result<Option<Login>, String> {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("docker-credential-x");
        fs_err::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(&program, mode).unwrap();
        let helper = Helper { program: program.display().to_string() };
        helper.ask("reg.example:5000").await
    }

    #[tokio::test]
    async fn a_helper_is_told_the_registry_and_says_the_login() {
        let script = r#"read server || [ -n "$server" ]
            [ "$*" = get ] || exit 9
            echo "{\"ServerURL\":\"$server\",\"Username\":\"me at $server\",\"Secret\":\"s\"}""#;
        let user = "me at reg.example:5000".to_owned();
        assert_eq!(asked(script).await.unwrap(), Some(Login::Password { user, password: "s".to_owned() }));
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(asked(token).await.unwrap(), Some(Login::Identity("t".to_owned())));
    }

    #[tokio::test]
    async fn a_helper_that_has_none_says_so() {
        assert_eq!(asked("echo credentials not found in native keychain; exit 1").await, Ok(None));
        assert_eq!(asked(r#"echo '{"ServerURL":"x"}'"#).await, Ok(None));
    }

    #[tokio::test]
    async fn what_a_broken_helper_prints_is_not_shown() {
        for script in ["echo hunter2; exit 1", "echo hunter2 >&2; exit 1", "echo hunter2", "kill -9 $$"] {
            let error = asked(script).await.unwrap_err();
            assert!(error.contains("docker-credential-x") && !error.contains("hunter2"), "{error}");
        }
    }
}
