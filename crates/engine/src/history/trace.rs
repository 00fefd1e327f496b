//! Steps of a build: counters and spans.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use gostd::Timestamp;
use oci::Digest;
use progress::Event;
use serde_json::{Value, json};

use crate::api::{Failure, HistoryRecord, Span, SpanSubject};
use crate::spans::BuildTrace;

/// `service.name` of the daemon in traces.
const OWN_SERVICE: &str = "rbuildd";
/// Number of steps in a trace; later ones are left out.
const MAX_STEPS: usize = 20_000;

/// The steps and warnings of a build, counted from its events.
#[derive(Default)]
pub(super) struct Summary {
    steps: HashMap<Digest, Step>,
    /// Number of warnings.
    pub(super) warnings: i32,
}

#[derive(Default)]
struct Step {
    name: String,
    cached: bool,
    error: String,
    started: Option<SystemTime>,
    completed: Option<SystemTime>,
}

impl Summary {
    /// Adds an event to the counters.
    pub(super) fn take(&mut self, event: &Event) {
        match event {
            Event::Vertex(v) => {
                let step = self.steps.entry(v.digest.clone()).or_default();
                step.name.clone_from(&v.name);
                step.cached |= v.cached;
                step.error.clone_from(&v.error);
                step.started = v.started.or(step.started);
                step.completed = v.completed.or(step.completed);
            }
            Event::Warning(_) => self.warnings += 1,
            Event::Status(_) | Event::Log(_) => {}
        }
    }

    fn count(&self, which: impl Fn(&Step) -> bool) -> i32 {
        i32::try_from(self.steps.values().filter(|s| which(s)).count()).unwrap_or(i32::MAX)
    }

    /// Number of all steps.
    pub(super) fn total(&self) -> i32 {
        self.count(|_| true)
    }

    /// Number of steps whose result was cached.
    pub(super) fn cached(&self) -> i32 {
        self.count(|step| step.cached)
    }

    /// Number of steps that ended.
    pub(super) fn completed(&self) -> i32 {
        self.count(|step| step.completed.is_some())
    }

