//! Actions that run at the same time, each on a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use phoenix_model::{ActionId, Event, Severity};

use crate::recorder::{Hear, Recorder};

/// How many actions run at once on one machine: they wait for others most of the time, and none for long.
const MOST: usize = 4;

/// How often the screen is drawn while nothing is heard.
const TICK: Duration = Duration::from_millis(100);

/// The actions that run now. Dropping it ends them, and waits for that.
pub(crate) struct Crew<T> {
    running: BTreeMap<ActionId, JoinHandle<T>>,
    stop: Arc<AtomicBool>,
    tell: Sender<Heard>,
    told: Receiver<Heard>,
}

/// What is heard of an action.
enum Heard {
    Event(Box<Event>),
    Ended(ActionId),
}

/// By which an action tells what it does, and hears whether to stop.
#[derive(Clone)]
pub(crate) struct Teller {
    tell: Sender<Heard>,
    stop: Arc<AtomicBool>,
}

impl Teller {
    /// Tells what happens.
    pub(crate) fn event(&self, event: Event) {
        // Nobody hears it when we are to stop.
        let _ = self.tell.send(Heard::Event(Box::new(event)));
    }

    /// Whether to end now.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Hear for Teller {
    fn hear(&mut self, severity: Severity, text: String) {
        self.event(Event::Message { severity, text });
    }
}

/// Says that an action has ended, however it did.
struct Leaving(ActionId, Sender<Heard>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let _ = self.1.send(Heard::Ended(self.0));
    }
}

impl<T: Send + 'static> Crew<T> {
    /// Nobody, yet. `stop` tells them all to end.
    pub(crate) fn new(stop: Arc<AtomicBool>) -> Self {
        let (tell, told) = unbounded();
        Self { running: BTreeMap::new(), stop, tell, told }
    }

    /// Whether nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether one more may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.running.len() < MOST
    }

    /// Tells all to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Begins an action.
    pub(crate) fn begin(&mut self, id: ActionId, act: impl FnOnce(&mut Teller) -> T + Send + 'static) {
        let mut teller = Teller { tell: self.tell.clone(), stop: Arc::clone(&self.stop) };
        let leaving = Leaving(id, self.tell.clone());
        let thread = std::thread::spawn(move || {
            let _leaving = leaving;
            act(&mut teller)
        });
        self.running.insert(id, thread);
    }

    /// Records what is heard until one has ended, or so much time has passed; what came of that one, nothing where its
    /// thread failed.
    pub(crate) fn hear(&mut self, most: Duration, recorder: &mut Recorder) -> Option<(ActionId, Option<T>)> {
        let until = Instant::now() + most;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left.min(TICK)) {
                Ok(Heard::Event(event)) => recorder.record(*event),
                Ok(Heard::Ended(id)) => {
                    let thread = self.running.remove(&id)?;
                    return Some((id, thread.join().ok()));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => recorder.tick(),
            }
            if left.is_zero() {
                return None;
            }
        }
    }
}

impl<T> Drop for Crew<T> {
    fn drop(&mut self) {
        if self.running.is_empty() {
            return;
        }
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.running).into_values() {
            let _ = thread.join();
        }
    }
}
