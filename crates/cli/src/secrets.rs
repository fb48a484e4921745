//! What this process was told in confidence.

use std::sync::OnceLock;

use phoenix_model::Secrets;

use crate::handed::runtime_token;

/// The secrets in the environment of this process, as it was when they were asked for first, and what an action handed
/// over.
pub(crate) fn secrets() -> &'static Secrets {
    static SECRETS: OnceLock<Secrets> = OnceLock::new();
    SECRETS.get_or_init(|| {
        let mut variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        variables.extend(runtime_token().map(|token| ("ACTIONS_RUNTIME_TOKEN".to_owned(), token)));
        Secrets::among(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    })
}
