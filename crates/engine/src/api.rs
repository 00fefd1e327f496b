//! What the outer layer (`control`) may ask of the engine, in words of the domain.
//!
//! `control` holds an `Arc<dyn Backend>` and turns wire messages into these types and back; the engine implements the trait.
//! Nothing here knows gRPC. A frontend that runs in the client (`buildctl build` without `--frontend`, buildx) comes as
//! [`SolveRequest::client_frontend`]: to the engine it is a [`Frontend`] like any other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
pub use frontend;
use frontend::bridge::{ResolveOpts, SourceMeta, WorkerInfo};
use frontend::{Bridge, Frontend};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use llb::pb;
use oci::Digest;

/// The engine as the control surface sees it. Dropping the future of a call cancels the call.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Runs one build to its end. Dropping the future cancels the build.
    async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Failure>;

    /// What a build says: everything so far, then live, until it ends. Waits a little for a build that has not begun.
    async fn status(&self, build: &str) -> Result<progress::Subscription, Failure>;

    /// The workers that match the filters; all without filters.
    async fn workers(&self, filters: &[String]) -> Result<Vec<WorkerRecord>, Failure>;

    /// What this daemon is.
    fn version(&self) -> VersionInfo;

    /// What is kept on disk.
    async fn disk_usage(
        &self,
        filters: &[String],
        age_limit: Duration,
    ) -> Result<Vec<UsageRecord>, Failure>;

    /// Deletes what the request allows; each deleted record is told.
    async fn prune(
        &self,
        request: PruneRequest,
    ) -> Result<BoxStream<'static, Result<UsageRecord, Failure>>, Failure>;

    /// Finished and running builds, then, unless the query ends early, what happens to them.
    async fn history(
        &self,
        query: HistoryQuery,
    ) -> Result<BoxStream<'static, Result<HistoryEvent, Failure>>, Failure>;

    /// Changes a build record.
    async fn update_history(&self, build: &str, change: HistoryChange) -> Result<(), Failure>;

    /// A blob that a build record names: its size and a way to read it from an offset.
    async fn history_blob(&self, digest: &Digest) -> Result<HistoryBlob, Failure>;

    /// Up to `limit` blobs whose digests follow `after`, in order.
    async fn list_blobs(&self, after: &str, limit: u32) -> Result<Vec<BlobLine>, Failure>;

    /// Takes spans that a client pushes; each is an encoded `ResourceSpans`.
    async fn export_spans(&self, spans: Vec<Bytes>) -> Result<(), Failure>;
}

/// One build.
#[derive(Clone, Default)]
pub struct SolveRequest {
    /// The client's name for the build.
    pub build: String,
    /// The session that asked.
    pub session: String,
    /// What to solve, if there is no frontend.
    pub definition: Option<Arc<pb::Definition>>,
    /// Which frontend, such as `dockerfile.v0`; empty for none.
    pub frontend: String,
    /// The frontend that runs in the client. Set when there is neither `definition` nor `frontend`.
    pub client_frontend: Option<Arc<dyn Frontend>>,
    /// Options of the frontend.
    pub frontend_opts: BTreeMap<String, String>,
    /// Definitions handed over to the frontend.
    pub frontend_inputs: BTreeMap<String, Arc<pb::Definition>>,
    /// What to do with the result, in order; the position is the exporter's number for the session.
    pub exporters: Vec<ExporterSpec>,
    /// Whether to ask the session for further exporters when the result is there.
    pub session_exporters: bool,
    /// Remote caches to write.
    pub cache_exports: Vec<CacheSpec>,
    /// Remote caches to read.
    pub cache_imports: Vec<CacheSpec>,
    /// Entitlements that the client grants, such as `network.host`.
    pub entitlements: Vec<String>,
    /// An encoded `moby.buildkit.v1.sourcepolicy.Policy`.
    pub source_policy: Option<Bytes>,
    /// The session that is asked for a verdict on each source; empty for none.
    pub source_policy_session: String,
    /// Asks that session. Set when there is one.
    pub policy_verifier: Option<Arc<dyn PolicyVerifier>>,
    /// Lets the client look into the result while its session chooses exporters.
    pub result_host: Option<Arc<dyn ResultHost>>,
    /// Whether the build is one of the client's own, not to be recorded.
    pub internal: bool,
    /// Which behaviour is wanted; zero is the current one.
    pub compatibility_version: i64,
    /// Whether steps reach the network through a proxy of the client only.
    pub proxy_network: bool,
}

