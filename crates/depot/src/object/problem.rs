//! What the errors of object stores mean, in words that hold no secret.

use std::fmt;

use object_store::Error;

use crate::Problem;

/// How much of an answer that nobody understands is shown, in characters.
const MOST_SHOWN: usize = 300;

/// What a store cannot that answers so.
const REFUSED: &str = "do that: the object store has no such kind of request (if it is S3 without `If-None-Match`, \
                       AWS_CONDITIONAL_PUT=disabled does without)";

/// What may not stand in any message.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Secrets {
    /// The secrets among these; what is shorter than 6 characters keeps no secret.
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets: Vec<_> =
            secrets.into_iter().filter(|secret| secret.len() >= 6).map(ToOwned::to_owned).collect();
        // The longer ones first, for one may hold another.
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// A text in which none of them stands.
    pub(super) fn scrub(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
    }
}

/// What an error means to whoever uses the depot. That an object is not there is for the caller to know about;
/// here it is the bucket that is not there.
pub(super) fn problem(error: &Error, secrets: &Secrets) -> Problem {
    let said = secrets.scrub(&words(error));
    let with_credentials =
        |said: &str| format!("{said}; look at the credentials in the environment and at what they permit");
    let denied = |said: String| Problem::Denied(with_credentials(&said));
    let has = |any: &[&str]| any.iter().any(|code| said.contains(code));
    let status = |any: &[&str]| any.iter().any(|status| said.starts_with(status));
    match error {
        Error::PermissionDenied { .. } => denied(said),
        Error::Unauthenticated { .. } => Problem::Ended(with_credentials(&said)),
        Error::NotImplemented { .. } | Error::NotSupported { .. } => Problem::Unsupported(REFUSED),
        _ if status(&["501 "]) => Problem::Unsupported(REFUSED),
        _ if status(&["401 "]) => Problem::Ended(with_credentials(&said)),
        _ if status(&["403 "]) => denied(said),
        _ if status(&["413 ", "507 "]) || has(&["QuotaExceeded", "XMinioStorageFull", "EntityTooLarge"]) => {
            Problem::Full(said)
        }
        _ if status(&["429 ", "503 "]) || has(&["SlowDown", "ServerBusy"]) => Problem::Busy(said),
        // The addresses at which clouds give credentials to their machines, asked where the environment has none.
        _ if has(&["//169.254.169.254", "//169.254.170.2", "//metadata.google.internal"]) => {
            Problem::Denied(format!("there are no credentials in the environment, and {said}"))
        }
        _ if status(&["404 "]) => {
            Problem::Unreachable(format!("{said}; make the bucket first, or name another"))
        }
        _ => Problem::Unreachable(said),
    }
}

/// The innermost cause of an error, on one line, and who did not answer if nobody did.
fn words(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    let mut asked = server(&cause.to_string());
    while let Some(next) = cause.source() {
        cause = next;
        asked = asked.or_else(|| server(&cause.to_string()));
    }
    let text = cause.to_string();
    let text = text.strip_prefix("Server returned non-2xx status code: ").unwrap_or(&text);
    match (element(text, "Code"), element(text, "Message")) {
        (Some(code), message) => {
            let status = text.split(':').next().unwrap_or_default();
            let status = if status.contains('<') { "" } else { status };
            [status, code, message.unwrap_or_default()]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(": ")
        }
        (None, _) => {
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let line: String = line.trim_end_matches(':').chars().take(MOST_SHOWN).collect();
            match asked.filter(|_| !has_status(&line)) {
                Some(asked) => format!("{asked}: {line}"),
                None => line,
            }
        }
    }
}

/// Whether a line begins with the status of an answer.
fn has_status(line: &str) -> bool {
    line.split(' ').next().is_some_and(|word| word.len() == 3 && word.bytes().all(|c| c.is_ascii_digit()))
}

/// The server that a request went to, of which an error of `object_store` tells: `Error performing GET URL in …`.
fn server(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("Error performing ")?;
    let (scheme, rest) = rest.split(' ').nth(1)?.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
    Some(format!("{scheme}://{host}"))
}

/// What stands in an XML element of this name, which has nothing but text in it.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once('<')?.0.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.into() }
    }

    fn said(text: &str) -> String {
        problem(&generic(text), &Secrets::new(["hunter22", "key", "hunter22again"])).to_string()
    }

    #[test]
    fn the_cause_is_said_without_what_surrounds_it() {
        let xml = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?><Error>\
                   <Code>SignatureDoesNotMatch</Code><Message>The signature is wrong</Message>\
                   <AWSAccessKeyId>AKIA</AWSAccessKeyId><StringToSign>x</StringToSign></Error>";
        let cause = "not permitted: 403 Forbidden: SignatureDoesNotMatch: The signature is wrong; look at ";
        assert!(said(xml).starts_with(cause), "{}", said(xml));
        let denied = Error::PermissionDenied { path: "a".into(), source: xml.into() };
        let denied = problem(&denied, &Secrets::default());
        assert!(matches!(&denied, Problem::Denied(said) if !said.contains("AKIA")), "{denied}");
        assert_eq!(said("two\n  lines"), "no answer: two lines");
        let asked = "Error performing GET http://169.254.169.254/latest?sig=hunter22 in 1s - refused";
        assert_eq!(server(asked).as_deref(), Some("http://169.254.169.254"));
        assert!(
            said(asked).starts_with("not permitted: there are no credentials in the environment, and http")
        );
        assert_eq!(server("Error performing GET REDACTED in 1s"), None);
    }

    #[test]
    fn secrets_are_scrubbed_the_longest_first() {
        assert_eq!(said("user hunter22 is hunter22again"), "no answer: user … is …");
        assert_eq!(said("a key"), "no answer: a key");
        assert_eq!(format!("{:?}", Secrets::new(["hunter22"])), "…");
    }

    #[test]
    fn a_store_that_is_busy_or_full_is_told_apart() {
        let kind = |text: &str| problem(&generic(text), &Secrets::default());
        let status = "Server returned non-2xx status code: ";
        assert!(matches!(kind(&format!("{status}429 Too Many Requests: ")), Problem::Busy(_)));
        assert!(matches!(kind(&format!("{status}503 x: <Code>SlowDown</Code>")), Problem::Busy(_)));
        assert!(matches!(kind(&format!("{status}507 Insufficient Storage: ")), Problem::Full(_)));
        assert!(matches!(kind(&format!("{status}501 Not Implemented: ")), Problem::Unsupported(_)));
        assert!(matches!(kind(&format!("{status}403 Forbidden: ")), Problem::Denied(_)));
        assert!(matches!(kind("500 Internal Server Error"), Problem::Unreachable(_)));
    }
}
