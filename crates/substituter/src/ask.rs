//! Many questions to several substituters at once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use phoenix_model::StorePath;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::asking::Asking;
use crate::{Heard, Settings};

/// How often a stop is looked for while nothing answers.
const TICK: Duration = Duration::from_millis(50);

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Requests need a thread and what the system offers to wait with.
    #[error("cannot start making requests")]
    Start(#[from] std::io::Error),
}

/// Asks for each path in `first`, and for each that `hear` returns, each once.
///
/// Substituters are asked in the order of their priorities, and only while nobody before them has the path:
/// it is *present* when a substituter has it and Nix would take it from there, *absent* when all that Nix
/// would ask answered that they have it not, and *unknown* when none has it and one did not answer. `hear`
/// is called on this thread as each answer comes, and the questions it returns go out at once.
///
/// Returns when nothing is left to ask, or soon after `stop` is set; what is then open has had no answer.
///
/// # Errors
/// When requests cannot be made at all.
pub fn ask(
    settings: &Settings,
    stop: &AtomicBool,
    first: Vec<StorePath>,
    hear: &mut dyn FnMut(Heard) -> Vec<StorePath>,
) -> Result<(), AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (heard_sender, heard) = channel();
    let (questions, question_receiver) = unbounded_channel();
    thread::scope(|scope| {
        thread::Builder::new().name("substituters".to_owned()).spawn_scoped(scope, move || {
            runtime.block_on(async {
                let asking = Asking::new(settings, heard_sender);
                asking.run(question_receiver).await;
            });
            // Whoever still resolves a name or reads a file need not be waited for.
            runtime.shutdown_background();
        })?;
        Listener { questions, asked: HashSet::new(), open: 0 }.listen(stop, &heard, first, hear);
        Ok(())
    })
}

/// Keeps count of what is asked and not yet answered.
struct Listener {
    /// Closed when this is dropped, which ends the asking.
    questions: UnboundedSender<Vec<StorePath>>,
    asked: HashSet<StorePath>,
    open: usize,
}

impl Listener {
    fn listen(
        mut self,
        stop: &AtomicBool,
        heard: &Receiver<Heard>,
        first: Vec<StorePath>,
        hear: &mut dyn FnMut(Heard) -> Vec<StorePath>,
    ) {
        self.ask(first);
        while self.open > 0 && !stop.load(Ordering::Relaxed) {
            match heard.recv_timeout(TICK) {
                Ok(heard) => {
                    if matches!(heard, Heard::Answer { .. }) {
                        self.open -= 1;
                    }
                    self.ask(hear(heard));
                }
                Err(RecvTimeoutError::Timeout) => self.ask(hear(Heard::Waiting)),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn ask(&mut self, mut paths: Vec<StorePath>) {
        paths.retain(|path| self.asked.insert(path.clone()));
        if !paths.is_empty() {
            self.open += paths.len();
            // It fails only when the asking has ended, which is then heard of.
            let _ = self.questions.send(paths);
        }
    }
}
