//! The interface between the engine and the outer layer (`control`), in types of the domain.
//!
//! `control` holds an `Arc<dyn Backend>` and turns wire messages into these types and back; the engine implements the trait.
//! Nothing here knows gRPC. A frontend that runs in the client (`buildctl build` without `--frontend`, buildx) comes as
//! [`SolveInput::ClientFrontend`]: to the engine it is a [`Frontend`] like any other.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
pub use attest::IncompleteMaterial;
use bytes::Bytes;
pub use frontend;
use frontend::bridge::WorkerInfo;
use futures::stream::BoxStream;
use oci::Digest;
pub use solver::{Activity, WaitGraph, WaitNode};
use tokio::sync::watch;

mod failure;
mod history;
mod ids;
mod inspect;
mod solve;
mod trace;

pub use failure::{Detail, Failure, FailureKind};
pub use history::{
    BlobLine, BlobStream, HistoryBlob, HistoryChange, HistoryCodec, HistoryEnd, HistoryEvent,
    HistoryEventKind, HistoryQuery, HistoryRecord, HistoryResult, HistoryScope, ReadBlob,
};
pub use ids::{BuildRef, RecordId};
pub use inspect::{CacheParentLine, CacheRecordLine, CacheRecordLines, RunningBuild, StoreSize};
pub use oci::SessionId;
pub use solve::{
    CacheSpec, ExporterSpec, PolicyQuestion, PolicyVerdict, PolicyVerifier, Recording, ResultHost,
    SolveInput, SolveRequest, SolveResponse,
};
pub(crate) use trace::bytes_of_hex;
pub use trace::{Span, SpanSink, SpanSubject, TraceContext};

/// The engine as the control surface sees it. Dropping the future of a call cancels the call.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Runs one build to its end. Dropping the future cancels the build.
    async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Failure>;

    /// The progress of a build: first the past events, then new ones until it ends. Waits some seconds for a build that has not begun.
    async fn status(&self, build: &BuildRef) -> Result<progress::Subscription, Failure>;

    /// The workers that match the filters; all without filters.
    async fn workers(&self, filters: &[String]) -> Result<Vec<WorkerRecord>, Failure>;

    /// The version of the daemon.
    fn version(&self) -> VersionInfo;

    /// The records on disk that match the filters and have not been used for `age_limit`.
    async fn disk_usage(
        &self,
        filters: &[String],
        age_limit: Duration,
    ) -> Result<Vec<UsageRecord>, Failure>;

    /// Deletes records as the request allows. The stream yields each deleted record.
    async fn prune(
        &self,
        request: PruneRequest,
    ) -> Result<BoxStream<'static, Result<UsageRecord, Failure>>, Failure>;

    /// Lists finished and running builds, then follows changes of their records unless the query ends after the list.
    async fn history(
        &self,
        query: HistoryQuery,
    ) -> Result<BoxStream<'static, Result<HistoryEvent, Failure>>, Failure>;

    /// Changes a build record.
    async fn update_history(&self, build: &BuildRef, change: HistoryChange) -> Result<(), Failure>;

    /// A blob that a build record names: its size and a way to read it from an offset.
    async fn history_blob(&self, digest: &Digest) -> Result<HistoryBlob, Failure>;

    /// Up to `limit` blobs whose digests follow `after`, in order.
    async fn list_blobs(&self, after: &str, limit: u32) -> Result<Vec<BlobLine>, Failure>;

    /// Whether the daemon is stopping and takes no builds; none if it never says so.
    fn draining(&self) -> Option<watch::Receiver<bool>> {
        None
    }

    /// Takes spans that a client pushes; each is an encoded `ResourceSpans`.
    async fn export_spans(&self, spans: Vec<Bytes>) -> Result<(), Failure>;

    /// Takes spans that a program of a step sent, and `encoded`, the same ones as a `ResourceSpans`. False if they are of no running build, or
    /// if its trace has no room for them.
    fn add_step_spans(&self, spans: Vec<Span>, encoded: Bytes) -> bool {
        drop((spans, encoded));
        false
    }
}

/// Versions of a daemon and of the language that it builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionInfo {
    /// Import path of the program, as `buildctl debug info` prints it.
    pub package: String,
    /// BuildKit's version whose API this is; clients compare it.
    pub version: String,
    /// Commit that the daemon was built from; empty if it was built outside a repository.
    pub revision: String,
    /// Newest Dockerfile language, such as `1.28.0`.
    pub dockerfile: String,
}

/// A worker, as `buildctl debug workers` lists it.
#[derive(Debug, Clone, Default)]
pub struct WorkerRecord {
    /// Id, labels and platforms.
    pub info: WorkerInfo,
    /// The rules of garbage collection, in the order in which they are applied.
    pub gc_policy: Vec<GcRule>,
    /// Devices that steps may ask for.
    pub devices: Vec<DeviceInfo>,
}

/// One rule of garbage collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcRule {
    /// Whether the rule also deletes internal records and those of frontends.
    pub all: bool,
    /// Time since the last use within which records are kept.
    pub keep: Duration,
    /// Filters on records; one of them has to match, and an empty list matches all.
    pub filters: Vec<String>,
    /// Bytes that are never deleted.
    pub reserved: i64,
    /// Bytes that all records may take at most.
    pub max_used: i64,
    /// Bytes that must stay free on the disk.
    pub min_free: i64,
}

/// A device that steps may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Full CDI name, `vendor/class=name`.
    pub name: String,
    /// Whether steps get it without an entitlement.
    pub auto_allow: bool,
    /// Annotations of the device by key.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is set up when a step first asks for it.
    pub on_demand: bool,
}

/// Whether a record can still be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordAccess {
    /// It cannot be written: `ImmutableRef`.
    Immutable,
    /// A step or a client may write to it: a cache mount or a folder that is synced.
    Mutable,
}

/// Whether a record may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordUsage {
    /// Nothing holds it.
    Unused,
    /// A build holds it.
    InUse,
}

/// A record of the store: a snapshot with its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Id that the store chose.
    pub id: RecordId,
    /// Whether it can still be written.
    pub access: RecordAccess,
    /// Whether it may be deleted now.
    pub usage: RecordUsage,
    /// Bytes on disk.
    pub size: i64,
    /// Records whose layers it stands on.
    pub parents: Vec<RecordId>,
    /// When the record was created.
    pub created: SystemTime,
    /// When it was last used.
    pub last_used: Option<SystemTime>,
    /// Number of builds that used it.
    pub usage_count: i64,
    /// The step or source that it is of, for people.
    pub description: String,
    /// `regular`, `source.local`, `exec.cachemount`, ….
    pub record_type: String,
    /// Whether other records stand on the same bytes, so that deleting this one alone frees nothing.
    pub shared: bool,
}

/// Which records to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Filters on records; one of them has to match, and an empty list matches all.
    pub filters: Vec<String>,
    /// Deletes internal records and those of frontends too.
    pub all: bool,
    /// Time since the last use within which records are kept.
    pub keep: Duration,
    /// Bytes that are never deleted.
    pub reserved: i64,
    /// Bytes that all records may take afterwards; zero for no limit.
    pub max_used: i64,
    /// Bytes that should be free on the disk; zero for no demand.
    pub min_free: i64,
}
