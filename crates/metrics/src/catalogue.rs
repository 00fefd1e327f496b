//! Every metric there is.
//!
//! Names are OpenTelemetry's (`buildkit.build.duration`); in Prometheus' form their dots are underscores and the unit and `_total`
//! are appended. Those that begin with `buildkit` and `rpc` are BuildKit's (`solver/llbsolver/metrics.go`, v0.34.2).
//!
//! DIFFERS: BuildKit's durations are native histograms; these have fixed buckets, which every scraper reads.

use crate::instrument::{Counter, Gauge, Histogram, Instrument, Kind};
use crate::labels::{
    BuildOutcome, BuildStatus, CacheKind, GcOutcome, NoLabels, Phase, RpcMethod, Signal, StepKind,
    StoreKind, Transfer,
};

/// Builds that ended.
pub static BUILDS: Counter<BuildOutcome, { BuildOutcome::COUNT }> = Counter::new();
/// Steps of builds that ended.
pub static BUILDS_STEPS: Counter<StepKind, { StepKind::COUNT }> = Counter::new();
/// How long builds took.
pub static BUILD_DURATION: Histogram<BuildStatus, { BuildStatus::COUNT }> = Histogram::new();
/// How long calls took.
pub static RPC_DURATION: Histogram<RpcMethod, { RpcMethod::COUNT }> = Histogram::new();
/// Builds that run.
pub static BUILDS_ACTIVE: Gauge<NoLabels, 1> = Gauge::new();
/// Builds that were refused because the daemon stops.
pub static BUILDS_REFUSED: Counter<NoLabels, 1> = Counter::new();
/// Steps that wait for their turn.
pub static STEPS_QUEUED: Gauge<NoLabels, 1> = Gauge::new();
/// Processes of steps that run.
pub static STEPS_RUNNING: Gauge<NoLabels, 1> = Gauge::new();
/// How long parts of builds took.
pub static PHASE_DURATION: Histogram<Phase, { Phase::COUNT }> = Histogram::new();
/// Results of vertices that did not have to run.
pub static CACHE_HITS: Counter<CacheKind, { CacheKind::COUNT }> = Counter::new();
/// Vertices that ran.
pub static CACHE_MISSES: Counter<NoLabels, 1> = Counter::new();
/// Bytes that were exchanged.
pub static TRANSFERRED: Counter<Transfer, { Transfer::COUNT }> = Counter::new();
/// Collections of garbage.
pub static GC_RUNS: Counter<GcOutcome, { GcOutcome::COUNT }> = Counter::new();
/// Bytes that collections freed.
pub static GC_FREED: Counter<NoLabels, 1> = Counter::new();
/// How long collections took.
pub static GC_DURATION: Histogram<NoLabels, 1> = Histogram::new();
/// The state directory, measured when the metrics are read.
pub static STORE_SIZE: Gauge<StoreKind, { StoreKind::COUNT }> = Gauge::new();
/// Connections of clients.
pub static CONNECTIONS: Gauge<NoLabels, 1> = Gauge::new();
/// 1 while the daemon stops.
pub static DRAINING: Gauge<NoLabels, 1> = Gauge::new();
/// What could not be sent to a collector.
pub static TELEMETRY_LOST: Counter<Signal, { Signal::COUNT }> = Counter::new();
/// Processor time of the process, measured when the metrics are read.
pub static CPU_TIME: Counter<NoLabels, 1> = Counter::new();
/// Resident memory of the process, measured when the metrics are read.
pub static RESIDENT_MEMORY: Gauge<NoLabels, 1> = Gauge::new();
/// Open descriptors of the process, measured when the metrics are read.
pub static OPEN_DESCRIPTORS: Gauge<NoLabels, 1> = Gauge::new();
/// When the process started, since 1970.
pub static START_TIME: Gauge<NoLabels, 1> = Gauge::new();

/// What a metric's numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    One,
    /// Time, kept in nanoseconds and told in seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// A metric.
