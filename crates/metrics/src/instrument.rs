//! Counters, gauges and histograms.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::labels::{Labels, Pair};

/// Upper bounds of the buckets of histograms, in nanoseconds: from a millisecond to an hour. The last bucket has none.
pub const BOUNDS: [u64; 16] = [
    1_000_000,
    5_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
    300_000_000_000,
    900_000_000_000,
    3_600_000_000_000,
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// What sort of instrument it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// How often durations fell into ranges.
    Histogram,
}

/// One series of a metric, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its labels.
    pub labels: &'static [Pair],
    /// Its value.
    pub value: Value,
}

/// The value of a series. Durations are nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(i64),
    /// Of a histogram.
    Histogram {
        /// How many fell into each bucket of [`BOUNDS`]; the last is of those above all bounds.
        buckets: Vec<u64>,
        /// The sum of all.
        sum: u64,
    },
}

/// What can be read of an instrument.
pub trait Instrument: Sync {
    /// What sort it is.
    fn kind(&self) -> Kind;
    /// Its series.
    fn samples(&self) -> Vec<Sample>;
}

/// Compiles only if there is a cell for each member of the labels.
const fn check<L: Labels, const N: usize>() {
    assert!(
        L::PAIRS.len() == N,
        "an instrument has one series for each member of its labels"
    );
}

fn samples<L: Labels>(values: impl Iterator<Item = Value>) -> Vec<Sample> {
    let labels = L::PAIRS.iter();
    labels
        .zip(values)
        .map(|(labels, value)| Sample { labels, value })
        .collect()
}

/// Numbers that only grow, one for each of `N` members of `L`.
#[derive(Debug)]
pub struct Counter<L, const N: usize> {
    cells: [AtomicU64; N],
    labels: PhantomData<fn(L)>,
}

impl<L: Labels, const N: usize> Counter<L, N> {
    /// All are 0.
    #[must_use]
    pub const fn new() -> Self {
        const { check::<L, N>() };
        Self {
            cells: [const { AtomicU64::new(0) }; N],
            labels: PhantomData,
        }
    }

