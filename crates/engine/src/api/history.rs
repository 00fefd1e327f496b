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
    /// Which states are listed.
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
    /// What happened to the record.
    pub kind: HistoryEventKind,
    /// The record after the change.
    pub record: HistoryRecord,
}

/// A finished or running build.
#[derive(Debug, Clone, Default)]
pub struct HistoryRecord {
    /// The client's name for the build.
    pub build: BuildRef,
    /// Name of the frontend; empty for a definition or a frontend in the client.
    pub frontend: String,
    /// Options of the frontend, with credentials redacted.
    pub frontend_attrs: BTreeMap<String, String>,
    /// Requested exporters, with credentials redacted.
    pub exporters: Vec<ExporterSpec>,
    /// The failure of the build; none if it succeeded or still runs.
    pub error: Option<Failure>,
    /// Start of the build.
    pub created: Option<SystemTime>,
    /// End of the build; none while it runs.
    pub completed: Option<SystemTime>,
    /// Blob of the build's progress and logs.
    pub logs: Option<oci::Descriptor>,
    /// Blob of the build's spans.
    pub trace: Option<oci::Descriptor>,
    /// Blob of the failure with all its details.
    pub external_error: Option<oci::Descriptor>,
    /// Answers of the exporters, by key.
    pub exporter_response: BTreeMap<String, String>,
    /// The single result.
    pub result: Option<HistoryResult>,
    /// The results by platform.
    pub results: BTreeMap<String, HistoryResult>,
    /// Number of changes of the record.
    pub generation: i32,
    /// Whether the record is exempt from expiry.
    pub pinned: bool,
    /// Number of steps whose result was cached.
    pub cached_steps: i32,
    /// Number of all steps.
    pub total_steps: i32,
    /// Number of steps that ended.
    pub completed_steps: i32,
    /// Number of warnings.
    pub warnings: i32,
}

/// A result of a build, as blobs.
#[derive(Debug, Clone, Default)]
pub struct HistoryResult {
    /// Descriptors of the attestations.
    pub attestations: Vec<oci::Descriptor>,
    /// The descriptor that each exporter gave, by the exporter's position in the request.
    pub results: BTreeMap<i64, oci::Descriptor>,
}

/// Encodes records of builds for disk and clients, and decodes them.
pub trait HistoryCodec: Send + Sync + fmt::Debug {
    /// Encodes events as a piece of a log; pieces are concatenated.
    fn log(&self, events: Vec<progress::Event>) -> Vec<u8>;
    /// Decodes the events of a log.
    fn events(&self, log: &[u8]) -> Vec<progress::Event>;
    /// Encodes a failure with all its details.
    fn error(&self, failure: &Failure) -> Vec<u8>;
    /// Encodes a record.
    fn record(&self, record: &HistoryRecord) -> Vec<u8>;
    /// Decodes a record; none if it cannot be read.
    fn parse(&self, record: &[u8]) -> Option<HistoryRecord>;
}

/// A change of a build record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryChange {
    /// Pins the record (`true`), which exempts it from expiry, or unpins it.
    Pin(bool),
    /// Deletes the record.
    Delete,
    /// Writes out what is still in memory: the trace.
    Finalize,
}

/// A blob of the store, as lists of content show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobLine {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// When it came into the store.
    pub created: SystemTime,
}

/// Reads a blob from an offset on.
pub type ReadBlob = Box<dyn FnOnce(u64) -> BoxFuture<'static, Result<BlobStream, Failure>> + Send>;

/// The bytes of a blob, in pieces of at most 256 KiB.
pub type BlobStream = BoxStream<'static, Result<Bytes, Failure>>;

/// A blob of a build record.
pub struct HistoryBlob {
    /// Size in bytes.
    pub size: u64,
    /// Opens a stream of its bytes.
    pub read: ReadBlob,
}

impl fmt::Debug for HistoryBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryBlob")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
