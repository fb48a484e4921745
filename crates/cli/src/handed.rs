//! What an action hands over on standard input, and not in the environment: that stands in `/proc` for all who run as the
//! same user, and is inherited by whatever is started.

use std::io::{BufRead, stdin};
use std::sync::OnceLock;

use crate::setup::var;

/// The variable in which an action says that the first line of standard input is the token.
const WHERE: &str = "PHOENIX_CI_TOKEN";

/// The token of the job's services.
const TOKEN: &str = "ACTIONS_RUNTIME_TOKEN";

static HANDED: OnceLock<String> = OnceLock::new();

/// Takes what was handed over, before anything is started. No other process of this user may look into this one then.
pub(crate) fn take() {
    if var(TOKEN).is_some() || var(WHERE).is_some() {
        hide();
    }
    if var(WHERE).as_deref() != Some("stdin") {
        return;
    }
    let mut line = String::new();
    if stdin().lock().read_line(&mut line).is_ok() && !line.trim().is_empty() {
        let _ = HANDED.set(line.trim().to_owned());
    }
}

/// The token of the job's services, handed over or from the environment.
pub(crate) fn runtime_token() -> Option<String> {
    HANDED.get().cloned().or_else(|| var(TOKEN))
}

/// Memory and environment are for the superuser alone from now on.
fn hide() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}
