//! How much memory processes have, and how much there is.

use std::path::{Path, PathBuf};

use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Looks at the memory of processes.
#[derive(Debug)]
pub(crate) struct Meter {
    system: System,
    /// The control groups that this process is in, each with a limit.
    groups: Vec<Group>,
}

impl Meter {
    pub(crate) fn new() -> Self {
        let mut system = System::new();
        system.refresh_memory();
        let of_process = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let groups = control_groups(&of_process).into_iter();
        // Without a limit it says `max`, or more than there is.
        let has_limit = |group: &Group| group.limit().is_some_and(|limit| limit < system.total_memory());
        let groups = groups.filter(has_limit).collect();
        Self { system, groups }
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
        self.groups.iter().filter_map(Group::free).fold(machine, u64::min)
    }
}

/// A control group of Linux: where its files are, and what those are called (Linux `Documentation/admin-guide/cgroup-v2.rst`
/// and `cgroup-v1/memory.rst`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    directory: PathBuf,
    limit: &'static str,
    usage: &'static str,
    /// What of that the kernel takes back before anybody is killed, in `memory.stat`.
    reclaimable: &'static str,
}

impl Group {
    fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.directory.join(file)).ok()
    }

    fn limit(&self) -> Option<u64> {
        self.read(self.limit)?.trim().parse().ok()
    }

    fn free(&self) -> Option<u64> {
        let usage: u64 = self.read(self.usage)?.trim().parse().ok()?;
        let stat = self.read("memory.stat").unwrap_or_default();
        let used = usage.saturating_sub(counted(&stat, self.reclaimable));
        Some(self.limit()?.saturating_sub(used))
    }
}

/// A number of a `memory.stat`.
fn counted(stat: &str, name: &str) -> u64 {
    let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    value.unwrap_or(0)
}

/// The groups that limit memory, given `/proc/self/cgroup`: those that the process is in, and all above them.
fn control_groups(of_process: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in of_process.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (root, limit, usage, reclaimable) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            let (limit, usage) = ("memory.limit_in_bytes", "memory.usage_in_bytes");
            ("/sys/fs/cgroup/memory", limit, usage, "total_inactive_file")
        } else {
            continue;
        };
        let root = Path::new(root);
        // The root of all has no name.
        let names = path.split('/').filter(|name| !name.is_empty());
        let own = names.fold(root.to_owned(), |directory, name| directory.join(name));
        let above = own.ancestors().take_while(|directory| directory.starts_with(root));
        groups.extend(above.map(|directory| Group {
            directory: directory.to_owned(),
            limit,
            usage,
            reclaimable,
        }));
    }
    groups
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
    fn a_process_is_in_all_groups_above_its_own() {
        let directories = |text: &str| {
            let groups = control_groups(text).into_iter();
            groups.map(|group| format!("{}/{}", group.directory.display(), group.limit)).collect::<Vec<_>>()
        };
        assert_eq!(
            directories("0::/system.slice/a.scope\n"),
            [
                "/sys/fs/cgroup/system.slice/a.scope/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            directories("5:cpu,cpuacct:/x\n4:memory:/docker/y\n0::/\n"),
            [
                "/sys/fs/cgroup/memory/docker/y/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert!(directories("nonsense").is_empty());
    }

    #[test]
    fn what_the_kernel_takes_back_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("memory.max", "1000\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 300\nfile 400\ninactive_file 250\n");
        let mut group = control_groups("0::/\n").remove(0);
        group.directory = directory.path().to_owned();
        assert_eq!((group.limit(), group.free()), (Some(1000), Some(550)));
        write("memory.max", "max\n");
        assert_eq!((group.limit(), group.free()), (None, None));
    }

    #[test]
    fn bytes_in_words() {
        assert_eq!(shown(300 << 20), "300 MiB");
        assert_eq!(shown(20 << 30), "20 GiB");
    }
}
