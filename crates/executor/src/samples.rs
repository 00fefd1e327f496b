//! What a container uses while it runs: samples of the files of its control groups, and of the machine.
//!
//! ```text
//!  run ── every 2 s, then more seldom ──► Sample: counters, pressure ─┐
//!    └── every 100 ms, then more seldom ─► memory held ──► the most   ├──► Samples
//!    └── at the end ─────────────────────► Sample ────────────────────┘
//! ```
//!
//! A file that the host does not have leaves its counters out: a v2 group without controllers still counts processor time. Facts of
//! `executor/resources` of BuildKit v0.34.2, which samples nothing where v2 is not the only hierarchy.

mod files;
pub mod machine;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use files::GroupFiles;
use machine::MachineTime;

/// The shortest time between two samples that are kept.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// So many intervals after the start of a container, the interval doubles.
const INTERVALS_BEFORE_DOUBLING: u32 = 10;
/// The first pause before memory is looked at; each is twice the one before, up to [`MAX_MEMORY_PAUSE`].
const FIRST_MEMORY_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before memory is looked at.
const MAX_MEMORY_PAUSE: Duration = Duration::from_secs(1);

/// A number that control groups count, in the order in which BuildKit writes them down. Times are nanoseconds, sizes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of the kernel's files")]
pub enum Counter {
    CpuUsage,
    CpuUser,
    CpuSystem,
    CpuPeriods,
    CpuThrottledPeriods,
    CpuThrottled,
    MemorySwap,
    MemoryAnon,
    MemoryFile,
    MemoryKernelStack,
    MemoryPageTables,
    MemorySock,
    MemoryShmem,
    MemoryFileMapped,
    MemoryFileDirty,
    MemoryFileWriteback,
    MemorySlab,
    MemoryPgscan,
    MemoryPgsteal,
    MemoryPgfault,
    MemoryPgmajfault,
    MemoryPeak,
    MemoryLowEvents,
    MemoryHighEvents,
    MemoryMaxEvents,
    MemoryOomEvents,
    MemoryOomKillEvents,
    IoReadBytes,
    IoWriteBytes,
    IoDiscardBytes,
    IoReads,
    IoWrites,
    IoDiscards,
    Pids,
}

/// What processes can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of the kernel's files")]
pub enum Resource {
    Cpu,
    Memory,
    Io,
}

/// How much processes wait for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// Some of them waited.
    pub some: Option<PressureLine>,
    /// All of them waited.
    pub full: Option<PressureLine>,
}

/// One line of a pressure file. Averages are hundredths of a per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PressureLine {
    /// Share of the last 10 seconds.
    pub avg10: u64,
    /// Share of the last minute.
    pub avg60: u64,
    /// Share of the last 5 minutes.
    pub avg300: u64,
    /// Microseconds in all.
    pub total: u64,
}

/// What a container had used at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: SystemTime,
    /// What its groups count.
    pub counters: BTreeMap<Counter, u64>,
    /// What its processes wait for.
    pub pressure: BTreeMap<Resource, Pressure>,
}

/// What a container used while it ran.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Samples {
    /// In the order of time, the last one of its end; empty if it had no control group.
    pub samples: Vec<Sample>,
    /// Processor time of the whole machine meanwhile.
    pub machine: Option<MachineTime>,
    /// Most memory that all its processes held at once, as far as it was looked at, in bytes: cached files, which give way, are not in it.
    pub memory_held: u64,
}

/// Samples from all of a time, in bounded number: the longer it lasts, the longer is the interval between them.
#[derive(Debug)]
pub struct Series<T> {
    samples: Vec<T>,
    start: Instant,
    /// When the latest sample was kept; the start before that.
    kept: Instant,
    interval: Duration,
    /// So many intervals after the start, the interval doubles.
    doubling: u32,
}

impl<T> Series<T> {
    /// Begins at `start`; the interval of [`SAMPLE_INTERVAL`] doubles after each `doubling` of them.
    #[must_use]
    pub fn new(start: Instant, doubling: u32) -> Self {
        Self {
            samples: Vec::new(),
            start,
            kept: start,
            interval: SAMPLE_INTERVAL,
            doubling,
        }
    }

    /// Whether it is time for the next sample.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        now.duration_since(self.kept) >= self.interval
    }

    /// Keeps a sample; of those before it every other one goes when the interval doubles.
    pub fn push(&mut self, sample: T, now: Instant) {
        self.samples.push(sample);
        self.kept = now;
        if now.duration_since(self.start) >= self.interval * self.doubling {
            self.interval *= 2;
            let mut at = 0;
            self.samples.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        }
    }

    /// All that is kept, in the order of time.
    #[must_use]
    pub fn into_samples(self) -> Vec<T> {
        self.samples
    }
}

