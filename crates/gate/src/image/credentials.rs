//! The logins in docker's `config.json`, and those that its credential helpers have.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use serde::Deserialize;

use super::helper::Helper;

/// What docker calls its own registry.
const DOCKER_HUB: &str = "docker.io";

/// A user at a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// With a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// With a token that gets tokens (OAuth 2's refresh token).
    Identity(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Login({user})"),
            Self::Identity(_) => f.write_str("Login(a token)"),
        }
    }
}

/// Logins by registry.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    logins: BTreeMap<String, Login>,
    /// Who has those of a registry, and who those of all others.
    helpers: BTreeMap<String, Helper>,
    store: Option<Helper>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    identitytoken: Option<String>,
}

impl Credentials {
    /// Reads docker's `config.json`, or podman's `auth.json`.
    ///
    /// # Errors
    ///
    /// Where it is no such file. The message holds nothing secret of it.
    pub fn parse(config: &str) -> Result<Self, String> {
        let config: Config = serde_json::from_str(config)
            .map_err(|error| format!("no docker config, line {}", error.line()))?;
        let mut this = Self::default();
        for (registry, auth) in config.auths {
            if let Some(login) = auth.login(&registry)? {
                this.logins.insert(host(&registry), login);
            }
        }
        for (registry, name) in config.cred_helpers {
            this.helpers.insert(host(&registry), Helper::named(&name)?);
        }
        let store = config.creds_store.filter(|name| !name.is_empty());
        this.store = store.map(|name| Helper::named(&name)).transpose()?;
        Ok(this)
    }

    /// With the logins of another file, where this one has none.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        for (registry, login) in other.logins {
            self.logins.entry(registry).or_insert(login);
        }
        for (registry, helper) in other.helpers {
            self.helpers.entry(registry).or_insert(helper);
        }
        self.store = self.store.or(other.store);
        self
    }

    /// The login at a registry, if there is one: the helper's, else the file's.
    ///
    /// # Errors
    ///
    /// Where a helper does not say.
    pub(super) async fn of(&self, registry: &str) -> Result<Option<Login>, String> {
        let helper = self.helpers.get(registry).or(self.store.as_ref());
        if let Some(helper) = helper {
            let server = if registry == DOCKER_HUB { "https://index.docker.io/v1/" } else { registry };
            if let Some(login) = helper.ask(server).await? {
                return Ok(Some(login));
            }
        }
        Ok(self.logins.get(registry).cloned())
    }
}

impl Auth {
    /// None where a helper has it.
    fn login(self, registry: &str) -> Result<Option<Login>, String> {
        if let Some(token) = self.identitytoken.filter(|token| !token.is_empty()) {
            return Ok(Some(Login::Identity(token)));
        }
        let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let login = base64::engine::general_purpose::STANDARD.decode(auth).ok();
        let login = login.and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = login
            .as_deref()
            .and_then(|login| login.split_once(':'))
            .ok_or_else(|| format!("the login of {registry} is not base64 of user:password"))?;
        Ok(Some(Login::Password { user: user.to_owned(), password: password.to_owned() }))
    }
}

/// Entries are hosts or old URLs; Docker Hub's is one.
fn host(registry: &str) -> String {
    let host = registry.split_once("://").map_or(registry, |(_, rest)| rest);
    match host.split('/').next().unwrap_or_default() {
        "index.docker.io" => DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_of_a_registry_comes_before_that_of_all() {
        let config = r#"{"auths":{"ghcr.io":{},"https://index.docker.io/v1/":{"identitytoken":"t0"}},
            "credHelpers":{"ghcr.io":"gh"},"credsStore":"pass"}"#;
        let credentials = Credentials::parse(config).unwrap();
        assert_eq!(credentials.helpers.keys().collect::<Vec<_>>(), ["ghcr.io"]);
        assert!(credentials.store.is_some());
        assert_eq!(credentials.logins["docker.io"], Login::Identity("t0".to_owned()));
        assert!(!format!("{credentials:?}").contains("t0"));
    }

    #[test]
    fn a_second_file_has_what_the_first_lacks() {
        let of = |host: &str, token: &str| {
            Credentials::parse(&format!(r#"{{"auths":{{"{host}":{{"identitytoken":"{token}"}}}}}}"#)).unwrap()
        };
        let both = of("a", "1").or(of("a", "2")).or(of("b", "3"));
        assert_eq!(both.logins["a"], Login::Identity("1".to_owned()));
        assert_eq!(both.logins["b"], Login::Identity("3".to_owned()));
    }

    #[test]
    fn a_helper_is_a_name_and_no_path() {
        for name in ["../evil", "a b", "/bin/sh", "-x", "x\n"] {
            let config = serde_json::json!({ "credsStore": name }).to_string();
            assert!(Credentials::parse(&config).unwrap_err().contains("credential helper"), "{name}");
        }
        assert!(Credentials::parse(r#"{"credsStore":""}"#).unwrap().store.is_none());
    }
}
