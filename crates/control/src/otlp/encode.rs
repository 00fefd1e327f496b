//! Spans and metrics as OpenTelemetry's messages.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use engine::api::{Span, SpanSubject};
use metrics::{FAMILIES, Family, Unit, Value, instrument::BOUNDS};
use prost::Message as _;
use proto::otlp;
use proto::otlp::{any_value, metric, number_data_point};

/// BuildKit's name for who counts builds.
const BUILDKIT_SCOPE: &str = "github.com/moby/buildkit/solver/llbsolver";
const OWN_SCOPE: &str = "rbuild";
const NANOS_PER_SECOND: f64 = 1e9;

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of months is exact to microseconds"
)]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / NANOS_PER_SECOND
}

fn text(key: &str, value: &str) -> otlp::KeyValue {
    otlp::KeyValue {
        key: key.into(),
        value: Some(otlp::AnyValue {
            value: Some(any_value::Value::StringValue(value.into())),
        }),
    }
}

fn resource_of(attributes: &[(String, String)]) -> Option<otlp::Resource> {
    let attributes = attributes.iter().map(|(key, value)| text(key, value));
    Some(otlp::Resource {
        attributes: attributes.collect(),
    })
}

fn scope(name: &str) -> Option<otlp::InstrumentationScope> {
    Some(otlp::InstrumentationScope {
        name: name.into(),
        version: env!("CARGO_PKG_VERSION").into(),
    })
}

/// An encoded `ResourceSpans`.
pub(super) fn spans(resource: &[(String, String)], spans: &[Span]) -> Bytes {
    let message = otlp::ResourceSpans {
        resource: resource_of(resource),
        scope_spans: vec![otlp::ScopeSpans {
            scope: scope(OWN_SCOPE),
            spans: spans.iter().map(span).collect(),
        }],
    };
    message.encode_to_vec().into()
}

fn span(span: &Span) -> otlp::Span {
    let mut attributes = Vec::new();
    if let SpanSubject::Vertex { vertex, is_cached } = &span.subject {
        attributes.push(text("vertex", vertex.as_str()));
        attributes.push(otlp::KeyValue {
            key: "cached".into(),
            value: Some(otlp::AnyValue {
                value: Some(any_value::Value::BoolValue(*is_cached)),
            }),
        });
    }
    let (kind, code) = (
        match span.subject {
            SpanSubject::Build => otlp::SpanKind::Server,
            SpanSubject::Phase | SpanSubject::Vertex { .. } | SpanSubject::Program { .. } => {
                otlp::SpanKind::Internal
            }
        },
        if span.error.is_empty() {
            otlp::SpanStatusCode::StatusCodeUnset
        } else {
            otlp::SpanStatusCode::StatusCodeError
        },
    );
    otlp::Span {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span
            .parent
            .map(|parent| parent.to_vec())
            .unwrap_or_default(),
        name: span.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes,
        status: Some(otlp::SpanStatus {
            message: span.error.clone(),
            code: code.into(),
        }),
    }
}

/// The values that were reported last, so that the next report has what was added since.
pub(super) struct Deltas {
    since: SystemTime,
    /// The last reported values of the series, for each family.
    reported: Vec<Vec<Value>>,
}

impl Deltas {
    /// Starts to report at `now`.
    pub(super) fn new(now: SystemTime) -> Self {
        // A counter that has counted already is reported from 0: what it counted has not been reported.
        Self {
            since: now,
            reported: FAMILIES.iter().map(|_| Vec::new()).collect(),
        }
    }

    /// An encoded `ResourceMetrics` of what was added since the last one.
    pub(super) fn next(&mut self, resource: &[(String, String)], now: SystemTime) -> Bytes {
        let (start, end) = (nanos(self.since), nanos(now));
        self.since = now;
        let mut scopes = [(BUILDKIT_SCOPE, Vec::new()), (OWN_SCOPE, Vec::new())];
        for (family, reported) in FAMILIES.iter().zip(&mut self.reported) {
            let metric = metric_of(family, reported, (start, end));
            let of_buildkit = family.name.starts_with("buildkit.");
            let [buildkit, own] = &mut scopes;
            let scope = if of_buildkit { buildkit } else { own };
            scope.1.extend(metric);
        }
        let scopes = scopes
            .into_iter()
            .filter(|(_, metrics)| !metrics.is_empty());
        let message = otlp::ResourceMetrics {
            resource: resource_of(resource),
            scope_metrics: scopes
                .map(|(name, metrics)| otlp::ScopeMetrics {
                    scope: scope(name),
                    metrics,
                })
                .collect(),
        };
        message.encode_to_vec().into()
    }
}

