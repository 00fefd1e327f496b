//! Events of a build's progress.

use std::time::SystemTime;

use bytes::Bytes;
use oci::Digest;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A vertex is known, started or ended.
    Vertex(Vertex),
    /// A part of a vertex's work moved on.
    Status(Status),
    /// A vertex wrote something.
    Log(Log),
    /// Something the user should look at.
    Warning(Warning),
}

/// The state of a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// Which.
    pub digest: Digest,
    /// The vertices that it reads.
    pub inputs: Vec<Digest>,
    /// Shown to people.
    pub name: String,
    /// Whether it did not have to run.
    pub cached: bool,
    /// When work on it began.
    pub started: Option<SystemTime>,
    /// When the work ended.
    pub completed: Option<SystemTime>,
    /// Why it failed; empty if it did not.
    pub error: String,
    /// The group it is shown in.
    pub group: Option<ProgressGroup>,
}

/// Vertices that are shown as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Identity.
    pub id: String,
    /// Shown to people.
    pub name: String,
    /// Whether a vertex may also be shown outside the group.
    pub weak: bool,
}

/// The state of a part of a vertex's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Which part.
    pub id: String,
    /// Of which vertex.
    pub vertex: Digest,
    /// What is done, e.g. `downloading`.
    pub name: String,
    /// How much is done.
    pub current: i64,
    /// Of how much; 0 if unknown.
    pub total: i64,
    /// When this was so.
    pub timestamp: SystemTime,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

/// Output of a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Which vertex.
    pub vertex: Digest,
    /// 1 is standard output, 2 standard error.
    pub stream: i64,
    /// The bytes that the step wrote.
    pub msg: Bytes,
    /// When.
    pub timestamp: SystemTime,
}

/// A warning about a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which vertex.
    pub vertex: Digest,
    /// How bad.
    pub level: i64,
    /// One line.
    pub short: Bytes,
    /// More lines.
    pub detail: Vec<Bytes>,
    /// Where to read on.
    pub url: String,
    /// What `ranges` point into.
    pub source_info: Option<SourceInfo>,
    /// What is meant.
    pub ranges: Vec<Range>,
}

/// A file of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInfo {
    /// Its name.
    pub filename: String,
    /// Its content.
    pub data: Bytes,
    /// Its language, e.g. `Dockerfile`.
    pub language: String,
}

/// Lines of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First.
    pub start: Position,
    /// Last.
    pub end: Position,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: i32,
    /// Character, from 0.
    pub character: i32,
}

impl Event {
    /// Returns the vertex it is about.
    pub fn vertex(&self) -> &Digest {
        match self {
            Self::Vertex(vertex) => &vertex.digest,
            Self::Status(status) => &status.vertex,
            Self::Log(log) => &log.vertex,
            Self::Warning(warning) => &warning.vertex,
        }
    }
}

impl Vertex {
    /// Makes a vertex that nothing happened to yet.
    pub fn new(digest: Digest, name: impl Into<String>, inputs: Vec<Digest>) -> Self {
        Self {
            digest,
            inputs,
            name: name.into(),
            cached: false,
            started: None,
            completed: None,
            error: String::new(),
            group: None,
        }
    }
}
