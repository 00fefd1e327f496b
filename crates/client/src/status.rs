//! The progress messages of a running build.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost_types::Timestamp;
use proto::control;

use crate::failure::LineRange;

/// What changed since the last message.
#[derive(Debug, Clone, Default)]
pub struct SolveStatus {
    /// Steps that are new or changed.
    pub vertexes: Vec<Vertex>,
    /// Progress inside of steps.
    pub statuses: Vec<Status>,
    /// Output of steps.
    pub logs: Vec<Log>,
    /// Warnings.
    pub warnings: Vec<Warning>,
}

/// Steps that are shown as one.
#[derive(Debug, Clone)]
pub struct Group {
    /// The group's id.
    pub id: String,
    /// The group's name as it is shown.
    pub name: String,
    /// Whether the group is not shown when all its steps belong to other groups too.
    pub weak: bool,
}

/// A vertex, which users see as a step.
#[derive(Debug, Clone, Default)]
pub struct Vertex {
    /// The digest of the vertex.
    pub digest: String,
    /// The digests of the vertices that it depends on.
    pub inputs: Vec<String>,
    /// The name as it is shown.
    pub name: String,
    /// Whether its result came from the cache.
    pub cached: bool,
    /// When it began, if it has.
    pub started: Option<SystemTime>,
    /// When it ended, if it has.
    pub completed: Option<SystemTime>,
    /// The error's message; empty if it did not fail.
    pub error: String,
    /// The group that it is shown as a part of.
    pub group: Option<Group>,
}

/// Progress of one part of a step.
#[derive(Debug, Clone)]
pub struct Status {
    /// The id of the part within its vertex.
    pub id: String,
    /// The digest of the vertex.
    pub vertex: String,
    /// The name as it is shown.
    pub name: String,
    /// How much is done, in bytes or in whatever the part counts.
    pub current: i64,
    /// How much there is to do; zero when that is not known.
    pub total: i64,
    /// The daemon's time of this report.
    pub timestamp: SystemTime,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

/// Output of a step.
#[derive(Debug, Clone)]
pub struct Log {
    /// The digest of the vertex.
    pub vertex: String,
    /// 1 for standard output, 2 for standard error.
    pub stream: i64,
    /// The bytes, not always whole lines.
    pub data: Bytes,
    /// The daemon's time when the bytes were written.
    pub timestamp: SystemTime,
}

/// A warning that belongs to a step.
#[derive(Debug, Clone)]
pub struct Warning {
    /// The digest of the vertex.
    pub vertex: String,
    /// How bad.
    pub level: i64,
    /// In a line.
    pub short: String,
    /// In several.
    pub detail: Vec<String>,
    /// Where to read more.
    pub url: String,
    /// The file it is about: name and contents.
    pub source: Option<(String, Vec<u8>)>,
    /// The lines of that file.
    pub ranges: Vec<LineRange>,
}

pub(crate) fn time(wire: Option<Timestamp>) -> Option<SystemTime> {
    let wire = wire?;
    let seconds = u64::try_from(wire.seconds).ok()?;
    let nanos = u32::try_from(wire.nanos).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

fn time_or_epoch(wire: Option<Timestamp>) -> SystemTime {
    time(wire).unwrap_or(SystemTime::UNIX_EPOCH)
}

pub(crate) fn from_wire(wire: control::StatusResponse) -> SolveStatus {
    SolveStatus {
        vertexes: wire.vertexes.into_iter().map(vertex).collect(),
        statuses: wire.statuses.into_iter().map(status).collect(),
        logs: wire
            .logs
            .into_iter()
            .map(|l| Log {
                vertex: l.vertex,
                stream: l.stream,
                data: l.msg,
                timestamp: time_or_epoch(l.timestamp),
            })
            .collect(),
        warnings: wire.warnings.into_iter().map(warning).collect(),
    }
}

fn vertex(v: control::Vertex) -> Vertex {
    Vertex {
        digest: v.digest,
        inputs: v.inputs,
        name: v.name,
        cached: v.cached,
        started: time(v.started),
        completed: time(v.completed),
        error: v.error,
        group: v.progress_group.map(|g| Group {
            id: g.id,
            name: g.name,
            weak: g.weak,
        }),
    }
}

fn status(s: control::VertexStatus) -> Status {
    Status {
        id: s.id,
        vertex: s.vertex,
        name: s.name,
        current: s.current,
        total: s.total,
        timestamp: time_or_epoch(s.timestamp),
        started: time(s.started),
        completed: time(s.completed),
    }
}

fn warning(w: control::VertexWarning) -> Warning {
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    Warning {
        vertex: w.vertex,
        level: w.level,
        short: text(w.short),
        detail: w.detail.into_iter().map(text).collect(),
        url: w.url,
        source: w.info.map(|i| (i.filename, i.data)),
        ranges: w
            .ranges
            .iter()
            .map(|r| LineRange::lines(r.start.map_or(0, |p| p.line), r.end.map_or(0, |p| p.line)))
            .collect(),
    }
}
