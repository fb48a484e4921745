//! URLs as people may see them.

/// A depot's URL without anything that may be a secret: no password, no name but Azure's container, no
/// parameters but `region` and `endpoint`, which say where it is.
#[must_use]
pub fn redacted(url: &str) -> String {
    let (scheme, rest) = match (url.split_once("://"), url.split_once(':')) {
        (Some((scheme, rest)), _) if scheme != "dir" => (scheme, rest),
        // Not a URL of the kinds that have a host; a name and a password may stand in it all the same.
        (_, Some((scheme, rest))) if scheme != "dir" && !scheme.contains('/') => {
            return format!("{scheme}:{}", rest.rsplit_once('@').map_or(rest, |(_, rest)| rest));
        }
        _ => return url.to_owned(),
    };
    // A secret may hold any character, so all before the last `@` is taken for one.
    let (credentials, rest) =
        rest.rsplit_once('@').map_or((None, rest), |(before, rest)| (Some(before), rest));
    let container = credentials
        .filter(|name| {
            scheme.starts_with("abfs") && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
        .map(|name| format!("{name}@"))
        .unwrap_or_default();
    let rest = rest.split('#').next().unwrap_or_default();
    let (main, query) = rest.split_once('?').unwrap_or((rest, ""));
    let kept: Vec<_> = query
        .split('&')
        .filter(|pair| pair.starts_with("region=") || pair.starts_with("endpoint="))
        .collect();
    let main = main.trim_end_matches('/');
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    format!("{scheme}://{container}{main}{query}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_password_is_never_shown(
            scheme in "(s3|gs|az|abfss|ftp|x)",
            user in "[a-z:/?#@]{0,5}",
            password in "SECRET[!-~]{0,8}SECRET",
            rest in "[a-z/?#&=]{0,12}",
        ) {
            let url = format!("{scheme}://{user}:{password}@host/{rest}");
            prop_assert!(!redacted(&url).contains("SECRET"), "{}", redacted(&url));
            let error = crate::Opener::new([]).open(&url).map(|depot| depot.location().to_owned()).unwrap_err();
            prop_assert!(!error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn what_is_shown_says_where_and_no_secret() {
        for (url, shown) in [
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("s3://me:hunter22@bucket/a", "s3://bucket/a"),
            ("s3://me:hun/ter@22@bucket/a", "s3://bucket/a"),
            (
                "s3://bucket?region=eu&secret=hunter22&endpoint=http://h:1",
                "s3://bucket?region=eu&endpoint=http://h:1",
            ),
            ("s3://bucket?region=eu&endpoint=http://me:hunter22@h:1", "s3://h:1"),
            ("gs://bucket#hunter22", "gs://bucket"),
            ("abfss://box@account.example/x", "abfss://box@account.example/x"),
            ("abfss://box:hunter22@account.example/x", "abfss://account.example/x"),
            ("ftp://me:hunter22@host", "ftp://host"),
            ("dir:/a@b?c#d", "dir:/a@b?c#d"),
            ("dir:///a@b", "dir:///a@b"),
            ("github:", "github:"),
            ("s3:me:hunter22@bucket", "s3:bucket"),
            ("/a:b@c", "/a:b@c"),
            ("a@b", "a@b"),
        ] {
            assert_eq!(redacted(url), shown, "{url}");
        }
    }
}
