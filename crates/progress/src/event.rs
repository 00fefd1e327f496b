//! Events of a build's progress.

use std::time::SystemTime;

use bytes::Bytes;
use oci::Digest;

/// An event in the progress of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A vertex was loaded, started or ended.
    Vertex(Vertex),
    /// A part of a vertex's work advanced.
    Status(Status),
    /// A vertex wrote output.
    Log(Log),
    /// A warning for the user.
    Warning(Warning),
}

/// The state of a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// Digest of the vertex, as the client knows it.
    pub digest: Digest,
    /// Digests of its inputs.
    pub inputs: Vec<Digest>,
    /// Name for people.
    pub name: String,
    /// Whether its result came from the cache.
    pub cached: bool,
    /// Start of its work; none before that.
    pub started: Option<SystemTime>,
    /// End of its work; none before that.
    pub completed: Option<SystemTime>,
    /// Sentence of the error; empty if it succeeded.
    pub error: String,
    /// The group in which it is shown.
    pub group: Option<ProgressGroup>,
}

/// Vertices that are shown as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Id of the group.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Whether a vertex may also be shown outside the group.
    pub weak: bool,
}

/// The state of a part of a vertex's work, such as the download of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Id of the part, unique within the vertex together with `name`.
    pub id: String,
    /// Digest of the vertex.
    pub vertex: Digest,
    /// Current activity, e.g. `downloading`.
    pub name: String,
    /// Progress made, in bytes or items.
    pub current: i64,
    /// Total of `current`; 0 if unknown.
    pub total: i64,
    /// Time of this state.
    pub timestamp: SystemTime,
    /// Start of the part.
    pub started: Option<SystemTime>,
    /// End of the part; none while it runs.
    pub completed: Option<SystemTime>,
}

/// Output of a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Digest of the vertex.
    pub vertex: Digest,
    /// 1 for standard output, 2 for standard error.
    pub stream: i64,
    /// The bytes that the step wrote.
    pub msg: Bytes,
    /// Time of the output.
    pub timestamp: SystemTime,
}

/// A warning about a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Digest of the vertex.
    pub vertex: Digest,
    /// Severity; 1 is usual.
    pub level: i64,
    /// The warning in one line.
    pub short: Bytes,
    /// Further lines of explanation.
    pub detail: Vec<Bytes>,
    /// Address of documentation.
    pub url: String,
    /// The file that `ranges` refers to.
    pub source_info: Option<SourceInfo>,
    /// Lines of the file that the warning is about.
    pub ranges: Vec<Range>,
}

/// A source file of the user, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInfo {
    /// Name of the file.
    pub filename: String,
    /// Content of the file.
    pub data: Bytes,
    /// Language of the file, e.g. `Dockerfile`.
    pub language: String,
}

/// A range of text in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First position.
    pub start: Position,
    /// Last position.
    pub end: Position,
}

/// A position in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line number, from 1.
    pub line: i32,
    /// Column, from 0.
    pub character: i32,
}

impl Event {
    /// Returns the digest of the vertex that the event is about.
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
    /// A vertex that has not started.
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
