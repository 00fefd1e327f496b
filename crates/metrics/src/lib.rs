//! What is counted for operators.
//!
//! | module | what it does |
//! |---|---|
//! | [`instrument`] | counters, gauges and histograms: fixed arrays of atomics |
//! | [`labels`] | the values that labels may have, as enums |
//! | [`catalogue`] | every metric there is: name, unit, meaning, where it is counted |
//! | [`text`] | Prometheus' text form, and the table of the documentation |
//!
//! # Invariants
//! - Counting is one atomic addition for a counter or gauge and two for a histogram: no lock, no allocation, no wait. Only reading
//!   allocates.
//! - A label has the values of its enum and no others, so that a client cannot make series.
//! - The metrics are those of the process: tenants of one daemon share them, and nothing in here names one.

pub mod catalogue;
pub mod instrument;
pub mod labels;
pub mod text;

pub use catalogue::{
    BUILD_DURATION, BUILDS, BUILDS_ACTIVE, BUILDS_REFUSED, BUILDS_STEPS, CACHE_HITS, CACHE_MISSES,
    CONNECTIONS, CPU_TIME, DRAINING, FAMILIES, Family, GC_DURATION, GC_FREED, GC_RUNS,
    OPEN_DESCRIPTORS, PHASE_DURATION, RESIDENT_MEMORY, RPC_DURATION, START_TIME, STEPS_QUEUED,
    STEPS_RUNNING, STORE_SIZE, TELEMETRY_LOST, TRANSFERRED, Unit,
};
pub use instrument::{
    Counter, Follower, Gauge, GaugeGuard, Histogram, Instrument, Kind, Sample, Value,
};
pub use labels::{
    BuildOutcome, BuildStatus, CacheKind, GcOutcome, Labels, NoLabels, Phase, RpcMethod, Signal,
    StepKind, StoreKind, Transfer,
};
