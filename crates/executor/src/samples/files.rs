//! The files of control groups that say what is used, of both versions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Counter, Pressure, PressureLine, Resource, Sample};

/// The most that is read of one file; the longest, `memory.stat`, has about 3 KiB.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Processes of a group whose memory is added up where the group itself does not count it.
const MAX_PROCESSES: usize = 1024;
/// Nanoseconds of a tick, in which v1 counts: `USER_HZ` is 100 on all machines.
const TICK: u64 = 10_000_000;

/// Lines of a name and a number: file, name, what it counts, and by what it is multiplied.
const NAMED: [(&str, &str, Counter, u64); 39] = [
    ("cpu.stat", "usage_usec", Counter::CpuUsage, 1000),
    ("cpu.stat", "user_usec", Counter::CpuUser, 1000),
    ("cpu.stat", "system_usec", Counter::CpuSystem, 1000),
    ("cpu.stat", "nr_periods", Counter::CpuPeriods, 1),
    ("cpu.stat", "nr_throttled", Counter::CpuThrottledPeriods, 1),
    ("cpu.stat", "throttled_usec", Counter::CpuThrottled, 1000),
    ("memory.stat", "anon", Counter::MemoryAnon, 1),
    ("memory.stat", "file", Counter::MemoryFile, 1),
    ("memory.stat", "kernel_stack", Counter::MemoryKernelStack, 1),
    ("memory.stat", "pagetables", Counter::MemoryPageTables, 1),
    ("memory.stat", "sock", Counter::MemorySock, 1),
    ("memory.stat", "shmem", Counter::MemoryShmem, 1),
    ("memory.stat", "file_mapped", Counter::MemoryFileMapped, 1),
    ("memory.stat", "file_dirty", Counter::MemoryFileDirty, 1),
    (
        "memory.stat",
        "file_writeback",
        Counter::MemoryFileWriteback,
        1,
    ),
    ("memory.stat", "slab", Counter::MemorySlab, 1),
    ("memory.stat", "pgscan", Counter::MemoryPgscan, 1),
    ("memory.stat", "pgsteal", Counter::MemoryPgsteal, 1),
    ("memory.stat", "pgfault", Counter::MemoryPgfault, 1),
    ("memory.stat", "pgmajfault", Counter::MemoryPgmajfault, 1),
    ("memory.events", "low", Counter::MemoryLowEvents, 1),
    ("memory.events", "high", Counter::MemoryHighEvents, 1),
    ("memory.events", "max", Counter::MemoryMaxEvents, 1),
    ("memory.events", "oom", Counter::MemoryOomEvents, 1),
    ("memory.events", "oom_kill", Counter::MemoryOomKillEvents, 1),
    ("memory.peak", "", Counter::MemoryPeak, 1),
    ("memory.swap.current", "", Counter::MemorySwap, 1),
    ("pids.current", "", Counter::Pids, 1),
    // Version 1.
    ("cpu.stat", "throttled_time", Counter::CpuThrottled, 1),
    ("cpuacct.usage", "", Counter::CpuUsage, 1),
    ("cpuacct.stat", "user", Counter::CpuUser, TICK),
    ("cpuacct.stat", "system", Counter::CpuSystem, TICK),
    ("memory.stat", "rss", Counter::MemoryAnon, 1),
    ("memory.stat", "cache", Counter::MemoryFile, 1),
    ("memory.stat", "swap", Counter::MemorySwap, 1),
    ("memory.stat", "mapped_file", Counter::MemoryFileMapped, 1),
    ("memory.stat", "dirty", Counter::MemoryFileDirty, 1),
    ("memory.stat", "writeback", Counter::MemoryFileWriteback, 1),
    ("memory.max_usage_in_bytes", "", Counter::MemoryPeak, 1),
];

