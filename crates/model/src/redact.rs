//! Keeping credentials out of what people and reports see.

use std::borrow::Cow;

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// Where a URL in a text ends.
fn ends_url(char: char) -> bool {
    char.is_whitespace() || matches!(char, '\'' | '"' | '`' | '<' | '>' | '«' | '»' | '”' | '’')
}

/// A text with the credentials of its URLs left out: passwords (`https://user:***@host`), names that are
/// tokens (`https://***@host`; over ssh a lone name is only a name), and the values of parameters whose
/// names speak of secrets, tokens, passwords or signatures.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end = tail.find(ends_url).unwrap_or(tail.len());
        let (url, after) = tail.split_at(end);
        let is_ssh = head[..at].ends_with("ssh") || head[..at].ends_with("ssh-ng");
        push_url(&mut out, url, is_ssh);
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// What follows the `://` of a URL.
fn push_url(out: &mut String, url: &str, is_ssh: bool) {
    // A password may have anything in it that its writer forgot to escape: up to the last `@` before the
    // query, but not beyond the host of a URL without credentials.
    let query_at = url.find('?').filter(|&at| !url[at..].contains('@')).unwrap_or(url.len());
    let (place, query) = url.split_at(query_at);
    let first_part = place.find('/').unwrap_or(place.len());
    let with_password = place.find(':').filter(|&colon| colon < first_part);
    let at = match with_password {
        // `host:port/a@b` has no credentials: a port is a number.
        Some(colon) => place.rfind('@').filter(|&at| {
            at < first_part || !place[colon + 1..first_part].bytes().all(|byte| byte.is_ascii_digit())
        }),
        None => place[..first_part].rfind('@'),
    };
    match (at, with_password) {
        (Some(at), Some(colon)) if colon < at => {
            out.push_str(&place[..=colon]);
            out.push_str(HIDDEN);
            out.push_str(&place[at..]);
        }
        (Some(at), _) if !is_ssh && &place[..at] != "git" => {
            out.push_str(HIDDEN);
            out.push_str(&place[at..]);
        }
        _ => out.push_str(place),
    }
    for (number, parameter) in query.split_inclusive(['?', '&', '#']).enumerate() {
        let body = parameter.trim_end_matches(['?', '&', '#']);
        match body.split_once('=') {
            Some((name, value)) if number > 0 && !value.is_empty() && is_secret(name) => {
                out.push_str(name);
                out.push('=');
                out.push_str(HIDDEN);
                out.push_str(&parameter[body.len()..]);
            }
            _ => out.push_str(parameter),
        }
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = ["secret", "token", "passw", "signature", "credential", "access_key", "access-key", "apikey"];
    name == "sig" || name == "key" || words.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credentials_go_and_the_rest_stays() {
        for (text, shown) in [
            ("plain", "plain"),
            ("git+https://u:s3cret@host/x.git?ref=main", "git+https://u:***@host/x.git?ref=main"),
            ("https://ghp_token@github.com/a/b", "https://***@github.com/a/b"),
            ("ssh://git@host/x", "ssh://git@host/x"),
            (
                "git+ssh://me@host/x and git+ssh://me:pw@host/x",
                "git+ssh://me@host/x and git+ssh://me:***@host/x",
            ),
            ("https://git@host/x", "https://git@host/x"),
            ("cannot fetch 'https://u:p@h/x': no", "cannot fetch 'https://u:***@h/x': no"),
            ("https://u:p/w@h/x", "https://u:***@h/x"),
            ("https://u:p?w@h/x", "https://u:***@h/x"),
            ("http://127.0.0.1:8080/a@b", "http://127.0.0.1:8080/a@b"),
            ("https://host/@scope/x", "https://host/@scope/x"),
            ("s3://b?region=eu&secret-key=abc&x=1", "s3://b?region=eu&secret-key=***&x=1"),
            ("https://b/x?X-Amz-Signature=ab&sig=cd", "https://b/x?X-Amz-Signature=***&sig=***"),
            ("https://b/x?narHash=sha256-ab=", "https://b/x?narHash=sha256-ab="),
            ("://", "://"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange_and_a_second_time_changes_nothing(text in "[a-z:/@?&='é ]{0,40}") {
            let once = redact(&text).into_owned();
            prop_assert_eq!(redact(&once), once.as_str());
        }

        #[test]
        fn a_password_never_gets_through(user in "[a-z]{1,5}", rest in "[a-z/?=&.]{0,12}") {
            let text = format!("see https://{user}:SECRET@host/{rest} for more");
            prop_assert!(!redact(&text).contains("SECRET"));
        }
    }
}
