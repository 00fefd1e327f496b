//! What the whole machine does: `/proc/stat`, `/proc/meminfo` and `/proc/pressure`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use super::files::{named, pressure, read};
use super::{Pressure, Resource};

/// Processor time of the machine by kind, in hundredths of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are those of proc(5)")]
pub struct MachineTime {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    pub iowait: u64,
    pub irq: u64,
    pub softirq: u64,
    pub steal: u64,
    pub guest: u64,
    pub guest_nice: u64,
}

impl MachineTime {
    /// Since the machine was started; none if procfs does not say.
    pub fn now() -> Option<Self> {
        Self::parse(&read(Path::new("/proc/stat"))?)
    }

    /// Reads the first line of `/proc/stat`.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let mut numbers = line.split_whitespace().map(str::parse);
        // Older kernels have fewer.
        let mut next = || numbers.next().unwrap_or(Ok(0)).ok();
        Some(Self {
            user: next()?,
            nice: next()?,
            system: next()?,
            idle: next()?,
            iowait: next()?,
            irq: next()?,
            softirq: next()?,
            steal: next()?,
            guest: next()?,
            guest_nice: next()?,
        })
    }

    /// What has come since `start`. Counters of single kinds may go back by a little.
    #[must_use]
    pub fn since(&self, start: &Self) -> Self {
        Self {
            user: self.user.saturating_sub(start.user),
            nice: self.nice.saturating_sub(start.nice),
            system: self.system.saturating_sub(start.system),
            idle: self.idle.saturating_sub(start.idle),
            iowait: self.iowait.saturating_sub(start.iowait),
            irq: self.irq.saturating_sub(start.irq),
            softirq: self.softirq.saturating_sub(start.softirq),
            steal: self.steal.saturating_sub(start.steal),
            guest: self.guest.saturating_sub(start.guest),
            guest_nice: self.guest_nice.saturating_sub(start.guest_nice),
        }
    }
}

/// Names of `/proc/meminfo` in the order of [`MachineSample::memory`].
pub const MEMORY: [&str; 11] = [
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "Active",
    "Inactive",
    "SwapTotal",
    "Dirty",
    "Writeback",
    "Slab",
];

/// What the machine does at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSample {
    /// When.
    pub at: SystemTime,
    /// Processor time since its start.
    pub time: Option<MachineTime>,
    /// Switches between processes since its start.
    pub context_switches: u64,
    /// Processes that have been made since its start.
    pub processes_made: u64,
    /// Processes that run or could run.
    pub processes_running: u64,
    /// The values of [`MEMORY`], in KiB; none for what the kernel does not say.
    pub memory: [Option<u64>; MEMORY.len()],
    /// What its processes wait for.
    pub pressure: BTreeMap<Resource, Pressure>,
}

impl MachineSample {
    /// Looks at the machine. What procfs does not say is left out.
    #[must_use]
    pub fn now() -> Self {
        let text = |file: &str| read(Path::new(file)).unwrap_or_default();
        let resources = [
            (Resource::Cpu, "/proc/pressure/cpu"),
            (Resource::Memory, "/proc/pressure/memory"),
            (Resource::Io, "/proc/pressure/io"),
        ];
        let pressures = resources
            .into_iter()
            .filter_map(|(resource, file)| Some((resource, pressure(&text(file))?)));
        Self {
            pressure: pressures.collect(),
            ..Self::parse(
                task::clock::wall(),
                &text("/proc/stat"),
                &text("/proc/meminfo"),
            )
        }
    }

    fn parse(at: SystemTime, stat: &str, meminfo: &str) -> Self {
        let count = |name| named(stat, name).unwrap_or(0);
        let kibibytes = |name: &str| {
            let line = meminfo.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key == name).then_some(value)
            })?;
            line.trim().strip_suffix(" kB")?.trim().parse().ok()
        };
        Self {
            at,
            time: MachineTime::parse(stat),
            context_switches: count("ctxt"),
            processes_made: count("processes"),
            processes_running: count("procs_running"),
            memory: MEMORY.map(kibibytes),
            pressure: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_as_procfs_shows_it() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 99 1\nctxt 11\nbtime 5\nprocesses 12\nprocs_running 13\n";
        let meminfo = "MemTotal:       100 kB\nMemFree:  20 kB\nActive:  30 kB\nActive(anon):  31 kB\nHugePages_Total:  0\n";
        let sample = MachineSample::parse(SystemTime::UNIX_EPOCH, stat, meminfo);
        let time = sample.time.unwrap();
        assert_eq!((time.user, time.idle, time.guest_nice), (1, 4, 10));
        assert_eq!(
            (
                sample.context_switches,
                sample.processes_made,
                sample.processes_running
            ),
            (11, 12, 13)
        );
        assert_eq!(
            (
                sample.memory[0],
                sample.memory[1],
                sample.memory[2],
                sample.memory[5]
            ),
            (Some(100), Some(20), None, Some(30))
        );
        let older = MachineTime::parse("cpu  5 6 7 8\n").unwrap();
        assert_eq!((older.system, older.steal), (7, 0));
        let passed = time.since(&older);
        assert_eq!((passed.user, passed.iowait), (0, 5));
        assert_eq!(MachineTime::parse("intr 1\n"), None);
        assert_eq!(MachineTime::parse("cpu  x\n"), None);
    }

    #[test]
    fn this_machine_has_memory_and_a_processor() {
        let sample = MachineSample::now();
        assert!(sample.memory[0].unwrap() > 0);
        assert!(sample.time.unwrap().idle > 0 || sample.time.unwrap().user > 0);
    }
}