    /// The build, its phases and its vertices as spans, each of these in the order in which they began.
    pub(super) fn spans(&self, record: &HistoryRecord, build: &BuildTrace) -> Vec<Span> {
        let (trace, root) = (build.id(), build.root());
        let created = record.created.unwrap_or(UNIX_EPOCH);
        let error = record.error.as_ref().map(Failure::message);
        let mut spans = vec![Span {
            trace,
            id: root,
            parent: build.parent(),
            name: "moby.buildkit.v1.Control/Solve".into(),
            start: created,
            end: record.completed.unwrap_or(created),
            error: error.unwrap_or_default(),
            subject: SpanSubject::Build,
        }];
        spans.extend(build.phases());
        let steps = self.steps.iter();
        let mut steps: Vec<(&Digest, &Step, SystemTime)> = steps
            .filter_map(|(digest, step)| Some((digest, step, step.started?)))
            .collect();
        steps.sort_by_key(|(digest, _, start)| (*start, digest.as_str().to_owned()));
        for (digest, step, start) in steps.into_iter().take(MAX_STEPS) {
            // A step that several builds share is a span of each.
            spans.push(Span {
                trace,
                id: build.steps().span_of(digest),
                parent: Some(root),
                name: step.name.clone(),
                start,
                end: step.completed.unwrap_or(start),
                error: step.error.clone(),
                subject: SpanSubject::Vertex {
                    vertex: digest.clone(),
                    is_cached: step.cached,
                },
            });
        }
        spans
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Encodes spans as one JSON document per line, in the form of the reference's traces.
pub(super) fn json_lines(spans: &[Span]) -> Vec<u8> {
    let context = |trace: &[u8], span: &[u8], flags: &str| json!({ "TraceID": hex(trace), "SpanID": hex(span), "TraceFlags": flags, "TraceState": "", "Remote": false });
    let mut out = Vec::new();
    for span in spans {
        let parent = match &span.parent {
            Some(parent) => context(&span.trace, parent, "01"),
            None => context(&[0; 16], &[0; 8], "00"),
        };
        let time = |at: SystemTime| format!("{:.9}", Timestamp::from(at));
        let code = if span.error.is_empty() {
            "Unset"
        } else {
            "Error"
        };
        let attribute = |(key, value): (&str, &str)| json!({ "Key": key, "Value": { "Type": "STRING", "Value": value } });
        let (attributes, service) = match &span.subject {
            SpanSubject::Build | SpanSubject::Phase => (Value::Null, OWN_SERVICE),
            SpanSubject::Vertex { vertex, .. } => {
                (json!([attribute(("vertex", vertex.as_str()))]), OWN_SERVICE)
            }
            SpanSubject::Program {
                service,
                attributes,
            } => {
                let attributes = attributes.iter();
                let attributes = attributes.map(|(key, value)| attribute((key, value)));
                (attributes.collect(), service.as_str())
            }
        };
        let line = json!({
            "Name": span.name, "SpanContext": context(&span.trace, &span.id, "01"), "Parent": parent, "SpanKind": 1,
            "StartTime": time(span.start), "EndTime": time(span.end),
            "Attributes": attributes, "Events": null, "Links": null,
            "Status": { "Code": code, "Description": span.error },
            "DroppedAttributes": 0, "DroppedEvents": 0, "DroppedLinks": 0, "ChildSpanCount": 0,
            "Resource": [{ "Key": "service.name", "Value": { "Type": "STRING", "Value": service } }],
            "InstrumentationLibrary": { "Name": "rbuild", "Version": "", "SchemaURL": "", "Attributes": null },
        });
        out.extend_from_slice(line.to_string().as_bytes());
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use progress::Vertex;
    use task::Clock;

    use super::*;
    use crate::api::TraceContext;

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn vertex(name: &str, change: impl FnOnce(&mut Vertex)) -> Event {
        let mut vertex = Vertex::new(Digest::sha256(name), name, Vec::new());
        change(&mut vertex);
        Event::Vertex(vertex)
    }

    fn lines(summary: &Summary) -> Vec<Value> {
        let record = HistoryRecord {
            build: "b".into(),
            created: at(100),
            completed: at(160),
            ..HistoryRecord::default()
        };
        let trace = BuildTrace::new("b", None, Clock::real());
        let text = String::from_utf8(json_lines(&summary.spans(&record, &trace))).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    #[test]
    fn a_step_is_counted_once_however_many_events_name_it() {
        let mut summary = Summary::default();
        for event in [
            vertex("a", |v| v.started = at(1)),
            vertex("a", |v| (v.started, v.completed) = (None, at(2))),
            // Two builds share the step, and one of them got it from the cache.
            vertex("b", |v| v.cached = true),
            vertex("b", |v| v.cached = false),
            vertex("c", |_| {}),
        ] {
            summary.take(&event);
        }
        assert_eq!(
            (
                summary.total(),
                summary.cached(),
                summary.completed(),
                summary.warnings
            ),
            (3, 1, 1, 0)
        );
    }

    #[test]
    fn the_trace_has_the_build_and_its_steps_in_the_order_of_their_start() {
        let mut summary = Summary::default();
        for event in [
            vertex("late", |v| {
                (v.started, v.completed) = (at(150), at(151));
                v.error = "exit code: 1".into();
            }),
            vertex("early", |v| (v.started, v.completed) = (at(101), at(120))),
            vertex("running", |v| v.started = at(130)),
            vertex("never", |_| {}),
        ] {
            summary.take(&event);
        }
        let spans = lines(&summary);
        let names: Vec<_> = spans.iter().map(|s| s["Name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            ["moby.buildkit.v1.Control/Solve", "early", "running", "late"]
        );
        let (root, steps) = spans.split_first().unwrap();
        assert_eq!(root["StartTime"], "1970-01-01T00:01:40.000000000Z");
        assert_eq!(root["EndTime"], "1970-01-01T00:02:40.000000000Z");
        for step in steps {
            assert_eq!(step["Parent"]["SpanID"], root["SpanContext"]["SpanID"]);
            assert_eq!(
                step["SpanContext"]["TraceID"],
                root["SpanContext"]["TraceID"]
            );
        }
        // A step that did not end has a span of no length.
        assert_eq!(spans[2]["EndTime"], spans[2]["StartTime"]);
        let status = |at: usize| spans[at]["Status"]["Code"].as_str().unwrap();
        assert_eq!([status(1), status(3)], ["Unset", "Error"]);
        assert_eq!(spans[3]["Status"]["Description"], "exit code: 1");
        let vertex = &spans[1]["Attributes"][0]["Value"]["Value"];
        assert_eq!(*vertex, Digest::sha256("early").as_str());
    }

    #[test]
    fn a_build_of_a_client_s_trace_is_a_part_of_its_span() {
        let mut summary = Summary::default();
        summary.take(&vertex("step", |v| v.started = at(1)));
        let within = TraceContext {
            trace: [7; 16],
            span: [9; 8],
        };
        let record = |build: &str| HistoryRecord {
            build: build.into(),
            error: Some(Failure::new(crate::api::FailureKind::Unknown, "no")),
            ..HistoryRecord::default()
        };
        let trace = |build: &str| BuildTrace::new(build, Some(within), Clock::real());
        let spans = summary.spans(&record("a"), &trace("a"));
        assert_eq!((spans[0].trace, spans[0].parent), ([7; 16], Some([9; 8])));
        assert_eq!(spans[0].error, "no");
        assert_eq!(
            (spans[1].trace, spans[1].parent),
            ([7; 16], Some(spans[0].id))
        );
        // Another build of the same trace has the same step.
        let others = summary.spans(&record("b"), &trace("b"));
        assert!(spans[0].id != others[0].id && spans[1].id != others[1].id);
    }

    #[test]
    fn phases_and_spans_of_programs_are_lines_of_their_own() {
        let trace = BuildTrace::new("b", None, Clock::real());
        drop(trace.phase("export"));
        let record = HistoryRecord {
            build: "b".into(),
            ..HistoryRecord::default()
        };
        let mut spans = Summary::default().spans(&record, &trace);
        spans.push(Span {
            name: "compile".into(),
            subject: SpanSubject::Program {
                service: "make".into(),
                attributes: vec![("file".into(), "a.c".into())],
            },
            ..spans[0].clone()
        });
        let text = String::from_utf8(json_lines(&spans)).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let names: Vec<_> = lines
            .iter()
            .map(|line| line["Name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["moby.buildkit.v1.Control/Solve", "export", "compile"]
        );
        assert_eq!(
            lines[1]["Parent"]["SpanID"],
            lines[0]["SpanContext"]["SpanID"]
        );
        assert_eq!(lines[1]["Resource"][0]["Value"]["Value"], "rbuildd");
        assert_eq!(lines[2]["Resource"][0]["Value"]["Value"], "make");
        assert_eq!(lines[2]["Attributes"][0]["Key"], "file");
        assert_eq!(lines[2]["Attributes"][0]["Value"]["Value"], "a.c");
    }

    #[test]
    fn a_trace_of_very_many_steps_is_cut() {
        let mut summary = Summary::default();
        for n in 0..MAX_STEPS + 10 {
            summary.take(&vertex(&n.to_string(), |v| v.started = at(1)));
        }
        assert_eq!(lines(&summary).len(), MAX_STEPS + 1);
        assert_eq!(usize::try_from(summary.total()).unwrap(), MAX_STEPS + 10);
    }
}
