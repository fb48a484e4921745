//! Where a substituter is: a URL of nix.conf, understood.

use std::fmt;

use reqwest::Url;

use crate::Credentials;

/// Parameters of a store URL that say which store it is, and hold no secret.
const SHOWN_PARAMETERS: [&str; 4] = ["root", "store", "region", "profile"];

/// A substituter's URL, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    url: String,
    shown: String,
    /// How it is reached.
    pub(crate) place: Place,
    /// `?priority=`: lower is asked first.
    pub(crate) priority: Option<i64>,
    /// `?trusted=true`: signatures do not matter.
    pub(crate) trusted: bool,
}

/// How a substituter is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Over HTTP.
    Http(HttpPlace),
    /// A binary cache in a directory.
    Directory(String),
    /// Through Nix itself: another store. A bare path is one as well: the root of a local store.
    Store,
    /// Not at all: what is wrong with the URL.
    Nowhere(String),
}

/// Where a binary cache is on the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpPlace {
    /// The URL without query and credentials, and without a slash at the end.
    pub(crate) base: String,
    /// What `netrc` calls it.
    pub(crate) host: String,
    /// The name in the URL, and the password if it has one.
    pub(crate) user: Option<(String, Option<Password>)>,
}

/// Something that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(pub(crate) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({})", self.shown)
    }
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
        let place = match main.split_once("://") {
            Some(("http" | "https", _)) => http(url),
            Some(("file", path)) => Place::Directory(path.to_owned()),
            _ => Place::Store,
        };
        Self {
            url: url.to_owned(),
            shown: redacted(url),
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

    /// The URL as people may see it; see [`redacted`].
    #[must_use]
    pub fn shown(&self) -> String {
        self.shown.clone()
    }

    /// A text in which neither the URL nor the credentials in it stand any more.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let mut text = text.replace(&self.url, &self.shown);
        let after_scheme = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = after_scheme.split(['/', '?']).next().unwrap_or_default();
        if let Some((user, _)) = authority.rsplit_once('@') {
            text = text.replace(&format!("{user}@"), "");
            if let Some((_, password)) = user.split_once(':').filter(|(_, password)| !password.is_empty()) {
                text = text.replace(password, "…").replace(&decoded(password), "…");
            }
        }
        text
    }
}

fn http(url: &str) -> Place {
    let parsed = match Url::parse(url) {
        Ok(parsed) => parsed,
        Err(error) => return Place::Nowhere(format!("its URL cannot be understood: {error}")),
    };
    let user = Some(parsed.username()).filter(|name| !name.is_empty() || parsed.password().is_some());
    Place::Http(HttpPlace {
        base: without_secrets(parsed.clone()).trim_end_matches('/').to_owned(),
        host: parsed.host_str().unwrap_or_default().to_owned(),
        user: user.map(|name| (decoded(name), parsed.password().map(|password| Password(decoded(password))))),
    })
}

fn without_secrets(mut url: Url) -> String {
    // These fail for URLs that cannot hold credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// A store's URL as people may see it: without credentials, and without parameters but those that say
/// which store it is.
#[must_use]
pub fn redacted(url: &str) -> String {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| pair.split_once('=').is_some_and(|(name, _)| SHOWN_PARAMETERS.contains(&name)))
        .collect();
    let main = match (Url::parse(url), url.split_once("://")) {
        (Ok(parsed), Some(_)) => without_secrets(parsed),
        // What cannot be understood may have its credentials anywhere before the last `@`.
        (Err(_), Some((scheme, rest))) => {
            let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{}", rest.split('?').next().unwrap_or_default())
        }
        (_, None) => url.split('?').next().unwrap_or_default().to_owned(),
    };
    let main = if main.len() > 1 { main.trim_end_matches('/') } else { &main };
    if kept.is_empty() { main.to_owned() } else { format!("{main}?{}", kept.join("&")) }
}

