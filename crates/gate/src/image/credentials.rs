//! The logins in docker's `config.json`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use serde::Deserialize;

/// A user at a registry.
#[derive(Clone)]
pub struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.user)
    }
}

/// Logins by registry.
#[derive(Debug, Clone, Default)]
pub struct Credentials(BTreeMap<String, Login>);

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
}

impl Credentials {
    /// Reads docker's `config.json`. Entries without a password are those of credential helpers, and left out.
    ///
    /// # Errors
    ///
    /// Where it is no such file. The message holds nothing of it.
    pub fn parse(config: &str) -> Result<Self, String> {
        let config: Config = serde_json::from_str(config)
            .map_err(|error| format!("no docker config, line {}", error.line()))?;
        let mut logins = BTreeMap::new();
        for (registry, auth) in config.auths {
            let Some(auth) = auth.auth.filter(|auth| !auth.is_empty()) else { continue };
            let login = base64::engine::general_purpose::STANDARD.decode(auth).ok();
            let login = login.and_then(|bytes| String::from_utf8(bytes).ok());
            let (user, password) = login
                .as_deref()
                .and_then(|login| login.split_once(':'))
                .ok_or_else(|| format!("the login of {registry} is not base64 of user:password"))?;
            logins.insert(host(&registry), Login { user: user.to_owned(), password: password.to_owned() });
        }
        Ok(Self(logins))
    }

    pub(super) fn of(&self, registry: &str) -> Option<&Login> {
        self.0.get(registry)
    }
}

/// Entries are hosts or old URLs; Docker Hub's is one.
fn host(registry: &str) -> String {
    let host = registry.split_once("://").map_or(registry, |(_, rest)| rest);
    match host.split('/').next().unwrap_or_default() {
        "index.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}