/// Waits for `run`, which runs a container, and takes samples of its groups meanwhile.
pub(crate) async fn while_running<T>(
    dirs: Vec<PathBuf>,
    run: impl Future<Output = T>,
) -> (T, Samples) {
    let mut sampler = Sampler::new(dirs);
    let outcome = tokio::select! {
        outcome = run => outcome,
        never = sampler.run() => match never {},
    };
    let samples = task::blocking("last sample", move || sampler.finish()).await;
    (outcome, samples)
}

/// Takes samples of a container while it runs.
#[derive(Debug)]
struct Sampler {
    files: Arc<GroupFiles>,
    start: Option<MachineTime>,
    series: Series<Sample>,
    memory_held: u64,
}

impl Sampler {
    /// Begins with a container whose groups have these directories.
    fn new(dirs: Vec<PathBuf>) -> Self {
        Self {
            files: Arc::new(GroupFiles::new(dirs)),
            start: MachineTime::now(),
            series: Series::new(task::clock::monotonic(), INTERVALS_BEFORE_DOUBLING),
            memory_held: 0,
        }
    }

    /// Takes samples until it is dropped.
    async fn run(&mut self) -> Infallible {
        if self.files.is_empty() {
            return std::future::pending().await;
        }
        let mut pause = FIRST_MEMORY_PAUSE;
        loop {
            task::clock::sleep(pause).await;
            pause = (pause * 2).min(MAX_MEMORY_PAUSE);
            let now = task::clock::monotonic();
            let is_due = self.series.is_due(now);
            let files = Arc::clone(&self.files);
            let at = task::clock::wall();
            let read = move || (files.memory_held(), is_due.then(|| files.sample(at)));
            let (memory_held, sample) = task::blocking("sample", read).await;
            self.memory_held = self.memory_held.max(memory_held);
            if let Some(sample) = sample {
                self.series.push(sample, now);
            }
        }
    }

    /// Takes the last sample, while the groups are still there.
    fn finish(self) -> Samples {
        let last = self.files.sample(task::clock::wall());
        let mut samples = self.series.into_samples();
        // Groups that are gone already say nothing.
        if !last.counters.is_empty() || !last.pressure.is_empty() {
            samples.push(last);
        }
        let machine = match (self.start, MachineTime::now()) {
            (Some(start), Some(end)) => Some(end.since(&start)),
            _ => None,
        };
        Samples {
            samples,
            machine,
            memory_held: self.memory_held,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(dir: &std::path::Path) -> Sampler {
        Sampler::new(vec![dir.to_owned()])
    }

    #[test]
    fn a_run_of_any_length_keeps_few_samples_from_all_of_it() {
        for (seconds, interval) in [(10_u32, 2), (30, 4), (300, 32), (86_400, 16_384)] {
            let start = task::clock::monotonic();
            let mut series = Series::new(start, INTERVALS_BEFORE_DOUBLING);
            for second in 1..=seconds {
                let now = start + Duration::from_secs(second.into());
                if series.is_due(now) {
                    series.push(second, now);
                }
            }
            assert_eq!(series.interval.as_secs(), interval, "{seconds}");
            let samples = series.into_samples();
            assert!((2..=10).contains(&samples.len()), "{seconds}: {samples:?}");
            assert!(
                samples.is_sorted() && samples[0] <= seconds / 2,
                "{samples:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_looked_at_while_a_container_runs() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("memory.stat"), "anon 4096\nshmem 100\n").unwrap();
        let mut sampler = sampler(dir.path());
        // Paused time goes on while nobody works, so a sample is taken before the time is over.
        let outcome = tokio::time::timeout(Duration::from_millis(150), sampler.run()).await;
        assert!(outcome.is_err());
        std::fs::write(dir.path().join("memory.stat"), "anon 1\n").unwrap();
        let samples = sampler.finish();
        assert_eq!(samples.memory_held, 4196);
        assert_eq!(samples.samples.len(), 1);
        assert_eq!(samples.samples[0].counters[&Counter::MemoryAnon], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_without_a_group_has_no_samples() {
        let mut sampler = Sampler::new(Vec::new());
        let outcome = tokio::time::timeout(Duration::from_secs(60), sampler.run()).await;
        assert!(outcome.is_err());
        let samples = sampler.finish();
        assert_eq!((samples.samples.len(), samples.memory_held), (0, 0));
    }
}
