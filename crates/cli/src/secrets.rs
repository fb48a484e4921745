//! What this process was told in confidence.

use std::sync::OnceLock;

use phoenix_model::Secrets;

/// The secrets in the environment of this process, as it was when they were asked for first.
pub(crate) fn secrets() -> &'static Secrets {
    static SECRETS: OnceLock<Secrets> = OnceLock::new();
    SECRETS.get_or_init(|| {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Secrets::among(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    })
}