/// Lines about devices, whose numbers are added up: file, name, what it counts.
const PER_DEVICE: [(&str, &str, Counter); 10] = [
    ("io.stat", "rbytes", Counter::IoReadBytes),
    ("io.stat", "wbytes", Counter::IoWriteBytes),
    ("io.stat", "dbytes", Counter::IoDiscardBytes),
    ("io.stat", "rios", Counter::IoReads),
    ("io.stat", "wios", Counter::IoWrites),
    ("io.stat", "dios", Counter::IoDiscards),
    // Version 1.
    (
        "blkio.throttle.io_service_bytes",
        "Read",
        Counter::IoReadBytes,
    ),
    (
        "blkio.throttle.io_service_bytes",
        "Write",
        Counter::IoWriteBytes,
    ),
    ("blkio.throttle.io_serviced", "Read", Counter::IoReads),
    ("blkio.throttle.io_serviced", "Write", Counter::IoWrites),
];

const PRESSURE: [(&str, Resource); 3] = [
    ("cpu.pressure", Resource::Cpu),
    ("memory.pressure", Resource::Memory),
    ("io.pressure", Resource::Io),
];

/// What processes hold, as `memory.stat` counts it; files that are cached are not.
const HELD: [Counter; 4] = [
    Counter::MemoryAnon,
    Counter::MemoryShmem,
    Counter::MemoryKernelStack,
    Counter::MemoryPageTables,
];

/// The directories of a container's groups.
#[derive(Debug)]
pub(crate) struct GroupFiles {
    dirs: Vec<PathBuf>,
}

impl GroupFiles {
    /// The v2 directory comes first: what both versions count is taken of it.
    pub(crate) fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    /// Reads everything that is there.
    pub(crate) fn sample(&self, at: SystemTime) -> Sample {
        let mut sample = Sample {
            at,
            counters: BTreeMap::new(),
            pressure: BTreeMap::new(),
        };
        for dir in &self.dirs {
            let mut files = Files {
                dir,
                texts: BTreeMap::new(),
            };
            let counters = counters(&mut files, |_| true);
            for (counter, value) in counters {
                sample.counters.entry(counter).or_insert(value);
            }
            for (file, resource) in PRESSURE {
                if let Some(pressure) = files.text(file).and_then(pressure) {
                    sample.pressure.entry(resource).or_insert(pressure);
                }
            }
        }
        sample
    }

    /// Bytes of memory that all processes of the groups hold now.
    pub(crate) fn memory_held(&self) -> u64 {
        for dir in &self.dirs {
            let mut files = Files {
                dir,
                texts: BTreeMap::new(),
            };
            let counters = counters(&mut files, |counter| HELD.contains(&counter));
            if counters.contains_key(&Counter::MemoryAnon) {
                return counters
                    .values()
                    .fold(0, |sum: u64, n| sum.saturating_add(*n));
            }
        }
        // No group counts memory, so its processes are asked.
        let procs = self.dirs.first().map(|dir| dir.join("cgroup.procs"));
        let procs = procs.and_then(|file| read(&file)).unwrap_or_default();
        let process = |pid: &str| {
            let pid: u32 = pid.parse().ok()?;
            process_held(&read(Path::new(&format!("/proc/{pid}/status")))?)
        };
        procs
            .lines()
            .take(MAX_PROCESSES)
            .filter_map(process)
            .fold(0, u64::saturating_add)
    }
}

/// Files of a directory, each read once.
struct Files<'a> {
    dir: &'a Path,
    texts: BTreeMap<&'static str, Option<String>>,
}

impl Files<'_> {
    fn text(&mut self, file: &'static str) -> Option<&str> {
        let dir = self.dir;
        let text = self.texts.entry(file);
        text.or_insert_with(|| read(&dir.join(file))).as_deref()
    }
}

