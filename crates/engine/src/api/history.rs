//! Records of builds, and the blobs that they name.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use oci::Digest;

use super::{BuildRef, ExporterSpec, Failure};

/// Which builds a query lists, by their state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HistoryScope {
    /// Running and finished builds.
    #[default]
    All,
    /// Running builds only.
    Active,
}

/// When the answer to a query ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HistoryEnd {
    /// When the client leaves: changes of records follow the list as they happen.
    #[default]
    Never,
    /// After the records that exist when the query comes.
    AfterList,
}

/// Which build records a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Which states.
    pub scope: HistoryScope,
    /// The only build that is listed; empty for all.
    pub build: BuildRef,
    /// When the answer ends.
    pub end: HistoryEnd,
    /// Filters on fields, such as `status=error`; a record has to match one of them.
    pub filters: Vec<String>,
    /// The number of records in the list; zero is no limit.
    pub limit: u32,
}

/// The kind of a change of a build record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryEventKind {
    /// The build began.
    Started,
    /// The build ended, or its record changed.
    Complete,
    /// The record was deleted.
    Deleted,
}

/// A change of a build record.
#[derive(Debug, Clone)]
pub struct HistoryEvent {
    /// The kind of the change.
    pub kind: HistoryEventKind,
    /// The record after the change.
    pub record: HistoryRecord,
}

/// A finished or running build.
#[derive(Debug, Clone, Default)]
pub struct HistoryRecord {
    /// The client's name for the build.
    pub build: BuildRef,
    /// The frontend.
    pub frontend: String,
    /// Its options, credentials taken out.
    pub frontend_attrs: BTreeMap<String, String>,
    /// The exporters, credentials taken out.
    pub exporters: Vec<ExporterSpec>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// When it began.
    pub created: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
    /// What it said, as a blob.
    pub logs: Option<oci::Descriptor>,
    /// Its spans, as a blob.
    pub trace: Option<oci::Descriptor>,
    /// The error in full, as a blob.
    pub external_error: Option<oci::Descriptor>,
    /// What the exporters said.
    pub exporter_response: BTreeMap<String, String>,
    /// The single result.
    pub result: Option<HistoryResult>,
    /// The results by platform.
    pub results: BTreeMap<String, HistoryResult>,
    /// Counts changes of the record.
    pub generation: i32,
    /// Whether it is kept.
    pub pinned: bool,
    /// Steps that were cached.
    pub cached_steps: i32,
    /// Steps that there are.
    pub total_steps: i32,
    /// Steps that are done.
    pub completed_steps: i32,
    /// Warnings.
    pub warnings: i32,
}

/// A result of a build, as blobs.
#[derive(Debug, Clone, Default)]
pub struct HistoryResult {
    /// Attestations.
    pub attestations: Vec<oci::Descriptor>,
    /// What each exporter made, by its number.
    pub results: BTreeMap<i64, oci::Descriptor>,
}

/// Turns what is kept of builds into the bytes that clients read, and back.
pub trait HistoryCodec: Send + Sync + fmt::Debug {
    /// Events as a part of a log.
    fn log(&self, events: Vec<progress::Event>) -> Vec<u8>;
    /// The events of a log.
    fn events(&self, log: &[u8]) -> Vec<progress::Event>;
    /// A failure with all its facts.
    fn error(&self, failure: &Failure) -> Vec<u8>;
    /// A record.
    fn record(&self, record: &HistoryRecord) -> Vec<u8>;
    /// A record that was kept; nothing if it cannot be read.
    fn parse(&self, record: &[u8]) -> Option<HistoryRecord>;
}

/// A change of a build record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryChange {
    /// Keep it, or do not.
    Pin(bool),
    /// Delete it.
    Delete,
    /// Write out what is still in memory (the trace).
    Finalize,
}

/// A blob that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobLine {
    /// Its name.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// When it came.
    pub created: SystemTime,
}

/// Reads a blob from an offset on.
pub type ReadBlob = Box<dyn FnOnce(u64) -> BoxFuture<'static, Result<BlobStream, Failure>> + Send>;

/// The bytes of a blob, in pieces.
pub type BlobStream = BoxStream<'static, Result<Bytes, Failure>>;

/// A blob of a build record.
pub struct HistoryBlob {
    /// Its size.
    pub size: u64,
    /// Reads it from an offset on.
    pub read: ReadBlob,
}

impl fmt::Debug for HistoryBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryBlob")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
