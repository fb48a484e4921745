//! What a script says, kept within bounds and without what it called a secret.

use std::sync::{Arc, Mutex, PoisonError};

use super::Said;
use crate::answer::shortened;

/// How much a script may say, in bytes; a loop says more than anybody reads.
const MOST: usize = 4 << 20;

/// What stands for a secret, as in the runner's logs.
const HIDDEN: &str = "***";

/// Passes on what a script says.
pub(super) struct Mouth {
    say: Arc<dyn Fn(Said) + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    said: usize,
    secrets: Vec<String>,
}

impl Mouth {
    pub(super) fn new(say: Arc<dyn Fn(Said) + Send + Sync>) -> Self {
        Self { say, state: Mutex::default() }
    }

    pub(super) fn say(&self, level: String, text: &str) {
        if level == "mask" {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.secrets.extend(lines.map(str::to_owned));
            // The longest first: one may be part of another.
            state.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
            drop(state);
            (self.say)(Said { level, text: text.to_owned() });
            return;
        }
        let text = shortened(&self.masked(text));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.said;
        state.said = before.saturating_add(text.len());
        let is_over = state.said > MOST;
        drop(state);
        if !is_over {
            (self.say)(Said { level, text });
        } else if before <= MOST {
            let text = format!("it has said more than {} MiB; the rest is not shown", MOST >> 20);
            (self.say)(Said { level: "warning".to_owned(), text });
        }
    }

    /// A text without what is secret.
    pub(super) fn masked(&self, text: &str) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }
}
