//! Processes with all they have started.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long a process may take to end in order.
const PATIENCE: Duration = Duration::from_secs(3);

/// Starts a process in a group of its own, so that a Ctrl-C at the terminal reaches it through us only.
pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Child> {
    command.process_group(0).spawn()
}

/// Sends a signal to a process and all it has started; to the process alone if it has no group of its own.
pub(crate) fn signal(child: &Child, signal: Signal) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended meanwhile; then there is nobody to tell.
        let _ = kill_process_group(group, signal).or_else(|_| kill_process(group, signal));
    }
}

/// Ends a process and all it has started: in order if it does so soon.
pub(crate) fn end(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    signal(child, Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            signal(child, Signal::KILL);
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
