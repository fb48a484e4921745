//! What an answer of the service means.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::patience::Passing;

/// What a read-only token is known by.
pub(crate) const WRITE_DENIED: &str = "cache write denied";

/// The words of a runtime token that has ended.
pub(crate) const ENDED: &str =
    "the runtime token is not taken (401); it holds for about six hours from the beginning of the job";

/// What an answer means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meaning {
    /// It is done, or it is not: the message says.
    Answer(Value),
    /// There is such an entry already, or somebody reserved it.
    Taken,
    /// There is no such entry.
    NotFound,
    /// Asking again may help. `done` is whether it may have been done all the same.
    Again { why: Passing, said: String, done: bool },
    /// We may not.
    Denied(String),
    /// The token is not taken, or not any more.
    Ended,
    /// There is no room or no money.
    Full(String),
    /// It does not take the request.
    Refused(String),
}

/// The error that Twirp and the REST interface send.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sent {
    msg: String,
    message: String,
}

/// What an answer means; `said` takes secrets out of the server's words.
pub(crate) fn meaning(
    status: u16,
    retry_after: Option<&str>,
    body: &[u8],
    said: impl Fn(&str) -> String,
) -> Meaning {
    let sent: Sent = serde_json::from_slice(body).unwrap_or_default();
    let words = said(if sent.msg.is_empty() { &sent.message } else { &sent.msg });
    let shown = if words.is_empty() {
        format!("it answers {status}")
    } else {
        format!("it answers {status}: {words}")
    };
    let wait = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    if words.contains("insufficient usage") {
        return Meaning::Full(words);
    }
    match status {
        200..=299 => match serde_json::from_slice(body) {
            Ok(value @ Value::Object(_)) => Meaning::Answer(value),
            _ if status == 204 => Meaning::Answer(Value::Null),
            _ => Meaning::Again {
                why: Passing::Broken,
                said: format!("it answers {status} and something that is no JSON"),
                done: true,
            },
        },
        401 => Meaning::Ended,
        403 | 429 if status == 429 || wait.is_some() || words.contains("rate limit") => {
            Meaning::Again { why: Passing::Busy(wait), said: shown, done: false }
        }
        403 => Meaning::Denied(if words.is_empty() { shown } else { words }),
        404 => Meaning::NotFound,
        409 => Meaning::Taken,
        501 | 505.. => Meaning::Refused(shown),
        503 => Meaning::Again {
            why: wait.map_or(Passing::Broken, |wait| Passing::Busy(Some(wait))),
            said: shown,
            done: true,
        },
        408 | 500.. => Meaning::Again { why: Passing::Broken, said: shown, done: true },
        _ => Meaning::Refused(shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, retry_after: Option<&str>, body: &str) -> Meaning {
        meaning(status, retry_after, body.as_bytes(), str::to_owned)
    }

    fn again(meaning: &Meaning) -> Option<(Passing, bool)> {
        match meaning {
            Meaning::Again { why, done, .. } => Some((*why, *done)),
            _ => None,
        }
    }

    #[test]
    fn what_may_pass_is_asked_again() {
        let twenty = Passing::Busy(Some(Duration::from_secs(20)));
        for (status, retry_after, body, expected) in [
            (
                429,
                Some("20"),
                r#"{"code":"resource_exhausted","msg":"rate limit exceeded"}"#,
                (twenty, false),
            ),
            (429, None, "", (Passing::Busy(None), false)),
            (429, Some("Wed, 21 Oct 2026 07:28:00 GMT"), "", (Passing::Busy(None), false)),
            (403, None, r#"{"message":"API rate limit exceeded"}"#, (Passing::Busy(None), false)),
            (403, Some("20"), "", (twenty, false)),
            (500, None, "", (Passing::Broken, true)),
            (502, None, "<html>", (Passing::Broken, true)),
            (503, Some("20"), "", (twenty, true)),
            (200, None, "<html>", (Passing::Broken, true)),
            (200, None, "7", (Passing::Broken, true)),
        ] {
            assert_eq!(again(&of(status, retry_after, body)), Some(expected), "{status} {body}");
        }
    }

    #[test]
    fn what_will_not_pass_is_said_in_words() {
        assert_eq!(of(401, None, ""), Meaning::Ended);
        let denied = of(403, None, r#"{"msg":"cache read denied: no"}"#);
        assert_eq!(denied, Meaning::Denied("cache read denied: no".into()));
        assert_eq!(of(404, None, ""), Meaning::NotFound);
        assert_eq!(of(409, None, ""), Meaning::Taken);
        assert_eq!(of(400, None, r#"{"msg":"bad key"}"#), Meaning::Refused("it answers 400: bad key".into()));
        let full = of(403, None, r#"{"msg":"insufficient usage to do that"}"#);
        assert!(matches!(full, Meaning::Full(_)));
    }
}