    /// Adds `count`.
    pub fn add(&self, labels: L, count: u64) {
        if let Some(cell) = self.cells.get(labels.index()) {
            cell.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Takes over a number that is counted elsewhere, such as by the kernel; a smaller one than before changes nothing.
    pub fn raise(&self, labels: L, to: u64) {
        if let Some(cell) = self.cells.get(labels.index()) {
            cell.fetch_max(to, Ordering::Relaxed);
        }
    }

    /// Counts what a total that begins at 0 grows by.
    pub fn follow(&'static self, labels: L) -> Follower {
        Follower {
            cell: self.cells.get(labels.index()),
            counted: AtomicU64::new(0),
        }
    }

    /// The number now.
    pub fn get(&self, labels: L) -> u64 {
        let cell = self.cells.get(labels.index());
        cell.map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

impl<L: Labels, const N: usize> Default for Counter<L, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Labels, const N: usize> Instrument for Counter<L, N> {
    fn kind(&self) -> Kind {
        Kind::Counter
    }

    fn samples(&self) -> Vec<Sample> {
        let cells = self.cells.iter();
        samples::<L>(cells.map(|cell| Value::Counter(cell.load(Ordering::Relaxed))))
    }
}

/// Counts what a running total grows by.
#[derive(Debug)]
pub struct Follower {
    cell: Option<&'static AtomicU64>,
    counted: AtomicU64,
}

impl Follower {
    /// The total is `total` now; a smaller one than before counts nothing.
    pub fn reach(&self, total: u64) {
        let before = self.counted.fetch_max(total, Ordering::Relaxed);
        if let Some(cell) = self.cell {
            cell.fetch_add(total.saturating_sub(before), Ordering::Relaxed);
        }
    }
}

/// Numbers that go up and down, one for each of `N` members of `L`.
#[derive(Debug)]
pub struct Gauge<L, const N: usize> {
    cells: [AtomicI64; N],
    labels: PhantomData<fn(L)>,
}

impl<L: Labels, const N: usize> Gauge<L, N> {
    /// All are 0.
    #[must_use]
    pub const fn new() -> Self {
        const { check::<L, N>() };
        Self {
            cells: [const { AtomicI64::new(0) }; N],
            labels: PhantomData,
        }
    }

    /// Sets the number.
    pub fn set(&self, labels: L, to: i64) {
        if let Some(cell) = self.cells.get(labels.index()) {
            cell.store(to, Ordering::Relaxed);
        }
    }

    /// Counts one more until the guard is dropped.
    #[must_use = "the number goes down again when the guard is dropped"]
    pub fn enter(&'static self, labels: L) -> GaugeGuard {
        let cell = self.cells.get(labels.index());
        if let Some(cell) = cell {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        GaugeGuard(cell)
    }

    /// The number now.
    pub fn get(&self, labels: L) -> i64 {
        let cell = self.cells.get(labels.index());
        cell.map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

impl<L: Labels, const N: usize> Default for Gauge<L, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Labels, const N: usize> Instrument for Gauge<L, N> {
    fn kind(&self) -> Kind {
        Kind::Gauge
    }

    fn samples(&self) -> Vec<Sample> {
        let cells = self.cells.iter();
        samples::<L>(cells.map(|cell| Value::Gauge(cell.load(Ordering::Relaxed))))
    }
}

/// Counts for one at a gauge until it is dropped.
#[derive(Debug)]
pub struct GaugeGuard(Option<&'static AtomicI64>);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        if let Some(cell) = self.0 {
            cell.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// How often durations fell into the ranges of [`BOUNDS`], for each of `N` members of `L`.
#[derive(Debug)]
pub struct Histogram<L, const N: usize> {
    cells: [Buckets; N],
    labels: PhantomData<fn(L)>,
}

#[derive(Debug)]
struct Buckets {
    counts: [AtomicU64; BUCKETS],
    /// Nanoseconds; wraps after 584 years.
    sum: AtomicU64,
}

impl<L: Labels, const N: usize> Histogram<L, N> {
    /// Nothing was observed.
    #[must_use]
    pub const fn new() -> Self {
        const { check::<L, N>() };
        Self {
            cells: [const {
                Buckets {
                    counts: [const { AtomicU64::new(0) }; BUCKETS],
                    sum: AtomicU64::new(0),
                }
            }; N],
            labels: PhantomData,
        }
    }

    /// Counts a duration.
    pub fn observe(&self, labels: L, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanos);
        if let Some(cell) = self.cells.get(labels.index())
            && let Some(count) = cell.counts.get(bucket)
        {
            count.fetch_add(1, Ordering::Relaxed);
            cell.sum.fetch_add(nanos, Ordering::Relaxed);
        }
    }
}

impl<L: Labels, const N: usize> Default for Histogram<L, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Labels, const N: usize> Instrument for Histogram<L, N> {
    fn kind(&self) -> Kind {
        Kind::Histogram
    }

    fn samples(&self) -> Vec<Sample> {
        samples::<L>(self.cells.iter().map(|cell| {
            let counts = cell.counts.iter();
            Value::Histogram {
                buckets: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
                sum: cell.sum.load(Ordering::Relaxed),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::{BuildStatus, CacheKind, NoLabels};

    #[test]
    fn a_counter_counts_each_member_by_itself_and_never_goes_back() {
        let counter = Counter::<CacheKind, { CacheKind::COUNT }>::new();
        counter.add(CacheKind::Imported, 2);
        counter.add(CacheKind::Imported, 1);
        counter.raise(CacheKind::Shared, 7);
        counter.raise(CacheKind::Shared, 5);
        let values: Vec<_> = CacheKind::ALL
            .iter()
            .map(|kind| counter.get(*kind))
            .collect();
        assert_eq!(values, [0, 3, 7]);
        let samples = counter.samples();
        assert_eq!(samples[1].labels, [("kind", "imported")]);
        assert_eq!(samples[1].value, Value::Counter(3));
    }

    #[test]
    fn totals_that_are_told_again_and_again_are_counted_once() {
        static COUNTER: Counter<NoLabels, 1> = Counter::new();
        let (first, second) = (COUNTER.follow(NoLabels), COUNTER.follow(NoLabels));
        for total in [3, 10, 10, 7] {
            first.reach(total);
        }
        second.reach(5);
        assert_eq!(COUNTER.get(NoLabels), 15);
    }

    #[test]
    fn a_gauge_counts_those_who_are_inside() {
        static INSIDE: Gauge<NoLabels, 1> = Gauge::new();
        let first = INSIDE.enter(NoLabels);
        let second = INSIDE.enter(NoLabels);
        assert_eq!(INSIDE.get(NoLabels), 2);
        drop(first);
        assert_eq!(INSIDE.get(NoLabels), 1);
        drop(second);
        INSIDE.set(NoLabels, -3);
        assert_eq!(INSIDE.samples()[0].value, Value::Gauge(-3));
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::<BuildStatus, 2>::new();
        let failed = BuildStatus::Failure;
        for (duration, bucket) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(BOUNDS[0]), 0),
            (Duration::from_nanos(BOUNDS[0] + 1), 1),
            (Duration::from_secs(3600), BOUNDS.len() - 1),
            (Duration::from_secs(3601), BOUNDS.len()),
        ] {
            let count = |histogram: &Histogram<BuildStatus, 2>| {
                let Value::Histogram { buckets, .. } = &histogram.samples()[1].value else {
                    panic!("a histogram has buckets");
                };
                buckets[bucket]
            };
            let before = count(&histogram);
            histogram.observe(failed, duration);
            assert_eq!(count(&histogram), before + 1, "{duration:?}");
        }
        let samples = histogram.samples();
        let sum = |at: usize| match &samples[at].value {
            Value::Histogram { buckets, sum } => (buckets.iter().sum::<u64>(), *sum),
            Value::Counter(_) | Value::Gauge(_) => panic!("a histogram has buckets"),
        };
        assert_eq!(sum(0), (0, 0));
        assert_eq!(sum(1), (5, 2 * BOUNDS[0] + 1 + 7_201_000_000_000));
    }

    #[test]
    fn many_threads_lose_nothing() {
        static COUNTER: Counter<NoLabels, 1> = Counter::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| COUNTER.add(NoLabels, 1)));
            }
        });
        assert_eq!(COUNTER.get(NoLabels), 4000);
    }

    #[test]
    fn a_new_instrument_has_a_series_of_nothing_for_each_member() {
        let counter = Counter::<CacheKind, { CacheKind::COUNT }>::default();
        let gauge = Gauge::<CacheKind, { CacheKind::COUNT }>::default();
        let histogram = Histogram::<CacheKind, { CacheKind::COUNT }>::default();
        let none = || Value::Histogram {
            buckets: vec![0; BOUNDS.len() + 1],
            sum: 0,
        };
        let instruments: [(&dyn Instrument, Kind, Value); 3] = [
            (&counter, Kind::Counter, Value::Counter(0)),
            (&gauge, Kind::Gauge, Value::Gauge(0)),
            (&histogram, Kind::Histogram, none()),
        ];
        for (instrument, kind, value) in instruments {
            assert_eq!(instrument.kind(), kind);
            let samples = instrument.samples();
            let labels: Vec<_> = samples.iter().map(|sample| sample.labels[0].1).collect();
            assert_eq!(labels, ["local", "imported", "shared"], "{kind:?}");
            assert!(
                samples.iter().all(|sample| sample.value == value),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_gauge_is_set_per_member_and_a_guard_of_one_leaves_the_others() {
        static GAUGE: Gauge<CacheKind, { CacheKind::COUNT }> = Gauge::new();
        GAUGE.set(CacheKind::Local, 5);
        let guard = GAUGE.enter(CacheKind::Shared);
        let numbers = || {
            CacheKind::ALL
                .iter()
                .map(|kind| GAUGE.get(*kind))
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(), [5, 0, 1]);
        drop(guard);
        assert_eq!(numbers(), [5, 0, 0]);
    }

    #[test]
    fn a_follower_that_starts_later_counts_its_own_total_from_nothing() {
        static COUNTER: Counter<CacheKind, { CacheKind::COUNT }> = Counter::new();
        COUNTER.add(CacheKind::Imported, 100);
        let follower = COUNTER.follow(CacheKind::Imported);
        for (total, number) in [
            (0, 100),
            (7, 107),
            (3, 107),
            (8, 108),
            (u64::from(u32::MAX), 4_294_967_395),
        ] {
            follower.reach(total);
            assert_eq!(COUNTER.get(CacheKind::Imported), number, "{total}");
        }
        assert_eq!(COUNTER.get(CacheKind::Local), 0);
    }

    #[test]
    fn bounds_grow_so_that_every_duration_has_one_bucket() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
        let histogram = Histogram::<NoLabels, 1>::new();
        for bound in BOUNDS {
            histogram.observe(NoLabels, Duration::from_nanos(bound));
        }
        histogram.observe(NoLabels, Duration::MAX);
        let Value::Histogram { buckets, .. } = &histogram.samples()[0].value else {
            panic!("a histogram has buckets");
        };
        assert_eq!(*buckets, vec![1; BOUNDS.len() + 1]);
    }
}
