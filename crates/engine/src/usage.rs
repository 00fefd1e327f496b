//! What steps and the machine used, in the shape that BuildKit gives it in provenance.
//!
//! Facts: `executor/resources/types` of BuildKit v0.34.2. Counters of events are left out when they are zero, and everything is that a
//! machine does not count.

use std::sync::Arc;
use std::time::SystemTime;

use attest::UsageValue;
use executor::Samples;
use executor::samples::machine::{MEMORY, MachineSample, MachineTime};
use executor::samples::{
    Counter, Pressure, PressureLine, Resource, SAMPLE_INTERVAL, Sample, Series,
};
use parking_lot::Mutex;

type Fields = Vec<(&'static str, UsageValue)>;

/// So many intervals after the start of a build, samples of the machine are kept half as often.
const INTERVALS_BEFORE_DOUBLING: u32 = 20;

/// A group of fields: its name, the counters in it, and what its processes wait for.
type Group<'a> = (
    &'static str,
    &'a [(Counter, &'static str)],
    Option<Resource>,
);

const GROUPS: [Group<'_>; 4] = [
    (
        "cpuStat",
        &[
            (Counter::CpuUsage, "usageNanos"),
            (Counter::CpuUser, "userNanos"),
            (Counter::CpuSystem, "systemNanos"),
            (Counter::CpuPeriods, "nrPeriods"),
            (Counter::CpuThrottledPeriods, "nrThrottled"),
            (Counter::CpuThrottled, "throttledNanos"),
        ],
        Some(Resource::Cpu),
    ),
    (
        "memoryStat",
        &[
            (Counter::MemorySwap, "swapBytes"),
            (Counter::MemoryAnon, "anon"),
            (Counter::MemoryFile, "file"),
            (Counter::MemoryKernelStack, "kernelStack"),
            (Counter::MemoryPageTables, "pageTables"),
            (Counter::MemorySock, "sock"),
            (Counter::MemoryShmem, "shmem"),
            (Counter::MemoryFileMapped, "fileMapped"),
            (Counter::MemoryFileDirty, "fileDirty"),
            (Counter::MemoryFileWriteback, "fileWriteback"),
            (Counter::MemorySlab, "slab"),
            (Counter::MemoryPgscan, "pgscan"),
            (Counter::MemoryPgsteal, "pgsteal"),
            (Counter::MemoryPgfault, "pgfault"),
            (Counter::MemoryPgmajfault, "pgmajfault"),
            (Counter::MemoryPeak, "peak"),
            (Counter::MemoryLowEvents, "lowEvents"),
            (Counter::MemoryHighEvents, "highEvents"),
            (Counter::MemoryMaxEvents, "maxEvents"),
            (Counter::MemoryOomEvents, "oomEvents"),
            (Counter::MemoryOomKillEvents, "oomKillEvents"),
        ],
        Some(Resource::Memory),
    ),
    (
        "ioStat",
        &[
            (Counter::IoReadBytes, "readBytes"),
            (Counter::IoWriteBytes, "writeBytes"),
            (Counter::IoDiscardBytes, "discardBytes"),
            (Counter::IoReads, "readIOs"),
            (Counter::IoWrites, "writeIOs"),
            (Counter::IoDiscards, "discardIOs"),
        ],
        Some(Resource::Io),
    ),
    ("pidsStat", &[(Counter::Pids, "current")], None),
];

/// Counters that are left out when they are zero.
fn is_event(counter: Counter) -> bool {
    (Counter::MemoryLowEvents..=Counter::MemoryOomKillEvents).contains(&counter)
}

/// What a step used; none if nothing is known.
pub(crate) fn of_step(samples: &Samples) -> Option<UsageValue> {
    if samples.samples.is_empty() {
        return None;
    }
    let list = samples.samples.iter().map(sample).collect();
    let mut fields: Fields = vec![("samples", UsageValue::List(list))];
    fields.extend(samples.machine.as_ref().map(|it| ("sysCPUStat", time(it))));
    Some(UsageValue::Object(fields))
}

fn timestamp(at: SystemTime) -> UsageValue {
    UsageValue::Time(exporter::Timestamp::from(at).to_string())
}

fn sample(sample: &Sample) -> UsageValue {
    let mut fields: Fields = vec![("timestamp", timestamp(sample.at))];
    for (name, counters, resource) in GROUPS {
        let value = |(counter, name): &(Counter, &'static str)| {
            let value = *sample.counters.get(counter)?;
            (value != 0 || !is_event(*counter)).then_some((*name, UsageValue::Count(value)))
        };
        let mut group: Fields = counters.iter().filter_map(value).collect();
        let pressure = resource.and_then(|resource| sample.pressure.get(&resource));
        group.extend(pressure.map(|it| ("pressure", self::pressure(it))));
        if !group.is_empty() {
            fields.push((name, UsageValue::Object(group)));
        }
    }
    UsageValue::Object(fields)
}

fn pressure(pressure: &Pressure) -> UsageValue {
    let line = |line: &Option<PressureLine>| match line {
        None => UsageValue::Null,
        Some(line) => UsageValue::Object(vec![
            ("avg10", UsageValue::Hundredths(line.avg10)),
            ("avg60", UsageValue::Hundredths(line.avg60)),
            ("avg300", UsageValue::Hundredths(line.avg300)),
            ("total", UsageValue::Count(line.total)),
        ]),
    };
    UsageValue::Object(vec![
        ("some", line(&pressure.some)),
        ("full", line(&pressure.full)),
    ])
}

