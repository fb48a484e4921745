//! Where a substituter is: a URL of nix.conf, understood.

use crate::Credentials;

/// A substituter's URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The URL as Nix gets it.
    url: String,
    /// How it is reached.
    pub(crate) place: Place,
    /// `?priority=`: lower is asked first.
    pub(crate) priority: Option<u64>,
    /// `?trusted=true`: signatures do not matter.
    pub(crate) trusted: bool,
}

/// How a substituter is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Over HTTP; the base without query and credentials, and the credentials.
    Http { base: String, host: String, credentials: Option<Credentials> },
    /// A binary cache in a directory.
    Directory(String),
    /// Through Nix itself: another store.
    Other,
}

impl Location {
    /// Understands a URL of the setting `substituters`.
    #[must_use]
    pub fn parse(url: &str) -> Self {
        let (main, query) = url.split_once('?').unwrap_or((url, ""));
        let parameter = |wanted: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        let place = if let Some((scheme, rest)) =
            main.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (user, host) = match authority.rsplit_once('@') {
                Some((user, host)) => (Some(user), host),
                None => (None, authority),
            };
            let credentials = user.map(|user| {
                let (login, password) = user.split_once(':').unwrap_or((user, ""));
                Credentials { login: login.to_owned(), password: password.to_owned() }
            });
            let base = format!("{scheme}://{host}/{path}");
            Place::Http {
                base: base.trim_end_matches('/').to_owned(),
                host: host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned(),
                credentials,
            }
        } else if let Some(path) = main.strip_prefix("file://") {
            Place::Directory(path.to_owned())
        } else {
            Place::Other
        };
        Self {
            url: url.to_owned(),
            place,
            priority: parameter("priority").and_then(|value| value.parse().ok()),
            trusted: parameter("trusted").is_some_and(|value| matches!(value, "1" | "true" | "yes")),
        }
    }

    /// The URL as nix.conf has it. It may hold credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL as people may see it: without credentials and without parameters, which may hold keys.
    #[must_use]
    pub fn shown(&self) -> String {
        let main = self.url.split('?').next().unwrap_or_default();
        match main.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, b)| (a, Some(b)));
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                let path = path.map(|path| format!("/{path}")).unwrap_or_default();
                format!("{scheme}://{host}{path}").trim_end_matches('/').to_owned()
            }
            None => main.to_owned(),
        }
    }

    /// Whether requests may share connections by the hundred: HTTP/2 needs TLS to be agreed on.
    pub(crate) fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url() {
        let location = Location::parse("https://me:secret@cache.example:8443/x/?priority=10&trusted=1");
        assert_eq!((location.priority, location.trusted), (Some(10), true));
        let Place::Http { base, host, credentials } = &location.place else { panic!() };
        assert_eq!((base.as_str(), host.as_str()), ("https://cache.example:8443/x", "cache.example"));
        assert_eq!(credentials.as_ref().unwrap().login, "me");
        assert_eq!(location.shown(), "https://cache.example:8443/x");
        assert!(!format!("{:?}", location.place).contains("secret"));
    }

    #[test]
    fn kinds_of_places() {
        assert!(matches!(Location::parse("https://cache.nixos.org/").place, Place::Http { .. }));
        assert_eq!(Location::parse("file:///x/y?a=b").place, Place::Directory("/x/y".into()));
        for url in ["daemon", "ssh-ng://host", "s3://bucket?secret=x", "/tmp/store", "local?root=/x"] {
            assert_eq!(Location::parse(url).place, Place::Other, "{url}");
        }
        assert_eq!(Location::parse("s3://bucket?secret=x").shown(), "s3://bucket");
        assert_eq!(Location::parse("ssh://user@host").shown(), "ssh://host");
        assert_eq!(Location::parse("daemon").shown(), "daemon");
    }
}