impl fmt::Debug for SolveRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Options may hold credentials: only names are shown.
        f.debug_struct("SolveRequest")
            .field("build", &self.build)
            .field("session", &self.session)
            .field("frontend", &self.frontend)
            .field("frontend_opts", &self.frontend_opts.keys())
            .field("exporters", &self.exporters)
            .finish_non_exhaustive()
    }
}

/// Asks a client for a verdict on sources.
#[async_trait]
pub trait PolicyVerifier: Send + Sync {
    /// Asks about one source.
    async fn check(&self, question: PolicyQuestion) -> Result<PolicyVerdict, Failure>;
}

/// A source to be judged, and what is known of it.
#[derive(Debug, Clone)]
pub struct PolicyQuestion {
    /// The platform that it is wanted for.
    pub platform: Option<pb::Platform>,
    /// The source.
    pub source: SourceMeta,
}

/// What a client says of a source.
#[derive(Debug, Clone)]
pub enum PolicyVerdict {
    /// It may be used.
    Allow,
    /// Another is to be used instead.
    Convert(Option<pb::SourceOp>),
    /// It may not be used.
    Deny {
        /// The word for the verdict.
        action: String,
        /// The reasons, as a fact on the failure.
        details: Option<Detail>,
    },
    /// More must be known first.
    Resolve {
        /// The source to resolve; the same one.
        source: pb::SourceOp,
        /// How.
        opts: Box<ResolveOpts>,
    },
}

/// Gives names to the refs of a result, under which the client may read their files.
pub trait ResultHost: Send + Sync {
    /// Returns the names in order, and what keeps them valid.
    fn host(
        &self,
        bridge: Arc<dyn Bridge>,
        refs: Vec<Arc<dyn frontend::Ref>>,
    ) -> (Vec<String>, Box<dyn std::any::Any + Send>);
}

/// An exporter and its attributes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExporterSpec {
    /// `image`, `oci`, `docker`, `local`, `tar`, ….
    pub kind: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
}

impl fmt::Debug for ExporterSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExporterSpec")
            .field("kind", &self.kind)
            .field("attrs", &self.attrs.keys())
            .finish()
    }
}

/// A remote cache and its attributes, which may hold credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CacheSpec {
    /// `registry`, `inline`, `local`, `gha`, `s3`, `azblob`, ….
    pub kind: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
}

impl fmt::Debug for CacheSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheSpec")
            .field("kind", &self.kind)
            .field("attrs", &self.attrs.keys())
            .finish()
    }
}

/// What a build gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SolveResponse {
    /// What the exporters say, such as `containerimage.digest`.
    pub exporter_response: BTreeMap<String, String>,
}

/// What kind of failure, for a client's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailureKind {
    /// No better kind is known: a step that failed, a bad Dockerfile.
    #[default]
    Unknown,
    /// The build was cancelled.
    Canceled,
    /// The request is wrong.
    InvalidArgument,
    /// It took too long.
    DeadlineExceeded,
    /// What was asked for is not there.
    NotFound,
    /// What was to be made is there already.
    AlreadyExists,
    /// It is not allowed.
    PermissionDenied,
    /// The disk or another resource is used up.
    ResourceExhausted,
    /// The daemon does not do this.
    Unimplemented,
    /// A broken invariant.
    Internal,
    /// The daemon is stopping.
    Unavailable,
}

/// Why a call failed: a sentence, and facts that clients print or act on.
#[derive(Debug, Clone, Default, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// The sentence, as the client shows it.
    pub message: String,
    /// The facts, from the outermost to the innermost.
    pub details: Vec<Detail>,
}

