//! The refs whose entries a job may read and write, as its token says.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use phoenix_depot::Scopes;
use serde::Deserialize;

/// What the token says of a ref; 1 is to read, 2 to write.
#[derive(Deserialize)]
struct Access {
    #[serde(rename = "Scope")]
    scope: String,
    #[serde(rename = "Permission")]
    permission: u8,
}

#[derive(Deserialize)]
struct Claims {
    ac: String,
}

/// What the token of a job says in its claim `ac`; none when it is not such a token. It is not verified: the
/// service does that, and what is made of this is the names of keys and no more.
pub(crate) fn scopes(token: &str) -> Option<Scopes> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let access: Vec<Access> = serde_json::from_str(&claims.ac).ok()?;
    let with = |bit| access.iter().filter(move |access| access.permission & bit != 0);
    let scope = |access: &Access| access.scope.clone();
    let scopes = Scopes { write: with(2).map(scope).next(), read: with(1).map(scope).collect() };
    (!access.is_empty()).then_some(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_pull_request_reads_more_than_it_writes() {
        let token = token(
            r#"{"ac":"[{\"Scope\":\"refs/pull/7/merge\",\"Permission\":3},{\"Scope\":\"refs/heads/main\",\"Permission\":1}]"}"#,
        );
        let scopes = scopes(&token).unwrap();
        assert_eq!(scopes.write.as_deref(), Some("refs/pull/7/merge"));
        assert_eq!(scopes.read, ["refs/pull/7/merge", "refs/heads/main"]);
    }

    #[test]
    fn what_is_no_such_token_says_nothing() {
        let odd = [r#"{}"#, r#"{"ac":3}"#, r#"{"ac":"x"}"#, r#"{"ac":"[]"}"#, r#"{"ac":"[{}]"}"#].map(token);
        for text in odd.iter().map(String::as_str).chain(["", "opaque", "a.b.c", "a.!.c"]) {
            assert_eq!(scopes(text), None, "{text}");
        }
    }
}
