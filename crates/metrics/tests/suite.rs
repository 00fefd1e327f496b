//! The metrics as scrapers see them: names, kinds and labels are an interface that dashboards depend on.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use metrics::Kind::{self, Counter, Gauge, Histogram};
use metrics::{FAMILIES, Family};

/// Name, kind, names of labels, number of series.
const PROMISED: &[(&str, Kind, &[&str], usize)] = &[
    (
        "buildkit_builds_total",
        Counter,
        &["error_code", "status"],
        12,
    ),
    ("buildkit_builds_steps_total", Counter, &["kind"], 4),
    ("buildkit_build_duration_seconds", Histogram, &["status"], 2),
    (
        "rpc_server_call_duration_seconds",
        Histogram,
        &["rpc_method", "rpc_system_name"],
        10,
    ),
    ("rbuild_builds_active", Gauge, &[], 1),
    ("rbuild_builds_refused_total", Counter, &[], 1),
    ("rbuild_steps_queued", Gauge, &[], 1),
    ("rbuild_steps_running", Gauge, &[], 1),
    ("rbuild_phase_duration_seconds", Histogram, &["phase"], 6),
    ("rbuild_cache_hits_total", Counter, &["kind"], 3),
    ("rbuild_cache_misses_total", Counter, &[], 1),
    (
        "rbuild_transferred_bytes_total",
        Counter,
        &["direction", "peer"],
        5,
    ),
    ("rbuild_gc_runs_total", Counter, &["outcome"], 2),
    ("rbuild_gc_freed_bytes_total", Counter, &[], 1),
    ("rbuild_gc_duration_seconds", Histogram, &[], 1),
    ("rbuild_store_size_bytes", Gauge, &["kind"], 3),
    ("rbuild_connections", Gauge, &[], 1),
    ("rbuild_draining", Gauge, &[], 1),
    ("rbuild_telemetry_lost_total", Counter, &["signal"], 2),
    ("process_cpu_seconds_total", Counter, &[], 1),
    ("process_resident_memory_bytes", Gauge, &[], 1),
    ("process_open_fds", Gauge, &[], 1),
    ("process_start_time_seconds", Gauge, &[], 1),
];

#[test]
fn names_kinds_and_labels_are_those_that_are_promised() {
    let names: Vec<_> = FAMILIES.iter().map(Family::prometheus_name).collect();
    let promised: Vec<_> = PROMISED.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, promised);
    for (family, (name, kind, labels, series)) in FAMILIES.iter().zip(PROMISED) {
        let samples = family.instrument.samples();
        let pairs = samples.iter().flat_map(|sample| sample.labels);
        let named: BTreeSet<&str> = pairs.map(|(key, _)| *key).collect();
        let named: Vec<_> = named.into_iter().collect();
        assert_eq!(family.instrument.kind(), *kind, "{name}");
        assert_eq!(named, *labels, "{name}");
        assert_eq!(samples.len(), *series, "{name}");
    }
}

#[test]
fn every_line_of_the_exposition_is_a_comment_or_a_series_with_a_number_told_once() {
    let text = metrics::text::exposition();
    let mut series = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite(), "{line}");
        let before = series.insert(name.to_owned(), value);
        assert!(before.is_none(), "{name} is told twice");
        let plain = name.split('{').next().unwrap();
        assert!(
            plain
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_'),
            "{name}"
        );
        assert_eq!(name.contains('{'), name.ends_with('}'), "{name}");
    }
    assert!(
        text.ends_with('\n') && series.len() > 300,
        "{}",
        series.len()
    );
}
