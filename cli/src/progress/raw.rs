//! One JSON object a line, with the reference's field names.

use std::io::{self, Write};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::SolveStatus;
use serde_json::{Map, Value, json};

use crate::progress::Display;
use crate::progress::text::harmless_json;
use crate::progress::trace::Trace;

/// Writes JSON.
#[derive(Debug, Default)]
pub struct Raw {
    // Keeps what the end needs.
    trace: Trace,
}

impl Display for Raw {
    fn trace(&self) -> &Trace {
        &self.trace
    }

    fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    fn show(&mut self, _: SystemTime, _: bool, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn update(
        &mut self,
        change: &SolveStatus,
        now: SystemTime,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        self.trace.take(change, now);
        writeln!(out, "{}", harmless_json(&line(change).to_string()))
    }
}

/// RFC 3339 with what nanoseconds there are, in UTC.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    gostd::Timestamp::from(time).to_string()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

struct Object(Map<String, Value>);

impl Object {
    fn new() -> Self {
        Self(Map::new())
    }

    fn put(mut self, key: &str, value: Value) -> Self {
        self.0.insert(key.into(), value);
        self
    }

    // Empty fields are left out.
    fn some(self, key: &str, value: Value) -> Self {
        let empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::String(s) => s.is_empty(),
            Value::Number(n) => n.as_i64() == Some(0),
            Value::Array(a) => a.is_empty(),
            Value::Object(_) | Value::Bool(true) => false,
        };
        if empty { self } else { self.put(key, value) }
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

/// One change as JSON.
#[must_use]
pub fn line(change: &SolveStatus) -> Value {
    let time = |t: Option<SystemTime>| t.map_or(Value::Null, |t| rfc3339(t).into());
    let vertexes: Vec<Value> = change
        .vertexes
        .iter()
        .map(|v| {
            let group = v.group.as_ref().map_or(Value::Null, |g| {
                Object::new()
                    .some("id", json!(g.id))
                    .some("name", json!(g.name))
                    .some("weak", json!(g.weak))
                    .done()
            });
            Object::new()
                .some("digest", json!(v.digest))
                .some("inputs", json!(v.inputs))
                .some("name", json!(v.name))
                .some("started", time(v.started))
                .some("completed", time(v.completed))
                .some("cached", json!(v.cached))
                .some("error", json!(v.error))
                .some("progressGroup", group)
                .done()
        })
        .collect();
    let statuses: Vec<Value> = change
        .statuses
        .iter()
        .map(|s| {
            Object::new()
                .put("id", json!(s.id))
                .some("vertex", json!(s.vertex))
                .some("name", json!(s.name))
                .some("total", json!(s.total))
                .put("current", json!(s.current))
                .put("timestamp", json!(rfc3339(s.timestamp)))
                .some("started", time(s.started))
                .some("completed", time(s.completed))
                .done()
        })
        .collect();
    let logs: Vec<Value> = change
        .logs
        .iter()
        .map(|l| {
            Object::new()
                .some("vertex", json!(l.vertex))
                .some("stream", json!(l.stream))
                .put("data", json!(base64(&l.data)))
                .put("timestamp", json!(rfc3339(l.timestamp)))
                .done()
        })
        .collect();
    let warnings: Vec<Value> = change
        .warnings
        .iter()
        .map(|w| {
            let detail: Vec<String> = w.detail.iter().map(|d| base64(d.as_bytes())).collect();
            let source = w.source.as_ref().map_or(
                Value::Null,
                |(name, data)| json!({ "filename": name, "data": base64(data) }),
            );
            let ranges: Vec<Value> = w
                .ranges
                .iter()
                .map(|r| json!({ "start": { "line": r.start }, "end": { "line": r.end } }))
                .collect();
            Object::new()
                .some("vertex", json!(w.vertex))
                .some("level", json!(w.level))
                .some("short", json!(base64(w.short.as_bytes())))
                .some("detail", json!(detail))
                .some("url", json!(w.url))
                .some("sourceInfo", source)
                .some("range", json!(ranges))
                .done()
        })
        .collect();
    Object::new()
        .some("vertexes", json!(vertexes))
        .some("statuses", json!(statuses))
        .some("logs", json!(logs))
        .some("warnings", json!(warnings))
        .done()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let at = |s, n| rfc3339(SystemTime::UNIX_EPOCH + Duration::new(s, n));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400, 120_000_000), "2000-02-29T00:00:00.12Z");
        assert_eq!(at(1_732_379_345, 1), "2024-11-23T16:29:05.000000001Z");
    }
}
