//! The steps of a build, counted and as spans.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use gostd::Timestamp;
use oci::Digest;
use progress::Event;
use serde_json::{Value, json};

use crate::api::HistoryRecord;

/// The most steps in a trace.
const MAX_STEPS: usize = 20_000;

/// What a build said, counted.
#[derive(Default)]
pub(super) struct Summary {
    steps: HashMap<Digest, Step>,
    /// Warnings that the build gave.
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
    /// Counts an event.
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

    /// Steps that the build had.
    pub(super) fn total(&self) -> i32 {
        self.count(|_| true)
    }

    /// Steps whose result was cached.
    pub(super) fn cached(&self) -> i32 {
        self.count(|step| step.cached)
    }

    /// Steps that ended.
    pub(super) fn completed(&self) -> i32 {
        self.count(|step| step.completed.is_some())
    }

    /// The steps as spans; see [`trace`].
    pub(super) fn trace(&self, record: &HistoryRecord) -> Vec<u8> {
        trace(record, self)
    }
}

/// The steps of a build as spans, one JSON document a line, in the form of the reference's traces.
fn trace(record: &HistoryRecord, summary: &Summary) -> Vec<u8> {
    let id = Digest::sha256(record.build.as_str());
    let trace = id.hex().get(..32).unwrap_or_default();
    let root = id.hex().get(32..48).unwrap_or_default();
    let context = |span: &str| json!({ "TraceID": trace, "SpanID": span, "TraceFlags": "01", "TraceState": "", "Remote": false });
    let nobody = json!({
        "TraceID": "0".repeat(32), "SpanID": "0".repeat(16), "TraceFlags": "00", "TraceState": "", "Remote": false,
    });
    let span = |name: &str, own: &str, parent: Value, step: &Step, attributes: Value| {
        let time = |at: Option<SystemTime>| {
            let at = at.or(record.created).unwrap_or(UNIX_EPOCH);
            format!("{:.9}", Timestamp::from(at))
        };
        let code = if step.error.is_empty() {
            "Unset"
        } else {
            "Error"
        };
        json!({
            "Name": name, "SpanContext": context(own), "Parent": parent, "SpanKind": 1,
            "StartTime": time(step.started), "EndTime": time(step.completed.or(step.started)),
            "Attributes": attributes, "Events": null, "Links": null,
            "Status": { "Code": code, "Description": step.error },
            "DroppedAttributes": 0, "DroppedEvents": 0, "DroppedLinks": 0, "ChildSpanCount": 0,
            "Resource": [{ "Key": "service.name", "Value": { "Type": "STRING", "Value": "rbuildd" } }],
            "InstrumentationLibrary": { "Name": "rbuild", "Version": "", "SchemaURL": "", "Attributes": null },
        })
    };
    let mut out = Vec::new();
    let mut line = |span: &Value| {
        out.extend_from_slice(span.to_string().as_bytes());
        out.push(b'\n');
    };
    let whole = Step {
        started: record.created,
        completed: record.completed,
        ..Step::default()
    };
    line(&span(
        "moby.buildkit.v1.Control/Solve",
        root,
        nobody,
        &whole,
        Value::Null,
    ));
    let mut steps: Vec<(&Digest, &Step)> = summary
        .steps
        .iter()
        .filter(|(_, step)| step.started.is_some())
        .collect();
    steps.sort_by_key(|(digest, step)| (step.started, digest.as_str().to_owned()));
    for (digest, step) in steps.into_iter().take(MAX_STEPS) {
        let own = digest.hex().get(..16).unwrap_or_default();
        let vertex =
            json!([{ "Key": "vertex", "Value": { "Type": "STRING", "Value": digest.as_str() } }]);
        line(&span(&step.name, own, context(root), step, vertex));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use progress::Vertex;

    use super::*;

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
        let text = String::from_utf8(summary.trace(&record)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    #[test]
    fn a_step_is_counted_once_however_often_it_is_told_of() {
        let mut summary = Summary::default();
        for event in [
            vertex("a", |v| v.started = at(1)),
            vertex("a", |v| (v.started, v.completed) = (None, at(2))),
            // Of two that say the same, one was cached for another build.
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
        // What did not end ends where it began.
        assert_eq!(spans[2]["EndTime"], spans[2]["StartTime"]);
        let status = |at: usize| spans[at]["Status"]["Code"].as_str().unwrap();
        assert_eq!([status(1), status(3)], ["Unset", "Error"]);
        assert_eq!(spans[3]["Status"]["Description"], "exit code: 1");
        let vertex = &spans[1]["Attributes"][0]["Value"]["Value"];
        assert_eq!(*vertex, Digest::sha256("early").as_str());
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