/// A text with its `%XX` resolved.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl HttpPlace {
    /// Who to be there: as the URL says, else as `netrc` says, as curl and so Nix do it.
    pub(crate) fn credentials(&self, netrc: &crate::Netrc) -> Option<Credentials> {
        match &self.user {
            Some((login, Some(Password(password)))) => {
                Some(Credentials { login: login.clone(), password: password.clone() })
            }
            Some((login, None)) => Some(
                netrc
                    .at(&self.host, Some(login))
                    .cloned()
                    .unwrap_or_else(|| Credentials { login: login.clone(), password: String::new() }),
            ),
            None => netrc.at(&self.host, None).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Netrc;

    fn http_place(url: &str) -> HttpPlace {
        match Location::parse(url).place {
            Place::Http(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let location = Location::parse("https://me:se%40cret@cache.example:8443/x/?priority=10&trusted=1");
        assert_eq!((location.priority, location.trusted), (Some(10), true));
        let place = http_place(location.url());
        assert_eq!(
            (place.base.as_str(), place.host.as_str()),
            ("https://cache.example:8443/x", "cache.example")
        );
        let credentials = place.credentials(&Netrc::default()).unwrap();
        assert_eq!((credentials.login.as_str(), credentials.password.as_str()), ("me", "se@cret"));
        assert_eq!(http_place("http://[::1]:80/").host, "[::1]");
        assert_eq!(http_place("http://host").base, "http://host");
    }

    #[test]
    fn the_kind_of_a_place_follows_nix() {
        assert!(matches!(Location::parse("https://cache.nixos.org/").place, Place::Http(_)));
        assert_eq!(Location::parse("file:///x/y?a=b").place, Place::Directory("/x/y".into()));
        for url in ["daemon", "auto", "ssh-ng://host", "s3://bucket?secret=x", "/tmp/store", "local?root=/x"]
        {
            assert_eq!(Location::parse(url).place, Place::Store, "{url}");
        }
        assert!(matches!(Location::parse("https://a:b:c/").place, Place::Nowhere(_)));
    }

    #[test]
    fn what_is_shown_says_which_store_and_no_secret() {
        for (url, shown) in [
            (
                "https://me:secret@cache.example:8443/x/?priority=10&token=secret",
                "https://cache.example:8443/x",
            ),
            ("https://me@cache.example", "https://cache.example"),
            ("s3://bucket?secret-key=secret&region=eu-1", "s3://bucket?region=eu-1"),
            ("ssh://user@host", "ssh://host"),
            ("ssh-ng://user:secret@host?ssh-key=secret", "ssh-ng://host"),
            ("https://me:sec/ret@host/x", "https://host/x"),
            ("https://me:sec?ret@host/x", "https://host/x"),
            ("daemon", "daemon"),
            ("/", "/"),
            ("local?root=/x&secret=secret", "local?root=/x"),
            ("unix:///run/socket", "unix:///run/socket"),
            ("file:///x/", "file:///x"),
        ] {
            assert_eq!(redacted(url), shown, "{url}");
            assert!(!format!("{:?}", Location::parse(url)).contains("secret"), "{url}");
            assert!(!format!("{:?}", Location::parse(url).place).contains("secret"), "{url}");
        }
    }

    #[test]
    fn messages_of_others_are_scrubbed() {
        let location = Location::parse("ssh://me:se%20cret@host/x?key=secret");
        let said = "cannot open 'ssh://me:se%20cret@host/x?key=secret' as me:se%20cret with `se cret`";
        assert_eq!(location.scrub(said), "cannot open 'ssh://host/x' as me:… with `…`");
    }

    #[test]
    fn the_url_s_own_credentials_come_first() {
        let netrc = Netrc::parse("machine host login a password b\nmachine host login c password d");
        let who = |url: &str| {
            let found = http_place(url).credentials(&netrc).unwrap();
            (found.login, found.password)
        };
        assert_eq!(who("http://x:y@host/"), ("x".into(), "y".into()));
        assert_eq!(who("http://host/"), ("a".into(), "b".into()));
        assert_eq!(who("http://c@host/"), ("c".into(), "d".into()));
        assert_eq!(who("http://z@host/"), ("z".into(), String::new()));
        assert_eq!(http_place("http://other/").credentials(&netrc), None);
    }
}