fn counters(files: &mut Files<'_>, is_wanted: impl Fn(Counter) -> bool) -> BTreeMap<Counter, u64> {
    let mut out = BTreeMap::new();
    for (file, name, counter, factor) in NAMED {
        if !is_wanted(counter) || out.contains_key(&counter) {
            continue;
        }
        if let Some(value) = files.text(file).and_then(|text| named(text, name)) {
            out.insert(counter, value.saturating_mul(factor));
        }
    }
    for (file, name, counter) in PER_DEVICE {
        if !is_wanted(counter) || out.contains_key(&counter) {
            continue;
        }
        if let Some(value) = files.text(file).and_then(|text| of_devices(text, name)) {
            out.insert(counter, value);
        }
    }
    out
}

pub(super) fn read(file: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(file).ok()?;
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The number of the line with this name; of the whole text where the name is empty.
pub(super) fn named(text: &str, name: &str) -> Option<u64> {
    if name.is_empty() {
        return text.trim().parse().ok();
    }
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

/// The sum over devices, as `8:0 rbytes=1 wbytes=2` or as `8:0 Read 1`.
fn of_devices(text: &str, name: &str) -> Option<u64> {
    let of_line = |line: &str| -> Option<u64> {
        let mut words = line.split_whitespace().skip(1);
        while let Some(word) = words.next() {
            let value = match word.split_once('=') {
                Some((key, value)) if key == name => value,
                None if word == name => words.next()?,
                _ => continue,
            };
            return value.parse().ok();
        }
        None
    };
    let mut values = text.lines().filter_map(of_line);
    let first = values.next()?;
    Some(values.fold(first, u64::saturating_add))
}

/// A pressure file; none if it says nothing.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let mut out = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let place = match words.next() {
            Some("some") => &mut out.some,
            Some("full") => &mut out.full,
            _ => continue,
        };
        let mut values = PressureLine::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => values.avg10 = hundredths(value)?,
                "avg60" => values.avg60 = hundredths(value)?,
                "avg300" => values.avg300 = hundredths(value)?,
                "total" => values.total = value.parse().ok()?,
                _ => {}
            }
        }
        *place = Some(values);
    }
    (out != Pressure::default()).then_some(out)
}

/// `12.34` as 1234. The kernel writes two places.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    let (whole, part): (u64, u64) = (whole.parse().ok()?, part.get(..2)?.parse().ok()?);
    whole.checked_mul(100)?.checked_add(part)
}

