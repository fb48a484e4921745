//! What a signed URL says of itself.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::Url;

use crate::Secret;

/// How long a URL holds that does not say; download URLs of the real service hold for 10 minutes.
const USUAL: Duration = Duration::from_secs(600);

/// The longest that a URL is believed.
const LONGEST: Duration = Duration::from_secs(3600);

/// A URL of a blob that somebody signed for us.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    url: Secret,
    /// When it should be used no more, by our own clock.
    until: Instant,
}

impl Signed {
    /// Takes a URL that was signed at about `now`; none for what is no http URL.
    pub(crate) fn new(url: &str, now: Instant) -> Option<Self> {
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let valid = valid(&parsed).unwrap_or(USUAL).min(LONGEST);
        // A tenth is left over, for clocks differ and requests take their time.
        Some(Self { url: Secret::new(url), until: now + valid.mul_f32(0.9) })
    }

    /// Whether it may still be used.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        now < self.until
    }

    /// The URL.
    pub(crate) fn url(&self) -> &str {
        self.url.reveal()
    }

    /// The URL with more parameters.
    pub(crate) fn with(&self, parameters: &str) -> String {
        let url = self.url();
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}{parameters}")
    }

    /// Whether it is for the same blob.
    pub(crate) fn is_for_the_blob_of(&self, other: &Self) -> bool {
        let place = |signed: &Self| {
            let url = Url::parse(signed.url()).ok()?;
            Some((url.origin(), url.path().to_owned()))
        };
        place(self).is_some_and(|here| Some(here) == place(other))
    }
}

/// How long a URL holds: from its beginning to its end, so that no clock of ours counts.
fn valid(url: &Url) -> Option<Duration> {
    let time = |name: &str| {
        let (_, value) = url.query_pairs().find(|(parameter, _)| parameter == name)?;
        value.parse::<Timestamp>().ok().map(Timestamp::as_second)
    };
    let seconds = time("se")?.checked_sub(time("st")?)?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://a.b/c/d?se=2026-07-01T10%3A10%3A00Z&sig=x%3D&sp=r&st=2026-07-01T09%3A59%3A55Z";

    #[test]
    fn it_holds_for_nearly_as_long_as_it_says() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let signed = Signed::new(URL, now).unwrap();
        assert!(signed.holds(after(540)) && !signed.holds(after(560)));
        let unsaid = Signed::new("http://a/b", now).unwrap();
        assert!(unsaid.holds(after(530)) && !unsaid.holds(after(541)));
        let over = Signed::new(&URL.replace("T10", "T08"), now).unwrap();
        assert!(over.holds(after(1)), "an end before the beginning is nonsense");
        assert!(
            !Signed::new(&URL.replace("2026-07-01T10", "2027-07-01T10"), now).unwrap().holds(after(3300))
        );
        assert!(Signed::new("", now).is_none() && Signed::new("file:///a", now).is_none());
    }

    #[test]
    fn it_is_not_shown_and_can_be_added_to() {
        let signed = Signed::new(URL, Instant::now()).unwrap();
        assert!(!format!("{signed:?}").contains("a.b"));
        assert_eq!(signed.with("comp=block"), format!("{URL}&comp=block"));
        let other = Signed::new("https://a.b/c/d?x", Instant::now()).unwrap();
        assert!(signed.is_for_the_blob_of(&other));
        assert!(!signed.is_for_the_blob_of(&Signed::new("https://a.b/c/e", Instant::now()).unwrap()));
    }
}
