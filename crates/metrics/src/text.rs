//! Prometheus' text form (version 0.0.4), and the table of the documentation.

use std::fmt::Write as _;

use crate::catalogue::{FAMILIES, Family, Unit};
use crate::instrument::{BOUNDS, Kind, Value};
use crate::labels::Pair;

/// The media type of [`exposition`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const NANOS_PER_SECOND: f64 = 1e9;

/// All metrics as they are now.
#[must_use]
pub fn exposition() -> String {
    let mut out = format!(
        "# HELP rbuild_info What the daemon is.\n# TYPE rbuild_info gauge\nrbuild_info{{version=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    );
    for family in FAMILIES {
        write_family(&mut out, family);
    }
    out
}

/// Writing to a string cannot fail.
macro_rules! put {
    ($out:expr, $($words:tt)*) => {
        writeln!($out, $($words)*).expect("a string takes everything")
    };
}

fn write_family(out: &mut String, family: &Family) {
    let name = family.prometheus_name();
    let kind = match family.instrument.kind() {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    put!(out, "# HELP {name} {}.", family.help);
    put!(out, "# TYPE {name} {kind}");
    for sample in family.instrument.samples() {
        let labels = sample.labels;
        match sample.value {
            Value::Counter(value) => {
                let value = match family.unit {
                    Unit::Seconds => seconds(value),
                    Unit::One | Unit::Bytes => value.to_string(),
                };
                put!(out, "{name}{} {value}", braces(labels, None));
            }
            Value::Gauge(value) => {
                let value = match family.unit {
                    Unit::Seconds => {
                        let sign = if value < 0 { "-" } else { "" };
                        format!("{sign}{}", seconds(value.unsigned_abs()))
                    }
                    Unit::One | Unit::Bytes => value.to_string(),
                };
                put!(out, "{name}{} {value}", braces(labels, None));
            }
            Value::Histogram { buckets, sum } => {
                let mut count = 0_u64;
                let bounds = BOUNDS.iter().map(|bound| seconds(*bound));
                for (bound, bucket) in bounds.chain(["+Inf".to_owned()]).zip(buckets) {
                    count = count.saturating_add(bucket);
                    put!(out, "{name}_bucket{} {count}", braces(labels, Some(&bound)));
                }
                put!(out, "{name}_sum{} {}", braces(labels, None), seconds(sum));
                put!(out, "{name}_count{} {count}", braces(labels, None));
            }
        }
    }
}

/// Labels as they stand behind a name; `le` is the bound of a bucket.
fn braces(labels: &[Pair], le: Option<&str>) -> String {
    let pairs = labels.iter().copied().chain(le.map(|bound| ("le", bound)));
    let pairs: Vec<_> = pairs
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    if pairs.is_empty() {
        return String::new();
    }
    format!("{{{}}}", pairs.join(","))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of months is exact to microseconds"
)]
fn seconds(nanos: u64) -> String {
    (nanos as f64 / NANOS_PER_SECOND).to_string()
}

/// The table of the documentation.
#[must_use]
pub fn table() -> String {
    let mut out = String::from("| metric | kind | labels | what it counts |\n|---|---|---|---|\n");
    for family in FAMILIES {
        let kind = match family.instrument.kind() {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let mut labels: Vec<(&str, Vec<&str>)> = Vec::new();
        for (key, value) in family.instrument.samples().iter().flat_map(|s| s.labels) {
            match labels.iter_mut().find(|(name, _)| name == key) {
                Some((_, values)) if values.contains(value) => {}
                Some((_, values)) => values.push(value),
                None => labels.push((key, vec![value])),
            }
        }
        let labels: Vec<_> = labels
            .iter()
            .map(|(key, values)| format!("`{key}`: {}", values.join(", ")))
            .collect();
        put!(
            out,
            "| `{}` | {kind} | {} | {} |",
            family.prometheus_name(),
            labels.join("; "),
            family.help
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::instrument::{Counter, Gauge, Histogram, Instrument};
    use crate::labels::{BuildOutcome, NoLabels};

    fn family(unit: Unit, instrument: &'static dyn Instrument) -> String {
        let family = Family {
            name: "a.b",
            unit,
            help: "What it is",
            instrument,
        };
        let mut out = String::new();
        write_family(&mut out, &family);
        out
    }

    #[test]
    fn a_counter_has_a_line_for_each_member_of_its_labels() {
        static COUNTER: Counter<BuildOutcome, { BuildOutcome::COUNT }> = Counter::new();
        COUNTER.add(BuildOutcome::Success, 3);
        COUNTER.add(BuildOutcome::Canceled, 1);
        let text = family(Unit::One, &COUNTER);
        assert!(
            text.starts_with(
                "# HELP a_b_total What it is.\n# TYPE a_b_total counter\na_b_total{status=\"success\"} 3\na_b_total{status=\"failure\",error_code=\"Canceled\"} 1\n"
            ),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2 + BuildOutcome::COUNT);
    }

    #[test]
    fn a_gauge_of_time_is_told_in_seconds() {
        static GAUGE: Gauge<NoLabels, 1> = Gauge::new();
        for (nanos, shown) in [(1_500_000_000, "1.5"), (-250_000_000, "-0.25"), (0, "0")] {
            GAUGE.set(NoLabels, nanos);
            let text = family(Unit::Seconds, &GAUGE);
            assert!(
                text.ends_with(&format!("\na_b_seconds {shown}\n")),
                "{text}"
            );
        }
    }

    #[test]
    fn buckets_count_everything_up_to_their_bound() {
        static HISTOGRAM: Histogram<NoLabels, 1> = Histogram::new();
        for millis in [1, 2, 2, 7_200_000] {
            HISTOGRAM.observe(NoLabels, Duration::from_millis(millis));
        }
        let text = family(Unit::Seconds, &HISTOGRAM);
        for line in [
            "a_b_seconds_bucket{le=\"0.001\"} 1",
            "a_b_seconds_bucket{le=\"0.005\"} 3",
            "a_b_seconds_bucket{le=\"3600\"} 3",
            "a_b_seconds_bucket{le=\"+Inf\"} 4",
            "a_b_seconds_sum 7200.005",
            "a_b_seconds_count 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}:\n{text}");
        }
    }

    #[test]
    fn every_metric_is_in_the_exposition_and_in_the_table() {
        let (text, table) = (exposition(), table());
        for family in FAMILIES {
            let name = family.prometheus_name();
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
            assert!(table.contains(&format!("| `{name}` |")), "{name}");
        }
        assert!(
            table.contains("`direction`: in, out; `peer`: registry, server, client"),
            "{table}"
        );
    }

    #[test]
    fn the_exposition_is_lines_that_a_scraper_reads() {
        let text = exposition();
        assert!(text.ends_with('\n') && !text.contains("\n\n"));
        let mut family = String::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (word, name) = (words.next().unwrap(), words.next().unwrap());
                assert!(matches!(word, "HELP" | "TYPE"), "{line}");
                assert!(words.next().is_some_and(|rest| !rest.is_empty()), "{line}");
                name.clone_into(&mut family);
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect(line);
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap_or_default();
            let suffix = name.strip_prefix(family.as_str());
            assert!(
                matches!(suffix, Some("" | "_bucket" | "_sum" | "_count")),
                "{line} is below {family}"
            );
            assert_eq!(series.contains('{'), series.ends_with('}'), "{line}");
        }
    }

    #[test]
    fn the_unit_of_a_family_is_in_its_name_and_in_its_values() {
        static BYTES: Counter<NoLabels, 1> = Counter::new();
        static TIME: Counter<NoLabels, 1> = Counter::new();
        static LEVEL: Gauge<NoLabels, 1> = Gauge::new();
        BYTES.add(NoLabels, 1_500_000_000);
        TIME.add(NoLabels, 1_500_000_000);
        LEVEL.set(NoLabels, -4);
        for (unit, instrument, line) in [
            (
                Unit::Bytes,
                &BYTES as &'static dyn Instrument,
                "a_b_bytes_total 1500000000",
            ),
            (Unit::Seconds, &TIME, "a_b_seconds_total 1.5"),
            (Unit::One, &BYTES, "a_b_total 1500000000"),
            (Unit::One, &LEVEL, "a_b -4"),
            (Unit::Bytes, &LEVEL, "a_b_bytes -4"),
        ] {
            let text = family(unit, instrument);
            assert!(text.lines().any(|l| l == line), "{line}:\n{text}");
        }
    }
}
