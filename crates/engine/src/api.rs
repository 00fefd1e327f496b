//! What the outer layer (`control`) may ask of the engine, in words of the domain.
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
use llb::pb;
use oci::Digest;

mod history;
mod solve;

pub use history::{
    BlobLine, BlobStream, HistoryBlob, HistoryChange, HistoryCodec, HistoryEvent, HistoryEventKind,
    HistoryQuery, HistoryRecord, HistoryResult, ReadBlob,
};
pub use solve::{
    CacheSpec, ExporterSpec, PolicyQuestion, PolicyVerdict, PolicyVerifier, Recording, ResultHost,
    SolveInput, SolveRequest, SolveResponse,
};

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

impl FailureKind {
    /// What a call answers whose error is of this kind.
    #[must_use]
    pub fn of_call(kind: oci::ErrorKind) -> Self {
        use oci::ErrorKind;
        match kind {
            ErrorKind::Failed | ErrorKind::Hostile | ErrorKind::System => Self::Unknown,
            ErrorKind::Invalid => Self::InvalidArgument,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Exists => Self::AlreadyExists,
            ErrorKind::Denied => Self::PermissionDenied,
            ErrorKind::Exhausted => Self::ResourceExhausted,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::TimedOut => Self::DeadlineExceeded,
            ErrorKind::Cancelled => Self::Canceled,
            ErrorKind::Unsupported => Self::Unimplemented,
            ErrorKind::Bug => Self::Internal,
        }
    }

    /// What a build answers that fails with an error of this kind.
    ///
    /// The reference answers most of them as unknown (`grpcerrors.Code`: only errors that carry a code, and those of a system
    /// that is used up, have another), and its clients print every other code before the sentence.
    #[must_use]
    pub fn of_build(kind: oci::ErrorKind) -> Self {
        use oci::ErrorKind;
        match kind {
            ErrorKind::Failed
            | ErrorKind::Invalid
            | ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::Denied
            | ErrorKind::Hostile
            | ErrorKind::Unavailable
            | ErrorKind::TimedOut
            | ErrorKind::System => Self::Unknown,
            ErrorKind::Exhausted => Self::ResourceExhausted,
            ErrorKind::Cancelled => Self::Canceled,
            ErrorKind::Unsupported => Self::Unimplemented,
            ErrorKind::Bug => Self::Internal,
        }
    }

    /// The kind of an error of which only this is known.
    fn cause(self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Unknown => ErrorKind::Failed,
            Self::Canceled => ErrorKind::Cancelled,
            Self::InvalidArgument => ErrorKind::Invalid,
            Self::DeadlineExceeded => ErrorKind::TimedOut,
            Self::NotFound => ErrorKind::NotFound,
            Self::AlreadyExists => ErrorKind::Exists,
            Self::PermissionDenied => ErrorKind::Denied,
            Self::ResourceExhausted => ErrorKind::Exhausted,
            Self::Unimplemented => ErrorKind::Unsupported,
            Self::Internal => ErrorKind::Bug,
            Self::Unavailable => ErrorKind::Unavailable,
        }
    }
}

/// Why a call failed: a sentence, and facts that clients print or act on.
#[derive(Debug, Clone, Default, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure, for the client's program.
    pub kind: FailureKind,
    /// What kind of error it was here: it decides who is to look, and what the log says.
    pub cause: oci::ErrorKind,
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
            cause: kind.cause(),
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// The failure of a call, from the kind of its error.
    #[must_use]
    pub fn of_call(cause: oci::ErrorKind, message: impl Into<String>) -> Self {
        Self {
            cause,
            ..Self::new(FailureKind::of_call(cause), message)
        }
    }

    /// The failure of a build, from the kind of its error.
    #[must_use]
    pub fn of_build(cause: oci::ErrorKind, message: impl Into<String>) -> Self {
        Self {
            cause,
            ..Self::new(FailureKind::of_build(cause), message)
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