#[derive(Clone, Copy)]
pub struct Family {
    /// Its name, with dots.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What it means, in one sentence without a period.
    pub help: &'static str,
    /// Where it is counted.
    pub instrument: &'static dyn Instrument,
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Family {
    const fn new(
        name: &'static str,
        unit: Unit,
        help: &'static str,
        instrument: &'static dyn Instrument,
    ) -> Self {
        Self {
            name,
            unit,
            help,
            instrument,
        }
    }

    /// The name in Prometheus' form.
    #[must_use]
    pub fn prometheus_name(&self) -> String {
        let mut name = self.name.replace('.', "_");
        name.push_str(match self.unit {
            Unit::One => "",
            Unit::Seconds => "_seconds",
            Unit::Bytes => "_bytes",
        });
        if self.instrument.kind() == Kind::Counter {
            name.push_str("_total");
        }
        name
    }
}

/// All metrics, in the order in which they are shown.
pub static FAMILIES: &[Family] = &[
    Family::new(
        "buildkit.builds",
        Unit::One,
        "Builds that ended, by how, and by the gRPC code of their error",
        &BUILDS,
    ),
    Family::new(
        "buildkit.builds.steps",
        Unit::One,
        "Steps and warnings of builds that ended and have a record",
        &BUILDS_STEPS,
    ),
    Family::new(
        "buildkit.build.duration",
        Unit::Seconds,
        "How long builds took, from request to end",
        &BUILD_DURATION,
    ),
    Family::new(
        "rpc.server.call.duration",
        Unit::Seconds,
        "How long calls of clients took until their answer began",
        &RPC_DURATION,
    ),
    Family::new(
        "rbuild.builds.active",
        Unit::One,
        "Builds that run now",
        &BUILDS_ACTIVE,
    ),
    Family::new(
        "rbuild.builds.refused",
        Unit::One,
        "Builds that were refused because the daemon is stopping",
        &BUILDS_REFUSED,
    ),
    Family::new(
        "rbuild.steps.queued",
        Unit::One,
        "Steps that wait for their turn or for room on the disk now",
        &STEPS_QUEUED,
    ),
    Family::new(
        "rbuild.steps.running",
        Unit::One,
        "Processes of steps that run now",
        &STEPS_RUNNING,
    ),
    Family::new(
        "rbuild.phase.duration",
        Unit::Seconds,
        "How long parts of builds took; export contains push",
        &PHASE_DURATION,
    ),
    Family::new(
        "rbuild.cache.hits",
        Unit::One,
        "Results that did not have to be made, by where they came from",
        &CACHE_HITS,
    ),
    Family::new(
        "rbuild.cache.misses",
        Unit::One,
        "Results that had to be made",
        &CACHE_MISSES,
    ),
    Family::new(
        "rbuild.transferred",
        Unit::Bytes,
        "Bytes that were exchanged with registries, servers of URLs and clients; not those of git and of steps",
        &TRANSFERRED,
    ),
    Family::new(
        "rbuild.gc.runs",
        Unit::One,
        "Collections of garbage, by how they ended",
        &GC_RUNS,
    ),
    Family::new(
        "rbuild.gc.freed",
        Unit::Bytes,
        "Bytes that collections of garbage freed",
        &GC_FREED,
    ),
    Family::new(
        "rbuild.gc.duration",
        Unit::Seconds,
        "How long collections of garbage took",
        &GC_DURATION,
    ),
    Family::new(
        "rbuild.store.size",
        Unit::Bytes,
        "Space of the state directory: used, the limit of the rules of collection (0 for none), and what the disk has free",
        &STORE_SIZE,
    ),
    Family::new(
        "rbuild.connections",
        Unit::One,
        "Connections of clients now",
        &CONNECTIONS,
    ),
    Family::new(
        "rbuild.draining",
        Unit::One,
        "1 while the daemon is stopping and takes no builds, else 0",
        &DRAINING,
    ),
    Family::new(
        "rbuild.telemetry.lost",
        Unit::One,
        "Spans and batches of metrics that could not be sent to a collector",
        &TELEMETRY_LOST,
    ),
    Family::new(
        "process.cpu",
        Unit::Seconds,
        "Processor time of the daemon, without that of steps",
        &CPU_TIME,
    ),
    Family::new(
        "process.resident_memory",
        Unit::Bytes,
        "Resident memory of the daemon, without that of steps",
        &RESIDENT_MEMORY,
    ),
    Family::new(
        "process.open_fds",
        Unit::One,
        "Open descriptors of the daemon",
        &OPEN_DESCRIPTORS,
    ),
    Family::new(
        "process.start_time",
        Unit::Seconds,
        "When the daemon started, in seconds since 1970",
        &START_TIME,
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_those_of_buildkit_are_in_its_prometheus_form() {
        let names: Vec<_> = FAMILIES.iter().map(Family::prometheus_name).collect();
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        for name in [
            "buildkit_builds_total",
            "buildkit_builds_steps_total",
            "buildkit_build_duration_seconds",
            "rpc_server_call_duration_seconds",
            "rbuild_phase_duration_seconds",
            "rbuild_transferred_bytes_total",
            "process_cpu_seconds_total",
        ] {
            assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
        }
    }

    #[test]
    fn a_metric_says_what_it_means() {
        for family in FAMILIES {
            let help = family.help;
            assert!(help.len() > 10 && !help.ends_with('.'), "{help}");
            assert!(!help.contains(['\n', '\\', '|']), "{help}");
        }
    }
}
