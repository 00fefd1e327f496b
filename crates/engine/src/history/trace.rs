//! The steps of a build, counted and as spans.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

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
        let time = |at: Option<SystemTime>| rfc3339(at.or(record.created).unwrap_or(UNIX_EPOCH));
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

/// A time in the form of RFC 3339. The calendar repeats every 400 years.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // From the first of March of the year zero, so that the leap day is a year's last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{nanos:09}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_700_000_001), "2023-11-14T22:13:21.000000000Z");
    }
}
