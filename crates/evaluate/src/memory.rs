//! How much memory processes have, and how much there is.

use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Looks at the memory of processes.
#[derive(Debug)]
pub(crate) struct Meter {
    system: System,
    /// Where this process may have less than the machine.
    confined: bool,
}

impl Meter {
    pub(crate) fn new() -> Self {
        let mut system = System::new();
        system.refresh_memory();
        let confined =
            system.cgroup_limits().is_some_and(|limits| limits.total_memory < system.total_memory());
        Self { system, confined }
    }

    /// What each process has in memory, in bytes; nothing for one that is gone.
    pub(crate) fn resident(&mut self, processes: &[u32]) -> Vec<u64> {
        let pids: Vec<Pid> = processes.iter().map(|&pid| Pid::from_u32(pid)).collect();
        let what = ProcessRefreshKind::nothing().with_memory().without_tasks();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&pids), true, what);
        pids.iter().map(|pid| self.system.process(*pid).map_or(0, sysinfo::Process::memory)).collect()
    }

    /// What is available on this machine, or where this process is confined to, in bytes.
    pub(crate) fn available(&mut self) -> u64 {
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let machine = self.system.available_memory();
        let limits = if self.confined { self.system.cgroup_limits() } else { None };
        limits.map_or(machine, |limits| machine.min(limits.free_memory))
    }
}

/// A number of bytes in words.
pub(crate) fn shown(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes < 10 << 30 { format!("{} MiB", bytes / MIB) } else { format!("{} GiB", bytes >> 30) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_none_has_it_that_is_not_there() {
        let mut meter = Meter::new();
        let own = meter.resident(&[std::process::id(), u32::MAX - 7]);
        assert!(own[0] > 100_000 && own[1] == 0, "{own:?}");
        assert!(meter.available() > 1 << 20);
    }

    #[test]
    fn bytes_in_words() {
        assert_eq!(shown(300 << 20), "300 MiB");
        assert_eq!(shown(20 << 30), "20 GiB");
    }
}