/// Processor time in seconds.
fn time(time: &MachineTime) -> UsageValue {
    let fields = [
        ("user", time.user),
        ("nice", time.nice),
        ("system", time.system),
        ("idle", time.idle),
        ("iowait", time.iowait),
        ("irq", time.irq),
        ("softirq", time.softirq),
        ("steal", time.steal),
        ("guest", time.guest),
        ("guestNice", time.guest_nice),
    ];
    let fields = fields.map(|(name, ticks)| (name, UsageValue::Hundredths(ticks)));
    UsageValue::Object(fields.into())
}

/// The names of [`MEMORY`].
const MEMORY_NAMES: [&str; MEMORY.len()] = [
    "total",
    "free",
    "available",
    "buffers",
    "cached",
    "active",
    "inactive",
    "swap",
    "dirty",
    "writeback",
    "slab",
];

fn of_machine(sample: &MachineSample) -> UsageValue {
    let mut fields: Fields = vec![("timestamp", timestamp(sample.at))];
    fields.extend(sample.time.as_ref().map(|it| ("cpuStat", time(it))));
    let processes = vec![
        (
            "contextSwitches",
            UsageValue::Count(sample.context_switches),
        ),
        ("processCreated", UsageValue::Count(sample.processes_made)),
        (
            "processesRunning",
            UsageValue::Count(sample.processes_running),
        ),
    ];
    fields.push(("procStat", UsageValue::Object(processes)));
    let memory = MEMORY_NAMES.iter().zip(sample.memory);
    let memory = memory.map(|(name, value)| {
        let value = value.map_or(UsageValue::Null, UsageValue::Count);
        (*name, value)
    });
    fields.push(("memoryStat", UsageValue::Object(memory.collect())));
    for (resource, name) in [
        (Resource::Cpu, "cpuPressure"),
        (Resource::Memory, "memoryPressure"),
        (Resource::Io, "ioPressure"),
    ] {
        let pressure = sample.pressure.get(&resource);
        fields.extend(pressure.map(|it| (name, self::pressure(it))));
    }
    UsageValue::Object(fields)
}

/// Takes samples of the machine from when it is made until it is dropped.
pub(crate) struct MachineSampler {
    series: Arc<Mutex<Series<MachineSample>>>,
    _task: task::Task<()>,
}

impl MachineSampler {
    /// Begins.
    pub(crate) fn start() -> Self {
        let series = Series::new(task::clock::monotonic(), INTERVALS_BEFORE_DOUBLING);
        let series = Arc::new(Mutex::new(series));
        let sampled = Arc::clone(&series);
        let task = task::spawn("machine samples", async move {
            loop {
                task::clock::sleep(SAMPLE_INTERVAL).await;
                let now = task::clock::monotonic();
                if sampled.lock().is_due(now) {
                    let sample = task::blocking("machine sample", MachineSample::now).await;
                    sampled.lock().push(sample, now);
                }
            }
        });
        Self {
            series,
            _task: task,
        }
    }

    /// Ends with one more sample. Returns all.
    pub(crate) async fn finish(self) -> Vec<UsageValue> {
        let last = task::blocking("machine sample", MachineSample::now).await;
        let empty = Series::new(task::clock::monotonic(), INTERVALS_BEFORE_DOUBLING);
        let mut samples = std::mem::replace(&mut *self.series.lock(), empty).into_samples();
        samples.push(last);
        samples.iter().map(of_machine).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &UsageValue) -> String {
        String::from_utf8(gostd::json::to_vec(value)).unwrap()
    }

    #[test]
    fn a_step_has_the_fields_of_the_reference() {
        let line = PressureLine {
            avg10: 150,
            total: 7,
            ..PressureLine::default()
        };
        let pressure = Pressure {
            some: Some(line),
            full: None,
        };
        let first = Sample {
            at: SystemTime::UNIX_EPOCH,
            counters: [
                (Counter::CpuUsage, 5),
                (Counter::MemoryAnon, 0),
                (Counter::MemoryOomEvents, 0),
                (Counter::MemoryOomKillEvents, 1),
            ]
            .into(),
            pressure: [(Resource::Io, pressure)].into(),
        };
        let machine = MachineTime {
            user: 150,
            idle: 200,
            ..MachineTime::default()
        };
        let mut samples = Samples {
            samples: vec![first],
            machine: Some(machine),
            memory_held: 9,
        };
        assert_eq!(
            text(&of_step(&samples).unwrap()),
            r#"{"samples":[{"timestamp":"1970-01-01T00:00:00Z","cpuStat":{"usageNanos":5},"memoryStat":{"anon":0,"oomKillEvents":1},"ioStat":{"pressure":{"some":{"avg10":1.5,"avg60":0,"avg300":0,"total":7},"full":null}}}],"sysCPUStat":{"user":1.5,"nice":0,"system":0,"idle":2,"iowait":0,"irq":0,"softirq":0,"steal":0,"guest":0,"guestNice":0}}"#
        );
        samples.samples.clear();
        assert_eq!(of_step(&samples), None);
    }

    #[tokio::test]
    async fn a_build_of_any_length_has_a_sample_of_the_machine() {
        let samples = MachineSampler::start().finish().await;
        let [sample] = &samples[..] else {
            panic!("{samples:?}");
        };
        let text = text(sample);
        for field in [
            "\"timestamp\":\"",
            "\"cpuStat\":{\"user\":",
            "\"procStat\":{\"contextSwitches\":",
            "\"memoryStat\":{\"total\":",
        ] {
            assert!(text.contains(field), "{field} in {text}");
        }
    }
}
