//! A thread that stays on the processor of the process that it answers.
//!
//! The two hand over to each other and never work at once. On two processors each message wakes one that sleeps, which takes
//! several times as long as the answer, in a virtual machine above all.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// After how many messages it is looked where the process is.
const LOOK: u32 = 256;

/// Keeps the thread that it belongs to beside a process.
#[derive(Debug)]
pub(super) struct Beside {
    process: Pid,
    /// Where the thread might be.
    all: CpuSet,
    here: Option<usize>,
    messages: u32,
}

impl Beside {
    /// Beside the process with this id; nothing where that cannot be had.
    pub(super) fn new(process: Pid) -> Option<Self> {
        let all = sched_getaffinity(None).ok()?;
        (all.count() > 1).then_some(Self { process, all, here: None, messages: 0 })
    }

    /// To be called for each message.
    pub(super) fn stay(&mut self) {
        if self.messages.is_multiple_of(LOOK) {
            let processor = processor_of(self.process).filter(|&processor| self.all.is_set(processor));
            if processor != self.here {
                let mut set = CpuSet::new();
                match processor {
                    Some(processor) => set.set(processor),
                    None => set = self.all,
                }
                // Anywhere is fine, too.
                self.here = sched_setaffinity(None, &set).ok().and(processor);
            }
        }
        self.messages = self.messages.wrapping_add(1);
    }

    /// Lets the thread go: what it starts from here on may be anywhere. It comes back with the next message.
    pub(super) fn let_go(&mut self) {
        let _ = sched_setaffinity(None, &self.all);
        (self.here, self.messages) = (None, 0);
    }
}

/// The processor that a process was on last (`proc_pid_stat(5)`, field 39).
fn processor_of(process: Pid) -> Option<usize> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    // What it is called may have anything in it; the third field comes after.
    stat.rsplit_once(") ")?.1.split(' ').nth(36)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_where_the_process_is_until_it_is_let_go() {
        let own = rustix::process::getpid();
        assert!(processor_of(own).is_some());
        std::thread::spawn(move || {
            let Some(mut beside) = Beside::new(own) else { return };
            let all = sched_getaffinity(None).map(|set| set.count());
            beside.stay();
            assert_eq!(sched_getaffinity(None).map(|set| set.count()), Ok(1));
            beside.let_go();
            assert_eq!(sched_getaffinity(None).map(|set| set.count()), all);
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