/// Bytes that a process holds, of its `/proc/PID/status`. Pages that it shares with its parent since a fork count for both.
fn process_held(status: &str) -> Option<u64> {
    let kibibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    let held = kibibytes("RssAnon:")?.saturating_add(kibibytes("RssShmem:").unwrap_or(0));
    held.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn sample(dirs: &[&tempfile::TempDir]) -> Sample {
        let dirs = dirs.iter().map(|dir| dir.path().to_owned()).collect();
        GroupFiles::new(dirs).sample(SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_group_with_all_controllers_is_read_completely() {
        let group = dir(&[
            (
                "cpu.stat",
                "usage_usec 7\nuser_usec 5\nsystem_usec 2\nnr_periods 3\nnr_throttled 1\nthrottled_usec 4\nnice_usec 9\n",
            ),
            (
                "cpu.pressure",
                "some avg10=0.00 avg60=1.20 avg300=100.00 total=12\nfull avg10=0.01 avg60=0.00 avg300=0.00 total=0\n",
            ),
            (
                "memory.stat",
                "anon 10\nfile 20\nkernel_stack 30\npagetables 40\nsock 50\nshmem 60\nfile_mapped 70\nfile_dirty 80\nfile_writeback 90\nslab 100\npgscan 110\npgsteal 120\npgfault 130\npgmajfault 140\nworkingset 1\n",
            ),
            ("memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\n"),
            ("memory.peak", "4096\n"),
            ("memory.swap.current", "0\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 rbytes=10 wbytes=20 rios=30 wios=40 dbytes=50 dios=60\n253:0 \n",
            ),
            ("pids.current", "2\n"),
        ]);
        let sample = sample(&[&group]);
        let values: Vec<u64> = sample.counters.values().copied().collect();
        // In the order of the counters.
        let cpu = [7000, 5000, 2000, 3, 1, 4000];
        let memory = [
            0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 4096, 1, 2, 3, 4, 5,
        ];
        let io = [11, 22, 55, 33, 44, 66];
        assert_eq!(values, [&cpu[..], &memory, &io, &[2]].concat());
        let some = PressureLine {
            avg60: 120,
            avg300: 10_000,
            total: 12,
            ..PressureLine::default()
        };
        let full = PressureLine {
            avg10: 1,
            ..PressureLine::default()
        };
        let pressure = Pressure {
            some: Some(some),
            full: Some(full),
        };
        assert_eq!(sample.pressure, [(Resource::Cpu, pressure)].into());
        let held = GroupFiles::new(vec![group.path().to_owned()]).memory_held();
        assert_eq!(held, 10 + 30 + 40 + 60);
    }

    #[test]
    fn groups_of_the_older_version_fill_in_what_the_newer_one_does_not_count() {
        let new = dir(&[("cpu.stat", "usage_usec 7\n")]);
        let old = dir(&[
            ("cpu.stat", "nr_periods 3\nthrottled_time 4\n"),
            ("cpuacct.usage", "99\n"),
            ("cpuacct.stat", "user 2\nsystem 1\n"),
            (
                "memory.stat",
                "cache 1\nrss 2\nmapped_file 3\nswap 4\ntotal_rss 2\n",
            ),
            ("memory.max_usage_in_bytes", "8192\n"),
            (
                "blkio.throttle.io_service_bytes",
                "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\n8:16 Read 10\nTotal 13\n",
            ),
        ]);
        let sample = sample(&[&new, &old]);
        let want = [
            (Counter::CpuUsage, 7000),
            (Counter::CpuUser, 20_000_000),
            (Counter::CpuSystem, 10_000_000),
            (Counter::CpuPeriods, 3),
            (Counter::CpuThrottled, 4),
            (Counter::MemorySwap, 4),
            (Counter::MemoryAnon, 2),
            (Counter::MemoryFile, 1),
            (Counter::MemoryFileMapped, 3),
            (Counter::MemoryPeak, 8192),
            (Counter::IoReadBytes, 11),
            (Counter::IoWriteBytes, 2),
        ];
        assert_eq!(sample.counters, want.into());
        assert!(sample.pressure.is_empty());
    }

    #[test]
    fn what_is_not_there_or_no_number_is_left_out() {
        let group = dir(&[
            ("cpu.stat", "usage_usec many\nuser_usec\n"),
            ("memory.peak", "max\n"),
            ("io.stat", "8:0\n8:1 rbytes=x\n"),
            (
                "io.pressure",
                "some avg10=much avg60=0.00 avg300=0.00 total=0\n",
            ),
            ("memory.pressure", ""),
        ]);
        for dirs in [&[][..], &[&group]] {
            let sample = sample(dirs);
            assert!(sample.counters.is_empty(), "{sample:?}");
            assert!(sample.pressure.is_empty(), "{sample:?}");
        }
    }

    #[test]
    fn processes_are_asked_where_no_group_counts_memory() {
        assert_eq!(
            process_held(
                "Name:\tx\nVmRSS:\t  99 kB\nRssAnon:\t   12 kB\nRssFile:\t 3 kB\nRssShmem:\t 4 kB\n"
            ),
            Some(16 << 10)
        );
        // A kernel thread has no memory of its own.
        assert_eq!(process_held("Name:\tkthreadd\n"), None);
        let own = format!("{}\n0\nx\n", std::process::id());
        let group = dir(&[("cgroup.procs", &own)]);
        let held = GroupFiles::new(vec![group.path().to_owned()]).memory_held();
        assert!(held > 0);
    }
}
