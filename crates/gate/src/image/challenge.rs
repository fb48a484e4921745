//! What a registry wants before it answers.

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, query: Vec<(String, String)> },
}

impl Challenge {
    /// Reads `WWW-Authenticate`.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut query) = (None, Vec::new());
        // Values are quoted, since a scope has commas in it: key="value",key="value".
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, next) = after.split_once('"')?;
            match key.trim_matches([' ', ',']) {
                "realm" => realm = Some(value.to_owned()),
                key @ ("service" | "scope") => query.push((key.to_owned(), value.to_owned())),
                _ => {}
            }
            rest = next;
        }
        Some(Self::Bearer { realm: realm?, query })
    }
}
