//! The interface between the engine and the outer layer (`control`), in types of the domain.
//!
//! `control` holds an `Arc<dyn Backend>` and turns wire messages into these types and back; the engine implements the trait.
//! Nothing here knows gRPC. A frontend that runs in the client (`buildctl build` without `--frontend`, buildx) comes as
//! [`SolveInput::ClientFrontend`]: to the engine it is a [`Frontend`] like any other.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
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
pub use trace::{Span, SpanSink, TraceContext};

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
}

/// The version of a daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionInfo {
    /// The program's package.
    pub package: String,
    /// The version that clients compare.
    pub version: String,
    /// The commit.
    pub revision: String,
    /// The version of the Dockerfile language.
    pub dockerfile: String,
}

/// A worker.
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
    /// Whether internal records are included.
    pub all: bool,
    /// Records that were used within this time are kept.
    pub keep: Duration,
    /// Filters on records; one of them has to match, and an empty list matches all.
    pub filters: Vec<String>,
    /// Bytes that always stay.
    pub reserved: i64,
    /// Bytes that are never exceeded.
    pub max_used: i64,
    /// Bytes left free on the disk.
    pub min_free: i64,
}

/// A device that steps may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Whether no entitlement is needed.
    pub auto_allow: bool,
    /// Annotations of the device by key.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is set up when first asked for.
    pub on_demand: bool,
}

/// Whether a record can still be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordAccess {
    /// It cannot be written any more.
    Immutable,
    /// A step or a client may write to it.
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

/// One kept piece of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Its id.
    pub id: RecordId,
    /// Whether it can still be written.
    pub access: RecordAccess,
    /// Whether it may be deleted now.
    pub usage: RecordUsage,
    /// Bytes on disk.
    pub size: i64,
    /// What it stands on.
    pub parents: Vec<RecordId>,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last used.
    pub last_used: Option<SystemTime>,
    /// How often it was used.
    pub usage_count: i64,
    /// What it is.
    pub description: String,
    /// `regular`, `source.local`, `exec.cachemount`, ….
    pub record_type: String,
    /// Whether it shares bytes with others that are not deleted with it.
    pub shared: bool,
}

/// What may be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Filters on records; one of them has to match, and an empty list matches all.
    pub filters: Vec<String>,
    /// Internal records and those of frontends too.
    pub all: bool,
    /// Records that were used within this time are kept.
    pub keep: Duration,
    /// Bytes that stay.
    pub reserved: i64,
    /// Bytes that may be left.
    pub max_used: i64,
    /// Bytes that should be free on the disk.
    pub min_free: i64,
}
