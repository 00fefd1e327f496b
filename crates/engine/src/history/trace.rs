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
    let id = Digest::sha256(record.build.as_bytes());
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