impl Failure {
    /// A failure with a sentence and no facts.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// A feature that is not built; the sentence names it.
    #[must_use]
    pub fn not_built(feature: &str) -> Self {
        Self::new(
            FailureKind::Unimplemented,
            format!("{feature} is not supported by this daemon"),
        )
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, detail: Detail) -> Self {
        self.details.push(detail);
        self
    }
}

/// A fact on a failure.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Detail {
    /// The vertex that failed.
    Vertex {
        /// Its digest.
        digest: Digest,
    },
    /// Where in the user's files; clients print these lines.
    Source {
        /// The file with its text.
        info: pb::SourceInfo,
        /// The lines.
        ranges: Vec<pb::Range>,
    },
    /// The op that failed and what it worked on.
    Solve {
        /// Refs of the inputs, usable in later requests of the build.
        inputs: Vec<String>,
        /// Refs of the mounts as the step left them.
        mounts: Vec<String>,
        /// The op.
        op: Option<Box<pb::Op>>,
        /// Its description.
        description: BTreeMap<String, String>,
        /// Which file action failed.
        file_action: Option<i64>,
        /// Which input's content could not be digested.
        content_input: Option<i64>,
    },
    /// The exit code of a process.
    Exit {
        /// The code.
        code: u32,
    },
    /// The frontend that failed.
    Frontend {
        /// Its name.
        name: String,
        /// The image it came from.
        source: String,
    },
    /// A capability that the frontend lacks.
    FrontendCap {
        /// Its name.
        name: String,
    },
    /// A subrequest that the frontend lacks.
    Subrequest {
        /// Its name.
        name: String,
    },
    /// A feature that the wanted compatibility version lacks.
    CompatibilityFeature {
        /// The version.
        version: i64,
        /// The feature.
        feature: String,
    },
    /// A fact from elsewhere (a client's own error), as it came.
    Raw {
        /// Its type.
        type_url: String,
        /// Its bytes.
        value: Bytes,
    },
}

/// What this daemon is.
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
    /// What garbage collection does.
    pub gc_policy: Vec<GcRule>,
    /// Devices that steps may ask for.
    pub devices: Vec<DeviceInfo>,
}

/// One rule of garbage collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcRule {
    /// Whether internal records are included.
    pub all: bool,
    /// Records used within this time stay.
    pub keep: Duration,
    /// Which records.
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
    /// What is said about it.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is set up when first asked for.
    pub on_demand: bool,
}

/// One kept piece of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Its id.
    pub id: String,
    /// Whether it can still be written.
    pub mutable: bool,
    /// Whether a build holds it.
    pub in_use: bool,
    /// Bytes on disk.
    pub size: i64,
    /// What it stands on.
    pub parents: Vec<String>,
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
    /// Which records.
    pub filters: Vec<String>,
    /// Internal records and those of frontends too.
    pub all: bool,
    /// Records used within this time stay.
    pub keep: Duration,
    /// Bytes that stay.
    pub reserved: i64,
    /// Bytes that may be left.
    pub max_used: i64,
    /// Bytes that should be free on the disk.
    pub min_free: i64,
}

/// Which builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Running ones only.
    pub active_only: bool,
    /// This one only; empty for all.
    pub build: String,
    /// End after what is known now.
    pub early_exit: bool,
    /// Filters on fields.
    pub filters: Vec<String>,
    /// At most so many; zero is no limit.
    pub limit: u32,
}

/// What happened to a build record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryEventKind {
    /// The build began.
    Started,
    /// The build ended, or its record changed.
    Complete,
    /// The record is gone.
    Deleted,
}

/// Something that happened to a build record.
#[derive(Debug, Clone)]
pub struct HistoryEvent {
    /// What happened.
    pub kind: HistoryEventKind,
    /// The record.
    pub record: HistoryRecord,
}

/// A finished or running build.
#[derive(Debug, Clone, Default)]
pub struct HistoryRecord {
    /// The client's name for the build.
    pub build: String,
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
