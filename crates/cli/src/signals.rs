//! Ctrl-C and SIGTERM.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Receiver;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// Exit code of a run that was stopped.
const EXIT_CANCELLED: i32 = 130;

/// Listens for signals: each sets `stop` and is told by name. The first asks for an orderly end, the
/// second for a quick one; at the third the process ends where it stands.
pub(crate) fn listen(stop: &Arc<AtomicBool>) -> io::Result<Receiver<&'static str>> {
    let mut signals = Signals::new([SIGINT, SIGQUIT, SIGTERM])?;
    if !is_ignored(SIGHUP) {
        signals.add_signal(SIGHUP)?;
    }
    let (sender, receiver) = crossbeam_channel::unbounded();
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        for (count, signal) in signals.forever().enumerate() {
            stop.store(true, Ordering::Relaxed);
            let name = match signal {
                SIGINT => "SIGINT",
                SIGTERM => "SIGTERM",
                SIGQUIT => "SIGQUIT",
                _ => "SIGHUP",
            };
            if count >= 2 {
                std::process::exit(EXIT_CANCELLED);
            }
            let _ = sender.send(name);
        }
    });
    Ok(receiver)
}

/// Whether whoever started us, such as `nohup`, wants a signal to be ignored. Only Linux tells (`proc(5)`, `SigIgn`).
fn is_ignored(signal: i32) -> bool {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (signal - 1)) != 0
}