/// A metric with the series that changed, and gauges as they are; none if there are none.
fn metric_of(
    family: &Family,
    reported: &mut Vec<Value>,
    (start, end): (u64, u64),
) -> Option<otlp::Metric> {
    let is_time = family.unit == Unit::Seconds;
    let number = |value, attributes| otlp::NumberDataPoint {
        start_time_unix_nano: start,
        time_unix_nano: end,
        value: Some(value),
        attributes,
    };
    let (mut numbers, mut histograms, mut is_gauge) = (Vec::new(), Vec::new(), false);
    let samples = family.instrument.samples();
    for (at, sample) in samples.iter().enumerate() {
        let attributes = || sample.labels.iter().map(|(k, v)| text(k, v)).collect();
        match (&sample.value, reported.get(at)) {
            (Value::Counter(value), before) => {
                let before = match before {
                    Some(Value::Counter(before)) => *before,
                    Some(Value::Gauge(_) | Value::Histogram { .. }) | None => 0,
                };
                let added = value.saturating_sub(before);
                let value_added = if is_time {
                    number_data_point::Value::AsDouble(seconds(added))
                } else {
                    number_data_point::Value::AsInt(i64::try_from(added).unwrap_or(i64::MAX))
                };
                numbers.extend((added > 0).then(|| number(value_added, attributes())));
            }
            (Value::Gauge(value), _) => {
                is_gauge = true;
                let value_added = if is_time {
                    number_data_point::Value::AsDouble(seconds(u64::try_from(*value).unwrap_or(0)))
                } else {
                    number_data_point::Value::AsInt(*value)
                };
                numbers.push(number(value_added, attributes()));
            }
            (Value::Histogram { buckets, sum }, before) => {
                let (counted, summed) = match before {
                    Some(Value::Histogram { buckets, sum }) => (buckets.as_slice(), *sum),
                    Some(Value::Counter(_) | Value::Gauge(_)) | None => (&[][..], 0),
                };
                let added: Vec<u64> = buckets
                    .iter()
                    .enumerate()
                    .map(|(at, now)| now.saturating_sub(counted.get(at).copied().unwrap_or(0)))
                    .collect();
                let count = added.iter().sum();
                if count > 0 {
                    histograms.push(otlp::HistogramDataPoint {
                        start_time_unix_nano: start,
                        time_unix_nano: end,
                        count,
                        sum: Some(seconds(sum.wrapping_sub(summed))),
                        bucket_counts: added,
                        explicit_bounds: BOUNDS.iter().map(|bound| seconds(*bound)).collect(),
                        attributes: attributes(),
                    });
                }
            }
        }
    }
    *reported = samples.into_iter().map(|sample| sample.value).collect();
    let delta = otlp::AggregationTemporality::Delta.into();
    let data = if !histograms.is_empty() {
        metric::Data::Histogram(otlp::Histogram {
            data_points: histograms,
            aggregation_temporality: delta,
        })
    } else if numbers.is_empty() {
        return None;
    } else if is_gauge {
        metric::Data::Gauge(otlp::Gauge {
            data_points: numbers,
        })
    } else {
        metric::Data::Sum(otlp::Sum {
            data_points: numbers,
            aggregation_temporality: delta,
            is_monotonic: true,
        })
    };
    Some(otlp::Metric {
        name: family.name.into(),
        description: family.help.into(),
        unit: match family.unit {
            Unit::One => "",
            Unit::Seconds => "s",
            Unit::Bytes => "By",
        }
        .into(),
        data: Some(data),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metrics::{Counter, Histogram, Instrument, NoLabels};

    use super::*;

    fn family(unit: Unit, instrument: &'static dyn Instrument) -> Family {
        Family {
            name: "a.b",
            unit,
            help: "What it is",
            instrument,
        }
    }

    #[test]
    fn a_counter_tells_what_was_added_since_and_is_silent_when_nothing_was() {
        static COUNTER: Counter<NoLabels, 1> = Counter::new();
        let family = family(Unit::Bytes, &COUNTER);
        let mut reported = Vec::new();
        let mut added = || {
            let metric = metric_of(&family, &mut reported, (1, 2))?;
            let Some(metric::Data::Sum(sum)) = metric.data else {
                panic!("a counter is a sum");
            };
            assert!(sum.is_monotonic && sum.aggregation_temporality == 1);
            sum.data_points[0].value
        };
        assert_eq!(added(), None);
        COUNTER.add(NoLabels, 5);
        assert_eq!(added(), Some(number_data_point::Value::AsInt(5)));
        assert_eq!(added(), None);
        COUNTER.add(NoLabels, 2);
        assert_eq!(added(), Some(number_data_point::Value::AsInt(2)));
    }

    #[test]
    fn a_histogram_tells_the_observations_since() {
        static HISTOGRAM: Histogram<NoLabels, 1> = Histogram::new();
        let family = family(Unit::Seconds, &HISTOGRAM);
        let mut reported = Vec::new();
        for seconds in [1_u64, 20] {
            HISTOGRAM.observe(NoLabels, Duration::from_secs(seconds));
            let metric = metric_of(&family, &mut reported, (1, 2)).unwrap();
            let Some(metric::Data::Histogram(histogram)) = metric.data else {
                panic!("it is a histogram");
            };
            let point = &histogram.data_points[0];
            assert_eq!((point.count, histogram.aggregation_temporality), (1, 1));
            assert_eq!(point.sum, Some(Duration::from_secs(seconds).as_secs_f64()));
            assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        }
        assert!(metric_of(&family, &mut reported, (1, 2)).is_none());
    }

    #[test]
    fn a_failed_step_of_a_build_is_a_span_with_its_error() {
        let step = Span {
            trace: [1; 16],
            id: [2; 8],
            parent: Some([3; 8]),
            name: "RUN false".into(),
            start: UNIX_EPOCH + Duration::from_secs(1),
            end: UNIX_EPOCH + Duration::from_secs(3),
            error: "exit code: 1".into(),
            subject: SpanSubject::Vertex {
                vertex: oci::Digest::sha256("v"),
                is_cached: false,
            },
        };
        let resource = [("service.name".to_owned(), "rbuildd".to_owned())];
        let bytes = spans(&resource, &[step]);
        let message = otlp::ResourceSpans::decode(bytes).unwrap();
        let resource = message.resource.unwrap();
        assert_eq!(resource.attributes, [text("service.name", "rbuildd")]);
        let span = &message.scope_spans[0].spans[0];
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        assert_eq!(span.parent_span_id, [3; 8]);
        assert_eq!(
            span.end_time_unix_nano - span.start_time_unix_nano,
            2_000_000_000
        );
        let status = span.status.as_ref().unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, "exit code: 1"));
    }

    #[test]
    fn all_metrics_are_told_in_the_scopes_of_who_counts_them() {
        metrics::BUILDS.add(metrics::BuildOutcome::Success, 1);
        let mut deltas = Deltas::new(UNIX_EPOCH);
        let bytes = deltas.next(&[], UNIX_EPOCH + Duration::from_secs(60));
        let message = otlp::ResourceMetrics::decode(bytes).unwrap();
        let names: Vec<_> = message
            .scope_metrics
            .iter()
            .flat_map(|s| {
                s.metrics
                    .iter()
                    .map(|m| (s.scope.clone().unwrap().name, m.name.clone()))
            })
            .collect();
        let has = |scope: &str, name: &str| names.contains(&(scope.to_owned(), name.to_owned()));
        assert!(has(BUILDKIT_SCOPE, "buildkit.builds"), "{names:?}");
        assert!(has(OWN_SCOPE, "rbuild.builds.active"), "{names:?}");
    }
}
